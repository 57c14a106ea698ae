//! What the engine tells, as lines of the log: so many of a kind per second, and then how many more there were.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::engine::Story;
use crate::publish;
use crate::time::Instant;

/// Lines of one kind in a second. A failing provider moves thousands of contexts; the first few tell the story.
const LINES_PER_SECOND: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// How much was told of each kind of story lately.
#[derive(Debug, Default)]
pub(super) struct Stories {
    kinds: HashMap<Discriminant<Story>, Kind>,
}

#[derive(Debug, Default)]
struct Kind {
    since: Instant,
    told: u32,
    untold: u64,
}

impl Stories {
    /// Writes a line, unless there were enough of its kind in this second.
    pub(super) fn tell(&mut self, now: Instant, story: &Story) {
        let kind = self.kinds.entry(discriminant(story)).or_default();
        if now.since(kind.since) >= SECOND {
            if kind.untold > 0 {
                info!(more = kind.untold, like = ?story, "left out of the log");
            }
            *kind = Kind { since: now, told: 0, untold: 0 };
        }
        if kind.told >= LINES_PER_SECOND {
            kind.untold += 1;
            return;
        }
        kind.told += 1;
        tell(story);
    }
}

fn tell(story: &Story) {
    match story {
        Story::Ready(ulids, pair, how) => {
            info!(local = %ulids.local, peer = %ulids.peer, from = %pair.local, to = %pair.peer, ?how, "context ready");
        }
        Story::Failed(ulids, reason) => warn!(local = %ulids.local, peer = %ulids.peer, ?reason, "no context"),
        Story::Gone(ulids, reason) => info!(local = %ulids.local, peer = %ulids.peer, ?reason, "context gone"),
        Story::Exploring(ulids, pair, reason) => {
            info!(local = %ulids.local, peer = %ulids.peer, from = %pair.local, to = %pair.peer, ?reason, "exploring");
        }
        Story::Moved(ulids, old, new) => info!(
            local = %ulids.local, peer = %ulids.peer,
            old_from = %old.local, old_to = %old.peer, from = %new.local, to = %new.peer,
            "moved to another pair"
        ),
        Story::Provider(name, true) => info!(provider = name, "router answers"),
        Story::Provider(name, false) => warn!(provider = name, "link down, or router does not answer"),
        Story::ForkRefused(ulids, fork, reason) => {
            info!(local = %ulids.local, peer = %ulids.peer, fork, ?reason, "no forked context");
        }
        Story::Names(note) => warn!("dns: {note}"),
        Story::Publish(story) => publish(story),
        Story::PeerError(code, pointer) => debug!(code, pointer, "a peer sent an Error"),
    }
}

fn publish(story: &publish::Story) {
    match story {
        publish::Story::Complete(hosts) => info!(hosts, "names published"),
        publish::Story::Unheard(server, None) => warn!(%server, "names not published: no answer"),
        publish::Story::Unheard(server, Some(said)) => {
            warn!(%server, said, "names not published: no answer with a good signature");
        }
        publish::Story::Refused(name, said) => warn!(name, said, "name not published: refused"),
        publish::Story::Taken(name) => warn!(name, "name not published: somebody else has it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_stories_of_a_kind_make_few_lines() {
        let mut stories = Stories::default();
        let story = |up| Story::Provider("x".into(), up);
        for n in 0..1000 {
            stories.tell(Instant::from_millis(n / 2), &story(true));
        }
        let kind = &stories.kinds[&discriminant(&story(false))];
        assert_eq!((kind.told, kind.untold), (LINES_PER_SECOND, 980));
        stories.tell(Instant::from_millis(1000), &story(true));
        let kind = &stories.kinds[&discriminant(&story(false))];
        assert_eq!((kind.told, kind.untold), (1, 0));
    }
}
