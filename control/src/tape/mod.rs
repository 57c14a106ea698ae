//! Tapes: everything an engine is told, written down, so that it can be told the same again and decides the same.
//!
//! An [engine](crate::engine) is a function of what it begins with and what it is told: it has no clock, and draws random
//! numbers from a generator it is handed. So a recording of its inputs is a recording of everything it ever decided.
//!
//! | file | what it answers |
//! |---|---|
//! | `inputs` | how an engine is told anything |
//! | `input` | what that looks like when it is written down |
//! | `recorder` | who writes it down |
//! | `form` | how a tape is put together, and how damage is found |
//! | `digest` | how what is decided is compared |
//! | `replay` | who tells it again |
//! | `tell` | what people read of that |
//!
//! Between two inputs of a tape stand the digests of what the engine answered and wanted done. A replay by the program that
//! recorded finds the same; one by a changed program shows where it first decides otherwise.

pub mod digest;
mod form;
mod input;
mod inputs;
mod recorder;
mod replay;
mod tell;
#[cfg(test)]
mod tests;

pub use form::{Damage, VERSION};
pub use input::{Beginning, CarriedFound, CarriedKept, Heard, Input, Record, Signature, Source, Texts, UplinksBegin};
pub use inputs::{Core, Inputs, Tape};
pub use recorder::{Recorder, Sink, last_piece};
pub use replay::{Difference, Ending, Numbered, Replay, ReplayError, Step};
pub use tell::tell;
