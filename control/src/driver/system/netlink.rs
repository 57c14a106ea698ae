//! What is asked of the kernel about its interfaces, addresses and routes (rtnetlink(7)): requests with an answer each, by a
//! socket that waits for it. The kernel answers at once.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use dataplane::wire::ethernet::Mac;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::config::{LinkAddress, Prefix};

/// Whose the routes are (`ip route` shows it): no daemon of note uses this number (/etc/iproute2/rt_protos).
const PROTOCOL: u8 = 201;
/// Largest answer: the kernel's own dumps come in pieces of at most this.
const ANSWER_MAX: usize = 64 * 1024;
/// Groups of messages that nobody asked for: links, IPv6 addresses, IPv6 routes (RTNLGRP_…).
const GROUPS: [u32; 3] = [1, 9, 11];

/// Answers that say there is no way to an address: none at all, or a route that throws away, refuses or skips.
const NO_WAY: [rustix::io::Errno; 5] = {
    use rustix::io::Errno;
    [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::INVAL, Errno::ACCESS, Errno::AGAIN]
};

/// A route on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    /// The interface.
    pub(super) index: u32,
    /// Where to.
    pub(super) prefix: Prefix,
    /// Lower is better.
    pub(super) metric: u32,
}

/// A socket for requests.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    room: Vec<u8>,
}

