//! The memory of sessions against a map anyone can believe, and what is forgotten when there is no room.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::wire::Ulid;

const IDLE: u64 = 100_000;

/// The slow twin: no buckets, no bound.
#[derive(Default)]
struct Slow(HashMap<u64, (u8, bool, u64)>);

impl Slow {
    fn provider(&self, hash: u64, now: u64) -> Option<u8> {
        let (provider, _, last) = self.0.get(&hash)?;
        (now / TICK_MS - last / TICK_MS <= IDLE / TICK_MS).then_some(*provider)
    }

    fn note(&mut self, hash: u64, now: u64, side: Side, provider: u8, opens: bool) {
        let inside = side == Side::Inside;
        let kept = match (self.provider(hash, now), self.0.get(&hash)) {
            (Some(known), Some(&(_, answered, last))) => {
                let quiet = now / TICK_MS - last / TICK_MS > QUIET_MS / TICK_MS;
                let moves = inside || !answered || opens && quiet;
                (if moves { provider } else { known }, answered || inside, now)
            }
            _ => (provider, inside, now),
        };
        self.0.insert(hash, kept);
    }
}

fn sighting(hash: u64, now: u64) -> Sighting {
    Sighting { hash, now, idle_ms: IDLE }
}

fn flows() -> Flows {
    Flows::new(0, Hasher::new(std::array::from_fn(|at| (at * 29 + 3) as u8)))
}

/// Keys that fall into one bucket.
fn crowded(key: u64) -> u64 {
    key << 32 | 5
}

proptest! {
    #[test]
    fn the_memory_answers_as_the_slow_one(
        steps in prop::collection::vec((0u16..24, any::<bool>(), 0u8..3, any::<bool>(), 0u64..30_000), 1..200),
    ) {
        let (mut fast, mut slow, mut now) = (flows(), Slow::default(), 0);
        let key = |port| Session { protocol: 6, source: port, target: 443 };
        for (port, inside, provider, opens, wait) in steps {
            now += wait;
            let hash = fast.session(77, key(port));
            let side = if inside { Side::Inside } else { Side::Outside };
            fast.note(&sighting(hash, now), side, provider, opens);
            slow.note(hash, now, side, provider, opens);
            for port in 0..24 {
                let hash = fast.session(77, key(port));
                prop_assert_eq!(fast.provider(&sighting(hash, now)), slow.provider(hash, now));
            }
        }
    }

    /// More sessions than places: what is answered was once said of that very session.
    #[test]
    fn a_crowded_memory_forgets_but_does_not_mistake(
        steps in prop::collection::vec((0u64..12, any::<bool>(), 0u8..3, 0u64..3_000), 1..200),
    ) {
        let (mut flows, mut said, mut now) = (flows(), HashMap::<u64, Vec<u8>>::new(), 0);
        for (key, inside, provider, wait) in steps {
            now += wait;
            let side = if inside { Side::Inside } else { Side::Outside };
            let kept = flows.note(&sighting(crowded(key), now), side, provider, false);
            said.entry(key).or_default().push(provider);
            for key in 0..12 {
                if let Some(provider) = flows.provider(&sighting(crowded(key), now)) {
                    prop_assert!(said.get(&key).is_some_and(|said| said.contains(&provider)));
                }
            }
            prop_assert!(flows.len() <= WAYS);
            prop_assert!(kept || flows.len() == WAYS, "nothing is forgotten while there is room");
        }
    }
}

#[test]
fn strangers_take_the_places_of_strangers_only() {
    let mut flows = flows();
    let note = |flows: &mut Flows, key, now, side| flows.note(&sighting(crowded(key), now), side, key as u8, false);
    // One running, one asked, two strangers.
    note(&mut flows, 0, 0, Side::Outside);
    note(&mut flows, 0, 0, Side::Inside);
    note(&mut flows, 1, 0, Side::Inside);
    note(&mut flows, 2, 100, Side::Outside);
    note(&mut flows, 3, 200, Side::Outside);
    for stranger in 10..200 {
        assert!(!note(&mut flows, stranger, 1000, Side::Outside), "somebody had to go");
    }
    let known = |flows: &Flows, key| flows.provider(&sighting(crowded(key), 1000)).is_some();
    assert!(known(&flows, 0) && known(&flows, 1) && !known(&flows, 2) && !known(&flows, 3));
    // Hosts take places in the end, those of running sessions last.
    for host in 300..400 {
        note(&mut flows, host, 2000, Side::Inside);
    }
    assert!(known(&flows, 0) && !known(&flows, 1));
    // Once all are running, strangers are not remembered at all.
    for key in 0..4 {
        note(&mut flows, key, 3000, Side::Inside);
        note(&mut flows, key, 3000, Side::Outside);
    }
    assert!(!note(&mut flows, 500, 3001, Side::Outside));
    assert_eq!(flows.provider(&sighting(crowded(500), 3001)), None);
    // The silent make room for anybody.
    assert!(note(&mut flows, 500, 3001 + IDLE + TICK_MS, Side::Outside));
}

