//! Settling a burst of which somebody wants to know what becomes of it. It costs what it costs: nobody is here otherwise.

use super::Worker;
use crate::context::{Phase, Slot};
use crate::link::Punt;
use crate::port::Frame;
use crate::snapshot::{CLASSES_MAX, PortId, Role};
use crate::trace::{Decision, Octets, Record, Traced, tag_of};
use crate::translate::{IcmpError, Origin, Verdict};
use crate::wire::{Ulid, UlidPair};

impl<F: Frame> Worker<F> {
    /// Does what the verdicts ask for, and tells of each packet that passes the filter. Nothing of the burst is left.
    #[cold]
    pub(super) fn settle_traced(&mut self, port: PortId, origin: Origin) {
        let Some(mut tracer) = self.tracer.take() else { return };
        let counters = self.outlets.link.counters.clone();
        self.batch.spell_out();
        let mut frames = std::mem::take(&mut self.batch.frames);
        for (at, frame) in frames.drain(..).enumerate() {
            let Some(&verdict) = self.batch.verdicts.get(at) else { break };
            let after = Octets::of(frame.bytes());
            let before = tracer.before(at).copied().unwrap_or(after);
            let context = self.slot_of(port, &before, &after).map(|slot| self.traced(slot));
            tracer.mark(&counters);
            self.outlets.settle(port, frame, &verdict, &self.snapshot);
            let record = Record {
                now: self.outlets.now,
                worker: self.id,
                port,
                origin: match origin {
                    Origin::Device => "device",
                    Origin::Worker => "worker",
                    Origin::Control => "control",
                },
                before,
                after,
                decision: decision(&verdict),
                reason: tracer.reason(&counters),
                context,
            };
            tracer.tell(record, &counters);
        }
        self.batch.frames = frames;
        self.tracer = Some(tracer);
    }

    /// The context a packet went by, or would have: translation looked into the same table a moment ago.
    fn slot_of(&self, port: PortId, before: &Octets, after: &Octets) -> Option<Slot> {
        let by_pair = |local, peer| {
            let pair = UlidPair { local: Ulid(local), peer: Ulid(peer) };
            self.shard.by_pair(self.shard.hasher().pair(&pair), &pair)
        };
        if self.snapshot.ports.get(usize::from(port.0))?.role == Role::Site {
            let [source, target] = before.addresses()?;
            let slot = by_pair(source, target)?;
            let Some(tag) = tag_of(after).filter(|_| self.shard.entry(slot).is_forked()) else { return Some(slot) };
            // What left with a header has the peer's tag, and of the pair's contexts the one that has it was taken.
            let pair = self.shard.entry(slot).ulids;
            let forks = self.shard.forks_of(self.shard.hasher().pair(&pair), &pair);
            let all = forks.into_iter().flat_map(|forks| (1..=CLASSES_MAX as u8).filter_map(|class| forks.slot(class)));
            let taken = all.into_iter().find(|&fork| self.shard.entry(fork).peer_tag() == tag);
            return taken.or(Some(slot));
        }
        tag_of(before).and_then(|tag| self.shard.by_tag(tag)).or_else(|| {
            let [source, target] = after.addresses()?;
            by_pair(target, source)
        })
    }

    fn traced(&self, slot: Slot) -> Traced {
        let entry = self.shard.entry(slot);
        let way = self.shard.way(slot);
        Traced {
            local_tag: entry.local_tag,
            peer_tag: way.peer_tag,
            ulids: entry.ulids,
            locators: *way.locators,
            provider: way.provider,
            standby: way.is_standby,
            live: entry.phase == Phase::Live,
            forked: !entry.is_default(),
        }
    }
}

fn decision(verdict: &Verdict) -> Decision {
    match *verdict {
        Verdict::Forward(port) => Decision::Forward(port),
        Verdict::Unresolved(port, next_hop) => Decision::AwaitNeighbour(port, next_hop),
        Verdict::Hold(_) => Decision::Hold,
        Verdict::Punt(Punt::HostStack) => Decision::Control("for the box itself"),
        Verdict::Punt(Punt::System) => Decision::Control("for the operating system"),
        Verdict::Punt(Punt::Shim6) => Decision::Control("a Shim6 message"),
        Verdict::Punt(Punt::IcmpError) => Decision::Control("an ICMPv6 error about a translated packet"),
        Verdict::HandOver(worker) => Decision::HandOver(worker),
        Verdict::Fragment(octets_max) => Decision::Fragment(octets_max),
        Verdict::Reply(error) | Verdict::Refuse(error, _) => Decision::Answer(match error {
            IcmpError::PacketTooBig(_) => "Packet Too Big",
            IcmpError::TimeExceeded => "Time Exceeded",
            IcmpError::AddressUnreachable => "Destination Unreachable (address)",
            IcmpError::SourcePolicy => "Destination Unreachable (source address failed policy)",
            IcmpError::NoRoute => "Destination Unreachable (no route)",
            IcmpError::ParameterProblem(_) => "Parameter Problem",
        }),
        Verdict::UnknownTag(..) | Verdict::Drop(_) | Verdict::Lookup => Decision::Drop,
    }
}
