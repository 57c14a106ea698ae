//! The engine: everything the control core decides, wired together, still without a clock, a socket or a thread.
//!
//! In come [`Notice`]s of the workers, the passing of time and the operator's wishes; out go [`Effect`]s. Between them the [Shim6
//! endpoint](crate::shim6), one [REAP machine](crate::reap) per established context, the book of paths that contexts share, and the
//! box's own [host stack](crate::host). The driver, the simulator and the tests run the same code.
//!
//! | file | what it answers |
//! |---|---|
//! | `mod` | what comes in, and where it goes |
//! | `setup` | what the configuration makes of it |
//! | `hosts` | hosts that come and go, and who may have their addresses |
//! | `context` | what follows when a context changes: table entries, locators |
//! | `attachments` | who is on which path, and whose path is in doubt |
//! | `liveness` | a context's REAP machine: what it is told, what it wants, and who else hears of it |
//! | `fork` | contexts of their own for classes of traffic |
//! | `goal` | moves that are wished for: tested, then made |
//! | `hints` | what others may say about paths, and what comes of it |
//! | `icmp` | what an ICMPv6 error about a translated packet becomes |
//! | `revive` | signs that what was given up works again, and who should try again |
//! | `carriage` | which paths drop next header 140 |
//! | `udp` | what goes in UDP there, and the questions that tell |
//! | `label` | when a flow label stands for the payload header |
//! | `quote` | the octets of such an error without the shim |
//! | `leases` | hosts that get their address by DHCPv6, and what routers tell |
//! | `link` | how a packet of the box's own reaches the wire |
//! | `mirror` | what other boxes of the site are told of contexts, and contexts that they run |
//! | `natv6` | who is translated, through which provider, and which sessions get a context |
//! | `watch` | paths that are watched by exchanging liveness, and what follows when one fails |
//! | `watches` | which these are |
//! | `unreachable` | who hears of a packet whose next hop does not answer |
//! | `routes` | what routers say of the providers' routes |
//! | `standby` | another pair for each context, and what workers do at once when a path is lost |
//! | `numbers` | the numbers by which workers know paths |
//! | `system` | what the operating system may send and what it hears, where it shares a port |
//! | `inside` | the router that hosts are behind |
//! | `fitness` | whether the box is fit to serve, and the routes that say so |
//! | `succession` | what another process is told that takes this one's place, and what it makes of it |
//! | `signed` | what the site's key has signed |
//! | `steer` | which providers contexts should use, and how peers hear of it |
//! | `policy` | which contexts should use which provider, by the site's policy |
//! | `proofs` | what others compute for the engine |
//! | `services` | what the box does for hosts besides forwarding |
//! | `publish` | whose names are kept where, and the way there |
//! | `providers` | providers that come and go |
//! | `names` | DNS for the hosts, and the handshakes it starts |
//! | `peers` | whose locators are known |
//! | `report` | what the operator sees |

mod attachments;
#[cfg(test)]
mod bounds_tests;
mod carriage;
mod context;
#[cfg(test)]
mod cut_tests;
mod durations;
mod effect;
mod explain;
mod fitness;
mod fork;
mod goal;
mod hints;
mod hosts;
mod icmp;
mod identities;
mod inside;
mod label;
mod leases;
mod legacy;
mod link;
mod liveness;
mod messages;
mod mirror;
mod names;
mod natv6;
mod numbers;
mod patience;
mod peers;
mod policy;
mod proofs;
mod providers;
mod publish;
mod quote;
mod report;
mod revive;
mod round;
mod routes;
mod services;
mod setup;
mod shared;
mod signed;
mod standby;
mod steer;
mod succession;
mod system;
mod tally;
mod udp;
mod unreachable;
mod uplinks;
mod watch;
mod watches;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dataplane::bucket::TokenBucket;
use dataplane::context::Sharding;
use dataplane::link::{Notice, Punt};
use dataplane::natv6::PrefixPair;
use dataplane::snapshot::{Block, PortId, Snapshot};
use dataplane::wire::ethernet;
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair};
use hashbrown::{HashMap, HashSet};
use rand::Rng;

