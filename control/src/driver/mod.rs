//! The one place with a clock, sockets, threads and randomness: it runs the engine against the world.
//!
//! One thread (this one) owns the engine. It takes in what the workers noticed, what the operator asks for and the
//! passing of time, and carries out the engine's effects. The workers run in threads of their own; the management socket
//! in a few more that only carry questions and answers.

mod bmp;
mod damage;
#[cfg(feature = "dpdk")]
mod dpdk;
mod figures;
mod helpers;
mod history;
mod keeper;
mod leases;
mod policy;
mod recording;
mod run;
mod sharing;
mod stories;
mod succession;
mod supervisor;
mod sync;
mod system;
mod traced;
mod uplinks;
mod views;
mod watcher;

use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as WallInstant, SystemTime};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use dataplane::link::Workers;
use dataplane::snapshot::PortId;
use rand::rngs::StdRng;
use tracing::{error, info, warn};

use crate::config::reload::needs_restart;
use crate::config::uplink::Found as FoundUplink;
use crate::config::{Configuration, Problem, Problems};
use crate::dhcp::Duid;
use crate::dhcp::client::Stored as Delegation;
use crate::engine::{Effect, PortSetup, SetupError};
use crate::manage::api::{FlushedView, MemoryView, PortView, ReloadedView, Request, Response, SteerRequest};
use crate::manage::server::{Call, Renewal, ServerError};
use crate::policy::Policy;
use crate::publish::Publisher;
use crate::tape::Core;
use crate::time::Instant;
use bmp::Routers;
pub use damage::name_damaged_stores;
use helpers::Helpers;
use history::History;
use leases::Leases;
pub use recording::MEGABYTES;
use recording::Recording;
use run::Ending;
pub use run::run;
use sharing::Sharing;
use stories::Stories;
use succession::{Heirs, Succession};
pub use supervisor::Supervisor;
use system::{Conditions, System};
use traced::Tracing;
use uplinks::resolved;

/// Events of one worker handled before the others get their turn.
const EVENTS_PER_TURN: usize = 256;
/// How often devices are asked about their links.
const LINK_POLL: Duration = Duration::from_millis(100);
/// Longest sleep of the control thread while workers may have something to say.
const NAP: Duration = Duration::from_millis(1);
/// The same while something is awaited, from a helper thread or from the wire: a few signatures take this long.
const SHORT_NAP: Duration = Duration::from_micros(50);
/// After how many quiet turns nothing is awaited from the wire any more: a few milliseconds, a round trip in a metropolis.
const ATTENTIVE: u32 = 40;
/// How long workers have to send the last advertisement.
const FAREWELL: Duration = Duration::from_millis(20);

/// Why the box cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The devices or DPDK.
    #[error("{0}")]
    Hardware(String),
    /// Hugepages were free a moment ago and DPDK did not get them; ordinary memory would do.
    #[error("{0}")]
    HugepagesTaken(String),
    /// The configuration fits the file format, and still cannot be obeyed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The management socket.
    #[error(transparent)]
    Socket(#[from] ServerError),
    /// The policy cannot be obeyed.
    #[error("{0}")]
    Policy(String),
    /// The store of leases.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The place of a running daemon cannot be taken.
    #[error("cannot take over: {0}")]
    Succession(String),
    /// Somebody took over and does not run: the box has to be started anew.
    #[error("the process that was to take over does not run")]
    NotSucceeded,
    /// The operating system gives no signals, threads or random numbers.
    #[error("{0}")]
    System(String),
}

/// The devices of a running box, for status.
pub(crate) trait Devices {
    /// One view per port, in the order of the configuration.
    fn ports(&self) -> Vec<PortView>;
    /// Whether each port's link is up, in the same order.
    fn links(&self) -> Vec<bool>;
    /// Where memory comes from.
    fn memory(&self) -> MemoryView;
    /// How often each worker has turned so far.
    fn turns(&self) -> Vec<u64>;
    /// What each device is like, and how many pairs of queues it has, in the same order.
    fn setups(&self) -> Vec<(PortSetup, u16)>;
    /// Opens devices that another process had until now.
    fn open(&mut self) -> Result<(), RunError>;
    /// Stops and joins the workers.
    fn stop(&mut self);
}

/// Time since the box started; or, if it took over from another process, since the first of them did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: WallInstant,
    ahead: Duration,
}