impl Netlink {
    /// In the network namespace of this process.
    pub(super) fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0, room: Vec::with_capacity(ANSWER_MAX) })
    }

    /// Gives an interface its link-layer address and MTU, and leaves it to us which link-local address it has.
    pub(super) fn configure(&mut self, index: u32, mac: Mac, mtu: u16) -> io::Result<()> {
        // The kernel would make it from the link-layer address, as the box does for itself.
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let attributes = vec![
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::Mtu(mtu.into()),
            LinkAttribute::AfSpecUnspec(vec![inet6]),
        ];
        self.link(index, attributes, LinkFlags::empty())
    }

    /// Gives an interface another name, as long as it is down.
    pub(super) fn rename(&mut self, index: u32, name: &str) -> io::Result<()> {
        self.link(index, vec![LinkAttribute::IfName(name.to_owned())], LinkFlags::empty())
    }

    /// Brings an interface up.
    pub(super) fn up(&mut self, index: u32) -> io::Result<()> {
        self.link(index, Vec::new(), LinkFlags::Up)
    }

    /// Says whether there is a carrier.
    pub(super) fn carrier(&mut self, index: u32, up: bool) -> io::Result<()> {
        self.link(index, vec![LinkAttribute::Carrier(up.into())], LinkFlags::empty())
    }

    fn link(&mut self, index: u32, attributes: Vec<LinkAttribute>, flags: LinkFlags) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        (message.header.flags, message.header.change_mask) = (flags, flags);
        message.attributes = attributes;
        self.order(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Gives an interface an address. One that it has already is as good.
    pub(super) fn add_address(&mut self, index: u32, address: LinkAddress) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.prefix_len = address.length;
        message.header.index = index;
        message.header.scope =
            if address.address.is_unicast_link_local() { AddressScope::Link } else { AddressScope::Universe };
        message.attributes.push(AddressAttribute::Address(IpAddr::V6(address.address)));
        there_is_fine(self.order(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL))
    }

    /// Adds a route. One that is there already is as good.
    pub(super) fn add_route(&mut self, route: Route) -> io::Result<()> {
        there_is_fine(self.order(RouteNetlinkMessage::NewRoute(message_of(route)), NLM_F_CREATE | NLM_F_EXCL))
    }

    /// Takes a route away. One that is not there is as good.
    pub(super) fn remove_route(&mut self, route: Route) -> io::Result<()> {
        match self.order(RouteNetlinkMessage::DelRoute(message_of(route)), 0) {
            Err(error) if is(&error, rustix::io::Errno::SRCH) || is(&error, rustix::io::Errno::NODEV) => Ok(()),
            done => done,
        }
    }

    /// The IPv6 addresses of an interface.
    pub(super) fn addresses(&mut self, index: u32) -> io::Result<Vec<Ipv6Addr>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        let mut found = Vec::new();
        self.ask(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP, &mut |answer| {
            let RouteNetlinkMessage::NewAddress(message) = answer else { return };
            if message.header.index != index {
                return;
            }
            // Of a link to one neighbour the first is the neighbour's and the second ours; on others there is one.
            let address = message.attributes.iter().find_map(|it| match it {
                AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
                _ => None,
            });
            found.extend(address);
        })?;
        Ok(found)
    }

    /// By which interface and which gateway the kernel would send to an address; no gateway if it is on the link.
    pub(super) fn way_to(&mut self, target: Ipv6Addr) -> io::Result<Option<(u32, Option<Ipv6Addr>)>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = 128;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet6(target)));
        let mut found = None;
        let asked = self.ask(RouteNetlinkMessage::GetRoute(message), NLM_F_ACK, &mut |answer| {
            let RouteNetlinkMessage::NewRoute(message) = answer else { return };
            let (mut interface, mut gateway) = (None, None);
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => interface = Some(*index),
                    RouteAttribute::Gateway(RouteAddress::Inet6(address)) => gateway = Some(*address),
                    _ => {}
                }
            }
            found = interface.filter(|_| message.header.kind == RouteType::Unicast).map(|index| (index, gateway));
        });
        match asked {
            Err(error) if NO_WAY.iter().any(|errno| is(&error, *errno)) => Ok(None),
            done => done.map(|()| found),
        }
    }

    /// Our routes on an interface.
    pub(super) fn routes(&mut self, index: u32) -> io::Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        let mut found = Vec::new();
        self.ask(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP, &mut |answer| {
            let RouteNetlinkMessage::NewRoute(message) = answer else { return };
            let (mut interface, mut metric, mut target) = (0, 0, Ipv6Addr::UNSPECIFIED);
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => interface = *index,
                    RouteAttribute::Priority(priority) => metric = *priority,
                    RouteAttribute::Destination(RouteAddress::Inet6(address)) => target = *address,
                    _ => {}
                }
            }
            if interface == index && u8::from(message.header.protocol) == PROTOCOL {
                let prefix = Prefix::of(target, message.header.destination_prefix_length);
                found.extend(prefix.map(|prefix| Route { index, prefix, metric }));
            }
        })?;
        Ok(found)
    }

    /// A request that is obeyed or not.
    fn order(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | flags, &mut |_| ())
    }

    /// A request with answers, of which the last one is an acknowledgement, an error or the end of a list.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        sink: &mut dyn FnMut(&RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut octets = vec![0; request.buffer_len()];
        request.serialize(&mut octets);
        self.socket.send(&octets, 0)?;
        loop {
            self.room.clear();
            let length = match self.socket.recv(&mut self.room, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            let mut rest = self.room.get(..length).ok_or(io::ErrorKind::InvalidData)?;
            while let Some(size) = size_of_next(rest) {
                let (one, others) = rest.split_at(size);
                rest = others.get(size.next_multiple_of(4) - size..).unwrap_or_default();
                // What this library cannot read is none of ours: other kinds of interface have many attributes.
                let Ok(answer) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) else { continue };
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(answer) => sink(&answer),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(()),
                            Some(_) => Err(error.to_io()),
                        };
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A socket at which the kernel says that something has changed. It does not wait.
pub(super) fn listen() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Octets of the message that begins here, if it is whole.
fn size_of_next(octets: &[u8]) -> Option<usize> {
    let size = u32::from_ne_bytes(*octets.first_chunk()?) as usize;
    (size >= 16 && size <= octets.len()).then_some(size)
}

fn message_of(route: Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet6,
        destination_prefix_length: route.prefix.length(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Other(PROTOCOL),
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet6(route.prefix.address())),
        RouteAttribute::Oif(route.index),
        RouteAttribute::Priority(route.metric),
    ];
    message
}

fn there_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

fn is(error: &io::Error, errno: rustix::io::Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
