#!/usr/bin/env python3
"""Two boxes for each site: whatever happens to one of them, to its peer or to the stores, sessions go on."""

import time
import unittest

from common import SITES, LabTest, box, need_boxes, note, plan, routing, trouble


def setUpModule():
    need_boxes()


class TwoBoxes(LabTest):
    """Without state sync: contexts come back by R1bis (RFC 5533 §7.17), and by the handshake where the host speaks first."""

    options = {"ha": True}

    def setUp(self):
        self.sessions = trouble.Sessions(self.hosts)
        self.addCleanup(self.sessions.abort)
        self.sessions.wait_flowing()

    def tearDown(self):
        self.assertEqual(self.sessions.stop(), [])
        self.assert_no_spoofing()

    def suffer(self, name, bound_ms):
        """One trouble of site a by its name, with a bound for the longest silence."""
        it = next(it for it in trouble.troubles("a") if it.name == name)
        told = trouble.suffer(self.sessions, it)
        note(f"{name}: longest silence {told['begin_ms']:.0f} ms, and {told['end_ms']:.0f} ms when it was over")
        self.assertLess(max(told["begin_ms"], told["end_ms"]), bound_ms)
        return told

    def recovered(self):
        """So far, at the other site, whose boxes nobody kills: both ends of a context that comes back count it."""
        return sum(box.counters(each)["control_context_recovered"] for each in SITES["b"].boxes)

    def assert_recovered(self, count):
        """The box that took over knew no context."""
        self.assertGreater(count, 0)

    # R5533-214, R5534-024
    def test_the_primary_is_killed(self):
        before = self.recovered()
        self.suffer("primary killed", 12_000)
        self.assert_recovered(self.recovered() - before)

    def test_the_primary_loses_its_power(self):
        before = self.recovered()
        self.suffer("primary without power", 12_000)
        self.assert_recovered(self.recovered() - before)

    def test_what_does_not_matter(self):
        for name in ("backup killed", "boxes split", "one store node cut", "all stores gone"):
            self.suffer(name, 3000)

    def test_a_provider_comes_and_goes(self):
        self.suffer("provider x cut", 12_000)
        self.suffer("provider y flaps", 12_000)

    def test_routes_say_who_serves(self):
        site = SITES["a"]
        self.assertEqual(set(routing.serving(site).values()), {1})
        for each in site.boxes:
            metrics = {metric for _, metric in routing.next_hops(each.box, plan.IDENTIFIERS)}
            self.assertEqual(metrics, {100 * each.number})


class Synced(TwoBoxes):
    """With state sync: the box that takes over has every context, with its tags."""

    options = {"ha": True, "sync": True}

    def setUp(self):
        super().setUp()
        # Until each has told the other, a box that dies takes what it has not told with it.
        self.wait_until("the boxes know the same", self.all_told, 20)

    def all_told(self):
        partners = [partner for each in box.every() for partner in box.ctl_json(each, "status")["sync"]["boxes"]]
        return len(partners) == 4 and all(it["caught_up"] and not it["behind"] for it in partners)

    def test_an_upgrade_does_not_move_the_site(self):
        site, began = SITES["a"], time.time()
        box.succeed(site)
        seen = set()
        while time.time() < began + 4:
            seen.update(routing.serving(site).values())
        self.assertEqual(seen, {1})
        note(f"an upgrade: longest silence {self.sessions.silence_ms(began, time.time()):.0f} ms")

    # R5533-124: nobody's tags change, so nobody is told of anything.
    def assert_recovered(self, count):
        self.assertEqual(count, 0)


if __name__ == "__main__":
    unittest.main()
