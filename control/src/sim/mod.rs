//! Whole sites in memory: real engines and real workers, with hosts, providers and time that are made up.
//!
//! A [`World`] has sites joined by a core that never fails; between them and the core stand the providers, each of which
//! can lose, repeat, delay and reorder packets, shrink what it carries, or be cut, in either direction. Boxes restart,
//! pause and find their clocks stepped. Hosts have a TCP of their own. Strangers forge, listeners play back what they
//! heard, and a peer claims what is not its own. Time is virtual and everything random comes from one seed, so thousands
//! of seconds pass in one, and a bad day can be lived again.
//!
//! The network is strict. Whatever a box does that a real one would be punished for, quietly and far away, is written
//! down as a [`Violation`], under the name of the [`Oracle`] that saw it.
//!
//! Nothing happens where nothing is due: a box is looked at when a frame arrives, when its engine asks for it, and as
//! long as its workers have something to report or hold. An idle day costs little more than its timers.
//!
//! # Clocks
//!
//! [`Instant`] is what a monotonic clock says, so boxes never see it go back: a wall clock that is set back or forth
//! does not reach them. What can happen to a monotonic clock, or look as if it had, is a jump forward: the machine slept,
//! the process was stopped, the host of a virtual machine was busy. A [pause](World::pause) is a jump during which frames
//! pile up in the device, a [step](World::step) one without. Each box has a clock of its own.
//!
//! | file | what it is |
//! |---|---|
//! | `mod` | the world, and what happens next in it |
//! | `life` | one seed's life: plan, traffic, faults, healing, and what is asked of it at the end |
//! | `bound` | how long it may take until sessions go on |
//! | `plan` | what a world is made of |
//! | `node` | a box: engine and workers, and what the driver would do for them |
//! | `network` | providers and the core |
//! | `host` | packet sources and sinks, and the streams between them |
//! | `tcp` | the same with connections |
//! | `group`, `boxes` | several boxes of a site, the wires between them, and which one gets a frame |
//! | `attack` | strangers and listeners |
//! | `evil` | a peer that lies |
//! | `fault` | kinds of faults, and how many there were |
//! | `oracle` | what must never be |
//! | `taped` | what boxes are told, recorded and replayed |
//! | `packet` | the few packets the world makes itself |

mod attack;
pub mod bound;
mod boxes;
mod evil;
mod fault;
mod group;
mod host;
pub mod life;
mod network;
mod node;
mod oracle;
pub mod packet;
mod plan;
mod taped;
mod tcp;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::snapshot::PortId;
use dataplane::wire::Ulid;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::shim6::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use evil::VICTIM;
pub use fault::{Fault, Faults};
pub use group::{Boxes, NOTICED};
pub use host::{Arrival, ECHO, Host, Stream};
pub use network::{Captured, Leg, Provider, ROUTER, Way};
pub use node::Node;
pub use oracle::{Oracle, Violation};
pub use plan::{Plan, SitePlan};
pub use taped::{Recording, look};
pub use tcp::{Connection, End, RTO_MAX};

use evil::{Evil, Visits};
use oracle::Ledger;
use tcp::HostStack;

use crate::config::{Hosts, Problems, Site};
use crate::engine::{Changes, SetupError, Story};
use crate::time::Instant;

/// How long a frame is on a cable.
const CABLE: Duration = Duration::from_micros(20);
/// When a box whose workers did something is looked at again: then they report what they saw.
const REPORT: Duration = Duration::from_millis(50);
/// When one is looked at again whose workers hold packets; they look at one pair each time.
const HOLDING: Duration = Duration::from_millis(10);
/// Events at one moment before the world gives up: something answers itself for ever.
const MOMENT_MAX: u32 = 100_000;

/// A site's number.
pub type SiteId = usize;
/// A provider's number among those of all sites.
pub type ProviderId = usize;
/// A host's number among those of all sites.
pub type HostId = usize;
/// A stream's number.
pub type StreamId = usize;
/// A TCP connection's number.
pub type ConnectionId = usize;

/// Where a packet comes from, as far as it matters to those who judge what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A box, or a test.
    Plain,
    /// Somebody who knows neither tags nor nonces.
    Forged,
}

