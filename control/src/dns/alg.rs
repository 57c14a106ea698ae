//! What a host's question becomes.
//!
//! Questions with the same answer wait for it together, so that however often something is asked, upstream servers are
//! asked once; and nobody can have a server asked the same thing often enough to guess its answer (RFC 5452 §5).

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::Ulid;
use hashbrown::HashMap;
use rand::Rng;

use super::cache::{Bounds, Cache, Counts};
use super::compose::{self, Data};
use super::counts::{Counted, Event, Note};
use super::job::{Job, Named, Next, Outcome, Rules, Waiter};
use super::legacy::Legacy;
use super::message::{self, Answer, Flags, Key, Query, Unasked};
use super::name::Name;
use super::reverse::{Begun, Reverse};
use super::upstream::{Server, Step, Upstreams};
use super::view::{Question, kind, rcode};
use super::zone::Zone;
use super::{Client, Config, Learned, Output, Packet};
use crate::time::Instant;

/// Questions of hosts that wait for an answer, in all and of one host.
const WAITING_MAX: usize = 4_096;
const WAITING_PER_HOST_MAX: usize = 256;
/// Questions on their way to upstream servers.
const ASKED_MAX: usize = 8_192;
/// How long locators are good at least: a host that has just been told of a peer is about to send.
const LOCATORS_FOR: Duration = Duration::from_secs(30);
/// Time for which it is kept that somebody who asked for everything did not get it (RFC 8482 §4.2), in seconds.
const NOT_EVERYTHING_TTL: u32 = 3_600;

/// What is kept for a question.
pub(super) struct Kept {
    pub(super) answer: Answer,
    pub(super) learned: Option<Arc<Learned>>,
    pub(super) named: Option<Arc<Named>>,
}

/// Everything about DNS.
pub struct Alg {
    pub(super) config: Config,
    pub(super) zone: Zone,
    pub(super) cache: Cache<Key, Kept>,
    upstreams: Upstreams,
    jobs: HashMap<u64, Job>,
    pub(super) by_key: HashMap<Key, u64>,
    next_job: u64,
    /// Jobs that will not wait for longer.
    due: BTreeSet<(Instant, u64)>,
    waiting: usize,
    by_host: HashMap<Ipv6Addr, usize>,
    reverse: Reverse,
    pub(super) counted: Counted,
}

/// How things are.
#[derive(Clone, Debug)]
pub struct Status {
    /// Entries of the cache.
    pub entries: usize,
    /// Octets they take.
    pub octets: usize,
    /// Its bounds.
    pub bounds: Bounds,
    /// What happened in it.
    pub counts: Counts,
    /// Questions of hosts that wait.
    pub waiting: usize,
    /// Questions on their way.
    pub asked: usize,
    /// Names the site's own zone has, and hosts without one.
    pub names: (usize, usize),
    /// Identifiers looked up backwards now, and failures remembered.
    pub reverse: (usize, usize),
}

impl Alg {
    /// With nothing known yet, and no way to any server.
    pub fn new(config: Config) -> Alg {
        Alg {
            zone: Zone::new(config.zone.clone(), config.ulid_kind),
            cache: Cache::new(config.cache),
            upstreams: Upstreams::new(&config.upstream, ASKED_MAX),
            jobs: HashMap::new(),
            by_key: HashMap::new(),
            next_job: 0,
            due: BTreeSet::new(),
            waiting: 0,
            by_host: HashMap::new(),
            reverse: Reverse::new(),
            counted: Counted::default(),
            config,
        }
    }

    /// The servers, in their order.
    pub fn servers(&self) -> &[Server] {
        self.upstreams.servers()
    }

    /// From which of the box's addresses a server can be reached now, the best first.
    pub fn set_sources(&mut self, server: usize, sources: Vec<Ipv6Addr>) {
        self.upstreams.set_sources(server, sources);
    }

    /// A port of the box that no question comes from: somebody else awaits answers there.
    pub fn avoid_port(&mut self, port: u16) {
        self.upstreams.avoid_port(port);
    }

