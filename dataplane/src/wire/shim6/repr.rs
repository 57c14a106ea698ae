//! What a Shim6 control message means, free of offsets and padding.
//!
//! These hold only values that make sense. Reserved fields are zero when emitted and not looked at when parsed.
//! Names are the RFC's (RFC 5533 §5.4 to §5.15, RFC 5534 §5).

use std::net::Ipv6Addr;

use crate::wire::address::{ContextTag, Locator, UlidPair};
use crate::wire::bfd;

/// IPv6 next-header value of both kinds of Shim6 header (RFC 5533 §5, §17).
pub const PROTOCOL: u8 = crate::wire::ipv6::protocol::SHIM6;

/// A control message: its fixed part and its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// First message of the exchange (RFC 5533 §5.4). Options: ULID pair, FII.
    I1 {
        /// Tag the initiator allocated.
        initiator_tag: ContextTag,
        /// Chosen by the initiator, echoed by the responder.
        initiator_nonce: u32,
        /// Options.
        options: Options,
    },
    /// Stateless answer to I1 (§5.5). Options: responder validator.
    R1 {
        /// Chosen by the initiator, echoed by the responder.
        initiator_nonce: u32,
        /// Chosen by the responder, echoed by the initiator.
        responder_nonce: u32,
        /// Options.
        options: Options,
    },
    /// Third message (§5.6). Options: validator, ULID pair, FII, locators, preferences, PDS, signature.
    I2 {
        /// Tag the initiator allocated.
        initiator_tag: ContextTag,
        /// Chosen by the initiator, echoed by the responder.
        initiator_nonce: u32,
        /// Chosen by the responder, echoed by the initiator.
        responder_nonce: u32,
        /// Options.
        options: Options,
    },
    /// Last message (§5.7). Options: locators, preferences, PDS, signature.
    R2 {
        /// Tag the responder allocated.
        responder_tag: ContextTag,
        /// Chosen by the initiator, echoed by the responder.
        initiator_nonce: u32,
        /// Options.
        options: Options,
    },
    /// "I do not know this context" (§5.8). Options: responder validator.
    R1bis {
        /// Tag found in the packet that had no context.
        packet_tag: ContextTag,
        /// Chosen by the responder, echoed by the initiator.
        responder_nonce: u32,
        /// Options.
        options: Options,
    },
    /// Recovery of a lost context (§5.9). Options as I2.
    I2bis {
        /// Tag the initiator allocated.
        initiator_tag: ContextTag,
        /// Chosen by the initiator, echoed by the responder.
        initiator_nonce: u32,
        /// Chosen by the responder, echoed by the initiator.
        responder_nonce: u32,
        /// Tag found in the packet that had no context.
        packet_tag: ContextTag,
        /// Options.
        options: Options,
    },
    /// New locators or preferences (§5.10). Options: locators, preferences, PDS, signature.
    UpdateRequest {
        /// Tag the receiver allocated.
        receiver_tag: ContextTag,
        /// Chosen for the request, echoed in the acknowledgement.
        request_nonce: u32,
        /// Options.
        options: Options,
    },
    /// Acknowledges an Update Request (§5.11).
    UpdateAck {
        /// Tag the receiver allocated.
        receiver_tag: ContextTag,
        /// Chosen for the request, echoed in the acknowledgement.
        request_nonce: u32,
        /// Options.
        options: Options,
    },
    /// Shows that the path from its sender works (RFC 5534 §5.1).
    Keepalive {
        /// Tag the receiver allocated.
        receiver_tag: ContextTag,
        /// Options.
        options: Options,
    },
    /// Explores a locator pair (RFC 5534 §5.2).
    Probe(Probe),
    /// Tells the sender of a message what was wrong with it (§5.14).
    Error(ErrorMessage),
}

