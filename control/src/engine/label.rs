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
//!           nothing came back for Send Timeout (rest), any other
//!           exploration, another pair, I2bis
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
        let labels = self.attached.get(&context.id)?.labels.as_deref()?;
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
        let Some(labels) = self.attached.get_mut(&id).map(|attached| attached.labels.get_or_insert_default()) else {
            return;
        };
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
                self.send_labelled(
                    now,
                    Some(id),
                    addresses,
                    &Message::Keepalive { receiver_tag, options },
                    label,
                    effects,
                );
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
                let arrived = std::mem::take(&mut attached.labels.get_or_insert_default().arrived);
                let answer = LabelOption { purpose: LabelPurpose::Answer, arrived, ..option };
                let options = Options { flow_label: Some(answer), ..Options::default() };
                self.send_message(
                    now,
                    Some(id),
                    addresses.swapped(),
                    &Message::Keepalive { receiver_tag, options },
                    effects,
                );
            }
            LabelPurpose::Answer => {
                attached.labels.get_or_insert_default().answered(now, &option);
                self.sync(id, effects);
            }
        }
        true
    }

    /// The context looks for another pair.
    pub(super) fn label_doubt(&mut self, now: Instant, id: ContextId, reason: Reason, effects: &mut Vec<Effect>) {
        let Some(labels) = self.attached.get_mut(&id).and_then(|attached| attached.labels.as_deref_mut()) else {
            return;
        };
        match reason {
            Reason::SendTimeout => labels.lost(now),
            // The peer, or somebody, may be wrong about our labels; the next test will tell.
            Reason::Peer | Reason::LocatorLost | Reason::Suspected | Reason::Hinted => labels.stop(),
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

#[cfg(test)]
mod tests {
    use dataplane::wire::Locator;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    struct Scene {
        labels: LabelUse,
        now: Instant,
        rng: StdRng,
    }

    impl Scene {
        fn new() -> Scene {
            Scene { labels: LabelUse::default(), now: Instant::START, rng: StdRng::seed_from_u64(1) }
        }

        fn wait(&mut self, time: Duration) {
            self.now = self.now + time;
        }

        /// A report of payload on a way; the nonce of the test that follows.
        fn report(&mut self, way: Way) -> Option<u32> {
            let labelled = self.labels.may_use(way);
            self.labels.sending(self.now, &mut self.rng, way, labelled)
        }

        /// Reports for some time, 50 ms apart. When tests were sent.
        fn talk(&mut self, way: Way, time: Duration) -> Vec<Duration> {
            let (mut tests, began) = (Vec::new(), self.now);
            while self.now < began + time {
                tests.extend(self.report(way).map(|_| self.now.since(began)));
                self.wait(Duration::from_millis(50));
            }
            tests
        }

        fn answer(&mut self, nonce: u32, label: u32, arrived: bool) {
            let option = LabelOption { purpose: LabelPurpose::Answer, arrived, label, nonce };
            self.labels.answered(self.now, &option);
        }

        /// A way on which labels have just been found to arrive.
        fn proved(way: Way) -> Scene {
            let mut scene = Scene::new();
            let nonce = scene.report(way).unwrap();
            scene.answer(nonce, way.0.value(), false);
            assert!(scene.labels.may_use(way));
            scene
        }
    }

    fn way(label: u32, peer: u16) -> Way {
        let at = |last| Locator(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        (FlowLabel::truncate(label).unwrap(), LocatorPair { local: at(1), peer: at(peer) })
    }

    #[test]
    fn a_label_is_used_when_it_is_known_to_arrive_there() {
        let mut scene = Scene::new();
        let nonce = scene.report(way(5, 2)).unwrap();
        assert!(!scene.labels.may_use(way(5, 2)));
        scene.answer(nonce ^ 1, 5, true);
        assert!(!scene.labels.may_use(way(5, 2)), "an answer to nothing");
        scene.answer(nonce, 5, false);
        assert!(scene.labels.may_use(way(5, 2)));
        assert!(!scene.labels.may_use(way(5, 3)) && !scene.labels.may_use(way(6, 2)), "there, and nowhere else");
        assert!(scene.report(way(5, 3)).is_some(), "another way has a test of its own, at once");
        assert!(!scene.labels.may_use(way(5, 2)), "and what was known of the one before is forgotten");
    }

    #[test]
    fn tests_go_on_while_payload_does() {
        let mut scene = Scene::proved(way(5, 2));
        for after in [SOON, AGAIN, AGAIN, AGAIN] {
            let began = scene.now;
            let nonce = loop {
                scene.wait(Duration::from_millis(50));
                if let Some(nonce) = scene.report(way(5, 2)) {
                    break nonce;
                }
            };
            assert_eq!(scene.now.since(began), after);
            scene.answer(nonce, 5, true);
            assert!(scene.labels.may_use(way(5, 2)));
        }
        scene.wait(Duration::from_secs(1000));
        assert!(scene.labels.may_use(way(5, 2)), "nobody sends, so nobody asks");
        assert!(scene.report(way(5, 2)).is_some());
    }

    #[test]
    fn another_label_or_no_payload_ends_it_for_a_long_time() {
        for (label, arrived) in [(4, true), (0, true), (5, false)] {
            let mut scene = Scene::proved(way(5, 2));
            assert_eq!(scene.talk(way(5, 2), SOON + Duration::from_millis(50)), [SOON]);
            let nonce = scene.labels.asked.unwrap().nonce;
            scene.answer(nonce, label, arrived);
            assert!(!scene.labels.may_use(way(5, 2)));
            assert!(scene.talk(way(5, 2), REST - Duration::from_secs(1)).is_empty());
            assert!(scene.report(way(5, 3)).is_some(), "elsewhere they may arrive");
            assert!(scene.talk(way(5, 2), Duration::from_millis(500)).is_empty(), "and here they still rest");
            scene.wait(Duration::from_secs(1));
            assert!(scene.report(way(5, 2)).is_some());
        }
    }

    #[test]
    fn of_little_payload_none_may_arrive() {
        for (reports, ends) in [(REPORTS_ENOUGH - 1, false), (REPORTS_ENOUGH, true)] {
            let mut scene = Scene::proved(way(5, 2));
            for _ in 1..reports {
                assert_eq!(scene.report(way(5, 2)), None);
            }
            scene.wait(SOON);
            // The last report leads to the test.
            let nonce = scene.report(way(5, 2)).unwrap();
            scene.answer(nonce, 5, false);
            assert_eq!(scene.labels.may_use(way(5, 2)), !ends);
        }
    }

    #[test]
    fn without_answers_tests_become_rare_and_headers_are_used() {
        let mut scene = Scene::proved(way(5, 2));
        scene.wait(SOON);
        assert!(scene.report(way(5, 2)).is_some());
        scene.wait(PATIENCE - Duration::from_millis(50));
        assert_eq!((scene.report(way(5, 2)), scene.labels.may_use(way(5, 2))), (None, true));
        scene.wait(Duration::from_millis(50));
        assert_eq!((scene.report(way(5, 2)), scene.labels.may_use(way(5, 2))), (None, false));
        let tests = scene.talk(way(5, 2), Duration::from_secs(400));
        let gaps: Vec<u64> = tests.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert_eq!(gaps[..7], [4, 6, 10, 18, 34, 66, 66]);
        let nonce = scene.labels.asked.map(|asked| asked.nonce);
        if let Some(nonce) = nonce {
            scene.answer(nonce, 5, false);
            assert!(scene.labels.may_use(way(5, 2)));
        }
    }

    #[test]
    fn silence_is_put_down_to_labels_only_when_they_were_in_use() {
        let mut scene = Scene::proved(way(5, 2));
        scene.labels.lost(scene.now);
        assert!(scene.labels.resting.is_empty(), "nothing had been sent by label yet");
        let mut scene = Scene::proved(way(5, 2));
        scene.report(way(5, 2));
        scene.labels.lost(scene.now);
        assert_eq!(scene.labels.resting.len(), 1);
        for peer in 0..100 {
            let way = way(5, peer);
            let nonce = scene.report(way);
            nonce.into_iter().for_each(|nonce| scene.answer(nonce, 9, false));
            scene.wait(Duration::from_secs(1));
        }
        assert_eq!(scene.labels.resting.len(), RESTING_MAX);
    }
}
