//! One seed's life: a few sites, sessions between their hosts, faults and attacks for some seconds, healing; then what is
//! asked of every life at its end.

mod judged;
mod several;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{
    ConnectionId, Fault, Faults, Host, HostId, Oracle, Plan, ProviderId, RTO_MAX, Recording, SiteId, SitePlan,
    StreamId, Violation, Way, World, bound,
};
use crate::config::{Hosts, Site};
use crate::time::Instant;

/// How a life went.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What went wrong on purpose.
    pub faults: Faults,
    /// What must not be, and was.
    pub violations: Vec<Violation>,
    /// How long the life was.
    pub time: Duration,
    /// Packets of sessions that arrived, and octets of TCP.
    pub moved: (u64, u64),
}

/// Lives one life. A panic in it is a violation like any other.
pub fn live(seed: u64) -> Report {
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut life = Life::new(seed);
        life.live();
        life.report()
    }));
    lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        let violation = Violation { at: Instant::START, site: None, oracle: Oracle::Consistent, text };
        let faults = Faults::default();
        Report { seed, faults, violations: vec![violation], time: Duration::ZERO, moved: (0, 0) }
    })
}

/// Lives one life with every box recorded.
pub fn record(seed: u64) -> Vec<Recording> {
    let mut life = Life::with(seed, true);
    life.live();
    life.world.recordings()
}

/// Lives one life and tells what happened in it, line by line, in order of time.
pub fn tell(seed: u64) -> (Report, Vec<String>) {
    let mut life = Life::new(seed);
    life.world.watched = Some(Vec::new());
    life.live();
    let world = &life.world;
    let mut lines: Vec<(Instant, String)> = Vec::new();
    let sites = world.nodes.iter().enumerate();
    lines.extend(sites.map(|(site, node)| (Instant::START, format!("site {site}: {:?}", node.site().shim6))));
    let hosts = world.hosts.iter().enumerate();
    lines.extend(hosts.map(|(id, host)| {
        (Instant::START, format!("host {id} of site {}: {} {:?}", host.site, host.ulid, host.locators))
    }));
    lines.extend(life.events.iter().map(|(at, text)| (*at, format!("*** {text}"))));
    lines.extend(world.stories.iter().map(|(at, site, story)| (*at, format!("site {site}: {story:?}"))));
    lines.extend(world.captured.iter().map(|it| {
        let (source, target) = it.addresses;
        (it.at, format!("provider {}: {source} to {target}: {:?}", it.provider, it.message))
    }));
    lines.extend(world.watched.iter().flatten().cloned());
    lines.extend(world.violations.iter().map(|it| (it.at, format!("!!! {it}"))));
    lines.sort_by_key(|(at, _)| *at);
    let lines = lines.into_iter().map(|(at, text)| format!("{:>12.6} {text}", at.0.as_secs_f64())).collect();
    (life.report(), lines)
}

use several::Several;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const BOTH: &[Way] = &[Way::Out, Way::In];
/// How long a session may take to have every packet delivered in a network without faults.
const FLIGHT: Duration = ms(500);
/// Pace of streams while a provider fails that need not be missed.
const DETOUR: Duration = ms(250);
/// Pace of streams while nothing is asked of them.
const SLOW: Duration = ms(2000);

/// Boxes offer UDP in one life of four.
const UDP: &str = "\nudp_encapsulation = true\n";

/// Boxes watch paths in one life of four.
const LIVENESS: &str = "enabled = true";

/// Some of the sessions have contexts of their own in one life of five.
const CLASSES: &str = "[[fork]]\nname = \"some\"\nprotocol = \"udp\"\nsource_ports = [\"1024\", \"1026\"]\n\
                       providers = [\"isp-{site}-{last}\"]\n\
                       [[fork]]\nname = \"others\"\nprotocol = \"tcp\"\nproviders = [\"isp-{site}-1\"]\n";

struct Life {
    world: World,
    rng: StdRng,
    streams: Vec<StreamId>,
    /// Their pace when it matters.
    paces: Vec<Duration>,
    connections: Vec<ConnectionId>,
    /// Where somebody listens.
    listened: Option<ProviderId>,
    /// The machine that has a host's identity after it, and whether its box does not know who had it before.
    heir: Option<HostId>,
    forgotten: bool,
    /// Streams of the host that is gone; peers that do not know go on.
    over: Vec<StreamId>,
    /// Its connections.
    ended: Vec<ConnectionId>,
    lied: bool,
    /// Whether boxes offer UDP, so that paths may drop what has a Shim6 header.
    udp: bool,
    /// Sites with several boxes.
    several: Vec<Several>,
    events: Vec<(Instant, String)>,
}

