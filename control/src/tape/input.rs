//! Everything an engine can be told, in a form that can be written down.
//!
//! New inputs are added at the end of [`Input`] and [`Heard`]: what stands on a tape is named by its place in them.

use std::net::Ipv6Addr;

use dataplane::context::entry::{Direction, Traffic};
use dataplane::context::fork::Wish;
use dataplane::context::{Activity, Sign};
use dataplane::link::{Notice, Punt};
use dataplane::snapshot::PortId;
use dataplane::wire::shim6::UdpPorts;
use dataplane::wire::{ContextTag, Locator, LocatorPair, Ulid, UlidPair};
use serde::{Deserialize, Serialize};

use crate::config::Prefix;
use crate::config::uplink::Found;
use crate::dhcp::client::Stored as Delegation;
use crate::dhcp::{Duid, Identity, Stored};
use crate::engine::{Item, Keys, MadeIdentity};
use crate::manage::api::Steering;
use crate::shim6::Finding;

/// What an engine is told. The names are those of the engine's methods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is what the engine's method of that name is given")]
pub enum Input<'a> {
    Notice(#[serde(borrow)] Heard<'a>),
    Expire,
    WallClock(u64),
    LinkState(u8, bool),
    Start,
    Farewell,
    DeferProofs,
    NextProof,
    Proved(Finding),
    /// The configuration, and what was found out of providers.
    Reload(Source, Vec<CarriedFound>),
    /// The policy file's text, for the site as it is with what was found out of providers.
    SetPolicy(Option<String>, Vec<CarriedFound>),
    Steer(String, Steering),
    FlushNames,
    UplinksHaveNews,
    BeginUplinks(Box<UplinksBegin>),
    NextDelegation,
    BeginLeases(Box<CarriedKept>, Vec<CarriedFound>),
    NextCommit,
    Committed(Vec<(u64, Result<(), String>)>),
    StoreFailed(Option<String>),
    NextIdentity,
    IdentityMade(Box<MadeIdentity>),
    BeginBequest,
    Bequeath(u64),
    EndBequest,
    Inherit(Vec<Item>),
    EndInheritance,
    SystemAddresses(u8, Vec<Ipv6Addr>),
    FromSystem(u8, Vec<u8>),
    SystemLost(u64),
    LearnInnerRouter(Option<Ipv6Addr>),
    NextReleased,
}

impl Input<'_> {
    /// What to call it.
    pub fn name(&self) -> &'static str {
        match self {
            Input::Notice(heard) => heard.name(),
            Input::Expire => "expire",
            Input::WallClock(_) => "wall-clock",
            Input::LinkState(..) => "link-state",
            Input::Start => "start",
            Input::Farewell => "farewell",
            Input::DeferProofs => "defer-proofs",
            Input::NextProof => "next-proof",
            Input::Proved(_) => "proved",
            Input::Reload(..) => "reload",
            Input::SetPolicy(..) => "set-policy",
            Input::Steer(..) => "steer",
            Input::FlushNames => "flush-names",
            Input::UplinksHaveNews => "uplinks-have-news",
            Input::BeginUplinks(_) => "begin-uplinks",
            Input::NextDelegation => "next-delegation",
            Input::BeginLeases(..) => "begin-leases",
            Input::NextCommit => "next-commit",
            Input::Committed(_) => "committed",
            Input::StoreFailed(_) => "store-failed",
            Input::NextIdentity => "next-identity",
            Input::IdentityMade(_) => "identity-made",
            Input::BeginBequest => "begin-bequest",
            Input::Bequeath(_) => "bequeath",
            Input::EndBequest => "end-bequest",
            Input::Inherit(_) => "inherit",
            Input::EndInheritance => "end-inheritance",
            Input::SystemAddresses(..) => "system-addresses",
            Input::FromSystem(..) => "from-system",
            Input::SystemLost(_) => "system-lost",
            Input::LearnInnerRouter(_) => "learn-inner-router",
            Input::NextReleased => "next-released",
        }
    }
}

/// Two addresses, ours and the peer's.
type Pair = (Ipv6Addr, Ipv6Addr);

