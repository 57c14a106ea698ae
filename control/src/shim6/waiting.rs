//! Messages whose proof takes long, and which wait for somebody else to compute it.
//!
//! A signature costs several times what the rest of a handshake does. So the endpoint does not compute it: it puts the message
//! aside, says what is to be proved ([`Endpoint::next_proof`]), and when the answer comes ([`Endpoint::proved`]) it receives the
//! message again, with everything else about it looked at anew. What was proved is remembered by the list, so a peer pays once.
//!
//! Whoever computes has more to do than it can when somebody sends lists without end. Then each /48 has its turn, whatever the
//! others sent, and where there is no room for more, those with most have to do without: their messages are dropped, and come
//! again as if they had been lost. The /48 is that of the locator from which the peer has answered, so it cannot be made up.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv6Addr;

use dataplane::wire::shim6::{Addresses, Message};
use hashbrown::HashMap;
use rand::Rng;

use super::dispatch::Incoming;
use super::endpoint::Endpoint;
use super::output::{DropReason, Output, Verdict};
use super::proof::{Digest, Finding, ProofJob};
use crate::time::Instant;

/// Most messages that wait.
const WAITING_MAX: usize = 1024;
/// Most messages that wait for one and the same proof: one host of a peer's that speaks to many of ours.
const TOGETHER_MAX: usize = 64;

/// Messages put aside.
#[derive(Default)]
pub(super) struct Waiting {
    proofs: HashMap<Digest, Proof>,
    /// Proofs nobody computes yet, by /48, each in the order of their coming.
    sites: HashMap<u64, VecDeque<Digest>>,
    /// Whose turn it is.
    turns: VecDeque<u64>,
    /// Who has how many, those with most last.
    most: BTreeSet<(usize, u64)>,
    messages: usize,
}

struct Proof {
    site: u64,
    /// Absent while somebody computes it.
    job: Option<ProofJob>,
    messages: Vec<Aside>,
}

/// A message as it came.
struct Aside {
    addresses: Addresses,
    message: Message,
    ipv6_packet: Vec<u8>,
    shim6_offset: usize,
}

impl Waiting {
    /// Puts a message aside. False if there is no room.
    fn put(&mut self, packet: &Incoming<'_>, message: &Message, job: ProofJob) -> bool {
        let site = site_of(packet.addresses.source);
        let digest = *job.digest();
        let known = self.proofs.get(&digest).map(|proof| proof.messages.len());
        if known.is_some_and(|messages| messages >= TOGETHER_MAX) {
            return false;
        }
        if self.messages >= WAITING_MAX && !self.make_room(site) {
            return false;
        }
        // Room may have been made at the cost of this very proof.
        if !self.proofs.contains_key(&digest) {
            self.change(site, |queue| queue.push_back(digest));
        }
        let proof = self.proofs.entry(digest).or_insert_with(|| Proof { site, job: Some(job), messages: Vec::new() });
        proof.messages.push(Aside {
            addresses: packet.addresses,
            message: message.clone(),
            ipv6_packet: packet.ipv6_packet.to_vec(),
            shim6_offset: packet.shim6_offset,
        });
        self.messages += 1;
        true
    }

    /// Has the site with most proofs do without its latest. False if that would be `site` itself, or as good as.
    fn make_room(&mut self, site: u64) -> bool {
        let mine = self.sites.get(&site).map_or(0, VecDeque::len);
        let Some((_, worst)) = self.most.last().copied().filter(|(most, _)| *most > mine + 1) else { return false };
        let latest = self.change(worst, VecDeque::pop_back);
        let Some(proof) = latest.and_then(|digest| self.proofs.remove(&digest)) else { return false };
        self.messages -= proof.messages.len();
        true
    }

    /// The next proof to be computed: one of each /48 in turn.
    fn next(&mut self) -> Option<ProofJob> {
        while let Some(site) = self.turns.pop_front() {
            let digest = self.change(site, VecDeque::pop_front);
            if self.sites.contains_key(&site) {
                self.turns.push_back(site);
            }
            let job = digest.and_then(|digest| self.proofs.get_mut(&digest)).and_then(|proof| proof.job.take());
            if job.is_some() {
                return job;
            }
        }
        None
    }

    /// Changes what a site has; who has something has a turn, and only that one is remembered.
    fn change<T>(&mut self, site: u64, change: impl FnOnce(&mut VecDeque<Digest>) -> T) -> T {
        let before = self.sites.get(&site).map_or(0, VecDeque::len);
        let queue = self.sites.entry(site).or_default();
        let result = change(queue);
        let after = queue.len();
        self.most.remove(&(before, site));
        match after {
            0 => _ = self.sites.remove(&site),
            after => _ = self.most.insert((after, site)),
        }
        if before == 0 && after > 0 && !self.turns.contains(&site) {
            self.turns.push_back(site);
        }
        result
    }

    fn take(&mut self, digest: &Digest) -> Vec<Aside> {
        let Some(proof) = self.proofs.remove(digest) else { return Vec::new() };
        self.messages -= proof.messages.len();
        if proof.job.is_some() {
            self.change(proof.site, |queue| queue.retain(|queued| queued != digest));
        }
        proof.messages
    }
}

impl Endpoint {
    /// From now on proofs that take long are for somebody else to compute, who asks for them by [`Endpoint::next_proof`].
    pub fn defer_proofs(&mut self) {
        self.proof.defer();
    }