#[test]
fn a_running_session_is_not_moved_by_a_forged_packet() {
    let mut flows = flows();
    flows.note(&sighting(9, 0), Side::Inside, 0, false);
    flows.note(&sighting(9, 10), Side::Outside, 0, false);
    flows.note(&sighting(9, 20), Side::Outside, 1, true);
    assert_eq!(flows.provider(&sighting(9, 20)), Some(0));
    // After a silence the same ports may begin anew over another provider.
    flows.note(&sighting(9, 20 + 11_000), Side::Outside, 1, false);
    assert_eq!(flows.provider(&sighting(9, 11_020)), Some(0), "not without asking for it");
    flows.note(&sighting(9, 11_020 + 11_000), Side::Outside, 1, true);
    assert_eq!(flows.provider(&sighting(9, 22_020)), Some(1));
}

// ---- what a pair has exchanged ----

struct Gauge {
    flows: Flows,
    thresholds: Thresholds,
    now: u64,
}

impl Gauge {
    fn new(thresholds: Thresholds) -> Gauge {
        Gauge { flows: flows(), thresholds, now: 0 }
    }

    /// Counts a packet; whether control is told.
    fn count(&mut self, pair: u64, side: Side, octets: usize) -> bool {
        let address = Ipv6Addr::from_bits(pair.into());
        let ulids = UlidPair { local: Ulid(address), peer: Ulid(address) };
        let found = Qualified { pair: ulids, presented: Locator(address), provider: 1 };
        self.flows.count(pair, side, octets, found, &self.thresholds, (self.now, IDLE));
        match self.flows.next_qualified() {
            None => false,
            Some(told) => {
                assert_eq!(told, found);
                assert_eq!(self.flows.next_qualified(), None, "once");
                true
            }
        }
    }

    fn exchange(&mut self, octets: usize) -> bool {
        let out = self.count(1, Side::Inside, octets);
        self.count(1, Side::Outside, octets) || out
    }
}

const NEVER: Thresholds = Thresholds { packets: None, octets: None, age_ms: None, again_ms: 5_000 };

#[test]
fn each_threshold_is_enough_and_none_is_never() {
    let mut never = Gauge::new(NEVER);
    assert!((0..1000).all(|_| !never.exchange(1500)));
    let mut packets = Gauge::new(Thresholds { packets: Some(7), ..NEVER });
    assert_eq!((0..5).map(|_| packets.exchange(1)).collect::<Vec<_>>(), [false, false, false, true, false]);
    let mut octets = Gauge::new(Thresholds { octets: Some(10_000), ..NEVER });
    assert_eq!((0..5).map(|_| octets.exchange(1300)).collect::<Vec<_>>(), [false, false, false, true, false]);
    let mut age = Gauge::new(Thresholds { age_ms: Some(20_000), ..NEVER });
    let mut told = Vec::new();
    for second in 0..25 {
        age.now = second * 1000;
        if age.exchange(1) {
            told.push(second);
        }
    }
    assert!(matches!(told[..], [20 | 21]), "{told:?}");
}

#[test]
fn control_is_told_again_while_it_goes_on_and_not_about_strangers() {
    let mut gauge = Gauge::new(Thresholds { packets: Some(2), ..NEVER });
    // Nobody inside has answered: an address anyone can forge.
    assert!((0..100).all(|_| !gauge.count(1, Side::Outside, 1000)));
    assert!(gauge.count(1, Side::Inside, 1));
    assert!(!gauge.exchange(1));
    gauge.now = 5_100;
    assert!(gauge.exchange(1));
    assert!(!gauge.exchange(1));
    // A long silence: what was before does not count.
    gauge.now += IDLE + 100;
    assert!(!gauge.count(1, Side::Inside, 1));
    assert!(gauge.count(1, Side::Outside, 1));
}

#[test]
fn pairs_are_told_apart_and_strangers_do_not_push_them_out() {
    let mut gauge = Gauge::new(Thresholds { packets: Some(4), ..NEVER });
    let pair = |n: u64| n << 20 | 3;
    gauge.count(pair(1), Side::Inside, 1);
    gauge.count(pair(1), Side::Outside, 1);
    for stranger in 2..100 {
        assert!(!gauge.count(pair(stranger), Side::Outside, 1));
    }
    assert!(!gauge.count(pair(1), Side::Inside, 1), "the third");
    assert!(gauge.count(pair(1), Side::Inside, 1), "the fourth");
    assert_eq!(gauge.flows.provider_of_pair(pair(1), 0, IDLE), Some(1));
    assert_eq!(gauge.flows.provider_of_pair(pair(2), 0, IDLE), None);
}
