//! What to do about packets and messages that were dropped: the handbook's words, in one table.
//!
//! `pshim6ctl counters --explain` prints it, and docs/counters.md has the same words, which a test compares.

/// What to do when a counter grows; nothing for what counts no loss.
pub fn advice(name: &str) -> Option<&'static str> {
    ADVICE.iter().find(|(known, _)| *known == name).map(|(_, advice)| *advice)
}

/// Every reason for which a packet or message goes no further, and what to do about it.
pub const ADVICE: &[(&str, &str)] = &[
    ("drop_not_ipv6", "Nothing, if few: hosts speak IPv4 and LLDP too. Many: something else shares the link."),
    (
        "drop_wrong_mac",
        "Nothing, if few: a switch that does not know a station floods. Many: a mirror port, or a wrong port.mac.",
    ),
    (
        "drop_malformed_ipv6",
        "Look at the sender (pshim6ctl trace --drop malformed_ipv6); a network card with wrong offloads does this.",
    ),
    ("drop_malformed_chain", "Look at the sender (pshim6ctl trace --drop malformed_chain); somebody may be probing."),
    ("drop_bad_address", "Look at the sender; a host without an address, or a forged packet."),
    (
        "drop_hop_limit",
        "Nothing, if few: traceroute. Many: a routing loop between the box and a router; check routes to site and locators.",
    ),
    ("drop_too_big", "Nothing: the sender was told. If it goes on, ICMPv6 is filtered on the way to the sender."),
    ("drop_no_route", "Right after a reload: nothing. Else report it with pshim6ctl contexts of the host."),
    (
        "drop_unreachable",
        "See pshim6ctl contexts --state e-failed: the peer does not answer; check its records and whether its box runs.",
    ),
    (
        "drop_hold_full",
        "Raise box.hold.pairs or box.hold.packets if handshakes are merely slow; else see who opens so many (trace --drop hold_full).",
    ),
    ("drop_hold_expired", "The peer was slow or silent: pshim6ctl paths, and contexts --state i1-sent."),
    (
        "drop_not_our_locator",
        "The provider routes to the box what it did not delegate: compare provider.prefix with the delegation.",
    ),
    ("drop_bad_payload_header", "Look at the sender; no Shim6 of today sends this."),
    (
        "drop_unknown_tag",
        "Nothing, if few: after a restart peers are reminded and come back. Many from few sources: tags are being guessed.",
    ),
    (
        "drop_udp_malformed",
        "Nothing, if few. Many: something else uses the port (shim6.udp_port), or a path damages packets.",
    ),
    (
        "drop_udp_unwelcome",
        "Nothing, if few: the peer's box was configured anew, and will ask again. Many: somebody who sees tags plays with them.",
    ),
    ("drop_not_ready", "Nothing, if few: the peer was ready before its last message arrived."),
    (
        "drop_foreign_locators",
        "Somebody sends by tags he saw, or the peer moved and its update is under way: compare with pshim6ctl contexts.",
    ),
    ("drop_no_translation", "Peers without Shim6 reach hosts only with natv6.enabled; otherwise nothing."),
    ("drop_nat_unmapped", "Give the sender an address by DHCPv6 or the hosts file, or add its subnet to natv6.mapped."),
    (
        "drop_nat_no_provider",
        "See pshim6ctl status: no provider is up at which the sender has an address; pshim6ctl host update fits hosts to providers.",
    ),
    ("drop_nat_unknown_image", "Nothing: scanners. If it is an address you published, the host it stood for is gone."),
    ("drop_nat_untranslatable", "Nothing: such packets are not for others' networks."),
    ("drop_unique_local", "Tell the provider: it lets unique local sources across its border."),
    (
        "drop_spoofed_source",
        "From the site: a host with an address nobody gave it (trace --drop spoofed_source shows which). From a provider: its filters let your own addresses in.",
    ),
    (
        "drop_next_hop_unresolved",
        "The router or host does not answer neighbour discovery: check link, VLAN and provider.next_hop.",
    ),
    (
        "drop_control_rate",
        "Somebody floods the box with control messages, or very many peers start at once; the rest of the traffic does not suffer.",
    ),
    (
        "drop_question_rate",
        "A host asks too many DNS questions: trace --drop question_rate shows which. Raise dns.questions_per_host_s if it may.",
    ),
    (
        "drop_system_rate",
        "Somebody floods an address of the system's, or a routing protocol says very much: trace --drop system_rate shows which. Raise routes.packets_per_s if it may.",
    ),
    (
        "drop_ring_full",
        "The control core or a worker does not keep up: more box.workers, or box.cores of their own; see pshim6_ring_used.",
    ),
    (
        "drop_transmit_full",
        "The device is slower than what is sent to it: a link of another speed, or flow control by its neighbour.",
    ),
    ("drop_no_buffer", "More eal.memory_mb; if it grows without traffic, report it."),
    ("shim6_drop_bad_address", "Look at the sender; nobody should send this."),
    ("shim6_drop_malformed", "Look at the sender; another implementation, or somebody probing."),
    (
        "shim6_drop_own_ulid",
        "Somebody outside tries to speak as if from inside. Nothing came of it; look at the sender.",
    ),
    ("shim6_drop_unknown_host", "Nothing, if the host is gone. Else the peer's record of the host is old."),
    (
        "shim6_drop_foreign_target",
        "The peer uses an address the host no longer has: its record is old, or it has not taken the update.",
    ),
    (
        "shim6_drop_foreign_source",
        "The peer sends from an address it did not name: a box between that rewrites sources, or a forgery.",
    ),
    ("shim6_drop_no_validator", "Look at the sender; nobody should send this."),
    ("shim6_drop_stale_nonce", "Nothing, if few: the answer was on its way for too long. Many: replayed messages."),
    ("shim6_drop_bad_validator", "Nothing: forgeries cost the box one hash each."),
    (
        "shim6_drop_bad_pds",
        "The peer's key material does not fit its address: its hosts file and its DNS records differ.",
    ),
    ("shim6_drop_empty_list", "Look at the sender; nobody should send this."),
    ("shim6_drop_too_many_waiting", "Raise box.proof_threads if many peers with signed lists come at once."),
    ("shim6_drop_proof_failed", "A fault of the box: report what the log says of it."),
    ("shim6_drop_no_context", "Nothing, if few: the context ended while the message was on its way."),
    ("shim6_drop_wrong_state", "Nothing, if few: messages overtook each other."),
    ("shim6_drop_wrong_nonce", "Nothing, if few: an answer to a message that was sent again."),
    ("shim6_drop_rate_limited", "Nothing: it keeps the box from being used to flood others."),
    ("shim6_drop_told_already", "Nothing: after a restart peers go on sending for a round trip."),
    ("shim6_drop_too_many_forks", "Raise shim6.forks_max if the peer may have more."),
    (
        "shim6_drop_too_many_from_prefix",
        "Many contexts from one /64: a large site behind one prefix, or a flood; shim6.accepted_per_prefix_percent.",
    ),
    ("shim6_drop_common_tag", "Nothing: a peer whose tags are not random."),
    ("shim6_drop_reserved", "The box is nearly full with contexts that peers asked for: raise box.contexts_max."),
    ("shim6_drop_full", "Raise box.contexts_max, and give the machine memory for it."),
    ("shim6_drop_oversized", "The host has more locators than one message holds: fewer providers."),
    ("packet_drop_ipv6", "Look at the sender; nobody should send this."),
    ("packet_drop_chain", "Look at the sender; nobody should send this."),
    ("packet_drop_not_shim6", "Look at the sender; nobody should send this."),
    ("packet_drop_address", "Look at the sender; nobody should send this."),
    ("message_truncated", "Look at the sender; nobody should send this."),
    (
        "message_bad_discriminator",
        "Host Identity Protocol uses the same number and this bit: a peer speaks HIP, not Shim6.",
    ),
    ("message_checksum", "Something on the way changes packets, or a network card computes checksums it should not."),
    ("message_too_short", "Look at the sender; nobody should send this."),
    ("message_bad_probe", "Look at the sender; nobody should send this."),
    ("message_unknown_type", "The peer speaks a later Shim6."),
    ("message_critical_option", "The peer wants something this box does not know, and was told so."),
    ("message_malformed_option", "Look at the sender; nobody should send this."),
    ("message_duplicate_option", "Look at the sender; nobody should send this."),
    ("message_missing_validator", "Look at the sender; nobody should send this."),
    ("probe_drop_no_sent_report", "Another implementation's probes; RFC 5534 wants them to report themselves."),
    ("probe_drop_too_many_reports", "Look at the sender; nobody should send this."),
    ("probe_drop_address_mismatch", "Something on the way changes addresses: no NAT may stand between locators."),
    ("open_refused_already_open", "Nothing: the packet came while the context was being made."),
    (
        "open_refused_hold_down",
        "Nothing: the peer failed lately; pshim6ctl contexts --state e-failed says for how long it is left alone.",
    ),
    ("open_refused_unknown_host", "A machine of the site sends with an identifier nobody gave it."),
    (
        "open_refused_no_locators",
        "Nobody knows where the peer is: neither [[peer]] nor DNS names locators of it; pshim6ctl explain tells more.",
    ),
    ("open_refused_full", "Raise box.contexts_max, and give the machine memory for it."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dataplane::counters::DropReason;

    use super::*;
    use crate::engine::Tally;

    #[test]
    fn every_reason_has_advice_and_all_advice_has_its_reason() {
        let tally = Tally::default();
        let kinds = ["shim6_drop_", "packet_drop_", "message_", "probe_drop_", "open_refused_"];
        let of_control =
            tally.iter().map(|(name, ..)| name).filter(|name| kinds.iter().any(|kind| name.starts_with(kind)));
        let reasons: BTreeSet<&str> = DropReason::ALL.iter().map(|it| it.name()).chain(of_control).collect();
        let advised: BTreeSet<&str> = ADVICE.iter().map(|(name, _)| *name).collect();
        assert_eq!((advised.len(), &advised), (ADVICE.len(), &reasons));
    }

    /// `PSHIM6_REGENERATE=1` writes the column anew.
    #[test]
    fn all_advice_stands_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/counters.md");
        let mut text = std::fs::read_to_string(path).expect("docs/counters.md");
        if std::env::var_os("PSHIM6_REGENERATE").is_some() {
            let line = |line: &str| match line.split('|').collect::<Vec<_>>()[..] {
                ["", name, meaning, ..] => match advice(name.trim().trim_matches('`')) {
                    Some(advice) => format!("|{name}|{meaning}| {advice} |"),
                    None => line.to_owned(),
                },
                _ => line.to_owned(),
            };
            text = text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n";
            std::fs::write(path, &text).unwrap();
        }
        for (name, advice) in ADVICE {
            let told = text
                .lines()
                .any(|line| line.starts_with(&format!("| `{name}` |")) && line.ends_with(&format!("| {advice} |")));
            assert!(told, "docs/counters.md has other advice on {name}");
        }
    }
}
