//! The machine against RFC 5534: the table of §6, invariants over random events, and two nodes on a lossy wire.

mod hints;
mod limits;
mod liveness;
mod network;
mod order;
mod properties;
mod runs;
mod table;

use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::shim6::{Options, Probe, ProbeReport};
use dataplane::wire::{ContextTag, Locator, LocatorPair};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::time::Instant;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// The `n`-th locator of site `a` or `b`.
fn locator(site: u16, n: u16) -> Locator {
    Locator([0x2001, 0xdb8, site, n, 0, 0, 0, 1].into())
}

fn a(n: u16) -> Locator {
    locator(0xa, n)
}

fn b(n: u16) -> Locator {
    locator(0xb, n)
}

/// Pair of A's `local`-th and B's `peer`-th locator, seen from A.
fn pair(local: u16, peer: u16) -> LocatorPair {
    LocatorPair { local: a(local), peer: b(peer) }
}

/// No jitter, so that times can be compared with tables.
fn exact() -> Config {
    Config { jitter_percent: 0, ..Config::default() }
}

fn locals(locators: &[Locator]) -> Vec<LocalLocator> {
    locators.iter().copied().map(LocalLocator::from).collect()
}

fn peers(locators: &[Locator]) -> Vec<PeerLocator> {
    locators.iter().copied().map(PeerLocator::from).collect()
}

/// A with two locators and one peer with two, and all a test has to hold to drive it.
struct Bench {
    reap: Reap,
    rng: StdRng,
    out: Vec<Output>,
}

impl Bench {
    fn new(config: Config) -> Bench {
        let reap = Reap::new(&Arc::new(config), pair(1, 1), locals(&[a(1), a(2)]), peers(&[b(1), b(2)]));
        Bench { reap, rng: StdRng::seed_from_u64(1), out: Vec::new() }
    }

    /// In Exploring since 15 s, Send Timer having run from 0.
    fn exploring(config: Config) -> Bench {
        let mut bench = Bench::new(config);
        bench.payload_out(at(0));
        bench.expire(at(15_000));
        assert_eq!(bench.reap.state(), State::Exploring);
        bench
    }

    /// In InboundOk since 15.1 s, without a probe of the peer.
    fn inbound_ok(config: Config) -> Bench {
        let mut bench = Bench::exploring(config);
        bench.payload_in(at(15_100));
        assert_eq!(bench.reap.state(), State::InboundOk);
        bench
    }

    fn payload_in(&mut self, now: Instant) -> Vec<Output> {
        self.reap.payload_in(now, &mut self.rng, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn payload_out(&mut self, now: Instant) -> Vec<Output> {
        self.reap.payload_out(now, &mut self.rng, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn expire(&mut self, now: Instant) -> Vec<Output> {
        self.reap.expire(now, &mut self.rng, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn keepalive(&mut self, now: Instant) -> Vec<Output> {
        self.reap.keepalive(now, &mut self.rng, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn suspect(&mut self, now: Instant) -> Vec<Output> {
        self.reap.suspect(now, &mut self.rng, &|_| Status::Unknown, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn hint(&mut self, now: Instant) -> Vec<Output> {
        self.reap.hint(now, &mut self.rng, &|_| Status::Unknown, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn relocate(&mut self, now: Instant, to: LocatorPair) -> Vec<Output> {
        self.reap.relocate(now, &mut self.rng, to, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn set_locators(&mut self, now: Instant, local: &[Locator], peer: &[PeerLocator]) -> Vec<Output> {
        self.reap.set_locators(now, &mut self.rng, locals(local), peer, &mut self.out);
        std::mem::take(&mut self.out)
    }

    /// A probe of the peer's that arrives on the mirror of `ours`.
    fn probe(&mut self, now: Instant, ours: LocatorPair, state: State, received: &[ProbeReport]) -> Vec<Output> {
        let probe = peer_probe(ours, state, now.0.as_millis() as u32, received);
        let taken = self.reap.probe(now, &mut self.rng, ours.peer, ours.local, &probe, &mut self.out);
        assert_eq!(taken, Ok(()));
        std::mem::take(&mut self.out)
    }
}

fn peer_probe(ours: LocatorPair, state: State, nonce: u32, received: &[ProbeReport]) -> Probe {
    let report = ProbeReport { source: ours.peer, target: ours.local, nonce, data: 0 };
    Probe {
        receiver_tag: ContextTag::truncate(1),
        state,
        sent: vec![report],
        received: received.to_vec(),
        options: Options::default(),
    }
}

/// What a probe in `out` says of itself: its pair, its state, its own report.
fn probes(out: &[Output]) -> Vec<(LocatorPair, State, ProbeReport)> {
    let probe = |output: &Output| match output {
        Output::SendProbe { pair, state, sent, .. } => Some((*pair, *state, sent[0])),
        _ => None,
    };
    out.iter().filter_map(probe).collect()
}

fn only_probe(out: &[Output]) -> (LocatorPair, State, ProbeReport) {
    let probes = probes(out);
    assert_eq!(probes.len(), 1, "{out:?}");
    probes[0]
}

/// Received reports of the only probe in `out`.
fn received_in(out: &[Output]) -> Vec<ProbeReport> {
    let received = |output: &Output| match output {
        Output::SendProbe { received, .. } => Some(received.clone()),
        _ => None,
    };
    out.iter().find_map(received).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
