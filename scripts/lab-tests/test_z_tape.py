#!/usr/bin/env python3
"""What a box was told is recorded, and `pshim6ctl replay` decides the same again, whatever the box went through."""

import json
import os
import stat
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from common import SITES, LabTest, box, need_boxes, net, note


def setUpModule():
    need_boxes()


class Tape(LabTest):
    def setUp(self):
        self.site = SITES["a"]
        room = tempfile.TemporaryDirectory()
        self.addCleanup(room.cleanup)
        self.tape = Path(room.name) / "tape"

    def record(self, *arguments):
        """Starts the box anew, recorded."""
        box.kill(self.site)
        box.start(self.site, "--record", str(self.tape), *arguments)
        box.wait_ready(self.site)
        self.assertEqual(stat.S_IMODE(self.tape.stat().st_mode), 0o600)

    def replay(self, tape, *arguments, status=0):
        """What a replay says, line by line. The configuration is not needed: all is on the tape."""
        command = [box.binary("pshim6ctl"), "--json", "replay", str(tape), *arguments]
        done = subprocess.run(command, text=True, capture_output=True, timeout=120, cwd="/")
        self.assertEqual(done.returncode, status, done.stdout[-2000:] + done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def said(self, lines, kind):
        return [line[kind] for line in lines if kind in line]

    def test_a_life_and_a_sudden_death(self):
        self.record()
        self.establish()
        self.assertTrue(box.ctl_json(self.site, "record", "status")["running"])
        # A provider fails, and sessions move.
        before = self.context("a-h1", "b-h1")["current"]
        used = self.provider_in_use()
        net.cut(used)
        # Only who has something to send finds out.
        moved = lambda: self.ping("a-h1", self.ulid("b-h1"), count=1) and self.context("a-h1", "b-h1")["current"] != before
        self.wait_until("the context moved", moved, 30)
        net.heal(used)
        # Another host, and one that goes.
        box.ctl_json(self.site, "host", "add", "a-h9")
        box.ctl_json(self.site, "host", "remove", "a-h9")
        box.ctl_json(self.site, "provider", "y", "avoid")
        self.assert_pings("a-h1", self.ulid("b-h1"))
        counters = box.counters(self.site)
        contexts = box.contexts(self.site)
        time.sleep(0.3)
        # In the middle of everything.
        box.kill(self.site)
        lines = self.replay(self.tape, "--inputs", "--show", "counters,contexts,providers")
        end = self.said(lines, "end")[0]
        self.assertEqual(end["differences"], 0)
        stories = " ".join(line["text"] for line in self.said(lines, "effect"))
        for story in ("Ready(", "Exploring(", "Moved("):
            self.assertIn(story, stories)
        kinds = {line["kind"] for line in self.said(lines, "input")}
        self.assertLessEqual({"reload", "steer", "packet-shim6", "packet-for-the-box", "activity", "link-state"}, kinds)
        replayed = self.said(lines, "counters")[0]["counters"]
        # It was told a little more before it died.
        for name, value in replayed.items():
            self.assertGreaterEqual(value, counters[name], name)
            self.assertLess(value, counters[name] + 20, name)
        again = self.said(lines, "contexts")[0]["contexts"]
        same = lambda views: sorted((it["local_tag"], it["peer_tag"], it["state"]) for it in views)
        self.assertEqual(same(again), same(contexts))
        size = self.tape.stat().st_size
        note(f"{end['inputs']} inputs in {end['at_s']:.1f} s, {size / 1000:.0f} kB")
        # Cut off anywhere it is good until there; changed anywhere, that is said.
        octets = self.tape.read_bytes()
        cut = self.tape.with_name("cut")
        for share in (0.3, 0.6, 0.95):
            cut.write_bytes(octets[: int(share * len(octets))])
            some = self.said(self.replay(cut), "end")[0]
            self.assertLess(some["inputs"], end["inputs"])
            damaged = bytearray(octets)
            damaged[int(share * len(octets))] ^= 1
            cut.write_bytes(damaged)
            some = self.said(self.replay(cut, status=1), "end")[0]
            self.assertIn("damaged", some["text"])
        cut.write_bytes(b"no tape at all")
        self.assertEqual(self.replay(cut, status=1), [])

    def test_who_takes_over_is_recorded_too(self):
        self.record()
        self.establish()
        old = box.pid(self.site)
        status = box.ctl_json(self.site, "upgrade")
        self.assertNotEqual(status["process"], old)
        box.adopt(self.site, status["process"])
        self.assert_pings("a-h1", self.ulid("b-h1"))
        stopped = box.ctl_json(self.site, "record", "stop")
        self.assertEqual((stopped["running"], stopped["ended"]), (False, "the operator stopped it"))
        self.assert_pings("a-h1", self.ulid("b-h1"))
        first = self.said(self.replay(f"{self.tape}.old", "--inputs"), "input")
        self.assertLessEqual({"begin-bequest", "bequeath"}, {line["kind"] for line in first})
        lines = self.replay(self.tape, "--inputs", "--show", "contexts")
        self.assertIn("inherit", {line["kind"] for line in self.said(lines, "input")})
        self.assertIn("the operator stopped it", self.said(lines, "end")[0]["text"])
        self.assertEqual(len(self.said(lines, "contexts")[0]["contexts"]), 1)

    def test_a_recording_begins_in_the_middle(self):
        box.kill(self.site)
        box.start(self.site)
        box.wait_ready(self.site)
        self.establish()
        before = self.context("a-h1", "b-h1")
        self.assertFalse(box.ctl_json(self.site, "record", "status")["running"])
        for wrong in ("relative", str(self.site.config)):
            self.assertEqual(box.ctl_process(self.site, ["record", "start", wrong]).returncode, 1)
        status = box.ctl_json(self.site, "record", "start", str(self.tape), "--megabytes", "7")
        box.adopt(self.site, status["process"])
        self.assertEqual(self.context("a-h1", "b-h1")["local_tag"], before["local_tag"])
        view = box.ctl_json(self.site, "record", "status")
        self.assertEqual((view["running"], view["file"], view["octets_max"]), (True, str(self.tape), 7_000_000))
        self.assertEqual(box.ctl_process(self.site, ["record", "start", f"{self.tape}2"]).returncode, 1)
        self.assert_pings("a-h1", self.ulid("b-h1"))
        box.ctl_json(self.site, "record", "stop")
        lines = self.replay(self.tape, "--show", "contexts")
        self.assertEqual(self.said(lines, "contexts")[0]["contexts"][0]["local_tag"], before["local_tag"])

    def test_a_recording_that_cannot_go_on_ends_and_the_box_does_not(self):
        # Nowhere to write.
        box.kill(self.site)
        beside = Path(tempfile.mkdtemp(dir=self.site.run_dir))
        box.start(self.site, "--record", str(beside / "no" / "such" / "folder"))
        box.wait_ready(self.site)
        self.establish()
        view = box.ctl_json(self.site, "record", "status")
        self.assertEqual((view["running"], view["file"]), (False, None))
        box.kill(self.site)
        # As long as it may be, soon.
        small = beside / "small"
        box.start(self.site, "--record", str(small), "--record-megabytes", "1")
        box.wait_ready(self.site)
        self.establish()
        flood = ["ping", "-6", "-n", "-q", "-i", "0.001", "-s", "1400", "-c", "1500", str(self.site.box_address)]
        net.exec_in("a-h1", flood, check=False)
        self.wait_until("the recording ends", lambda: not box.ctl_json(self.site, "record", "status")["running"], 10)
        self.assertLessEqual(small.stat().st_size, 1_000_100)
        self.assert_pings("a-h1", self.ulid("b-h1"))
        lines = self.replay(small)
        self.assertIn("as long as it may be", self.said(lines, "end")[0]["text"])
        os.unlink(small)
        os.rmdir(beside)


if __name__ == "__main__":
    unittest.main()
