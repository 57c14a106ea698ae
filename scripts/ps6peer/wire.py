"""Octets to meaning and back: IPv6, Shim6 control messages (RFC 5533 §5, RFC 5534 §5), the payload header.

Parsing is done twice at once: what a receiver has to do with a message (drop it, take it), and what a sender should
never have sent. The latter is told to `dislike`, a function that takes one sentence.
"""

import secrets
import struct
from dataclasses import dataclass, field
from ipaddress import IPv6Address

SHIM6, NO_NEXT, ICMPV6, UDP, FRAGMENT = 140, 59, 58, 17, 44
MAX_CONTROL = 1280  # octets of a whole packet with a control message (RFC 5533 §5.1)
FRAGMENT_SIZE = 1280 - 40 - 8 - 8  # what fits next to a payload header anywhere; a multiple of 8
TAG_BITS = (1 << 47) - 1

I1, R1, I2, R2, R1BIS, I2BIS = 1, 2, 3, 4, 5, 6
UPDATE, ACK, KEEPALIVE, PROBE, ERROR = 64, 65, 66, 67, 68
NAMES = {I1: "I1", R1: "R1", I2: "I2", R2: "R2", R1BIS: "R1bis", I2BIS: "I2bis", UPDATE: "UR", ACK: "UA",
         KEEPALIVE: "Keepalive", PROBE: "Probe", ERROR: "Error"}  # fmt: skip

VALIDATOR, LOCATORS, PREFERENCES, PDS, SIGNATURE, ULID_PAIR, FORK, TIMEOUT = 1, 2, 3, 4, 5, 6, 7, 10
EXPERIMENTAL = range(16384, 32768)  # numbers anyone may use (RFC 5533 §17); who is not concerned skips them (C = 0)
IDENTITY = {LOCATORS, PREFERENCES, PDS, SIGNATURE, TIMEOUT}
ALLOWED = {I1: {ULID_PAIR, FORK}, R1: {VALIDATOR}, I2: {VALIDATOR, ULID_PAIR, FORK} | IDENTITY, R2: IDENTITY,
           R1BIS: {VALIDATOR}, I2BIS: {VALIDATOR, ULID_PAIR, FORK} | IDENTITY, UPDATE: IDENTITY,
           ACK: set(), KEEPALIVE: set(), PROBE: set(), ERROR: set()}  # fmt: skip
FIXED = {I1: 16, R1: 16, I2: 24, R2: 16, R1BIS: 16, I2BIS: 32, UPDATE: 16, ACK: 16, KEEPALIVE: 16, PROBE: 16, ERROR: 16}

HBA, CGA = 1, 2  # Table 4; the registry of §17 has them the other way round, and every figure follows Table 4
OPERATIONAL, EXPLORING, INBOUND_OK = 0, 1, 2
STATE_NAMES = {OPERATIONAL: "Operational", EXPLORING: "Exploring", INBOUND_OK: "InboundOk"}


class Malformed(Exception):
    """A receiver drops this in silence. The text says why."""


class Refused(Exception):
    """A receiver answers this with an Error message; `pointer` counts from the Shim6 header."""

    def __init__(self, code, pointer, text):
        super().__init__(text)
        self.code, self.pointer = code, pointer


@dataclass
class Message:
    """A control message; fields its type does not have are None."""

    type: int
    tag: int = None  # of the initiator, responder, receiver or R1bis' packet, as the type has it
    packet_tag: int = None  # I2bis: copied from R1bis
    initiator_nonce: int = None
    responder_nonce: int = None
    request_nonce: int = None
    state: int = None
    sent: list = field(default_factory=list)
    received: list = field(default_factory=list)
    code: int = None
    pointer: int = None
    quoted: bytes = None
    options: dict = field(default_factory=dict)

    @property
    def name(self):
        return NAMES.get(self.type, str(self.type))


@dataclass(frozen=True)
class Report:
    """One probe as it is told of in Probe messages (RFC 5534 §5.2)."""

    source: IPv6Address
    destination: IPv6Address
    nonce: int
    data: int

    def octets(self):
        return self.source.packed + self.destination.packed + struct.pack("!II", self.nonce, self.data)


