//! Every state against everything that can happen (spec 2.4, E1 to E16).

use dataplane::wire::shim6::{ErrorCode, ErrorMessage, LocatorList, Probe, ProbeReport, ProbeState};

use super::*;

const STATES: [State; 7] =
    [State::Idle, State::I1Sent, State::I2Sent, State::I2bisSent, State::Established, State::EFailed, State::NoSupport];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    /// E1.
    Open,
    /// E2, with the tag the context knows.
    I1,
    /// E2, with another tag: the peer lost the context.
    I1NewTag,
    /// E2, from an address that is not the peer's.
    I1Foreign,
    /// E3.
    R1,
    R1WrongNonce,
    /// E4.
    I2,
    I2NewTag,
    I2Foreign,
    I2BadValidator,
    /// E5.
    R2,
    R2WrongNonce,
    R2BadPds,
    /// E6.
    R1bis,
    R1bisWrongTag,
    /// E7.
    I2bis,
    I2bisForeign,
    /// E8 to E10.
    Ur,
    UrForeign,
    UrBadPds,
    Ua,
    UaForeign,
    Keepalive,
    KeepaliveForeign,
    Probe,
    ProbeForeign,
    /// E11.
    Payload,
    /// E14: the next timer, and the last one.
    Timer,
    LastTimer,
    /// E15.
    ParameterProblem,
    /// E16.
    Error,
}

/// What is sent, and the new state by its letter: Idle, I1-SENT (1), I2-SENT (2), I2BIS-SENT (b), ESTABLISHED (E),
/// E-FAILED (F), NO-SUPPORT (N). A full stop stands for no change. Columns in the order of [`STATES`].
const TABLE: &[(Event, [&str; 7])] = &[
    // R5533-021, R5533-136, R5533-144, R5533-146
    (Event::Open, ["I1 1", "- .", "- .", "- .", "- .", "- .", "- ."]),
    // R5533-151, R5533-153, R5533-155, R5533-157
    (Event::I1, ["R1 .", "R2 .", "R2 .", "R2 .", "R2 .", "R1 .", "R1 ."]),
    // R5533-154, R5533-156
    (Event::I1NewTag, ["R1 .", "R2 .", "R2 .", "R2 .", "R1 .", "R1 .", "R1 ."]),
    // R5533-152
    (Event::I1Foreign, ["R1 .", "R2 .", "R2 .", "R2 .", "R1 .", "R1 .", "R1 ."]),
    // R5533-163, R5533-164
    (Event::R1, ["- .", "I2 2", "- .", "- .", "- .", "- .", "- ."]),
    // R5533-162
    (Event::R1WrongNonce, ["- .", "- .", "- .", "- .", "- .", "- .", "- ."]),
    // R5533-157, R5533-181, R5533-184, R5533-187; an update that is outstanding is told again, for R2 has the older list
    (Event::I2, ["R2 E", "R2 E", "R2 .", "R2 .", "R2+UR .", "R2 E", "R2 E"]),
    (Event::I2NewTag, ["R2 E", "R2 E", "R2 .", "R2 .", "R2+UR .", "R2 E", "R2 E"]),
    // R5533-183, R5533-186
    (Event::I2Foreign, ["- .", "- .", "- .", "- .", "- .", "- .", "- ."]),
    // R5533-178, R5533-180
    (Event::I2BadValidator, ["- .", "- .", "- .", "- .", "- .", "- .", "- ."]),
    // R5533-195, R5533-197; an update that was outstanding goes on after recovery
    (Event::R2, ["- .", "- E", "- E", "UR E", "- .", "- .", "- ."]),
    // R5533-193
    (Event::R2WrongNonce, ["- .", "- .", "- .", "- .", "- .", "- .", "- ."]),
    // R5533-194
    (Event::R2BadPds, ["- .", "- .", "- .", "- .", "- .", "- .", "- ."]),
    // R5533-214, R5533-215
    (Event::R1bis, ["- .", "- .", "- .", "- .", "I2bis b", "- .", "- ."]),
    // R5533-213
    (Event::R1bisWrongTag, ["- .", "- .", "- .", "- .", "- .", "- .", "- ."]),
    // R5533-227, R5533-231, R5533-234
    (Event::I2bis, ["R2 E", "R2 E", "R2 .", "R2 .", "R2+UR .", "R2 E", "R2 E"]),
    // R5533-230, R5533-233
    (Event::I2bisForeign, ["- .", "- .", "- .", "- .", "- .", "- .", "- ."]),
    // R5533-209, R5533-260, R5533-265, R5533-271, R5533-332
    (Event::Ur, ["R1bis .", "- .", "I2 .", "I2bis+UA .", "UA .", "R1bis .", "R1bis ."]),
    // R5533-261, R5533-262
    (Event::UrForeign, ["R1bis .", "- .", "R1bis .", "R1bis .", "R1bis .", "R1bis .", "R1bis ."]),
    // R5533-263, R5533-264
    (Event::UrBadPds, ["R1bis .", "- .", "I2 .", "I2bis .", "- .", "R1bis .", "R1bis ."]),
    // R5533-274, R5533-277, R5533-278
    (Event::Ua, ["R1bis .", "- .", "I2 .", "I2bis .", "- .", "R1bis .", "R1bis ."]),
    // R5533-275, R5533-276
    (Event::UaForeign, ["R1bis .", "- .", "R1bis .", "R1bis .", "R1bis .", "R1bis .", "R1bis ."]),
    // R5533-209, R5533-297
    (Event::Keepalive, ["R1bis .", "- .", "I2 .", "I2bis .", "- .", "R1bis .", "R1bis ."]),
    (Event::KeepaliveForeign, ["R1bis .", "- .", "R1bis .", "R1bis .", "R1bis .", "R1bis .", "R1bis ."]),
    (Event::Probe, ["R1bis .", "- .", "I2 .", "I2bis .", "- .", "R1bis .", "R1bis ."]),
    (Event::ProbeForeign, ["R1bis .", "- .", "R1bis .", "R1bis .", "R1bis .", "R1bis .", "R1bis ."]),
    // R5533-208, R5533-290
    (Event::Payload, ["R1bis .", "- .", "I2 .", "I2bis .", "- .", "R1bis .", "R1bis ."]),
    // R5533-140, R5533-145, R5533-147, R5533-171, R5533-220, R5533-248
    (Event::Timer, ["- .", "I1 .", "I2 .", "I2bis .", "- I", "- I", "- I"]),
    // R5533-143, R5533-173, R5533-222
    (Event::LastTimer, ["- .", "- F", "I1 1", "I1 1", "- I", "- I", "- I"]),
    // R5533-146
    (Event::ParameterProblem, ["- .", "- N", "- .", "- .", "- .", "- .", "- ."]),
    // R5533-088, R5533-324
    (Event::Error, ["- .", "- .", "- .", "- .", "- .", "- .", "- ."]),
];

