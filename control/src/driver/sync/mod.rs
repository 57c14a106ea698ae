//! Telling other boxes of the site of contexts, and hearing of theirs (docs/decisions: state sync).

mod link;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Clock;
use crate::config::sync::{Sync as Settings, SyncFiles};
use crate::config::{Configuration, Site};
use crate::engine::{Effect, Engine, GroupPlan, Keys};
use crate::manage::api::{SyncBoxView, SyncView};
use crate::sync::{ALIVE, Common, FromHearer, FromTeller, Hello, Partner, VERSION, encode, shared_keys};
use crate::tape::Inputs;
use crate::time::Instant;
use link::{Event, LinkId, Out, Refusals};

/// Events, and batches told to each box, in one turn of the control thread, so that those of the workers never wait long.
const EVENTS_PER_TURN: usize = 8;
const BATCHES_PER_TURN: usize = 2;
/// Connections of others that have not said who they are; the next one ends the oldest.
const STRANGERS_MAX: usize = 16;

/// The other boxes of the site.
pub(super) struct Boxes {
    settings: Settings,
    events: Receiver<Event>,
    /// Gives other files to connections that come later.
    files: watch::Sender<SyncFiles>,
    others: Vec<Other>,
    strangers: Vec<Stranger>,
    refusals: Arc<Refusals>,
    hello: Hello,
    alive: Instant,
    /// Those who came and were not to be in the group.
    turned_away: u64,
}

/// One of them.
struct Other {
    partner: Partner,
    /// Over which we tell it, and over which it tells us.
    telling: Option<(LinkId, Out)>,
    hearing: Option<(LinkId, Out)>,
    /// How far it has to be told that we have come.
    heard: Option<u64>,
    /// Why it could not be reached, once it was said.
    unreached: Option<String>,
    /// When it said anything last.
    last: Option<Instant>,
}

/// Somebody who has not said who he is.
struct Stranger {
    link: LinkId,
    from: IpAddr,
    out: Out,
}

