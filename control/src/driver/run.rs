//! How a box begins, from nothing or in the place of another process, and how it ends.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam::channel::bounded;
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tracing::info;

#[cfg(feature = "dpdk")]
use super::dpdk;
use super::recording::Start;
use super::succession::{Beginning, Heir, Predecessor, Succession};
use super::sync::Boxes;
use super::system::System;
use super::uplinks::resolved;
use super::{Clock, Control, FAREWELL, Opened, RunError, Surroundings, leases};
use crate::config::Configuration;
use crate::policy::Policy;

/// Runs a box until SIGTERM or SIGINT. SIGHUP reads the configuration again.
pub fn run(configuration: Configuration, surroundings: Surroundings) -> Result<(), RunError> {
    let system = |error: std::io::Error| RunError::System(error.to_string());
    let stop = Arc::new(AtomicBool::new(false));
    let hangup = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, stop.clone()).map_err(system)?;
    }
    signal_hook::flag::register(SIGHUP, hangup.clone()).map_err(system)?;
    let mut rng = StdRng::try_from_rng(&mut SysRng).map_err(|error| RunError::System(error.to_string()))?;
    let found = if surroundings.take_over { Heir::find(&configuration)? } else { Predecessor::Nobody };
    let (clock, mut old) = match found {
        Predecessor::Nobody => (Clock::start(), None),
        Predecessor::Old(heir, beginning) => (Clock::going_on_from(beginning.now), Some((heir, beginning))),
    };
    // Before devices are touched: without what was told to clients the box must not serve them. Whoever is being succeeded
    // has the store until it has given way.
    let mut kept = if old.is_none() { leases::open(&configuration, clock, &mut rng)? } else { None };
    let beginning = old.as_ref().map(|(_, beginning)| &**beginning);
    // Engine and devices go by what is known: what is configured, and what the other process found out of providers.
    let carried = beginning.map(Beginning::found).unwrap_or_default();
    let known = resolved(&configuration, &carried);
    let policy = Policy::of(&known).map_err(|problems| RunError::Policy(problems.to_string()))?;
    let (recording, start) = Start::begin(surroundings.record.as_ref(), &configuration, &carried, clock);
    let opened = open(&known, surroundings.ordinary_memory, clock, (&mut rng, start), beginning)?;
    let interfaces = old.as_mut().map(|(heir, _)| heir.interfaces()).unwrap_or_default();
    let mut control = Control::new(configuration, carried, surroundings, clock, rng, opened)?;
    control.recording = recording;
    control.conditions.withdrawn = old.as_ref().is_some_and(|(_, beginning)| beginning.withdrawn);
    control.system = System::open(&control.configuration.site, clock.now(), &control.engine, interfaces)?;
    super::sync::join(&control.configuration, clock, &mut control.engine.inputs(), old.is_some());
    let said = (control.configuration.policy.as_deref(), control.carried.as_slice());
    control.engine.inputs().set_policy(clock.now(), said, policy, &mut Vec::new());
    let taken_over = old.is_some();
    let mut heir = old.take().map(|(heir, _)| heir);
    if heir.is_none() {
        control.begin_system()?;
    }
    if let Some(heir) = &mut heir {
        control.inherit(heir)?;
        kept = leases::open(&control.configuration, clock, &mut control.rng)?;
    }
    control.begin_leases(kept)?;
    if taken_over {
        control.catch_up();
    }
    let (calls_in, calls) = bounded(64);
    let (server, heirs) = control.open_sockets(&calls_in, taken_over)?;
    control.begin_routers(taken_over)?;
    if let Some(heir) = heir {
        // The old process ends when it hears this, so everything that could go wrong is done.
        heir.running(std::process::id())?;
    }
    info!(socket = %server.path().display(), "serving");
    let Configuration { site, sync, .. } = &control.configuration;
    control.boxes = Boxes::start(site, sync.as_ref(), &mut control.rng, &control.engine).map_err(system)?;
    control.renewal = server.tls().map(|(_, renewal)| renewal);
    let ending = control.serve(&calls, &heirs, &stop, &hangup);
    match ending {
        Ending::Told => {
            control.surroundings.supervisor.stopping();
            drop((server, heirs));
            control.linger();
            control.engine.inputs().farewell(control.clock.now(), &mut control.effects);
            control.carry_out();
            control.end_recording("the box stopped");
            std::thread::sleep(FAREWELL);
            control.devices.stop();
            Ok(())
        }
        Ending::GivesWay(succession) => control.give_way(succession, (server, heirs)),
    }
}

/// Why a box stops serving.
pub(super) enum Ending {
    /// It was told to.
    Told,
    /// Somebody takes its place.
    GivesWay(Succession),
}

#[cfg(feature = "dpdk")]
pub(super) use dpdk::{keep_descriptors, open_tap};

#[cfg(not(feature = "dpdk"))]
pub(super) fn open_tap(_: &str) -> std::io::Result<std::os::fd::OwnedFd> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(not(feature = "dpdk"))]
pub(super) fn keep_descriptors() {}

#[cfg(feature = "dpdk")]
fn open(
    configuration: &Configuration,
    ordinary: bool,
    clock: Clock,
    given: (&mut dyn Rng, Start),
    beginning: Option<&Beginning>,
) -> Result<Opened, RunError> {
    match beginning {
        None => dpdk::open(configuration, ordinary, clock, given),
        Some(beginning) => dpdk::open_late(configuration, ordinary, clock, given, beginning),
    }
}

#[cfg(not(feature = "dpdk"))]
fn open(
    _: &Configuration,
    _: bool,
    _: Clock,
    _: (&mut dyn Rng, Start),
    _: Option<&Beginning>,
) -> Result<Opened, RunError> {
    Err(RunError::Hardware("this program was built without the `dpdk` feature and has no ports to run on".into()))
}
