//! Messages over TCP, two octets of length before each (RFC 1035 §4.2.2, RFC 7766): connections hosts make to the box, and
//! those it makes itself.
//!
//! Everything is bounded. Of the connections hosts make there are as many as the pool has sockets; one host has a few; one
//! that says nothing for a while is closed, and when hardly any is free one has to go: the oldest that has not come about, or
//! else the one that was silent for longest. A host may ask as much as it likes and close its side then; so many questions
//! at a time are taken from it, and every one is answered before its connection ends.

use std::net::Ipv6Addr;
use std::time::Duration;

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{IpAddress, IpEndpoint};

use crate::time::Instant;

/// Connections hosts may have at a time, in all and of one host.
const POOL: usize = 64;
const PER_HOST_MAX: usize = 4;
/// How long a connection may be without a message (RFC 7766 §6.2.3), and how long one of the box's own is kept.
const QUIET_MAX: Duration = Duration::from_secs(8);
/// Octets a connection holds each way in its socket.
const BUFFER: usize = 8_192;
/// Sockets of the pool that wait for somebody to connect.
const SPARE: usize = 2;
/// Questions taken from a connection before the first of them has to be answered.
const OUTSTANDING_MAX: usize = 16;
/// Octets of answers a host may leave lying before it has to read them.
const UNREAD_MAX: usize = 4 * 65_537;
/// Connections of the box's own at a time.
const OWN_MAX: usize = 16;

/// Something that happened to a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A host said something, over the connection with this number.
    Asked(Ipv6Addr, u64, Vec<u8>),
    /// Who was called under this number said something.
    Answered(usize, Vec<u8>),
    /// Who was called under this number cannot be reached, or is gone while something was expected.
    Failed(usize),
}

/// Whose connection it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// A host's, or of the pool and free.
    Host,
    /// One of ours, to whom is known by this number.
    Own(usize),
}

struct Stream {
    handle: SocketHandle,
    whose: Whose,
    number: u64,
    remote: Option<Ipv6Addr>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Messages sent and not answered yet, of our own connections.
    expects: usize,
    /// Messages of a host that have not been answered yet.
    outstanding: usize,
    /// Whether more is there than could be taken in.
    parked: bool,
    since: Instant,
    /// Closed from our side; the peer has as long again to do the same.
    closing: bool,
}

/// The connections of one port's stack.
#[derive(Default)]
pub(super) struct Streams {
    streams: Vec<Stream>,
    listens: Option<u16>,
    next: u64,
}

impl Streams {
    /// Takes connections at a port from now on.
    pub(super) fn listen(&mut self, sockets: &mut SocketSet<'static>, port: u16) {
        self.listens = Some(port);
        for _ in 0..POOL {
            let handle = sockets.add(socket());
            self.streams.push(Stream::new(handle, Whose::Host, 0, Instant::START));
        }
        self.open_pool(sockets);
    }