/// The engine is one of several from now on, if the configuration says so. To be called before it knows any context.
pub(super) fn join(configuration: &Configuration, clock: Clock, inputs: &mut Inputs<'_>, takes_over: bool) {
    let Some(sync) = &configuration.site.sync else { return };
    let (now, wall) = (clock.now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let plan = GroupPlan {
        box_id: configuration.site.node.id,
        boxes: sync.boxes(),
        others: sync.peers.len(),
        // Who is told by the process before it waits for nobody: the box is fit, and its routes stay.
        patience: if takes_over { Duration::ZERO } else { sync.patience },
        base: wall.saturating_sub(now.0).as_micros() as u64,
    };
    inputs.unrecorded().0.join_group(now, plan);
}

/// The keys of a box that begins.
#[cfg_attr(not(feature = "dpdk"), allow(dead_code, reason = "only a box with devices begins"))]
pub(super) fn keys(configuration: &Configuration, rng: &mut dyn Rng) -> Keys {
    let drawn = Keys::draw(rng);
    match &configuration.sync {
        Some(files) => shared_keys(&files.secret, drawn),
        None => drawn,
    }
}

impl Boxes {
    /// Begins to talk to the others, if there are any.
    pub(super) fn start(
        site: &Site,
        files: Option<&SyncFiles>,
        rng: &mut StdRng,
        engine: &Engine,
    ) -> std::io::Result<Option<Boxes>> {
        let (Some(settings), Some(files)) = (&site.sync, files) else { return Ok(None) };
        let refusals = Arc::new(Refusals::default());
        let (events, files) = link::start(settings, files, refusals.clone())?;
        let partner = |at| Partner::new(at);
        let other =
            |at| Other { partner: partner(at), telling: None, hearing: None, heard: None, unreached: None, last: None };
        Ok(Some(Boxes {
            settings: settings.clone(),
            events,
            files,
            others: (0..settings.peers.len()).map(other).collect(),
            strangers: Vec::new(),
            refusals,
            hello: hello(site, settings, rng.next_u64(), engine),
            alive: Instant::START,
            turned_away: 0,
        }))
    }

    /// Connections that come later are opened with these certificates. The secret they say is not taken: what was made with the
    /// old one is in every context.
    pub(super) fn renew(&self, files: &SyncFiles) {
        self.files.send_replace(files.clone());
    }

    /// Hears and tells. How much there was to do.
    pub(super) fn turn(&mut self, now: Instant, inputs: &mut Inputs<'_>, effects: &mut Vec<Effect>) -> usize {
        // A box with others is not recorded.
        let (engine, rng) = inputs.unrecorded();
        let mut done = 0;
        while done < EVENTS_PER_TURN
            && let Ok(event) = self.events.try_recv()
        {
            done += 1;
            self.happened(now, rng, engine, event, effects);
        }
        for other in &mut self.others {
            if let (Some(number), Some((_, out))) = (other.heard, &other.hearing)
                && out.try_send(encode(&FromHearer::Ack(number)).into()).is_ok()
            {
                other.heard = None;
            }
            let Some((_, out)) = &other.telling else { continue };
            done += other.partner.tell(now, engine, BATCHES_PER_TURN, &mut |frame| {
                out.try_send(frame).map_err(|error| match error {
                    TrySendError::Full(frame) | TrySendError::Closed(frame) => frame,
                })
            });
        }
        if self.alive <= now {
            self.alive = now + ALIVE;
            for other in &self.others {
                if let Some((_, out)) = &other.hearing {
                    let _ = out.try_send(encode(&FromHearer::Alive).into());
                }
                if let (Some((_, out)), Some(frame)) = (&other.telling, other.partner.alive()) {
                    let _ = out.try_send(frame);
                }
            }
        }
        done
    }

    fn happened(
        &mut self,
        now: Instant,
        rng: &mut StdRng,
        engine: &mut Engine,
        event: Event,
        effects: &mut Vec<Effect>,
    ) {
        match event {
            Event::Reached(at, link, out) => {
                self.hello.clock = engine.group_clock(now);
                let _ = out.try_send(encode(&FromTeller::Hello(Box::new(self.hello.clone()))).into());
                let Some(other) = self.others.get_mut(at) else { return };
                other.unreached = None;
                other.telling = Some((link, out));
            }
            Event::Answered(link, answer) => self.answered(now, engine, link, answer),
            Event::Came(link, from, out) => {
                if self.strangers.len() >= STRANGERS_MAX {
                    self.strangers.remove(0);
                }
                self.strangers.push(Stranger { link, from, out });
            }
            Event::Said(link, FromTeller::Hello(hello)) => self.greeted(now, engine, link, &hello),
            Event::Said(link, said) => {
                let found = self.others.iter_mut().find(|other| other.hearing.as_ref().is_some_and(|it| it.0 == link));
                // From somebody who has not said who he is, or was replaced since: nothing of it counts.
                let Some(other) = found else { return self.strangers.retain(|stranger| stranger.link != link) };
                other.last = Some(now);
                match other.partner.told(now, rng, engine, said, effects) {
                    Ok(heard) => other.heard = heard.or(other.heard),
                    Err(error) => {
                        warn!(box_id = other.partner.is().map(|it| it.0), %error, "another box is asked to begin anew");
                        other.hearing = None;
                        other.partner.silent(engine);
                    }
                }
            }
            Event::Gone(link) => self.gone(engine, link),
            Event::Unreached(at, reason) => {
                let Some(other) = self.others.get_mut(at) else { return };
                if other.unreached.as_ref() != Some(&reason) {
                    warn!(peer = %self.settings.peers[at], reason, "another box of the site is not reached");
                    other.unreached = Some(reason);
                }
            }
        }
    }

    fn answered(&mut self, now: Instant, engine: &mut Engine, link: LinkId, answer: FromHearer) {
        let found = self.others.iter_mut().find(|other| other.telling.as_ref().is_some_and(|it| it.0 == link));
        let Some(other) = found else { return };
        other.last = Some(now);
        let welcome = matches!(answer, FromHearer::Welcome(_));
        if let FromHearer::Refused(reason) = &answer
            && other.partner.refused() != Some(reason)
        {
            warn!(reason, "another box of the site refuses what this one tells; it serves alone");
        }
        if !other.partner.answered(engine, answer) {
            other.telling = None;
            other.partner.deaf(engine);
        } else if welcome {
            info!(
                box_id = other.partner.is().map(|it| it.0),
                left = other.partner.counts(engine).behind,
                "tells another box"
            );
        }
    }

    /// Somebody says who he is.
    fn greeted(&mut self, now: Instant, engine: &mut Engine, link: LinkId, hello: &Hello) {
        let at = self.strangers.iter().position(|stranger| stranger.link == link);
        let Some(stranger) = at.map(|at| self.strangers.remove(at)) else { return };
        let refuse = |reason: String| {
            let _ = stranger.out.try_send(encode(&FromHearer::Refused(reason)).into());
        };
        let Some(at) = self.whose(stranger.from, hello.box_id) else {
            self.turned_away += 1;
            return refuse(format!("no other box is known here at {}", stranger.from));
        };
        let other = &mut self.others[at];
        let before = other.partner.refused().map(str::to_owned);
        let (answer, fits) = other.partner.greeted(now, engine, hello, &self.hello);
        if let FromHearer::Refused(reason) = &answer {
            self.turned_away += 1;
            if before.as_ref() != Some(reason) {
                warn!(
                    box_id = hello.box_id,
                    name = hello.name,
                    reason,
                    "another box cannot tell this one; it serves alone"
                );
            }
        }
        let _ = stranger.out.try_send(encode(&answer).into());
        if fits {
            other.last = Some(now);
            if other.hearing.replace((link, stranger.out)).is_some() {
                other.partner.silent(engine);
            }
            info!(box_id = hello.box_id, name = hello.name, "another box tells this one");
        }
    }

    /// Which of the others somebody is: the one that has his number, else one at his address.
    fn whose(&self, from: IpAddr, box_id: u8) -> Option<usize> {
        let here = |at: &usize| self.settings.peer_ip(*at) == Some(from.to_canonical());
        let numbered = |at: &usize| self.others[*at].partner.is().is_some_and(|(known, _)| known == box_id);
        let unknown = |at: &usize| self.others[*at].partner.is().is_none();
        let all = || 0..self.others.len();
        let found = all().filter(here).find(numbered);
        found.or_else(|| all().filter(here).find(unknown)).or_else(|| all().find(here))
    }

    fn gone(&mut self, engine: &mut Engine, link: LinkId) {
        self.strangers.retain(|stranger| stranger.link != link);
        for other in &mut self.others {
            if other.telling.as_ref().is_some_and(|it| it.0 == link) {
                other.telling = None;
                warn!(box_id = other.partner.is().map(|it| it.0), "another box hears nothing any more");
                other.partner.deaf(engine);
            }
            if other.hearing.as_ref().is_some_and(|it| it.0 == link) {
                other.hearing = None;
                warn!(box_id = other.partner.is().map(|it| it.0), "another box is not heard any more");
                other.partner.silent(engine);
            }
        }
    }

    /// How it stands with each of them.
    pub(super) fn view(&self, now: Instant, engine: &Engine) -> SyncView {
        let view = |(at, other): (usize, &Other)| {
            let counts = other.partner.counts(engine);
            SyncBoxView {
                address: self.settings.peers[at].to_string(),
                id: other.partner.is().map(|it| it.0),
                name: other.partner.is().map(|it| it.1.to_owned()).unwrap_or_default(),
                hears: counts.hears,
                heard: counts.heard,
                caught_up: counts.told_all,
                refused: other.partner.refused().map(str::to_owned).or_else(|| other.unreached.clone()),
                last_heard_ms: other.last.map(|at| now.since(at).as_millis() as u64),
                behind: counts.behind,
                waiting: counts.waiting,
                sent: counts.sent,
                resent: counts.resent,
                received: counts.received,
                repeated: counts.repeated,
                contexts_told: counts.contexts.told,
                contexts_taken: counts.contexts.taken,
                contexts_older: counts.contexts.older,
                contexts_refused: counts.contexts.refused,
                dropped: counts.contexts.dropped,
            }
        };
        SyncView {
            caught_up: engine.is_caught_up(now),
            boxes: self.others.iter().enumerate().map(view).collect(),
            handshakes_failed: self.refusals.handshakes.load(Ordering::Relaxed),
            nonsense: self.refusals.nonsense.load(Ordering::Relaxed),
            turned_away: self.turned_away,
        }
    }
}

#[cfg(test)]
mod tests;

/// What this box says of itself.
fn hello(site: &Site, settings: &Settings, life: u64, engine: &Engine) -> Hello {
    Hello {
        version: VERSION,
        box_id: site.node.id,
        name: site.node.name.clone(),
        life,
        clock: 0,
        common: Common::of(site, settings.boxes(), engine.keys()),
    }
}
