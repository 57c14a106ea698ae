//! Tells an engine again what stands on a tape, and holds what it decides against what was decided then.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dataplane::snapshot::PortId;
use dataplane::wire::Locator;

use super::digest;
use super::form::{Damage, Pieces};
use super::input::{Beginning, CarriedFound, CarriedKept, Input, Record, Signature, Source, Texts};
use super::inputs::{Core, Tape};
use crate::config::uplink::{Found, resolve};
use crate::config::{Hosts, Site};
use crate::engine::{Effect, Kept, SetupError};
use crate::identity::SigningKey;
use crate::policy::Policy;
use crate::time::Instant;

/// Configurations that stand on a tape by a number.
pub type Numbered<'a> = &'a dyn Fn(u64) -> Option<(Site, Hosts)>;

/// Why a tape cannot be replayed, or not from here on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// It does not begin with a beginning.
    #[error("the recording has no beginning")]
    NoBeginning,
    /// Its configuration is not taken: this program is too different from the one that recorded.
    #[error("this program does not take the recorded configuration: {0}")]
    Configuration(String),
    /// Nor does the engine take it.
    #[error("this program does not take the recorded configuration: {0}")]
    Setup(#[from] SetupError),
    /// Records are not in an order that anybody writes.
    #[error("what is recorded before octet {0} is in no order")]
    Order(usize),
}

/// How a tape ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// For this reason.
    Said(String),
    /// Nobody said why: the box stopped, or was stopped, without a word.
    Abrupt,
    /// In the middle of a piece, at this octet.
    CutOff(usize),
}

/// An engine that is told again what another was told.
pub struct Replay<'a> {
    pieces: Pieces<'a>,
    /// What is left of the piece.
    records: &'a [u8],
    numbered: Numbered<'a>,
    keys: BTreeMap<Vec<u8>, Arc<SigningKey>>,
    beginning: Beginning,
    core: Core,
    base: (Site, Hosts),
    now: Instant,
    number: u64,
    /// An input that was read instead of an outcome.
    next: Option<(i64, Input<'a>)>,
    ending: Option<Ending>,
}

/// One input, and what came of it.
#[derive(Debug)]
pub struct Step<'a> {
    /// Which, from 1 on.
    pub number: u64,
    /// When.
    pub now: Instant,
    /// What the engine was told.
    pub input: Input<'a>,
    /// What it wanted done.
    pub effects: Vec<Effect>,
    /// What is not as it was when it was recorded.
    pub difference: Option<Difference>,
}

/// Where a replay is not what was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Digests of the answer and the effects as they were recorded.
    pub recorded: Vec<u32>,
    /// And now.
    pub replayed: Vec<u32>,
}

impl Difference {
    /// The place of the first that differs; 0 is the answer, 1 the first effect.
    pub fn at(&self) -> usize {
        let same = self.recorded.iter().zip(&self.replayed).take_while(|(one, other)| one == other);
        same.count()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |digests: &[u32]| digests.get(self.at()).map_or("nothing more", |digest| digest::kind(*digest));
        let (then, now) = (name(&self.recorded), name(&self.replayed));
        match self.at() {
            0 if then == now => write!(out, "it answers something else")?,
            at if then == now => write!(out, "effect {at}, {then}, has other contents")?,
            at => write!(out, "effect {at} was {then} and is {now}")?,
        }
        let effects = |digests: &[u32]| digests.len().saturating_sub(1);
        write!(out, "; {} effects recorded, {} now", effects(&self.recorded), effects(&self.replayed))
    }
}

