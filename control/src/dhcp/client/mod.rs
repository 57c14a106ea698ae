//! The other side of DHCPv6: a provider's server delegates prefixes to the box (RFC 8415 §18.2, one IA_PD).
//!
//! [`Client`] is a machine without a clock, socket or file. Whatever changes what the box has is one [`Output::Changed`],
//! and what must survive a restart is [`Client::stored`]. A prefix is used from the moment it is delegated to the end of its
//! valid lifetime; it is *deprecated* when its preferred lifetime is over, or the server said nothing of it any more while
//! it delegated others. Nothing that a server says makes the box forget a prefix before the server has said so or its time
//! is over, and nothing makes it send faster than [`Client`]'s own clocks let it.
//!
//! ```text
//!            Advertise            Reply              T1               T2
//!  Soliciting ------> Requesting ------> Bound ----------> Renewing ------> Rebinding
//!      ^                 |   ^             ^  \______________/ | NoBinding     | Reply
//!      |  NoPrefixAvail, |   |             |       Reply       |               |
//!      +-----------------+   +-------------|-------------------+               |
//!      |  ten times unheard                +-----------------------------------+
//!      +---------------------------------------------------- all lifetimes over
//! ```

mod types;
mod wire;

#[cfg(test)]
mod tests;

use std::net::Ipv6Addr;
use std::time::Duration;

use rand::Rng;

use self::types::StoredPrefix;
pub use self::types::{Delegated, Note, Output, Settings, Stage, Stored};
use self::wire::{Answer, Ia, Kind, Offered, Question};
use super::Duid;
use crate::time::Instant;

/// Where questions go (RFC 8415 §7.1).
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Prefixes that are kept of one provider; of more in an answer the first count.
pub const PREFIXES_MAX: usize = 8;

/// RFC 8415 §7.6.
const SOL_MAX_DELAY: Duration = Duration::from_secs(1);
const SOL_TIMEOUT: Duration = Duration::from_secs(1);
const SOL_MAX_RT: Duration = Duration::from_secs(3_600);
const REQ_TIMEOUT: Duration = Duration::from_secs(1);
const REQ_MAX_RT: Duration = Duration::from_secs(30);
const REQ_MAX_RC: u32 = 10;
const REN_TIMEOUT: Duration = Duration::from_secs(10);
const REN_MAX_RT: Duration = Duration::from_secs(600);
const REB_TIMEOUT: Duration = Duration::from_secs(10);
const REB_MAX_RT: Duration = Duration::from_secs(600);
const REL_TIMEOUT: Duration = Duration::from_secs(1);
const REL_MAX_RC: u32 = 4;
/// §18.2.12: whether what was delegated before is still good is asked as Confirm would ask it.
const CNF_MAX_DELAY: Duration = Duration::from_secs(1);
const CNF_TIMEOUT: Duration = Duration::from_secs(1);
const CNF_MAX_RT: Duration = Duration::from_secs(4);
const CNF_MAX_RD: Duration = Duration::from_secs(10);
/// The shortest time to an extension that is obeyed: a server must not have the box ask without rest.
const T1_MIN: Duration = Duration::from_secs(5);
/// Who was refused asks again after twice as long each time, from the first to the second.
const REFUSED_MIN: Duration = Duration::from_secs(1);
const REFUSED_MAX: Duration = Duration::from_secs(120);

/// A question on its way.
#[derive(Debug)]
struct Exchange {
    transaction: [u8; 3],
    began: Option<Instant>,
    /// RT.
    wait: Duration,
    /// When to send, again or for the first time.
    next: Instant,
    count: u32,
}

#[derive(Debug)]
struct Chosen {
    server: Duid,
    preference: u8,
    prefixes: Vec<(Ipv6Addr, u8)>,
}

#[derive(Debug)]
struct Lease {
    server: Duid,
    t1: Option<Instant>,
    t2: Option<Instant>,
    prefixes: Vec<Delegated>,
}

/// Whether a prefix can be used.
pub type Fits<'a> = &'a dyn Fn(Ipv6Addr, u8) -> bool;

