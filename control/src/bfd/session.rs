//! One session: the variables of RFC 5880 §6.8.1 and the procedures of §6.8.2 to §6.8.7 and §6.8.16.

use std::time::Duration;

use dataplane::wire::bfd::{Diagnostic, Packet, State};
use rand::Rng;

use super::{Carried, Cause, Config, Output, Refused, SLOW};
use crate::time::Instant;

/// bfd.RemoteMinRxInterval before the peer is heard (§6.8.1).
const ANY: Duration = Duration::from_micros(1);
/// While Up, a Poll is begun so often: its answer tells the round trip.
const POLL_EVERY: Duration = Duration::from_secs(10);
/// Packets taken in a second beyond four times what was asked for: state changes and polls are sent between the times.
const SPARE: u32 = 20;
/// For how long the end of Detection Times may be without consequence: then the path is of no use, whatever the reason.
const EXCUSED_MAX: Duration = Duration::from_secs(5);
/// For how long it is remembered that we sent nothing for too long.
const EXCUSE: Duration = Duration::from_secs(1);

/// A session with a peer about one path.
#[derive(Clone, Debug)]
pub struct Session {
    /// bfd.SessionState and bfd.RemoteSessionState.
    state: State,
    remote_state: State,
    /// bfd.LocalDiag.
    diagnostic: Diagnostic,
    /// bfd.LocalDiscr and bfd.RemoteDiscr; the latter is zero while unknown.
    mine: u32,
    yours: u32,
    /// The former before the session last went down, and whether it is to be another one after the next packet.
    former: u32,
    renews: bool,
    multiplier: u8,
    /// What we tell the peer: bfd.RequiredMinRxInterval, and bfd.DesiredMinTxInterval while Up.
    interval: Duration,
    /// The same as they hold until a Poll Sequence ends (§6.8.3): what we send by, and what we expect.
    sends_by: Duration,
    expects: Duration,
    remote_multiplier: u8,
    remote_min_tx: Duration,
    remote_min_rx: Duration,
    poll: Poll,
    next_poll: Instant,
    /// When to send; never while the peer wants nothing.
    next: Option<Instant>,
    /// When the Detection Time is over.
    detect: Option<Instant>,
    /// When it should have been over for the first time since something came.
    excused: Option<Instant>,
    sent: Option<Instant>,
    /// When we last sent after too long a time.
    stalled: Option<Instant>,
    round_trip: Option<Duration>,
    /// Packets in the second that began then.
    second: (Instant, u32),
}

/// A Poll Sequence (§6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    None,
    /// To be begun.
    Wanted,
    /// Begun then.
    Sent(Instant),
}

impl Session {
    /// A new session, which is Down and says so at once.
    pub fn new(now: Instant, rng: &mut dyn Rng, config: Config) -> Session {
        Session {
            state: State::Down,
            remote_state: State::Down,
            diagnostic: Diagnostic::None,
            mine: draw(rng),
            yours: 0,
            former: 0,
            renews: false,
            multiplier: config.multiplier,
            interval: config.interval,
            sends_by: config.interval,
            expects: config.interval,
            remote_multiplier: 1,
            remote_min_tx: SLOW,
            remote_min_rx: ANY,
            poll: Poll::None,
            next_poll: now,
            next: Some(now),
            detect: None,
            excused: None,
            sent: None,
            stalled: None,
            round_trip: None,
            second: (now, 0),
        }
    }

    /// A session that another process had until now; none if it makes no sense.
    pub fn resume(now: Instant, rng: &mut dyn Rng, config: Config, carried: &Carried) -> Option<Session> {
        let (mine, yours) = carried.discriminators;
        let [state, remote_state] = [carried.states.0, carried.states.1].map(State::from_code);
        let (remote_multiplier, min_tx, min_rx) = carried.remote;
        if mine == 0 || remote_multiplier == 0 || (yours == 0 && state != State::Down) || state == State::AdminDown {
            return None;
        }
        let told = Duration::from_micros(carried.interval.into());
        let mut session = Session {
            state,
            remote_state,
            mine,
            yours,
            interval: told,
            sends_by: told,
            expects: told,
            remote_multiplier,
            remote_min_tx: Duration::from_micros(min_tx.into()),
            remote_min_rx: Duration::from_micros(min_rx.into()),
            ..Session::new(now, rng, config)
        };
        session.detect = (yours != 0).then(|| now + session.detection_time());
        session.set_interval(config.interval);
        Some(session)
    }