use crate::config::Prefix;
use crate::config::site::Hints;
use crate::host::{Advertiser, GivenUp, LinkEvent, Listener, Neighbours, Stack};
use crate::identity::SigningKey;
use crate::publish::Publisher;
use crate::reap::{self, PathBook, ProbeBudget, Sightings};
use crate::shim6::{self, Context, ContextId, Endpoint, Open, OpenRefused, Owner};
use crate::time::Instant;
use crate::wheel::Wheel;
use attachments::Attachments;
pub use effect::{Effect, Story};
pub use fitness::{Unfit, Wanted};
pub use hosts::Changes;
pub use identities::{IdentityJob, MadeIdentity};
pub use leases::{Commit, Kept};
pub use mirror::{GroupPlan, MirrorCounts, Told};
use providers::Provider;
use revive::Revival;
use round::Round;
pub use routes::RouteWish;
pub use setup::{PortSetup, SetupError, worker_limits};
pub use signed::Signed;
pub use steer::SteerRefused;
pub use succession::{CarriedHost, Doubts, Item, Keys};
pub use tally::{Event, Tally};

/// All of the control core's state.
pub struct Engine {
    sharding: Sharding,
    workers: usize,
    /// Whether workers accept payload only over the locators of its context.
    strict: bool,
    /// Whether hosts get the ICMPv6 errors the box acts on itself (RFC 5533 §8).
    icmp_errors_to_hosts: bool,
    snapshot: Arc<Snapshot>,
    providers: Vec<Provider>,
    lan_port: PortId,
    /// The box's own addresses there.
    lan_addresses: Vec<std::net::Ipv6Addr>,
    /// Blocks of identifiers besides fc00::/7.
    identifiers: Vec<Block>,
    /// Providers whose prefix or router is found out.
    uplinks: uplinks::Uplinks,
    /// Hosts that have their address by DHCPv6.
    leased: HashSet<Ulid>,
    leases: Option<leases::Leases>,
    advertiser: Option<Advertiser>,
    /// The hosts, as the configuration names them.
    served: HashMap<Ulid, hosts::Served>,
    /// What signs locators outside the hosts' address sets, as it came with the last configuration that needed it.
    key: Option<Arc<SigningKey>>,
    /// Places in the snapshot of hosts that are gone.
    free_places: Vec<u32>,
    /// How long what a host had is kept from others when it is gone.
    quarantine: Duration,
    peers: peers::Peers,
    /// DNS for the hosts, if it is configured.
    names: Option<Box<names::Names>>,
    /// Classes of traffic with contexts of their own; the first is number 1.
    classes: Vec<fork::Class>,
    /// Those of the configuration alone.
    forks_configured: Vec<fork::Class>,
    endpoint: Endpoint,
    attached: Attachments,
    reap_config: Arc<reap::Config>,
    hints: Hints,
    book: PathBook,
    sightings: Sightings,
    budget: ProbeBudget,
    /// When to look at the REAP machine of a context, by its place; no later than it wants.
    due: Wheel,
    /// Contexts with a probe to send, in the order they asked; they go on as the common budget allows.
    waiting: VecDeque<ContextId>,
    /// Contexts that have just found a path, whose hosts' TCP should hear of it; in order of time.
    wakes: BinaryHeap<Reverse<(Instant, ContextId)>>,
    /// Hosts whose list has locators that are about to go. In order, so that a simulation can be repeated.
    transitions: BTreeMap<Ulid, hosts::Transition>,
    /// When the next of them goes, or a provider that only waits for it.
    lists_due: Option<Instant>,
    /// The prefix of a provider that serves on no longer, and how far its contexts have been ended.
    ending: Option<(u64, usize)>,
    /// Contexts that have something to hear about the locators of their host.
    round: Round,
    news_budget: ProbeBudget,
    /// Contexts whose exploration ended on a pair they should leave; in order of time.
    stays: BinaryHeap<Reverse<(Instant, ContextId)>>,
    /// Whether peers hear of a provider that is down.
    announce_down: bool,
    /// When to look whether a provider that was down has been up for long enough.
    advise_at: Option<Instant>,
    /// Who waits for an answer, and what may be there again.
    revival: Revival,
    /// The site's policy, if there is one.
    steered: Option<Box<policy::Steered>>,
    /// What the wall clock said last, if anybody told.
    unix: Option<u64>,
    /// Moves that are being tested.
    goals: goal::Goals,
    /// Other pairs for contexts, and what is lost.
    standbys: standby::Standbys,
    /// Paths that drop next header 140.
    carriages: carriage::Carriages,
    /// Paths whose liveness is exchanged with the peer's box.
    watches: watches::Watches,
    /// What routers say of routes.
    routes: routes::Routes,
    neighbours: Neighbours,
    listener: Listener,
    /// What is translated by prefix.
    mapped: Vec<Prefix>,
    /// How, by the prefix of the provider.
    prefix_pairs: HashMap<u64, PrefixPair>,
    /// When to look again whether providers that contexts saw fail still do.
    failing_check: Option<Instant>,
    /// What is on the link of each port.
    links: Vec<Vec<Block>>,
    stacks: Vec<Stack>,
    /// ICMPv6 errors about packets given up (RFC 4443 §2.4 (f)).
    errors: TokenBucket,
    /// Keeps the names of hosts in a server, if there is one.
    publisher: Option<Publisher>,
    tally: Tally,
    durations: durations::Durations,
    /// Room for what the endpoint says, empty between calls.
    outputs: Vec<shim6::Output>,
    keys: Keys,
    /// What the site's key has signed, while somebody wants to know.
    signed: Option<Vec<Signed>>,
    /// The router that hosts are behind.
    inner: inside::InnerRouter,
    /// What the routes of the operating system depend on.
    fitness: fitness::Fitness,
    /// What has been told to who takes this engine's place.
    bequest: Option<Box<succession::Bequest>>,
    /// What was told by the one whose place this engine takes.
    inheritance: succession::Inheritance,
    /// Other boxes of the site that know this one's contexts, if there are any.
    mirrors: Option<Box<mirror::Mirrors>>,
}

