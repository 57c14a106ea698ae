"""The Shim6 host (RFC 5533): contexts, the handshakes in both roles, recovery, updates, payload.

No socket and no clock: `packet(now, octets)` takes what arrived, `expire(now)` does what is due, `transmit(octets)` and
`tell(event, **fields)` are the ways out. Whatever a peer should not have done becomes an event `dislike`.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from . import identity, wire
from .reap import Reap
from .wire import Malformed, Refused, control, tag48

I1_TIMEOUT = I2_TIMEOUT = I2BIS_TIMEOUT = UPDATE_TIMEOUT = 4.0
RETRIES, VALIDATOR_MIN_LIFETIME, MAX_UPDATE_TIMEOUT = 4, 30, 120.0
IDLE, I1_SENT, I2_SENT, I2BIS_SENT, ESTABLISHED = "IDLE", "I1-SENT", "I2-SENT", "I2BIS-SENT", "ESTABLISHED"
ANY_LOCATORS = (wire.I1, wire.I2, wire.R1, wire.R2, wire.R1BIS, wire.I2BIS)


@dataclass
class Context:
    """A context as RFC 5533 §6.1 sees it, with the peer's proved locators."""

    local: object  # ULIDs
    peer: object
    fork: int
    state: str
    local_tag: int
    reap: Reap
    peer_tag: int = None
    nonce: int = None  # of the initiator
    peer_pds: bytes = None
    peer_generation: int = None
    repeat: list = None  # [octets and addresses to send again, when, interval, times left]
    update: list = None  # the same for an Update Request, and its nonce
    packet_tags: set = field(default_factory=set)

    @property
    def pair(self):
        return self.reap.pair


