//! A box without control: workers on ports in memory, told what to do by the test.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use dataplane::context::entry::Traffic;
use dataplane::context::{Activity, Hasher, Install, PathNumber, Phase, Sharding, Sign};
use dataplane::counters::{Count, DropReason};
use dataplane::link::{ControlLink, Notice, Punt, RingSizes, Workers, connect};
use dataplane::port::memory::{HeapFrame, HeapPool, MemoryPort, Wire};
use dataplane::snapshot::{Block, Classes, HostView, NatView, PortId, PortView, ProviderView, Role, Snapshot};
use dataplane::wire::ethernet::{self, EtherType, Mac};
use dataplane::wire::icmpv6;
use dataplane::wire::ipv6::{self, protocol};
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair, checksum};
use dataplane::worker::{Limits, Outlet, Worker};

/// The port towards the hosts.
pub const LAN: PortId = PortId(0);
/// The ports towards the two providers.
pub const X: PortId = PortId(1);
pub const Y: PortId = PortId(2);
/// Hosts of a site.
pub const HOSTS: u16 = 64;

/// One of two sites that talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

impl Side {
    fn number(self) -> u16 {
        match self {
            Side::A => 0xa,
            Side::B => 0xb,
        }
    }

    pub fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    /// Identifier of a host.
    pub fn ulid(self, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfc00, self.number(), 0, 1, 0, 0, 1, host)
    }

    /// Locator of a host at one of the two providers, named by its port.
    pub fn locator(self, host: u16, provider: PortId) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.number(), provider.0.into(), 0x55, 0, 2, host)
    }

    /// The box's own address on a port.
    pub fn own(self, port: PortId) -> Ipv6Addr {
        match port {
            LAN => Ipv6Addr::new(0xfc00, self.number(), 0, 1, 0, 0, 0, 1),
            port => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, u16::from(port.0) << 8 | self.number(), 0, 0, 0, 2),
        }
    }

    /// A provider's router.
    pub fn router(self, provider: PortId) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0xffff, u16::from(provider.0) << 8 | self.number(), 0, 0, 0, 1)
    }

    /// The box's link-layer address on a port.
    pub fn mac(self, port: PortId) -> Mac {
        Mac([2, 0, 0, 0, self.number() as u8, port.0])
    }

    pub fn router_mac(self, provider: PortId) -> Mac {
        Mac([2, 1, 0, 0, self.number() as u8, provider.0])
    }

    pub fn host_mac(self, host: u16) -> Mac {
        Mac([2, 2, 0, self.number() as u8, (host >> 8) as u8, host as u8])
    }

    pub fn snapshot(self) -> Snapshot {
        let port = |id: PortId| PortView {
            role: if id == LAN { Role::Site } else { Role::Provider },
            mac: self.mac(id),
            mtu: 1500,
            own: vec![self.own(id), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)],
            icmp_source: self.own(id),
            system: None,
        };
        let provider = |id: PortId| ProviderView {
            port: id,
            prefix: (self.locator(0, id).to_bits() >> 64) as u64,
            next_hop: self.router(id),
            mac: Some(self.router_mac(id)),
        };
        let host = |n: u16| HostView { ulid: Ulid(self.ulid(n)), port: LAN, mac: Some(self.host_mac(n)) };
        let hosts: Vec<HostView> = (0..HOSTS).map(host).collect();
        let host_index: HashMap<Ulid, u32> = hosts.iter().zip(0..).map(|(host, at)| (host.ulid, at)).collect();
        Snapshot {
            ports: vec![port(LAN), port(X), port(Y)],
            providers: vec![provider(X), provider(Y)],
            hosts,
            host_index,
            site: Block::new(self.ulid(0), 48),
            mss_clamp: false,
            arrivals: false,
            classes: Vec::new(),
            name_servers: Vec::new(),
            udp_port: None,
            nat: None,
        }
    }

    /// The live context of host `host` with host `peer` of the other side. Tags follow from the hosts, so that the two
    /// sides agree; `workers` of the tag's owner are those of the side that chooses it.
    pub fn install(self, sharding: [&Sharding; 2], host: u16, peer: u16, local: PortId, remote: PortId) -> Install {
        let other = self.other();
        let ulids = UlidPair { local: Ulid(self.ulid(host)), peer: Ulid(other.ulid(peer)) };
        let tag = |sharding: &Sharding, ulids: &UlidPair, mine: u16, theirs: u16| {
            let owner = u64::from(sharding.owner_of_pair(ulids)) << Sharding::WORKER_SHIFT;
            ContextTag::truncate(owner | 5 << 30 | slot(mine, theirs))
        };
        Install {
            handle: u64::from(host) << 16 | u64::from(peer),
            ulids,
            default: true,
            classes: Classes::NONE,
            local_tag: tag(sharding[0], &ulids, host, peer),
            peer_tag: tag(sharding[1], &ulids.mirrored(), peer, host),
            locators: LocatorPair {
                local: Locator(self.locator(host, local)),
                peer: Locator(other.locator(peer, remote)),
            },
            provider: local.0 - 1,
            path: PathNumber::NONE,
            standby: None,
            host: host.into(),
            inside: None,
            phase: Phase::Live,
            local_label: None,
            peer_label: None,
            narrow: false,
            udp: Default::default(),
            accepted: None,
        }
    }
}

