//! How people see into the daemon: questions and answers over a Unix socket, and the verbs of `pshim6ctl`.
//!
//! ```text
//! api      what can be asked and answered: shared by both ends
//! frame    one JSON object a line, with a version
//! server   the daemon's end: knows nothing of the engine but a channel to it
//! client   the other end
//! verbs    what pshim6ctl does, a function for each command
//! table    aligned columns
//! ```

pub mod api;
pub mod client;
mod frame;
pub mod server;
pub mod table;
pub mod verbs;

pub use api::{Request, Response};
pub use client::{Client, ClientError};
pub use frame::VERSION;
pub use server::{Call, Server};
