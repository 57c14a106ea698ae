#!/usr/bin/env python3
"""The box against a Shim6 of another hand, `scripts/peer`: handshakes in both roles, conversation, recovery.

The peer is a plain host with a routable ULID in the node `ext`. It judges every octet the box sends; a `dislike` of its that
a test does not expect fails the test. Each test has a peer with an identity of its own, so that no context is shared.
REAP's Send Timeout is 3 s at the box, 4 s at the peer.
"""

import ipaddress
import time
import types
import unittest

from common import SITES, box, need_boxes, note, plan
from peertest import SLACK_S, PeerTest, tag

from ps6peer import wire


def setUpModule():
    need_boxes()


class Initiator(PeerTest):
    """The peer begins."""

    # R5533-008
    def test_handshake_and_conversation_both_ways(self):
        peer = self.opened()
        self.assertEqual(self.messages(peer), ["R1", "R2"])
        self.assert_agreed(peer)
        self.echoes(peer)
        self.assert_pings("a-h1", peer.ulid)
        with self.udp_port(4007, "echo"):
            for index in range(5):
                peer.order("udp", source=9, destination=4007, octets=f"{index:04x}")
                peer.wait("udp", port=9, octets=f"{index:04x}")
        self.assertEqual(self.messages(peer), ["R1", "R2"])

    # R5533-005
    def test_fragments_both_ways(self):
        """The payload header goes before the Fragment header (§4.6), in every fragment."""
        peer = self.opened()
        # The first ones are answered with Packet Too Big, by the box for its 8 octets.
        self.ping("a-h1", peer.ulid, "-s", "3000", count=2, wait_s=1)
        since = peer.mark()
        self.assert_pings("a-h1", peer.ulid, "-s", "3000")
        peer.settle(0.1)
        self.assertEqual({event["next_header"] for event in peer.found("payload_in", since)}, {44})
        self.echoes(peer, size=2500)

    # R5533-151, R5533-312
    def test_i1_makes_no_state(self):
        peer = self.peer()
        peer.order("rules", rules=[{"way": "in", "message": "R1"}])
        before = len(box.contexts(SITES["a"]))
        peer.order("open", peer=self.host["ulid"], locator=self.host["locators"][0])
        peer.wait("dropped", message="R1")
        self.assertEqual(len(box.contexts(SITES["a"])), before)

    # R5533-191
    def test_a_lost_r2_is_sent_again_for_the_same_i2(self):
        peer = self.peer()
        peer.order("rules", rules=[{"way": "in", "message": "R2", "count": 1}])
        peer.order("open", peer=self.host["ulid"], locator=self.host["locators"][0])
        peer.wait("dropped", message="R2")
        (first,) = self.of(peer)
        peer.wait("established", timeout_s=7)
        self.assertEqual(self.assert_agreed(peer)[0]["local_tag"], first["local_tag"])
        self.echoes(peer)

    # R5533-153, R5533-154, R5533-159
    def test_i1_for_a_context_that_is_there(self):
        """§7.9: the same tag is a lost R2 and gets R2; another tag gets R1 and changes nothing."""
        peer = self.opened()
        own, box_tag = [(c["local_tag"], c["peer_tag"]) for c in peer.order("contexts")][0]
        self.dislikes_expected = ["nobody asked for"]
        for sent, answer in ((own, "R2"), (own ^ 1, "R1")):
            since = peer.mark()
            pair = wire.ulid_pair(ipaddress.IPv6Address(peer.ulid), ipaddress.IPv6Address(self.host["ulid"]))
            octets = wire.control(wire.I1, wire.tag48(sent) + b"\0\0\0\5", pair)
            peer.order("raw", octets=octets.hex(), source=peer.ulid, destination=self.host["locators"][0])
            told = peer.wait("in", since)
            self.assertEqual((told["message"], told["initiator_nonce"]), (answer, 5))
            if answer == "R2":
                self.assertEqual(told["tag"], box_tag)
        self.assert_agreed(peer)
        self.echoes(peer)

    # R5533-187
    def test_a_context_anew_after_the_peer_lost_it(self):
        """Figure 7: the box still has it, the peer begins again with another tag."""
        peer = self.opened()
        peer.order("forget")
        self.open(peer)
        self.assert_agreed(peer)
        self.echoes(peer)

    # R5533-012, R5533-133
    def test_every_kind_of_identity(self):
        for kind, options in (("hybrid", {}), ("cga", {"prefixes": ["2001:db8:e::/64"]})):
            with self.subTest(kind):
                peer = self.opened(kind, **options)
                self.assert_agreed(peer)
                self.echoes(peer)
                self.assert_pings("a-h1", peer.ulid)

    def test_a_peer_that_says_nothing_of_its_locators(self):
        """The list is optional in I2 (§5.6); the ULID is the one locator then."""
        peer = self.opened("hba", "--no-list")
        self.assert_agreed(peer)
        self.echoes(peer)
        self.assert_pings("a-h1", peer.ulid)

    def test_through_the_other_provider(self):
        peer = self.peer()
        peer.order("open", peer=self.host["ulid"], locator=self.host["locators"][1], source=peer.addresses[1])
        peer.wait("established")
        self.assert_agreed(peer)
        self.echoes(peer)
        self.assert_pings("a-h1", peer.ulid)

    # R5533-299
    def test_fork(self):
        """A second context for the same pair; what a-h1 sends goes through the one with fork 0 (§12.4)."""
        peer = self.opened()
        plain = peer.order("contexts")[0]["local_tag"]
        self.open(peer, fork=77)
        self.assertEqual(len(self.of(peer)), 2)
        since = peer.mark()
        self.echoes(peer, fork=77)
        self.echoes(peer)
        self.assertEqual({event["tag"] for event in peer.found("payload_in", since)}, {plain})

    # R5533-200, R5533-201, R5533-206
    def test_context_confusion(self):
        """§7.15: a tag used again for a-h2 says that the context of a-h1 is lost; the box must not use it."""
        peer = self.opened()
        used = peer.order("contexts")[0]["local_tag"]
        peer.order("forget")
        self.open(peer, self.hosts["a-h2"], tag=used)
        live = [c for c in self.of(peer) if tag(c["peer_tag"] or 0) == used and "stablished" in c["state"]]
        self.assertEqual(live, [])
        self.assertEqual(len(self.of(peer, self.hosts["a-h2"])), 1)
        self.echoes(peer)


