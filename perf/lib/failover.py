"""A provider is lost: how long until all contexts of it use another path, and what others feel of that. No root, no DPDK."""

import json
import subprocess

from .programs import BUILT, ahead

PROGRAM = BUILT / "examples" / "failover"


def measure(sizes, rounds):
    words = ["--rounds", str(rounds), "--sizes", ",".join(map(str, sizes))]
    done = subprocess.run([str(PROGRAM), *words], stdout=subprocess.PIPE, check=True, preexec_fn=ahead)
    found = json.loads(done.stdout)
    rows = found["results"]
    # Most contexts to fewest: what the number of contexts costs.
    found["ratio"] = round(rows[-1]["lost_turn_ns"] / rows[0]["lost_turn_ns"], 2)
    return found
