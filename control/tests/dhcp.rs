//! DHCPv6 and router advertisements by the whole engine: frames in, frames out, a store in between.

use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use control::config::{Hosts, Site};
use control::dhcp::message::{Duid, Writer, code};
use control::dhcp::{Change, Lease, State, Stored};
use control::engine::{Effect, Engine, Kept, PortSetup};
use control::host::Datagram;
use control::identity::SigningKey;
use control::time::Instant;
use dataplane::link::{Notice, Punt};
use dataplane::snapshot::PortId;
use dataplane::wire::Ulid;
use dataplane::wire::ethernet::{self, EtherType, Mac};
use dataplane::wire::{checksum, ipv6};
use rand::SeedableRng;
use rand::rngs::StdRng;

const SITE: &str = r#"
    [box]
    name = "b"
    [store]
    file = "s"
    [dhcp]
    preferred_s = 300
    valid_s = 600
    dns_servers = ["fc00:a:0:1::1"]
    [ra]
    interval_s = 30
    [site]
    prefix = "fc00:a::/48"
    lan = "fc00:a:0:1::/64"
    port = "in"
    [[port]]
    name = "in"
    device = "net_tap0"
    addresses = ["fc00:a:0:1::1/64", "fe80::1/64"]
    [[port]]
    name = "x"
    device = "net_tap1"
    addresses = ["2001:db8:ff00::2/64"]
    [[port]]
    name = "y"
    device = "net_tap2"
    addresses = ["2001:db8:ff01::2/64"]
    [[provider]]
    name = "x"
    port = "x"
    prefix = "2001:db8:1:1::/64"
    next_hop = "2001:db8:ff00::1"
"#;
const SECOND_PROVIDER: &str = r#"
    [[provider]]
    name = "y"
    port = "y"
    prefix = "2001:db8:2:1::/64"
    next_hop = "2001:db8:ff01::1"
"#;
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
const BOX: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// A box, and what its driver would do for it.
struct Bench {
    engine: Engine,
    site: Site,
    hosts: Hosts,
    rng: StdRng,
    now: Instant,
    /// What is on disk.
    disk: Vec<Lease>,
    broken: bool,
    sent: Vec<(PortId, Vec<u8>)>,
}

fn site(text: &str) -> Site {
    Site::parse(Path::new("/etc/pshim6/site.toml"), text).unwrap_or_else(|problems| panic!("{problems}")).0
}

impl Bench {
    fn new(text: &str, key: Option<SigningKey>, disk: Vec<Lease>) -> Bench {
        let (site, mut hosts) = (site(text), Hosts::default());
        hosts.set_key(key.map(std::sync::Arc::new));
        let mut rng = StdRng::seed_from_u64(1);
        let setups: Vec<PortSetup> = (1..=3).map(|at| PortSetup { mac: Mac([2, 0, 0, 0, 0, at]), mtu: 1500 }).collect();
        let mut engine = Engine::new(&site, &hosts, &setups, &mut rng).unwrap();
        let stored = Stored { leases: disk.clone(), quarantine: Vec::new() };
        let kept = Kept { duid: Duid::from_uuid([7; 16]), stored, reserved: Vec::new(), epoch: 1_000_000 };
        engine.begin_leases(&mut rng, &site, &hosts, kept);
        let mut bench = Bench { engine, site, hosts, rng, now: Instant::START, disk, broken: false, sent: Vec::new() };
        let mut effects = Vec::new();
        bench.engine.start(bench.now, &mut effects);
        bench.drive(effects);
        bench
    }

    /// Everything the driver does until there is nothing left to do.
    fn drive(&mut self, effects: Vec<Effect>) {
        let mut effects = effects;
        loop {
            for effect in effects.drain(..) {
                if let Effect::Transmit(port, frame) = effect {
                    self.sent.push((port, frame));
                }
            }
            while let Some(job) = self.engine.next_identity() {
                self.engine.identity_made(job.run(&mut self.rng, &|| true));
            }
            let mut done = Vec::new();
            while let Some(commit) = self.engine.next_commit() {
                done.push((
                    commit.ticket,
                    if self.broken { Err("disk full".into()) } else { self.write(commit.changes) },
                ));
            }
            if done.is_empty() {
                return;
            }
            self.engine.committed(self.now, &mut self.rng, &done, &mut effects);
        }
    }

