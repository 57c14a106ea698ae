#!/usr/bin/env python3
"""Hostile input from beyond the providers: answered or dropped as the RFCs say, counted by kind, and nothing changes."""

import ipaddress
import json
import subprocess
import sys
import unittest

from common import HERE, SITES, LabTest, box, need_boxes, net

sys.path.insert(0, str(HERE.parent / "tests"))

import builder  # noqa: E402
from builder import control, ip, ipv6, locator_list, option, payload, probe, report, tag, ulid_pair, validator, word  # noqa: E402
from shim6dec import wire  # noqa: E402

HOW_MANY = 7  # of each kind; few enough for any sensible rate limit
UNKNOWN_TAG = 0x5A5A5A5A5A5A
STABLE = ("ulid_local", "ulid_peer", "state", "local_tag", "peer_tag", "current", "local_locators", "peer_locators")


def setUpModule():
    need_boxes()


class Prober:
    """`prober.py` running in a node."""

    def __init__(self, node):
        command = net.inside(node, [sys.executable, "-B", str(HERE / "prober.py")])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert json.loads(self.process.stdout.readline())["ready"]

    def send(self, *packets, wait_s=0.5, enough=None):
        """Sends whole packets; returns the Shim6 messages that came back as (packet, message)."""
        order = {"send": [packet.hex() for packet in packets], "wait_s": wait_s, "enough": enough}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        replies = []
        for text in json.loads(self.process.stdout.readline())["replies"]:
            packet, faults = bytes.fromhex(text), []
            message = wire.parse_control(wire.find_shim6(packet, faults), faults)
            assert not faults, faults
            replies.append((packet, message))
        return replies

    def close(self):
        self.process.stdin.close()
        self.process.wait(5)
        self.process.stdout.close()


