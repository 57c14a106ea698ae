//! Plays a daemon that gives way, with as many contexts as wanted: so a real `pshim6d --take-over` has a million of them within
//! seconds, for measuring. The peers of these contexts do not exist.
//!
//! `cargo run --release -p control --example predecessor -- --config site.toml --contexts 1000000`

use std::io::{Read, Write};
use std::net::Ipv6Addr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use control::config::{Configuration, Site, site};
use control::engine::{CarriedHost, Doubts, Item, Keys, worker_limits};
use control::shim6::{CarriedContext, CarriedList, CarriedLocator};
use dataplane::context::{Hasher, Sharding};
use dataplane::wire::{Ulid, UlidPair};
use serde::Serialize;

#[derive(Debug, Parser)]
struct Arguments {
    /// The configuration of the daemon that takes over.
    #[arg(long)]
    config: PathBuf,
    /// Contexts it gets.
    #[arg(long)]
    contexts: u32,
    /// Link-layer addresses of its ports, in their order.
    #[arg(long = "mac", value_parser = mac)]
    macs: Vec<[u8; 6]>,
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let octets: Result<Vec<u8>, _> = text.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect();
    octets.ok().and_then(|octets| octets.try_into().ok()).ok_or_else(|| "six octets with colons".to_owned())
}

/// What the daemon's own part of this says, in its order (`driver/succession`).
#[derive(Serialize)]
enum Said {
    Beginning(Beginning),
    Items(Vec<Item>),
    CaughtUp,
    Yours,
}

#[derive(Serialize)]
struct Beginning {
    version: String,
    now: Duration,
    keys: Keys,
    workers: u8,
    /// `box.id`, prefix and length of the site and of its link, `box.contexts_max`.
    site: (u8, (Ipv6Addr, u8), (Ipv6Addr, u8), u32),
    ports: Vec<(String, String, [u8; 6], u16, u16)>,
    uplinks: Vec<()>,
    interfaces: Vec<String>,
    withdrawn: bool,
}

/// Items in one message.
const ITEMS: usize = 256;

fn main() {
    let arguments = Arguments::parse();
    let configuration = Configuration::load(&arguments.config).unwrap_or_else(|problems| panic!("{problems}"));
    let mut socket = configuration.site.node.control_socket.clone().into_os_string();
    socket.push(".succession");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("a socket");
    println!("waiting");
    let (mut heir, _) = listener.accept().expect("a daemon that takes over");
    hear(&mut heir);
    let keys = Keys { sharding: [7; 32], secret: [8; 32] };
    say(&mut heir, &Said::Beginning(beginning(&configuration.site, arguments.macs, keys.clone())));
    let items = hosts(&configuration).into_iter().chain(contexts(&configuration, &keys, arguments.contexts));
    let mut message = Vec::with_capacity(ITEMS);
    for item in items {
        message.push(item);
        if message.len() == ITEMS {
            say(&mut heir, &Said::Items(std::mem::take(&mut message)));
        }
    }
    say(&mut heir, &Said::Items(message));
    say(&mut heir, &Said::CaughtUp);
    hear(&mut heir);
    let _ = std::fs::remove_file(&socket);
    say(&mut heir, &Said::Yours);
    hear(&mut heir);
    println!("gave way");
}

fn say(heir: &mut impl Write, said: &Said) {
    let octets = postcard::to_stdvec(said).expect("plain");
    heir.write_all(&(octets.len() as u32).to_le_bytes()).expect("a daemon that listens");
    heir.write_all(&octets).expect("a daemon that listens");
}

/// Whatever it says: there is only one thing it can say at each point.
fn hear(heir: &mut impl Read) {
    let mut length = [0; 4];
    heir.read_exact(&mut length).expect("a daemon that goes on");
    let mut octets = vec![0; u32::from_le_bytes(length) as usize];
    heir.read_exact(&mut octets).expect("a daemon that goes on");
}

fn beginning(site: &Site, macs: Vec<[u8; 6]>, keys: Keys) -> Beginning {
    let port = |(port, mac): (&site::Port, [u8; 6])| {
        let (site::Device::Pci(device) | site::Device::Virtual(device)) = &port.device;
        (port.name.clone(), device.clone(), mac, port.mtu, 1)
    };
    Beginning {
        version: "0".into(),
        now: Duration::from_secs(1),
        keys,
        workers: site.node.workers,
        site: (
            site.node.id,
            (site.prefix.address(), site.prefix.length()),
            (site.lan.address(), site.lan.length()),
            site.node.contexts_max,
        ),
        ports: site.ports.iter().zip(macs).map(port).collect(),
        uplinks: Vec::new(),
        interfaces: Vec::new(),
        withdrawn: false,
    }
}

fn hosts(configuration: &Configuration) -> Vec<Item> {
    let mut items = Vec::new();
    for (number, host) in configuration.hosts.iter().enumerate() {
        let identity = &host.identity;
        items.push(Item::List(
            number as u32,
            CarriedList {
                ulid: identity.ulid.0,
                generation: 1,
                locators: identity.locators.iter().map(|locator| (locator.0, 1)).collect(),
                parameters: Some(identity.pds.clone()),
                signature: None,
                preferences: None,
            },
        ));
        items.push(Item::Host(CarriedHost {
            list: number as u32,
            name: host.name.clone(),
            link: host.mac.map(|mac| mac.0),
            mac: None,
            leased: false,
        }));
    }
    items
}

fn contexts(configuration: &Configuration, keys: &Keys, count: u32) -> impl Iterator<Item = Item> {
    let site = &configuration.site;
    let sharding = Sharding::new(Hasher::new(keys.sharding), site.node.workers);
    let capacity = u64::from(worker_limits(site).contexts);
    let hosts: Vec<(Ipv6Addr, Ipv6Addr)> =
        configuration.hosts.iter().map(|host| (host.identity.ulid.0, host.identity.locators[0].0)).collect();
    let box_id = u64::from(site.node.id);
    let mut places = [0_u64; 64];
    (0..count).map(move |number| {
        let at = number as usize % hosts.len();
        let (ulid, locator) = hosts[at];
        let peer = Ipv6Addr::from_bits(0xfd99_u128 << 112 | (u128::from(number) + 1));
        let there =
            Ipv6Addr::from_bits(0x2001_0db8_f000_u128 << 80 | u128::from(number >> 6) << 64 | (u128::from(number) + 1));
        let owner = sharding.owner_of_pair(&UlidPair { local: Ulid(ulid), peer: Ulid(peer) });
        let place = &mut places[usize::from(owner)];
        assert!(*place < capacity, "box.contexts_max is too small");
        let tag = box_id << 43 | u64::from(owner) << 37 | *place;
        *place += 1;
        let peer_locator = |address, method| CarriedLocator {
            address,
            method,
            verified: true,
            probed: true,
            preference: (0, None, None),
        };
        Item::Context(
            Box::new(CarriedContext {
                ulids: (ulid, peer),
                fork: 0,
                tags: (tag, u64::from(number) + 1),
                labels: (None, None),
                udp: (false, false),
                liveness: (false, false),
                list: at as u32,
                preferences: None,
                peer_locators: vec![peer_locator(peer, None), peer_locator(there, Some(1))],
                peer_generation: Some(1),
                peer_parameters: None,
                peer_keepalive_timeout: None,
                pair: (locator, there),
                last_used: Duration::from_secs(1),
                told: true,
                news: false,
                accepted: None,
            }),
            Doubts::default(),
        )
    })
}
