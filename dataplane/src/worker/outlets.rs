//! Where packets go when their verdict is known: ports, other workers, control, or nowhere under a name.

use rtrb::PushError;

use crate::context::hold::Held;
use crate::context::{Hasher, Hold};
use crate::counters::{Count, DropReason};
use crate::limit::Guard;
use crate::link::{Event, Handover, Punt, Retired, WorkerLink};
use crate::port::{Frame, Pool, Port};
use crate::reply;
use crate::snapshot::{PortId, Role, Snapshot};
use crate::translate::{BURST, IcmpError, Verdict};
use crate::wire::ethernet;
use crate::wire::ipv6::{self, fragment::Pieces};
use crate::wire::{Ulid, UlidPair};

/// Where hosts ask for names.
const DNS_PORT: [u8; 2] = 53u16.to_be_bytes();

/// A device queue, or the worker that has one.
pub enum Outlet<F> {
    /// This worker receives and sends here.
    Own(Box<dyn Port<F>>),
    /// Another worker does; what is to be sent goes there.
    Via(u8),
}

pub(super) struct PortSlot<F> {
    pub(super) outlet: Outlet<F>,
    pub(super) sending: Vec<F>,
}

/// Where packets go when their verdict is known.
pub(super) struct Outlets<F> {
    pub(super) ports: Vec<PortSlot<F>>,
    pub(super) hold: Hold<(PortId, F)>,
    /// By worker: what is to be handed over to it, at the latest at the end of the turn.
    pub(super) departing: Vec<Vec<Handover<F>>>,
    /// Packets of the present burst that go nowhere, to be given back all at once.
    pub(super) dropped: Vec<F>,
    /// Fragments made of packets of the present burst, to be sent after it.
    pub(super) pieces: Vec<F>,
    /// Packets cut so far; makes their numbers differ.
    pub(super) cuts: u32,
    pub(super) hasher: Hasher,
    pub(super) link: WorkerLink<F>,
    pub(super) pool: Box<dyn Pool<F>>,
    pub(super) guard: Guard,
    pub(super) now: u64,
    /// What is being settled came back from control.
    pub(super) plain: bool,
}

impl<F: Frame> Outlets<F> {
    pub(super) fn count(&self, count: Count) {
        self.link.counters.add(count, 1);
    }

    pub(super) fn drop(&self, reason: DropReason) {
        self.link.counters.count_drop(reason);
    }

    /// Tells control. False when it has no room to listen. What is lost then is a packet or a word, which are counted apart: a
    /// packet whose drop has a reason already is not dropped twice.
    pub(super) fn tell(&mut self, event: Event<F>) -> bool {
        let Err(PushError::Full(event)) = self.link.events.push(event) else { return true };
        match event {
            Event::Punt(..) | Event::Unresolved(..) | Event::UnknownPair(_) => self.drop(DropReason::RingFull),
            Event::UnknownTag { .. }
            | Event::Activity { .. }
            | Event::Tcp { .. }
            | Event::TableFull { .. }
            | Event::Qualified { .. }
            | Event::Fork(_)
            | Event::Retired(_) => self.count(Count::NoticesLost),
        }
        false
    }

    #[inline]
    pub(super) fn settle(&mut self, port: PortId, frame: F, verdict: &Verdict, snapshot: &Snapshot) {
        match *verdict {
            Verdict::Forward(to) => self.send(to, frame),
            Verdict::HandOver(worker) => {
                self.count(Count::HandedOver);
                let packet = if self.plain { Handover::Plain(port, frame) } else { Handover::Process(port, frame) };
                self.hand_over(worker, packet);
            }
            Verdict::Drop(reason) => {
                self.drop(reason);
                self.dropped.push(frame);
            }
            ref other => self.settle_rare(port, frame, *other, snapshot),
        }
    }