    /// The hosts served from now on, and no others: by name, as the configuration or a lease has it.
    pub fn set_names<'a>(&mut self, hosts: impl IntoIterator<Item = (&'a str, Ulid)>) {
        self.zone.set_names(hosts);
    }

    /// Whether an answer is awaited at a port.
    pub fn awaits(&self, port: u16) -> bool {
        self.upstreams.awaits(port)
    }

    /// What happened so far.
    pub fn counted(&self) -> &Counted {
        &self.counted
    }

    /// Forgets what was learned. How many entries that was.
    pub fn flush(&mut self) -> usize {
        self.cache.clear() + self.reverse.flush()
    }

    /// How things are.
    pub fn status(&self) -> Status {
        Status {
            entries: self.cache.len(),
            octets: self.cache.octets(),
            bounds: self.cache.bounds(),
            counts: self.cache.counts(),
            waiting: self.waiting,
            asked: self.upstreams.asked(),
            names: self.zone.names(),
            reverse: self.reverse.len(),
        }
    }

    /// A host asks.
    pub fn question(&mut self, now: Instant, rng: &mut dyn Rng, client: Client, octets: &[u8], out: &mut Vec<Output>) {
        let query = match Query::parse(octets) {
            Ok(query) => query,
            Err(unasked) => return self.unasked(now, client, octets, unasked, out),
        };
        self.counted.count(Event::Questions);
        let Question { kind: asked, class, .. } = query.key.question;
        if !message::is_internet(class) || message::is_meta(asked) {
            self.counted.count(Event::QuestionsRefused);
            let code = if message::is_meta(asked) { rcode::NOT_IMP } else { rcode::REFUSED };
            return out.push(Output::Reply(client, query.refusal(code.into())));
        }
        if asked == kind::ANY {
            let answer = compose::answer(&query.key.question, &[], &Data::NotEverything, NOT_EVERYTHING_TTL);
            let reply = match answer {
                Some(answer) => reply(&answer, client, &query, 0),
                None => query.refusal(rcode::SERV_FAIL.into()),
            };
            return out.push(Output::Reply(client, reply));
        }
        if let Some(answer) = self.zone.answer(&query.key.question) {
            self.counted.count(Event::QuestionsZone);
            return out.push(Output::Reply(client, reply(answer, client, &query, 0)));
        }
        if let Some((kept, age)) = self.cache.find(now, &query.key) {
            self.counted.count(Event::QuestionsCached);
            if let Some(learned) = &kept.learned {
                out.push(Output::Asked(client.host(), learned.clone(), good_for(&kept.answer, age)));
            }
            if self.config.withholds {
                return self.cached_legacy(now, rng, client, query, out);
            }
            let reply = give(&self.zone, &kept.answer, client, &query, age.as_secs() as u32);
            return out.push(Output::Reply(client, reply));
        }
        if !self.may_wait(client.host()) {
            self.counted.count(Event::QuestionsWaiting);
            if let Client::Stream(..) = client {
                // Who asks over a connection has an answer to everything; it waits for them.
                out.push(Output::Reply(client, query.refusal(rcode::SERV_FAIL.into())));
            }
            return self.note(now, Note::TooMany(client.host()), out);
        }
        self.waits(client.host());
        self.look_ahead(now, rng, &query.key, out);
        let key = query.key.clone();
        self.submit(now, rng, key, Waiter::Host(client, query), out);
    }

    /// A datagram came to a port where an answer is awaited.
    pub fn answer(&mut self, now: Instant, rng: &mut dyn Rng, packet: &Packet, out: &mut Vec<Output>) {
        let mut steps = Vec::new();
        self.upstreams.datagram(now, rng, packet, &mut steps);
        self.drive(now, rng, steps, out);
    }

    /// A message came over the connection to a server.
    pub fn stream_answer(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        server: usize,
        octets: &[u8],
        out: &mut Vec<Output>,
    ) {
        let mut steps = Vec::new();
        self.upstreams.stream_answer(now, rng, server, octets, &mut steps);
        self.drive(now, rng, steps, out);
    }

    /// The connection to a server could not be made, or is lost.
    pub fn stream_failed(&mut self, now: Instant, rng: &mut dyn Rng, server: usize, out: &mut Vec<Output>) {
        let mut steps = Vec::new();
        self.upstreams.stream_failed(now, rng, server, &mut steps);
        self.drive(now, rng, steps, out);
    }

    /// A host sends to an identifier nobody knows. It is told with [`Output::Located`], at once or later.
    pub fn look_up(&mut self, now: Instant, rng: &mut dyn Rng, host: Ulid, ulid: Ulid, out: &mut Vec<Output>) {
        if !self.config.identifiers.holds(ulid, |_| false) {
            return out.push(Output::Located(host, ulid, None));
        }
        match self.reverse.begin(now, host, ulid) {
            Begun::Joined => {}
            Begun::Remembered => {
                self.counted.count(Event::ReverseRemembered);
                out.push(Output::Located(host, ulid, None));
            }
            Begun::Full => {
                self.counted.count(Event::ReverseFull);
                out.push(Output::Located(host, ulid, None));
            }
            Begun::Ask(name) => {
                self.counted.count(Event::ReverseLookups);
                self.submit(now, rng, plain(name, kind::PTR), Waiter::Pointer(ulid), out);
            }
        }
    }

    /// Lets everything run whose time has come.
    pub fn expire(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        let mut steps = Vec::new();
        self.upstreams.expire(now, rng, &mut steps);
        self.drive(now, rng, steps, out);
        while let Some(&(due, number)) = self.due.first().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, number));
            if let Some(job) = self.jobs.get_mut(&number) {
                job.booked = None;
            }
            let mut steps = Vec::new();
            self.proceed(now, rng, number, &mut steps, out);
            self.drive(now, rng, steps, out);
        }
    }

    /// When [`Alg::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        [self.upstreams.deadline(), self.due.first().map(|(due, _)| *due)].into_iter().flatten().min()
    }

    fn unasked(&mut self, now: Instant, client: Client, octets: &[u8], unasked: Unasked, out: &mut Vec<Output>) {
        match unasked {
            Unasked::Refused(code) if code == u16::from(rcode::NOT_IMP) => {
                self.counted.count(Event::QuestionsRefused);
                out.push(Output::Reply(client, message::refusal_of_unread(octets, code)));
            }
            Unasked::Refused(code) => {
                self.counted.count(Event::QuestionsMalformed);
                out.push(Output::Reply(client, message::refusal_of_unread(octets, code)));
                self.note(now, Note::Unreadable(client.host()), out);
            }
            Unasked::Noise => {
                self.counted.count(Event::QuestionsMalformed);
                if let Client::Stream(..) = client {
                    // It does come from there.
                    out.push(Output::Reply(client, message::refusal_of_unread(octets, rcode::FORM_ERR.into())));
                }
                self.note(now, Note::Unreadable(client.host()), out);
            }
        }
    }

    /// Somebody waits for what is in the cache, on its way, or has to be asked for.
    pub(super) fn submit(&mut self, now: Instant, rng: &mut dyn Rng, key: Key, waiter: Waiter, out: &mut Vec<Output>) {
        if let Some(job) = self.by_key.get(&key).and_then(|number| self.jobs.get_mut(number)) {
            self.counted.count(Event::QuestionsJoined);
            return job.waiters.push(waiter);
        }
        if let Some((Kept { answer, learned, named }, age)) = self.cache.find(now, &key) {
            // Only lookups backwards come here with what is known; hosts have been answered before.
            let (answer, learned, named) = (Some(answer.clone()), learned.clone(), named.clone());
            let outcome = Outcome { answer, learned, named, ..Outcome::default() };
            return self.tell(now, rng, vec![waiter], &outcome, age, out);
        }
        let number = self.next_job;
        self.next_job += 1;
        let (mut job, asks) = Job::new(key.clone(), &self.config);
        job.waiters.push(waiter);
        self.jobs.insert(number, job);
        self.by_key.insert(key, number);
        let mut steps = Vec::new();
        self.ask(now, rng, number, asks, &mut steps);
        self.drive(now, rng, steps, out);
    }

    /// Asks for a job. Parts of it may be known already.
    fn ask(&mut self, now: Instant, rng: &mut dyn Rng, number: u64, asks: Vec<(u8, Key)>, steps: &mut Vec<Step>) {
        for (part, key) in asks {
            let known = match part {
                0 => None,
                _ => {
                    self.cache.find(now, &key).map(|(kept, age)| (kept.answer.octets().to_vec(), age.as_secs() as u32))
                }
            };
            match (known, self.jobs.get_mut(&number)) {
                (Some(known), Some(job)) => job.take(now, part, Some(known)),
                _ => self.upstreams.ask(now, rng, number << 8 | u64::from(part), key, steps),
            }
        }
    }

    /// Does what the upstream machine wants, and what follows from it, until nothing is left.
    fn drive(&mut self, now: Instant, rng: &mut dyn Rng, steps: Vec<Step>, out: &mut Vec<Output>) {
        let mut steps = VecDeque::from(steps);
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Send(packet) => out.push(Output::Send(packet)),
                Step::Stream(server, octets) => out.push(Output::Stream(server, octets)),
                Step::Count(event) => self.counted.count(event),
                Step::Note(note) => self.note(now, note, out),
                Step::Done(token, result) => {
                    let (number, part) = (token >> 8, token as u8);
                    let octets = result.ok();
                    if let Some(octets) = octets.as_ref().filter(|_| part != 0) {
                        self.keep_part(now, octets);
                    }
                    if let Some(job) = self.jobs.get_mut(&number) {
                        job.take(now, part, octets.map(|octets| (octets, 0)));
                    }
                    let mut more = Vec::new();
                    self.proceed(now, rng, number, &mut more, out);
                    steps.extend(more);
                }
            }
        }
    }

    /// Part of what was asked is an answer of its own.
    fn keep_part(&mut self, now: Instant, octets: &[u8]) {
        let Ok(view) = super::view::View::new(octets) else { return };
        let (Some(name), Ok(answer)) = (Name::from_wire(view.asked()), Answer::of(&view)) else { return };
        let key = plain(name, view.asked_kind().0);
        let (lifetime, size) = (Duration::from_secs(answer.lifetime.into()), answer.size());
        self.cache.insert(now, key, Kept { answer, learned: None, named: None }, lifetime, size);
    }

    /// Sees what follows for a job.
    fn proceed(&mut self, now: Instant, rng: &mut dyn Rng, number: u64, steps: &mut Vec<Step>, out: &mut Vec<Output>) {
        // A part that is known already may be all that was missing; there are few parts, so this ends.
        loop {
            let Some(job) = self.jobs.get_mut(&number) else { return };
            match job.next(now, &Rules { config: &self.config, zone: &self.zone }) {
                Next::Wait => return,
                Next::WaitUntil(until) => {
                    if let Some(before) = job.booked.replace(until) {
                        self.due.remove(&(before, number));
                    }
                    self.due.insert((until, number));
                    return;
                }
                Next::Ask(asks) => self.ask(now, rng, number, asks, steps),
                Next::Done(outcome) => return self.finish(now, rng, number, outcome, out),
            }
        }
    }

    fn finish(&mut self, now: Instant, rng: &mut dyn Rng, number: u64, outcome: Outcome, out: &mut Vec<Output>) {
        let Some(job) = self.jobs.remove(&number) else { return };
        self.by_key.remove(&job.key);
        if let Some(booked) = job.booked {
            self.due.remove(&(booked, number));
        }
        outcome.events.iter().for_each(|event| self.counted.count(*event));
        for note in &outcome.notes {
            self.note(now, note.clone(), out);
        }
        if let Some(answer) = &outcome.answer {
            let evicted = self.cache.counts().evicted;
            let (learned, named) = (outcome.learned.clone(), outcome.named.clone());
            let kept = Kept { answer: answer.clone(), learned, named };
            let lifetime = Duration::from_secs(answer.lifetime.into());
            self.cache.insert(now, job.key, kept, lifetime, answer.size());
            if self.cache.counts().evicted > evicted {
                self.note(now, Note::CacheFull(self.cache.len()), out);
            }
        }
        self.tell(now, rng, job.waiters, &outcome, Duration::ZERO, out);
    }

    fn tell(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        waiters: Vec<Waiter>,
        outcome: &Outcome,
        age: Duration,
        out: &mut Vec<Output>,
    ) {
        let mut told: Option<Ipv6Addr> = None;
        for waiter in waiters {
            match waiter {
                Waiter::Host(client, query) => {
                    self.waited(client.host());
                    let learned = outcome.learned.as_ref().zip(outcome.answer.as_ref());
                    if let Some((learned, answer)) =
                        learned.filter(|_| told.replace(client.host()) != Some(client.host()))
                    {
                        out.push(Output::Asked(client.host(), learned.clone(), good_for(answer, age)));
                    }
                    match &outcome.answer {
                        Some(answer) => {
                            let named = outcome.named.clone();
                            self.settle(now, rng, Legacy { client, query, answer: answer.clone(), age }, named, out);
                        }
                        None => out.push(Output::Reply(client, query.refusal(rcode::SERV_FAIL.into()))),
                    }
                }
                Waiter::Ahead => {}
                Waiter::Legacy(legacy, since) => {
                    self.waited(legacy.client.host());
                    let legacy = Legacy { age: legacy.age + now.since(since), ..*legacy };
                    self.judge(legacy, outcome.answer.is_some(), outcome.named.as_ref(), age, out);
                }
                Waiter::Pointer(ulid) => {
                    self.reverse.pointed(ulid, outcome.answer.as_ref().map(Answer::octets));
                    self.try_name(now, rng, ulid, out);
                }
                Waiter::Name(ulid) => {
                    let found = outcome.learned.as_ref().filter(|learned| learned.ulids.contains(&ulid));
                    match found.zip(outcome.answer.as_ref()) {
                        Some((learned, answer)) => {
                            self.counted.count(Event::ReverseFound);
                            let good = good_for(answer, age);
                            for host in self.reverse.end(now, ulid, true) {
                                out.push(Output::Located(host, ulid, Some((learned.clone(), good))));
                            }
                        }
                        None => {
                            self.counted.count(Event::ReverseAstray);
                            let name = outcome.answer.as_ref().and_then(name_of).unwrap_or_else(Name::root);
                            self.note(now, Note::Astray(ulid.0, name.to_string()), out);
                            self.try_name(now, rng, ulid, out);
                        }
                    }
                }
            }
        }
    }

    /// Tries the next name an identifier points to, or gives up.
    fn try_name(&mut self, now: Instant, rng: &mut dyn Rng, ulid: Ulid, out: &mut Vec<Output>) {
        if let Some(name) = self.reverse.next(ulid) {
            return self.submit(now, rng, plain(name, kind::AAAA), Waiter::Name(ulid), out);
        }
        self.counted.count(Event::ReverseFailed);
        for host in self.reverse.end(now, ulid, false) {
            out.push(Output::Located(host, ulid, None));
        }
    }

    /// Whether a host may wait for an answer.
    pub(super) fn may_wait(&self, host: Ipv6Addr) -> bool {
        let of_host = self.by_host.get(&host).copied().unwrap_or(0);
        self.waiting < WAITING_MAX && of_host < WAITING_PER_HOST_MAX
    }

    /// A host waits for one more.
    pub(super) fn waits(&mut self, host: Ipv6Addr) {
        self.waiting += 1;
        *self.by_host.entry(host).or_default() += 1;
    }

    fn waited(&mut self, host: Ipv6Addr) {
        self.waiting -= 1;
        if let Some(count) = self.by_host.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.by_host.remove(&host);
            }
        }
    }

    fn note(&mut self, now: Instant, note: Note, out: &mut Vec<Output>) {
        if self.counted.tells(now, &note) {
            out.push(Output::Note(note));
        }
    }

    /// Asserts what has to hold.
    pub fn selfcheck(&self) {
        self.cache.selfcheck();
        let hosts = self.jobs.values().flat_map(|job| &job.waiters);
        let hosts = hosts.filter(|waiter| matches!(waiter, Waiter::Host(..) | Waiter::Legacy(..))).count();
        assert_eq!(hosts, self.waiting);
        assert_eq!(self.by_host.values().sum::<usize>(), self.waiting);
        assert_eq!(self.by_key.len(), self.jobs.len());
        assert!(self.waiting <= WAITING_MAX && self.upstreams.asked() <= ASKED_MAX);
        assert!(self.due.iter().all(|(due, number)| self.jobs.get(number).is_some_and(|job| job.booked == Some(*due))));
        assert!(self.jobs.is_empty() || self.deadline().is_some(), "a job nobody will end");
    }
}

