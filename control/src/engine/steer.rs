//! Which providers contexts should use, and how peers hear of it (RFC 5533 §4, §10: Locator Preferences).
//!
//! The operator says what he wants of a provider ([`Steering`]), and a link that is down says that it does not work
//! (R5533-017). From both follow the preferences of every host's locators. Every context then hears of it, at a common
//! pace: its peer by an Update Request, so that it stops sending to the locator, and its own REAP machine. Neither end
//! moves by being told: each goes through the same exploration as after a failure, and only to a pair that was answered
//! on (R5533-018, R5533-272).

use std::cmp::Reverse;
use std::time::Duration;

use dataplane::wire::shim6::Preference;
use dataplane::wire::{Locator, LocatorPair, Ulid};
use rand::Rng;

use super::{Effect, Engine, Event, Provider};
use crate::manage::api::Steering;
use crate::shim6::{Context, LocalHost};
use crate::time::Instant;

/// How long a provider has to be up again before peers hear that it is not broken: a link that comes and goes is worth
/// one Update Request, not many.
const MENDED_AFTER: Duration = Duration::from_secs(10);
/// Contexts that hear of news in one call, so that events of the workers never wait long.
const TOLD_PER_TURN: usize = 64;

/// Why a provider is not steered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SteerRefused {
    /// There is none of that name.
    #[error("there is no provider called {0}")]
    Unknown(String),
    /// Nothing would be left to drain to.
    #[error("no other provider is up and may be used: {0} cannot be drained")]
    Last(String),
}

impl Provider {
    /// Whether contexts should leave it.
    pub(super) fn is_unwelcome(&self) -> bool {
        let leaving = self.deprecated || self.leaving.is_some();
        self.steering == Steering::Drain || self.drained || self.told_down || leaving
    }

    /// Its place among the providers: lower is better. Only the order counts.
    pub(super) fn standing(&self) -> u8 {
        let class = if self.is_unwelcome() { 3 } else { self.steering as u8 };
        class * 64 + u8::try_from(self.preference).unwrap_or(u8::MAX).min(63)
    }

    /// What peers are told of locators from it.
    fn advice(&self) -> Preference {
        let flags = if self.is_unwelcome() { Preference::BROKEN } else { 0 };
        // With room between them; as in DNS SRV, lower comes first.
        let priority = match self.steering {
            Steering::Prefer => 0,
            Steering::Normal => 10,
            Steering::Avoid => 20,
            Steering::Drain => 30,
        };
        Preference { flags, priority: Some(priority), weight: Some(0) }
    }
}

impl Engine {
    /// The operator wants something else of a provider.
    pub fn steer(&mut self, name: &str, steering: Steering) -> Result<(), SteerRefused> {
        let named = |provider: &Provider| provider.name == name && provider.leaving.is_none() && provider.exists();
        let named = self.providers.iter().position(named);
        let at = named.ok_or_else(|| SteerRefused::Unknown(name.to_owned()))?;
        let usable = |provider: &Provider| provider.is_up() && !provider.is_unwelcome();
        let others = self.providers.iter().enumerate().any(|(other, provider)| other != at && usable(provider));
        if steering == Steering::Drain && !others {
            return Err(SteerRefused::Last(name.to_owned()));
        }
        if std::mem::replace(&mut self.providers[at].steering, steering) != steering {
            self.advise();
            self.renew_ways();
        }
        self.policy_forgives(at);
        Ok(())
    }

    /// A provider went down or came up: what peers should think of it (R5533-017).
    pub(super) fn advise_of_state(&mut self, now: Instant, at: usize) {
        let up = |provider: &Provider| provider.is_up();
        let others = self.providers.iter().enumerate().any(|(other, provider)| other != at && up(provider));
        let announce = self.announce_down;
        let Some(provider) = self.providers.get_mut(at) else { return };
        if provider.is_up() {
            provider.up_since = Some(now);
            self.advise_at.get_or_insert(now + MENDED_AFTER);
        } else if announce && others && !std::mem::replace(&mut provider.told_down, true) {
            self.advise();
        }
    }

    /// Providers that have been up again for long enough are not broken any more.
    fn mended(&mut self, now: Instant) {
        if self.advise_at.is_none_or(|at| at > now) {
            return;
        }
        let (mut news, mut next) = (false, None);
        for provider in self.providers.iter_mut().filter(|provider| provider.told_down && provider.is_up()) {
            let mended = provider.up_since.unwrap_or(now) + MENDED_AFTER;
            if mended <= now {
                provider.told_down = false;
                news = true;
            } else {
                next = Some(next.unwrap_or(mended).min(mended));
            }
        }
        self.advise_at = next;
        if news {
            self.advise();
            self.renew_ways();
        }
    }

