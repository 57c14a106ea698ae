//! The fuzz targets of the state machines on a stable compiler: every input that the fuzzer kept, since it leads where no
//! other does, and what chance makes of them in a moment. A crash found by a longer run is put among them.

#[path = "../../fuzz/src/machines/mod.rs"]
#[allow(unreachable_pub, reason = "a library of its own in `fuzz`, a module here")]
mod machines;

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// The files in `fuzz/corpus/<target>`.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |path: std::path::PathBuf| (path.display().to_string(), fs::read(&path).unwrap());
    let corpus: Vec<_> = files.map(|file| read(file.unwrap().path())).collect();
    assert!(corpus.len() >= 8, "no corpus in {}", folder.display());
    corpus
}

fn run(target: &str, check: fn(&[u8])) {
    let corpus = corpus(target);
    for (name, input) in &corpus {
        println!("{name}");
        check(input);
    }
    let config = ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() };
    let holds = |octets: Vec<u8>| {
        check(&octets);
        Ok(())
    };
    // The first part of one input and the last of another, and chance behind them.
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let two = (prop::sample::select(inputs.clone()), prop::sample::select(inputs), any::<prop::sample::Index>());
    let spliced = (two, vec(any::<u8>(), 0..100)).prop_map(|((mut first, second, cut), chance)| {
        first.truncate(cut.index(first.len() + 1));
        [first, second, chance].concat()
    });
    TestRunner::new(config.clone()).run(&spliced, holds).unwrap();
    TestRunner::new(config).run(&vec(any::<u8>(), 0..600), holds).unwrap();
}

#[test]
fn shim6_machines() {
    run("shim6_machine", machines::shim6);
}

#[test]
fn bmp_machines() {
    run("bmp_machine", machines::bmp);
}

#[test]
fn dhcp_machines() {
    run("dhcp_machine", machines::dhcp);
}

#[test]
fn reap_machines() {
    // R5534-023, R5534-125
    run("reap_machine", machines::reap);
}

#[test]
fn names_machines() {
    run("names_machine", machines::names);
}
