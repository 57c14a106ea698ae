//! Short digests of what an engine answers and wants done, by which a replay is held against what was recorded.
//!
//! A digest says in its upper four bits what kind of effect it is of, so that a difference can be named without the effect
//! itself; the rest is a hash of everything in it.

use std::fmt::{Debug, Write};

use dataplane::snapshot::Snapshot;

use crate::engine::Effect;

/// Kinds of effects, by the number in their digests.
pub const KINDS: [&str; 12] = [
    "answer",
    "lose",
    "install",
    "remove",
    "replay",
    "refuse",
    "transmit",
    "transmit-by",
    "plain",
    "publish",
    "story",
    "system",
];

/// That of the first of [`KINDS`]; the others follow in their order.
const ANSWER: u32 = 0;

/// What kind of effect a digest is of.
pub fn kind(digest: u32) -> &'static str {
    KINDS.get((digest >> 28) as usize).copied().unwrap_or("unknown")
}

/// What kind of effect one is.
pub fn kind_of(effect: &Effect) -> &'static str {
    kind(number(effect) << 28)
}

/// The place of an effect's kind in [`KINDS`].
const fn number(effect: &Effect) -> u32 {
    match effect {
        Effect::Lose(..) => 1,
        Effect::Install(..) => 2,
        Effect::Remove(..) => 3,
        Effect::Replay(..) => 4,
        Effect::Refuse(..) => 5,
        Effect::Transmit(..) => 6,
        Effect::TransmitBy(..) => 7,
        Effect::Plain(..) => 8,
        Effect::Publish(_) => 9,
        Effect::Story(_) => 10,
        Effect::System(..) => 11,
    }
}

/// FNV-1a: the same everywhere and in every version of the program.
pub(super) struct Hash(u64);

impl Hash {
    pub(super) const fn new() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn octets(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn number(&mut self, number: u64) {
        self.octets(&number.to_le_bytes());
    }

    /// What something looks like to those who make the program: all of its fields.
    fn looks(&mut self, value: &dyn Debug) {
        // It only fails if we do.
        let _ = write!(self, "{value:?}");
    }

    pub(super) const fn value(&self) -> u64 {
        self.0
    }

    fn digest(&self, kind: u32) -> u32 {
        // The upper half of the product is the better mixed one.
        kind << 28 | ((self.0 ^ self.0 >> 32) as u32 & 0x0fff_ffff)
    }
}

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.octets(text.as_bytes());
        Ok(())
    }
}

/// Of what was answered.
pub(super) fn of_answer(answer: &dyn Debug) -> u32 {
    let mut hash = Hash::new();
    hash.looks(answer);
    hash.digest(ANSWER)
}

/// Of an effect.
pub fn of_effect(effect: &Effect) -> u32 {
    let mut hash = Hash::new();
    match effect {
        Effect::Lose(loss, lost) => hash.looks(&(loss, lost)),
        Effect::Install(worker, install) => hash.looks(&(worker, install)),
        Effect::Remove(worker, tag) | Effect::Replay(worker, tag) => hash.looks(&(worker, tag)),
        Effect::Refuse(worker, pair) => hash.looks(&(worker, pair)),
        Effect::Transmit(port, frame) | Effect::Plain(port, frame) | Effect::System(port, frame) => {
            hash.number(port.0.into());
            hash.octets(frame);
        }
        Effect::TransmitBy(worker, port, frame) => {
            hash.looks(&(worker, port));
            hash.octets(frame);
        }
        Effect::Publish(snapshot) => of_snapshot(&mut hash, snapshot),
        Effect::Story(story) => hash.looks(story),
    }
    hash.digest(number(effect))
}

/// Maps that are found by address say nothing that lists do not, and their order is nobody's.
fn of_snapshot(hash: &mut Hash, snapshot: &Snapshot) {
    let Snapshot {
        ports,
        providers,
        hosts,
        host_index,
        site,
        mss_clamp,
        arrivals,
        classes,
        name_servers,
        udp_port,
        nat,
    } = snapshot;
    hash.looks(&(ports, providers, site, mss_clamp, arrivals, classes, name_servers, udp_port));
    hash.number(host_index.len() as u64);
    // There may be many thousands, so not by their looks.
    for host in hosts {
        hash.octets(&host.ulid.0.octets());
        hash.number(host.port.0.into());
        hash.octets(&host.mac.map_or([0; 7], |mac| {
            let [a, b, c, d, e, f] = mac.0;
            [1, a, b, c, d, e, f]
        }));
    }
    if let Some(nat) = nat {
        hash.looks(&(&nat.order, nat.thresholds, nat.idle_ms, &nat.peers, &nat.identifiers));
        hash.looks(&(&nat.mapped.subnets, &nat.mapped.pairs, nat.mapped.port));
        let mut neighbours: Vec<_> = nat.mapped.neighbours.iter().collect();
        neighbours.sort_unstable();
        hash.looks(&neighbours);
        for at in 0..hosts.len() as u32 {
            for provider in 0..providers.len() as u8 {
                hash.looks(&nat.outside(at, provider));
            }
        }
    }
}