class Responder(PeerTest):
    """The box begins, because a-h1 sends to a peer it was told of."""

    # R5533-008
    def test_handshake_and_conversation_both_ways(self):
        peer = self.peer()
        self.introduce(peer)
        # Five pings and five answers: those sent before the context was there have waited.
        self.assert_pings("a-h1", peer.ulid, count=5)
        peer.settle(0.1)
        self.assertEqual([event["sequence"] for event in peer.found("echo_request")], [1, 2, 3, 4, 5])
        self.assertEqual(self.messages(peer)[:2], ["I1", "I2"])
        self.assert_agreed(peer)
        self.echoes(peer)

    # R5533-140, R5533-142, R5533-303
    def test_i1_again_until_answered(self):
        """4 s and 8 s, each by half more or less (§7.8, §14); then an answer still counts."""
        peer = self.peer()
        self.introduce(peer)
        peer.order("set", answer=None)
        self.ping("a-h1", peer.ulid, count=1, wait_s=0.2)
        times = [peer.wait("in", message="I1", count=count, timeout_s=14)["t"] for count in (1, 2, 3)]
        first, second = times[1] - times[0], times[2] - times[1]
        note(f"I1 again after {first:.1f} s and {second:.1f} s")
        self.assertTrue(2 <= first <= 6 + SLACK_S, times)
        self.assertTrue(4 <= second <= 12 + SLACK_S, times)
        self.assertEqual(len({event["tag"] for event in peer.found("in", message="I1")}), 1)
        peer.order("set", answer="R1")
        peer.wait("in", message="I2", timeout_s=25)
        self.assert_pings("a-h1", peer.ulid)

    # R5533-171
    def test_lost_r1_and_r2(self):
        peer = self.peer()
        self.introduce(peer)
        peer.order("rules", rules=[{"way": "out", "message": "R1", "count": 1}, {"way": "out", "message": "R2", "count": 1}])
        self.ping("a-h1", peer.ulid, count=1, wait_s=0.2)
        peer.wait("in", message="I2", count=2, timeout_s=14)
        first, second = peer.found("in", message="I2")
        self.assertTrue(2 <= second["t"] - first["t"] <= 6 + SLACK_S, (first["t"], second["t"]))
        self.wait_until("the context is established", lambda: any(c["current"] for c in self.of(peer)))
        self.assert_agreed(peer)
        self.assert_pings("a-h1", peer.ulid)

    # R5533-155
    def test_crossing_i1(self):
        """Figure 4: both have begun, each answers the other's I1 with R2."""
        peer = self.peer()
        self.introduce(peer)
        peer.order("set", answer="I1")
        self.assert_pings("a-h1", peer.ulid)
        self.assertEqual(self.messages(peer)[:2], ["I1", "R2"])
        self.assert_agreed(peer)
        self.echoes(peer)

    # R5533-042, R5533-138
    def test_only_the_second_address_is_known(self):
        """The ULID is none of the locators the box was told: it goes into the ULID pair option."""
        peer = self.peer()
        self.introduce(peer, peer.addresses[1:])
        self.assert_pings("a-h1", peer.ulid)
        self.assertEqual(peer.wait("in", message="I1")["destination"], peer.addresses[1])
        self.assert_agreed(peer)

    # R5533-146
    def test_a_host_without_shim6(self):
        """ext's kernel answers with a Parameter Problem; a-h1 is told at once, and nobody asks ext again (§7.8)."""
        ulid = plan.EXT_ADDRESS
        self.introduce(types.SimpleNamespace(ulid=ulid, addresses=[ulid]))
        for _ in range(2):
            began = time.monotonic()
            done = self.ping("a-h1", ulid, count=1, wait_s=5)
            self.assertIn("unreachable", done.stdout.lower())
            self.assertLess(time.monotonic() - began, 2)

    def test_a_peer_that_says_nothing_of_its_locators(self):
        peer = self.peer("hba", "--no-list")
        self.introduce(peer, [peer.ulid])
        self.assert_pings("a-h1", peer.ulid)
        self.assert_agreed(peer)

    def test_identity_with_a_key(self):
        peer = self.peer("cga", prefixes=["2001:db8:e::/64"])
        self.introduce(peer)
        self.assert_pings("a-h1", peer.ulid)
        self.assert_agreed(peer)


