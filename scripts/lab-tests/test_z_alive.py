#!/usr/bin/env python3
"""Liveness of paths: a provider that begins to drop everything without a word, with the exchange between boxes and without it."""

import signal
import time
import unittest

from common import SITES, LabTest, box, need_boxes, net, note
from peertest import PeerTest
from pslab.stream import Stream

LIVENESS = "[liveness]\nenabled = true\n"
# From one site to the other and back; the boxes choose the paths.
SESSIONS = [("a-h1", "b-h1"), ("b-h1", "a-h1"), ("a-h2", "b-h1"), ("b-h2", "a-h1"), ("a-h2", "b-h2")]
# Beside what the machine itself is silent for without any cut: on two cores there are two boxes, ten ends of sessions, and others.
LIMIT_MS = 300


def setUpModule():
    need_boxes()


class Cut(LabTest):
    """What the scenes share: sessions at a steady pace, and a silent cut of the provider most of them use."""

    rounds = 2

    def tearDown(self):
        for name in net.cuts():
            net.heal(name)
        self.assert_no_spoofing()

    def settled(self, sessions):
        """Contexts that are used have a standby after some seconds, and their paths are watched."""
        pairs = {(sender, receiver) for sender, receiver in sessions}
        have = lambda: all(c.get("standby") for pair in pairs for c in self.contexts(*pair))  # noqa: E731
        self.wait_until("every context has a standby", have, timeout_s=90, step_s=0.5)

    def watched(self, site="a"):
        return [path for path in box.ctl_json(SITES[site], "paths")["paths"] if path.get("liveness")]

    def all_up(self):
        used = [path["liveness"] for site in "ab" for path in self.watched(site) if path["contexts"]]
        return all(it["state"] == "up" and it.get("held_s") is None for it in used)

    def count(self, name):
        return sum(self.counters(site)[name] for site in "ab")

    def cut_once(self, streams, seconds):
        """The longest silence of each session when the provider in use is cut, which is healed afterwards, and the longest of any of
        them in an equal time before."""
        name = self.provider_in_use()
        before = time.time()
        time.sleep(seconds)
        began = time.time()
        noise = max(stream.silence_ms(before, began - 0.2) for stream in streams)
        net.cut(name)
        time.sleep(seconds)
        until = time.time()
        self.assertTrue(all(stream.flows(2.0) for stream in streams), "every session goes on")
        net.heal(name)
        return [stream.silence_ms(began - 0.2, until) for stream in streams], noise

    def sessions(self, seconds):
        streams = [Stream(sender, receiver, self.ulid(receiver), 6000 + at) for at, (sender, receiver) in enumerate(SESSIONS)]
        try:
            self.settled(SESSIONS)
            found = []
            for _ in range(self.rounds):
                self.before_cut()
                silences, noise = self.cut_once(streams, seconds)
                found.append((silences, noise))
                note(f"longest silences: {', '.join(f'{ms:.0f}' for ms in silences)} ms, before the cut {noise:.0f}")
                self.assert_pings("a-h1", self.ulid("b-h1"))
            for stream in streams:
                self.assertIsNone(stream.stop())
            return found
        finally:
            for stream in streams:
                stream.abort()

    def before_cut(self):
        time.sleep(3)


class Watched(Cut):
    options = {"extra": LIVENESS}

    def before_cut(self):
        # A path that failed is trusted again after a while, and contexts have to have tested another pair.
        self.settled(SESSIONS)
        self.wait_until("the paths in use are watched, and up", lambda: self.watched() and self.all_up(), timeout_s=60, step_s=0.5)
        time.sleep(2)

    def test_1_a_silent_cut_is_passed_at_once(self):
        with self.capturing() as seen:
            found = self.sessions(seconds=3)
        worst = sorted(ms for silences, _ in found for ms in silences)
        note(f"with liveness: median {worst[len(worst) // 2]:.0f} ms, most {worst[-1]:.0f} ms of {len(worst)}")
        for silences, noise in found:
            self.assertLess(max(silences), LIMIT_MS + noise, found)
        self.assertGreater(self.count("control_liveness_silent"), 0)
        summary = self.judge(seen.files, midstream=True)
        self.assertGreater(summary["messages"]["Keepalive"], 200)

    def test_2_a_box_that_stops_in_order_is_no_failure(self):
        self.establish()
        self.wait_until("the path is watched, and up", lambda: self.watched() and self.all_up(), timeout_s=30, step_s=0.5)
        before = self.counters("b")
        self.assertTrue(box.kill(SITES["a"], signal.SIGTERM))
        time.sleep(1)
        after = self.counters("b")
        self.assertEqual(before["control_liveness_silent"], after["control_liveness_silent"])
        self.assertEqual(before["control_liveness_told"], after["control_liveness_told"])
        box.start(SITES["a"])


class Without(Cut):
    """The same without it: REAP finds the failure, after its Send Timeout or when a host's TCP repeats itself."""

    rounds = 1

    def test_a_silent_cut_is_found_by_reap(self):
        [(found, noise)] = self.sessions(seconds=12)
        note(f"without liveness: most {max(found):.0f} ms")
        # No earlier than a host's TCP repeats itself for the second time, which is 600 ms after what was lost.
        self.assertGreater(max(found), LIMIT_MS + noise, "the comparison compares something")
        self.assertLess(max(found), 10_000)
        self.assertEqual(self.count("control_liveness_sent"), 0)


class Stranger(PeerTest):
    """The independent peer knows nothing of it: it sees RFC 5533, and one option that it skips."""

    options = {"extra": LIVENESS}

    def test_a_peer_that_takes_no_part(self):
        begun = self.opened()
        self.assert_agreed(begun)
        self.echoes(begun)
        self.assert_pings("a-h1", begun.ulid, count=10)
        counters = self.counters()
        self.assertEqual((counters["control_liveness_begun"], counters["control_liveness_sent"]), (0, 0))


if __name__ == "__main__":
    unittest.main()
