//! How long it takes until all contexts of a lost provider use another path, and what others feel of it. Run by `perf/run`,
//! which says in `perf/README.md` what is and what is not measured.
//!
//! ```text
//! failover [--rounds N] [--sizes N,N,…]      times, as JSON
//! ```
//!
//! A worker with N contexts over one provider, each with a standby over the other, and some contexts more over that other
//! one (*bystanders*) is told that the first provider is lost. What counts is the turn that takes in the command: from
//! its end on no packet goes by the lost provider, which is then looked at for each context, in random order. Bursts of bystanders
//! are in between, and as many spans of a plain loop over other memory: what that takes too long is the machine's doing.

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::Ipv6Addr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dataplane::context::{Hasher, Install, Loss, PathNumber, Phase, Sharding, Standby};
use dataplane::counters::Count;
use dataplane::link::{ControlLink, RingSizes, Workers, connect};
use dataplane::port::memory::{HeapFrame, HeapPool};
use dataplane::port::{Frame, Port};
use dataplane::snapshot::{Block, Classes, HostView, PortId, PortView, ProviderView, Role, Snapshot};
use dataplane::translate::BURST;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair};
use dataplane::worker::{Limits, Outlet, Worker};

const SITE: PortId = PortId(0);
const LOST: Loss = Loss::Provider(0);
const BOX_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const HOSTS: u32 = 256;
/// Contexts that lose nothing.
const BYSTANDERS: u32 = 4096;
/// Where a packet's source begins in its frame, and the octet there that says which provider delegated it.
const SOURCE: usize = 22;

fn address(high: u64, low: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))
}

/// Of the two providers.
fn prefix(provider: u8) -> u64 {
    0x2001_0db8_00a1_0000 | u64::from(provider)
}

fn ulids(context: u32) -> UlidPair {
    let local = address(0xfc00_000a_0000_0001, u64::from(context % HOSTS) + 16);
    UlidPair { local: Ulid(local), peer: Ulid(address(0xfc00_000b_0000_0001, context.into())) }
}

fn locators(context: u32, provider: u8) -> LocatorPair {
    let peer = address(0x2001_0db8_00b1_0000 | u64::from(provider), context.into());
    let local = address(prefix(provider), u64::from(context % HOSTS) + 16);
    LocatorPair { local: Locator(local), peer: Locator(peer) }
}

/// One of `contexts` that use the first provider, or a bystander.
fn install(context: u32, contexts: u32) -> Install {
    let provider = u8::from(context >= contexts);
    let other = 1 - provider;
    let path = |of: u8| PathNumber::new(u16::from(of) + 1).unwrap_or_default();
    let scattered = u64::from(context).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Install {
        handle: context.into(),
        ulids: ulids(context),
        default: true,
        classes: Classes::NONE,
        local_tag: ContextTag::truncate(scattered & ((1 << Sharding::WORKER_SHIFT) - 1)),
        peer_tag: ContextTag::truncate(u64::from(context) << 8 | 1),
        locators: locators(context, provider),
        provider,
        path: path(provider),
        standby: Some(Standby {
            locators: locators(context, other),
            provider: other,
            path: path(other),
            narrow: false,
            udp: false,
        }),
        host: context % HOSTS,
        inside: None,
        phase: Phase::Live,
        local_label: None,
        peer_label: None,
        narrow: false,
        udp: Default::default(),
        accepted: None,
    }
}

