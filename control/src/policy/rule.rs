//! A rule in force: which ways a class may use in a direction, and how much of its demand it wants on each.

/// A way that a class never uses.
pub const NEVER: u8 = u8::MAX;
/// Preferred, ordinary and avoided ways.
pub const PREFERRED: u8 = 0;
/// See [`PREFERRED`].
pub const ORDINARY: u8 = 1;
/// See [`PREFERRED`].
pub const AVOIDED: u8 = 2;

/// Which ways, and how they share.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// How those that may be used share.
    pub split: Split,
    /// Of each way, which come first; [`NEVER`] for those that are never used.
    pub tiers: Vec<u8>,
}

/// How ways share.
#[derive(Clone, Debug, PartialEq)]
pub enum Split {
    /// In proportion to these numbers, among the ways of the best tier.
    Weights(Vec<f64>),
    /// What is paid for anyway first, then each way up to this part of its capacity, cheapest first; the rest by capacity.
    CheapestFirst {
        /// Above 0, up to 1.
        fill: f64,
    },
}

/// What a way has to offer to a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Whether it can be used now.
    pub usable: bool,
    /// Which ways come first, by the rule and by what the operator says.
    pub tier: u8,
    /// What fits; without end if that is not known.
    pub capacity: f64,
    /// What a unit costs.
    pub cost: f64,
    /// What is paid for anyway.
    pub paid: f64,
    /// What others have of it.
    pub taken: f64,
}

impl Rule {
    /// How much of a demand should go each way; nothing if there is no way at all.
    pub fn targets(&self, demand: f64, offers: &[Offer]) -> Option<Vec<f64>> {
        let best = offers.iter().filter(|it| it.usable && it.tier != NEVER).map(|it| it.tier).min()?;
        Some(match &self.split {
            Split::Weights(weights) => by_weight(demand, offers, best, weights),
            Split::CheapestFirst { fill } => cheapest(demand, offers, *fill),
        })
    }

    /// How much each way is wanted by a context that has no place yet, or had to leave the one it has: numbers of which only
    /// the proportion counts, none for ways it should not begin with.
    pub fn weights(&self, offers: &[Offer]) -> Vec<f64> {
        let none = || vec![0.0; offers.len()];
        let Some(best) = offers.iter().filter(|it| it.usable && it.tier != NEVER).map(|it| it.tier).min() else {
            return none();
        };
        match &self.split {
            Split::Weights(weights) => by_weight(1.0, offers, best, weights),
            // Somebody who comes anew is worth nothing yet, so it has to be said who is next.
            Split::CheapestFirst { fill } => {
                let used: f64 = offers.iter().map(|it| it.taken).sum();
                let bare: Vec<Offer> = offers.iter().map(|it| Offer { taken: 0.0, ..*it }).collect();
                let more = cheapest(used * 1.01 + 1.0, &bare, *fill);
                let now = cheapest(used, &bare, *fill);
                more.iter().zip(now).map(|(more, now)| (more - now).max(0.0)).collect()
            }
        }
    }
}

fn by_weight(demand: f64, offers: &[Offer], best: u8, weights: &[f64]) -> Vec<f64> {
    let here = |offer: &Offer| offer.usable && offer.tier == best;
    let weight = |at: usize| weights.get(at).copied().unwrap_or_default();
    let all: f64 = offers.iter().enumerate().filter(|(_, it)| here(it)).map(|(at, _)| weight(at)).sum();
    // Where only those are left that are to have nothing, something is better than nothing.
    let count = offers.iter().filter(|it| here(it)).count() as f64;
    let share = |at: usize| if all > 0.0 { weight(at) / all } else { 1.0 / count };
    offers.iter().enumerate().map(|(at, it)| if here(it) { demand * share(at) } else { 0.0 }).collect()
}

