#!/usr/bin/env python3
"""Shares by policy, with iperf3 between hosts that know nothing of it, as the providers' routers count them.

Four sessions of TCP at the same rate, one for each pair of hosts, go on while policies are loaded, a provider is drained
and another one is lost and comes back. None of them ends before its time.
"""

import json
import subprocess
import time
import unittest

from common import SITES, LabTest, box, need_boxes, net, note

A = SITES["a"]
RATE_MBPS = 8
SECONDS = 100
# A quarter is one session of four. What is counted beside them: TCP's repetitions, probes, keepalives.
NEAR = 0.06


def setUpModule():
    need_boxes()


def policy(**fields):
    return {"version": 1, "limits": {"rest_s": 2}, **fields}


def rule(**fields):
    return {"default": {"out": fields}}


class Shares(LabTest):
    def load(self, **fields):
        (A.run_dir / "policy.json").write_text(json.dumps(policy(**fields)))
        done = box.ctl_process(A, ["policy", "load"])
        self.assertEqual(done.returncode, 0, done.stderr)

    def flows(self):
        """Four sessions; each is a client's process that prints what it did when it is over."""
        running = []
        for number, (source, target) in enumerate((s, t) for s in A.host_nodes for t in SITES["b"].host_nodes):
            port = 5300 + number
            server = subprocess.Popen(net.inside(target, ["iperf3", "-s", "-1", "-6", "-p", str(port)]), stdout=subprocess.DEVNULL)
            self.addCleanup(lambda server=server: (server.kill(), server.wait()))
            listens = lambda node=target, port=port: f":{port}" in net.exec_in(node, ["ss", "-ltn"]).stdout  # noqa: E731
            self.wait_until("iperf3 listens", listens)
            command = ["iperf3", "-6", "-c", self.ulid(target), "-p", str(port), "-b", f"{RATE_MBPS}M", "-t", str(SECONDS), "-J"]
            client = subprocess.Popen(net.inside(source, command), stdout=subprocess.PIPE, text=True)
            self.addCleanup(lambda client=client: (client.kill(), client.wait()))
            running.append(client)
        return running

    def share(self, window_s=1.5):
        """The part of what leaves the site that goes through x."""
        before = [net.carried(name) for name in "xy"]
        time.sleep(window_s)
        x, y = (net.carried(name) - was for name, was in zip("xy", before, strict=True))
        self.assertGreater(x + y, window_s * RATE_MBPS * 4e6 / 8 / 4, "sessions go on")
        return x / (x + y)

    def becomes(self, what, wanted, timeout_s=30):
        began, seen = time.monotonic(), []
        while not seen or abs(seen[-1] - wanted) > NEAR:
            self.assertLess(time.monotonic() - began, timeout_s, f"{what}: {wanted} by x is wanted, seen {seen}")
            seen.append(round(self.share(), 3))
        note(f"{what}: {seen[-1]:.0%} by x after {time.monotonic() - began:.0f} s ({wanted:.0%} wanted)")
        # And it stays.
        time.sleep(1)
        self.assertLess(abs(self.share() - wanted), NEAR, what)

    def test_split_overflow_drain_and_fail_back(self):
        self.load(**rule(split={"weights": {"x": 3, "y": 1}}))
        running = self.flows()
        self.becomes("three to one", 0.75)
        self.load(**rule(split={"weights": {"x": 1, "y": 1}}))
        self.becomes("one to one", 0.5)
        costs = {"x": {"capacity_mbps": 10, "cost": 1}, "y": {"capacity_mbps": 1000, "cost": 5}}
        self.load(providers=costs, **rule(split={"cheapest_first": {"fill_percent": 95}}))
        self.becomes("the cheap one is full, the rest overflows", 0.25)
        self.load(providers={"x": {"drain": True}})
        self.becomes("drained", 0.0)
        self.load(default={"out": {"prefer": ["x"]}, "fail_back": {"after_s": 6}})
        self.becomes("preferred", 1.0)
        net.cut("x", link=True)
        self.addCleanup(net.heal, "x")
        self.becomes("lost", 0.0)
        net.heal("x")
        healed = time.monotonic()
        self.assertLess(self.share(), NEAR, "not before the hold time is over")
        self.becomes("back", 1.0)
        self.assertGreater(time.monotonic() - healed, 6)
        shown = json.loads(box.ctl_process(A, ["policy", "show", "--json"]).stdout)
        self.assertGreater(shown["moves_done"], 0)
        note(f"moves: {shown['moves_done']} done, {shown['moves_failed']} failed")
        for client in running:
            said, _ = client.communicate(timeout=SECONDS)
            end = json.loads(said)
            self.assertEqual((client.returncode, end.get("error")), (0, None))
            self.assertGreater(end["end"]["sum_received"]["bytes"], SECONDS * RATE_MBPS * 1e6 / 8 * 0.9)
        self.assert_no_spoofing()


if __name__ == "__main__":
    unittest.main()
