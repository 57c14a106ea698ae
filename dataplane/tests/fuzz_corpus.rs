//! The fuzz targets on a stable compiler: every seed, and whatever mutation and chance make of the seeds in a moment.
//! A crash found by a longer run is put among the seeds, and so runs here for good.

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "a library of its own in `fuzz`, a module here")]
mod checks;

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

/// The files in `fuzz/seeds/<target>`.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let seeds: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    seeds
}

/// A seed with some octets replaced, some cut off its end, and some put there.
fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    // Values that decoders take for lengths, counts, flags and next headers.
    let octet = prop_oneof![prop::sample::select(vec![0, 1, 6, 7, 43, 44, 51, 58, 60, 128, 140, 255]), any::<u8>()];
    let changes = vec((any::<Index>(), octet), 0..8);
    (prop::sample::select(seeds), changes, any::<Index>(), 0usize..4, vec(any::<u8>(), 0..24)).prop_map(
        |(mut octets, changes, cut, whether_to_cut, tail)| {
            if whether_to_cut == 0 && !octets.is_empty() {
                octets.truncate(cut.index(octets.len()));
            }
            octets.extend(tail);
            for (index, octet) in changes {
                if let Some(last) = octets.len().checked_sub(1) {
                    octets[index.index(last + 1)] = octet;
                }
            }
            octets
        },
    )
}

fn run(target: &str, check: fn(&[u8])) {
    let seeds = seeds(target);
    seeds.iter().for_each(|seed| check(seed));
    let config = ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() };
    let holds = |octets: Vec<u8>| {
        check(&octets);
        Ok(())
    };
    // A runner counts its successes over all it runs, so each strategy has its own.
    TestRunner::new(config.clone()).run(&mutated(seeds), holds).unwrap();
    TestRunner::new(config).run(&vec(any::<u8>(), 0..200), holds).unwrap();
}

#[test]
fn control_messages() {
    run("control_message", checks::control_message);
}

#[test]
fn options() {
    run("options", checks::options);
}

#[test]
fn payload_headers() {
    run("payload_header", checks::payload_header);
}

#[test]
fn ipv6_chains() {
    run("ipv6_chain", checks::ipv6_chain);
}

#[test]
fn icmpv6_messages() {
    run("icmpv6", checks::icmpv6);
}

#[test]
fn ethernet_frames() {
    run("ethernet", checks::ethernet);
}
