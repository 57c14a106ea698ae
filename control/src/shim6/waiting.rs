//! Messages whose proof takes long, and which wait for somebody else to compute it.
//!
//! A signature costs several times what the rest of a handshake does. So the endpoint does not compute it: it puts the message
//! aside, says what is to be proved ([`Endpoint::next_proof`]), and when the answer comes ([`Endpoint::proved`]) it receives the
//! message again, with everything else about it looked at anew. What was proved is remembered by the list, so a peer pays once.
//!
//! Whoever computes has more to do than it can when somebody sends lists without end. Then each /48 has its turn, whatever the
//! others sent, and where there is no room for more, the one with most messages has to do without its latest, also of those that
//! wait for a proof under way: it is dropped, and comes again as if it had been lost. The /48 is that of the locator from which
//! the peer has answered, so it cannot be made up.

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
/// Messages of one site of peers beyond which it is not asked for more.
const CROWD: usize = WAITING_MAX / 4;

/// Messages put aside.
#[derive(Default)]
pub(super) struct Waiting {
    proofs: HashMap<Digest, Proof>,
    sites: HashMap<u64, Site>,
    /// Whose turn it is: those who have proofs that nobody computes yet.
    turns: VecDeque<u64>,
    /// Who has how many messages, those with most last.
    most: BTreeSet<(usize, u64)>,
    messages: usize,
}

/// What a /48 has.
#[derive(Default)]
struct Site {
    /// Proofs nobody computes yet, in the order of their coming.
    queue: VecDeque<Digest>,
    /// Those that somebody computes.
    under_way: VecDeque<Digest>,
    /// Messages that wait for either.
    messages: usize,
}