class Recovery(PeerTest):
    # R5533-214, R5533-215, R5533-216, R5533-220
    def test_the_peer_lost_the_context(self):
        """Figure 6: payload, R1bis, I2bis, R2, whether the first R2 arrives or not."""
        for rules in ([], [{"way": "out", "message": "R2", "count": 1}]):
            with self.subTest(rules):
                peer = self.opened()
                old = peer.order("contexts")[0]["local_tag"]
                peer.order("forget")
                peer.order("rules", rules=rules)
                since = peer.mark()
                self.ping("a-h1", peer.ulid, count=2)
                told = peer.wait("in", since, message="I2bis")
                self.assertEqual(told["packet_tag"], old)
                if rules:
                    again = peer.wait("in", since, message="I2bis", count=2, timeout_s=8)
                    self.assertTrue(2 <= again["t"] - told["t"] <= 6 + SLACK_S)
                self.assert_pings("a-h1", peer.ulid)
                self.assert_agreed(peer)
                self.assertNotIn("I1", self.messages(peer, since))

    # R5533-208, R5533-227
    def test_the_box_lost_the_context(self):
        """The box is killed; the peer's next payload is answered with R1bis, and its I2bis taken."""
        peer = self.opened()
        old = self.assert_agreed(peer)[0]["local_tag"]
        self.assertTrue(box.kill(SITES["a"]))
        box.start(SITES["a"])
        box.wait_ready(SITES["a"])
        since = peer.mark()
        peer.order("echo", sequence=1)
        self.assertEqual(peer.wait("in", since, message="R1bis")["tag"], tag(old))
        peer.wait("established", since)
        self.assertNotEqual(self.assert_agreed(peer)[0]["local_tag"], old)
        self.echoes(peer)
        self.assert_pings("a-h1", peer.ulid)


class Judges(PeerTest):
    """In a lab of its own, where nobody else's contexts are in the captures."""

    # R5533-008
    def test_both_judges_agree(self):
        """What the peer and the box say to each other also passes the decoder, which neither of them knows."""
        with self.capturing(providers=["x", "y"]) as seen:
            peer = self.opened("hybrid")
            self.echoes(peer)
            peer.order("update", locators=[*peer.addresses, peer.spare], methods=[1, 1, 2], preferences=["00", "00", "01"])
            peer.wait("updated")
            peer.order("explore")
            peer.wait("reap", new="Operational")
            self.assert_pings("a-h1", peer.ulid)
        summary = self.judge(seen.files, ulids=None)
        for name in ("I1", "R1", "I2", "R2", "Probe"):
            self.assertGreater(summary["messages"].get(name, 0), 0, summary["messages"])


if __name__ == "__main__":
    unittest.main()