@dataclass
class LocatorList:
    generation: int
    methods: list
    locators: list
    method_at: int = 0  # where the first method octet is, from the Shim6 header


@dataclass
class Preferences:
    generation: int
    elements: list  # octet strings, all of one length
    at: int = 0


# --- IPv6 ------------------------------------------------------------------------------------------------------


@dataclass
class Packet:
    """An IPv6 packet whose headers before Shim6 have been walked."""

    source: IPv6Address
    destination: IPv6Address
    hop_limit: int
    next_header: int  # of what follows `before`
    before: bytes  # headers between the IPv6 header and `body`
    body: bytes
    whole: bytes


def ipv6(source, destination, next_header, body, hop_limit=64):
    head = struct.pack("!IHBB", 6 << 28, len(body), next_header, hop_limit)
    return head + source.packed + destination.packed + body


def parse_ipv6(octets):
    """Walks Hop-by-Hop, Routing and the Destination Options before a Routing header (RFC 5533 §4.6)."""
    if len(octets) < 40 or octets[0] >> 4 != 6:
        raise Malformed("not IPv6")
    length = struct.unpack("!H", octets[4:6])[0]
    if 40 + length > len(octets):
        raise Malformed(f"the IPv6 header says {length} octets, {len(octets) - 40} came")
    whole = octets[: 40 + length]
    following, at = whole[6], 40
    while following in (0, 43, 60):
        if at + 8 > len(whole):
            raise Malformed("an extension header is cut short")
        size = 8 * (whole[at + 1] + 1)
        if at + size > len(whole):
            raise Malformed("an extension header is longer than the packet")
        if following == 60 and whole[at] != 43:
            break
        following, at = whole[at], at + size
    return Packet(
        IPv6Address(whole[8:24]), IPv6Address(whole[24:40]), whole[7], following, whole[40:at], whole[at:], whole
    )