impl Clock {
    fn start() -> Clock {
        Clock::going_on_from(Duration::ZERO)
    }

    /// The clock of a process that says it is `ahead` now.
    fn going_on_from(ahead: Duration) -> Clock {
        Clock { began: WallInstant::now(), ahead }
    }

    fn now(self) -> Instant {
        Instant(self.ahead + self.began.elapsed())
    }

    /// Nanoseconds; half a millennium of them has room.
    #[cfg_attr(not(feature = "dpdk"), allow(dead_code, reason = "only workers on devices need it"))]
    fn nanos(self) -> u64 {
        u64::try_from(self.now().0.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A box that is ready to run: what decides, what forwards, and what they stand on.
type Opened = (Core, Box<dyn Workers>, Box<dyn Devices>);

/// Starts a process of the program as it is on disk, to record into a file of so many octets at most if that is asked for.
pub type StartSuccessor = dyn Fn(Option<&(PathBuf, u64)>) -> std::io::Result<Child>;

/// What the program around the box gives it besides its configuration.
pub struct Surroundings {
    /// Who is told of each step.
    pub supervisor: Supervisor,
    /// Run on ordinary memory, whatever the configuration says of hugepages.
    pub ordinary_memory: bool,
    /// Take the place of a daemon that runs, if one does.
    pub take_over: bool,
    /// Where everything the control core is told is recorded, and how many octets at most.
    pub record: Option<(PathBuf, u64)>,
    /// Starts a process of the program as it is on disk now, which does that; recorded like this one, or to this file.
    pub start_successor: Box<StartSuccessor>,
    /// Makes the log follow a filter (`box.log`) that was checked before; called after each reload.
    pub log: Box<dyn Fn(&str)>,
}

struct Control {
    configuration: Configuration,
    clock: Clock,
    rng: StdRng,
    engine: Core,
    workers: Box<dyn Workers>,
    devices: Box<dyn Devices>,
    helpers: Helpers,
    leases: Option<Leases>,
    /// Files that boxes of the site share.
    sharing: Option<Sharing>,
    effects: Vec<Effect>,
    stories: Stories,
    surroundings: Surroundings,
    /// The trace of packets there is, and how many there were.
    tracing: Option<Tracing>,
    traces: u64,
    /// When the devices are next asked about their links.
    links_due: Instant,
    /// The box's name to DHCPv6, what the wall clock said at the start, and what providers had delegated before it.
    delegations: (Option<Duid>, u64, Vec<(String, Delegation)>),
    /// What the process that was succeeded had found out of providers.
    carried: Vec<FoundUplink>,
    /// When this process began, on a clock that may be older.
    started: Instant,
    /// Somebody who is to take this process's place.
    succession: Option<Succession>,
    /// The process that was started for that.
    successor: Option<Child>,
    /// What takes over new certificates.
    renewal: Option<Renewal>,
    history: History,
    recording: Option<Recording>,
    /// What is shared with the operating system, if anything is.
    system: Option<System>,
    conditions: Conditions,
    /// Other boxes of the site, if there are any.
    boxes: Option<sync::Boxes>,
    /// What listens to routers.
    routers: Option<Routers>,
}

impl Control {
    /// With nothing going on yet. `carried` is what the process before found out of providers.
    fn new(
        configuration: Configuration,
        carried: Vec<FoundUplink>,
        surroundings: Surroundings,
        clock: Clock,
        rng: StdRng,
        (mut engine, workers, devices): Opened,
    ) -> Result<Control, RunError> {
        let mut inputs = engine.inputs();
        if let (Some(settings), Some(key)) = (&configuration.site.publish, &configuration.publish_key) {
            let kind = configuration.site.ulid_kind();
            let publisher = inputs.publisher(|rng| Publisher::new(settings, key, kind, rng));
            let publisher = publisher.ok_or_else(|| RunError::System("publish: the key cannot be used".into()))?;
            inputs.publish_to(publisher, &resolved(&configuration, &carried).hosts);
        }
        let helpers = Helpers::start(configuration.site.node.proof_threads, clock.now(), &mut inputs);
        let helpers = helpers.map_err(|error| RunError::System(error.to_string()))?;
        Ok(Control {
            configuration,
            clock,
            rng,
            engine,
            workers,
            devices,
            helpers,
            leases: None,
            sharing: None,
            effects: Vec::new(),
            stories: Stories::default(),
            surroundings,
            tracing: None,
            traces: 0,
            links_due: Instant::START,
            delegations: (None, 0, Vec::new()),
            carried,
            started: clock.now(),
            succession: None,
            successor: None,
            renewal: None,
            history: History::default(),
            recording: None,
            system: None,
            conditions: Conditions::default(),
            boxes: None,
            routers: None,
        })
    }

    /// Clients have what the store says they have.
    fn begin_leases(&mut self, kept: Option<leases::Opened>) -> Result<(), RunError> {
        let Some(mut opened) = kept else { return Ok(()) };
        let (store, kept) = (&mut opened.store, opened.kept.clone());
        info!(store = store.name(), leases = kept.stored.leases.len(), server = %kept.duid, "store read");
        let known = resolved(&self.configuration, &self.carried);
        self.delegations = (Some(kept.duid.clone()), kept.epoch, store.delegations()?);
        let now = self.clock.now();
        self.engine.inputs().begin_leases(now, &self.carried, (&known.site, &known.hosts), kept);
        let published = store.published()?;
        self.engine.inputs().publish_since(published.iter().filter_map(|name| name.parse().ok()).collect());
        self.sharing = Sharing::begin(&self.configuration, std::mem::take(&mut opened.documents))?;
        self.leases = Some(Leases::start(opened)?);
        Ok(())
    }

    fn serve(&mut self, calls: &Receiver<Call>, heirs: &Heirs, stop: &AtomicBool, hangup: &AtomicBool) -> Ending {
        self.engine.inputs().start(self.clock.now(), &mut self.effects);
        self.begin_uplinks();
        self.surroundings.supervisor.ready();
        let mut quiet = 0_u32;
        while !stop.load(Ordering::Relaxed) {
            let events = self.turn();
            self.surroundings.supervisor.turned(self.clock.now(), || self.devices.turns());
            if let Some(succession) = self.tend_heirs(heirs) {
                return Ending::GivesWay(succession);
            }
            quiet = if events > 0 { 0 } else { quiet.saturating_add(1) };
            if self.succession.is_none() && hangup.swap(false, Ordering::Relaxed) {
                match self.reload() {
                    Ok(view) => info!(hosts = view.hosts, peers = view.peers, "reloaded"),
                    Err(problems) => error!("not reloaded: {problems}"),
                }
            }
            // A busy box comes back at once; a quiet one sleeps until something is due, but never long, for workers do
            // not wake it. What was just said is often answered soon, by a peer in a handshake or by a server: whoever
            // waits for that pays for each nap here.
            let due = self.engine.deadline().map_or(NAP, |due| due.since(self.clock.now()));
            let writing = self.leases.as_ref().is_some_and(Leases::are_at_work);
            let soon = quiet < ATTENTIVE || writing || self.helpers.are_at_work();
            let nap = if events > 0 || self.is_telling() {
                Duration::ZERO
            } else {
                due.min(if soon { SHORT_NAP } else { NAP })
            };
            match calls.recv_timeout(nap) {
                Ok(call) => self.answer(call),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(nap),
            }
        }
        Ending::Told
    }

    /// Takes in what happened, lets time pass, carries out what follows. How many events there were.
    fn turn(&mut self) -> usize {
        let Control { clock, engine, workers, helpers, leases, effects, boxes, routers, .. } = self;
        let mut inputs = engine.inputs();
        let mut events = workers.poll(EVENTS_PER_TURN, &mut |notice| inputs.notice(clock.now(), notice, effects));
        let now = clock.now();
        let mut looked = false;
        events += self.system.as_mut().map_or(0, |system| system.turn(now, &mut inputs, effects));
        events += helpers.turn(now, &mut inputs, effects);
        events += boxes.as_mut().map_or(0, |boxes| boxes.turn(now, &mut inputs, effects));
        events += leases.as_mut().map_or(0, |leases| leases.turn(now, &mut inputs, effects));
        events += routers.as_mut().map_or(0, |routers| routers.turn(now, &mut inputs, effects));
        if self.links_due <= now {
            self.links_due = now + LINK_POLL;
            looked = true;
            if let Ok(unix) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
                inputs.wall_clock(now, unix.as_secs());
            }
            let links = self.devices.links();
            for (port, up) in links.iter().enumerate() {
                inputs.link_state(now, PortId(port as u8), *up, effects);
            }
            if let Some(system) = &mut self.system {
                system.set_links(&links);
            }
        }
        if inputs.deadline().is_some_and(|due| due <= now) {
            inputs.expire(now, effects);
        }
        if inputs.uplinks_have_news(now) {
            self.resolve();
        }
        if looked {
            self.tend_trace(now);
            self.tend_system(now);
            let Control { surroundings, engine, configuration, .. } = self;
            surroundings.supervisor.status(|| supervisor::serving(engine, configuration));
            self.remember(now);
        }
        self.carry_out();
        self.tend_recording();
        self.follow_store();
        events
    }

    fn carry_out(&mut self) {
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Lose(loss, lost) => self.workers.lose(loss, lost),
                Effect::Install(worker, install) => self.workers.install(worker, install),
                Effect::Remove(worker, tag) => self.workers.remove(worker, tag),
                Effect::Replay(worker, tag) => self.workers.replay(worker, tag),
                Effect::Refuse(worker, pair) => self.workers.refuse(worker, pair),
                Effect::Transmit(port, frame) => {
                    if !self.workers.transmit(port, &frame) {
                        warn!(port = port.0, "no buffer for a packet of the control core");
                    }
                }
                Effect::TransmitBy(worker, port, frame) => {
                    if !self.workers.transmit_by(worker, port, &frame) {
                        warn!(port = port.0, worker, "no buffer for a packet of the control core");
                    }
                }
                Effect::System(port, frame) => {
                    if self.system.as_mut().is_none_or(|system| !system.give(port, &frame)) {
                        self.engine.inputs().system_lost(self.clock.now(), 1);
                    }
                }
                Effect::Plain(port, frame) => {
                    if !self.workers.plain(port, &frame) {
                        warn!(port = port.0, "no buffer for a packet that control gives back");
                    }
                }
                Effect::Publish(snapshot) => self.workers.publish(&snapshot),
                Effect::Story(story) => self.stories.tell(self.clock.now(), &story),
            }
        }
    }