#[test]
fn every_state_meets_every_event() {
    // R5534-035, R5534-109, R5534-126
    for (event, row) in TABLE {
        for (state, cell) in STATES.into_iter().zip(row) {
            let mut bench = Bench::new(state);
            assert_eq!(bench.node.state(bench.now, 2), state, "the bench itself");
            let tag_of = |bench: &Bench| {
                let ulids = bench.node.ulids(2);
                bench.node.endpoint.find(ulids, 0).map(|context| context.local_tag)
            };
            let tag = tag_of(&bench);
            let sent = bench.happen(*event);
            let new = bench.node.state(bench.now, 2);
            let shown = if new == state { "." } else { letter(new) };
            assert_eq!(format!("{sent} {shown}"), *cell, "{event:?} in {state:?}");
            bench.node.endpoint.selfcheck();
            if let (Some(before), Some(after)) = (tag, tag_of(&bench)) {
                assert_eq!(before, after, "a context keeps its tag");
            }
        }
    }
    assert_eq!(TABLE.len() * STATES.len(), 31 * 7);
}

fn letter(state: State) -> &'static str {
    match state {
        State::Idle => "I",
        State::I1Sent => "1",
        State::I2Sent => "2",
        State::I2bisSent => "b",
        State::Established => "E",
        State::EFailed => "F",
        State::NoSupport => "N",
    }
}

