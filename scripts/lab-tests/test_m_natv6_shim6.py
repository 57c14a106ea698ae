#!/usr/bin/env python3
"""Sessions that begin without the shim and get a context on the way, with a Shim6 host in `ext`.

The independent peer puts its shim under the kernel of ext by a TUN device, so that the sessions are real ones: ext's own TCP.
The hosts of site a know nothing of any of it. REAP's Send Timeout is 3 s at the box, 4 s at the peer.
"""

import re
import unittest

from common import MB, SITES, Transfer, box, need_boxes, net, note, plan
from peertest import PeerTest

SETUP = "[natv6]\nenabled = true\n[setup]\npackets = 20\nage_s = 0\n"
THROUGH = [word for name in ("x", "y") for word in ("--through", plan.PROVIDERS[name].prefix)]


def setUpModule():
    need_boxes()


class Shim6Beyond(PeerTest):
    options = {"extra": SETUP}

    def tun_peer(self, *arguments):
        # Looked at when the peer has ended: cleanups run in the opposite order.
        self.addCleanup(self.judge_rules)
        return self.peer("hba", "--tun", "shim0", *THROUGH, *arguments)

    def judge_rules(self):
        rules = net.exec_in("ext", ["ip", "-6", "rule"])
        self.assertNotIn("fwmark", rules.stdout, "the peer leaves the kernel as it was")

    def of_locator(self, peer, provider="x"):
        """The box's contexts of a-h1's locator with the peer."""
        locator = next(it for it in self.host["locators"] if plan.provider_of(it).name == provider)
        return [c for c in box.contexts(SITES["a"]) if (c["ulid_local"], c["ulid_peer"]) == (locator, peer.ulid)]

    def established(self, peer, provider="x"):
        found = self.of_locator(peer, provider)
        return len(found) == 1 and found[0]["state"] == "established"

    def survive(self, sender, receiver, address, peer, provider, total=12 * MB, rate=MB):
        """A transfer during which the site loses a provider once there is a context."""
        running = Transfer(sender, receiver, address, total, rate, port=5031, patience_s=30)
        try:
            running.wait_received(2 * MB, timeout_s=30)
            self.wait_until("the session has a context", lambda: self.established(peer, provider))
            before = peer.order("counts")
            net.cut(provider)
            result = running.wait(timeout_s=90)
        finally:
            running.abort()
        note(f"{sender} to {receiver}: longest silence {result['outage_ms']} ms, {result['bytes'] / MB:.0f} MB")
        self.assertTrue(result["complete"] and result["sha256_match"], result)
        self.assertGreater(result["outage_ms"], 500, "the cut was felt")
        self.assertLess(result["outage_ms"], 12_000)
        (context,) = self.of_locator(peer, provider)
        self.assertNotEqual(plan.provider_of(context["current"]["local"]).name, provider)
        after = peer.order("counts")
        for count in ("payload_in", "payload_out"):
            self.assertEqual(before[count], 0, "R5533-019, R5533-281: as long as the locators are the ULIDs, packets are plain")
            self.assertGreater(after[count], 100)

    def test_the_host_begins_and_its_session_survives_a_cut(self):
        """R5533-014, R5533-001, R5533-019, RCM-015: translated first, then a context of (locator, peer), then the other provider."""
        peer = self.tun_peer()
        self.survive("a-h1", "ext", peer.ulid, peer, "x")
        self.assertIn("I1", self.messages(peer))
        (i1,) = peer.found("in", message="I1")
        self.assertEqual(i1["destination"], peer.ulid)
        self.assertNotIn("options", i1, "the addresses say which ULIDs are meant")

    def test_the_host_answers_and_its_session_survives_a_cut(self):
        """R5533-019, RCM-015: the peer's kernel connects to a locator at the second provider: AAAA is all it knows."""
        peer = self.tun_peer()
        locator = next(it for it in self.host["locators"] if plan.provider_of(it).name == "y")
        self.survive("ext", "a-h1", locator, peer, "y")

    def test_the_peer_asks_for_the_context(self):
        """R5533-019, R5533-020, R5533-281, R5533-288, RCM-010: I1 to a locator, without a ULID pair; the session goes on, plain, moves, comes back."""
        peer = self.tun_peer()
        locator = next(it for it in self.host["locators"] if plan.provider_of(it).name == "x")
        self.assert_pings("a-h1", peer.ulid, count=3)
        peer.order("open", peer=locator, locator=locator)
        peer.wait("established", role="initiator")
        (context,) = self.of_locator(peer)
        self.assertEqual((context["state"], context["inside"]), ("established", self.host["ulid"]))
        # The host's ULID leads nowhere outside, and nobody outside is told of it.
        self.assertEqual(sorted(peer.order("contexts")[0]["peers"]), sorted(self.host["locators"]))
        self.assertIn(" 0% packet loss", self.assert_pings("a-h1", peer.ulid, count=5).stdout)
        self.assertEqual(peer.order("counts")["payload_in"], 0)
        with self.pinging(peer) as output:
            net.cut("x")
            self.wait_until("payload over the other provider", lambda: peer.order("counts")["payload_in"] > 5, timeout_s=15)
            peer.settle(2)
        # Every ping of the last second has its answer.
        answered = [int(found) for found in re.findall(r"icmp_seq=(\d+) ", "\n".join(output))]
        sent = int(re.search(r"(\d+) packets transmitted", "\n".join(output)).group(1))
        self.assertGreaterEqual(answered[-1], sent - 1, output[-12:])
        self.assertEqual(answered[-5:], list(range(answered[-1] - 4, answered[-1] + 1)), output[-12:])
        self.assertIn(" 0% packet loss", self.assert_pings("a-h1", peer.ulid, count=5).stdout)
        # ext's kernel answers through the shim too, about packets of the host's.
        self.assertGreater(peer.order("counts")["payload_out"], 5)

    def test_a_short_session_costs_nothing(self):
        """R5533-014"""
        peer = self.tun_peer()
        self.assert_pings("a-h1", peer.ulid, count=4)
        self.assertEqual(self.messages(peer), [])

    def test_a_peer_that_is_away_when_asked(self):
        """R5533-015: five I1s without an answer; the session goes on all the time."""
        peer = self.tun_peer()
        peer.order("set", answer=None)
        done = self.assert_pings("a-h1", peer.ulid, count=40)
        self.assertIn(" 0% packet loss", done.stdout)
        self.assertEqual(set(self.messages(peer)), {"I1"})


if __name__ == "__main__":
    unittest.main()