/// The low bits of the tag of a context of a host and a peer of the other site: of up to 8 hosts and 64 peers, and of
/// another kind of context with [`OTHER_KIND`], each has a slot of its own in a table for 1024.
pub fn slot(host: u16, peer: u16) -> u64 {
    u64::from(host / 8) << 20 | u64::from(host % 8) << 6 | u64::from(peer / 64) << 24 | u64::from(peer % 64)
}

/// See [`slot`].
pub const OTHER_KIND: u64 = 1 << 9;

/// What a worker told control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    UnknownPair(UlidPair),
    UnknownTag(ContextTag, LocatorPair, Option<dataplane::wire::shim6::UdpPorts>),
    Punt(PortId, Punt, Vec<u8>),
    Unresolved(PortId, Ipv6Addr, Vec<u8>),
    Activity(u64, Activity, [Traffic; 2]),
    Tcp(u64, Sign, LocatorPair),
    TableFull(u64),
    Qualified(UlidPair, Locator, u8),
    Fork(u64, u8),
}

/// A box under test.
pub struct Bench {
    pub side: Side,
    pub workers: Vec<Worker<HeapFrame>>,
    pub control: ControlLink<HeapFrame>,
    /// By worker, then port: each worker has a queue of its own on every port.
    pub wires: Vec<Vec<Wire>>,
    pub snapshot: Arc<Snapshot>,
    pub sharding: Sharding,
    pub now: u64,
    pub seen: Vec<Seen>,
}

/// What a box is made with.
#[derive(Clone, Copy)]
pub struct Setup {
    pub side: Side,
    pub workers: usize,
    pub limits: Limits,
    pub rings: RingSizes,
}

impl Default for Setup {
    fn default() -> Setup {
        let limits = Limits { contexts: 1024, hold_pairs: 16, ..Limits::default() };
        Setup { side: Side::A, workers: 1, limits, rings: RingSizes::default() }
    }
}

impl Setup {
    pub fn build(self) -> Bench {
        let mut wires = vec![Vec::new(); self.workers];
        let outlets = wires
            .iter_mut()
            .map(|wires| {
                let own = (0..3).map(|_| {
                    let (port, wire) = MemoryPort::new();
                    wires.push(wire);
                    Outlet::Own(Box::new(port))
                });
                own.collect()
            })
            .collect();
        self.build_on(wires, outlets, self.side.snapshot())
    }

