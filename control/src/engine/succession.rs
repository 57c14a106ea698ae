//! A box that gives way to another process, and what the other one makes of what it is told.
//!
//! The old process tells all it knows that the new one could not find out by itself without its peers and hosts noticing: the
//! keys behind its tags and validators, lists of locators as peers know them, contexts, and where neighbours are. It goes on
//! deciding and forwarding meanwhile, and tells again what has changed, until there is nothing left to tell and the other one
//! has the ports.
//!
//! Last come the sessions that watch paths, whenever something about them has changed: the peer hears the next packet of each as if
//! nothing had happened.
//!
//! Not told, because it comes back by itself: standbys and what else is known of paths (they are tested anew), the cache of DNS,
//! failures that are held against peers, exchanges under way (the peer repeats its part, or the host its packet), counters.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::sync::Arc;

use dataplane::snapshot::PortId;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::{ContextTag, Ulid};
use hashbrown::{HashMap, HashSet};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::hosts::Served;
use super::watch::CarriedWatch;
use super::{Effect, Engine, Event};
use crate::manage::api::Steering;
use crate::reap::{PathKey, Reap, State};
use crate::shim6::{CarriedContext, CarriedList, ContextId, Copied, LocalHost, Output};
use crate::time::Instant;

/// What tags, validators and the choice of workers are made with. Two processes that have the same are the same box to
/// everybody else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Of the hash that says which worker a pair of identifiers belongs to.
    pub sharding: [u8; 32],
    /// Master secret of validators.
    pub secret: [u8; 32],
}

impl Keys {
    /// New ones.
    pub fn draw(rng: &mut dyn Rng) -> Keys {
        let mut keys = Keys { sharding: [0; 32], secret: [0; 32] };
        rng.fill_bytes(&mut keys.sharding);
        rng.fill_bytes(&mut keys.secret);
        keys
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// One thing that the old process tells the new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// How the operator wants a provider to be used, and where its router is.
    Provider(String, Steering, Option<[u8; 6]>),
    /// A list of locators, under the number by which others name it.
    List(u32, CarriedList),
    /// A host that is served.
    Host(CarriedHost),
    /// A host that is served no longer.
    HostGone(Ipv6Addr),
    /// A context that carries payload, or what has become of it.
    Context(Box<CarriedContext>, Doubts),
    /// The context with this tag is there no longer.
    Gone(u64),
    /// A path whose liveness is exchanged with the peer's box.
    Watch(CarriedWatch),
}

/// A host, as its box serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedHost {
    /// The number of its present list.
    pub list: u32,
    /// Its name.
    pub name: String,
    /// The link-layer address it was given.
    pub link: Option<[u8; 6]>,
    /// The one it was last seen with.
    pub mac: Option<[u8; 6]>,
    /// Whether it has its address by DHCPv6.
    pub leased: bool,
}

/// What is not well with a context's pair of locators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubts {
    /// Nothing comes back, and others are being tried.
    pub explores: bool,
    /// It has no room for the payload header behind 1280 octets.
    pub narrow: bool,
    /// Its path drops next header 140, so that it goes in UDP.
    pub udp: bool,
}

/// How far the old process is.
pub(super) struct Bequest {
    /// Lists that were told, and their numbers. Held, so that none is taken for another that was made in its place.
    lists: HashMap<usize, (Arc<LocalHost>, u32)>,
    providers: usize,
    /// Hosts to tell of, and those among them as a set.
    hosts: VecDeque<Ulid>,
    /// What was told of watched paths.
    watches: HashMap<PathKey, CarriedWatch>,
    waiting: HashSet<Ulid>,
}

/// What the new process keeps until everything has been told.
#[derive(Default)]
pub(super) struct Inheritance {
    lists: HashMap<u32, Arc<LocalHost>>,
    /// Contexts whose pair did not work for the other process.
    doubted: Vec<ContextId>,
}

impl Engine {
    /// What this engine's tags and validators are made with.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Somebody will take this engine's place: from now on [`Engine::bequeath`] has things to tell.
    pub fn begin_bequest(&mut self) {
        self.endpoint.begin_copy();
        let mut hosts: Vec<Ulid> = self.served.keys().copied().collect();
        hosts.sort_unstable();
        let waiting = hosts.iter().copied().collect();
        self.bequest = Some(Box::new(Bequest {
            lists: HashMap::new(),
            providers: 0,
            hosts: hosts.into(),
            watches: HashMap::new(),
            waiting,
        }));
    }

    /// Nobody takes its place after all.
    pub fn end_bequest(&mut self) {
        self.endpoint.end_copy();
        self.bequest = None;
    }

