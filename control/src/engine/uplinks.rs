//! Providers whose prefix or router is found out while the box runs.
//!
//! Here the machines of [`crate::dhcp::client`] and [`crate::host::discovery`] meet the ports. What they find out changes the
//! site as an operator would change it: the driver hears that there is news, resolves its configuration with
//! [`Engine::found`], and has it taken over by [`Engine::reload`]. So another prefix is another provider, whose locators are
//! signed, announced and published, and the old one is left before it goes.

use std::net::Ipv6Addr;

use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::{self, EtherType, Mac};
use rand::Rng;

use super::services::HOP_LIMIT;
use super::{Effect, Engine, Event, Story};
use crate::config::prefix::is_routable;
use crate::config::uplink::{Found, PrefixFrom, Uplink, subnet_of};
use crate::config::{Prefix, Site};
use crate::dhcp::client::{self, Client, Delegated, Settings, Stage, Stored};
use crate::dhcp::{CLIENT_PORT, Duid, SERVER_PORT};
use crate::host::{Datagram, Discovery, OwnLink};
use crate::manage::api::{DelegatedView, UplinkView};
use crate::time::Instant;

/// Everything about them.
#[derive(Default)]
pub(super) struct Uplinks {
    all: Vec<Line>,
    /// What the wall clock said at the start of time, in seconds.
    epoch: u64,
    /// Prefixes that are something else: those of the configuration, of links, and identifiers.
    foreign: Vec<Prefix>,
    news: bool,
}

/// One of them.
struct Line {
    uplink: Uplink,
    port: PortId,
    client: Option<Client>,
    discovery: Option<Discovery>,
    /// The prefix in use, and those that were.
    used: Vec<Prefix>,
    /// What was told last.
    told: Option<Found>,
    /// What has to be stored, if that is not yet.
    unstored: bool,
    /// Whether the device says that the link is up, and whether it has just come back.
    link: bool,
    back: bool,
}

impl Uplinks {
    pub(super) fn of(site: &Site) -> Uplinks {
        let line = |uplink: &Uplink| Line {
            port: PortId(uplink.port as u8),
            client: None,
            discovery: uplink.router.is_none().then(Discovery::default),
            used: Vec::new(),
            told: None,
            unstored: false,
            link: true,
            back: false,
            uplink: uplink.clone(),
        };
        let links = site.ports.iter().flat_map(|port| &port.addresses);
        let links = links.filter(|own| !own.address.is_unicast_link_local()).filter_map(|own| own.prefix());
        let fixed = site.providers.iter().map(|provider| provider.delegated.unwrap_or(provider.prefix));
        let open = site.uplinks.iter().filter_map(|uplink| match uplink.prefix {
            PrefixFrom::Fixed(prefix) => Some(prefix),
            PrefixFrom::Delegated { .. } => None,
        });
        let identifiers = site.identifier_blocks.iter().copied().chain([site.prefix]);
        let foreign = links.chain(fixed).chain(open).chain(identifiers).collect();
        Uplinks { all: site.uplinks.iter().map(line).collect(), foreign, ..Uplinks::default() }
    }

    /// Whether a port leads to one of them.
    pub(super) fn has(&self, port: usize) -> bool {
        self.all.iter().any(|line| usize::from(line.port.0) == port)
    }

    /// When something has to be done.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let of = |line: &Line| {
            let client = line.client.as_ref().and_then(Client::deadline);
            let discovery = line.discovery.as_ref().and_then(Discovery::deadline);
            [client, discovery, line.back.then_some(Instant::START)].into_iter().flatten().min()
        };
        self.all.iter().filter_map(of).min()
    }
}

