#!/usr/bin/env python3
"""The flow label for the payload header: sessions, cuts, a path that changes labels, and a peer that takes no part."""

import time
import unittest

from common import MB, SITES, LabTest, box, need_boxes, net, note, plan
from peertest import PeerTest


LABELS = '[shim6]\nflow_label = "{}"\n'


def setUpModule():
    need_boxes()


class Labels(LabTest):
    """What the scenes share."""

    options = {"extra": LABELS.format("all")}
    limit_ms = 6000

    def tearDown(self):
        for name in plan.PROVIDERS:
            net.heal(name)
        self.assert_no_spoofing()

    def sent(self, site="a"):
        """Packets translated so far, and those of them that went by label."""
        counters = self.counters(site)
        return counters["translated_out"], counters["labelled_out"]

    def share_by_label(self, packets=20, source="a-h1", destination="b-h1"):
        """Which part of some packets goes by label now, in percent."""
        before = self.sent(source[0])
        self.assert_pings(source, self.ulid(destination), count=packets)
        all_sent, labelled = (after - was for after, was in zip(self.sent(source[0]), before))
        self.assertGreaterEqual(all_sent, packets)
        return 100 * labelled // all_sent

    def wait_labelled(self):
        """Both boxes know that labels arrive."""
        self.establish()
        self.wait_until("labels are used both ways", self.labelled_both_ways, timeout_s=20, step_s=0.5)

    def labelled_both_ways(self):
        self.assert_pings("a-h1", self.ulid("b-h1"), count=2)
        before = [self.sent(site)[1] for site in "ab"]
        self.assert_pings("a-h1", self.ulid("b-h1"), count=2)
        return all(self.sent(site)[1] > was for site, was in zip("ab", before))


class All(Labels):
    def test_1_whole_packets_go_without_a_header(self):
        self.wait_labelled()
        self.assertEqual(self.share_by_label(), 100)
        before = self.counters()
        # 1500 octets are what the link carries, and all of them are the host's.
        self.assert_pings("a-h1", self.ulid("b-h1"), "-M", "do", "-s", "1452")
        self.assertEqual(self.counters()["packet_too_big_sent"], before["packet_too_big_sent"])
        # Fragments, too.
        self.assert_pings("a-h1", self.ulid("b-h1"), "-s", "4000")
        self.assertEqual(self.share_by_label(), 100)

    def test_2_a_session_survives_a_cut_and_goes_on_by_label(self):
        self.wait_labelled()
        cut = {}

        def meanwhile(_):
            cut["name"] = self.provider_in_use()
            net.cut(cut["name"])

        with self.capturing(payload=False) as seen:
            result = self.transfer(60 * MB, 8 * MB, meanwhile)
        self.assertLess(result["outage_ms"], self.limit_ms, result["gaps"])
        self.assertNotEqual(self.provider_in_use(), cut["name"])
        self.assertEqual(self.share_by_label(), 100)
        summary = self.judge(seen.files, midstream=True)
        self.assertGreater(summary["messages"].get("Probe", 0), 0)
        self.assertGreater(summary["messages"].get("Keepalive", 0), 0)

    def test_3_a_box_that_restarts_is_found_again(self):
        self.wait_labelled()

        def crash(_):
            self.assertTrue(box.kill(SITES["b"]))
            box.start(SITES["b"])
            box.wait_ready(SITES["b"])

        result = self.transfer(60 * MB, 8 * MB, crash)
        self.assertLess(result["outage_ms"], self.limit_ms, result["gaps"])
        self.wait_labelled()

    def test_4_a_session_survives_a_path_that_begins_to_change_labels(self):
        # The last one: where labels did not arrive they rest for ten minutes.
        self.wait_labelled()
        provider, ended = self.provider_in_use(), self.counters()["control_label_ended"]
        result = self.transfer(60 * MB, 8 * MB, lambda _: net.zero_labels(provider))
        self.assertLess(result["outage_ms"], self.limit_ms, result["gaps"])
        self.assertGreater(self.counters()["control_label_ended"], ended)
        if self.provider_in_use() == provider:
            self.assertEqual(self.share_by_label(), 0)


class Octets(Labels):
    """What it saves on the wire: octets that leave the site for each octet of a session."""

    def test_octets_on_the_wire(self):
        self.wait_labelled()
        by_label = self.octets_per_octet()
        for name in plan.PROVIDERS:
            net.zero_labels(name)
        # A few packets are lost before that is noticed.
        self.wait_until("headers are used", self.by_header, timeout_s=60, step_s=1)
        by_header = self.octets_per_octet()
        note(f"octets on the wire for each octet of TCP: {by_label:.4f} by label, {by_header:.4f} by header")
        self.assertLess(by_label, by_header)

    def by_header(self):
        arrived = self.ping("a-h1", self.ulid("b-h1"), count=2, wait_s=1).returncode == 0
        return arrived and self.share_by_label(4) == 0

    def octets_per_octet(self):
        before = sum(net.carried(provider.name) for provider in SITES["a"].providers)
        self.transfer(20 * MB, 5 * MB)
        return (sum(net.carried(provider.name) for provider in SITES["a"].providers) - before) / (20 * MB)


class Unlabelled(Labels):
    """Packets keep the label their host gave them; those without one go by ours."""

    options = {"extra": LABELS.format("unlabelled")}

    def test_hosts_with_labels_and_without(self):
        for node in ("a-h1", "b-h1"):
            net.exec_in(node, ["sysctl", "-q", "-w", "net.ipv6.auto_flowlabels=0"])
        self.wait_labelled()
        self.assertEqual(self.share_by_label(), 100)
        result = self.transfer(10 * MB, 5 * MB)
        self.assertTrue(result["complete"])
        for node in ("a-h1", "b-h1"):
            net.exec_in(node, ["sysctl", "-q", "-w", "net.ipv6.auto_flowlabels=3"])
        before = self.sent()
        self.transfer(10 * MB, 5 * MB)
        all_sent, labelled = (after - was for after, was in zip(self.sent(), before))
        self.assertLess(labelled, all_sent // 20, "TCP of Linux has labels, and they go behind headers")


class Stranger(PeerTest):
    """The independent peer knows nothing of labels and skips the option, whoever begins."""

    options = {"extra": LABELS.format("all")}

    def test_a_peer_that_takes_no_part(self):
        begun = self.opened()
        self.assert_agreed(begun)
        self.echoes(begun)
        self.assert_pings("a-h1", begun.ulid)
        asked = self.peer()
        self.introduce(asked)
        self.assert_pings("a-h1", asked.ulid, wait_s=8)
        self.assert_agreed(asked)
        time.sleep(1.5)
        self.assert_pings("a-h1", asked.ulid)
        counters = self.counters()
        self.assertEqual((counters["labelled_out"], counters["control_label_tests"]), (0, 0))


if __name__ == "__main__":
    unittest.main()
