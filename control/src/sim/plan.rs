//! What a world is made of. A site is configured by the text an operator would write, so worlds test that too.

use std::fmt::Write;
use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::ethernet::Mac;
use rand::Rng;

use super::network::MTU;
use super::node::Blueprint;
use super::{Host, Leg, Provider, SiteId};
use crate::config::hosts::Hex;
use crate::config::{Hosts, Site};
use crate::identity::{HostIdentity, HostPrefixes, Sec, SigningKey, make_host};

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The sites. Every host knows how to reach every host of the others.
    pub sites: Vec<SitePlan>,
    /// Send Timeout of all boxes, in seconds.
    pub send_timeout_s: u16,
    /// Contexts each box has room for.
    pub contexts_max: u32,
    /// Pairs whose first packets a box can hold.
    pub hold_pairs: u32,
    /// Lines for the `[shim6]` section of all boxes.
    pub shim6: String,
    /// Order in which all boxes try pairs, if not the default (`reap.order`).
    pub order: Option<String>,
    /// Whether boxes test other pairs before they need them (`reap.standby`).
    pub standby: bool,
    /// Lines for a `[liveness]` section of all boxes; none without.
    pub liveness: String,
    /// Sites whose boxes do without those lines.
    pub plain: Vec<SiteId>,
    /// What signs for the hosts of all sites, which are hybrid then; HBA-only without.
    pub key: Option<Arc<SigningKey>>,
    /// How long it takes at most until somebody has verified a signature for a box; zero if each box does so itself, at once.
    pub proofs_take: Duration,
    /// Further sections for the configuration of all boxes; `{site}` in it stands for the number of the
    /// site, `{last}` for that of its last provider.
    pub sections: String,
    /// Sites whose identifiers are of 5f00::/16 rather than of fc00::/7.
    pub elsewhere: Vec<SiteId>,
    /// Ports whose providers delegate their prefix, and say themselves who the router is.
    pub open: Vec<(SiteId, u16)>,
    /// Whether what the boxes are told is recorded ([`World::recordings`](super::World::recordings)).
    pub recorded: bool,
    /// Whether all boxes share their ports with an operating system.
    pub shared: bool,
}

/// What a site is made of.
#[derive(Clone, Copy, Debug)]
pub struct SitePlan {
    /// Its hosts.
    pub hosts: u16,
    /// Its providers.
    pub providers: u16,
    /// Workers of its box.
    pub workers: u8,
}

impl Default for SitePlan {
    fn default() -> SitePlan {
        SitePlan { hosts: 1, providers: 2, workers: 1 }
    }
}

impl Default for Plan {
    /// Two sites with two providers and one host each, and the Send Timeout of the demonstration.
    fn default() -> Plan {
        Plan {
            sites: vec![SitePlan::default(); 2],
            send_timeout_s: 3,
            contexts_max: 1024,
            hold_pairs: 256,
            shim6: String::new(),
            liveness: String::new(),
            order: None,
            standby: true,
            plain: Vec::new(),
            key: None,
            proofs_take: Duration::ZERO,
            sections: String::new(),
            elsewhere: Vec::new(),
            open: Vec::new(),
            recorded: false,
            shared: false,
        }
    }
}

/// A plan carried out.
pub(super) struct Made {
    pub(super) sites: Vec<Blueprint>,
    pub(super) providers: Vec<Provider>,
    pub(super) hosts: Vec<Host>,
}

/// A host that has been made, and its name.
struct Named {
    name: String,
    identity: HostIdentity,
}

/// The first half of a block of identifiers outside fc00::/7.
const ELSEWHERE: u16 = 0x5f00;

impl Plan {
    /// The block of a site's identifiers.
    fn prefix(&self, site: SiteId) -> Ipv6Addr {
        let first = if self.elsewhere.contains(&site) { ELSEWHERE } else { 0xfc00 };
        Ipv6Addr::new(first, 0xa + site as u16, 0, 0, 0, 0, 0, 0)
    }