impl Life {
    fn new(seed: u64) -> Life {
        Life::with(seed, false)
    }

    fn with(seed: u64, recorded: bool) -> Life {
        let mut rng = StdRng::seed_from_u64(seed);
        let sections = if seed % 5 == 2 { CLASSES.to_owned() } else { String::new() };
        let mut plan = Plan { sections, recorded, ..plan(&mut rng) };
        let udp = seed % 8 > 5;
        if udp {
            plan.shim6 += UDP;
        }
        if seed % 4 == 2 {
            plan.liveness = LIVENESS.to_owned();
        }
        let world = World::new(&plan, seed);
        let mut life = Life {
            world,
            rng,
            streams: Vec::new(),
            paces: Vec::new(),
            connections: Vec::new(),
            listened: None,
            heir: None,
            forgotten: false,
            over: Vec::new(),
            ended: Vec::new(),
            lied: false,
            udp,
            several: Vec::new(),
            events: Vec::new(),
        };
        if !recorded {
            life.have_several(seed);
        }
        life
    }

    fn report(&self) -> Report {
        let world = &self.world;
        let packets = world.streams.iter().map(|stream| stream.arrivals.len() as u64).sum();
        let octets = world.connections.iter().flat_map(|it| &it.ends).map(|end| end.read).sum();
        Report {
            seed: world.seed(),
            faults: world.faults.clone(),
            violations: world.violations.clone(),
            time: world.now.0,
            moved: (packets, octets),
        }
    }

    fn upto(&mut self, bound: u32) -> u32 {
        self.rng.next_u32() % bound
    }

    fn pick(&mut self, count: usize) -> usize {
        self.upto(count as u32) as usize
    }

    fn note(&mut self, text: String) {
        self.events.push((self.world.now, text));
    }

    fn live(&mut self) {
        self.begin();
        if self.world.seed() % 8 == 3 {
            let alone = |site: &SiteId| self.several.iter().all(|it| it.site != *site);
            let sites: Vec<SiteId> = (0..self.world.nodes.len()).filter(alone).collect();
            sites.into_iter().for_each(|site| self.world.begin_succession(site));
        }
        for _ in 0..1 + self.upto(8) {
            let wait = ms(u64::from(self.upto(2500)));
            self.world.run(wait);
            self.trouble();
            if self.udp {
                self.drop_headers();
            }
            self.trouble_boxes();
            self.check();
        }
        let wait = ms(u64::from(self.upto(3000)));
        self.world.run(wait);
        self.heal();
        self.rest();
        self.detour();
        self.end();
        self.again();
    }

    /// Sessions begin in a network without faults, so nothing of them may get lost.
    fn begin(&mut self) {
        let since = self.world.now;
        let start = ms(u64::from(self.upto(200)));
        let (listens, provider) = (self.upto(2) == 0, self.pick(self.world.providers.len()));
        if listens {
            self.listen(provider);
        }
        self.world.run(start);
        let since = since.max(self.settled_from(self.world.now, ms(500)));
        let hosts = self.world.hosts.len();
        for _ in 0..2 + self.upto(3) {
            let (from, to) = self.two_hosts(hosts);
            let pace = ms([50, 100, 250, 500][self.pick(4)]);
            let stream = self.world.stream(from, to, pace);
            self.streams.push(stream);
            self.paces.push(pace);
        }
        for _ in 0..1 + self.upto(2) {
            let (from, to) = self.two_hosts(hosts);
            let (pace, most) = (ms([250, 400, 700][self.pick(3)]), [200, 1200, 4000][self.pick(3)]);
            let connection = self.world.connect(from, to, pace, most);
            self.connections.push(connection);
        }
        self.world.run(ms(1000));
        let until = self.world.now;
        self.world.run(FLIGHT);
        self.calm(since, until);
        self.check();
    }

    /// Two hosts of different sites.
    fn two_hosts(&mut self, hosts: usize) -> (HostId, HostId) {
        loop {
            let (from, to) = (self.pick(hosts), self.pick(hosts));
            if self.world.hosts[from].site != self.world.hosts[to].site {
                return (from, to);
            }
        }
    }