fn snapshot() -> Snapshot {
    let port = |role| PortView {
        role,
        mac: BOX_MAC,
        mtu: 1500,
        own: vec![address(0xfe80 << 48, 1)],
        icmp_source: address(0xfe80 << 48, 1),
        system: None,
    };
    let provider = |number: u8| ProviderView {
        port: PortId(number + 1),
        prefix: prefix(number),
        next_hop: address(0xfe80 << 48, 2),
        mac: Some(OTHER_MAC),
    };
    let hosts: Vec<HostView> =
        (0..HOSTS).map(|host| HostView { ulid: ulids(host).local, port: SITE, mac: Some(OTHER_MAC) }).collect();
    Snapshot {
        ports: vec![port(Role::Site), port(Role::Provider), port(Role::Provider)],
        providers: vec![provider(0), provider(1)],
        host_index: hosts.iter().zip(0..).map(|(host, at)| (host.ulid, at)).collect(),
        hosts,
        site: Block::new(address(0xfc00_000a_0000_0000, 0), 48),
        mss_clamp: false,
        arrivals: false,
        classes: Vec::new(),
        name_servers: Vec::new(),
        udp_port: None,
        nat: None,
    }
}

type Tray = Arc<Mutex<VecDeque<HeapFrame>>>;

/// A port that is a list.
struct TrayPort {
    waiting: Tray,
    sent: Tray,
}

impl Port<HeapFrame> for TrayPort {
    fn receive(&mut self, burst: &mut Vec<HeapFrame>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let most = waiting.len().min(BURST);
        burst.extend(waiting.drain(..most));
    }

    fn transmit(&mut self, burst: &mut Vec<HeapFrame>) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).extend(burst.drain(..));
    }
}

/// A worker, and both ends of its ports.
struct Bench {
    worker: Worker<HeapFrame>,
    control: ControlLink<HeapFrame>,
    waiting: Tray,
    sent: [Tray; 3],
    contexts: u32,
    spare: Vec<HeapFrame>,
    now: u64,
    report_ms: u64,
    /// More than any cache.
    other: Vec<u8>,
}

impl Bench {
    fn new(contexts: u32) -> Bench {
        let (mut control, mut links) = connect(1, RingSizes::default(), Box::new(HeapPool));
        let (waiting, sent) = (Tray::default(), [Tray::default(), Tray::default(), Tray::default()]);
        let ports = sent.iter().zip(0..).map(|(sent, at)| {
            let waiting = if at == 0 { waiting.clone() } else { Tray::default() };
            Outlet::Own(Box::new(TrayPort { waiting, sent: sent.clone() }) as Box<dyn Port<HeapFrame>>)
        });
        let limits = Limits { contexts: (contexts + BYSTANDERS).next_power_of_two(), ..Limits::default() };
        let sharding = Sharding::new(Hasher::new(std::array::from_fn(|at| (at * 41 + 7) as u8)), 1);
        let link = links.pop().expect("one worker was asked for");
        let ports = ports.collect();
        let mut worker = Worker::new(0, limits, sharding, Arc::new(snapshot()), ports, link, Box::new(HeapPool));
        for context in 0..contexts + BYSTANDERS {
            control.install(0, install(context, contexts));
            if context % 64 == 63 {
                worker.turn(0);
            }
        }
        while worker.shard().len() < (contexts + BYSTANDERS) as usize {
            control.poll(64, &mut |_| {});
            assert!(worker.turn(0) > 0, "a context did not arrive");
        }
        let spare = (0..BURST).map(|_| HeapFrame::new(&[0; 64])).collect();
        let (report_ms, other) = (limits.report_ms, vec![1; 64 << 20]);
        Bench { worker, control, waiting, sent, contexts, spare, now: 0, report_ms, other }
    }

    /// A turn, in nanoseconds.
    fn turn(&mut self) -> f64 {
        let began = Instant::now();
        black_box(self.worker.turn(self.now));
        began.elapsed().as_secs_f64() * 1e9
    }

    /// A turn of a worker that has told what there was to tell and finds its caches full of something else, as traffic of many
    /// contexts leaves them; that is so then whatever the number of contexts.
    fn cold_turn(&mut self) -> f64 {
        for _ in 0..3 {
            self.now += self.report_ms;
            while {
                self.worker.turn(self.now);
                self.reports() > 0
            } {}
        }
        self.other.iter_mut().step_by(64).for_each(|octet| *octet = octet.wrapping_add(1));
        black_box(&self.other);
        self.turn()
    }

