#!/usr/bin/env python3
"""The box against a Shim6 of another hand, `scripts/peer`: reachability, exploration, updates, errors.

The peer is a plain host with a routable ULID in the node `ext`. It judges every octet the box sends; a `dislike` of its that
a test does not expect fails the test. Each test has a peer with an identity of its own, so that no context is shared.
REAP's Send Timeout is 3 s at the box, 4 s at the peer.
"""

import contextlib
import ipaddress
import time
import unittest

from common import need_boxes, net, note
from peertest import BOX_TIMEOUT_S, PEER_TIMEOUT_S, SLACK_S, PeerTest, deaf, mute

from ps6peer import wire


def setUpModule():
    need_boxes()


class Reachability(PeerTest):
    """REAP, with every kind of failure of a path."""

    def test_the_box_keeps_alive_what_is_one_way(self):
        """Towards a host that never answers: Keepalives every third to half of our Send Timeout, and no exploration."""
        peer = self.opened()
        since = peer.mark()
        with self.udp_port(4008, "silent"):
            for _ in range(25):
                peer.order("udp", source=9, destination=4008, octets="00")
                peer.settle(0.4)
        times = [event["t"] for event in peer.found("in", since, message="Keepalive")]
        gaps = [later - earlier for earlier, later in zip(times, times[1:])]
        note(f"Keepalives after {', '.join(f'{gap:.2f}' for gap in gaps)} s")
        self.assertGreaterEqual(len(times), 5)
        self.assertLessEqual(max(gaps), PEER_TIMEOUT_S / 2 + SLACK_S)
        self.assertGreaterEqual(sum(gaps) / len(gaps), PEER_TIMEOUT_S / 3 - 0.2)
        # The box may test another pair meanwhile, by a request that says nothing.
        self.assertEqual(set(self.messages(peer, since)) - {"UR"}, {"Keepalive"})
        self.assertEqual(peer.order("contexts")[0]["visited"], ["Operational"])
        # When nothing comes any more, Keepalives end with the Keepalive Timeout.
        since = peer.mark()
        peer.settle(PEER_TIMEOUT_S + SLACK_S)
        since = peer.mark()
        peer.settle(PEER_TIMEOUT_S)
        self.assertEqual(self.messages(peer, since), [])

    def test_the_peer_keeps_alive_what_is_one_way(self):
        peer = self.opened()
        peer.order("set", echoes=False)
        since = peer.mark()
        with self.pinging(peer, 0.3):
            peer.settle(3 * BOX_TIMEOUT_S)
        self.assertGreaterEqual(self.messages(peer, since, "out").count("Keepalive"), 5)
        self.assertEqual(self.messages(peer, since), [])
        self.assertEqual(peer.order("contexts")[0]["keepalive_timeout"], BOX_TIMEOUT_S)

    def test_conversation_needs_no_messages(self):
        peer = self.opened()
        since = peer.mark()
        with self.pinging(peer, 0.5):
            peer.settle(2 * PEER_TIMEOUT_S)
        # But for the one test of another pair that the box makes.
        said = self.messages(peer, since) + self.messages(peer, since, "out")
        self.assertIn(said, ([], ["UR", "UA"]))

    def failing(self, rules, peer=None):
        """A conversation both ways in which the rules begin to hold; returns the peer and the time it took."""
        peer = peer or self.opened()
        self.echoes(peer)
        since = peer.mark()
        with self.pinging(peer):
            peer.settle(1)
            peer.order("rules", rules=rules)
            began = time.monotonic()
            peer.wait("reap", since, new="Operational", timeout_s=20)
            took = time.monotonic() - began
            peer.settle(0.5)
        note(f"a pair that works after {took:.1f} s: {', '.join(event['new'] for event in peer.found('reap', since))}")
        self.assertLess(took, PEER_TIMEOUT_S + 6)
        self.recovered_now(peer)
        return peer, since

    def recovered_now(self, peer):
        self.echoes(peer)
        self.assert_pings("a-h1", peer.ulid)
        self.assert_agreed(peer)

    def test_our_first_address_fails(self):
        """Both ends see it; both have to end with our second address."""
        peer = self.opened()
        first, second = peer.addresses
        self.failing([deaf(first), mute(first)], peer)
        self.assertEqual(peer.order("contexts")[0]["pair"][0], second)
        self.assertEqual(self.of(peer)[0]["current"]["peer"], second)

    def test_nothing_reaches_our_first_address(self):
        peer = self.opened()
        self.failing([deaf(peer.addresses[0])], peer)
        self.assertEqual(self.of(peer)[0]["current"]["peer"], peer.addresses[1])

    def test_nothing_leaves_our_first_address(self):
        peer = self.opened()
        self.failing([mute(peer.addresses[0])], peer)
        self.assertEqual(peer.order("contexts")[0]["pair"][0], peer.addresses[1])

    def test_the_sites_provider_fails(self):
        for direction in ("both", "in", "out"):
            with self.subTest(direction):
                peer = self.opened()
                since = peer.mark()
                self.echoes(peer)
                with self.pinging(peer):
                    net.cut("x", direction)
                    peer.wait("reap", since, new="Operational", timeout_s=20)
                    peer.settle(0.5)
                self.recovered_now(peer)
                net.heal("x")

    def test_a_complaint_without_cause(self):
        """We explore though all is well: InboundOk, Operational (§6.7 to 6.9)."""
        peer = self.opened()
        for _ in range(20):
            since = peer.mark()
            peer.order("explore")
            answer = peer.wait("in", since, message="Probe")
            self.assertEqual(answer["state"], wire.INBOUND_OK)
            self.assertTrue(answer["received"], answer)
            peer.wait("reap", since, new="Operational")
            # The box answers 10 probes at once and then 5 a second: an answer may have to wait for our next probe.
            self.assertLess(peer.found("reap", since)[-1]["t"] - peer.found("reap", since)[0]["t"], 1.2)
        self.recovered_now(peer)

    def test_only_one_way_each(self):
        """The hard case of §4.2: no pair works both ways; each end sends on one the other only receives on."""
        peer = self.opened()
        first, second = peer.addresses
        self.failing([deaf(first), mute(second)], peer)
        self.assertEqual(peer.order("contexts")[0]["pair"][0], first)
        self.assertEqual(self.of(peer)[0]["current"]["peer"], second)

    def test_all_three_states_and_the_probes_pace(self):
        """Nothing works for a while: the box sends four probes half a second apart, then doubles (§4.3, §7)."""
        peer = self.opened()
        self.echoes(peer)
        since = peer.mark()
        with self.pinging(peer):
            peer.settle(0.5)
            peer.order("rules", rules=[mute(address) for address in peer.addresses])
            peer.wait("in", since, message="Probe", count=6, timeout_s=BOX_TIMEOUT_S + 10)
            probes = peer.found("in", since, message="Probe")
            times = [event["t"] for event in probes]
            gaps = [later - earlier for earlier, later in zip(times, times[1:])]
            note(f"probes after {', '.join(f'{gap:.2f}' for gap in gaps)} s")
            self.assertEqual({event["state"] for event in probes}, {wire.EXPLORING})
            for gap, nominal in zip(gaps, (0.5, 0.5, 0.5, 1, 2)):
                self.assertTrue(0.4 * nominal <= gap <= 1.6 * nominal + 0.3, gaps)
            self.assertGreater(len({(event["source"], event["destination"]) for event in probes}), 2)
            peer.order("rules", rules=[])
            peer.wait("reap", since, new="Operational", timeout_s=20)
        self.recovered_now(peer)
        self.assertIn("InboundOk", peer.order("contexts")[0]["visited"])


