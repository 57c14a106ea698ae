#!/usr/bin/env python3
"""Both boxes of each site serve: routers inside and outside have routes of equal cost, and send each flow to whichever box their own
hash says. Sessions go on when one of the boxes is killed, and when it comes back."""

import time
import unittest

from common import SITES, LabTest, box, need_boxes, note, routing
from pslab.stream import Stream

PAIRS = (("a-h1", "b-h1"), ("b-h2", "a-h2"), ("a-h2", "b-h1"), ("b-h2", "a-h1"))
TRIES = 12  # Sessions that are looked at one by one: half of all go out by one box and come in by the other.
BESIDE = 6, 24  # Further sessions that live through it all: so many at first, and at most, until each box has its part.
PACE_S = 0.03
TAKEN = 20  # Packets that nobody takes for Keepalives, probes and the like.


def setUpModule():
    need_boxes()


class Active(LabTest):
    options = {"ha": True, "sync": True, "active": True}

    def setUp(self):
        self.streams = []
        self.addCleanup(lambda: [stream.abort() for stream in self.streams])

    def stream(self, at):
        sender, receiver = PAIRS[at % len(PAIRS)]
        self.streams.append(Stream(sender, receiver, self.ulid(receiver), 6100 + at, pace_s=PACE_S))
        self.wait_until("it flows", self.streams[-1].flows)

    def translated(self, names="ab"):
        """What each box has translated so far: (out, in)."""
        each = {site.box: box.counters(site) for name in names for site in SITES[name].boxes}
        return {name: (found["translated_out"], found["translated_in"]) for name, found in each.items()}

    def moved(self, seconds, names="ab"):
        """The same for a span of time that begins now."""
        before = self.translated(names)
        time.sleep(seconds)
        return {name: tuple(b - a for a, b in zip(before[name], now)) for name, now in self.translated(names).items()}

    def counted(self, name, sites="ab"):
        return sum(box.counters(each)[name] for site in sites for each in SITES[site].boxes)

    def all_told(self):
        partners = [partner for each in box.every() for partner in box.ctl_json(each, "status")["sync"]["boxes"]]
        return len(partners) == 4 and all(it["caught_up"] and not it["behind"] for it in partners)

    def find_one_that_takes_both(self):
        """Sessions one by one, until one goes out by one box of site a and comes in by the other."""
        for at in range(TRIES):
            self.stream(at)
            time.sleep(0.3)
            first, second = self.moved(1.0, "a").values()
            note(f"session {at}, alone at site a: {first} by the first box (out, in), {second} by the second")
            for one, other in ((first, second), (second, first)):
                if one[0] > TAKEN and other[1] > TAKEN and one[1] < TAKEN // 4 and other[0] < TAKEN // 4:
                    return
            self.assertIsNone(self.streams.pop().stop())
        self.fail(f"none of {TRIES} sessions goes out by one box and comes in by the other")

    def fill_all_boxes(self):
        """Sessions more and more, until each box takes its part of both directions: where one goes is the routers' secret."""
        first, most = BESIDE
        for at in range(most):
            self.stream(TRIES + at)
            if at + 1 < first:
                continue
            moved = self.moved(1.5)
            if min(min(both) for both in moved.values()) > TAKEN:
                return note(f"{len(self.streams)} sessions, packets translated (out, in): {moved}")
        self.fail(f"{len(self.streams)} sessions, and not every box takes its part of both directions: {moved}")

    # R5533-124: a tag is the context's own, whoever serves it.
    def test_both_serve_and_one_may_die(self):
        for site in SITES.values():
            self.assertEqual(set(map(frozenset, routing.all_serving(site).values())), {frozenset({1, 2})})
        self.find_one_that_takes_both()
        self.fill_all_boxes()
        self.wait_until("the boxes know the same", self.all_told, 20)
        # At the other site nobody is killed, and both ends of a context that comes back count it.
        before = self.counted("control_context_recovered", "b")
        # Longer than REAP's Send Timeout: nobody takes a path for dead whose answers come by the other box.
        explored = self.counted("control_explorations")
        time.sleep(5)
        self.assertEqual(self.counted("control_explorations"), explored)
        for victim in SITES["a"].boxes:
            self.kill_and_return(victim)
        self.assertEqual([wrong for stream in self.streams if (wrong := stream.stop())], [])
        self.assertEqual(self.counted("control_context_recovered", "b"), before)
        self.assert_no_spoofing()

    def kill_and_return(self, victim):
        """One box is killed and started again, and takes its part once more."""
        began = time.time()
        box.kill(victim)
        other = next(each.number for each in victim.boxes if each.number != victim.number)
        routing.wait_all_serving(victim, {other}, 5)
        left = time.time()
        time.sleep(2)
        back = time.time()
        box.start(victim)
        box.wait_ready(victim)
        routing.wait_all_serving(victim, {1, 2})
        self.wait_until("sessions go on", lambda: all(stream.flows() for stream in self.streams))
        self.wait_until("the boxes know the same", self.all_told, 20)
        took = self.moved(2.0, victim.name)[victim.box]
        self.assertGreater(max(took), TAKEN, f"{victim.box} takes its part again: {took}")
        over = time.time()
        silences = [max(stream.silence_ms(since, until) for stream in self.streams) for since, until in ((began, back), (back, over))]
        note(
            f"{victim.box} killed: routers knew after {left - began:.2f} s; longest silence {silences[0]:.0f} ms, and {silences[1]:.0f} ms "
            f"when it came back"
        )
        self.assertLess(silences[0], 3000)
        self.assertLess(silences[1], 1500)


if __name__ == "__main__":
    unittest.main()
