//! One question of hosts while it is being answered: what has to be asked for it, and what the answers together say.
//!
//! A question for addresses asks for the ULID record at the same time. If there is one, the answer is its CMULA with the
//! smaller TTL; if not, the addresses as they came. Whoever cannot tell in time (some servers do not answer what they do not
//! know) is taken for not having one, since peers without ULID records have to resolve as ever; that is kept for a short
//! while only. Service records may carry addresses as hints; those are replaced for endpoints with a ULID record.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::{Locator, Ulid};
use hashbrown::HashMap;

use super::compose::{self, Data};
use super::counts::{Event, Note};
use super::follow::{End, follow};
use super::legacy::Legacy;
use super::message::{Answer, Flags, Key, Query};
use super::name::Name;
use super::view::{Question, View, kind, rcode};
use super::zone::{self, Zone};
use super::{Client, Config, Learned};
use crate::time::Instant;

/// How long addresses wait for the answer about the ULID record.
const GRACE: Duration = Duration::from_millis(1_000);
/// How long addresses are kept of which it is not known whether there is a ULID record, in seconds.
const UNKNOWN_TTL: u32 = 30;
/// Endpoints of service records that are looked up for one answer.
const TARGETS_MAX: usize = 4;
/// Identifiers and locators taken from one answer.
const ULIDS_MAX: usize = 8;
const LOCATORS_MAX: usize = 16;

/// The first number of an endpoint's question.
const FIRST_TARGET: u8 = 2;
const MAIN: u8 = 0;
const ULID: u8 = 1;

/// Who waits for the end of a job.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A host.
    Host(Client, Query),
    /// A lookup backwards, for the pointer of this identifier.
    Pointer(Ulid),
    /// The same, for the name it points to.
    Name(Ulid),
    /// Nobody yet: the answer will be wanted with another one.
    Ahead,
    /// A host that asked for IPv4 addresses, which are there since then: is there a CMULA for the name?
    Legacy(Box<Legacy>, Instant),
}

/// One of a job's questions.
#[derive(Debug)]
enum Part {
    /// Not asked, or no answer yet.
    Open,
    /// What was answered, and how many seconds ago.
    Known(Vec<u8>, u32),
    /// Nobody could tell.
    Failed,
}

/// How a question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Plain,
    Addresses,
    Services,
}

/// What follows for a job.
pub(super) enum Next {
    /// Nothing before another answer comes.
    Wait,
    /// The same, but not longer than this.
    WaitUntil(Instant),
    /// These questions have to be asked.
    Ask(Vec<(u8, Key)>),
    /// It has come to its end.
    Done(Outcome),
}

/// The end of a job.
#[derive(Default)]
pub(super) struct Outcome {
    /// None if nobody could tell.
    pub(super) answer: Option<Answer>,
    pub(super) learned: Option<Arc<Learned>>,
    /// The CMULAs it tells of.
    pub(super) named: Option<Arc<Named>>,
    /// What is counted and told of it.
    pub(super) events: Vec<Event>,
    pub(super) notes: Vec<Note>,
}

/// The CMULAs that an answer tells of.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) ulids: Vec<Ulid>,
    /// Who is behind them, with how long that is good for, in seconds.
    pub(super) learned: Option<(Arc<Learned>, u32)>,
    /// The same answer for hosts that shall know nothing else, if that is another one.
    pub(super) bare: Option<Answer>,
}

/// A question while it is being answered.
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) waiters: Vec<Waiter>,
    what: What,
    main: Part,
    ulid: Part,
    /// Whose ULID record was asked for in the end, if not that of the name itself.
    end: Option<Name>,
    targets: Vec<(Name, Part)>,
    /// Until when what else is to be known may be waited for.
    until: Instant,
    /// What `until` is booked as, if it is.
    pub(super) booked: Option<Instant>,
}

/// What a job goes by.
pub(super) struct Rules<'a> {
    pub(super) config: &'a Config,
    pub(super) zone: &'a Zone,
}

impl Job {
    /// A job with what has to be asked for it. Whoever validates by itself gets what was signed, as RFC 6147 §3 has it for
    /// another kind of rewriting.
    pub(super) fn new(key: Key, config: &Config) -> (Job, Vec<(u8, Key)>) {
        let Flags { dnssec_ok, checking_disabled } = key.flags;
        let what = match key.question.kind {
            _ if dnssec_ok && checking_disabled => What::Plain,
            kind::AAAA => What::Addresses,
            kind::SVCB | kind::HTTPS => What::Services,
            _ => What::Plain,
        };
        let mut asks = vec![(MAIN, key.clone())];
        if what == What::Addresses {
            asks.push((ULID, ulid_key(key.question.name.clone(), config)));
        }
        let (waiters, targets, until) = (Vec::new(), Vec::new(), Instant::START);
        let (main, ulid) = (Part::Open, Part::Open);
        (Job { key, waiters, what, main, ulid, end: None, targets, until, booked: None }, asks)
    }