    /// The same on ports of the caller's.
    pub fn build_on(self, wires: Vec<Vec<Wire>>, outlets: Vec<Vec<Outlet<HeapFrame>>>, snapshot: Snapshot) -> Bench {
        let sharding = Sharding::new(Hasher::new([self.side.number() as u8; 32]), self.workers as u8);
        let snapshot = Arc::new(snapshot);
        let (control, links) = connect(self.workers, self.rings, Box::new(HeapPool));
        let workers = links.into_iter().zip(outlets).zip(0..).map(|((link, ports), id)| {
            Worker::new(id, self.limits, sharding, snapshot.clone(), ports, link, Box::new(HeapPool))
        });
        let workers = workers.collect();
        Bench { side: self.side, workers, control, wires, snapshot, sharding, now: 0, seen: Vec::new() }
    }
}

impl Bench {
    pub fn new(side: Side) -> Bench {
        Setup { side, ..Setup::default() }.build()
    }

    /// Adds the context of our `host` with `peer` of the other side, which is a box with the given sharding.
    pub fn open(&mut self, peers: &Sharding, host: u16, peer: u16, local: PortId, remote: PortId) -> Install {
        let install = self.side.install([&self.sharding, peers], host, peer, local, remote);
        self.install(install.clone());
        install
    }

    /// A context whose peer is a box with one worker.
    pub fn context(&self, host: u16, peer: u16, local: PortId) -> Install {
        let theirs = Sharding::new(Hasher::new([0xff; 32]), 1);
        self.side.install([&self.sharding, &theirs], host, peer, local, X)
    }

    /// Adds such a context.
    pub fn open_alone(&mut self, host: u16, peer: u16, local: PortId) -> Install {
        let install = self.context(host, peer, local);
        self.install(install.clone());
        install
    }

    pub fn install(&mut self, install: Install) {
        let owner = usize::from(self.sharding.owner_of_pair(&install.ulids));
        self.control.install(owner, install);
    }

    pub fn send(&self, port: PortId, frame: &[u8]) {
        self.wires[0][usize::from(port.0)].send(frame);
    }

    /// Runs all workers until none has anything to do, and notes what they tell control.
    pub fn run(&mut self) {
        let now = self.now;
        for _ in 0..10_000 {
            let mut work = self.workers.iter_mut().map(|worker| worker.turn(now)).sum::<usize>();
            work += self.poll();
            if work == 0 {
                return;
            }
        }
        panic!("the workers never come to rest");
    }

    pub fn poll(&mut self) -> usize {
        let seen = &mut self.seen;
        self.control.poll(1024, &mut |notice| {
            seen.push(match notice {
                Notice::UnknownPair(pair) => Seen::UnknownPair(pair),
                Notice::UnknownTag { tag, locators, udp } => Seen::UnknownTag(tag, locators, udp),
                Notice::Punt(port, why, frame) => Seen::Punt(port, why, frame.to_vec()),
                Notice::Unresolved(port, next_hop, frame) => Seen::Unresolved(port, next_hop, frame.to_vec()),
                Notice::Activity { handle, activity, traffic } => Seen::Activity(handle, activity, traffic),
                Notice::Tcp { handle, sign, pair } => Seen::Tcp(handle, sign, pair),
                Notice::TableFull { handle } => Seen::TableFull(handle),
                Notice::Qualified { pair, presented, provider } => Seen::Qualified(pair, presented, provider),
                Notice::Fork(wish) => Seen::Fork(wish.handle, wish.class),
            });
        })
    }

    /// Lets time pass in which nothing arrives.
    pub fn wait(&mut self, ms: u64) {
        self.now += ms;
        self.run();
    }

    /// All that left through a port, worker by worker.
    pub fn sent(&self, port: PortId) -> Vec<Vec<u8>> {
        let wires = self.wires.iter().map(|wires| &wires[usize::from(port.0)]);
        wires.flat_map(|wire| std::iter::from_fn(|| wire.receive())).collect()
    }

