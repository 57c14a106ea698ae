#!/usr/bin/env python3
"""Ordinary traffic between hosts behind two boxes: what passes, how large, and what it looks like outside."""

import re
import subprocess
import sys
import time
import unittest
from pathlib import Path

from common import MB, SITES, LabTest, Transfer, box, lab, need_boxes, net, note

UDP_ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 7))
print("listening", flush=True)
while True:
    data, peer = s.recvfrom(65535)
    s.sendto(data[::-1], peer)
"""

UDP_ASK = """
import os, socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(8)
for size in map(int, sys.argv[2:]):
    data = os.urandom(size)
    s.sendto(data, (sys.argv[1], 7))
    assert s.recv(65535) == data[::-1], size
    s.settimeout(2)
print("echoed")
"""

STREAM_S, STREAM_GAP_S = 40, 0.05

UDP_STREAM = """
import socket, sys, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
address, seconds, gap = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
for number in range(round(seconds / gap)):
    s.sendto(number.to_bytes(4, "big"), (address, 9))
    time.sleep(gap)
"""

UDP_HEAR = """
import socket, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 9))
print("listening", flush=True)
seen, silence, last = set(), 0, None
try:
    while True:
        seen.add(s.recv(65535))
        now = time.monotonic()
        silence, last = max(silence, now - (last or now)), now
        s.settimeout(3)
except TimeoutError:
    print(len(seen), silence)