/// The options of a message; what the RFC does not list for a message type stays empty (RFC 5533 §5.15).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Opaque to everyone but its maker (§5.15.1).
    pub validator: Option<Vec<u8>>,
    /// All locators of the sender (§5.15.2).
    pub locators: Option<LocatorList>,
    /// How the sender wants its locators used (§5.15.3).
    pub preferences: Option<LocatorPreferences>,
    /// CGA parameter data structure, verbatim (§5.15.4).
    pub pds: Option<Vec<u8>>,
    /// PKCS#1 v1.5 signature (§5.15.5).
    pub signature: Option<Vec<u8>>,
    /// ULID pair from the viewpoint of the *sender*: `local` is the sender's (§5.15.6).
    pub ulids: Option<UlidPair>,
    /// Forked instance identifier; absent means 0 (§5.15.7).
    pub fork: Option<u32>,
    /// Seconds the sender wants the receiver to use as Keepalive Timeout (RFC 5534 §5.3).
    pub keepalive_timeout: Option<u16>,
    /// The context in the flow label: an experiment of ours (docs/decisions: the context in the flow label).
    pub flow_label: Option<LabelOption>,
    /// Shim6 in UDP: an experiment of ours (docs/decisions: paths that drop extension headers).
    pub udp: Option<UdpOption>,
    /// Path liveness: an experiment of ours (docs/decisions: path liveness).
    pub liveness: Option<LivenessOption>,
}

/// Flow Label option: an experiment of ours, ignored by all who do not take part in it.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-------------------------------+-------------------------------+
/// |         Type = 19526        |0|          Length = 12          |
/// +-------------------------------+-------------------------------+
/// |                Experiment = 0x5036464C ("P6FL")               |
/// +-------+-------------+-+---------------------------------------+
/// |Purpose|  Reserved   |A|              Flow Label               |
/// +-------+-------------+-+---------------------------------------+
/// |                             Nonce                             |
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelOption {
    /// What is said.
    pub purpose: LabelPurpose,
    /// In an answer: payload has come by the label since the last answer (A).
    pub arrived: bool,
    /// In an offer, the label that payload to its sender may carry. In a test, the one its packet left with; in an answer,
    /// the one it came with. 20 bits; zero is no label.
    pub label: u32,
    /// Chosen for a test, echoed in its answer; zero in offers.
    pub nonce: u32,
}

impl LabelOption {
    /// Distinguishes us from others who experiment with the same option type.
    pub const EXPERIMENT: u32 = u32::from_be_bytes(*b"P6FL");
    /// Octets of contents.
    pub const LEN: usize = 12;
}

/// What a Flow Label option says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelPurpose {
    /// 0: payload of this context may come to me with this label and without the payload header.
    Offer,
    /// 1: with what label does this packet come to you?
    Test,
    /// 2: with this one.
    Answer,
}

/// Liveness option: an experiment of ours, ignored by all who do not take part in it.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-------------------------------+-------------------------------+
/// |         Type = 16966        |0|       Length = 8 or 32        |
/// +-------------------------------+-------------------------------+
/// |                Experiment = 0x50364246 ("P6BF")               |
/// +-------+-----------------------------------------------------+-+
/// |Purpose|                       Reserved                      |W|
/// +-------+-----------------------------------------------------+-+
/// |      BFD Control packet (RFC 5880 section 4.1), purpose 1     |
/// +- - - -
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessOption {
    /// The sender has sessions on the path and wants to know whether it works (W).
    pub wanted: bool,
    /// Purpose 1: the exchange itself. Without it (purpose 0) an offer: who has it may exchange such packets with me about the
    /// paths of this context.
    pub packet: Option<bfd::Packet>,
}

impl LivenessOption {
    /// Distinguishes us from others who experiment with the same option type.
    pub const EXPERIMENT: u32 = u32::from_be_bytes(*b"P6BF");
    /// Octets of contents before the packet.
    pub const LEN: usize = 8;
    /// What tells the peer that liveness of the context's paths may be exchanged.
    pub const OFFER: LivenessOption = LivenessOption { wanted: false, packet: None };
}

/// UDP option: an experiment of ours, ignored by all who do not take part in it.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-------------------------------+-------------------------------+
/// |         Type = 21828        |0|          Length = 12          |
/// +-------------------------------+-------------------------------+
/// |                Experiment = 0x50365544 ("P6UD")               |
/// +-------+-----------------------------------------------------+-+
/// |Purpose|                       Reserved                      |U|
/// +-------+-----------------------------------------------------+-+
/// |                             Nonce                             |
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOption {
    /// What is said.
    pub purpose: UdpPurpose,
    /// In an answer: the test came in UDP (U).
    pub in_udp: bool,
    /// Chosen for a pair of tests, echoed in their answers; zero in offers.
    pub nonce: u32,
}

