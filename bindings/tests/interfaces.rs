//! Frames through devices that end in the kernel: AF_PACKET on a veth pair, and TAP.
//!
//! These need root: the test makes a network namespace, runs itself inside it and takes it down again, so nothing of
//! the machine's network is touched. Without root it says that it was skipped; with root everything has to work.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use bindings::{Mac, Mbuf, Pool, Port, PortConfig, PortError, QueuePair, Rss, testing};

const INSIDE: &str = "PSHIM6_TEST_INSIDE_NAMESPACE";

/// A namespace of this test process, gone with it.
struct Namespace(String);

impl Namespace {
    fn new(purpose: &str) -> Self {
        let name = format!("pshim6-{purpose}-{}", std::process::id());
        run("ip", &["netns", "add", &name]);
        Namespace(name)
    }

    /// Runs the ignored test `name` of this binary inside.
    fn run_test(&self, name: &str) {
        let binary = std::env::current_exe().unwrap();
        let status = Command::new("ip")
            .args(["netns", "exec", &self.0])
            .arg(binary)
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{name} failed inside {}", self.0);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Interfaces inside go with it. A failure here is shown by `ip` and must not hide the test's own.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(command: &str, arguments: &[&str]) {
    let status = Command::new(command).args(arguments).status().unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(status.success(), "{command} {arguments:?}: {status}");
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    uids.split_whitespace().nth(1) == Some("0")
}

/// Runs `inside` in a namespace of its own, or says why not.
fn in_namespace(purpose: &str, inside: &str) {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    Namespace::new(purpose).run_test(inside);
}

/// Whether this is the process inside the namespace.
fn is_inside() -> bool {
    let inside = std::env::var_os(INSIDE).is_some();
    if !inside {
        println!("skipped: only of use to its parent, inside a namespace");
    }
    inside
}

/// Receives until `wanted` packets that `mine` knows are there or five seconds have passed. The kernel talks too
/// (multicast listener reports, router solicitations).
fn collect(queue: &mut QueuePair, wanted: usize, mine: impl Fn(&[u8]) -> bool) -> Vec<Mbuf> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let (mut burst, mut kept) = (Vec::with_capacity(32), Vec::new());
    while kept.len() < wanted && Instant::now() < deadline {
        queue.receive(&mut burst);
        kept.extend(burst.drain(..).filter(|mbuf| mine(mbuf.bytes())));
    }
    kept
}

/// Sends all of `burst`, or fails after five seconds.
fn send(queue: &mut QueuePair, burst: &mut Vec<Mbuf>) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !burst.is_empty() {
        assert!(Instant::now() < deadline, "{} frames cannot be sent", burst.len());
        queue.transmit(burst);
    }
}

#[test]
fn af_packet_carries_frames_over_a_veth_pair() {
    in_namespace("veth", "veth_inside");
}

