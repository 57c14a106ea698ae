#!/usr/bin/env python3
"""A new process takes a running box's place: sessions go on, and whatever goes wrong, a box is there."""

import os
import re
import signal
import socket
import statistics
import subprocess
import time
import unittest
from pathlib import Path

from common import MB, SITES, LabTest, box, need_boxes, net, note, plan

# Postcard's form of what a successor says, behind its length: Hello with the version, and Ready.
SOURCE = (plan.ROOT / "control/src/driver/succession/mod.rs").read_text()
VERSION = int(re.search(r"const VERSION: u32 = (\d+);", SOURCE)[1])
HELLO, READY = b"\x02\0\0\0\0" + bytes([VERSION]), b"\x01\0\0\0\x01"


def setUpModule():
    need_boxes()


class Succession(LabTest):
    def inherited(self, name):
        counters = self.counters(name)
        self.assertEqual(counters["control_inherited_not"], 0)
        self.assertEqual(counters["control_context_recovered"], 0)
        return counters["control_inherited"]

    # R5533-124: neither tags nor pairs change, and nobody has to recover anything.
    def test_sessions_go_on(self):
        self.establish()
        before = self.context("a-h1", "b-h1")
        gaps = []

        def meanwhile(_):
            for name in "abab":
                old = box.pid(SITES[name])
                box.succeed(SITES[name])
                self.assertNotEqual(box.pid(SITES[name]), old)
                self.assertGreaterEqual(self.inherited(name), 1)
                gaps.append(box.succession_gap_ms(SITES[name]))
                time.sleep(1)

        with self.capturing() as seen:
            result = self.transfer(150 * MB, 10 * MB, meanwhile, at=0.1)
        after = self.context("a-h1", "b-h1")
        for field in ("local_tag", "peer_tag", "current"):
            self.assertEqual(before[field], after[field])
        summary = self.judge(seen.files, midstream=True)
        for kind in ("R1bis", "I2bis", "I1"):
            self.assertEqual(summary["messages"].get(kind, 0), 0, summary["messages"])
        self.assertLess(result["outage_ms"], 1500)
        shown = ", ".join(f"{gap:.0f}" for gap in gaps)
        note(f"devices without an owner for {shown} ms; TCP's longest silence {result['outage_ms']} ms")
        self.assert_no_spoofing()

    def test_datagrams_lost(self):
        """How much is lost: echoes every 2 ms while a box is succeeded."""
        self.establish()
        command = ["ping", "-6", "-n", "-q", "-i", "0.002", "-w", "6", self.ulid("b-h1")]
        lost = []
        for name in "ab":
            running = subprocess.Popen(net.inside("a-h1", command), stdout=subprocess.PIPE, text=True)
            time.sleep(1.5)
            box.succeed(SITES[name])
            text, _ = running.communicate(timeout=20)
            sent, received = parse(text)
            lost.append(2 * (sent - received))
        note(f"echoes lost for {' and '.join(map(str, lost))} ms")
        self.assertLess(statistics.median(lost), 1000)

    def test_upgrade_by_the_operator(self):
        self.establish()
        site, old = SITES["a"], box.pid(SITES["a"])
        told = box.ctl_json(site, "upgrade")
        self.assertNotEqual(told["process"], old)
        self.assertEqual(told["contexts"]["established"], 1)
        box.adopt(site, told["process"])
        self.assertEqual(self.counters("a")["control_inherited"], 1)
        # What the old process had open is not held on to: one packet socket for each port, and no more.
        links = [os.readlink(path) for path in Path(f"/proc/{told['process']}/fd").iterdir()]
        text = net.exec_in("a-box", ["cat", f"/proc/{told['process']}/net/packet"]).stdout
        packets = {line.split()[8] for line in text.splitlines()[1:]}
        held = [link for link in links if link.startswith("socket:[") and link[8:-1] in packets]
        self.assertEqual(len(held), 3, f"{links}\n{text}")
        # And when the program on disk cannot take over, the old one goes on.
        text = site.config.read_text()
        try:
            site.config.write_text(text.replace("workers = 1", "workers = 2"))
            done = box.ctl_process(site, ["upgrade"])
        finally:
            site.config.write_text(text)
        self.assertEqual(done.returncode, 1)
        self.assertIn("did not take over", done.stderr)
        self.assertEqual(box.ctl_json(site, "status")["process"], told["process"])
        self.assert_pings("a-h1", self.ulid("b-h1"))

    def test_what_the_operator_said_stays(self):
        self.establish()
        box.ctl_json(SITES["a"], "provider", "x", "avoid")
        box.succeed(SITES["a"])
        providers = {view["name"]: view for view in box.ctl_json(SITES["a"], "status")["providers"]}
        self.assertEqual(providers["x"]["steering"], "avoid")
        box.ctl_json(SITES["a"], "provider", "x", "restore")