    #[cold]
    pub(super) fn settle_rare(&mut self, port: PortId, frame: F, verdict: Verdict, snapshot: &Snapshot) {
        match verdict {
            Verdict::Hold(pair)
                if !self.hold.knows(&pair) && !self.guard.opening(pair, self.hold.is_short(), self.now) =>
            {
                self.drop(DropReason::HoldFull);
            }
            Verdict::Hold(pair) => match self.hold.keep(pair, (port, frame), self.now) {
                Held::First => {
                    self.count(Count::Held);
                    self.count(Count::UnknownPairs);
                    if !self.tell(Event::UnknownPair(pair)) {
                        // Control never heard of the pair, so nothing must wait for its answer.
                        self.hold.forget(&pair);
                    }
                }
                Held::Behind => self.count(Count::Held),
                Held::Refused(_) => self.drop(DropReason::HoldFull),
            },
            Verdict::Punt(why) => {
                let allowed = match names(why, port, &frame, snapshot) {
                    Some(Names::Question(host)) => self.guard.question(host, self.now),
                    Some(Names::Reply) => self.guard.reply(self.now),
                    None => None,
                };
                if allowed == Some(false) {
                    self.drop(DropReason::QuestionRate);
                } else if allowed.is_none() && !self.guard.punt(why, port, source(&frame), self.now) {
                    self.drop(if why == Punt::System { DropReason::SystemRate } else { DropReason::ControlRate });
                } else if self.tell(Event::Punt(port, why, frame)) {
                    self.count(Count::Punted);
                    if why == Punt::System {
                        self.count(Count::SystemPunted);
                    }
                }
            }
            Verdict::UnknownTag(tag, locators, udp) => {
                self.drop(DropReason::UnknownTag);
                if self.guard.unknown_tag(port, source(&frame), self.now) {
                    self.tell(Event::UnknownTag { tag, locators, udp });
                }
            }
            Verdict::Unresolved(to, next_hop) => {
                if !self.guard.unresolved(next_hop.to_bits(), self.now) {
                    self.drop(DropReason::NextHopUnresolved);
                } else {
                    self.tell(Event::Unresolved(to, next_hop, frame));
                }
            }
            Verdict::Fragment(octets_max) => self.cut(&frame, octets_max),
            Verdict::Reply(error) => {
                let reason = match error {
                    IcmpError::PacketTooBig(_) => DropReason::TooBig,
                    IcmpError::TimeExceeded => DropReason::HopLimit,
                    IcmpError::AddressUnreachable => DropReason::Unreachable,
                    IcmpError::SourcePolicy => DropReason::SpoofedSource,
                    IcmpError::NoRoute => DropReason::NoRoute,
                    IcmpError::ParameterProblem(_) => DropReason::MalformedIpv6,
                };
                self.answer(port, frame, error, reason, snapshot);
            }
            Verdict::Refuse(error, reason) => self.answer(port, frame, error, reason, snapshot),
            // Every packet leaves `translate` with a verdict; one that is still to be looked up has no route.
            Verdict::Forward(_) | Verdict::Drop(_) | Verdict::HandOver(_) | Verdict::Lookup => {
                self.drop(DropReason::NoRoute);
            }
        }
    }

    #[inline]
    pub(super) fn hand_over(&mut self, worker: u8, packet: Handover<F>) {
        let Some(departing) = self.departing.get_mut(usize::from(worker)) else {
            return self.drop(DropReason::RingFull);
        };
        departing.push(packet);
        if departing.len() == BURST {
            self.depart(usize::from(worker));
        }
    }

    /// Gives another worker what waits for it: one look at its ring for all of them.
    pub(super) fn depart(&mut self, worker: usize) {
        let (departing, ring) = (&mut self.departing[worker], &mut self.link.to_workers[worker]);
        if departing.is_empty() {
            return;
        }
        let room = ring.slots().min(departing.len());
        if let Ok(places) = ring.write_chunk_uninit(room) {
            places.fill_from_iter(departing.drain(..room));
        }
        let refused = departing.len();
        departing.clear();
        for _ in 0..refused {
            self.drop(DropReason::RingFull);
        }
    }

    #[inline]
    pub(super) fn send(&mut self, port: PortId, frame: F) {
        let at = usize::from(port.0);
        match self.ports.get_mut(at) {
            None => self.drop(DropReason::NoRoute),
            Some(PortSlot { outlet: Outlet::Via(worker), .. }) => {
                let worker = *worker;
                self.hand_over(worker, Handover::Transmit(port, frame));
            }
            Some(slot) => {
                slot.sending.push(frame);
                if slot.sending.len() == slot.sending.capacity() {
                    self.flush(at);
                }
            }
        }
    }

    /// Sends a whole burst to a port of this worker's own. False, and nothing done, if it is another's.
    pub(super) fn send_all(&mut self, port: PortId, frames: &mut Vec<F>) -> bool {
        let at = usize::from(port.0);
        let Some(PortSlot { outlet: Outlet::Own(_), sending }) = self.ports.get_mut(at) else { return false };
        if sending.len() + frames.len() > sending.capacity() {
            self.flush(at);
        }
        if let Some(slot) = self.ports.get_mut(at) {
            // Both lists have room for a burst, so the two may change places.
            match slot.sending.is_empty() {
                true => std::mem::swap(&mut slot.sending, frames),
                false => slot.sending.append(frames),
            }
            if slot.sending.len() == slot.sending.capacity() {
                self.flush(at);
            }
        }
        true
    }

