//! Update Request and Acknowledgement (RFC 5533 §10): telling a peer about new locators and preferences.

use std::sync::Arc;

use dataplane::wire::shim6::{Message, Options, Preference};
use rand::Rng;

use super::context::{Context, ContextId, LocalHost, State, Update, outgoing};
use super::dispatch::Incoming;
use super::endpoint::{ChangeRefused, Endpoint};
use super::establish::preferences;
use super::output::{DropReason, Output, Verdict};
use super::peer;
use super::size;
use super::timers::backoff_up_to;
use crate::time::Instant;

impl Endpoint {
    /// §10.1: tells the peer of the host's list as [`Endpoint::set_host`] last set it, if it is new to the context.
    pub fn update_locators(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        out: &mut Vec<Output>,
    ) -> Result<(), ChangeRefused> {
        let context = self.store.get(id).ok_or(ChangeRefused::NoContext)?;
        let (ulid, newest) = (context.ulids.local, context.newest_host().generation);
        let Some(host) = self.local(ulid).filter(|host| host.generation != newest) else { return Ok(()) };
        let preferences = host.preferences.clone();
        self.tell(now, rng, id, Some(host), preferences, out);
        Ok(())
    }

    /// §10.1: tells the peer how to use our locators: one preference for each in the newest list.
    pub fn update_preferences(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        preferences: Vec<Preference>,
        out: &mut Vec<Output>,
    ) -> Result<(), ChangeRefused> {
        let context = self.store.get(id).ok_or(ChangeRefused::NoContext)?;
        if context.newest_host().locators.len() != preferences.len() {
            return Err(ChangeRefused::PreferenceCount);
        }
        self.tell(now, rng, id, None, Some(preferences), out);
        Ok(())
    }

    /// §10.1: tells the peer what it does not know yet of the host as [`Endpoint::set_host`] and
    /// [`Endpoint::set_preferences`] last set it: list, preferences or both. `own` are preferences for the peer of this
    /// context alone, one for each locator of the host, in the place of the host's. Whether there was anything to tell.
    pub fn tell_news(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        own: Option<Vec<Preference>>,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(ulid) = self.store.get(id).map(|context| context.ulids.local) else { return false };
        let Some(host) = self.local(ulid) else { return false };
        let Some(context) = self.store.get(id) else { return false };
        let own = own.filter(|own| own.len() == host.locators.len());
        if context.newest_host().generation != host.generation {
            let preferences = own.or(host.preferences.clone());
            self.tell(now, rng, id, Some(host), preferences, out);
            return true;
        }
        let count = host.locators.len();
        let wanted = spelled_out(own.as_deref().or(host.preferences.as_deref()), count);
        let news = spelled_out(context.newest_preferences(), count) != wanted;
        if news {
            self.tell(now, rng, id, None, Some(wanted), out);
        }
        news
    }

    /// The context goes another way. A request that was sent the old way, which may be dead, goes again at once: its own
    /// timer may have backed off far (§10.2).
    pub fn repeat_update(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, out: &mut Vec<Output>) {
        let sent = |context: &Context| {
            context.state == State::Established && context.update.iter().any(|update| update.at.is_some())
        };
        if self.store.get(id).is_some_and(sent) {
            self.send_update(now, rng, id, out);
        }
    }

    /// §10.3: at most one request is outstanding; news takes its place and says what it said, with a new nonce.
    fn tell(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        host: Option<Arc<LocalHost>>,
        preferences: Option<Vec<Preference>>,
        out: &mut Vec<Output>,
    ) {
        let nonce = rng.next_u32();
        self.end_check(id);
        let Some(context) = self.store.get_mut(id) else { return };
        let old = context.update.take();
        let new_list = host.is_some();
        let (old_host, old_preferences) = old.map_or((None, None), |old| (old.host, old.preferences));
        let update = Update {
            nonce,
            host: host.or(old_host),
            // Preferences for an older list say nothing about a newer one.
            preferences: preferences.or(old_preferences.filter(|_| !new_list)),
            retries: 0,
            at: None,
            renewed_for: None,
        };
        if context.state == State::I1Sent && !context.told {
            // What the peer will be told first is the newest there is.
            context.adopt(update);
        } else {
            context.update = Some(Box::new(update));
        }
        self.store.settle(id);
        self.send_pending_update(now, rng, id, out);
    }

    /// Sends what waited for the context to be established.
    pub(super) fn send_pending_update(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        out: &mut Vec<Output>,
    ) {
        let waiting = |context: &Context| {
            context.state == State::Established && context.update.iter().any(|update| update.at.is_none())
        };
        if self.store.get(id).is_some_and(waiting) {
            self.send_update(now, rng, id, out);
        }
    }

    /// §10.2: no acknowledgement in time; goes on until there is one or the context ends.
    pub(super) fn resend_update(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, out: &mut Vec<Output>) {
        if let Some(update) = self.store.get_mut(id).and_then(|context| context.update.as_deref_mut()) {
            // The wait has long reached its ceiling when this count would.
            update.retries = update.retries.saturating_add(1).min(30);
        }
        self.send_update(now, rng, id, out);
    }

