#!/usr/bin/env python3
"""The lab itself, without boxes: routing, the providers' filters, cuts, and that nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
import unittest

from common import MB, LabTest, Transfer, lab, left_behind, net, note, plan

LAB = str(plan.ROOT / "scripts" / "lab")

# Sends one UDP packet with a chosen source address, as a box would through a wrong provider.
SPOOF = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, 75, 1)  # IPV6_TRANSPARENT
s.bind((sys.argv[1], 0))
s.sendto(b"x", (sys.argv[2], 9))
"""


class Network(LabTest):
    """Nodes stand in for boxes: the box's end of a link gets the box's address for a moment."""

    options = {"boxes": False}

    def customer(self, name):
        """Lets the box's namespace speak on a provider link, which its kernel otherwise must not."""
        provider = plan.PROVIDERS[name]
        node = plan.SITES[provider.site].box
        net.exec_in(node, ["sh", "-c", f"echo 0 > /proc/sys/net/ipv6/conf/{provider.port}/disable_ipv6"])
        net.exec_in(node, ["ip", "-6", "addr", "replace", f"{provider.link_box}/64", "dev", provider.port, "nodad"])
        net.exec_in(node, ["ip", "-6", "route", "replace", "default", "via", provider.link_isp, "dev", provider.port])

        def silent():
            net.exec_in(node, ["sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{provider.port}/disable_ipv6"])

        self.addCleanup(silent)
        return node, provider

    def test_every_provider_is_reached_from_beyond_the_core(self):
        for provider in plan.PROVIDERS.values():
            self.assert_pings("ext", provider.link_isp, count=1)

    def test_a_customer_reaches_the_world_and_back(self):
        for name in plan.PROVIDERS:
            node, provider = self.customer(name)
            self.assert_pings(node, plan.EXT_ADDRESS, "-I", provider.link_box, count=1)
            self.assert_pings("ext", provider.link_box, count=1)

    def test_the_hosts_share_a_lan(self):
        self.assert_pings("a-h1", self.ulid("a-h2"), count=1)
        self.assert_pings("b-h2", self.ulid("b-h1"), count=1)

    def test_the_boxes_kernel_is_silent(self):
        for site in plan.SITES.values():
            self.assertNotEqual(self.ping(site.host_nodes[0], site.box_address, count=1, wait_s=1).returncode, 0)
            addresses = net.exec_in(site.box, ["ip", "-6", "-o", "addr", "show", "scope", "link"]).stdout
            self.assertEqual(addresses, "")

    def test_a_foreign_source_is_dropped_and_counted(self):
        node, _ = self.customer("x")
        before = net.drops()
        for source, wrong in [("2001:db8:a1:1::5", False), ("2001:db8:a2:1::5", True), ("fc00:a:0:1::5", True)]:
            net.exec_in(node, [sys.executable, "-c", SPOOF, source, plan.EXT_ADDRESS])
            after = net.drops()
            counted = after["x"]["spoofed"] - before["x"]["spoofed"]
            self.assertEqual(counted, 1 if wrong else 0, source)
            before = after

    def test_identifiers_do_not_cross_the_core(self):
        before = net.drops()["core"]["identifiers"]
        self.assertNotEqual(self.ping("ext", "fc00:a:0:1::1", count=1, wait_s=1).returncode, 0)
        self.assertEqual(net.drops()["core"]["identifiers"], before + 1)

    def test_cut_and_heal_both_ways(self):
        node, provider = self.customer("x")
        net.cut("x")
        self.assertEqual(net.cuts(), {"x": "both"})
        self.assertNotEqual(self.ping("ext", provider.link_box, count=1, wait_s=1).returncode, 0)
        # The link itself is as good as before: the failure is one that no carrier or neighbour shows.
        self.assert_pings(node, provider.link_isp, count=1)
        net.heal("x")
        self.assertEqual(net.cuts(), {})
        self.assert_pings("ext", provider.link_box, count=1)

    def test_one_way_cuts(self):
        _, provider = self.customer("y")
        for direction, counter in [("in", "cut_in"), ("out", "cut_out")]:
            before = net.drops()["y"]
            net.cut("y", direction)
            self.assertEqual(net.cuts(), {"y": direction})
            self.assertNotEqual(self.ping("ext", provider.link_box, count=1, wait_s=1).returncode, 0)
            after = net.drops()["y"]
            changed = {name for name in after if after[name] != before[name]}
            self.assertEqual(changed, {counter})
            net.heal("y")
            self.assert_pings("ext", provider.link_box, count=1)

    def test_cut_with_the_link(self):
        _, provider = self.customer("z")
        net.cut("z", link=True)
        self.assertNotEqual(self.ping("ext", provider.link_box, count=1, wait_s=1).returncode, 0)
        net.heal("z")
        self.assert_pings("ext", provider.link_box, count=1, wait_s=5)

    def lan_transfer(self, patience_s):
        # A neighbour that another test made unreachable takes a moment to be asked again.
        self.wait_until("a-h1 reaches a-h2", lambda: self.ping("a-h1", self.ulid("a-h2"), count=1).returncode == 0)
        return Transfer("a-h1", "a-h2", self.ulid("a-h2"), 5 * MB, 2 * MB, patience_s=patience_s)

    def test_the_transfer_measures_an_outage(self):
        """The measuring stick itself: a silence of about a second on the LAN is seen as such, and survived."""
        running = self.lan_transfer(patience_s=10)
        running.wait_received(2 * MB)
        net.exec_in("a-lan", ["ip", "link", "set", "h1", "down"])
        time.sleep(1.0)
        net.exec_in("a-lan", ["ip", "link", "set", "h1", "up"])
        result = running.wait()
        self.assertTrue(result["complete"] and result["sha256_match"], result)
        # TCP itself may wait as long again until it tries once more.
        self.assertTrue(1000 <= result["outage_ms"] <= 3000, result)

    def test_the_transfer_gives_up(self):
        running = self.lan_transfer(patience_s=2)
        running.wait_received(2 * MB)
        net.exec_in("a-lan", ["ip", "link", "set", "h1", "down"])
        began = time.monotonic()
        result = running.wait()
        net.exec_in("a-lan", ["ip", "link", "set", "h1", "up"])
        self.assertLess(time.monotonic() - began, 6)
        self.assertFalse(result["complete"] or result["sha256_match"], result)

    def test_offloads_are_off(self):
        wanted = ("tx-checksumming", "rx-checksumming", "tcp-segmentation-offload", "generic-segmentation-offload",
                  "generic-receive-offload")  # fmt: skip
        for node in plan.NODES:
            for port in net.interfaces(node):
                shown = net.exec_in(node, ["ethtool", "-k", port]).stdout
                on = [line.split(":")[0] for line in shown.splitlines() if line.startswith(wanted) and ": on" in line]
                self.assertEqual(on, [], f"{node} {port}")

    def test_command_line(self):
        shown = json.loads(subprocess.run([LAB, "list", "--json"], capture_output=True, check=True).stdout)
        self.assertTrue(all(shown["nodes"].values()))
        done = subprocess.run([LAB, "exec", "a-h1", "sh", "-c", "exit 7"])
        self.assertEqual(done.returncode, 7)
        for wrong in (["cut", "q"], ["heal", "q"], ["log", "q"], ["exec", "a-h1"], ["kill-box", "a"]):
            done = subprocess.run([LAB, *wrong], capture_output=True, text=True)
            self.assertEqual(done.returncode, 1, done)
            self.assertTrue(done.stderr.startswith("lab: "), done.stderr)
        drops = json.loads(subprocess.run([LAB, "drops", "--json"], capture_output=True, check=True).stdout)
        self.assertEqual(set(drops), {"x", "y", "z", "w", "core"})