/// What a worker noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the variants are those of Notice")]
pub enum Heard<'a> {
    UnknownPair(Pair),
    UnknownTag(u64, Pair, Option<(u16, u16)>),
    Punt(u8, Kind, &'a [u8]),
    Unresolved(u8, Ipv6Addr, &'a [u8]),
    Activity(u64, HeardActivity, [(u64, u64); 2]),
    Tcp(u64, bool, Pair),
    TableFull(u64),
    Qualified(Pair, Ipv6Addr, u8),
    Fork(u64, u8),
}

/// Why a packet goes to control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the variants are those of Punt")]
pub enum Kind {
    HostStack,
    Shim6,
    IcmpError,
    System,
}

/// What happened in a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of Activity")]
pub struct HeardActivity {
    pub received: bool,
    pub sent: bool,
    pub last_out: bool,
    pub labelled_in: bool,
    pub labelled_out: bool,
    pub arrived: Option<u8>,
}

impl<'a> From<&Notice<'a>> for Heard<'a> {
    fn from(notice: &Notice<'a>) -> Heard<'a> {
        let pair = |pair: &LocatorPair| (pair.local.0, pair.peer.0);
        match notice {
            Notice::UnknownPair(ulids) => Heard::UnknownPair((ulids.local.0, ulids.peer.0)),
            Notice::UnknownTag { tag, locators, udp } => {
                let ports = |UdpPorts { source, target }: UdpPorts| (source, target);
                Heard::UnknownTag(tag.value(), pair(locators), udp.map(ports))
            }
            Notice::Punt(port, kind, frame) => {
                let kind = match kind {
                    Punt::HostStack => Kind::HostStack,
                    Punt::Shim6 => Kind::Shim6,
                    Punt::IcmpError => Kind::IcmpError,
                    Punt::System => Kind::System,
                };
                Heard::Punt(port.0, kind, frame)
            }
            Notice::Unresolved(port, next_hop, frame) => Heard::Unresolved(port.0, *next_hop, frame),
            Notice::Activity { handle, activity, traffic } => {
                let Activity { received, sent, last, labelled_in, labelled_out, arrived } = *activity;
                let last_out = last == Direction::Out;
                let heard = HeardActivity { received, sent, last_out, labelled_in, labelled_out, arrived };
                Heard::Activity(*handle, heard, traffic.map(|Traffic { packets, octets }| (packets, octets)))
            }
            Notice::Tcp { handle, sign, pair: on } => {
                let progress = match sign {
                    Sign::Stalled => false,
                    Sign::Progress => true,
                };
                Heard::Tcp(*handle, progress, pair(on))
            }
            Notice::TableFull { handle } => Heard::TableFull(*handle),
            Notice::Qualified { pair, presented, provider } => {
                Heard::Qualified((pair.local.0, pair.peer.0), presented.0, *provider)
            }
            Notice::Fork(Wish { handle, class }) => Heard::Fork(*handle, *class),
        }
    }
}

impl<'a> Heard<'a> {
    /// As the workers said it.
    pub fn notice(&self) -> Notice<'a> {
        let pair = |(local, peer): Pair| LocatorPair { local: Locator(local), peer: Locator(peer) };
        let ulids = |(local, peer): Pair| UlidPair { local: Ulid(local), peer: Ulid(peer) };
        match *self {
            Heard::UnknownPair(it) => Notice::UnknownPair(ulids(it)),
            Heard::UnknownTag(tag, locators, udp) => Notice::UnknownTag {
                tag: ContextTag::truncate(tag),
                locators: pair(locators),
                udp: udp.map(|(source, target)| UdpPorts { source, target }),
            },
            Heard::Punt(port, kind, frame) => {
                let kind = match kind {
                    Kind::HostStack => Punt::HostStack,
                    Kind::Shim6 => Punt::Shim6,
                    Kind::IcmpError => Punt::IcmpError,
                    Kind::System => Punt::System,
                };
                Notice::Punt(PortId(port), kind, frame)
            }
            Heard::Unresolved(port, next_hop, frame) => Notice::Unresolved(PortId(port), next_hop, frame),
            Heard::Activity(handle, heard, traffic) => {
                let HeardActivity { received, sent, last_out, labelled_in, labelled_out, arrived } = heard;
                let last = if last_out { Direction::Out } else { Direction::In };
                Notice::Activity {
                    handle,
                    activity: Activity { received, sent, last, labelled_in, labelled_out, arrived },
                    traffic: traffic.map(|(packets, octets)| Traffic { packets, octets }),
                }
            }
            Heard::Tcp(handle, progress, on) => {
                let sign = if progress { Sign::Progress } else { Sign::Stalled };
                Notice::Tcp { handle, sign, pair: pair(on) }
            }
            Heard::TableFull(handle) => Notice::TableFull { handle },
            Heard::Qualified(it, presented, provider) => {
                Notice::Qualified { pair: ulids(it), presented: Locator(presented), provider }
            }
            Heard::Fork(handle, class) => Notice::Fork(Wish { handle, class }),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Heard::UnknownPair(_) => "unknown-pair",
            Heard::UnknownTag(..) => "unknown-tag",
            Heard::Punt(_, Kind::HostStack, _) => "packet-for-the-box",
            Heard::Punt(_, Kind::Shim6, _) => "packet-shim6",
            Heard::Punt(_, Kind::IcmpError, _) => "packet-icmp-error",
            Heard::Punt(_, Kind::System, _) => "packet-for-the-system",
            Heard::Unresolved(..) => "packet-unresolved",
            Heard::Activity(..) => "activity",
            Heard::Tcp(..) => "tcp",
            Heard::TableFull(_) => "table-full",
            Heard::Qualified(..) => "qualified",
            Heard::Fork(..) => "fork",
        }
    }
}

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// It is the one that was taken over last.
    Before,
    /// The files.
    Texts(Box<Texts>),
    /// Whoever replays knows it by this number: for worlds without files.
    Numbered(u64),
}

