//! Messages that wait for a signature, with real keys and addresses.

use std::sync::LazyLock;

use dataplane::wire::shim6::ErrorCode;

use super::*;
use crate::identity::{HostPrefixes, Sec, SigningKey, make_host};

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(1024).unwrap());

/// A host whose locators only its signature proves.
fn signed(site: u16, number: u16) -> LocalHost {
    let high = |address: Ipv6Addr| crate::identity::prefix_of(address);
    let prefixes = HostPrefixes { ulid: high(ulid(site, 1).0), locators: Vec::new() };
    let mut rng = StdRng::seed_from_u64(number.into());
    let identity = make_host(&prefixes, Sec::ZERO, Some(&KEY), &mut rng).unwrap();
    let locators = [1, 2].map(|provider| locator(site, provider, number));
    LocalHost {
        ulid: identity.ulid,
        locators: locators.map(|locator| (locator, VerificationMethod::Cga)).to_vec(),
        pds: Some(identity.pds),
        generation: 7,
        signature: Some(KEY.sign_locators(7, &locators).unwrap()),
        preferences: None,
    }
}

fn endpoint(site: u16, host: LocalHost, deferred: bool) -> Node {
    let proof = Box::new(ProofMemory::new(IdentityProof));
    let tags = TagSpace::new(site as u8);
    let mut endpoint = Endpoint::new(Config::default(), [site as u8; 32], tags, Box::new(|_| 0), proof);
    endpoint.set_host(host).unwrap();
    if deferred {
        endpoint.defer_proofs();
    }
    Node { site, endpoint, rng: StdRng::seed_from_u64(site.into()), out: Vec::new() }
}

/// A box that has signatures verified, and one that asks it for a context.
struct Scene {
    answers: Node,
    asks: Node,
    hosts: [LocalHost; 2],
}

impl Scene {
    fn new() -> Scene {
        let hosts = [signed(1, 1), signed(2, 1)];
        Scene { answers: endpoint(1, hosts[0].clone(), true), asks: endpoint(2, hosts[1].clone(), false), hosts }
    }

    fn ulids(&self) -> UlidPair {
        UlidPair { local: self.hosts[1].ulid, peer: self.hosts[0].ulid }
    }

    /// The I2 of a new context.
    fn i2(&mut self, fork: u32) -> (Addresses, Message) {
        let pairs = vec![pair(self.hosts[1].locators[0].0, self.hosts[0].locators[0].0)];
        let open = Open { ulids: self.ulids(), fork, pairs };
        self.asks.out.clear();
        self.asks.endpoint.open(at(1), &mut self.asks.rng, open, &mut self.asks.out).unwrap();
        let (addresses, i1) = message(&self.asks.out);
        assert_eq!(receive(&mut self.answers, at(1), addresses, &i1), Verdict::Answered(Answer::R1));
        let (addresses, r1) = message(&self.answers.out);
        assert_eq!(receive(&mut self.asks, at(1), addresses, &r1), Verdict::Accepted);
        message(&self.asks.out)
    }

    fn prove(&mut self, now: Instant, job: &ProofJob) -> Vec<Verdict> {
        let Node { endpoint, rng, out, .. } = &mut self.answers;
        out.clear();
        endpoint.proved(now, rng, job.run(), out)
    }
}

fn message(out: &[Output]) -> (Addresses, Message) {
    let sent = out.iter().find_map(|output| match output {
        Output::Send { addresses, message, .. } => Some((*addresses, message.clone())),
        _ => None,
    });
    sent.expect("a message")
}

fn receive(node: &mut Node, now: Instant, addresses: Addresses, message: &Message) -> Verdict {
    node.out.clear();
    let packet = Incoming { addresses, message: Ok(message), ipv6_packet: &[0; 64], shim6_offset: 40 };
    node.endpoint.receive(now, &mut node.rng, packet, &mut node.out)
}