/// The machine.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    stage: Stage,
    exchange: Option<Exchange>,
    /// The best server so far, or the one that is asked.
    chosen: Option<Chosen>,
    lease: Option<Lease>,
    /// While Rebinding: when what was delegated is taken for good though nobody answers.
    confirm: Option<Instant>,
    last_confirm: Option<Instant>,
    sol_max_rt: Duration,
    refused: u32,
    /// What was told of last: prefixes, and whether they are deprecated.
    told: Vec<(Ipv6Addr, u8, bool)>,
}

impl Client {
    /// Does nothing before [`Client::start`].
    pub fn new(settings: Settings) -> Client {
        Client {
            settings,
            stage: Stage::Idle,
            exchange: None,
            chosen: None,
            lease: None,
            confirm: None,
            last_confirm: None,
            sol_max_rt: SOL_MAX_RT,
            refused: 0,
            told: Vec::new(),
        }
    }

    /// What it had before a restart; `epoch` is what the clock on the wall said, in seconds, at [`Instant::START`].
    pub fn restore(&mut self, stored: &Stored, epoch: u64) {
        let at = |unix: Option<u64>| unix.map(|unix| Instant(Duration::from_secs(unix.saturating_sub(epoch))));
        let prefixes = stored.prefixes.iter().take(PREFIXES_MAX).map(|it| Delegated {
            prefix: it.prefix,
            length: it.length.min(128),
            preferred: at(it.preferred),
            valid: at(it.valid),
            current: it.current,
        });
        let lease =
            Lease { server: stored.server.clone(), t1: at(stored.t1), t2: at(stored.t2), prefixes: prefixes.collect() };
        self.lease = Some(lease);
    }

    /// What has to survive a restart; nothing if nothing is delegated.
    pub fn stored(&self, epoch: u64) -> Option<Stored> {
        let unix = |at: Option<Instant>| at.map(|at| at.0.as_secs().saturating_add(epoch));
        let lease = self.lease.as_ref()?;
        let prefixes = lease.prefixes.iter().map(|it| StoredPrefix {
            prefix: it.prefix,
            length: it.length,
            preferred: unix(it.preferred),
            valid: unix(it.valid),
            current: it.current,
        });
        let (server, t1, t2) = (lease.server.clone(), unix(lease.t1), unix(lease.t2));
        Some(Stored { server, t1, t2, prefixes: prefixes.collect() })
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What is delegated now.
    pub fn delegated(&self) -> &[Delegated] {
        self.lease.as_ref().map(|lease| lease.prefixes.as_slice()).unwrap_or_default()
    }

    /// Begins: asks whether what it had is still good (§18.2.12), or for something.
    pub fn start(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        if self.stage != Stage::Idle {
            return;
        }
        self.drop_what_is_over(now);
        match self.lease {
            Some(_) => self.ask_whether_good(now, rng),
            None => self.solicit(now, rng, Duration::ZERO),
        }
        self.tell(now, out);
    }

    /// The link went and came back: it may be another one (§18.2.12).
    pub fn link_up(&mut self, now: Instant, rng: &mut dyn Rng) {
        let lately = self.last_confirm.is_some_and(|at| now.since(at) < CNF_MAX_RD);
        if matches!(self.stage, Stage::Bound | Stage::Renewing) && self.lease.is_some() && !lately {
            self.ask_whether_good(now, rng);
        }
    }

    /// Gives everything back (§18.2.7). What is delegated is not used from now on.
    pub fn release(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        let had = self.lease.take();
        self.begin(now, rng, Stage::Releasing, Duration::ZERO, REL_TIMEOUT);
        match had {
            Some(lease) => {
                let prefixes = lease.prefixes.iter().map(|it| (it.prefix, it.length)).collect();
                self.chosen = Some(Chosen { server: lease.server, preference: 0, prefixes });
            }
            None => self.stop(),
        }
        self.tell(now, out);
        self.expire(now, rng, out);
    }

    fn stop(&mut self) {
        (self.stage, self.exchange, self.chosen) = (Stage::Idle, None, None);
    }

    /// When [`Client::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let sending = self.exchange.as_ref().map(|exchange| exchange.next);
        let lease = self.lease.as_ref();
        let turn = lease.and_then(|lease| match self.stage {
            Stage::Bound => lease.t1,
            Stage::Renewing => lease.t2,
            _ => None,
        });
        let told = |it: &&Delegated| self.told.contains(&(it.prefix, it.length, false));
        let ends = lease.iter().flat_map(|lease| &lease.prefixes).flat_map(|it| {
            let preferred = Some(it).filter(told).and_then(|it| it.preferred);
            [preferred, it.valid].into_iter().flatten()
        });
        let confirm = self.confirm.filter(|_| self.stage == Stage::Rebinding);
        [sending, turn, confirm].into_iter().flatten().chain(ends).min()
    }

