//! The 1280-octet limit of control packets (RFC 5533 §5.1).
//!
//! What a host announces is cut to size once, when the host is set, so that every message of a generation carries the
//! same list and preferences keep their indices. Eight octets are left for UDP, in which a message may have to go.

use dataplane::wire::ContextTag;
use dataplane::wire::ipv6::{HEADER_LEN, MIN_MTU};
use dataplane::wire::shim6::udp;
use dataplane::wire::shim6::{
    LabelOption, LabelPurpose, LivenessOption, LocatorPreferences, Message, Options, UdpOption, VerificationMethod,
};
use dataplane::wire::{Ulid, UlidPair};

use super::context::LocalHost;

/// Room kept for validators of peers; ours are shorter.
const VALIDATOR_ROOM: usize = 64;

/// The message, if it fits; preferences, which can be told later, are left out if that makes it fit.
pub(super) fn fit(mut message: Message) -> Option<Message> {
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
    while !fits(&largest(host)) {
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

fn fits(message: &Message) -> bool {
    HEADER_LEN + udp::LEN + message.buffer_len() <= MIN_MTU
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
        udp: Some(UdpOption::OFFER),
        liveness: Some(LivenessOption::OFFER),
        flow_label: Some(LabelOption { purpose: LabelPurpose::Offer, arrived: false, label: 0, nonce: 0 }),
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
    fn too_many_hba_locators_are_left_out_from_the_end() {
        // R5533-028, R5533-029
        let mut host = host(60, VerificationMethod::Hba);
        assert!(trim(&mut host));
        assert!((10..40).contains(&host.locators.len()));
        assert_eq!(host.preferences.as_ref().map(Vec::len), Some(host.locators.len()));
        assert!(fits(&largest(&host)));
        assert_eq!(host.locators[0].0.0.segments()[2], 0);
    }

    #[test]
    fn too_many_signed_locators_are_refused() {
        assert!(!trim(&mut host(60, VerificationMethod::Cga)));
        assert!(trim(&mut host(8, VerificationMethod::Cga)));
    }
}
