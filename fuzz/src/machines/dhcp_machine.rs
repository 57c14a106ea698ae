//! A DHCPv6 server, a store that writes or fails, and whatever datagrams.
//!
//! The octets are operations: a message of some client that is sound but for what chance makes of it, raw octets, a write, time
//! that passes, a box that begins again with what was written.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use control::dhcp::message::{Duid, Kind, Writer, code};
use control::dhcp::options::policy_with;
use control::dhcp::{Change, Client, Config, Held, Identity, Incoming, Lease, Output, Server, State, Stored, relay};
use control::time::Instant;

const LINK: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xa, 0, 1, 0, 0, 0, 0);
const EPOCH: u64 = 1_000_000;

fn config() -> Config {
    Config {
        duid: Duid::from_uuid([7; 16]),
        link: LINK,
        preferred: 300,
        valid: 600,
        trial: 100,
        t1: 100,
        t2: 200,
        rapid_commit: true,
        preference: 1,
        dns: vec![LINK],
        search: vec!["x.example".into()],
        policy: policy_with(&[], &[(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 8)]),
        policy_flags: 3,
        leases_max: 6,
        per_client_max: 3,
        per_source_max: 5,
        per_relay_max: 4,
        quarantine: 900,
        reservations: Vec::new(),
        relays: Vec::new(),
    }
}

/// The octets that are left.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, most: usize) -> &'a [u8] {
        let (first, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        first
    }
}

struct World {
    server: Server,
    now: Instant,
    made: u64,
    queue: Vec<(u64, Vec<Change>)>,
    disk: BTreeMap<Client, Lease>,
    held: BTreeMap<Ipv6Addr, Held>,
    /// Addresses that a host was served with, and whose they are for ever.
    history: BTreeMap<Ipv6Addr, Client>,
}

impl World {
    fn follow(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Write { ticket, changes } => self.queue.push((ticket, changes)),
                Output::Serve(lease) => {
                    let disk = &self.disk[&lease.client];
                    assert_eq!(
                        (disk.identity.ulid, disk.state),
                        (lease.identity.ulid, State::Bound),
                        "served unwritten"
                    );
                    let before = self.history.insert(lease.identity.ulid, lease.client.clone());
                    assert!(before.is_none_or(|before| before == lease.client), "one address, two clients");
                }
                Output::Send { payload, .. } => assert!(payload.len() < 1400 && payload.len() >= 4),
                Output::Withdraw(_) | Output::Tell(_) => {}
            }
        }
    }

    /// While the disk fails everything waits, in order; nothing that came later is written before it.
    fn write(&mut self, good: bool) {
        if self.queue.is_empty() || !good {
            return;
        }
        let (ticket, changes) = self.queue.remove(0);
        for change in changes {
            match change {
                Change::Put(lease) => _ = self.disk.insert(lease.client.clone(), lease),
                Change::Forget(client) => _ = self.disk.remove(&client),
                Change::Hold(held) => _ = self.held.insert(held.ulid, held),
                Change::Free(ulid) => _ = self.held.remove(&ulid),
            }
        }
        let mut out = Vec::new();
        self.server.persisted(self.now, ticket, true, &mut out);
        self.follow(out);
    }

    fn stock(&mut self) {
        while self.server.ready() < 3 {
            self.made += 1;
            let under = |prefix: Ipv6Addr| Ipv6Addr::from_bits(prefix.to_bits() | u128::from(self.made));
            let locators = vec![under(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0))];
            self.server.stock(Identity { ulid: under(LINK), locators, pds: vec![1] });
        }
    }

    fn check(&self) {
        self.server.book().selfcheck();
        assert!(self.server.book().bound() <= 6 && self.server.book().leases().count() <= 12);
        assert!(self.server.book().held().count() <= 6);
    }
}

/// A message that is sound until chance has been at it.
fn message(octets: &mut Octets<'_>) -> Option<Vec<u8>> {
    let (kind, who, what) = (octets.next()?, octets.next()?, octets.next()?);
    let kind = Kind::ALL[usize::from(kind) % Kind::ALL.len()];
    let mut out = Writer::message(kind.code(), [0, 0, who]);
    out.option(code::CLIENT_ID, |out| out.put(&[0, 3, 0, 1, who % 8]));
    if matches!(kind, Kind::Request | Kind::Renew | Kind::Release | Kind::Decline) {
        out.option(code::SERVER_ID, |out| out.put(Duid::from_uuid([7; 16]).octets()));
    }
    if what & 1 > 0 {
        out.option(code::RAPID_COMMIT, |_| ());
    }
    let named = Ipv6Addr::from_bits(LINK.to_bits() | u128::from(octets.next()?));
    if kind != Kind::InformationRequest {
        out.option(code::IA_NA, |out| {
            out.put(&[0, 0, 0, what >> 1 & 3, 0, 0, 0, 0, 0, 0, 0, 0]);
            if what & 8 > 0 {
                out.address(named, 0, 0);
            }
        });
    }
    out.option(code::OPTION_REQUEST, |out| out.put(&[0, 23, 0, 24, 0, 84]));
    if what & 16 > 0 {
        let label = octets.take(8);
        out.option(code::CLIENT_FQDN, |out| {
            out.put(&[0, label.len() as u8]);
            out.put(label);
        });
    }
    let mut message = out.finish();
    if what & 32 > 0 {
        let (at, to) = (octets.next()?, octets.next()?);
        let at = usize::from(at) % message.len();
        message[at] = to;
    }
    Some(message)
}

pub fn check(octets: &[u8]) {
    let server = Server::new(config(), Stored::default(), EPOCH);
    let (disk, held, history) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut world = World { server, now: Instant::START, made: 0, queue: Vec::new(), disk, held, history };
    let mut octets = Octets(octets);
    while let Some(operation) = octets.next() {
        world.stock();
        let mut out = Vec::new();
        match operation % 8 {
            0..=3 => {
                let Some(mut payload) = message(&mut octets) else { break };
                let mut source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(operation >> 5));
                if operation & 16 > 0 {
                    let hop = relay::Hop { count: 0, link: LINK, peer: source, interface: Some(vec![operation]) };
                    payload = relay::wrap(&[hop], payload);
                    payload[0] = relay::FORWARD;
                    source = Ipv6Addr::from_bits(LINK.to_bits() | 0x99);
                }
                let target = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
                world.server.receive(world.now, Incoming { source, target, payload: &payload }, &mut out);
            }
            4 => {
                let length = octets.next().unwrap_or_default();
                let payload = octets.take(length.into());
                let (source, target) = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), LINK);
                world.server.receive(world.now, Incoming { source, target, payload }, &mut out);
            }
            5 => world.write(operation & 8 == 0),
            6 => {
                world.now = world.now + Duration::from_secs(u64::from(octets.next().unwrap_or_default()) * 8);
                world.server.expire(world.now, &mut out);
                let again = world.server.deadline().is_some_and(|due| due <= world.now);
                assert!(!again, "the clock spins");
            }
            _ => {
                world.queue.clear();
                let leases = world.disk.values().cloned().collect();
                let quarantine = world.held.values().cloned().collect();
                world.server = Server::new(config(), Stored { leases, quarantine }, EPOCH);
            }
        }
        world.follow(out);
        world.check();
    }
}
