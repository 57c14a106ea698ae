//! What the control thread does about it, on either side.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant as WallInstant};

use crossbeam::channel::Sender;
use tracing::{error, info, warn};

use super::old::Turn;
use super::{
    Beginning, CarriedPort, CarriedSite, CarriedUplink, Heir, Heirs, Inherited, Succession, device_text, is_shareable,
};
use crate::driver::run::keep_descriptors;
use crate::driver::system::System;
use crate::driver::uplinks::resolved;
use crate::driver::{Control, EVENTS_PER_TURN, RunError};
use crate::engine::Effect;
use crate::manage::api::{Response, UpgradingView};
use crate::manage::server::{Call, Doors, Server, ServerError};
use crate::tape::Source;

/// How often, and for how long, sockets are tried again that the old process has not let go of yet.
const AGAIN: Duration = Duration::from_millis(10);
const SOCKETS: Duration = Duration::from_secs(10);
/// How long workers may take for what they have been told.
const WORKERS: Duration = Duration::from_secs(30);

impl Control {
    /// Whether somebody is being told about this box, as fast as possible.
    pub(in crate::driver) fn is_telling(&self) -> bool {
        self.succession.is_some() && self.engine.left_to_bequeath() > 0
    }

    /// The operator wants the program as it is on disk now, recorded to this file if there is one.
    pub(in crate::driver) fn upgrade(&mut self, record: Option<&(PathBuf, u64)>) -> Response {
        if let Some(process) = self.successor.as_ref().map(Child::id) {
            return Response::error(format!("process {process} is about to take over already"));
        }
        keep_descriptors();
        match (self.surroundings.start_successor)(record) {
            Ok(child) => {
                let process = child.id();
                info!(process, "started, to take over");
                self.successor = Some(child);
                Response::Upgrading(UpgradingView { process })
            }
            Err(error) => Response::error(format!("the program cannot be started: {error}")),
        }
    }

