"""One packet at a time: takes a Shim6 header apart and says everything a sender got wrong.

`find_shim6` walks the IPv6 extension chain, `parse_control` and `parse_payload` read the header. Faults are appended
to a list of `(rule, text)`; a rule's name is stable and tests use it.
"""

import functools
import ipaddress
import struct
from dataclasses import dataclass, field

SHIM6 = 140
NO_NEXT_HEADER = 59
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
CONTROL_MAX = 1280  # octets, IPv6 header included

I1, R1, I2, R2, R1BIS, I2BIS = 1, 2, 3, 4, 5, 6
UR, UA, KEEPALIVE, PROBE, ERROR = 64, 65, 66, 67, 68
NAMES = {
    I1: "I1",
    R1: "R1",
    I2: "I2",
    R2: "R2",
    R1BIS: "R1bis",
    I2BIS: "I2bis",
    UR: "UR",
    UA: "UA",
    KEEPALIVE: "Keepalive",
    PROBE: "Probe",
    ERROR: "Error",
}
# Where the options begin; a Probe's begin after its records, an Error has none.
OPTIONS_AT = {I1: 16, R1: 16, I2: 24, R2: 16, R1BIS: 16, I2BIS: 32, UR: 16, UA: 16, KEEPALIVE: 16, PROBE: 16, ERROR: 8}
MINIMUM = {**OPTIONS_AT, PROBE: 56, ERROR: 16}

VALIDATOR, LOCATORS, PREFERENCES, PDS, SIGNATURE, ULID_PAIR, FORK, TIMEOUT = 1, 2, 3, 4, 5, 6, 7, 10
FLOW_LABEL = 19526  # the box's own experiment, docs/decisions/0022-flow-label.md
EXPERIMENT = b"P6FL"
UDP_OPTION = 21828  # another, docs/decisions/0035-paths-that-drop.md
UDP_EXPERIMENT = b"P6UD"
LIVENESS = 16966  # a third, docs/decisions/0044-liveness.md
LIVENESS_EXPERIMENT = b"P6BF"
UDP, UDP_PORT, DYNAMIC_PORTS = 17, 5533, range(49152, 65536)
EXPERIMENTAL = range(16384, 32768)  # RFC 5533 §17
OPTION_NAMES = {
    VALIDATOR: "Responder Validator",
    LOCATORS: "Locator List",
    PREFERENCES: "Locator Preferences",
    PDS: "CGA Parameter Data Structure",
    SIGNATURE: "CGA Signature",
    ULID_PAIR: "ULID Pair",
    FORK: "Forked Instance Identifier",
    TIMEOUT: "Keepalive Timeout",
    FLOW_LABEL: "Flow Label",
    UDP_OPTION: "UDP",
    LIVENESS: "Liveness",
}
CARRIES = {
    I1: {ULID_PAIR, FORK},
    R1: {VALIDATOR},
    I2: {VALIDATOR, ULID_PAIR, FORK, LOCATORS, PREFERENCES, PDS, SIGNATURE, TIMEOUT, FLOW_LABEL, UDP_OPTION, LIVENESS},
    R2: {LOCATORS, PREFERENCES, PDS, SIGNATURE, TIMEOUT, FLOW_LABEL, UDP_OPTION, LIVENESS},
    R1BIS: {VALIDATOR},
    I2BIS: {VALIDATOR, ULID_PAIR, FORK, LOCATORS, PREFERENCES, PDS, SIGNATURE, TIMEOUT, FLOW_LABEL, UDP_OPTION, LIVENESS},
    UR: {LOCATORS, PREFERENCES, PDS, SIGNATURE, TIMEOUT},
    UA: set(),
    KEEPALIVE: {FLOW_LABEL, UDP_OPTION, LIVENESS},
    PROBE: set(),
    ERROR: set(),
}
NEEDS = {R1: {VALIDATOR}, I2: {VALIDATOR}, R1BIS: {VALIDATOR}, I2BIS: {VALIDATOR}}
HBA, CGA = 1, 2
OPERATIONAL, EXPLORING, INBOUND_OK = 0, 1, 2
STATES = {OPERATIONAL: "Operational", EXPLORING: "Exploring", INBOUND_OK: "InboundOk"}


@dataclass
class Found:
    """Where in an IPv6 packet the Shim6 header is."""

    source: bytes
    destination: bytes
    shim6: bytes  # from the Shim6 header to the end of the captured packet
    length: int  # octets from the Shim6 header to the end of the packet as the IPv6 header says
    packet_octets: int
    in_udp: bool = False