class Updates(PeerTest):
    def refused(self, peer, code, pointer, **order):
        """An Update Request that has to be answered with this Error, and must change nothing."""
        before, since = self.of(peer), peer.mark()
        peer.order("update", **order)
        told = peer.wait("in", since)
        peer.order("abandon")
        self.assertEqual((told["message"], told.get("code")), ("Error", code), told)
        quoted = bytes.fromhex(told["quoted"])
        self.assertEqual(quoted[42] & 0x7F, wire.UPDATE)
        self.assertEqual(told["pointer"], pointer)
        stable = ("local_tag", "peer_tag", "peer_locators", "state")
        self.assertEqual([[c[name] for name in stable] for c in self.of(peer)], [[c[name] for name in stable] for c in before])
        self.echoes(peer)

    # R5533-111, R5533-271
    def test_preferences(self):
        peer = self.opened()
        for elements in (["01", "00"], ["0001", "0002"], ["000105", "00010a"]):
            since = peer.mark()
            peer.order("update", preferences=elements)
            peer.wait("updated", since)
            self.echoes(peer)
            self.assert_pings("a-h1", peer.ulid)

    # R5533-018, R5533-272
    def test_a_broken_locator_is_left(self):
        """§10.4: the box may look for another pair; it must find it reachable before it uses it."""
        peer = self.opened()
        since = peer.mark()
        peer.order("update", preferences=["01", "00"])
        peer.wait("updated", since)
        with self.pinging(peer):
            self.wait_until("the box sends to our second address",
                            lambda: peer.settle(0.1) or peer.found("payload_in", since, destination=peer.addresses[1]))  # fmt: skip
        first = peer.found("payload_in", since, destination=peer.addresses[1])[0]["t"]
        probes = [e for e in peer.found("in", since, message="Probe", destination=peer.addresses[1]) if e["t"] <= first]
        self.assertTrue(probes, "moved without probing")

    def test_the_same_request_again(self):
        peer = self.opened()
        peer.order("rules", rules=[{"way": "in", "message": "UA", "count": 1}])
        since = peer.mark()
        peer.order("update", preferences=["00", "00"])
        peer.wait("updated", since, timeout_s=8)
        self.assertEqual(self.messages(peer, since, "out").count("UR"), 2)

    # R5533-269
    def test_preferences_of_another_generation(self):
        peer = self.opened()
        self.refused(peer, 3, 40 + 16 + 4, preferences=["00", "00"], generation=1)

    # R5533-270
    def test_preferences_of_another_number(self):
        peer = self.opened()
        self.refused(peer, 4, 40 + 16 + 2, preferences=["00", "00", "00"])

    # R5533-012, R5533-086, R5533-314
    def test_a_new_locator_by_signature(self):
        peer = self.opened("hybrid")
        since = peer.mark()
        peer.order("update", locators=[*peer.addresses, peer.spare], methods=[wire.HBA, wire.HBA, wire.CGA])
        peer.wait("updated", since)
        self.assert_agreed(peer)
        # It becomes the only one that works.
        with self.pinging(peer):
            peer.settle(1)
            peer.order("rules", rules=[rule(address) for rule in (deaf, mute) for address in peer.addresses])
            peer.wait("reap", since, new="Operational", timeout_s=25)
        self.echoes(peer)
        self.assert_pings("a-h1", peer.ulid)
        self.assertEqual(self.of(peer)[0]["current"]["peer"], peer.spare)

    # R5533-080
    def test_a_locator_is_taken_back(self):
        peer = self.opened("hybrid")
        since = peer.mark()
        peer.order("update", locators=peer.addresses[:1], methods=[wire.HBA], preferences=["00"])
        peer.wait("updated", since)
        self.assert_agreed(peer)
        self.echoes(peer)

    # R5533-266, R5533-267
    def test_a_broken_signature(self):
        # The list is the first option: its methods are at 40 + 16 + 9, the third is the one that is not proved.
        peer = self.opened("hybrid")
        self.refused(peer, 2, 40 + 16 + 9 + 2, locators=[*peer.addresses, peer.spare], methods=[1, 1, 2], spoil=True)

    # R5533-132, R5533-266
    def test_a_locator_outside_the_set(self):
        peer = self.opened()
        order = {"locators": [*peer.addresses, peer.spare], "methods": [1, 1, 1]}
        self.refused(peer, 2, 40 + 16 + 9 + 2, **order)

    def test_a_new_send_timeout(self):
        """The Keepalive Timeout option in an update: the box keeps alive more slowly from then on.

        A third of 9 s and a little more; the peer's own Send Timer, which it goes on by, runs for 4 s.
        """
        peer = self.opened()
        since = peer.mark()
        peer.order("update", timeout=9)
        peer.wait("updated", since)
        since = peer.mark()
        with self.udp_port(4008, "silent"):
            peer.order("udp", source=9, destination=4008, octets="00")
            began = peer.wait("in", since, message="Keepalive", timeout_s=8)["t"] - peer.events[since - 1]["t"]
        self.assertGreater(began, 2.5)