"""


def setUpModule():
    need_boxes()


class Traffic(LabTest):
    """One lab for all: the first packet of a pair meets no context, the later ones do."""

    def test_echo_both_ways(self):
        for source, destination in [("a-h1", "b-h1"), ("b-h2", "a-h2")]:
            done = self.assert_pings(source, self.ulid(destination), count=10, wait_s=8)
            # Held until the handshake was done, not lost: the first packet has its answer too.
            self.assertIn(" 0% packet loss", done.stdout)
            # Five routers on the way: two boxes that count as one hop each, two providers, the core.
            self.assertEqual(set(re.findall(r"ttl=(\d+)", done.stdout)), {"59"})

    def test_udp_both_ways(self):
        for source, destination in [("a-h1", "b-h2"), ("b-h1", "a-h2")]:
            echo = self.serve(destination, UDP_ECHO)
            done = net.exec_in(
                source, [sys.executable, "-c", UDP_ASK, self.ulid(destination), "1", "17", "512", "1200", "1444"],
                check=False,
            )  # fmt: skip
            self.assertEqual(done.stdout.strip(), "echoed", done.stderr)
            echo.kill()

    def test_a_stream_outlives_the_neighbours(self):
        """Neighbours are believed for 30 s; asking them again must not be felt, nor must silence one way."""
        self.establish("a-h1", "b-h1")
        hearing = self.serve("b-h1", UDP_HEAR)
        arguments = [self.ulid("b-h1"), str(STREAM_S), str(STREAM_GAP_S)]
        net.exec_in("a-h1", [sys.executable, "-c", UDP_STREAM, *arguments])
        received, silence_s = hearing.stdout.readline().split()
        note(f"{int(received)} datagrams in {STREAM_S} s, longest silence {1000 * float(silence_s):.0f} ms")
        self.assertEqual(int(received), round(STREAM_S / STREAM_GAP_S))
        self.assertLess(float(silence_s), 1)

    def serve(self, node, program):
        running = subprocess.Popen(net.inside(node, [sys.executable, "-c", program]), stdout=subprocess.PIPE)
        self.addCleanup(running.wait)
        self.addCleanup(running.kill)
        self.addCleanup(running.stdout.close)
        self.assertEqual(running.stdout.readline(), b"listening\n")
        return running

    def test_tcp_both_ways(self):
        for source, destination in [("a-h1", "b-h1"), ("b-h1", "a-h1"), ("a-h2", "b-h1")]:
            running = Transfer(source, destination, self.ulid(destination), 10 * MB, patience_s=15)
            result = running.wait(60)
            self.assertTrue(result["complete"] and result["sha256_match"], result)
            self.assertLess(result["outage_ms"], 1500, result)

    def test_a_context_looks_the_same_from_both_ends(self):
        self.establish("a-h1", "b-h1")
        here, there = self.context("a-h1", "b-h1"), self.context("b-h1", "a-h1")
        self.assertEqual((here["state"].lower(), there["state"].lower()), ("established", "established"))
        self.assertEqual((here["local_tag"], here["peer_tag"]), (there["peer_tag"], there["local_tag"]))
        self.assertEqual(set(here["local_locators"]), set(there["peer_locators"]))
        self.assertEqual(set(here["peer_locators"]), set(there["local_locators"]))
        self.assertEqual(set(here["local_locators"]), set(self.hosts["a-h1"]["locators"]))

    # R5533-006
    def test_one_context_serves_all_flows_of_a_pair(self):
        first = self.establish("a-h2", "b-h2")
        Transfer("a-h2", "b-h2", self.ulid("b-h2"), MB, patience_s=10).wait(30)
        self.assertEqual(self.context("a-h2", "b-h2")["local_tag"], first["local_tag"])

    def test_hosts_of_one_site_talk_without_the_box(self):
        before = len(box.contexts(SITES["a"]))
        self.assert_pings("a-h1", self.ulid("a-h2"))
        self.assertEqual(len(box.contexts(SITES["a"])), before)

    def test_an_identifier_nobody_has_is_refused(self):
        """A ULID no static peer stands for: the host is told, and no packet leaves with it."""
        done = self.ping("a-h1", "fc00:dead:0:1::1", count=2, wait_s=5)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("nreachable", done.stdout)
        self.assert_no_spoofing()

    def test_the_box_answers_on_every_port(self):
        for site in SITES.values():
            self.assert_pings(site.host_nodes[0], site.box_address, count=1)
            for provider in site.providers:
                self.assert_pings(provider.node, provider.link_box, count=1)
                self.assert_pings("ext", provider.link_box, count=1)

    def test_idle_boxes_leave_the_machine_alone(self):
        time.sleep(2)
        ticks = 100.0
        for site in SITES.values():
            before, began = cpu_ticks(box.pid(site)), time.monotonic()
            time.sleep(3)
            used = (cpu_ticks(box.pid(site)) - before) / ticks / (time.monotonic() - began)
            note(f"{site.box}: {100 * used:.1f} % of a core while idle")
            self.assertLess(used, 0.25)


def cpu_ticks(pid):
    """User and system time of a process, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class OnTheWire(LabTest):
    """A capture from the very first packet on, judged by the strict decoder and by tshark's checksum."""

    def test_from_the_first_packet(self):
        with self.capturing() as seen:
            for source, destination in [("a-h1", "b-h1"), ("a-h2", "b-h1"), ("b-h2", "a-h1")]:
                self.establish(source, destination)
            running = Transfer("a-h1", "b-h1", self.ulid("b-h1"), 10 * MB, patience_s=15)
            self.assertTrue(running.wait(60)["sha256_match"])
            # Silence after one-way traffic: time for Keepalives.
            time.sleep(5)
        summary = self.judge(seen.files)
        established = [made for made in summary["handshakes"] if made["kind"] == "establishment"]
        self.assertEqual(len(established), 3, summary["handshakes"])
        for name in ("I1", "R1", "I2", "R2", "payload"):
            self.assertGreater(summary["messages"].get(name, 0), 0, summary["messages"])
        checked = self.judge_checksums([path for path in seen.files if "control" in path])
        self.assertGreaterEqual(checked, sum(n for name, n in summary["messages"].items() if name != "payload"))
        self.assert_no_spoofing()


