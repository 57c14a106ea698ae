//! Shares of ten thousand contexts with heavy-tailed rates: a smaller version of `examples/policy_shares.rs`.

#[path = "../examples/policy/model.rs"]
mod model;

use model::Model;

/// Steps until both directions are within a hundredth of their targets and stay so for a second.
fn settles(model: &mut Model, most: usize) -> usize {
    let mut good = 0;
    for step in 0..most + 10 {
        model.step();
        good = if model.error() <= 0.01 { good + 1 } else { 0 };
        if good == 10 {
            return step + 1 - 10;
        }
    }
    panic!("{:?} of {:?} after {most} steps", model.error(), model.targets());
}

#[test]
fn shares_are_within_a_hundredth_ten_seconds_after_any_change() {
    let mut model = Model::new(10_000, &[5.0, 3.0, 2.0], true, 7);
    // Contexts that come and go are noise of a size that depends on how many there are.
    model.churn = 0.001;
    settles(&mut model, 100);
    let calm = model.moves.len();
    model.set_weights(&[2.0, 3.0, 5.0]);
    let fewest = model.fewest_moves();
    settles(&mut model, 100);
    let moved = model.moves.len() - calm;
    assert!(moved < 3 * fewest + 30, "{moved} moves where {fewest} would do");
    model.set_up(2, false);
    settles(&mut model, 100);
    model.set_up(2, true);
    settles(&mut model, 100);
    let failed: u64 = model.controller.counts().failed.iter().sum();
    assert!(failed <= 20, "{failed}: only who was on the way to the provider when that was lost");
    model.controller.selfcheck();
}

#[test]
fn rates_that_stay_as_they_are_come_to_rest() {
    let mut model = Model::new(5_000, &[1.0, 1.0], true, 8);
    model.churn = 0.0;
    for _ in 0..400 {
        model.step();
    }
    let before = model.moves.len();
    for _ in 0..600 {
        model.step();
    }
    // Reports are noisy, a fifth more or less each; that must not look like an imbalance.
    assert!(model.moves.len() - before <= 20, "{} moves in a minute without a reason", model.moves.len() - before);
}

#[test]
fn splitting_by_hash_alone_is_ten_times_as_far_off() {
    let mut hashed = Model::new(10_000, &[5.0, 3.0, 2.0], false, 9);
    hashed.churn = 0.001;
    let mut steered = Model::new(10_000, &[5.0, 3.0, 2.0], true, 9);
    steered.churn = 0.001;
    for _ in 0..150 {
        hashed.step();
        steered.step();
    }
    let mean = |model: &mut Model| {
        let errors = (0..100).map(|_| {
            model.step();
            model.error()
        });
        errors.sum::<f64>() / 100.0
    };
    let (hashed, steered) = (mean(&mut hashed), mean(&mut steered));
    assert!(hashed > 5.0 * steered, "{hashed} by hash, {steered} steered");
}
