//! Shim6 and REAP on the wire (RFC 5533 §5, RFC 5534 §5).

pub mod payload;
pub mod repr;

pub use payload::PayloadError;
pub use repr::*;