    fn answer(&mut self, call: Call) {
        let now = self.clock.now();
        if let (Request::StoreExport, Some(leases)) = (&call.request, &self.leases) {
            return leases.export(call);
        }
        let response = match &call.request {
            // What is said now would be known to a process that is about to end, and to nobody else.
            Request::Reload | Request::Steer(_) | Request::PolicyLoad | Request::Serve(_) | Request::RecordStop
                if self.succession.is_some() =>
            {
                Response::error("another process is taking over: say it again to that one")
            }
            Request::Status => Response::Status(self.status(now)),
            Request::Hosts => Response::Hosts(self.engine.hosts_view(now)),
            Request::Contexts(filter) => match self.engine.contexts_view(now, filter) {
                Ok(view) => Response::Contexts(view),
                Err(error) => Response::Error(error),
            },
            Request::Paths => Response::Paths(self.engine.paths_view(now)),
            Request::Bmp => Response::Bmp(self.bmp(now)),
            Request::Counters => Response::Counters(self.counters()),
            Request::Metrics => Response::Metrics(Box::new(self.metrics(now))),
            Request::Leases => Response::Leases(self.engine.leases_view(now)),
            Request::StoreExport => Response::error("there is no store: the configuration has no [store]"),
            Request::Natv6 => Response::Natv6(self.natv6(now)),
            Request::Dns => Response::Dns(self.dns(now)),
            Request::DnsFlush => match self.engine.inputs().flush_names(now) {
                Some(entries) => Response::DnsFlushed(FlushedView { entries: entries as u64 }),
                None => Response::error("the configuration has no [dns]"),
            },
            Request::Reload => match self.reload() {
                Ok(view) => Response::Reloaded(view),
                Err(problems) => Response::error(problems.to_string()),
            },
            Request::Upgrade => self.upgrade(None),
            Request::RecordStart(asked) => self.start_recorded(asked),
            Request::Steer(wanted) => self.steer(wanted),
            Request::Serve(wanted) => self.serve_again(now, wanted),
            Request::TraceStart(asked) => self.start_trace(now, asked),
            Request::TraceFetch(asked) => self.fetch_trace(now, asked.id),
            Request::TraceStop(asked) => self.trace_stopped(asked.id),
            Request::Explain(asked) => self.explain(now, asked),
            Request::Policy => Response::Policy(self.engine.policy_view()),
            Request::History(asked) => Response::History(Box::new(self.history.view(asked.from))),
            Request::Recording => Response::Recording(self.recording()),
            Request::RecordStop => {
                self.end_recording("the operator stopped it");
                Response::RecordStopped(self.recording())
            }
            Request::PolicyLoad => match self.load_policy() {
                Ok(view) => Response::PolicyLoaded(view),
                Err(problems) => Response::error(problems.to_string()),
            },
        };
        call.answer(response);
    }

