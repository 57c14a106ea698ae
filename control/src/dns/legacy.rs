//! IPv4 addresses of names that have a CMULA.
//!
//! Hosts that go by RFC 6724's own table prefer IPv4 to unique local addresses, and would go past the shim. So they may have
//! to do without: a question for A records asks for the CMULA as well, as a question for AAAA records would, whichever comes
//! first. Both answers are made, and who knows the policy and the peer [chooses](Choice) at the time of each answer: nothing
//! of the choice is kept. While nobody can tell whether there is a CMULA the addresses are given: a host must not lose the
//! only address that works.

use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::Ulid;
use rand::Rng;

use super::alg::{self, Alg, plain};
use super::counts::Event;
use super::job::{Named, Waiter};
use super::message::{Answer, Flags, Key, Query};
use super::view::{Section, View, kind};
use super::{Client, Learned, Output, compose};
use crate::time::Instant;

/// How long a host may remember that there are no IPv4 addresses, in seconds: the peer may be lost a moment later.
const WITHHELD_TTL: u32 = 10;

/// Two answers to a host's question, of which it gets one.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    /// Who asked.
    pub client: Client,
    /// The CMULAs of whom it asked for; never none.
    pub peers: Vec<Ulid>,
    /// Who they are, and for how long that is good; none if nothing is known of them, or they are the site's own hosts.
    pub learned: Option<(Arc<Learned>, Duration)>,
    /// The answer as the servers have it.
    pub with: Vec<u8>,
    /// The same without IPv4 addresses.
    pub without: Vec<u8>,
}

/// An answer for a host that may hold IPv4 addresses.
#[derive(Debug)]
pub(super) struct Legacy {
    pub(super) client: Client,
    pub(super) query: Query,
    pub(super) answer: Answer,
    pub(super) age: Duration,
}

impl Alg {
    /// From now on hosts may have to do without IPv4 addresses, or not.
    pub fn set_withholding(&mut self, withholds: bool) {
        if std::mem::replace(&mut self.config.withholds, withholds) != withholds {
            // Service records are kept in the one way or the other.
            self.cache.clear();
        }
    }

    /// Whether they may.
    pub fn withholds(&self) -> bool {
        self.config.withholds
    }

    /// Which of two answers a host got, where there was a choice and the policy left it to the peer.
    pub fn chose(&mut self, withheld: bool) {
        self.counted.count(if withheld { Event::AWithheld } else { Event::AUnreached });
    }

    /// Whether the answer to a question may hold what is withheld. Whoever validates by itself gets what was signed.
    pub(super) fn is_legacy(&self, key: &Key) -> bool {
        let Flags { dnssec_ok, checking_disabled } = key.flags;
        let validates = dnssec_ok && checking_disabled;
        self.config.withholds && !validates && [kind::A, kind::SVCB, kind::HTTPS].contains(&key.question.kind)
    }

    /// Asks for the CMULA at the time the IPv4 addresses are asked for.
    pub(super) fn look_ahead(&mut self, now: Instant, rng: &mut dyn Rng, key: &Key, out: &mut Vec<Output>) {
        if !self.is_legacy(key) || key.question.kind != kind::A || self.zone.ulids(&key.question.name).is_some() {
            return;
        }
        let wanted = plain(key.question.name.clone(), kind::AAAA);
        if !self.by_key.contains_key(&wanted) && self.cache.find(now, &wanted).is_none() {
            self.submit(now, rng, wanted, Waiter::Ahead, out);
        }
    }

    /// The same as [`Alg::settle`] for what is in the cache.
    pub(super) fn cached_legacy(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        client: Client,
        query: Query,
        out: &mut Vec<Output>,
    ) {
        let Some((kept, age)) = self.cache.find(now, &query.key) else { return };
        let (answer, named) = (kept.answer.clone(), kept.named.clone());
        self.settle(now, rng, Legacy { client, query, answer, age }, named, out);
    }

    /// An answer is there for a host. It is given, unless it holds IPv4 addresses that the host may have to do without.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        legacy: Legacy,
        named: Option<Arc<Named>>,
        out: &mut Vec<Output>,
    ) {
        let Key { question, .. } = &legacy.query.key;
        let open = self.is_legacy(&legacy.query.key) && has_legacy(&legacy.answer, question.kind);
        if !open || question.kind != kind::A {
            let (named, age) = (named.filter(|_| open), legacy.age);
            return self.judge(legacy, true, named.as_ref(), age, out);
        }
        if let Some(own) = self.zone.ulids(&question.name) {
            let own = Arc::new(Named { ulids: own.to_vec(), learned: None, bare: None });
            return self.judge(legacy, true, Some(&own), Duration::ZERO, out);
        }
        let wanted = plain(question.name.clone(), kind::AAAA);
        if let Some((kept, age)) = self.cache.find(now, &wanted) {
            let named = kept.named.clone();
            return self.judge(legacy, true, named.as_ref(), age, out);
        }
        let host = legacy.client.host();
        if !self.may_wait(host) {
            return self.judge(legacy, false, None, Duration::ZERO, out);
        }
        self.waits(host);
        self.submit(now, rng, wanted, Waiter::Legacy(Box::new(legacy), now), out);
    }

    /// It is known whether there is a CMULA, for `known_for` so long already, or that nobody can tell.
    pub(super) fn judge(
        &mut self,
        legacy: Legacy,
        known: bool,
        named: Option<&Arc<Named>>,
        known_for: Duration,
        out: &mut Vec<Output>,
    ) {
        let Legacy { client, query, answer, age } = legacy;
        let seconds = age.as_secs() as u32;
        let with = alg::give(&self.zone, &answer, client, &query, seconds);
        let without = named.and_then(|named| match &named.bare {
            Some(bare) => Some(alg::reply(bare, client, &query, seconds)),
            None if query.key.question.kind == kind::A => {
                let made = compose::withheld(answer.octets(), seconds, WITHHELD_TTL)?;
                Some(alg::reply(&made, client, &query, 0))
            }
            None => None,
        });
        match named.zip(without) {
            Some((named, without)) => {
                let good = |for_s: u32| alg::good_for_s(for_s, known_for);
                let learned = named.learned.as_ref().map(|(learned, for_s)| (learned.clone(), good(*for_s)));
                let peers = named.ulids.clone();
                out.push(Output::Choose(Box::new(Choice { client, peers, learned, with, without })));
            }
            None => {
                if !known {
                    self.counted.count(Event::AUnknown);
                }
                out.push(Output::Reply(client, with));
            }
        }
    }
}

/// Whether an answer holds what it was asked for at all.
fn has_legacy(answer: &Answer, asked: u16) -> bool {
    let view = View::new(answer.octets());
    view.is_ok_and(|view| view.section(Section::Answer).any(|record| record.kind == asked))
}