fn cheapest(demand: f64, offers: &[Offer], fill: f64) -> Vec<f64> {
    let mut order: Vec<usize> =
        (0..offers.len()).filter(|at| offers[*at].usable && offers[*at].tier != NEVER).collect();
    order.sort_by(|a, b| {
        let key = |at: usize| (offers[at].tier, offers[at].cost);
        let ((tier_a, cost_a), (tier_b, cost_b)) = (key(*a), key(*b));
        tier_a.cmp(&tier_b).then(cost_a.total_cmp(&cost_b))
    });
    let mut targets = vec![0.0; offers.len()];
    let mut left = demand;
    let paid = |offer: &Offer| offer.paid.min(offer.capacity * fill);
    let filled = |offer: &Offer| offer.capacity * fill;
    let levels: [&dyn Fn(&Offer) -> f64; 2] = [&paid, &filled];
    for level in levels {
        for at in &order {
            let room = (level(&offers[*at]) - offers[*at].taken - targets[*at]).max(0.0);
            let part = room.min(left);
            targets[*at] += part;
            left -= part;
        }
    }
    let capacity: f64 = order.iter().map(|at| offers[*at].capacity).sum();
    if left > 0.0 && capacity > 0.0 {
        // More than there should be: all have too much of it alike.
        order.iter().for_each(|at| targets[*at] += left * offers[*at].capacity / capacity);
    }
    targets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(capacity: f64, cost: f64, paid: f64) -> Offer {
        Offer { usable: true, tier: ORDINARY, capacity, cost, paid, taken: 0.0 }
    }

    #[test]
    fn weights_count_among_the_best_that_can_be_used() {
        let rule = Rule { split: Split::Weights(vec![6.0, 3.0, 1.0]), tiers: vec![ORDINARY; 3] };
        let mut offers = vec![offer(1.0, 0.0, 0.0); 3];
        assert_eq!(rule.targets(100.0, &offers).unwrap(), [60.0, 30.0, 10.0]);
        offers[0].usable = false;
        assert_eq!(rule.targets(100.0, &offers).unwrap(), [0.0, 75.0, 25.0]);
        offers[1].tier = AVOIDED;
        assert_eq!(rule.targets(100.0, &offers).unwrap(), [0.0, 0.0, 100.0]);
        offers[2].usable = false;
        assert_eq!(rule.targets(100.0, &offers).unwrap(), [0.0, 100.0, 0.0]);
        offers[1].tier = NEVER;
        assert_eq!(rule.targets(100.0, &offers), None);
    }

    #[test]
    fn who_is_to_have_nothing_has_it_when_nobody_else_is_there() {
        let rule = Rule { split: Split::Weights(vec![1.0, 0.0]), tiers: vec![ORDINARY; 2] };
        let mut offers = vec![offer(1.0, 0.0, 0.0); 2];
        assert_eq!(rule.targets(8.0, &offers).unwrap(), [8.0, 0.0]);
        offers[0].usable = false;
        assert_eq!(rule.targets(8.0, &offers).unwrap(), [0.0, 8.0]);
    }

    #[test]
    fn the_cheapest_is_filled_first_after_what_is_paid() {
        let rule = Rule { split: Split::CheapestFirst { fill: 0.8 }, tiers: vec![ORDINARY; 3] };
        let offers = [offer(100.0, 5.0, 10.0), offer(100.0, 1.0, 0.0), offer(200.0, 9.0, 0.0)];
        let targets = |demand| rule.targets(demand, &offers).unwrap();
        assert_eq!(targets(5.0), [5.0, 0.0, 0.0], "paid anyway");
        assert_eq!(targets(50.0), [10.0, 40.0, 0.0]);
        assert_eq!(targets(150.0), [70.0, 80.0, 0.0]);
        assert_eq!(targets(300.0), [80.0, 80.0, 140.0]);
        assert_eq!(targets(400.0), [100.0, 100.0, 200.0], "all too full alike");
        let mut busy = offers;
        busy[1].taken = 60.0;
        assert_eq!(rule.targets(50.0, &busy).unwrap(), [30.0, 20.0, 0.0], "others have some of it");
    }

    #[test]
    fn who_comes_anew_goes_where_there_is_room() {
        let rule = Rule { split: Split::CheapestFirst { fill: 0.5 }, tiers: vec![ORDINARY; 2] };
        let mut offers = [offer(100.0, 1.0, 0.0), offer(100.0, 2.0, 0.0)];
        assert!(rule.weights(&offers)[0] > 0.0 && rule.weights(&offers)[1] == 0.0);
        offers[0].taken = 50.0;
        assert!(rule.weights(&offers)[0] == 0.0 && rule.weights(&offers)[1] > 0.0);
    }

    proptest! {
        /// Whatever is offered, a demand is met in full, by ways that may be used, and by none below nothing.
        #[test]
        fn a_demand_is_met(
            ways in prop::collection::vec((any::<bool>(), 0u8..3, 1u32..1000, 0u32..9, 0u32..500, 0u32..500), 1..6),
            weights in prop::collection::vec(0u32..5, 6),
            demand in 1u32..5000,
            fill in prop::option::of(0.1f64..1.0),
        ) {
            let offers: Vec<Offer> = ways.iter().map(|&(usable, tier, capacity, cost, paid, taken)| Offer {
                usable, tier, capacity: capacity.into(), cost: cost.into(), paid: paid.into(), taken: taken.into(),
            }).collect();
            let split = match fill {
                None => Split::Weights(weights.iter().map(|it| f64::from(*it)).collect()),
                Some(fill) => Split::CheapestFirst { fill },
            };
            let rule = Rule { split, tiers: vec![ORDINARY; offers.len()] };
            match rule.targets(demand.into(), &offers) {
                None => prop_assert!(offers.iter().all(|it| !it.usable)),
                Some(targets) => {
                    prop_assert!((targets.iter().sum::<f64>() - f64::from(demand)).abs() < 1e-6);
                    prop_assert!(targets.iter().zip(&offers).all(|(target, it)| *target >= 0.0 && (it.usable || *target == 0.0)));
                }
            }
        }
    }
}