    fn steer(&mut self, wanted: &SteerRequest) -> Response {
        let now = self.clock.now();
        if let Err(refused) = self.engine.inputs().steer(now, &wanted.provider, wanted.steering) {
            return Response::error(refused.to_string());
        }
        info!(provider = wanted.provider, steering = %wanted.steering, "steered");
        let view = self.providers().into_iter().find(|view| view.name == wanted.provider);
        view.map_or_else(|| Response::error("the provider is gone"), Response::Steered)
    }

    /// Certificates, keys and passwords may be others in the same files. Whoever uses them takes them from now on.
    fn renew_papers(&self, new: &Configuration) {
        if let (Some(renewal), Some(tls)) = (&self.renewal, &new.tls) {
            renewal.renew(Arc::clone(tls));
        }
        if let (Some(leases), Some(access)) = (&self.leases, &new.access) {
            leases.renew(access);
        }
        if let (Some(routers), Some(tls)) = (&self.routers, &new.bmp_tls) {
            routers.renew(tls);
        }
        if let (Some(boxes), Some(files)) = (&self.boxes, &new.sync) {
            boxes.renew(files);
        }
    }

    /// Reads the configuration again, and tells the service manager before and after.
    fn reload(&mut self) -> Result<ReloadedView, Problems> {
        self.surroundings.supervisor.reloading();
        let result = self.take_over();
        self.surroundings.supervisor.ready();
        result
    }