    /// The question with this number has been answered, some seconds ago, or nobody could.
    pub(super) fn take(&mut self, now: Instant, number: u8, answer: Option<(Vec<u8>, u32)>) {
        let part = answer.map_or(Part::Failed, |(octets, age)| Part::Known(octets, age));
        match number {
            MAIN => (self.main, self.until) = (part, now + GRACE),
            ULID => self.ulid = part,
            target => {
                if let Some((_, place)) = self.targets.get_mut(usize::from(target - FIRST_TARGET)) {
                    *place = part;
                }
            }
        }
    }

    /// What follows from what is known.
    pub(super) fn next(&mut self, now: Instant, rules: &Rules<'_>) -> Next {
        let octets = match &self.main {
            Part::Open => return Next::Wait,
            Part::Failed => return Next::Done(Outcome::default()),
            Part::Known(octets, _) => octets.clone(),
        };
        let Ok(view) = View::new(&octets) else { return Next::Done(Outcome::default()) };
        if view.rcode() != u16::from(rcode::NO_ERROR) {
            return Next::Done(self.pass(&view));
        }
        match self.what {
            What::Plain => Next::Done(self.pass(&view)),
            What::Addresses => self.addresses(now, &view, rules),
            What::Services => self.services(now, &view, rules),
        }
    }

    /// What a server answered, as it came.
    fn pass(&self, view: &View<'_>) -> Outcome {
        match Answer::of(view) {
            Ok(answer) => Outcome { answer: Some(answer), events: vec![Event::Passed], ..Outcome::default() },
            Err(_) => {
                let notes = vec![Note::Unasked(self.key.question.name.to_string())];
                Outcome { notes, events: vec![Event::AnswersUnasked], ..Outcome::default() }
            }
        }
    }

    /// The same, when nobody could tell whether there is more to it.
    fn pass_unknown(&self, view: &View<'_>) -> Next {
        let mut outcome = self.pass(view);
        outcome.answer = outcome.answer.map(|answer| answer.shortened(UNKNOWN_TTL));
        outcome.events.push(Event::UlidUnknown);
        Next::Done(outcome)
    }

    fn addresses(&mut self, now: Instant, view: &View<'_>, rules: &Rules<'_>) -> Next {
        let Some(end) = follow(view, kind::AAAA).filter(|end| !end.addresses.is_empty()) else {
            return Next::Done(self.pass(view));
        };
        let Part::Known(octets, age) = &self.ulid else {
            let waits = matches!(self.ulid, Part::Open) && now < self.until;
            return if waits { Next::WaitUntil(self.until) } else { self.pass_unknown(view) };
        };
        let Ok(answer) = View::new(octets) else { return self.pass_unknown(view) };
        match u8::try_from(answer.rcode()).unwrap_or(rcode::SERV_FAIL) {
            rcode::NO_ERROR => {}
            rcode::NX_DOMAIN => return Next::Done(self.pass(view)),
            _ => return self.pass_unknown(view),
        }
        let Some(ulids) = follow(&answer, rules.config.ulid_kind) else { return self.pass_unknown(view) };
        let name = end.chain.last().unwrap_or(&self.key.question.name);
        let found = ulids.chain.last().or(self.end.as_ref()).unwrap_or(&self.key.question.name);
        if name != found {
            // Servers that spread load answer two questions with two chains; the addresses are those of the first.
            if self.end.is_some() {
                return self.pass_unknown(view);
            }
            let ask = ulid_key(name.clone(), rules.config);
            (self.end, self.ulid, self.until) = (Some(name.clone()), Part::Open, now + GRACE);
            return Next::Ask(vec![(ULID, ask)]);
        }
        let ulids = End { ttl: ulids.ttl.saturating_sub(*age), ..ulids };
        Next::Done(self.rewrite(view, &end, &ulids, rules))
    }

