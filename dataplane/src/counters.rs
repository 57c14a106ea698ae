//! Every count, declared once: its name, what it means, and whether it is a reason to drop.
//!
//! A worker is the only writer of its own [`Counters`]; anyone may read them at any time. A drop reason is one enum
//! with four lives: verdict, counter, metric name, and a line in `docs/counters.md` (a test compares them).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::histogram::Histogram;

macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal, $help:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $(#[doc = $help] $variant),* }

        impl $name {
            /// All of them, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// Name in snake case, as it appears in metrics and JSON.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }

            /// One sentence for the operator.
            pub const fn help(self) -> &'static str {
                match self { $($name::$variant => $help),* }
            }
        }
    };
}

counters! {
    /// Why a packet was dropped. There is no drop without one of these.
    DropReason {
        NotIpv6 = "drop_not_ipv6", "The frame carries something other than IPv6.";
        WrongMac = "drop_wrong_mac", "The frame was addressed to another station, or to many although its packet is for one.";
        MalformedIpv6 = "drop_malformed_ipv6", "The IPv6 header or its length does not fit the frame.";
        MalformedChain = "drop_malformed_chain", "The extension headers run past the packet or are too many, or the packet ends before the checksum that translation has to adjust.";
        BadAddress = "drop_bad_address", "A forwarded packet had a multicast, unspecified, loopback or link-local address where none may be.";
        HopLimit = "drop_hop_limit", "The hop limit ran out; Time Exceeded was sent if the rate allows.";
        TooBig = "drop_too_big", "The packet does not fit the next link; Packet Too Big was sent if the rate allows.";
        NoRoute = "drop_no_route", "The packet or its context names a port, provider or host that the worker does not know.";
        Unreachable = "drop_unreachable", "No context could be set up with the peer; Destination Unreachable was sent if the rate allows.";
        HoldFull = "drop_hold_full", "Too many packets or pairs are waiting for a context already.";
        HoldExpired = "drop_hold_expired", "The packet waited too long for a context; Destination Unreachable was sent if the rate allows.";
        NotOurLocator = "drop_not_our_locator", "A packet from a provider is for an address outside the delegated prefixes.";
        BadPayloadHeader = "drop_bad_payload_header", "A Shim6 header that is neither a payload header nor a control message (RFC 5533 5.2, 5.3).";
        UnknownTag = "drop_unknown_tag", "A payload header with a tag of no context; R1bis was sent if the rate allows.";
        UdpMalformed = "drop_udp_malformed", "A datagram with the ports of Shim6 in UDP and a length or checksum that is wrong, or no checksum.";
        UdpUnwelcome = "drop_udp_unwelcome", "Payload in UDP for a context that did not agree on that.";
        NotReady = "drop_not_ready", "A payload header for a context that still waits for R1 (RFC 5533 12.2, I1-SENT).";
        ForeignLocators = "drop_foreign_locators", "Strict mode: a payload packet came over locators that are not the context's.";
        NoTranslation = "drop_no_translation", "A plain packet from a provider to a locator that nobody translates: translation for peers without Shim6 is not enabled, or it is an ICMPv6 error about no packet of a context's.";
        NatUnmapped = "drop_nat_unmapped", "A packet for a global address from an inside address that is no host and in no mapped subnet; Destination Unreachable was sent if the rate allows.";
        NatNoProvider = "drop_nat_no_provider", "A packet for a global address whose sender has no address at any provider that is up, or, between hosts of the site, at the provider of its destination; Destination Unreachable was sent if the rate allows.";
        NatUnknownImage = "drop_nat_unknown_image", "A plain packet for an address of a delegated prefix that stands for nobody; Destination Unreachable was sent if the rate allows.";
        NatUntranslatable = "drop_nat_untranslatable", "A packet NATv6 must leave alone: with a Shim6 header, under way with a Routing header, link-local business, or an interface identifier of all zeros under a long prefix.";
        UniqueLocal = "drop_unique_local", "A plain packet from a provider whose source is a unique local address or another identifier, which nobody may send across a border (RFC 4193 4.3).";
        SpoofedSource = "drop_spoofed_source", "A packet has a source its side cannot have: from a provider one of this site, from the site one that no host was given.";
        NextHopUnresolved = "drop_next_hop_unresolved", "The link-layer address of the next hop is not known.";
        ControlRate = "drop_control_rate", "More packets for the control core than the rate allows.";
        QuestionRate = "drop_question_rate", "More questions of hosts to the box's name server than the rate allows, in all or of one host, or more answers of its servers than these can be worth.";
        SystemRate = "drop_system_rate", "More packets for the operating system, by the interface it shares a port by, than the rate allows.";
        RingFull = "drop_ring_full", "The packet, or the question it waits for an answer to, found the ring to the control core or to another worker full.";
        TransmitFull = "drop_transmit_full", "The device did not take the packet.";
        NoBuffer = "drop_no_buffer", "No packet buffer was free, or the packet has no room to grow.";
    }
}