pub(super) fn plain(name: Name, kind: u16) -> Key {
    Key { question: Question::new(name, kind), flags: Flags::default() }
}

fn name_of(answer: &Answer) -> Option<Name> {
    Name::from_wire(super::view::View::new(answer.octets()).ok()?.asked())
}

/// What a host gets of what others have said. They do not know all of the site's names.
pub(super) fn give(zone: &Zone, answer: &Answer, client: Client, query: &Query, age: u32) -> Vec<u8> {
    if answer.denies_name() && zone.has(&query.key.question.name) {
        return match compose::no_data(answer.octets()) {
            Some(answer) => reply(&answer, client, query, age),
            None => query.refusal(rcode::NO_ERROR.into()),
        };
    }
    reply(answer, client, query, age)
}

pub(super) fn reply(answer: &Answer, client: Client, query: &Query, age: u32) -> Vec<u8> {
    let octets_max = match client {
        Client::Datagram(..) => query.datagram_max(),
        Client::Stream(..) => usize::from(u16::MAX),
    };
    answer.reply(query, age, octets_max)
}

pub(super) fn good_for(answer: &Answer, age: Duration) -> Duration {
    good_for_s(answer.lifetime, age)
}

/// How long locators are good that were learned `age` ago for some seconds.
pub(super) fn good_for_s(seconds: u32, age: Duration) -> Duration {
    Duration::from_secs(seconds.into()).saturating_sub(age).max(LOCATORS_FOR)
}