/// A node in a given state, and what a peer must know to speak to it.
struct Bench {
    node: Node,
    now: Instant,
    local_tag: Option<ContextTag>,
    /// INIT nonce of the exchange under way, or of the one that was.
    nonce: u32,
    /// Request Nonce of the outstanding update.
    request_nonce: u32,
    /// I1 as the node sent it.
    i1: Option<Vec<u8>>,
    /// Validators for I2 with either tag, and for I2bis, from here and from a foreign address.
    i2: [(u32, Vec<u8>); 2],
    i2_foreign: (u32, Vec<u8>),
    i2bis: (u32, Vec<u8>),
    i2bis_foreign: (u32, Vec<u8>),
}

fn peer_tag() -> ContextTag {
    tag(0x7001)
}

fn new_peer_tag() -> ContextTag {
    tag(0x7002)
}

/// Tag of the packets that made the node answer R1bis.
fn lost_tag() -> ContextTag {
    tag(0x7003)
}

fn inward() -> Addresses {
    between(locator(2, 1, 1), locator(1, 1, 1))
}

fn foreign() -> Addresses {
    between(locator(3, 1, 1), locator(1, 1, 1))
}

/// What the peer announces: its two locators, or none at all.
fn announcement() -> Options {
    let peer = host(2, 1);
    Options { locators: Some(peer.list()), pds: peer.pds, ..Options::NONE }
}

fn naming() -> Options {
    Options { ulids: Some(UlidPair { local: ulid(2, 1), peer: ulid(1, 1) }), ..Options::NONE }
}

impl Bench {
    fn new(state: State) -> Bench {
        let none = (0, Vec::new());
        let mut bench = Bench {
            node: Node::new(1),
            now: at(10),
            local_tag: None,
            nonce: 0,
            request_nonce: 0,
            i1: None,
            i2: [none.clone(), none.clone()],
            i2_foreign: none.clone(),
            i2bis: none.clone(),
            i2bis_foreign: none,
        };
        bench.ask_for_validators();
        bench.bring_to(state);
        bench
    }

    /// Without a context there is an R1 for every I1, and an R1bis for every tag.
    fn ask_for_validators(&mut self) {
        let (node, now) = (&mut self.node, self.now);
        let i1 = |initiator_tag| Message::I1 { initiator_tag, initiator_nonce: 5, options: naming() };
        let ask = Message::Keepalive { receiver_tag: lost_tag(), options: Options::NONE };
        self.i2 = [peer_tag(), new_peer_tag()].map(|tag| validator(node, now, inward(), &i1(tag)));
        self.i2_foreign = validator(node, now, foreign(), &i1(peer_tag()));
        self.i2bis = validator(node, now, inward(), &ask);
        self.i2bis_foreign = validator(node, now, foreign(), &ask);
        // Nobody is told twice within moments; here what comes next is somebody else's.
        node.endpoint.lost = crate::shim6::lost::Lost::default();
    }

    fn bring_to(&mut self, state: State) {
        match state {
            State::Idle => return,
            State::I1Sent => self.open(),
            State::EFailed => {
                self.open();
                while self.node.state(self.now, 2) == State::I1Sent {
                    self.now = self.node.expire_next();
                }
                self.ask_for_validators();
            }
            State::NoSupport => {
                self.open();
                self.happen(Event::ParameterProblem);
            }
            State::I2Sent => {
                self.open();
                self.happen(Event::R1);
            }
            State::Established => {
                self.open();
                self.happen(Event::R2);
                self.start_update();
            }
            State::I2bisSent => {
                self.bring_to(State::Established);
                self.happen(Event::R1bis);
                let (_, message) = self.node.sent_one();
                let Message::I2bis { initiator_nonce, .. } = message else { panic!("{message:?}") };
                self.nonce = initiator_nonce;
            }
        }
        // Long enough for I2 and I2bis to be sent again, too short for any timer.
        self.now = self.now + Duration::from_millis(1500);
    }

    fn open(&mut self) {
        self.node.open(self.now, 2).unwrap();
        let (addresses, message) = self.node.sent_one();
        let Message::I1 { initiator_tag, initiator_nonce, .. } = &message else { panic!("{message:?}") };
        (self.local_tag, self.nonce) = (Some(*initiator_tag), *initiator_nonce);
        self.i1 = Some(emit_packet(addresses, 64, &message).unwrap());
    }

