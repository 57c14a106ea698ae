#!/usr/bin/env python3
"""Classes of traffic with contexts of their own: a port of TCP goes by the other provider than the rest, and back.

Sites prefer their first provider, x at site a; the class of port 5777 prefers y. The box is told by reload. Send Timeout is
3 s. The independent peer takes a forked context as any, or takes none.
"""

import time
import unittest

from common import MB, SITES, LabTest, box, need_boxes, net, note
from peertest import PeerTest, tag
from pslab.transfer import Transfer

A = SITES["a"]
PORT = 5777
CLASS = f'\n[[fork]]\nname = "bulk"\nprotocol = "tcp"\nports = ["{PORT}"]\nproviders = ["y"]\n'
ECHOES = '\n[[fork]]\nname = "echoes"\nprotocol = "icmpv6"\nproviders = ["y"]\n'
LIMIT_MS = 6000


def setUpModule():
    need_boxes()


def classify(text):
    """Site a's box has these classes from now on."""
    A.config.write_text(A.config.read_text().split("\n[[fork]]")[0] + text)
    done = box.ctl_process(A, ["reload"])
    if done.returncode:
        raise AssertionError(done.stderr)


class Sessions(LabTest):
    def tearDown(self):
        self.assert_no_spoofing()

    def through(self, fork):
        """Through which provider site a sends in the context with this number."""
        found = [c for c in self.contexts("a-h1", "b-h1") if c["fork"] == fork and c["current"]]
        return found[0]["local_provider"] if found else None

    def carried(self, seconds=1.0):
        """Octets a second that x and y take from site a now."""
        before = [net.carried(name) for name in "xy"]
        time.sleep(seconds)
        return [(net.carried(name) - was) / seconds for name, was in zip("xy", before)]

    # R5533-022, R5533-299
    def test_a_port_goes_its_own_way_and_both_sessions_survive_each_provider(self):
        classify(CLASS)
        self.establish()
        with self.capturing(payload=False) as seen:
            running = [
                Transfer("a-h1", "b-h1", self.ulid("b-h1"), 90 * MB, 3 * MB),
                Transfer("a-h1", "b-h1", self.ulid("b-h1"), 60 * MB, 2 * MB, port=PORT),
            ]
            try:
                self.wait_until("the class has a context", lambda: self.through(1) == "y")
                by_x, by_y = self.carried(2)
                note(f"octets a second by x: {by_x:.0f}, by y: {by_y:.0f}")
                self.assertGreater(by_x, 2.5 * MB)
                self.assertGreater(by_y, 1.5 * MB)
                self.assertLess(by_y, 2.5 * MB)
                shown = {c["fork"]: c.get("class") for c in self.contexts("a-h1", "b-h1")}
                self.assertEqual(shown, {0: None, 1: "bulk"})
                net.cut("y")
                self.wait_until("the class has left y", lambda: self.through(1) == "x", timeout_s=15)
                self.assertEqual(self.through(0), "x")
                time.sleep(1)
                net.heal("y")
                results = [transfer.wait(timeout_s=120) for transfer in running]
            finally:
                for transfer in running:
                    transfer.abort()
        for result in results:
            self.assertTrue(result["complete"] and result["sha256_match"], result)
        note(f"longest silences: {[result['outage_ms'] for result in results]} ms")
        self.assertLess(results[0]["outage_ms"], 1500, "the rest does not notice")
        self.assertLess(results[1]["outage_ms"], LIMIT_MS, results[1]["gaps"])
        self.assertGreater(self.counters()["forked_out"], 0)
        self.judge(seen.files, midstream=True)

    def test_without_the_class_nothing_is_left_of_it(self):
        classify("")
        self.assert_pings("a-h1", self.ulid("b-h1"), wait_s=8)
        before = self.counters()["forked_out"]
        running = Transfer("a-h1", "b-h1", self.ulid("b-h1"), 5 * MB, 5 * MB, port=PORT)
        result = running.wait()
        self.assertTrue(result["complete"] and result["sha256_match"], result)
        self.assertEqual(self.counters()["forked_out"], before)


class Stranger(PeerTest):
    """The independent peer."""

    # R5533-043, R5533-055, R5533-139, R5533-168
    def test_a_forked_context_is_taken_and_used(self):
        classify(ECHOES)
        peer = self.peer()
        self.introduce_before_classes(peer)
        self.assert_pings("a-h1", peer.ulid, wait_s=8)
        self.wait_until("there are two contexts", lambda: self.established(peer) == [0, 1])
        since = peer.mark()
        self.assert_pings("a-h1", peer.ulid)
        peer.settle(0.1)
        forks = {c["fork"]: c for c in self.of(peer)}
        self.assertEqual(forks[1]["class"], "echoes")
        self.assertEqual(forks[1]["local_provider"], "y")
        tags = {event["tag"] for event in peer.found("payload_in", since)}
        self.assertEqual(tags, {tag(forks[1]["peer_tag"])})
        theirs = {c["fork"]: c for c in peer.order("contexts")}
        self.assertEqual(tag(forks[1]["local_tag"]), theirs[1]["peer_tag"])
        # What the peer sends on the default context arrives as ever.
        self.echoes(peer)

    def test_a_peer_that_answers_no_further_i1_keeps_its_default_context(self):
        classify("")
        peer = self.peer()
        self.introduce_before_classes(peer)
        self.assert_pings("a-h1", peer.ulid, wait_s=8)
        peer.order("set", answer=None)
        classify(A.config.read_text().partition("\n[[fork]]")[1] or ECHOES)
        for _ in range(3):
            self.assert_pings("a-h1", peer.ulid)
        self.assertEqual(self.established(peer), [0])
        peer.wait("in", message="I1")

    def introduce_before_classes(self, peer):
        """`introduce` adds to the end of the file, where the classes are."""
        text = A.config.read_text()
        plain, mark, classes = text.partition("\n[[fork]]")
        A.config.write_text(plain)
        self.introduce(peer)
        classify(mark + classes)

    def established(self, peer):
        return sorted(c["fork"] for c in self.of(peer) if c["state"] == "established")


if __name__ == "__main__":
    unittest.main()