#[test]
fn what_finds_no_room_to_wait_draws_no_error_while_debugging() {
    // R5533-091: an answer to each of a flood is more flood.
    let mut scene = Scene::new();
    let config = Config { debug_errors: true, ..Config::default() };
    let proof = Box::new(ProofMemory::new(IdentityProof));
    scene.answers.endpoint = Endpoint::new(config, [1; 32], TagSpace::new(1), Box::new(|_| 0), proof);
    scene.answers.endpoint.set_host(scene.hosts[0].clone()).unwrap();
    scene.answers.endpoint.defer_proofs();
    let (addresses, i2) = scene.i2(0);
    let mut verdicts = (0..70).map(|_| {
        let verdict = receive(&mut scene.answers, at(1), addresses, &i2);
        (verdict, scene.answers.out.len())
    });
    assert!(verdicts.by_ref().take(64).all(|it| it == (Verdict::Waiting, 0)));
    assert!(verdicts.all(|it| it == (Verdict::Dropped(DropReason::TooManyWaiting), 0)));
}

fn forge(message: &Message) -> Message {
    let mut forged = message.clone();
    let Message::I2 { options, .. } = &mut forged else { panic!("an I2") };
    options.signature.as_mut().unwrap()[5] ^= 1;
    forged
}

#[test]
fn a_context_comes_into_being_when_the_signature_has_been_verified_and_once_is_enough() {
    // R5533-179, R5533-180: nothing is believed before.
    let mut scene = Scene::new();
    let (addresses, i2) = scene.i2(0);
    assert_eq!(receive(&mut scene.answers, at(1), addresses, &i2), Verdict::Waiting);
    assert_eq!((scene.answers.endpoint.len(), scene.answers.out.len()), (0, 0));
    let job = scene.answers.endpoint.next_proof().unwrap();
    // A copy waits with it and costs no second signature.
    assert_eq!(receive(&mut scene.answers, at(1), addresses, &i2), Verdict::Waiting);
    assert!(scene.answers.endpoint.next_proof().is_none());
    assert_eq!(scene.prove(at(1), &job), [Verdict::Accepted; 2]);
    assert_eq!((scene.answers.endpoint.len(), scene.answers.endpoint.waiting()), (1, 0));
    let (addresses, r2) = message(&scene.answers.out);
    // The peer verifies our own signature where it meets it.
    assert_eq!(receive(&mut scene.asks, at(1), addresses, &r2), Verdict::Accepted);
    // The same list again, for another context.
    let (addresses, i2) = scene.i2(7);
    assert_eq!(receive(&mut scene.answers, at(2), addresses, &i2), Verdict::Accepted);
    assert!(scene.answers.endpoint.next_proof().is_none());
    // An answer nobody waits for any more changes nothing.
    assert_eq!(scene.prove(at(2), &job), []);
    scene.answers.endpoint.selfcheck();
}

#[test]
fn a_forged_signature_is_refused_and_nothing_is_remembered_of_it() {
    let mut scene = Scene::new();
    let (addresses, i2) = scene.i2(0);
    let forged = forge(&i2);
    for _ in 0..2 {
        // What is false is found to be false each time, and does not count against what is true.
        assert_eq!(receive(&mut scene.answers, at(1), addresses, &forged), Verdict::Waiting);
        let job = scene.answers.endpoint.next_proof().unwrap();
        let refused = Verdict::Answered(Answer::Error(ErrorCode::VerificationMethod));
        assert_eq!(scene.prove(at(1), &job), [refused]);
        assert_eq!(scene.answers.endpoint.len(), 0);
    }
    // Both wait at once: each gets its own answer, whichever comes first.
    assert_eq!(receive(&mut scene.answers, at(1), addresses, &forged), Verdict::Waiting);
    assert_eq!(receive(&mut scene.answers, at(1), addresses, &i2), Verdict::Waiting);
    let [first, second] = [(); 2].map(|()| scene.answers.endpoint.next_proof().unwrap());
    assert_eq!(scene.prove(at(1), &second), [Verdict::Accepted]);
    assert!(matches!(scene.prove(at(1), &first)[..], [Verdict::Answered(Answer::Error(_))]));
    assert_eq!(receive(&mut scene.answers, at(1), addresses, &forged), Verdict::Waiting);
    assert_eq!(receive(&mut scene.answers, at(1), addresses, &i2), Verdict::Accepted, "still known");
}