    /// Whether there is anything to look after.
    pub(super) fn any(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Answers over the connection of a host, if it is still there.
    pub(super) fn reply(&mut self, number: u64, message: &[u8]) {
        let stream = self.streams.iter_mut().find(|stream| stream.number == number && stream.whose == Whose::Host);
        if let Some(stream) = stream.filter(|stream| stream.remote.is_some()) {
            stream.put(message);
            stream.outstanding = stream.outstanding.saturating_sub(1);
        }
    }

    /// Says something to somebody known by the number `to`, over the connection that is there or a new one between these
    /// addresses. False if there is no room for one.
    pub(super) fn call(
        &mut self,
        now: Instant,
        (interface, sockets): (&mut Interface, &mut SocketSet<'static>),
        (to, local, remote): (usize, (Ipv6Addr, u16), (Ipv6Addr, u16)),
        message: &[u8],
    ) -> bool {
        let open = |stream: &&mut Stream| {
            stream.whose == Whose::Own(to) && sockets.get::<Socket<'_>>(stream.handle).may_send()
        };
        let existing = self.streams.iter_mut().find(|stream| stream.whose == Whose::Own(to));
        if let Some(stream) = existing.filter(|stream| open(stream) || stream.is_calling(sockets)) {
            if stream.output.len() >= UNREAD_MAX {
                return false;
            }
            // What is expected already has its time: more that is said must not keep up a connection over which nothing comes.
            if stream.expects == 0 {
                stream.since = now;
            }
            stream.expects += 1;
            stream.put(message);
            return true;
        }
        if self.streams.iter().filter(|stream| stream.whose != Whose::Host).count() >= OWN_MAX {
            return false;
        }
        let mut socket = socket();
        let address = |(address, port): (Ipv6Addr, u16)| IpEndpoint::new(IpAddress::Ipv6(address), port);
        if socket.connect(interface.context(), address(remote), address(local)).is_err() {
            return false;
        }
        let handle = sockets.add(socket);
        self.next += 1;
        let mut stream = Stream::new(handle, Whose::Own(to), self.next, now);
        (stream.remote, stream.expects) = (Some(remote.0), 1);
        stream.put(message);
        self.streams.push(stream);
        true
    }

    /// Closes our side of the connection to who is known by this number; answers are still heard.
    #[cfg(test)]
    pub(super) fn hang_up(&mut self, to: usize, sockets: &mut SocketSet<'static>) {
        for stream in self.streams.iter().filter(|stream| stream.whose == Whose::Own(to)) {
            sockets.get_mut::<Socket<'_>>(stream.handle).close();
        }
    }

    /// Moves octets, finds messages, closes what is over. What happened.
    pub(super) fn service(&mut self, now: Instant, sockets: &mut SocketSet<'static>) -> Vec<StreamEvent> {
        let mut events = Vec::new();
        for at in 0..self.streams.len() {
            self.welcome(now, at, sockets);
            let stream = &mut self.streams[at];
            let socket = sockets.get_mut::<Socket<'_>>(stream.handle);
            if stream.remote.is_some() {
                stream.carry(now, socket, &mut events);
            }
        }
        self.streams.retain_mut(|stream| {
            let socket = sockets.get_mut::<Socket<'_>>(stream.handle);
            match stream.whose {
                Whose::Host => true,
                Whose::Own(_) if socket.is_open() => true,
                Whose::Own(to) => {
                    if stream.expects > 0 {
                        events.push(StreamEvent::Failed(to));
                    }
                    sockets.remove(stream.handle);
                    false
                }
            }
        });
        self.open_pool(sockets);
        events
    }

    /// Gives sockets what they have room for.
    pub(super) fn flush(&mut self, sockets: &mut SocketSet<'static>) {
        for stream in self.streams.iter_mut().filter(|stream| !stream.output.is_empty()) {
            stream.flush(sockets.get_mut::<Socket<'_>>(stream.handle));
        }
    }

    /// When a quiet connection is closed, or more can be taken from one that had to wait.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = |stream: &Stream| match stream.parked && stream.has_room() {
            true => stream.since,
            false => stream.since + if stream.closing { 2 * QUIET_MAX } else { QUIET_MAX },
        };
        self.streams.iter().filter(|stream| stream.remote.is_some()).map(due).min()
    }

    /// Notes who has connected, and whether that is one too many of theirs.
    fn welcome(&mut self, now: Instant, at: usize, sockets: &mut SocketSet<'static>) {
        let stream = &self.streams[at];
        let socket = sockets.get_mut::<Socket<'_>>(stream.handle);
        if stream.whose != Whose::Host || stream.remote.is_some() {
            return;
        }
        let Some(IpEndpoint { addr: IpAddress::Ipv6(remote), .. }) = socket.remote_endpoint() else { return };
        let theirs = self.streams.iter().filter(|other| other.remote == Some(remote) && other.whose == Whose::Host);
        if theirs.count() >= PER_HOST_MAX {
            return socket.abort();
        }
        self.next += 1;
        let stream = &mut self.streams[at];
        (stream.remote, stream.number, stream.since) = (Some(remote), self.next, now);
    }

    /// Sockets of the pool whose connection is over listen again; if hardly any does, somebody has to go.
    fn open_pool(&mut self, sockets: &mut SocketSet<'static>) {
        let Some(port) = self.listens else { return };
        let mut free = 0;
        for stream in self.streams.iter_mut().filter(|stream| stream.whose == Whose::Host) {
            let socket = sockets.get_mut::<Socket<'_>>(stream.handle);
            if !socket.is_open() {
                *stream = Stream::new(stream.handle, Whose::Host, 0, stream.since);
                // A closed socket takes any port but 0.
                let _ = socket.listen(port);
            }
            free += usize::from(socket.is_listening());
        }
        if free < SPARE {
            let state = |stream: &Stream| sockets.get::<Socket<'_>>(stream.handle).state();
            let taken = |stream: &&Stream| stream.whose == Whose::Host && state(stream) != State::Listen;
            let first = |stream: &&Stream| (state(stream) != State::SynReceived, stream.since);
            let handle = self.streams.iter().filter(taken).min_by_key(first).map(|stream| stream.handle);
            if let Some(handle) = handle {
                sockets.get_mut::<Socket<'_>>(handle).abort();
            }
        }
    }
}

impl Stream {
    fn new(handle: SocketHandle, whose: Whose, number: u64, since: Instant) -> Stream {
        Stream {
            handle,
            whose,
            number,
            remote: None,
            input: Vec::new(),
            output: Vec::new(),
            expects: 0,
            outstanding: 0,
            parked: false,
            since,
            closing: false,
        }
    }

