//! The server: RFC 8415 §18.3, message by message.
//!
//! | message | what is looked at | what becomes of it |
//! |---|---|---|
//! | Solicit (§18.3.1) | has the client an address, or is one ready | Advertise; Reply with Rapid Commit |
//! | Request (§18.3.2) | is what it asks for of this link | its address, bound |
//! | Confirm (§18.3.3) | are all addresses of this link | Success, NotOnLink, or nothing if it names none |
//! | Renew (§18.3.4) | is it bound | longer lifetimes; a new address if it is not; 0 for others |
//! | Rebind (§18.3.5) | the same | the same; NoBinding without Rapid Commit |
//! | Information-request (§18.3.6) | | options |
//! | Release (§18.3.7) | is it bound | no longer; NoBinding |
//! | Decline (§18.3.8) | is it bound | forgotten, the address quarantined; NoBinding |
//!
//! Prefixes are not delegated and temporary addresses not given: clients that ask for them hear that there are none.

mod answer;
mod rows;
mod shared;

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::book::{Book, Refusal};
use super::config::Config;
use super::lease::{Change, Client, Identity, Lease, State, Stored};
use super::message::{self, Duid, Kind, Malformed, Request, Status, code};
use super::relay::{self, Hop};
use super::{CLIENT_PORT, SERVER_PORT};
use crate::time::Instant;

/// Answers that wait until something is written; clients ask again.
const WAITING_MAX: usize = 8192;
/// Clients that were offered an address and have not taken it.
const OFFERS_MAX: usize = 1024;
/// How long an offer stands: longer than a client takes to decide (RFC 8415 §7.6).
const OFFER: u64 = 60;
/// How much longer than a client a lease is kept: for what answers take on their way, and the seconds we round by.
const GRACE: u64 = 60;
/// How long an answer may wait to be written: what it says of lifetimes has to stay within the grace.
const STALE: Duration = Duration::from_secs(10);
/// Leases that end in one call of [`Server::expire`].
const EXPIRE_MAX: usize = 256;
/// The information refresh time (RFC 8415 §21.23).
const INFORMATION_REFRESH: u32 = 86_400;

/// A datagram for the server.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Who sent it.
    pub source: Ipv6Addr,
    /// To whom.
    pub target: Ipv6Addr,
    /// Its payload.
    pub payload: &'a [u8],
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be written, all of it or nothing, in the order of tickets; [`Server::persisted`] wants to hear of it.
    Write {
        /// Which.
        ticket: u64,
        /// What.
        changes: Vec<Change>,
    },
    /// A datagram to be sent.
    Send {
        /// To whom.
        target: (Ipv6Addr, u16),
        /// The payload.
        payload: Vec<u8>,
        /// The hosts it tells of their address: it is sent only if they are served.
        needs: Vec<Ipv6Addr>,
    },
    /// The host has a lease that is written: it is served from now on, if it is not already.
    Serve(Lease),
    /// The host with this identifier is served no longer.
    Withdraw(Ipv6Addr),
    /// Worth a line in the log.
    Tell(Told),
}

/// What an operator may want to read about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A client has an address that it did not have.
    Bound(Client, String, Ipv6Addr),
    /// A client gave its address back.
    Released(String, Ipv6Addr),
    /// A lease was not extended in time.
    Expired(String, Ipv6Addr),
    /// A client found somebody else with its address.
    Declined(Client, Ipv6Addr),
    /// A client gets no address.
    Refused(Client, Ipv6Addr, Refusal),
    /// A message from there is no message.
    Malformed(Ipv6Addr, Malformed),
    /// A relay that is not listened to, or that names a link which is not ours.
    Relay(Ipv6Addr, Option<Ipv6Addr>),
    /// Somebody who is on no link of ours.
    Stranger(Ipv6Addr),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Answered at once.
    Answered(Kind),
    /// Answered when it is written.
    Writing(Kind),
    /// Answered by UseMulticast.
    UseMulticast,
    /// Not answered: it is no message.
    Malformed(Malformed),
    /// Not answered: it comes through a relay that is not listened to, or that names another link.
    BadRelay,
    /// Not answered: its sender is on no link of ours.
    Stranger,
    /// Not answered: meant for another server.
    OtherServer,
    /// Not answered: nothing can be said (RFC 8415 §18.3.3, §18.3.5).
    Nothing,
    /// Not answered: no address is ready yet.
    NoIdentity,
    /// Not answered: the other servers of the link cannot be heard, and this is not what the client was offered by us.
    Alone,
    /// Not answered: too many answers wait to be written.
    Busy,
}