    /// The next proof to be computed.
    pub fn next_proof(&mut self) -> Option<ProofJob> {
        self.waiting.next()
    }

    /// Messages that wait for a proof.
    pub fn waiting(&self) -> usize {
        self.waiting.messages
    }

    /// A proof has been computed: what waited for it is received again. If that failed it is dropped: its senders were not
    /// wrong, and send again. What became of each message.
    pub fn proved(&mut self, now: Instant, rng: &mut dyn Rng, finding: Finding, out: &mut Vec<Output>) -> Vec<Verdict> {
        let messages = self.waiting.take(finding.digest());
        if finding.failed() {
            return vec![Verdict::Dropped(DropReason::ProofFailed); messages.len()];
        }
        self.proof.learn(Some(finding));
        let mut verdicts = Vec::with_capacity(messages.len());
        for Aside { addresses, message, ipv6_packet, shim6_offset } in &messages {
            let (addresses, shim6_offset) = (*addresses, *shim6_offset);
            let packet = Incoming { addresses, message: Ok(message), ipv6_packet, shim6_offset };
            verdicts.push(self.receive(now, rng, packet, out));
        }
        self.proof.learn(None);
        verdicts
    }

    /// Puts a message aside until somebody has computed `job`.
    pub(super) fn put_aside(&mut self, packet: &Incoming<'_>, job: ProofJob) -> Verdict {
        match packet.message {
            Ok(message) if self.waiting.put(packet, message, job) => Verdict::Waiting,
            _ => Verdict::Dropped(DropReason::TooManyWaiting),
        }
    }
}

/// The /48 that an address is in.
fn site_of(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 80) as u64
}

#[cfg(test)]
mod tests {
    use dataplane::wire::ContextTag;
    use dataplane::wire::shim6::Options;

    use super::*;

    /// A message of a site, and its proof.
    fn put(waiting: &mut Waiting, site: u16, number: u16) -> bool {
        let source = Ipv6Addr::new(0x2001, 0xdb8, site, number, 0, 0, 0, 1);
        let message = Message::Keepalive { receiver_tag: ContextTag::truncate(1), options: Options::default() };
        let addresses = Addresses { source, target: Ipv6Addr::LOCALHOST };
        let packet = Incoming { addresses, message: Ok(&message), ipv6_packet: &[], shim6_offset: 40 };
        waiting.put(&packet, &message, ProofJob::of(digest(site, number)))
    }

    fn digest(site: u16, number: u16) -> Digest {
        let mut digest = [0; 32];
        digest[..2].copy_from_slice(&site.to_be_bytes());
        digest[2..4].copy_from_slice(&number.to_be_bytes());
        digest
    }

    fn site_of_next(waiting: &mut Waiting) -> Option<u16> {
        waiting.next().map(|job| u16::from_be_bytes([job.digest()[0], job.digest()[1]]))
    }

    #[test]
    fn sites_have_their_turns_whatever_others_sent() {
        let mut waiting = Waiting::default();
        for number in 0..500 {
            assert!(put(&mut waiting, 1, number));
        }
        for site in 2..5 {
            assert!(put(&mut waiting, site, 0) && put(&mut waiting, site, 1));
        }
        let first: Vec<u16> = std::iter::from_fn(|| site_of_next(&mut waiting)).take(9).collect();
        assert_eq!(first, [1, 2, 3, 4, 1, 2, 3, 4, 1]);
    }

    #[test]
    fn room_is_bounded_and_whoever_has_most_makes_it() {
        let mut waiting = Waiting::default();
        let taken = (0..5000).filter(|number| put(&mut waiting, 1, *number)).count();
        assert_eq!((taken, waiting.messages), (WAITING_MAX, WAITING_MAX));
        for site in 2..100 {
            assert!(put(&mut waiting, site, 0), "there is room for a site that has nothing yet");
        }
        assert!(!put(&mut waiting, 1, 6000));
        assert_eq!(waiting.messages, WAITING_MAX);
        let all: Vec<u16> = std::iter::from_fn(|| site_of_next(&mut waiting)).collect();
        assert_eq!(all.len(), WAITING_MAX);
        assert!((2..100).all(|site| all[..100].contains(&site)));
        // Those under way still take their room until they are answered.
        assert!(!put(&mut waiting, 200, 0));
        assert_eq!(waiting.take(&digest(1, 0)).len(), 1);
        assert!(put(&mut waiting, 200, 0));
    }

    #[test]
    fn messages_that_wait_for_one_proof_are_bounded_and_cost_one() {
        let mut waiting = Waiting::default();
        let taken = (0..200).filter(|_| put(&mut waiting, 1, 0)).count();
        assert_eq!((taken, waiting.messages), (TOGETHER_MAX, TOGETHER_MAX));
        assert!(waiting.next().is_some() && waiting.next().is_none());
        assert_eq!(waiting.take(&digest(1, 0)).len(), TOGETHER_MAX);
        assert_eq!((waiting.messages, waiting.proofs.len(), waiting.sites.len(), waiting.most.len()), (0, 0, 0, 0));
    }

    #[test]
    fn an_answer_that_comes_before_the_job_was_asked_for_ends_it() {
        let mut waiting = Waiting::default();
        assert!(put(&mut waiting, 1, 0) && put(&mut waiting, 1, 1));
        assert_eq!(waiting.take(&digest(1, 0)).len(), 1);
        assert_eq!(waiting.next().map(|job| *job.digest()), Some(digest(1, 1)));
        assert!(waiting.next().is_none());
    }
}
