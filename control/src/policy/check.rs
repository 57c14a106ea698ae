//! From what the file said to what can be obeyed. All that is wrong is told at once, with file, line and field.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use dataplane::snapshot::{CLASSES_MAX as FORKS_MAX, ClassView, has_ports};

use super::file::{
    BillingFile, ClassFile, DefaultFile, FailBackFile, MatchFile, PolicyFile, ProviderFile, RuleFile, SplitFile,
    VERSION, WindowFile,
};
use super::matching::{Class, PairMatch};
use super::place::Places;
use super::rule::{AVOIDED, NEVER, ORDINARY, PREFERRED, Rule, Split};
use super::window::{DAY, Window, Windows, offset, time_of_day};
use super::{CLASSES_MAX, Direction, FailBack, Policy, Terms};
use crate::config::{Configuration, Hosts, Prefix, Problem, Problems, Site, code_point, port_range, upper_layer};

/// Octets a second in a megabit a second.
const MBPS: f64 = 125_000.0;
/// The most of anything in megabits a second: ten terabits.
const MBPS_MAX: f64 = 10_000_000.0;
/// Part of a provider's capacity that is filled before the next one's turn, if it is not said.
const FILL: f64 = 0.8;
/// What the class of everything else is called.
const DEFAULT: &str = "default";
/// The prefix of a provider whose own is not known yet: no locator's.
const UNKNOWN: u64 = 0;

impl Policy {
    /// The policy that a configuration came with, if there is one.
    pub fn of(configuration: &Configuration) -> Result<Option<(Policy, PolicyFile)>, Problems> {
        let (site, hosts) = (&configuration.site, &configuration.hosts);
        let text = configuration.policy.as_ref();
        text.map(|text| Policy::parse(&site.node.policy_file, text, site, hosts)).transpose()
    }

    /// Checks `text` as the contents of `file`, for a site and its static hosts.
    pub fn parse(file: &Path, text: &str, site: &Site, hosts: &Hosts) -> Result<(Policy, PolicyFile), Problems> {
        let places = Places::of(text);
        let mut check = Check { file, places: &places, site, hosts, problems: Vec::new() };
        let said = match serde_json::from_str::<PolicyFile>(text) {
            Ok(said) => said,
            Err(error) => {
                let field = places.field_at(error.line(), error.column()).to_owned();
                let words = error.to_string();
                let words = words.split(" at line ").next().unwrap_or_default().to_owned();
                let place = crate::config::Place { line: error.line().max(1), column: error.column().max(1) };
                return Err(Problem { file: file.to_path_buf(), place: Some(place), field, text: words }.into());
            }
        };
        let policy = check.policy(&said);
        for (field, place) in places.repeated() {
            let text = "stands twice".to_owned();
            check.problems.push(Problem {
                file: file.to_path_buf(),
                place: Some(place),
                field: field.to_owned(),
                text,
            });
        }
        check.problems.sort_by_key(|problem| problem.place);
        match check.problems.is_empty() {
            true => Ok((policy, said)),
            false => Err(Problems(check.problems)),
        }
    }
}