    /// Begins to expect packets now, and sends one: this process has the ports from now on.
    pub fn go_on(&mut self, now: Instant) {
        self.excused = None;
        self.detect = self.detect.map(|_| now + self.detection_time());
        self.next = self.next.map(|_| now);
    }

    /// What another process has to know to go on.
    pub fn carry(&self) -> Carried {
        Carried {
            discriminators: (self.mine, self.yours),
            states: (self.state.code(), self.remote_state.code()),
            interval: micros(self.interval),
            remote: (self.remote_multiplier, micros(self.remote_min_tx), micros(self.remote_min_rx)),
        }
    }

    /// Whether both ends hear each other.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// bfd.SessionState.
    pub fn state(&self) -> State {
        self.state
    }

    /// bfd.LocalDiscr.
    pub fn discriminator(&self) -> u32 {
        self.mine
    }

    /// What the last Poll took to be answered.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The Detection Time (§6.8.4): the peer's multiplier times what both agree on for its packets.
    pub fn detection_time(&self) -> Duration {
        u32::from(self.remote_multiplier) * self.expects.max(self.remote_min_tx)
    }

    /// The interval our packets are sent by, before jitter (§6.8.2, §6.8.3); none if the peer wants none.
    pub fn transmit_interval(&self) -> Option<Duration> {
        let ours = if self.is_up() { self.sends_by } else { self.interval.max(SLOW) };
        (!self.remote_min_rx.is_zero()).then(|| ours.max(self.remote_min_rx))
    }