    /// Something happens.
    fn trouble(&mut self) {
        let provider = self.pick(self.world.providers.len());
        let site = self.pick(self.world.nodes.len());
        let way = [Way::Out, Way::In][self.pick(2)];
        let amount = 1 + self.upto(29);
        let kind = self.upto(24);
        self.note(format!("trouble {kind} at provider {provider} {way:?}, site {site}, {amount}"));
        let Life { world, rng, .. } = self;
        match kind {
            0 if amount.is_multiple_of(2) => world.unplug(provider),
            0 => world.cut(provider, BOTH),
            1 => world.cut(provider, &[way]),
            2 | 3 => world.heal(provider),
            4 => world.leg(provider, way).loss = amount,
            5 => world.all_legs(|leg| leg.loss = amount / 2),
            6 => world.leg(provider, way).duplicates = amount,
            7 => world.leg(provider, way).jitter = ms(u64::from(amount) * 5),
            8 => world.all_legs(|leg| leg.jitter = ms(u64::from(amount) * 2)),
            9 => world.leg(provider, way).delay = ms(u64::from(amount) * 10),
            10 => world.set_router(provider, amount > 20),
            11 => {
                let mtu = 1288 + amount as usize * 7;
                (0..world.providers.len()).step_by(1 + provider % 2).for_each(|provider| world.shrink(provider, mtu));
            }
            12 | 13 if self.several.iter().any(|it| it.site == site) => self.kill_one(site),
            12 | 13 if world.seed() % 8 == 3 => self.succeed(site),
            12 | 13 => self.restart(site),
            14 => world.pause(site, ms(u64::from(amount) * 150)),
            15 => world.step(site, ms([100, 700, 12_000][amount as usize % 3] * u64::from(amount))),
            16 | 17 => (0..amount).for_each(|_| world.forge_any(rng)),
            18 => self.listen(provider),
            19 => self.each_heard(amount, World::replay),
            20 => self.each_heard(amount, World::pretend),
            21 => {
                let all: Vec<ProviderId> =
                    (0..world.providers.len()).filter(|it| world.providers[*it].site == site).collect();
                all.into_iter().for_each(|provider| world.cut(provider, BOTH));
            }
            22 => {
                let host = self.pick(self.world.hosts.len());
                if !std::mem::replace(&mut self.lied, true) {
                    self.world.lie(host, amount, &mut self.rng);
                }
            }
            _ => self.give_away(),
        }
    }

    /// A path begins to drop what has a Shim6 header, or ceases to, in one life of four.
    fn drop_headers(&mut self) {
        let (provider, way) = (self.pick(self.world.providers.len()), [Way::Out, Way::In][self.pick(2)]);
        let kind = self.upto(6);
        if kind < 4 {
            self.note(format!("headers {kind} at provider {provider} {way:?}"));
        }
        match kind {
            0 | 1 => self.world.leg(provider, way).drops_shim6 = kind == 0,
            2 | 3 => self.world.all_legs(|leg| leg.drops_shim6 = kind == 2),
            _ => {}
        }
    }

    /// In some lives boxes are not killed: a new process, which was told things since the last time, takes over, and the
    /// next one comes.
    fn succeed(&mut self, site: SiteId) {
        if self.world.nodes[site].is_paused(self.world.now) {
            return;
        }
        if self.world.nodes[site].has_heir() {
            self.world.end_succession(site);
            self.forget_gone(site);
        }
        self.world.begin_succession(site);
    }

    fn restart(&mut self, site: SiteId) {
        self.world.restart(site);
        self.forget_gone(site);
    }

    /// Another process serves a site, which does not know who was gone.
    fn forget_gone(&mut self, site: SiteId) {
        if self.heir.is_some_and(|heir| self.world.hosts[heir].site == site) {
            self.forgotten = true;
        }
    }

    /// Somebody listens at a provider from now on.
    fn listen(&mut self, provider: ProviderId) {
        self.world.listen(provider);
        self.listened = Some(provider);
    }

    fn each_heard(&mut self, times: u32, act: fn(&mut World, ProviderId, &mut dyn Rng)) {
        let Some(listened) = self.listened else { return };
        (0..times).for_each(|_| act(&mut self.world, listened, &mut self.rng));
    }