impl Line {
    /// The /64s in use: the one that new sessions take first, then those that are left and still good.
    fn prefixes(&mut self, now: Instant) -> Vec<(Prefix, bool)> {
        let subnet = match self.uplink.prefix {
            PrefixFrom::Fixed(prefix) => return vec![(prefix, false)],
            PrefixFrom::Delegated { subnet, .. } => subnet,
        };
        let held = self.client.as_ref().map(Client::delegated).unwrap_or_default();
        let of = |it: &Delegated| Some((subnet_of(it.prefix, it.length, subnet)?, it.is_deprecated(now), it.preferred));
        let held: Vec<(Prefix, bool, Option<Instant>)> = held.iter().filter_map(of).collect();
        self.used.retain(|used| held.iter().any(|(prefix, ..)| prefix == used));
        // The one in use stays as long as it is preferred; the next is the one that is so for longest.
        let stays =
            self.used.first().filter(|used| held.iter().any(|(prefix, old, _)| prefix == *used && !old)).copied();
        let preferred = held.iter().filter(|(_, old, _)| !old);
        let longest = preferred.max_by_key(|(_, _, until)| (until.is_none(), *until)).map(|(prefix, ..)| *prefix);
        if let Some(next) = stays.or(longest) {
            self.used.retain(|used| *used != next);
            self.used.insert(0, next);
        }
        let deprecated = |used: &Prefix| held.iter().any(|(prefix, old, _)| prefix == used && *old);
        let first = self.used.first().copied();
        self.used.iter().map(|used| (*used, Some(*used) != first || deprecated(used))).collect()
    }

    /// The link went and came back: it may be another one.
    fn came_back(&mut self, now: Instant, rng: &mut dyn Rng) {
        if let Some(client) = &mut self.client {
            client.link_up(now, rng);
        }
        if let Some(discovery) = &mut self.discovery {
            discovery.link_up(now, rng);
        }
    }

    /// Whatever was delegated before a restart may have been in use.
    fn remember(&mut self, now: Instant) {
        let PrefixFrom::Delegated { subnet, .. } = self.uplink.prefix else { return };
        let held = self.client.as_ref().map(Client::delegated).unwrap_or_default();
        let of = |it: &Delegated| Some((it.is_deprecated(now), subnet_of(it.prefix, it.length, subnet)?));
        let mut used: Vec<(bool, Prefix)> = held.iter().filter_map(of).collect();
        // As a process before this one had them; else those that are not to be left first.
        let told = self.told.as_ref().map(|told| told.prefixes.as_slice()).unwrap_or_default();
        let place = |prefix: &Prefix| told.iter().position(|(it, _)| it == prefix).unwrap_or(told.len());
        used.sort_by_key(|(deprecated, prefix)| (place(prefix), *deprecated));
        self.used = used.into_iter().map(|(_, prefix)| prefix).collect();
    }

    fn found(&mut self, now: Instant) -> Found {
        let router = self.discovery.as_ref().and_then(|it| it.router()).map(|router| router.address);
        Found { name: self.uplink.name.clone(), router, prefixes: self.prefixes(now) }
    }
}

/// A number of four octets that a name has always (FNV-1a).
fn iaid_of(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193))
}

impl Engine {
    /// Begins to look for prefixes and routers. `duid` is the box's name to DHCPv6, `epoch` what the wall clock said at the
    /// start of time, and `kept` what was delegated before a restart. `carried` is what the engine's providers are made of
    /// already, since a process before this one had found it out.
    pub fn begin_uplinks(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        (duid, epoch): (Option<Duid>, u64),
        (kept, carried): (&[(String, Stored)], &[Found]),
        effects: &mut Vec<Effect>,
    ) {
        self.uplinks.epoch = epoch;
        for at in 0..self.uplinks.all.len() {
            let line = &mut self.uplinks.all[at];
            line.told = carried.iter().find(|found| found.name == line.uplink.name).cloned();
            let router = line.told.as_ref().and_then(|told| told.router);
            if let Some(discovery) = &mut line.discovery {
                router.into_iter().for_each(|router| discovery.assume(now, router));
                discovery.start(now, rng);
            }
            if let (PrefixFrom::Delegated { hint, rapid_commit, .. }, Some(duid)) = (line.uplink.prefix, duid.clone()) {
                let mut client = Client::new(Settings { duid, iaid: iaid_of(&line.uplink.name), hint, rapid_commit });
                if let Some((_, stored)) = kept.iter().find(|(name, _)| *name == line.uplink.name) {
                    client.restore(stored, epoch);
                }
                let mut out = Vec::new();
                client.start(now, rng, &mut out);
                line.client = Some(client);
                line.remember(now);
                self.uplink_outputs(at, out, effects);
            }
        }
        self.look_at_uplinks(now, effects);
    }