def checksum(octets):
    """The Internet checksum, 0 over octets that hold a right one."""
    octets += b"\0" * (len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def upper_checksum(source, destination, protocol, octets):
    """The checksum of ICMPv6 and UDP, over the ULIDs."""
    pseudo = source.packed + destination.packed + struct.pack("!II", len(octets), protocol)
    return checksum(pseudo + octets)


# --- building --------------------------------------------------------------------------------------------------


def option(kind, contents, critical=0):
    length = len(contents)
    return struct.pack("!HH", kind << 1 | critical, length) + contents + bytes(7 - (length + 3) % 8)


def ulid_pair(sender, receiver):
    return option(ULID_PAIR, bytes(4) + sender.packed + receiver.packed)


def locator_list(generation, locators, methods):
    head = struct.pack("!IB", generation, len(locators)) + bytes(methods)
    # The locators start on a multiple of 8 octets, counted from the start of the option.
    head += bytes(-(4 + len(head)) % 8)
    return option(LOCATORS, head + b"".join(locator.packed for locator in locators))


def preferences(generation, elements):
    return option(PREFERENCES, struct.pack("!IB", generation, len(elements[0])) + b"".join(elements))


def timeout_option(seconds):
    return option(TIMEOUT, struct.pack("!HH", 0, seconds))


def control(kind, fixed, *options, code=0):
    """`fixed` is what follows the checksum; the checksum covers the whole message (RFC 5533 §5.3)."""
    body = fixed + b"".join(options)
    body += bytes(-(6 + len(body)) % 8)
    head = bytes((NO_NEXT, (6 + len(body)) // 8 - 1, kind, code << 1))
    return head + struct.pack("!H", checksum(head + b"\0\0" + body)) + body


def tag48(tag):
    return struct.pack("!Q", tag)[2:]


def probe(tag, state, sent, received):
    fixed = tag48(tag) + bytes((len(received) << 4 | len(sent), state << 6, 0, 0))
    return control(PROBE, fixed + b"".join(report.octets() for report in sent + received))


def payload_header(next_header, tag):
    head = struct.pack("!Q", 1 << 47 | tag)[2:]
    return bytes((next_header, 0)) + head


def fragments(protocol, octets):
    """(next header, body) of each packet it takes to carry an upper-layer packet."""
    if len(octets) <= FRAGMENT_SIZE:
        yield protocol, octets
        return
    number = secrets.randbits(32)
    for at in range(0, len(octets), FRAGMENT_SIZE):
        more = at + FRAGMENT_SIZE < len(octets)
        yield FRAGMENT, struct.pack("!BBHI", protocol, 0, at | more, number) + octets[at : at + FRAGMENT_SIZE]


# --- parsing ---------------------------------------------------------------------------------------------------


def parse_payload(octets):
    """(next header, tag, what follows) of a payload header."""
    if len(octets) < 8 or octets[1] != 0:
        raise Malformed(f"a payload header of {8 * (octets[1] + 1)} octets")
    return octets[0], int.from_bytes(octets[2:8], "big") & TAG_BITS, octets[8:]


def parse_fragment(octets):
    """(protocol, offset, more to come, identification, part) of a Fragment header and what follows."""
    if len(octets) < 8:
        raise Malformed("a Fragment header is cut short")
    protocol, _, place, number = struct.unpack("!BBHI", octets[:8])
    return protocol, place & ~7, place & 1, number, octets[8:]


def parse_control(octets, dislike):
    """A control message, checked as RFC 5533 §12.3 and the sections of each type ask."""
    if len(octets) < 8:
        raise Malformed("shorter than 8 octets")
    size = 8 * (octets[1] + 1)
    if size > len(octets):
        raise Malformed(f"Hdr Ext Len says {size} octets, {len(octets)} are there")
    if size < len(octets):
        dislike(f"{len(octets) - size} octets behind a control message")
    octets = octets[:size]
    if checksum(octets) != 0:
        raise Malformed("wrong checksum")
    if octets[0] != NO_NEXT:
        dislike(f"Next Header {octets[0]} in a control message")
    if octets[3] & 1:
        raise Malformed("the S bit is set")
    kind = octets[2] & 0x7F
    if kind not in FIXED:
        raise Refused(0, 2, f"unknown message type {kind}")
    if size < FIXED[kind]:
        raise Malformed(f"{NAMES[kind]} of {size} octets")
    message = Message(kind)
    if kind == ERROR:
        return parse_error(message, octets, dislike)
    if octets[3]:
        dislike(f"{message.name}: Reserved1 is {octets[3]:#x}")
    rest = parse_fixed(message, octets, dislike)
    parse_options(message, octets, rest, dislike)
    return message


def parse_error(message, octets, dislike):
    message.code, message.pointer = octets[3] >> 1, struct.unpack("!H", octets[6:8])[0]
    message.quoted = octets[8:]
    if len(message.quoted) >= 40:
        length = 40 + struct.unpack("!H", message.quoted[4:6])[0]
        surplus = message.quoted[length:]
        if len(surplus) > 7 or any(surplus):
            dislike(f"Error: {len(surplus)} octets behind the packet in error: {surplus[:16].hex()}")
        message.quoted = message.quoted[:length]
    return message


def parse_fixed(message, octets, dislike):
    """The part before the options; returns where they start."""
    kind, name = message.type, message.name

    def number(at, size=4):
        return int.from_bytes(octets[at : at + size], "big")

    def reserved(value, what):
        if value:
            dislike(f"{name}: {what} is {value:#x}")

    if kind == R1:
        reserved(number(6, 2), "Reserved2")
        message.initiator_nonce, message.responder_nonce = number(8), number(12)
        return 16
    reserved(octets[6] >> 7, "R")
    message.tag = number(6, 6) & TAG_BITS
    if kind in (I1, I2, R2, I2BIS):
        message.initiator_nonce = number(12)
    if kind in (I2, I2BIS):
        message.responder_nonce = number(16)
    if kind == I2:
        reserved(number(20), "Reserved2")
    if kind == I2BIS:
        reserved(number(20, 6) << 1 | octets[26] >> 7, "Reserved2")
        message.packet_tag = number(26, 6) & TAG_BITS
    if kind == R1BIS:
        message.responder_nonce = number(12)
    if kind in (UPDATE, ACK):
        message.request_nonce = number(12)
    if kind == KEEPALIVE:
        reserved(number(12), "Reserved2")
    if kind == PROBE:
        return parse_reports(message, octets, reserved)
    return FIXED[kind]


def parse_reports(message, octets, reserved):
    received, sent = octets[12] >> 4, octets[12] & 15
    message.state = octets[13] >> 6
    reserved(int.from_bytes(octets[13:16], "big") & 0x3FFFFF, "Reserved2")
    end = 16 + 40 * (sent + received)
    if sent == 0 or end > len(octets):
        raise Malformed(f"Probe: Psent {sent}, Precvd {received} in {len(octets)} octets")
    if message.state == 3:
        raise Malformed("Probe: state 3")
    found = []
    for at in range(16, end, 40):
        nonce, data = struct.unpack("!II", octets[at + 32 : at + 40])
        found.append(Report(IPv6Address(octets[at : at + 16]), IPv6Address(octets[at + 16 : at + 32]), nonce, data))
    message.sent, message.received = found[:sent], found[sent:]
    return end


def parse_options(message, octets, at, dislike):
    while at < len(octets):
        if at + 4 > len(octets):
            raise Malformed("an option is cut short")
        word, length = struct.unpack("!HH", octets[at : at + 4])
        kind, critical = word >> 1, word & 1
        end = at + 11 + length - (length + 3) % 8
        if end > len(octets):
            raise Malformed(f"option {kind} of {length} octets is longer than the message")
        contents, padding = octets[at + 4 : at + 4 + length], octets[at + 4 + length : end]
        if any(padding):
            dislike(f"{message.name}: option {kind} is padded with {padding.hex()}")
        if kind not in ALLOWED[message.type]:
            if critical:
                raise Refused(1, at, f"critical option {kind} in {message.name}")
            if kind not in EXPERIMENTAL:
                dislike(f"option {kind} in {message.name}")
        else:
            if critical:
                dislike(f"{message.name}: option {kind} is marked critical")
            if kind in message.options:
                dislike(f"{message.name}: option {kind} is there twice")
            message.options[kind] = parse_option(message.name, kind, contents, at, dislike)
        at = end


def parse_option(name, kind, contents, at, dislike):
    """What an option means; ValueErrors of its contents are malformed messages."""

    def want(condition, text):
        if not condition:
            raise Malformed(f"{name}: {text}")

    if kind == ULID_PAIR:
        want(len(contents) == 36, f"ULID pair of {len(contents)} octets")
        if any(contents[:4]):
            dislike(f"{name}: Reserved2 of the ULID pair is {contents[:4].hex()}")
        return IPv6Address(contents[4:20]), IPv6Address(contents[20:])
    if kind == FORK:
        want(len(contents) == 4, f"Forked Instance Identifier of {len(contents)} octets")
        return int.from_bytes(contents, "big")
    if kind == TIMEOUT:
        want(len(contents) == 4, f"Keepalive Timeout of {len(contents)} octets")
        if any(contents[:2]):
            dislike(f"{name}: Reserved of the Keepalive Timeout is {contents[:2].hex()}")
        return int.from_bytes(contents[2:], "big")
    if kind == LOCATORS:
        want(len(contents) >= 5, f"locator list of {len(contents)} octets")
        generation, count = struct.unpack("!IB", contents[:5])
        start = 5 + count + -(9 + count) % 8
        want(len(contents) == start + 16 * count, f"locator list of {count} in {len(contents)} octets")
        if any(contents[5 + count : start]):
            dislike(f"{name}: the locator list is padded with {contents[5 + count : start].hex()}")
        locators = [IPv6Address(contents[i : i + 16]) for i in range(start, len(contents), 16)]
        if len(set(locators)) != count:
            dislike(f"{name}: a locator is listed twice")
        return LocatorList(generation, list(contents[5 : 5 + count]), locators, at + 9)
    if kind == PREFERENCES:
        want(len(contents) >= 5 and contents[4] > 0, "preferences without elements")
        size, elements = contents[4], contents[5:]
        want(len(elements) % size == 0, f"preferences: {len(elements)} octets of elements of {size}")
        found = [elements[i : i + size] for i in range(0, len(elements), size)]
        if size > 3:
            dislike(f"{name}: preference elements of {size} octets")
        return Preferences(int.from_bytes(contents[:4], "big"), found, at)
    return contents
