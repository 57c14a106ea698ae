//! Bounds and rates of a worker: what strangers, hosts and links may cost, in memory and in the control core's time.
//!
//! Control is one thread, so whoever can make it work can take it away from others. Each source has its share; each kind
//! of work has its total; and the host stack, on which neighbour discovery and so every path depends, has its total for
//! each port, so that a flood on one link does not make the box lose its routers on another.

use crate::bucket::TokenBucket;
use crate::context::{Hasher, LabelMode};
use crate::link::Punt;
use crate::snapshot::PortId;
use crate::wire::UlidPair;

/// Bounds and rates of one worker.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Contexts of this worker.
    pub contexts: u32,
    /// Copies of other workers' contexts, by which their packets need not be handed over; none if it is 0, and nothing is
    /// lent either.
    pub guests: u32,
    /// Pairs that may have forked contexts, if there are as many contexts.
    pub forked_pairs: u32,
    /// Pairs that may wait for a context.
    pub hold_pairs: usize,
    /// Packets that may wait for each; at most a burst.
    pub hold_depth: usize,
    /// How long they may wait.
    pub hold_ms: u64,
    /// Contexts in doubt whose last TCP segment is kept.
    pub replays: usize,
    /// Whether control is told what the TCP of such contexts shows.
    pub tcp_hints: bool,
    /// Translated sessions whose provider is remembered, about.
    pub nat_sessions: usize,
    /// ICMPv6 errors sent per second.
    pub icmp_per_second: u32,
    /// Packets per second for control: Shim6 messages, ICMPv6 errors, unknown tags, the host stack; each kind apart.
    pub punts_per_second: u32,
    /// The same for one source /64.
    pub punts_per_source_second: u32,
    /// Questions of hosts (UDP port 53 of an own address on a site port) per second; none if it is 0, and they are like
    /// everything else for the host stack.
    pub questions_per_second: u32,
    /// The same for one host.
    pub questions_per_host_second: u32,
    /// Packets per second for the operating system, by the interface it shares a port by; each port apart, and half of it from one
    /// source /64.
    pub system_per_second: u32,
    /// New pairs one host may have looked up per second, and packets per second for one unknown next hop.
    pub pairs_per_host_second: u32,
    /// Whether payload is only accepted over locators of its context (RFC 5533 §16.2, R5533-328).
    pub strict_locators: bool,
    /// Whether flow labels may stand for payload headers, and which packets leave so.
    pub flow_labels: LabelMode,
    /// Whether payload of contexts that agreed on it may come in UDP.
    pub udp: bool,
    /// Whether contexts may have standbys, for when their path is lost.
    pub standbys: bool,
    /// Time between two reports of activity.
    pub report_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            contexts: 1 << 16,
            guests: 0,
            forked_pairs: 1 << 14,
            hold_pairs: 1024,
            hold_depth: 16,
            hold_ms: 8_000,
            replays: 1024,
            tcp_hints: true,
            nat_sessions: 1 << 16,
            icmp_per_second: 1000,
            punts_per_second: 50_000,
            punts_per_source_second: 10_000,
            questions_per_second: 0,
            questions_per_host_second: 0,
            system_per_second: 10_000,
            pairs_per_host_second: 400,
            strict_locators: false,
            flow_labels: LabelMode::Off,
            udp: false,
            standbys: true,
            report_ms: 50,
        }
    }
}

/// Buckets; sources whose hashes meet share one, which makes the limit stricter, never looser.
const BUCKETS: usize = 4096;
/// Places for pairs that were refused lately, two in each.
const REFUSED: usize = 1 << 13;

/// What the box may hear from servers for each question of a host: addresses and the identifier, of an alias as well.
const REPLIES_PER_QUESTION: u32 = 4;

/// A rate per source in bounded memory.
struct SourceLimiter {
    buckets: Box<[TokenBucket]>,
    hasher: Hasher,
}

