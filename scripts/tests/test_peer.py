#!/usr/bin/env python3
"""The independent Shim6 host is as strict as it says, and gets along with itself. Needs no lab."""

import sys
import unittest
from ipaddress import IPv6Address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ps6peer import host, identity, wire  # noqa: E402

A, B = IPv6Address("2001:db8:e::1"), IPv6Address("2001:db8:a::1")
TAG, NONCE = wire.tag48(0x123456789ABC), b"\1\2\3\4"
REPORT = wire.Report(A, B, 7, 0)
PAIR = wire.ulid_pair(A, B)
MESSAGES = {
    "I1": wire.control(wire.I1, TAG + NONCE, PAIR),
    "R1": wire.control(wire.R1, b"\0\0" + NONCE + NONCE, wire.option(wire.VALIDATOR, b"12345")),
    "I2": wire.control(wire.I2, TAG + NONCE + NONCE + bytes(4), wire.option(wire.VALIDATOR, b"12345"), PAIR,
                       wire.locator_list(3, [A, B], [1, 2]), wire.option(wire.FORK, NONCE)),
    "R2": wire.control(wire.R2, TAG + NONCE, wire.locator_list(3, [A], [1]), wire.timeout_option(10)),
    "R1bis": wire.control(wire.R1BIS, TAG + NONCE, wire.option(wire.VALIDATOR, b"12345")),
    "I2bis": wire.control(wire.I2BIS, TAG + NONCE + NONCE + bytes(6) + TAG, wire.option(wire.VALIDATOR, b"1"), PAIR),
    "UR": wire.control(wire.UPDATE, TAG + NONCE, wire.preferences(3, [b"\1", b"\0"])),
    "UA": wire.control(wire.ACK, TAG + NONCE),
    "Keepalive": wire.control(wire.KEEPALIVE, TAG + bytes(4)),
    "Probe": wire.probe(1, wire.INBOUND_OK, [REPORT], [REPORT]),
}  # fmt: skip
# Octet and bits that are zero on transmit, apart from Reserved1, which every message has.
RESERVED = {
    "I1": [(6, 0x80), (20, 0xFF)], "R1": [(6, 0xFF), (7, 1), (16 + 4 + 5, 1)], "I2": [(6, 0x80), (20, 1), (23, 1)],
    "R2": [(6, 0x80), (16 + 10, 1)], "R1bis": [(6, 0x80)], "I2bis": [(6, 0x80), (20, 1), (25, 1), (26, 0x80)],
    "UR": [(6, 0x80), (16 + 11, 1)], "UA": [(6, 0x80)], "Keepalive": [(6, 0x80), (12, 1), (15, 1)],
    "Probe": [(6, 0x80), (13, 0x20), (15, 1)],
}  # fmt: skip


def parsed(octets):
    """(message, dislikes)."""
    dislikes = []
    return wire.parse_control(octets, dislikes.append), dislikes


def changed(octets, at, bits, sum_too=True):
    octets = bytearray(octets)
    octets[at] ^= bits
    if sum_too:
        octets[4:6] = bytes(2)
        octets[4:6] = wire.checksum(bytes(octets)).to_bytes(2, "big")
    return bytes(octets)


class Strict(unittest.TestCase):
    def test_what_we_build_is_beyond_reproach(self):
        for name, octets in MESSAGES.items():
            message, dislikes = parsed(octets)
            self.assertEqual((message.name, dislikes), (name, []))
        message, _ = parsed(MESSAGES["I2bis"])
        self.assertEqual((message.tag, message.packet_tag), (0x123456789ABC, 0x123456789ABC))
        self.assertEqual(parsed(MESSAGES["I2"])[0].options[wire.LOCATORS].locators, [A, B])

    def test_every_reserved_bit(self):
        for name, octets in MESSAGES.items():
            for at, bits in [(3, 0x02), (3, 0x80), *RESERVED[name]]:
                message, dislikes = parsed(changed(octets, at, bits))
                self.assertEqual(message.name, name)
                self.assertEqual(len(dislikes), 1, f"{name}: octet {at}, bits {bits:#x}: {dislikes}")

    def test_what_has_to_be_dropped(self):
        for name, octets in MESSAGES.items():
            for wrong in (changed(octets, 9, 1, sum_too=False), changed(octets, 3, 1), octets[:-8], changed(octets, 1, 0x80)):
                with self.assertRaises(wire.Malformed, msg=name):
                    parsed(wrong)
        short = bytes((59, 0, wire.I2, 0)) + bytes(4)
        with self.assertRaises(wire.Malformed):
            parsed(changed(short, 7, 1))
        with self.assertRaises(wire.Malformed):
            parsed(wire.control(wire.I1, TAG + NONCE, wire.option(wire.ULID_PAIR, bytes(35))))

    def test_an_experiment_is_skipped(self):
        plain, dislikes = parsed(wire.control(wire.I1, TAG + NONCE, wire.option(19526, b"P6FL" + bytes(8)), PAIR))
        self.assertEqual((dislikes, set(plain.options)), ([], {wire.ULID_PAIR}))
        with self.assertRaises(wire.Refused):
            parsed(wire.control(wire.I1, TAG + NONCE, wire.option(19526, b"P6FL" + bytes(8), critical=1)))

    def test_other_faults_of_a_sender(self):
        twice = wire.control(wire.I1, TAG + NONCE, PAIR, PAIR)
        misplaced = wire.control(wire.R1, b"\0\0" + NONCE + NONCE, PAIR)
        for octets in (twice, misplaced, changed(MESSAGES["UA"], 0, 1), MESSAGES["UA"] + bytes(8)):
            self.assertEqual(len(parsed(octets)[1]), 1)
        for kind, option, code in ((50, b"", 0), (wire.ACK, wire.option(99, b"", critical=1), 1)):
            with self.assertRaises(wire.Refused) as caught:
                parsed(wire.control(kind, TAG + NONCE, option))
            self.assertEqual(caught.exception.code, code)


