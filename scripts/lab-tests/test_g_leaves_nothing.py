#!/usr/bin/env python3
"""`lab down` leaves nothing behind, whatever state the boxes are in."""

import os
import signal
import subprocess
import sys
import time
import unittest

from common import LabTest, box, lab, left_behind, need_boxes, note, plan

LAB = str(plan.ROOT / "scripts" / "lab")


def setUpModule():
    need_boxes()


class Down(unittest.TestCase):
    def setUp(self):
        lab.down(say=note)
        self.before = lab.reserved_hugepages()

    def tearDown(self):
        lab.down(say=note)

    def up(self):
        lab.up(lab.Options(build=False), say=note)

    def assert_nothing_left(self):
        self.assertEqual(left_behind(), [])
        self.assertEqual(lab.reserved_hugepages(), self.before)

    def test_after_an_orderly_life(self):
        self.up()
        # Boxes that run share no files with anybody, so DPDK's folder for them is empty and not the lab's to remove.
        self.assertEqual(os.listdir(plan.RUN_DIR / "dpdk"), [])
        lab.down(say=note)
        self.assert_nothing_left()

    def test_after_both_boxes_crashed(self):
        self.up()
        for site in plan.SITES.values():
            self.assertTrue(box.kill(site))
        lab.down(say=note)
        self.assert_nothing_left()

    def test_after_an_up_that_was_killed(self):
        for delay_s in (0.4, 0.8):
            running = subprocess.Popen([LAB, "up", "--no-build"], stdout=subprocess.DEVNULL, start_new_session=True)
            time.sleep(delay_s)
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            lab.down(say=note)
            self.assert_nothing_left()

    def test_up_is_quick(self):
        began = time.monotonic()
        self.up()
        self.assertLess(time.monotonic() - began, 8)


class Restart(LabTest):
    def test_kill_and_restart_by_command(self):
        for words in (["kill-box", "a"], ["restart-box", "a"], ["restart-box", "b"]):
            done = subprocess.run([LAB, *words], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.establish()
        done = subprocess.run([LAB, "ctl", "a", "status", "--json"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)


class Demo(unittest.TestCase):
    """The demo that cannot be saved fails, soon enough, and cleans up."""

    def test_the_demo_fails_when_both_providers_are_cut(self):
        demo = str(plan.ROOT / "scripts" / "pslab" / "demo.py")
        command = [sys.executable, "-B", demo, "--no-build", "--cut-both", "--megabytes", "40"]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertIn("FAILED", done.stdout)
        self.assertIn("CUT", done.stdout)
        note(f"the broken demo ended after {time.monotonic() - began:.0f} s")
        self.assertEqual(left_behind(), [])


if __name__ == "__main__":
    unittest.main()
