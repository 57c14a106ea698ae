#!/usr/bin/env python3
"""Paths that drop next header 140: told from dead ones, in UDP while it lasts, and plain for a peer that takes no part."""

import time
import unittest

from common import MB, SITES, LabTest, box, need_boxes, net, note, plan
from peertest import PeerTest


UDP = "[shim6]\nudp_encapsulation = true\n"


def setUpModule():
    need_boxes()


class Paths(LabTest):
    """What the scenes share: providers that drop what has a Shim6 header, and nothing else."""

    options = {"extra": UDP}
    limit_ms = 6000

    def setUp(self):
        self.establish()

    def tearDown(self):
        for name in plan.PROVIDERS:
            net.heal(name)
        self.assert_no_spoofing()

    def drop_headers(self, names):
        for name in names:
            net.cut(name, shim6=True)

    def in_udp(self, site="a"):
        """Paths of a box that go in UDP now."""
        return [path for path in box.ctl_json(SITES[site], "paths")["paths"] if path["carriage"] == "udp"]

    def count(self, name, *sites):
        return sum(self.counters(site)[name] for site in sites or "ab")


class Sessions(Paths):
    def test_1_a_session_goes_on_when_the_provider_in_use_begins_to_drop_headers(self):
        self.assertEqual(self.count("control_udp_tests"), 0, "nobody asks where nothing is wrong")
        used = {}

        def meanwhile(_):
            used["name"] = self.provider_in_use()
            self.drop_headers([used["name"]])

        result = self.transfer(32 * MB, 8 * MB, meanwhile)
        self.assertLess(result["outage_ms"], self.limit_ms, result["gaps"])
        self.wait_until("what the path does is known", lambda: self.count("control_udp_begun") > 0)

    def test_2_a_session_goes_on_in_udp_and_back(self):
        def meanwhile(_):
            self.drop_headers(plan.PROVIDERS)

        with self.capturing() as seen:
            result = self.transfer(48 * MB, 8 * MB, meanwhile)
            # A new session in UDP, with fragments, the largest packet and what is too large.
            self.assert_pings("a-h1", self.ulid("b-h1"), "-s", "4000")
            self.assert_pings("a-h1", self.ulid("b-h1"), "-M", "do", "-s", str(1500 - 16 - 48))
            too_large = self.ping("a-h1", self.ulid("b-h1"), "-M", "do", "-s", str(1500 - 16 - 47), count=2)
            self.assertIn("mtu", (too_large.stdout + too_large.stderr).lower())
        self.assertLess(result["outage_ms"], self.limit_ms, result["gaps"])
        self.assertGreater(self.count("udp_out"), 10_000)
        self.assertGreater(self.count("udp_in"), 10_000)
        self.assertTrue(self.in_udp("a") and self.in_udp("b"))
        summary = self.judge(seen.files, midstream=True)
        self.assertGreater(summary["messages"]["in UDP"], 100)
        # When the network has mended its ways nothing is lost on the way back.
        for name in plan.PROVIDERS:
            net.heal(name)
        self.transfer(24 * MB, 4 * MB)
        self.wait_until("nothing goes in UDP any more", self.goes_plain, timeout_s=40, step_s=0.5)
        self.assertGreater(self.count("control_udp_ended"), 0)

    def goes_plain(self):
        before = self.count("udp_out")
        self.assert_pings("a-h1", self.ulid("b-h1"), count=5)
        return self.count("udp_out") == before


class FirstHandshake(Paths):
    def setUp(self):
        pass

    def test_contexts_are_made_in_udp_where_nothing_else_passes(self):
        self.drop_headers(plan.PROVIDERS)
        began = time.monotonic()
        reaches = lambda: self.ping("a-h1", self.ulid("b-h1"), count=1, wait_s=1).returncode == 0  # noqa: E731
        self.wait_until("the peer is reached", reaches, timeout_s=30, step_s=0.2)
        note(f"first packet answered after {time.monotonic() - began:.1f} s")
        self.assert_pings("b-h1", self.ulid("a-h1"))
        self.assert_pings("a-h2", self.ulid("b-h1"), wait_s=8)
        self.assertGreater(self.count("udp_in"), 0)


class Stranger(PeerTest):
    """The independent peer knows nothing of UDP: it sees RFC 5533, also when its path drops that."""

    options = {"extra": UDP}

    def test_a_peer_that_takes_no_part(self):
        begun = self.opened()
        self.assert_agreed(begun)
        self.echoes(begun)
        self.assert_pings("a-h1", begun.ulid)
        for provider in SITES["a"].providers:
            net.cut(provider.name, shim6=True)
        self.ping("a-h1", begun.ulid, count=20, wait_s=1)
        for provider in SITES["a"].providers:
            net.heal(provider.name)
        self.wait_until("it is reached again", lambda: self.ping("a-h1", begun.ulid, count=1, wait_s=1).returncode == 0, 20)
        counters = self.counters()
        self.assertEqual((counters["control_udp_tests"], counters["control_messages_in_udp"], counters["udp_out"]), (0, 0, 0))


if __name__ == "__main__":
    unittest.main()