    /// Preferences of all hosts' locators follow from the providers anew, and all contexts hear of them.
    pub(super) fn advise(&mut self) {
        self.advise_hosts(self.served.keys().copied().collect());
    }

    /// The same for some hosts, whose lists may be new as well. Their contexts are looked for as time goes on.
    pub(super) fn advise_hosts(&mut self, ulids: Vec<Ulid>) {
        for ulid in &ulids {
            let Some(preferences) = self.endpoint.host(*ulid).map(|host| self.preferences_of(host)) else { continue };
            // The number is right, since it was taken from the list itself.
            let _ = self.endpoint.set_preferences(*ulid, preferences);
        }
        self.round.begin(ulids, self.endpoint.places());
        // Sessions without a context follow, as far as they are new.
        self.failing_check = Some(Instant::START);
    }

    /// Whether a host's locator should be left.
    pub(super) fn is_unwelcome(&self, ulid: Ulid, locator: Locator) -> bool {
        let provider = self.provider_of(locator.0);
        provider.is_some_and(|(_, provider)| provider.is_unwelcome()) || self.is_going(ulid, locator)
    }

    /// What peers should think of a host's locators; nothing while they are all alike.
    pub(super) fn preferences_of(&self, host: &LocalHost) -> Option<Vec<Preference>> {
        let of = |locator| self.preference_of(host.ulid, locator);
        let preferences: Vec<Preference> = host.locators.iter().map(|(locator, _)| of(*locator)).collect();
        let alike = preferences.iter().all(|it| it.flags == 0 && it.priority == preferences[0].priority);
        (!alike).then_some(preferences)
    }

    /// What peers should think of one of them.
    pub(super) fn preference_of(&self, ulid: Ulid, locator: Locator) -> Preference {
        let advice = self.provider_of(locator.0).map(|(_, provider)| provider.advice()).unwrap_or_default();
        let going = if self.is_going(ulid, locator) { Preference::BROKEN } else { 0 };
        Preference { flags: advice.flags | going, ..advice }
    }

    /// Contexts that have something to hear hear it, at the pace all keep together.
    pub(super) fn expire_news(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        self.mended(now);
        self.expire_stays(now);
        self.go_round(now);
        for _ in 0..TOLD_PER_TURN {
            let Some(id) = self.next_with_news() else { return };
            // Those who are gone take nothing from the others.
            let is_there = self.attached.get(&id).is_some();
            if is_there && !self.news_budget.take(now) {
                return;
            }
            if is_there && self.round.moves_idle() {
                // It has a probe to send as well. Half of what may be sent is left for those of contexts in use.
                self.news_budget.charge(now, 1);
            }
            self.hears_news(id);
            if !is_there {
                continue;
            }
            let mut out = Vec::new();
            let own = self.own_preferences(id);
            if self.endpoint.tell_news(now, rng, id, own, &mut out) {
                self.tally.count(Event::UpdatesTold);
            }
            self.follow(now, rng, out, effects);
            self.locators_changed(now, rng, id, effects);
            if let Some(to) = self.endpoint.context(id).and_then(|context| self.better_pair(now, context)) {
                self.relocate(now, rng, id, to, effects);
            }
        }
    }

    /// When [`Engine::expire_news`] has something to do.
    pub(super) fn news_deadline(&self) -> Option<Instant> {
        let next = self.next_with_news().map(|_| self.news_budget.ready_at());
        let stays = self.stays.peek().map(|Reverse((at, _))| *at);
        [next, self.advise_at, stays, self.round.due()].into_iter().flatten().min()
    }

    /// The pair a context should try because the operator, or its class, prefers another provider than its own.
    pub(super) fn better_pair(&self, now: Instant, context: &Context) -> Option<LocatorPair> {
        if self.is_under_policy(context) {
            return None;
        }
        if let Some(class) = self.class_of(context) {
            return self.homeward(now, context, class);
        }
        let preferred = |provider: &Provider| provider.steering == Steering::Prefer && !provider.is_unwelcome();
        let (_, current) = self.provider_of(context.pair.local.0)?;
        if preferred(current) {
            return None;
        }
        let locators = context.host.locators.iter().filter_map(|(locator, _)| {
            let (_, provider) = self.provider_of(locator.0)?;
            (preferred(provider) && provider.is_up()).then_some((provider.standing(), *locator))
        });
        let (_, local) = locators.min_by_key(|(standing, _)| *standing)?;
        Some(LocatorPair { local, peer: context.pair.peer })
    }
}