    fn is_calling(&self, sockets: &SocketSet<'static>) -> bool {
        sockets.get::<Socket<'_>>(self.handle).state() == State::SynSent
    }

    /// Appends a message with its length. One that is too long for it cannot be there.
    fn put(&mut self, message: &[u8]) {
        if let Ok(length) = u16::try_from(message.len()) {
            self.output.extend_from_slice(&length.to_be_bytes());
            self.output.extend_from_slice(message);
        }
    }

    /// Whether one more question can be taken in. Who does not read its answers, or has not got them, is not heard either.
    fn has_room(&self) -> bool {
        self.output.len() < UNREAD_MAX && self.outstanding < OUTSTANDING_MAX
    }

    fn carry(&mut self, now: Instant, socket: &mut Socket<'_>, events: &mut Vec<StreamEvent>) {
        self.messages(now, events);
        while socket.can_recv() && self.has_room() {
            let taken = socket.recv(|octets| {
                self.input.extend_from_slice(octets);
                (octets.len(), octets.len())
            });
            if taken.unwrap_or(0) == 0 {
                break;
            }
            self.messages(now, events);
        }
        self.parked = !self.has_room();
        self.flush(socket);
        let idle = self.output.is_empty() && self.outstanding == 0;
        let over = socket.state() == State::CloseWait && idle;
        let quiet = now.since(self.since) >= QUIET_MAX;
        if over || (quiet && self.expects == 0 && self.outstanding == 0 && socket.may_send()) {
            socket.close();
        }
        self.closing |= quiet;
        if now.since(self.since) >= QUIET_MAX * 2 || (self.expects > 0 && now.since(self.since) >= QUIET_MAX) {
            socket.abort();
        }
    }

    fn flush(&mut self, socket: &mut Socket<'_>) {
        if !self.output.is_empty() && socket.can_send() {
            let sent = socket.send_slice(&self.output).unwrap_or(0);
            self.output.drain(..sent);
        }
    }

    /// The whole messages among what came in.
    fn messages(&mut self, now: Instant, events: &mut Vec<StreamEvent>) {
        let mut at = 0;
        let length = |at: usize, input: &[u8]| {
            input.get(at..at + 2).map(|two| usize::from(u16::from_be_bytes([two[0], two[1]])))
        };
        while let Some(length) = length(at, &self.input).filter(|_| self.has_room()) {
            let Some(message) = self.input.get(at + 2..at + 2 + length) else { break };
            self.since = now;
            events.push(match (self.whose, self.remote) {
                (Whose::Own(to), _) => {
                    self.expects = self.expects.saturating_sub(1);
                    StreamEvent::Answered(to, message.to_vec())
                }
                (Whose::Host, remote) => {
                    self.outstanding += 1;
                    StreamEvent::Asked(remote.unwrap_or(Ipv6Addr::UNSPECIFIED), self.number, message.to_vec())
                }
            });
            at += 2 + length;
        }
        self.input.drain(..at);
    }
}

fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    // Whoever is gone without a word does not keep its place.
    socket.set_timeout(Some(smoltcp::time::Duration::from_secs(QUIET_MAX.as_secs())));
    socket.set_nagle_enabled(false);
    socket
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Stack;