counters! {
    /// What happened besides drops.
    Count {
        ReceivedSite = "received_site", "Packets received on site ports.";
        ReceivedProvider = "received_provider", "Packets received on provider ports.";
        TranslatedOut = "translated_out", "Packets rewritten from identifiers to locators.";
        TranslatedIn = "translated_in", "Packets rewritten from locators to identifiers.";
        LabelledOut = "labelled_out", "Of those rewritten to locators, packets sent with a flow label for a payload header.";
        LabelledIn = "labelled_in", "Of those rewritten from locators, packets that came with a flow label for a payload header.";
        UdpOut = "udp_out", "Of those rewritten to locators, packets sent in UDP because their path drops next header 140.";
        UdpIn = "udp_in", "Packets of contexts that came in UDP and were taken out of it.";
        StandbyOut = "standby_out", "Packets of a context whose provider or path is lost, sent over its standby.";
        ForkedOut = "forked_out", "Packets from the site given to a forked context, because a class of the configuration takes them.";
        ForksWished = "forks_wished", "Classes of pairs without a context of their own, told to the control core.";
        ForksFull = "forks_full", "Packets of pairs whose forked contexts found no place; they go by the default context.";
        PlainOut = "plain_out", "Packets of a context whose locators are its identifiers, sent unchanged.";
        NatOut = "nat_out", "Packets from the site sent with an address that peers know their sender by, also those that go through a context of that address.";
        NatIn = "nat_in", "Plain packets from providers given to whom their destination stands for; what comes through a context is not among them.";
        NatHairpin = "nat_hairpin", "Packets between hosts of the site by their outside addresses.";
        NatQuotes = "nat_quotes", "ICMPv6 errors among the translated packets, from and to the site and between its hosts, that quote a packet with its IPv6 header.";
        NatForgotten = "nat_forgotten", "Translated sessions forgotten for others, or not remembered, because their place was taken.";
        NatQualified = "nat_qualified", "Translated traffic told to the control core because it deserves a context.";
        ForwardedInside = "forwarded_inside", "Packets forwarded between hosts of the site.";
        Punted = "punted", "Packets given to the control core.";
        SystemPunted = "system_punted", "Of those given to the control core, packets for the operating system, by the interface it shares a port by.";
        Held = "held", "Packets kept until their context is ready.";
        Released = "released", "Held packets sent once their context was ready.";
        Replayed = "replayed", "TCP segments sent again because the path of their context was replaced.";
        Fragmented = "fragmented", "Packets of at most 1280 octets cut into fragments because their path has no room for the payload header.";
        HandedOver = "handed_over", "Packets passed to the worker that owns their context.";
        ContextsLent = "contexts_lent", "Copies of contexts given to workers that had handed over packets of them.";
        ContextsRecalled = "contexts_recalled", "Times such copies were called back: the context has changed, has gone, or is in doubt.";
        Guests = "guests", "Contexts of other workers that this one translates by itself now.";
        PacketTooBigSent = "packet_too_big_sent", "ICMPv6 Packet Too Big messages sent.";
        TimeExceededSent = "time_exceeded_sent", "ICMPv6 Time Exceeded messages sent.";
        UnreachableSent = "unreachable_sent", "ICMPv6 Destination Unreachable messages sent.";
        ParameterProblemSent = "parameter_problem_sent", "ICMPv6 Parameter Problem messages sent.";
        IcmpSuppressed = "icmp_suppressed", "ICMPv6 errors not sent because of RFC 4443 2.4(e) or the rate limit.";
        NoticesLost = "notices_lost", "What workers had to say to the control core about no packet, and found its ring full: tags without a context, wishes, contexts without a place, what hosts' TCP shows. No packet is lost by it, and what matters is said again.";
        UnknownPairs = "unknown_pairs", "Identifier pairs without a context that were told to the control core.";
        Traced = "traced", "Records of packets made for pshim6ctl trace.";
        TraceLost = "trace_lost", "Records of packets not made because there were more than the trace's rate allows, or its ring was full.";
        Transmitted = "transmitted", "Packets given to devices.";
        TableFull = "table_full", "Contexts that found no place in the table.";
        Contexts = "contexts", "Contexts in the table now.";
        CommandsApplied = "commands_applied", "Commands of the control core carried out.";
    }
}

