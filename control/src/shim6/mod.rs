//! Shim6 (RFC 5533): context establishment, recovery and update, as a pure state machine.
//!
//! The idea: to its peers the box *is* each of its hosts. One [`Endpoint`] holds the contexts of all of them and does
//! what RFC 5533 says for each, row by row; where the RFC is silent or contradicts itself, a comment names the decision.
//!
//! The promise: time and randomness are arguments, packets come in as meaning and go out as meaning, and after each call
//! the outputs say in order what to do. Nothing a stranger sends costs memory before it has shown, by a validator, that
//! it answers where it says it is. No locator becomes a destination before it is proved to be the peer's and has
//! answered. Every packet that leads to nothing has a [`DropReason`].
//!
//! ```text
//!                 open: I1                       R1: I2
//!    IDLE ───────────────────────▶ I1-SENT ──────────────────▶ I2-SENT
//!     │ ▲                            │ ▲ │ R2, I2, I2bis          │ │
//!     │ │ hold-down over             │ │ └──────────┐          R2 │ │ no R2: I1, once
//!     │ │                   no answer│ │            ▼             │ │
//!     │ └── E-FAILED ◀───────────────┤ └────────────│─────────────│─┘
//!     │ └── NO-SUPPORT ◀─ICMPv6 4/1──┘         ESTABLISHED ◀──────┘
//!     │                                          ▲    │ R1bis: I2bis
//!     └──────────────── I2, I2bis: R2 ───────────┘    ▼
//!                                           R2 └── I2BIS-SENT ── no R2: I1 ──▶ I1-SENT
//! ```
//!
//! Files follow the RFC: [`establish`](self) for I1, R1, I2 and R2, `recover` for R1bis and I2bis (with `accept` for what
//! I2 and I2bis share, and `admission` for who gets a new context), `update` for UR and UA, `timers` for what happens by itself, `dispatch` for which context gets a
//! packet, `check` for whether another pair works, `confusion` for tags given twice, `local` for the ULIDs a host of ours has, `waiting` for messages whose proof takes long, `quarantine` for who may have what
//! a host that is gone left behind.
//! `carried` and `journal` are for contexts that go on in another process, `mirrored` and `ledger` for those that several boxes know.
//! `portrait` tells all of a state to tests that search through states.

mod accept;
mod admission;
mod carried;
mod check;
mod config;
mod confusion;
mod context;
mod dispatch;
mod endpoint;
mod establish;
mod holddown;
mod journal;
mod labels;
mod ledger;
mod limits;
mod local;
mod lost;
mod mirrored;
mod offers;
mod output;
mod peer;
mod portrait;
mod proof;
mod quarantine;
mod quote;
mod recover;
mod size;
mod starts;
mod store;
pub mod tags;
#[cfg(test)]
mod tests;
mod timers;
mod update;
mod validator;
mod waiting;

pub use carried::{CarriedContext, CarriedList, CarriedLocator, NotTaken, Step as Copied};
pub use config::{Config, ConfigError, ConfusionPolicy, Limits, Pair as RatePair};
pub use context::{Context, ContextId, LocalHost, PeerLocator, Stamp, State};
pub use dispatch::{Incoming, Unreadable};
pub use endpoint::{ChangeRefused, CheckedHost, Endpoint, HostRefused, ShardOf};
pub use establish::{Open, OpenRefused};
pub use holddown::{Failure, Held as HeldDown};
pub use limits::Rate;
pub use mirrored::{Mirrored, ToTell};
pub use output::{Answer, DropReason, FailReason, GoneReason, How, Output, Verdict};
pub use portrait::Feature;
pub use proof::{Finding, IdentityProof, LocatorProof, ProofJob, ProofMemory};
pub use quarantine::{Held, Owner, Quarantine};
pub use tags::TagSpace;