/// Files of a configuration, as they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Texts {
    /// Where the site's file was.
    pub file: String,
    /// What it said.
    pub site: String,
    /// What the hosts file said, if there was one.
    pub hosts: Option<String>,
    /// The public half of the site's key, if it is needed. The other half is never on a tape.
    pub key: Option<Vec<u8>>,
}

/// A signature that the site's key made; who replays has no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The public half of the key.
    pub key: Vec<u8>,
    /// Of the list.
    pub generation: u32,
    /// What was signed besides.
    pub locators: Vec<Ipv6Addr>,
    /// The signature.
    pub octets: Vec<u8>,
}

/// What was found out of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedFound {
    name: String,
    router: Option<Ipv6Addr>,
    prefixes: Vec<(Ipv6Addr, u8, bool)>,
}

impl CarriedFound {
    /// All of it.
    pub fn all(found: &[Found]) -> Vec<CarriedFound> {
        found.iter().map(CarriedFound::of).collect()
    }

    fn of(found: &Found) -> CarriedFound {
        let prefixes = found.prefixes.iter().map(|(prefix, old)| (prefix.address(), prefix.length(), *old));
        CarriedFound { name: found.name.clone(), router: found.router, prefixes: prefixes.collect() }
    }

    /// As the engine says it.
    pub fn found(&self) -> Found {
        let prefix = |(address, length, old): &(Ipv6Addr, u8, bool)| Some((Prefix::of(*address, *length)?, *old));
        let prefixes = self.prefixes.iter().filter_map(prefix).collect();
        Found { name: self.name.clone(), router: self.router, prefixes }
    }
}

/// What the search for prefixes and routers begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinksBegin {
    /// The box's name to DHCPv6.
    pub duid: Option<Duid>,
    /// What the wall clock said at the start of time, in seconds.
    pub epoch: u64,
    /// What was delegated before.
    pub kept: Vec<(String, Delegation)>,
    /// What a process before this one had found out.
    pub carried: Vec<CarriedFound>,
}

/// What was kept of leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of Kept")]
pub struct CarriedKept {
    pub duid: Duid,
    pub stored: Stored,
    pub epoch: u64,
    pub reserved: Vec<Identity>,
}

/// What an engine begins with besides its configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beginning {
    /// The version of the program.
    pub version: String,
    /// Of the random numbers that the engine draws, from here on.
    pub seed: [u8; 32],
    /// What tags and validators are made with.
    pub keys: Keys,
    /// Link-layer address and MTU of each port.
    pub ports: Vec<([u8; 6], u16)>,
    /// Its configuration.
    pub source: Source,
    /// What was found out of providers before.
    pub found: Vec<CarriedFound>,
    /// Nanoseconds on the box's clock.
    pub now: u64,
    /// What the wall clock said then, in seconds since 1970, for people.
    pub unix: u64,
}

/// One thing on a tape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record<'a> {
    /// The first.
    Begin(Box<Beginning>),
    /// The engine is told this, so many nanoseconds after what it was told before.
    Input(i64, #[serde(borrow)] Input<'a>),
    /// It signed something meanwhile.
    Signed(Box<Signature>),
    /// It answered this and wanted that done, as digests.
    Outcome(Vec<u32>),
    /// The recording ended for this reason.
    End(String),
}
