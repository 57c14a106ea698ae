//! What a worker remembers of translated traffic: by which provider a session goes, and how much a host and a peer have
//! exchanged.
//!
//! Nothing here is needed for a packet to be right (RCM-012): without memory a session goes by the provider new sessions
//! go by, which is where most are anyway. The memory keeps sessions that began elsewhere where they are (RCM-009).
//!
//! Both tables are fixed arrays of small buckets, named by a keyed hash of 64 bits; the hash stands for the key, which is
//! not kept: that two of a million keys ever share one is a matter of one in tens of millions. A bucket of sessions is
//! one cache line, one of pairs is two. When a bucket is full the least established goes first, then the longest silent;
//! what only strangers have said never takes the place of anything else.

use super::hash::Hasher;
use crate::natv6::Session;
use crate::processor::prefetch;
use crate::snapshot::Thresholds;
use crate::wire::{Locator, UlidPair};

const WAYS: usize = 4;
/// Milliseconds of a tick; 32 bits of them last eight years.
const TICK_MS: u64 = 64;
/// Silence after which a connection may be asked for anew over another provider. One that runs is not moved by who
/// can forge a packet.
const QUIET_MS: u64 = 10_000;
/// Providers that can be remembered; others are not, and their sessions go by the order of preference.
const PROVIDERS_MAX: u8 = 64;

/// Something came from inside.
const INSIDE: u8 = 1;
/// Something came from outside.
const OUTSIDE: u8 = 2;
const BOTH: u8 = INSIDE | OUTSIDE;

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A host of the site.
    Inside,
    /// A peer.
    Outside,
}

/// Traffic that deserves a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qualified {
    /// The address the host really has, and the peer's.
    pub pair: UlidPair,
    /// The address the peer knows the host by.
    pub presented: Locator,
    /// The provider that delegated it.
    pub provider: u8,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Record {
    hash: u64,
    /// Tick of the last packet; 0 in a free place.
    last: u32,
    provider: u8,
    sides: u8,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Sessions([Record; WAYS]);

const _: () = assert!(size_of::<Sessions>() == 64);

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Meter {
    /// The hash, but for its last octet, which the bucket stands for: there it is the provider and the sides seen.
    mark: u64,
    octets: u64,
    packets: u32,
    /// Tick of the first packet.
    since: u32,
    /// Tick of the last packet; 0 in a free place.
    last: u32,
    /// Tick before which control is not told again.
    quiet_until: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(128))]
struct Meters([Meter; WAYS]);

const _: () = assert!(size_of::<Meters>() == 128);
/// Buckets there are at least, so that the octet of the hash that is not kept names the bucket.
const BUCKETS_MIN: usize = 256;

/// The memory of one worker.
pub struct Flows {
    hasher: Hasher,
    sessions: Box<[Sessions]>,
    meters: Box<[Meters]>,
    /// To be told to control; bounded by what it was made with.
    qualified: Vec<Qualified>,
}

/// A session and when it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// [`Flows::session`] of it.
    pub hash: u64,
    /// Milliseconds.
    pub now: u64,
    /// Milliseconds of silence after which a session is forgotten.
    pub idle_ms: u64,
}

/// Traffic reported at once by a worker to itself; more is told with a later packet.
const QUALIFIED_MAX: usize = 64;

impl Flows {
    /// For about `sessions` sessions, and a quarter as many pairs. Allocates everything it will ever need.
    pub fn new(sessions: usize, hasher: Hasher) -> Flows {
        let buckets = |entries: usize| (entries / WAYS).next_power_of_two().max(BUCKETS_MIN);
        Flows {
            hasher,
            sessions: vec![Sessions::default(); buckets(sessions)].into_boxed_slice(),
            meters: vec![Meters::default(); buckets(sessions / 4)].into_boxed_slice(),
            qualified: Vec::with_capacity(QUALIFIED_MAX),
        }
    }

