"""Runs every test there is: format, lints, Rust tests with and without DPDK, docs, fuzz targets, the decoder, the lab.

Each step shows its own output as it runs. The last line adds up what the runners themselves counted; a step that is
one check (format, lints, a build) counts as one test.
"""

import argparse
import os
import queue
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CARGO = str(ROOT / "scripts" / "cargo")
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
PYTHON = [sys.executable, "-B", "-W", "default::ResourceWarning"]
LAB_TESTS = ROOT / "scripts" / "lab-tests"
# These count what is left on the machine, or measure silences and need its cores to themselves.
ALONE = {
    "test_b_traffic", "test_c_survival", "test_e_workers", "test_g_leaves_nothing", "test_z_active", "test_z_alive", "test_z_bmp",
    "test_z_ha", "test_z_routes",
}  # fmt: skip
LANES = 2


@dataclass
class Step:
    """One command; `kind` says how its result is counted."""

    name: str
    command: list
    kind: str = "check"  # check | cargo | unittest
    environment: dict = None
    beside: bool = False  # may run beside another such step, in a lab of its own


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0


def steps(given):
    """All steps in order, the quick and telling ones first."""
    yield Step("decoder", [*PYTHON, str(ROOT / "scripts" / "tests" / "test_decoder.py")], "unittest")
    yield Step("independent peer", [*PYTHON, str(ROOT / "scripts" / "tests" / "test_peer.py")], "unittest")
    for path in sorted((ROOT / "perf" / "tests").glob("test_*.py")):
        yield Step(f"measuring: {path.stem}", [*PYTHON, str(path)], "unittest")
    yield Step("format", [CARGO, "fmt", "--all", "--check"])
    yield Step("lints", [CARGO, "clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])
    # What DPDK is absent from is tested without it; of control only the opening of ports differs, and that has to build.
    yield Step("tests without DPDK", [CARGO, "test", "-p", "dataplane", "--no-fail-fast"], "cargo")
    yield Step("control without DPDK", [CARGO, "check", "-p", "control", "--all-targets"])
    yield Step("tests with DPDK", [CARGO, "test", "--workspace", "--all-features", "--no-fail-fast"], "cargo")
    docs = [CARGO, "doc", "--workspace", "--all-features", "--no-deps", "--document-private-items"]
    yield Step("documentation", docs, environment={"RUSTDOCFLAGS": "-D warnings"})
    if (ROOT / "fuzz" / "Cargo.toml").exists():
        yield Step("fuzz targets", [CARGO, "check", "--manifest-path", str(ROOT / "fuzz" / "Cargo.toml")])
    # As the tests were built, so that it is there already; scripts/soak builds for many more lives.
    built = f"{shlex.quote(CARGO)} build --quiet --workspace --all-features --example soak"
    soak = f"{built} && exec {shlex.quote(str(TARGET / 'debug' / 'examples' / 'soak'))}"
    yield Step("simulation: 1000 lives", ["sh", "-c", f"{soak} 1000"])
    yield Step("simulation: planted faults are found", ["sh", "-c", f"{soak} --mutants 1000"])
    if given.quick:
        return
    yield Step("release build", [CARGO, "build", "--release", "-p", "control", "--features", "dpdk"])
    for path in sorted(LAB_TESTS.glob("test_*.py")):
        yield Step(f"lab: {path.stem}", [*PYTHON, str(path)], "unittest", beside=path.stem not in ALONE)


def main():
    parser = argparse.ArgumentParser(prog="test", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the release build and the lab")
    parser.add_argument("--only", metavar="WORD", help="only steps with this word in their name")
    given = parser.parse_args()
    started = time.monotonic()
    chosen = [step for step in steps(given) if not given.only or given.only in step.name]
    done = [finish(step) for step in chosen if not step.beside]
    done += in_lanes([step for step in chosen if step.beside])
    total = Count(*(sum(getattr(count, field) for _, count in done) for field in ("passed", "failed", "skipped")))
    failures = [step.name for step, count in done if count.failed]
    if failures:
        print(f"failed: {', '.join(failures)}")
    print(f"all steps took {time.monotonic() - started:.0f} s")
    skipped = f", {total.skipped} skipped" if total.skipped else ""
    print(f"{total.passed} passed, {total.failed} failed{skipped}")
    # Nothing run is no success either.
    return 0 if total.passed and not total.failed else 1


def finish(step, lane=None):
    """Runs a step and says how it went. What runs in a lane shows its output in one piece."""
    shows = lane is None
    if shows:
        print(f"=== {step.name}", flush=True)
    began = time.monotonic()
    status, output = run(step, shows, lane)
    count = counted(step.kind, status, output)
    skipped = f", {count.skipped} skipped" if count.skipped else ""
    took = time.monotonic() - began
    told = f"--- {step.name}: {count.passed} passed, {count.failed} failed{skipped} ({took:.0f} s)"
    print(told if shows else f"=== {step.name}\n{output}{told}", flush=True)
    return step, count


def in_lanes(waiting):
    """Runs steps two at a time: mostly they wait for timers. Each lane has a lab of its own."""
    # The last ones should not be long, or one lane stands still meanwhile; sizes of files are near enough.
    waiting = sorted(waiting, key=lambda step: -Path(step.command[-1]).stat().st_size)
    free = queue.SimpleQueue()
    for lane in range(LANES):
        free.put(lane)

    def in_one(step):
        lane = free.get()
        try:
            return finish(step, lane)
        finally:
            free.put(lane)

    with ThreadPoolExecutor(LANES) as lanes:
        return list(lanes.map(in_one, waiting))


def run(step, shows, lane):
    """Runs a step, shows its output as it comes if it shall, and returns (exit status, all output)."""
    # scripts/install-deps has installed every tool the tests know of, so none may be passed over.
    environment = {"PSHIM6_TOOLS": "required", **os.environ, **(step.environment or {})}
    if lane is not None:
        environment["PSHIM6_LAB"] = f"{os.environ.get('PSHIM6_LAB', 'ps6')}{lane}"
    process = subprocess.Popen(
        step.command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    )  # fmt: skip
    lines = []
    for line in process.stdout:
        if shows:
            sys.stdout.write(line)
            sys.stdout.flush()
        lines.append(line)
    return process.wait(), "".join(lines)


def counted(kind, status, output):
    """What the step's own runner counted. A runner that failed without counting a failure counts as one."""
    if kind == "check":
        return Count(passed=int(status == 0), failed=int(status != 0))
    count = count_cargo(output) if kind == "cargo" else count_unittest(output)
    if status != 0 and count.failed == 0 or status == 0 and count.passed == 0:
        count.failed += 1
    return count


def count_cargo(output):
    """Adds up `test result: ok. 3 passed; 0 failed; 0 ignored; …` of every test binary, and what was not tried."""
    count = Count()
    for passed, failed, ignored in re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", output, re.M):
        count = Count(count.passed + int(passed), count.failed + int(failed), count.skipped + int(ignored))
    # A test that finds its tool missing says so and returns, for cargo knows no other way; it has tried nothing. With
    # PSHIM6_TOOLS=required, as here, it fails instead.
    untried = len(re.findall(r"^not tried, ", output, re.M))
    return Count(count.passed - untried, count.failed, count.skipped + untried)


def count_unittest(output):
    """Reads `Ran 12 tests in …` and `FAILED (failures=1, errors=2, skipped=3)`."""
    ran = sum(int(number) for number in re.findall(r"^Ran (\d+) tests?", output, re.M))
    verdict = dict(re.findall(r"(failures|errors|skipped|unexpected successes)=(\d+)", last_verdict(output)))
    failed = sum(int(verdict.get(name, 0)) for name in ("failures", "errors", "unexpected successes"))
    skipped = int(verdict.get("skipped", 0))
    return Count(max(0, ran - failed - skipped), failed, skipped)


def last_verdict(output):
    found = re.findall(r"^(?:OK|FAILED)\b.*$", output, re.M)
    return found[-1] if found else ""


if __name__ == "__main__":
    sys.exit(main())
