//! Shim6 (RFC 5533): context establishment and maintenance as a pure state machine.