/// Something on its way.
#[derive(Debug)]
enum Due {
    /// A frame reaches a port of a box.
    ToBox(SiteId, usize, Vec<u8>, Origin),
    /// A packet reaches the core, on its way to the provider that leads to its destination.
    AtCore(Vec<u8>, Origin),
    /// A frame reaches a host.
    ToHost(HostId, Vec<u8>),
    /// A stream sends its next packet.
    Send(StreamId),
    /// Both ends of a connection write.
    Write(ConnectionId),
    /// A host's TCP looks at its timers.
    Tcp(HostId),
    /// A box looks around.
    Tick(SiteId),
    /// The peer that lies does something.
    Evil,
}

/// Sites, providers, hosts, and the time.
pub struct World {
    /// The time.
    pub now: Instant,
    /// The boxes, one for each site.
    pub nodes: Vec<Node>,
    /// The providers, those of the first site first.
    pub providers: Vec<Provider>,
    /// The hosts, those of the first site first.
    pub hosts: Vec<Host>,
    /// What hosts send each other.
    pub streams: Vec<Stream>,
    /// TCP connections between hosts.
    pub connections: Vec<Connection>,
    /// What boxes asked providers' servers.
    pub asked: Vec<(ProviderId, Vec<u8>)>,
    /// What was, and must not be.
    pub violations: Vec<Violation>,
    /// What went wrong on purpose.
    pub faults: Faults,
    /// What the engines had to tell.
    pub stories: Vec<(Instant, SiteId, Story)>,
    /// Control messages that boxes sent, whether or not they arrived.
    pub captured: Vec<Captured>,
    /// What hosts sent and got, in words, if anybody wants to know.
    watched: Option<Vec<(Instant, String)>>,
    stacks: Vec<Option<Box<HostStack>>>,
    ledger: Ledger,
    evil: Option<Evil>,
    visits: Visits,
    seed: u64,
    rng: StdRng,
    queue: BTreeMap<(Instant, u64), Due>,
    serial: u64,
    lost: u64,
}

/// The life of a world.
impl World {
    /// A world at its beginning. The boxes have started and know no neighbour yet.
    ///
    /// # Panics
    /// When the plan is not one a configuration could say.
    pub fn new(plan: &Plan, seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let made = plan.make(&mut rng);
        let nodes: Vec<Node> = made.sites.into_iter().map(|site| Node::new(site, rng.next_u64())).collect();
        let mut ledger = Ledger::default();
        ledger.owned.extend(made.hosts.iter().map(|host| (Ulid(host.ulid), host.locators.clone())));
        let mut world = World {
            now: Instant::START,
            nodes,
            providers: made.providers,
            stacks: made.hosts.iter().map(|_| None).collect(),
            hosts: made.hosts,
            streams: Vec::new(),
            connections: Vec::new(),
            asked: Vec::new(),
            violations: Vec::new(),
            faults: Faults::default(),
            stories: Vec::new(),
            captured: Vec::new(),
            watched: None,
            ledger,
            evil: None,
            visits: Visits::default(),
            seed,
            rng,
            queue: BTreeMap::new(),
            serial: 0,
            lost: 0,
        };
        for site in 0..world.nodes.len() {
            world.later(world.now, Due::Tick(site));
        }
        world
    }