impl Engine {
    /// Takes in what a worker noticed.
    pub fn notice(&mut self, now: Instant, rng: &mut dyn Rng, notice: Notice<'_>, effects: &mut Vec<Effect>) {
        match &notice {
            Notice::UnknownTag { locators, .. } => self.watches.heard(now, context::prefix_of(locators.peer.0), false),
            Notice::Punt(_, what @ (Punt::Shim6 | Punt::IcmpError | Punt::HostStack), frame) => {
                self.watches_hear(now, frame.get(ethernet::HEADER_LEN..).unwrap_or_default(), *what == Punt::Shim6);
            }
            _ => {}
        }
        match notice {
            Notice::UnknownPair(ulids) => self.unknown_pair(now, rng, ulids, effects),
            Notice::UnknownTag { tag, .. } if self.ask_for_tag(now, tag) => {}
            Notice::UnknownTag { tag, locators, udp } => {
                let mut out = Vec::new();
                self.remind(tag, effects);
                self.carriages.came(context::along(locators).swapped(), udp);
                let verdict = self.endpoint.payload_without_context(now, tag, locators, &mut out);
                self.tally.shim6(verdict);
                self.follow(now, rng, out, effects);
                self.carriages.went();
            }
            Notice::Punt(port, Punt::HostStack, frame) => self.for_the_box(now, rng, port, frame, effects),
            Notice::Punt(port, Punt::System, frame) => self.for_the_system(port, frame, effects),
            Notice::Punt(_, Punt::Shim6, frame) if self.is_for_another(frame) => {}
            Notice::Punt(_, Punt::Shim6, frame) => self.control_message(now, rng, frame, effects),
            Notice::Punt(port, Punt::IcmpError, frame) => self.icmp_error(now, rng, Some(port), frame, effects),
            Notice::Unresolved(port, next_hop, frame) => self.unresolved(now, port, next_hop, frame, effects),
            Notice::Activity { handle, activity, traffic } => {
                self.activity(now, rng, ContextId::from_bits(handle), activity, traffic, effects);
            }
            Notice::Qualified { pair, presented, .. } => self.qualified(now, rng, pair, presented, effects),
            Notice::Fork(wish) => self.fork_wished(now, rng, wish, effects),
            Notice::Tcp { handle, sign, pair } => {
                self.tcp_sign(now, rng, ContextId::from_bits(handle), sign, pair, effects);
            }
            Notice::TableFull { handle } => {
                self.tally.count(Event::TableFull);
                let mut out = Vec::new();
                self.endpoint.discard(ContextId::from_bits(handle), shim6::GoneReason::Discarded, &mut out);
                self.follow(now, rng, out, effects);
            }
        }
    }

