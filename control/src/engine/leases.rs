//! Hosts that get their address by DHCPv6: the server's machine among the others.
//!
//! A lease that is written makes a host like one of the hosts file. It is served before its client hears of it, and taken
//! out when the client gives it back or does not extend it. What is to be written, and the identities for new clients, are
//! somebody else's work: [`Engine::next_commit`] and [`Engine::next_identity`] say what, and the answers are input.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::{self, Mac};
use dataplane::wire::{Locator, Ulid};
use hashbrown::{HashMap, HashSet};
use rand::Rng;

use super::identities::{IdentityJob, MadeIdentity};
use super::services::HOP_LIMIT;
use super::{Effect, Engine, Event, Story};
use crate::config::hosts::{Entry, locator_under};
use crate::config::site::Advertising;
use crate::config::{Host, Hosts, Prefix, Site};
use crate::dhcp::options::encode_name;
use crate::dhcp::{self, Change, Client, Config, Duid, Identity, Incoming, Lease, Output, Server, State, Stored, Told};
use crate::host::advertise::ALL_ROUTERS;
use crate::host::{Advertisement, Advertiser, Datagram};
use crate::identity::{HostIdentity, HostPrefixes, Kind, Sec, SigningKey, verify_ulid};
use crate::time::Instant;

/// Identities that are made beforehand, so that a new client does not wait for its own.
pub(super) const RESERVE: usize = 64;
/// Link-layer addresses of clients that are remembered for their answers.
const CLIENTS_MAX: usize = 8192;
/// All_DHCP_Relay_Agents_and_Servers and All_DHCP_Servers (RFC 8415 §7.1).
const GROUPS: [Ipv6Addr; 2] = [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3)];

/// Clients whose locators are others than those that are stored.
pub(super) type Fitted = Vec<(Client, Vec<Ipv6Addr>)>;

/// What was kept from the time before the box began.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The name the DHCPv6 server goes by.
    pub duid: Duid,
    /// Leases and quarantine.
    pub stored: Stored,
    /// Identities that this box alone may give to clients; nothing if it has the store alone.
    pub reserved: Vec<Identity>,
    /// The wall clock's seconds since 1970 at [`Instant::START`].
    pub epoch: u64,
}

/// Something to be written: all of it or nothing, and in the order in which it was given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which; [`Engine::committed`] wants to hear of it.
    pub ticket: u64,
    /// What.
    pub changes: Vec<Change>,
    /// The last of what other boxes wrote that was known.
    pub seen: u64,
}

/// The server and what is around it.
pub(super) struct Leases {
    pub(super) server: Server,
    commits: VecDeque<Commit>,
    pub(super) job: IdentityJob,
    /// Identities that are being made.
    making: usize,
    /// Where clients on the link were heard last: their answers need no neighbour discovery.
    heard: HashMap<Ipv6Addr, Mac>,
    /// The number of the last news of other boxes.
    pub(super) seen: u64,
    /// Identifiers of identities that were reserved and will not be used.
    pub(super) released: VecDeque<Ipv6Addr>,
}

impl Engine {
    /// Serves clients by DHCPv6 from now on, those of `kept` at once. To be called before [`Engine::start`]; does nothing
    /// if the site has no such service.
    pub fn begin_leases(&mut self, rng: &mut dyn Rng, site: &Site, hosts: &Hosts, kept: Kept) {
        let Some(config) = lease_config(site, kept.duid.clone()) else { return };
        let now = Instant::START;
        let mut server = Server::new(config, kept.stored, kept.epoch);
        server.set_foreign_names(hosts.iter().map(|host| host.name.clone()).collect());
        let job =
            IdentityJob { generation: 0, prefixes: prefixes_of(site), sec: sec_of(site), key: key_of(site, hosts) };
        let mut out = Vec::new();
        server.expire(now, &mut out);
        let (commits, heard, released) = (VecDeque::new(), HashMap::new(), VecDeque::new());
        self.leases = Some(Leases { server, commits, job, making: 0, heard, seen: 0, released });
        self.stock_reserved(kept.reserved);
        self.hold_former(kept.epoch);
        let (joined, fitted) = self.with_leased(rng, site, hosts, &|_| true);
        // Those that another process served until now have their place already.
        for host in joined.iter().filter(|host| self.leased.contains(&host.identity.ulid)).collect::<Vec<_>>() {
            self.publish_host(host);
        }
        for host in joined.iter().filter(|host| !self.served.contains_key(&host.identity.ulid)).collect::<Vec<_>>() {
            match self.checked(rng, host, joined.key()) {
                Ok(checked) => {
                    self.take_in(host, checked);
                    self.leased.insert(host.identity.ulid);
                }
                Err(_) => self.tally.count(Event::LeaseNotServed),
            }
        }
        self.note_locators(now, fitted, &mut out);
        // There are no workers that could be told anything yet, and what is served was just taken in.
        let mut effects = Vec::new();
        self.follow_leases(now, rng, out, &mut effects);
        self.renew_nat();
        self.listener.join(usize::from(self.lan_port.0), &GROUPS);
    }

