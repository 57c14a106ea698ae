//! Providers whose prefix or router is found out: what was found is taken over as a changed configuration would be.

use tracing::error;

use super::Control;
use crate::config::Configuration;
use crate::config::uplink::{Found, resolve};
use crate::manage::api::UplinkView;
use crate::policy::Policy;
use crate::tape::Source;
use crate::time::Instant;

/// The configuration as if the operator had written what was found out.
pub(super) fn resolved(configuration: &Configuration, found: &[Found]) -> Configuration {
    let (site, hosts) = resolve(&configuration.site, &configuration.hosts, found);
    Configuration { site, hosts, ..configuration.clone() }
}

impl Control {
    /// Begins to look for prefixes and routers.
    pub(super) fn begin_uplinks(&mut self) {
        let Control { clock, engine, effects, delegations, carried, .. } = self;
        let (duid, epoch, kept) = std::mem::take(delegations);
        let carried = std::mem::take(carried);
        engine.inputs().begin_uplinks(clock.now(), (duid, epoch), (&kept, &carried), effects);
    }

    /// Has the engine take over what was found out. What it refuses stays as it was, and is tried again with the next news.
    pub(super) fn resolve(&mut self) {
        let now = self.clock.now();
        let found = self.engine.found();
        let effective = resolved(&self.configuration, &found);
        let Control { engine, effects, configuration, .. } = self;
        let (mut inputs, both) = (engine.inputs(), (&effective.site, &effective.hosts));
        if let Err(refused) = inputs.reload(now, (&|| Source::Before, &found), both, effects) {
            return error!("what was found out of providers is not taken over: {refused}");
        }
        // Providers are known to the policy by their prefixes.
        match Policy::of(&effective) {
            Ok(policy) => inputs.set_policy(now, (configuration.policy.as_deref(), &found), policy, effects),
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
