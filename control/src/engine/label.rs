//! When payload of a context may go with a flow label for a payload header (docs/decisions: the context in the flow
//! label).
//!
//! Both boxes have offered a label; what is left to know is whether labels arrive. The network may change them, a firewall
//! may let Shim6 pass and not what is under it, and the peer may have forgotten. So a label is used on a *way*, a
//! locator pair, only after the peer has said that a packet came with it, and for as long as it goes on saying so:
//!
//! ```text
//!              test                     answer: came with it
//!  headers ───────────▶ headers, asked ────────────────────────▶ label ◀─┐
//!     ▲                       │ no answer: later                   │ │   │ answer: came with
//!     │◀──────────────────────┘                      test, 1 s and │ │   │ it, and so did payload
//!     │                                            then each 5 s   │ └───┘
//!     │◀── no answer (later), another label or no payload (rest), ─┘
//!           an exploration that begins (rest), another pair, I2bis
//! ```
//!
//! A test is a Keepalive that has the label in its IPv6 header and an option that asks. It is sent only while there is
//! payload to send, and looked at when workers report activity, so it needs no timer.

use std::time::Duration;

use dataplane::context::Activity;
use dataplane::wire::shim6::{Addresses, LabelOption, LabelPurpose, Message, Options};
use dataplane::wire::{FlowLabel, LocatorPair, ipv6};
use rand::Rng;

use super::{Effect, Engine, Event};
use crate::reap::Reason;
use crate::shim6::{Context, ContextId, State};
use crate::time::Instant;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// From the first answer to the next test, which asks for payload as well.
const SOON: Duration = Duration::from_secs(1);
/// Between tests after that.
const AGAIN: Duration = Duration::from_secs(5);
/// From a test without answer to the next; twice as long after each further one.
const LATER: Duration = Duration::from_secs(1);
/// Most doublings of that.
const DOUBLINGS_MAX: u32 = 6;
/// How long a way is left alone on which labels do not arrive, or on which nothing came back while they were in use.
const REST: Duration = Duration::from_secs(600);
/// Ways at rest that are remembered.
const RESTING_MAX: usize = 8;
/// Reports of payload sent by label after which the peer must have got some of it.
const REPORTS_ENOUGH: u8 = 4;

/// A label of the peer's, and where packets go with it.
type Way = (FlowLabel, LocatorPair);

/// What is known of labels in one context.
#[derive(Debug, Default)]
pub(super) struct LabelUse {
    way: Option<Way>,
    proved: bool,
    asked: Option<Asked>,
    next: Option<Instant>,
    failures: u32,
    /// Reports of payload sent by label since the last answer.
    reports: u8,
    resting: Vec<(Way, Instant)>,
    /// Payload has come by our label since we last answered.
    arrived: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    nonce: u32,
    at: Instant,
    /// Enough payload has been sent by label for some to have arrived.
    payload: bool,
}

impl LabelUse {
    /// Whether payload may go this way with a label.
    fn may_use(&self, way: Way) -> bool {
        self.proved && self.way == Some(way)
    }

    /// Payload is being sent, and would like to go this way. The nonce of a test to be sent, if it is time for one.
    fn sending(&mut self, now: Instant, rng: &mut dyn Rng, way: Way, labelled: bool) -> Option<u32> {
        if self.way != Some(way) {
            let (resting, arrived) = (std::mem::take(&mut self.resting), self.arrived);
            *self = LabelUse { way: Some(way), resting, arrived, ..LabelUse::default() };
        }
        self.reports = self.reports.saturating_add(u8::from(labelled));
        match self.asked {
            Some(asked) if now < asked.at + PATIENCE => return None,
            Some(_) => {
                self.stop();
                self.next = Some(now + LATER * (1 << self.failures.min(DOUBLINGS_MAX)));
                self.failures = self.failures.saturating_add(1);
            }
            None => {}
        }
        self.resting.retain(|(_, until)| *until > now);
        let rests = self.resting.iter().any(|(resting, _)| *resting == way);
        if rests || self.next.is_some_and(|next| now < next) {
            return None;
        }
        let nonce = rng.next_u32();
        self.asked = Some(Asked { nonce, at: now, payload: self.proved && self.reports >= REPORTS_ENOUGH });
        Some(nonce)
    }

    /// The peer says with what label a test came, and whether payload came by label since it last said so.
    fn answered(&mut self, now: Instant, option: &LabelOption) {
        let Some((asked, way)) = self.asked.filter(|asked| asked.nonce == option.nonce).zip(self.way) else { return };
        self.asked = None;
        if option.label != way.0.value() || (asked.payload && !option.arrived) {
            self.rest(now);
            return;
        }
        self.next = Some(now + if self.proved { AGAIN } else { SOON });
        self.proved = true;
        self.failures = 0;
        self.reports = 0;
    }