    /// Lets everything run whose time has come.
    pub fn expire(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        let mut events = Vec::new();
        if self.neighbours.deadline().is_some_and(|due| due <= now) {
            self.neighbours.expire(now, &mut events);
        }
        let silent = |event: &mut LinkEvent| matches!(event, LinkEvent::Undeliverable(_, _, GivenUp::Unanswered));
        let given_up: Vec<LinkEvent> = events.extract_if(.., silent).collect();
        self.link_events(now, events, effects);
        self.given_up(now, rng, given_up, effects);
        self.report_groups(now, effects);
        if self.endpoint.deadline().is_some_and(|due| due <= now) {
            let mut out = Vec::new();
            self.endpoint.expire(now, rng, &mut out);
            self.follow(now, rng, out, effects);
        }
        if self.lists_due.is_some_and(|due| due <= now) {
            self.expire_lists(now, rng, effects);
        }
        self.expire_leases(now, rng, effects);
        self.expire_news(now, rng, effects);
        self.expire_revivals(now, rng, effects);
        self.expire_watches(now, rng, effects);
        self.expire_routes(now, rng, effects);
        self.expire_reap(now, rng, effects);
        self.expire_standbys(now, rng, effects);
        self.expire_wakes(now, effects);
        self.expire_publisher(now, rng, effects);
        if self.failing_check.is_some_and(|due| due <= now) {
            self.weigh_providers(now, effects);
        }
        self.expire_uplinks(now, rng, effects);
        self.expire_names(now, rng, effects);
        self.expire_policy(now, rng, effects);
    }