    /// Reads the configuration again. What [`reload`](crate::config::reload) says is taken over, whole or not at all; the rest
    /// needs a restart, and the answer names it.
    fn take_over(&mut self) -> Result<ReloadedView, Problems> {
        let new = Configuration::load(&self.configuration.file)?;
        if let Some(problem) = hosts_file_is_gone(&self.configuration, &new) {
            return Err(problem.into());
        }
        let notes: Vec<String> = new.warnings.iter().map(ToString::to_string).collect();
        let others = needs_restart(&self.configuration.site, &new.site);
        if !others.is_empty() {
            let text = format!("nothing was taken over, for this needs a restart: {}", others.join(", "));
            return Err(Problem::of_file(&new.file, text).into());
        }
        let found = self.engine.found();
        let effective = resolved(&new, &found);
        let policy = Policy::of(&effective)?;
        let now = self.clock.now();
        let Control { engine, effects, .. } = self;
        let mut inputs = engine.inputs();
        let (source, both) = (|| recording::source(&new), (&effective.site, &effective.hosts));
        let changes = inputs.reload(now, (&source, &found), both, effects).map_err(|error| {
            let text = format!("nothing was taken over: {error}");
            Problems::from(Problem::of_file(&new.site.node.hosts_file, text))
        })?;
        inputs.set_policy(now, (new.policy.as_deref(), &found), policy, effects);
        self.carry_out();
        (self.surroundings.log)(&new.site.node.log);
        let view = ReloadedView {
            hosts: new.hosts.len() as u64,
            added: changes.added as u64,
            removed: changes.removed as u64,
            changed: changes.changed as u64,
            peers: new.site.peers.len() as u64,
            notes,
        };
        self.renew_papers(&new);
        self.configuration = new;
        self.share();
        Ok(view)
    }
}

/// A box without hosts may have no file of hosts. Of one that has some a file that is missing at a reload is a mistake, or is just being
/// written: all hosts would go, and every session with them.
fn hosts_file_is_gone(old: &Configuration, new: &Configuration) -> Option<Problem> {
    let gone = new.texts.hosts.is_none() && !old.hosts.is_empty();
    let text = "does not exist any more, and nothing was taken over; for a box without hosts leave it there with \"hosts\": []";
    gone.then(|| Problem::of_file(&new.site.node.hosts_file, text))
}
