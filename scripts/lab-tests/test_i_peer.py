#!/usr/bin/env python3
"""The box against a Shim6 of another hand: `scripts/peer`, a plain host with a routable ULID, in the node `ext`.

The peer judges every octet the box sends; a `dislike` of its that a test does not expect fails the test. Each test has a
peer with an identity of its own, so that no context is shared. REAP's Send Timeout is 3 s at the box, 4 s at the peer.
"""

import contextlib
import ipaddress
import subprocess
import sys
import time
import types
import unittest

from common import SITES, LabTest, box, need_boxes, net, note, plan
from remote import Peer, make_identity, wire_core

from ps6peer import wire

PEER_TIMEOUT_S, BOX_TIMEOUT_S = 4, 3
SLACK_S = 1.0  # what a busy machine may add to a timer
ECHO_SERVER = """
import socket, sys
port = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
port.bind(("::", int(sys.argv[1])))
print("bound", flush=True)
while True:
    octets, source = port.recvfrom(65535)
    if sys.argv[2] == "echo":
        port.sendto(octets, source)
"""


def setUpModule():
    need_boxes()


class PeerTest(LabTest):
    def setUp(self):
        wire_core()
        self.dislikes_expected = []
        self.host = self.hosts["a-h1"]

    def tearDown(self):
        for name in net.cuts():
            net.heal(name)
        self.assert_no_spoofing()

    def peer(self, kind="hba", *arguments, timeout=PEER_TIMEOUT_S, **options):
        """A running peer whose dislikes are looked at when the test ends."""
        found = Peer(make_identity(kind, **options), "--send-timeout", str(timeout), *arguments)
        self.addCleanup(self.judge_peer, found)
        self.addCleanup(found.close)
        self.addCleanup(found.settle, 0.2)
        return found

    def judge_peer(self, peer):
        texts = [event["text"] for event in peer.found("dislike")]
        left = [text for text in texts if not any(expected in text for expected in self.dislikes_expected)]
        self.assertEqual(left, [], f"the peer's record:\n{peer.shown()}")

    def introduce(self, peer, locators=None):
        """Tells site a's box of the peer, so that packets to it open a context."""
        entry = {"name": f"ext-{peer.ulid.replace(':', '-')}", "ulid": peer.ulid, "locators": locators or peer.addresses}
        listed = ", ".join(f'"{locator}"' for locator in entry["locators"])
        with open(SITES["a"].config, "a") as config:
            config.write(f'\n[[peer]]\nname = "{entry["name"]}"\nulid = "{entry["ulid"]}"\nlocators = [{listed}]\n')
        done = box.ctl_process(SITES["a"], ["reload"])
        self.assertEqual(done.returncode, 0, done.stderr)

    def opened(self, kind="hba", *arguments, **options):
        """A peer that has opened a context with a-h1."""
        peer = self.peer(kind, *arguments, **options)
        self.open(peer)
        return peer

    def open(self, peer, host=None, **options):
        since, host = peer.mark(), host or self.host
        peer.order("open", peer=host["ulid"], locator=host["locators"][0], **options)
        return peer.wait("established", since, role="initiator")

    def echoes(self, peer, count=3, **options):
        """The peer pings a-h1."""
        since = peer.mark()
        for sequence in range(count):
            peer.order("echo", sequence=sequence, **options)
            peer.wait("echo_reply", since, sequence=sequence)

    def of(self, peer, host=None):
        """The box's contexts with the peer."""
        ulid = (host or self.host)["ulid"]
        return [c for c in box.contexts(SITES["a"]) if (c["ulid_local"], c["ulid_peer"]) == (ulid, peer.ulid)]

    def assert_agreed(self, peer):
        """Both ends tell the same of the one context there is."""
        (ours,), (theirs,) = self.of(peer), peer.order("contexts")
        self.assertEqual(tag(ours["local_tag"]), theirs["peer_tag"])
        self.assertEqual(tag(ours["peer_tag"]), theirs["local_tag"])
        self.assertEqual(sorted(ours["peer_locators"]), sorted(theirs["locals"]))
        self.assertEqual(sorted(theirs["peers"]), sorted(self.host["locators"]))
        return ours, theirs

    @contextlib.contextmanager
    def udp_port(self, port, manner):
        """A UDP port in a-h1 that echoes, or says nothing."""
        command = net.inside("a-h1", [sys.executable, "-c", ECHO_SERVER, str(port), manner])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            server.stdout.readline()
            try:
                yield
            finally:
                server.kill()

    @contextlib.contextmanager
    def pinging(self, peer, interval_s=0.2):
        """a-h1 pings the peer all the while; yields a list that holds its output at the end."""
        command = net.inside("a-h1", ["ping", "-6", "-n", "-i", str(interval_s), peer.ulid])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            output = []
            try:
                yield output
            finally:
                process.send_signal(2)
                output += process.stdout.read().splitlines()

    def messages(self, peer, since=0, way="in"):
        peer.settle(0.1)
        return [event["message"] for event in peer.found(way, since)]


def tag(value):
    return value if isinstance(value, int) else int(value, 16)


