#!/usr/bin/env python3
"""Hosts of the site and a host that knows no Shim6: the kernel of `ext`, which judges every checksum.

Nothing at ext is ours. It sees plain IPv6 from the host's locators, and never an identifier (`fc00::/7`): the core counts
those, and every provider drops sources that it did not delegate.
"""

import re
import subprocess
import sys
import time
import unittest

from common import MB, SITES, LabTest, Transfer, box, need_boxes, net, plan

EXT = plan.EXT_ADDRESS
NATV6 = "[natv6]\nenabled = true\n"
UDP_ECHO = """
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 7))
print("listening", flush=True)
while True:
    data, peer = s.recvfrom(65535)
    s.sendto(data + peer[0].encode(), peer)
"""
UDP_ASK = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(3)
s.connect((sys.argv[1], int(sys.argv[2])))
try:
    s.send(b"x" * int(sys.argv[3]))
    print(s.recv(65535).lstrip(b"x").decode())
except OSError as error:
    print(type(error).__name__)
"""
# Sends until something comes back to say that it is in vain.
TCP_HOLD = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 5009), 5)
print("connected", flush=True)
# Errors of the network become errors of the connection at once, as applications that ask for them have it.
s.setsockopt(socket.IPPROTO_IPV6, 25, 1)
began = time.monotonic()
try:
    while time.monotonic() - began < 20:
        s.send(b"x")
        time.sleep(0.1)
    print("nothing", flush=True)
except OSError as error:
    print(type(error).__name__, round(time.monotonic() - began, 1), flush=True)
"""
TCP_SINK = """
import socket
s = socket.create_server(("::", 5009), family=socket.AF_INET6)
print("listening", flush=True)
while True:
    c, _ = s.accept()
    while True:
        try:
            if not c.recv(65535):
                break
        except OSError:
            break
"""


def setUpModule():
    need_boxes()


class Natv6Test(LabTest):
    def tearDown(self):
        for name in net.cuts():
            net.heal(name)
        # R4193-011, R4193-012, RCM-005
        self.assert_no_spoofing()

    def locator(self, host, provider):
        found = [it for it in self.hosts[host]["locators"] if plan.provider_of(it).name == provider]
        self.assertEqual(len(found), 1)
        return found[0]

    def serve(self, node, program):
        running = subprocess.Popen(net.inside(node, [sys.executable, "-c", program]), stdout=subprocess.PIPE, text=True)
        self.addCleanup(running.stdout.close)
        self.addCleanup(running.wait)
        self.addCleanup(running.kill)
        self.assertEqual(running.stdout.readline(), "listening\n")
        return running

    def ask(self, node, address, port=7, octets=100):
        command = [sys.executable, "-c", UDP_ASK, address, str(port), str(octets)]
        return net.exec_in(node, command).stdout.strip()

    def download(self, sender, receiver, address, total=5 * MB, port=5001):
        result = Transfer(sender, receiver, address, total, port=port, patience_s=15).wait(60)
        self.assertTrue(result["complete"] and result["sha256_match"], result)

    def contexts_with(self, peer):
        return [c for c in box.contexts(SITES["a"]) if c["ulid_peer"] == peer]