@dataclass
class Report:
    """One probe record."""

    source: bytes
    destination: bytes
    nonce: int
    data: int

    @property
    def key(self):
        return self.source, self.destination, self.nonce


@dataclass
class LocatorList:
    generation: int
    methods: list
    locators: list


@dataclass
class Message:
    """A control message with whatever fields its type has."""

    type: int
    tag: int = None  # initiator's, responder's, packet's or receiver's, by type
    initiator_nonce: int = None
    responder_nonce: int = None
    packet_tag: int = None  # of an I2bis
    request_nonce: int = None
    state: int = None
    sent: list = field(default_factory=list)
    received: list = field(default_factory=list)
    code: int = None
    pointer: int = None
    quoted: bytes = b""
    options: dict = field(default_factory=dict)  # type -> contents
    ulid_pair: tuple = None
    locator_list: LocatorList = None
    preferences: tuple = None  # (generation, [element octets])

    @property
    def name(self):
        return NAMES.get(self.type, f"type {self.type}")


def show(address):
    return str(ipaddress.IPv6Address(address))


def checksum(octets):
    """The 16-bit one's complement sum of an even number of octets, folded."""
    total = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def tag_at(octets, at):
    """The 47-bit tag in the low bits of six octets."""
    return int.from_bytes(octets[at : at + 6], "big") & ((1 << 47) - 1)


def find_shim6(packet, faults):
    """The Shim6 header of an IPv6 packet, or None. Says when it stands in the wrong place of the chain."""
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    length, next_header = struct.unpack_from(">HB", packet, 4)
    at, seen = 40, []
    while next_header in (HOP_BY_HOP, ROUTING, DESTINATION, FRAGMENT):
        if at + 8 > len(packet):
            return None
        seen.append(next_header)
        if next_header == FRAGMENT and struct.unpack_from(">H", packet, at + 2)[0] >> 3:
            return None  # a later fragment: no header to read
        size = 8 if next_header == FRAGMENT else (packet[at + 1] + 1) * 8
        next_header, at = packet[at], at + size
    in_udp = next_header == UDP and has_ports(packet, at)
    if in_udp and FRAGMENT not in seen:
        check_udp(packet, at, 40 + length, faults)
        at += 8
    elif next_header != SHIM6:
        return None
    if at + 8 > len(packet):
        faults.append(("short", "the Shim6 header is cut off"))
        return None
    if FRAGMENT in seen:
        faults.append(("order", "the Shim6 header stands behind a Fragment header"))
    if DESTINATION in seen[(len(seen) - seen[::-1].index(ROUTING)) if ROUTING in seen else 0 :]:
        faults.append(("order", "the Shim6 header stands behind the final Destination Options header"))
    found = Found(packet[8:24], packet[24:40], packet[at:], 40 + length - at, 40 + length, in_udp)
    for name, address in (("source", found.source), ("destination", found.destination)):
        if not can_be_locator(address):
            faults.append(("address", f"{name} {show(address)} can be no locator"))
    return found


def has_ports(packet, at):
    """Whether a UDP header has Shim6's port at one end and a dynamic one at the other."""
    if at + 8 > len(packet):
        return False
    source, destination = struct.unpack_from(">HH", packet, at)
    return (source == UDP_PORT and destination in DYNAMIC_PORTS) or (destination == UDP_PORT and source in DYNAMIC_PORTS)


def check_udp(packet, at, end, faults):
    """Length and checksum; the latter only where the capture has all of the packet."""
    length, given = struct.unpack_from(">HH", packet, at + 4)
    if length != end - at:
        faults.append(("udp-length", f"UDP of {length} octets in {end - at}"))
    if given == 0:
        faults.append(("udp-checksum", "no UDP checksum"))
    elif len(packet) >= end:
        pseudo = packet[8:40] + struct.pack(">IHBB", end - at, 0, 0, UDP)
        covered = pseudo + packet[at:end]
        if checksum(covered + bytes(len(covered) % 2)) != 0xFFFF:
            faults.append(("udp-checksum", f"UDP checksum {given:04x} is wrong"))


@functools.lru_cache(maxsize=4096)
def can_be_locator(address):
    """Global or unique local unicast; never multicast, unspecified, loopback or link-local."""
    value = ipaddress.IPv6Address(address)
    return not (value.is_multicast or value.is_unspecified or value.is_loopback or value.is_link_local)


def is_payload(found):
    return bool(found.shim6[2] & 0x80)


