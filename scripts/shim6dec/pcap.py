"""Reads pcap and pcapng files: `read(path)` yields `Frame`s with the IPv6 packet cut out of its link layer."""

import struct
from dataclasses import dataclass

ETHERNET, RAW, SLL, IPV6, SLL2 = 1, 101, 113, 229, 276


class CaptureError(Exception):
    """The file is no capture this reader knows, or it is cut short."""


@dataclass
class Frame:
    """One captured frame."""

    file: str
    number: int  # from 1, as Wireshark counts
    time: float  # seconds since the epoch
    packet: bytes  # from the IPv6 header on; shorter than the packet when the capture had a snap length
    ipv6: bool


def read(path):
    """Yields the frames of a capture file in file order."""
    with open(path, "rb") as file:
        data = file.read()
    if len(data) < 4:
        raise CaptureError(f"{path}: no capture file")
    frames = pcapng_frames(data, path) if data[:4] == b"\x0a\x0d\x0d\x0a" else pcap_frames(data, path)
    for number, (time, link, octets) in enumerate(frames, start=1):
        packet = network_layer(link, octets)
        yield Frame(path, number, time, packet or b"", packet is not None)


def pcap_frames(data, path):
    """Classic pcap, either byte order, micro- or nanoseconds."""
    kinds = {
        b"\xd4\xc3\xb2\xa1": ("<", 1e6),
        b"\xa1\xb2\xc3\xd4": (">", 1e6),
        b"\x4d\x3c\xb2\xa1": ("<", 1e9),
        b"\xa1\xb2\x3c\x4d": (">", 1e9),
    }
    if data[:4] not in kinds or len(data) < 24:
        raise CaptureError(f"{path}: no capture file")
    order, unit = kinds[data[:4]]
    link = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF
    at = 24
    while at < len(data):
        if at + 16 > len(data):
            raise CaptureError(f"{path}: cut short in a record header")
        seconds, fraction, captured, _ = struct.unpack_from(order + "IIII", data, at)
        at += 16
        if at + captured > len(data):
            raise CaptureError(f"{path}: cut short in a record")
        yield seconds + fraction / unit, link, data[at : at + captured]
        at += captured


def pcapng_frames(data, path):
    """pcapng: section, interface, enhanced and simple packet blocks; other blocks are stepped over."""
    order, interfaces, at = "<", [], 0
    while at < len(data):
        if at + 12 > len(data):
            raise CaptureError(f"{path}: cut short in a block header")
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            interfaces = []
        kind, length = struct.unpack_from(order + "II", data, at)
        if length < 12 or length % 4 or at + length > len(data):
            raise CaptureError(f"{path}: block of impossible length {length}")
        body = data[at + 8 : at + length - 4]
        if kind == 1:
            link = struct.unpack_from(order + "H", body)[0]
            interfaces.append((link, timestamp_unit(order, body[8:])))
        elif kind == 6:
            interface, high, low, captured = struct.unpack_from(order + "IIII", body)
            link, unit = interfaces[interface]
            yield ((high << 32) | low) / unit, link, body[20 : 20 + captured]
        elif kind == 3:
            yield 0.0, interfaces[0][0], body[4 : 4 + struct.unpack_from(order + "I", body)[0]]
        at += length


def timestamp_unit(order, options):
    """Ticks per second from the if_tsresol option; a million when it is absent."""
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from(order + "HH", options, at)
        if code == 0:
            break
        if code == 9:
            value = options[at + 4]
            return float(2 ** (value & 0x7F)) if value & 0x80 else float(10**value)
        at += 4 + (length + 3) // 4 * 4
    return 1e6


def network_layer(link, octets):
    """The IPv6 packet inside a frame, or None when the frame carries something else."""
    if link == ETHERNET:
        at = 12
        while octets[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
            at += 4
        return octets[at + 2 :] if octets[at : at + 2] == b"\x86\xdd" else None
    if link == SLL:
        return octets[16:] if octets[14:16] == b"\x86\xdd" else None
    if link == SLL2:
        return octets[20:] if octets[:2] == b"\x86\xdd" else None
    if link in (RAW, IPV6):
        return octets if octets and octets[0] >> 4 == 6 else None
    raise CaptureError(f"link type {link} is not supported")
