//! What a node would act on, feature by feature: for tests that search through all states two nodes can be in, and must
//! know when two of them are the same.
//!
//! Structures are taken apart whole, so that a new field does not compile until somebody has said whether it is part of
//! the state. Left out is what only names things (places in tables), and what bounds resources without being part of the
//! protocol: token buckets, tags at rest, verdicts remembered.

use std::net::Ipv6Addr;
use std::time::Duration;

use dataplane::wire::ContextTag;
use dataplane::wire::shim6::Preference;

use super::context::{Accepted, Context, Exchange, PeerLocator, Update};
use super::endpoint::Endpoint;
use crate::time::Instant;

/// One thing that a state consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature<'a> {
    /// A number, flag or address, which means itself.
    Value(u128),
    /// A tag. Which one matters only as far as it is the same as another.
    Tag(ContextTag),
    /// An Initiator or Request Nonce, the same way.
    Nonce(u32),
    /// A validator and the Responder Nonce that it was made with.
    Validator(&'a [u8]),
    /// A moment to come, counted from now; zero if it is past.
    Ahead(Duration),
    /// A moment past, counted back from now.
    Ago(Duration),
}

impl Endpoint {
    /// Tells `put` everything about contexts and failures that decides what this node does next, always in the same
    /// order.
    pub fn portray(&self, now: Instant, put: &mut dyn FnMut(Feature<'_>)) {
        put(Feature::Value(self.store.len() as u128));
        for context in self.store.in_order() {
            portray_context(context, now, put);
        }
        self.holddowns.portray(now, put);
        self.starts.portray(now, put);
    }
}

fn portray_context(context: &Context, now: Instant, put: &mut dyn FnMut(Feature<'_>)) {
    let Context {
        id: _,
        state,
        ulids,
        fork,
        local_tag,
        peer_tag,
        local_label,
        peer_label,
        local_udp,
        peer_udp,
        local_liveness,
        peer_liveness,
        host,
        preferences,
        peer_locators,
        peer_generation,
        peer_pds,
        peer_keepalive_timeout,
        pair,
        last_used,
        exchange,
        told,
        update,
        idle_check,
        accepted,
        // What boxes of one site tell each other is no part of the protocol.
        stamp: _,
        mirrored: _,
    } = context;
    put(Feature::Value(*state as u128));
    put_addresses(put, [ulids.local.0, ulids.peer.0, pair.local.0, pair.peer.0]);
    put(Feature::Value((*fork).into()));
    put(Feature::Tag(*local_tag));
    put_option(put, *peer_tag, |put, tag| put(Feature::Tag(tag)));
    for label in [local_label, peer_label] {
        put_option(put, *label, |put, label| put(Feature::Value(label.value().into())));
    }
    for (local, peer) in [(local_udp, peer_udp), (local_liveness, peer_liveness)] {
        put(Feature::Value(u128::from(*local) << 1 | u128::from(*peer)));
    }
    put(Feature::Value(host.generation.into()));
    put_option(put, preferences.as_deref(), put_preferences);
    put(Feature::Value(peer_locators.len() as u128));
    for PeerLocator { locator, method, verified, probed, preference } in peer_locators {
        put_addresses(put, [locator.0]);
        put(Feature::Value(method.map_or(0, |method| method.code()).into()));
        put(Feature::Value(u128::from(*verified) << 1 | u128::from(*probed)));
        put_preferences(put, &[*preference]);
    }
    put_option(put, *peer_generation, |put, generation| put(Feature::Value(generation.into())));
    // The parameters are the peer's as soon as there are any: they were proved.
    put(Feature::Value(peer_pds.is_some().into()));
    put_option(put, *peer_keepalive_timeout, |put, seconds| put(Feature::Value(seconds.into())));
    put(Feature::Ago(now.since(*last_used)));
    put_option(put, exchange.as_deref(), |put, exchange| portray_exchange(exchange, now, put));
    put(Feature::Value((*told).into()));
    put_option(put, update.as_deref(), |put, update| portray_update(update, now, put));
    put(Feature::Ahead(idle_check.since(now)));
    put_option(put, *accepted, |put, Accepted { prefix, since, used }| {
        put(Feature::Value(u128::from(prefix) << 1 | u128::from(used)));
        put(Feature::Ago(now.since(since)));
    });
}

fn portray_exchange(exchange: &Exchange, now: Instant, put: &mut dyn FnMut(Feature<'_>)) {
    let Exchange {
        nonce,
        candidates,
        next,
        used,
        pair,
        // Told with the validator.
        responder_nonce: _,
        validator,
        packet_tag,
        retries,
        at,
        sent,
        fell_back,
        nudges,
        hastened,
    } = exchange;
    put(Feature::Nonce(*nonce));
    for pairs in [candidates, used, &vec![*pair]] {
        put(Feature::Value(pairs.len() as u128));
        pairs.iter().for_each(|pair| put_addresses(put, [pair.local.0, pair.peer.0]));
    }
    put(Feature::Value(*next as u128));
    put(Feature::Validator(validator));
    put(Feature::Tag(*packet_tag));
    put(Feature::Value(u128::from(*retries) << 1 | u128::from(*fell_back)));
    put(Feature::Value(u128::from(*nudges) << 1 | u128::from(*hastened)));
    put(Feature::Ahead(at.since(now)));
    put(Feature::Ago(now.since(*sent)));
}

fn portray_update(update: &Update, now: Instant, put: &mut dyn FnMut(Feature<'_>)) {
    let Update { nonce, host, preferences, retries, at, renewed_for } = update;
    put(Feature::Nonce(*nonce));
    put_option(put, host.as_deref(), |put, host| put(Feature::Value(host.generation.into())));
    put_option(put, preferences.as_deref(), put_preferences);
    put(Feature::Value((*retries).into()));
    put_option(put, *at, |put, at| put(Feature::Ahead(at.since(now))));
    put_option(put, *renewed_for, |put, nonce| put(Feature::Nonce(nonce)));
}

fn put_option<T>(
    put: &mut dyn FnMut(Feature<'_>),
    value: Option<T>,
    some: impl FnOnce(&mut dyn FnMut(Feature<'_>), T),
) {
    put(Feature::Value(value.is_some().into()));
    if let Some(value) = value {
        some(put, value);
    }
}

fn put_addresses<const N: usize>(put: &mut dyn FnMut(Feature<'_>), addresses: [Ipv6Addr; N]) {
    addresses.into_iter().for_each(|address| put(Feature::Value(address.to_bits())));
}

fn put_preferences(put: &mut dyn FnMut(Feature<'_>), preferences: &[Preference]) {
    for Preference { flags, priority, weight } in preferences {
        let octet = |value: &Option<u8>| value.map_or(0x100, u128::from);
        put(Feature::Value(u128::from(*flags) << 32 | octet(priority) << 16 | octet(weight)));
    }
}
