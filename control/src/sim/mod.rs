//! Whole sites in memory: real engines and real workers, with hosts, providers and time that are made up.
//!
//! A [`World`] has sites joined by a core that never fails; between them and the core stand the providers, each of which
//! can lose, repeat, delay and reorder packets, or be cut, in either direction. Time is virtual and everything random
//! comes from one seed, so thousands of seconds pass in one, and a bad day can be lived again.
//!
//! The network is strict. Whatever a box does that a real one would be punished for, quietly and far away, is written
//! down as a *violation*: a source that the provider did not delegate, an identifier outside its site, a control
//! message that cannot be read, a wrong checksum in what a host gets.
//!
//! | file | what it is |
//! |---|---|
//! | `mod` | the world, and what happens next in it |
//! | `plan` | what a world is made of |
//! | `node` | a box: engine and workers, and what the driver would do for them |
//! | `network` | providers and the core |
//! | `host` | packet sources and sinks, and the streams between them |
//! | `packet` | the few packets the world makes itself |

mod host;
mod network;
mod node;
pub mod packet;
mod plan;

use std::collections::BTreeMap;
use std::time::Duration;

use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::Mac;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use host::{Arrival, Host, Stream};
pub use network::{Captured, Leg, Provider, Way};
pub use node::Node;
pub use plan::{Plan, SitePlan};

use crate::config::{Hosts, Site};
use crate::engine::{Changes, SetupError, Story};
use crate::time::Instant;

/// How long a frame is on a cable.
const CABLE: Duration = Duration::from_micros(20);
/// How often a box looks around even if nothing happens; workers report and expire by the turn.
const TICK: Duration = Duration::from_millis(10);
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

/// Something on its way.
#[derive(Debug)]
enum Due {
    /// A frame reaches a port of a box.
    ToBox(SiteId, usize, Vec<u8>),
    /// A packet reaches the core, on its way to the provider that leads to its destination.
    AtCore(Vec<u8>),
    /// A frame reaches a host.
    ToHost(HostId, Vec<u8>),
    /// A stream sends its next packet.
    Send(StreamId),
    /// A box looks around.
    Tick(SiteId),
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
    /// What boxes did that they must not do.
    pub violations: Vec<String>,
    /// What the engines had to tell.
    pub stories: Vec<(Instant, SiteId, Story)>,
    /// Control messages that boxes sent, whether or not they arrived.
    pub captured: Vec<Captured>,
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
        let mut world = World {
            now: Instant::START,
            nodes,
            providers: made.providers,
            hosts: made.hosts,
            streams: Vec::new(),
            violations: Vec::new(),
            stories: Vec::new(),
            captured: Vec::new(),
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
            let queued = self.queue.keys().next().map(|(at, _)| *at);
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
            *node = node.reborn(seed);
        }
    }

    /// The operator of a site changes its configuration, and the box takes it over or refuses it.
    pub fn reload(&mut self, site: SiteId, change: impl FnOnce(&mut Site, &mut Hosts)) -> Result<Changes, SetupError> {
        let node = &mut self.nodes[site];
        let (mut configured, mut hosts) = (node.configuration().0.clone(), node.configuration().1.clone());
        change(&mut configured, &mut hosts);
        let changes = node.reload(self.now, (configured, hosts))?;
        self.turn(site);
        Ok(changes)
    }

    /// The device of a box's port says that its link is up or down.
    pub fn link_state(&mut self, site: SiteId, port: usize, up: bool) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(site) {
            node.link_state(now, PortId(port as u8), up);
        }
        self.turn(site);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::ToBox(site, port, frame) => {
                if let Some(node) = self.nodes.get(site) {
                    node.receive(port, &frame);
                }
                self.turn(site);
            }
            Due::AtCore(packet) => self.out_of_core(packet),
            Due::ToHost(host, frame) => self.at_host(host, &frame),
            Due::Send(stream) => self.send_next(stream),
            Due::Tick(site) => {
                self.turn(site);
                self.later(self.now + TICK, Due::Tick(site));
            }
        }
    }

    /// A box does what there is to do.
    fn turn(&mut self, site: SiteId) {
        let Some(node) = self.nodes.get_mut(site) else { return };
        let mut stories = Vec::new();
        let frames = node.turn(self.now, &mut stories);
        let now = self.now;
        self.stories.extend(stories.into_iter().map(|story| (now, site, story)));
        for (port, frame) in frames {
            match port {
                0 => self.on_lan(site, frame),
                port => self.toward_provider(site, port, frame),
            }
        }
    }

    /// A box sent a frame to its LAN.
    fn on_lan(&mut self, site: SiteId, frame: Vec<u8>) {
        let target = frame.first_chunk().map(|octets: &[u8; 6]| Mac(*octets));
        let Some(target) = target else { return self.violation(site, "a frame without a header") };
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

    fn violation(&mut self, site: SiteId, text: &str) {
        let now = self.now;
        self.violations.push(format!("{now:?}, site {site}: {text}"));
    }
}
