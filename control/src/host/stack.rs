//! smoltcp behind a device adapter: the box's own IPv6 host stack on one port.
//!
//! The adapter hands over IPv6 packets without a link layer (`Medium::Ip`): neighbour discovery is shared with the
//! forwarding path and lives in [`super::neighbours`], because smoltcp does not answer unicast solicitations, never sets
//! the router flag, and keeps its neighbour cache to itself.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use dataplane::bucket::TokenBucket;
use dataplane::wire::icmpv6::{self, Message};
use dataplane::wire::ipv6::{self, protocol};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::streams::{StreamEvent, Streams};
use crate::time::Instant;

/// Packets that may wait in either direction; more are dropped, as by any full device.
const QUEUE_MAX: usize = 64;
/// ICMPv6 errors a second, and at once (RFC 4443 §2.4 (f)).
const ERRORS_PER_S: u32 = 10;
const ERRORS_BURST: u32 = 10;

/// One port's host stack.
pub struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: Queues,
    streams: Streams,
    /// When the stack wants to run again.
    due: Option<Instant>,
    errors: TokenBucket,
    /// ICMPv6 errors that were not sent, because RFC 4443 §2.4 (e) forbids them or enough were sent lately.
    pub suppressed: u64,
}

/// A device whose wire is two queues of IPv6 packets.
pub(crate) struct Queues {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
    mtu: usize,
}

impl Queues {
    /// With nothing in them.
    pub(crate) fn new(mtu: usize) -> Queues {
        Queues { inbound: VecDeque::new(), outbound: VecDeque::new(), mtu }
    }

    /// Largest packet the device takes. An interface asks for it when it is made, and never again.
    pub(crate) fn mtu(&self) -> usize {
        self.mtu
    }

    /// Changes it.
    pub(crate) fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }

    /// A packet comes in, or is lost for want of room.
    pub(crate) fn arrive(&mut self, packet: Vec<u8>) {
        if self.inbound.len() < QUEUE_MAX {
            self.inbound.push_back(packet);
        }
    }

    /// What is to be sent.
    pub(crate) fn leaving(&mut self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.outbound.drain(..)
    }
}

impl Stack {
    /// A stack with these addresses (at most eight) and prefix lengths. `seed` makes its ports and sequence numbers
    /// unguessable.
    pub fn new(addresses: &[(Ipv6Addr, u8)], mtu: u16, seed: u64) -> Stack {
        let mut device = Queues::new(mtu.into());
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, SmolInstant::ZERO);
        interface.update_ip_addrs(|list| {
            for &(address, length) in addresses.iter().take(list.capacity()) {
                let _ = list.push(IpCidr::new(IpAddress::Ipv6(address), length));
            }
        });
        // Who else is to be reached is for the engine to know: everything leaves by the same queue.
        let _ = interface.routes_mut().add_default_ipv6_route(Ipv6Addr::UNSPECIFIED);
        let errors = TokenBucket::new(ERRORS_PER_S, ERRORS_BURST);
        let (sockets, streams) = (SocketSet::new(Vec::new()), Streams::default());
        Stack { interface, sockets, device, streams, due: None, errors, suppressed: 0 }
    }

    /// Takes in one IPv6 packet for the box and gives the packets the stack answers with. `to_many` says that it came
    /// in a multicast frame.
    pub fn receive(&mut self, now: Instant, packet: &[u8], to_many: bool) -> Vec<Vec<u8>> {
        self.device.arrive(packet.to_vec());
        let mut answers: Vec<Vec<u8>> = self.run(now).collect();
        answers.retain(|answer| {
            let sent = error_in(answer).is_none_or(|error| self.may_send(now, error, packet, to_many));
            self.suppressed += u64::from(!sent);
            sent
        });
        answers
    }

    /// RFC 4443 §2.4 (e) and (f). smoltcp looks at neither, and sees a protocol it does not know in every fragment.
    fn may_send(&mut self, now: Instant, error: icmpv6::Error, packet: &[u8], to_many: bool) -> bool {
        let Ok(view) = ipv6::View::new(packet) else { return false };
        let later_fragment = view.upper_layer().is_ok_and(|upper| !upper.first_fragment);
        let allowed = !later_fragment && icmpv6::may_answer(error, &view, to_many).is_ok();
        allowed && self.errors.take(now.0.as_millis() as u64)
    }

    /// Lets the stack's timers run.
    pub fn run(&mut self, now: Instant) -> impl Iterator<Item = Vec<u8>> + '_ {
        let moment = smol(now);
        self.streams.flush(&mut self.sockets);
        self.interface.poll(moment, &mut self.device, &mut self.sockets);
        self.due = match self.streams.any() {
            true => self
                .interface
                .poll_at(moment, &self.sockets)
                .map(|due| now.max(Instant(std::time::Duration::from_micros(due.total_micros().unsigned_abs())))),
            false => None,
        };
        self.device.leaving()
    }

    /// When [`Stack::run`] and [`Stack::streams`] have something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.into_iter().chain(self.streams.deadline()).min()
    }

    /// Takes connections of hosts at a port, for messages with their lengths before them.
    pub fn listen(&mut self, port: u16) {
        self.streams.listen(&mut self.sockets, port);
    }

    /// Whether there are connections, or may be.
    pub fn has_streams(&self) -> bool {
        self.streams.any()
    }

    /// What was said over connections since; to be followed by [`Stack::run`], for what is to be sent.
    pub fn streams(&mut self, now: Instant) -> Vec<StreamEvent> {
        if self.streams.any() { self.streams.service(now, &mut self.sockets) } else { Vec::new() }
    }

    /// Answers over the connection of a host.
    pub fn reply(&mut self, number: u64, message: &[u8]) {
        self.streams.reply(number, message);
    }

    #[cfg(test)]
    pub(super) fn hang_up(&mut self, to: usize) {
        self.streams.hang_up(to, &mut self.sockets);
    }

    /// Says something to whom the caller knows by the number `to`, between these addresses. False if there is no room.
    pub fn call(
        &mut self,
        now: Instant,
        to: usize,
        local: (Ipv6Addr, u16),
        remote: (Ipv6Addr, u16),
        message: &[u8],
    ) -> bool {
        self.streams.call(now, (&mut self.interface, &mut self.sockets), (to, local, remote), message)
    }
}

