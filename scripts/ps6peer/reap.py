"""REAP (RFC 5534 §6) of one context: the three states, the two timers, the reports. Times are seconds; no clock here."""

import secrets

from . import wire
from .wire import EXPLORING, INBOUND_OK, OPERATIONAL, Report

INITIAL_PROBE_TIMEOUT, NUMBER_OF_INITIAL_PROBES, MAX_PROBE_TIMEOUT = 0.5, 4, 60.0
REPORTS = 4  # at most so many of each kind in a Probe; 15 would fit


class Reap:
    """`send(kind, ...)` is called with what has to leave: ("keepalive",) or ("probe", state, pair, sent, received)."""

    def __init__(self, send_timeout, send, tell, dislike):
        self.send_timeout, self.keepalive_timeout = send_timeout, 15.0
        self.send, self.tell, self.dislike = send, tell, dislike
        self.state = OPERATIONAL
        self.send_at = None  # Send Timer
        self.keepalive_until, self.keepalive_at = None, None
        self.probe_at, self.probes = None, 0
        self.sent, self.received = [], []  # Reports, oldest first
        self.seen_by_peer = set()
        self.locals, self.peers, self.pair, self.next_pair = [], [], None, 0
        self.visited = {OPERATIONAL}

    # --- the world ----------------------------------------------------------------------------------------------

    def locators(self, local, peer, pair=None):
        """New sets of locators; a current pair that is still in them stays."""
        self.locals, self.peers = list(local), list(peer)
        self.pair = pair or self.pair

    def deadline(self):
        return min((at for at in (self.send_at, self.keepalive_at, self.keepalive_until, self.probe_at) if at), default=None)

    # --- §6.1, §6.2: payload ------------------------------------------------------------------------------------

    def incoming(self, now):
        """A payload packet, or a control message other than Keepalive and Probe."""
        if self.state == OPERATIONAL:
            self.send_at = None
            self.start_keepalive(now)
        elif self.state == EXPLORING:
            self.go(INBOUND_OK)
            self.probe(now)
            self.send_at = now + self.send_timeout
        else:
            self.send_at = None

    def outgoing(self, now):
        if self.state == OPERATIONAL:
            self.stop_keepalive()
        if self.state != EXPLORING and self.send_at is None:
            self.send_at = now + self.send_timeout

    # --- §6.3, §6.4, §6.5: timers -------------------------------------------------------------------------------

    def expire(self, now):
        if self.keepalive_until and now >= self.keepalive_until:
            self.stop_keepalive()
            self.send("keepalive")
        elif self.keepalive_at and now >= self.keepalive_at:
            self.keepalive_at = now + self.keepalive_interval
            self.send("keepalive")
        if self.send_at and now >= self.send_at:
            self.send_at = None
            self.go(EXPLORING)
            self.received = []
            self.probes = 0
            self.probe(now)
        elif self.probe_at and now >= self.probe_at:
            if self.state == INBOUND_OK and self.send_at is None:
                self.send_at = now + self.send_timeout
            self.probe(now)

    @property
    def keepalive_interval(self):
        return 0.4 * self.keepalive_timeout

    def start_keepalive(self, now):
        if self.keepalive_until is None:
            self.keepalive_until, self.keepalive_at = now + self.keepalive_timeout, now + self.keepalive_interval

    def stop_keepalive(self):
        self.keepalive_until = self.keepalive_at = None

    # --- §6.6 to §6.9: messages ---------------------------------------------------------------------------------

    def keepalive(self, now):
        if self.state == EXPLORING:
            self.go(INBOUND_OK)
            self.probe(now)
            self.send_at = now + self.send_timeout
        else:
            self.send_at = None

    def probe_received(self, now, message, source, destination):
        self.check(message, source, destination)
        self.remember(message.sent[0])
        self.seen_by_peer.update(message.received)
        if message.state == EXPLORING:
            self.stop_keepalive()
            if self.state != INBOUND_OK:
                self.probes = 0
            self.go(INBOUND_OK)
            self.send_at = now + self.send_timeout
            self.probe(now, (destination, source))
        elif message.state == INBOUND_OK:
            self.stop_keepalive()
            self.send_at = now + self.send_timeout
            self.go(OPERATIONAL)
            self.choose(message.received)
            self.probe(now, self.pair)
        else:
            self.send_at = None
            if self.state != OPERATIONAL:
                self.choose(message.received)
            self.go(OPERATIONAL)
            self.start_keepalive(now)

    def check(self, message, source, destination):
        """What a sender of Probes must and must not (RFC 5534 §5.2)."""
        first = message.sent[0]
        if (first.source, first.destination) != (source, destination):
            self.dislike(f"a Probe from {source} to {destination} says it was sent from {first.source} to {first.destination}")
        if first in self.received:
            self.dislike(f"a Probe with a nonce used before: {first.nonce:#x}")
        if len({report.nonce for report in message.sent}) != len(message.sent):
            self.dislike("a Probe reports a sent probe twice")
        if len(set(message.received)) != len(message.received):
            self.dislike("a Probe reports a received probe twice")
        for report in message.sent:
            if report.source not in self.peers or report.destination not in self.locals:
                self.dislike(f"a Probe tells of a probe from {report.source} to {report.destination}, no pair of this context")
        for report in message.received:
            if report not in self.sent:
                self.dislike(f"a Probe reports a received probe that was never sent: {report}")
        if message.state == INBOUND_OK and not message.received:
            self.tell("inbound_ok_without_report", sent=len(self.sent))

    def remember(self, report):
        self.received = [*self.received, report][-15:]

    def choose(self, reports):
        """The newest of our probes the peer got names the pair that works."""
        for report in reversed(self.sent):
            if report in reports:
                if self.pair != (report.source, report.destination):
                    self.tell("moved", local=report.source, peer=report.destination)
                self.pair = (report.source, report.destination)
                return

    # --- probes -------------------------------------------------------------------------------------------------

    def go(self, state):
        if state != self.state:
            self.tell("reap", old=wire.STATE_NAMES[self.state], new=wire.STATE_NAMES[state])
        self.state = state
        self.visited.add(state)
        if state == OPERATIONAL:
            self.probe_at = None

    def probe(self, now, pair=None):
        """Sends a Probe in the present state and, if that explores, says when to send the next one."""
        if pair is None:
            pairs = [(local, peer) for peer in self.peers for local in self.locals]
            pair = pairs[self.next_pair % len(pairs)]
            self.next_pair += 1
        mine = Report(*pair, secrets.randbits(32), secrets.randbits(32))
        unseen = [report for report in self.sent if report not in self.seen_by_peer]
        self.sent = [*self.sent, mine][-64:]
        reports = [mine, *unseen[: -REPORTS : -1]]
        self.send("probe", self.state, pair, reports, self.received[-REPORTS :])
        if self.state != OPERATIONAL:
            self.probes += 1
            doubled = max(0, self.probes - NUMBER_OF_INITIAL_PROBES)
            self.probe_at = now + min(INITIAL_PROBE_TIMEOUT * 2**doubled, MAX_PROBE_TIMEOUT)