def parse_payload(found, faults):
    """The tag of a payload extension header and the protocol behind it."""
    if found.shim6[1] != 0:
        faults.append(("payload-length", f"payload header with Hdr Ext Len {found.shim6[1]}"))
    if found.shim6[0] == SHIM6:
        faults.append(("payload-next", "a Shim6 header follows the payload header"))
    if found.length <= 8:
        faults.append(("payload-empty", "nothing follows the payload header"))
    return tag_at(found.shim6, 2), found.shim6[0]


def parse_control(found, faults):
    """A control message with everything wrong about it, or None when it cannot be read at all."""
    octets = found.shim6
    size = (octets[1] + 1) * 8
    if size > found.length or size > len(octets):
        faults.append(("length", f"header of {size} octets in {min(found.length, len(octets))}"))
        return None
    if size < found.length:
        faults.append(("trailing", f"{found.length - size} octets follow the control header"))
    if found.packet_octets > CONTROL_MAX:
        faults.append(("too-big", f"control packet of {found.packet_octets} octets"))
    octets = octets[:size]
    if octets[0] != NO_NEXT_HEADER:
        faults.append(("next-header", f"Next Header {octets[0]}"))
    if octets[3] & 1:
        faults.append(("s-bit", "the S bit is set"))
    if checksum(octets) != 0xFFFF:
        faults.append(("checksum", f"checksum {octets[4:6].hex()} is wrong"))
    message = Message(octets[2] & 0x7F)
    if message.type not in NAMES:
        faults.append(("type", f"unknown message type {message.type}"))
        return None
    if size < MINIMUM[message.type]:
        faults.append(("short", f"{message.name} of {size} octets"))
        return None
    if message.type == ERROR:
        parse_error(octets, message, faults)
        return message
    reserved(faults, octets[3] >> 1, "Reserved1")
    options_at = parse_fixed(octets, message, found, faults)
    if options_at is None:
        return None
    parse_options(octets, options_at, message, faults)
    check_options(message, faults)
    return message


def reserved(faults, value, where):
    if value:
        faults.append(("reserved", f"{where} is {value:#x}"))


def parse_fixed(octets, message, found, faults):
    """The type's fixed part; returns where its options begin."""

    def word(at):
        return struct.unpack_from(">I", octets, at)[0]

    kind = message.type
    if kind == R1:
        reserved(faults, struct.unpack_from(">H", octets, 6)[0], "Reserved2")
        message.initiator_nonce, message.responder_nonce = word(8), word(12)
        return OPTIONS_AT[kind]
    reserved(faults, octets[6] >> 7, "R")
    message.tag = tag_at(octets, 6)
    if kind in (I1, R2, I2, I2BIS):
        message.initiator_nonce = word(12)
    if kind == R1BIS:
        message.responder_nonce = word(12)
    if kind in (I2, I2BIS):
        message.responder_nonce = word(16)
    if kind == I2:
        reserved(faults, word(20), "Reserved2")
    if kind == I2BIS:
        reserved(faults, int.from_bytes(octets[20:27], "big") >> 7, "Reserved2")
        message.packet_tag = tag_at(octets, 26)
    if kind in (UR, UA):
        message.request_nonce = word(12)
    if kind == KEEPALIVE:
        reserved(faults, word(12), "Reserved2")
    if kind == PROBE:
        return parse_probe(octets, message, found, faults)
    return OPTIONS_AT[kind]


def parse_probe(octets, message, found, faults):
    """Counts, state and records of a Probe; returns where its options begin."""
    received, sent = octets[12] >> 4, octets[12] & 15
    message.state = octets[13] >> 6
    reserved(faults, int.from_bytes(octets[13:16], "big") & 0x3FFFFF, "Reserved2")
    end = 16 + 40 * (sent + received)
    if sent == 0:
        faults.append(("probe-count", "a Probe without a sent record"))
        return None
    if end > len(octets):
        faults.append(("probe-count", f"{sent}+{received} records in {len(octets)} octets"))
        return None
    if message.state not in STATES:
        faults.append(("probe-state", f"state {message.state}"))
    records = [
        Report(octets[at : at + 16], octets[at + 16 : at + 32], *struct.unpack_from(">II", octets, at + 32))
        for at in range(16, end, 40)
    ]
    message.sent, message.received = records[:sent], records[sent:]
    first = message.sent[0]
    if (first.source, first.destination) != (found.source, found.destination):
        faults.append(("probe-first", f"first record {show(first.source)} -> {show(first.destination)} is not this packet"))
    if len({record.key for record in message.sent}) != sent:
        faults.append(("probe-repeat", "a sent record appears twice"))
    if len({record.key for record in message.received}) != received:
        faults.append(("probe-repeat", "a received record appears twice"))
    return end