class CoreMtu(LabTest):
    options = {"boxes": False, "core_mtu": 1400}

    def test_packet_too_big_comes_from_the_core(self):
        done = self.ping("ext", plan.PROVIDERS["x"].link_isp, "-M", "do", "-s", "1452", count=2, wait_s=1)
        self.assertIn("Packet too big: mtu=1400", done.stdout.replace("too large", "too big"), done.stdout)


class NothingLeft(unittest.TestCase):
    """`down` after all kinds of ends."""

    def tearDown(self):
        lab.down(say=note)

    def test_after_an_orderly_life(self):
        lab.up(lab.Options(boxes=False), say=note)
        self.assertNotEqual(left_behind(), [])
        lab.down(say=note)
        self.assertEqual(left_behind(), [])

    def test_twice_and_without_a_lab(self):
        lab.down(say=note)
        lab.down(say=note)
        self.assertEqual(left_behind(), [])

    def test_after_an_up_that_was_killed(self):
        for delay_s in (0.05, 0.15, 0.25):
            running = subprocess.Popen([LAB, "up", "--no-boxes"], stdout=subprocess.DEVNULL, start_new_session=True)
            time.sleep(delay_s)
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            lab.down(say=note)
            self.assertEqual(left_behind(), [], f"killed after {delay_s} s")

    def test_with_processes_running_in_the_nodes(self):
        lab.up(lab.Options(boxes=False), say=note)
        stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
        running = subprocess.Popen(net.inside("a-h1", [sys.executable, "-c", stubborn]), stdout=subprocess.PIPE)
        running.stdout.readline()
        lab.down(say=note)
        self.assertEqual(running.wait(timeout=5), -signal.SIGKILL)
        running.stdout.close()
        self.assertEqual(left_behind(), [])

    def test_up_over_a_lab_that_is_half_there(self):
        lab.up(lab.Options(boxes=False), say=note)
        net.run(["ip", "netns", "del", plan.namespace("core")])
        lab.up(lab.Options(boxes=False), say=note)
        done = net.exec_in("ext", ["ping", "-6", "-c1", "-W2", plan.PROVIDERS["w"].link_isp], check=False)
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
