#!/usr/bin/env python3
"""A site with real servers around it: names, and providers that are exchanged while sessions run."""

import ipaddress
import json
import time
import unittest

from common import MB, SITES, LabTest, box, need_boxes, net, note, plan
from pslab import services

A = SITES["a"]
SILENCE_MS = 1500  # as in test_l_update: a busy machine's


def setUpModule():
    need_boxes()


def ctl(*arguments):
    done = box.ctl_process(A, list(arguments))
    if done.returncode != 0:
        raise AssertionError(f"pshim6ctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


class World(LabTest):
    """The servers alone: what the other tests build on."""

    options = {"services": True, "boxes": False}

    def dig(self, *question, server=plan.DNS_RESOLVER):
        return services.dig(server, *question, node="ext")

    def test_names_without_shim6_are_resolved(self):
        self.assertEqual(self.dig("ext.plain.example", "AAAA"), [plan.EXT_ADDRESS])
        self.assertEqual(self.dig("chain.plain.example", "AAAA")[-1], plan.EXT_ADDRESS)
        self.assertGreater(len("".join(self.dig("long.plain.example", "TXT"))), 2400)
        self.assertEqual(self.dig("+dnssec", "www.signed.example", "AAAA")[0], plan.EXT_ADDRESS)
        self.assertEqual(self.dig("nobody.a.example", "AAAA"), [])

    def test_a_site_changes_its_own_names_and_nobody_elses(self):
        ulid = "# 16 fc00000a000000010000000000000009"
        name, pointer = f"h9.{A.zone}.", f"1.{services.reverse_zone(A)}."
        services.update(A, [f"zone {A.zone}", f"update add {name} 30 TYPE65280 \\{ulid}", "send",
                            f"zone {services.reverse_zone(A)}", f"update add {pointer} 30 PTR {name}"])  # fmt: skip
        self.assertEqual(" ".join(self.dig(name, "TYPE65280", server=plan.DNS_AUTHORITY)).split()[:2], ["\\#", "16"])
        self.assertEqual(self.dig(pointer, "PTR"), [name])
        with self.assertRaisesRegex(net.LabError, "REFUSED"):
            services.update(SITES["b"], [f"zone {A.zone}", f"update add {name} 30 A 192.0.2.1"])


class Swap(LabTest):
    options = {"services": True}

    def tearDown(self):
        self.assert_no_spoofing()

    def leave(self, name):
        """Waits until neither end sends through a provider of site a any more."""
        began = time.monotonic()
        theirs = lambda: plan.provider_of(self.context("b-h1", "a-h1")["current"]["peer"]).name  # noqa: E731
        self.wait_until(f"both have left {name}", lambda: name not in (self.provider_in_use(), theirs()))
        note(f"{name} was left within {time.monotonic() - began:.1f} s")

    def providers_of_hosts(self):
        hosts = json.loads(ctl("hosts", "--json"))["hosts"]
        return {plan.provider_of(locator).name for host in hosts for locator in host["locators"]}

    def names_are_right(self):
        """Whether the authoritative server says of every host what the box says of it."""
        for host in json.loads(ctl("hosts", "--json"))["hosts"]:
            ask = lambda *question: services.dig(plan.DNS_AUTHORITY, *question, node="ext")  # noqa: E731
            name = f"{host['name']}.{A.zone}."
            digits = ipaddress.IPv6Address(host["ulid"]).exploded.replace(":", "")
            said = sorted(ask(name, "AAAA")), "".join(ask(name, "TYPE65280")[2:]).lower(), ask("-x", host["ulid"])
            if said != (sorted(host["locators"]), digits, [name]):
                return False
        return True

    def test_names_come_and_go_with_hosts(self):
        made = json.loads(ctl("host", "add", "a-h7", "--json"))
        self.wait_until("a-h7 is published", self.names_are_right)
        self.assertEqual(services.dig(plan.DNS_RESOLVER, f"a-h7.{A.zone}", "AAAA", node="ext"), made["locators"])
        status = json.loads(ctl("status", "--json"))["publish"]
        self.assertEqual((status["waiting"], status["taken"], status["published"]), (0, 0, 6))
        ctl("host", "remove", "a-h7")
        gone = lambda: not services.dig(plan.DNS_AUTHORITY, f"a-h7.{A.zone}", "ANY", node="ext")  # noqa: E731
        self.wait_until("a-h7 is gone", gone)
        self.assertEqual(services.dig(plan.DNS_AUTHORITY, "-x", made["ulid"], node="ext"), [])
        # A host that calls itself like somebody else's name takes nothing from it.
        services.update(A, [f"zone {A.zone}", f"update add mail.{A.zone} 30 AAAA {plan.EXT_ADDRESS}"])
        ctl("host", "add", "mail")
        self.wait_until("it is noticed", lambda: json.loads(ctl("status", "--json"))["publish"]["taken"] == 1)
        self.assertEqual(services.dig(plan.DNS_AUTHORITY, f"mail.{A.zone}", "AAAA", node="ext"), [plan.EXT_ADDRESS])
        self.assertIn("somebody else has it", box.log_tail(A, 100))
        ctl("host", "remove", "mail")
        # What `zone` prints is what a server without updates would load.
        printed = ctl("zone").splitlines()
        hosts = json.loads(ctl("hosts", "--json"))["hosts"]
        self.assertEqual(len([line for line in printed if " IN " in line]), sum(len(it["locators"]) + 2 for it in hosts))
        self.assertTrue(all(" IN PTR a-h" in line for line in printed if "ip6.arpa" in line), printed)

    # R5533-060, R5533-250
    def test_a_provider_is_exchanged_under_a_session(self):
        """x goes, v comes; then y goes too, so that what carries the session has a signature for its only proof."""
        v = plan.SPARES["v"]
        settings = ["--port", "v", "--prefix", v.locators, "--next-hop", v.link_isp]

        def meanwhile(_):
            self.assertEqual(self.provider_in_use(), "x")
            replaced = json.loads(ctl("provider", "replace", "x", "v", *settings, "--json"))
            self.assertTrue(replaced["daemon_reloaded"])
            self.assertTrue(all(len(it["added"]) == len(it["removed"]) == 1 for it in replaced["hosts"]), replaced)
            self.leave("x")
            ctl("provider", "remove", "y")
            self.leave("y")

        before = net.drops()
        self.wait_until("the names are published", self.names_are_right)
        result = self.transfer(200 * MB, 16 * MB, meanwhile, at=0.15)
        self.assertLess(result["outage_ms"], SILENCE_MS, result["gaps"])
        self.assertEqual(self.provider_in_use(), "v")
        self.wait_until("the old locators are gone", lambda: self.providers_of_hosts() == {"v"}, timeout_s=60, step_s=1)
        hosts = {host["name"]: host for host in json.loads(ctl("hosts", "--json"))["hosts"]}
        self.assertEqual({name: host["ulid"] for name, host in hosts.items()}, {it: self.ulid(it) for it in A.host_nodes})
        # And the peer has heard of it.
        self.assertEqual(self.context("b-h1", "a-h1")["peer_locators"], hosts["a-h1"]["locators"])
        self.assertTrue(self.names_are_right(), "DNS")
        self.assertEqual(net.drops()["v"], {**before["v"], "spoofed": 0})


if __name__ == "__main__":
    unittest.main()
