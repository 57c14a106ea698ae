//! BFD (RFC 5880), as far as two boxes need it to know at once that a path between them is dead: one [`Session`] for each path,
//! in asynchronous mode, without authentication, echo or demand.
//!
//! **The idea.** Both ends send a small packet every 50 ms, saying whether they hear the other. Whoever hears nothing for three of
//! them, or is told that it is not heard, knows that the path has failed. **The promise.** The machine is pure: time, randomness
//! and packets come in, packets and news go out. How a packet travels is not its matter (docs/decisions: path liveness).
//!
//! ```text
//!                              +--+
//!                              |  | UP, ADMIN DOWN, TIMER
//!                              |  V
//!                      DOWN  +------+  INIT
//!               +------------|      |------------+
//!               |            | DOWN |            |
//!               |  +-------->|      |<--------+  |
//!               |  |         +------+         |  |
//!               |  |                          |  |
//!               |  |               ADMIN DOWN,|  |
//!               |  |ADMIN DOWN,          DOWN,|  |
//!               |  |TIMER                TIMER|  |
//!               V  |                          |  V
//!             +------+                      +------+
//!        +----|      |                      |      |----+
//!    DOWN|    | INIT |--------------------->|  UP  |    |INIT, UP
//!        +--->|      | INIT, UP             |      |<---+
//!             +------+                      +------+
//! ```
//!
//! Where it is stricter than the RFC, because tags can be guessed with more luck than two discriminators (§6.8.6): while a session is
//! up a packet has to name *both*, so nobody who cannot see the packets brings it down. One that does not name ours is taken only by a
//! session that is down, or has just begun to hear that peer, as a sign that somebody is there. For that, a session that expires goes
//! on naming the peer's discriminator for a Detection Time before it forgets it (§6.8.1). Its own is another one from then on, so
//! that packets of the old session, sent again, mean nothing to the next. And a timer that was looked at late declares nothing: what
//! should have stopped it may be waiting in the same queue.

mod session;
#[cfg(test)]
mod tests;

use std::time::Duration;

use dataplane::wire::bfd::Packet;
pub use dataplane::wire::bfd::{Diagnostic, State};
use serde::{Deserialize, Serialize};

pub use session::Session;

/// The least interval of who is not up (RFC 5880 §6.8.3).
pub const SLOW: Duration = Duration::from_secs(1);

/// How a session is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// bfd.DesiredMinTxInterval while Up, and bfd.RequiredMinRxInterval.
    pub interval: Duration,
    /// bfd.DetectMult; not zero.
    pub multiplier: u8,
}

/// What a session wants, or has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this.
    Send(Packet),
    /// Both ends hear each other.
    Up,
    /// They did, and do not any more.
    Down(Cause),
    /// The Detection Time is over, and nothing follows from it: the timer was looked at late, or packets may have been lost here.
    Excused,
    /// That has gone on for too long: the session goes down, as if there had been no reason to doubt it.
    Unexcused,
}

/// Why a session left Up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Nothing came for the Detection Time.
    Silent,
    /// The peer says that it hears nothing.
    Told,
    /// The peer says so because we sent nothing for too long.
    Stalled,
    /// The peer ends the session: that says nothing of the path.
    Ended,
}

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It names another session, or none where it must.
    #[error("discriminators of another session")]
    Stranger,
    /// The session is administratively down.
    #[error("the session is being ended")]
    Shut,
    /// There were more than were asked for.
    #[error("too many packets")]
    TooMany,
}

/// A session, for another process that goes on with it. Times are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Discriminators, ours first.
    pub discriminators: (u32, u32),
    /// Codes of the states, ours first.
    pub states: (u8, u8),
    /// Our interval, as the peer was told.
    pub interval: u32,
    /// The peer's multiplier, Desired Min TX and Required Min RX.
    pub remote: (u8, u32, u32),
}
