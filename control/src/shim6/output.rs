//! What the machine says: things to do, and what became of a packet.

use dataplane::wire::shim6::{Addresses, ErrorCode, Message};
use dataplane::wire::{ContextTag, LocatorPair, UlidPair};

use super::context::ContextId;

/// Something for the engine to do or to know, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A control message goes out. `context` is absent for stateless answers.
    Send {
        /// Context it is sent for.
        context: Option<ContextId>,
        /// Source and destination of the IPv6 header.
        addresses: Addresses,
        /// The message.
        message: Message,
    },
    /// A context exists in I1-SENT: its local tag may soon be seen in payload.
    Opening {
        /// The new context.
        id: ContextId,
    },
    /// The context can carry payload, or the peer's tag or locators are no longer what they were: install what the
    /// context says now.
    Ready {
        /// The context.
        id: ContextId,
        /// What happened.
        how: How,
    },
    /// The peer's locators, preferences or Keepalive Timeout changed, or it accepted ours: look at the context again.
    LocatorsChanged {
        /// The context.
        id: ContextId,
    },
    /// The context left ESTABLISHED or I2BIS-SENT for I1-SENT: nothing may be sent through it until it is ready again.
    Suspended {
        /// The context.
        id: ContextId,
    },
    /// An exchange came to nothing; the pair is left alone for its hold-down time (RFC 5533 §7.8).
    Failed {
        /// The ULIDs tried.
        ulids: UlidPair,
        /// Forked instance identifier.
        fork: u32,
        /// What was wrong.
        reason: FailReason,
    },
    /// The context is no more.
    Gone {
        /// What it was; no longer valid.
        id: ContextId,
        /// Its ULIDs.
        ulids: UlidPair,
        /// Forked instance identifier.
        fork: u32,
        /// The tag that no longer leads anywhere.
        local_tag: ContextTag,
        /// Why.
        reason: GoneReason,
    },
    /// A Keepalive or Probe for the context: dispatched, with both locators in the sets (§12.4).
    Reap {
        /// The context.
        id: ContextId,
        /// Addresses it came with.
        addresses: Addresses,
        /// The Keepalive or Probe.
        message: Message,
    },
    /// The peer answered a request that went over this pair alone: it works, both ways.
    Checked {
        /// The context.
        id: ContextId,
        /// The pair.
        pair: LocatorPair,
    },
    /// A control message other than Keepalive and Probe came in: payload, to REAP (RFC 5534 §4.1).
    ControlIn {
        /// The context.
        id: ContextId,
    },
    /// A control message other than Keepalive and Probe goes out: payload, to REAP (RFC 5534 §4.1).
    ControlOut {
        /// The context.
        id: ContextId,
    },
    /// The peer, or someone who saw our packet, sent an Error message; nothing follows from it but a line in the log.
    ErrorReceived {
        /// The context whose packet was quoted, if it could be found.
        context: Option<ContextId>,
        /// What was wrong with the packet.
        code: ErrorCode,
        /// Where in the packet.
        pointer: u16,
    },
}

/// How a context became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// We asked, the peer answered: R2 to our I1 or I2.
    Initiated,
    /// The peer asked: I2.
    Accepted,
    /// One side had lost it: I2bis received without a context, or R2 to our I2bis.
    Recovered,
    /// It was ready already and the peer replaced its tag or locators.
    Updated,
}

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailReason {
    /// E-FAILED.
    NoAnswer,
    /// NO-SUPPORT.
    NoSupport,
}

/// Why a context is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GoneReason {
    /// Unused for long enough (RFC 5533 §9).
    Idle,
    /// Its local ULID is no longer valid (§1.5).
    HostRemoved,
    /// The peer gave its tag to another context (§7.15).
    Confused,
    /// The peer does not answer.
    NoAnswer,
    /// The peer does not speak Shim6.
    NoSupport,
    /// The peer asked for it, nobody used it, and another needed its place (decision 0015).
    Displaced,
    /// The engine wanted it so.
    Discarded,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did what it came for.
    Accepted,
    /// Nothing follows from it, and the sender is not told.
    Dropped(DropReason),
    /// It was answered without changing a state.
    Answered(Answer),
    /// It waits for a proof that somebody else computes; then it is received again.
    Waiting,
}

/// What a packet was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// R1.
    R1,
    /// R2.
    R2,
    /// R1bis.
    R1bis,
    /// The I2 again: the peer seems to be established already.
    I2,
    /// The I2bis again.
    I2bis,
    /// Error with this code.
    Error(ErrorCode),
}

/// Why a packet was dropped in silence. Every silent drop has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Multicast, unspecified, loopback, link-local or mapped address (RFC 5533 §12.3), in the IPv6 header or as ULID.
    BadAddress,
    /// Not a message the RFC describes (D38, D39).
    Malformed,
    /// The peer claims a ULID in a prefix of this site.
    OwnUlid,
    /// The local ULID is not one we answer for.
    UnknownHost,
    /// Sent to an address that is no locator of that host.
    ForeignTarget,
    /// Sent from an address that is no locator of the peer (§7.13, §7.20).
    ForeignSource,
    /// Responder Validator missing.
    NoValidator,
    /// Responder nonce too old, or never given.
    StaleNonce,
    /// Responder Validator is not ours, or not for this.
    BadValidator,
    /// CGA parameters do not belong to the peer's ULID.
    BadPds,
    /// A Locator List without locators.
    EmptyList,
    /// Too many messages wait for a proof already.
    TooManyWaiting,
    /// It needed a proof, and whoever computes proofs failed: a fault of the box.
    ProofFailed,
    /// No context for it.
    NoContext,
    /// The context is in a state that does not want it.
    WrongState,
    /// The Request Nonce of an Update Acknowledgement is not that of the outstanding Update Request.
    WrongNonce,
    /// Enough answers of this kind have been sent lately (D36).
    RateLimited,
    /// The sender was told a moment ago that its context is not known here (§7.17), and may answer soon.
    ToldAlready,
    /// The pair of ULIDs has as many forked contexts as a peer may ask for (decision 0015).
    TooManyForks,
    /// As many contexts as may be were accepted from the /64 it came from (decision 0015).
    TooManyFromPrefix,
    /// As many contexts as may be have this tag of their peers.
    CommonTag,
    /// The room left is for contexts that we initiate (decision 0015).
    Reserved,
    /// No room for another context, or no tag left.
    Full,
    /// The answer would not fit in 1280 octets.
    Oversized,
}