class Hostile(LabTest):
    """`ext` is a stranger that can be answered; the core forges sources, as somebody on the path could."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        prefixes = ["fc00:e:0:1::", "2001:db8:e::", "2001:db8:e:1::"]
        (cls.ulid_of_ext, *cls.of_ext), (cls.pds_of_ext, *_) = builder.hba_set(prefixes, 77)
        address = str(ipaddress.IPv6Address(cls.of_ext[0]))
        net.exec_in("ext", ["ip", "-6", "addr", "add", f"{address}/64", "dev", "eth0", "nodad"])
        cls.ext, cls.core = Prober("ext"), Prober("core")

    @classmethod
    def tearDownClass(cls):
        for prober in (cls.ext, cls.core):
            prober.close()
        super().tearDownClass()

    def setUp(self):
        self.establish("a-h1", "b-h1")
        self.target = ip(self.hosts["a-h1"]["locators"][0])
        self.stranger = self.of_ext[0]

    def to_target(self, octets, source=None):
        return ipv6(source or self.stranger, self.target, octets)

    def all_contexts(self):
        return [
            {name: context[name] for name in STABLE} for site in SITES.values() for context in box.contexts(site)
        ]

    def unchanged(self, prober, *packets, **options):
        """Sends packets that must not change any context; returns (replies, counters of site a that moved)."""
        before, counted = self.all_contexts(), self.counters("a")
        replies = prober.send(*packets, **options)
        self.assertEqual(self.all_contexts(), before)
        after = self.counters("a")
        moved = {name: after[name] - counted.get(name, 0) for name in after if after[name] != counted.get(name, 0)}
        return replies, moved

    # --- what a stranger can get --------------------------------------------------------------------------------

    def i1(self, number=1, ulids=None):
        ulids = ulids or (self.ulid_of_ext, ip(self.ulid("a-h1")))
        return self.to_target(control(1, tag(0xE00000000000 + number) + word(number), ulid_pair(*ulids)))

    # R5533-151, R5533-158
    def test_i1_is_answered_without_state(self):
        replies, _ = self.unchanged(self.ext, *[self.i1(number) for number in range(1, HOW_MANY + 1)])
        self.assertEqual([message.type for _, message in replies], [wire.R1] * HOW_MANY)
        self.assertEqual([message.initiator_nonce for _, message in replies], list(range(1, HOW_MANY + 1)))

    def i2(self, nonce, rv, listed=None, pds=None, number=1):
        return self.to_target(control(
            3, tag(0xE00000000000 + number) + word(900 + number) + word(nonce) + bytes(4), validator(rv),
            ulid_pair(self.ulid_of_ext, ip(self.ulid("a-h1"))), locator_list(5, listed or self.of_ext),
            option(4, pds or self.pds_of_ext),
        ))  # fmt: skip

    def r1(self, number):
        """The R1 to a fresh I1."""
        replies = self.ext.send(self.i1(number), wait_s=3, enough=1)
        self.assertEqual([message.type for _, message in replies], [wire.R1])
        return replies[0][1]

    def forged_i2(self):
        return [self.i2(0x01020304 + number, bytes(range(number, number + 32))) for number in range(HOW_MANY)]

    def outside_the_set(self):
        """Honest I2s in everything but one locator, which no parameters prove."""
        packets = []
        for number in range(1, HOW_MANY + 1):
            answer = self.r1(number)
            listed = [self.of_ext[0], ip("2001:db8:e:1::bad")]
            packets.append(self.i2(answer.responder_nonce, answer.options[wire.VALIDATOR], listed, number=number))
        return packets

    # R5533-178, R5533-180
    def test_forged_i2_makes_no_context(self):
        replies, _ = self.unchanged(self.ext, *self.forged_i2())
        self.assertEqual(replies, [])

    def test_locators_outside_the_set_make_no_context(self):
        replies, _ = self.unchanged(self.ext, *self.outside_the_set())
        self.assertTrue(replies, "R5533-132 asks for an Error")
        for _, message in replies:
            self.assertEqual((message.type, message.code), (wire.ERROR, 2))
            # The pointer lands on the method octet of the second locator in the quoted packet.
            quoted = wire.find_shim6(message.quoted, [])
            option_at = quoted.shim6.index(word(5) + b"\2\1\1")
            self.assertEqual(message.pointer, len(message.quoted) - len(quoted.shim6) + option_at + 6)

    # R5533-179
    def test_parameters_of_somebody_else_make_no_context(self):
        _, (others, *_) = builder.hba_set(["fc00:e:0:1::", "2001:db8:e::", "2001:db8:e:1::"], 78)
        answer = self.r1(40)
        replies, _ = self.unchanged(
            self.ext, self.i2(answer.responder_nonce, answer.options[wire.VALIDATOR], pds=others, number=40)
        )
        self.assertNotIn(wire.R2, [message.type for _, message in replies])

    def test_zz_an_honest_stranger_gets_a_context(self):
        """The measure of the others: the same I2 without the lie is accepted. Last, because it does change state."""
        answer = self.r1(50)
        packet = self.i2(answer.responder_nonce, answer.options[wire.VALIDATOR], number=50)
        replies = self.ext.send(packet, wait_s=3, enough=1)
        self.assertEqual([message.type for _, message in replies], [wire.R2])
        ulid = str(ipaddress.IPv6Address(self.ulid_of_ext))
        self.assertIn(ulid, [context["ulid_peer"] for context in box.contexts(SITES["a"])])

    # --- unknown tags -------------------------------------------------------------------------------------------

    # R5533-208
    def test_payload_with_an_unknown_tag_is_answered_with_r1bis(self):
        replies, _ = self.unchanged(self.ext, self.to_target(payload(UNKNOWN_TAG)))
        self.assertEqual([(m.type, m.tag) for _, m in replies], [(wire.R1BIS, UNKNOWN_TAG)])

    def with_unknown_tag(self):
        head = tag(UNKNOWN_TAG)
        return {
            "UR": control(64, head + word(1)),
            "UA": control(65, head + word(1)),
            "Keepalive": control(66, head + bytes(4)),
            "Probe": probe(UNKNOWN_TAG, 1, [report(self.stranger, self.target, 1)]),
        }

    def test_control_with_an_unknown_tag_is_answered_with_r1bis(self):
        # R5533-037, R5533-209
        for name, octets in self.with_unknown_tag().items():
            replies, _ = self.unchanged(self.ext, self.to_target(octets))
            self.assertEqual([(m.type, m.tag) for _, m in replies], [(wire.R1BIS, UNKNOWN_TAG)], name)

    def test_establishment_nobody_asked_for_is_ignored(self):
        # R5533-037: types below 64 never cause R1bis.
        for name, octets in {
            "R1": control(2, b"\0\0" + word(1) + word(2), validator()),
            "R2": control(4, tag(UNKNOWN_TAG) + word(1)),
            "R1bis": control(5, tag(UNKNOWN_TAG) + word(1), validator()),
            "I2bis": control(6, tag(1) + word(1) + word(2) + bytes(6) + tag(UNKNOWN_TAG), validator(),
                             ulid_pair(self.ulid_of_ext, ip(self.ulid("a-h1")))),
        }.items():  # fmt: skip
            replies, _ = self.unchanged(self.ext, self.to_target(octets))
            self.assertEqual(replies, [], name)

    # R5533-295, R5533-324, R5533-325
    def test_errors(self):
        """Unknown types are answered with Error 0, also above 63 (D17); an Error never is (D16)."""
        for kind in (50, 100):
            replies, _ = self.unchanged(self.ext, self.to_target(control(kind, tag(1) + word(1))))
            self.assertEqual([(m.type, m.code, m.pointer) for _, m in replies], [(wire.ERROR, 0, 42)], kind)
        quoted = ipv6(self.target, self.stranger, control(100, tag(1) + word(1)))
        replies, _ = self.unchanged(self.ext, self.to_target(control(68, b"\0\x2a" + quoted)))
        self.assertEqual(replies, [])

    # R5533-099, R5533-100
    def test_unknown_critical_option(self):
        octets = control(1, tag(1) + word(1), ulid_pair(self.ulid_of_ext, ip(self.ulid("a-h1"))), option(99, b"", critical=1))
        replies, _ = self.unchanged(self.ext, self.to_target(octets))
        self.assertEqual([(m.type, m.code, m.pointer) for _, m in replies], [(wire.ERROR, 1, 40 + 16 + 40)])
        octets = control(1, tag(1) + word(1), ulid_pair(self.ulid_of_ext, ip(self.ulid("a-h1"))), option(99, b""))
        replies, _ = self.unchanged(self.ext, self.to_target(octets))
        self.assertEqual([m.type for _, m in replies], [wire.R1])

    # --- malformed ----------------------------------------------------------------------------------------------

    def malformed(self):
        """Kind -> a control header that has to be dropped without a word."""
        good = control(1, tag(1) + word(1), ulid_pair(self.ulid_of_ext, ip(self.ulid("a-h1"))))
        return {
            "checksum": good[:4] + b"\x12\x34" + good[6:],
            "too long": builder.checksummed(good[:1] + b"\xff" + good[2:]),
            "too short": control(3, tag(1) + word(1)),
            "S bit": control(1, tag(1) + word(1), octet3=1),
            "option past the end": control(1, tag(1) + word(1), b"\0\x0c\0\x24" + bytes(4)),
            "option of wrong length": control(1, tag(1) + word(1), option(6, bytes(12))),
            "option twice": control(1, tag(1) + word(1), *[ulid_pair(self.ulid_of_ext, ip(self.ulid("a-h1")))] * 2),
        }

    # R5533-292, R5533-293, R5533-318, R5533-319
    def test_malformed_control_is_dropped_in_silence(self):
        for name, octets in self.malformed().items():
            replies, moved = self.unchanged(self.ext, self.to_target(octets))
            self.assertEqual(replies, [], name)
            self.assertTrue(moved, f"{name}: no counter moved")

    # R5533-318
    def test_payload_header_with_a_length_is_dropped(self):
        octets = payload(UNKNOWN_TAG)
        replies, _ = self.unchanged(self.ext, self.to_target(octets[:1] + b"\1" + octets[2:]))
        self.assertEqual(replies, [])

    # R5533-294
    def test_multicast_and_unspecified_sources(self):
        octets = control(1, tag(1) + word(1), ulid_pair(self.ulid_of_ext, ip(self.ulid("a-h1"))))
        replies, _ = self.unchanged(self.core, self.to_target(octets, ip("ff02::1")), self.to_target(octets, ip("::")))
        self.assertEqual(replies, [])

    # --- on the path, with the right tag ------------------------------------------------------------------------

    def own_tag(self):
        value = self.context("a-h1", "b-h1")["local_tag"]
        return value if isinstance(value, int) else int(value, 16)

    # R5533-262, R5533-297
    def test_the_right_tag_from_a_foreign_source(self):
        """A stranger who guessed the tag cannot move, end or probe the context: R1bis and nothing else."""
        known = self.own_tag()
        for octets in (
            control(66, tag(known) + bytes(4)),
            control(64, tag(known) + word(1), locator_list(9, [self.stranger])),
            probe(known, 1, [report(self.stranger, self.target, 1)]),
        ):
            replies, _ = self.unchanged(self.ext, self.to_target(octets))
            self.assertEqual([(m.type, m.tag) for _, m in replies], [(wire.R1BIS, known)])

    def test_an_update_with_a_foreign_locator_from_the_right_source(self):
        """On the path, tag and source forged: the list still has to be proved."""
        context = self.context("a-h1", "b-h1")
        source, self.target = ip(context["current"]["peer"]), ip(context["current"]["local"])
        listed = [ip(locator) for locator in context["peer_locators"]] + [self.stranger]
        octets = control(64, tag(self.own_tag()) + word(1), locator_list(9, listed))
        self.unchanged(self.core, *[self.to_target(octets, source)] * HOW_MANY)
        self.assert_pings("a-h1", self.ulid("b-h1"))

    # --- counters -----------------------------------------------------------------------------------------------

    def test_each_kind_has_a_counter_of_its_own(self):
        """Every kind moves a counter that the others leave alone, once per packet."""
        malformed = self.malformed()
        kinds = {
            "checksum": [self.to_target(malformed["checksum"])] * HOW_MANY,
            "malformed option": [self.to_target(malformed["option of wrong length"])] * HOW_MANY,
            "unknown tag": [self.to_target(payload(UNKNOWN_TAG + number)) for number in range(HOW_MANY)],
            "forged I2": self.forged_i2(),
            "locator outside the set": self.outside_the_set(),
        }
        moved = {}
        for name, packets in kinds.items():
            _, changes = self.unchanged(self.ext, *packets)
            moved[name] = {counter for counter, by in changes.items() if by == HOW_MANY}
        for name, counters in moved.items():
            others = set().union(*(found for other, found in moved.items() if other != name))
            self.assertTrue(counters - others, f"{name} has no counter of its own: {moved}")


if __name__ == "__main__":
    unittest.main()
