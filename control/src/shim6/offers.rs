//! What both ends of a context have to offer before either uses it: experiments of ours, which others skip.

use super::context::Context;

/// What of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offers {
    /// A flow label.
    pub(super) label: bool,
    /// Shim6 in UDP.
    pub(super) udp: bool,
    /// Liveness of paths.
    pub(super) liveness: bool,
}

impl Offers {
    /// Everything, before it is known what the peer offers.
    pub(super) const ALL: Offers = Offers { label: true, udp: true, liveness: true };

    /// What the peer of a context has offered.
    pub(super) fn of_peer(context: &Context) -> Offers {
        Offers { label: context.peer_label.is_some(), udp: context.peer_udp, liveness: context.peer_liveness }
    }
}