class Plain(Natv6Test):
    """ext is what most of the Internet is."""

    options = {"extra": NATV6 + "[setup]\nroutable = \"never\"\n"}

    def test_the_host_begins(self):
        """RCM-001, RCM-004, RCM-005, R6296-004, R6296-007, R4193-011: ping, UDP and TCP to ext, which sees the locator at the first provider."""
        self.assert_pings("a-h1", EXT, count=5)
        self.serve("ext", UDP_ECHO)
        for octets in (1, 100, 1400, 4000):
            # R6296-044: the largest goes in fragments, both ways.
            self.assertEqual(self.ask("a-h1", EXT, octets=octets), self.locator("a-h1", "x"), octets)
        self.download("a-h1", "ext", EXT)
        counters = self.counters()
        self.assertGreater(counters["nat_out"], 1000)
        self.assertGreater(counters["nat_in"], 100)
        self.assertEqual(self.contexts_with(EXT), [])

    def test_ext_begins_at_each_provider(self):
        """RCM-009, RCM-018, R6296-008, R6296-037: the answer leaves by the provider that the session came through."""
        self.serve("a-h1", UDP_ECHO)
        for index, provider in enumerate(("x", "y")):
            with self.subTest(provider):
                locator = self.locator("a-h1", provider)
                self.assert_pings("ext", locator)
                self.assertEqual(self.ask("ext", locator), EXT)
                self.download("ext", "a-h1", locator, port=5010 + index)

    def test_both_at_once_and_with_the_same_port(self):
        """R6296-038: two hosts, one source port; ext tells them apart by their addresses."""
        self.serve("ext", UDP_ECHO)
        bound = UDP_ASK.replace("s.settimeout(3)", "s.settimeout(3); s.bind(('::', 4444))")
        for host in ("a-h1", "a-h2"):
            done = net.exec_in(host, [sys.executable, "-c", bound, EXT, "7", "10"])
            self.assertEqual(done.stdout.strip(), self.locator(host, "x"))

    def test_errors_of_routers_reach_the_host(self):
        """R6296-043: Time Exceeded from routers outside names what the host sent, or the host would not hear of it."""
        for hops, expected in ((1, SITES["a"].box_address), (2, plan.PROVIDERS["x"].link_isp), (3, plan.PROVIDERS["x"].up_core)):
            done = self.ping("a-h1", EXT, "-t", str(hops), count=1)
            self.assertRegex(done.stdout, rf"From {expected} .*Time exceeded", f"{hops}: {done.stdout}")

    def test_port_unreachable_both_ways(self):
        """From ext's kernel about the host's datagram, and from the host's kernel about ext's."""
        self.assertEqual(self.ask("a-h1", EXT, port=9999), "ConnectionRefusedError")
        for provider in ("x", "y"):
            self.assertEqual(self.ask("ext", self.locator("a-h1", provider), port=9999), "ConnectionRefusedError")
        self.assertGreater(self.counters()["nat_quotes"], 0)

    def test_hairpin(self):
        """R6296-033, R6296-034, RCM-017: by the other's locator; each sees the other's locator."""
        self.serve("a-h2", UDP_ECHO)
        for provider in ("x", "y"):
            self.assert_pings("a-h1", self.locator("a-h2", provider))
            self.assertEqual(self.ask("a-h1", self.locator("a-h2", provider)), self.locator("a-h1", provider))

    def test_an_address_nobody_has(self):
        """RCM-014: told to ext; R6296-015, R4193-012 to -014: told to the host, which has no business with another's ULID."""
        nobody = plan.PROVIDERS["x"].locators.replace("::/64", ":1:2:3:4")
        self.assertIn("nreachable", self.ping("ext", nobody, count=1).stdout)
        self.assertIn("nreachable", self.ping("a-h1", "fc00:dead:0:1::1", count=1, wait_s=5).stdout)
        net.exec_in("a-h1", ["ip", "-6", "addr", "add", "fc00:a:0:1::77/64", "dev", "eth0", "nodad"])
        try:
            done = self.ping("a-h1", EXT, "-I", "fc00:a:0:1::77", count=1)
            self.assertNotEqual(done.returncode, 0, "an address that no host was given")
        finally:
            net.exec_in("a-h1", ["ip", "-6", "addr", "del", "fc00:a:0:1::77/64", "dev", "eth0"])

    def test_a_restart_is_not_felt(self):
        """R6296-036, RCM-012: nothing of what the box remembers is needed for a session to go on."""
        transfer = Transfer("a-h1", "ext", EXT, 6 * MB, 2 * MB, port=5021)
        transfer.wait_received(MB)
        box.restart(SITES["a"])
        result = transfer.wait(60)
        self.assertTrue(result["complete"] and result["sha256_match"], result)

    def test_the_operator_sees_it(self):
        """RCM-016"""
        view = box.ctl_json(SITES["a"], "natv6")
        self.assertEqual([(it["name"], it["place"], it["hosts"]) for it in view["providers"]], [("x", 1, 2), ("y", 2, 2)])
        self.assertIn("nat_out", view["counters"])


class NarrowCore(Natv6Test):
    options = {"core_mtu": 1400, "extra": NATV6 + "[setup]\nroutable = \"never\"\n"}

    def test_packet_too_big_reaches_the_host(self):
        """R6296-043: translated as it is, since NATv6 adds nothing to a packet."""
        done = self.ping("a-h1", EXT, "-M", "do", "-s", str(1450 - 48), count=3)
        self.assertRegex(done.stdout, r"Packet too big: mtu=1400")
        done = self.ping("a-h1", EXT, "-M", "do", "-s", str(1400 - 48), count=3)
        self.assertIn(" 0% packet loss", done.stdout)
        self.download("a-h1", "ext", EXT)