    /// How many things are left to tell, about.
    pub fn left_to_bequeath(&self) -> usize {
        self.bequest.as_ref().map_or(0, |it| {
            self.providers.len().saturating_sub(it.providers)
                + it.hosts.len()
                + self.endpoint.left_to_copy()
                + usize::from(self.next_watch(&it.watches).is_some())
        })
    }

    /// Something has become of a host that the other one has to know.
    pub(super) fn note_for_heir(&mut self, ulid: Ulid) {
        if let Some(bequest) = &mut self.bequest
            && bequest.waiting.insert(ulid)
        {
            bequest.hosts.push_back(ulid);
        }
    }

    /// Tells about `most` further things.
    pub fn bequeath(&mut self, most: usize, items: &mut Vec<Item>) {
        let Some(mut bequest) = self.bequest.take() else { return };
        for _ in 0..most {
            if !self.bequeath_one(&mut bequest, items) {
                break;
            }
        }
        self.bequest = Some(bequest);
    }

    /// Before contexts come providers, without which none could be sent, and hosts, whose they are.
    fn bequeath_one(&mut self, bequest: &mut Bequest, items: &mut Vec<Item>) -> bool {
        if let Some(provider) = self.providers.get(bequest.providers) {
            let mac = self.snapshot.providers.get(bequest.providers).and_then(|view| view.mac);
            bequest.providers += 1;
            items.push(Item::Provider(provider.name.clone(), provider.steering, mac.map(|mac| mac.0)));
            return true;
        }
        if let Some(ulid) = bequest.hosts.pop_front() {
            bequest.waiting.remove(&ulid);
            items.extend(self.bequeathed_host(bequest, ulid));
            return true;
        }
        match self.endpoint.next_copied() {
            None => self.bequeath_watch(&mut bequest.watches, items),
            Some(Copied::Gone(tag)) => {
                items.push(Item::Gone(tag.value()));
                true
            }
            Some(Copied::Context(context)) => {
                let attached = self.attached.get(&context.id);
                let reap = attached.and_then(|attached| attached.reap.as_ref());
                let doubts = Doubts {
                    explores: reap.is_some_and(|reap| reap.state() != State::Operational),
                    narrow: attached.is_some_and(|attached| attached.narrow == Some(context.pair)),
                    udp: self.carriages.is_udp(PathKey::of(context.pair)),
                };
                let (number, list) = bequest.list(&context.host);
                items.extend(list);
                let carried = CarriedContext::of(context, number);
                items.extend(carried.map(|carried| Item::Context(Box::new(carried), doubts)));
                true
            }
        }
    }

    fn bequeathed_host(&self, bequest: &mut Bequest, ulid: Ulid) -> Vec<Item> {
        let (Some(served), Some(host)) = (self.served.get(&ulid), self.endpoint.shared_host(ulid)) else {
            return vec![Item::HostGone(ulid.0)];
        };
        let (list, new) = bequest.list(host);
        let mac = self.host_at(self.lan_port, ulid.0).and_then(|at| self.snapshot.hosts[at].mac);
        let host = CarriedHost {
            list,
            name: served.name.clone(),
            link: served.link.map(|mac| mac.0),
            mac: mac.map(|mac| mac.0),
            leased: self.leased.contains(&ulid),
        };
        new.into_iter().chain([Item::Host(host)]).collect()
    }

    /// Takes in what the other process told, in its order.
    pub fn inherit(&mut self, now: Instant, rng: &mut dyn Rng, items: Vec<Item>, effects: &mut Vec<Effect>) {
        let mut seen = Vec::new();
        let mut hosts_changed = false;
        for item in items {
            match item {
                Item::Provider(name, steering, mac) => seen.extend(self.inherit_provider(&name, steering, mac)),
                Item::List(number, list) => {
                    self.inheritance.lists.insert(number, Arc::new(list.into()));
                }
                Item::Host(host) => {
                    hosts_changed |= self.inherit_host(&host);
                    let list = self.inheritance.lists.get(&host.list);
                    let port = self.lan_port;
                    let place = list.zip(host.mac);
                    seen.extend(place.map(|(list, mac)| (port, self.hop_to(port, list.ulid.0), Mac(mac))));
                }
                Item::HostGone(ulid) => _ = self.remove_host(now, rng, Ulid(ulid), effects),
                Item::Context(carried, doubts) => {
                    self.heard_of_neighbours(now, &mut seen, &mut hosts_changed, effects);
                    self.inherit_context(now, rng, &carried, doubts, effects);
                }
                Item::Watch(watch) => self.inherit_watch(now, rng, watch),
                Item::Gone(tag) => {
                    let mut out = Vec::new();
                    self.endpoint.give_up(ContextTag::truncate(tag), &mut out);
                    self.follow(now, rng, out, effects);
                }
            }
        }
        self.heard_of_neighbours(now, &mut seen, &mut hosts_changed, effects);
    }

