//! Traffic engineering by policy: which provider carries which contexts, in either direction.
//!
//! A policy ripens like all configuration: [`PolicyFile`] is what the JSON said, [`Policy`] what can be obeyed. From it, the
//! time and what was measured a [`Controller`] says which contexts should move; it knows no packet, no locator and no
//! clock. Providers are *ways* here, numbered as the site's configuration lists them, and contexts places in a table.
//!
//! | file | what it answers |
//! |---|---|
//! | `file` | what can be said in JSON; its schema |
//! | `place` | where in the text something was said |
//! | `check` | whether that can be obeyed |
//! | `window` | which hours of the week a rule is for |
//! | `matching` | the class of a pair |
//! | `rule` | a rule in force, and how much of a demand it wants where |
//! | `billing` | what a month's traffic costs, and what is paid already |
//! | `legs` | every context's direction: rate, way and rest, ordered by rate |
//! | `controller` | which contexts move |

pub mod billing;
mod check;
pub mod controller;
#[cfg(test)]
mod controller_tests;
pub mod file;
mod legs;
mod matching;
mod place;
pub mod rule;
#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

pub use check::diff;
pub use controller::{Controller, Move, Placing, WayState};
pub use file::PolicyFile;
pub use matching::{Class, PacketMatch, PairMatch};
pub use rule::{Rule, Split};
pub use window::Windows;

/// Most classes, the one for everything else not counted.
pub const CLASSES_MAX: usize = 64;

/// A direction of travel, seen from the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the peer.
    Out,
    /// From the peer.
    In,
}

impl Direction {
    /// Both.
    pub const BOTH: [Direction; 2] = [Direction::Out, Direction::In];

    /// Its place in pairs of things.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A policy that can be obeyed.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What it says of each provider, in the order of the site's configuration.
    pub ways: Vec<Terms>,
    /// First match wins; the last one takes everything.
    pub classes: Vec<Class>,
    /// Contexts that are moved in a second, at most.
    pub moves_per_s: u32,
    /// How far a provider may be from its target before anybody moves, as a part of what the class carries.
    pub tolerance: f64,
    /// How long a context that was moved is left alone.
    pub rest: Duration,
    /// What the site's clocks are ahead of UTC, in seconds.
    pub utc_offset: i32,
}

/// What a policy says of a provider. Rates are in octets a second, costs per unit of rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// `provider.name`.
    pub name: String,
    /// The first half of its locators.
    pub prefix: u64,
    /// What fits, out and in; nothing if that is not said.
    pub capacity: [Option<f64>; 2],
    /// What a unit of rate costs.
    pub cost: f64,
    /// What is paid for anyway.
    pub commit: f64,
    /// Whether it is billed by the 95th percentile of five-minute means.
    pub percentile: bool,
    /// Whether everybody should leave it.
    pub drain: bool,
}

/// What becomes of contexts when a provider that was lost is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailBack {
    /// It gets its share at once.
    #[default]
    AtOnce,
    /// The same, after it has been there for so long.
    After(Duration),
    /// New contexts get there, and nobody is moved back.
    NewSessions,
    /// Nobody gets there before the policy is loaded again, or an operator says so.
    Never,
}
