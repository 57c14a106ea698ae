//! The 1280-octet limit of control packets (RFC 5533 §5.1).
//!
//! What a host announces is cut to size once, when the host is set, so that every message of a generation carries the
//! same list and preferences keep their indices.

use dataplane::wire::ContextTag;
use dataplane::wire::shim6::{LocatorPreferences, Message, Options, VerificationMethod};
use dataplane::wire::{Ulid, UlidPair};

use super::context::LocalHost;

/// Octets that the IPv6 header takes.
pub(super) const IPV6_HEADER: usize = 40;
/// Largest control packet.
pub(super) const PACKET_MAX: usize = 1280;
/// Room kept for validators of peers; ours are shorter.
const VALIDATOR_ROOM: usize = 64;

/// Octets of the message on the wire, from its Next Header octet on (§1.6 and §1.7 of the formats).
pub(super) fn octets(message: &Message) -> usize {
    match message {
        Message::I1 { options, .. }
        | Message::R1 { options, .. }
        | Message::R2 { options, .. }
        | Message::R1bis { options, .. }
        | Message::UpdateRequest { options, .. }
        | Message::UpdateAck { options, .. }
        | Message::Keepalive { options, .. } => 16 + options_octets(options),
        Message::I2 { options, .. } => 24 + options_octets(options),
        Message::I2bis { options, .. } => 32 + options_octets(options),
        Message::Probe(probe) => 16 + 40 * (probe.sent.len() + probe.received.len()) + options_octets(&probe.options),
        Message::Error(error) => 8 + error.packet.len(),
    }
}

fn options_octets(options: &Options) -> usize {
    let Options { validator, locators, preferences, pds, signature, ulids, fork, keepalive_timeout } = options;
    let opaque = [validator, pds, signature];
    let opaque: usize = opaque.into_iter().flatten().map(|contents| option_octets(contents.len())).sum();
    let list = locators.as_ref().map_or(0, |list| {
        let count = list.entries.len();
        option_octets(4 + (1 + count).next_multiple_of(8) + 16 * count)
    });
    let preferences = preferences
        .as_ref()
        .map_or(0, |preferences| option_octets(5 + usize::from(preferences.element_len) * preferences.elements.len()));
    let ulids = ulids.map_or(0, |_| option_octets(36));
    let fork = fork.map_or(0, |_| option_octets(4));
    let timeout = keepalive_timeout.map_or(0, |_| option_octets(4));
    opaque + list + preferences + ulids + fork + timeout
}

/// Type, length, contents and padding.
fn option_octets(contents: usize) -> usize {
    (4 + contents).next_multiple_of(8)
}

/// The message, if it fits; preferences, which can be told later, are left out if that makes it fit.
pub(super) fn fit(mut message: Message) -> Option<Message> {
    let fits = |message: &Message| IPV6_HEADER + octets(message) <= PACKET_MAX;
    if fits(&message) {
        return Some(message);
    }
    if let Message::I2 { options, .. } | Message::I2bis { options, .. } | Message::R2 { options, .. } = &mut message {
        options.preferences = None;
    }
    fits(&message).then_some(message)
}

/// Leaves out locators from the end until the largest message about this host fits. Only HBA locators can go: CGA
/// locators are signed as they stand. False if that is not enough.
pub(super) fn trim(host: &mut LocalHost) -> bool {
    while IPV6_HEADER + octets(&largest(host)) > PACKET_MAX {
        let Some(index) = host.locators.iter().rposition(|(_, method)| *method == VerificationMethod::Hba) else {
            return false;
        };
        host.locators.remove(index);
        if let Some(preferences) = host.preferences.as_mut().filter(|preferences| index < preferences.len()) {
            preferences.remove(index);
        }
    }
    !host.locators.is_empty()
}

/// An I2bis with everything in it.
fn largest(host: &LocalHost) -> Message {
    let any = Ulid(std::net::Ipv6Addr::UNSPECIFIED);
    let preferences = LocatorPreferences {
        generation: host.generation,
        element_len: 3,
        elements: vec![Default::default(); host.locators.len()],
        offset: 0,
    };
    let options = Options {
        validator: Some(vec![0; VALIDATOR_ROOM]),
        locators: Some(host.list()),
        preferences: Some(preferences),
        pds: host.pds.clone(),
        signature: host.signature.clone(),
        ulids: Some(UlidPair { local: any, peer: any }),
        fork: Some(0),
        keepalive_timeout: Some(0),
    };
    let tag = ContextTag::MAX;
    Message::I2bis { initiator_tag: tag, initiator_nonce: 0, responder_nonce: 0, packet_tag: tag, options }
}

#[cfg(test)]
mod tests {
    use dataplane::wire::Locator;

    use super::*;

    fn host(count: u16, method: VerificationMethod) -> LocalHost {
        let locator = |i| Locator(std::net::Ipv6Addr::new(0x2001, 0xdb8, i, 0, 0, 0, 0, 1));
        LocalHost {
            ulid: Ulid(std::net::Ipv6Addr::LOCALHOST),
            locators: (0..count).map(|i| (locator(i), method)).collect(),
            pds: Some(vec![0; 400]),
            generation: 1,
            signature: Some(vec![0; 256]),
            preferences: Some(vec![Default::default(); count.into()]),
        }
    }

    #[test]
    fn option_lengths_are_those_of_the_table() {
        // R5533-097
        let table = [(0, 8), (4, 8), (5, 16), (12, 16), (20, 24), (32, 40), (36, 40)];
        for (contents, total) in table {
            assert_eq!(option_octets(contents), total);
        }
        for (count, total) in [(1, 32), (2, 48), (3, 64), (4, 80), (5, 96), (6, 112), (7, 128), (8, 152)] {
            let options = Options { locators: Some(host(count, VerificationMethod::Hba).list()), ..Default::default() };
            assert_eq!(options_octets(&options), total, "{count} locators");
        }
    }

    #[test]
    fn too_many_hba_locators_are_left_out_from_the_end() {
        // R5533-028, R5533-029
        let mut host = host(60, VerificationMethod::Hba);
        assert!(trim(&mut host));
        assert!((10..40).contains(&host.locators.len()));
        assert_eq!(host.preferences.as_ref().map(Vec::len), Some(host.locators.len()));
        assert!(IPV6_HEADER + octets(&largest(&host)) <= PACKET_MAX);
        assert_eq!(host.locators[0].0.0.segments()[2], 0);
    }

    #[test]
    fn too_many_signed_locators_are_refused() {
        assert!(!trim(&mut host(60, VerificationMethod::Cga)));
        assert!(trim(&mut host(8, VerificationMethod::Cga)));
    }
}
