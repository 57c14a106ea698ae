//! What a box's operator, its devices and routers have it do.

use dataplane::snapshot::PortId;

use super::super::taped::inputs;
use super::Node;
use super::timed::Timed;
use crate::config::uplink::resolve;
use crate::config::{Hosts, Problems, Site};
use crate::engine::{Changes, SetupError};
use crate::policy::Policy;
use crate::tape::Source;
use crate::time::Instant;

impl Node {
    /// The operator changes the configuration and has it read again.
    pub(in crate::sim) fn reload(&mut self, now: Instant, new: (Site, Hosts)) -> Result<Changes, SetupError> {
        let Node { engine, rng, effects, ahead, taped, .. } = self;
        let found = engine.found();
        let effective = resolve(&new.0, &new.1, &found);
        let number = taped.as_mut().map_or(0, |taped| taped.note(&new));
        let source = move || Source::Numbered(number);
        let (at, both) = (now + *ahead, (&effective.0, &effective.1));
        let changes = inputs(engine, rng, taped).reload(at, (&source, &found), both, effects)?;
        for other in self.group.iter_mut().flat_map(|group| &mut group.others) {
            let mut its = new.clone();
            its.0.node.id = other.blueprint.site.node.id;
            other.reload(now, its)?;
        }
        (self.blueprint.site, self.blueprint.hosts) = new;
        self.effective = Some(effective);
        Ok(changes)
    }

    /// Takes over what was found out of providers, as the driver would. Whether there was anything.
    pub(in crate::sim) fn settle_uplinks(&mut self, now: Instant) -> bool {
        let Node { engine, rng, effects, ahead, blueprint, taped, .. } = self;
        let now = now + *ahead;
        let news = inputs(engine, rng, taped).uplinks_have_news(now);
        if news {
            let found = engine.found();
            let effective = resolve(&blueprint.site, &blueprint.hosts, &found);
            let both = (&effective.0, &effective.1);
            let taken = inputs(engine, rng, taped).reload(now, (&|| Source::Before, &found), both, effects);
            taken.expect("what was found can be taken over");
            self.effective = Some(effective);
        }
        news
    }

    /// What it goes by: its configuration with what was found out of providers.
    pub fn effective(&self) -> (&Site, &Hosts) {
        self.effective.as_ref().map_or((&self.blueprint.site, &self.blueprint.hosts), |(site, hosts)| (site, hosts))
    }

    /// The operator loads a policy, or takes it away.
    pub(in crate::sim) fn load_policy(&mut self, now: Instant, text: Option<&str>) -> Result<(), Problems> {
        let Node { engine, rng, effects, ahead, blueprint, taped, .. } = self;
        let found = engine.found();
        let (site, hosts) = resolve(&blueprint.site, &blueprint.hosts, &found);
        let parse = |text| Policy::parse(&site.node.policy_file, text, &site, &hosts);
        let policy = text.map(parse).transpose()?;
        inputs(engine, rng, taped).set_policy(now + *ahead, (text, &found), policy, effects);
        Ok(())
    }

    /// The device of a port says that its link is up or down.
    pub(in crate::sim) fn link_state(&mut self, now: Instant, port: PortId, up: bool) {
        let began = self.timed.begin();
        let Node { engine, rng, effects, ahead, taped, .. } = self;
        inputs(engine, rng, taped).link_state(now + *ahead, port, up, effects);
        self.timed.pause(began);
        let others = self.group.iter_mut().flat_map(|group| &mut group.others);
        others.for_each(|other| other.link_state(now, port, up));
    }

    /// A router says that a provider has lost its route to a peer's /64, or has one.
    pub(in crate::sim) fn route_changed(
        &mut self,
        now: Instant,
        provider: &std::sync::Arc<str>,
        peer: u64,
        lost: bool,
    ) {
        let began = self.timed.begin();
        self.engine.route_changed(now + self.ahead, provider, peer, lost, &mut self.effects);
        self.timed.pause(began);
    }

    /// The turns of its control thread are timed from now on, by a clock that says how long it has been running.
    pub fn time_turns(&mut self, clock: fn() -> std::time::Duration) {
        self.timed = Timed::by(clock);
    }

    /// How long the longest of them took since this was last asked.
    pub fn longest_turn(&mut self) -> std::time::Duration {
        self.timed.take_longest()
    }

    /// What it was configured with last.
    pub fn configuration(&self) -> (&Site, &Hosts) {
        (&self.blueprint.site, &self.blueprint.hosts)
    }
}
