//! How people and programs see into the daemon: an HTTP API over Unix sockets and TLS, a web page, and the verbs of `pshim6ctl` on top of it.
//!
//! ```text
//! api         what can be asked and answered: shared by both ends
//! advice      what to do about what is dropped
//! operations  where each of that is found in HTTP, and who may ask
//! problem     how it is said that something did not work
//! metrics     figures as Prometheus reads them
//! process     what the system knows of this process
//! openapi     all of it, described for programs
//! server      the daemon's end: knows nothing of the engine but a channel to it
//! page        the web page's files, which the server has in it
//! client      the other end
//! verbs       what pshim6ctl does, a function for each command
//! table       aligned columns
//! ```

pub mod advice;
pub mod api;
pub mod client;
mod metrics;
pub mod openapi;
mod operations;
mod problem;
mod process;
pub mod server;
pub mod table;
pub mod verbs;

pub use api::{Request, Response};
pub use client::{Client, ClientError};
pub use operations::{Method, OPERATIONS, Operation, Role};
pub use problem::Problem;
pub use server::{Call, Doors, Server};
