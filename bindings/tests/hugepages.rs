//! Starting with hugepages, or finding out that there are none.
//!
//! A start may reserve pages for good, so it happens in a child process, and the machine's reserve is put back after.

use std::fs;
use std::process::Command;

use bindings::{Eal, EalConfig, EalError, Errno, Hugepages, Mbuf, Memory, Pool, PoolError, Port, PortConfig};

const CHILD: &str = "PSHIM6_TEST_HUGEPAGES_CHILD";
const RESERVE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Puts the machine's reserve of hugepages back.
struct Reserve(Option<String>);

impl Drop for Reserve {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Only root could have changed it, and only root can put it back.
            let _ = fs::write(RESERVE, before);
        }
    }
}

#[test]
fn the_machine_is_left_to_decide_and_frames_pass_either_way() {
    let _reserve = Reserve(fs::read_to_string(RESERVE).ok());
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "run by the_machine_is_left_to_decide_and_frames_pass_either_way in a process of its own"]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        println!("skipped: only of use to its parent");
        return;
    }
    // A terabyte is refused before anything is touched, and that does not use up the one start.
    let too_much = EalConfig { memory_mb: 1 << 20, hugepages: Hugepages::Require, ..EalConfig::default() };
    let error = Eal::init(too_much).unwrap_err();
    assert!(matches!(error, EalError::Hugepages { wanted_mb: 0x10_0000, pages: 0x8_0000, .. }), "{error}");

    let devices = vec!["net_ring0".parse().unwrap(), "net_null0,size=64".parse().unwrap()];
    let cores = allowed_cores();
    let eal = Eal::init(EalConfig { memory_mb: 64, devices, ..EalConfig::default() }).unwrap();
    println!("{}", eal.memory());
    assert_eq!(allowed_cores(), cores, "nobody asked for a core, so this thread is not pinned to one");
    let ordinary = eal.arguments().iter().any(|argument| argument == "--no-huge");
    match eal.memory() {
        Memory::Hugepages { size_mb: 64, .. } => {
            assert!(!ordinary);
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            assert!(maps.contains("huge"), "no hugepage is mapped:\n{maps}");
        }
        Memory::Ordinary { size_mb: 64, reason } => assert!(ordinary && !reason.is_empty()),
        other => panic!("{other:?}"),
    }
    // Here, because the attempt takes all memory for a moment, which other tests of a process would notice.
    let error = Pool::create(&eal, "huge", 100_000_000, 0, 2048).unwrap_err();
    assert!(matches!(error, PoolError::Create { errno: Errno::ENOMEM, .. }), "{error}");
    assert!(error.to_string().contains("Cannot allocate memory"), "{error}");

    let pool = Pool::create(&eal, "frames", 4095, 0, 2048).unwrap();
    let (_port, mut queues) = Port::configure(&eal, "net_ring0", &pool, &PortConfig::default()).unwrap();
    let mut burst = Vec::new();
    assert!(pool.allocate_burst(b"a frame of sorts", 32, &mut burst));
    queues[0].transmit(&mut burst);
    queues[0].receive(&mut burst);
    assert_eq!(burst.len(), 32);
    assert!(burst.iter().all(|mbuf: &Mbuf| mbuf.bytes() == b"a frame of sorts"));
}

/// The cores the calling thread may run on, in the kernel's words.
fn allowed_cores() -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned()
}