class Sizes(LabTest):
    """The host knows nothing of the eight octets: what does not fit is answered with the size that does."""

    def setUp(self):
        self.establish()
        self.forget_mtu()

    def forget_mtu(self):
        for node in lab.host_nodes():
            net.exec_in(node, ["ip", "-6", "route", "flush", "cache"])

    def sized(self, packet_octets, *arguments, count=2):
        """Echo with packets of this size on the LAN."""
        return self.ping("a-h1", self.ulid("b-h1"), "-s", str(packet_octets - 48), *arguments, count=count)

    def learned_mtu(self, node, destination):
        shown = net.exec_in(node, ["ip", "-6", "route", "get", destination]).stdout
        found = re.search(r"\bmtu (\d+)", shown)
        return int(found.group(1)) if found else None

    def test_what_fits_passes(self):
        for octets in (48, 1280, 1491, 1492):
            done = self.sized(octets, "-M", "do")
            self.assertEqual(done.returncode, 0, f"{octets}: {done.stdout}")
            self.assertIn(" 0% packet loss", done.stdout, octets)
        self.assertIsNone(self.learned_mtu("a-h1", self.ulid("b-h1")))

    def test_what_does_not_fit_is_answered_with_the_mtu(self):
        for octets in (1493, 1500):
            self.forget_mtu()
            done = self.sized(octets, "-M", "do")
            self.assertNotEqual(done.returncode, 0, f"{octets}: {done.stdout}")
            self.assertRegex(done.stdout, r"Packet too big: mtu=1492", octets)
            self.assertEqual(self.learned_mtu("a-h1", self.ulid("b-h1")), 1492)

    def test_over_long_datagrams_come_through_in_fragments(self):
        # The first may be lost to the Packet Too Big that teaches the host.
        self.sized(4000, count=2)
        done = self.sized(4000, count=3)
        self.assertIn(" 0% packet loss", done.stdout)

    def test_tcp_does_not_stall(self):
        running = Transfer("a-h1", "b-h1", self.ulid("b-h1"), 20 * MB, patience_s=10)
        result = running.wait(60)
        self.assertTrue(result["sha256_match"], result)
        self.assertLess(result["outage_ms"], 1500)
        self.assertEqual(self.learned_mtu("a-h1", self.ulid("b-h1")), 1492)


class NarrowCore(LabTest):
    """A smaller MTU beyond the provider: a router out there complains about a packet whose addresses are locators."""

    options = {"core_mtu": 1400}

    # R5533-242
    def test_packet_too_big_reaches_the_host(self):
        self.establish()
        done = self.ping("a-h1", self.ulid("b-h1"), "-M", "do", "-s", str(1450 - 48), count=3)
        self.assertRegex(done.stdout, r"Packet too big: mtu=1392")
        done = self.ping("a-h1", self.ulid("b-h1"), "-M", "do", "-s", str(1392 - 48), count=3)
        self.assertIn(" 0% packet loss", done.stdout)

    def test_tcp_does_not_stall(self):
        running = Transfer("a-h1", "b-h1", self.ulid("b-h1"), 10 * MB, patience_s=10)
        result = running.wait(60)
        self.assertTrue(result["sha256_match"], result)
        self.assertLess(result["outage_ms"], 2500)


class NarrowestCore(LabTest):
    """A core that carries 1280 octets: whatever a host may send unasked has no room for the payload header."""

    options = {"core_mtu": 1280}

    # R5533-308
    def test_hosts_may_send_what_they_must_be_allowed_to(self):
        self.establish()
        # The first one provokes the router's complaint, in either direction; the boxes learn from it.
        for octets in (1280, 1280):
            self.ping("a-h1", self.ulid("b-h1"), "-M", "do", "-s", str(octets - 48), count=1)
        for octets in (1280, 1276, 1273, 1272):
            done = self.ping("a-h1", self.ulid("b-h1"), "-M", "do", "-s", str(octets - 48), count=3)
            self.assertIn(" 0% packet loss", done.stdout, octets)
        for site in SITES.values():
            self.assertGreater(box.counters(site)["fragmented"], 0, site.box)

    def test_tcp_does_not_stall(self):
        running = Transfer("a-h1", "b-h1", self.ulid("b-h1"), 5 * MB, patience_s=15)
        result = running.wait(60)
        self.assertTrue(result["sha256_match"], result)


if __name__ == "__main__":
    unittest.main()