impl<'a> Replay<'a> {
    /// Begins as the recorded engine did. `numbered` knows configurations without files; others have none.
    ///
    /// # Errors
    /// When the tape is none, or this program does not take what it begins with.
    pub fn open(octets: &'a [u8], numbered: Numbered<'a>) -> Result<Replay<'a>, ReplayError> {
        let keys = keys(octets);
        let mut pieces = Pieces::new(octets)?;
        let mut records = pieces.next().transpose()?.ok_or(ReplayError::NoBeginning)?;
        let Record::Begin(beginning) = read(&mut records, pieces.at())? else { return Err(ReplayError::NoBeginning) };
        let base = configuration(&beginning.source, None, &keys, numbered)?;
        let (site, hosts) = resolve(&base.0, &base.1, &founds(&beginning.found));
        let core = Core::begin(&beginning, &site, &hosts, None)?;
        let (now, beginning) = (Instant(Duration::from_nanos(beginning.now)), *beginning);
        let (number, next, ending) = (0, None, None);
        Ok(Replay { pieces, records, numbered, keys, beginning, core, base, now, number, next, ending })
    }

    /// What the recorded engine began with.
    pub fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    /// The engine as it is now.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Its configuration, without what was found out of providers.
    pub fn configuration(&self) -> (&Site, &Hosts) {
        (&self.base.0, &self.base.1)
    }

    /// The time of the last input.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How the tape ended, once it has.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Tells the engine the next thing. None at the end.
    ///
    /// # Errors
    /// When the tape is damaged from here on, or this program does not take a configuration.
    pub fn step(&mut self) -> Result<Option<Step<'a>>, ReplayError> {
        let (after, input) = match self.next.take() {
            Some(next) => next,
            None => loop {
                match self.record()? {
                    None => return Ok(None),
                    Some(Record::Input(after, input)) => break (after, input),
                    // Those that the engine began with.
                    Some(Record::Signed(_)) if self.number == 0 => {}
                    Some(_) => return Err(ReplayError::Order(self.pieces.at())),
                }
            },
        };
        let nanos = (self.now.0.as_nanos() as i64).wrapping_add(after);
        self.now = Instant(Duration::from_nanos(u64::try_from(nanos).unwrap_or_default()));
        self.number += 1;
        let recorded = self.outcome()?;
        let (mut effects, mut heard) = (Vec::new(), Heard::default());
        self.take(&input, &mut heard, &mut effects)?;
        let replayed = heard.0.unwrap_or_default();
        let difference = recorded.filter(|recorded| *recorded != replayed);
        let difference = difference.map(|recorded| Difference { recorded, replayed });
        Ok(Some(Step { number: self.number, now: self.now, input, effects, difference }))
    }

    /// What came of an input. None where the tape ends before that was known.
    fn outcome(&mut self) -> Result<Option<Vec<u32>>, ReplayError> {
        loop {
            match self.record()? {
                Some(Record::Signed(_)) => {}
                Some(Record::Outcome(digests)) => return Ok(Some(digests)),
                Some(Record::Input(after, input)) => {
                    self.next = Some((after, input));
                    return Ok(None);
                }
                None => return Ok(None),
                Some(Record::Begin(_) | Record::End(_)) => return Err(ReplayError::Order(self.pieces.at())),
            }
        }
    }

    /// The next record. None at the end.
    fn record(&mut self) -> Result<Option<Record<'a>>, ReplayError> {
        while self.records.is_empty() {
            if self.ending.is_some() {
                return Ok(None);
            }
            match self.pieces.next().transpose()? {
                Some(records) => self.records = records,
                None => {
                    let abrupt = self.pieces.is_whole();
                    self.ending = Some(if abrupt { Ending::Abrupt } else { Ending::CutOff(self.pieces.at()) });
                }
            }
        }
        match read(&mut self.records, self.pieces.at())? {
            Record::End(reason) => {
                (self.ending, self.records) = (Some(Ending::Said(reason)), &[]);
                Ok(None)
            }
            record => Ok(Some(record)),
        }
    }

    fn take(&mut self, input: &Input<'_>, heard: &mut Heard, effects: &mut Vec<Effect>) -> Result<(), ReplayError> {
        let (now, base) = (self.now, &self.base);
        let resolved = |found: &[CarriedFound]| resolve(&base.0, &base.1, &founds(found));
        let mut inputs = self.core.inputs().with(heard);
        match input {
            Input::Notice(said) => inputs.notice(now, said.notice(), effects),
            Input::Expire => inputs.expire(now, effects),
            Input::WallClock(unix) => inputs.wall_clock(now, *unix),
            Input::LinkState(port, up) => inputs.link_state(now, PortId(*port), *up, effects),
            Input::Start => inputs.start(now, effects),
            Input::Farewell => inputs.farewell(now, effects),
            Input::DeferProofs => inputs.defer_proofs(now),
            Input::NextProof => _ = inputs.next_proof(now),
            Input::Proved(finding) => inputs.proved(now, *finding, effects),
            Input::Reload(source, found) => {
                let base = configuration(source, Some(base), &self.keys, self.numbered)?;
                let found = founds(found);
                let (site, hosts) = resolve(&base.0, &base.1, &found);
                let again = || Source::Before;
                if inputs.reload(now, (&again, &found), (&site, &hosts), effects).is_ok() {
                    self.base = base;
                }
            }
            Input::SetPolicy(text, found) => {
                let (site, hosts) = resolved(found);
                let parse = |text: &String| Policy::parse(&site.node.policy_file, text, &site, &hosts);
                let policy = text.as_ref().map(parse).transpose();
                let policy = policy.map_err(|problems| ReplayError::Configuration(problems.to_string()))?;
                inputs.set_policy(now, (None, &[]), policy, effects);
            }
            Input::Steer(name, steering) => _ = inputs.steer(now, name, *steering),
            Input::FlushNames => _ = inputs.flush_names(now),
            Input::UplinksHaveNews => _ = inputs.uplinks_have_news(now),
            Input::BeginUplinks(begin) => {
                let named = (begin.duid.clone(), begin.epoch);
                inputs.begin_uplinks(now, named, (&begin.kept, &founds(&begin.carried)), effects);
            }
            Input::NextDelegation => _ = inputs.next_delegation(now),
            Input::BeginLeases(kept, found) => {
                let (site, hosts) = resolved(found);
                let CarriedKept { duid, stored, reserved, epoch } = (**kept).clone();
                inputs.begin_leases(now, &[], (&site, &hosts), Kept { duid, stored, reserved, epoch });
            }
            Input::NextCommit => _ = inputs.next_commit(now),
            Input::Committed(done) => inputs.committed(now, done, effects),
            Input::StoreFailed(reason) => inputs.store_failed(now, reason.clone(), effects),
            Input::NextIdentity => _ = inputs.next_identity(now),
            Input::IdentityMade(made) => inputs.identity_made(now, (**made).clone()),
            Input::BeginBequest => inputs.begin_bequest(now),
            Input::Bequeath(most) => {
                inputs.bequeath(now, usize::try_from(*most).unwrap_or(usize::MAX), &mut Vec::new());
            }
            Input::EndBequest => inputs.end_bequest(now),
            Input::Inherit(items) => inputs.inherit(now, items.clone(), effects),
            Input::EndInheritance => inputs.end_inheritance(now, effects),
            Input::SystemAddresses(port, addresses) => {
                inputs.system_addresses(now, PortId(*port), addresses, effects);
            }
            Input::FromSystem(port, frame) => inputs.from_system(now, PortId(*port), frame.clone(), effects),
            Input::SystemLost(frames) => inputs.system_lost(now, *frames),
            Input::NextReleased => _ = inputs.next_released(now),
            Input::LearnInnerRouter(router) => inputs.learn_inner_router(now, *router, effects),
        }
        Ok(())
    }
}

