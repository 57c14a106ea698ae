//! Keeps the site's names in an authoritative server as they are: an UPDATE for every host that comes, goes or moves.
//!
//! The machine holds what every name shall say and sends what differs from what the server is known to say, one name in
//! one message, a few at a time. A name of a host is only touched if nobody has it or this site put an identifier there
//! before: a host that calls itself like the site's mail server takes nothing from it. The reverse tree of the site's
//! identifiers is its own. Answers count if their signature is good; the rest is silence, and silence is asked again.
//!
//! | file | what it answers |
//! |---|---|
//! | `mod` | what is to be said, what is on its way, when to try again |
//! | `message` | octets out of it, and what the answer says |

mod message;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Display};
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType, TSigVerifier, TSigner};
use rand::Rng;

use crate::config::publish::{Publish, TsigKey};
use crate::time::Instant;
use message::{Change, Claim, Data, Said};

/// Messages on their way at one time.
const FLIGHTS_MAX: usize = 8;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a failure nothing is sent for this long, then twice as long, and so on.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);
/// How long a name is left to whoever else has it.
const TAKEN_PAUSE: Duration = Duration::from_secs(600);
/// A name is said again after this long: an old message may have overtaken a newer one, and zones are edited by hand too.
/// For a server that has it right it is no change.
const REFRESH: Duration = Duration::from_secs(3600);
/// Where DNS servers listen.
pub const SERVER_PORT: u16 = 53;

/// A host whose name is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name: complete if it has a dot, or else below the site's domain.
    pub name: String,
    /// Its identifier.
    pub ulid: Ipv6Addr,
    /// The locators others shall use.
    pub locators: Vec<Ipv6Addr>,
}

/// What follows from a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the server's port [`SERVER_PORT`].
    Send(Ipv6Addr, Vec<u8>),
    /// Worth a line in the log.
    Told(Story),
}

/// What an operator may want to read about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Story {
    /// All that was to be published is.
    Complete(usize),
    /// The server does not answer, or not so that it could be believed; the code it gave, if it gave one.
    Unheard(Ipv6Addr, Option<String>),
    /// The server does not do it.
    Refused(String, String),
    /// Somebody else has this name.
    Taken(String),
}

/// How it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Counts {
    /// Names the server is known to have right.
    pub published: u64,
    /// Names that are to be told yet.
    pub waiting: u64,
    /// Names that somebody else has.
    pub taken: u64,
    /// Messages sent.
    pub sent: u64,
    /// Answers that said it is done.
    pub done: u64,
    /// Answers that refused.
    pub refused: u64,
    /// Messages nobody answered.
    pub unanswered: u64,
    /// Answers without a good signature.
    pub unsigned: u64,
}

/// A name that may say something because of this box: for it to know after it has been down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record(Owner);

impl Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tree = if self.0.0 == Tree::Forward { "forward" } else { "reverse" };
        write!(out, "{tree} {}", self.0.1.to_ascii())
    }
}

impl FromStr for Record {
    type Err = String;
    fn from_str(text: &str) -> Result<Record, String> {
        let wrong = || format!("\"{text}\" is no published name");
        let (tree, name) = text.split_once(' ').ok_or_else(wrong)?;
        let tree = match tree {
            "forward" => Tree::Forward,
            "reverse" => Tree::Reverse,
            _ => return Err(wrong()),
        };
        Name::from_ascii(name).map(|name| Record((tree, name))).map_err(|_| wrong())
    }
}

/// In which tree a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tree {
    Forward,
    Reverse,
}

type Owner = (Tree, Name);

/// A name and what is to become of it.
struct Item {
    data: Data,
    state: State,
    claim: Claim,
    /// Whether the other claim was found not to hold.
    tried: bool,
    /// When it is looked at again.
    later: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until it is written down that the name is about to say something.
    Unwritten,
    Waiting,
    /// `true`: what is on its way is not what it shall say any more.
    Flying(bool),
    Published,
    Taken,
}

struct Flight {
    id: u16,
    owner: Owner,
    server: Ipv6Addr,
    due: Instant,
    verifier: TSigVerifier,
    complaint: Option<ResponseCode>,
}