def parse_error(octets, message, faults):
    """Code, pointer and quoted packet of an Error."""
    message.code, message.pointer, message.quoted = octets[3] >> 1, struct.unpack_from(">H", octets, 6)[0], octets[8:]
    if not (message.code <= 4 or 120 <= message.code <= 127):
        faults.append(("error-code", f"code {message.code} is unassigned"))
    if message.code <= 4 and message.pointer >= len(message.quoted):
        faults.append(("error-pointer", f"pointer {message.pointer} is outside the {len(message.quoted)} octets quoted"))
    ignored = []
    quoted = find_shim6(message.quoted, ignored)
    if quoted is None:
        faults.append(("error-quote", "no Shim6 packet is quoted"))
    elif not is_payload(quoted) and quoted.shim6[2] == ERROR:
        faults.append(("error-quote", "an Error answers an Error"))


def parse_options(octets, at, message, faults):
    """The TLVs from `at` to the end of the header."""
    while at < len(octets):
        word, length = struct.unpack_from(">HH", octets, at)
        kind, critical = word >> 1, word & 1
        total = 11 + length - (length + 3) % 8
        name = OPTION_NAMES.get(kind, f"option {kind}")
        if at + total > len(octets):
            faults.append(("option-length", f"{name} of {length} octets runs past the header"))
            return
        contents, padding = octets[at + 4 : at + 4 + length], octets[at + 4 + length : at + total]
        if any(padding):
            faults.append(("padding", f"padding of {name} is {padding.hex()}"))
        if kind not in OPTION_NAMES and (critical or kind not in EXPERIMENTAL):
            faults.append(("option-type", f"{name} is not assigned"))
        elif kind in OPTION_NAMES and critical:
            faults.append(("option-critical", f"{name} is marked critical"))
        if kind in OPTION_NAMES and kind not in CARRIES[message.type]:
            faults.append(("option-place", f"{name} in {message.name}"))
        if kind in message.options:
            faults.append(("option-repeat", f"{name} appears twice"))
        message.options.setdefault(kind, contents)
        at += total


def check_label(contents, message, faults):
    """Flow Label: offers (0) in I2, R2 and I2bis, tests (1) and answers (2) in Keepalives."""
    if len(contents) != 12 or contents[:4] != EXPERIMENT:
        faults.append(("option-label", f"Flow Label of {contents.hex()}"))
        return
    said, nonce = struct.unpack_from(">II", contents, 4)
    purpose, flags, label = said >> 28, said >> 20 & 0xFF, said & 0xFFFFF
    wanted = (1, 2) if message.type == KEEPALIVE else (0,)
    if purpose not in wanted or flags > (purpose == 2):
        faults.append(("option-label", f"Flow Label with purpose {purpose} and flags {flags:#x} in {message.name}"))
    if purpose == 0 and (nonce or not label):
        faults.append(("option-label", f"an offer of label {label:#x} with nonce {nonce:#x}"))


def check_liveness(contents, message, faults):
    """Liveness: offers (0) in I2, R2 and I2bis; BFD Control packets (1; RFC 5880 4.1) in Keepalives."""
    if len(contents) < 8 or contents[:4] != LIVENESS_EXPERIMENT:
        faults.append(("option-liveness", f"Liveness of {contents.hex()}"))
        return
    (said,) = struct.unpack(">I", contents[4:8])
    purpose, packet = said >> 28, contents[8:]
    if purpose != (1 if message.name == "Keepalive" else 0) or said & 0xFFFFFFE:
        faults.append(("option-liveness", f"Liveness with purpose {purpose} and flags {said & 0xfffffff:#x} in {message.name}"))
        return
    if purpose == 0:
        if packet or said:
            faults.append(("option-liveness", f"an offer of liveness with {contents.hex()}"))
        return
    if len(packet) != 24:
        faults.append(("option-bfd", f"a BFD packet of {len(packet)} octets"))
        return
    first, flags, multiplier, length, mine, yours, _, _, echo = struct.unpack(">BBBBIIIII", packet)
    state = flags >> 6
    if first >> 5 != 1 or length != 24 or flags & 0x0F or flags & 0x30 == 0x30 or not multiplier or not mine or echo:
        faults.append(("option-bfd", f"a BFD packet of {packet.hex()}"))
    elif not yours and state > 1:
        faults.append(("option-bfd", f"state {state} without Your Discriminator"))