/// An answer that waits to be written, and what follows then.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    answer: Option<Output>,
    /// Who is told that it has which address.
    serve: Vec<(Client, Ipv6Addr)>,
    withdraw: Vec<Ipv6Addr>,
    /// Whose lease ends by it.
    ends: Vec<Client>,
}

/// What becomes of one identity association.
#[derive(Debug)]
enum Outcome {
    /// It has this address for so long, and none of the others it named.
    Lease {
        address: Ipv6Addr,
        valid: u32,
        dead: Vec<Ipv6Addr>,
    },
    /// It has none of those it named.
    Dead(Vec<Ipv6Addr>),
    Status(Status, &'static str),
    /// Nothing needs to be said.
    Done,
}

/// What one message leads to, while it is looked at.
#[derive(Default)]
struct Work {
    changes: Vec<Change>,
    serve: Vec<(Client, Ipv6Addr)>,
    withdraw: Vec<Ipv6Addr>,
    told: Vec<Told>,
    /// An association gets nothing because no identity is ready.
    starved: bool,
    /// One gets nothing because another server may give it something else.
    alone: bool,
    /// What the host is called.
    name: Option<String>,
}

/// A message with where it came from.
struct Asked<'a> {
    request: &'a Request,
    client: &'a Duid,
    via: Ipv6Addr,
    relayed: bool,
}

/// The server of one link.
#[derive(Debug)]
pub struct Server {
    config: Config,
    book: Book,
    /// The wall clock's seconds since 1970 when time began.
    epoch: u64,
    /// Identities that are nobody's.
    reserve: VecDeque<Identity>,
    offers: HashMap<Client, (u64, Identity)>,
    offers_by_end: BTreeSet<(u64, Client)>,
    waiting: HashMap<u64, Waiting>,
    next_ticket: u64,
    /// Clients whose lease ends by something that is not yet written, and the last of it: what was to be told before is not
    /// told any more.
    ending: HashMap<Client, u64>,
    /// Names that others than clients have.
    foreign_names: HashSet<String>,
    /// Whether other servers of the link cannot be heard.
    alone: bool,
}

impl Server {
    /// With what was stored; `epoch` is the wall clock's seconds since 1970 at [`Instant::START`]. Leases whose time is over
    /// end with the first [`Server::expire`].
    pub fn new(config: Config, stored: Stored, epoch: u64) -> Server {
        let book = Book::new(stored, &config);
        Server {
            config,
            book,
            epoch,
            reserve: VecDeque::new(),
            offers: HashMap::new(),
            offers_by_end: BTreeSet::new(),
            waiting: HashMap::new(),
            next_ticket: 0,
            ending: HashMap::new(),
            foreign_names: HashSet::new(),
            alone: false,
        }
    }

