//! Load for the box, and a box to be loaded: what `perf/run` measures with on DPDK devices.
//!
//! Three programs share one made-up [`site`], in which everything about a context follows from its number: so the
//! generator needs no table to say what the box should make of a frame, and frames written to a capture fit a box that
//! was filled in another process.
//!
//! - `perf-box`: a real worker on real DPDK ports whose table is filled as the control core fills it.
//! - `perf-gen`: sends frames of such a site in both directions, and says what came back and how late.
//! - `perf-frames`: writes them to a capture, for replay.

#![forbid(unsafe_code)]

pub mod capture;
pub mod choice;
pub mod console;
pub mod device;
pub mod frames;
pub mod load;
pub mod pauses;
pub mod receive;
pub mod site;