    fn send_update(&mut self, now: Instant, rng: &mut dyn Rng, id: ContextId, out: &mut Vec<Output>) {
        let (base, max) = (self.config.update_timeout, self.config.update_timeout_max);
        let Some(context) = self.store.get_mut(id) else { return };
        let (Some(receiver_tag), addresses) = (context.peer_tag, outgoing(context.pair)) else { return };
        let newest = context.newest_host().clone();
        let Some(update) = context.update.as_deref_mut() else { return };
        update.at = Some(now + backoff_up_to(rng, base, update.retries, max));
        let mut options = Options {
            preferences: update.preferences.as_deref().map(|elements| preferences(&newest, elements)),
            ..Options::default()
        };
        if let Some(host) = &update.host {
            // The parameters may be left out if the peer has them already, but not every peer keeps them (D14).
            options.locators = Some(host.list());
            options.pds.clone_from(&host.pds);
            options.signature.clone_from(&host.signature);
        }
        let request_nonce = update.nonce;
        self.store.settle(id);
        let message = Message::UpdateRequest { receiver_tag, request_nonce, options };
        if let Some(message) = size::fit(message) {
            out.push(Output::Send { context: Some(id), addresses, message });
            out.push(Output::ControlOut { id });
        }
    }

    /// §10.4: receives an Update Request for a context that is established, or was.
    #[expect(clippy::too_many_arguments, reason = "what came, when, for whom, and chance")]
    pub(super) fn receive_update_request(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        packet: &Incoming<'_>,
        id: ContextId,
        request_nonce: u32,
        options: &Options,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let Some(context) = self.store.get(id) else { return Verdict::Dropped(DropReason::NoContext) };
        let ulid = context.ulids.peer;
        let checked = match peer::check_parameters(&mut *self.proof, ulid, options) {
            Ok(checked) => checked,
            Err(reason) => return Verdict::Dropped(reason),
        };
        // The list is recorded before the preferences are looked at, and stays if they are wrong.
        let list = Options { preferences: None, ..options.clone() };
        let preferences = Options { preferences: options.preferences.clone(), ..Options::default() };
        let mut changed = false;
        let mut refusal = None;
        for part in [&list, &preferences] {
            let Some(context) = self.store.get_mut(id) else { return Verdict::Dropped(DropReason::NoContext) };
            match peer::prove(&mut *self.proof, ulid, Some(context), part, checked) {
                Ok(mut told) => {
                    let timeout = context.peer_keepalive_timeout;
                    told.keepalive_timeout = told.keepalive_timeout.or(timeout);
                    changed |= told.keepalive_timeout != timeout;
                    changed |= peer::learn(context, told);
                }
                Err(wrong) => {
                    refusal = Some(wrong);
                    break;
                }
            }
        }
        self.store.settle(id);
        if changed {
            // A list can come to overlap with that of another context to which the peer gave the same tag (§7.15).
            self.resolve_confusion(now, rng, id, out);
            out.push(Output::LocatorsChanged { id });
        }
        if let Some(refusal) = refusal {
            return self.refuse(now, packet, refusal, out);
        }
        let Some(receiver_tag) = self.store.get(id).and_then(|context| context.peer_tag) else {
            return Verdict::Dropped(DropReason::WrongState);
        };
        self.touch(id);
        out.push(Output::ControlIn { id });
        let message = Message::UpdateAck { receiver_tag, request_nonce, options: Options::default() };
        out.push(Output::Send { context: Some(id), addresses: packet.addresses.swapped(), message });
        out.push(Output::ControlOut { id });
        Verdict::Accepted
    }

    /// §10.5: receives an Update Acknowledgement.
    pub(super) fn receive_update_ack(&mut self, id: ContextId, request_nonce: u32, out: &mut Vec<Output>) -> Verdict {
        if self.receive_check_ack(id, request_nonce, out) {
            return Verdict::Accepted;
        }
        let Some(context) = self.store.get_mut(id) else { return Verdict::Dropped(DropReason::NoContext) };
        let Some(update) = context.update.as_deref().filter(|update| update.nonce == request_nonce).cloned() else {
            return Verdict::Dropped(DropReason::WrongNonce);
        };
        context.adopt(update);
        // In I2BIS-SENT the peer may have lost what it acknowledged, and hears the older list from our I2bis: the news is
        // told once more after the R2 (decision 0013).
        if context.state == State::Established {
            context.update = None;
        }
        self.store.settle(id);
        self.touch(id);
        out.push(Output::ControlIn { id });
        out.push(Output::LocatorsChanged { id });
        Verdict::Accepted
    }
}

/// Preferences as elements of length 3; those nobody told are like those that say nothing.
fn spelled_out(preferences: Option<&[Preference]>, count: usize) -> Vec<Preference> {
    let spell = |preference: &Preference| Preference {
        flags: preference.flags,
        priority: Some(preference.priority.unwrap_or_default()),
        weight: Some(preference.weight.unwrap_or_default()),
    };
    let none = vec![Preference::default(); count];
    preferences.unwrap_or(&none).iter().map(spell).collect()
}

impl Context {
    /// The exchange with this nonce of its initiator tells the peer the list from before an update that is outstanding.
    /// Whether the peer had heard of the update before or not, it is told again, with a nonce that no acknowledgement on
    /// its way carries (decision 0013); once, however often the message of the exchange comes.
    pub(super) fn renew_update(&mut self, rng: &mut dyn Rng, exchange: u32) {
        let update = self.update.as_deref_mut().filter(|update| update.renewed_for != Some(exchange));
        if let Some(update) = update {
            (update.renewed_for, update.nonce, update.retries, update.at) = (Some(exchange), rng.next_u32(), 0, None);
        }
    }

    /// What was told is now what the peer knows.
    pub(super) fn adopt(&mut self, update: Update) {
        if let Some(host) = update.host {
            self.host = host;
            self.preferences = None;
        }
        if let Some(preferences) = update.preferences {
            self.preferences = Some(preferences);
        }
    }
}
