//! Whatever boxes went through, a recording of what they were told is decided the same again.

use control::sim::life;

/// How many lives.
const SEEDS: u64 = 40;

#[test]
fn what_was_recorded_is_decided_the_same_again() {
    let (mut recordings, mut steps, mut octets) = (0, 0, 0);
    for seed in 0..SEEDS {
        for recording in life::record(seed) {
            recordings += 1;
            octets += recording.octets.len();
            steps += recording.replay().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
    println!("{recordings} recordings, {steps} inputs, {octets} octets");
    assert!(recordings > SEEDS && steps > 1000 * SEEDS, "{recordings} recordings, {steps} inputs");
}