    /// Nothing comes back on the pair. If labels were in use there they may be why, and REAP, whose probes have none,
    /// would not find out.
    fn lost(&mut self, now: Instant) {
        if self.proved && self.reports > 0 {
            self.rest(now);
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.proved = false;
        self.asked = None;
        self.reports = 0;
    }

    fn rest(&mut self, now: Instant) {
        self.stop();
        let Some(way) = self.way else { return };
        if self.resting.len() == RESTING_MAX {
            self.resting.remove(0);
        }
        self.resting.push((way, now + REST));
    }
}

impl Engine {
    /// The label that payload of a context goes with now, if it does.
    pub(super) fn label_in_use(&self, context: &Context) -> Option<FlowLabel> {
        let way = way(context)?;
        let labels = &self.attached.get(&context.id)?.labels;
        labels.may_use(way).then_some(way.0)
    }

    /// Payload went or came, or soon will: test whether labels arrive, where that is to be known.
    pub(super) fn label_payload(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        id: ContextId,
        activity: Option<Activity>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(context) = self.endpoint.context(id).filter(|context| context.local_label.is_some()) else { return };
        let (way, receiver_tag, pair) = (way(context), context.peer_tag, context.pair);
        let Some(labels) = self.attached.get_mut(&id).map(|attached| &mut attached.labels) else { return };
        labels.arrived |= activity.is_some_and(|activity| activity.labelled_in);
        let sends = activity.is_none_or(|activity| activity.sent);
        if let (true, Some(way), Some(receiver_tag)) = (sends, way, receiver_tag) {
            let labelled = activity.is_some_and(|activity| activity.labelled_out);
            if let Some(nonce) = labels.sending(now, rng, way, labelled) {
                self.tally.count(Event::LabelTests);
                let label = way.0.value();
                let option = LabelOption { purpose: LabelPurpose::Test, arrived: false, label, nonce };
                let options = Options { flow_label: Some(option), ..Options::default() };
                let addresses = Addresses { source: pair.local.0, target: pair.peer.0 };
                self.send_labelled(now, addresses, &Message::Keepalive { receiver_tag, options }, label, effects);
            }
        }
        self.sync(id, effects);
    }

    /// A Keepalive about labels, which is none of REAP's. False if it is not about labels.
    pub(super) fn label_message(
        &mut self,
        now: Instant,
        id: ContextId,
        addresses: Addresses,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let (Message::Keepalive { .. }, Some(option)) = (message, message.options().flow_label) else { return false };
        // To who offers no label, this is an unknown option in a Keepalive.
        let context = self.endpoint.context(id).filter(|context| context.local_label.is_some());
        let Some(receiver_tag) = context.and_then(|context| context.peer_tag) else { return false };
        let Some(attached) = self.attached.get_mut(&id) else { return false };
        match option.purpose {
            LabelPurpose::Offer => {}
            LabelPurpose::Test => {
                let arrived = std::mem::take(&mut attached.labels.arrived);
                let answer = LabelOption { purpose: LabelPurpose::Answer, arrived, ..option };
                let options = Options { flow_label: Some(answer), ..Options::default() };
                self.send_message(now, addresses.swapped(), &Message::Keepalive { receiver_tag, options }, effects);
            }
            LabelPurpose::Answer => {
                attached.labels.answered(now, &option);
                self.sync(id, effects);
            }
        }
        true
    }

    /// The context looks for another pair.
    pub(super) fn label_doubt(&mut self, now: Instant, id: ContextId, reason: Reason, effects: &mut Vec<Effect>) {
        let Some(labels) = self.attached.get_mut(&id).map(|attached| &mut attached.labels) else { return };
        match reason {
            Reason::SendTimeout | Reason::Peer => labels.lost(now),
            Reason::LocatorLost | Reason::Suspected => labels.stop(),
            // The pair works; another one would be better.
            Reason::Relocation => return,
        }
        self.sync(id, effects);
    }
}

/// The way payload of a context would go with a label: both sides must have offered one, and the peer must not seem to
/// have lost the context.
fn way(context: &Context) -> Option<Way> {
    let both = context.local_label.and(context.peer_label)?;
    let good = context.state == State::Established && context.pair != context.ulids.as_locators();
    good.then_some((both, context.pair))
}

/// Writes into a test the label it came with: what it says itself is what it left with.
pub(super) fn note_label(message: &mut Message, packet: &[u8]) {
    let Message::Keepalive { options: Options { flow_label: Some(option), .. }, .. } = message else { return };
    if let (LabelPurpose::Test, Ok(view)) = (option.purpose, ipv6::View::new(packet)) {
        option.label = view.flow_label();
    }
}
