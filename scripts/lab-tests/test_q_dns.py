#!/usr/bin/env python3
"""Hosts that ask their box, as ordinary resolvers do: `dig` for the records, the system's resolver for a session.

The other site's locators are nowhere in a configuration: whatever works here was learned from BIND by way of unbound.
"""

import ipaddress
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

from common import MB, SITES, LabTest, box, need_boxes, net, note, plan
from pslab import services

A, B = SITES["a"], SITES["b"]
ULID_TYPE = 65280


def setUpModule():
    need_boxes()


def ctl(*arguments, site=A):
    done = box.ctl_process(site, list(arguments))
    if done.returncode != 0:
        raise AssertionError(f"pshim6ctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def pointer(address):
    return ipaddress.IPv6Address(address).reverse_pointer + "."


class Names(LabTest):
    options = {
        "services": True,
        "extra": f'\n[dns]\nupstream = ["2001:db8:dead::53", "{plan.DNS_RESOLVER}"]\nzone = "inside.example"\n',
    }

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for site in SITES.values():
            cls.publish(site)
            # From here on nobody knows the other site's locators but DNS.
            text = site.config.read_text()
            site.config.write_text(re.sub(r"(?ms)^\[\[peer\]\]\n.*?(?=^\[|\Z)", "", text))
            ctl("reload", site=site)

    @classmethod
    def publish(cls, site):
        lines = [f"zone {site.zone}"]
        for node in site.host_nodes:
            host = cls.hosts[node]
            name, ulid = f"{node}.{site.zone}.", ipaddress.IPv6Address(host["ulid"])
            lines += [f"update add {name} 30 AAAA {locator}" for locator in host["locators"]]
            lines.append(f"update add {name} 20 TYPE{ULID_TYPE} \\# 16 {ulid.packed.hex()}")
        lines += ["send", f"zone {services.reverse_zone(site)}"]
        lines += [f"update add {pointer(cls.hosts[node]['ulid'])} 30 PTR {node}.{site.zone}." for node in site.host_nodes]
        services.update(site, lines)

    def setUp(self):
        ctl("dns", "flush")

    def dig(self, *question, node="a-h1", timeout_s=5):
        return services.dig(A.box_address, *question, node=node, timeout_s=timeout_s)

    def dns(self):
        return json.loads(ctl("dns", "--json"))

    def count(self, name):
        return self.counters()[name]

    def test_a_peer_is_its_cmula_and_the_handshake_is_over_before_the_first_packet(self):
        held = self.count("held")
        self.assertEqual(self.dig("b-h1.b.example", "AAAA"), [self.ulid("b-h1")])
        self.wait_until("there is a context", lambda: [c["state"] for c in self.contexts("a-h1", "b-h1")] == ["established"])
        self.assert_pings("a-h1", self.ulid("b-h1"))
        self.assertEqual(self.count("held"), held, "no packet had to wait")

    def test_everything_else_is_what_the_world_says(self):
        for question in [
            ("ext.plain.example", "AAAA"), ("ext.plain.example", "A"), ("chain.plain.example", "AAAA"), ("plain.example", "MX"),
            ("_http._tcp.plain.example", "SRV"), ("web.plain.example", "HTTPS"), ("ext.plain.example", "TXT"),
            ("odd.plain.example", "TYPE65400"), ("four.plain.example", "AAAA"), ("none.plain.example", "AAAA"),
            ("+dnssec", "www.signed.example", "AAAA"), ("long.plain.example", "TXT"), ("+tcp", "ext.plain.example", "AAAA"),
            ("+tcp", "long.plain.example", "TXT"), (pointer(self.ulid("b-h1")), "PTR"),
        ]:  # fmt: skip
            direct = services.dig(plan.DNS_RESOLVER, *question, node="ext")
            self.assertEqual(sorted(self.dig(*question)), sorted(direct), question)
        self.assertEqual(self.dig("+tcp", "b-h1.b.example", "AAAA"), [self.ulid("b-h1")])
        done = net.exec_in("a-h1", ["dig", "-6", f"@{A.box_address}", "none.plain.example", "AAAA"], check=False).stdout
        self.assertIn("status: NXDOMAIN", done)

    def test_own_names(self):
        self.assertEqual(self.dig("a-h1.inside.example", "AAAA"), [self.ulid("a-h1")])
        self.assertEqual(self.dig("-x", self.ulid("a-h2")), ["a-h2.inside.example."])

    def test_a_literal_cmula_is_found_backwards(self):
        found = self.count("dns_reverse_found")
        self.assert_pings("a-h2", self.ulid("b-h2"), wait_s=8)
        self.assertGreater(self.count("dns_reverse_found"), found)
        stranger = "fc00:b::dead"
        began = time.monotonic()
        done = self.ping("a-h2", stranger, count=1, wait_s=8)
        self.assertIn("nreachable", done.stdout)
        note(f"nobody's address was refused after {time.monotonic() - began:.2f} s")

    def test_curl_finds_its_context_when_it_connects(self):
        """Names are asked for and connected to in one go, each time with a context that does not exist yet."""
        folder = tempfile.mkdtemp(prefix="pshim6-")
        self.addCleanup(shutil.rmtree, folder)
        listening = [self.serve(node) for node in B.host_nodes]
        waited, took, rounds = [], [], 5
        for _ in range(rounds):
            for site in SITES.values():
                box.kill(site)
                box.start(site)
            for site in SITES.values():
                box.wait_ready(site)
            for node in A.host_nodes:
                # The link knows everybody, as it does when a host has just got its address.
                self.dig("plain.example", "MX", node=node)
                for peer in B.host_nodes:
                    held = self.count("held")
                    url = f"http://{peer}.{B.zone}:8000/"
                    command = ["curl", "-6", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{time_namelookup} %{time_connect}", url]
                    done = net.run(services.with_resolver(node, folder, A.box_address, command))
                    took.append([float(word) * 1000 for word in done.stdout.split()])
                    waited.append(self.count("held") - held)
        self.assertEqual(len(listening), 2)
        names, connects = zip(*took)
        note(f"of {len(waited)} sessions {sum(it > 0 for it in waited)} had a packet that waited for the handshake; median "
             f"{statistics.median(names):.1f} ms for the name, {statistics.median(connects):.1f} ms until connected")  # fmt: skip
        self.assertLess(sum(it > 0 for it in waited), len(waited) // 4, waited)

    def serve(self, node):
        command = [sys.executable, "-m", "http.server", "--bind", self.ulid(node), "8000"]
        server = subprocess.Popen(net.inside(node, command), cwd="/usr/share/doc/base-files", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(lambda: (server.terminate(), server.wait()))
        reached = lambda: net.exec_in(node, ["curl", "-6", "-s", "-o", "/dev/null", f"http://[{self.ulid(node)}]:8000/"], check=False).returncode == 0  # noqa: E501, E731
        self.wait_until("the server listens", reached)
        return server

    def test_a_dead_server_is_left_alone(self):
        for number in range(4):
            self.dig(f"n{number}.plain.example", "AAAA", timeout_s=6)
        servers = self.dns()["servers"]
        self.assertTrue(servers[0]["timeouts"] > 0 and servers[0]["answers"] == 0, servers)
        began = time.monotonic()
        self.dig("quick.plain.example", "AAAA")
        self.assertLess(time.monotonic() - began, 0.5)

    def test_noise_and_floods_disturb_nobody(self):
        script = (
            "import os, random, socket, time\n"
            "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n"
            "random.seed(1)\n"
            "end = time.time() + 3\n"
            "while time.time() < end:\n"
            "    for _ in range(200):\n"
            f"        s.sendto(random.randbytes(random.randrange(60)), ('{A.box_address}', 53))\n"
            "        q = bytes([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9]) + random.randbytes(4).hex().encode() + b'x'\n"
            f"        s.sendto(q + bytes([5]) + b'plain' + bytes([7]) + b'example' + bytes([0, 0, 28, 0, 1]), ('{A.box_address}', 53))\n"
        )
        self.assert_pings("a-h1", self.ulid("b-h1"), wait_s=8)
        before = self.counters()
        flood = subprocess.Popen(net.inside("a-h2", [sys.executable, "-c", script]))
        answered = 0
        for _ in range(10):
            answered += self.dig("ext.plain.example", "AAAA", timeout_s=3) == [plan.EXT_ADDRESS]
            time.sleep(0.2)
        flood.wait(timeout=10)
        after = self.counters()
        note({name: after[name] - before.get(name, 0) for name in after if "dns" in name and after[name] != before.get(name, 0)})
        self.assertEqual(answered, 10)
        self.assertGreater(after["dns_questions_malformed"], before["dns_questions_malformed"])
        self.assert_pings("a-h1", self.ulid("b-h1"))

    def test_a_session_by_name_survives_a_provider_cut(self):
        self.assertEqual(self.dig("b-h1.b.example", "AAAA"), [self.ulid("b-h1")])
        cut = lambda _: net.cut(self.provider_in_use())  # noqa: E731
        try:
            result = self.transfer(60 * MB, 8 * MB, cut, at=0.3)
        finally:
            for name in net.cuts():
                net.heal(name)
        self.assertLess(result["outage_ms"], 8_000)


if __name__ == "__main__":
    unittest.main()
