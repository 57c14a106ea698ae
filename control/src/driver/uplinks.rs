//! Providers whose prefix or router is found out: what was found is taken over as a changed configuration would be.

use std::time::Duration;

use tracing::error;

use super::Control;
use super::succession::Beginning;
use crate::config::Configuration;
use crate::config::uplink::{Found, resolve};
use crate::manage::api::UplinkView;
use crate::policy::Policy;
use crate::time::Instant;

/// The configuration as if the operator had written what was found out.
pub(super) fn resolved(configuration: &Configuration, found: &[Found]) -> Configuration {
    let (site, hosts) = resolve(&configuration.site, &configuration.hosts, found);
    Configuration { site, hosts, ..configuration.clone() }
}

/// What the process that ran before knew of such providers. It holds until it was found again here, or for a while, so that nobody
/// leaves a provider for the moment in which its router has not said again that it is there.
#[derive(Default)]
pub(super) struct FoundBefore {
    pub(super) all: Vec<Found>,
    until: Instant,
    /// Something was found since.
    news: bool,
}

/// How long that holds: routers answer a solicitation within a second, and there are some.
const FOUND_AGAIN: Duration = Duration::from_secs(15);

impl FoundBefore {
    pub(super) fn of(beginning: Option<&Beginning>, now: Instant) -> FoundBefore {
        let all = beginning.map(Beginning::found).unwrap_or_default();
        FoundBefore { all, until: now + FOUND_AGAIN, news: false }
    }

    /// Whether what is found by now is to be waited out.
    fn holds(&self, now: Instant, found: &[Found]) -> bool {
        let again = |before: &Found| {
            let complete = |it: &Found| it.router.is_some() >= before.router.is_some() && !it.prefixes.is_empty();
            found.iter().any(|it| it.name == before.name && complete(it))
        };
        now < self.until && !self.all.iter().all(again)
    }
}

impl Control {
    /// The configuration with all that is known of providers.
    pub(super) fn known(&self) -> Configuration {
        let found = self.engine.found();
        resolved(&self.configuration, if found.is_empty() { &self.found_before.all } else { &found })
    }

    /// Takes over what was found out since the last time.
    pub(super) fn tend_uplinks(&mut self, now: Instant) {
        self.found_before.news |= self.engine.uplinks_have_news();
        if self.found_before.news && !self.found_before.holds(now, &self.engine.found()) {
            self.found_before = FoundBefore::default();
            self.resolve();
        }
    }

    /// Begins to look for prefixes and routers.
    pub(super) fn begin_uplinks(&mut self) {
        let Control { clock, rng, engine, effects, delegations, .. } = self;
        let (duid, epoch, kept) = std::mem::take(delegations);
        engine.begin_uplinks(clock.now(), rng, (duid, epoch), &kept, effects);
    }

    /// Has the engine take over what was found out. What it refuses stays as it was, and is tried again with the next news.
    pub(super) fn resolve(&mut self) {
        let now = self.clock.now();
        let effective = resolved(&self.configuration, &self.engine.found());
        let Control { rng, engine, effects, .. } = self;
        if let Err(refused) = engine.reload(now, rng, &effective.site, &effective.hosts, effects) {
            return error!("what was found out of providers is not taken over: {refused}");
        }
        // Providers are known to the policy by their prefixes.
        match Policy::of(&effective) {
            Ok(policy) => engine.set_policy(now, policy, effects),
            Err(problems) => error!("the policy stays as it was: {problems}"),
        }
    }

    /// How they are.
    pub(super) fn uplinks(&self, now: Instant) -> Vec<UplinkView> {
        let ports = &self.configuration.site.ports;
        let mut uplinks = self.engine.uplinks_view(now);
        for view in &mut uplinks {
            let port = view.port.parse().ok().and_then(|at: usize| ports.get(at));
            view.port = port.map(|port| port.name.clone()).unwrap_or_default();
        }
        uplinks
    }
}
