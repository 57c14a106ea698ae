//! What the engine tells, as lines of the log: so many of a kind per second, and then how many more there were.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::dhcp::Told;
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
        Story::Found(found) => {
            let router = found.router.map_or_else(|| "none".to_owned(), |router| router.to_string());
            info!(provider = found.name, prefixes = ?found.prefixes, router, "provider found");
        }
        Story::Delegation(provider, note) => warn!(provider, "prefix delegation: {note}"),
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
        Story::Carriage(path, drops) => {
            let [from, to] = path.prefixes();
            match drops {
                true => warn!(%from, %to, "path drops next header 140: Shim6 goes in UDP"),
                false => info!(%from, %to, "path carries next header 140 again"),
            }
        }
        Story::Liveness(path, up, after) => {
            let [from, to] = path.prefixes();
            let after_ms = after.as_millis();
            match up {
                true => info!(%from, %to, after_ms, "path is back: the peer's box and this one hear each other"),
                false => warn!(%from, %to, after_ms, "path failed: the peer's box or this one hears nothing"),
            }
        }
        Story::Provider(name, true) => info!(provider = name, "router answers"),
        Story::Provider(name, false) => warn!(provider = name, "link down, or router does not answer"),
        Story::ForkRefused(ulids, fork, reason) => {
            info!(local = %ulids.local, peer = %ulids.peer, fork, ?reason, "no forked context");
        }
        Story::Lease(Told::Bound(client, name, address)) => {
            info!(host = name, %address, duid = %client.duid, iaid = client.iaid, "lease given");
        }
        Story::LeaseDeclined(Told::Declined(client, address)) => {
            warn!(%address, duid = %client.duid, "a client found somebody else with its address, which is quarantined");
        }
        Story::LeaseRefused(Told::Refused(client, via, refusal)) => {
            warn!(duid = %client.duid, iaid = client.iaid, %via, reason = ?refusal, "no address for a client");
        }
        Story::DhcpMalformed(Told::Malformed(source, reason)) => warn!(%source, %reason, "no DHCPv6 message"),
        Story::DhcpUnheard(Told::Relay(source, link)) => {
            warn!(%source, ?link, "a DHCPv6 relay that is not listened to, or names a link that is not ours");
        }
        Story::Lease(told)
        | Story::LeaseDeclined(told)
        | Story::LeaseRefused(told)
        | Story::DhcpMalformed(told)
        | Story::DhcpUnheard(told) => info!(?told, "DHCPv6"),
        Story::NotWritten(reason) => error!(reason, "a lease could not be written; its client was not answered"),
        Story::Store(Some(reason)) => error!(reason, "nothing can be written to the store; leases wait"),
        Story::StoreAlone(Some(reason)) => {
            warn!(reason, "the store that boxes share cannot be reached; new clients get what is reserved for this box")
        }
        Story::StoreAlone(None) => info!("the store that boxes share is reached, and read as a whole"),
        Story::StoreConflict(what) => warn!(what, "another box of the site had changed the same lease"),
        Story::StoreName(Some(rival)) => {
            error!(rival, "the boxes that share a store need names of their own; change box.name of one of them")
        }
        Story::StoreName(None) => info!("no other box goes by the name of this one any more"),
        Story::StoreUnreadable(row) => error!(row, "a row of the store that boxes share cannot be read"),
        Story::Store(None) => info!("the store is written to again"),
        Story::NotServed(name, address) => {
            error!(host = name, %address, "a lease cannot be served: its client gets another address")
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