    /// Takes what the worker tells. How much that was.
    fn reports(&mut self) -> usize {
        self.control.poll(4096, &mut |_| {})
    }

    /// A turn with a burst of packets of these contexts, in nanoseconds; all of them have to leave by `provider`.
    fn burst(&mut self, contexts: &[u32], provider: u8) -> f64 {
        let frames = std::mem::take(&mut self.spare);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (mut frame, context) in frames.into_iter().zip(contexts) {
            write(&mut frame, *context);
            waiting.push_back(frame);
        }
        drop(waiting);
        let spent = self.turn();
        let mut sent = self.sent[usize::from(provider) + 1].lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(sent.len(), contexts.len(), "packets did not leave by provider {provider}");
        for (frame, context) in sent.iter().zip(contexts) {
            let pair = locators(*context, provider);
            let addresses = [pair.local.0.octets(), pair.peer.0.octets()].concat();
            assert_eq!(frame.bytes().get(SOURCE..SOURCE + 32), Some(&addresses[..]), "context {context}");
        }
        self.spare = sent.drain(..).collect();
        spent
    }

    /// What workers tell is taken, and the contexts' last report is forgotten: nothing comes back here.
    fn rest(&mut self) {
        while self.reports() > 0 {}
        self.now += 1;
    }

    /// Every context of the first provider sends a packet, in random order, and leaves by `provider`; a burst of bystanders
    /// after each burst, and after that a plain loop for as long as that takes. Times of all three.
    fn all(&mut self, order: &mut Order, provider: u8) -> Times {
        let mut contexts: Vec<u32> = (0..self.contexts).collect();
        for at in (1..contexts.len()).rev() {
            contexts.swap(at, order.next(at as u32 + 1) as usize);
        }
        let mut times = Times::default();
        for burst in contexts.chunks(BURST) {
            times[0].push(self.burst(burst, provider));
            while self.spare.len() < BURST {
                self.spare.push(HeapFrame::new(&[0; 64]));
            }
            let bystanders: Vec<u32> = (0..BURST).map(|_| self.contexts + order.next(BYSTANDERS)).collect();
            times[1].push(self.burst(&bystanders, 1));
            times[2].push(plain_loop(&mut self.other, order));
            if times[0].len().is_multiple_of(64) {
                self.rest();
            }
        }
        times
    }
}

/// Nanoseconds, of each burst of those who lost their path, of bystanders, and of a plain loop.
type Times = [Vec<f64>; 3];

/// Reads and writes some memory for as long as a burst of bystanders takes, and nothing else. How long that was, in
/// nanoseconds.
fn plain_loop(memory: &mut [u8], order: &mut Order) -> f64 {
    const BURST_NS: u128 = 1_700;
    let began = Instant::now();
    loop {
        for _ in 0..8 {
            let at = order.next(memory.len() as u32) as usize;
            memory[at] = memory[at].wrapping_add(1);
        }
        let spent = began.elapsed();
        if spent.as_nanos() >= BURST_NS {
            return spent.as_secs_f64() * 1e9;
        }
    }
}

/// Writes a datagram of a context's host into a frame.
fn write(frame: &mut HeapFrame, context: u32) {
    let pair = ulids(context);
    // What was put before it on its way is taken off again.
    let surplus = frame.bytes().len().saturating_sub(64);
    frame.trim_front(surplus);
    let Some(bytes) = frame.bytes_mut().get_mut(..64) else { return };
    bytes[..6].copy_from_slice(&BOX_MAC.0);
    bytes[6..12].copy_from_slice(&OTHER_MAC.0);
    bytes[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 10, 17, 64]);
    bytes[22..38].copy_from_slice(&pair.local.0.octets());
    bytes[38..54].copy_from_slice(&pair.peer.0.octets());
}

/// Random numbers (xorshift64*).
struct Order(u64);

impl Order {
    fn next(&mut self, below: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((random * u64::from(below)) >> 32) as u32
    }
}

