//! What must never be, by name, and the ledger that tells what has been shown to be reachable.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::Ipv6Addr;

use dataplane::wire::Ulid;
use dataplane::wire::shim6::{Message, Options};

use super::{HostId, SiteId};
use crate::time::Instant;

/// Most violations kept; what follows the first is seldom news.
pub(super) const KEPT: usize = 32;

/// A rule that a world watches over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Oracle {
    /// A packet leaves through a provider only with an address that this provider delegated.
    Ingress,
    /// Identifiers stay inside their site.
    Identifier,
    /// What a box sends can be read, and is addressed to somebody.
    Wellformed,
    /// A packet is delivered to the host it is for.
    WrongHost,
    /// A packet is delivered with the identifiers of the two hosts whose it is.
    WrongUlid,
    /// A packet is delivered with a right checksum.
    Checksum,
    /// No octet of a session is lost, doubled or changed, and no session ends by itself.
    Octets,
    /// In a network without faults every packet arrives, also those that waited for a context.
    Lost,
    /// In a network without faults packets arrive once and in order.
    Order,
    /// Payload goes only to a locator that gave back what only a packet to it could have told.
    Reachable,
    /// A worker hears of a standby only when the peer has answered a request that went over this very pair.
    Standby,
    /// Payload goes only to locators of the host it is for, and a box believes in no others.
    Owned,
    /// Somebody who never asked gets neither payload nor more answers than there were packets in its name.
    Bystander,
    /// An I1 changes nothing.
    StatelessI1,
    /// A packet of somebody who knows neither tags nor nonces changes nothing, and reaches no host.
    Forgery,
    /// When faults have healed, sessions go on within the bound that the constants imply.
    Liveness,
    /// Engine and workers know the same contexts, and a pair has one context.
    Consistent,
    /// After idle time all tables are empty.
    Leftovers,
    /// What was sent for a host that is gone does not reach the one that has its identifier now.
    Quarantine,
}

/// Something that must never be, and was.
#[derive(Clone, Debug)]
pub struct Violation {
    /// When.
    pub at: Instant,
    /// Where, if that can be said.
    pub site: Option<SiteId>,
    /// Which rule.
    pub oracle: Oracle,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { at, site, oracle, text } = self;
        write!(out, "{:.6} s, {oracle:?}: ", at.0.as_secs_f64())?;
        site.iter().try_for_each(|site| write!(out, "site {site}: "))?;
        out.write_str(text)
    }
}

/// Something only the receiver of a message can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Secret {
    Initiator(u32),
    Validator(u64),
    Request(u32),
    Probe(u32),
}

/// What boxes told to whom, and who has shown to have heard it. The world keeps this from the packets alone, so that it
/// does not depend on what boxes believe.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    told: HashMap<HostId, HashSet<(Ipv6Addr, Secret)>>,
    reachable: HashMap<HostId, HashSet<Ipv6Addr>>,
    /// Requests by the pair they went over, from here to there, and the pairs over which one was answered.
    requests: HashMap<HostId, HashSet<(Ipv6Addr, Ipv6Addr, u32)>>,
    answered: HashMap<HostId, HashSet<(Ipv6Addr, Ipv6Addr)>>,
    /// Every identifier with the locators that are truly its own.
    pub(super) owned: HashMap<Ulid, Vec<Ipv6Addr>>,
}

impl Ledger {
    /// A box sent a message for a host from `source` to `target`.
    pub(super) fn sent(&mut self, host: HostId, source: Ipv6Addr, target: Ipv6Addr, message: &Message) {
        if let Message::UpdateRequest { request_nonce, .. } = message {
            self.requests.entry(host).or_default().insert((source, target, *request_nonce));
        }
        let secret = match message {
            Message::I1 { initiator_nonce, .. }
            | Message::I2 { initiator_nonce, .. }
            | Message::I2bis { initiator_nonce, .. } => Secret::Initiator(*initiator_nonce),
            Message::R1 { options, .. } | Message::R1bis { options, .. } => validator(options),
            Message::UpdateRequest { request_nonce, .. } => Secret::Request(*request_nonce),
            Message::Probe(probe) => match probe.sent.first() {
                Some(report) => Secret::Probe(report.nonce),
                None => return,
            },
            Message::R2 { .. } | Message::UpdateAck { .. } | Message::Keepalive { .. } | Message::Error(_) => return,
        };
        self.told.entry(host).or_default().insert((target, secret));
    }

    /// A message from `source` to `target` reached the box for a host. `host_at` knows whose a locator is.
    pub(super) fn heard(
        &mut self,
        host: HostId,
        (source, target): (Ipv6Addr, Ipv6Addr),
        message: &Message,
        host_at: impl Fn(Ipv6Addr) -> Option<HostId>,
    ) {
        match message {
            Message::R1 { initiator_nonce, .. } | Message::R2 { initiator_nonce, .. } => {
                self.answered(host, source, Secret::Initiator(*initiator_nonce));
            }
            Message::I2 { options, .. } | Message::I2bis { options, .. } => {
                self.answered(host, source, validator(options));
            }
            Message::UpdateAck { request_nonce, .. } => {
                let asked = (target, source, *request_nonce);
                if self.requests.get(&host).is_some_and(|requests| requests.contains(&asked)) {
                    self.answered.entry(host).or_default().insert((target, source));
                }
                self.answered(host, source, Secret::Request(*request_nonce));
            }
            Message::Probe(probe) => {
                for report in &probe.received {
                    if let Some(host) = host_at(report.source.0) {
                        self.answered(host, report.target.0, Secret::Probe(report.nonce));
                    }
                }
            }
            _ => {}
        }
    }

    fn answered(&mut self, host: HostId, target: Ipv6Addr, secret: Secret) {
        if self.told.get(&host).is_some_and(|told| told.contains(&(target, secret))) {
            self.reachable.entry(host).or_default().insert(target);
        }
    }

    /// Whether `target` has shown to hear what is sent there for a host.
    pub(super) fn is_reachable(&self, host: HostId, target: Ipv6Addr) -> bool {
        self.reachable.get(&host).is_some_and(|reachable| reachable.contains(&target))
    }

    /// Whether a request that went over this pair was answered.
    pub(super) fn is_answered(&self, host: HostId, source: Ipv6Addr, target: Ipv6Addr) -> bool {
        self.answered.get(&host).is_some_and(|answered| answered.contains(&(source, target)))
    }

    /// The box of a host has forgotten everything, so it has to ask again.
    pub(super) fn forget(&mut self, host: HostId) {
        self.told.remove(&host);
        self.reachable.remove(&host);
        self.requests.remove(&host);
        self.answered.remove(&host);
    }
}

fn validator(options: &Options) -> Secret {
    let octets = options.validator.as_deref().unwrap_or_default();
    Secret::Validator(octets.iter().fold(7, |hash: u64, octet| hash.wrapping_mul(131).wrapping_add((*octet).into())))
}
