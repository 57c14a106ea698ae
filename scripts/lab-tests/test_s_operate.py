#!/usr/bin/env python3
"""What an operator asks a running box: what becomes of packets, what would become of one, and its figures, read by Prometheus."""

import json
import shutil
import subprocess
import tempfile
import time
import unittest
import urllib.parse
from pathlib import Path

from common import SITES, LabTest, box, need_boxes, net, plan

METRICS = '[metrics]\nlisten = "127.0.0.1:9464"\n[manage]\nread_socket = "read.sock"\n'


def setUpModule():
    need_boxes()


def ctl(site, *arguments, check=True):
    command = [box.binary("pshim6ctl"), "--config", str(SITES[site].config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60)


class Asking(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        site = SITES["a"]
        # The box's namespace has no loopback interface that is up, and no IPv6 of the kernel's.
        net.exec_in(site.box, ["ip", "link", "set", "lo", "up"])
        site.config.write_text(site.config.read_text() + METRICS)
        box.restart(site)

    def test_1_a_trace_shows_packets_before_and_after(self):
        self.establish()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.pcapng"
            command = [box.binary("pshim6ctl"), "--config", str(SITES["a"].config), "trace", self.ulid("b-h1"), "--json"]
            command += ["--count", "4", "--seconds", "20", "--pcapng", str(file)]
            tracing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            time.sleep(0.5)
            self.assert_pings("a-h1", self.ulid("b-h1"), count=5)
            out, err = tracing.communicate(timeout=30)
            self.assertEqual(tracing.returncode, 0, err)
            records = [json.loads(line) for line in out.splitlines()]
            self.assertEqual(len(records), 4, out)
            tag = self.context("a-h1", "b-h1")["local_tag"]
            for record in records:
                self.assertEqual((record["decision"], record["local_tag"]), ("forward", tag))
                self.assertTrue(any(stage.startswith("rewritten: ") for stage in record["stages"]), record)
            self.assertEqual({record["port_in"] for record in records}, {"lan", "x"})
            read = net.run(["tshark", "-r", str(file), "-T", "fields", "-e", "frame.comment", "-e", "frame.interface_name"])
            lines = read.stdout.strip().splitlines()
            self.assertEqual(len(lines), 8, "each packet as it came and as it left")
            self.assertTrue(all("context: the context " + tag in line for line in lines), lines)

    def test_2_a_dropped_packet_names_its_reason(self):
        self.establish()
        command = [box.binary("pshim6ctl"), "--config", str(SITES["a"].config), "trace", "--drop", "hop_limit", "--json"]
        tracing = subprocess.Popen([*command, "--count", "1", "--seconds", "20"], stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)
        self.ping("a-h1", self.ulid("b-h1"), "-t", "1", count=2, wait_s=1)
        out, _ = tracing.communicate(timeout=30)
        self.assertEqual(json.loads(out)["reason"], "drop_hop_limit")
        self.assertIn("drop_hop_limit", ctl("a", "counters", "drop_hop", "--explain").stdout)

    def test_3_an_explanation_is_what_happens(self):
        context = self.establish()
        asked = ["explain", self.ulid("a-h1"), self.ulid("b-h1"), "--proto", "icmpv6", "--json"]
        view = json.loads(ctl("a", *asked).stdout)
        rewritten = next(stage for stage in view["packet"]["stages"] if stage.startswith("rewritten: "))
        pair = context["current"]
        self.assertIn(f"{pair['local']} > {pair['peer']}", rewritten)
        self.assertEqual(view["packet"]["port_out"], plan.provider_of(pair["local"]).name)
        unknown = json.loads(ctl("a", "explain", self.ulid("a-h1"), "fc00:ffff::1", "--json").stdout)
        self.assertEqual(unknown["packet"]["decision"], "hold")
        # Nothing of it was sent, and nobody was asked.
        self.assertFalse([c for c in box.contexts(SITES["a"]) if c["ulid_peer"] == "fc00:ffff::1"])

    def test_4_who_may_look_may_not_touch(self):
        socket = str(SITES["a"].config.parent / "read.sock")
        self.assertEqual(json.loads(ctl("a", "--socket", socket, "status", "--json").stdout)["name"], "a-box")
        refused = ctl("a", "--socket", socket, "reload", check=False)
        self.assertEqual((refused.returncode, "for operators" in refused.stderr), (4, True), refused.stderr)
        self.assertIn("PORT", ctl("a", "top", "--once").stdout)

    def test_4_a_mistake_with_files_is_told_and_changes_nothing(self):
        hosts = SITES["a"].config.parent / "hosts.json"
        served = len(box.ctl_json(SITES["a"], "hosts")["hosts"])
        away = hosts.rename(hosts.with_suffix(".away"))
        try:
            refused = ctl("a", "reload", check=False)
        finally:
            away.rename(hosts)
        self.assertEqual((refused.returncode, "does not exist any more" in refused.stderr), (1, True), refused.stderr)
        self.assertEqual(len(box.ctl_json(SITES["a"], "hosts")["hosts"]), served)
        for file in ("/nonexistent/tape", "/proc/tape"):
            refused = ctl("a", "record", "start", file, check=False)
            self.assertEqual((refused.returncode, file in refused.stderr), (1, True), refused.stderr)

    @unittest.skipUnless(shutil.which("prometheus"), "Prometheus is not installed")
    def test_5_prometheus_reads_the_figures_and_the_rules(self):
        self.establish()
        rules = plan.ROOT / "packaging" / "prometheus" / "pshim6.rules.yml"
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "prometheus.yml"
            config.write_text(
                "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
                f"rule_files: [{rules}]\n"
                'scrape_configs: [{job_name: pshim6, static_configs: [{targets: ["127.0.0.1:9464"]}]}]\n'
            )
            command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
            command += ["--web.listen-address=127.0.0.1:9465"]
            node = SITES["a"].box
            server = subprocess.Popen(net.inside(node, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                self.assertEqual(self.value(node, "pshim6_ready"), 1)
                self.assertEqual(self.value(node, 'up{job="pshim6"}'), 1)
                self.assertGreaterEqual(self.value(node, 'pshim6_contexts{state="established"}'), 1)
                self.assertGreaterEqual(self.value(node, "sum(pshim6_worker_turn_seconds_count)"), 1)
                self.assertGreaterEqual(self.value(node, "sum(pshim6_handshake_seconds_count)"), 1)
                answer = self.ask(node, "api/v1/rules")
                states = {rule["name"]: rule for group in answer["data"]["groups"] for rule in group["rules"]}
                self.assertGreater(len(states), 10)
                self.assertFalse([name for name, rule in states.items() if rule.get("lastError")], states)
            finally:
                server.terminate()
                server.wait(20)

    def ask(self, node, place):
        done = net.exec_in(node, ["curl", "-s", "-g", "--max-time", "5", f"http://127.0.0.1:9465/{place}"], check=False)
        return json.loads(done.stdout) if done.stdout.strip().startswith("{") else None

    def value(self, node, query):
        """What Prometheus says, as soon as it says something."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            answer = self.ask(node, "api/v1/query?query=" + urllib.parse.quote(query))
            if answer and answer.get("data", {}).get("result"):
                return float(answer["data"]["result"][0]["value"][1])
            time.sleep(0.5)
        self.fail(f"no answer to {query}")


if __name__ == "__main__":
    unittest.main()
