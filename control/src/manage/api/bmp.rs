//! What routers tell of the providers' routes.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::named;

/// Routers, sources and what came of them (`[bmp]`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BmpView {
    /// Whether there is `[bmp]`.
    pub enabled: bool,
    /// Where routers connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Whether they do so over TLS.
    pub tls: bool,
    /// Those that are connected.
    pub routers: Vec<BmpRouterView>,
    /// In the order of the configuration.
    pub sources: Vec<BmpSourceView>,
    /// /64s of peers that are asked about.
    pub asked: u64,
    /// Paths that packets are kept off because their route is lost.
    pub held: u64,
}

/// A router that is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BmpRouterView {
    /// Where it is.
    pub address: IpAddr,
    /// What it calls itself.
    pub name: String,
    /// What it is, in its words.
    pub description: String,
    /// SHA-256 of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Messages so far.
    pub messages: u64,
    /// Seconds since the last one.
    pub silent_s: u64,
    /// Whether that is too long for what it said to count.
    pub stalled: bool,
}

/// A BGP session with a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BmpSourceView {
    /// `provider.name`.
    pub provider: String,
    /// The BGP neighbour.
    pub peer: IpAddr,
    /// Where the router is that tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<IpAddr>,
    /// How it is.
    pub state: BmpState,
    /// For how many seconds, but for `stalled`.
    pub since_s: u64,
    /// Prefixes it has.
    pub routes: u64,
    /// /64s of peers to which its provider has lost its route.
    pub lost: u64,
    /// How often its provider's feed was wrong, as far as that counts.
    pub lies: u64,
    /// For how many seconds it is not believed.
    pub distrusted_s: u64,
}

/// How a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BmpState {
    /// No router tells of it, so nothing is known.
    Silent,
    /// Its routes are being told, and what is missing may come.
    Filling,
    /// All of its routes are known.
    Complete,
    /// Its router says that the BGP session is down.
    Down,
    /// It has more routes than `bmp.routes_max`, and is not listened to.
    Overfull,
    /// Its router has said nothing for too long.
    Stalled,
}

named!(BmpState: Silent "silent", Filling "filling", Complete "complete", Down "down", Overfull "overfull", Stalled "stalled");