    pub(super) fn flush(&mut self, port: usize) {
        let PortSlot { outlet: Outlet::Own(device), sending } = &mut self.ports[port] else { return };
        if sending.is_empty() {
            return;
        }
        let offered = sending.len();
        device.transmit(sending);
        let refused = sending.len();
        sending.clear();
        self.link.counters.add(Count::Transmitted, (offered - refused) as u64);
        for _ in 0..refused {
            self.drop(DropReason::TransmitFull);
        }
    }

    /// Makes fragments of at most `octets_max` octets of a packet.
    pub(super) fn cut(&mut self, frame: &F, octets_max: u16) {
        let Some((ether, packet)) = frame.bytes().split_first_chunk::<{ ethernet::HEADER_LEN }>() else {
            return self.drop(DropReason::MalformedIpv6);
        };
        let Ok(view) = ipv6::View::new(packet) else { return self.drop(DropReason::MalformedIpv6) };
        let pair = UlidPair { local: Ulid(view.source()), peer: Ulid(view.target()) };
        // Numbers of one pair never repeat soon, and say little about those of another (RFC 7739 §5.3).
        let id = (self.hasher.pair(&pair) as u32).wrapping_add(self.cuts);
        self.cuts = self.cuts.wrapping_add(1);
        let Some(mut pieces) = Pieces::of(packet, usize::from(octets_max), id) else {
            return self.drop(DropReason::MalformedChain);
        };
        let before = self.pieces.len();
        let mut room = [0; reply::ROOM];
        room[..ethernet::HEADER_LEN].copy_from_slice(ether);
        while let Some(length) = room.last_chunk_mut().and_then(|out| pieces.write_next(out)) {
            match self.pool.allocate(&room[..ethernet::HEADER_LEN + length]) {
                Some(piece) => self.pieces.push(piece),
                None => {
                    // All or nothing: a part would only wait at the peer for the rest.
                    self.pieces.truncate(before);
                    return self.drop(DropReason::NoBuffer);
                }
            }
        }
        self.count(Count::Fragmented);
    }

    /// Sends an ICMPv6 error back where the packet came from, and drops the packet for `reason`.
    pub(super) fn answer(&mut self, port: PortId, frame: F, error: IcmpError, reason: DropReason, snapshot: &Snapshot) {
        let count = match error {
            IcmpError::PacketTooBig(_) => Count::PacketTooBigSent,
            IcmpError::TimeExceeded => Count::TimeExceededSent,
            IcmpError::ParameterProblem(_) => Count::ParameterProblemSent,
            IcmpError::AddressUnreachable | IcmpError::SourcePolicy | IcmpError::NoRoute => Count::UnreachableSent,
        };
        self.drop(reason);
        let mut room = [0; reply::ROOM];
        let built = snapshot.ports.get(usize::from(port.0)).and_then(|view| {
            let length = reply::build(frame.bytes(), error, view, &mut room)?;
            self.guard.answer(self.now).then_some(length)
        });
        match built.and_then(|length| self.pool.allocate(room.get(..length)?)) {
            Some(answer) => {
                self.count(count);
                self.send(port, answer);
            }
            None => self.count(Count::IcmpSuppressed),
        }
    }

    /// Gives something back to control, which frees it. If control has no room now it is freed here: a leak would be worse
    /// than one slow turn.
    pub(super) fn retire(&mut self, retired: Option<Retired>) {
        if let Some(retired) = retired {
            drop(self.link.events.push(Event::Retired(retired)));
        }
    }
}

/// What a packet for the host stack has to do with names.
enum Names {
    /// A host asks: this is its address.
    Question(u128),
    /// A server that the box asks says something.
    Reply,
}

/// UDP for port 53 from the site, and UDP from port 53 of a server.
fn names<F: Frame>(why: Punt, port: PortId, frame: &F, snapshot: &Snapshot) -> Option<Names> {
    let packet = frame.bytes().get(ethernet::HEADER_LEN..)?;
    let (header, ports) = packet.split_at_checked(ipv6::HEADER_LEN)?;
    if why != Punt::HostStack || header[6] != ipv6::protocol::UDP {
        return None;
    }
    let source = source(frame)?;
    if snapshot.ports.get(usize::from(port.0))?.role == Role::Site && ports.get(2..4)? == DNS_PORT {
        return Some(Names::Question(source));
    }
    let server = ports.get(..2)? == DNS_PORT && snapshot.name_servers.iter().any(|it| it.to_bits() == source);
    server.then_some(Names::Reply)
}

/// The source address of a packet.
fn source<F: Frame>(frame: &F) -> Option<u128> {
    let octets = frame.bytes().get(ethernet::HEADER_LEN + 8..)?.first_chunk()?;
    Some(u128::from_be_bytes(*octets))
}