#[test]
fn who_fails_to_verify_leaves_nothing_waiting_and_accuses_nobody() {
    let mut scene = Scene::new();
    let (addresses, i2) = scene.i2(0);
    for _ in 0..2 {
        assert_eq!(receive(&mut scene.answers, at(1), addresses, &i2), Verdict::Waiting);
    }
    let job = scene.answers.endpoint.next_proof().unwrap();
    let Node { endpoint, rng, out, .. } = &mut scene.answers;
    out.clear();
    let failed = Verdict::Dropped(DropReason::ProofFailed);
    assert_eq!(endpoint.proved(at(1), rng, job.give_up(), out), [failed; 2]);
    assert_eq!((endpoint.waiting(), endpoint.len(), out.len()), (0, 0, 0));
    // The peer sends it again, and has another chance.
    assert_eq!(receive(&mut scene.answers, at(2), addresses, &i2), Verdict::Waiting);
    let job = scene.answers.endpoint.next_proof().unwrap();
    assert_eq!(scene.prove(at(2), &job), [Verdict::Accepted]);
}

#[test]
fn what_is_wrong_without_a_look_at_the_signature_costs_none() {
    let mut scene = Scene::new();
    let (addresses, i2) = scene.i2(0);
    let with = |change: &dyn Fn(&mut Options)| {
        let mut changed = i2.clone();
        let Message::I2 { options, .. } = &mut changed else { panic!("an I2") };
        change(options);
        changed
    };
    let multicast = Locator("ff02::1".parse().unwrap());
    let wrong = [
        with(&|options| options.signature = None),
        with(&|options| options.locators.as_mut().unwrap().entries[1].0 = multicast),
        with(&|options| options.locators.as_mut().unwrap().entries[1].1 = VerificationMethod::Hba),
    ];
    for wrong in &wrong {
        let refused = Verdict::Answered(Answer::Error(ErrorCode::VerificationMethod));
        assert_eq!(receive(&mut scene.answers, at(1), addresses, wrong), refused);
    }
    let other = with(&|options| options.pds.as_mut().unwrap()[3] ^= 1);
    assert_eq!(receive(&mut scene.answers, at(1), addresses, &other), Verdict::Dropped(DropReason::BadPds));
    assert!(scene.answers.endpoint.next_proof().is_none());
}

#[test]
fn all_else_is_looked_at_again_when_the_proof_is_there() {
    let mut scene = Scene::new();
    let (addresses, i2) = scene.i2(0);
    assert_eq!(receive(&mut scene.answers, at(1), addresses, &i2), Verdict::Waiting);
    let job = scene.answers.endpoint.next_proof().unwrap();
    // R5533-176: the validator is as old as it is.
    assert_eq!(scene.prove(at(60), &job), [Verdict::Dropped(DropReason::StaleNonce)]);
    let mut scene = Scene::new();
    let (addresses, i2) = scene.i2(0);
    assert_eq!(receive(&mut scene.answers, at(1), addresses, &i2), Verdict::Waiting);
    let job = scene.answers.endpoint.next_proof().unwrap();
    let (ulid, mut out) = (scene.hosts[0].ulid, Vec::new());
    scene.answers.endpoint.remove_host(at(1), ulid, None, &mut out);
    assert_eq!(scene.prove(at(1), &job), [Verdict::Dropped(DropReason::UnknownHost)]);
    assert_eq!(scene.answers.endpoint.len(), 0);
}