    /// A host leaves, and its operator gives its identity to another machine at once. Its sessions are over; what peers
    /// still send must not reach the new one.
    fn give_away(&mut self) {
        let gone = self.pick(self.world.hosts.len());
        if self.heir.is_some() {
            return;
        }
        let Host { site, ulid, .. } = self.world.hosts[gone];
        if self.world.nodes[site].all().any(|node| node.is_paused(self.world.now)) {
            return;
        }
        // What a box does not know it cannot keep apart: until it has found a host on its link, any machine may be that host.
        let known = self.world.nodes[site].all().all(|node| node.knows(ulid));
        let before = self.world.nodes[site].configuration().1.clone();
        let without = |_: &mut Site, hosts: &mut Hosts| hosts.list_mut().retain(|host| host.identity.ulid.0 != ulid);
        if let Err(error) = self.world.reload(site, without) {
            return self.world.violation(Some(site), Oracle::Consistent, format!("a host may not go: {error}"));
        }
        let heir = self.world.replace_machine(gone);
        if let Err(error) = self.world.reload(site, |_, hosts| *hosts = before) {
            return self.world.violation(Some(site), Oracle::Consistent, format!("a host may not come: {error}"));
        }
        self.world.faults.count(Fault::Moved);
        (self.heir, self.forgotten) = (Some(heir), !known);
        let World { streams, connections, .. } = &self.world;
        let of = |stream: &StreamId| [streams[*stream].from, streams[*stream].to].contains(&gone);
        let on = |id: &ConnectionId| connections[*id].ends.iter().any(|end| end.host == gone);
        self.paces = self.streams.iter().zip(&self.paces).filter(|(id, _)| !of(id)).map(|(_, pace)| *pace).collect();
        self.over = self.streams.extract_if(.., |id| of(id)).collect();
        self.ended = self.connections.extract_if(.., |id| on(id)).collect();
        self.ended.iter().for_each(|id| self.world.abandon(*id));
    }

    /// Faults heal, and sessions go on within the bound.
    fn heal(&mut self) {
        self.note("all is well again".to_owned());
        self.world.mend();
        self.mend_boxes();
        let since = self.world.now;
        let slowest = self.paces.iter().max().copied().unwrap_or_default();
        let sites = self.world.nodes.iter().map(|node| bound::recovery(node.site()));
        let limit = sites.max().unwrap_or_default() + slowest;
        let read = |world: &World, id: ConnectionId| world.connections[id].ends.iter().map(|end| end.read).sum::<u64>();
        let before: Vec<u64> = self.connections.iter().map(|id| read(&self.world, *id)).collect();
        let mut late: Vec<String> = Vec::new();
        // TCP may have to wait for its own timer, too.
        for (limit, what) in [(limit, "stream"), (limit + RTO_MAX, "connection")] {
            loop {
                let world = &self.world;
                let waiting: Vec<usize> = match what {
                    "stream" => self.streams.iter().copied().filter(|id| !world.streams[*id].is_back(since)).collect(),
                    _ => (0..before.len()).filter(|at| read(world, self.connections[*at]) <= before[*at]).collect(),
                };
                if waiting.is_empty() {
                    break;
                }
                if world.now.since(since) > limit {
                    let all = self.connections.iter().map(|id| self.world.describe(*id));
                    let how = all.collect::<Vec<String>>().join("; ");
                    late.push(format!("{what} {waiting:?} not back {limit:?} after {since:?}: {how}"));
                    break;
                }
                self.world.run(ms(100));
            }
        }
        late.into_iter().for_each(|text| self.world.violation(None, Oracle::Liveness, text));
        self.note("sessions are back".to_owned());
    }

    /// All of it comes to rest: no second outage, no second context, nothing lost any more.
    fn rest(&mut self) {
        self.streams.iter().for_each(|id| self.world.streams[*id].interval = SLOW);
        self.connections.iter().for_each(|id| self.world.connections[*id].interval = SLOW);
        let wait = self.world.nodes.iter().map(|node| bound::settled(node.site())).max();
        self.world.run(wait.unwrap_or_default());
        self.check();
        self.streams.iter().for_each(|id| self.world.stop(*id));
        self.world.run(SLOW);
        self.streams.iter().zip(&self.paces).for_each(|(id, pace)| self.world.resume(*id, *pace));
        let since = self.world.now;
        self.world.run(ms(1500));
        let until = self.world.now;
        self.world.run(FLIGHT);
        self.calm(since, until);
    }