    /// What is quarantined, and what former clients had, is kept from hosts of the hosts file too.
    fn hold_former(&mut self, wall: u64) {
        let Some(leases) = &self.leases else { return };
        let (book, quarantine) = (leases.server.book(), leases.server.config().quarantine);
        let held = book
            .held()
            .map(|held| (held.until, held.ulid, held.locators.iter().copied().chain([held.ulid]).collect::<Vec<_>>()));
        let former = book.leases().filter(|lease| lease.state == State::Former);
        let former = former.map(|lease| {
            let until = lease.until.saturating_add(quarantine);
            (until, lease.identity.ulid, lease.identity.addresses().collect())
        });
        for (until, ulid, addresses) in held.chain(former).filter(|(until, ..)| *until > wall).collect::<Vec<_>>() {
            let time = Duration::from_secs(until - wall);
            self.endpoint.hold_addresses(Instant::START, time, Ulid(ulid), addresses.into_iter());
        }
    }

    /// The hosts of the hosts file and those with a lease, with locators that fit the providers; and whose locators are not
    /// what is stored.
    pub(super) fn with_leased(
        &self,
        rng: &mut dyn Rng,
        site: &Site,
        hosts: &Hosts,
        is_served: &dyn Fn(Ulid) -> bool,
    ) -> (Hosts, Fitted) {
        let (mut all, mut fitted) = (hosts.clone(), Vec::new());
        let Some(leases) = &self.leases else { return (all, fitted) };
        let known: HashSet<Ipv6Addr> = hosts.iter().map(|host| host.identity.ulid.0).collect();
        let key = key_of(site, hosts).or_else(|| leases.job.key.clone());
        let bound = |lease: &&Lease| {
            let ulid = lease.identity.ulid;
            lease.state == State::Bound && !known.contains(&ulid) && is_served(Ulid(ulid)) && site.lan.contains(ulid)
        };
        let mut bound: Vec<&Lease> = leases.server.book().leases().filter(bound).collect();
        bound.sort_by_key(|lease| lease.identity.ulid);
        let prefixes: Vec<Prefix> = site.providers.iter().map(|provider| provider.prefix).collect();
        for lease in bound {
            // Without any locator it can talk inside only, and its parameters are still good for a provider that returns.
            let Some((host, changed)) = self.fitted(rng, lease, &prefixes, key.as_deref()) else { continue };
            fitted.extend(changed.map(|locators| (lease.client.clone(), locators)));
            all.list_mut().push(host);
        }
        if all.key().is_none() {
            all.set_key(key);
        }
        (all, fitted)
    }