class Thresholds(Natv6Test):
    """A context is asked for when it is worth it, and traffic does not care."""

    options = {"extra": NATV6 + "[setup]\npackets = 20\nage_s = 0\n"}

    def test_ext_is_asked_once_and_left_alone(self):
        """R5533-014, R5533-001, R5533-015, R5533-147, R5533-286, RCM-011: ext's kernel answers the I1 with a Parameter Problem."""
        before = self.counters()

        def new(name):
            return self.counters()[name] - before[name]

        self.assert_pings("a-h1", EXT, count=5)
        self.assertEqual(new("control_qualified"), 0, "a short flow is not worth it")
        done = self.assert_pings("a-h1", EXT, count=30)
        self.assertIn(" 0% packet loss", done.stdout)
        self.wait_until("ext has said that it knows no Shim6", lambda: self.held(EXT) == ["no-support"], timeout_s=3)
        self.assertEqual(self.contexts_with(EXT), [])
        self.assertGreaterEqual(box.ctl_json(SITES["a"], "status")["contexts"]["no_support"], 1)
        # It holds for all hosts.
        opened = new("control_opened")
        self.assertIn(" 0% packet loss", self.assert_pings("a-h2", EXT, count=30).stdout)
        self.assertEqual(new("control_opened"), opened)
        self.assertGreaterEqual(new("open_refused_hold_down"), 1)

    def held(self, peer):
        found = box.ctl_json(SITES["a"], "contexts", "--state", "no-support")["contexts"]
        return [it["state"] for it in found if it["ulid_peer"] == peer and it["held_s"] > 500]

    def test_a_peer_that_swallows_i1(self):
        """R5533-001, R5533-015, R5533-145: no answer at all; nothing waits for one."""
        rules = "table ip6 deaf {\nchain in {\ntype filter hook prerouting priority raw\nmeta l4proto 140 drop\n}\n}\n"
        net.exec_in("ext", ["nft", "-f", "-"], input=rules)
        other = "2001:db8:e::77"
        net.exec_in("ext", ["ip", "-6", "addr", "add", f"{other}/64", "dev", "eth0", "nodad"])
        try:
            done = self.assert_pings("a-h1", other, count=40)
            self.assertIn(" 0% packet loss", done.stdout)
            (opening,) = self.contexts_with(other)
            self.assertEqual((opening["state"], opening["inside"]), ("i1-sent", self.ulid("a-h1")))
            slowest = float(re.search(r"= [\d.]+/[\d.]+/([\d.]+)/", done.stdout).group(1))
            self.assertLess(slowest, 200, "milliseconds")
        finally:
            net.exec_in("ext", ["ip", "-6", "addr", "del", f"{other}/64", "dev", "eth0"])
            net.exec_in("ext", ["nft", "delete", "table", "ip6", "deaf"])


class Cut(Natv6Test):
    """A provider whose link goes down takes its sessions with it, at once, and new ones go elsewhere."""

    options = {"extra": NATV6 + "[setup]\nroutable = \"never\"\n"}

    def test_sessions_fail_fast_and_new_ones_take_the_other_provider(self):
        """RCM-015, RCM-008"""
        self.serve("ext", TCP_SINK)
        self.serve("ext", UDP_ECHO)
        command = net.inside("a-h1", [sys.executable, "-c", TCP_HOLD, EXT])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as session:
            self.addCleanup(lambda: session.poll() is None and session.kill())
            self.assertEqual(session.stdout.readline(), "connected\n")
            time.sleep(1)
            net.cut("x", link=True)
            self.wait_until("the provider is down", lambda: self.places() == {"x": None, "y": 1})
            self.assertEqual(self.ask("a-h1", EXT), self.locator("a-h1", "y"), "a new session")
            words = session.stdout.readline().split()
        # The box sends the segment through the other provider, where ext knows of no such connection and resets it.
        self.assertIn(words[0], ("ConnectionResetError", "OSError"), words)
        self.assertLess(float(words[1]), 10)
        net.heal("x")
        self.wait_until("the provider is up", lambda: self.places() == {"x": 1, "y": 2}, timeout_s=40)
        self.assertEqual(self.ask("a-h1", EXT), self.locator("a-h1", "x"))

    def places(self):
        return {it["name"]: it["place"] for it in box.ctl_json(SITES["a"], "natv6")["providers"]}


if __name__ == "__main__":
    unittest.main()