/// The value a share of the others does not exceed.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 - 1.0) * share).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// Longer than a burst may take, in nanoseconds.
const LATE: f64 = 100_000.0;

fn spans(values: &mut [f64]) -> String {
    let late = values.iter().filter(|&&value| value > LATE).count();
    let seconds = values.iter().sum::<f64>() / 1e9;
    let [p50, p99, p999, most] = [0.5, 0.99, 0.999, 1.0].map(|share| quantile(values, share) / 1e3);
    format!(
        "{{\"bursts\":{},\"p50_us\":{p50:.2},\"p99_us\":{p99:.2},\"p999_us\":{p999:.2},\"most_us\":{most:.2},\
         \"seconds\":{seconds:.3},\"late\":{late}}}",
        values.len()
    )
}

/// What is measured with so many contexts on the provider that is lost.
fn measure(contexts: u32, rounds: u32) -> String {
    let mut bench = Bench::new(contexts);
    let mut order = Order(0x9e37_79b9_7f4a_7c15);
    let (mut idle, mut lost, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let (mut calm, mut meanwhile) = (Times::default(), Times::default());
    for round in 0..=rounds {
        let before = bench.all(&mut order, 0);
        let nothing = bench.cold_turn();
        bench.control.lose(LOST, true);
        let loss = bench.cold_turn();
        let during = bench.all(&mut order, 1);
        bench.control.lose(LOST, false);
        let healed = bench.cold_turn();
        // The first round warms up.
        if round > 0 {
            idle.push(nothing);
            lost.push(loss);
            back.push(healed);
            calm.iter_mut().zip(before).for_each(|(all, new)| all.extend(new));
            meanwhile.iter_mut().zip(during).for_each(|(all, new)| all.extend(new));
        }
    }
    let used = bench.worker.counters().count(Count::StandbyOut);
    assert_eq!(used, u64::from(contexts) * u64::from(rounds + 1), "each packet of theirs, and no other");
    let list = |values: &[f64]| values.iter().map(|value| format!("{value:.0}")).collect::<Vec<_>>().join(",");
    let samples = list(&lost);
    format!(
        "{{\"contexts\":{contexts},\"bystanders\":{BYSTANDERS},\"switched\":{used},\"idle_turn_ns\":{:.0},\"lost_turn_ns\":{:.0},\
         \"lost_turn_most_ns\":{:.0},\"back_turn_ns\":{:.0},\"samples_ns\":[{samples}],\n\"affected\":{{\"before\":{},\
         \"after\":{}}},\n\"bystander\":{{\"before\":{},\"after\":{}}},\
         \n\"plain_loop\":{{\"before\":{},\"after\":{}}}}}",
        quantile(&mut idle, 0.5),
        quantile(&mut lost, 0.5),
        quantile(&mut lost, 1.0),
        quantile(&mut back, 0.5),
        spans(&mut calm[0]),
        spans(&mut meanwhile[0]),
        spans(&mut calm[1]),
        spans(&mut meanwhile[1]),
        spans(&mut calm[2]),
        spans(&mut meanwhile[2]),
    )
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mut rounds, mut sizes) = (5, vec![1_000, 1_000_000]);
    for pair in words.chunks(2) {
        match pair {
            [name, value] if name == "--rounds" => rounds = value.parse().unwrap_or(rounds).max(1),
            [name, value] if name == "--sizes" => {
                sizes = value.split(',').filter_map(|size| size.parse().ok()).collect()
            }
            _ => {
                eprintln!("usage: failover [--rounds N] [--sizes N,N,…]");
                return ExitCode::from(2);
            }
        }
    }
    let rows: Vec<String> = sizes
        .iter()
        .map(|&contexts| {
            eprintln!("{contexts} contexts");
            // Few contexts are measured as often as takes as long as many do once.
            measure(contexts, rounds * (100_000 / contexts.max(1)).clamp(1, 10))
        })
        .collect();
    println!("{{\"rounds\":{rounds},\"results\":[{}]}}", rows.join(",\n"));
    ExitCode::SUCCESS
}
