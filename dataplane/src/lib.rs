//! Packets: the wire formats, the context tables, the translation of a burst and the loop that runs it.
//!
//! Arrows point one way: `wire <- context <- translate <- worker`. Nothing here knows a protocol state machine, and
//! no clock but the one handed in.
#![deny(unsafe_code)]

pub mod bucket;
pub mod context;
pub mod counters;
pub mod histogram;
mod limit;
pub mod link;
pub mod memory;
pub mod mutant;
pub mod natv6;
pub mod port;
pub mod processor;
pub mod reply;
pub mod snapshot;
pub mod trace;
pub mod translate;
pub mod wire;
pub mod worker;
