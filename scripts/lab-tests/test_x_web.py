#!/usr/bin/env python3
"""The web page of a running box, as headless Chromium shows it: figures against pshim6ctl's, a hostile name, a daemon that stops.

`PSHIM6_PICTURES=FOLDER` keeps pictures of it.
"""

import json
import os
import time
import unittest
from pathlib import Path

from common import SITES, LabTest, box, need_boxes, net
from pslab.browser import Browser, program

A = SITES["a"]
PAGE = "http://127.0.0.1:8080"
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
POLICY = {
    "version": 1,
    "classes": [{"name": HOSTILE, "match": {"dscp": ["ef"]}, "out": {"split": {"weights": {"x": 1, "y": 1}}}}],
    "default": {"out": {"split": {"weights": {"x": 3, "y": 1}}}},
}


def setUpModule():
    need_boxes()
    program()


class Page(LabTest):
    options = {"extra": '[web]\nlisten = "127.0.0.1:8080"\n'}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # The box's namespace has no loopback interface that is up.
        net.exec_in(A.box, ["ip", "link", "set", "lo", "up"])
        (A.run_dir / "policy.json").write_text(json.dumps(POLICY))
        done = box.ctl_process(A, ["policy", "load"])
        assert done.returncode == 0, done.stderr
        cls.browser = Browser(A.box)
        cls.browser.__enter__()
        cls.addClassCleanup(cls.browser.__exit__)
        cls.browser.resize(1280, 900)
        cls.browser.open(PAGE)

    def shows(self, what, condition, timeout_s=10.0):
        self.wait_until(what, condition, timeout_s, step_s=0.2)

    def row(self, table, head, name):
        """The row of a table that has this name under this head."""
        found = [row for row in self.browser.rows(table) if row.get(head) == name]
        return found[0] if found else {}

    def picture(self, name):
        if folder := os.environ.get("PSHIM6_PICTURES"):
            self.browser.picture(Path(folder) / f"{name}.png")

    def test_1_the_figures_are_the_boxes(self):
        self.establish("a-h1", "b-h1")
        self.establish("a-h2", "b-h2")
        self.ping("a-h1", self.ulid("b-h1"), "-t", "1", count=3, wait_s=1)
        status = box.ctl_json(A, "status")
        self.assertEqual(status["contexts"]["established"], 2)
        self.shows("contexts", lambda: self.row("contexts", "state", "established").get("contexts") == "2")
        self.assertEqual((self.browser.text("name"), self.browser.text("ready")), ("a-box", "ready"))
        self.assertEqual(self.browser.text("version"), status["version"])
        self.assertEqual(self.browser.value("document.title"), "a-box: ready")
        # The policy moves contexts meanwhile, so what is shown is compared until both were taken between two moves.
        self.shows("the providers", self.providers_agree)
        for port in status["ports"]:
            self.assertEqual(self.row("ports", "port", port["name"])["address"], port["mac"])
        self.assertEqual(len(self.browser.rows("workers")), 1)
        for path in box.ctl_json(A, "paths")["paths"]:
            shown = [row for row in self.browser.rows("paths") if (row["provider"], row["to"]) == (path["provider"], path["peer_prefix"])]
            self.assertEqual(len(shown), 1, path)
        self.shows("what was dropped", lambda: self.row("drops", "reason", "hop_limit").get("in all") == "3")
        row = self.row("drops", "reason", "hop_limit")
        self.assertIn("traceroute", row["what to do"])
        self.assertEqual(box.ctl_process(A, ["provider", "y", "drain"]).returncode, 0)
        self.shows("the drain", lambda: self.row("providers", "provider", "y").get("use") == "DRAINED")
        box.ctl_process(A, ["provider", "y", "restore"])
        # All of the hosts' traffic is by one provider each; what it should be is the policy's.
        ping = self.ping("a-h1", self.ulid("b-h1"), "-s", "1200", "-i", "0.05", count=140)
        self.assertEqual(ping.returncode, 0, ping.stdout)
        used = self.provider_in_use()
        self.shows("the share", lambda: self.row("providers", "provider", used).get("out share", "-") not in ("-", "0 %"))
        self.shows("the target", lambda: self.browser.value('document.querySelectorAll("#chart-out path.target").length') == 2)
        self.picture("light")

    def providers_agree(self):
        told = [
            (it["name"], "up", "normal", it["port"], str(it["contexts"]), it["prefix"], it["next_hop"])
            for it in box.ctl_json(A, "status")["providers"]
        ]
        heads = ("provider", "state", "use", "port", "contexts", "prefix", "router")
        return [tuple(row[head] for head in heads) for row in self.browser.rows("providers")] == told

    def test_2_a_failover_is_told_and_a_fresh_page_knows_it(self):
        self.establish()
        used = self.provider_in_use()
        before = sum(it["count"] for it in self.failovers()["buckets"])
        net.cut(used)
        self.addCleanup(net.heal, used)
        # Something has to be missed.
        self.ping("a-h1", self.ulid("b-h1"), count=30, wait_s=8)
        self.wait_until("the box fails over", lambda: sum(it["count"] for it in self.failovers()["buckets"]) > before, 20)
        count = sum(it["count"] for it in self.failovers()["buckets"])
        self.shows("the count", lambda: self.browser.text("failovers-said").startswith(f"{count} since the start, "))
        self.assertTrue(self.browser.rows("failovers")[0]["took"].startswith("< "))
        looks = len(json.loads(self.ask("/v1/history"))["at_s"])
        self.browser.open(PAGE)
        line = 'document.querySelector("#chart-contexts path.carried")?.getAttribute("d") ?? ""'
        self.shows("the past", lambda: self.browser.value(line).count("L") + 1 >= looks > 1)
        self.shows("when it was", lambda: "the last one" in self.browser.text("failovers-said"))

    def failovers(self):
        return json.loads(self.ask("/v1/metrics"))["failovers"]

    def ask(self, place):
        return net.exec_in(A.box, ["curl", "-s", "--max-time", "5", PAGE + place]).stdout

    def test_3_a_hostile_name_is_text(self):
        self.shows("the class", lambda: self.row("classes", "class", HOSTILE).get("provider") == "x")
        self.assertEqual(self.browser.value('document.querySelectorAll("img").length'), 0)
        self.assertEqual(self.browser.value('document.querySelectorAll("script").length'), 1)
        self.assertEqual(self.browser.value("document.title"), "a-box: ready")
        # Were the page to forget itself, the policy it came with would not have it.
        forgets = "(() => { try { document.body.innerHTML = '<b>'; return 'taken' } catch (error) { return error.name } })()"
        self.assertEqual(self.browser.value(forgets), "TypeError")

    def test_4_it_asks_nobody_else_and_fits_a_telephone(self):
        asked = {url for url in self.browser.requests() if url != "about:blank"}
        self.assertFalse({url for url in asked if not url.startswith(PAGE)})
        self.assertGreater(len(asked), 5)
        complaints = [it for it in self.browser.complaints() if "innerHTML" not in json.dumps(it) and "TrustedHTML" not in json.dumps(it)]
        self.assertEqual(complaints, [])
        self.browser.scheme("dark")
        self.picture("dark")
        self.browser.resize(360, 740)
        time.sleep(0.5)
        self.assertLessEqual(self.browser.value("document.documentElement.scrollWidth"), 360)
        self.picture("telephone")
        # Each table says what its columns and rows are, for those who are read to.
        bare = 'document.querySelectorAll("table:not(:has(thead th[scope=col]))").length'
        self.assertEqual(self.browser.value(bare), 0)
        self.browser.scheme("light")
        self.browser.resize(1280, 900)

    def test_5_a_daemon_that_stops_makes_it_stale(self):
        hidden = 'document.getElementById("stale").hidden'
        self.shows("no banner", lambda: self.browser.value(hidden))
        box.kill(A)
        self.shows("the banner", lambda: not self.browser.value(hidden))
        self.assertRegex(self.browser.text("stale"), r"^Stale: no answer from the daemon since \d\d:\d\d:\d\d ")
        self.assertTrue(self.browser.value('document.body.classList.contains("stale")'))
        self.assertEqual(self.browser.text("name"), "a-box")
        self.picture("stale")
        box.restart(A)
        self.shows("it is back", lambda: self.browser.value(hidden))
        self.shows("another life", lambda: self.row("contexts", "state", "established").get("contexts") in ("0", "1", "2"))
        self.assertRegex(self.browser.text("uptime"), r"^\d+ s$")


if __name__ == "__main__":
    unittest.main()
