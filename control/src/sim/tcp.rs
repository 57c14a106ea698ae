//! Hosts that speak TCP: smoltcp's stack on each, and connections that carry octets both ways.
//!
//! Every octet is a function of the connection, its direction and its place, so the receiver knows each one before it
//! comes: one that is lost, doubled or changed is seen at once. At the end both sides compare how many there were.

use std::net::Ipv6Addr;
use std::time::Duration;

use rand::Rng;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::oracle::Oracle;
use super::{ConnectionId, Due, HostId, World};
use crate::host::Queues;
use crate::time::Instant;

/// First port of servers and of clients; each connection has its own two.
const PORTS: (u16, u16) = (5000, 40000);
/// Room for octets in each direction of a socket.
const BUFFER: usize = 4096;
/// Rounds of a host's stack at one moment.
const ROUNDS_MAX: u32 = 1000;
/// smoltcp's longest wait before a segment is sent again (RFC 6298 (2.5)).
pub const RTO_MAX: Duration = Duration::from_secs(60);

/// A TCP connection between two hosts.
#[derive(Debug)]
pub struct Connection {
    /// The client's end, then the server's.
    pub ends: [End; 2],
    /// Time between two writes of each side; may be changed as it runs.
    pub interval: Duration,
    /// Most octets in a write.
    chunk: u32,
    /// Both sides write on; otherwise they close what they send.
    open: bool,
}

/// One end of a connection.
#[derive(Debug)]
pub struct End {
    /// Whose.
    pub host: HostId,
    /// Octets given to TCP.
    pub written: u64,
    /// Octets got from TCP.
    pub read: u64,
    handle: SocketHandle,
}

impl Connection {
    /// Whether everything written on either side so far has been read on the other.
    pub fn is_settled(&self) -> bool {
        let [client, server] = &self.ends;
        client.written == server.read && server.written == client.read
    }
}

/// A host's stack.
pub(super) struct HostStack {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: Queues,
    address: Ipv6Addr,
    /// When it wants to be looked at next.
    due: Option<Instant>,
}

impl HostStack {
    pub(super) fn new(address: Ipv6Addr, mtu: usize, seed: u64) -> HostStack {
        let mut device = Queues::new(mtu);
        let interface = interface(&mut device, address, Instant::START, seed);
        HostStack { interface, sockets: SocketSet::new(Vec::new()), device, address, due: None }
    }

    /// A router said how large packets may be (RFC 8201): from now on all are. smoltcp asks its device only once, so the
    /// interface is made anew; connections live elsewhere.
    fn shrink(&mut self, now: Instant, mtu: u32, seed: u64) {
        let mtu = (mtu as usize).max(1280);
        if mtu < self.device.mtu() {
            self.device.set_mtu(mtu);
            self.interface = interface(&mut self.device, self.address, now, seed);
        }
    }

    fn poll(&mut self, now: Instant) {
        self.interface.poll(smol(now), &mut self.device, &mut self.sockets);
    }
}

fn interface(device: &mut Queues, address: Ipv6Addr, now: Instant, seed: u64) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, device, smol(now));
    interface.update_ip_addrs(|list| _ = list.push(IpCidr::new(IpAddress::Ipv6(address), 64)));
    interface
}

fn smol(now: Instant) -> SmolInstant {
    SmolInstant::from_micros(i64::try_from(now.0.as_micros()).unwrap_or(i64::MAX))
}

