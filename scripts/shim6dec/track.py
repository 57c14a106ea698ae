"""Many packets in time order: what must agree between them.

Nonces and validators are echoed, tags in use are tags somebody announced in an I2, I2bis or R2, locators in use are
locators somebody listed and proved, probe reports repeat probes that were really sent.
"""

import ipaddress
import math
from dataclasses import dataclass, field

from . import identity, wire
from .wire import show

KEPT_PER_RULE = 40  # a capture with one systematic fault need not print it a hundred thousand times
SAME_MOMENT_S = 0.005  # what leaves a box in one turn, and is captured at several places


@dataclass
class Violation:
    """One thing a sender got wrong."""

    rule: str
    text: str
    file: str
    number: int
    time: float

    def __str__(self):
        return f"{self.file}:{self.number}: [{self.rule}] {self.text}"


@dataclass
class End:
    """One direction of a context: the tag its receiver announced, and who may use it towards whom."""

    tag: int
    owner: bytes  # ULID of the announcer, to whom packets with this tag go
    peer: bytes  # ULID of the sender of such packets
    since: float
    message: str
    payload_packets: int = 0
    pair: tuple = None


@dataclass
class Exchange:
    """What an I1, I2 or I2bis offered, to judge its answer by."""

    type: int
    source: bytes
    destination: bytes
    ulids: tuple
    tag: int
    time: float