impl UdpOption {
    /// Distinguishes us from others who experiment with the same option type.
    pub const EXPERIMENT: u32 = u32::from_be_bytes(*b"P6UD");
    /// Octets of contents.
    pub const LEN: usize = 12;
    /// What tells the peer that this context may come in UDP.
    pub const OFFER: UdpOption = UdpOption { purpose: UdpPurpose::Offer, in_udp: false, nonce: 0 };
}

/// What a UDP option says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpPurpose {
    /// 0: messages and payload of this context may come to me in UDP.
    Offer,
    /// 1: how does this packet come to you?
    Test,
    /// 2: like this.
    Answer,
}

/// How a locator is proved to belong to the ULID (RFC 5533 §5.15.2; decision D02).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationMethod {
    /// 1: member of the ULID's hash-based address set.
    Hba,
    /// 2: covered by the signature of the ULID's key.
    Cga,
    /// Anything else.
    Other(u8),
}

/// Locator List option (RFC 5533 §5.15.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatorList {
    /// Changes with each new list.
    pub generation: u32,
    /// In the order preferences refer to.
    pub entries: Vec<(Locator, VerificationMethod)>,
    /// Offset, from the Shim6 header, of the first verification-method octet in the message this was parsed from
    /// (for the pointer of Error 2); zero in lists of our own.
    pub methods_offset: usize,
}

/// Locator Preferences option (RFC 5533 §5.15.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatorPreferences {
    /// Generation of the list the elements apply to.
    pub generation: u32,
    /// Length of every element in octets, 1 or more.
    pub element_len: u8,
    /// One for each locator of that list.
    pub elements: Vec<Preference>,
    /// Offset, from the Shim6 header, of the option's first octet in the message this was parsed from (for the
    /// pointers of Errors 3 and 4: generation at +4, length at +2); zero in preferences of our own.
    pub offset: usize,
}

/// One element of Locator Preferences; a field is absent when the element is too short to hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preference {
    /// [`Preference::BROKEN`], [`Preference::TRANSIENT`].
    pub flags: u8,
    /// As in DNS SRV: lower first.
    pub priority: Option<u8>,
    /// As in DNS SRV: share among equals.
    pub weight: Option<u8>,
}

impl Preference {
    /// Known not to work.
    pub const BROKEN: u8 = 0x01;
    /// Less stable than others.
    pub const TRANSIENT: u8 = 0x02;
}

/// Sender's REAP state as a probe tells it (RFC 5534 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeState {
    /// 0
    Operational,
    /// 1
    Exploring,
    /// 2
    InboundOk,
}

/// Probe message (RFC 5534 §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Tag the receiver allocated.
    pub receiver_tag: ContextTag,
    /// State of the sender after sending.
    pub state: ProbeState,
    /// Probes sent, 1 to 15; the first describes this very message.
    pub sent: Vec<ProbeReport>,
    /// Probes received, 0 to 15.
    pub received: Vec<ProbeReport>,
    /// Options (none defined as useful).
    pub options: Options,
}

/// One probe as seen by the side that reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// Source address of that probe.
    pub source: Locator,
    /// Destination address of that probe.
    pub target: Locator,
    /// Chosen by the sender of that probe.
    pub nonce: u32,
    /// Without meaning today; echoed.
    pub data: u32,
}

/// Error message (RFC 5533 §5.14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMessage {
    /// What was wrong.
    pub code: ErrorCode,
    /// Octet offset inside the invoking packet, counted from its IPv6 header.
    pub pointer: u16,
    /// The invoking packet from its IPv6 header, as much as fits.
    pub packet: Vec<u8>,
}

/// Error codes (RFC 5533 §5.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// 0
    UnknownMessage,
    /// 1
    CriticalOption,
    /// 2
    VerificationMethod,
    /// 3
    Generation,
    /// 4
    PreferenceCount,
    /// Anything else.
    Other(u8),
}

/// The Payload Extension Header (RFC 5533 §5.2), always eight octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadHeader {
    /// Protocol of what follows.
    pub next_header: u8,
    /// The receiver's tag.
    pub tag: ContextTag,
}

/// Addresses of the IPv6 header a control message came in or goes out with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// IPv6 source.
    pub source: Ipv6Addr,
    /// IPv6 destination.
    pub target: Ipv6Addr,
}
