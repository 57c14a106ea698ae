//! The one way into an engine: what it is told is written down on the way, if anybody records.
//!
//! Whoever runs an engine has it in a [`Core`], which lets others look at it and tells it things by [`Inputs`] alone. So who
//! gives the engine a new method that changes it, and calls that where boxes are run, hears from the compiler that it has to
//! go through here; and who gives [`Inputs`] a new method needs an [`Input`] for it, which the replay then has to know.

use std::fmt::Debug;
use std::net::Ipv6Addr;
use std::ops::Deref;

use dataplane::link::Notice;
use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::Mac;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::digest;
use super::input::{Beginning, CarriedFound, CarriedKept, Heard, Input, Signature, Source, UplinksBegin};
use crate::config::uplink::Found;
use crate::config::{Hosts, Site};
use crate::dhcp::Duid;
use crate::dhcp::client::Stored as Delegation;
use crate::engine::{
    Changes, Commit, Effect, Engine, IdentityJob, Item, Kept, MadeIdentity, PortSetup, SetupError, SteerRefused,
};
use crate::manage::api::Steering;
use crate::policy::{Policy, PolicyFile};
use crate::publish::{Publisher, Record};
use crate::shim6::{Finding, ProofJob};
use crate::time::Instant;

/// Where inputs are written down.
pub trait Tape: Send {
    /// What the engine begins with.
    fn begin(&mut self, beginning: &Beginning);
    /// The engine is told something now.
    fn input(&mut self, now: Instant, input: &Input<'_>);
    /// It signed something meanwhile.
    fn signed(&mut self, signature: Signature);
    /// It has answered and wants things done: the digests of both.
    fn outcome(&mut self, digests: Vec<u32>);
    /// A good moment to let go of what was written.
    fn rest(&mut self) {}
    /// Why it takes nothing more, if that is so.
    fn is_over(&self) -> Option<String> {
        None
    }
}

/// An engine with its random numbers, and what it is recorded on.
pub struct Core {
    engine: Engine,
    rng: StdRng,
    tape: Option<Box<dyn Tape>>,
}

impl Deref for Core {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Core {
    /// An engine as this beginning says. `site` and `hosts` are its configuration with what was found out of providers.
    ///
    /// # Errors
    /// What the engine does not take.
    pub fn begin(
        beginning: &Beginning,
        site: &Site,
        hosts: &Hosts,
        mut tape: Option<Box<dyn Tape>>,
    ) -> Result<Core, SetupError> {
        let mut rng = StdRng::from_seed(beginning.seed);
        let setups: Vec<PortSetup> =
            beginning.ports.iter().map(|(mac, mtu)| PortSetup { mac: Mac(*mac), mtu: *mtu }).collect();
        let mut engine = Engine::with_keys(site, hosts, &setups, beginning.keys.clone(), &mut rng)?;
        if let Some(tape) = &mut tape {
            tape.begin(beginning);
            engine.note_signatures();
            engine.next_signatures().into_iter().for_each(|made| tape.signed(made.into()));
        }
        Ok(Core { engine, rng, tape })
    }

    /// Tells the engine something.
    pub fn inputs(&mut self) -> Inputs<'_> {
        let tape: Option<&mut dyn Tape> = match &mut self.tape {
            Some(tape) => Some(tape.as_mut()),
            None => None,
        };
        Inputs::new(&mut self.engine, &mut self.rng, tape)
    }

    /// Whether it is recorded.
    pub fn is_recorded(&self) -> bool {
        self.tape.is_some()
    }

    /// Lets what was recorded go on its way. Why nothing more is recorded, if that has ended.
    pub fn rest(&mut self) -> Option<String> {
        let tape = self.tape.as_mut()?;
        tape.rest();
        tape.is_over()
    }

    /// Records no longer. Whether it did.
    pub fn stop_recording(&mut self) -> bool {
        self.engine.forget_signatures();
        self.tape.take().is_some()
    }
}

/// The engine's methods that change it. What each does is said there.
pub struct Inputs<'a> {
    engine: &'a mut Engine,
    rng: &'a mut StdRng,
    tape: Option<&'a mut dyn Tape>,
}

impl Deref for Inputs<'_> {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        self.engine
    }
}

