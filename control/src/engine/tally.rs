//! What the control core counts: every way a message can end, by name.

use std::mem::{Discriminant, discriminant};

use dataplane::wire::shim6::{PacketError, ParseError};
use hashbrown::HashMap;

use crate::dhcp;
use crate::reap::ProbeRefused;
use crate::shim6::{Answer, DropReason, OpenRefused, Verdict};

/// Counts of the control core, besides those of the workers.
///
/// Names are made of the variants' own, which takes a while; so the place of each is looked up, and its name made only when it
/// is counted for the first time. There are no more places than names, whatever strangers send.
#[derive(Clone, Debug)]
pub struct Tally {
    counts: [u64; MEANINGS.len()],
    places: HashMap<What, usize>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { counts: [0; MEANINGS.len()], places: HashMap::new() }
    }
}

/// What is counted, without what its variants carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Event(Event),
    Accepted,
    Waiting,
    Dropped(DropReason),
    AnsweredError(u8),
    Answered(Discriminant<Answer>),
    Packet(Discriminant<PacketError>),
    Named(&'static str),
    Message(Discriminant<ParseError>),
    Open(Discriminant<OpenRefused>),
    Probe(Discriminant<ProbeRefused>),
}

/// Something worth counting that is no verdict of another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it, and docs/counters.md says it again")]
pub enum Event {
    Opened,
    Qualified,
    ContextReady,
    ContextRecovered,
    Inherited,
    InheritedNot,
    Mirrored,
    TakenOn,
    HandedOver,
    ContextGone,
    ContextDisplaced,
    OpenFailed,
    ForkRefused,
    TableFull,
    MessagesSent,
    MessageNotSent,
    ProbesSent,
    KeepalivesSent,
    Explorations,
    PairChanges,
    PairChangeRefused,
    PathsDead,
    ProbeUnmatched,
    ProbeAnswerCapped,
    IcmpTranslated,
    IcmpActedOn,
    IcmpNotOurs,
    IcmpNoSupport,
    IcmpSuppressed,
    TcpStalled,
    TcpProgress,
    HintsTested,
    HintsPaced,
    RetriedEarly,
    ListenerReports,
    DatagramMalformed,
    DatagramNotSent,
    NeighbourRefused,
    NeighbourOvertaken,
    NeighbourUnanswered,
    NeighbourErrorsSent,
    NeighbourForgotten,
    NeighbourQuarantined,
    HostRemoved,
    UpdatesTold,
    ErrorsReceived,
    LabelTests,
    LabelBegun,
    LabelEnded,
    UdpTests,
    UdpBegun,
    UdpEnded,
    UdpPathsFull,
    UdpMalformed,
    UdpUnwelcome,
    MessagesInUdp,
    LeaseNotWritten,
    LeaseNotServed,
    StoreFailed,
    StoreBack,
    StoreAlone,
    StoreTogether,
    StoreHeard,
    StoreConflicts,
    StoreUnreadable,
    StoreNameTaken,
    RouterAdvertisements,
    NamesOpened,
    NamesPaced,
    AnswersWaited,
    AnswersEarly,
    PeerForgotten,
    StandbyTests,
    StandbyTested,
    StandbyUnanswered,
    PathUnnumbered,
    PolicyLoaded,
    PolicyMovesOut,
    PolicyMovesIn,
    PolicyMoveRefused,
    StepsWished,
    StepsTaken,
    StepsUnanswered,
    PreferencesHeeded,
    LivenessBegun,
    LivenessEnded,
    LivenessNoRoom,
    LivenessRefused,
    LivenessSent,
    LivenessUnsent,
    LivenessUp,
    LivenessSilent,
    LivenessTold,
    LivenessStalled,
    LivenessLate,
    LivenessUnexcused,
    LivenessBack,
    DelegationAsked,
    DelegationHeard,
    DelegationUnheard,
    RouterHeard,
    SystemSent,
    SystemForeign,
    SystemIdentifier,
    SystemUnreadable,
    SystemFull,
    RoutesLost,
    RoutesBack,
    RoutesUpheld,
    RoutesOverruled,
    RoutesDistrusted,
    RouteWitnesses,
    RoutesUnasked,
}

