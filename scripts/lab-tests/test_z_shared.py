#!/usr/bin/env python3
"""Two boxes on one store: files that they share, whose a name is, and papers that change while they run."""

import json
import secrets
import time
import unittest

from common import SITES, LabTest, box, need_boxes, net, note, stores

EXTRA = """
[[peer]]
name = "extra"
ulid = "fc00:77:0:1::1"
locators = ["2001:db8:77::1"]
"""


def setUpModule():
    need_boxes()


class Shared(LabTest):
    options = {"ha": True}

    def setUp(self):
        self.first, self.second = SITES["a"].boxes
        for each in (self.first, self.second):
            self.reached(each)

    def store(self, each):
        return box.ctl_json(each, "status")["store"]

    def shared(self, each, name):
        """Version, author, and whether the box could not obey it; nothing if it has not heard of any."""
        found = [it for it in self.store(each)["shared"] if it["name"] == name]
        return next(((it["version"], it["by"], it["refused"]) for it in found), None)

    def reached(self, each):
        self.wait_until(f"{each.box} reaches the store", lambda: self.store(each).get("alone") is None, 20)

    def succeeds(self, each, *arguments):
        done = box.ctl_process(each, arguments)
        self.assertEqual(done.returncode, 0, f"{each.box} {arguments}: {done.stdout}{done.stderr}")

    def text(self, each, name):
        file = each.run_dir / name
        return file.read_text() if file.exists() else None

    def assert_follows(self, name, share, version, by):
        """Both have this version, and the file says the same at both."""
        for each in (self.first, self.second):
            self.wait_until(f"{share} at {each.box}", lambda e=each: self.shared(e, share) == (version, by, False))
        self.wait_until("both say the same", lambda: self.text(self.first, name) == self.text(self.second, name))

    def policy(self, peers):
        match = {"name": "some", "match": {"peers": peers}, "both": {"prefer": ["x"]}}
        return json.dumps({"version": 1, "classes": [match]})

    def test_hosts_and_policy_follow_and_what_one_box_refuses_the_others_keep(self):
        self.wait_until("hosts are shared", lambda: self.shared(self.second, "hosts") is not None)
        version = self.shared(self.first, "hosts")[0]
        self.succeeds(self.first, "host", "add", "a-new")
        self.assert_follows("hosts.json", "hosts", version + 1, self.first.box)
        self.assertIn("a-new", self.text(self.second, "hosts.json"))
        hosts = {box.ctl_json(each, "status")["hosts"] for each in (self.first, self.second)}
        self.assertEqual(len(hosts), 1, "both serve the same hosts")
        self.succeeds(self.second, "host", "remove", "a-new")
        self.assert_follows("hosts.json", "hosts", version + 2, self.second.box)
        # A policy, from the other side.
        good = json.dumps({"version": 1, "providers": {"x": {"capacity_mbps": 100}, "y": {"capacity_mbps": 50}}})
        (self.second.run_dir / "policy.json").write_text(good)
        self.succeeds(self.second, "reload")
        self.assert_follows("policy.json", "policy", 1, self.second.box)
        # One that only the first can obey: it names a peer that the second does not know.
        before = self.first.config.read_text()
        self.first.config.write_text(before + EXTRA)
        wanted = self.policy(["extra"])
        (self.first.run_dir / "policy.json").write_text(wanted)
        self.succeeds(self.first, "reload")
        self.wait_until("the second refuses it", lambda: self.shared(self.second, "policy") == (2, self.first.box, True))
        self.assertEqual(self.text(self.second, "policy.json"), good, "it is put back")
        self.assertEqual(self.shared(self.first, "policy"), (2, self.first.box, False))
        # A restart is no change of the operator's.
        box.restart(self.second)
        self.reached(self.second)
        began = time.monotonic()
        while time.monotonic() < began + 4:
            self.assertEqual(self.shared(self.first, "policy"), (2, self.first.box, False))
            self.assertEqual(self.text(self.first, "policy.json"), wanted)
            time.sleep(0.2)
        self.assertEqual(self.shared(self.second, "policy"), (2, self.first.box, True))
        # Taught about the peer, the second takes it.
        self.second.config.write_text(self.second.config.read_text() + EXTRA)
        # The stores are on the boxes' network, and nowhere else.
        net.exec_in(self.second.box, box.ctl_command(self.second, ["store", "pull"]))
        self.succeeds(self.second, "reload")
        self.assert_follows("policy.json", "policy", 2, self.first.box)

    def test_a_name_that_another_box_has_is_said_and_an_upgrade_is_no_other_box(self):
        taken = lambda each: self.store(each).get("name_taken")  # noqa: E731
        box.succeed(self.first)
        self.reached(self.first)
        time.sleep(4)
        self.assertEqual((taken(self.first), box.counters(self.first)["control_store_name_taken"]), (None, 0))
        before = self.second.config.read_text()
        self.second.config.write_text(before.replace(f'name = "{self.second.box}"', f'name = "{self.first.box}"'))
        box.restart(self.second)
        self.wait_until("it is said", lambda: self.first.box in (taken(self.second) or ""))
        self.assertEqual(box.counters(self.second)["control_store_name_taken"], 1)
        self.assertIsNone(taken(self.first), "it was there before")
        # A box that knows nothing yet does not start.
        box.kill(self.second)
        copy = self.second.run_dir / "store.redb"
        copy.rename(copy.with_suffix(".kept"))
        box.start(self.second)
        self.wait_until("it ends", lambda: box.pid(self.second) is None, 60)
        self.assertIn("goes by box.name", box.log_tail(self.second))
        copy.with_suffix(".kept").rename(copy)
        self.second.config.write_text(before)
        box.restart(self.second)
        self.reached(self.second)
        self.assertIsNone(taken(self.second))

    def test_another_password_is_taken_by_a_reload(self):
        site, password = SITES["a"], secrets.token_hex(16)
        user, root = stores.user(site), (stores.DIRECTORY / "root.password").read_text()
        for words in (("user", "delete", user), ("user", "add", f"{user}:{password}"), ("user", "grant-role", user, user)):
            stores.ctl(*words, password=root)
        alone = lambda each: self.store(each).get("alone") is not None  # noqa: E731
        for each in (self.first, self.second):
            self.wait_until(f"{each.box} is refused", lambda e=each: alone(e), 20)
        stores.password_file(site).write_text(password)
        for each in (self.first, self.second):
            self.succeeds(each, "reload")
            self.reached(each)
        note("both boxes reach the store by the new password")


if __name__ == "__main__":
    unittest.main()
