"""Many contexts: how fast they come, what they take, and what coming and going costs those that stay."""

import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

from . import stats
from .hugepages import Hugepages
from .programs import BUILT, Box, Setup, ahead
from .replay import devices, scratch

HANDSHAKES = BUILT / "examples" / "handshakes"
SILENT = ("net_null0,no-rx=1", "net_null1,no-rx=1")


def octets(process):
    """Ordinary memory of a process: the tables, for packet buffers are in hugepages."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def fill(contexts, core=1):
    """Fills a table through the ring of commands, with nothing else to do."""
    setup = Setup(buffers=8191)
    with Hugepages(setup.memory):
        with Box(*SILENT, 1, [core], setup) as empty:
            before = octets(empty.process)
        with Box(*SILENT, contexts, [core], setup) as box:
            after, seconds = octets(box.process), box.ready["fill_seconds"]
    return {
        "contexts": contexts,
        "octets_per_context": round((after - before) / contexts, 1),
        "installs_per_second": round(contexts / seconds),
    }


def churn(contexts, flows=1000, core=1, seconds=1.0, rounds=3):
    """Replays traffic of some contexts as fast as can be while others come and go."""
    with tempfile.TemporaryDirectory(prefix="perf-", dir=scratch()) as folder:
        words = ["--contexts", flows, "--folder", folder]
        subprocess.run([str(word) for word in [BUILT / "perf-frames", *words]], check=True)
        setup = Setup(buffers=2 * flows + 8191)
        with Hugepages(setup.memory), Box(*devices(Path(folder), "both", 1), contexts, [core], setup) as box:
            box.start()
            time.sleep(0.2)
            calm = [box.sample(seconds) for _ in range(rounds)]
            busy = [box.ask(f"churn {seconds} {contexts // 2}") for _ in range(rounds)]
            apart = [box.ask(f"apart {contexts // 4} {contexts // 2}") for _ in range(rounds)]
            box.stop()
    drops = sum(sum(one["drops"].values()) for one in busy + apart)
    busy.sort(key=lambda one: one["churned"] / one["seconds"])
    middle = busy[len(busy) // 2]
    return {
        "contexts": contexts,
        "flows": flows,
        "churned_per_second": round(middle["churned"] / middle["seconds"]),
        "removed_per_second": round(stats.median([one["removed_per_s"] for one in apart])),
        "installed_per_second": round(stats.median([one["installed_per_s"] for one in apart])),
        "pps_while_installing": round(stats.median([rate(one["installing"]) for one in apart])),
        "pps_meanwhile": round(rate(middle)),
        "pps_without": round(sorted(calm)[len(calm) // 2]),
        "dropped_meanwhile": drops,
    }


def rate(found):
    """Packets per second that came in."""
    return sum(found["received"]) / found["seconds"]


def handshakes(proofs, rounds):
    """RFC 9693's connection establishment rate: handshakes per second of the control core through the real responder, I1
    and I2 in, R1 and R2 out; and I1s of a flood, which must cost no memory. `proofs` maps names to arguments."""
    samples = {name: [] for name in proofs}
    for _ in range(rounds):
        for name, words in proofs.items():
            done = subprocess.run([HANDSHAKES, *words], stdout=subprocess.PIPE, check=True, preexec_fn=ahead)
            samples[name].append(json.loads(done.stdout))
    rows = []
    for name, found in samples.items():
        rates = [one["handshakes"]["handshakes_per_s"] for one in found]
        floods = [one["flood"] for one in found]
        rows.append({
            "proof": name,
            "handshakes_per_second": round(stats.median(rates)),
            "flood_i1_per_second": round(stats.median([flood["i1s_per_s"] for flood in floods])),
            "flood_octets": max(flood["octets_more"] for flood in floods),
            "samples_per_second": [round(rate) for rate in rates],
        })
    return rows