impl Tally {
    /// Counts one event.
    pub fn count(&mut self, event: Event) {
        self.add(What::Event(event), || format!("control_{}", snake(&format!("{event:?}"))));
    }

    /// Counts what became of a Shim6 message.
    pub fn shim6(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Waiting => self.add(What::Waiting, || "shim6_waiting".to_owned()),
            Verdict::Accepted => self.add(What::Accepted, || "shim6_accepted".to_owned()),
            Verdict::Dropped(reason) => self.add(What::Dropped(reason), || shim6_drop(reason)),
            Verdict::Answered(Answer::Error(code)) => {
                let code = code.code();
                self.add(What::AnsweredError(code), || format!("shim6_answered_error_{code}"));
            }
            Verdict::Answered(answer) => {
                let name = || format!("shim6_answered_{}", snake(&format!("{answer:?}")));
                self.add(What::Answered(discriminant(&answer)), name);
            }
        }
    }

    /// Counts a packet for Shim6 that is no control message at all.
    pub fn unreadable(&mut self, error: PacketError) {
        self.add(What::Packet(discriminant(&error)), || format!("packet_drop_{}", snake(&format!("{error:?}"))));
    }

    /// Counts how a control message cannot be read; what follows is counted apart.
    pub fn unreadable_message(&mut self, error: ParseError) {
        self.add(What::Message(discriminant(&error)), || format!("message_{}", snake(&format!("{error:?}"))));
    }

    /// Counts a context that was not opened.
    pub fn refused(&mut self, refused: &OpenRefused) {
        let name = match refused {
            OpenRefused::AlreadyOpen(_) => "already_open",
            OpenRefused::HoldDown { .. } => "hold_down",
            OpenRefused::UnknownHost => "unknown_host",
            OpenRefused::NoLocators => "no_locators",
            OpenRefused::Full => "full",
        };
        self.add(What::Open(discriminant(refused)), || format!("open_refused_{name}"));
    }

    /// Counts a probe without effect.
    pub fn probe_refused(&mut self, refused: ProbeRefused) {
        self.add(What::Probe(discriminant(&refused)), || format!("probe_drop_{}", snake(&format!("{refused:?}"))));
    }

    /// Counts what became of a DHCPv6 message.
    pub fn dhcp(&mut self, verdict: dhcp::Verdict) {
        let name = match verdict {
            dhcp::Verdict::Answered(kind) | dhcp::Verdict::Writing(kind) => match kind {
                dhcp::message::Kind::Solicit => "dhcp_solicit",
                dhcp::message::Kind::Request => "dhcp_request",
                dhcp::message::Kind::Confirm => "dhcp_confirm",
                dhcp::message::Kind::Renew => "dhcp_renew",
                dhcp::message::Kind::Rebind => "dhcp_rebind",
                dhcp::message::Kind::Release => "dhcp_release",
                dhcp::message::Kind::Decline => "dhcp_decline",
                dhcp::message::Kind::InformationRequest => "dhcp_information_request",
            },
            dhcp::Verdict::UseMulticast => "dhcp_use_multicast",
            dhcp::Verdict::Malformed(_) => "dhcp_drop_malformed",
            dhcp::Verdict::BadRelay => "dhcp_drop_bad_relay",
            dhcp::Verdict::Stranger => "dhcp_drop_stranger",
            dhcp::Verdict::OtherServer => "dhcp_drop_other_server",
            dhcp::Verdict::Nothing => "dhcp_drop_nothing_to_say",
            dhcp::Verdict::NoIdentity => "dhcp_drop_no_identity",
            dhcp::Verdict::Alone => "dhcp_drop_alone",
            dhcp::Verdict::Busy => "dhcp_drop_busy",
        };
        self.add(What::Named(name), || name.to_owned());
    }

    /// Counts what the DHCPv6 server tells the operator, as far as no message's verdict says it.
    pub fn lease(&mut self, told: &dhcp::Told) {
        let name = match told {
            dhcp::Told::Bound(..) => "dhcp_leases_given",
            dhcp::Told::Expired(..) => "dhcp_leases_expired",
            dhcp::Told::Declined(..) => "dhcp_leases_declined",
            dhcp::Told::Refused(_, _, dhcp::Refusal::Full) => "dhcp_refused_full",
            dhcp::Told::Refused(_, _, dhcp::Refusal::Client) => "dhcp_refused_client",
            dhcp::Told::Refused(_, _, dhcp::Refusal::Source) => "dhcp_refused_source",
            dhcp::Told::Released(..) | dhcp::Told::Malformed(..) | dhcp::Told::Relay(..) | dhcp::Told::Stranger(..) => {
                return;
            }
        };
        self.add(What::Named(name), || name.to_owned());
    }

    fn add(&mut self, what: What, name: impl FnOnce() -> String) {
        let place = *self.places.entry(what).or_insert_with(|| {
            let name = name();
            let place = MEANINGS.iter().position(|(known, _)| *known == name);
            debug_assert!(place.is_some(), "{name} has no meaning");
            place.unwrap_or(usize::MAX)
        });
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
    }

    /// Counts something that happened several times.
    pub fn count_many(&mut self, event: Event, times: u64) {
        if let Some(more) = times.checked_sub(1) {
            self.count(event);
            if let Some(count) = self.places.get(&What::Event(event)).and_then(|place| self.counts.get_mut(*place)) {
                *count += more;
            }
        }
    }

    /// Every name, what it means, and its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        MEANINGS.iter().zip(&self.counts).map(|((name, help), count)| (*name, *help, *count))
    }

    /// One count, zero if nothing of the name happened.
    pub fn value(&self, name: &str) -> u64 {
        self.iter().find(|(known, ..)| *known == name).map(|(.., count)| count).unwrap_or_default()
    }
}