    /// When [`Engine::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let reap = self.due.deadline();
        let paced = self.attached.in_doubt() > 0 || !self.waiting.is_empty() || self.revival.is_paced();
        let suspects = paced.then(|| self.budget.ready_at());
        let wakes = self.wakes.peek().map(|Reverse((at, _))| *at);
        let services = [self.publisher.as_ref().and_then(Publisher::deadline), self.names_deadline()];
        let host = [
            self.neighbours.deadline(),
            self.listener.deadline(),
            self.failing_check,
            self.revival.due(),
            self.standbys_deadline(),
            self.watches_deadline(),
            self.policy_deadline(),
            self.uplinks.deadline(),
            self.mirrors_deadline(),
            self.routes_deadline(),
        ];
        [reap, suspects, wakes, self.news_deadline(), self.lists_due, self.endpoint.deadline(), self.leases_deadline()]
            .into_iter()
            .chain(services)
            .chain(host)
            .flatten()
            .min()
    }

    /// What happened so far, by name.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How long handshakes and failovers took.
    pub(crate) fn durations(&self) -> &durations::Durations {
        &self.durations
    }

    /// Ports, providers and hosts as workers see them now.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Who owns which context.
    pub fn sharding(&self) -> &Sharding {
        &self.sharding
    }

    fn owner(&self, ulids: &UlidPair) -> usize {
        usize::from(self.sharding.owner_of_pair(&self.endpoint.inside(*ulids))) % self.workers
    }

    /// The worker that has a context: its tag names it, whoever has its identifiers now.
    fn home(&self, context: &Context) -> usize {
        let owner = self.sharding.owner_of_tag(context.local_tag);
        owner.map_or_else(|| self.owner(&context.ulids), |owner| usize::from(owner) % self.workers)
    }

    /// A worker does not know a context that is there: either it will soon, or it could not take it and found no room to say
    /// so. It is told again.
    fn remind(&self, tag: ContextTag, effects: &mut Vec<Effect>) {
        let Some(context) = self.endpoint.find_by_local_tag(tag) else { return };
        if let Some(install) = self.attached.get(&context.id).and_then(|attached| attached.installed.clone()) {
            effects.push(Effect::Install(self.home(context), install));
        }
    }

    /// A host wants to talk to a peer (RFC 5533 §7.7).
    fn unknown_pair(&mut self, now: Instant, rng: &mut dyn Rng, ulids: UlidPair, effects: &mut Vec<Effect>) {
        let known = self.peers.get(&ulids.peer).is_some() && !self.peers.is_doubted(&ulids.peer);
        if !known && self.look_up(now, rng, ulids, effects) {
            return;
        }
        if !self.open_known(now, rng, ulids, effects) {
            effects.push(Effect::Refuse(self.owner(&ulids), ulids));
        }
    }

    /// Opens a context with a peer, if its locators are known. False if that is refused.
    fn open_known(&mut self, now: Instant, rng: &mut dyn Rng, ulids: UlidPair, effects: &mut Vec<Effect>) -> bool {
        // Only what opens is counted where it begins.
        let opens = self.peers.get(&ulids.peer).is_some() && self.endpoint.find(ulids, 0).is_none();
        let begin = if opens { self.begin_at(None, ulids.local.0, ulids.peer.0) } else { None };
        let peer = self.peers.get(&ulids.peer);
        let pairs = peer.map(|peer| self.candidates(now, ulids, peer, None, begin)).unwrap_or_default();
        let opened = self.open(now, rng, Open { ulids, fork: 0, pairs }, effects);
        if opened {
            self.peers.used(ulids);
        }
        opened
    }

    /// Opens a context. False if that is refused; one that is there already is what was wanted.
    fn open(&mut self, now: Instant, rng: &mut dyn Rng, request: Open, effects: &mut Vec<Effect>) -> bool {
        let (mut out, ulids) = (Vec::new(), request.ulids);
        let opened = match request.pairs.is_empty() {
            true => Err(OpenRefused::NoLocators),
            false => self.endpoint.open(now, rng, request, &mut out),
        };
        let accepted = match opened {
            Ok(_) => {
                self.tally.count(Event::Opened);
                true
            }
            Err(OpenRefused::AlreadyOpen(id)) => {
                // The worker asks about what is under way, or it missed the answer: say it again.
                if let Some(attached) = self.attached.get(&id).and_then(|attached| attached.installed.clone()) {
                    let home =
                        self.endpoint.context(id).map_or_else(|| self.owner(&ulids), |context| self.home(context));
                    effects.push(Effect::Install(home, attached));
                }
                true
            }
            Err(refused) => {
                self.tally.refused(&refused);
                false
            }
        };
        self.follow(now, rng, out, effects);
        accepted
    }

    /// Locator pairs to try for a new context: what is known to be dead last, then most preferred first, then most
    /// divergent from those before, so that a failed provider at either end costs one retransmission. With a class its
    /// preference comes before divergence: there is another context for the packets meanwhile.
    fn candidates(
        &self,
        now: Instant,
        ulids: UlidPair,
        peer: &[Locator],
        class: Option<&fork::Class>,
        begin: Option<policy::Begin>,
    ) -> Vec<LocatorPair> {
        let Some(host) = self.endpoint.host_at(ulids.local) else { return Vec::new() };
        let mut ranked = Vec::new();
        let local = self.local_order(host, ulids, class, begin);
        for (i, &ours) in local.iter().enumerate() {
            let Some((_, provider)) = self.provider_of(ours.0) else { continue };
            for (j, &theirs) in peer.iter().enumerate() {
                let pair = LocatorPair { local: ours, peer: theirs };
                let last_resort = !provider.is_up() || provider.is_unwelcome() || self.is_going(ulids.local, ours);
                let rank = self.book.rank(pair, now);
                let key = match class {
                    // That a path works is no reason to take it instead of one that is not known to be dead.
                    Some(_) => (last_resort, rank.max(reap::Status::Unknown), i, j, 0),
                    None if begin.is_some() => {
                        (last_resort, rank.max(reap::Status::Unknown), i.max(j), i.abs_diff(j), i)
                    }
                    None => (last_resort, rank, i.max(j), i.abs_diff(j), i),
                };
                ranked.push((key, pair));
            }
        }
        ranked.sort_by_key(|(key, _)| *key);
        ranked.into_iter().map(|(_, pair)| pair).collect()
    }

    /// The provider that delegated an address.
    fn provider_of(&self, address: std::net::Ipv6Addr) -> Option<(usize, &Provider)> {
        let prefix = (address.to_bits() >> 64) as u64;
        self.providers.iter().enumerate().find(|(_, provider)| provider.prefix == prefix && provider.exists())
    }

    /// Neighbour discovery, and whatever else is addressed to the box itself.
    fn for_the_box(&mut self, now: Instant, rng: &mut dyn Rng, port: PortId, frame: &[u8], effects: &mut Vec<Effect>) {
        let Some(packet) = frame.get(ethernet::HEADER_LEN..) else { return };
        self.show_to_system(port, frame, effects);
        if self.router_advertised(now, rng, port, packet, effects) {
            return;
        }
        let mut events: Vec<LinkEvent> = Vec::new();
        // An address that belonged to a host is not learned from another machine before its time.
        let quarantine = self.endpoint.quarantine();
        let believe = |address, mac| quarantine.admits(now, address, &Owner { pds: None, link: Some(mac) }).is_ok();
        let discovery = self.neighbours.receive_if(now, port, packet, &believe, &mut events);
        self.link_events(now, events, effects);
        if discovery || self.listener.receive(now, rng, port, packet) {
            return;
        }
        let inside = port == self.lan_port;
        if inside && self.advertiser.as_mut().is_some_and(|it| it.receive(now, rng, packet)) {
            return;
        }
        if self.serve(now, rng, port, frame, effects) {
            return;
        }
        let Some(stack) = self.stacks.get_mut(usize::from(port.0)) else { return };
        let to_many = ethernet::View::new(frame).is_ok_and(|frame| frame.target().is_multicast());
        let answers = stack.receive(now, packet, to_many);
        for _ in 0..std::mem::take(&mut stack.suppressed) {
            self.tally.count(Event::IcmpSuppressed);
        }
        for answer in answers {
            self.send_from_port(now, port, &answer, effects);
        }
        self.stream_events(now, rng, port, effects);
    }

    /// Says to which groups the box listens, where it is time to.
    fn report_groups(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.listener.deadline().is_none_or(|due| due > now) {
            return;
        }
        let mut reports = Vec::new();
        self.listener.expire(now, &mut reports);
        for (port, frame) in reports {
            self.tally.count(Event::ListenerReports);
            effects.push(Effect::Transmit(port, frame));
        }
    }
}