#[test]
#[ignore = "run by af_packet_carries_frames_over_a_veth_pair inside a namespace"]
fn veth_inside() {
    if !is_inside() {
        return;
    }
    run("ip", &["link", "add", "left", "type", "veth", "peer", "name", "right"]);
    for end in ["left", "right"] {
        run("ip", &["link", "set", end, "up"]);
    }
    let pool = testing::pool();
    let config = PortConfig { mtu: 1400, ..PortConfig::default() };
    assert_too_long(&pool);
    let (port_left, mut left) = testing::port("net_af_packet", ",iface=left,qpairs=1", &pool, &config);
    let (port_right, mut right) = testing::port("net_af_packet", ",iface=right,qpairs=1", &pool, &config);
    assert!(port_left.link_up() && port_right.link_up());
    assert_eq!(port_left.mac(), mac_of("left"));
    assert_eq!(port_right.mac(), mac_of("right"));
    assert_eq!(std::fs::read_to_string("/sys/class/net/left/mtu").unwrap().trim(), "1400");

    let experimental = |bytes: &[u8]| bytes[12..14] == [0x88, 0xb5];
    let make = |number: u8, octets: usize| {
        let mut frame = vec![number; octets];
        frame[..6].copy_from_slice(&port_right.mac().0);
        frame[6..12].copy_from_slice(&port_left.mac().0);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frame
    };
    let frames: Vec<Vec<u8>> = (0..100u8).map(|n| make(n, 60 + usize::from(n) * 13)).collect();
    for chunk in frames.chunks(25) {
        let mut burst = chunk.iter().map(|frame| pool.allocate(frame).unwrap()).collect();
        send(&mut left[0], &mut burst);
        let got = collect(&mut right[0], chunk.len(), experimental);
        assert_eq!(got.iter().map(Mbuf::bytes).collect::<Vec<_>>(), chunk);
        // And back, as they came: the buffers change owners three times.
        let mut burst = got;
        send(&mut right[0], &mut burst);
        let got = collect(&mut left[0], chunk.len(), experimental);
        assert_eq!(got.iter().map(Mbuf::bytes).collect::<Vec<_>>(), chunk);
    }
    assert!(port_left.stats().unwrap().tx_frames >= 100);

    // A cut is seen, sending into it does not block (and holds no buffer for ever), and a healed link carries again.
    run("ip", &["link", "set", "right", "down"]);
    wait_for("the cut to show", || !port_left.link_up());
    for _ in 0..200 {
        let mut burst: Vec<Mbuf> = (0..16).filter_map(|_| pool.allocate(&frames[0])).collect();
        left[0].transmit(&mut burst);
    }
    run("ip", &["link", "set", "right", "up"]);
    wait_for("the link to heal", || port_left.link_up() && port_right.link_up());
    let mut got = Vec::new();
    wait_for("a frame after healing", || {
        left[0].transmit(&mut vec![pool.allocate(&frames[7]).unwrap()]);
        right[0].receive(&mut got);
        got.reserve(32);
        got.iter().any(|mbuf: &Mbuf| mbuf.bytes() == frames[7])
    });
    drop(got);
    drop((port_left, left, port_right, right));
    assert_eq!(pool.available(), pool.count());
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < deadline, "waited five seconds for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The driver's own bound on frames is told, not met later by packets that vanish.
fn assert_too_long(pool: &Pool) {
    let name = testing::unique("net_af_packet_long");
    testing::eal().attach(&format!("{name},iface=left").parse().unwrap()).unwrap();
    let config = PortConfig { mtu: 1501, ..PortConfig::default() };
    let error = Port::configure(testing::eal(), &name, pool, &config).unwrap_err();
    assert_eq!(error, PortError::Mtu { name, asked: 1501, most: 1500 });
}

fn mac_of(interface: &str) -> Mac {
    let text = std::fs::read_to_string(format!("/sys/class/net/{interface}/address")).unwrap();
    let mut mac = [0; 6];
    for (octet, text) in mac.iter_mut().zip(text.trim().split(':')) {
        *octet = u8::from_str_radix(text, 16).unwrap();
    }
    Mac(mac)
}

const HOST: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const PEER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

#[test]
fn tap_exchanges_packets_with_the_kernel() {
    in_namespace("tap", "tap_inside");
}

#[test]
#[ignore = "run by tap_exchanges_packets_with_the_kernel inside a namespace"]
fn tap_inside() {
    if !is_inside() {
        return;
    }
    let pool = testing::pool();
    let (port, mut queues) = testing::port("net_tap", ",iface=site0", &pool, &PortConfig::default());
    run("ip", &["link", "set", "site0", "up"]);
    run("ip", &["addr", "add", &format!("{HOST}/64"), "dev", "site0", "nodad"]);
    run("ip", &["neigh", "add", &PEER.to_string(), "lladdr", "02:00:00:00:00:02", "dev", "site0"]);
    let socket = UdpSocket::bind(SocketAddrV6::new(HOST, 4000, 0, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();

    socket.send_to(b"from the kernel", SocketAddrV6::new(PEER, 5000, 0, 0)).unwrap();
    let is_ours = |bytes: &[u8]| bytes.get(20) == Some(&17) && bytes.get(56..58) == Some(&5000u16.to_be_bytes());
    let got = collect(&mut queues[0], 1, is_ours);
    assert_eq!(got.len(), 1, "no datagram came out of the TAP device");
    let bytes = got[0].bytes();
    assert_eq!((&bytes[..6], &bytes[6..12]), (&PEER_MAC[..], &mac_of("site0").0[..]));
    assert_eq!((&bytes[22..38], &bytes[38..54]), (&HOST.octets()[..], &PEER.octets()[..]));
    assert_eq!(&bytes[62..], b"from the kernel");

    let answer = udp_frame(mac_of("site0"), b"from DPDK");
    let mut buffer = [0; 100];
    let mut received = None;
    // The kernel makes an address fully its own a moment after taking it, and DPDK's TAP driver has it signal this
    // process for each packet, which interrupts a wait with a timeout. Both pass.
    wait_for("the datagram to reach the socket", || {
        send(&mut queues[0], &mut vec![pool.allocate(&answer).unwrap()]);
        received = match socket.recv_from(&mut buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => None,
            received => Some(received.unwrap()),
        };
        received.is_some()
    });
    let (octets, from) = received.unwrap();
    assert_eq!((&buffer[..octets], from), (&b"from DPDK"[..], SocketAddrV6::new(PEER, 5000, 0, 0).into()));

    drop((port, queues));
    assert!(!std::path::Path::new("/sys/class/net/site0").exists(), "a closed TAP device takes its interface along");
}

/// A datagram from the peer to the host, checksum and all.
fn udp_frame(to: Mac, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut udp = [5000u16, 4000, length, 0].map(u16::to_be_bytes).concat();
    udp.extend(payload);
    let pseudo = [&PEER.octets()[..], &HOST.octets()[..], &u32::from(length).to_be_bytes(), &[0, 0, 0, 17]].concat();
    let sum: u32 = [pseudo, udp.clone()]
        .iter()
        .flat_map(|part| part.chunks(2))
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    let checksum = !((folded >> 16) + (folded & 0xffff)) as u16;
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = [&to.0[..], &PEER_MAC, &[0x86, 0xdd, 0x60, 0, 0, 0], &length.to_be_bytes(), &[17, 64]].concat();
    frame.extend(PEER.octets());
    frame.extend(HOST.octets());
    frame.extend(udp);
    frame
}

#[test]
fn tap_has_several_queues_and_can_be_reset() {
    in_namespace("taps", "taps_inside");
}

#[test]
#[ignore = "run by tap_has_several_queues_and_can_be_reset inside a namespace"]
fn taps_inside() {
    if !is_inside() {
        return;
    }
    let pool = testing::pool();
    let config = PortConfig { queues: 2, rss: Some(Rss::Addresses), ..PortConfig::default() };
    let (port, mut queues) = testing::port("net_tap", ",iface=site1", &pool, &config);
    assert_eq!((port.mtu(), queues.len(), port.offloads().unwrap()), (1500, 2, (0, 0)));
    run("ip", &["link", "set", "site1", "up"]);
    run("ip", &["addr", "add", &format!("{HOST}/64"), "dev", "site1", "nodad"]);
    run("ip", &["neigh", "add", &PEER.to_string(), "lladdr", "02:00:00:00:00:02", "dev", "site1"]);

    // Whatever queue the kernel chooses for a flow, all of it is there.
    let payload: Vec<u8> = (0..1400u32).map(|at| at as u8).collect();
    let sockets: Vec<UdpSocket> =
        (0..32).map(|at| UdpSocket::bind(SocketAddrV6::new(HOST, 4000 + at, 0, 0)).unwrap()).collect();
    for socket in &sockets {
        socket.send_to(&payload, SocketAddrV6::new(PEER, 5000, 0, 0)).unwrap();
    }
    let is_ours = |bytes: &[u8]| bytes.get(20) == Some(&17) && bytes.get(56..58) == Some(&5000u16.to_be_bytes());
    let mut ports = Vec::new();
    let mut shares = [0; 2];
    wait_for("all datagrams", || {
        for (queue, share) in queues.iter_mut().zip(&mut shares) {
            let mut burst = Vec::with_capacity(32);
            queue.receive(&mut burst);
            for mbuf in burst.iter().filter(|mbuf| is_ours(mbuf.bytes())) {
                assert_eq!(&mbuf.bytes()[62..], payload);
                ports.push(u16::from_be_bytes([mbuf.bytes()[54], mbuf.bytes()[55]]));
                *share += 1;
            }
        }
        ports.len() >= 32
    });
    ports.sort_unstable();
    assert_eq!(ports, (4000..4032).collect::<Vec<u16>>());
    println!("shares of the queues: {shares:?}, {:?}", port.spread());
    let answer = udp_frame(mac_of("site1"), &payload);
    let mut buffer = vec![0; 1500];
    sockets[0].set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    wait_for("a datagram to reach its socket", || {
        send(&mut queues[1], &mut vec![pool.allocate(&answer).unwrap()]);
        matches!(sockets[0].recv_from(&mut buffer), Ok((1400, _)))
    });
    assert_eq!(buffer[..1400], payload);

    run("ip", &["link", "set", "site1", "down"]);
    wait_for("the cut to show", || !port.link_up());
    run("ip", &["link", "set", "site1", "up"]);
    wait_for("the link to heal", || port.link_up());

    // Set up anew, it is the same device with the same queues.
    let (stop, done) = (std::sync::atomic::AtomicBool::new(false), std::sync::atomic::Ordering::Relaxed);
    let (mac, mut queues) = std::thread::scope(|scope| {
        let turning = scope.spawn(|| {
            while !stop.load(done) {
                for queue in &mut queues {
                    queue.receive(&mut Vec::with_capacity(32));
                }
            }
            queues
        });
        port.reset().unwrap();
        stop.store(true, done);
        (mac_of("site1"), turning.join().unwrap())
    });
    assert_eq!(mac, port.mac());
    run("ip", &["link", "set", "site1", "up"]);
    // A link that goes down takes its addresses along.
    run("ip", &["addr", "add", &format!("{HOST}/64"), "dev", "site1", "nodad"]);
    wait_for("a datagram after the reset", || {
        send(&mut queues[0], &mut vec![pool.allocate(&answer).unwrap()]);
        matches!(sockets[0].recv_from(&mut buffer), Ok((1400, _)))
    });
}