class Proofs(unittest.TestCase):
    def test_sets_and_signatures(self):
        key = identity.make_key()
        prefixes = ["2001:db8:1::/64", "2001:db8:2::/64"]
        for me in (identity.hba_set(prefixes), identity.hba_set(prefixes, key)):
            found = identity.parse_pds(me.pds, self.fail)
            for address in me.addresses:
                identity.prove_hba(address, found)
            for wrong in (me.addresses[0] + 1, IPv6Address("2001:db8:3::1")):
                with self.assertRaises(identity.Unproved):
                    identity.prove_hba(wrong, found)
            for at in (0, 24, len(me.pds) - 1):
                with self.assertRaises(identity.Unproved):
                    identity.prove_cga(me.addresses[0], identity.parse_pds(changed(me.pds, at, 4, sum_too=False), print))
        listed = wire.LocatorList(5, [1, 1, 2], [*me.addresses, A])
        signature = me.sign(5, [A])
        identity.prove_list(listed, me.addresses[0], me.pds, signature, self.fail)
        for generation, signed in ((6, signature), (5, me.sign(5, [B])), (5, None)):
            with self.assertRaises(identity.Unproved):
                listed.generation = generation
                identity.prove_list(listed, me.addresses[0], me.pds, signed, self.fail)


class Wire:
    """Two hosts with one another; `lose(octets)` takes packets away."""

    def __init__(self):
        self.now, self.queue, self.events = 100.0, [], []
        self.lose = lambda octets: False
        self.hosts = [self.host(index) for index in range(2)]

    def host(self, index):
        me = identity.hba_set([f"2001:db8:{index}:1::/64", f"2001:db8:{index}:2::/64"])
        tell = lambda event, **fields: self.events.append((index, event, fields))  # noqa: E731
        return host.Host(me, self.queue.append, tell, send_timeout=4)

    def run(self, seconds=0.0):
        """Delivers everything, and lets time pass in steps of a tenth of a second."""
        end = self.now + seconds
        while True:
            while self.queue:
                octets = self.queue.pop(0)
                to = next(h for h in self.hosts if IPv6Address(octets[24:40]) in h.addresses)
                if not self.lose(octets):
                    to.packet(self.now, octets)
            if self.now >= end:
                return
            self.now += 0.1
            for one in self.hosts:
                one.expire(self.now)

    def told(self, event):
        return [fields for _, name, fields in self.events if name == event]


class Together(unittest.TestCase):
    def setUp(self):
        self.wire = Wire()
        self.a, self.b = self.wire.hosts
        self.context = self.a.open(self.wire.now, self.b.ulid, self.a.addresses[1], self.b.addresses[1])
        self.wire.run(0.2)
        self.assertEqual(self.context.state, host.ESTABLISHED)
        self.assertEqual(self.b.contexts[0].peer_tag, self.context.local_tag)

    def tearDown(self):
        self.assertEqual(self.wire.told("dislike"), [])

    def echo(self):
        before = len(self.wire.told("echo_reply"))
        self.a.send_echo(self.a.contexts[0], 1, 1, b"x" * 3000)
        self.wire.run()
        return len(self.wire.told("echo_reply")) - before

    def test_echo_in_fragments(self):
        self.assertEqual(self.echo(), 1)

    def test_recovery(self):
        self.b.contexts.clear()
        self.assertEqual(self.echo(), 0)
        self.assertEqual(self.echo(), 1)

    def test_a_dead_pair_is_left(self):
        dead = self.context.pair
        self.wire.lose = lambda octets: {IPv6Address(octets[8:24]), IPv6Address(octets[24:40])} == set(dead)
        self.assertEqual(self.echo(), 0)
        self.wire.run(8)
        self.assertNotEqual(self.context.pair, dead)
        self.assertEqual(self.echo(), 1)

    def test_silence_is_broken_by_keepalives_only(self):
        self.b.echoes = False
        for _ in range(40):
            self.a.send_echo(self.context, 1, 1, b"")
            self.wire.run(0.3)
        said = [fields["message"] for fields in self.wire.told("out")]
        self.assertGreaterEqual(said.count("Keepalive"), 5)
        self.assertNotIn("Probe", said)


if __name__ == "__main__":
    unittest.main()
