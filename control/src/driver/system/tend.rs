//! When the system has its routes, and what an operator may say and see of it.

use std::time::Duration;

use dataplane::snapshot::PortId;
use tracing::info;

use super::super::{Control, NAP, RunError};
use crate::engine::Unfit;
use crate::manage::api::{InterfaceView, Response, RouteView, ServeRequest, SystemView};
use crate::time::Instant;

/// A worker that has not turned for so long stands still. Those that sleep do so for a millisecond.
const STANDSTILL: Duration = Duration::from_secs(1);
/// How often the system is asked to have what it should have anyway.
const KEEP: Duration = Duration::from_secs(2);

/// What a box's fitness depends on besides what the engine knows.
#[derive(Debug, Default)]
pub(in crate::driver) struct Conditions {
    /// The operator wants others to serve.
    pub(in crate::driver) withdrawn: bool,
    /// It is about to end.
    pub(in crate::driver) stopping: bool,
    /// Turns of each worker at the last look, and when they were others.
    turns: Vec<(u64, Instant)>,
    /// Why the box was not fit at the last look; none before the first.
    reasons: Option<Vec<Unfit>>,
    /// When the system is next asked to have what it should have.
    keep: Instant,
    /// When the box was fit for the first time.
    fit_since: Option<Instant>,
}

impl Conditions {
    /// Whether a worker has not turned for too long.
    fn stands_still(&mut self, now: Instant, turns: &[u64]) -> bool {
        if self.turns.len() != turns.len() {
            self.turns = turns.iter().map(|turns| (*turns, now)).collect();
        }
        for ((seen, at), turns) in self.turns.iter_mut().zip(turns) {
            if seen != turns {
                (*seen, *at) = (*turns, now);
            }
        }
        self.turns.iter().any(|(_, at)| now.since(*at) > STANDSTILL)
    }

    /// Whether routes inside may be announced, by a box that is fit: some time after it was so for the first time.
    ///
    /// Providers come first. Who begins knows no contexts: what comes in is recovered by R1bis whichever box hosts send by, but
    /// what hosts send needs a handshake, whose R1 goes to the box that providers send to. BGP takes seconds more than OSPF, and
    /// I1 is repeated after seconds.
    fn announces_inside(&mut self, now: Instant, wait: Duration) -> bool {
        *self.fit_since.get_or_insert(now) + wait <= now
    }
}

impl Control {
    /// Begins to watch the system.
    pub(in crate::driver) fn begin_system(&mut self) -> Result<(), RunError> {
        let Control { system, configuration, clock, engine, effects, .. } = self;
        let Some(system) = system else { return Ok(()) };
        system.begin(&configuration.site, clock.now(), &mut engine.inputs(), effects)?;
        self.carry_out();
        Ok(())
    }

    /// Looks whether the box is fit, and has the system have its routes or not.
    pub(in crate::driver) fn tend_system(&mut self, now: Instant) {
        let standstill = self.conditions.stands_still(now, &self.devices.turns());
        let Conditions { withdrawn, stopping, .. } = self.conditions;
        let catching_up = self.boxes.is_some() && !self.engine.is_caught_up(now);
        let own = [
            (stopping, Unfit::Stopping),
            (withdrawn, Unfit::Withdrawn),
            (catching_up, Unfit::CatchingUp),
            (standstill, Unfit::Standstill),
        ];
        let mut reasons: Vec<Unfit> = own.into_iter().filter(|(is, _)| *is).map(|(_, reason)| reason).collect();
        reasons.extend(self.engine.unfit());
        if let Some(system) = &mut self.system
            && system.has_settled(now)
        {
            let mut wanted = if reasons.is_empty() { self.engine.wanted_routes() } else { Vec::new() };
            let site = &self.configuration.site;
            let inside = PortId(site.lan_port as u8);
            // Other boxes that know the same contexts hand over what came to the wrong one.
            let wait =
                site.routes.as_ref().filter(|_| self.boxes.is_none()).map_or(Duration::ZERO, |it| it.inside_after);
            // Who took another process's place goes on with its routes.
            if reasons.is_empty() && !self.conditions.announces_inside(now, wait) && !system.announces_by(inside) {
                wanted.retain(|it| it.port != inside);
            }
            system.set_routes(&wanted);
            if self.conditions.keep <= now {
                self.conditions.keep = now + KEEP;
                system.keep();
            }
        }
        if self.conditions.reasons.as_ref() != Some(&reasons) {
            match reasons.is_empty() {
                true => info!("fit to serve"),
                // At a start this is how it begins.
                false => info!(reasons = texts(&reasons).join("; "), "not fit to serve"),
            }
            self.conditions.reasons = Some(reasons);
        }
    }

