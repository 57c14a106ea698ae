//! What is looked at in single packets: TCP of contexts in doubt, its segment size, and packets that do not fit.

use super::{IcmpError, Verdict, udp};
use crate::context::replay::{Owner, Replay};
use crate::context::{Entry, Way};
use crate::port::Frame;
use crate::snapshot::{PortId, PortView, Snapshot};
use crate::wire::LocatorPair;
use crate::wire::ethernet;
use crate::wire::ipv6::{self, protocol};
use crate::wire::segment::Segment;
use crate::wire::shim6::PayloadHeader;
use crate::wire::tcp;

/// Keeps a copy of a TCP segment that leaves over `pair`, and notes what it shows (see [`Replay`]). Datagrams are not kept: TCP expects to see a
/// segment twice, others may not.
#[cold]
pub(super) fn watch_sent<F: Frame>(
    frame: &F,
    entry: &Entry,
    pair: &LocatorPair,
    port: PortId,
    now: u64,
    replay: &mut Replay,
) {
    // Part of a segment is of no use, and a reset ends a connection; repeated later it might meet another.
    let packet = ipv6::View::new(frame.bytes().get(ethernet::HEADER_LEN..).unwrap_or_default());
    let shim = packet.ok().and_then(|packet| packet.shim_insertion().ok());
    let whole = shim.is_some_and(|shim| shim.place.next_header != protocol::FRAGMENT);
    if let Some(segment) = segment_in(frame).filter(|segment| whole && !segment.reset) {
        let owner = Owner { tag: entry.local_tag, handle: entry.handle, pair: *pair };
        replay.sent(owner, port, frame.bytes(), &segment, now);
    }
}

/// Whatever comes back ends the doubt. What is not handed on tells nothing else.
#[cold]
pub(super) fn watch_received<F: Frame>(frame: &F, entry: &Entry, verdict: Verdict, now: u64, replay: &mut Replay) {
    let restored = matches!(verdict, Verdict::Forward(_) | Verdict::Unresolved(..));
    let segment = if restored { segment_in(frame) } else { None };
    replay.received(entry.local_tag, entry.handle, segment, now);
}

/// The TCP segment of a packet, if it is one and its header is here.
fn segment_in<F: Frame>(frame: &F) -> Option<Segment> {
    let packet = ipv6::View::new(frame.bytes().get(ethernet::HEADER_LEN..)?).ok()?;
    let upper = packet.upper_layer().ok()?;
    let is_tcp = upper.place.next_header == protocol::TCP && upper.first_fragment;
    is_tcp.then(|| Segment::read(packet.from_offset(upper.place.offset)))?
}

/// A packet of `octets` that is larger than what the path has room for. No host need send less than 1280 octets (RFC 8200
/// §5), so such packets are cut instead of refused.
#[cold]
pub(super) fn too_big(octets: usize, room: usize) -> Verdict {
    if octets <= ipv6::MIN_MTU {
        return Verdict::Fragment(room as u16);
    }
    Verdict::Reply(IcmpError::PacketTooBig(room.max(ipv6::MIN_MTU) as u32))
}

/// What TCP offers to take has to fit a path of `mtu` octets with the payload header.
pub(super) fn clamp_mss<F: Frame>(frame: &mut F, mtu: usize) {
    let most = mtu.saturating_sub(PayloadHeader::LEN + tcp::HEADERS) as u16;
    tcp::clamp_mss(frame.bytes_mut().get_mut(ethernet::HEADER_LEN..).unwrap_or_default(), most);
}

/// The same for what the peer offers: the host will send as much, over the context's own path.
pub(super) fn clamp_inbound<F: Frame>(frame: &mut F, way: Way<'_>, snapshot: &Snapshot) {
    let provider = snapshot.providers.get(usize::from(way.provider));
    if let Some(port) = provider.and_then(|provider| snapshot.ports.get(usize::from(provider.port.0))) {
        let ports = way.udp.zip(snapshot.udp_port).map(|(flow, port)| flow.ports(port));
        clamp_mss(frame, path_mtu(way, port).saturating_sub(udp::octets(ports)));
    }
}

/// The largest packet a path carries, as far as it is known.
#[inline]
pub(super) fn path_mtu(way: Way<'_>, port: &PortView) -> usize {
    if way.is_narrow { ipv6::MIN_MTU } else { usize::from(port.mtu) }
}

/// The provider that delegated the address a packet came to.
#[cold]
pub(super) fn provider_it_came_by<F: Frame>(frame: &F, snapshot: &Snapshot) -> Option<u8> {
    let packet = ipv6::View::new(frame.bytes().get(ethernet::HEADER_LEN..)?).ok()?;
    let prefix = (packet.target().to_bits() >> 64) as u64;
    snapshot.providers.iter().position(|provider| provider.prefix == prefix).map(|at| at as u8)
}