    fn write(&mut self, changes: Vec<Change>) -> Result<(), String> {
        for change in changes {
            match change {
                Change::Put(lease) => {
                    self.disk.retain(|known| known.client != lease.client);
                    self.disk.push(lease);
                }
                Change::Forget(client) => self.disk.retain(|known| known.client != client),
                Change::Hold(_) | Change::Free(_) => {}
            }
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let mut effects = Vec::new();
        self.engine.expire(self.now, &mut self.rng, &mut effects);
        self.drive(effects);
    }

    fn arrive(&mut self, port: u8, packet: &[u8]) {
        let mut frame = [&[0; ethernet::HEADER_LEN], packet].concat();
        ethernet::ViewMut::new(&mut frame).unwrap().set(BOX, CLIENT, EtherType::IPV6);
        let mut effects = Vec::new();
        let notice = Notice::Punt(PortId(port), Punt::HostStack, &frame);
        self.engine.notice(self.now, &mut self.rng, notice, &mut effects);
        self.drive(effects);
    }

    /// What the client hears.
    fn ask(&mut self, message: Vec<u8>) -> Option<Datagram> {
        self.sent.clear();
        let source = ("fe80::77".parse().unwrap(), 546);
        let asked = Datagram { source, target: ("ff02::1:2".parse().unwrap(), 547), payload: message };
        self.arrive(0, &asked.emit(1).unwrap());
        self.heard()
    }

    fn heard(&self) -> Option<Datagram> {
        let mut datagrams = self.sent.iter().filter_map(|(port, frame)| {
            let packet = ipv6::View::new(&frame[ethernet::HEADER_LEN..]).ok()?;
            let datagram = Datagram::parse(&packet).ok()?;
            assert_eq!((port.0, ethernet::View::new(frame).unwrap().target()), (0, CLIENT));
            Some(datagram)
        });
        datagrams.next_back()
    }

    fn lease(&mut self, number: u8) -> Ipv6Addr {
        let answer = self.ask(solicit(number)).expect("a Reply");
        assert_eq!(
            (answer.source, answer.target),
            (("fe80::1".parse().unwrap(), 547), ("fe80::77".parse().unwrap(), 546))
        );
        assert_eq!(answer.payload[0], 7, "Reply");
        let lease =
            self.disk.iter().find(|lease| lease.client.duid == duid(number)).expect("written before it is told");
        let ulid = lease.identity.ulid;
        assert!(answer.payload.windows(16).any(|octets| octets == ulid.octets()));
        ulid
    }

    fn serves(&self, ulid: Ipv6Addr) -> bool {
        let in_snapshot = self.engine.snapshot().host_index.contains_key(&Ulid(ulid));
        assert_eq!(self.engine.hosts_view(self.now).hosts.iter().any(|host| host.ulid == ulid), in_snapshot);
        in_snapshot
    }
}

fn duid(number: u8) -> Duid {
    Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, number]).unwrap()
}