struct Proof {
    /// Whose it is: where the first message came from.
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
        let digest = *job.digest();
        let known = self.proofs.get(&digest);
        if known.is_some_and(|proof| proof.messages.len() >= TOGETHER_MAX) {
            return false;
        }
        let new = known.is_none();
        let site = known.map_or_else(|| site_of(packet.addresses.source), |proof| proof.site);
        if self.messages >= WAITING_MAX && !self.make_room(site) {
            return false;
        }
        let proof = self.proofs.entry(digest).or_insert_with(|| Proof { site, job: Some(job), messages: Vec::new() });
        proof.messages.push(Aside {
            addresses: packet.addresses,
            message: message.clone(),
            ipv6_packet: packet.ipv6_packet.to_vec(),
            shim6_offset: packet.shim6_offset,
        });
        self.messages += 1;
        self.change(site, |has| {
            has.messages += 1;
            if new {
                has.queue.push_back(digest);
            }
        });
        true
    }

    /// Whether so many messages of the site of an address wait that no more are to be asked for.
    pub(super) fn is_crowded_by(&self, source: Ipv6Addr) -> bool {
        self.messages >= CROWD && self.sites.get(&site_of(source)).is_some_and(|has| has.messages >= CROWD)
    }

    /// Has the site with most messages do without its latest. False if that would be `site` itself, or as good as.
    fn make_room(&mut self, site: u64) -> bool {
        let mine = self.sites.get(&site).map_or(0, |has| has.messages);
        let Some((_, worst)) = self.most.last().copied().filter(|(most, _)| *most > mine + 1) else { return false };
        // Rather one that nobody has begun to work for.
        let latest = self.sites.get(&worst).and_then(|has| has.queue.back().or(has.under_way.back())).copied();
        let Some((digest, proof)) = latest.and_then(|digest| Some((digest, self.proofs.get_mut(&digest)?))) else {
            return false;
        };
        proof.messages.pop();
        let over = proof.messages.is_empty();
        if over {
            self.proofs.remove(&digest);
        }
        self.messages -= 1;
        self.change(worst, |has| {
            has.messages -= 1;
            if over {
                // Whose answer comes all the same finds nobody.
                _ = if has.queue.is_empty() { has.under_way.pop_back() } else { has.queue.pop_back() };
            }
        });
        true
    }

    /// The next proof to be computed: one of each /48 in turn.
    fn next(&mut self) -> Option<ProofJob> {
        while let Some(site) = self.turns.pop_front() {
            let digest = self.change(site, |has| {
                let digest = has.queue.pop_front();
                has.under_way.extend(digest);
                digest
            });
            if self.sites.get(&site).is_some_and(|has| !has.queue.is_empty()) {
                self.turns.push_back(site);
            }
            let job = digest.and_then(|digest| self.proofs.get_mut(&digest)).and_then(|proof| proof.job.take());
            if job.is_some() {
                return job;
            }
        }
        None
    }

    /// Changes what a site has; who has something to be computed has a turn, and who has nothing is not remembered.
    fn change<T>(&mut self, site: u64, change: impl FnOnce(&mut Site) -> T) -> T {
        let has = self.sites.entry(site).or_default();
        let before = (has.messages, has.queue.len());
        let result = change(has);
        let after = (has.messages, has.queue.len());
        self.most.remove(&(before.0, site));
        match after.0 {
            0 => _ = self.sites.remove(&site),
            messages => _ = self.most.insert((messages, site)),
        }
        if before.1 == 0 && after.1 > 0 && !self.turns.contains(&site) {
            self.turns.push_back(site);
        }
        result
    }

    fn take(&mut self, digest: &Digest) -> Vec<Aside> {
        let Some(proof) = self.proofs.remove(digest) else { return Vec::new() };
        let messages = proof.messages.len();
        self.messages -= messages;
        self.change(proof.site, |has| {
            has.messages -= messages;
            let list = if proof.job.is_some() { &mut has.queue } else { &mut has.under_way };
            list.retain(|it| it != digest);
        });
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
        // Those under way take their room until they are answered, and make it for others who have less.
        assert!(!put(&mut waiting, 1, 6000));
        assert!(put(&mut waiting, 200, 0));
        assert_eq!(waiting.messages, WAITING_MAX);
        assert_eq!(waiting.take(&digest(1, 0)).len(), 1);
        assert!(put(&mut waiting, 1, 6000));
    }

    #[test]
    fn whoever_has_most_messages_makes_room_however_few_proofs_they_wait_for() {
        // R5533-312: a few sites with one list each, sent again and again, do not shut out the others.
        for under_way in [false, true] {
            let mut waiting = Waiting::default();
            for site in 0..16 {
                assert_eq!((0..TOGETHER_MAX).filter(|_| put(&mut waiting, site, 0)).count(), TOGETHER_MAX);
            }
            assert_eq!((waiting.messages, waiting.proofs.len()), (WAITING_MAX, 16));
            let jobs: Vec<ProofJob> = std::iter::from_fn(|| waiting.next().filter(|_| under_way)).collect();
            let begun = jobs.len();
            for site in 100..200 {
                assert!(put(&mut waiting, site, 0), "{site} has nothing yet");
                assert_eq!(waiting.messages, WAITING_MAX);
            }
            // All have lost alike, and none has lost all.
            let left = |site| waiting.proofs.get(&digest(site, 0)).map_or(0, |proof| proof.messages.len());
            assert!((0..16).all(|site| (57..=58).contains(&left(site))), "{begun}");
            assert_eq!((0..16).map(left).sum::<usize>(), WAITING_MAX - 100);
            assert!((100..200).all(|site| left(site) == 1));
            consistent(&waiting);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_waits_is_counted_right_whatever_happens(
            steps in proptest::collection::vec((0u8..8, 0u16..6, 0u16..5), 0..2000),
        ) {
            let (mut waiting, mut under_way) = (Waiting::default(), Vec::new());
            for (what, site, number) in steps {
                match what {
                    0 => under_way.extend(waiting.next().map(|job| *job.digest())),
                    1 => _ = under_way.pop().map(|digest| waiting.take(&digest)),
                    2 => _ = waiting.take(&digest(site, number)),
                    _ => for _ in 0..8 {
                        put(&mut waiting, site, number);
                    },
                }
                consistent(&waiting);
            }
            while let Some(job) = waiting.next() {
                waiting.take(job.digest());
            }
            under_way.iter().for_each(|digest| _ = waiting.take(digest));
            assert_eq!((waiting.messages, waiting.proofs.len(), waiting.sites.len()), (0, 0, 0));
            assert!(waiting.most.is_empty() && waiting.turns.is_empty());
        }
    }

    /// Panics if the indices disagree with the proofs.
    fn consistent(waiting: &Waiting) {
        let count = |of: &dyn Fn(&Proof) -> bool| {
            waiting.proofs.values().filter(|proof| of(proof)).map(|proof| proof.messages.len()).sum::<usize>()
        };
        assert_eq!(waiting.messages, count(&|_| true));
        assert!(waiting.messages <= WAITING_MAX && waiting.proofs.values().all(|proof| !proof.messages.is_empty()));
        assert_eq!(waiting.most.len(), waiting.sites.len());
        for (site, has) in &waiting.sites {
            assert_eq!(has.messages, count(&|proof| proof.site == *site));
            assert!(waiting.most.contains(&(has.messages, *site)));
            let begun = |digest: &Digest| waiting.proofs[digest].job.is_none();
            assert!(has.under_way.iter().all(begun) && !has.queue.iter().any(begun));
            assert!(has.queue.is_empty() || waiting.turns.contains(site), "a site with work has a turn");
        }
        let listed: usize = waiting.sites.values().map(|has| has.queue.len() + has.under_way.len()).sum();
        assert_eq!(listed, waiting.proofs.len());
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
