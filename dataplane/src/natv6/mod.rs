//! NATv6: hosts of the site and peers that do not speak Shim6. Pure functions on addresses and packets.
//!
//! A host is known outside by its locators, one at each provider, so that a context can take a session over later; the
//! addresses differ in more than their prefix, so checksums are updated ([`packet`]). What is no host of the box's, such
//! as routers inside, may be translated by prefix alone ([`prefix`], RFC 6296).

pub mod packet;
pub mod prefix;

pub use packet::{End, Exchange, Quote, Reading, Refused, Session, to_inside, to_outside};
pub use prefix::{PrefixError, PrefixPair, Untranslatable};

#[cfg(test)]
mod tests;