    /// The seed everything random comes from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Packets that providers lost, for whatever reason.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(time, |_| false);
        self.now = end;
    }

    /// Lets time pass until something is true, at most for `time`. When it became true.
    ///
    /// # Panics
    /// When time stands still because something answers itself for ever.
    pub fn run_until(&mut self, time: Duration, mut is_true: impl FnMut(&World) -> bool) -> Option<Instant> {
        let end = self.now + time;
        let mut moment = 0;
        loop {
            if is_true(self) {
                return Some(self.now);
            }
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let deadlines = self.nodes.iter().enumerate().filter_map(|(site, node)| Some((node.deadline()?, site)));
            let timer = deadlines.min();
            let next = queued.into_iter().chain(timer.map(|(at, _)| at)).min().filter(|next| *next <= end)?;
            // What was due while nobody looked is done now; time does not run backwards.
            moment = if next > self.now { 0 } else { moment + 1 };
            assert!(moment < MOMENT_MAX, "seed {}: time stands still at {:?}", self.seed, self.now);
            self.now = next.max(self.now);
            match timer {
                Some((at, site)) if queued.is_none_or(|queued| at < queued) => self.turn(site),
                _ => {
                    if let Some((_, due)) = self.queue.pop_first() {
                        self.happen(due);
                    }
                }
            }
        }
    }

    /// A box is killed and started again: nothing is left of it but its configuration.
    pub fn restart(&mut self, site: SiteId) {
        let seed = self.rng.next_u64();
        if let Some(node) = self.nodes.get_mut(site) {
            *node = node.reborn(self.now, seed);
            self.faults.count(Fault::Restart);
            self.forget_site(site);
            self.tell_unplugged(site);
        }
    }

    /// What the engines of all boxes were told so far, if the plan says that they are recorded.
    pub fn recordings(&mut self) -> Vec<Recording> {
        let now = self.now;
        self.nodes.iter_mut().flat_map(|node| node.recordings_until(now)).collect()
    }

    /// A process is started that will take a box's place, as for a new version.
    pub fn begin_succession(&mut self, site: SiteId) {
        self.begin_succession_with(site, |_, _| ());
    }

    /// The same for one with another configuration.
    pub fn begin_succession_with(&mut self, site: SiteId, change: impl FnOnce(&mut Site, &mut Hosts)) {
        let seed = self.rng.next_u64();
        if let Some(node) = self.nodes.get_mut(site) {
            let mut configured = (node.configuration().0.clone(), node.configuration().1.clone());
            change(&mut configured.0, &mut configured.1);
            node.begin_succession(seed, configured);
        }
    }

    /// It takes the box's place, if there is one.
    pub fn end_succession(&mut self, site: SiteId) {
        let now = self.now;
        self.turn(site);
        if let Some(node) = self.nodes.get_mut(site) {
            node.end_succession(now);
            self.faults.count(Fault::Succession);
            self.tell_unplugged(site);
        }
    }

    /// A box does nothing for a while. Frames wait in its devices as far as they have room.
    pub fn pause(&mut self, site: SiteId, time: Duration) {
        let until = self.now + time;
        if let Some(node) = self.nodes.get_mut(site) {
            node.pause(self.now, until);
            self.faults.count(Fault::Pause);
            self.later(until, Due::Tick(site));
        }
    }

    /// A box's clock jumps forward.
    pub fn step(&mut self, site: SiteId, time: Duration) {
        if let Some(node) = self.nodes.get_mut(site) {
            node.step(time);
            self.faults.count(Fault::ClockStep);
            self.later(self.now, Due::Tick(site));
        }
    }

    /// The operator of a site changes its configuration, and the box takes it over or refuses it.
    pub fn reload(&mut self, site: SiteId, change: impl FnOnce(&mut Site, &mut Hosts)) -> Result<Changes, SetupError> {
        let node = &mut self.nodes[site];
        let (mut configured, mut hosts) = (node.configuration().0.clone(), node.configuration().1.clone());
        change(&mut configured, &mut hosts);
        let changes = node.reload(self.now, (configured, hosts))?;
        self.settle_in(site);
        self.turn(site);
        Ok(changes)
    }

    /// The operator of a site loads a policy, or takes it away; nothing changes when it cannot be obeyed.
    pub fn load_policy(&mut self, site: SiteId, text: Option<&str>) -> Result<(), Problems> {
        let now = self.now;
        self.nodes[site].load_policy(now, text)?;
        self.turn(site);
        Ok(())
    }

    /// Hosts may have got further locators; those that they had stay theirs, since peers may not have heard.
    fn settle_in(&mut self, site: SiteId) {
        let World { nodes, hosts, ledger, .. } = self;
        for configured in nodes[site].effective().1 {
            let identity = &configured.identity;
            let owned = ledger.owned.entry(identity.ulid).or_default();
            let mut alike = hosts.iter_mut().filter(|host| host.ulid == identity.ulid.0);
            let new = |known: &Vec<Ipv6Addr>| {
                let all = identity.locators.iter().map(|locator| locator.0);
                all.filter(|locator| !known.contains(locator)).collect::<Vec<Ipv6Addr>>()
            };
            owned.extend(new(owned));
            alike.by_ref().for_each(|host| host.locators.extend(new(&host.locators)));
        }
    }

    /// The device of a box's port says that its link is up or down.
    pub fn link_state(&mut self, site: SiteId, port: usize, up: bool) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(site) {
            node.link_state(now, PortId(port as u8), up);
        }
        self.turn(site);
    }

    /// A router of a site says that a provider has lost its route to a peer's /64 (by the first half of its addresses), or has one.
    pub fn route_changed(&mut self, site: SiteId, provider: &std::sync::Arc<str>, peer: u64, lost: bool) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(site) {
            node.route_changed(now, provider, peer, lost);
        }
        self.turn(site);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::ToBox(site, port, frame, origin) => self.at_box(site, port, &frame, origin),
            Due::AtCore(packet, origin) => self.out_of_core(packet, origin),
            Due::ToHost(host, frame) => self.at_host(host, &frame),
            Due::Send(stream) => self.send_next(stream),
            Due::Write(connection) => self.write_next(connection),
            Due::Tcp(host) => self.tcp_timer(host),
            Due::Evil => self.sin(),
            Due::Tick(site) => {
                if self.nodes.get_mut(site).is_some_and(|node| node.is_time(self.now)) {
                    self.turn(site);
                }
            }
        }
    }

    /// A frame reaches a box. What must change nothing is looked at before and after.
    fn at_box(&mut self, site: SiteId, port: usize, frame: &[u8], origin: Origin) {
        let now = self.now;
        let message = if port == 0 { None } else { self.hear(frame) };
        let first = matches!(message, Some(Message::I1 { .. }));
        let Some(node) = self.nodes.get(site) else { return };
        if !(first || origin == Origin::Forged) || node.is_paused(now) {
            node.receive(port, frame, now);
            return self.turn(site);
        }
        // What was due anyway comes first, and held packets are looked through for such as waited too long one at a time.
        for _ in 0..self.nodes[site].turns_until_still() {
            self.turn(site);
        }
        let node = &self.nodes[site];
        let (before, delivered) = (node.essence(), node.delivered());
        node.receive(port, frame, now);
        self.turn(site);
        let node = &self.nodes[site];
        let (after, reached) = (node.essence(), node.delivered() - delivered);
        let oracle = if origin == Origin::Forged { Oracle::Forgery } else { Oracle::StatelessI1 };
        if before != after {
            self.violation(Some(site), oracle, format!("{message:?} made {after:?} of {before:?}"));
        }
        if reached > 0 {
            self.violation(Some(site), oracle, format!("{reached} packets reached hosts"));
        }
    }

    /// A box does what there is to do.
    fn turn(&mut self, site: SiteId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(site) else { return };
        if node.settle_uplinks(now) {
            self.settle_in(site);
        }
        let Some(node) = self.nodes.get_mut(site) else { return };
        let mut stories = Vec::new();
        let frames = node.turn(now, &mut stories);
        if node.settle_uplinks(now) {
            self.later(now, Due::Tick(site));
            self.settle_in(site);
        }
        let node = &mut self.nodes[site];
        let again = node.look_again(now);
        for (host, pair) in node.told_standbys() {
            let (source, target) = (pair.local.0, pair.peer.0);
            let of = self.host_at(source);
            if !of.is_some_and(|of| self.ledger.is_answered(of, source, target)) {
                let text = format!("{host} may go from {source} to {target}, which nobody has tried");
                self.violation(Some(site), Oracle::Standby, text);
            }
        }
        self.stories.extend(stories.into_iter().map(|story| (now, site, story)));
        for (port, frame) in frames {
            match port {
                0 => self.on_lan(site, frame),
                port => self.toward_provider(site, port, frame),
            }
        }
        if let Some(again) = again {
            self.later(again, Due::Tick(site));
        }
    }

    /// A box sent a frame to its LAN.
    fn on_lan(&mut self, site: SiteId, frame: Vec<u8>) {
        let target = frame.first_chunk().map(|octets: &[u8; 6]| Mac(*octets));
        let Some(target) = target else {
            return self.violation(Some(site), Oracle::Wellformed, "a frame without a header");
        };
        let for_it = |host: &Host| !host.off && host.site == site && (host.mac == target || target.is_multicast());
        let hosts: Vec<HostId> = (0..self.hosts.len()).filter(|host| for_it(&self.hosts[*host])).collect();
        for host in hosts {
            self.later(self.now + CABLE, Due::ToHost(host, frame.clone()));
        }
    }

    fn later(&mut self, at: Instant, due: Due) {
        self.serial += 1;
        self.queue.insert((at, self.serial), due);
    }

    /// Writes down what must not be.
    fn violation(&mut self, site: Option<SiteId>, oracle: Oracle, text: impl Into<String>) {
        if self.violations.len() < oracle::KEPT {
            self.violations.push(Violation { at: self.now, site, oracle, text: text.into() });
        }
    }

    /// The host whose identifier or locator an address is.
    pub fn host_at(&self, address: Ipv6Addr) -> Option<HostId> {
        self.hosts.iter().position(|host| host.ulid == address || host.locators.contains(&address))
    }
}

#[cfg(test)]
mod tests;