    /// What is found out about each of them now.
    pub fn found(&self) -> Vec<Found> {
        self.uplinks.all.iter().filter_map(|line| line.told.clone()).collect()
    }

    /// Whether that is not what it was when this was last asked.
    pub fn uplinks_have_news(&mut self) -> bool {
        std::mem::take(&mut self.uplinks.news)
    }

    /// What has to be stored of an uplink: what was delegated, or that nothing is.
    pub fn next_delegation(&mut self) -> Option<(String, Option<Stored>)> {
        let epoch = self.uplinks.epoch;
        let line = self.uplinks.all.iter_mut().find(|line| line.unstored)?;
        line.unstored = false;
        Some((line.uplink.name.clone(), line.client.as_ref().and_then(|client| client.stored(epoch))))
    }

    pub(super) fn expire_uplinks(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        if self.uplinks.deadline().is_none_or(|due| due > now) {
            return;
        }
        for at in 0..self.uplinks.all.len() {
            let (line, mut out) = (&mut self.uplinks.all[at], Vec::new());
            if std::mem::take(&mut line.back) {
                line.came_back(now, rng);
            }
            if let Some(client) = line.client.as_mut().filter(|it| it.deadline().is_some_and(|due| due <= now)) {
                client.expire(now, rng, &mut out);
            }
            let (port, link) = (line.port, own_link(&self.snapshot, line.port));
            let asks =
                line.discovery.as_mut().zip(link).and_then(|(discovery, link)| discovery.expire(now, rng, &link));
            effects.extend(asks.map(|frame| Effect::Transmit(port, frame)));
            self.uplink_outputs(at, out, effects);
        }
        self.look_at_uplinks(now, effects);
    }

    /// The device of a port says how its link is.
    pub(super) fn note_uplink(&mut self, port: PortId, up: bool) {
        for line in self.uplinks.all.iter_mut().filter(|line| line.port == port) {
            line.back |= up && !line.link;
            line.link = up;
        }
    }

    /// A packet for the box that may be a router's advertisement. Whether it is.
    pub(super) fn router_advertised(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        port: PortId,
        packet: &[u8],
        effects: &mut Vec<Effect>,
    ) -> bool {
        let mut heard = false;
        for line in self.uplinks.all.iter_mut().filter(|line| line.port == port) {
            heard |= line.discovery.as_mut().is_some_and(|discovery| discovery.receive(now, rng, packet));
        }
        if heard {
            self.tally.count(Event::RouterHeard);
            self.look_at_uplinks(now, effects);
        }
        heard
    }

    /// A datagram to the clients' port. False if nobody waits for one there.
    pub(super) fn delegation_message(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        port: PortId,
        datagram: &Datagram,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(at) = self.uplinks.all.iter().position(|line| line.port == port && line.client.is_some()) else {
            return false;
        };
        let PrefixFrom::Delegated { subnet, .. } = self.uplinks.all[at].uplink.prefix else { return false };
        let others = self.uplinks.all.iter().enumerate().filter(|(it, _)| *it != at);
        let others = others.filter_map(|(_, line)| line.client.as_ref()).flat_map(Client::delegated);
        let others: Vec<Prefix> = others.filter_map(|it| Prefix::of(it.prefix, it.length)).collect();
        let foreign = &self.uplinks.foreign;
        let fits = |address: Ipv6Addr, length: u8| {
            let Some(whole) = Prefix::of(address, length) else { return false };
            length >= 16
                && is_routable(address)
                && subnet_of(address, length, subnet).is_some()
                && !foreign.iter().chain(&others).any(|other| other.overlaps(whole))
        };
        let mut out = Vec::new();
        let heard = match &mut self.uplinks.all[at].client {
            Some(client) => client.receive(now, rng, &datagram.payload, &fits, &mut out),
            None => false,
        };
        self.tally.count(if heard { Event::DelegationHeard } else { Event::DelegationUnheard });
        if heard {
            // Lifetimes may be others though prefixes are the same.
            self.uplinks.all[at].unstored = true;
        }
        self.uplink_outputs(at, out, effects);
        self.look_at_uplinks(now, effects);
        true
    }