    /// The host that a lease makes, with a locator from each of these prefixes that there is proof for and that is nobody
    /// else's; and its locators, if they are not what is stored. None if there is no locator, or no proof of its address.
    fn fitted(
        &self,
        rng: &mut dyn Rng,
        lease: &Lease,
        prefixes: &[Prefix],
        key: Option<&SigningKey>,
    ) -> Option<(Host, Option<Vec<Ipv6Addr>>)> {
        let book = self.leases.as_ref()?.server.book();
        let Identity { ulid, locators, pds } = lease.identity.clone();
        let entry = Entry { name: lease.name.clone(), ulid, locators, pds, mac: None };
        let host_at = |it: Ipv6Addr| self.endpoint.host_at(Ulid(it)).map(|host| host.ulid.0);
        let anybodys = |it: &Ipv6Addr| book.owner(*it).is_some() || host_at(*it).is_some();
        let others = |it: &Ipv6Addr| {
            let client = book.owner(*it).is_some_and(|owner| owner.client != lease.client);
            client || host_at(*it).is_some_and(|of| of != ulid)
        };
        let fit = |prefix: &Prefix| locator_under(&entry, *prefix, key, rng, &anybodys);
        let locators: Vec<Ipv6Addr> = prefixes.iter().filter_map(fit).filter(|it| !others(it)).collect();
        let host = host_of(&lease.name, &Identity { locators: locators.clone(), ..lease.identity.clone() })?;
        let usable = !locators.is_empty() && !others(&ulid);
        usable.then(|| (host, Some(locators).filter(|now| *now != lease.identity.locators)))
    }

    /// Locators of clients that are others now are written down.
    fn note_locators(&mut self, now: Instant, fitted: Fitted, out: &mut Vec<Output>) {
        let Some(leases) = &mut self.leases else { return };
        for (client, locators) in fitted {
            leases.server.relocate(now, &client, locators, out);
        }
    }

    /// A new configuration was taken over, and locators fitted to it.
    pub(super) fn leases_reloaded(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        (site, hosts): (&Site, &Hosts),
        fitted: Fitted,
        effects: &mut Vec<Effect>,
    ) {
        let advertisement = self.advertisement(site);
        if let (Some(advertiser), Some(what)) = (&mut self.advertiser, advertisement) {
            advertiser.set(now, what);
        }
        let Some(leases) = &mut self.leases else { return };
        if let Some(config) = lease_config(site, leases.server.config().duid.clone())
            && config != *leases.server.config()
        {
            leases.server.set_config(config);
        }
        leases.server.set_foreign_names(hosts.iter().map(|host| host.name.clone()).collect());
        let key = key_of(site, hosts).or_else(|| leases.job.key.clone().filter(|_| site.key.is_some()));
        let job = IdentityJob { prefixes: prefixes_of(site), sec: sec_of(site), key, ..leases.job.clone() };
        if !leases.job.makes_the_same(&job) {
            // What is ready or being made does not fit any more.
            leases.job = IdentityJob { generation: leases.job.generation + 1, ..job };
            let unused = leases.server.discard_stock();
            leases.released.extend(unused);
            leases.making = 0;
        }
        leases.server.forgive();
        let mut out = Vec::new();
        self.note_locators(now, fitted, &mut out);
        self.follow_leases(now, rng, out, effects);
    }

    /// A datagram for the server, with the frame it came in.
    pub(super) fn lease_message(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        port: PortId,
        frame: &[u8],
        datagram: &Datagram,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(leases) = self.leases.as_mut().filter(|_| port == self.lan_port) else { return false };
        let source = datagram.source.0;
        if source.is_unicast_link_local()
            && let Ok(ether) = ethernet::View::new(frame)
            && !ether.source().is_multicast()
        {
            if leases.heard.len() >= CLIENTS_MAX && !leases.heard.contains_key(&source) {
                leases.heard.clear();
            }
            leases.heard.insert(source, ether.source());
        }
        let incoming = Incoming { source, target: datagram.target.0, payload: &datagram.payload };
        let mut out = Vec::new();
        let verdict = leases.server.receive(now, incoming, &mut out);
        self.tally.dhcp(verdict);
        self.follow_leases(now, rng, out, effects);
        true
    }

    /// The next thing to be written.
    pub fn next_commit(&mut self) -> Option<Commit> {
        self.leases.as_mut()?.commits.pop_front()
    }

