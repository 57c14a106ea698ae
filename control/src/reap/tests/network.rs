//! Two nodes, a wire that loses what it is told to, and virtual time.

use std::collections::BTreeMap;

use rand::Rng;

use super::*;

pub(super) const A: usize = 0;
pub(super) const B: usize = 1;
/// One-way delay of every path.
const DELAY: Duration = Duration::from_millis(50);

pub(super) struct Network {
    pub(super) now: Instant,
    pub(super) nodes: [Node; 2],
    pub(super) faults: Vec<Fault>,
    /// Of all packets, in percent.
    pub(super) loss_percent: u32,
    pub(super) log: Vec<Entry>,
    wire: BTreeMap<(Instant, u64), (usize, Packet)>,
    serial: u64,
    rng: StdRng,
}

pub(super) struct Node {
    pub(super) reap: Reap,
    pub(super) payload: Option<Stream>,
}

/// The numbers of the locators of a pair, sender's first.
pub(super) type Numbers = (u16, u16);

/// One payload packet a second.
pub(super) struct Stream {
    pub(super) next: Instant,
    pub(super) until: Instant,
}

/// Packets sent in this time, between these addresses, are lost.
pub(super) struct Fault {
    pub(super) from: Instant,
    pub(super) until: Instant,
    pub(super) source: Option<Locator>,
    pub(super) target: Option<Locator>,
}

struct Packet {
    source: Locator,
    target: Locator,
    kind: Kind,
}

enum Kind {
    Payload,
    Keepalive,
    Probe(Box<Probe>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) at: Instant,
    pub(super) node: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Payload(LocatorPair),
    Keepalive(LocatorPair),
    Probe { pair: LocatorPair, state: State, received: usize },
    Told(Output),
}

pub(super) fn forever() -> Instant {
    Instant(Duration::MAX)
}

