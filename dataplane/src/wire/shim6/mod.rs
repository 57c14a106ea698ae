//! Shim6 and REAP on the wire (RFC 5533 §5, RFC 5534 §5).

pub mod repr;

pub use repr::*;