    /// These have been written, or could not be. Workers hear of all hosts that follow at once.
    pub fn committed(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        done: &[(u64, Result<(), String>)],
        effects: &mut Vec<Effect>,
    ) {
        let Some(leases) = &mut self.leases else { return };
        let mut out = Vec::new();
        for (ticket, result) in done {
            leases.server.persisted(now, *ticket, result.is_ok(), &mut out);
            if let Err(reason) = result {
                self.tally.count(Event::LeaseNotWritten);
                effects.push(Effect::Story(Story::NotWritten(reason.clone())));
            }
        }
        self.follow_leases(now, rng, out, effects);
    }

    /// Nothing can be written at present, for this reason, or something can again. What is to be written waits.
    pub fn store_failed(&mut self, reason: Option<String>, effects: &mut Vec<Effect>) {
        self.tally.count(if reason.is_some() { Event::StoreFailed } else { Event::StoreBack });
        effects.push(Effect::Story(Story::Store(reason)));
    }

    /// The next identity to be made.
    pub fn next_identity(&mut self) -> Option<IdentityJob> {
        let leases = self.leases.as_mut()?;
        if leases.server.ready() + leases.making >= RESERVE {
            return None;
        }
        leases.making += 1;
        Some(leases.job.clone())
    }

    /// An identity has been made, or could not be.
    pub fn identity_made(&mut self, made: MadeIdentity) {
        let Some(leases) = &mut self.leases else { return };
        if made.generation != leases.job.generation {
            return;
        }
        leases.making = leases.making.saturating_sub(1);
        if let Some(identity) = made.identity {
            leases.server.stock(identity);
        }
    }

    /// Lets leases end and advertisements go out whose time has come.
    pub(super) fn expire_leases(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        if let Some(frame) = self.advertiser.as_mut().and_then(|it| it.expire(now, rng)) {
            self.tally.count(Event::RouterAdvertisements);
            effects.push(Effect::Transmit(self.lan_port, frame));
        }
        let Some(leases) = self.leases.as_mut().filter(|it| it.server.deadline().is_some_and(|due| due <= now)) else {
            return;
        };
        let mut out = Vec::new();
        leases.server.expire(now, &mut out);
        self.follow_leases(now, rng, out, effects);
    }

    /// When [`Engine::expire_leases`] has something to do.
    pub(super) fn leases_deadline(&self) -> Option<Instant> {
        let server = self.leases.as_ref().and_then(|leases| leases.server.deadline());
        let advertiser = self.advertiser.as_ref().and_then(Advertiser::deadline);
        server.into_iter().chain(advertiser).min()
    }

    /// The server, for the operator.
    pub(super) fn lease_server(&self) -> Option<&Server> {
        self.leases.as_ref().map(|leases| &leases.server)
    }

    pub(super) fn follow_leases(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        out: Vec<Output>,
        effects: &mut Vec<Effect>,
    ) {
        let mut changed = false;
        let (mut answers, mut out) = (Vec::new(), VecDeque::from(out));
        while let Some(output) = out.pop_front() {
            match output {
                Output::Write { ticket, changes } => {
                    if let Some(leases) = &mut self.leases {
                        leases.commits.push_back(Commit { ticket, changes, seen: leases.seen });
                    }
                }
                // Nobody is told of an address that cannot be his: he asks again, and gets another one.
                Output::Send { target, payload, needs } => {
                    if needs.iter().all(|ulid| self.served.contains_key(&Ulid(*ulid))) {
                        answers.push((target, payload));
                    }
                }
                Output::Serve(lease) => {
                    let mut more = Vec::new();
                    changed |= self.serve_lease(now, rng, &lease, &mut more, effects);
                    out.extend(more);
                }
                Output::Withdraw(ulid) => {
                    let ours = self.leased.contains(&Ulid(ulid));
                    if ours {
                        self.take_out(now, rng, Ulid(ulid), effects);
                    }
                    changed |= ours;
                }
                Output::Tell(told) => {
                    self.tally.lease(&told);
                    effects.push(Effect::Story(story(told)));
                }
            }
        }
        // Workers know the host before it knows its address.
        if changed {
            self.publish_hosts(effects);
        }
        for (target, payload) in answers {
            self.answer_client(now, target, payload, effects);
        }
    }