impl<'a> Inputs<'a> {
    /// For an engine, what it draws, and where its inputs are written down, if anywhere.
    pub fn new(engine: &'a mut Engine, rng: &'a mut StdRng, tape: Option<&'a mut dyn Tape>) -> Inputs<'a> {
        Inputs { engine, rng, tape }
    }

    /// The same engine with another tape.
    pub(super) fn with(self, tape: &'a mut dyn Tape) -> Inputs<'a> {
        Inputs { tape: Some(tape), ..self }
    }

    /// The engine itself, for what no box does that is recorded: `driver::recording` says which those are. What is done here is on
    /// no tape, and a replay would not know of it.
    pub fn unrecorded(&mut self) -> (&mut Engine, &mut StdRng) {
        (self.engine, self.rng)
    }
}

impl Inputs<'_> {
    /// Writes an input down, lets the engine take it, and writes down what came of it.
    fn tell<A: Debug>(
        &mut self,
        now: Instant,
        input: impl FnOnce() -> Input<'static>,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Engine, &mut dyn Rng, &mut Vec<Effect>) -> A,
    ) -> A {
        let Some(tape) = &mut self.tape else { return act(self.engine, self.rng, effects) };
        tape.input(now, &input());
        let first = effects.len();
        let answer = act(self.engine, self.rng, effects);
        self.told(&answer, &effects[first..]);
        answer
    }

    /// The same for a question whose answer is mostly that there is nothing, which then has changed nothing.
    fn ask<A: Debug>(
        &mut self,
        now: Instant,
        input: Input<'static>,
        act: impl FnOnce(&mut Engine) -> A,
        is_something: impl FnOnce(&A) -> bool,
    ) -> A {
        let answer = act(self.engine);
        if let Some(tape) = &mut self.tape
            && is_something(&answer)
        {
            tape.input(now, &input);
            self.told(&answer, &[]);
        }
        answer
    }

    fn told(&mut self, answer: &dyn Debug, effects: &[Effect]) {
        let Some(tape) = &mut self.tape else { return };
        self.engine.next_signatures().into_iter().for_each(|made| tape.signed(made.into()));
        let digests = std::iter::once(digest::of_answer(answer)).chain(effects.iter().map(digest::of_effect));
        tape.outcome(digests.collect());
    }

    /// [`Engine::notice`].
    pub fn notice(&mut self, now: Instant, notice: Notice<'_>, effects: &mut Vec<Effect>) {
        // Not by `tell`: packets are borrowed, and this is what happens most.
        let Some(tape) = &mut self.tape else { return self.engine.notice(now, self.rng, notice, effects) };
        tape.input(now, &Input::Notice(Heard::from(&notice)));
        let first = effects.len();
        self.engine.notice(now, self.rng, notice, effects);
        self.told(&(), &effects[first..]);
    }

    /// [`Engine::expire`].
    pub fn expire(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.tell(now, || Input::Expire, effects, |engine, rng, effects| engine.expire(now, rng, effects));
    }

    /// [`Engine::wall_clock`].
    pub fn wall_clock(&mut self, now: Instant, unix: u64) {
        self.tell(now, || Input::WallClock(unix), &mut Vec::new(), |engine, _, _| engine.wall_clock(now, unix));
    }

    /// [`Engine::link_state`].
    pub fn link_state(&mut self, now: Instant, port: PortId, up: bool, effects: &mut Vec<Effect>) {
        let input = || Input::LinkState(port.0, up);
        self.tell(now, input, effects, |engine, _, effects| engine.link_state(now, port, up, effects));
    }

    /// [`Engine::start`].
    pub fn start(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.tell(now, || Input::Start, effects, |engine, _, effects| engine.start(now, effects));
    }

    /// [`Engine::farewell`].
    pub fn farewell(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.tell(now, || Input::Farewell, effects, |engine, _, effects| engine.farewell(now, effects));
    }

    /// [`Engine::defer_proofs`].
    pub fn defer_proofs(&mut self, now: Instant) {
        self.tell(now, || Input::DeferProofs, &mut Vec::new(), |engine, _, _| engine.defer_proofs());
    }

    /// [`Engine::next_proof`].
    pub fn next_proof(&mut self, now: Instant) -> Option<ProofJob> {
        self.ask(now, Input::NextProof, Engine::next_proof, Option::is_some)
    }

    /// [`Engine::proved`].
    pub fn proved(&mut self, now: Instant, finding: Finding, effects: &mut Vec<Effect>) {
        let act = |engine: &mut Engine, rng: &mut dyn Rng, effects: &mut _| engine.proved(now, rng, finding, effects);
        self.tell(now, || Input::Proved(finding), effects, act);
    }

    /// [`Engine::reload`], with a configuration from `source`; `site` and `hosts` are that with `found`.
    pub fn reload(
        &mut self,
        now: Instant,
        (source, found): (&dyn Fn() -> Source, &[Found]),
        (site, hosts): (&Site, &Hosts),
        effects: &mut Vec<Effect>,
    ) -> Result<Changes, SetupError> {
        let input = || Input::Reload(source(), CarriedFound::all(found));
        self.tell(now, input, effects, |engine, rng, effects| engine.reload(now, rng, site, hosts, effects))
    }

    /// [`Engine::set_policy`], with a policy that this text says of the configuration last taken over, with `found`.
    pub fn set_policy(
        &mut self,
        now: Instant,
        (text, found): (Option<&str>, &[Found]),
        policy: Option<(Policy, PolicyFile)>,
        effects: &mut Vec<Effect>,
    ) {
        let input = || Input::SetPolicy(text.map(str::to_owned), CarriedFound::all(found));
        self.tell(now, input, effects, |engine, _, effects| engine.set_policy(now, policy, effects));
    }

    /// [`Engine::steer`].
    pub fn steer(&mut self, now: Instant, name: &str, steering: Steering) -> Result<(), SteerRefused> {
        let input = || Input::Steer(name.to_owned(), steering);
        self.tell(now, input, &mut Vec::new(), |engine, _, _| engine.steer(name, steering))
    }

    /// [`Engine::flush_names`].
    pub fn flush_names(&mut self, now: Instant) -> Option<usize> {
        self.tell(now, || Input::FlushNames, &mut Vec::new(), |engine, _, _| engine.flush_names())
    }

    /// [`Engine::uplinks_have_news`].
    pub fn uplinks_have_news(&mut self, now: Instant) -> bool {
        self.ask(now, Input::UplinksHaveNews, Engine::uplinks_have_news, |news| *news)
    }

    /// [`Engine::begin_uplinks`].
    pub fn begin_uplinks(
        &mut self,
        now: Instant,
        (duid, epoch): (Option<Duid>, u64),
        (kept, carried): (&[(String, Delegation)], &[Found]),
        effects: &mut Vec<Effect>,
    ) {
        let named = duid.clone();
        let begin = || UplinksBegin { duid: named, epoch, kept: kept.to_vec(), carried: CarriedFound::all(carried) };
        let input = || Input::BeginUplinks(Box::new(begin()));
        self.tell(now, input, effects, |engine, rng, effects| {
            engine.begin_uplinks(now, rng, (duid, epoch), (kept, carried), effects);
        });
    }

    /// [`Engine::next_delegation`].
    pub fn next_delegation(&mut self, now: Instant) -> Option<(String, Option<Delegation>)> {
        self.ask(now, Input::NextDelegation, Engine::next_delegation, Option::is_some)
    }

    /// [`Engine::begin_leases`]; `site` and `hosts` are the configuration last taken over with `found`.
    pub fn begin_leases(&mut self, now: Instant, found: &[Found], (site, hosts): (&Site, &Hosts), kept: Kept) {
        let Kept { duid, stored, reserved, epoch } = kept.clone();
        let carried = CarriedKept { duid, stored, reserved, epoch };
        let input = || Input::BeginLeases(Box::new(carried), CarriedFound::all(found));
        self.tell(now, input, &mut Vec::new(), |engine, rng, _| engine.begin_leases(rng, site, hosts, kept));
    }

    /// [`Engine::next_commit`].
    pub fn next_commit(&mut self, now: Instant) -> Option<Commit> {
        self.ask(now, Input::NextCommit, Engine::next_commit, Option::is_some)
    }

    /// [`Engine::committed`].
    pub fn committed(&mut self, now: Instant, done: &[(u64, Result<(), String>)], effects: &mut Vec<Effect>) {
        let input = || Input::Committed(done.to_vec());
        self.tell(now, input, effects, |engine, rng, effects| engine.committed(now, rng, done, effects));
    }

    /// [`Engine::store_failed`].
    pub fn store_failed(&mut self, now: Instant, reason: Option<String>, effects: &mut Vec<Effect>) {
        let said = reason.clone();
        self.tell(now, || Input::StoreFailed(said), effects, |engine, _, effects| engine.store_failed(reason, effects));
    }

    /// [`Engine::next_identity`].
    pub fn next_identity(&mut self, now: Instant) -> Option<IdentityJob> {
        self.ask(now, Input::NextIdentity, Engine::next_identity, Option::is_some)
    }

    /// [`Engine::identity_made`].
    pub fn identity_made(&mut self, now: Instant, made: MadeIdentity) {
        let said = made.clone();
        let input = || Input::IdentityMade(Box::new(said));
        self.tell(now, input, &mut Vec::new(), |engine, _, _| engine.identity_made(made));
    }

    /// [`Engine::next_released`].
    pub fn next_released(&mut self, now: Instant) -> Option<Ipv6Addr> {
        self.ask(now, Input::NextReleased, Engine::next_released, Option::is_some)
    }

    /// [`Engine::begin_bequest`].
    pub fn begin_bequest(&mut self, now: Instant) {
        self.tell(now, || Input::BeginBequest, &mut Vec::new(), |engine, _, _| engine.begin_bequest());
    }

    /// [`Engine::bequeath`].
    pub fn bequeath(&mut self, now: Instant, most: usize, items: &mut Vec<Item>) {
        let first = items.len();
        let act = |engine: &mut Engine| {
            engine.bequeath(most, items);
            items.len() - first
        };
        self.ask(now, Input::Bequeath(most as u64), act, |more| *more > 0);
    }

    /// [`Engine::end_bequest`].
    pub fn end_bequest(&mut self, now: Instant) {
        self.tell(now, || Input::EndBequest, &mut Vec::new(), |engine, _, _| engine.end_bequest());
    }

    /// [`Engine::inherit`].
    pub fn inherit(&mut self, now: Instant, items: Vec<Item>, effects: &mut Vec<Effect>) {
        let said = if self.tape.is_some() { items.clone() } else { Vec::new() };
        self.tell(
            now,
            || Input::Inherit(said),
            effects,
            |engine, rng, effects| {
                engine.inherit(now, rng, items, effects);
            },
        );
    }

    /// [`Engine::end_inheritance`].
    pub fn end_inheritance(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let act = |engine: &mut Engine, rng: &mut dyn Rng, effects: &mut _| engine.end_inheritance(now, rng, effects);
        self.tell(now, || Input::EndInheritance, effects, act);
    }
}

/// The operating system, where it shares ports.
impl Inputs<'_> {
    /// [`Engine::system_addresses`].
    pub fn system_addresses(&mut self, now: Instant, port: PortId, addresses: &[Ipv6Addr], effects: &mut Vec<Effect>) {
        let input = || Input::SystemAddresses(port.0, addresses.to_vec());
        self.tell(now, input, effects, |engine, _, effects| engine.system_addresses(port, addresses, effects));
    }