    /// Everything has been told, and the ports are this box's now: what was in doubt is tested.
    pub fn end_inheritance(&mut self, now: Instant, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        for id in std::mem::take(&mut self.inheritance).doubted {
            self.hint(now, rng, id, effects);
        }
        self.go_on_watching(now);
    }

    fn inherit_provider(
        &mut self,
        name: &str,
        steering: Steering,
        mac: Option<[u8; 6]>,
    ) -> Option<(PortId, Ipv6Addr, Mac)> {
        let provider = self.providers.iter_mut().find(|provider| provider.name == name)?;
        provider.steering = steering;
        Some((provider.port, provider.next_hop, Mac(mac?)))
    }

    /// Workers hear of hosts before they hear of their contexts, and where neighbours are.
    fn heard_of_neighbours(
        &mut self,
        now: Instant,
        seen: &mut Vec<(PortId, Ipv6Addr, Mac)>,
        hosts_changed: &mut bool,
        effects: &mut Vec<Effect>,
    ) {
        let mut events = Vec::new();
        for (port, address, mac) in seen.drain(..) {
            self.neighbours.remember(now, port, address, mac, &mut events);
        }
        self.link_events(now, events, effects);
        if std::mem::take(hosts_changed) {
            self.publish_hosts(effects);
        }
    }

    /// A host has the list that its peers know. One of the configuration is there already, with a list that nobody was told of;
    /// if that is another one, the configuration has changed, and a reload will see to it. Whether workers have to hear of it.
    fn inherit_host(&mut self, carried: &CarriedHost) -> bool {
        let Some(list) = self.inheritance.lists.get(&carried.list).cloned() else { return false };
        let known = self.served.contains_key(&list.ulid);
        if !known && !carried.leased {
            // The configuration does not have it any more.
            return false;
        }
        let Ok(checked) = self.endpoint.check_host(LocalHost::clone(&list)) else {
            self.tally.count(Event::InheritedNot);
            return false;
        };
        let preferences = self.preferences_of(checked.host());
        self.endpoint.adopt_host(checked);
        let _ = self.endpoint.set_preferences(list.ulid, preferences);
        if !known {
            let served = Served { name: carried.name.clone(), link: carried.link.map(Mac) };
            self.served.insert(list.ulid, served);
            self.leased.insert(list.ulid);
            self.show_to_workers(list.ulid);
        }
        true
    }

    fn inherit_context(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        carried: &CarriedContext,
        doubts: Doubts,
        effects: &mut Vec<Effect>,
    ) {
        let mut out: Vec<Output> = Vec::new();
        let list = self.inheritance.lists.get(&carried.list).cloned();
        let taken = list.and_then(|list| self.endpoint.take_over(now, carried, &list, &mut out).ok());
        self.follow(now, rng, out, effects);
        let Some(id) = taken else { return self.tally.count(Event::InheritedNot) };
        let Some(context) = self.endpoint.context(id) else { return };
        if context.is_mirrored() {
            self.tally.count(Event::Inherited);
            return self.mirrored(now, id, carried, doubts, effects);
        }
        let (ulids, fork, pair) = (context.ulids, context.fork, context.pair);
        let (local, peer) = self.locators(context);
        let newest = self.endpoint.host_at(ulids.local).map(|host| host.generation);
        let news = carried.news || newest != Some(context.host.generation);
        let proved: Vec<_> = peer.iter().map(|known| known.locator).collect();
        self.peers.proved(now, ulids.peer, &proved);
        let attached = self.attached.get_or_default(id);
        attached.mirrored = None;
        let mut reap = Reap::new(&self.reap_config, pair, &local[..], &peer[..]);
        reap.set_confirmed(pair);
        if let Some(seconds) = carried.peer_keepalive_timeout {
            reap.set_keepalive_timeout(seconds);
        }
        let known = attached.reap.replace(reap).is_some();
        attached.narrow = doubts.narrow.then_some(pair);
        if doubts.udp {
            self.carriages.inherit(now, PathKey::of(pair));
        }
        self.attached.settle(id);
        self.sync(id, effects);
        if !known {
            self.tally.count(Event::Inherited);
            if fork != 0 {
                self.fork_ready(ulids, fork);
            }
            self.policy_begins(now, id);
        }
        if news {
            self.has_news(id);
        }
        if doubts.explores {
            self.inheritance.doubted.push(id);
        }
    }
}

impl Bequest {
    /// The number of a list, and what there is to say of it if nobody was told yet.
    fn list(&mut self, list: &Arc<LocalHost>) -> (u32, Option<Item>) {
        let next = self.lists.len() as u32;
        let mut new = false;
        let (_, number) = self.lists.entry(Arc::as_ptr(list) as usize).or_insert_with(|| {
            new = true;
            (list.clone(), next)
        });
        (*number, new.then(|| Item::List(next, CarriedList::from(&**list))))
    }
}
