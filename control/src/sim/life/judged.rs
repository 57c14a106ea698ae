//! What must hold of a life at any time, or at a certain one.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use dataplane::wire::Ulid;
use dataplane::wire::ipv6::protocol;

use super::Life;
use crate::sim::{Oracle, packet};
use crate::time::Instant;

impl Life {
    /// The new owner of an identifier got nothing that was sent to the old one.
    pub(super) fn inherit(&mut self) {
        let Some(heir) = self.heir.filter(|_| !self.forgotten) else { return };
        let host = &self.world.hosts[heir];
        let meant_for_another = |packet: &Vec<u8>| matches!(packet.get(6), Some(&(protocol::UDP | protocol::TCP)));
        if let Some((at, packet)) = host.inbox.iter().find(|(_, packet)| meant_for_another(packet)) {
            let text = format!("host {heir} got {} at {at:?}", packet::summary(packet));
            self.world.violation(Some(host.site), Oracle::Quarantine, text);
        }
    }

    /// What was sent in a time without faults has arrived, once and in order.
    pub(super) fn calm(&mut self, from: Instant, until: Instant) {
        for id in &self.streams {
            let (missing, odd) = self.world.streams[*id].faults(from, until);
            if missing > 0 {
                let text = format!("{missing} datagrams of stream {id} sent from {from:?} to {until:?}");
                self.world.violation(None, Oracle::Lost, text);
            }
            if odd > 0 {
                let text = format!("{odd} datagrams of stream {id} sent from {from:?} to {until:?}");
                self.world.violation(None, Oracle::Order, text);
            }
        }
    }

    /// What must hold at any time.
    pub(super) fn check(&mut self) {
        let mut found = Vec::new();
        self.world.nodes.iter().for_each(super::super::Node::selfcheck);
        let all = self.world.nodes.iter().enumerate().flat_map(|(site, node)| node.all().map(move |node| (site, node)));
        for (site, node) in all {
            let mut pairs: BTreeMap<(Ipv6Addr, Ipv6Addr, u32), u32> = BTreeMap::new();
            for context in node.engine.contexts() {
                let (local, peer) = (context.ulids.local, context.ulids.peer);
                *pairs.entry((local.0, peer.0, context.fork)).or_default() += 1;
                let owned = self.world.ledger.owned.get(&peer);
                let believed =
                    context.peer_locators.iter().filter(|known| known.verified && Ulid(known.locator.0) != peer);
                for known in believed {
                    if !owned.is_some_and(|owned| owned.contains(&known.locator.0)) {
                        found.push((site, Oracle::Owned, format!("{} is said to be of {peer}", known.locator)));
                    }
                }
            }
            found.extend(
                pairs
                    .into_iter()
                    .filter(|(_, count)| *count > 1)
                    .map(|(pair, count)| (site, Oracle::Consistent, format!("{count} contexts for {pair:?}"))),
            );
        }
        found.into_iter().for_each(|(site, oracle, text)| self.world.violation(Some(site), oracle, text));
    }
}
