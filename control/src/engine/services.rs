//! What the box does for the hosts of its site besides forwarding: which datagram is for whom, and how answers leave.

use dataplane::snapshot::PortId;
use dataplane::wire::{ethernet, ipv6};
use rand::Rng;

use super::{Effect, Engine, Event};
use crate::dhcp;
use crate::host::{Datagram, DatagramError};
use crate::time::Instant;

/// Hop limit of the box's own datagrams.
pub(super) const HOP_LIMIT: u8 = 64;

impl Engine {
    /// Gives a packet for the box to the service that wants it. False if none does: then it is the host stack's.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        port: PortId,
        frame: &[u8],
        effects: &mut Vec<Effect>,
    ) -> bool {
        let packet = frame.get(ethernet::HEADER_LEN..).unwrap_or_default();
        let Ok(view) = ipv6::View::new(packet) else { return false };
        match Datagram::parse(&view) {
            Ok(datagram) if datagram.target.1 == dhcp::SERVER_PORT => {
                self.lease_message(now, rng, port, frame, &datagram, effects)
            }
            Ok(datagram) if datagram.target.1 == dhcp::CLIENT_PORT && port != self.lan_port => {
                self.delegation_message(now, rng, port, &datagram, effects)
            }
            Ok(datagram) => self.datagram(now, rng, port, &datagram, effects),
            Err(DatagramError::Other) => false,
            Err(DatagramError::Malformed | DatagramError::Checksum) => {
                self.tally.count(Event::DatagramMalformed);
                true
            }
        }
    }

    /// A whole datagram for the box that came in on `port`, by the port it is sent to. False if nobody wants it.
    fn datagram(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        port: PortId,
        datagram: &Datagram,
        effects: &mut Vec<Effect>,
    ) -> bool {
        self.publisher_hears(now, rng, datagram, effects) || self.name_datagram(now, rng, port, datagram, effects)
    }

    /// Sends a datagram of the box's own: to a neighbour on that port's link, or to the router behind it.
    pub(super) fn send_datagram(&mut self, now: Instant, port: PortId, datagram: &Datagram, effects: &mut Vec<Effect>) {
        match datagram.emit(HOP_LIMIT) {
            Some(packet) => self.send_from_port(now, port, &packet, effects),
            None => self.tally.count(Event::DatagramNotSent),
        }
    }
}