    fn start_update(&mut self) {
        let id = self.node.context(2).id;
        self.node.out.clear();
        let preferences = vec![Default::default(); 2];
        let Node { endpoint, rng, out, .. } = &mut self.node;
        endpoint.update_preferences(self.now, rng, id, preferences, out).unwrap();
        let (_, message) = self.node.sent_one();
        let Message::UpdateRequest { request_nonce, .. } = message else { panic!("{message:?}") };
        self.request_nonce = request_nonce;
    }

    /// Lets it happen and tells what was sent.
    fn happen(&mut self, event: Event) -> String {
        self.node.out.clear();
        match event {
            Event::Open => {
                let _ = self.node.open(self.now, 2);
            }
            Event::Payload => self.payload(),
            Event::Timer => self.timer(),
            Event::LastTimer => self.last_timer(),
            Event::ParameterProblem => {
                // In states that never sent an I1 the quote is of one that nobody sent.
                let stray = Message::I1 { initiator_tag: tag(1), initiator_nonce: 1, options: Options::NONE };
                let outward = between(locator(1, 1, 1), locator(2, 1, 1));
                let quote = self.i1.clone().unwrap_or_else(|| emit_packet(outward, 64, &stray).unwrap());
                let Node { endpoint, out, .. } = &mut self.node;
                endpoint.parameter_problem(self.now, &quote, out);
            }
            _ => {
                let (addresses, message) = self.message(event);
                self.node.receive(self.now, addresses, &message);
            }
        }
        let sent: Vec<&str> = self.node.sent().iter().map(|(_, message)| name(message)).collect();
        if sent.is_empty() { "-".to_owned() } else { sent.join("+") }
    }

    fn payload(&mut self) {
        let Node { endpoint, out, .. } = &mut self.node;
        match self.local_tag.and_then(|tag| endpoint.find_by_local_tag(tag)).map(|context| context.id) {
            Some(id) => endpoint.payload_received(self.now, id, out),
            None => {
                let pair = pair(locator(1, 1, 1), locator(2, 1, 1));
                endpoint.payload_without_context(self.now, lost_tag(), pair, out)
            }
        };
    }

    /// The next timer of the state. In ESTABLISHED the update is acknowledged first, so that only idleness is left.
    fn timer(&mut self) {
        if self.node.state(self.now, 2) == State::Established {
            self.happen(Event::Ua);
        }
        if self.node.endpoint.deadline().is_some() {
            self.now = self.node.expire_next();
        }
    }

    /// As many timers as it takes to get out of the state, but not further.
    fn last_timer(&mut self) {
        let state = self.node.state(self.now, 2);
        for _ in 0..5 {
            self.timer();
            if self.node.state(self.now, 2) != state {
                return;
            }
        }
        assert_eq!(state, State::Idle);
    }