    /// When [`Session::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        [self.next, self.detect].into_iter().flatten().min()
    }

    /// The interval is another one from now on (§6.8.3).
    pub fn set_interval(&mut self, interval: Duration) {
        let old = std::mem::replace(&mut self.interval, interval);
        if old == interval {
            return;
        }
        if !self.is_up() {
            (self.sends_by, self.expects) = (interval, interval);
            return;
        }
        // Slower only when the peer has agreed to wait longer; quicker to give it up only when it sends more often.
        self.sends_by = self.sends_by.min(interval);
        self.expects = self.expects.max(interval);
        self.poll = Poll::Wanted;
    }

    /// Takes in a packet (§6.8.6).
    ///
    /// # Errors
    /// [`Refused`], with nothing changed but the count of packets.
    pub fn receive(
        &mut self,
        now: Instant,
        rng: &mut dyn Rng,
        packet: &Packet,
        out: &mut Vec<Output>,
    ) -> Result<(), Refused> {
        let remote = self.believed(packet)?;
        self.admit(now)?;
        self.yours = packet.mine;
        self.remote_state = remote;
        self.remote_multiplier = packet.multiplier;
        self.remote_min_tx = Duration::from_micros(packet.desired_min_tx.into());
        self.remote_min_rx = Duration::from_micros(packet.required_min_rx.into());
        if packet.is_final {
            self.end_poll(now);
        }
        let before = self.state;
        self.state = after(before, remote);
        if before != self.state {
            self.changed(now, before, out);
        }
        (self.detect, self.excused) = (Some(now + self.detection_time()), None);
        if packet.poll && !packet.is_final {
            // Whatever the transmission timer says (§6.8.7).
            self.send(now, true, out);
        }
        if before != self.state {
            self.next = self.transmit_interval().map(|_| now);
            self.expire_sending(now, rng, out);
        } else {
            // The peer may want more packets than before, or some again.
            let soonest = self.transmit_interval().map(|interval| now + interval);
            self.next = soonest.map(|soonest| self.next.map_or(soonest, |next| next.min(soonest)));
        }
        Ok(())
    }

    /// Lets time pass. `deaf` says that packets may have been lost here, at the last step.
    pub fn expire(&mut self, now: Instant, rng: &mut dyn Rng, deaf: bool, out: &mut Vec<Output>) {
        if self.detect.is_some_and(|at| at <= now) {
            self.expire_detection(now, deaf, out);
        }
        self.expire_sending(now, rng, out);
    }

    /// Ends the session, and says so (§6.8.16).
    pub fn shut(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.state != State::AdminDown {
            (self.state, self.diagnostic, self.poll) = (State::AdminDown, Diagnostic::AdminDown, Poll::None);
            self.send(now, false, out);
        }
        (self.next, self.detect) = (None, None);
    }

    /// What a packet says of the peer's state, if it belongs to this session. One that does not name the session as it is now says no
    /// more than that its sender is there.
    fn believed(&self, packet: &Packet) -> Result<State, Refused> {
        let known = packet.mine == self.yours;
        // The peer has not heard us yet, has begun anew, or knows us as we were before the session went down.
        let outdated = packet.yours == 0 || packet.yours == self.former;
        match self.state {
            State::AdminDown => Err(Refused::Shut),
            State::Up if packet.yours == self.mine && known => Ok(packet.state),
            State::Down | State::Init if packet.yours == self.mine => Ok(packet.state),
            State::Down if outdated => Ok(State::Down),
            State::Init if outdated && known => Ok(State::Down),
            State::Down | State::Init | State::Up => Err(Refused::Stranger),
        }
    }

    /// Whether a packet is not one too many.
    fn admit(&mut self, now: Instant) -> Result<(), Refused> {
        if now.since(self.second.0) >= SLOW {
            self.second = (now, 0);
        }
        let interval = self.expects.min(self.interval).max(Duration::from_millis(1));
        let most = 4 * u32::try_from(SLOW.as_micros() / interval.as_micros()).unwrap_or(u32::MAX / 8) + SPARE;
        if self.second.1 >= most {
            return Err(Refused::TooMany);
        }
        self.second.1 += 1;
        Ok(())
    }

    /// The state is another one because of a packet.
    fn changed(&mut self, now: Instant, before: State, out: &mut Vec<Output>) {
        if self.is_up() {
            (self.diagnostic, self.stalled) = (Diagnostic::None, None);
            (self.sends_by, self.expects) = (self.interval, self.interval);
            // The interval is no longer the slow one.
            self.poll = Poll::Wanted;
            self.next_poll = now + POLL_EVERY;
            return out.push(Output::Up);
        }
        self.poll = Poll::None;
        if self.state == State::Down {
            self.diagnostic = Diagnostic::NeighborDown;
        }
        if before == State::Up {
            self.renews = true;
            let excuse = self.is_stalled(now) || self.stalled.is_some_and(|at| now.since(at) < EXCUSE);
            out.push(Output::Down(match self.remote_state {
                State::AdminDown => Cause::Ended,
                State::Down | State::Init | State::Up if excuse => Cause::Stalled,
                State::Down | State::Init | State::Up => Cause::Told,
            }));
        }
    }

    fn end_poll(&mut self, now: Instant) {
        let Poll::Sent(since) = self.poll else { return };
        self.poll = Poll::None;
        self.round_trip = Some(now.since(since));
        (self.sends_by, self.expects) = (self.interval, self.interval);
    }

    /// Nothing came for the Detection Time (§6.8.4).
    fn expire_detection(&mut self, now: Instant, deaf: bool, out: &mut Vec<Output>) {
        let late = self.detect.is_some_and(|at| now.since(at) > self.expects / 2);
        let excusable = late || deaf;
        // Who was not there for long may not have heard anything in that time, so it begins when he looks.
        let patient = self.excused.is_none_or(|since| now.since(since) < EXCUSED_MAX);
        if self.is_up() && excusable && !patient {
            out.push(Output::Unexcused);
        }
        match self.state {
            State::Up if excusable && patient => {
                self.excused.get_or_insert(now);
                self.detect = Some(now + self.expects.max(self.remote_min_tx));
                out.push(Output::Excused);
            }
            State::Up | State::Init => {
                if self.is_up() {
                    self.renews = true;
                    out.push(Output::Down(Cause::Silent));
                }
                (self.state, self.diagnostic, self.poll) = (State::Down, Diagnostic::Expired, Poll::None);
                // Until then the peer's discriminator is named still, so that it knows who it is that does not hear it.
                self.detect = Some(now + u32::from(self.remote_multiplier) * SLOW);
                self.next = Some(now);
            }
            State::Down | State::AdminDown => {
                (self.yours, self.remote_state, self.detect) = (0, State::Down, None);
                self.remote_min_rx = ANY;
                self.next.get_or_insert(now);
            }
        }
    }

    /// Sends if it is time to (§6.8.7).
    fn expire_sending(&mut self, now: Instant, rng: &mut dyn Rng, out: &mut Vec<Output>) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        if self.is_up() && self.poll == Poll::None && now >= self.next_poll {
            self.poll = Poll::Wanted;
            self.next_poll = now + POLL_EVERY;
        }
        self.send(now, false, out);
        if std::mem::take(&mut self.renews) && !self.is_up() {
            // What anybody has kept of this session is of no use in the next.
            self.former = self.mine;
            self.mine = draw(rng);
        }
        self.next = self.transmit_interval().map(|interval| now + jittered(rng, interval, self.multiplier));
    }

    /// Whether we have sent nothing for so long that the peer may have given up, as it counts, but for the time on the way.
    fn is_stalled(&self, now: Instant) -> bool {
        let patience = u32::from(self.multiplier) * self.sends_by.max(self.remote_min_rx);
        self.sent.is_some_and(|sent| now.since(sent) + self.sends_by / 2 >= patience)
    }

    fn send(&mut self, now: Instant, is_final: bool, out: &mut Vec<Output>) {
        let poll = !is_final && self.poll != Poll::None;
        if poll && self.poll == Poll::Wanted {
            self.poll = Poll::Sent(now);
        }
        if self.is_up() && !is_final {
            if self.is_stalled(now) {
                self.stalled = Some(now);
            }
            self.sent = Some(now);
        } else if !self.is_up() {
            self.sent = None;
        }
        let slow = if self.is_up() { self.interval } else { self.interval.max(SLOW) };
        out.push(Output::Send(Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll,
            is_final,
            multiplier: self.multiplier,
            mine: self.mine,
            yours: self.yours,
            desired_min_tx: micros(slow),
            required_min_rx: micros(self.interval),
        }));
    }
}

