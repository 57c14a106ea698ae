#!/usr/bin/env python3
"""Two boxes for each site: whatever happens to one of them, to its peer or to the stores, sessions go on."""

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
        return sum(box.counters(each)["control_context_recovered"] for each in box.every())

    # R5533-214, R5534-024: the box that takes over knows no context.
    def test_the_primary_is_killed(self):
        before = self.recovered()
        self.suffer("primary killed", 12_000)
        self.assertGreater(self.recovered(), before)

    def test_the_primary_loses_its_power(self):
        self.suffer("primary without power", 12_000)

    def test_the_backup_does_not_matter(self):
        self.assertEqual(self.suffer("backup killed", 1000)["begin_ms"], 0)

    def test_neither_a_split_nor_the_stores_matter(self):
        for name in ("boxes split", "one store node cut", "all stores gone"):
            self.suffer(name, 1000)

    def test_a_provider_comes_and_goes(self):
        self.suffer("provider x cut", 12_000)
        self.suffer("provider y flaps", 12_000)

    def test_routes_say_who_serves(self):
        site = SITES["a"]
        self.assertEqual(set(routing.serving(site).values()), {1})
        for each in site.boxes:
            metrics = {metric for _, metric in routing.next_hops(each.box, plan.IDENTIFIERS)}
            self.assertEqual(metrics, {100 * each.number})


if __name__ == "__main__":
    unittest.main()