impl Network {
    /// `locators` of A and B; both begin with their first.
    pub(super) fn new(config: Config, locators: [u16; 2], seed: u64) -> Network {
        let config = Arc::new(config);
        let own: [Vec<Locator>; 2] = [(1..=locators[A]).map(a).collect(), (1..=locators[B]).map(b).collect()];
        let node = |this: usize, other: usize| Node {
            reap: Reap::new(
                &config,
                LocatorPair { local: own[this][0], peer: own[other][0] },
                locals(&own[this]),
                peers(&own[other]),
            ),
            payload: None,
        };
        Network {
            now: at(0),
            nodes: [node(A, B), node(B, A)],
            faults: Vec::new(),
            loss_percent: 0,
            log: Vec::new(),
            wire: BTreeMap::new(),
            serial: 0,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// `node` sends a packet each second from `first_ms` on.
    pub(super) fn stream(&mut self, node: usize, first_ms: u64) {
        self.nodes[node].payload = Some(Stream { next: at(first_ms), until: forever() });
    }

    pub(super) fn cut(&mut self, from_ms: u64, source: Option<Locator>, target: Option<Locator>) {
        self.faults.push(Fault { from: at(from_ms), until: forever(), source, target });
    }

    pub(super) fn lost(&self, source: Locator, target: Locator) -> bool {
        let is = |wanted: Option<Locator>, found| wanted.is_none_or(|wanted| wanted == found);
        let hits = |fault: &Fault| {
            is(fault.source, source) && is(fault.target, target) && (fault.from..fault.until).contains(&self.now)
        };
        self.faults.iter().any(hits)
    }

    /// Whether what `node` sends to its current pair would arrive.
    pub(super) fn works(&self, node: usize) -> bool {
        let LocatorPair { local, peer } = self.nodes[node].reap.current();
        !self.lost(local, peer)
    }

    pub(super) fn healthy(&self) -> bool {
        [A, B].iter().all(|node| self.works(*node) && self.nodes[*node].reap.state() == State::Operational)
    }

    /// Lets everything happen until `end`. At the same moment: timers, then arrivals, then payload.
    pub(super) fn run(&mut self, end: Instant) {
        loop {
            let timer = [A, B].into_iter().filter_map(|node| Some((self.nodes[node].reap.deadline()?, node))).min();
            let arrival = self.wire.keys().next().copied();
            let stream = |node: usize| Some((self.nodes[node].payload.as_ref()?.next, node));
            let payload = [A, B].into_iter().filter_map(stream).min();
            let times = [timer.map(|due| due.0), arrival.map(|due| due.0), payload.map(|due| due.0)];
            let Some(next) = times.into_iter().flatten().min().filter(|next| *next <= end) else { break };
            assert!(next >= self.now, "time runs backwards");
            self.now = next;
            match (timer, arrival, payload) {
                (Some((due, node)), _, _) if due == next => {
                    self.drive(node, |reap, now, rng, out| reap.expire(now, rng, out));
                    assert!(self.nodes[node].reap.deadline().is_none_or(|later| later > next), "busy timer");
                }
                (_, Some(key), _) if key.0 == next => {
                    if let Some((node, packet)) = self.wire.remove(&key) {
                        self.deliver(node, packet);
                    }
                }
                (_, _, Some((_, node))) => self.send_payload(node),
                _ => unreachable!("the next time belongs to one of the three"),
            }
        }
        self.now = end;
    }

    pub(super) fn drive(&mut self, node: usize, act: impl FnOnce(&mut Reap, Instant, &mut dyn Rng, &mut Vec<Output>)) {
        let mut out = Vec::new();
        act(&mut self.nodes[node].reap, self.now, &mut self.rng, &mut out);
        for output in out {
            match output {
                Output::SendKeepalive { pair } => {
                    self.note(node, What::Keepalive(pair));
                    self.transmit(node, pair, Kind::Keepalive);
                }
                Output::SendProbe { pair, state, sent, received } => {
                    self.note(node, What::Probe { pair, state, received: received.len() });
                    let receiver_tag = ContextTag::truncate(node as u64);
                    let probe = Probe { receiver_tag, state, sent, received, options: Options::default() };
                    self.transmit(node, pair, Kind::Probe(Box::new(probe)));
                }
                told => self.note(node, What::Told(told)),
            }
        }
    }

    fn send_payload(&mut self, node: usize) {
        if let Some(stream) = &mut self.nodes[node].payload {
            stream.next = stream.next + seconds(1);
            if stream.next > stream.until {
                self.nodes[node].payload = None;
            }
        }
        let pair = self.nodes[node].reap.current();
        self.note(node, What::Payload(pair));
        self.transmit(node, pair, Kind::Payload);
        self.drive(node, |reap, now, rng, out| reap.payload_out(now, rng, out));
    }

    fn transmit(&mut self, node: usize, pair: LocatorPair, kind: Kind) {
        let unlucky = self.rng.next_u32() % 100 < self.loss_percent;
        if !unlucky && !self.lost(pair.local, pair.peer) {
            self.serial += 1;
            let packet = Packet { source: pair.local, target: pair.peer, kind };
            self.wire.insert((self.now + DELAY, self.serial), (1 - node, packet));
        }
    }

    fn deliver(&mut self, node: usize, packet: Packet) {
        let Packet { source, target, kind } = packet;
        self.drive(node, |reap, now, rng, out| match kind {
            Kind::Payload => reap.payload_in(now, rng, out),
            Kind::Keepalive => reap.keepalive(now, rng, out),
            Kind::Probe(probe) => reap.probe(now, rng, source, target, &probe, out).unwrap(),
        });
    }

    fn note(&mut self, node: usize, what: What) {
        self.log.push(Entry { at: self.now, node, what });
    }

    /// Milliseconds, sender, the numbers of the two locators and the state of every probe sent.
    pub(super) fn probes(&self) -> Vec<(u64, usize, Numbers, State)> {
        let probe = |entry: &Entry| match entry.what {
            What::Probe { pair, state, .. } => Some((millis(entry.at), entry.node, numbers(pair), state)),
            _ => None,
        };
        self.log.iter().filter_map(probe).collect()
    }

    /// Milliseconds, node, old and new pair of every change.
    pub(super) fn moves(&self) -> Vec<(u64, usize, Numbers, Numbers)> {
        let change = |entry: &Entry| match entry.what {
            What::Told(Output::PairChanged { from, to }) => {
                Some((millis(entry.at), entry.node, numbers(from), numbers(to)))
            }
            _ => None,
        };
        self.log.iter().filter_map(change).collect()
    }

    /// Milliseconds, sender and pair of every Keepalive.
    pub(super) fn keepalives(&self) -> Vec<(u64, usize, Numbers)> {
        let keepalive = |entry: &Entry| match entry.what {
            What::Keepalive(pair) => Some((millis(entry.at), entry.node, numbers(pair))),
            _ => None,
        };
        self.log.iter().filter_map(keepalive).collect()
    }

    /// Entries that are neither payload nor about it.
    pub(super) fn reap_packets(&self) -> impl Iterator<Item = &Entry> {
        self.log.iter().filter(|entry| matches!(entry.what, What::Keepalive(_) | What::Probe { .. }))
    }
}

pub(super) fn millis(at: Instant) -> u64 {
    at.0.as_millis() as u64
}

/// Which locators a pair is made of, sender's first.
fn numbers(pair: LocatorPair) -> Numbers {
    (pair.local.0.segments()[3], pair.peer.0.segments()[3])
}