/// What is counted for each provider besides (RCM-016).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NatCount {
    /// Its part of [`Count::NatOut`].
    Out,
    /// Its part of [`Count::NatIn`].
    In,
    /// Its part of [`Count::NatHairpin`].
    Hairpin,
    /// Its part of [`Count::NatQuotes`].
    Quotes,
}

/// Kinds of [`NatCount`].
const NAT_COUNTS: usize = 4;
/// Most providers.
const PROVIDERS: usize = 64;

const TOTAL: usize = DropReason::ALL.len() + Count::ALL.len();

/// One worker's counts. Written by that worker alone.
#[derive(Debug)]
pub struct Counters {
    values: [AtomicU64; TOTAL],
    translated: [[AtomicU64; NAT_COUNTS]; PROVIDERS],
    turns: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            values: [const { AtomicU64::new(0) }; TOTAL],
            translated: [const { [const { AtomicU64::new(0) }; NAT_COUNTS] }; PROVIDERS],
            turns: Histogram::default(),
        }
    }
}

impl Counters {
    /// Adds to a count. One writer, so a load and a store are enough and no bus is locked.
    #[inline]
    pub fn add(&self, count: Count, amount: u64) {
        self.bump(DropReason::ALL.len() + count as usize, amount);
    }

    /// Adds to a count of the provider in a place of the snapshot.
    #[inline]
    pub fn add_translated(&self, provider: u8, count: NatCount, amount: u64) {
        if let Some(value) = self.translated.get(usize::from(provider)).and_then(|counts| counts.get(count as usize)) {
            value.store(value.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        }
    }

    /// Times of the turns in which there was something to do. Whoever runs the worker fills it in, since only he has a clock.
    pub fn turns(&self) -> &Histogram {
        &self.turns
    }

    /// The present value of a provider's count; zero where there can be no provider.
    pub fn translated(&self, provider: usize, count: NatCount) -> u64 {
        let value = self.translated.get(provider).and_then(|counts| counts.get(count as usize));
        value.map_or(0, |value| value.load(Ordering::Relaxed))
    }

    /// Counts one dropped packet.
    #[inline]
    pub fn count_drop(&self, reason: DropReason) {
        self.bump(reason as usize, 1);
    }

    #[inline]
    fn bump(&self, place: usize, amount: u64) {
        if let Some(value) = self.values.get(place) {
            value.store(value.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        }
    }

    /// Sets what is not counted but measured.
    #[inline]
    pub fn set(&self, count: Count, value: u64) {
        if let Some(place) = self.values.get(DropReason::ALL.len() + count as usize) {
            place.store(value, Ordering::Relaxed);
        }
    }

    /// All names and what they mean, in the order of declaration.
    pub fn descriptions() -> impl Iterator<Item = (&'static str, &'static str)> {
        let drops = DropReason::ALL.iter().map(|reason| (reason.name(), reason.help()));
        drops.chain(Count::ALL.iter().map(|count| (count.name(), count.help())))
    }

    /// The present value of a count.
    pub fn count(&self, count: Count) -> u64 {
        self.values[DropReason::ALL.len() + count as usize].load(Ordering::Relaxed)
    }

    /// Packets dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.values[reason as usize].load(Ordering::Relaxed)
    }

    /// All names and values, in the order of declaration.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let drops = DropReason::ALL.iter().map(|&reason| (reason.name(), self.dropped(reason)));
        drops.chain(Count::ALL.iter().map(|&count| (count.name(), self.count(count))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_used_once() {
        let mut names: Vec<_> = Counters::default().iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }

    #[test]
    fn every_counter_has_its_line_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/counters.md");
        let text = std::fs::read_to_string(path).expect("docs/counters.md");
        for (name, help) in Counters::descriptions() {
            assert!(text.contains(&format!("| `{name}` | {help} |")), "docs/counters.md lacks `{name}`");
        }
    }

    #[test]
    fn counts_and_drops_do_not_share_a_place() {
        let counters = Counters::default();
        counters.count_drop(DropReason::NotIpv6);
        counters.add(Count::ReceivedSite, 5);
        assert_eq!((counters.dropped(DropReason::NotIpv6), counters.count(Count::ReceivedSite)), (1, 5));
        assert_eq!(counters.iter().map(|(_, value)| value).sum::<u64>(), 6);
    }
}
