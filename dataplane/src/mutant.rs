//! Faults that can be planted into the code, to see whether the simulator finds them.
//!
//! Only the feature `mutants` makes them possible, and nothing that is shipped is built with it: without it the macro
//! [`mutant!`](crate::mutant!) leaves nothing behind. `scripts/soak --mutants` plants one after the other.

#[cfg(feature = "mutants")]
use std::sync::atomic::{AtomicU8, Ordering};

/// A fault that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Locator lists of peers are believed without proof.
    SkipHba = 1,
    /// Every responder nonce and validator is as good as ours.
    AnyNonce,
    /// Payload moves to a pair when a probe is sent on it, not when the peer has answered.
    NoReachability,
    /// When the peer answers a probe, payload moves to any pair that was probed, not to one that was answered.
    AnyProbedPair,
    /// First packets that wait for a context are lost when it is ready.
    LoseHeld,
    /// What a host leaves behind is anybody's at once.
    ForgetQuarantine,
    /// A pair is a standby when it is to be tested, not when the peer has answered.
    StandbyUntested,
    /// A worker that has a copy of another's context keeps it when the context changes or goes.
    KeepCopies,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 8] = [
        Mutant::SkipHba,
        Mutant::AnyNonce,
        Mutant::NoReachability,
        Mutant::AnyProbedPair,
        Mutant::LoseHeld,
        Mutant::ForgetQuarantine,
        Mutant::StandbyUntested,
        Mutant::KeepCopies,
    ];

    /// Plants a fault in the whole program, instead of the one before; or none.
    #[cfg(feature = "mutants")]
    pub fn plant(mutant: Option<Mutant>) {
        PLANTED.store(mutant.map_or(0, |mutant| mutant as u8), Ordering::Relaxed);
    }

    /// Whether it is planted.
    #[cfg(feature = "mutants")]
    pub fn is_planted(self) -> bool {
        PLANTED.load(Ordering::Relaxed) == self as u8
    }
}

#[cfg(feature = "mutants")]
static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Where a fault may be planted: `mutant!(SkipHba, return Ok(()))`.
#[macro_export]
macro_rules! mutant {
    ($fault:ident, $act:expr) => {
        #[cfg(feature = "mutants")]
        {
            if $crate::mutant::Mutant::$fault.is_planted() {
                $act
            }
        }
    };
}