fn ia(out: &mut Writer, address: Option<Ipv6Addr>) {
    out.option(code::IA_NA, |out| {
        out.put(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        address.iter().for_each(|address| out.address(*address, 0, 0));
    });
}

/// A Solicit with Rapid Commit.
fn solicit(number: u8) -> Vec<u8> {
    let mut out = Writer::message(1, [0, 0, number]);
    out.option(code::CLIENT_ID, |out| out.put(duid(number).octets()));
    out.option(code::RAPID_COMMIT, |_| ());
    ia(&mut out, None);
    out.finish()
}

fn to_us(kind: u8, number: u8, address: Ipv6Addr) -> Vec<u8> {
    let mut out = Writer::message(kind, [0, 0, number]);
    out.option(code::CLIENT_ID, |out| out.put(duid(number).octets()));
    out.option(code::SERVER_ID, |out| out.put(Duid::from_uuid([7; 16]).octets()));
    ia(&mut out, Some(address));
    out.finish()
}

#[test]
fn a_host_that_starts_with_nothing_becomes_a_host_of_the_site() {
    let key = SigningKey::generate(1024).unwrap();
    let text = SITE.replace("[site]", "[site]\n    key = \"key.pem\"");
    let mut bench = Bench::new(&text, Some(key), Vec::new());
    let ulid = bench.lease(5);
    assert!(bench.serves(ulid));
    let view = bench.engine.hosts_view(bench.now);
    assert_eq!((view.hosts[0].kind.as_str(), view.hosts[0].locators.len()), ("hybrid", 1));
    let leases = bench.engine.leases_view(bench.now);
    assert_eq!((leases.bound, leases.leases[0].ulid, leases.leases[0].left_s), (1, ulid, 660));
    // It gives the address back, and peers' packets for it are nobody's.
    assert_eq!(bench.ask(to_us(8, 5, ulid)).unwrap().payload[0], 7);
    assert!(!bench.serves(ulid));
    assert_eq!(bench.disk[0].state, State::Former);
    // And gets it again.
    assert_eq!(bench.lease(5), ulid);
    assert!(bench.serves(ulid));
    assert_eq!(bench.engine.tally().value("dhcp_release"), 1);
}

#[test]
fn a_store_that_fails_means_no_answer_and_no_host() {
    let mut bench = Bench::new(SITE, None, Vec::new());
    bench.broken = true;
    assert_eq!(bench.ask(solicit(5)), None);
    assert_eq!(bench.engine.snapshot().host_index.len(), 0);
    assert_eq!(bench.engine.tally().value("control_lease_not_written"), 1);
    bench.broken = false;
    let ulid = bench.lease(5);
    assert!(bench.serves(ulid));
}

#[test]
fn a_box_that_begins_again_serves_whom_it_told() {
    let mut bench = Bench::new(SITE, None, Vec::new());
    let (stays, ends) = (bench.lease(5), bench.lease(6));
    for lease in &mut bench.disk {
        lease.until = if lease.identity.ulid == ends { 999_999 } else { lease.until };
    }
    let mut again = Bench::new(SITE, None, bench.disk);
    assert!(again.serves(stays) && !again.serves(ends));
    assert_eq!(again.disk.iter().filter(|lease| lease.state == State::Former).count(), 1);
    // Who comes back late gets what was his.
    assert_eq!(again.lease(6), ends);
}

#[test]
fn a_lease_that_is_not_extended_ends() {
    let mut bench = Bench::new(SITE, None, Vec::new());
    let ulid = bench.lease(5);
    bench.pass(Duration::from_secs(659));
    assert!(bench.serves(ulid));
    bench.pass(Duration::from_secs(1));
    assert!(!bench.serves(ulid));
    let view = bench.engine.hosts_view(bench.now);
    assert_eq!((view.quarantined[0].ulid, view.quarantined[0].addresses.len()), (ulid, 2));
}

#[test]
fn a_reload_keeps_leased_hosts_and_fits_their_locators() {
    let key = SigningKey::generate(1024).unwrap();
    let text = SITE.replace("[site]", "[site]\n    key = \"key.pem\"");
    let mut bench = Bench::new(&text, Some(key), Vec::new());
    let ulid = bench.lease(5);
    let mut effects = Vec::new();
    let (site_now, hosts) = (bench.site.clone(), bench.hosts.clone());
    let changes = bench.engine.reload(bench.now, &mut bench.rng, &site_now, &hosts, &mut effects).unwrap();
    assert_eq!((changes.added, changes.removed, changes.changed), (0, 0, 0));
    // Another provider: a locator outside the host's set, which the site's key signs, on disk as well.
    let more = site(&format!("{text}{SECOND_PROVIDER}"));
    let changes = bench.engine.reload(bench.now, &mut bench.rng, &more, &hosts, &mut effects).unwrap();
    assert_eq!((changes.added, changes.removed, changes.changed), (0, 0, 1));
    bench.drive(effects);
    assert!(bench.serves(ulid));
    let view = bench.engine.hosts_view(bench.now);
    assert_eq!(view.hosts[0].locators.len(), 2);
    assert_eq!(bench.disk[0].identity.locators, view.hosts[0].locators);
    // Who comes now gets addresses made for both.
    let new = bench.lease(6);
    let made = bench.disk.iter().find(|lease| lease.identity.ulid == new).unwrap();
    assert_eq!(made.identity.locators.len(), 2);
    let set = control::identity::Parameters::parse(&made.identity.pds).unwrap().set().map(|set| set.prefixes().len());
    assert_eq!(set, Some(3));
}

#[test]
fn a_client_is_heard_on_the_hosts_port_only() {
    let mut bench = Bench::new(SITE, None, Vec::new());
    bench.sent.clear();
    let source = ("fe80::77".parse().unwrap(), 546);
    let asked = Datagram { source, target: ("ff02::1:2".parse().unwrap(), 547), payload: solicit(5) };
    bench.arrive(1, &asked.emit(1).unwrap());
    assert_eq!(bench.heard(), None);
    assert_eq!(bench.disk, []);
}

#[test]
fn broken_messages_cost_a_counter_each_and_nobodys_lease() {
    let mut bench = Bench::new(SITE, None, Vec::new());
    let ulid = bench.lease(5);
    let good = to_us(5, 6, ulid);
    for length in 0..40 {
        bench.ask(good[..length.min(good.len())].to_vec());
    }
    assert!(bench.engine.tally().value("dhcp_drop_malformed") >= 38);
    assert!(bench.serves(ulid));
    assert_eq!(bench.ask(to_us(5, 5, ulid)).unwrap().payload[0], 7);
}

#[test]
fn hosts_hear_of_the_router_when_it_comes_and_when_it_goes() {
    let mut bench = Bench::new(SITE, None, Vec::new());
    bench.sent.clear();
    bench.pass(Duration::ZERO);
    let lifetime = |frames: &[(PortId, Vec<u8>)]| {
        let advertisement = |(port, frame): &(PortId, Vec<u8>)| {
            (port.0 == 0 && frame[ethernet::HEADER_LEN + 40] == 134).then(|| {
                let message = &frame[ethernet::HEADER_LEN + 40..];
                (message[5], u16::from_be_bytes([message[6], message[7]]))
            })
        };
        frames.iter().filter_map(advertisement).collect::<Vec<_>>()
    };
    assert_eq!(lifetime(&bench.sent), [(0xc0, 90)]);
    // The groups that clients and hosts send to are reported, or a switch would keep them from us.
    let reports: Vec<u8> =
        bench.sent.iter().filter(|(port, _)| port.0 == 0).flat_map(|(_, frame)| frame.clone()).collect();
    for group in ["ff02::1:2", "ff05::1:3", "ff02::2"] {
        let group: Ipv6Addr = group.parse().unwrap();
        assert!(reports.windows(16).any(|octets| octets == group.octets()), "{group}");
    }
    let mut effects = Vec::new();
    bench.engine.farewell(bench.now, &mut effects);
    bench.sent.clear();
    bench.drive(effects);
    assert_eq!(lifetime(&bench.sent), [(0xc0, 0)]);
}

impl Bench {
    fn reload(&mut self, text: &str) {
        let (now, hosts, mut effects) = (site(text), self.hosts.clone(), Vec::new());
        self.engine.reload(self.now, &mut self.rng, &now, &hosts, &mut effects).unwrap();
        self.drive(effects);
    }

    /// A client says by neighbour discovery who it is. What the box takes for its link-layer address then.
    fn shows_itself(&mut self, address: Ipv6Addr, mac: Mac) -> Option<Mac> {
        let own: Ipv6Addr = "fc00:a:0:1::1".parse().unwrap();
        // Somebody has sent to it, so the box looks for it.
        let waits = Notice::Unresolved(PortId(0), address, &[0; 60]);
        self.engine.notice(self.now, &mut self.rng, waits, &mut Vec::new());
        let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &own.octets(), &[1, 1], &mac.0].concat();
        let sum = checksum::upper_layer(address, own, 58, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let header = ipv6::Repr {
            source: address,
            target: own,
            next_header: 58,
            payload_len: message.len() as u16,
            hop_limit: 255,
            traffic_class: 0,
            flow_label: 0,
        };
        self.arrive(0, &[&header.emit()[..], &message].concat());
        let snapshot = self.engine.snapshot();
        snapshot.host_index.get(&Ulid(address)).and_then(|at| snapshot.hosts[*at as usize].mac)
    }
}

#[test]
fn who_was_away_while_providers_came_has_locators_of_all_of_them() {
    let key = SigningKey::generate(1024).unwrap();
    let text = SITE.replace("[site]", "[site]\n    key = \"key.pem\"");
    let mut bench = Bench::new(&text, Some(key), Vec::new());
    let ulid = bench.lease(5);
    bench.ask(to_us(8, 5, ulid));
    bench.reload(&format!("{text}{SECOND_PROVIDER}"));
    assert_eq!(bench.disk[0].identity.locators.len(), 1);
    assert_eq!(bench.lease(5), ulid);
    let view = bench.engine.hosts_view(bench.now);
    assert_eq!(view.hosts[0].locators.len(), 2);
    assert_eq!(bench.disk[0].identity.locators, view.hosts[0].locators);
    assert_eq!(bench.disk[0].state, State::Bound);
}

#[test]
fn who_comes_back_with_another_network_card_is_heard() {
    let mut bench = Bench::new(SITE, None, Vec::new());
    let other = Mac([2, 0, 0, 0, 0, 0x99]);
    let ulid = bench.lease(5);
    assert_eq!(bench.shows_itself(ulid, CLIENT), Some(CLIENT));
    bench.ask(to_us(8, 5, ulid));
    assert_eq!(bench.engine.hosts_view(bench.now).quarantined[0].mac, Some(CLIENT.to_string()));
    // Meanwhile it is nobody's; but the client itself, known by its DUID, may have another card.
    assert_eq!(bench.shows_itself(ulid, other), None);
    assert_eq!(bench.lease(5), ulid);
    assert_eq!(bench.shows_itself(ulid, other), Some(other));
    assert_eq!(bench.engine.hosts_view(bench.now).quarantined.len(), 0);
}

#[test]
fn nobody_is_told_of_an_address_that_is_not_served_and_the_next_time_he_gets_another() {
    // No key, so nothing proves a locator of a provider that the host was not made for.
    let mut bench = Bench::new(SITE, None, Vec::new());
    let old = bench.lease(5);
    bench.ask(to_us(8, 5, old));
    let (before, _) = SITE.split_once("[[provider]]").unwrap();
    bench.reload(&format!("{before}{SECOND_PROVIDER}"));
    assert_eq!(bench.ask(solicit(5)), None);
    assert!(!bench.serves(old));
    assert_eq!(bench.engine.tally().value("control_lease_not_served"), 1);
    let new = bench.lease(5);
    assert!(new != old && bench.serves(new));
    assert_eq!(bench.disk.len(), 1);
    assert_eq!(bench.disk[0].identity.locators[0].segments()[1..4], [0xdb8, 2, 1]);
    // What it had stays out of others' reach, and who extends a lease of what is of no use hears of it.
    let held: Vec<Ipv6Addr> = bench.engine.leases_view(bench.now).quarantined.iter().map(|held| held.ulid).collect();
    assert_eq!(held, [old]);
    let answer = bench.ask(to_us(5, 5, old)).unwrap();
    assert!(answer.payload.windows(24).any(|it| it[..16] == old.octets() && it[16..] == [0; 8]));
    assert!(answer.payload.windows(16).any(|it| it == new.octets()));
}