    /// The only frame that left, through whatever port.
    pub fn only(&self) -> (PortId, Vec<u8>) {
        let mut all: Vec<(PortId, Vec<u8>)> = Vec::new();
        for port in [LAN, X, Y] {
            all.extend(self.sent(port).into_iter().map(|frame| (port, frame)));
        }
        assert_eq!(all.len(), 1, "{:?}", all.iter().map(|(port, _)| port).collect::<Vec<_>>());
        all.remove(0)
    }

    pub fn count(&self, count: Count) -> u64 {
        self.workers.iter().map(|worker| worker.counters().count(count)).sum()
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.workers.iter().map(|worker| worker.counters().dropped(reason)).sum()
    }

    /// Drops of all kinds.
    pub fn drops(&self) -> u64 {
        DropReason::ALL.iter().map(|reason| self.dropped(*reason)).sum()
    }

    pub fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    /// A frame from our host to a host of the other side, as it comes from the LAN.
    pub fn host_frame(&self, host: u16, peer: u16, upper: u8, payload: &[u8]) -> Vec<u8> {
        let packet = packet(self.side.ulid(host), self.side.other().ulid(peer), upper, payload);
        frame(self.side.mac(LAN), self.side.host_mac(host), &packet)
    }

    /// A frame with a packet of the other side's, as a provider's router hands it over.
    pub fn provider_frame(&self, port: PortId, packet: &[u8]) -> Vec<u8> {
        frame(self.side.mac(port), self.side.router_mac(port), packet)
    }
}

/// An IPv6 packet with recognisable fields.
pub fn packet(source: Ipv6Addr, target: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let repr = ipv6::Repr {
        source,
        target,
        next_header,
        payload_len: payload.len() as u16,
        hop_limit: 64,
        traffic_class: 0x2e << 2,
        flow_label: 0x5_1234,
    };
    [&repr.emit()[..], payload].concat()
}

pub fn frame(to: Mac, from: Mac, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER_LEN];
    frame.extend_from_slice(packet);
    ethernet::ViewMut::new(&mut frame).unwrap().set(to, from, EtherType::IPV6);
    frame
}

/// The IPv6 packet in a frame.
pub fn inner(frame: &[u8]) -> &[u8] {
    &frame[ethernet::HEADER_LEN..]
}

pub fn view(frame: &[u8]) -> ipv6::View<'_> {
    ipv6::View::new(inner(frame)).unwrap()
}

/// A UDP datagram of `octets` octets of payload, with a right checksum.
pub fn udp(source: Ipv6Addr, target: Ipv6Addr, octets: usize) -> Vec<u8> {
    let mut datagram = vec![0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0];
    datagram[4..6].copy_from_slice(&((octets + 8) as u16).to_be_bytes());
    datagram.extend((0..octets).map(|at| at as u8));
    let sum = checksum::for_udp(checksum::upper_layer(source, target, protocol::UDP, &datagram));
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

// ---- peers without Shim6 ----

impl Side {
    /// The snapshot of a site that translates for peers without Shim6: each host is known by its locators, and X is
    /// preferred.
    pub fn translating(self) -> Snapshot {
        let mut snapshot = self.snapshot();
        let mut nat = NatView::new(2);
        for (host, view) in snapshot.hosts.iter().enumerate() {
            for (provider, port) in [(0, X), (1, Y)] {
                assert!(nat.set_outside(host as u32, view.ulid, provider, Locator(self.locator(host as u16, port))));
            }
        }
        nat.order = vec![0, 1];
        snapshot.nat = Some(Arc::new(nat));
        snapshot
    }
}

/// A peer without Shim6.
pub fn stranger(peer: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2a00, 0x1450, 0x4001, 0x801, 0, 0, 0, peer + 1)
}

impl Setup {
    /// The same box with another snapshot.
    pub fn build_with(self, snapshot: Snapshot) -> Bench {
        let mut bench = self.build();
        bench.publish(snapshot);
        bench
    }
}

impl Bench {
    /// A box of A that translates.
    pub fn translating() -> Bench {
        Setup::default().build_with(Side::A.translating())
    }

