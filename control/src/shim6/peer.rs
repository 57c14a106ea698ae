//! What a peer says about its locators: proved first, believed afterwards (RFC 5533 §7.2, §10.4).

use std::sync::Arc;

use dataplane::wire::shim6::{
    ErrorCode, LocatorList, LocatorPreferences, Options, Preference, UdpPurpose, VerificationMethod,
};
use dataplane::wire::{ContextTag, FlowLabel, Ulid};

use super::context::{Context, PeerLocator, may_be_locator};
use super::labels;
use super::output::DropReason;
use super::proof::{LocatorProof, ProofJob};

/// What a message told about its sender, proved.
pub(super) struct Told<'a> {
    list: Option<&'a LocatorList>,
    preferences: Option<&'a [Preference]>,
    pds: Option<&'a [u8]>,
    /// Keepalive Timeout asked for.
    pub(super) keepalive_timeout: Option<u16>,
    /// Flow label offered.
    flow_label: Option<FlowLabel>,
    /// Whether UDP was offered.
    udp: bool,
    /// Whether liveness was.
    liveness: bool,
}

impl Told<'_> {
    /// Takes an offer of a flow label for none if there is something against it.
    pub(super) fn leave_label(&mut self, is_bad: impl FnOnce(FlowLabel) -> bool) {
        if self.flow_label.is_some_and(is_bad) {
            self.flow_label = None;
        }
    }
}

/// Why a message is not believed.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    /// In silence.
    Drop(DropReason),
    /// With an Error pointing at this octet, counted from the Shim6 header.
    Error { code: ErrorCode, pointer: usize },
    /// Not yet: this is to be computed first.
    Later(ProofJob),
}

/// Says that the parameters of a message have been looked at: what follows from them is then theirs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checked(());

/// The first check: CGA parameters, where present, must be those of the peer's ULID (§7.13, §7.16, §7.20, §10.4).
pub(super) fn check_parameters(
    proof: &mut dyn LocatorProof,
    ulid: Ulid,
    options: &Options,
) -> Result<Checked, DropReason> {
    match &options.pds {
        Some(pds) if !proof.owns(ulid, pds) => Err(DropReason::BadPds),
        Some(_) | None => Ok(Checked(())),
    }
}

/// The costly checks, in the order of §10.4: the list, then the preferences. `known` is the context, if there is one.
pub(super) fn prove<'a>(
    proof: &mut dyn LocatorProof,
    ulid: Ulid,
    known: Option<&Context>,
    options: &'a Options,
    Checked(()): Checked,
) -> Result<Told<'a>, Refusal> {
    // The parameters may have come with an earlier message (D14), and were looked at then.
    let pds = options.pds.as_deref().or(known.and_then(|context| context.peer_pds.as_deref()));
    if let Some(list) = &options.locators {
        prove_list(proof, ulid, pds, list, options.signature.as_deref())?;
    }
    if let Some(preferences) = &options.preferences {
        let (generation, count) = match (&options.locators, known) {
            (Some(list), _) => (Some(list.generation), list.entries.len()),
            (None, Some(context)) => (context.peer_generation, context.peer_locators.len()),
            (None, None) => (None, 1),
        };
        match_preferences(preferences, generation, count)?;
    }
    Ok(Told {
        list: options.locators.as_ref(),
        preferences: options.preferences.as_ref().map(|preferences| preferences.elements.as_slice()),
        pds: options.pds.as_deref(),
        keepalive_timeout: options.keepalive_timeout,
        flow_label: labels::offered(options.flow_label),
        udp: options.udp.is_some_and(|option| option.purpose == UdpPurpose::Offer),
        liveness: options.liveness.is_some_and(|option| option.packet.is_none()),
    })
}

fn prove_list(
    proof: &mut dyn LocatorProof,
    ulid: Ulid,
    pds: Option<&[u8]>,
    list: &LocatorList,
    signature: Option<&[u8]>,
) -> Result<(), Refusal> {
    if list.entries.is_empty() {
        return Err(Refusal::Drop(DropReason::EmptyList));
    }
    let unsupported = |(_, method): &_| matches!(method, VerificationMethod::Other(_));
    let unprovable = list.entries.iter().position(|(locator, _)| locator.0 != ulid.0);
    let proved = if let Some(index) = list.entries.iter().position(unsupported) {
        Err(index)
    } else if let Some(index) = unprovable.filter(|_| pds.is_none()) {
        // A list that nothing can be checked against contradicts its methods (D40).
        Err(index)
    } else if let Some(job) = proof.slow_part(ulid, pds, list, signature) {
        return Err(Refusal::Later(job));
    } else {
        proof.proves(ulid, pds, list, signature)
    };
    proved.map_err(|index| Refusal::Error { code: ErrorCode::VerificationMethod, pointer: list.methods_offset + index })
}

