"""The stages of the pipeline alone, beside a floor that only touches the same memory: no root, no DPDK."""

import json
import re
import shutil
import subprocess
import sys

from .programs import BUILT

PROGRAM = BUILT / "examples" / "translation"
KINDS = ("stages", "worker", "floor")
LABEL_KINDS = ("stages", "labelled", "floor")
DIRECTIONS = ("egress", "ingress")
LAPS = 20  # of 2048 packets, for counting instructions


SPECIAL = {"zipf": ["--law", "zipf"], "misses": ["--misses"]}
"""Traffic that is not even, and traffic some of which has no context."""


def measure(sizes, rounds, labels=False, instructions=True):
    found = _times(["--labels"] * labels, sizes, rounds)
    for name, words in {} if labels else SPECIAL.items():
        found[name] = _times(words, [size for size in sizes if size <= 1 << 20], rounds)["results"]
    found["instructions"] = count(LABEL_KINDS if labels else KINDS) if instructions else None
    return found


def _times(words, sizes, rounds):
    words = [*words, "--rounds", str(rounds), "--sizes", ",".join(map(str, sizes))]
    return json.loads(subprocess.run([str(PROGRAM), *words], stdout=subprocess.PIPE, check=True).stdout)


def count(kinds):
    """Instructions per packet at 1024 contexts: what a run counts, less what the same run counts without the work."""
    if not shutil.which("valgrind"):
        print("valgrind is not there: instructions are not counted", file=sys.stderr)
        return None
    found = {}
    for kind in kinds:
        for direction in DIRECTIONS:
            print(f"instructions: {kind}, {direction}", file=sys.stderr)
            packets, busy = _collected([kind, direction, str(LAPS)])
            _, idle = _collected([kind, direction, str(LAPS), "--idle"])
            found.setdefault(kind, {})[direction] = round((busy - idle) / packets, 1)
    return found


def _collected(words):
    """Packets, and instructions of the whole run."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(PROGRAM), "--only", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout), int(re.search(r"Collected : (\d+)", done.stderr)[1])
