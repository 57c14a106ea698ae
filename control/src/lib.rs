//! Decisions: pure protocol machines first, the world outside last.
//!
//! `identity`, `shim6` and `reap` take time, randomness and input as arguments and give outputs; `engine` wires
//! them together; `driver` is the only place with a clock, sockets and threads.
#![forbid(unsafe_code)]

pub mod bfd;
pub mod bmp;
pub mod chains;
pub mod config;
pub mod dhcp;
pub mod dns;
pub mod doctor;
pub mod driver;
pub mod engine;
pub mod host;
pub mod identity;
pub mod manage;
pub mod policy;
pub mod publish;
pub mod reap;
pub mod shim6;
pub mod sim;
pub mod store;
pub mod sync;
pub mod tape;
pub mod time;
pub mod wheel;