/// Every count of the control core and what it means; `docs/counters.md` says the same.
const MEANINGS: &[(&str, &str)] = &[
    ("control_opened", "Contexts we began to set up."),
    ("control_qualified", "Translated sessions that reached a threshold and are worth a context."),
    ("control_context_ready", "Contexts that became ready, or whose peer brought them up to date."),
    ("control_context_recovered", "Contexts that came back by R1bis and I2bis."),
    ("control_inherited", "Contexts taken over from the process that ran before."),
    (
        "control_inherited_not",
        "Contexts and hosts of the process that ran before that did not fit here; contexts come back by R1bis.",
    ),
    ("control_mirrored", "Contexts that another box of the site told of and runs."),
    ("control_taken_on", "Contexts that another box of the site ran and this one runs now."),
    ("control_handed_over", "Control messages handed over to another box of the site, whose context they are about."),
    ("control_context_gone", "Contexts forgotten."),
    ("control_context_displaced", "Contexts a peer asked for and nobody used, forgotten early for want of room."),
    ("control_open_failed", "Exchanges that came to nothing."),
    ("control_fork_refused", "Forked contexts for classes that came to nothing; their packets go by the default one."),
    ("control_table_full", "Contexts given up because a worker had no room."),
    ("control_messages_sent", "Shim6 and REAP messages sent."),
    ("control_message_not_sent", "Shim6 messages that had no provider or did not fit in 1280 octets."),
    ("control_probes_sent", "REAP Probes sent."),
    ("control_keepalives_sent", "REAP Keepalives sent."),
    ("control_explorations", "Times a context began to look for another pair."),
    ("control_pair_changes", "Times a context moved to another pair."),
    ("control_pair_change_refused", "Pairs REAP chose and the context may not use."),
    ("control_paths_dead", "Paths that became dead for all contexts."),
    ("control_probe_unmatched", "Probes that reported nonces we did not send."),
    ("control_probe_answer_capped", "Answers to probes not sent because of the rate."),
    ("control_icmp_translated", "ICMPv6 errors passed on to hosts."),
    ("control_icmp_acted_on", "ICMPv6 errors that made a context test its path, or came while it looked for one."),
    ("control_icmp_not_ours", "ICMPv6 errors about no packet of ours, or broken ones."),
    ("control_icmp_no_support", "ICMPv6 errors that say a peer does not speak Shim6."),
    ("control_icmp_suppressed", "ICMPv6 errors of the box not sent because of RFC 4443 2.4(e) or the rate limit."),
    ("control_tcp_stalled", "Times a worker saw a host's TCP repeat itself while nothing came back."),
    (
        "control_tcp_progress",
        "Acknowledgements by which a host's TCP showed that a path works: all that end a stall, of others a sample.",
    ),
    ("control_hints_tested", "Hints that made a context test its path."),
    (
        "control_hints_paced",
        "Hints without effect, since the context tests its path already, did so within a Send Timeout, or too many do.",
    ),
    ("control_retried_early", "I1s and probes sent before their time because a peer or a provider is there again."),
    ("control_listener_reports", "Multicast listener reports sent."),
    ("control_system_sent", "Packets of the operating system's sent, on ports it shares."),
    (
        "control_system_foreign",
        "Packets of the operating system's not sent because they spoke for others: their source was none of its addresses.",
    ),
    (
        "control_system_identifier",
        "Packets of the operating system's not sent because an identifier would have gone to a provider.",
    ),
    ("control_system_unreadable", "Frames of the operating system's not sent because they were no IPv6, or broken."),
    (
        "control_system_full",
        "Packets for or from the operating system lost because its interface or the queue from it had no room.",
    ),
    ("control_datagram_malformed", "UDP datagrams for the box with a wrong checksum, length or sender."),
    ("control_datagram_not_sent", "Datagrams of the box's own that were too long to be sent."),
    ("control_neighbour_refused", "Packets not sent because the box has to find too many strangers on the link."),
    ("control_neighbour_overtaken", "Packets given up because more came while their next hop was looked for."),
    ("control_neighbour_unanswered", "Packets given up because their next hop did not answer neighbour discovery."),
    (
        "control_neighbour_errors_sent",
        "Packets given up whose sender was told, or whose context looks for another way.",
    ),
    ("control_neighbour_forgotten", "Packets given up because their next hop is a host no longer."),
    (
        "control_neighbour_quarantined",
        "Neighbour discovery messages not believed: the address belonged to another machine's host until lately.",
    ),
    ("control_host_removed", "Hosts no longer served."),
    ("control_updates_told", "Contexts whose peer was sent new locators or preferences."),
    ("control_errors_received", "Shim6 Error messages received."),
    ("control_label_tests", "Keepalives sent to find out whether flow labels arrive."),
    ("control_label_begun", "Times a context began to send with a flow label for a payload header."),
    ("control_label_ended", "Times it went back to payload headers."),
    (
        "control_udp_tests",
        "Pairs of Keepalives, one plain and one in UDP, sent to find out whether a path drops next header 140.",
    ),
    ("control_udp_begun", "Paths found to drop next header 140, which carry Shim6 in UDP from then on."),
    ("control_udp_ended", "Times such a path was found to carry it as it is again."),
    ("control_udp_paths_full", "Paths not looked at because very many are in doubt already."),
    ("control_udp_malformed", "Messages in UDP whose length or checksum is wrong."),
    ("control_udp_unwelcome", "Messages in UDP for a context that did not agree on that."),
    ("control_messages_in_udp", "Of the Shim6 and REAP messages sent, those in UDP."),
    ("control_liveness_begun", "Paths that began to be watched by exchanging liveness with the peer's box."),
    ("control_liveness_ended", "Paths not watched any more, since nobody uses them."),
    ("control_liveness_no_room", "Times a path was used that is not watched because of liveness.paths_max."),
    (
        "control_liveness_refused",
        "Liveness packets that belong to no session, or are more than were asked for, or for which there is no room.",
    ),
    ("control_liveness_sent", "Liveness packets sent."),
    ("control_liveness_unsent", "Liveness packets not sent, since no context of the path could speak for it."),
    ("control_liveness_up", "Times both ends of a path came to hear each other."),
    ("control_liveness_silent", "Watched paths that failed because nothing was heard for the detection time."),
    ("control_liveness_told", "Watched paths that failed because the peer's box said that it hears nothing."),
    ("control_liveness_stalled", "Times it said so because this box was too late to send: no path failed by that."),
    (
        "control_liveness_late",
        "Detection times that ended without consequence: the timer was looked at late, or messages of the path may have been dropped here.",
    ),
    ("control_liveness_unexcused", "Watched paths that failed after excuses that had lasted too long."),
    ("control_liveness_back", "Watched paths that are trusted again after a failure."),
    ("control_lease_not_written", "Leases and other changes that could not be written; nobody was told of them."),
    (
        "control_lease_not_served",
        "Leases whose host could not be served, because its addresses are not proved or somebody else's.",
    ),
    (
        "control_store_failed",
        "Times the store failed: nothing was written, and no lease given, until it was opened anew.",
    ),
    ("control_store_back", "Times it was written to again after that."),
    (
        "control_store_alone",
        "Times the store that boxes share could not be reached any more: the box goes on with what it knows.",
    ),
    ("control_store_together", "Times it was reached, and read as a whole, after that."),
    ("control_store_heard", "Leases and quarantines that another box wrote, and this one took in."),
    ("control_store_conflicts", "Leases that this box changed and another one too, of which the other's stands."),
    ("control_store_unreadable", "Rows of the store that boxes share which cannot be read and were passed over."),
    ("control_store_name_taken", "Times another box was found to go by this one's `box.name`."),
    ("control_delegation_asked", "DHCPv6 messages sent to providers' servers to be delegated a prefix or to keep it."),
    ("control_delegation_heard", "DHCPv6 answers of providers' servers that were awaited."),
    (
        "control_delegation_unheard",
        "DHCPv6 messages to the box as a client that were not: nobody asked, for another client, or broken.",
    ),
    ("control_router_heard", "Router advertisements of providers' routers where the router is discovered."),
    ("control_router_advertisements", "Router advertisements sent."),
    ("control_routes_lost", "Paths whose packets went another way because routers said that the route is lost."),
    (
        "control_routes_back",
        "Times routers had a route again that was told to be lost, or said nothing of it any more.",
    ),
    ("control_routes_upheld", "Of the routes told to be lost, those on whose path a probe then had no answer."),
    ("control_routes_overruled", "Of the routes told to be lost, those whose path was then seen to work."),
    ("control_routes_distrusted", "Routes told to be lost by a feed that was wrong lately: tested, and not believed."),
    ("control_route_witnesses", "Contexts chosen to test a path whose route was told to be lost, or to be back."),
    ("control_routes_unasked", "Prefixes of peers that routers were not asked about because there are very many."),
    ("dhcp_solicit", "DHCPv6 Solicits answered, by an Advertise or with Rapid Commit by a Reply."),
    ("dhcp_request", "DHCPv6 Requests answered."),
    ("dhcp_confirm", "DHCPv6 Confirms answered."),
    ("dhcp_renew", "DHCPv6 Renews answered."),
    ("dhcp_rebind", "DHCPv6 Rebinds answered."),
    ("dhcp_release", "DHCPv6 Releases answered."),
    ("dhcp_decline", "DHCPv6 Declines answered."),
    ("dhcp_information_request", "DHCPv6 Information-requests answered."),
    ("dhcp_use_multicast", "DHCPv6 messages sent to the box alone, answered by UseMulticast."),
    ("dhcp_drop_malformed", "DHCPv6 messages that are none: broken, too long, or without an option they must have."),
    ("dhcp_drop_bad_relay", "DHCPv6 messages of relays that are not listened to or name a link that is not ours."),
    ("dhcp_drop_stranger", "DHCPv6 messages of clients on no link of ours."),
    ("dhcp_drop_other_server", "DHCPv6 messages for another server."),
    ("dhcp_drop_nothing_to_say", "DHCPv6 Confirms and Rebinds that name nothing that could be confirmed or bound."),
    ("dhcp_drop_no_identity", "DHCPv6 messages of new clients while no address was ready; they ask again."),
    (
        "dhcp_drop_alone",
        "DHCPv6 messages of new clients that were not offered what they ask for by this box, while it could not hear others of the site.",
    ),
    ("dhcp_drop_busy", "DHCPv6 messages while too many answers waited to be written; clients ask again."),
    ("dhcp_leases_given", "Clients that got an address they did not have."),
    ("dhcp_leases_expired", "Leases that were not extended in time."),
    ("dhcp_leases_declined", "Addresses that clients found in use by somebody else; they are quarantined."),
    ("dhcp_refused_full", "Clients that got no address because all places are taken."),
    ("dhcp_refused_client", "Associations that got no address because their client has as many as one may have."),
    ("dhcp_refused_source", "Clients that got no address because their relay, or their own address, has its share."),
    ("control_names_opened", "Contexts begun because a host was told of a peer, before its first packet."),
    (
        "control_names_paced",
        "Contexts not begun then, because the host or all hosts have caused enough lately; its first packet will.",
    ),
    ("control_answers_waited", "Answers about peers that were given when the handshake they began was over."),
    (
        "control_answers_early",
        "Answers about peers that were given because the handshake they began took longer than dns.handshake_wait_ms.",
    ),
    ("control_peer_forgotten", "Peers learned from DNS that had to make room for others."),
    ("control_standby_tests", "Pairs tested as standbys of contexts, beside the pair in use."),
    ("control_standby_tested", "Tests the peer answered, after which the pair was the context's standby."),
    ("control_standby_unanswered", "Tests given up after three requests without an answer."),
    (
        "control_path_unnumbered",
        "Contexts told to workers whose path, or whose standby's, got no number because all are taken: only a loss of the whole provider moves them at once.",
    ),
    ("control_policy_loaded", "Times a policy, or none, took the place of another."),
    ("control_policy_moves_out", "Contexts the policy's controller wanted to send through another provider."),
    (
        "control_policy_moves_in",
        "Contexts whose peers were told to send to another of our providers, because the policy wants it.",
    ),
    (
        "control_policy_move_refused",
        "Of these, those that could not even be tried: the host has no locator there, the peer's is not proved, or the context is not established.",
    ),
    (
        "control_steps_wished",
        "Moves without a failure that were wished for, by the policy or by a peer's preferences: the pair is tested first.",
    ),
    ("control_steps_taken", "Those whose pair was answered on, and which were made."),
    ("control_steps_unanswered", "Those given up after four requests without an answer."),
    (
        "control_preferences_heeded",
        "Locator Preferences of peers that asked us to send to another of their locators, and were followed up.",
    ),
    ("shim6_accepted", "Shim6 messages that did what they came for."),
    ("shim6_waiting", "Shim6 messages put aside until a signature is verified; they are counted again then."),
    ("shim6_answered_r1", "I1 answered by R1."),
    ("shim6_answered_r2", "I1 answered by R2."),
    ("shim6_answered_r1bis", "Packets with an unknown tag answered by R1bis."),
    ("shim6_answered_i2", "Packets answered by our I2 again."),
    ("shim6_answered_i2bis", "Packets answered by our I2bis again."),
    ("shim6_answered_error_0", "Messages of unknown type answered by Error 0."),
    ("shim6_answered_error_1", "Messages with an unknown critical option answered by Error 1."),
    ("shim6_answered_error_2", "Locator lists that are not proved, answered by Error 2."),
    ("shim6_answered_error_3", "Preferences of another generation, answered by Error 3."),
    ("shim6_answered_error_4", "Preferences of the wrong number, answered by Error 4."),
    ("shim6_answered_error_120", "Messages answered by a debugging Error instead of silence."),
    ("shim6_drop_bad_address", "An address that nobody can have, as source, target or identifier (RFC 5533 12.3)."),
    ("shim6_drop_malformed", "Not a message the RFC describes."),
    ("shim6_drop_own_ulid", "From a peer that claims an identifier in a prefix of this site."),
    ("shim6_drop_unknown_host", "For an identifier we do not serve."),
    ("shim6_drop_foreign_target", "Sent to an address that is no locator of the host."),
    ("shim6_drop_foreign_source", "Sent from an address that is no locator of the peer."),
    ("shim6_drop_no_validator", "Responder Validator missing."),
    ("shim6_drop_stale_nonce", "Responder nonce too old, or never given."),
    ("shim6_drop_bad_validator", "Responder Validator not ours, or not for this: a forgery."),
    ("shim6_drop_bad_pds", "CGA parameters that do not belong to the peer's identifier."),
    ("shim6_drop_empty_list", "A Locator List without locators."),
    ("shim6_drop_too_many_waiting", "Needs a signature to be verified, and too many wait for that."),
    (
        "shim6_drop_proof_failed",
        "Needs a signature to be verified, and that failed: a fault of the box, which the log names.",
    ),
    ("shim6_drop_no_context", "No context for it."),
    ("shim6_drop_wrong_state", "The context is in a state that does not want it."),
    ("shim6_drop_wrong_nonce", "An acknowledgement of another update."),
    ("shim6_drop_rate_limited", "Enough answers of the kind were sent lately."),
    ("shim6_drop_told_already", "With an unknown tag, of a context whose peer got an R1bis a moment ago."),
    ("shim6_drop_too_many_forks", "The pair has as many forked contexts as a peer may ask for."),
    ("shim6_drop_too_many_from_prefix", "As many contexts as may be were accepted from the sender's /64."),
    ("shim6_drop_common_tag", "As many contexts as may be have this tag of their peers."),
    ("shim6_drop_reserved", "The room left is for contexts that we initiate."),
    ("shim6_drop_full", "No room for another context, or no tag left."),
    ("shim6_drop_oversized", "The answer would not fit in 1280 octets."),
    ("packet_drop_ipv6", "For Shim6, but no IPv6 packet."),
    ("packet_drop_chain", "For Shim6, with extension headers that cannot be followed."),
    ("packet_drop_not_shim6", "For Shim6, without a Shim6 header to act on."),
    ("packet_drop_address", "For Shim6, from or to a multicast or unspecified address."),
    ("message_truncated", "Shim6 header that runs past the packet."),
    ("message_bad_discriminator", "Shim6 header with the P or S bit set."),
    ("message_checksum", "Shim6 header with a wrong checksum."),
    ("message_too_short", "Shim6 message shorter than the fixed part of its type."),
    ("message_bad_probe", "Probe with an illegal state or count."),
    ("message_unknown_type", "Shim6 message of unknown type."),
    ("message_critical_option", "Shim6 message with an unknown critical option."),
    ("message_malformed_option", "Shim6 option that runs past the header or contradicts itself."),
    ("message_duplicate_option", "Shim6 option that is there twice."),
    ("message_missing_validator", "Shim6 message that lacks its Responder Validator."),
    ("probe_drop_no_sent_report", "Probe that does not report itself."),
    ("probe_drop_too_many_reports", "Probe with more than 15 reports of a kind."),
    ("probe_drop_address_mismatch", "Probe whose first report names other addresses than its packet."),
    ("open_refused_already_open", "Pairs that have a context already."),
    ("open_refused_hold_down", "Pairs left alone after a failure."),
    ("open_refused_unknown_host", "Pairs of an address that is no host of ours."),
    ("open_refused_no_locators", "Pairs whose peer has no known locators."),
    ("open_refused_full", "Pairs refused because the box has no room."),
];

fn shim6_drop(reason: DropReason) -> String {
    format!("shim6_drop_{}", snake(&format!("{reason:?}")))
}

/// `BadValidator` as `bad_validator`; `R1bis` as `r1bis`. What a variant carries is left out.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let plain = name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    for (at, letter) in plain.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_its_line_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/counters.md");
        let text = std::fs::read_to_string(path).expect("docs/counters.md");
        for (name, help) in MEANINGS {
            assert!(text.contains(&format!("| `{name}` | {help} |")), "docs/counters.md lacks `{name}`");
        }
    }

    #[test]
    fn names_are_in_snake_case() {
        assert_eq!(snake("BadValidator"), "bad_validator");
        assert_eq!(snake("R1bis"), "r1bis");
        assert_eq!(snake("TooShort(I1)"), "too_short");
    }
}