    /// Lets everything run whose time has come.
    pub fn expire(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        self.drop_what_is_over(now);
        let (t1, t2) = self.lease.as_ref().map_or((None, None), |lease| (lease.t1, lease.t2));
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self.stage {
            Stage::Bound | Stage::Renewing | Stage::Rebinding if self.lease.is_none() => {
                self.solicit(now, rng, Duration::ZERO);
            }
            Stage::Bound if due(t2) => self.begin(now, rng, Stage::Rebinding, Duration::ZERO, REB_TIMEOUT),
            Stage::Bound if due(t1) => self.begin(now, rng, Stage::Renewing, Duration::ZERO, REN_TIMEOUT),
            Stage::Renewing if due(t2) => self.begin(now, rng, Stage::Rebinding, Duration::ZERO, REB_TIMEOUT),
            Stage::Rebinding if due(self.confirm) => {
                // Nobody spoke against it: its own times count again.
                (self.stage, self.exchange, self.confirm) = (Stage::Bound, None, None);
                self.tell(now, out);
                return self.expire(now, rng, out);
            }
            _ => {}
        }
        if self.exchange.as_ref().is_some_and(|exchange| exchange.next <= now) {
            self.transmit(now, rng, out);
        }
        self.tell(now, out);
    }

    /// A datagram came from a server. Prefixes that do not fit are not taken.
    pub fn receive(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        octets: &[u8],
        fits: Fits<'_>,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(answer) = self.read(octets) else { return false };
        self.drop_what_is_over(now);
        if let Some(longest) = answer.sol_max_rt {
            self.sol_max_rt = longest;
        }
        match (self.stage, answer.kind) {
            (Stage::Soliciting, Kind::Advertise) => self.advertised(now, rng, answer, fits, out),
            (Stage::Soliciting, Kind::Reply) if answer.rapid_commit && self.settings.rapid_commit => {
                self.replied(now, rng, answer, fits, out);
            }
            (Stage::Requesting, Kind::Reply) if self.is_chosen(&answer.server) => {
                self.replied(now, rng, answer, fits, out);
            }
            (Stage::Renewing, Kind::Reply) if self.is_lessor(&answer.server) => {
                self.replied(now, rng, answer, fits, out);
            }
            (Stage::Rebinding, Kind::Reply) => self.replied(now, rng, answer, fits, out),
            // Whatever it says, it has heard.
            (Stage::Releasing, Kind::Reply) if self.is_chosen(&answer.server) => self.stop(),
            (Stage::Idle | Stage::Bound, _)
            | (Stage::Soliciting | Stage::Requesting | Stage::Renewing | Stage::Releasing, Kind::Reply)
            | (Stage::Requesting | Stage::Renewing | Stage::Rebinding | Stage::Releasing, Kind::Advertise) => {
                return false;
            }
        }
        self.tell(now, out);
        true
    }

    /// §16.3, §16.10: for us, and an answer to what was asked last.
    fn read(&self, octets: &[u8]) -> Option<Answer> {
        let answer = Answer::parse(octets, self.settings.iaid).ok()?;
        let asked = self.exchange.as_ref().filter(|exchange| exchange.count > 0)?;
        (answer.transaction == asked.transaction && answer.client == self.settings.duid).then_some(answer)
    }