    /// [`Engine::from_system`].
    pub fn from_system(&mut self, now: Instant, port: PortId, frame: Vec<u8>, effects: &mut Vec<Effect>) {
        let said = if self.tape.is_some() { frame.clone() } else { Vec::new() };
        let input = || Input::FromSystem(port.0, said);
        self.tell(now, input, effects, |engine, _, effects| engine.from_system(port, frame, effects));
    }

    /// [`Engine::system_lost`].
    pub fn system_lost(&mut self, now: Instant, frames: u64) {
        if frames > 0 {
            self.tell(now, || Input::SystemLost(frames), &mut Vec::new(), |engine, _, _| engine.system_lost(frames));
        }
    }

    /// [`Engine::learn_inner_router`].
    pub fn learn_inner_router(&mut self, now: Instant, router: Option<Ipv6Addr>, effects: &mut Vec<Effect>) {
        let input = || Input::LearnInnerRouter(router);
        self.tell(now, input, effects, |engine, _, effects| engine.learn_inner_router(now, router, effects));
    }
}

/// Names that are kept elsewhere. What is sent there is signed with a key that must not be on a tape, so a box that does this is
/// not recorded.
impl Inputs<'_> {
    /// A publisher, which draws its port. None if the key or a name cannot be used.
    pub fn publisher(&mut self, make: impl FnOnce(&mut dyn Rng) -> Option<Publisher>) -> Option<Publisher> {
        make(self.rng)
    }

    /// [`Engine::publish_to`].
    pub fn publish_to(&mut self, publisher: Publisher, hosts: &Hosts) {
        self.engine.publish_to(publisher, hosts);
    }

    /// [`Engine::publish_since`].
    pub fn publish_since(&mut self, written: Vec<Record>) {
        self.engine.publish_since(written);
    }

    /// [`Engine::next_published`].
    pub fn next_published(&mut self) -> Option<(Record, bool)> {
        self.engine.next_published()
    }

    /// [`Engine::published_is_kept`].
    pub fn published_is_kept(&mut self, record: Record) {
        self.engine.published_is_kept(record);
    }
}