    /// The hash of a session of the pair whose hash is `pair`, seen from the host's side.
    #[inline]
    pub fn session(&self, pair: u64, session: Session) -> u64 {
        self.hasher.session(pair, session)
    }

    /// Asks for the lines of a pair.
    #[inline]
    pub fn prefetch_pair(&self, pair: u64) {
        let meters = &self.meters[pair as usize & (self.meters.len() - 1)];
        prefetch(meters);
        prefetch(&meters.0[WAYS / 2]);
    }

    /// The provider a session goes by, if it is remembered.
    #[inline]
    pub fn provider(&self, sighting: &Sighting) -> Option<u8> {
        let tick = tick(sighting.now);
        let bucket = &self.sessions[sighting.hash as usize & (self.sessions.len() - 1)];
        let record = bucket.0.iter().find(|record| record.is(sighting.hash, tick, ticks(sighting.idle_ms)))?;
        Some(record.provider)
    }

    /// Notes a packet of a session that goes by `provider`. `opens` says that it asks for a connection. A packet from
    /// inside goes where the caller decided; one from outside is remembered unless the session goes by another provider
    /// already. False if another session was forgotten for it, or if there was no place.
    #[inline]
    pub fn note(&mut self, sighting: &Sighting, side: Side, provider: u8, opens: bool) -> bool {
        let (tick, idle) = (tick(sighting.now), ticks(sighting.idle_ms));
        let place = sighting.hash as usize & (self.sessions.len() - 1);
        let bucket = &mut self.sessions[place];
        if let Some(record) = bucket.0.iter_mut().find(|record| record.is(sighting.hash, tick, idle)) {
            record.note(side, provider, opens, tick);
            return true;
        }
        let fresh = Record { hash: sighting.hash, last: tick, provider, sides: bit(side) };
        let Some(victim) = bucket.0.iter_mut().min_by_key(|record| record.rank(tick, idle)) else { return false };
        let (rank, ..) = victim.rank(tick, idle);
        if side == Side::Outside && rank > Rank::Stranger {
            return false;
        }
        *victim = fresh;
        rank == Rank::Free
    }

    /// The provider the last packet of a pair went by, if it is remembered.
    pub fn provider_of_pair(&self, pair: u64, now: u64, idle_ms: u64) -> Option<u8> {
        let tick = tick(now);
        let bucket = &self.meters[pair as usize & (self.meters.len() - 1)];
        let meter = bucket.0.iter().find(|meter| meter.is(pair, tick, ticks(idle_ms)))?;
        Some(meter.provider())
    }

    /// Counts a packet of `octets` of the pair whose hash is `pair`, which went without a context.
    pub fn count(
        &mut self,
        pair: u64,
        side: Side,
        octets: usize,
        found: Qualified,
        thresholds: &Thresholds,
        (now, idle_ms): (u64, u64),
    ) {
        if found.provider >= PROVIDERS_MAX {
            return;
        }
        let (tick, idle) = (tick(now), ticks(idle_ms));
        let bucket = &mut self.meters[pair as usize & (self.meters.len() - 1)];
        let meter = match bucket.0.iter().position(|meter| meter.is(pair, tick, idle)) {
            Some(known) => &mut bucket.0[known],
            None => {
                let Some(victim) = bucket.0.iter_mut().min_by_key(|meter| meter.rank(tick, idle)) else { return };
                if side == Side::Outside && victim.rank(tick, idle).0 > Rank::Stranger {
                    return;
                }
                *victim = Meter { mark: pair & !0xff, since: tick, ..Meter::default() };
                victim
            }
        };
        meter.add(side, found.provider, octets, tick);
        if meter.qualifies(thresholds, tick) && self.qualified.len() < QUALIFIED_MAX {
            meter.quiet_until = tick.saturating_add(ticks(thresholds.again_ms));
            self.qualified.push(found);
        }
    }

    /// Traffic that deserves a context and was not told yet.
    pub fn next_qualified(&mut self) -> Option<Qualified> {
        self.qualified.pop()
    }