    fn is_chosen(&self, server: &Duid) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| chosen.server == *server)
    }

    fn is_lessor(&self, server: &Duid) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.server == *server)
    }

    /// §18.2.9
    fn advertised(&mut self, now: Instant, rng: &mut dyn Rng, answer: Answer, fits: Fits<'_>, out: &mut Vec<Output>) {
        let refused = answer.status != 0 || answer.ia.as_ref().is_none_or(|ia| ia.status != 0);
        let Some(ia) = answer.ia.filter(|_| !refused) else { return out.push(Output::Note(Note::Refused)) };
        let offered = ia.prefixes.iter().filter(|it| it.valid > 0).map(|it| (it.prefix, it.length));
        let (good, bad): (Vec<_>, Vec<_>) = offered.partition(|(prefix, length)| fits(*prefix, *length));
        if good.is_empty() {
            let note = bad.first().map_or(Note::Refused, |(prefix, length)| Note::Unusable(*prefix, *length));
            return out.push(Output::Note(note));
        }
        let Answer { server, preference, .. } = answer;
        if self.chosen.as_ref().is_none_or(|best| best.preference < preference) {
            self.chosen = Some(Chosen { server, preference, prefixes: good });
        }
        // The first that comes when the time to compare is over is as good as any.
        let compared = self.exchange.as_ref().is_some_and(|exchange| exchange.count > 1);
        if compared || preference == u8::MAX {
            self.begin(now, rng, Stage::Requesting, Duration::ZERO, REQ_TIMEOUT);
            self.transmit(now, rng, out);
        }
    }

    /// §18.2.10
    fn replied(&mut self, now: Instant, rng: &mut dyn Rng, answer: Answer, fits: Fits<'_>, out: &mut Vec<Output>) {
        use wire::status::{NO_BINDING, NO_PREFIX_AVAIL, SUCCESS};
        let asked = self.stage;
        let extends = matches!(asked, Stage::Renewing | Stage::Rebinding);
        match (answer.status, answer.ia) {
            // Who extends nothing, and takes nothing back, is asked again as if it had not answered.
            (SUCCESS, Some(ia)) if ia.status == SUCCESS && extends && ia.prefixes.is_empty() => {}
            (SUCCESS, Some(ia)) if ia.status == SUCCESS => self.take(now, rng, answer.server, ia, fits, out),
            (NO_BINDING, _) if extends => self.ask_anew(now, rng, answer.server, out),
            (SUCCESS, Some(ia)) if ia.status == NO_BINDING && extends => self.ask_anew(now, rng, answer.server, out),
            // Something failed there and may not the next time (§18.2.10): as if it had not answered.
            (status, Some(ia)) if status != NO_PREFIX_AVAIL && ia.status == SUCCESS => {}
            (_, _) if asked == Stage::Requesting => self.was_refused(now, rng, Note::Refused, out),
            (_, _) => {}
        }
    }

    /// The server knows nothing of what it delegated: it is asked as if for the first time, and what is still valid stays.
    fn ask_anew(&mut self, now: Instant, rng: &mut dyn Rng, server: Duid, out: &mut Vec<Output>) {
        out.push(Output::Note(Note::Forgotten));
        let prefixes = self.delegated().iter().map(|it| (it.prefix, it.length)).collect();
        self.chosen = Some(Chosen { server, preference: 0, prefixes });
        self.begin(now, rng, Stage::Requesting, Duration::ZERO, REQ_TIMEOUT);
        self.transmit(now, rng, out);
    }

    fn was_refused(&mut self, now: Instant, rng: &mut dyn Rng, note: Note, out: &mut Vec<Output>) {
        out.push(Output::Note(note));
        let pause = REFUSED_MIN.saturating_mul(1 << self.refused.min(10)).min(REFUSED_MAX);
        self.refused = self.refused.saturating_add(1);
        self.solicit(now, rng, pause);
    }

    /// What a server delegates, extends or takes back.
    fn take(&mut self, now: Instant, rng: &mut dyn Rng, server: Duid, ia: Ia, fits: Fits<'_>, out: &mut Vec<Output>) {
        let (bad, good): (Vec<Offered>, Vec<Offered>) =
            ia.prefixes.iter().partition(|it| it.valid > 0 && !fits(it.prefix, it.length));
        let granted = good.iter().any(|it| it.valid > 0);
        let old = self.lease.take().map(|lease| lease.prefixes).unwrap_or_default();
        let of = |it: &Delegated| good.iter().find(|new| (new.prefix, new.length) == (it.prefix, it.length));
        // What is not spoken of lives on to its end, and is not what the server wants used.
        let mut prefixes: Vec<Delegated> = good.iter().filter(|it| it.valid > 0).map(|it| it.delegated(now)).collect();
        prefixes.truncate(PREFIXES_MAX);
        let rest = old.iter().filter(|it| of(it).is_none());
        prefixes.extend(rest.map(|it| Delegated { current: it.current && !granted, ..*it }));
        prefixes.truncate(PREFIXES_MAX);
        let (t1, t2) = times(now, &ia, &good);
        self.lease = Some(Lease { server, t1, t2, prefixes });
        self.drop_what_is_over(now);
        if granted {
            self.refused = 0;
            (self.stage, self.exchange, self.chosen, self.confirm) = (Stage::Bound, None, None, None);
            return;
        }
        let note = bad.first().map_or(Note::Refused, |it| Note::Unusable(it.prefix, it.length));
        // Nothing new, and perhaps something less: servers are looked for while the rest lasts.
        self.was_refused(now, rng, note, out);
    }

    fn drop_what_is_over(&mut self, now: Instant) {
        if let Some(lease) = &mut self.lease {
            lease.prefixes.retain(|it| !it.is_over(now));
        }
        if self.lease.as_ref().is_some_and(|lease| lease.prefixes.is_empty()) {
            self.lease = None;
        }
    }

    fn ask_whether_good(&mut self, now: Instant, rng: &mut dyn Rng) {
        let delay = CNF_MAX_DELAY.mul_f64(fraction(rng));
        self.begin(now, rng, Stage::Rebinding, delay, CNF_TIMEOUT);
        (self.confirm, self.last_confirm) = (Some(now + delay + CNF_MAX_RD), Some(now));
    }

    fn solicit(&mut self, now: Instant, rng: &mut dyn Rng, pause: Duration) {
        self.chosen = None;
        let delay = pause + SOL_MAX_DELAY.mul_f64(fraction(rng));
        self.begin(now, rng, Stage::Soliciting, delay, SOL_TIMEOUT);
    }

    fn begin(&mut self, now: Instant, rng: &mut dyn Rng, stage: Stage, delay: Duration, first: Duration) {
        let [a, b, c, _] = rng.next_u32().to_be_bytes();
        // §15; the first wait of a Solicit is never shorter than it is said (§18.2.1).
        let spread = match stage {
            Stage::Soliciting => fraction(rng) * 0.1,
            _ => fraction(rng) * 0.2 - 0.1,
        };
        let wait = first.mul_f64(1.0 + spread);
        self.exchange = Some(Exchange { transaction: [a, b, c], began: None, wait, next: now + delay, count: 0 });
        (self.stage, self.confirm) = (stage, None);
    }

    /// Sends what is due, or goes on where that was in vain.
    fn transmit(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        let stage = self.stage;
        let count = self.exchange.as_ref().map_or(0, |exchange| exchange.count);
        match stage {
            Stage::Soliciting if self.chosen.is_some() => {
                self.begin(now, rng, Stage::Requesting, Duration::ZERO, REQ_TIMEOUT);
                return self.transmit(now, rng, out);
            }
            Stage::Requesting if count >= REQ_MAX_RC => return self.solicit(now, rng, Duration::ZERO),
            Stage::Releasing if count >= REL_MAX_RC => return self.stop(),
            _ => {}
        }
        let Some(octets) = self.question(now) else { return };
        let longest = match stage {
            Stage::Soliciting => self.sol_max_rt,
            Stage::Requesting => REQ_MAX_RT,
            Stage::Renewing => REN_MAX_RT,
            Stage::Rebinding if self.confirm.is_some() => CNF_MAX_RT,
            Stage::Rebinding => REB_MAX_RT,
            Stage::Releasing | Stage::Idle | Stage::Bound => Duration::MAX,
        };
        let spread = fraction(rng) * 0.2 - 0.1;
        let Some(exchange) = &mut self.exchange else { return };
        if exchange.count > 0 {
            let wait = exchange.wait.mul_f64(2.0 + spread);
            exchange.wait = if wait > longest { longest.mul_f64(1.0 + spread) } else { wait };
        }
        exchange.began.get_or_insert(now);
        exchange.count = exchange.count.saturating_add(1);
        exchange.next = now + exchange.wait;
        out.push(Output::Send(octets));
    }

    fn question(&self, now: Instant) -> Option<Vec<u8>> {
        let exchange = self.exchange.as_ref()?;
        let held = || self.delegated().iter().map(|it| (it.prefix, it.length)).collect::<Vec<_>>();
        let chosen = self.chosen.as_ref();
        let hint = || match self.settings.hint {
            0 => Vec::new(),
            length => vec![(Ipv6Addr::UNSPECIFIED, length)],
        };
        let (kind, server, prefixes) = match self.stage {
            Stage::Idle | Stage::Bound => return None,
            Stage::Soliciting => (wire::SOLICIT, None, Some(held()).filter(|it| !it.is_empty()).unwrap_or_else(hint)),
            Stage::Requesting => (wire::REQUEST, Some(&chosen?.server), chosen?.prefixes.clone()),
            Stage::Renewing => (wire::RENEW, self.lease.as_ref().map(|lease| &lease.server), held()),
            Stage::Rebinding => (wire::REBIND, None, held()),
            Stage::Releasing => (wire::RELEASE, Some(&chosen?.server), chosen?.prefixes.clone()),
        };
        let elapsed = now.since(exchange.began.unwrap_or(now)).as_millis() / 10;
        let question = Question {
            kind,
            transaction: exchange.transaction,
            client: &self.settings.duid,
            server,
            elapsed: u16::try_from(elapsed).unwrap_or(u16::MAX),
            rapid_commit: kind == wire::SOLICIT && self.settings.rapid_commit,
            iaid: self.settings.iaid,
            prefixes: &prefixes,
        };
        Some(question.emit())
    }

    /// Says so if what is delegated is not what it was.
    fn tell(&mut self, now: Instant, out: &mut Vec<Output>) {
        let view: Vec<_> = self.delegated().iter().map(|it| (it.prefix, it.length, it.is_deprecated(now))).collect();
        if self.told != view {
            self.told = view;
            out.push(Output::Changed);
        }
    }

    /// Asserts what has to hold.
    pub fn selfcheck(&self) {
        let sends = matches!(self.stage, Stage::Idle | Stage::Bound);
        assert_eq!(self.exchange.is_none(), sends, "{self:?}");
        assert!(self.lease.as_ref().is_none_or(|lease| (1..=PREFIXES_MAX).contains(&lease.prefixes.len())));
        assert!(self.stage != Stage::Bound || self.lease.is_some());
        assert!(self.stage == Stage::Idle || self.stage == Stage::Bound || self.deadline().is_some());
        let chosen = matches!(self.stage, Stage::Requesting | Stage::Releasing);
        assert!(!chosen || self.chosen.is_some(), "{self:?}");
    }
}