fn smol(now: Instant) -> SmolInstant {
    SmolInstant::from_micros(i64::try_from(now.0.as_micros()).unwrap_or(i64::MAX))
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }

    fn receive(&mut self, _: SmolInstant) -> Option<(Received, Sending<'_>)> {
        let packet = self.inbound.pop_front()?;
        Some((Received(packet), Sending(&mut self.outbound)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Sending<'_>> {
        (self.outbound.len() < QUEUE_MAX).then_some(Sending(&mut self.outbound))
    }
}

/// The ICMPv6 error in a packet, if it is one.
fn error_in(packet: &[u8]) -> Option<icmpv6::Error> {
    let view = ipv6::View::new(packet).ok().filter(|view| view.next_header() == protocol::ICMPV6)?;
    match Message::parse(&icmpv6::View::new(view.payload()).ok()?) {
        Message::Error { error, .. } => Some(error),
        _ => None,
    }
}

pub(crate) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, use_it: F) -> R {
        use_it(&self.0)
    }
}

pub(crate) struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let result = fill(&mut packet);
        self.0.push_back(packet);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::wire::checksum;

    fn echo_request(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        let mut message = vec![128, 0, 0, 0, 0, 7, 0, 1, b'h', b'i'];
        let sum = checksum::upper_layer(from, to, 58, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x60, 0, 0, 0, 0, message.len() as u8, 58, 64];
        packet.extend_from_slice(&from.octets());
        packet.extend_from_slice(&to.octets());
        packet.extend_from_slice(&message);
        packet
    }

    #[test]
    fn answers_echo_requests_for_its_own_addresses_only() {
        let own: Ipv6Addr = "fc00:a:0:1::1".parse().unwrap();
        let host: Ipv6Addr = "fc00:a:0:1::5".parse().unwrap();
        let mut stack = Stack::new(&[(own, 64)], 1500, 1);
        let answers = stack.receive(Instant::START, &echo_request(host, own), false);
        let [answer] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!((answer[40], &answer[8..24], &answer[24..40]), (129, &own.octets()[..], &host.octets()[..]));
        assert!(checksum::upper_layer_verifies(own, host, 58, &answer[40..]));
        let other = "fc00:a:0:1::2".parse().unwrap();
        assert!(stack.receive(Instant::START, &echo_request(host, other), false).is_empty());
    }

    fn packet(next_header: u8, target: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let header = ipv6::Repr {
            source: "fc00:a:0:1::5".parse().unwrap(),
            target,
            next_header,
            payload_len: payload.len() as u16,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
        };
        [&header.emit()[..], payload].concat()
    }

    #[test]
    fn errors_are_few_and_never_about_what_was_sent_to_many() {
        let own: Ipv6Addr = "fc00:a:0:1::1".parse().unwrap();
        let all: Ipv6Addr = "ff02::1".parse().unwrap();
        let mut stack = Stack::new(&[(own, 64)], 1500, 1);
        let mut errors = |now, packet: &[u8], to_many| {
            (stack.receive(now, packet, to_many).len() as u64, std::mem::take(&mut stack.suppressed))
        };
        let unknown = packet(200, own, &[0; 64]);
        assert_eq!(errors(Instant::START, &unknown, false), (1, 0));
        assert_eq!(errors(Instant::START, &unknown, true), (0, 1), "in a multicast frame");
        assert_eq!(errors(Instant::START, &packet(200, all, &[0; 64]), true), (0, 1));
        // A fragment: 17, reserved, offset 8 units, identification.
        let later = [&[17, 0, 0, 64, 0, 0, 0, 1][..], &[0; 64]].concat();
        assert_eq!(errors(Instant::START, &packet(44, own, &later), false), (0, 1));
        let (mut sent, mut suppressed) = (0, 0);
        for _ in 0..1000 {
            let (more, fewer) = errors(Instant::START, &unknown, false);
            (sent, suppressed) = (sent + more, suppressed + fewer);
        }
        assert_eq!((sent, suppressed), (u64::from(ERRORS_BURST) - 1, 1001 - u64::from(ERRORS_BURST)));
        let later = Instant::START + std::time::Duration::from_secs(1);
        assert_eq!(errors(later, &unknown, false), (1, 0));
        // Answers that are no errors are not held back.
        let host = "fc00:a:0:1::5".parse().unwrap();
        assert!((0..100).all(|_| errors(later, &echo_request(host, own), false) == (1, 0)));
    }
}