class Failing(LabTest):
    """What can go wrong with a successor."""

    def successor_socket(self):
        return f"{SITES['a'].control_socket}.succession"

    def approach(self, heir):
        """Connects where successors do; a process that has just taken over is there a moment later."""
        deadline = time.monotonic() + 5
        while True:
            try:
                return heir.connect(self.successor_socket())
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def test_one_that_goes_away_is_forgotten(self):
        self.establish()
        old = box.pid(SITES["a"])
        for said in (b"", HELLO, HELLO + READY, b"\xff" * 64, HELLO + HELLO):
            with socket.socket(socket.AF_UNIX) as heir:
                self.approach(heir)
                heir.sendall(said)
                time.sleep(0.3)
                # Ready before it was told everything is no answer to anything.
        self.assert_pings("a-h1", self.ulid("b-h1"))
        self.assertEqual(box.pid(SITES["a"]), old)
        self.assertEqual(self.counters("a")["control_context_recovered"], 0)
        # And the next one finds everything as it was.
        box.succeed(SITES["a"])
        self.assert_pings("a-h1", self.ulid("b-h1"))

    def test_one_that_is_killed_while_it_is_told(self):
        self.establish()
        old = box.pid(SITES["a"])
        for delay in (0.02, 0.1, 0.3):
            heir = box.start_successor(SITES["a"])
            time.sleep(delay)
            heir.send_signal(signal.SIGKILL)
            heir.wait()
            time.sleep(0.2)
            if box.pid(SITES["a"]) != old or not box.answers(SITES["a"]):
                # It had the devices already: the old one starts again.
                box.wait_ready(SITES["a"])
                old = box.pid(SITES["a"])
        self.wait_until("the hosts reach each other", lambda: not self.ping("a-h1", self.ulid("b-h1"), count=1).returncode, 20)

    def test_one_that_gets_everything_and_does_not_run(self):
        self.establish()
        old = box.pid(SITES["a"])
        with socket.socket(socket.AF_UNIX) as heir:
            self.approach(heir)
            heir.sendall(HELLO)
            heir.settimeout(10)
            told = bytearray()
            caught_up = b"\x01\0\0\0\x02"
            while not told.endswith(caught_up):
                told += self.heard(heir)
            heir.sendall(READY)
            yours = b"\x01\0\0\0\x03"
            while not told.endswith(yours):
                told += self.heard(heir)
        # The very process starts itself again, from nothing.
        box.wait_ready(SITES["a"])
        self.assertEqual(box.pid(SITES["a"]), old)
        self.wait_until("the hosts reach each other", lambda: not self.ping("a-h1", self.ulid("b-h1"), count=1).returncode, 20)

    def heard(self, heir):
        octets = heir.recv(65536)
        self.assertTrue(octets, "the box does not go on")
        return octets

    def test_one_that_does_not_fit_is_refused(self):
        self.establish()
        site, old = SITES["a"], box.pid(SITES["a"])
        text = site.config.read_text()
        try:
            site.config.write_text(text.replace("workers = 1", "workers = 2").replace("qdisc_bypass=1", "qdisc_bypass=1,qpairs=2"))
            heir = box.start_successor(site)
            self.assertEqual(heir.wait(timeout=20), 1)
            self.assertIn("box.workers is 1 there and 2 here", box.log_tail(site))
        finally:
            site.config.write_text(text)
        self.assertEqual(box.pid(site), old)
        self.assert_pings("a-h1", self.ulid("b-h1"))

    def test_the_socket_is_for_its_owner_alone(self):
        self.assertEqual(os.stat(self.successor_socket()).st_mode & 0o777, 0o600)

    def test_with_nobody_there_it_just_starts(self):
        site = SITES["b"]
        box.kill(site)
        box.start(site, "--take-over")
        box.wait_ready(site)


def parse(text):
    """Packets sent and received, as ping's last lines say."""
    line = next(line for line in text.splitlines() if "packets transmitted" in line)
    words = line.split()
    return int(words[0]), int(words[3])


if __name__ == "__main__":
    unittest.main()
