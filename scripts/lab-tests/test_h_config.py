#!/usr/bin/env python3
"""A wrong configuration is refused with file, line and field, by `pshim6ctl check` and by the daemon itself."""

import subprocess
import tempfile
import unittest
from pathlib import Path

from common import SITES, box, lab, need_boxes

# What is replaced, by what, and the field the message has to name.
WRONG = [
    ('name = "a-box"', 'name = "a-box"\ncolour = "red"', "colour"),
    ("id = 1", "id = 16", "id"),
    ("id = 1", 'id = "one"', "id"),
    ("workers = 1", "workers = 0", "workers"),
    ('idle = "sleep"', 'idle = "nap"', "idle"),
    ('hugepages = "auto"', 'hugepages = "maybe"', "hugepages"),
    ('prefix = "fc00:a::/48"', 'prefix = "fc00:a::/129"', "prefix"),
    ('prefix = "fc00:a::/48"', 'prefix = "2001:db8::/48"', "prefix"),
    ('lan = "fc00:a:0:1::/64"', 'lan = "fc00:b:0:1::/64"', "lan"),
    ('port = "lan"', 'port = "nan"', "port"),
    ('next_hop = "2001:db8:a1:ffff::1"', 'next_hop = "nowhere"', "next_hop"),
    ('prefix = "2001:db8:a1:1::/64"', 'prefix = "2001:db8:a1:1::/65"', "prefix"),
    ("send_timeout_s = 15", "send_timeout_s = 0", "send_timeout_s"),
]


def setUpModule():
    need_boxes()


class Configuration(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="pshim6-")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "site.toml"
        self.good = box.config_text(SITES["a"], lab.Options())

    def check(self, text):
        self.path.write_text(text)
        command = [box.binary("pshim6ctl"), "--config", str(self.path), "check"]
        return subprocess.run(command, capture_output=True, text=True)

    def test_the_labs_own_configuration_is_accepted(self):
        done = self.check(self.good)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_wrong_fields_are_named_with_file_and_line(self):
        for right, wrong, field in WRONG:
            with self.subTest(wrong=wrong):
                self.assertIn(right, self.good)
                text = self.good.replace(right, wrong, 1)
                first = text[: text.index(wrong)].count("\n") + 1
                done = self.check(text)
                said = done.stdout + done.stderr
                self.assertNotEqual(done.returncode, 0, said)
                self.assertIn("site.toml", said)
                lines = range(first, first + wrong.count("\n") + 1)
                self.assertTrue(any(f":{line}" in said or f"line {line}" in said for line in lines), said)
                self.assertIn(field, said)

    def test_broken_toml_is_named_with_its_line(self):
        done = self.check(self.good.replace("workers = 1", "workers = = 1"))
        self.assertNotEqual(done.returncode, 0)
        line = self.good[: self.good.index("workers = 1")].count("\n") + 1
        said = done.stdout + done.stderr
        self.assertTrue(f":{line}" in said or f"line {line}" in said, said)

    def test_the_daemon_refuses_it_as_well(self):
        self.path.write_text(self.good.replace("workers = 1", "workers = 0"))
        command = [box.binary("pshim6d"), "--config", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("workers", done.stdout + done.stderr)

    def test_hosts_are_added_once(self):
        self.path.write_text(self.good)
        command = [box.binary("pshim6ctl"), "--config", str(self.path), "host", "add", "a-h1", "--json"]
        first = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(first.returncode, 0, first.stderr)
        again = subprocess.run(command, capture_output=True, text=True)
        self.assertNotEqual(again.returncode, 0, "the same name twice")


if __name__ == "__main__":
    unittest.main()
