//! What a worker knows of its contexts.
//!
//! A context has one owner: the worker whose number is the hash of its identifier pair, and that number is written into
//! the tag we allocate ([`Sharding`]). So both directions of a context meet at one worker, `&mut Shard` is the lock,
//! and a packet that arrives elsewhere is handed over, or translated by a copy that the owner has lent
//! ([`guests`](shard::guests)). A shard is a fixed slab of two-line entries with an index by
//! identifier pair; our tag needs none, for it names the slot. A packet from the site touches an index line and both
//! lines of its entry, one from the peer the first line alone. While a path is lost, those who used it read their standby too
//! ([`standby`]).

pub mod entry;
pub mod flows;
pub mod fork;
pub mod hash;
pub mod hold;
pub mod index;
pub mod label;
pub mod reference;
pub mod replay;
pub mod shard;
pub mod standby;
pub mod watch;

pub use entry::{Activity, Direction, Entry, Install, LocatorSets, Phase, UdpUse};
pub use flows::Flows;
pub use hash::{Hasher, Sharding};
pub use hold::Hold;
pub use label::LabelMode;
pub use replay::Replay;
pub use shard::guests::{GUESTS_MAX, Word};
pub use shard::{Report, Shard, Slot};
pub use standby::{Loss, Losses, PathNumber, Standby, Way};
pub use watch::Sign;