    /// CMULAs in the place of addresses, if the ULID records hold any.
    fn rewrite(&self, view: &View<'_>, end: &End, ulids: &End, rules: &Rules<'_>) -> Outcome {
        let valid = valid(&ulids.addresses, rules);
        let invalid = ulids.odd > 0 || ulids.addresses.iter().any(|address| !holds(*address, rules));
        let question = &self.key.question;
        let made = match valid.is_empty() {
            true => None,
            false => compose::answer(question, &end.chain, &Data::Addresses(&valid), end.ttl.min(ulids.ttl)),
        };
        let mut outcome = match made {
            None => self.pass(view),
            Some(answer) => {
                let mut locators: Vec<Locator> = Vec::new();
                let unknown = |address: &&Ipv6Addr| !rules.config.identifiers.covers(**address);
                for address in end.addresses.iter().filter(|address| zone::is_routable(**address)).filter(unknown) {
                    if locators.len() < LOCATORS_MAX && !locators.contains(&Locator(*address)) {
                        locators.push(Locator(*address));
                    }
                }
                let ulids: Vec<Ulid> = valid.iter().copied().filter(|ulid| !rules.zone.serves(*ulid)).collect();
                let known = !ulids.is_empty() && !locators.is_empty();
                let learned = known.then(|| Arc::new(Learned { ulids, locators }));
                let named =
                    Named { ulids: valid, learned: learned.clone().map(|it| (it, answer.lifetime)), bare: None };
                let (answer, named, events) = (Some(answer), Some(Arc::new(named)), vec![Event::Rewritten]);
                Outcome { answer, learned, named, events, ..Outcome::default() }
            }
        };
        if invalid {
            outcome.events.push(Event::UlidInvalid);
            outcome.notes.push(Note::Invalid(question.name.to_string()));
        }
        outcome
    }

    fn services(&mut self, now: Instant, view: &View<'_>, rules: &Rules<'_>) -> Next {
        if self.targets.is_empty() {
            let names = compose::hinted(view.octets(), TARGETS_MAX, rules.config.withholds).unwrap_or_default();
            if names.is_empty() {
                return Next::Done(self.pass(view));
            }
            let asks = names.iter().zip(FIRST_TARGET..).map(|(name, at)| (at, ulid_key(name.clone(), rules.config)));
            let asks = asks.collect();
            self.targets = names.into_iter().map(|name| (name, Part::Open)).collect();
            return Next::Ask(asks);
        }
        let open = self.targets.iter().any(|(_, part)| matches!(part, Part::Open));
        if open && now < self.until {
            return Next::WaitUntil(self.until);
        }
        let unknown = self.targets.iter().any(|(_, part)| !matches!(part, Part::Known(..)));
        let (mut ulids, mut ttl) = (HashMap::new(), u32::MAX);
        for (name, part) in &self.targets {
            let Part::Known(octets, age) = part else { continue };
            let end = View::new(octets).ok().and_then(|view| follow(&view, rules.config.ulid_kind));
            let Some(end) = end else { continue };
            let valid = valid(&end.addresses, rules);
            if !valid.is_empty() {
                ttl = ttl.min(end.ttl.saturating_sub(*age));
                ulids.insert(name.clone(), valid);
            }
        }
        if ulids.is_empty() {
            return if unknown { self.pass_unknown(view) } else { Next::Done(self.pass(view)) };
        }
        let octets = compose::rehint(view.octets(), &ulids, ttl);
        let answer = octets.and_then(|octets| Answer::of(&View::new(&octets).ok()?).ok());
        let Some(answer) = answer else { return Next::Done(Outcome::default()) };
        let shorter = |answer: Answer| if unknown { answer.shortened(UNKNOWN_TTL) } else { answer };
        let bare = compose::without_legacy(answer.octets(), &ulids)
            .and_then(|octets| Some(Answer::made(&View::new(&octets).ok()?)));
        let named = bare.filter(|_| rules.config.withholds).map(|bare| {
            let ulids = ulids.into_values().flatten().collect();
            Arc::new(Named { ulids, learned: None, bare: Some(shorter(bare)) })
        });
        let events = vec![Event::Rehinted];
        Next::Done(Outcome { answer: Some(shorter(answer)), named, events, ..Outcome::default() })
    }
}

fn valid(addresses: &[Ipv6Addr], rules: &Rules<'_>) -> Vec<Ulid> {
    let mut ulids: Vec<Ulid> = Vec::new();
    for ulid in addresses.iter().map(|address| Ulid(*address)) {
        if holds(ulid.0, rules) && ulids.len() < ULIDS_MAX && !ulids.contains(&ulid) {
            ulids.push(ulid);
        }
    }
    ulids
}

fn holds(address: Ipv6Addr, rules: &Rules<'_>) -> bool {
    rules.config.identifiers.holds(Ulid(address), |ulid| rules.zone.serves(ulid))
}

fn ulid_key(name: Name, config: &Config) -> Key {
    Key { question: Question::new(name, config.ulid_kind), flags: Flags::default() }
}