class Host:
    def __init__(self, me, transmit, tell, *, send_timeout=15, methods=None, listing=True, spare=()):
        """`listing` says whether our locator list goes into I2, R2 and I2bis; `spare` addresses come in by update."""
        self.me, self.transmit, self.tell = me, transmit, tell
        self.ulid = me.addresses[0]
        self.addresses = list(me.addresses) if listing else [self.ulid]
        self.spare = list(spare)
        self.methods = methods or [wire.HBA] * len(self.addresses)
        self.listing, self.send_timeout = listing, send_timeout
        self.generation = secrets.randbits(32)
        self.contexts, self.secret = [], secrets.token_bytes(16)
        self.answer = "R1"  # to I1: "R1", "I1" (as if we had begun too), "R2" or nothing
        self.echoes = True
        self.fragments = {}
        self.now = 0.0
        self.foreign_tags = set()
        self.stack = None  # takes packets between the ULIDs, when sessions are the kernel's and not our own
        self.counts = {"payload_in": 0, "payload_out": 0, "plain_in": 0, "plain_out": 0}

    def dislike(self, text):
        self.tell("dislike", text=text)

    # --- finding ------------------------------------------------------------------------------------------------

    def by_pair(self, local, peer, fork=0):
        return next((c for c in self.contexts if (c.local, c.peer, c.fork) == (local, peer, fork)), None)

    def by_tag(self, tag):
        return next((c for c in self.contexts if c.local_tag == tag), None)

    def new_context(self, peer, fork, state, local_tag=None):
        context = Context(self.ulid, peer, fork, state, local_tag or self.new_tag(), None)

        def send(kind, *arguments):
            return self.send_reap(context, kind, *arguments)

        context.reap = Reap(self.send_timeout, send, self.tell, self.dislike)
        self.contexts.append(context)
        return context

    def new_tag(self):
        while True:
            tag = secrets.randbits(47)
            if not self.by_tag(tag):
                return tag

    # --- what comes in ------------------------------------------------------------------------------------------

    def packet(self, now, octets):
        """An IPv6 packet to one of our addresses."""
        self.now = now
        try:
            packet = wire.parse_ipv6(octets)
            if packet.next_header != wire.SHIM6:
                self.plain(packet)
            elif len(packet.body) > 2 and packet.body[2] & 0x80:
                self.payload(packet)
            else:
                self.control(packet)
        except Malformed as fault:
            self.dislike(f"malformed: {fault}")
        except identity.Unproved as fault:
            self.dislike(f"not proved: {fault}")

    def plain(self, packet):
        """§12.1: a packet between the ULIDs themselves belongs to their context too."""
        context = self.by_pair(packet.destination, packet.source)
        if context and context.state in (ESTABLISHED, I2BIS_SENT):
            context.reap.incoming(self.now)
            self.counts["plain_in"] += 1
            if not self.stack:
                self.upper(context, packet.next_header, packet.body)

    def control(self, packet):
        if len(packet.whole) > wire.MAX_CONTROL:
            self.dislike(f"a control message in a packet of {len(packet.whole)} octets")
        for address in (packet.source, packet.destination):
            if address.is_multicast or address.is_unspecified:
                raise Malformed(f"a control message from {packet.source} to {packet.destination}")
        try:
            message = wire.parse_control(packet.body, self.dislike)
        except Refused as fault:
            self.dislike(str(fault))
            self.send_error(packet, fault)
            return
        self.tell_message("in", message, packet.source, packet.destination)
        if message.type in ANY_LOCATORS:
            handler = {wire.I1: self.i1, wire.R1: self.r1, wire.I2: self.i2, wire.R2: self.r2, wire.R1BIS: self.r1bis,
                       wire.I2BIS: self.i2bis}[message.type]  # fmt: skip
            handler(packet, message)
        elif message.type != wire.ERROR:
            self.in_context(packet, message)

    def tell_message(self, way, message, source, destination):
        fields = {name: value for name, value in vars(message).items() if value not in (None, [], {})}
        fields.pop("type")
        fields["message"] = message.name
        self.tell(way, source=source, destination=destination, **fields)

    def in_context(self, packet, message):
        """Update, Keepalive, Probe: found by tag, from and to locators of the context (§12.4), else R1bis."""
        context = self.by_tag(message.tag)
        if not context or packet.source not in context.reap.peers or packet.destination not in context.reap.locals:
            self.send_r1bis(packet, message.tag)
            return
        if context.state == I1_SENT:
            return
        if message.type in (wire.KEEPALIVE, wire.PROBE) and context.state != ESTABLISHED:
            return  # RFC 5534 §5.1: only an ESTABLISHED context makes it a valid message.
        self.hurry(context)
        if message.type == wire.KEEPALIVE:
            context.reap.keepalive(self.now)
        elif message.type == wire.PROBE:
            context.reap.probe_received(self.now, message, packet.source, packet.destination)
        else:
            context.reap.incoming(self.now)
            if context.peer_tag is None:
                return  # In I2-SENT nothing is known of the peer yet.
            if message.type == wire.UPDATE:
                self.update_request(context, packet, message)
            elif context.update and message.request_nonce == context.update[-1]:
                context.update = None
                self.tell("updated")
            else:
                self.dislike(f"UA with a nonce of no outstanding request: {message.request_nonce:#x}")

    def hurry(self, context):
        """The peer is there but we wait for its R2: I2 or I2bis once more (§10.4, §12.2)."""
        if context.state in (I2_SENT, I2BIS_SENT) and context.repeat:
            self.send(*context.repeat[0], context.repeat[1])

    # --- initiator (§7.7 to §7.12, §7.16) -----------------------------------------------------------------------

    def open(self, now, peer, source, destination, fork=0, tag=None):
        """Begins a context with the peer's ULID, from one of our locators to one of its."""
        self.now = now
        context = self.new_context(peer, fork, I1_SENT, tag)
        context.reap.locators(self.addresses, [destination], (source, destination))
        self.send_i1(context)
        return context

    def send_i1(self, context):
        context.state, context.nonce = I1_SENT, secrets.randbits(32)
        octets = control(wire.I1, tag48(context.local_tag) + context.nonce.to_bytes(4, "big"), *self.pair_options(context))
        self.send(*context.pair, octets)
        self.repeat(context, context.pair, octets, I1_TIMEOUT, RETRIES)

    def pair_options(self, context, pair=None):
        """ULID pair and fork, each where it has to be."""
        if (pair or context.pair) != (context.local, context.peer):
            yield wire.ulid_pair(context.local, context.peer)
        if context.fork:
            yield wire.option(wire.FORK, context.fork.to_bytes(4, "big"))

    def repeat(self, context, pair, octets, interval, times):
        nominal = interval * (0.5 + secrets.randbelow(1000) / 1000)
        context.repeat = [pair, octets, self.now + nominal, interval, times]

    def r1(self, packet, message):
        context = next((c for c in self.contexts if c.nonce == message.initiator_nonce and c.state == I1_SENT), None)
        if wire.VALIDATOR not in message.options:
            self.dislike("R1 without a validator")
            return
        if not context:
            if not any(c.nonce == message.initiator_nonce for c in self.contexts):
                self.dislike("an R1 nobody asked for")
            return
        if (packet.destination, packet.source) != context.pair:
            self.dislike(f"an R1 from {packet.source} to {packet.destination} to an I1 sent on {context.pair}")
            return
        context.state, context.nonce = I2_SENT, secrets.randbits(32)
        fixed = tag48(context.local_tag) + context.nonce.to_bytes(4, "big") + message.responder_nonce.to_bytes(4, "big")
        options = [wire.option(wire.VALIDATOR, message.options[wire.VALIDATOR]), *self.pair_options(context)]
        octets = control(wire.I2, fixed + bytes(4), *options, *self.own_options())
        self.send(*context.pair, octets)
        self.repeat(context, context.pair, octets, I2_TIMEOUT, 2)

    def own_options(self):
        """Our locators with their proof, and our Send Timeout when it is not the default (RFC 5534 §5.3)."""
        if self.listing:
            yield wire.locator_list(self.generation, self.addresses, self.methods)
            yield wire.option(wire.PDS, self.me.pds)
            signed = [address for address, method in zip(self.addresses, self.methods) if method == wire.CGA]
            if signed:
                yield wire.option(wire.SIGNATURE, self.me.sign(self.generation, signed))
        if self.send_timeout != 15:
            yield wire.timeout_option(self.send_timeout)

    def r2(self, packet, message):
        context = next((c for c in self.contexts if c.nonce == message.initiator_nonce), None)
        if not context:
            self.dislike("an R2 nobody asked for")
            return
        if (packet.destination, packet.source) != context.pair:
            self.dislike(f"an R2 from {packet.source} to {packet.destination}, not on {context.pair}")
            return
        if context.state == ESTABLISHED:
            if context.peer_tag != message.tag:
                self.dislike("a second R2 with another tag")
            return
        if not self.learn(context, packet, message):
            return
        context.state, context.peer_tag, context.repeat = ESTABLISHED, message.tag, None
        self.confusion(context)
        self.tell("established", role="initiator", peer_tag=context.peer_tag)
        context.reap.incoming(self.now)

    # --- what the peer says of itself (§7.2) --------------------------------------------------------------------

    def learn(self, context, packet, message):
        """Proves and records locators, preferences and timeout. False when the message must be ignored."""
        options = message.options
        if wire.TIMEOUT in options:
            context.reap.keepalive_timeout = float(options[wire.TIMEOUT])
        pds = options.get(wire.PDS, context.peer_pds)
        listed = options.get(wire.LOCATORS)
        if wire.PDS in options:
            identity.prove_cga(context.peer, identity.parse_pds(pds, self.dislike))
            context.peer_pds = pds
        if listed is None:
            if message.type != wire.UPDATE and packet.source != context.peer:
                self.dislike(f"{message.name} from {packet.source} without a locator list")
                return False
            peers = context.reap.peers
        else:
            if pds is None:
                self.dislike(f"{message.name} with a locator list and without parameters")
                return False
            identity.prove_list(listed, context.peer, pds, options.get(wire.SIGNATURE), self.dislike)
            peers = listed.locators
            context.peer_generation = listed.generation
            if packet.source not in peers:
                self.dislike(f"{message.name} from {packet.source}, which is not in its own list")
                return False
        context.reap.locators(self.addresses, peers)
        return self.learn_preferences(context, options.get(wire.PREFERENCES))

    def learn_preferences(self, context, told):
        if told is None:
            return True
        if told.generation != context.peer_generation or len(told.elements) != len(context.reap.peers):
            self.dislike(f"{len(told.elements)} preferences of generation {told.generation}")
            return False
        self.tell("preferences", elements=[element.hex() for element in told.elements])
        return True

    def confusion(self, context):
        """§7.15: an old context with the same peer and tag must not live on."""
        for other in list(self.contexts):
            same = other is not context and other.peer_tag == context.peer_tag and other.state in (ESTABLISHED, I2BIS_SENT)
            if same and set(other.reap.peers) & set(context.reap.peers):
                self.tell("confused", peer=other.peer)
                self.contexts.remove(other)

    # --- responder (§7.9, §7.10, §7.13, §7.14) ------------------------------------------------------------------

    def ulids(self, packet, message):
        """(our ULID, the peer's, fork) of an I1, I2 or I2bis."""
        peer, local = message.options.get(wire.ULID_PAIR, (packet.source, packet.destination))
        if (peer, local) == (packet.source, packet.destination) and wire.ULID_PAIR in message.options:
            self.tell("needless_ulid_pair", message=message.name)
        return local, peer, message.options.get(wire.FORK, 0)

    def i1(self, packet, message):
        local, peer, fork = self.ulids(packet, message)
        if local != self.ulid:
            self.dislike(f"I1 for {local}, which is not our ULID")
            return
        context = self.by_pair(local, peer, fork)
        if self.answer == "I1" and not context:
            context = self.open(self.now, peer, packet.destination, packet.source, fork)
        if context and (context.state != ESTABLISHED or self.is_repeat(context, packet, message)):
            self.send_r2(context, packet, message)
        elif self.answer:
            nonce = int(self.now) & 0xFFFFFFFF
            validator = self.validator(nonce, b"I1", tag48(message.tag), local.packed, peer.packed,
                                       packet.source.packed, packet.destination.packed, fork.to_bytes(4, "big"))  # fmt: skip
            fixed = bytes(2) + message.initiator_nonce.to_bytes(4, "big") + nonce.to_bytes(4, "big")
            self.reply(packet, control(wire.R1, fixed, wire.option(wire.VALIDATOR, validator)))

    def is_repeat(self, context, packet, message):
        return packet.source in context.reap.peers and context.peer_tag == message.tag

    def validator(self, nonce, *parts):
        return hmac.new(self.secret, nonce.to_bytes(4, "big") + b"".join(parts), hashlib.sha256).digest()

    def is_valid(self, message, *parts):
        """Whether the validator is ours and young (§7.13)."""
        nonce = message.responder_nonce
        told = message.options.get(wire.VALIDATOR)
        right = told is not None and hmac.compare_digest(told, self.validator(nonce, *parts))
        if not right or not 0 <= int(self.now) - nonce <= VALIDATOR_MIN_LIFETIME:
            self.dislike(f"{message.name} with {'an old' if right else 'a wrong'} validator")
            return False
        return True

    def i2(self, packet, message):
        local, peer, fork = self.ulids(packet, message)
        parts = (b"I1", tag48(message.tag), local.packed, peer.packed, packet.source.packed, packet.destination.packed,
                 fork.to_bytes(4, "big"))  # fmt: skip
        if local == self.ulid and self.is_valid(message, *parts):
            self.accept(packet, message, local, peer, fork)

    def accept(self, packet, message, local, peer, fork):
        """The second half of I2 and I2bis."""
        context = self.by_pair(local, peer, fork)
        fresh = context is None
        if fresh:
            context = self.new_context(peer, fork, IDLE)
            context.reap.locators(self.addresses, [packet.source], (packet.destination, packet.source))
        try:
            if not self.learn(context, packet, message):
                raise identity.Unproved(f"{message.name} from {packet.source}")
        except identity.Unproved:
            if fresh:
                self.contexts.remove(context)
            raise
        context.peer_tag = message.tag
        if context.state in (IDLE, I1_SENT):
            context.state, context.repeat = ESTABLISHED, None
        self.confusion(context)
        if context.pair is None or context.pair[1] not in context.reap.peers:
            context.reap.pair = (packet.destination, packet.source)
        context.reap.incoming(self.now)
        if context.state == ESTABLISHED:
            self.tell("established", role="responder", peer_tag=context.peer_tag)
        self.send_r2(context, packet, message)

    def send_r2(self, context, packet, message):
        fixed = tag48(context.local_tag) + message.initiator_nonce.to_bytes(4, "big")
        self.reply(packet, control(wire.R2, fixed, *self.own_options()))
        if context.state == ESTABLISHED:
            context.reap.outgoing(self.now)

    # --- recovery (§7.17 to §7.20) ------------------------------------------------------------------------------

    def send_r1bis(self, packet, tag):
        nonce = int(self.now) & 0xFFFFFFFF
        validator = self.validator(nonce, b"bis", tag48(tag), packet.source.packed, packet.destination.packed)
        self.reply(packet, control(wire.R1BIS, tag48(tag) + nonce.to_bytes(4, "big"), wire.option(wire.VALIDATOR, validator)))

    def r1bis(self, packet, message):
        if wire.VALIDATOR not in message.options:
            self.dislike("R1bis without a validator")
        known = [c for c in self.contexts if c.peer_tag == message.tag and packet.source in c.reap.peers]
        if not known and message.tag not in self.foreign_tags:
            self.dislike(f"R1bis for the tag {message.tag:#x}, which we never used")
        context = next((c for c in known if c.state == ESTABLISHED), None)
        if not context or packet.destination not in context.reap.locals:
            return
        context.state, context.nonce = I2BIS_SENT, secrets.randbits(32)
        pair = packet.destination, packet.source
        context.reap.pair = pair
        fixed = tag48(context.local_tag) + context.nonce.to_bytes(4, "big") + message.responder_nonce.to_bytes(4, "big")
        fixed += bytes(6) + tag48(message.tag)
        options = [wire.option(wire.VALIDATOR, message.options[wire.VALIDATOR]), *self.pair_options(context, pair)]
        octets = control(wire.I2BIS, fixed, *options, *self.own_options())
        self.send(*pair, octets)
        self.repeat(context, pair, octets, I2BIS_TIMEOUT, 2)

    def i2bis(self, packet, message):
        local, peer, fork = self.ulids(packet, message)
        parts = (b"bis", tag48(message.packet_tag), packet.source.packed, packet.destination.packed)
        if local == self.ulid and self.is_valid(message, *parts):
            self.accept(packet, message, local, peer, fork)

    # --- updates (§10) ------------------------------------------------------------------------------------------

    def update_request(self, context, packet, message):
        if self.learn(context, packet, message):
            fixed = tag48(context.peer_tag) + message.request_nonce.to_bytes(4, "big")
            self.send(*context.pair, control(wire.ACK, fixed))

    def send_update(self, now, context, *options):
        self.now = now
        nonce = secrets.randbits(32)
        octets = control(wire.UPDATE, tag48(context.peer_tag) + nonce.to_bytes(4, "big"), *options)
        self.send(*context.pair, octets)
        context.update = [context.pair, octets, now + UPDATE_TIMEOUT * (0.5 + secrets.randbelow(1000) / 1000),
                          UPDATE_TIMEOUT, nonce]  # fmt: skip
        context.reap.outgoing(now)

    # --- payload (§11, §12) -------------------------------------------------------------------------------------

    def payload(self, packet):
        following, tag, body = wire.parse_payload(packet.body)
        context = self.by_tag(tag)
        self.counts["payload_in"] += 1
        if not self.stack or not context:
            self.tell("payload_in", source=packet.source, destination=packet.destination, tag=tag, next_header=following)
        if not context:
            self.send_r1bis(packet, tag)
            return
        if packet.source not in context.reap.peers or packet.destination not in context.reap.locals:
            self.dislike(f"payload of our tag from {packet.source} to {packet.destination}, no locators of this context")
        if context.state == I1_SENT:
            return
        self.hurry(context)
        context.reap.incoming(self.now)
        if packet.before:
            self.tell("headers_before_shim6", octets=packet.before.hex())
        if self.stack:
            self.stack(wire.ipv6(context.peer, context.local, following, body, packet.hop_limit))
        else:
            self.upper(context, following, body)

    def session(self, now, octets):
        """§11: a packet of the kernel's, between ULIDs. Without a context nothing happens to it."""
        self.now = now
        packet = wire.parse_ipv6(octets)
        if packet.destination.is_multicast or packet.destination.is_link_local:
            return
        context = self.by_pair(packet.source, packet.destination)
        live = context and context.state in (ESTABLISHED, I2BIS_SENT)
        if live and context.pair != (context.local, context.peer) and not packet.before:
            body = wire.payload_header(packet.next_header, context.peer_tag) + packet.body
            octets = wire.ipv6(*context.pair, wire.SHIM6, body, packet.hop_limit)
            self.counts["payload_out"] += 1
        else:
            self.counts["plain_out"] += 1
        self.transmit(octets)
        if live:
            context.reap.outgoing(now)

    def upper(self, context, protocol, body):
        """Our upper layer: echo requests and UDP to port 7 are answered, everything is told."""
        if protocol == wire.FRAGMENT:
            protocol, body = self.reassemble(context, body)
            if body is None:
                return
        if protocol not in (wire.ICMPV6, wire.UDP):
            self.tell("upper", protocol=protocol, octets=body.hex())
            return
        if wire.upper_checksum(context.peer, context.local, protocol, body) != 0:
            self.dislike(f"a wrong upper-layer checksum (protocol {protocol}) between the ULIDs")
            return
        if protocol == wire.ICMPV6:
            kind = body[0]
            names = {128: "echo_request", 129: "echo_reply"}
            self.tell(names.get(kind, "icmpv6"), type=kind, id=int.from_bytes(body[4:6], "big"),
                      sequence=int.from_bytes(body[6:8], "big"), octets=body[8:].hex())  # fmt: skip
            if kind == 128 and self.echoes:
                self.send_upper(context, wire.ICMPV6, b"\x81\0\0\0" + body[4:], 2)
        else:
            source, destination = int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")
            self.tell("udp", source_port=source, port=destination, octets=body[8:].hex())
            if destination == 7 and self.echoes:
                self.send_udp(context, 7, source, body[8:])

    def send_udp(self, context, source, destination, data):
        head = source.to_bytes(2, "big") + destination.to_bytes(2, "big") + (8 + len(data)).to_bytes(2, "big") + b"\0\0"
        self.send_upper(context, wire.UDP, head + data, 6)

    def send_echo(self, context, number, sequence, data):
        head = b"\x80\0\0\0" + number.to_bytes(2, "big") + sequence.to_bytes(2, "big")
        self.send_upper(context, wire.ICMPV6, head + data, 2)

    def send_upper(self, context, protocol, octets, at):
        """Puts the checksum at `at` and sends between the ULIDs, through the context."""
        value = wire.upper_checksum(context.local, context.peer, protocol, octets) or 0xFFFF
        octets = octets[:at] + value.to_bytes(2, "big") + octets[at + 2 :]
        if context.state not in (ESTABLISHED, I2BIS_SENT):
            self.tell("not_sent", state=context.state)
            return
        for following, part in wire.fragments(protocol, octets):
            if context.pair == (context.local, context.peer):
                self.send(*context.pair, part, following)
            else:
                self.send(*context.pair, wire.payload_header(following, context.peer_tag) + part)
        context.reap.outgoing(self.now)

    def reassemble(self, context, body):
        """(protocol, octets) of a packet whose fragments are all there, else (_, None)."""
        protocol, offset, more, number, part = wire.parse_fragment(body)
        parts = self.fragments.setdefault((context.local_tag, number), {})
        parts[offset] = part
        if not more:
            parts["end"] = offset + len(part)
        octets, at = b"", 0
        while at in parts:
            octets += parts[at]
            at = len(octets)
        if at != parts.get("end"):
            return protocol, None
        del self.fragments[context.local_tag, number]
        return protocol, octets

    # --- timers and sending -------------------------------------------------------------------------------------

    def deadline(self):
        times = [c.reap.deadline() for c in self.contexts if c.state in (ESTABLISHED, I2BIS_SENT)]
        times += [c.repeat[2] for c in self.contexts if c.repeat] + [c.update[2] for c in self.contexts if c.update]
        return min((time for time in times if time is not None), default=None)

    def expire(self, now):
        self.now = now
        for context in list(self.contexts):
            if context.state in (ESTABLISHED, I2BIS_SENT):
                context.reap.expire(now)
            if context.update and now >= context.update[2]:
                interval = min(2 * context.update[3], MAX_UPDATE_TIMEOUT)
                context.update[2:4] = now + interval * (0.5 + secrets.randbelow(1000) / 1000), interval
                self.send(*context.pair, context.update[1])
            if context.repeat and now >= context.repeat[2]:
                pair, octets, _, interval, times = context.repeat
                if times:
                    self.send(*pair, octets)
                    self.repeat(context, pair, octets, 2 * interval, times - 1)
                else:
                    self.tell("failed", state=context.state)
                    self.contexts.remove(context)

    def send_reap(self, context, kind, *arguments):
        if kind == "keepalive":
            self.send(*context.pair, control(wire.KEEPALIVE, tag48(context.peer_tag) + bytes(4)))
        else:
            state, pair, sent, received = arguments
            self.send(*pair, wire.probe(context.peer_tag, state, sent, received))

    def send_error(self, packet, fault):
        quoted = packet.whole[: wire.MAX_CONTROL - 48]
        pointer = len(packet.whole) - len(packet.body) + fault.pointer
        self.reply(packet, control(wire.ERROR, pointer.to_bytes(2, "big") + quoted, code=fault.code))

    def reply(self, packet, octets):
        self.send(packet.destination, packet.source, octets)

    def send(self, source, destination, octets, next_header=wire.SHIM6):
        packet = wire.ipv6(source, destination, next_header, octets)
        if next_header == wire.SHIM6 and not octets[2] & 0x80:
            # What we send has to stand the same test as what we receive.
            message = wire.parse_control(octets, self.dislike)
            if len(packet) > wire.MAX_CONTROL:
                self.dislike(f"we would send a control message of {len(packet)} octets")
            self.tell_message("out", message, source, destination)
        self.transmit(packet)