    /// Others are to serve, or this box again.
    pub(in crate::driver) fn serve_again(&mut self, now: Instant, wanted: &ServeRequest) -> Response {
        self.conditions.withdrawn = !wanted.serve;
        info!(serve = wanted.serve, "the operator's word");
        self.tend_system(now);
        Response::Serving(self.system_view())
    }

    /// Has the routes go and serves on for a while, so that nobody sends here any more when it ends.
    pub(in crate::driver) fn linger(&mut self) {
        self.conditions.stopping = true;
        self.tend_system(self.clock.now());
        let linger = self.configuration.site.routes.as_ref().map(|routes| routes.linger);
        let (Some(linger), true) = (linger, self.system.is_some()) else { return };
        let until = self.clock.now() + linger;
        while self.clock.now() < until {
            if self.turn() == 0 {
                std::thread::sleep(NAP);
            }
        }
    }

    /// How it is.
    pub(in crate::driver) fn system_view(&self) -> SystemView {
        let site = &self.configuration.site;
        let reasons = self.conditions.reasons.as_deref();
        let mut view = SystemView {
            fit: reasons.is_some_and(<[_]>::is_empty),
            unfit: texts(reasons.unwrap_or_default()),
            withdrawn: self.conditions.withdrawn,
            role: site.routes.as_ref().map(|routes| routes.role),
            inner_router: self.engine.inner_router(),
            ..SystemView::default()
        };
        let Some(system) = &self.system else { return view };
        let route = |(interface, prefix, metric): (&str, crate::config::Prefix, u32)| RouteView {
            interface: interface.to_owned(),
            prefix: prefix.to_string(),
            metric,
        };
        view.routes = system.routes().map(route).collect();
        for (name, port, link_up) in system.interfaces() {
            view.interfaces.push(InterfaceView {
                name: name.to_owned(),
                port: site.ports.get(usize::from(port.0)).map(|port| port.name.clone()).unwrap_or_default(),
                link_up,
                addresses: self.engine.system_of(port).unwrap_or_default().to_vec(),
            });
        }
        view
    }
}

fn texts(reasons: &[Unfit]) -> Vec<String> {
    reasons.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_begins_is_announced_to_providers_first_and_later_to_both_at_once() {
        let mut conditions = Conditions::default();
        let (at, wait) = (|ms| Instant(Duration::from_millis(ms)), Duration::from_secs(3));
        assert!(!conditions.announces_inside(at(5_000), wait));
        assert!(!conditions.announces_inside(at(7_999), wait));
        assert!(conditions.announces_inside(at(8_000), wait));
        // It was not fit meanwhile, and providers' sessions with it went on.
        assert!(conditions.announces_inside(at(90_000), wait));
        assert!(Conditions::default().announces_inside(at(5_000), Duration::ZERO));
    }

    #[test]
    fn a_worker_that_does_not_turn_is_noticed_and_forgiven() {
        let mut conditions = Conditions::default();
        let at = |ms| Instant(Duration::from_millis(ms));
        assert!(!conditions.stands_still(at(5_000), &[7, 7]), "nothing is known yet");
        assert!(!conditions.stands_still(at(6_000), &[8, 7]));
        assert!(conditions.stands_still(at(6_001), &[9, 7]));
        assert!(!conditions.stands_still(at(6_002), &[10, 8]));
    }
}