/// What is published, and what shall be.
pub struct Publisher {
    servers: Vec<Ipv6Addr>,
    /// The one that is asked now, as an index into `servers`.
    server: usize,
    zones: [Name; 2],
    ttl: u32,
    ulid_type: RecordType,
    signer: TSigner,
    port: u16,
    /// Unix time at [`Instant::START`], in seconds; nothing can be signed before it is known.
    epoch: Option<i64>,
    items: BTreeMap<Owner, Item>,
    /// Who has which name, so that a host that moves takes its old name along.
    names: BTreeMap<Ipv6Addr, (Name, Vec<Ipv6Addr>)>,
    queue: VecDeque<Owner>,
    /// Names to come back to.
    later: BTreeSet<(Instant, Owner)>,
    flights: Vec<Flight>,
    pause: Duration,
    quiet_until: Option<Instant>,
    counts: Counts,
    told_complete: bool,
    /// Whether somebody writes down which names say something.
    writes: bool,
    /// Those that are written down, and what is to be written: `true` if it is not there yet.
    written: BTreeSet<Owner>,
    records: VecDeque<(Record, bool)>,
}

impl Publisher {
    /// A publisher that has published nothing yet. None if the key or a name cannot be used.
    pub fn new(settings: &Publish, key: &TsigKey, ulid_type: u16, rng: &mut dyn Rng) -> Option<Publisher> {
        let zone = |text: &str| Name::from_ascii(text).ok();
        Some(Publisher {
            servers: settings.servers.clone(),
            server: 0,
            zones: [zone(&settings.zone)?, zone(&settings.reverse)?],
            ttl: u32::try_from(settings.ttl.as_secs()).unwrap_or(u32::MAX),
            ulid_type: RecordType::from(ulid_type),
            signer: message::signer(key)?,
            // Of the range for it (RFC 6335 §6), so that it is nobody's service.
            port: 49_152 + (rng.next_u32() % 16_384) as u16,
            epoch: None,
            items: BTreeMap::new(),
            names: BTreeMap::new(),
            queue: VecDeque::new(),
            later: BTreeSet::new(),
            flights: Vec::new(),
            pause: PAUSE_FIRST,
            quiet_until: None,
            counts: Counts::default(),
            told_complete: true,
            writes: false,
            written: BTreeSet::new(),
            records: VecDeque::new(),
        })
    }

    /// From now on every name is written down before it says anything, and struck when it does no more. What is written down
    /// and nobody's is withdrawn: it went while the box was down. To be called when all hosts are known.
    pub fn begin_with(&mut self, written: impl IntoIterator<Item = Record>) {
        self.writes = true;
        // What lies in a zone of former times is not ours to change; it may be again.
        self.written = written.into_iter().map(|Record(owner)| owner).collect();
        for owner in self.written.clone() {
            let zone = &self.zones[usize::from(owner.0 == Tree::Reverse)];
            if self.items.contains_key(&owner) || !zone.zone_of(&owner.1) {
                continue;
            }
            let claim = if owner.0 == Tree::Reverse { Claim::Certain } else { Claim::Ours };
            let item = Item { data: Data::Nothing, state: State::Published, claim, tried: false, later: None };
            self.items.insert(owner.clone(), item);
            self.again(owner);
            self.told_complete = false;
        }
        for (owner, item) in self.items.iter_mut().filter(|(owner, _)| !self.written.contains(*owner)) {
            item.state = State::Unwritten;
            self.records.push_back((Record(owner.clone()), true));
        }
    }

    /// The next name to be written down, or to be struck if that is false.
    pub fn next_record(&mut self) -> Option<(Record, bool)> {
        self.records.pop_front()
    }

    /// A name is written down: it may say something.
    pub fn recorded(&mut self, Record(owner): Record) {
        let waits = |item: &&mut Item| item.state == State::Unwritten;
        if self.items.get_mut(&owner).filter(waits).is_some() {
            self.again(owner.clone());
        }
        self.written.insert(owner);
    }

    /// A name says nothing more that is ours.
    fn strike(&mut self, owner: &Owner) {
        self.items.remove(owner);
        if self.written.remove(owner) {
            self.records.push_back((Record(owner.clone()), false));
        }
    }

    /// The port its messages come from and answers go to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The time it is: `unix` seconds. Clocks step, so this is said again and again.
    pub fn wall_clock(&mut self, now: Instant, unix: u64) {
        self.epoch = Some(unix as i64 - now.0.as_secs() as i64);
    }

    /// A host is to be found by its name, with these locators. One without a name that DNS can carry is not published.
    pub fn set(&mut self, host: &Host) {
        let Some(name) = self.complete(&host.name) else { return self.unset(host.ulid) };
        if self.names.get(&host.ulid).is_some_and(|(old, _)| *old != name) {
            self.unset(host.ulid);
        }
        self.names.insert(host.ulid, (name.clone(), host.locators.clone()));
        self.want((Tree::Reverse, reverse_name(host.ulid)), Data::Pointer(name.clone()));
        self.want((Tree::Forward, name), Data::Host(host.locators.clone(), host.ulid));
    }

