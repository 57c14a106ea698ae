"""The frames that a real daemon is loaded with."""

import ipaddress
import struct
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib import daemon


def frames(file):
    octets, at, found = file.read_bytes(), 24, []
    while at < len(octets):
        (length,) = struct.unpack_from("<I", octets, at + 8)
        found.append(octets[at + 16 : at + 16 + length])
        at += 16 + length
    return found


class Captures(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        hosts = [{"ulid": f"fc00:a:0:1::{n}", "locators": [f"2001:db8:a1:1::{n}"]} for n in (1, 2)]
        daemon.write_captures(Path(folder.name), hosts, 8)
        self.out, self.back = (frames(Path(folder.name) / f"{name}.pcap") for name in ("out", "in"))

    def test_each_context_is_there_once_both_ways_and_every_host_tells_its_address(self):
        for found, header in ((self.out, 17), (self.back, 140)):
            self.assertEqual(sorted(frame[20] for frame in found), sorted([header] * 8 + [58] * 2))
        targets = {str(ipaddress.IPv6Address(frame[62:78])) for frame in self.out if frame[20] == 58}
        self.assertEqual(targets, {"fc00:a:0:1::1", "fc00:a:0:1::2"})
        tags = {int.from_bytes(frame[56:62], "big") for frame in self.back if frame[20] == 140}
        self.assertEqual(tags, {1 << 47 | place for place in range(8)})

    def test_checksums_hold_with_the_identifiers(self):
        # What is summed with its right checksum gives nothing.
        identifiers = {frame[22:54] for frame in self.out if frame[20] == 17}
        for frame in self.out:
            self.assertEqual(daemon.checksum(frame[20], frame[22:38], frame[38:54], frame[54:]), 0)
        turned = {(pair[16:], pair[:16]) for pair in identifiers}
        for frame in self.back:
            inside = frame[62:] if frame[20] == 140 else frame[54:]
            pairs = turned if frame[20] == 140 else {(frame[22:38], frame[38:54])}
            header = 17 if frame[20] == 140 else 58
            self.assertIn(0, {daemon.checksum(header, source, destination, inside) for source, destination in pairs})


if __name__ == "__main__":
    unittest.main()