    pub(super) fn make(&self, rng: &mut dyn Rng) -> Made {
        let hosts: Vec<Vec<Named>> = (0..self.sites.len()).map(|site| self.make_hosts(site, rng)).collect();
        let mut made = Made { sites: Vec::new(), providers: Vec::new(), hosts: Vec::new() };
        for (site, plan) in self.sites.iter().enumerate() {
            let text = self.toml(site, &hosts);
            let file = Path::new("site.toml");
            let (configured, _) = Site::parse(file, &text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
            let listed = json(&hosts[site]);
            let known = Hosts::parse(Path::new("hosts.json"), &listed, &configured);
            let mut known = known.unwrap_or_else(|problems| panic!("{problems}\n{listed}"));
            if let Some(key) = self.key.as_ref().filter(|_| !configured.uplinks.is_empty()) {
                // As a configuration with such providers does, of which nobody knows what will have to be signed.
                known.set_key(key.clone());
            }
            let macs = (0..=plan.providers).map(|port| mac(0, site, port)).collect();
            made.sites.push(Blueprint {
                site: configured,
                hosts: known,
                macs,
                proofs_take: self.proofs_take,
                recorded: self.recorded,
            });
            made.providers.extend((1..=plan.providers).map(|port| provider(site, port)));
            made.hosts.extend(hosts[site].iter().zip(0..).map(|(host, number)| Host {
                site,
                ulid: host.identity.ulid.0,
                locators: host.identity.locators.iter().map(|locator| locator.0).collect(),
                mac: mac(2, site, number),
                pds: host.identity.pds.clone(),
                off: false,
                inbox: Vec::new(),
            }));
        }
        made
    }

    fn make_hosts(&self, site: SiteId, rng: &mut dyn Rng) -> Vec<Named> {
        let plan = self.sites[site];
        let prefixes = HostPrefixes {
            ulid: high_half(lan(self.prefix(site))),
            locators: (1..=plan.providers).map(|port| high_half(delegated(site, port))).collect(),
        };
        let host = |number: u16| {
            let identity = make_host(&prefixes, Sec::default(), self.key.as_deref(), rng).expect("an identity");
            Named { name: format!("host-{site}-{number}"), identity }
        };
        (0..plan.hosts).map(host).collect()
    }

    /// The line that shares a port.
    fn interface(&self, port: usize) -> String {
        if self.shared { format!("interface = \"ps-{port}\"\n") } else { String::new() }
    }

    /// The configuration of a site's box.
    fn toml(&self, site: SiteId, hosts: &[Vec<Named>]) -> String {
        let SitePlan { providers, workers, .. } = self.sites[site];
        let prefix = self.prefix(site);
        let takes_part = !self.liveness.is_empty() && !self.plain.contains(&site);
        let liveness = if takes_part { format!("[liveness]\n{}\n", self.liveness) } else { String::new() };
        let mut text = format!(
            "[box]\nname = \"box-{site}\"\nworkers = {workers}\ncontexts_max = {}\nhold = {{ packets = 16, pairs = {} }}\n\
             [site]\nprefix = \"{}/48\"\nlan = \"{}/64\"\nport = \"lan\"\n{}\
             [reap]\nsend_timeout_s = {}\nstandby = {}\n{}\n[shim6]\n{}\n{liveness}{}\n\
             [[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"{}/64\"]\n{}",
            self.contexts_max,
            self.hold_pairs,
            prefix,
            lan(prefix),
            if self.elsewhere.is_empty() { "" } else { "identifier_blocks = [\"5f00::/16\"]\n" },
            self.send_timeout_s,
            self.standby,
            self.order.as_ref().map(|order| format!("order = \"{order}\"")).unwrap_or_default(),
            if self.plain.contains(&site) { "" } else { &self.shim6 },
            self.sections.replace("{site}", &site.to_string()).replace("{last}", &providers.to_string()),
            address(lan(prefix), 1),
            self.interface(0),
        );
        for port in 1..=providers {
            let (link, delegated) = (link(site, port), delegated(site, port));
            let (prefix, router) = match self.open.contains(&(site, port)) {
                true => ("delegated".to_owned(), "discover".to_owned()),
                false => (format!("{delegated}/64"), address(link, 1).to_string()),
            };
            let _ = write!(
                text,
                "[[port]]\nname = \"wan-{port}\"\ndevice = \"net_null{port}\"\naddresses = [\"{}/64\"]\n{}\
                 [[provider]]\nname = \"isp-{site}-{port}\"\nport = \"wan-{port}\"\nprefix = \"{prefix}\"\n\
                 next_hop = \"{router}\"\n",
                address(link, 2),
                self.interface(port.into()),
            );
        }
        if self.open.iter().any(|(of, _)| *of == site) {
            text.push_str("[store]\nfile = \"store\"\n");
        }
        let others = hosts.iter().enumerate().filter(|(other, _)| *other != site);
        for host in others.flat_map(|(_, hosts)| hosts) {
            let locators: Vec<String> = host.identity.locators.iter().map(|locator| format!("\"{locator}\"")).collect();
            let _ = write!(
                text,
                "[[peer]]\nname = \"{}\"\nulid = \"{}\"\nlocators = [{}]\n",
                host.name,
                host.identity.ulid,
                locators.join(", ")
            );
        }
        text
    }
}

/// The hosts file.
fn json(hosts: &[Named]) -> String {
    let entry = |host: &Named| {
        let HostIdentity { ulid, locators, pds, .. } = &host.identity;
        let locators: Vec<String> = locators.iter().map(|locator| format!("\"{locator}\"")).collect();
        let (name, locators) = (&host.name, locators.join(", "));
        format!("{{\"name\": \"{name}\", \"ulid\": \"{ulid}\", \"locators\": [{locators}], \"pds\": \"{}\"}}", Hex(pds))
    };
    let entries: Vec<String> = hosts.iter().map(entry).collect();
    format!("{{\"version\": 1, \"hosts\": [{}]}}", entries.join(",\n"))
}

fn provider(site: SiteId, port: u16) -> Provider {
    let link = link(site, port);
    Provider {
        site,
        port: usize::from(port),
        prefix: u64::from_be_bytes(high_half(delegated(site, port))),
        also: Vec::new(),
        router: address(link, 1),
        customer: address(link, 2),
        router_mac: mac(1, site, port),
        customer_mac: mac(0, site, port),
        plugged: true,
        router_up: true,
        mtu: MTU,
        out: Leg::default(),
        inward: Leg::default(),
        carried: 0,
        recorder: None,
    }
}

fn lan(prefix: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(prefix.to_bits() | 1 << 64)
}

/// Whether an address is an identifier in one of these worlds, whatever its plan.
pub(super) fn is_identifier(address: Ipv6Addr) -> bool {
    address.is_unique_local() || address.segments()[0] == ELSEWHERE
}

/// What the provider at a port delegated.
fn delegated(site: SiteId, port: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xa + site as u16, port, 0, 0, 0, 0)
}

/// The link between a box and its provider at a port.
fn link(site: SiteId, port: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xff00 + site as u16, port, 0, 0, 0, 0)
}

fn address(prefix: Ipv6Addr, last: u16) -> Ipv6Addr {
    Ipv6Addr::from_bits(prefix.to_bits() | u128::from(last))
}

fn high_half(address: Ipv6Addr) -> [u8; 8] {
    crate::identity::prefix_of(address)
}

/// Boxes, routers and hosts have link-layer addresses of kinds 0, 1 and 2.
fn mac(kind: u8, site: SiteId, number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([2, kind, 0, site as u8, high, low])
}