/// Errors 3 and 4 (§10.4; D34 for messages other than Update Request).
fn match_preferences(preferences: &LocatorPreferences, generation: Option<u32>, count: usize) -> Result<(), Refusal> {
    if generation != Some(preferences.generation) {
        Err(Refusal::Error { code: ErrorCode::Generation, pointer: preferences.offset + 4 })
    } else if preferences.elements.len() != count {
        Err(Refusal::Error { code: ErrorCode::PreferenceCount, pointer: preferences.offset + 2 })
    } else {
        Ok(())
    }
}

/// Generations this little older than the current one belong to lists that it replaced. A sender counts them up by one
/// (§5.15.2); one that draws them at random (§10.1) falls here once in 2^28.
const LATE_MAX: u32 = 16;

/// Writes what an I2, I2bis or R2 told into the context; true if anything about the peer is not what it was.
///
/// With another tag the peer starts anew. With the same one the message may be a late copy, so it must not undo what
/// Update Requests have told since: of a list that is known already nothing is taken, not even the preferences with it.
pub(super) fn learn_exchange(context: &mut Context, tag: ContextTag, mut told: Told<'_>) -> bool {
    let new_tag = context.peer_tag.replace(tag) != Some(tag);
    let new_label = std::mem::replace(&mut context.peer_label, told.flow_label) != told.flow_label;
    let new_udp = std::mem::replace(&mut context.peer_udp, told.udp) != told.udp;
    let new_liveness = std::mem::replace(&mut context.peer_liveness, told.liveness) != told.liveness;
    if new_tag {
        // Whatever its generation, the list is the first of its kind.
        context.peer_generation = context.peer_generation.filter(|_| told.list.is_none());
    } else if told.list.is_some_and(|list| context.peer_generation == Some(list.generation)) {
        told.list = None;
        told.preferences = None;
    }
    learn(context, told) || new_tag || new_label || new_udp || new_liveness
}

/// Writes what was proved into the context; true if Ls(peer) or a preference is not what it was.
pub(super) fn learn(context: &mut Context, mut told: Told<'_>) -> bool {
    let before = std::mem::take(&mut context.peer_locators);
    // A copy that was late, or an old signed list replayed, must not undo what was told since.
    let age = |list: &LocatorList| context.peer_generation.map_or(0, |newest| newest.wrapping_sub(list.generation));
    if told.list.is_some_and(|list| (1..=LATE_MAX).contains(&age(list))) {
        told.list = None;
        told.preferences = None;
    }
    context.peer_locators = if let Some(list) = told.list {
        context.peer_generation = Some(list.generation);
        replaced(&before, list)
    } else if context.peer_generation.is_none() && !context.state.carries_payload() {
        // Without a list the peer has only its ULID (D11). What was tried so far is not the peer's word.
        vec![PeerLocator::ulid(context.ulids.peer)]
    } else {
        before.clone()
    };
    if let Some(elements) = told.preferences {
        for (known, preference) in context.peer_locators.iter_mut().zip(elements) {
            known.preference = *preference;
        }
    }
    if told.pds.is_some() && told.pds != context.peer_pds.as_deref() {
        context.peer_pds = told.pds.map(Arc::from);
    }
    context.peer_keepalive_timeout = told.keepalive_timeout;
    context.peer_locators != before
}

/// The new list; a locator that was there before is still known to answer, the others are not (D33).
fn replaced(before: &[PeerLocator], list: &LocatorList) -> Vec<PeerLocator> {
    let entry = |(locator, method): &_| PeerLocator {
        locator: *locator,
        method: Some(*method),
        verified: may_be_locator(locator.0),
        probed: before.iter().any(|old| old.locator == *locator && old.probed),
        preference: Preference::default(),
    };
    list.entries.iter().map(entry).collect()
}