    /// A lease makes a host, unless it is one already. Its client may have been away while providers came and went, so its
    /// locators are fitted to them. Whether workers have to hear of it.
    fn serve_lease(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        lease: &Lease,
        out: &mut Vec<Output>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let ulid = Ulid(lease.identity.ulid);
        if self.served.contains_key(&ulid) {
            return false;
        }
        let Some(job) = self.leases.as_ref().map(|leases| leases.job.clone()) else { return false };
        let key = job.key.clone().or_else(|| self.key.clone());
        let prefixes: Vec<Prefix> = job.prefixes.locators.iter().filter_map(prefix_of).collect();
        let fitted = self.fitted(rng, lease, &prefixes, key.as_deref());
        let checked = fitted.and_then(|(host, changed)| {
            let checked = self.checked(rng, &host, key.as_ref()).ok()?;
            Some((host, changed, checked))
        });
        let Some((host, changed, checked)) = checked else {
            if let Some(leases) = &mut self.leases {
                leases.server.refuse(&lease.client);
            }
            self.tally.count(Event::LeaseNotServed);
            effects.push(Effect::Story(Story::NotServed(lease.name.clone(), lease.identity.ulid)));
            return false;
        };
        // Whose it is was proved by the name of the client, which may have another network card by now.
        let addresses = host.identity.locators.iter().map(|locator| locator.0).chain([ulid.0]);
        self.endpoint.lift_quarantine(ulid, addresses);
        self.take_in(&host, checked);
        self.leased.insert(ulid);
        self.note_locators(now, changed.map(|locators| (lease.client.clone(), locators)).into_iter().collect(), out);
        true
    }

    /// To whom was heard on the link directly; a relay is looked for as any neighbour.
    fn answer_client(&mut self, now: Instant, target: (Ipv6Addr, u16), payload: Vec<u8>, effects: &mut Vec<Effect>) {
        let port = self.lan_port;
        let near = |own: &&Ipv6Addr| own.is_unicast_link_local() == target.0.is_unicast_link_local();
        let Some(source) = self.lan_addresses.iter().find(near).or(self.lan_addresses.first()).copied() else { return };
        let datagram = Datagram { source: (source, dhcp::SERVER_PORT), target, payload };
        let heard = self.leases.as_ref().and_then(|leases| leases.heard.get(&target.0)).copied();
        let own = self.snapshot.ports.get(usize::from(port.0)).map(|port| port.mac);
        let packet = datagram.emit(HOP_LIMIT);
        let (Some(mac), Some(own), Some(packet)) = (heard, own, packet) else {
            return self.send_datagram(now, port, &datagram, effects);
        };
        let mut frame = [&[0; ethernet::HEADER_LEN], &packet[..]].concat();
        if let Ok(mut ether) = ethernet::ViewMut::new(&mut frame) {
            ether.set(mac, own, ethernet::EtherType::IPV6);
            effects.push(Effect::Transmit(port, frame));
        }
    }

    /// What hosts are told of the box as a router; nothing if they are told nothing.
    fn advertisement(&self, site: &Site) -> Option<Advertisement> {
        let wanted: &Advertising = site.advertising.as_ref()?;
        let view = self.snapshot.ports.get(usize::from(self.lan_port.0))?;
        let dhcp = site.dhcp.as_ref();
        let search = dhcp.map(|dhcp| dhcp.search.as_slice()).unwrap_or_default();
        Some(Advertisement {
            mac: view.mac,
            source: self.lan_addresses.iter().find(|own| own.is_unicast_link_local()).copied()?,
            managed: dhcp.is_some(),
            lifetime: wanted.lifetime,
            interval: Duration::from_secs(wanted.interval.into()),
            mtu: view.mtu,
            prefix: site.lan.address(),
            routes: wanted.routes.iter().map(|route| (route.address(), route.length())).collect(),
            dns: dns_servers(site),
            search: search.iter().filter_map(|domain| encode_name(domain)).collect(),
        })
    }