struct Check<'a> {
    file: &'a Path,
    places: &'a Places<'a>,
    site: &'a Site,
    hosts: &'a Hosts,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, field: &str, text: impl Into<String>) {
        let place = Some(self.places.place(field));
        self.problems.push(Problem {
            file: self.file.to_path_buf(),
            place,
            field: field.to_owned(),
            text: text.into(),
        });
    }

    fn policy(&mut self, said: &PolicyFile) -> Policy {
        if said.version != VERSION {
            self.problem("version", format!("{} is not a version this box knows: {VERSION}", said.version));
        }
        let utc_offset = said.utc_offset.as_deref().map(|text| match offset(text) {
            Some(seconds) => seconds,
            None => {
                self.problem("utc_offset", format!("\"{text}\" is no offset, as +01:00, of at most 14 hours"));
                0
            }
        });
        let limits = said.limits.clone().unwrap_or_default();
        let moves = self.number("limits.moves_per_s", limits.moves_per_s.map(f64::from), (1.0, 5000.0), 500.0);
        let tolerance = self.number("limits.tolerance_percent", limits.tolerance_percent, (0.1, 50.0), 0.5);
        let rest = self.number("limits.rest_s", limits.rest_s.map(f64::from), (1.0, 3600.0), 15.0);
        for name in said.providers.keys().filter(|name| self.way(name).is_none()).cloned().collect::<Vec<_>>() {
            self.problem(&format!("providers.{name}"), self.no_provider(&name));
        }
        // Those whose prefix is not known yet are ways as well, and never up.
        let open = self.waiting().map(|name| (name.to_owned(), UNKNOWN));
        let names: Vec<(String, u64)> = self.site.providers.iter().map(named).chain(open).collect();
        let ways: Vec<Terms> = names
            .into_iter()
            .map(|(name, prefix)| self.terms(&name, prefix, &said.providers.get(&name).cloned().unwrap_or_default()))
            .collect();
        if !ways.is_empty() && ways.iter().all(|way| way.drain) {
            self.problem("providers", "every provider is drained, and nothing would be left to drain to");
        }
        let sites = self.sites(&said.sites);
        let mut classes: Vec<Class> =
            said.classes.iter().enumerate().map(|(at, class)| self.class(at, class, &sites, &ways)).collect();
        self.class_names(said);
        self.forks(&classes);
        let default = said.default.clone().unwrap_or_default();
        classes.push(self.default_class(&default, &ways));
        Policy {
            ways,
            classes,
            moves_per_s: moves as u32,
            tolerance: tolerance / 100.0,
            rest: Duration::from_secs(rest as u64),
            utc_offset: utc_offset.unwrap_or_default(),
        }
    }

    fn number(&mut self, field: &str, said: Option<f64>, (least, most): (f64, f64), unsaid: f64) -> f64 {
        match said {
            None => unsaid,
            Some(number) if (least..=most).contains(&number) => number,
            Some(number) => {
                self.problem(field, format!("{number} is not within {least} and {most}"));
                unsaid
            }
        }
    }

    fn way(&self, name: &str) -> Option<usize> {
        let known = self.site.providers.iter().map(|provider| provider.name.as_str());
        known.chain(self.waiting()).position(|known| known == name)
    }

    /// Providers whose prefix is not known yet.
    fn waiting(&self) -> impl Iterator<Item = &str> {
        let known = |name: &str| self.site.providers.iter().any(|provider| provider.name == name);
        self.site.uplinks.iter().map(|uplink| uplink.name.as_str()).filter(move |name| !known(name))
    }

    fn no_provider(&self, name: &str) -> String {
        let known = self.site.providers.iter().map(|it| it.name.as_str());
        let names: Vec<&str> = known.chain(self.waiting()).collect();
        format!("there is no provider called \"{name}\"; site.toml has {}", names.join(", "))
    }

    fn terms(&mut self, name: &str, prefix: u64, said: &ProviderFile) -> Terms {
        let field = |of: &str| format!("providers.{name}.{of}");
        let positive = (0.001, MBPS_MAX);
        let mut rate = |of: &str, said: Option<f64>, range| {
            said.map(|number| self.number(&field(of), Some(number), range, range.0) * MBPS)
        };
        let out = rate("capacity_mbps", said.capacity_mbps, positive);
        let inward = rate("capacity_in_mbps", said.capacity_in_mbps, positive).or(out);
        let commit = rate("commit_mbps", said.commit_mbps, (0.0, MBPS_MAX)).unwrap_or_default();
        let cost = self.number(&field("cost"), said.cost, (0.0, 1e9), 0.0);
        if out.is_some_and(|out| commit > out) {
            self.problem(&field("commit_mbps"), "is more than fits through the provider");
        }
        if said.billing == Some(BillingFile::Percentile95) && said.commit_mbps.is_none() && said.cost.is_none() {
            self.problem(&field("billing"), "says nothing without cost or commit_mbps");
        }
        let percentile = said.billing == Some(BillingFile::Percentile95);
        Terms { name: name.to_owned(), prefix, capacity: [out, inward], cost, commit, percentile, drain: said.drain }
    }

    fn sites(&mut self, said: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<Prefix>> {
        let mut sites = BTreeMap::new();
        for (name, list) in said {
            if list.is_empty() {
                self.problem(&format!("sites.{name}"), "names no prefix");
            }
            let prefixes = list.iter().enumerate().filter_map(|(at, text)| {
                let prefix = prefix_or_address(text);
                if prefix.is_none() {
                    self.problem(&format!("sites.{name}[{at}]"), format!("\"{text}\" is neither prefix nor address"));
                }
                prefix
            });
            sites.insert(name.clone(), prefixes.collect());
        }
        sites
    }

    fn class_names(&mut self, said: &PolicyFile) {
        for (at, class) in said.classes.iter().enumerate() {
            let field = format!("classes[{at}].name");
            if class.name.is_empty() || class.name == DEFAULT {
                self.problem(&field, format!("\"{}\" cannot be the name of a class", class.name));
            } else if said.classes[..at].iter().any(|earlier| earlier.name == class.name) {
                self.problem(&field, format!("there is a class called \"{}\" already", class.name));
            }
        }
        if said.classes.len() > CLASSES_MAX {
            self.problem("classes", format!("{} classes; there may be {CLASSES_MAX}", said.classes.len()));
        }
    }

    /// Classes that look at packets need forked contexts, which are numbered with those of site.toml; and a class that comes
    /// after one which takes all it could have is a mistake.
    fn forks(&mut self, classes: &[Class]) {
        let forks = self.site.forks.len() + classes.iter().filter(|class| class.packets.is_some()).count();
        if forks > FORKS_MAX {
            let text =
                format!("{forks} classes look at packets, those of site.toml included; there may be {FORKS_MAX}");
            self.problem("classes", text);
        }
        for (at, class) in classes.iter().enumerate() {
            let takes = |earlier: &&Class| earlier.packets.is_none() && class.pairs.is_within(&earlier.pairs);
            if let Some(earlier) = classes[..at].iter().find(takes) {
                let text = format!("gets nothing: \"{}\" before it takes all of it", earlier.name);
                self.problem(&format!("classes[{at}].match"), text);
            }
        }
    }

    fn class(&mut self, at: usize, said: &ClassFile, sites: &BTreeMap<String, Vec<Prefix>>, ways: &[Terms]) -> Class {
        let field = format!("classes[{at}]");
        let (pairs, packets) = self.fits(&format!("{field}.match"), &said.fits, sites);
        let rules = self.rules(&field, [&said.out, &said.inward, &said.both], ways);
        let windows = self.windows(&format!("{field}.windows"), &said.windows, ways);
        if rules.iter().all(Option::is_none) && said.windows.is_empty() && said.a_records.is_none() {
            self.problem(&field, "says nothing of where its traffic goes: out, in, both or windows");
        }
        if packets.is_some() && said.a_records.is_some() {
            self.problem(&format!("{field}.a_records"), "nobody knows of a question what packets will follow");
        }
        let fail_back = self.fail_back(&format!("{field}.fail_back"), said.fail_back);
        Class { name: said.name.clone(), pairs, packets, rules, windows, fail_back, a_records: said.a_records }
    }

    fn default_class(&mut self, said: &DefaultFile, ways: &[Terms]) -> Class {
        let rules = self.rules(DEFAULT, [&said.out, &said.inward, &said.both], ways);
        let windows = self.windows("default.windows", &said.windows, ways);
        let fail_back = self.fail_back("default.fail_back", said.fail_back);
        let (name, pairs, a_records) = (DEFAULT.into(), PairMatch::default(), said.a_records);
        Class { name, pairs, packets: None, rules, windows, fail_back, a_records }
    }

    fn fail_back(&mut self, field: &str, said: Option<FailBackFile>) -> FailBack {
        match said {
            None | Some(FailBackFile::AtOnce) => FailBack::AtOnce,
            Some(FailBackFile::AfterS(seconds)) => {
                self.number(&format!("{field}.after_s"), Some(seconds.into()), (1.0, 604_800.0), 1.0);
                FailBack::After(Duration::from_secs(seconds.into()))
            }
            Some(FailBackFile::NewSessions) => FailBack::NewSessions,
            Some(FailBackFile::Never) => FailBack::Never,
        }
    }

    fn fits(
        &mut self,
        field: &str,
        said: &MatchFile,
        sites: &BTreeMap<String, Vec<Prefix>>,
    ) -> (PairMatch, Option<ClassView>) {
        let mut pairs = PairMatch::default();
        for (at, text) in said.hosts.iter().enumerate() {
            let named = self.hosts.iter().find(|host| host.name == *text).map(|host| of_one(host.identity.ulid.0));
            let own = self.site.prefix;
            match named.or_else(|| prefix_or_address(text)) {
                Some(prefix) if own.overlaps(prefix) => pairs.hosts.push(prefix),
                Some(prefix) => self.problem(&format!("{field}.hosts[{at}]"), format!("{prefix} is not in {own}")),
                None => {
                    let words = format!("\"{text}\" is neither a host's name nor prefix nor address");
                    self.problem(&format!("{field}.hosts[{at}]"), words);
                }
            }
        }
        for (at, text) in said.peers.iter().enumerate() {
            let mut named = self.site.peers.iter().filter(|peer| peer.name.as_ref() == Some(text));
            match named.next().map(|peer| of_one(peer.ulid.0)).or_else(|| prefix_or_address(text)) {
                Some(prefix) => pairs.peers.push(prefix),
                None => {
                    let words = format!("\"{text}\" is neither a peer's name nor prefix nor address");
                    self.problem(&format!("{field}.peers[{at}]"), words);
                }
            }
        }
        for (at, name) in said.sites.iter().enumerate() {
            match sites.get(name) {
                Some(prefixes) => pairs.peers.extend(prefixes),
                None => {
                    self.problem(&format!("{field}.sites[{at}]"), format!("there is no \"{name}\" in sites"));
                }
            }
        }
        (pairs, self.packets(field, said))
    }

    fn packets(&mut self, field: &str, said: &MatchFile) -> Option<ClassView> {
        let mut class = ClassView::default();
        if !said.dscp.is_empty() {
            class.code_points = 0;
        }
        for (at, text) in said.dscp.iter().enumerate() {
            match code_point(text) {
                Some(number) => class.code_points |= 1 << number,
                None => self.problem(&format!("{field}.dscp[{at}]"), format!("\"{text}\" is no code point")),
            }
        }
        if let Some(text) = &said.protocol {
            class.protocol = upper_layer(text);
            if class.protocol.is_none() {
                self.problem(&format!("{field}.protocol"), format!("\"{text}\" is no protocol"));
            }
        }
        for (at, text) in said.ports.iter().enumerate() {
            match port_range(text) {
                Some(range) => class.ports.push(range),
                None => {
                    let words = format!("\"{text}\" is neither a port, as 80, nor a range, as 5000-5999");
                    self.problem(&format!("{field}.ports[{at}]"), words);
                }
            }
        }
        if !said.ports.is_empty() && class.protocol.is_some_and(|it| !has_ports(it)) {
            self.problem(&format!("{field}.ports"), "the protocol has no ports");
        }
        (class != ClassView::default()).then_some(class)
    }

    fn rules(&mut self, field: &str, said: [&Option<RuleFile>; 3], ways: &[Terms]) -> [Option<Rule>; 2] {
        let [out, inward, both] = said;
        if both.is_some() && (out.is_some() || inward.is_some()) {
            self.problem(&format!("{field}.both"), "stands for out and in, which stand here too");
        }
        let mut one = |own: &Option<RuleFile>, name: &str, direction| match (own, both) {
            (Some(said), _) => Some(self.rule(&format!("{field}.{name}"), said, direction, ways)),
            (None, Some(said)) => Some(self.rule(&format!("{field}.both"), said, direction, ways)),
            (None, None) => None,
        };
        let rules = [one(out, "out", Direction::Out), one(inward, "in", Direction::In)];
        self.problems.dedup();
        rules
    }

    fn rule(&mut self, field: &str, said: &RuleFile, direction: Direction, ways: &[Terms]) -> Rule {
        let mut tiers = vec![ORDINARY; ways.len()];
        for (list, name, tier) in
            [(&said.prefer, "prefer", PREFERRED), (&said.avoid, "avoid", AVOIDED), (&said.never, "never", NEVER)]
        {
            for (at, provider) in list.iter().enumerate() {
                let place = format!("{field}.{name}[{at}]");
                match self.way(provider) {
                    Some(way) if tiers[way] == ORDINARY => tiers[way] = tier,
                    Some(_) => self.problem(&place, format!("\"{provider}\" stands in this rule already")),
                    None => self.problem(&place, self.no_provider(provider)),
                }
            }
        }
        if let Some(provider) = &said.pin {
            let place = format!("{field}.pin");
            match self.way(provider) {
                Some(way) if tiers.iter().all(|tier| *tier == ORDINARY) => {
                    tiers = vec![NEVER; ways.len()];
                    tiers[way] = ORDINARY;
                }
                Some(_) => self.problem(&place, "leaves nothing to be preferred, avoided or never used"),
                None => self.problem(&place, self.no_provider(provider)),
            }
        }
        if !tiers.is_empty() && tiers.iter().all(|tier| *tier == NEVER) {
            self.problem(&format!("{field}.never"), "leaves no provider at all");
        }
        let split = self.split(&format!("{field}.split"), said, direction, ways);
        Rule { split, tiers }
    }

    fn split(&mut self, field: &str, said: &RuleFile, direction: Direction, ways: &[Terms]) -> Split {
        let capacities: Vec<Option<f64>> = ways.iter().map(|way| way.capacity[direction.index()]).collect();
        let unknown = ways.iter().zip(&capacities).find(|(_, it)| it.is_none()).map(|(way, _)| way.name.clone());
        let known = || Split::Weights(capacities.iter().map(|it| it.unwrap_or(1.0)).collect());
        match &said.split {
            None if unknown.is_none() => known(),
            None => Split::Weights(vec![1.0; ways.len()]),
            Some(SplitFile::Capacity) => {
                if let Some(name) = unknown {
                    self.problem(
                        field,
                        format!("the capacity of \"{name}\" is not known: providers.{name}.capacity_mbps"),
                    );
                }
                known()
            }
            Some(SplitFile::Weights(said)) => {
                let mut weights = vec![0.0; ways.len()];
                for (name, weight) in said {
                    let place = format!("{field}.weights.{name}");
                    match self.way(name) {
                        Some(way) => weights[way] = self.number(&place, Some(*weight), (0.0, 1e6), 0.0),
                        None => self.problem(&place, self.no_provider(name)),
                    }
                }
                if said.values().all(|weight| *weight == 0.0) {
                    self.problem(&format!("{field}.weights"), "are all zero, and there is nothing to share by");
                }
                Split::Weights(weights)
            }
            Some(SplitFile::CheapestFirst(fill)) => {
                if let Some(name) = unknown {
                    let words = format!("cannot be filled: the capacity of \"{name}\" is not known");
                    self.problem(field, words);
                }
                let place = format!("{field}.cheapest_first.fill_percent");
                Split::CheapestFirst {
                    fill: self.number(&place, fill.fill_percent, (1.0, 100.0), FILL * 100.0) / 100.0,
                }
            }
        }
    }

    fn windows(&mut self, field: &str, said: &[WindowFile], ways: &[Terms]) -> Windows<[Option<Rule>; 2]> {
        let mut windows: Vec<(Window, [Option<Rule>; 2])> = Vec::new();
        for (at, window) in said.iter().enumerate() {
            let place = format!("{field}[{at}]");
            let rules = self.rules(&place, [&window.out, &window.inward, &window.both], ways);
            if rules.iter().all(Option::is_none) {
                self.problem(&place, "says nothing of where traffic goes: out, in or both");
            }
            let mut time = |name: &str, text: &str| {
                let time = time_of_day(text);
                if time.is_none() {
                    self.problem(
                        &format!("{place}.{name}"),
                        format!("\"{text}\" is no time of day, as 08:00 or 24:00"),
                    );
                }
                time
            };
            let (from, to) = (time("from", &window.from), time("to", &window.to));
            let (Some(from), Some(to)) = (from, to) else { continue };
            if from >= to || from >= DAY {
                let words = "ends before it begins; one that goes on after midnight is two windows";
                self.problem(&format!("{place}.to"), words);
                continue;
            }
            let days = window.days.iter().fold(0u8, |days, day| days | 1 << *day as u8);
            let this = Window { days: if window.days.is_empty() { 0x7f } else { days }, from, to };
            if let Some(other) = windows.iter().position(|(other, _)| other.overlaps(&this)) {
                self.problem(&place, format!("overlaps {field}[{other}]"));
            }
            windows.push((this, rules));
        }
        Windows::new(windows)
    }
}