    /// Other settings from now on. Leases stay as they are until their clients ask again.
    pub fn set_config(&mut self, config: Config) {
        self.book = Book::new(self.book.stored(), &config);
        self.config = config;
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Names that clients do not get.
    pub fn set_foreign_names(&mut self, names: HashSet<String>) {
        self.foreign_names = names;
    }

    /// Who has what.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Seconds since 1970.
    pub fn wall(&self, now: Instant) -> u64 {
        self.epoch + now.0.as_secs()
    }

    /// Identities that are ready.
    pub fn ready(&self) -> usize {
        self.reserve.len()
    }

    /// Answers that wait to be written.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A new identity, nobody's so far; one with addresses that somebody has is not used.
    pub fn stock(&mut self, identity: Identity) {
        let is_offered = |known: &Identity| identity.addresses().any(|it| known.addresses().any(|known| known == it));
        let known = self.reserve.iter().chain(self.offers.values().map(|(_, identity)| identity));
        if !self.book.is_taken(&identity) && !known.into_iter().any(is_offered) {
            self.reserve.push_back(identity);
        }
    }

    /// Identities that are not yet anybody's are of no use any more: providers have changed.
    ///
    /// Their identifiers.
    pub fn discard_stock(&mut self) -> Vec<Ipv6Addr> {
        self.offers_by_end.clear();
        let offered = self.offers.drain().map(|(_, (_, identity))| identity.ulid);
        offered.chain(self.reserve.drain(..).map(|identity| identity.ulid)).collect()
    }

    /// What a client has cannot be served: it gets another address when it asks again.
    pub fn refuse(&mut self, client: &Client) {
        self.book.set_unfit(client, true);
    }

    /// Providers or hosts have changed: what could not be served may be now.
    pub fn forgive(&mut self) {
        self.book.forgive();
    }

    /// Locators of a client are others now. To be written, without an answer.
    pub fn relocate(&mut self, now: Instant, client: &Client, locators: Vec<Ipv6Addr>, out: &mut Vec<Output>) {
        let Some(mut lease) = self.book.get(client).cloned() else { return };
        lease.identity.locators = locators;
        let unfit = self.book.is_unfit(client);
        self.book.put(lease.clone(), &self.config);
        self.book.set_unfit(client, unfit);
        let work = Work { changes: vec![Change::Put(lease)], ..Work::default() };
        self.write(now, work, None, out);
    }

    /// Takes in a message.
    pub fn receive(&mut self, now: Instant, incoming: Incoming<'_>, out: &mut Vec<Output>) -> Verdict {
        let source = incoming.source;
        let malformed = |reason, out: &mut Vec<Output>| {
            out.push(Output::Tell(Told::Malformed(source, reason)));
            Verdict::Malformed(reason)
        };
        if incoming.payload.len() > message::OCTETS_MAX {
            return malformed(Malformed::Length, out);
        }
        let (hops, inner) = match relay::unwrap(incoming.payload) {
            Ok(both) => both,
            Err(reason) => return malformed(reason, out),
        };
        let relayed = !hops.is_empty();
        if relayed && let Err(link) = self.check_relays(source, &hops) {
            out.push(Output::Tell(Told::Relay(source, link)));
            return Verdict::BadRelay;
        }
        let near = is_link_local(source) || self.config.on_link(source);
        if !relayed && !near {
            out.push(Output::Tell(Told::Stranger(source)));
            return Verdict::Stranger;
        }
        let request = match Request::parse(inner) {
            Ok(request) => request,
            Err(reason) => return malformed(reason, out),
        };
        if request.server.as_ref().is_some_and(|server| *server != self.config.duid) {
            return Verdict::OtherServer;
        }
        let way = |payload| Output::Send {
            target: (source, if relayed { SERVER_PORT } else { CLIENT_PORT }),
            payload: relay::wrap(&hops, payload),
            needs: Vec::new(),
        };
        if !relayed && !incoming.target.is_multicast() {
            // §18.4
            let kind = if request.kind == Kind::Solicit { message::ADVERTISE } else { message::REPLY };
            let mut answer = self.begin(kind, &request);
            answer.status(Status::UseMulticast, "send to ff02::1:2");
            out.push(way(answer.finish()));
            return Verdict::UseMulticast;
        }
        if self.waiting.len() >= WAITING_MAX {
            return Verdict::Busy;
        }
        self.serve(now, &request, source, relayed, &way, out)
    }

    /// Whether a relay may say what it says; otherwise the link it names, if it names one.
    fn check_relays(&self, source: Ipv6Addr, hops: &[Hop]) -> Result<(), Option<Ipv6Addr>> {
        let link = relay::link_of(hops);
        let near = is_link_local(source) || self.config.on_link(source);
        // A relay that names no link passes on what it hears on ours (RFC 6221).
        let ours = link.is_none_or(|link| self.config.on_link(link));
        let strange = |peer: Ipv6Addr| peer.is_multicast() || peer.is_loopback() || peer.is_unspecified();
        let peers = hops.iter().all(|hop| !strange(hop.peer));
        if near && ours && peers && self.config.hears(source) { Ok(()) } else { Err(link) }
    }

    /// A message that passed all checks.
    fn serve(
        &mut self,
        now: Instant,
        request: &Request,
        via: Ipv6Addr,
        relayed: bool,
        way: &dyn Fn(Vec<u8>) -> Output,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let kind = request.kind;
        let Some(client) = &request.client else {
            // §18.3.6: only this one comes without.
            let mut answer = self.begin(message::REPLY, request);
            self.put_options(&mut answer, request, None);
            out.push(way(answer.finish()));
            return Verdict::Answered(kind);
        };
        let asked = Asked { request, client, via, relayed };
        let mut work = Work::default();
        let rapid = kind == Kind::Solicit && request.rapid_commit && self.config.rapid_commit && !self.alone;
        let outcomes: Vec<Outcome> = match kind {
            Kind::Confirm => return self.confirm(request, way, out),
            Kind::InformationRequest => Vec::new(),
            Kind::Solicit if !rapid => request.ias.iter().map(|ia| self.offer(now, &asked, ia, &mut work)).collect(),
            _ => request.ias.iter().map(|ia| self.associate(now, &asked, ia, &mut work)).collect(),
        };
        out.extend(work.told.drain(..).map(Output::Tell));
        let ends = matches!(kind, Kind::Release | Kind::Decline);
        if work.alone && work.changes.is_empty() {
            return Verdict::Alone;
        }
        if work.starved && work.changes.is_empty() {
            return Verdict::NoIdentity;
        }
        if kind == Kind::Rebind && outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done)) {
            return Verdict::Nothing;
        }
        let mut answer =
            self.begin(if kind == Kind::Solicit && !rapid { message::ADVERTISE } else { message::REPLY }, request);
        if rapid {
            answer.option(code::RAPID_COMMIT, |_| ());
        }
        if kind == Kind::Solicit && self.config.preference > 0 {
            answer.option(code::PREFERENCE, |out| out.put(&[self.config.preference]));
        }
        if ends {
            answer.status(Status::Success, "");
        } else {
            self.put_options(&mut answer, request, work.name.as_deref());
        }
        self.put_outcomes(&mut answer, request, &outcomes);
        let answer = way(answer.finish());
        if work.changes.is_empty() {
            out.push(answer);
            return Verdict::Answered(kind);
        }
        self.write(now, work, Some(answer), out);
        Verdict::Writing(kind)
    }

    /// §18.3.3
    fn confirm(&self, request: &Request, way: &dyn Fn(Vec<u8>) -> Output, out: &mut Vec<Output>) -> Verdict {
        let mut addresses = request.ias.iter().flat_map(|ia| &ia.addresses).peekable();
        if addresses.peek().is_none() {
            return Verdict::Nothing;
        }
        let mut answer = self.begin(message::REPLY, request);
        match addresses.all(|address| self.config.on_link(*address)) {
            true => answer.status(Status::Success, "all addresses are of this link"),
            false => answer.status(Status::NotOnLink, "not all addresses are of this link"),
        }
        out.push(way(answer.finish()));
        Verdict::Answered(Kind::Confirm)
    }

    /// The address a client without one was offered, or is offered now.
    fn offered(&mut self, wall: u64, client: &Client) -> Option<Ipv6Addr> {
        let identity = match self.take_offer(client) {
            Some(identity) => identity,
            None => self.fresh()?,
        };
        let address = identity.ulid;
        while self.offers.len() >= OFFERS_MAX {
            self.drop_first_offer();
        }
        self.offers_by_end.insert((wall + OFFER, client.clone()));
        self.offers.insert(client.clone(), (wall + OFFER, identity));
        Some(address)
    }

    /// An identity that is nobody's. When all are on offer, the oldest offer makes way: nobody was promised anything by it,
    /// and a client that goes on to ask gets an address before those that never do.
    fn fresh(&mut self) -> Option<Identity> {
        if self.reserve.is_empty() {
            self.drop_first_offer();
        }
        self.reserve.pop_front()
    }

    fn take_offer(&mut self, client: &Client) -> Option<Identity> {
        let (until, identity) = self.offers.remove(client)?;
        self.offers_by_end.remove(&(until, client.clone()));
        Some(identity)
    }

    fn drop_first_offer(&mut self) {
        if let Some((_, client)) = self.offers_by_end.first().cloned()
            && let Some(identity) = self.take_offer(&client)
        {
            self.reserve.push_back(identity);
        }
    }

    /// What was written, or could not be: then there is no answer, and the client asks again. There is none either if the
    /// answer is not true any more, because the client went on to say something else or it took too long.
    pub fn persisted(&mut self, now: Instant, ticket: u64, written: bool, out: &mut Vec<Output>) {
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        let Waiting { since, answer, serve, withdraw, ends } = waiting;
        // Somebody may have come back while it was written that he had gone.
        let is_back = |ulid: &Ipv6Addr| self.book.owner(*ulid).is_some_and(|lease| lease.state == State::Bound);
        let gone = withdraw.into_iter().filter(|ulid| !is_back(ulid)).collect::<Vec<_>>();
        out.extend(gone.into_iter().map(Output::Withdraw));
        for client in ends {
            if self.ending.get(&client) == Some(&ticket) {
                self.ending.remove(&client);
            }
        }
        if !written {
            return;
        }
        let holds = |lease: &&Lease, ulid| lease.state == State::Bound && lease.identity.ulid == ulid;
        let stays = |client: &Client| !self.ending.contains_key(client);
        let bound = |(client, ulid): &(Client, Ipv6Addr)| {
            self.book.get(client).filter(|lease| holds(lease, *ulid)).filter(|_| stays(client))
        };
        let leases: Vec<Output> = serve.iter().filter_map(bound).cloned().map(Output::Serve).collect();
        let stands = leases.len() == serve.len() && now.since(since) < STALE;
        out.extend(leases);
        out.extend(answer.filter(|_| stands).map(|answer| match answer {
            Output::Send { target, payload, .. } => {
                Output::Send { target, payload, needs: serve.into_iter().map(|(_, ulid)| ulid).collect() }
            }
            other => other,
        }));
    }

    fn write(&mut self, now: Instant, work: Work, answer: Option<Output>, out: &mut Vec<Output>) {
        let Work { changes, serve, withdraw, .. } = work;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let ends = |change: &Change| match change {
            Change::Put(lease) if lease.state == State::Former => Some(lease.client.clone()),
            Change::Forget(client) => Some(client.clone()),
            Change::Put(_) | Change::Hold(_) | Change::Free(_) => None,
        };
        let ends: Vec<Client> = changes.iter().filter_map(ends).collect();
        self.ending.extend(ends.iter().map(|client| (client.clone(), ticket)));
        self.waiting.insert(ticket, Waiting { since: now, answer, serve, withdraw, ends });
        out.push(Output::Write { ticket, changes });
    }

    /// Lets leases, offers and quarantines end whose time is over.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<Output>) {
        let wall = self.wall(now);
        while self.offers_by_end.first().is_some_and(|(until, _)| *until <= wall) {
            self.drop_first_offer();
        }
        let mut work = Work::default();
        for _ in 0..EXPIRE_MAX {
            if let Some(lease) = self.book.ended(wall).cloned() {
                work.changes.extend(self.book.make_room(&self.config, wall));
                out.push(Output::Tell(Told::Expired(lease.name.clone(), lease.identity.ulid)));
                work.withdraw.push(lease.identity.ulid);
                let lease = Lease { state: State::Former, ..lease };
                self.book.put(lease.clone(), &self.config);
                work.changes.push(Change::Put(lease));
            } else if let Some(ulid) = self.book.release(wall) {
                work.changes.push(Change::Free(ulid));
            } else {
                break;
            }
        }
        if !work.changes.is_empty() {
            // Nobody is told, so nothing has to wait.
            out.extend(work.withdraw.drain(..).map(Output::Withdraw));
            self.write(now, work, None, out);
        }
    }

    /// When [`Server::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let offer = self.offers_by_end.first().map(|(until, _)| *until);
        let due = self.book.due().into_iter().chain(offer).min()?;
        Some(Instant(Duration::from_secs(due.saturating_sub(self.epoch))))
    }
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}
