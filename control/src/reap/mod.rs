//! REAP (RFC 5534): notices that the path of a context has failed, finds a locator pair that works, and says when to
//! move there. One [`Reap`] per established context.
//!
//! **The idea.** Whoever sends is owed a sign of life within Send Timeout; whoever receives without sending pays with
//! Keepalives (*forced bidirectional detection*, RFC 5534 §4.1). When the sign stays out, probes walk the locator pairs
//! one after another, ever more slowly, until the peer reports that one of them arrived (§4.3). Each direction is judged
//! by itself, so two one-way paths are enough to keep a session alive.
//!
//! **The promise.** A pair becomes the current one only after the peer gave back the nonce of a probe that this context
//! sent on that pair, in this exploration. Nothing else moves traffic: no hint, no neighbour's misfortune, no probe we
//! did not send. Send Timer and Keepalive Timer never run together, neither runs while exploring, and two nodes on a
//! working path fall silent once their hosts do.
//!
//! **The parts.** `machine` is the state machine of §6, to be held against the RFC with a finger on each page, `event` what goes in and
//! out of it;
//! `exploration` is what a context only needs while it explores; `candidates` orders the pairs; `paths` is what contexts
//! tell each other, and the pace they keep together; `sightings` is what ordinary payload says about the ends of a path;
//! `config` holds the constants of §7.
//!
//! Time, randomness and input are arguments; outputs are pushed on a vector that the caller drains after each call, and
//! then asks for the next [`Reap::deadline`].
//!
//! ```
//! use std::sync::Arc;
//! use control::reap::{Config, LocalLocator, Output, PeerLocator, Reap, State};
//! use control::time::Instant;
//! use dataplane::wire::{Locator, LocatorPair};
//!
//! let at = |text: &str| Locator(text.parse().unwrap());
//! let local = [at("2001:db8:a::1")].map(LocalLocator::from);
//! let peer = [at("2001:db8:b::1"), at("2001:db8:c::1")].map(PeerLocator::from);
//! let current = LocatorPair { local: local[0].locator, peer: peer[0].locator };
//! let config = Arc::new(Config { jitter_percent: 0, ..Config::default() });
//! let mut reap = Reap::new(&config, current, &local[..], &peer[..]);
//!
//! // We send, and nothing comes back for a Send Timeout: exploration starts with the pair in use.
//! let mut rng = rand::rng();
//! let mut out = Vec::new();
//! reap.payload_out(Instant::START, &mut rng, &mut out);
//! assert_eq!(reap.deadline(), Some(Instant::from_millis(15_000)));
//! reap.expire(Instant::from_millis(15_000), &mut rng, &mut out);
//! assert_eq!(reap.state(), State::Exploring);
//! assert!(out.iter().any(|output| matches!(output, Output::SendProbe { pair, .. } if *pair == current)));
//! ```

mod candidates;
mod config;
mod event;
mod exploration;
mod machine;
mod paths;
mod sightings;
#[cfg(test)]
mod tests;

pub use candidates::{AddressStatus, LocalLocator, PeerLocator};
pub use config::{Config, ConfigError, Fraction, Order};
pub use event::{Activity, Direction, Output, ProbeRefused, Reason, State, Timers};
pub use machine::Reap;
pub use paths::{BookConfig, BookCounters, PathBook, PathKey, ProbeBudget, Status, Verdict};
pub use sightings::{Condition, Ends, Seen, Sightings};