/// All limits of one worker. Times are in milliseconds.
pub(crate) struct Guard {
    sources: SourceLimiter,
    hosts: SourceLimiter,
    /// Pairs that found no room to wait, by a part of their hash: who comes again has a session that goes on.
    refused: Box<[[u32; 2]]>,
    /// What hosts ask has a share of its own: many ask much, and nothing else of the host stack is to wait for it. None if
    /// nobody would answer.
    questions: Option<(SourceLimiter, TokenBucket)>,
    /// What servers say to the box's own questions: they are few and named, so that each is not held to a stranger's share.
    /// Who borrows the address of one of them takes room from answers, and from nothing else.
    replies: Option<TokenBucket>,
    stack: Vec<TokenBucket>,
    /// What is for the operating system has shares of its own, so that neither keeps the other from its packets.
    system: Vec<TokenBucket>,
    system_sources: SourceLimiter,
    shim6: TokenBucket,
    icmp_errors: TokenBucket,
    unknown_tags: TokenBucket,
    unresolved: TokenBucket,
    answers: TokenBucket,
}

impl Guard {
    /// For `ports` ports. The key of `hasher` keeps strangers from choosing whom they share a bucket with.
    pub(crate) fn new(limits: &Limits, ports: usize, hasher: Hasher) -> Guard {
        let total = bucket(limits.punts_per_second);
        Guard {
            sources: SourceLimiter::new(limits.punts_per_source_second, hasher),
            hosts: SourceLimiter::new(limits.pairs_per_host_second, hasher),
            refused: vec![[0; 2]; REFUSED].into_boxed_slice(),
            questions: (limits.questions_per_second > 0).then(|| {
                let askers = SourceLimiter::new(limits.questions_per_host_second, hasher);
                (askers, bucket(limits.questions_per_second))
            }),
            replies: (limits.questions_per_second > 0)
                .then(|| bucket(limits.questions_per_second.saturating_mul(REPLIES_PER_QUESTION))),
            stack: vec![total; ports],
            system: vec![bucket(limits.system_per_second); ports],
            system_sources: SourceLimiter::new((limits.system_per_second / 2).max(1), hasher),
            shim6: total,
            icmp_errors: total,
            unknown_tags: total,
            unresolved: total,
            answers: bucket(limits.icmp_per_second),
        }
    }

    /// Whether control shall have a packet with this source address. The source is asked first, so that one that floods
    /// does not use up what is there for all.
    pub(crate) fn punt(&mut self, why: Punt, port: PortId, source: Option<u128>, now: u64) -> bool {
        let total = match why {
            Punt::HostStack => match self.stack.get_mut(usize::from(port.0)) {
                Some(total) => total,
                None => return false,
            },
            Punt::System => {
                let Some(total) = self.system.get_mut(usize::from(port.0)) else { return false };
                return self.system_sources.take(who(source, port), now) && total.take(now);
            }
            Punt::Shim6 => &mut self.shim6,
            Punt::IcmpError => &mut self.icmp_errors,
        };
        self.sources.take(who(source, port), now) && total.take(now)
    }

    /// Whether control shall have a host's question; none if questions are nothing special.
    pub(crate) fn question(&mut self, host: u128, now: u64) -> Option<bool> {
        let (askers, total) = self.questions.as_mut()?;
        Some(askers.take(host as u64 ^ (host >> 64) as u64, now) && total.take(now))
    }

    /// Whether control shall have what a server answered; none if the box asks none.
    pub(crate) fn reply(&mut self, now: u64) -> Option<bool> {
        Some(self.replies.as_mut()?.take(now))
    }

    /// Whether control shall hear of a tag nobody knows.
    pub(crate) fn unknown_tag(&mut self, port: PortId, source: Option<u128>, now: u64) -> bool {
        self.sources.take(who(source, port), now) && self.unknown_tags.take(now)
    }

    /// Whether control shall have a packet whose next hop is not known.
    pub(crate) fn unresolved(&mut self, next_hop: u128, now: u64) -> bool {
        self.hosts.take(next_hop as u64 ^ (next_hop >> 64) as u64, now) && self.unresolved.take(now)
    }