    /// A process that was started to take over, and ended instead.
    fn bury_successor(&mut self) {
        let Some(child) = &mut self.successor else { return };
        match child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => warn!(process = child.id(), %status, "the process that was to take over has ended"),
            Err(error) => warn!(%error, "nothing is known of the process that was to take over"),
        }
        self.successor = None;
    }

    /// Looks after whoever wants to take over. Who is ready to.
    pub(in crate::driver) fn tend_heirs(&mut self, heirs: &Heirs) -> Option<Succession> {
        self.bury_successor();
        let arrived = heirs.arrived();
        if let Some(mut succession) = self.succession.take() {
            match succession.turn(self.clock.now(), &mut self.engine.inputs()) {
                Turn::Ready => return Some(succession),
                Turn::Telling => self.succession = Some(succession),
                Turn::Gone => {
                    warn!("the process that was to take over is gone; this one goes on");
                    self.engine.inputs().end_bequest(self.clock.now());
                }
            }
            // One who comes meanwhile is turned away: its connection ends.
            return None;
        }
        let stream = arrived?;
        let (beginning, now) = (self.beginning(), self.clock.now());
        let files: io::Result<Vec<OwnedFd>> = self.files().map(|(_, file)| file.try_clone_to_owned()).collect();
        let inputs = &mut self.engine.inputs();
        let begun = files.and_then(|files| Succession::begin(stream, beginning, &files, (now, inputs)));
        match begun {
            Ok(succession) => self.succession = Some(succession),
            Err(error) => {
                warn!(%error, "somebody who was to take over cannot be told");
                self.engine.inputs().end_bequest(now);
            }
        }
        None
    }

    /// The system's interfaces, by name.
    fn files(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.system.iter().flat_map(System::files)
    }

    fn beginning(&self) -> Beginning {
        let ports = self.configuration.site.ports.iter().zip(self.devices.setups());
        let carried = ports.map(|(port, (setup, queues))| CarriedPort {
            name: port.name.clone(),
            device: device_text(port).to_owned(),
            mac: setup.mac.0,
            mtu: setup.mtu,
            queues,
        });
        Beginning {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: self.clock.now().0,
            keys: self.engine.keys().clone(),
            workers: self.configuration.site.node.workers,
            site: CarriedSite::of(&self.configuration.site),
            ports: carried.collect(),
            uplinks: self.engine.found().into_iter().map(CarriedUplink::of).collect(),
            interfaces: self.files().map(|(name, _)| name.to_owned()).collect(),
            withdrawn: self.conditions.withdrawn,
        }
    }

    /// Somebody is ready: stops the workers, tells the rest, and lets go of everything that there can be only one of.
    pub(in crate::driver) fn give_way(
        mut self,
        mut succession: Succession,
        sockets: (Server, Heirs),
    ) -> Result<(), RunError> {
        let began = WallInstant::now();
        if let Some(system) = &mut self.system {
            system.stop_watching();
        }
        self.devices.stop();
        // What the workers noticed last. Whatever ought to be sent about it, its receiver asks again.
        let Control { engine, workers, clock, effects, .. } = &mut self;
        let mut inputs = engine.inputs();
        while workers.poll(EVENTS_PER_TURN, &mut |notice| inputs.notice(clock.now(), notice, effects)) > 0 {}
        succession.tell_rest(clock.now(), &mut inputs);
        self.end_recording("another process took over");
        let Control { workers, devices, leases, helpers, routers, surroundings, configuration, .. } = self;
        let (mut mine, mut theirs) = (Some((workers, devices)), None);
        if configuration.site.ports.iter().all(is_shareable) {
            // To close them takes the kernel a while, for which nobody has to wait.
            theirs = mine.take();
        }
        drop(mine);
        succession.give_way();
        info!(took = ?began.elapsed(), "gave way");
        // The new process waits for the store and the sockets, and for nothing else.
        drop((leases, sockets, routers));
        drop((theirs, helpers));
        let Some(process) = succession.runs() else {
            keep_descriptors();
            return Err(RunError::NotSucceeded);
        };
        surroundings.supervisor.succeeded_by(process);
        Ok(())
    }

    /// Takes in what the old process has, and then its devices.
    pub(in crate::driver) fn inherit(&mut self, heir: &mut Heir) -> Result<(), RunError> {
        let began = WallInstant::now();
        self.begin_system()?;
        let mut items_taken = 0;
        loop {
            match heir.next()? {
                Inherited::Items(items) => {
                    items_taken += items.len();
                    self.engine.inputs().inherit(self.clock.now(), items, &mut self.effects);
                    self.carry_out_inherited();
                }
                Inherited::CaughtUp => {
                    self.until_workers_know()?;
                    heir.ready()?;
                }
                Inherited::Yours => break,
            }
        }
        let caught_up = began.elapsed();
        self.until_workers_know()?;
        let known = began.elapsed();
        self.devices.open()?;
        let now = self.clock.now();
        let mut inputs = self.engine.inputs();
        inputs.start(now, &mut self.effects);
        inputs.end_inheritance(now, &mut self.effects);
        self.carry_out();
        let opened = began.elapsed();
        info!(items = items_taken, ?caught_up, ?known, ?opened, "took over");
        Ok(())
    }

    /// Lists are as peers know them; what the configuration says now follows as by a reload. To be called when it is known who
    /// has a lease.
    pub(in crate::driver) fn catch_up(&mut self) {
        let (now, known) = (self.clock.now(), resolved(&self.configuration, &self.carried));
        let Control { engine, effects, carried, .. } = self;
        let (again, both) = (|| Source::Before, (&known.site, &known.hosts));
        if let Err(error) = engine.inputs().reload(now, (&again, carried), both, effects) {
            error!(%error, "the hosts stay as the other process had them");
        }
        self.carry_out();
    }

    /// What follows from what is told. There is nothing to send before there are devices.
    fn carry_out_inherited(&mut self) {
        self.effects
            .retain(|effect| !matches!(effect, Effect::Transmit(..) | Effect::TransmitBy(..) | Effect::Plain(..)));
        self.carry_out();
        self.workers.poll(EVENTS_PER_TURN, &mut |_| ());
    }

    fn until_workers_know(&mut self) -> Result<(), RunError> {
        let until = WallInstant::now() + WORKERS;
        while self.workers.backlog() > 0 || self.commands_waiting() {
            if WallInstant::now() > until {
                return Err(RunError::Succession("a worker takes nothing in".into()));
            }
            self.workers.poll(EVENTS_PER_TURN, &mut |_| ());
            std::thread::yield_now();
        }
        Ok(())
    }

    fn commands_waiting(&self) -> bool {
        (0..self.workers.count()).any(|at| self.workers.rings(at).is_some_and(|rings| rings.commands > 0))
    }

    /// The sockets of the API and of successors. Those of a process that gave way may take a moment to be free.
    pub(in crate::driver) fn open_sockets(
        &self,
        calls: &Sender<Call>,
        taken_over: bool,
    ) -> Result<(Server, Heirs), ServerError> {
        let site = &self.configuration.site;
        let open =
            || Ok((Server::open(&Doors::of(site, self.configuration.tls.clone()), calls.clone())?, Heirs::wait(site)?));
        let until = WallInstant::now() + SOCKETS;
        loop {
            match open() {
                Err(ServerError::Taken(_) | ServerError::Deaf { .. }) if taken_over && WallInstant::now() < until => {
                    std::thread::sleep(AGAIN);
                }
                opened => return opened,
            }
        }
    }
}