    /// A host is gone.
    pub fn unset(&mut self, ulid: Ipv6Addr) {
        let Some((name, _)) = self.names.remove(&ulid) else { return };
        self.want((Tree::Reverse, reverse_name(ulid)), Data::Nothing);
        // Hosts may share a name; it is that of one of them as long as there is one.
        let mut others = self.names.iter().filter(|(_, (other, _))| *other == name);
        let heir = others.next().map(|(ulid, (_, locators))| Data::Host(locators.clone(), *ulid));
        let owner = (Tree::Forward, name);
        if self.items.get(&owner).is_some_and(|item| matches!(item.data, Data::Host(_, of) if of == ulid)) {
            self.want(owner, heir.unwrap_or(Data::Nothing));
        }
    }

    /// How it stands.
    pub fn counts(&self) -> Counts {
        let with = |state: fn(&State) -> bool| self.items.values().filter(|item| state(&item.state)).count() as u64;
        Counts {
            published: with(|state| *state == State::Published),
            waiting: with(|state| matches!(state, State::Unwritten | State::Waiting | State::Flying(_))),
            taken: with(|state| *state == State::Taken),
            ..self.counts
        }
    }

    /// When [`Publisher::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let flights = self.flights.iter().map(|flight| flight.due).min();
        let room = self.flights.len() < FLIGHTS_MAX && !self.queue.is_empty() && self.epoch.is_some();
        let queue = room.then(|| self.quiet_until.unwrap_or(Instant::START));
        let later = self.later.first().map(|(at, _)| *at);
        [flights, queue, later].into_iter().flatten().min()
    }

    /// Lets time pass: sends what waits, and notices what was not answered.
    pub fn expire(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        let overdue: Vec<Flight> = self.flights.extract_if(.., |flight| flight.due <= now).collect();
        if let Some(flight) = overdue.first() {
            self.counts.unanswered += overdue.len() as u64;
            self.fail(now);
            let complaint = overdue.iter().find_map(|flight| flight.complaint).map(|code| code.to_string());
            out.push(Output::Told(Story::Unheard(flight.server, complaint)));
            self.server = (self.server + 1) % self.servers.len().max(1);
        }
        for flight in overdue {
            self.again(flight.owner);
        }
        while let Some((_, owner)) = self.later.first().filter(|(at, _)| *at <= now).cloned() {
            self.later.pop_first();
            let resting = |item: &&mut Item| matches!(item.state, State::Taken | State::Published);
            if self.items.get_mut(&owner).filter(resting).is_some() {
                self.again(owner);
            }
        }
        self.send(now, rng, out);
    }

    /// A datagram came to our port.
    pub fn receive(&mut self, now: Instant, from: Ipv6Addr, octets: &[u8], rng: &mut dyn Rng, out: &mut Vec<Output>) {
        let id = message::id_of(octets);
        let Some(at) = self.flights.iter().position(|flight| Some(flight.id) == id && flight.server == from) else {
            self.counts.unsigned += 1;
            return;
        };
        let Some(said) = message::read(octets, &mut self.flights[at].verifier) else {
            // It may be true (a server that does not know the key cannot sign with it), and it may be a lie.
            self.counts.unsigned += 1;
            let flight = &mut self.flights[at];
            flight.complaint = message::complaint(octets).or(flight.complaint);
            return;
        };
        let Flight { owner, .. } = self.flights.swap_remove(at);
        match said {
            Said::Done => self.done(now, owner, out),
            Said::NotSo => self.not_so(now, owner, out),
            Said::Refused(code) => {
                self.counts.refused += 1;
                self.fail(now);
                out.push(Output::Told(Story::Refused(owner.1.to_ascii(), code.to_string())));
                self.again(owner);
            }
        }
        self.send(now, rng, out);
    }

    fn done(&mut self, now: Instant, owner: Owner, out: &mut Vec<Output>) {
        self.counts.done += 1;
        (self.pause, self.quiet_until) = (PAUSE_FIRST, None);
        let Some(item) = self.items.get_mut(&owner) else { return };
        let stale = item.state == State::Flying(true);
        if owner.0 == Tree::Forward {
            item.claim = Claim::Ours;
        }
        if stale {
            self.again(owner);
        } else if item.data == Data::Nothing {
            self.strike(&owner);
        } else {
            item.state = State::Published;
            self.come_back(now + REFRESH, owner);
        }
        if self.queue.is_empty() && self.flights.is_empty() && !self.told_complete {
            self.told_complete = true;
            out.push(Output::Told(Story::Complete(self.names.len())));
        }
    }

    /// The name is not as we thought it was: free, or with an identifier.
    fn not_so(&mut self, now: Instant, owner: Owner, out: &mut Vec<Output>) {
        self.counts.done += 1;
        let Some(item) = self.items.get_mut(&owner) else { return };
        if item.data == Data::Nothing && item.state == State::Flying(false) {
            // Nothing of ours is there.
            self.strike(&owner);
            return;
        }
        if item.tried {
            item.state = State::Taken;
            out.push(Output::Told(Story::Taken(owner.1.to_ascii())));
            self.come_back(now + TAKEN_PAUSE, owner);
            return;
        }
        item.claim = if item.claim == Claim::Free { Claim::Ours } else { Claim::Free };
        self.again(owner.clone());
        if let Some(item) = self.items.get_mut(&owner) {
            item.tried = true;
        }
    }

    fn come_back(&mut self, at: Instant, owner: Owner) {
        let Some(item) = self.items.get_mut(&owner) else { return };
        if let Some(before) = item.later.replace(at) {
            self.later.remove(&(before, owner.clone()));
        }
        self.later.insert((at, owner));
    }

    /// Something is wrong with the server or the way to it.
    fn fail(&mut self, now: Instant) {
        self.quiet_until = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn again(&mut self, owner: Owner) {
        if let Some(item) = self.items.get_mut(&owner) {
            // What was not answered may have been done, so both claims may hold again.
            (item.state, item.tried) = (State::Waiting, false);
            self.queue.push_back(owner);
        }
    }

    /// From now on this is what a name shall say.
    fn want(&mut self, owner: Owner, data: Data) {
        let first = if owner.0 == Tree::Reverse { Claim::Certain } else { Claim::Free };
        let new = || Item { data: Data::Nothing, state: State::Published, claim: first, tried: false, later: None };
        let item = self.items.entry(owner.clone()).or_insert_with(new);
        if item.data == data {
            return;
        }
        item.data = data;
        match item.state {
            State::Published | State::Taken if self.writes && !self.written.contains(&owner) => {
                item.state = State::Unwritten;
                self.records.push_back((Record(owner), true));
            }
            State::Published | State::Taken => self.again(owner),
            State::Flying(_) => item.state = State::Flying(true),
            State::Unwritten | State::Waiting => {}
        }
        self.told_complete = false;
    }

    fn send(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        let (Some(epoch), Some(server)) = (self.epoch, self.servers.get(self.server).copied()) else { return };
        if self.quiet_until.is_some_and(|until| until > now) {
            return;
        }
        let unix = u64::try_from(epoch + now.0.as_secs() as i64).unwrap_or_default();
        while self.flights.len() < FLIGHTS_MAX {
            let Some(owner) = self.queue.pop_front() else { return };
            let Some(item) = self.items.get_mut(&owner).filter(|item| item.state == State::Waiting) else { continue };
            let zone = &self.zones[usize::from(owner.0 == Tree::Reverse)];
            // Only what has an identifier of ours is ours to delete.
            let deletes = owner.0 == Tree::Forward && item.data == Data::Nothing;
            let claim = if deletes { Claim::Ours } else { item.claim };
            let (data, ttl) = (&item.data, self.ttl);
            let change = Change { zone, name: &owner.1, data, claim, ttl, ulid_type: self.ulid_type };
            // Few are under way, so this ends soon.
            let id = loop {
                let id = rng.next_u32() as u16;
                if self.flights.iter().all(|flight| flight.id != id) {
                    break id;
                }
            };
            let Some(signed) = change.sign(id, unix, &self.signer) else {
                self.strike(&owner);
                continue;
            };
            item.state = State::Flying(false);
            self.counts.sent += 1;
            let due = now + PATIENCE;
            self.flights.push(Flight { id, owner, server, due, verifier: signed.verifier, complaint: None });
            out.push(Output::Send(server, signed.octets));
        }
    }

    fn complete(&self, name: &str) -> Option<Name> {
        let name = name.trim_end_matches('.');
        let complete = if name.contains('.') { format!("{name}.") } else { format!("{name}.{}", self.zones[0]) };
        let name = Name::from_ascii(complete.to_ascii_lowercase()).ok()?;
        // What lies elsewhere is not ours to say.
        self.zones[0].zone_of(&name).then_some(name)
    }
}

/// The name of an address below ip6.arpa (RFC 3596 §2.5).
fn reverse_name(address: Ipv6Addr) -> Name {
    let mut name = Name::from(address);
    name.set_fqdn(true);
    name
}