    /// Whether control shall hear that a host wants to talk to someone new. Sessions that go on come first: a pair that was not
    /// refused before leaves them a part of what the host has, and has to wait where the room for waiting is `short`.
    pub(crate) fn opening(&mut self, pair: UlidPair, short: bool, now: u64) -> bool {
        let hash = self.hosts.hasher.pair(&pair);
        let (place, print) = ((hash >> 20) as usize % REFUSED, (hash as u32) | 1);
        let bits = pair.local.0.to_bits();
        let host = bits as u64 ^ (bits >> 64) as u64;
        let Some(refused) = self.refused.get_mut(place) else { return false };
        let again = refused.contains(&print);
        let allowed = (again || !short) && self.hosts.take_leaving(if again { 0 } else { 1 }, host, now);
        // The latest stands first, so two that meet in a place do not forget each other.
        let [first, second] = *refused;
        *refused = match (allowed, again) {
            (true, true) if first == print => [second, 0],
            (true, true) => [first, 0],
            (true, false) => [first, second],
            (false, _) => [print, if first == print { second } else { first }],
        };
        allowed
    }

    /// Whether one more ICMPv6 error may be sent (RFC 4443 §2.4 (f)).
    pub(crate) fn answer(&mut self, now: u64) -> bool {
        self.answers.take(now)
    }
}

/// A rate with bursts of an eighth of a second, but never so small that a handful of packets is too many.
fn bucket(per_second: u32) -> TokenBucket {
    TokenBucket::new(per_second, (per_second / 8).max(8))
}

/// A source is a /64, as sites are; but on a link everyone's is fe80::/64, so there it is the station.
fn who(source: Option<u128>, port: PortId) -> u64 {
    let source = source.unwrap_or_default();
    let prefix = (source >> 64) as u64;
    let link_local = prefix >> 54 == 0xfe80 >> 6;
    let who = if link_local { source as u64 } else { prefix };
    who ^ u64::from(port.0) << 56
}

impl SourceLimiter {
    fn new(per_second: u32, hasher: Hasher) -> SourceLimiter {
        let bucket = TokenBucket::new(per_second, (per_second / 4).max(8));
        SourceLimiter { buckets: vec![bucket; BUCKETS].into_boxed_slice(), hasher }
    }

    fn take(&mut self, who: u64, now: u64) -> bool {
        self.take_leaving(0, who, now)
    }