/// The octet at a place of what one end of a connection sends.
fn octet(connection: ConnectionId, end: usize, place: u64) -> u8 {
    let mixed = (place ^ (connection as u64) << 40 ^ (end as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 33) as u8
}

impl World {
    /// One host opens a connection to another, now; both write up to `chunk` octets every `interval`.
    pub fn connect(&mut self, client: HostId, server: HostId, interval: Duration, chunk: u32) -> ConnectionId {
        let id = self.connections.len();
        let ports = (PORTS.0 + id as u16, PORTS.1 + id as u16);
        let [at_server, at_client] = [server, client].map(|host| {
            self.stack(host);
            let buffer = || SocketBuffer::new(vec![0; BUFFER]);
            let stack = self.stacks[host].as_mut().expect("made a moment ago");
            let mut socket = Socket::new(buffer(), buffer());
            // When segments have become smaller, smoltcp sends fewer octets again than it had sent before, keeps the rest
            // back as Nagle's algorithm wants, and takes the acknowledgement of all of them for one of the future, for ever.
            socket.set_nagle_enabled(false);
            stack.sockets.add(socket)
        });
        let target = self.hosts[server].ulid;
        if let Some(stack) = &mut self.stacks[server] {
            let listening = stack.sockets.get_mut::<Socket<'_>>(at_server).listen(ports.0);
            listening.expect("a port of its own");
        }
        if let Some(HostStack { interface, sockets, .. }) = self.stacks[client].as_deref_mut() {
            let remote = (IpAddress::Ipv6(target), ports.0);
            let socket = sockets.get_mut::<Socket<'_>>(at_client);
            socket.connect(interface.context(), remote, ports.1).expect("a port of its own");
        }
        let end = |host, handle| End { host, written: 0, read: 0, handle };
        let ends = [end(client, at_client), end(server, at_server)];
        self.connections.push(Connection { ends, interval, chunk, open: true });
        self.tcp_turn(client);
        self.later(self.now + interval, Due::Write(id));
        id
    }

    /// Both sides of a connection write no more.
    pub fn close(&mut self, connection: ConnectionId) {
        let Some(known) = self.connections.get_mut(connection) else { return };
        known.open = false;
        let hosts = [known.ends[0].host, known.ends[1].host];
        for (end, host) in hosts.into_iter().enumerate() {
            if let Some(socket) = self.socket(connection, end) {
                socket.close();
            }
            self.tcp_turn(host);
        }
    }

    /// Nobody writes to a connection any more, and nobody says so.
    pub fn abandon(&mut self, connection: ConnectionId) {
        if let Some(known) = self.connections.get_mut(connection) {
            known.open = false;
        }
    }

    /// Both ends forget a connection.
    pub fn reset(&mut self, connection: ConnectionId) {
        let hosts = [0, 1].map(|end| self.connections[connection].ends[end].host);
        for (end, host) in hosts.into_iter().enumerate() {
            if let Some(socket) = self.socket(connection, end) {
                socket.abort();
            }
            self.tcp_turn(host);
        }
    }

    /// Whether a connection has ended as it should on both sides.
    pub fn is_closed(&mut self, connection: ConnectionId) -> bool {
        let states = [0, 1].map(|end| self.socket(connection, end).map(|socket| socket.state()));
        let all = |good: &[State]| states.iter().all(|state| state.is_some_and(|state| good.contains(&state)));
        // smoltcp 0.14 does not send a FIN again that was lost while both sides closed; every octet has arrived.
        let stuck = states.contains(&Some(State::Closing)) && self.connections[connection].is_settled();
        all(&[State::Closed, State::TimeWait])
            || stuck && all(&[State::Closed, State::TimeWait, State::Closing, State::FinWait2])
    }

    /// How a connection stands, for people.
    pub fn describe(&mut self, connection: ConnectionId) -> String {
        let mut ends = (0..2).map(|end| {
            let End { host, written, read, .. } = self.connections[connection].ends[end];
            let due = self.stacks[host].as_ref().and_then(|stack| stack.due);
            let Some(socket) = self.socket(connection, end) else { return String::new() };
            let (state, out, inward) = (socket.state(), socket.send_queue(), socket.recv_queue());
            format!("host {host} {state}, {written} written, {out} queued, {read} read, {inward} waiting, due {due:?}")
        });
        format!("connection {connection}: {}; {}", ends.next().unwrap_or_default(), ends.next().unwrap_or_default())
    }

    fn socket(&mut self, connection: ConnectionId, end: usize) -> Option<&mut Socket<'static>> {
        let End { host, handle, .. } = self.connections.get(connection)?.ends[end];
        Some(self.stacks.get_mut(host)?.as_mut()?.sockets.get_mut::<Socket<'_>>(handle))
    }

    fn stack(&mut self, host: HostId) {
        if self.stacks[host].is_none() {
            // What hosts believe their link carries; the box adds eight octets and tells those who are too optimistic.
            let mtu = [1500, 1492, 1280][(self.rng.next_u32() % 3) as usize];
            let stack = HostStack::new(self.hosts[host].ulid, mtu, self.rng.next_u64());
            self.stacks[host] = Some(Box::new(stack));
        }
    }

    /// Both sides of a connection write something.
    pub(super) fn write_next(&mut self, id: ConnectionId) {
        let Some(Connection { interval, chunk, open: true, .. }) = self.connections.get(id) else { return };
        let (interval, chunk) = (*interval, *chunk);
        for end in 0..2 {
            let octets = u64::from(1 + self.rng.next_u32() % chunk);
            let begin = self.connections[id].ends[end].written;
            let Some(socket) = self.socket(id, end) else { continue };
            if !matches!(socket.state(), State::Established | State::SynSent | State::SynReceived | State::Listen) {
                let text = format!("connection {id}, end {end} is in state {} while open", socket.state());
                self.connections[id].open = false;
                return self.violation(None, Oracle::Octets, text);
            }
            if socket.can_send() {
                let text: Vec<u8> = (begin..begin + octets).map(|place| octet(id, end, place)).collect();
                let taken = socket.send_slice(&text).unwrap_or_default();
                self.connections[id].ends[end].written += taken as u64;
            }
            self.tcp_turn(self.connections[id].ends[end].host);
        }
        self.later(self.now + interval, Due::Write(id));
    }

    /// The host that a segment with these ports is for.
    pub(super) fn connection_at(&self, from: u16, to: u16) -> Option<HostId> {
        let (server, client) = (PORTS.0..PORTS.1, PORTS.1..=u16::MAX);
        let (id, end) = match () {
            () if server.contains(&to) && client.contains(&from) => (to - PORTS.0, 1),
            () if client.contains(&to) && server.contains(&from) => (to - PORTS.1, 0),
            () => return None,
        };
        self.connections.get(usize::from(id)).map(|connection| connection.ends[end].host)
    }

    /// A packet for a host's stack.
    pub(super) fn tcp_receive(&mut self, host: HostId, packet: &[u8]) {
        if let Some(stack) = &mut self.stacks[host] {
            stack.device.arrive(packet.to_vec());
            self.tcp_turn(host);
        }
    }

    /// A router told a host how large packets may be.
    pub(super) fn too_big(&mut self, host: HostId, mtu: u32) {
        let (now, seed) = (self.now, self.rng.next_u64());
        if let Some(stack) = &mut self.stacks[host] {
            stack.shrink(now, mtu, seed);
        }
    }

    /// A host's stack does what there is to do, if it is time.
    pub(super) fn tcp_timer(&mut self, host: HostId) {
        let now = self.now;
        if let Some(stack) = self.stacks[host].as_mut().filter(|stack| stack.due.is_some_and(|due| due <= now)) {
            stack.due = None;
            self.tcp_turn(host);
        }
    }

    fn tcp_turn(&mut self, host: HostId) {
        let now = self.now;
        for _ in 0..ROUNDS_MAX {
            let Some(stack) = &mut self.stacks[host] else { return };
            stack.poll(now);
            let packets: Vec<Vec<u8>> = stack.device.leaving().collect();
            let idle = packets.is_empty();
            packets.iter().for_each(|packet| self.send(host, packet));
            if !self.read(host) && idle {
                break;
            }
        }
        let Some(stack) = &mut self.stacks[host] else { return };
        let next = stack.interface.poll_at(smol(now), &stack.sockets);
        let next = next.map(|at| Instant(Duration::from_micros(at.total_micros().max(0) as u64)).max(now));
        // What smoltcp would do at once it has just refused to do, so a little later will do.
        let next = next.map(|at| at.max(now + Duration::from_millis(1)));
        if let Some(at) = next.filter(|at| stack.due.is_none_or(|due| *at < due || due <= now)) {
            stack.due = Some(at);
            self.later(at, Due::Tcp(host));
        }
    }

    /// A host's programs read what has come. Whether there was anything.
    fn read(&mut self, host: HostId) -> bool {
        let mut any = false;
        for id in 0..self.connections.len() {
            for end in 0..2 {
                if self.connections[id].ends[end].host != host {
                    continue;
                }
                let mut begin = self.connections[id].ends[end].read;
                let (other, from) = (self.connections[id].ends[1 - end].written, 1 - end);
                let Some(socket) = self.socket(id, end) else { continue };
                let mut wrong = None;
                while socket.can_recv() {
                    any = true;
                    let read = socket.recv(|octets| {
                        let expected =
                            |(at, octet_read): (usize, &u8)| *octet_read == octet(id, from, begin + at as u64);
                        wrong = wrong.or((!octets.iter().enumerate().all(expected)).then_some(begin));
                        (octets.len(), octets.len())
                    });
                    begin += read.unwrap_or_default() as u64;
                }
                self.connections[id].ends[end].read = begin;
                if let Some(place) = wrong {
                    let text = format!("connection {id}, end {end}: not what was sent, at or after octet {place}");
                    self.violation(None, Oracle::Octets, text);
                }
                if begin > other {
                    let text = format!("connection {id}, end {end}: read {begin} octets of {other} written");
                    self.violation(None, Oracle::Octets, text);
                }
            }
        }
        any
    }
}