def check_udp_option(contents, message, faults):
    """UDP: offers (0) in I2, R2 and I2bis, tests (1) and answers (2) in Keepalives."""
    if len(contents) != 12 or contents[:4] != UDP_EXPERIMENT:
        faults.append(("option-udp", f"UDP of {contents.hex()}"))
        return
    said, nonce = struct.unpack_from(">II", contents, 4)
    purpose, flags = said >> 28, said & 0xFFFFFFF
    wanted = (1, 2) if message.type == KEEPALIVE else (0,)
    if purpose not in wanted or flags > (purpose == 2):
        faults.append(("option-udp", f"UDP with purpose {purpose} and flags {flags:#x} in {message.name}"))
    if purpose == 0 and nonce:
        faults.append(("option-udp", f"an offer of UDP with nonce {nonce:#x}"))


def check_options(message, faults):
    """What single options must look like, and which of them need each other."""
    options = message.options
    for kind in sorted(NEEDS.get(message.type, set()) - set(options)):
        faults.append(("option-missing", f"{message.name} without {OPTION_NAMES[kind]}"))
    fixed = {ULID_PAIR: 36, FORK: 4, TIMEOUT: 4}
    for kind, length in fixed.items():
        if kind in options and len(options[kind]) != length:
            faults.append(("option-length", f"{OPTION_NAMES[kind]} of {len(options[kind])} octets"))
            return
    if ULID_PAIR in options:
        reserved(faults, int.from_bytes(options[ULID_PAIR][:4], "big"), "Reserved2 of ULID Pair")
        message.ulid_pair = options[ULID_PAIR][4:20], options[ULID_PAIR][20:36]
    if TIMEOUT in options:
        reserved(faults, int.from_bytes(options[TIMEOUT][:2], "big"), "Reserved of Keepalive Timeout")
        if not any(options[TIMEOUT][2:]):
            faults.append(("timeout", "a Keepalive Timeout of zero"))
    if FLOW_LABEL in options:
        check_label(options[FLOW_LABEL], message, faults)
    if UDP_OPTION in options:
        check_udp_option(options[UDP_OPTION], message, faults)
    if LIVENESS in options:
        check_liveness(options[LIVENESS], message, faults)
    if VALIDATOR in options and not options[VALIDATOR]:
        faults.append(("validator", "an empty Responder Validator"))
    if LOCATORS in options:
        message.locator_list = parse_locators(options[LOCATORS], faults)
    if PREFERENCES in options:
        message.preferences = parse_preferences(options[PREFERENCES], faults)
    found = message.locator_list
    if found and PDS not in options and message.type != UR:
        faults.append(("pds-missing", f"{message.name} with a Locator List but no PDS"))
    if found and CGA in found.methods and SIGNATURE not in options:
        faults.append(("signature-missing", "a locator with method CGA but no CGA Signature"))
    if SIGNATURE in options and not (found and CGA in found.methods):
        faults.append(("signature-idle", "a CGA Signature that signs nothing"))
    if found and message.preferences:
        generation, elements = message.preferences
        if generation != found.generation:
            faults.append(("preferences", "list and preferences differ in generation"))
        if len(elements) != len(found.locators):
            faults.append(("preferences", f"{len(elements)} preferences for {len(found.locators)} locators"))


def parse_locators(contents, faults):
    """A Locator List with its internal padding."""
    count = contents[4] if len(contents) > 4 else 0
    padding = -(1 + count) % 8
    if count == 0 or len(contents) != 5 + count + padding + 16 * count:
        faults.append(("locator-list", f"{count} locators in {len(contents)} octets"))
        return None
    if any(contents[5 + count : 5 + count + padding]):
        faults.append(("padding", "padding inside the Locator List"))
    methods = list(contents[5 : 5 + count])
    start = 5 + count + padding
    locators = [contents[at : at + 16] for at in range(start, len(contents), 16)]
    for method in methods:
        if method not in (HBA, CGA):
            faults.append(("method", f"verification method {method}"))
    if len(set(locators)) != count:
        faults.append(("locator-list", "a locator appears twice"))
    for locator in locators:
        if not can_be_locator(locator):
            faults.append(("locator-list", f"{show(locator)} can be no locator"))
    return LocatorList(int.from_bytes(contents[:4], "big"), methods, locators)


def parse_preferences(contents, faults):
    """Locator Preferences; the flags known are BROKEN 1 and TRANSIENT 2."""
    size = contents[4] if len(contents) > 4 else 0
    if size == 0 or (len(contents) - 5) % size or len(contents) == 5:
        faults.append(("preferences", f"elements of {size} octets in {len(contents)}"))
        return None
    elements = [contents[at : at + size] for at in range(5, len(contents), size)]
    for element in elements:
        if element[0] & ~3:
            faults.append(("reserved", f"preference flags {element[0]:#x}"))
    return int.from_bytes(contents[:4], "big"), elements
