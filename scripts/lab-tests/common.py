"""What the lab's tests share: bringing labs up, asking boxes, sending and judging packets.

Every test class brings up the lab it needs and takes it down, so a test file can be run alone:
`sudo python3 scripts/lab-tests/test_traffic.py -v`. Build first; the tests do not.
"""

import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import shim6_decode  # noqa: E402
from pslab import box, capture, lab, net, plan, routing, stores, trouble  # noqa: E402
from pslab.transfer import Transfer  # noqa: E402

MB = 1_000_000
ULIDS = "fc00::/7"
SITES = plan.SITES


class LabTest(unittest.TestCase):
    """A test case with a lab of its own; subclasses say which."""

    options = {}

    @classmethod
    def setUpClass(cls):
        cls.hosts = lab.up(lab.Options(**{"build": False, "send_timeout": 3, **cls.options}), say=note)

    @classmethod
    def tearDownClass(cls):
        wrong = box.replay_tapes()
        lab.down(say=note)
        if wrong:
            raise AssertionError("a replay decides otherwise:\n" + "\n".join(wrong))

    def ulid(self, node):
        return self.hosts[node]["ulid"]

    def ping(self, node, address, *arguments, count=3, wait_s=3):
        """Runs ping in a node and returns the completed process."""
        command = ["ping", "-6", "-n", "-c", str(count), "-i", "0.2", "-W", str(wait_s), *arguments, address]
        return net.exec_in(node, command, check=False)

    def assert_pings(self, node, address, *arguments, **options):
        done = self.ping(node, address, *arguments, **options)
        self.assertEqual(done.returncode, 0, f"{node} -> {address}: {done.stdout}{done.stderr}")
        return done

    def establish(self, source="a-h1", destination="b-h1"):
        """Makes sure the pair has a context that carries traffic, and returns it as seen at the source's box."""
        self.assert_pings(source, self.ulid(destination), count=3, wait_s=8)
        return self.context(source, destination)

    def context(self, source, destination):
        """The context of a pair of hosts at the source's box; exactly one must be there."""
        found = self.contexts(source, destination)
        self.assertEqual(len(found), 1, found)
        return found[0]

    def contexts(self, source, destination):
        site = SITES[source[0]]
        pair = self.ulid(source), self.ulid(destination)
        return [c for c in box.contexts(site) if (c["ulid_local"], c["ulid_peer"]) == pair]

    def provider_in_use(self, source="a-h1", destination="b-h1"):
        """Through which of its own providers the source's site sends to the destination now."""
        provider = plan.provider_of(self.context(source, destination)["current"]["local"])
        self.assertIsNotNone(provider)
        self.assertEqual(provider.site, source[0])
        return provider.name

    def counters(self, site="a"):
        """The flat counters of a box."""
        counters = box.counters(SITES[site])
        self.assertTrue(all(isinstance(value, int) for value in counters.values()), counters)
        return counters

    def assert_no_spoofing(self):
        """No box ever sent a packet through a provider that did not delegate its source."""
        for name, found in net.drops().items():
            self.assertEqual(found.get("spoofed", 0), 0, f"{name} dropped packets with a foreign source")
            self.assertEqual(found.get("identifiers", 0), 0, "a ULID leaked into the core")

    def wait_until(self, what, condition, timeout_s=10.0, step_s=0.1):
        """Waits for a condition and fails by its name."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"not within {timeout_s} s: {what}")
            time.sleep(step_s)

    def transfer(self, total, rate, meanwhile=None, at=0.25, **options):
        """A TCP transfer a-h1 -> b-h1; `meanwhile(transfer)` runs when the part `at` of it has arrived."""
        running = Transfer("a-h1", "b-h1", self.ulid("b-h1"), total, rate, **options)
        try:
            if meanwhile:
                running.wait_received(int(at * total), timeout_s=60)
                meanwhile(running)
            result = running.wait(timeout_s=180)
        finally:
            running.abort()
        told = f"{result['bytes'] / MB:.0f} MB, longest silence {result['outage_ms']} ms"
        note(f"{self.id().split('.', 1)[-1]}: {told}")
        self.assertTrue(result["complete"], result)
        self.assertTrue(result["sha256_match"], result)
        return result

    def judge(self, files, midstream=False, ulids=ULIDS):
        """Has the strict decoder judge captures; any violation fails the test."""
        summary = shim6_decode.decode(files, ulids, midstream).summary()
        shown = "\n".join(f"{v['file']}:{v['packet']}: [{v['rule']}] {v['text']}" for v in summary["violations"][:20])
        self.assertTrue(summary["ok"], f"{summary['violation_counts']}\n{shown}")
        return summary

    def judge_checksums(self, files):
        """What tshark 4.0 is good for: every Shim6 checksum, and nothing else."""
        total = 0
        for path in files:
            command = ["tshark", "-n", "-r", path, "-Y", "shim6.checksum", "-T", "fields", "-e", "shim6.checksum.status"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            statuses = [word for line in done.stdout.split() for word in line.split(",")]
            # 1 is good, 0 bad, 2 unverified; the last would mean that tshark checked nothing.
            self.assertEqual(set(statuses) - {"1"}, set(), f"{path}: tshark's verdicts {statuses}")
            total += len(statuses)
        return total

    def capturing(self, **options):
        return Capturing(self, **options)


class Capturing:
    """`with self.capturing() as seen:` captures at all providers; afterwards `seen.files` is set."""

    def __init__(self, test, **options):
        self.test, self.options, self.files = test, options, []

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="pshim6-")
        self.test.addCleanup(self.folder.cleanup)
        self.running = capture.Capture(self.folder.name, **self.options)
        return self

    def __exit__(self, kind, *_):
        try:
            self.files = self.running.stop()
        except net.LabError:
            if kind is None:
                raise


def note(text):
    """A line of progress; on stderr, as unittest's own."""
    print(f"    {text}", file=sys.stderr, flush=True)


def left_behind():
    """Everything a lab that is down must not have left: namespaces, files, processes, links."""
    found = [f"namespace {plan.namespace(node)}" for node in net.existing_namespaces()]
    if plan.RUN_DIR.exists():
        found.append(str(plan.RUN_DIR))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if f"{plan.RUN_DIR}/".encode() in command:
            found.append(f"process {pid}: {command.replace(bytes(1), b' ').decode(errors='replace')}")
    links = net.run(["ip", "-o", "link"]).stdout
    found += [line for line in links.splitlines() if any(f": {name}@" in line for name in ("cust0", "up0", "lan0"))]
    return found


def need_boxes():
    """Skips nothing silently: without the programs the tests that need them fail with one clear line."""
    if not os.access(box.binary("pshim6d"), os.X_OK):
        raise net.LabError(f"{box.binary('pshim6d')} is not built: cargo build --release -p control --features dpdk")