    /// Sessions remembered, whether silent or not; walks the whole table.
    pub fn len(&self) -> usize {
        self.sessions.iter().flat_map(|bucket| &bucket.0).filter(|record| record.last != 0).count()
    }

    /// Whether no session is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is forgotten first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Nothing, or silent for too long.
    Free,
    /// Only heard from outside.
    Stranger,
    /// Only heard from inside.
    Asked,
    /// Heard from both sides.
    Running,
}

impl Rank {
    fn of(sides: u8, last: u32, tick: u32, idle: u32) -> (Rank, u32) {
        let rank = match sides {
            _ if last == 0 || tick.saturating_sub(last) > idle => Rank::Free,
            BOTH => Rank::Running,
            INSIDE => Rank::Asked,
            _ => Rank::Stranger,
        };
        (rank, last)
    }
}

impl Record {
    #[inline]
    fn is(&self, hash: u64, tick: u32, idle: u32) -> bool {
        self.hash == hash && self.last != 0 && tick.saturating_sub(self.last) <= idle
    }

    fn rank(&self, tick: u32, idle: u32) -> (Rank, u32) {
        Rank::of(self.sides, self.last, tick, idle)
    }

    fn note(&mut self, side: Side, provider: u8, opens: bool, tick: u32) {
        let quiet = tick.saturating_sub(self.last) > ticks(QUIET_MS);
        let moves = match side {
            Side::Inside => true,
            Side::Outside => self.sides & INSIDE == 0 || opens && quiet,
        };
        if moves {
            self.provider = provider;
        }
        self.sides |= bit(side);
        self.last = tick;
    }
}

impl Meter {
    const PROVIDER: u64 = PROVIDERS_MAX as u64 - 1;
    const SIDES_SHIFT: u32 = 6;

    fn is(&self, pair: u64, tick: u32, idle: u32) -> bool {
        (self.mark ^ pair) >> 8 == 0 && self.last != 0 && tick.saturating_sub(self.last) <= idle
    }

    fn rank(&self, tick: u32, idle: u32) -> (Rank, u32) {
        Rank::of(self.sides(), self.last, tick, idle)
    }

    fn provider(&self) -> u8 {
        (self.mark & Meter::PROVIDER) as u8
    }

    fn sides(&self) -> u8 {
        (self.mark as u8) >> Meter::SIDES_SHIFT
    }

    fn add(&mut self, side: Side, provider: u8, octets: usize, tick: u32) {
        let sides = u64::from(self.sides() | bit(side));
        // A provider that only a stranger's packet went by does not replace the host's.
        let provider = if side == Side::Outside && self.sides() & INSIDE != 0 { self.provider() } else { provider };
        self.mark = self.mark & !0xff | sides << Meter::SIDES_SHIFT | u64::from(provider);
        self.packets = self.packets.saturating_add(1);
        self.octets = self.octets.saturating_add(octets as u64);
        self.last = tick;
    }

    /// Whether control should hear of it now. A peer that no host has written to might be forged, and control would write
    /// to a stranger on another's behalf.
    fn qualifies(&self, thresholds: &Thresholds, tick: u32) -> bool {
        let age = u64::from(tick - self.since) * TICK_MS;
        let reached = thresholds.packets.is_some_and(|packets| self.packets >= packets)
            || thresholds.octets.is_some_and(|octets| self.octets >= octets)
            || thresholds.age_ms.is_some_and(|wanted| age >= wanted);
        reached && self.sides() & INSIDE != 0 && tick >= self.quiet_until
    }
}

fn bit(side: Side) -> u8 {
    match side {
        Side::Inside => INSIDE,
        Side::Outside => OUTSIDE,
    }
}

/// Never zero, which marks a free place.
fn tick(now: u64) -> u32 {
    u32::try_from(now / TICK_MS + 1).unwrap_or(u32::MAX)
}

fn ticks(ms: u64) -> u32 {
    u32::try_from(ms / TICK_MS).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;