fn named(provider: &crate::config::site::Provider) -> (String, u64) {
    (provider.name.clone(), u64::from_be_bytes(provider.prefix.high_half()))
}

fn of_one(address: Ipv6Addr) -> Prefix {
    // Every address has 128 bits.
    Prefix::of(address, 128).unwrap_or_else(|| unreachable!("an address is a prefix of its own length"))
}

fn prefix_or_address(text: &str) -> Option<Prefix> {
    text.parse().ok().or_else(|| text.parse().ok().map(of_one))
}

/// Where two policies differ: fields with what each says, nothing where one says nothing.
pub fn diff(old: &PolicyFile, new: &PolicyFile) -> Vec<(String, Option<String>, Option<String>)> {
    let flat = |file: &PolicyFile| {
        let mut fields = BTreeMap::new();
        flatten(&serde_json::to_value(file).unwrap_or_default(), String::new(), &mut fields);
        fields
    };
    let (old, new) = (flat(old), flat(new));
    let fields: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = fields.into_iter().filter(|field| old.get(*field) != new.get(*field));
    differ.map(|field| (field.clone(), old.get(field).cloned(), new.get(field).cloned())).collect()
}

fn flatten(value: &serde_json::Value, path: String, fields: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(value, format!("{path}{dot}{key}"), fields);
            }
        }
        serde_json::Value::Array(list) if list.iter().any(|it| it.is_object()) => {
            for (at, value) in list.iter().enumerate() {
                flatten(value, format!("{path}[{at}]"), fields);
            }
        }
        plain => _ = fields.insert(path, plain.to_string()),
    }
}