def deaf(address):
    return {"way": "in", "local": address}


def mute(address):
    return {"way": "out", "local": address}


class Initiator(PeerTest):
    """The peer begins."""

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

    def test_i1_makes_no_state(self):
        peer = self.peer()
        peer.order("rules", rules=[{"way": "in", "message": "R1"}])
        before = len(box.contexts(SITES["a"]))
        peer.order("open", peer=self.host["ulid"], locator=self.host["locators"][0])
        peer.wait("dropped", message="R1")
        self.assertEqual(len(box.contexts(SITES["a"])), before)

    def test_a_lost_r2_is_sent_again_for_the_same_i2(self):
        peer = self.peer()
        peer.order("rules", rules=[{"way": "in", "message": "R2", "count": 1}])
        peer.order("open", peer=self.host["ulid"], locator=self.host["locators"][0])
        peer.wait("dropped", message="R2")
        (first,) = self.of(peer)
        peer.wait("established", timeout_s=7)
        self.assertEqual(self.assert_agreed(peer)[0]["local_tag"], first["local_tag"])
        self.echoes(peer)

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

    def test_a_context_anew_after_the_peer_lost_it(self):
        """Figure 7: the box still has it, the peer begins again with another tag."""
        peer = self.opened()
        peer.order("forget")
        self.open(peer)
        self.assert_agreed(peer)
        self.echoes(peer)

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

    def test_crossing_i1(self):
        """Figure 4: both have begun, each answers the other's I1 with R2."""
        peer = self.peer()
        self.introduce(peer)
        peer.order("set", answer="I1")
        self.assert_pings("a-h1", peer.ulid)
        self.assertEqual(self.messages(peer)[:2], ["I1", "R2"])
        self.assert_agreed(peer)
        self.echoes(peer)

    def test_only_the_second_address_is_known(self):
        """The ULID is none of the locators the box was told: it goes into the ULID pair option."""
        peer = self.peer()
        self.introduce(peer, peer.addresses[1:])
        self.assert_pings("a-h1", peer.ulid)
        self.assertEqual(peer.wait("in", message="I1")["destination"], peer.addresses[1])
        self.assert_agreed(peer)

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
        self.assertEqual(set(self.messages(peer, since)), {"Keepalive"})
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
        self.assertEqual(self.messages(peer, since) + self.messages(peer, since, "out"), [])

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
            self.assertLess(peer.found("reap", since)[-1]["t"] - peer.found("reap", since)[0]["t"], 0.5)
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

    def test_preferences(self):
        peer = self.opened()
        for elements in (["01", "00"], ["0001", "0002"], ["000105", "00010a"]):
            since = peer.mark()
            peer.order("update", preferences=elements)
            peer.wait("updated", since)
            self.echoes(peer)
            self.assert_pings("a-h1", peer.ulid)

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

    def test_preferences_of_another_generation(self):
        peer = self.opened()
        self.refused(peer, 3, 40 + 16 + 4, preferences=["00", "00"], generation=1)

    def test_preferences_of_another_number(self):
        peer = self.opened()
        self.refused(peer, 4, 40 + 16 + 2, preferences=["00", "00", "00"])

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

    def test_a_locator_is_taken_back(self):
        peer = self.opened("hybrid")
        since = peer.mark()
        peer.order("update", locators=peer.addresses[:1], methods=[wire.HBA], preferences=["00"])
        peer.wait("updated", since)
        self.assert_agreed(peer)
        self.echoes(peer)

    def test_a_broken_signature(self):
        # The list is the first option: its methods are at 40 + 16 + 9, the third is the one that is not proved.
        peer = self.opened("hybrid")
        self.refused(peer, 2, 40 + 16 + 9 + 2, locators=[*peer.addresses, peer.spare], methods=[1, 1, 2], spoil=True)

    def test_a_locator_outside_the_set(self):
        peer = self.opened()
        order = {"locators": [*peer.addresses, peer.spare], "methods": [1, 1, 1]}
        self.refused(peer, 2, 40 + 16 + 9 + 2, **order)

    def test_a_new_send_timeout(self):
        """The Keepalive Timeout option in an update: the box keeps alive more slowly from then on."""
        peer = self.opened()
        since = peer.mark()
        peer.order("update", timeout=12)
        peer.wait("updated", since)
        since = peer.mark()
        with self.udp_port(4008, "silent"):
            peer.order("udp", source=9, destination=4008, octets="00")
            began = peer.wait("in", since, message="Keepalive", timeout_s=8)["t"] - peer.events[since - 1]["t"]
        self.assertGreater(began, 3.5)


class Errors(PeerTest):
    """What the box does not know (§5.14, §5.15, §12.3), said within a context."""

    def answer(self, peer, octets):
        since = peer.mark()
        peer.order("raw", octets=octets.hex(), source=peer.ulid, destination=self.host["locators"][0])
        with contextlib.suppress(AssertionError):
            told = peer.wait("in", since, timeout_s=1)
            return told["message"], told.get("code"), told.get("pointer")
        return None

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