    fn message(&self, event: Event) -> (Addresses, Message) {
        let receiver_tag = self.local_tag.unwrap_or(lost_tag());
        let bad_pds = Options { pds: Some(ulid(3, 1).0.octets().to_vec()), ..Options::NONE };
        let i1 = |initiator_tag| Message::I1 { initiator_tag, initiator_nonce: 5, options: naming() };
        let i2 = |initiator_tag, (responder_nonce, validator): &(u32, Vec<u8>)| {
            let options = Options { validator: Some(validator.clone()), ulids: naming().ulids, ..announcement() };
            Message::I2 { initiator_tag, initiator_nonce: 6, responder_nonce: *responder_nonce, options }
        };
        let r1 = |initiator_nonce| {
            let options = Options { validator: Some(vec![1, 2, 3]), ..Options::NONE };
            Message::R1 { initiator_nonce, responder_nonce: 9, options }
        };
        let r2 = |initiator_nonce, options| Message::R2 { responder_tag: peer_tag(), initiator_nonce, options };
        let r1bis = |packet_tag| {
            let options = Options { validator: Some(vec![1, 2, 3]), ..Options::NONE };
            Message::R1bis { packet_tag, responder_nonce: 9, options }
        };
        let ur = |options| Message::UpdateRequest { receiver_tag, request_nonce: 3, options };
        let ua = Message::UpdateAck { receiver_tag, request_nonce: self.request_nonce, options: Options::NONE };
        let keepalive = Message::Keepalive { receiver_tag, options: Options::NONE };
        match event {
            Event::I1 => (inward(), i1(peer_tag())),
            Event::I1NewTag => (inward(), i1(new_peer_tag())),
            Event::I1Foreign => (foreign(), i1(peer_tag())),
            Event::R1 => (inward(), r1(self.nonce)),
            Event::R1WrongNonce => (inward(), r1(self.nonce ^ 1)),
            Event::I2 => (inward(), i2(peer_tag(), &self.i2[0])),
            Event::I2NewTag => (inward(), i2(new_peer_tag(), &self.i2[1])),
            Event::I2Foreign => (foreign(), i2(peer_tag(), &self.i2_foreign)),
            Event::I2BadValidator => (inward(), i2(peer_tag(), &self.i2[1])),
            Event::R2 => (inward(), r2(self.nonce, announcement())),
            Event::R2WrongNonce => (inward(), r2(self.nonce ^ 1, announcement())),
            Event::R2BadPds => (inward(), r2(self.nonce, bad_pds)),
            Event::R1bis => (inward(), r1bis(peer_tag())),
            Event::R1bisWrongTag => (inward(), r1bis(new_peer_tag())),
            Event::I2bis => (inward(), self.i2bis_message(&self.i2bis)),
            Event::I2bisForeign => (foreign(), self.i2bis_message(&self.i2bis_foreign)),
            Event::Ur => (inward(), ur(new_list())),
            Event::UrForeign => (foreign(), ur(Options::NONE)),
            Event::UrBadPds => (inward(), ur(bad_pds)),
            Event::Ua => (inward(), ua),
            Event::UaForeign => (foreign(), ua),
            Event::Keepalive => (inward(), keepalive),
            Event::KeepaliveForeign => (foreign(), keepalive),
            Event::Probe => (inward(), probe(receiver_tag)),
            Event::ProbeForeign => (foreign(), probe(receiver_tag)),
            Event::Error => (inward(), self.error(receiver_tag)),
            Event::Open | Event::Payload | Event::Timer | Event::LastTimer | Event::ParameterProblem => {
                panic!("{event:?} is not a message")
            }
        }
    }

    fn i2bis_message(&self, (responder_nonce, validator): &(u32, Vec<u8>)) -> Message {
        let options = Options { validator: Some(validator.clone()), ulids: naming().ulids, ..announcement() };
        Message::I2bis {
            initiator_tag: new_peer_tag(),
            initiator_nonce: 6,
            responder_nonce: *responder_nonce,
            packet_tag: lost_tag(),
            options,
        }
    }

    /// Quotes an Update Request from us.
    fn error(&self, receiver_tag: ContextTag) -> Message {
        let quoted = Message::UpdateRequest { receiver_tag, request_nonce: 0, options: Options::NONE };
        let packet = emit_packet(inward().swapped(), 64, &quoted).unwrap();
        Message::Error(ErrorMessage::for_packet(ErrorCode::Generation, 50, &packet))
    }
}

fn new_list() -> Options {
    let peer = host(2, 1);
    let list = LocatorList { generation: 101, entries: vec![peer.locators[0]], methods_offset: 0 };
    Options { locators: Some(list), pds: peer.pds, ..Options::NONE }
}

fn probe(receiver_tag: ContextTag) -> Message {
    let sent = vec![ProbeReport { source: locator(2, 1, 1), target: locator(1, 1, 1), nonce: 1, data: 0 }];
    let (state, received, options) = (ProbeState::Exploring, Vec::new(), Options::NONE);
    Message::Probe(Probe { receiver_tag, state, sent, received, options })
}

/// Nonce and validator that the node, without a context, gives for this message.
fn validator(node: &mut Node, now: Instant, addresses: Addresses, message: &Message) -> (u32, Vec<u8>) {
    node.receive(now, addresses, message);
    let (_, mut answer) = node.sent_one();
    let validator = options_of(&mut answer).validator.clone().unwrap();
    match answer {
        Message::R1 { responder_nonce, .. } | Message::R1bis { responder_nonce, .. } => (responder_nonce, validator),
        other => panic!("{other:?}"),
    }
}