/// The figure of §6.2, and the text of §6.8.6: the state after hearing from a peer in state `remote`.
fn after(state: State, remote: State) -> State {
    match (state, remote) {
        (State::AdminDown, State::AdminDown | State::Down | State::Init | State::Up) => State::AdminDown,
        (State::Down, State::Down) => State::Init,
        (State::Down, State::Init) => State::Up,
        (State::Down, State::AdminDown | State::Up) => State::Down,
        (State::Init, State::AdminDown) => State::Down,
        (State::Init, State::Down) => State::Init,
        (State::Init, State::Init | State::Up) => State::Up,
        (State::Up, State::AdminDown | State::Down) => State::Down,
        (State::Up, State::Init | State::Up) => State::Up,
    }
}

/// An interval less up to a quarter; with a multiplier of one, less a tenth at least (§6.8.7).
fn jittered(rng: &mut dyn Rng, interval: Duration, multiplier: u8) -> Duration {
    let most = if multiplier == 1 { 0.9 } else { 1.0 };
    interval.mul_f64(0.75 + (most - 0.75) * f64::from(rng.next_u32()) / f64::from(u32::MAX))
}

/// A discriminator: random, so that nobody can tell it (§6.3), and not zero.
fn draw(rng: &mut dyn Rng) -> u32 {
    loop {
        let drawn = rng.next_u32();
        if drawn != 0 {
            return drawn;
        }
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
