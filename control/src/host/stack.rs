//! smoltcp behind a device adapter: the box's own IPv6 host stack on one port.
//!
//! The adapter hands over IPv6 packets without a link layer (`Medium::Ip`): neighbour discovery is shared with the
//! forwarding path and lives in [`super::neighbours`], because smoltcp does not answer unicast solicitations, never sets
//! the router flag, and keeps its neighbour cache to itself.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::time::Instant;

/// Packets that may wait in either direction; more are dropped, as by any full device.
const QUEUE_MAX: usize = 64;

/// One port's host stack.
pub struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: Queues,
}

struct Queues {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
    mtu: usize,
}

impl Stack {
    /// A stack with these addresses (at most eight) and prefix lengths. `seed` makes its ports and sequence numbers
    /// unguessable.
    pub fn new(addresses: &[(Ipv6Addr, u8)], mtu: u16, seed: u64) -> Stack {
        let mut device = Queues { inbound: VecDeque::new(), outbound: VecDeque::new(), mtu: mtu.into() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, SmolInstant::ZERO);
        interface.update_ip_addrs(|list| {
            for &(address, length) in addresses.iter().take(list.capacity()) {
                let _ = list.push(IpCidr::new(IpAddress::Ipv6(address), length));
            }
        });
        Stack { interface, sockets: SocketSet::new(Vec::new()), device }
    }

    /// Takes in one IPv6 packet for the box and gives the packets the stack answers with.
    pub fn receive(&mut self, now: Instant, packet: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
        if self.device.inbound.len() < QUEUE_MAX {
            self.device.inbound.push_back(packet.to_vec());
        }
        self.run(now)
    }

    /// Lets the stack's timers run.
    pub fn run(&mut self, now: Instant) -> impl Iterator<Item = Vec<u8>> + '_ {
        let now = SmolInstant::from_micros(i64::try_from(now.0.as_micros()).unwrap_or(i64::MAX));
        self.interface.poll(now, &mut self.device, &mut self.sockets);
        self.device.outbound.drain(..)
    }
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

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, use_it: F) -> R {
        use_it(&self.0)
    }
}

struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

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
        let answers: Vec<_> = stack.receive(Instant::START, &echo_request(host, own)).collect();
        let [answer] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!((answer[40], &answer[8..24], &answer[24..40]), (129, &own.octets()[..], &host.octets()[..]));
        assert!(checksum::upper_layer_verifies(own, host, 58, &answer[40..]));
        let other = "fc00:a:0:1::2".parse().unwrap();
        assert_eq!(stack.receive(Instant::START, &echo_request(host, other)).count(), 0);
    }
}