    const BOX: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xa, 0, 1, 0, 0, 0, 1);
    const HOST: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xa, 0, 1, 0, 0, 0, 5);

    /// A box and a host on one cable.
    struct Cable {
        own: Stack,
        host: Stack,
        now: Instant,
        asked: Vec<(u64, Vec<u8>)>,
        told: Vec<StreamEvent>,
    }

    impl Cable {
        fn new() -> Cable {
            let mut own = Stack::new(&[(BOX, 64)], 1500, 1);
            own.listen(53);
            let host = Stack::new(&[(HOST, 64)], 1500, 2);
            Cable { own, host, now: Instant::START, asked: Vec::new(), told: Vec::new() }
        }

        fn call(&mut self, connection: usize, message: &[u8]) {
            assert!(self.host.call(self.now, connection, (HOST, 2000 + connection as u16), (BOX, 53), message));
        }

        fn run(&mut self, millis: u64) {
            for _ in 0..millis {
                self.now = self.now + Duration::from_millis(1);
                let out: Vec<_> = self.host.run(self.now).collect();
                let mut back: Vec<_> =
                    out.iter().flat_map(|packet| self.own.receive(self.now, packet, false)).collect();
                for event in self.own.streams(self.now) {
                    let StreamEvent::Asked(HOST, number, octets) = event else { panic!("{event:?}") };
                    self.asked.push((number, octets));
                }
                back.extend(self.own.run(self.now));
                let more: Vec<_> = back.iter().flat_map(|packet| self.host.receive(self.now, packet, false)).collect();
                self.told.extend(self.host.streams(self.now));
                for packet in more {
                    let answers = self.own.receive(self.now, &packet, false);
                    answers.iter().for_each(|answer| drop(self.host.receive(self.now, answer, false)));
                }
            }
        }
    }

    #[test]
    fn messages_of_any_length_go_both_ways() {
        let mut cable = Cable::new();
        let long: Vec<u8> = (0..60_000u32).map(|at| at as u8).collect();
        for message in [&b"one"[..], b"", &long] {
            cable.call(3, message);
        }
        cable.run(200);
        let heard: Vec<&[u8]> = cable.asked.iter().map(|(_, octets)| octets.as_slice()).collect();
        assert_eq!(heard, [&b"one"[..], b"", &long], "in order, over one connection");
        let number = cable.asked[0].0;
        cable.own.reply(number, &long);
        cable.own.reply(number + 1, b"to nobody");
        cable.run(200);
        assert_eq!(cable.told, [StreamEvent::Answered(3, long)]);
    }

    #[test]
    fn a_host_has_few_connections_and_the_quiet_ones_end() {
        let mut cable = Cable::new();
        for connection in 0..PER_HOST_MAX + 2 {
            cable.call(connection, b"hello");
            cable.run(5);
        }
        assert_eq!(cable.asked.len(), PER_HOST_MAX);
        assert_eq!(cable.told, [StreamEvent::Failed(PER_HOST_MAX), StreamEvent::Failed(PER_HOST_MAX + 1)]);
        assert!(cable.own.deadline().is_some());
        // Who says nothing more is let go, and there is room again.
        cable.run(QUIET_MAX.as_millis() as u64 * 2 + 1000);
        cable.call(9, b"again");
        cable.run(20);
        assert_eq!(cable.asked.last().unwrap().1, b"again");
    }

    /// Over a connection on which no answer comes nothing more is to be asked, however much there is to ask.
    #[test]
    fn more_questions_do_not_keep_up_a_connection_without_answers() {
        let mut cable = Cable::new();
        for _ in 0..QUIET_MAX.as_secs() {
            cable.call(1, b"well?");
            cable.run(1000);
        }
        cable.run(20);
        assert!(cable.told.contains(&StreamEvent::Failed(1)), "{:?}", cable.told);
    }

    #[test]
    fn whoever_has_said_all_it_wants_to_ask_still_gets_its_answers() {
        let mut cable = Cable::new();
        cable.call(1, b"slow");
        cable.run(5);
        let number = cable.asked[0].0;
        // The host closes its side; whoever looks the answer up takes two seconds.
        cable.host.hang_up(1);
        cable.run(2000);
        cable.own.reply(number, b"at last");
        cable.run(50);
        assert_eq!(cable.told, [StreamEvent::Answered(1, b"at last".to_vec())]);
        // And then it is over.
        cable.own.reply(number, b"more");
        cable.run(50);
        assert_eq!(cable.told.len(), 1);
    }

    #[test]
    fn as_much_as_a_host_asks_it_is_answered() {
        let mut cable = Cable::new();
        let long = vec![7; 60_000];
        let count = 4 * OUTSTANDING_MAX;
        (0..count).for_each(|_| cable.call(1, b"much"));
        cable.run(20);
        assert_eq!(cable.asked.len(), OUTSTANDING_MAX, "the rest waits");
        let mut answered = 0;
        while answered < cable.asked.len() {
            let number = cable.asked[answered].0;
            cable.own.reply(number, &long);
            answered += 1;
            cable.run(if answered % OUTSTANDING_MAX == 0 { 200 } else { 0 });
        }
        cable.run(500);
        assert_eq!((answered, cable.told.len()), (count, count));
        assert!(cable.told.iter().all(|it| *it == StreamEvent::Answered(1, long.clone())));
    }

    #[test]
    fn those_who_only_knock_make_room_for_those_who_talk() {
        let mut cable = Cable::new();
        cable.call(1, b"early");
        cable.run(20);
        let number = cable.asked[0].0;
        // More than there are places for begin and say no more.
        for at in 0..2 * POOL as u16 {
            let address = Ipv6Addr::new(0xfc00, 0xa, 0, 1, 0, 0, 1, at / PER_HOST_MAX as u16);
            let mut stack = Stack::new(&[(address, 64)], 1500, at.into());
            assert!(stack.call(cable.now, 1, (address, 3000 + at), (BOX, 53), b"never heard"));
            let knocks: Vec<_> = stack.run(cable.now).collect();
            knocks.iter().for_each(|packet| drop(cable.own.receive(cable.now, packet, false)));
            assert!(cable.own.streams(cable.now).is_empty());
            cable.run(1);
        }
        // Who was there is there, and who comes is let in at the first attempt.
        cable.call(2, b"late");
        cable.run(20);
        assert_eq!(cable.asked[1..].iter().map(|(_, it)| it.as_slice()).collect::<Vec<_>>(), [b"late"]);
        cable.own.reply(number, b"here");
        cable.run(20);
        assert_eq!(cable.told, [StreamEvent::Answered(1, b"here".to_vec())]);
    }

    #[test]
    fn a_connection_closed_from_our_side_does_not_keep_anybody_awake() {
        let mut cable = Cable::new();
        cable.call(1, b"hello");
        cable.run(10);
        cable.own.reply(cable.asked[0].0, b"well");
        cable.run(10);
        assert_eq!(cable.told.len(), 1);
        // The host says nothing more, not even that it has heard that the connection is closed.
        let (end, mut turns) = (cable.now + 3 * QUIET_MAX, 0);
        while let Some(due) = cable.own.deadline().filter(|due| *due < end) {
            cable.now = cable.now.max(due);
            drop(cable.own.run(cable.now));
            assert!(cable.own.streams(cable.now).is_empty());
            drop(cable.own.run(cable.now));
            turns += 1;
            assert!(turns < 100, "{due:?}");
        }
        assert!(turns > 2);
    }
}