    /// Prepares to advertise, if the site wants that.
    pub(super) fn prepare_advertising(&mut self, site: &Site) {
        self.advertiser = self.advertisement(site).map(Advertiser::new);
        if self.advertiser.is_some() {
            self.listener.join(usize::from(self.lan_port.0), &[ALL_ROUTERS]);
        }
    }

    /// What is to be sent when the box stops: hosts look for another router at once (RFC 4861 §6.2.5).
    pub fn farewell(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.end_watches(now, effects);
        if let Some(frame) = self.advertiser.as_mut().and_then(Advertiser::stop) {
            effects.push(Effect::Transmit(self.lan_port, frame));
        }
    }
}

fn prefixes_of(site: &Site) -> HostPrefixes {
    let lasting = site.providers.iter().filter(|provider| !provider.deprecated);
    let locators = lasting.map(|provider| provider.prefix.high_half()).collect();
    HostPrefixes { ulid: site.lan.high_half(), locators }
}

fn prefix_of(high_half: &[u8; 8]) -> Option<Prefix> {
    Prefix::of(Ipv6Addr::from_bits(u128::from(u64::from_be_bytes(*high_half)) << 64), 64)
}

fn sec_of(site: &Site) -> Sec {
    Sec::new(site.sec).unwrap_or(Sec::ZERO)
}

/// The key that identities are made with: none, if the site has none.
fn key_of(site: &Site, hosts: &Hosts) -> Option<Arc<SigningKey>> {
    hosts.key().filter(|_| site.key.is_some()).cloned()
}

/// A host with these addresses, if its parameters prove them.
fn host_of(name: &str, identity: &Identity) -> Option<Host> {
    let kind: Kind = verify_ulid(Ulid(identity.ulid), &identity.pds).ok()?;
    let locators = identity.locators.iter().copied().map(Locator).collect();
    let identity = HostIdentity { ulid: Ulid(identity.ulid), locators, pds: identity.pds.clone(), kind };
    Some(Host { name: name.to_owned(), identity, mac: None })
}

/// DNS servers that hosts hear of: those of the configuration, or the box itself if it serves DNS.
fn dns_servers(site: &Site) -> Vec<Ipv6Addr> {
    let named = site.dhcp.as_ref().map(|dhcp| dhcp.dns_servers.clone()).unwrap_or_default();
    let own = site.ports.get(site.lan_port).map(|port| port.addresses.as_slice()).unwrap_or_default();
    let own = own.iter().map(|own| own.address).filter(|address| site.dns.is_some() && site.lan.contains(*address));
    if named.is_empty() { own.collect() } else { named }
}

fn lease_config(site: &Site, duid: Duid) -> Option<Config> {
    let wanted = site.dhcp.as_ref()?;
    let pair = |prefix: &Prefix| (prefix.address(), prefix.length());
    Some(Config {
        duid,
        link: site.lan.address(),
        preferred: wanted.preferred,
        valid: wanted.valid,
        trial: wanted.trial,
        t1: wanted.t1,
        t2: wanted.t2,
        rapid_commit: wanted.rapid_commit,
        preference: wanted.preference,
        dns: dns_servers(site),
        search: wanted.search.clone(),
        policy: wanted.policy.clone(),
        policy_flags: wanted.policy_flags,
        leases_max: wanted.leases_max,
        per_client_max: wanted.leases_per_client,
        per_source_max: wanted.leases_per_source,
        per_relay_max: wanted.leases_per_relay,
        quarantine: site.quarantine.as_secs(),
        reservations: wanted.reservations.clone(),
        relays: wanted.relays.iter().map(pair).collect(),
    })
}

/// What of it belongs together in the log, so that a flood of the one kind does not hide the other.
fn story(told: Told) -> Story {
    match told {
        Told::Bound(..) | Told::Released(..) | Told::Expired(..) => Story::Lease(told),
        Told::Declined(..) => Story::LeaseDeclined(told),
        Told::Refused(..) => Story::LeaseRefused(told),
        Told::Malformed(..) => Story::DhcpMalformed(told),
        Told::Relay(..) | Told::Stranger(..) => Story::DhcpUnheard(told),
    }
}
