"""Builds Shim6 packets for the decoder's tests: right ones by default, wrong ones on request.

Kept apart from the decoder on purpose: it only knows how to write, the decoder only how to read.
"""

import hashlib
import ipaddress
import random
import struct


def ip(text):
    return ipaddress.IPv6Address(text).packed


def ipv6(source, destination, payload, next_header=140):
    return struct.pack(">IHBB", 6 << 28, len(payload), next_header, 64) + source + destination + payload


def in_udp(packet, source=49153, destination=5533, length=None, sum=None):
    """The packet with a UDP header in front of what follows its IPv6 header."""
    body = packet[40:]
    size = len(body) + 8 if length is None else length
    header = struct.pack(">HHHH", source, destination, size, 0)
    covered = packet[8:40] + struct.pack(">IHBB", len(body) + 8, 0, 0, 17) + header + body
    total = sum_of(covered + bytes(len(covered) % 2)) ^ 0xFFFF or 0xFFFF
    header = header[:6] + struct.pack(">H", total if sum is None else sum)
    return ipv6(packet[8:24], packet[24:40], header + body, 17)


def sum_of(octets):
    total = 0
    for high, low in zip(octets[::2], octets[1::2]):
        total += high << 8 | low
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksummed(octets):
    octets = bytearray(octets)
    octets[4:6] = b"\0\0"
    total = sum(struct.unpack(f">{len(octets) // 2}H", bytes(octets)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    octets[4:6] = struct.pack(">H", total ^ 0xFFFF)
    return bytes(octets)


def control(kind, fixed, *options, octet3=0):
    """A control message; `fixed` is everything from octet 6 up to the options."""
    body = bytes([59, 0, kind, octet3, 0, 0]) + fixed + b"".join(options)
    assert len(body) % 8 == 0, len(body)
    return checksummed(body[:1] + bytes([len(body) // 8 - 1]) + body[2:])


def tag(value):
    return value.to_bytes(6, "big")


def word(value):
    return struct.pack(">I", value)


def option(kind, contents, critical=0, filler=b"\0"):
    return struct.pack(">HH", kind << 1 | critical, len(contents)) + contents + filler * (-(4 + len(contents)) % 8)


def validator(contents=bytes(range(20))):
    return option(1, contents)


def ulid_pair(sender, receiver):
    return option(6, bytes(4) + sender + receiver)


def locator_list(generation, locators, methods=None):
    methods = methods or [1] * len(locators)
    padding = bytes(-(1 + len(locators)) % 8)
    return option(2, word(generation) + bytes([len(locators), *methods]) + padding + b"".join(locators))


def report(source, destination, nonce, data=0):
    return source + destination + word(nonce) + word(data)


def probe(receiver_tag, state, sent, received=()):
    head = tag(receiver_tag) + bytes([len(received) << 4 | len(sent), state << 6, 0, 0])
    return control(67, head + b"".join([*sent, *received]))


def payload(receiver_tag, next_header=6, data=bytes(20)):
    return bytes([next_header, 0]) + (receiver_tag | 1 << 47).to_bytes(6, "big") + data


def hba_set(prefixes, seed):
    """HBA-only addresses with Sec 0 for /64 prefixes: (addresses, their PDSs)."""
    random_octets = random.Random(seed).randbytes
    modifier, modulus = random_octets(16), bytes([0x80 | random_octets(1)[0]]) + random_octets(47)
    key = bytes.fromhex("304c300d06092a864886f70d0101010500033b003038023100") + modulus + bytes.fromhex("0203010001")
    heads = [ip(prefix)[:8] for prefix in prefixes]
    extension = struct.pack(">HHI", 0x12, 8 * len(heads) + 4, 0) + b"".join(heads)
    addresses, structures = [], []
    for head in heads:
        structure = modifier + head + b"\0" + key + extension
        iid = bytearray(hashlib.sha1(structure).digest()[:8])
        iid[0] &= 0x1C
        addresses.append(head + bytes(iid))
        structures.append(structure)
    return addresses, structures


def pcap(frames, link=101):
    """A pcap file with (time, octets) frames."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for time, octets in frames:
        out += struct.pack("<IIII", int(time), round(time % 1 * 1e6), len(octets), len(octets)) + octets
    return out
