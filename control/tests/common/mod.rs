//! What scenes of several boxes have in common.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

pub mod lives;

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use control::engine::Story;
use control::manage::api::{ContextState, ContextView};
use control::shim6::How;
use control::sim::{HostId, Node, Plan, ProviderId, SiteId, StreamId, World};
use control::time::Instant;

/// A world that names its seed when the test fails, and is looked through at its end.
pub struct Scene(pub World);

impl Scene {
    pub fn new(plan: &Plan, seed: u64) -> Scene {
        Scene(World::new(plan, seed))
    }

    /// Two hosts that send each other a datagram every 20 ms, and a context that has settled and has a standby.
    pub fn talking(plan: &Plan, seed: u64) -> (Scene, [StreamId; 2]) {
        let mut scene = Scene::new(plan, seed);
        let streams = [scene.stream(0, 1, ms(20)), scene.stream(1, 0, ms(20))];
        scene.run(ms(3000));
        scene.context(0);
        scene.context(1);
        (scene, streams)
    }

    /// The only context of a site; it is established.
    pub fn context(&self, site: SiteId) -> ContextView {
        let mut contexts = self.nodes[site].contexts(self.now);
        assert_eq!(contexts.len(), 1, "{contexts:#?}");
        assert_eq!(contexts[0].state, ContextState::Established);
        contexts.remove(0)
    }

    /// The provider the only context of a site sends through.
    pub fn in_use(&self, site: SiteId) -> ProviderId {
        let local = self.context(site).current.expect("an established context has a pair").local;
        self.provider_of(local).expect("a locator of a provider")
    }

    /// The two boxes mean the same context: each uses the tag the other chose.
    pub fn check_mirrored(&self) {
        let [a, b] = [0, 1].map(|site| self.context(site));
        assert_eq!((&a.local_tag, &a.peer_tag), (&b.peer_tag, &b.local_tag));
        assert_eq!((a.ulid_local, a.ulid_peer), (b.ulid_peer, b.ulid_local));
    }

    /// How contexts became ready, by site.
    pub fn ready(&self, site: SiteId) -> Vec<How> {
        let ready = self.stories.iter().filter_map(|(_, at, story)| match story {
            Story::Ready(_, _, how) if *at == site => Some(*how),
            _ => None,
        });
        ready.collect()
    }

    /// Waits until all streams bring something that is sent from now on. How long that takes at most.
    pub fn until_back(&mut self, streams: &[StreamId], limit: Duration) -> Duration {
        let since = self.now;
        let all = |world: &World| streams.iter().all(|stream| world.streams[*stream].back(since).is_some());
        match self.run_until(limit, all) {
            Some(at) => at.since(since),
            None => {
                let back: Vec<Option<Instant>> =
                    streams.iter().map(|stream| self.streams[*stream].back(since)).collect();
                let tail = self.stories.len().saturating_sub(30);
                panic!("no traffic {limit:?} after {since:?}: {back:?}\n{:#?}", &self.stories[tail..]);
            }
        }
    }

    /// Time passes, and nothing that is sent meanwhile may get lost on the streams.
    pub fn lossless(&mut self, streams: &[StreamId], time: Duration) {
        let since = self.now;
        self.run(time);
        let until = self.now;
        self.run(ms(500));
        for stream in streams {
            assert_eq!(self.streams[*stream].missing(since, until), 0, "stream {stream}");
        }
    }

    /// Types of the control messages sent since `since`, each with its sender's site, in order.
    pub fn messages(&self, since: Instant) -> Vec<(SiteId, String)> {
        let sent = self.captured.iter().filter(|captured| captured.at >= since);
        sent.map(|captured| (self.providers[captured.provider].site, kind(captured))).collect()
    }

    /// A host gets an ICMPv6 error: type, code, the word after the checksum, and the quoted packet.
    pub fn error_at(&self, host: HostId) -> (u8, u8, u32, Vec<u8>) {
        let [(_, packet)] = &self.hosts[host].inbox[..] else { panic!("{:?}", self.hosts[host].inbox) };
        assert_eq!(packet[6], 58, "ICMPv6");
        let icmp = &packet[40..];
        (icmp[0], icmp[1], u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]), icmp[8..].to_vec())
    }
}

/// The type of a captured message.
fn kind(captured: &control::sim::Captured) -> String {
    let text = format!("{:?}", captured.message);
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

impl Deref for Scene {
    type Target = World;
    fn deref(&self) -> &World {
        &self.0
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.0
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, at {:?}; violations: {:#?}", self.0.seed(), self.0.now, self.0.violations);
            return;
        }
        assert!(self.0.violations.is_empty(), "seed {}: {:#?}", self.0.seed(), self.0.violations);
        self.0.nodes.iter().for_each(Node::selfcheck);
    }
}

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