    fn take_leaving(&mut self, quarters: u64, who: u64, now: u64) -> bool {
        let hash = self.hasher.number(who);
        let place = (hash >> 20) as usize % BUCKETS;
        self.buckets.get_mut(place).is_some_and(|bucket| bucket.take_leaving(quarters, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let limits = Limits { punts_per_second: 800, punts_per_source_second: 40, ..Limits::default() };
        Guard::new(&limits, 2, Hasher::new([5; 32]))
    }

    #[test]
    fn one_source_does_not_use_up_the_share_of_another() {
        let mut guard = guard();
        let mut from =
            |site: u128| guard.punt(Punt::Shim6, PortId(1), Some(0x2001_0db8_u128 << 96 | site << 64 | 1), 0);
        assert_eq!((0..1000).filter(|_| from(1)).count(), 10);
        let others = (2..50).filter(|site| from(*site)).count();
        assert!(others >= 46, "{others} of 48");
    }

    #[test]
    fn stations_on_a_link_are_told_apart_and_so_are_links() {
        let mut guard = guard();
        let mut from =
            |port, station: u128| guard.punt(Punt::HostStack, PortId(port), Some(0xfe80_u128 << 112 | station), 0);
        assert_eq!((0..1000).filter(|_| from(0, 7)).count(), 10);
        assert!(from(0, 8), "another station on the link");
        assert!(from(1, 7), "the same number on another link");
        // Many stations use up what there is for the link, and for it alone.
        assert_eq!((1000..2000).filter(|station| from(0, *station)).count(), 100 - 11);
        assert!(from(1, 9));
    }

    /// Pairs of a host; those it talks to once begin at a thousand.
    fn pair(peer: u128) -> UlidPair {
        let ulid = |bits: u128| crate::wire::Ulid((0xfc00_u128 << 112 | bits).into());
        UlidPair { local: ulid(1), peer: ulid(1 << 64 | peer) }
    }

    #[test]
    fn sessions_of_a_host_that_go_on_come_before_what_it_sends_once() {
        let mut guard = Guard::new(&Limits::default(), 1, Hasher::new([5; 32]));
        let (mut let_in, mut lone) = (std::collections::BTreeMap::new(), 0);
        // Twenty packets a millisecond to somebody new each, and two hundred sessions that send twenty times a second.
        for ms in 0..1000_u64 {
            for number in 0..20 {
                lone += u32::from(guard.opening(pair(1000 + u128::from(ms) * 20 + number), false, ms));
            }
            for live in (0..200_u64).filter(|live| (live + ms).is_multiple_of(50)) {
                if !let_in.contains_key(&live) && guard.opening(pair(live.into()), false, ms) {
                    let_in.insert(live, ms);
                }
            }
        }
        // A host has four hundred a second and may save up a hundred.
        let last = let_in.values().max().copied();
        assert!(let_in.len() == 200 && last < Some(700), "{} of them, the last after {last:?} ms", let_in.len());
        assert!((200..=300).contains(&lone), "{lone}");
    }

    #[test]
    fn where_room_is_short_who_comes_again_has_it() {
        let mut guard = Guard::new(&Limits::default(), 1, Hasher::new([5; 32]));
        assert!(guard.opening(pair(1), false, 0));
        assert_eq!([0, 50].map(|ms| guard.opening(pair(2), true, ms)), [false, true]);
        assert!(!guard.opening(pair(2), true, 60), "let in, so it begins again");
    }

    #[test]
    fn questions_of_a_host_have_a_share_of_their_own() {
        let limits = Limits { questions_per_second: 8_000, questions_per_host_second: 400, ..Limits::default() };
        let mut guard = Guard::new(&limits, 2, Hasher::new([5; 32]));
        let host = |number: u128| 0xfc00_000a_u128 << 96 | number;
        assert_eq!((0..5_000).filter(|_| guard.question(host(1), 0) == Some(true)).count(), 100);
        assert_eq!(guard.question(host(2), 0), Some(true), "another host of the same subnet");
        let all: usize =
            (3..100).map(|number| (0..100).filter(|_| guard.question(host(number), 0) == Some(true)).count()).sum();
        assert_eq!(all, 1_000 - 101);
        assert!(guard.punt(Punt::HostStack, PortId(0), Some(host(1)), 0), "neighbour discovery goes on");
        // What servers say is not held to a stranger's share, and has its bound.
        assert_eq!((0..50_000).filter(|_| guard.reply(0) == Some(true)).count(), 4_000);
        let mut without = Guard::new(&Limits::default(), 2, Hasher::new([5; 32]));
        assert_eq!((without.question(host(1), 0), without.reply(0)), (None, None));
    }

    #[test]
    fn the_system_and_the_control_core_do_not_take_each_others_room() {
        let limits = Limits { system_per_second: 800, punts_per_second: 800, ..Limits::default() };
        let mut guard = Guard::new(&limits, 2, Hasher::new([5; 32]));
        let neighbour = Some(0xfe80_u128 << 112 | 7);
        let mut take = |why, port, source| (0..5_000).filter(|_| guard.punt(why, PortId(port), source, 0)).count();
        // One who floods leaves half to the others, on each port.
        assert_eq!(take(Punt::System, 0, Some(0x2001_0db8_u128 << 96)), 100);
        assert_eq!(take(Punt::System, 1, Some(0x2001_0db8_u128 << 96)), 100);
        let many = |guard: &mut Guard, why| {
            (0..5_000_u128)
                .filter(|site| guard.punt(why, PortId(0), Some(0x2001_u128 << 112 | site << 64), 125))
                .count()
        };
        assert_eq!(many(&mut guard, Punt::System), 100, "all of an eighth of a second");
        assert!(!guard.punt(Punt::System, PortId(0), neighbour, 125));
        assert!(
            guard.punt(Punt::HostStack, PortId(0), neighbour, 125)
                && guard.punt(Punt::Shim6, PortId(0), neighbour, 125)
        );
        assert_eq!(many(&mut guard, Punt::HostStack), 99);
        assert!(guard.punt(Punt::System, PortId(1), neighbour, 125), "another port");
    }

    #[test]
    fn small_rates_are_rates() {
        let mut guard = Guard::new(&Limits { punts_per_second: 1, ..Limits::default() }, 1, Hasher::new([1; 32]));
        assert!(guard.punt(Punt::HostStack, PortId(0), None, 0));
    }
}