    /// One of several providers fails, and sessions find another way within REAP's bound.
    fn detour(&mut self) {
        let World { providers, hosts, faults, .. } = &self.world;
        let of = |site: SiteId| providers.iter().filter(|provider| provider.site == site).count();
        let spared: Vec<ProviderId> = (0..providers.len()).filter(|id| of(providers[*id].site) > 1).collect();
        // Who knew the tags may have told a peer in a host's name that it has fewer locators than it has, and all of them
        // truly its own: the peer then knows of no other way until the context is set up anew (RFC 5533 §16).
        if spared.is_empty() || faults.of(Fault::Insider) > 0 {
            return;
        }
        let pairs = |id: &StreamId| {
            let [from, to] = [self.world.streams[*id].from, self.world.streams[*id].to];
            (hosts[from].locators.len() * hosts[to].locators.len()) as u32
        };
        let pairs = self.streams.iter().map(pairs).max().unwrap_or_default();
        let provider = spared[self.pick(spared.len())];
        let ways = [BOTH, BOTH, &[Way::Out], &[Way::In]][self.pick(4)];
        let sites = self.world.nodes.iter().map(|node| bound::detour(node.site(), pairs));
        let limit = sites.max().unwrap_or_default();
        self.note(format!("provider {provider} fails {ways:?}"));
        self.streams.iter().for_each(|id| self.world.streams[*id].interval = DETOUR);
        self.world.cut(provider, ways);
        let since = self.world.now;
        let waiting = |life: &Life| -> Vec<StreamId> {
            life.streams.iter().copied().filter(|id| !life.world.streams[*id].is_back(since)).collect()
        };
        while !waiting(self).is_empty() && self.world.now.since(since) <= limit {
            self.world.run(ms(100));
        }
        let late = waiting(self);
        if !late.is_empty() {
            let text =
                format!("no detour for streams {late:?} within {limit:?} after provider {provider} failed {ways:?}");
            self.world.violation(None, Oracle::Liveness, text);
        }
        self.note("sessions found another way".to_owned());
        self.world.heal(provider);
    }

    /// Sessions end as they should, and idle time leaves nothing behind.
    fn end(&mut self) {
        self.streams.iter().chain(&self.over).for_each(|id| self.world.stop(*id));
        self.connections.iter().for_each(|id| self.world.close(*id));
        for id in self.connections.clone() {
            for _ in 0..1200 {
                if self.world.is_closed(id) {
                    break;
                }
                self.world.run(ms(100));
            }
            let connection = &self.world.connections[id];
            if !connection.is_settled() || !self.world.is_closed(id) {
                let text = format!("did not end well: {}", self.world.describe(id));
                self.world.violation(None, Oracle::Octets, text);
            }
        }
        self.inherit();
        std::mem::take(&mut self.ended).into_iter().for_each(|id| self.world.reset(id));
        let idle = self.world.nodes.iter().map(|node| node.site().shim6.idle_context).max().unwrap_or_default();
        // Boxes of one site hear late of what another one saw used, so the two sites may end a context an eighth of that time apart;
        // whatever still watches its path brings it back then, once.
        let times = if self.several.is_empty() { 1 } else { 2 };
        (0..times).for_each(|_| self.world.run(idle + Duration::from_secs(90)));
        for site in 0..self.world.nodes.len() {
            let left: Vec<_> = self.world.nodes[site].all().flat_map(super::Node::leftovers).collect();
            if !left.is_empty() {
                self.world.violation(Some(site), Oracle::Leftovers, format!("{left:?}"));
            }
        }
    }

    /// And after the idle time everything can begin anew.
    fn again(&mut self) {
        let since = self.settled_from(self.world.now, ms(200));
        self.streams.iter().for_each(|id| self.world.resume(*id, ms(200)));
        self.world.run(ms(500));
        let until = self.world.now;
        self.streams.iter().for_each(|id| self.world.stop(*id));
        self.world.run(FLIGHT);
        self.calm(since, until);
        self.check();
    }
}

fn plan(rng: &mut StdRng) -> Plan {
    let mut upto = |bound: u32| rng.next_u32() % bound;
    let mut site = || SitePlan {
        hosts: 1 + upto(2) as u16,
        providers: 1 + upto(3) as u16,
        workers: [1, 1, 1, 2][upto(4) as usize],
    };
    let mut sites = vec![site(), site()];
    if upto(4) == 0 {
        sites.push(SitePlan { hosts: 1, providers: 1 + upto(2) as u16, workers: 1 });
    }
    let strict = upto(4) == 0;
    Plan {
        shared: false,
        sites,
        send_timeout_s: [3, 3, 5, 15][upto(4) as usize],
        contexts_max: 64,
        hold_pairs: 16,
        liveness: String::new(),
        shim6: format!("strict_locators = {strict}"),
        order: None,
        standby: true,
        sections: String::new(),
        elsewhere: Vec::new(),
        open: Vec::new(),
        key: None,
        proofs_take: Duration::ZERO,
        plain: Vec::new(),
        recorded: false,
    }
}
