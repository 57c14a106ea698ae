#!/usr/bin/env python3
"""The main job: a TCP session of 200 MB goes on when its provider fails, in whatever way, and when a box dies."""

import time
import unittest

from common import MB, SITES, LabTest, Transfer, box, need_boxes, net, note, plan


def setUpModule():
    need_boxes()


class Session(LabTest):
    """What the scenes share. REAP's Send Timeout is 3 s: whatever happens, the silence stays under 6 s."""

    size = 200 * MB
    rate = 14 * MB
    limit_ms = 6000

    def tearDown(self):
        for name in net.cuts():
            net.heal(name)
        self.assert_no_spoofing()

    def session(self, meanwhile):
        result = self.transfer(self.size, self.rate, meanwhile)
        self.assertLess(result["outage_ms"], self.limit_ms, result["gaps"])
        return result

    def inbound_provider(self):
        """The provider of site a through which site b's packets of this pair come in."""
        return plan.provider_of(self.context("b-h1", "a-h1")["current"]["peer"]).name

    def session_with_cut(self, in_use, direction, counter):
        """Cuts what `in_use()` names, sees that the cut hit something and that the session went elsewhere."""
        cut = {}

        def meanwhile(_):
            cut["name"] = in_use()
            net.cut(cut["name"], direction)

        self.session(meanwhile)
        self.assertGreater(net.drops()[cut["name"]][counter], 0, "the cut hit nothing")
        self.assertNotEqual(in_use(), cut["name"])


class Cut(Session):
    # R5533-007
    def test_cut_of_the_provider_in_use(self):
        with self.capturing() as seen:
            self.session_with_cut(self.provider_in_use, "both", "cut_out")
        summary = self.judge(seen.files)
        self.assertGreater(summary["messages"].get("Probe", 0), 0)
        self.judge_checksums([path for path in seen.files if "control" in path])


class OneWay(Session):
    def test_cut_towards_the_site_only(self):
        self.session_with_cut(self.inbound_provider, "in", "cut_in")

    def test_cut_from_the_site_only(self):
        self.session_with_cut(self.provider_in_use, "out", "cut_out")


class Crash(Session):
    """`kill -9` and a restart: the context is recovered between the boxes, the hosts do nothing."""

    def test_the_senders_box(self):
        self.kill_and_restart("a")

    def test_the_receivers_box(self):
        self.kill_and_restart("b")

    def kill_and_restart(self, name):
        site, before = SITES[name], {}

        def its_tag():
            return self.context("a-h1", "b-h1")["local_tag" if name == "a" else "peer_tag"]

        def crash(_):
            before["tag"] = its_tag()
            self.assertTrue(box.kill(site))
            began = time.monotonic()
            box.start(site)
            box.wait_ready(site)
            note(f"{site.box} is back after {time.monotonic() - began:.2f} s")

        with self.capturing(payload=False) as seen:
            self.session(crash)
        # A new tag proves that the context was made anew and not carried over.
        self.assertNotEqual(its_tag(), before["tag"])
        self.judge(seen.files, midstream=True)


class DefaultTimeout(Cut):
    """The protocol's own Send Timeout of 15 s, and nothing else to go by: under 20 s."""

    options = {"send_timeout": 15, "extra": "[hints]\ntcp = false\n"}
    limit_ms = 20000


class Hinted(Cut):
    """The same, but the boxes look at what the hosts' TCP does: under 5 s."""

    options = {"send_timeout": 15}
    limit_ms = 5000


class BothProviders(LabTest):
    """What must not be survived is not: a test of the tests."""

    def test_a_site_without_any_provider_is_cut_off(self):
        running = Transfer("a-h1", "b-h1", self.ulid("b-h1"), 40 * MB, 8 * MB, patience_s=10)
        running.wait_received(10 * MB)
        for provider in SITES["a"].providers:
            net.cut(provider.name)
        result = running.wait(60)
        self.assertFalse(result["complete"], result)
        # When one comes back, so does the pair, within a REAP back-off that has not grown far.
        net.heal("y")
        self.wait_until(
            "the pair works again through y",
            lambda: self.ping("a-h1", self.ulid("b-h1"), count=1, wait_s=1).returncode == 0,
            timeout_s=70,
        )
        self.assertEqual(self.provider_in_use(), "y")


if __name__ == "__main__":
    unittest.main()
