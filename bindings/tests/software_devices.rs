//! Frames through DPDK's software devices that need neither root nor a NIC.
//!
//! One process, one EAL without hugepages; each test attaches a device of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bindings::{
    DeviceSpec, Eal, EalConfig, EalError, Errno, Lcore, Mbuf, Memory, Pool, PoolError, Port, PortConfig, PortError,
    PortEvents, QueuePair, RSS_KEY_MAX, Rss, Spread, testing,
};

/// An Ethernet frame of the local experimental type, told apart by `number`.
fn frame(number: u32, octets: usize) -> Vec<u8> {
    let mut frame = vec![0; octets];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes([frame[14], frame[15], frame[16], frame[17]])
}

/// Receives until `wanted` packets are there or five seconds have passed.
fn collect(queue: &mut QueuePair, wanted: usize) -> Vec<Mbuf> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut burst = Vec::with_capacity(wanted);
    while burst.len() < wanted && Instant::now() < deadline {
        queue.receive(&mut burst);
    }
    burst
}

#[test]
fn a_started_eal_leaves_no_folder() {
    let _ = testing::eal();
    let name = format!("pshim6-{}", std::process::id());
    // Where DPDK puts it: for root, and for others with and without a session.
    let session = std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| "/tmp".into());
    for folder in ["/var/run", session.as_str()] {
        let folder = PathBuf::from(folder).join("dpdk").join(&name);
        assert!(!folder.exists(), "{}", folder.display());
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = testing::unique(&format!("pshim6-devices-{}-", std::process::id()));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_eal_starts_once() {
    let eal = testing::eal();
    assert!(matches!(eal.memory(), Memory::Ordinary { size_mb: 512, .. }));
    assert!(eal.version().contains("DPDK"), "{}", eal.version());
    assert_eq!(Eal::init(EalConfig::default()).unwrap_err(), EalError::AlreadyStarted);
}

#[test]
fn a_packet_grows_and_shrinks_within_its_buffer() {
    let pool = testing::pool();
    let mut mbuf = pool.allocate(&frame(7, 60)).unwrap();
    assert_eq!((mbuf.len(), mbuf.headroom()), (60, usize::from(bindings::HEADROOM)));
    assert!(mbuf.prepend(8));
    assert_eq!((mbuf.len(), mbuf.headroom()), (68, 120));
    assert_eq!(&mbuf.bytes()[8..], frame(7, 60));
    mbuf.bytes_mut()[..8].fill(0xaa);
    assert!(!mbuf.prepend(121) && !mbuf.prepend(usize::MAX), "there are 120 octets of room");
    assert!(mbuf.prepend(120) && !mbuf.prepend(1));
    mbuf.trim_front(120);
    assert_eq!(mbuf.bytes()[..8], [0xaa; 8]);
    mbuf.trim_front(8);
    mbuf.truncate(1000);
    assert_eq!(mbuf.bytes(), frame(7, 60));
    mbuf.truncate(20);
    assert_eq!(mbuf.bytes(), &frame(7, 60)[..20]);
    mbuf.trim_front(21);
    assert!(mbuf.is_empty());
}

#[test]
fn an_empty_pool_says_so_and_dropped_packets_fill_it_again() {
    let eal = testing::eal();
    let pool = Pool::create(eal, &testing::unique("small"), 63, 0, 256).unwrap();
    let mut held: Vec<Mbuf> = (0..63).map(|n| pool.allocate(&frame(n, 64)).unwrap()).collect();
    assert!(pool.allocate(&[]).is_none());
    assert!(!pool.allocate_burst(&frame(0, 64), 1, &mut held));
    assert_eq!((held.len(), pool.available()), (63, 0));
    drop(held.pop());
    assert_eq!(pool.available(), 1);
    Mbuf::free_burst(&mut held);
    assert_eq!((held.len(), pool.available()), (0, 63));
    assert!(pool.allocate(&[0; 257]).is_none(), "256 octets fit");
    assert_eq!(pool.allocate(&[1; 256]).unwrap().bytes(), [1; 256]);
    assert!(pool.allocate_burst(&frame(9, 64), 63, &mut held));
    assert!(held.iter().all(|mbuf| mbuf.bytes() == frame(9, 64)));
}

#[test]
fn pools_that_cannot_be_are_refused_with_a_reason() {
    let eal = testing::eal();
    let name = testing::unique("twice");
    let _first = Pool::create(eal, &name, 15, 0, 128).unwrap();
    let again = Pool::create(eal, &name, 15, 0, 128).unwrap_err();
    assert!(matches!(again, PoolError::Create { errno: Errno::EEXIST, .. }), "{again}");
    assert!(again.to_string().contains("File exists"), "{again}");
    for (name, count, cache, room) in [("", 15, 0, 128), ("x", 15, 11, 128), ("x", 4095, 513, 128), ("x", 15, 0, 65500)]
    {
        assert!(matches!(Pool::create(eal, name, count, cache, room), Err(PoolError::Invalid { .. })));
    }
}

#[test]
fn a_ring_device_gives_back_what_it_was_given_in_order() {
    let pool = testing::pool();
    let (port, mut queues) = testing::port("net_ring", "", &pool, &PortConfig { queues: 2, ..PortConfig::default() });
    assert!(port.link_up());
    assert!(port.max_queues() >= 2);
    let before = pool.available();
    let mut burst: Vec<Mbuf> = (0..32).map(|n| pool.allocate(&frame(n, 60 + n as usize)).unwrap()).collect();
    queues[1].transmit(&mut burst);
    assert!(burst.is_empty());
    queues[0].receive(&mut Vec::with_capacity(8));
    let got = collect(&mut queues[1], 32);
    for (n, mbuf) in got.iter().enumerate() {
        assert_eq!(mbuf.bytes(), frame(n as u32, 60 + n));
    }
    assert_eq!(got.len(), 32);
    let stats = port.stats().unwrap();
    assert_eq!((stats.tx_frames, stats.rx_frames), (32, 32));
    drop(got);
    assert_eq!(pool.available(), before);
}

#[test]
fn what_a_full_device_does_not_take_stays_in_order() {
    let eal = testing::eal();
    let pool = Pool::create(eal, &testing::unique("full"), 2047, 0, 2048).unwrap();
    let (_port, mut queues) = testing::port("net_ring", "", &pool, &PortConfig::default());
    let mut burst: Vec<Mbuf> = (0..2000).map(|n| pool.allocate(&frame(n, 64)).unwrap()).collect();
    queues[0].transmit(&mut burst);
    let taken = 2000 - burst.len() as u32;
    assert!(taken > 0 && taken < 2000, "the ring has an end: {taken}");
    assert_eq!(number(burst[0].bytes()), taken);
    assert_eq!(number(burst.last().unwrap().bytes()), 1999);
    let mut got = collect(&mut queues[0], taken as usize);
    queues[0].transmit(&mut burst);
    assert!(burst.is_empty());
    got.append(&mut collect(&mut queues[0], 2000 - taken as usize));
    assert!(got.iter().map(|mbuf| number(mbuf.bytes())).eq(0..2000));
    drop(got);
    assert_eq!(pool.available(), 2047);
}

#[test]
fn reception_fills_spare_capacity_and_no_more() {
    let pool = testing::pool();
    let (_port, mut queues) = testing::port("net_null", ",size=128", &pool, &PortConfig::default());
    let mut burst = Vec::with_capacity(40);
    burst.push(pool.allocate(&frame(1, 60)).unwrap());
    let capacity = burst.capacity();
    for _ in 0..4 {
        queues[0].receive(&mut burst);
    }
    assert_eq!((burst.len(), burst.capacity()), (capacity, capacity));
    assert_eq!(number(burst[0].bytes()), 1);
    assert!(burst[1..].iter().all(|mbuf| mbuf.len() == 128));
    queues[0].transmit(&mut burst);
    assert!(burst.is_empty());
    assert_eq!(pool.available(), pool.count(), "the device frees what it sends");
}

#[test]
fn a_closed_device_is_gone_and_can_be_attached_anew() {
    let eal = testing::eal();
    let pool = testing::pool();
    let name = testing::unique("net_null_again");
    let spec: DeviceSpec = name.parse().unwrap();
    let config = PortConfig::default();
    for _ in 0..3 {
        let missing = Port::configure(eal, &name, &pool, &config).unwrap_err();
        assert_eq!(missing, PortError::Missing { name: name.clone() });
        eal.attach(&spec).unwrap();
        let (port, queues) = Port::configure(eal, &name, &pool, &config).unwrap();
        let busy = Port::configure(eal, &name, &pool, &config).unwrap_err();
        assert_eq!(busy, PortError::Busy { name: name.clone() });
        drop(port);
        // The queues keep it open.
        let busy = Port::configure(eal, &name, &pool, &config).unwrap_err();
        assert_eq!(busy, PortError::Busy { name: name.clone() });
        drop(queues);
    }
}

#[test]
fn settings_a_device_cannot_have_are_refused_before_it_is_touched() {
    let eal = testing::eal();
    let pool = testing::pool();
    let name = testing::unique("net_null_settings");
    eal.attach(&name.parse().unwrap()).unwrap();
    let most = Port::max_queues_of(eal, &name).unwrap();
    for queues in [0, most + 1] {
        let error = Port::configure(eal, &name, &pool, &PortConfig { queues, ..PortConfig::default() }).unwrap_err();
        assert_eq!(error, PortError::Queues { name: name.clone(), asked: queues, most });
    }
    let error = Port::configure(eal, &name, &pool, &PortConfig { mtu: 2031, ..PortConfig::default() }).unwrap_err();
    assert_eq!(error, PortError::Room { name: name.clone(), mtu: 2031, needed: 2049, room: 2048 });
    let few = Pool::create(eal, &testing::unique("few"), 1023, 0, 2048).unwrap();
    let error = Port::configure(eal, &name, &few, &PortConfig::default()).unwrap_err();
    assert_eq!(error, PortError::Buffers { name: name.clone(), needed: 1024, available: 1023 });
    let rss = Some(Rss::AddressesAndPorts);
    let (port, queues) =
        Port::configure(eal, &name, &pool, &PortConfig { queues: 2, rss, ..PortConfig::default() }).unwrap();
    assert_eq!((port.mtu(), queues.len()), (1500, 2));
}

#[test]
fn a_device_that_does_not_come_up_says_why() {
    let eal = testing::eal();
    for text in
        ["net_pcap_absent,rx_pcap=/nonexistent/in.pcap", "net_nosuchdriver0", "net_af_packet_absent,iface=nope0"]
    {
        let error = eal.attach(&text.parse().unwrap()).unwrap_err();
        assert!(matches!(&error, EalError::Device { device, .. } if device == text), "{error}");
        assert!(error.to_string().len() > text.len() + 20, "{error}");
    }
    let name = testing::unique("net_null_twice");
    eal.attach(&name.parse().unwrap()).unwrap();
    let error = eal.attach(&name.parse().unwrap()).unwrap_err();
    assert!(matches!(error, EalError::Device { errno: Errno::EEXIST, .. }), "{error}");
}

/// A capture file of these frames: magic of microsecond stamps, version 2.4, Ethernet.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65535, 1] {
        file.extend(word.to_le_bytes());
    }
    for (second, frame) in frames.iter().enumerate() {
        for word in [second as u32, 0, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

/// The frames of a capture file.
fn frames_of(file: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &file[24..];
    let mut frames = Vec::new();
    while let Some((header, body)) = rest.split_at_checked(16) {
        let octets = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        frames.push(body[..octets].to_vec());
        rest = &body[octets..];
    }
    assert!(rest.is_empty());
    frames
}

#[test]
fn a_capture_is_read_and_another_written() {
    let folder = Folder::new();
    let sent: Vec<Vec<u8>> = (0..50).map(|n| frame(n, 60 + n as usize * 20)).collect();
    fs::write(folder.file("in.pcap"), pcap(&sent)).unwrap();
    let pool = testing::pool();
    let arguments = format!(",rx_pcap={},tx_pcap={}", folder.file("in.pcap"), folder.file("out.pcap"));
    let (port, mut queues) = testing::port("net_pcap", &arguments, &pool, &PortConfig::default());
    let mut burst = collect(&mut queues[0], 50);
    for (mbuf, expected) in burst.iter_mut().zip(&sent) {
        assert_eq!(mbuf.bytes(), expected);
        assert!(mbuf.prepend(8));
        mbuf.bytes_mut().copy_within(8..22, 0);
    }
    queues[0].transmit(&mut burst);
    assert!(burst.is_empty());
    drop((port, queues));
    let written = frames_of(&fs::read(folder.file("out.pcap")).unwrap());
    assert_eq!(written.len(), 50);
    for (written, sent) in written.iter().zip(&sent) {
        assert_eq!((written.len(), &written[..14], &written[22..]), (sent.len() + 8, &sent[..14], &sent[14..]));
    }
    assert_eq!(pool.available(), pool.count());
}

#[test]
fn a_packet_in_several_buffers_is_dropped_and_counted() {
    let folder = Folder::new();
    let sent = vec![frame(0, 60), frame(1, 1400), frame(2, 60), frame(3, 1400), frame(4, 60)];
    fs::write(folder.file("in.pcap"), pcap(&sent)).unwrap();
    let pool = Pool::create(testing::eal(), &testing::unique("narrow"), 127, 0, 512).unwrap();
    let arguments = format!(",rx_pcap={}", folder.file("in.pcap"));
    let config = PortConfig { mtu: 400, rx_desc: 64, ..PortConfig::default() };
    let (port, mut queues) = testing::port("net_pcap", &arguments, &pool, &config);
    let mut burst = Vec::with_capacity(32);
    // What is in the vector already is none of the queue's business.
    burst.push(pool.allocate(&frame(100, 60)).unwrap());
    let deadline = Instant::now() + Duration::from_secs(5);
    while burst.len() < 4 && Instant::now() < deadline {
        queues[0].receive(&mut burst);
    }
    assert_eq!(burst.iter().map(|mbuf| number(mbuf.bytes())).collect::<Vec<_>>(), [100, 0, 2, 4]);
    assert_eq!(port.stats().unwrap().rx_chained, 2);
    drop(burst);
    drop((port, queues));
    assert_eq!(pool.available(), pool.count(), "every buffer of the chains came back");
}

#[test]
fn packets_cross_a_ring_between_two_threads_in_order() {
    const PACKETS: u32 = 20_000;
    let eal = testing::eal();
    let pool = testing::pool();
    let (mut producer, mut consumer) = bindings::ring(eal, &testing::unique("ring"), 256).unwrap();
    let sender = std::thread::spawn({
        let pool = pool.clone();
        move || {
            let lcore = Lcore::register(eal).unwrap();
            assert_eq!(bindings::current_lcore(), Some(lcore.id()));
            assert!(Lcore::register(eal).is_err(), "a thread registers once");
            let mut burst = Vec::with_capacity(32);
            let mut next = 0;
            while next < PACKETS || !burst.is_empty() {
                while burst.len() < 32 && next < PACKETS {
                    let Some(mbuf) = pool.allocate(&frame(next, 64)) else { break };
                    burst.push(mbuf);
                    next += 1;
                }
                producer.push(&mut burst);
                std::thread::yield_now();
            }
            drop(lcore);
            assert_eq!(bindings::current_lcore(), None);
        }
    });
    let mut expected = 0;
    let mut burst = Vec::with_capacity(32);
    let deadline = Instant::now() + Duration::from_secs(30);
    while expected < PACKETS {
        assert!(Instant::now() < deadline, "stuck at {expected}");
        consumer.pop(&mut burst);
        for mbuf in burst.drain(..) {
            assert_eq!(number(mbuf.bytes()), expected);
            expected += 1;
        }
    }
    sender.join().unwrap();
    assert_eq!(pool.available(), pool.count());
}

#[test]
fn packets_left_in_a_ring_go_home_with_it() {
    let eal = testing::eal();
    let pool = testing::pool();
    let (mut producer, consumer) = bindings::ring(eal, &testing::unique("left"), 128).unwrap();
    let mut burst = Vec::new();
    assert!(pool.allocate_burst(&frame(0, 64), 200, &mut burst));
    producer.push(&mut burst);
    assert_eq!(burst.len(), 200 - 127);
    drop(burst);
    drop(consumer);
    assert_eq!(pool.available(), pool.count() - 127);
    drop(producer);
    assert_eq!(pool.available(), pool.count());
    assert!(bindings::ring(eal, &testing::unique("odd"), 100).is_err(), "not a power of two");
}

const PEER: &str = "PSHIM6_TEST_MEMIF_PEER";
const MEMIF_FRAMES: u32 = 500;

/// The other process of `memif_carries_frames_between_two_processes`: sends back what it gets, numbers inverted.
#[test]
#[ignore = "run by memif_carries_frames_between_two_processes in a process of its own"]
fn memif_peer() {
    let Ok(socket) = std::env::var(PEER) else {
        println!("skipped: only of use to its parent");
        return;
    };
    let pool = testing::pool();
    let arguments = format!(",role=client,socket={socket},socket-abstract=no");
    let (_port, mut queues) = testing::port("net_memif", &arguments, &pool, &PortConfig::default());
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut burst, mut answered) = (Vec::with_capacity(32), 0);
    while answered < MEMIF_FRAMES {
        assert!(Instant::now() < deadline, "{answered} of {MEMIF_FRAMES}");
        queues[0].receive(&mut burst);
        for mbuf in &mut burst {
            let inverted = !number(mbuf.bytes());
            mbuf.bytes_mut()[14..18].copy_from_slice(&inverted.to_be_bytes());
        }
        let before = burst.len();
        queues[0].transmit(&mut burst);
        answered += (before - burst.len()) as u32;
        std::thread::yield_now();
    }
    // The last frames lie in shared memory until the other side has read them: it ends this process.
    std::thread::sleep(Duration::from_secs(20));
}

struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn memif_carries_frames_between_two_processes() {
    // One process cannot be both ends: DPDK's driver keeps one role for each socket.
    let folder = Folder::new();
    let socket = folder.file("memif.sock");
    let pool = testing::pool();
    let arguments = format!(",role=server,socket={socket},socket-abstract=no");
    let (port, mut queues) = testing::port("net_memif", &arguments, &pool, &PortConfig::default());
    assert_eq!(port.mtu(), 1500, "a device that cannot set an MTU carries what was asked for");
    assert!(!port.link_up());
    let peer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memif_peer", "--ignored", "--nocapture"])
        .env(PEER, &socket)
        .spawn()
        .unwrap();
    let mut peer = Peer(peer);
    let deadline = Instant::now() + Duration::from_secs(15);
    while !port.link_up() {
        assert!(Instant::now() < deadline, "the peer does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut sent, mut received) = (0, 0);
    let (mut outgoing, mut incoming) = (Vec::with_capacity(32), Vec::with_capacity(32));
    while received < MEMIF_FRAMES {
        assert!(Instant::now() < deadline, "{received} of {sent}");
        assert!(peer.0.try_wait().unwrap().is_none(), "the peer ended early");
        while outgoing.len() < 32 && sent < MEMIF_FRAMES {
            let Some(mbuf) = pool.allocate(&frame(sent, 64 + sent as usize)) else { break };
            outgoing.push(mbuf);
            sent += 1;
        }
        queues[0].transmit(&mut outgoing);
        queues[0].receive(&mut incoming);
        for mbuf in incoming.drain(..) {
            assert_eq!((number(mbuf.bytes()), mbuf.len()), (!received, 64 + received as usize));
            received += 1;
        }
        std::thread::yield_now();
    }
}

#[test]
fn frames_are_spread_by_the_key_and_the_table_that_were_given() {
    // DPDK's null device hashes nothing, and keeps key and table like a NIC.
    let pool = testing::pool();
    let mut key = [0; RSS_KEY_MAX];
    key.iter_mut().zip(0..).for_each(|(octet, at)| *octet = 7u8.wrapping_mul(at).wrapping_add(3));
    let config = PortConfig { queues: 3, rss: Some(Rss::Addresses), rss_key: Some(key), ..PortConfig::default() };
    let (port, queues) = testing::port("net_null", "", &pool, &config);
    let spread = port.spread();
    assert!(spread.hash && spread.key && spread.table > 0, "{spread:?}");
    let every: Vec<u16> = (0..spread.table).map(|place| place % 3).collect();
    assert_eq!(port.spread_table(), Some(every));
    assert_eq!(queues.len(), 3);
    // One queue needs no hash, and a device without one says so.
    let (port, _queues) = testing::port("net_null", "", &pool, &PortConfig { queues: 1, ..config.clone() });
    assert_eq!((port.spread(), port.spread_table()), (Spread::default(), None));
    let (port, queues) = testing::port("net_ring", "", &pool, &config);
    assert_eq!((port.spread(), queues.len()), (Spread::default(), 3));
}

#[test]
fn no_device_is_asked_to_touch_what_a_packet_holds() {
    let pool = testing::pool();
    for (driver, queues) in [("net_null", 2), ("net_ring", 1)] {
        let config = PortConfig { queues, rss: Some(Rss::Addresses), ..PortConfig::default() };
        let (port, _queues) = testing::port(driver, "", &pool, &config);
        assert_eq!(port.offloads().unwrap(), (0, 0), "{driver}");
    }
}

#[test]
fn a_port_that_is_reset_goes_on_with_the_same_queues_under_traffic() {
    let pool = testing::pool();
    let (port, queues) = testing::port("net_ring", "", &pool, &PortConfig { queues: 2, ..PortConfig::default() });
    assert_eq!(port.events(), PortEvents::default());
    let stop = AtomicBool::new(false);
    let passed = [const { AtomicU64::new(0) }; 2];
    std::thread::scope(|scope| {
        for (mut pair, passed) in queues.into_iter().zip(&passed) {
            let (pool, stop) = (&pool, &stop);
            scope.spawn(move || {
                let mut got = Vec::with_capacity(32);
                let mut next = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut burst: Vec<Mbuf> = (next..next + 8).filter_map(|n| pool.allocate(&frame(n, 64))).collect();
                    let offered = burst.len();
                    pair.transmit(&mut burst);
                    next += (offered - burst.len()) as u32;
                    Mbuf::free_burst(&mut burst);
                    pair.receive(&mut got);
                    passed.fetch_add(got.len() as u64, Ordering::Relaxed);
                    Mbuf::free_burst(&mut got);
                }
            });
        }
        let grow = |at: usize| {
            let before = passed[at].load(Ordering::Relaxed);
            let deadline = Instant::now() + Duration::from_secs(10);
            while passed[at].load(Ordering::Relaxed) < before + 100 && Instant::now() < deadline {
                std::thread::yield_now();
            }
            passed[at].load(Ordering::Relaxed) >= before + 100
        };
        for _ in 0..20 {
            port.reset().unwrap();
            assert!(port.link_up() && grow(0) && grow(1));
        }
        stop.store(true, Ordering::Relaxed);
    });
    // Queues whose thread has gone are not waited for; one whose thread does not come by is.
    port.reset().unwrap();
    let (port, queues) = testing::port("net_ring", "", &pool, &PortConfig::default());
    let busy = port.reset().unwrap_err();
    assert!(matches!(busy, PortError::Step { errno: Errno::EBUSY, .. }), "{busy}");
    drop(queues);
    port.reset().unwrap();
}

#[test]
fn frames_of_nine_thousand_octets_pass_where_the_device_carries_them() {
    const MTU: u16 = 9000;
    let pool = Pool::create(testing::eal(), &testing::unique("jumbo"), 2047, 0, MTU + 192).unwrap();
    let config = PortConfig { mtu: MTU, ..PortConfig::default() };
    for driver in ["net_ring", "net_null"] {
        let (port, mut queues) = testing::port(driver, "", &pool, &config);
        assert_eq!((port.mtu(), port.offloads().unwrap()), (MTU, (0, 0)), "{driver}");
        let sent: Vec<Vec<u8>> = (0..8).map(|n| frame(n, usize::from(MTU) + 14 - n as usize)).collect();
        let mut burst: Vec<Mbuf> = sent.iter().map(|frame| pool.allocate(frame).unwrap()).collect();
        queues[0].transmit(&mut burst);
        assert!(burst.is_empty());
        if driver == "net_ring" {
            let got = collect(&mut queues[0], 8);
            assert_eq!(got.iter().map(Mbuf::bytes).collect::<Vec<_>>(), sent);
        }
    }
}

#[test]
fn buffers_come_from_the_memory_node_of_their_device() {
    let eal = testing::eal();
    let name = testing::unique("net_null_node");
    eal.attach(&name.parse().unwrap()).unwrap();
    let node = Port::socket_of(eal, &name).unwrap();
    let pool = Pool::create_on(eal, node, &testing::unique("near"), 2047, 0, 2048).unwrap();
    let (port, _queues) = Port::configure(eal, &name, &pool, &PortConfig::default()).unwrap();
    assert_eq!(port.socket(), node);
    let far = Pool::create_on(eal, Some(31), &testing::unique("far"), 63, 0, 256).unwrap_err();
    assert!(matches!(far, PoolError::Create { .. }), "there is no such node: {far}");
}