    fn uplink_outputs(&mut self, at: usize, out: Vec<client::Output>, effects: &mut Vec<Effect>) {
        for output in out {
            let Some(line) = self.uplinks.all.get_mut(at) else { return };
            match output {
                client::Output::Send(payload) => {
                    let port = line.port;
                    match own_link(&self.snapshot, port).and_then(|link| question(&link, payload)) {
                        Some(frame) => {
                            self.tally.count(Event::DelegationAsked);
                            effects.push(Effect::Transmit(port, frame));
                        }
                        None => self.tally.count(Event::DatagramNotSent),
                    }
                }
                client::Output::Changed => line.unstored = true,
                client::Output::Note(note) => {
                    effects.push(Effect::Story(Story::Delegation(line.uplink.name.clone(), note)));
                }
            }
        }
    }

    /// Whether anything is to be told of.
    fn look_at_uplinks(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for line in &mut self.uplinks.all {
            let found = Some(line.found(now));
            if line.told != found {
                self.uplinks.news = true;
                line.told = found.clone();
                effects.extend(found.map(|found| Effect::Story(Story::Found(found))));
            }
        }
    }

    /// What the operator sees; the name of the port is for the caller to fill in.
    pub fn uplinks_view(&self, now: Instant) -> Vec<UplinkView> {
        let view = |line: &Line| {
            let found = line.told.as_ref();
            let used = found.map(|found| found.prefixes.as_slice()).unwrap_or_default();
            let delegated = line.client.as_ref().map(Client::delegated).unwrap_or_default();
            let left = |at: Option<Instant>| at.map(|at| at.since(now).as_secs());
            let stage = line.client.as_ref().map(Client::stage);
            let router = line.discovery.as_ref().and_then(Discovery::router);
            let waits = match (used.is_empty(), stage, line.discovery.is_some() && router.is_none()) {
                (true, Some(Stage::Requesting), _) => "for a prefix: a server was found and asked",
                (true, ..) if !delegated.is_empty() => "for a prefix: none of those delegated can be used",
                (true, ..) => "for a prefix: no server offers one",
                (false, _, true) => "for a router: none advertises itself",
                (false, _, false) => "",
            };
            UplinkView {
                name: line.uplink.name.clone(),
                port: line.port.0.to_string(),
                waits: waits.to_owned(),
                stage: stage.map(|stage| format!("{stage:?}").to_lowercase()),
                used: used.iter().map(|(prefix, _)| prefix.to_string()).collect(),
                delegated: delegated
                    .iter()
                    .map(|it| DelegatedView {
                        prefix: format!("{}/{}", it.prefix, it.length),
                        deprecated: it.is_deprecated(now),
                        preferred_s: left(it.preferred),
                        valid_s: left(it.valid),
                    })
                    .collect(),
                router: router.map(|router| router.address).or(line.uplink.router),
                router_s: router.map(|router| router.until.since(now).as_secs()),
                router_mtu: router.and_then(|router| router.mtu),
            }
        };
        self.uplinks.all.iter().map(view).collect()
    }
}

fn own_link(snapshot: &dataplane::snapshot::Snapshot, port: PortId) -> Option<OwnLink> {
    let view = snapshot.ports.get(usize::from(port.0))?;
    Some(OwnLink { mac: view.mac, own: view.own.clone() })
}

/// A question to servers as an Ethernet frame (RFC 8415 §18.2: from a link-local address).
fn question(link: &OwnLink, payload: Vec<u8>) -> Option<Vec<u8>> {
    let own = *link.own.iter().find(|own| own.is_unicast_link_local())?;
    let datagram = Datagram { source: (own, CLIENT_PORT), target: (client::ALL_SERVERS, SERVER_PORT), payload };
    let mut frame = vec![0; ethernet::HEADER_LEN];
    let to = Mac::for_multicast(client::ALL_SERVERS);
    ethernet::ViewMut::new(&mut frame).ok()?.set(to, link.mac, EtherType::IPV6);
    frame.extend_from_slice(&datagram.emit(HOP_LIMIT)?);
    Some(frame)
}