class Errors(PeerTest):
    """What the box does not know (§5.14, §5.15, §12.3), said within a context."""

    def answer(self, peer, octets):
        since = peer.mark()
        peer.order("raw", octets=octets.hex(), source=peer.ulid, destination=self.host["locators"][0])
        with contextlib.suppress(AssertionError):
            told = peer.wait("in", since, timeout_s=1)
            return told["message"], told.get("code"), told.get("pointer")
        return None

    # R5533-099, R5533-100, R5533-101, R5533-295
    def test_errors(self):
        peer = self.opened()
        head = wire.tag48(peer.order("contexts")[0]["peer_tag"])
        unknown = wire.option(4711, b"abc")
        critical = wire.option(4711, b"abc", critical=1)
        for kind, rest in ((wire.UPDATE, b"\0\0\0\1"), (wire.KEEPALIVE, bytes(4))):
            self.assertEqual(self.answer(peer, wire.control(kind, head + rest, critical)), ("Error", 1, 40 + 16), kind)
        # Not critical: as if it were not there. An option that has no place in the message counts as unknown.
        self.dislikes_expected = ["no outstanding request"]
        self.assertEqual(self.answer(peer, wire.control(wire.UPDATE, head + b"\0\0\0\1", unknown))[0], "UA")
        self.assertIsNone(self.answer(peer, wire.control(wire.KEEPALIVE, head + bytes(4), unknown)))
        misplaced = wire.option(wire.FORK, bytes(4), critical=1)
        self.assertEqual(self.answer(peer, wire.control(wire.UPDATE, head + b"\0\0\0\2", misplaced)), ("Error", 1, 56))
        for kind in (60, 127):
            self.assertEqual(self.answer(peer, wire.control(kind, head + bytes(4))), ("Error", 0, 42), kind)
        self.assert_agreed(peer)
        self.echoes(peer)

    def test_the_fullest_probe(self):
        """15 sent probes, 1256 octets: taken, and the one that arrived is reported back."""
        peer = self.opened()
        there = ipaddress.IPv6Address(self.host["locators"][0])
        told = [wire.Report(ipaddress.IPv6Address(peer.ulid), there, 100 + number, number) for number in range(15)]
        octets = wire.probe(peer.order("contexts")[0]["peer_tag"], wire.EXPLORING, told, [])
        self.dislikes_expected = ["was never sent"]
        since = peer.mark()
        peer.order("raw", octets=octets.hex(), source=peer.ulid, destination=str(there))
        answer = peer.wait("in", since, message="Probe")
        self.assertEqual(answer["state"], wire.INBOUND_OK)
        self.assertEqual([report["nonce"] for report in answer["received"]], [100])

    # R5533-238
    def test_a_host_is_not_told_that_shim6_is_unknown(self):
        """RFC 5533 §8: when the peer is gone its kernel complains about the payload header, which a-h1 never sent."""
        peer = self.opened()
        with self.pinging(peer) as output:
            peer.settle(1)
            before = self.counters()["control_icmp_acted_on"]
            peer.close()
            time.sleep(2)
            self.assertGreater(self.counters()["control_icmp_acted_on"], before)
        self.assertNotIn("parameter problem", "\n".join(output).lower())

    # R5533-039, R5533-040, R5533-078, R5533-079, R5533-120
    def test_reserved_fields_are_ignored(self):
        """Zero on transmit, ignored on receipt: with every reserved bit set the messages mean the same."""
        peer = self.opened()
        self.dislikes_expected = ["no outstanding request"]
        head = bytearray(wire.tag48(peer.order("contexts")[0]["peer_tag"]))
        head[0] |= 0x80
        self.assertEqual(self.answer(peer, wire.control(wire.UPDATE, bytes(head) + b"\0\0\0\1", code=0x7F))[0], "UA")
        pair = b"\xff" * 4 + ipaddress.IPv6Address(peer.ulid).packed + ipaddress.IPv6Address(self.host["ulid"]).packed
        octets = wire.control(wire.I1, b"\x80" + bytes(4) + b"\5" + b"\0\0\0\7", wire.option(wire.ULID_PAIR, pair), code=0x7F)
        self.dislikes_expected.append("nobody asked for")
        self.assertEqual(self.answer(peer, octets)[0], "R1")


if __name__ == "__main__":
    unittest.main()
