//! What workers tell each other of contexts: see [`guests`](crate::context::shard::guests).

use super::Worker;
use crate::context::Word;
use crate::context::entry::Tally;
use crate::context::shard::guests::Saying;
use crate::counters::Count;
use crate::port::Frame;

/// Words heard from each worker in one turn.
const HEARD: usize = 64;
/// Places looked at in one turn while all guests are being forgotten.
const SWEPT: usize = 64;

impl<F: Frame> Worker<F> {
    /// Hears what the others have to say of contexts. How much there was.
    pub(super) fn listen(&mut self) -> usize {
        if !self.shard.lends() {
            return 0;
        }
        let mut work = 0;
        for other in 0..self.outlets.link.words_from.len() {
            for _ in 0..HEARD {
                let Ok(word) = self.outlets.link.words_from[other].pop() else { break };
                work += 1;
                match word {
                    Word::Lend(copy) => {
                        if let Some(tally) = self.shard.take_guest(&copy) {
                            self.tally(tally);
                        }
                    }
                    Word::Recall(tag) => {
                        if let Some(tally) = self.shard.dismiss(tag) {
                            self.tally(tally);
                        }
                    }
                    Word::RecallAll => self.shard.dismiss_all(),
                    Word::Tally(tally) => {
                        if let Some(handle) = self.shard.add_tally(&tally) {
                            self.replay.received(tally.tag, handle, None, self.outlets.now);
                        }
                    }
                }
            }
        }
        for _ in 0..SWEPT {
            let mut left = None;
            if !self.may_tally() || !self.shard.sweep(&mut |tally| left = Some(tally)) {
                break;
            }
            work += 1;
            if let Some(tally) = left {
                self.tally(tally);
            }
        }
        work
    }

    /// Says what there is to be said of its own contexts. What finds no room is not missed: a copy that could not be lent is
    /// asked for again, and where one could not be recalled, all have to go.
    pub(super) fn speak(&mut self) {
        if !self.shard.lends() {
            return;
        }
        let counters = &*self.outlets.link.counters;
        counters.set(Count::Guests, self.shard.guests().into());
        let (mut lent, mut recalled) = (0, 0);
        let mut unsaid = self.unsaid;
        for saying in 0.. {
            let Some(saying) = self.shard.saying(saying) else { break };
            match saying {
                Saying::Lend(to, slot) if unsaid >> to & 1 == 0 => {
                    let ring = self.outlets.link.words_to.get_mut(usize::from(to));
                    if let Some((ring, copy)) = ring.zip(self.shard.copy(slot))
                        && ring.push(Word::Lend(copy)).is_ok()
                    {
                        lent += 1;
                    }
                }
                Saying::Lend(..) => {}
                Saying::Recall(workers, tag) => {
                    for (to, ring) in self.outlets.link.words_to.iter_mut().enumerate() {
                        if workers >> to & 1 != 0 {
                            recalled += 1;
                            // Behind a word that was not said none is, so that the order is kept.
                            if unsaid >> to & 1 != 0 || ring.push(Word::Recall(tag)).is_err() {
                                unsaid |= 1 << to;
                            }
                        }
                    }
                }
            }
        }
        unsaid |= self.shard.said();
        for (to, ring) in self.outlets.link.words_to.iter_mut().enumerate() {
            if unsaid >> to & 1 != 0 && ring.push(Word::RecallAll).is_ok() {
                unsaid &= !(1 << to);
            }
        }
        self.unsaid = unsaid;
        counters.add(Count::ContextsLent, lent);
        counters.add(Count::ContextsRecalled, recalled);
    }

    /// Whether every owner has room for a tally.
    pub(super) fn may_tally(&self) -> bool {
        self.outlets.link.words_to.iter().all(|ring| ring.slots() > 0)
    }

    /// Tells the owner of a context what happened in its copy.
    pub(super) fn tally(&mut self, tally: Tally) {
        let owner = self.sharding.owner_of_tag(tally.tag).map(usize::from);
        let ring = owner.and_then(|owner| self.outlets.link.words_to.get_mut(owner));
        if ring.is_none_or(|ring| ring.push(Word::Tally(tally)).is_err()) {
            self.outlets.count(Count::NoticesLost);
        }
    }
}
