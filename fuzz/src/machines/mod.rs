//! What must hold for the state machines whatever happens to them, in whatever order.
//!
//! The octets of an input are read as a list of operations: [`shim6`] does them to two nodes and the packets between
//! them, [`reap`] to one context of REAP, [`names`] to DNS between hosts and servers, [`dhcp`] to a
//! DHCPv6 server, [`bmp`] to a station and the routers that tell it of routes. After each operation the invariants are looked at. Each function is the body of
//! the fuzz target with its name, and `control/tests/fuzz_corpus.rs` runs the same functions on a stable compiler.

mod bmp_machine;
mod dhcp_machine;
mod names_machine;
mod octets;
mod reap_machine;
#[path = "../../../control/tests/routers/mod.rs"]
mod routers;
mod shim6_machine;

pub use bmp_machine::check as bmp;
pub use dhcp_machine::check as dhcp;
pub use names_machine::check as names;
pub use reap_machine::check as reap;
pub use shim6_machine::check as shim6;