@dataclass
class Tracker:
    """Judges packets one after the other; `violations` and `summary()` are the result."""

    ulids: ipaddress.IPv6Network = None  # where every ULID has to be, when given
    midstream: bool = False  # the capture began with contexts already there
    violations: list = field(default_factory=list)
    counts: dict = field(default_factory=dict)  # rule -> how often
    messages: dict = field(default_factory=dict)  # message name -> how often
    ends: dict = field(default_factory=dict)  # tag -> End
    exchanges: dict = field(default_factory=dict)  # initiator nonce -> Exchange
    validators: dict = field(default_factory=dict)  # (locators of the asker, responder nonce) -> (validator, packet tag)
    parameters: dict = field(default_factory=dict)  # ULID -> its parsed PDS
    locators: dict = field(default_factory=dict)  # (ULID, peer ULID) -> its listed locators, in order
    generations: dict = field(default_factory=dict)  # (ULID, peer ULID) -> generation of that list
    used_tags: set = field(default_factory=set)  # (source, destination, tag) of everything sent with a receiver's tag
    requests: set = field(default_factory=set)  # (who asked, who was asked, nonce) of every UR
    probes: dict = field(default_factory=dict)  # keys of every probe's first record -> when it was first seen
    awaited: list = field(default_factory=list)  # (report of an earlier probe not seen before it, frame)
    handshakes: list = field(default_factory=list)
    moves: list = field(default_factory=list)  # changes of locator pair of payload
    explored: list = field(default_factory=list)  # every probe at the first place it was seen
    offered_liveness: set = field(default_factory=set)  # and those whose owners offered to exchange liveness
    offered_udp: set = field(default_factory=set)  # tags whose owners offered that the context comes in UDP
    started: dict = field(default_factory=dict)  # (ULID pair, tag) -> time of the first I1

    def frame(self, frame):
        """Judges one captured frame."""
        if not frame.ipv6:
            return
        faults = []
        found = wire.find_shim6(frame.packet, faults)
        if found is not None:
            if found.in_udp:
                self.messages["in UDP"] = self.messages.get("in UDP", 0) + 1
            if wire.is_payload(found):
                self.payload(found, frame, faults)
            else:
                self.control(found, frame, faults)
        self.note(faults, frame)

    def finish(self):
        """Nothing more comes: what was to be seen a moment later has been seen, or not."""
        for report, frame in self.awaited:
            if self.probes.get(report.key, math.inf) - frame.time > SAME_MOMENT_S:
                self.note([("probe-sent", f"report of an earlier probe {report.nonce:08x} never seen")], frame)
        self.awaited.clear()

    def note(self, faults, frame):
        for rule, text in faults:
            self.counts[rule] = self.counts.get(rule, 0) + 1
            if self.counts[rule] <= KEPT_PER_RULE:
                self.violations.append(Violation(rule, text, frame.file, frame.number, frame.time))

    def payload(self, found, frame, faults):
        self.messages["payload"] = self.messages.get("payload", 0) + 1
        tag, _ = wire.parse_payload(found, faults)
        end = self.check_tag(tag, found, "payload", faults)
        if end is None:
            return
        end.payload_packets += 1
        pair = found.source, found.destination
        if pair != end.pair:
            end.pair = pair
            self.moves.append({
                "time": frame.time,
                "from": show(end.peer),
                "to": show(end.owner),
                "source": show(pair[0]),
                "destination": show(pair[1]),
            })

    def control(self, found, frame, faults):
        message = wire.parse_control(found, faults)
        name = message.name if message else "unreadable"
        self.messages[name] = self.messages.get(name, 0) + 1
        if message is None or any(rule == "checksum" for rule, _ in faults):
            return  # Its fields mean nothing.
        judge = {
            wire.I1: self.i1,
            wire.R1: self.r1,
            wire.I2: self.i2,
            wire.R2: self.r2,
            wire.R1BIS: self.r1bis,
            wire.I2BIS: self.i2bis,
            wire.UR: self.update_request,
            wire.UA: self.update_acknowledgement,
            wire.KEEPALIVE: self.keepalive,
            wire.PROBE: self.probe,
        }.get(message.type)
        if judge:
            judge(message, found, frame, faults)

    # --- establishment and recovery ----------------------------------------------------------------------------

    def i1(self, message, found, frame, faults):
        ulids = self.ulid_pair(message, found, faults)
        self.started.setdefault((ulids, message.tag), frame.time)
        self.offer(message, found, ulids, frame)

    def r1(self, message, found, frame, faults):
        offer = self.exchanges.get(message.initiator_nonce)
        if not self.answers(offer, found, (wire.I1,)):
            self.unless_midstream(faults, "r1-unasked", "R1 whose nonce and addresses answer no I1")
        self.remember_validator(message, found)

    def i2(self, message, found, frame, faults):
        ulids = self.ulid_pair(message, found, faults)
        self.check_validator(message, found, faults)
        if (ulids, message.tag) not in self.started:
            self.unless_midstream(faults, "i2-tag", f"I2 with tag {message.tag:012x}, which no I1 of this pair had")
        self.announce(message.tag, *ulids, message, frame, faults)
        self.list_of(*ulids, message, found, faults)
        self.offer(message, found, ulids, frame)

    def r2(self, message, found, frame, faults):
        offer = self.exchanges.get(message.initiator_nonce)
        if not self.answers(offer, found, (wire.I1, wire.I2, wire.I2BIS)):
            self.unless_midstream(faults, "r2-unasked", "R2 whose nonce and addresses answer no I1, I2 or I2bis")
            return
        initiator, responder = offer.ulids
        self.announce(message.tag, responder, initiator, message, frame, faults)
        self.list_of(responder, initiator, message, found, faults)
        began = self.started.pop((offer.ulids, offer.tag), None)
        if began is not None or offer.type == wire.I2BIS:
            self.handshakes.append({
                "kind": "recovery" if offer.type == wire.I2BIS else "establishment",
                "initiator": show(initiator),
                "responder": show(responder),
                "began": began if offer.type != wire.I2BIS else offer.time,
                "ended": frame.time,
                "ms": round((frame.time - (offer.time if offer.type == wire.I2BIS else began)) * 1000, 3),
            })
            if offer.type == wire.I2BIS:
                offer.type = wire.I2  # A second sight of the same R2 at another port is no second recovery.

    def r1bis(self, message, found, frame, faults):
        if (found.destination, found.source, message.tag) not in self.used_tags:
            self.unless_midstream(faults, "r1bis-unasked", f"R1bis for tag {message.tag:012x}, which nobody sent there")
        self.remember_validator(message, found)

    def i2bis(self, message, found, frame, faults):
        ulids = self.ulid_pair(message, found, faults)
        packet_tag = self.check_validator(message, found, faults)
        if packet_tag is not None and packet_tag != message.packet_tag:
            faults.append(("i2bis-tag", "the packet tag is not the R1bis's"))
        self.announce(message.tag, *ulids, message, frame, faults)
        self.list_of(*ulids, message, found, faults)
        self.offer(message, found, ulids, frame)

    def offer(self, message, found, ulids, frame):
        self.exchanges.setdefault(
            message.initiator_nonce,
            Exchange(message.type, found.source, found.destination, ulids, message.tag, frame.time),
        )
        offer = self.exchanges[message.initiator_nonce]
        # An I2 may reuse its I1's nonce; the later message is the one an R2 answers, the pair stays the same.
        if offer.type == wire.I1 and message.type == wire.I2 and offer.ulids == ulids:
            offer.source, offer.destination = found.source, found.destination

    @staticmethod
    def answers(offer, found, types):
        """Whether this packet goes back the way the offer came."""
        return (
            offer is not None
            and offer.type in types
            and (offer.source, offer.destination) == (found.destination, found.source)
        )

    def remember_validator(self, message, found):
        key = found.destination, found.source, message.responder_nonce
        validator = message.options.get(wire.VALIDATOR)
        self.validators.setdefault(key, []).append((validator, message.tag))

    def check_validator(self, message, found, faults):
        """The validator of an I2 or I2bis is a copy; returns the packet tag of the R1bis it came with."""
        seen = self.validators.get((found.source, found.destination, message.responder_nonce))
        if seen is None:
            self.unless_midstream(faults, "validator", f"{message.name} whose responder nonce no R1 or R1bis had")
            return None
        for validator, tag in seen:
            if validator == message.options.get(wire.VALIDATOR):
                return tag
        faults.append(("validator", f"the validator of {message.name} is no copy"))
        return None

    def ulid_pair(self, message, found, faults):
        """The ULIDs a message is about, sender's first; they must be told when the addresses are not they."""
        pair = message.ulid_pair or (found.source, found.destination)
        if self.ulids and not all(ipaddress.IPv6Address(ulid) in self.ulids for ulid in pair):
            faults.append(("ulid-pair", f"{message.name} is about {show(pair[0])} and {show(pair[1])}, which are no ULIDs"))
        return pair

    def announce(self, tag, owner, peer, message, frame, faults):
        known = self.ends.get(tag)
        if known is None:
            self.ends[tag] = End(tag, owner, peer, frame.time, message.name)
        elif (known.owner, known.peer) != (owner, peer):
            faults.append(("tag-reuse", f"tag {tag:012x} is announced for two ULID pairs"))
        if wire.UDP_OPTION in message.options:
            self.offered_udp.add(tag)
        if wire.LIVENESS in message.options:
            self.offered_liveness.add(tag)

    # --- with a context ----------------------------------------------------------------------------------------

    def update_request(self, message, found, frame, faults):
        end = self.check_tag(message.tag, found, "UR", faults)
        if end is None:
            return
        self.requests.add((end.peer, end.owner, message.request_nonce))
        self.list_of(end.peer, end.owner, message, found, faults)
        if message.preferences and not message.locator_list:
            generation, elements = message.preferences
            known = self.generations.get((end.peer, end.owner))
            if known is not None and generation != known:
                faults.append(("preferences", f"preferences for generation {generation:08x}, the list has {known:08x}"))
            listed = self.locators.get((end.peer, end.owner))
            if listed is not None and len(elements) != len(listed):
                faults.append(("preferences", f"{len(elements)} preferences for {len(listed)} locators"))

    def update_acknowledgement(self, message, found, frame, faults):
        end = self.check_tag(message.tag, found, "UA", faults)
        # It need not come back the way the request came (RFC 5533 §10.4).
        if end and (end.owner, end.peer, message.request_nonce) not in self.requests:
            self.unless_midstream(faults, "ua-unasked", "UA that answers no UR")

    def keepalive(self, message, found, frame, faults):
        end = self.check_tag(message.tag, found, "Keepalive", faults)
        if end is not None and wire.LIVENESS in message.options and message.tag not in self.offered_liveness:
            self.unless_midstream(faults, "liveness-unasked", f"liveness, which {show(end.owner)} did not offer")

    def probe(self, message, found, frame, faults):
        self.check_tag(message.tag, found, "Probe", faults)
        # What a box sends at one moment through several ports leaves in the order of the ports.
        missing = [report for report in message.sent[1:] if report.key not in self.probes]
        self.awaited += [(report, frame) for report in missing if not self.midstream]
        for report in message.received:
            if report.key not in self.probes:
                self.unless_midstream(faults, "probe-received", f"report of a received probe {report.nonce:08x} never seen")
        if message.sent[0].key not in self.probes:
            self.explored.append({
                "time": frame.time,
                "source": show(found.source),
                "destination": show(found.destination),
                "state": wire.STATES.get(message.state),
                "sent": len(message.sent),
                "received": len(message.received),
            })
        self.probes.setdefault(message.sent[0].key, frame.time)

    def check_tag(self, tag, found, name, faults):
        """The tag was announced, and both addresses belong to the context. Returns the direction it stands for."""
        self.used_tags.add((found.source, found.destination, tag))
        end = self.ends.get(tag)
        if end is None:
            self.unless_midstream(faults, "tag", f"{name} with tag {tag:012x}, which nobody announced")
            return None
        if found.in_udp and tag not in self.offered_udp:
            self.unless_midstream(faults, "udp-unasked", f"{name} in UDP, which {show(end.owner)} did not offer")
        for ulid, other, address, what in (
            (end.peer, end.owner, found.source, "source"),
            (end.owner, end.peer, found.destination, "destination"),
        ):
            if address != ulid and address not in self.locators.get((ulid, other), ()):
                self.unless_midstream(faults, "locator", f"{what} {show(address)} of {name} was not listed by {show(ulid)}")
        return end

    # --- proofs ------------------------------------------------------------------------------------------------

    def list_of(self, owner, peer, message, found, faults):
        """Checks a Locator List against the owner's parameters, then lets it replace the one before."""
        if wire.PDS in message.options:
            self.take_parameters(owner, message.options[wire.PDS], faults)
        listed = message.locator_list
        if listed is None:
            if wire.LOCATORS not in message.options and message.type != wire.UR:
                if found.source != owner:
                    faults.append(("list-missing", f"{message.name} from {show(found.source)} lists no locators"))
            return
        parameters = self.parameters.get(owner)
        if parameters is None:
            faults.append(("pds-missing", f"nothing proves the locators of {show(owner)}"))
        else:
            for method, locator in zip(listed.methods, listed.locators):
                if method == wire.HBA:
                    self.proved(identity.verify_member, (locator, parameters), f"locator {show(locator)}", faults)
            signed = [locator for method, locator in zip(listed.methods, listed.locators) if method == wire.CGA]
            if signed and wire.SIGNATURE in message.options:
                signature = message.options[wire.SIGNATURE]
                self.proved(
                    identity.verify_signature, (signature, listed.generation, signed, parameters), "signature", faults
                )
        if message.type != wire.UR and found.source not in listed.locators and found.source != owner:
            faults.append(("list-source", f"{message.name} from {show(found.source)}, which it does not list"))
        self.locators[owner, peer] = listed.locators
        self.generations[owner, peer] = listed.generation

    def take_parameters(self, owner, raw, faults):
        try:
            parameters = identity.parse(raw)
        except identity.IdentityError as error:
            faults.append(("pds", f"PDS of {show(owner)}: {error}"))
            return
        if parameters.reserved:
            faults.append(("reserved", f"Reserved of the Multi-Prefix extension is {parameters.reserved:#x}"))
        self.proved(identity.verify_ulid, (owner, parameters), f"ULID {show(owner)}", faults)
        self.parameters[owner] = parameters

    @staticmethod
    def proved(proof, arguments, what, faults):
        try:
            proof(*arguments)
        except identity.IdentityError as error:
            faults.append(("proof", f"{what}: {error}"))

    def unless_midstream(self, faults, rule, text):
        if not self.midstream:
            faults.append((rule, text))

    # --- what was seen -----------------------------------------------------------------------------------------

    def summary(self):
        """Everything a test or a person may want to know, ready for JSON."""
        contexts = [
            {
                "tag": f"{end.tag:012x}",
                "to": show(end.owner),
                "from": show(end.peer),
                "announced_by": end.message,
                "since": end.since,
                "payload_packets": end.payload_packets,
                "locators": [show(locator) for locator in self.locators.get((end.owner, end.peer), ())],
            }
            for end in self.ends.values()
        ]
        return {
            "ok": not self.counts,
            "messages": dict(sorted(self.messages.items())),
            "handshakes": self.handshakes,
            "contexts": contexts,
            "moves": self.moves,
            "probes": self.explored,
            "violation_counts": dict(sorted(self.counts.items())),
            "violations": [
                {"rule": found.rule, "text": found.text, "file": found.file, "packet": found.number, "time": found.time}
                for found in self.violations
            ],
        }