    /// Gives the workers a new snapshot.
    pub fn publish(&mut self, snapshot: Snapshot) {
        self.snapshot = Arc::new(snapshot);
        self.control.publish(&self.snapshot);
        self.run();
    }

    /// Gives the workers the snapshot they have, with another idea of translation.
    pub fn translate(&mut self, change: impl FnOnce(&mut NatView)) {
        let mut snapshot = (*self.snapshot).clone();
        change(Arc::make_mut(snapshot.nat.as_mut().expect("a snapshot that translates")));
        self.publish(snapshot);
    }

    /// What leaves when a host sends a packet.
    pub fn host_sends(&mut self, host: u16, packet: &[u8]) -> (PortId, Vec<u8>) {
        self.send(LAN, &frame(self.side.mac(LAN), self.side.host_mac(host), packet));
        self.run();
        self.only()
    }

    /// What leaves when a packet comes from a provider.
    pub fn provider_sends(&mut self, provider: PortId, packet: &[u8]) -> (PortId, Vec<u8>) {
        self.send(provider, &self.provider_frame(provider, packet));
        self.run();
        self.only()
    }
}

/// A TCP segment of `octets` octets of payload, with a right checksum.
pub fn tcp(source: Ipv6Addr, target: Ipv6Addr, ports: [u16; 2], flags: u8, octets: usize) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&ports[0].to_be_bytes());
    segment[2..4].copy_from_slice(&ports[1].to_be_bytes());
    segment[12..14].copy_from_slice(&[0x50, flags]);
    segment.extend((0..octets).map(|at| at as u8));
    let sum = checksum::upper_layer(source, target, protocol::TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    packet(source, target, protocol::TCP, &segment)
}

/// A UDP packet.
pub fn datagram(source: Ipv6Addr, target: Ipv6Addr, ports: [u16; 2], octets: usize) -> Vec<u8> {
    let mut datagram = udp(source, target, octets);
    datagram[..2].copy_from_slice(&ports[0].to_be_bytes());
    datagram[2..4].copy_from_slice(&ports[1].to_be_bytes());
    datagram[6..8].fill(0);
    let sum = checksum::for_udp(checksum::upper_layer(source, target, protocol::UDP, &datagram));
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    packet(source, target, protocol::UDP, &datagram)
}

/// An echo request or reply.
pub fn echo(source: Ipv6Addr, target: Ipv6Addr, request: bool, identifier: u16) -> Vec<u8> {
    let echo = icmpv6::Echo { identifier, sequence: 1, data: &[7; 32] };
    let message = if request { icmpv6::Message::EchoRequest(echo) } else { icmpv6::Message::EchoReply(echo) };
    packet(source, target, protocol::ICMPV6, &message.emit(source, target))
}

/// An ICMPv6 error about a packet.
pub fn error_about(source: Ipv6Addr, target: Ipv6Addr, error: icmpv6::Error, about: &[u8]) -> Vec<u8> {
    let quote = &about[..about.len().min(icmpv6::QUOTE_MAX)];
    let message = icmpv6::Message::Error { error, quote }.emit(source, target);
    packet(source, target, protocol::ICMPV6, &message)
}

/// A packet as it is after one more router: its hop limit is one less.
pub fn a_hop_on(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[7] -= 1;
    packet
}

/// Sends packets of host 1 of A; what leaves A, and what reaches host 2 of B.
pub fn crossing(a: &mut Bench, b: &mut Bench, packets: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    for packet in packets {
        a.send(LAN, &frame(Side::A.mac(LAN), Side::A.host_mac(1), packet));
    }
    a.run();
    let wire: Vec<Vec<u8>> = a.sent(X).iter().map(|frame| inner(frame).to_vec()).collect();
    for packet in &wire {
        b.send(X, &b.provider_frame(X, packet));
    }
    b.run();
    (wire, b.sent(LAN).iter().map(|frame| inner(frame).to_vec()).collect())
}

/// As a packet arrives: two boxes count as two hops.
pub fn two_hops_on(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[7] -= 2;
    packet
}