/// When an extension is to be asked for, and when of anybody; never where all that was delegated has no end (§14.2, §21.21).
fn times(now: Instant, ia: &Ia, prefixes: &[Offered]) -> (Option<Instant>, Option<Instant>) {
    let preferred = prefixes.iter().filter(|it| it.valid > 0 && it.preferred > 0).map(|it| it.preferred);
    // A server that delegates nothing preferred is asked again before that ends.
    let valid = prefixes.iter().map(|it| it.valid).filter(|it| *it > 0);
    let shortest = preferred.min().or(valid.min()).unwrap_or(0);
    let part = |said: u32, tenths: u64| match (said, shortest) {
        (0, wire::INFINITY) | (wire::INFINITY, _) => None,
        (0, shortest) => Some(Duration::from_secs(u64::from(shortest) * tenths / 10)),
        (said, _) => Some(Duration::from_secs(said.into())),
    };
    let t1 = part(ia.t1, 5).map(|time| time.max(T1_MIN));
    let t2 = part(ia.t2, 8).map(|time| time.max(t1.unwrap_or_default()).max(T1_MIN));
    (t1.map(|time| now + time), t2.map(|time| now + time))
}

/// From 0 to 1.
fn fraction(rng: &mut dyn Rng) -> f64 {
    f64::from(rng.next_u32()) / f64::from(u32::MAX)
}
