#!/usr/bin/env python3
"""A provider that delegates its prefix (ISC dhcpd) and says itself who the router is (radvd), and renumbers under a session.

Site a has no other provider, so that nothing but the change itself can carry the session over.
"""

import os
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from common import MB, SITES, LabTest, box, need_boxes, net, note, plan
from pslab import services

A = SITES["a"]
X = next(provider for provider in A.providers if provider.name == "x")
SILENCE_MS = 1500  # as in test_l_update: a busy machine's; the change itself loses nothing
# Lifetimes and times to extend in seconds, short enough to be lived through here.
DHCPD = """default-lease-time {valid};
preferred-lifetime {preferred};
option dhcp-renewal-time 5;
option dhcp-rebinding-time 8;
subnet6 {link}/64 {{ prefix6 {prefix} {prefix} /60; }}
"""
RADVD = """interface cust0 {{
    AdvSendAdvert on;
    MinRtrAdvInterval 3;
    MaxRtrAdvInterval 4;
    AdvDefaultLifetime {lifetime};
}};
"""


def setUpModule():
    need_boxes()


def subnet(digit):
    """The /60 of the provider's block that begins with this digit; the box takes its first /64."""
    return f"{X.block}{digit}0::"


class Server:
    """Something that runs in the provider's namespace until it is ended."""

    def __init__(self, folder, name, command):
        self.log = Path(folder, f"{name}.out")
        with open(self.log, "ab") as out:
            command = net.inside(X.node, services.confined(command))
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=10)


class Delegated(LabTest):
    options = {"services": True}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.TemporaryDirectory()
        text = A.config.read_text()
        # The ports stay; of the providers one is left, and that one open.
        sections = text.split("[[provider]]")
        rest = sections[-1][sections[-1].index("\n[[") :]
        opened = '\nname = "x"\nport = "x"\nprefix = "delegated"\nhint = 60\nnext_hop = "discover"\n'
        A.config.write_text(sections[0] + "[[provider]]" + opened + rest + '\n[store]\nfile = "store.redb"\n')
        box.kill(A)
        box.start(A)

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.folder.cleanup()

    def setUp(self):
        self.servers = []
        self.addCleanup(lambda: [server.end() for server in self.servers])

    def serve(self, name, command):
        self.servers.append(Server(self.folder.name, name, command))
        return self.servers[-1]

    def delegate(self, prefix, preferred=40, valid=60):
        """A server that knows of no lease, as after a change of plan at the provider."""
        folder = Path(self.folder.name)
        conf, leases = folder / "dhcpd.conf", folder / f"leases-{time.monotonic_ns()}"
        conf.write_text(DHCPD.format(prefix=prefix, preferred=preferred, valid=valid, link=X.link_isp[:-1]))
        leases.touch()
        files = ["-cf", str(conf), "-lf", str(leases), "-pf", str(folder / "dhcpd.pid")]
        return self.serve("dhcpd", ["dhcpd", "-6", "-f", "-d", "--no-pid", *files, "cust0"])

    def advertise(self, lifetime=1800):
        conf = Path(self.folder.name, "radvd.conf")
        conf.write_text(RADVD.format(lifetime=lifetime))
        pid = str(Path(self.folder.name, "radvd.pid"))
        return self.serve("radvd", ["radvd", "-n", "-m", "stderr", "-C", str(conf), "-p", pid])

    def uplink(self):
        [uplink] = box.ctl_json(A, "status")["uplinks"]
        return uplink

    def used(self):
        return self.uplink()["used"]

    def locator(self):
        return self.context("a-h1", "b-h1")["current"]["local"]

    def names_say(self, prefix):
        """Whether DNS has the host's address in this prefix and no other."""
        said = services.dig(plan.DNS_AUTHORITY, f"a-h1.{A.zone}.", "AAAA", node="ext")
        return len(said) == 1 and said[0].startswith(prefix.removesuffix("0::"))

    def test_a_session_goes_on_while_the_provider_renumbers(self):
        self.wait_until("the box answers", lambda: box.ctl_process(A, ["status"]).returncode == 0)
        self.assertIn("for a prefix", self.uplink()["waits"])
        server, first, second = self.delegate(subnet(4)), subnet(4), subnet(7)
        self.wait_until("a prefix is delegated", lambda: self.used() == [f"{first}/64"], 20)
        self.assertIn("for a router", self.uplink()["waits"])
        self.advertise()
        box.wait_ready(A)
        self.assertEqual(self.uplink()["waits"], "")
        self.wait_until("the host is known by it", lambda: self.names_say(first), 20)
        began = {}

        def meanwhile(_):
            nonlocal server
            server.end()
            server = self.delegate(second)
            began["at"] = time.monotonic()
            self.wait_until("another prefix is delegated", lambda: self.used()[0] == f"{second}/64", 20)
            note(f"asked for after {time.monotonic() - began['at']:.1f} s")
            self.wait_until("the session has moved", lambda: self.locator().startswith(second[:-4]), 20)
            note(f"moved after {time.monotonic() - began['at']:.1f} s")

        with self.capturing() as seen:
            self.assert_pings("a-h1", self.ulid("b-h1"), count=3, wait_s=8)
            result = self.transfer(60 * MB, 4 * MB, meanwhile, at=0.1)
        self.assertLess(result["outage_ms"], SILENCE_MS, result["gaps"])
        self.wait_until("the names have followed", lambda: self.names_say(second))
        self.assert_no_spoofing()
        summary = self.judge(seen.files)
        self.assertGreaterEqual(summary["messages"]["UR"], 1, summary["messages"])
        # The box dies: the same prefix is used at once, without anybody to ask.
        server.end()
        box.kill(A)
        box.start(A)
        box.wait_ready(A)
        self.assertIn(f"{second}/64", self.used())
        self.assert_pings("a-h1", self.ulid("b-h1"), count=3, wait_s=8)

    def test_b_router_that_is_none_any_more_is_not_used(self):
        self.delegate(subnet(7))
        radvd = self.advertise()
        box.wait_ready(A)
        there = lambda it: it["name"] == "x" and not it["leaving"]  # noqa: E731
        up = lambda: [it["up"] for it in box.ctl_json(A, "status")["providers"] if there(it)]  # noqa: E731
        self.wait_until("the provider is up", lambda: up() == [True])
        # It says so with its last words.
        radvd.end()
        self.wait_until("the provider is down", lambda: up() == [False])
        self.assertIn("for a router", self.uplink()["waits"])
        self.advertise()
        self.wait_until("the provider is up again", lambda: up() == [True])


if __name__ == "__main__":
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    unittest.main(verbosity=2)