fn founds(carried: &[CarriedFound]) -> Vec<Found> {
    carried.iter().map(CarriedFound::found).collect()
}

/// The next of some records.
fn read<'a>(records: &mut &'a [u8], at: usize) -> Result<Record<'a>, Damage> {
    let wrong = |error: postcard::Error| Damage::Record(at, error.to_string());
    let (record, rest) = postcard::take_from_bytes(records).map_err(wrong)?;
    *records = rest;
    Ok(record)
}

/// What each key of the site has signed, as far as the tape can be read.
fn keys(octets: &[u8]) -> BTreeMap<Vec<u8>, Arc<SigningKey>> {
    let mut signed: BTreeMap<Vec<u8>, Vec<Signature>> = BTreeMap::new();
    let Ok(mut pieces) = Pieces::new(octets) else { return BTreeMap::new() };
    while let Some(Ok(mut records)) = pieces.next() {
        while let (false, Ok(record)) = (records.is_empty(), read(&mut records, 0)) {
            match record {
                Record::Signed(made) => signed.entry(made.key.clone()).or_default().push(*made),
                Record::Begin(begin) => note_key(&begin.source, &mut signed),
                Record::Input(_, Input::Reload(source, _)) => note_key(&source, &mut signed),
                Record::Input(..) | Record::Outcome(_) | Record::End(_) => {}
            }
        }
    }
    let key = |(public, made): (Vec<u8>, Vec<Signature>)| {
        let of = |it: &'_ Signature| it.locators.iter().map(|it: &Ipv6Addr| Locator(*it)).collect::<Vec<_>>();
        let made = made.iter().map(|it| (it.generation, of(it), it.octets.as_slice()));
        let key = SigningKey::recorded(public.clone(), made).ok()?;
        Some((public, Arc::new(key)))
    };
    signed.into_iter().filter_map(key).collect()
}

/// A key may be there and have signed nothing.
fn note_key(source: &Source, signed: &mut BTreeMap<Vec<u8>, Vec<Signature>>) {
    if let Source::Texts(texts) = source
        && let Some(key) = &texts.key
    {
        signed.entry(key.clone()).or_default();
    }
}

fn configuration(
    source: &Source,
    before: Option<&(Site, Hosts)>,
    keys: &BTreeMap<Vec<u8>, Arc<SigningKey>>,
    numbered: Numbered<'_>,
) -> Result<(Site, Hosts), ReplayError> {
    let refused = |text: String| ReplayError::Configuration(text);
    match source {
        Source::Before => before.cloned().ok_or_else(|| refused("there is none".into())),
        Source::Numbered(number) => numbered(*number).ok_or_else(|| refused(format!("nobody knows number {number}"))),
        Source::Texts(texts) => {
            let Texts { file, site, hosts, key } = &**texts;
            let problems = |problems: crate::config::Problems| refused(problems.to_string());
            let (site, _) = Site::parse(Path::new(file), site).map_err(problems)?;
            let key = key.as_ref().and_then(|key| keys.get(key)).cloned();
            let mut listed = match hosts {
                Some(text) => Hosts::parse_with(&site.node.hosts_file, text, &site, key.clone()).map_err(problems)?,
                None => Hosts::default(),
            };
            // Those made later need it too.
            listed.set_key(key);
            Ok((site, listed))
        }
    }
}

/// What came of an input, to be compared.
#[derive(Default)]
struct Heard(Option<Vec<u32>>);

impl Tape for Heard {
    fn begin(&mut self, _: &Beginning) {}

    fn input(&mut self, _: Instant, _: &Input<'_>) {}

    fn signed(&mut self, _: Signature) {}

    fn outcome(&mut self, digests: Vec<u32>) {
        self.0 = Some(digests);
    }
}
