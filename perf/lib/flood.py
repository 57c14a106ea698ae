"""A flood of I1s among payload: what becomes of the payload."""

import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

from . import stats
from .hugepages import Hugepages
from .programs import BUILT, Box, Failed
from .replay import devices, scratch, setup
from .scale import octets

EVERY = 5
"""Of a provider's frames, each of so many is an I1."""


def captures(folder, contexts, flood):
    folder.mkdir()
    words = [BUILT / "perf-frames", "--contexts", contexts, "--folder", folder, *(["--flood", EVERY] if flood else [])]
    subprocess.run([str(word) for word in words], check=True)
    return devices(folder, "both", 1)


def measure(contexts, core=1, rounds=7, seconds=0.5):
    """The box with I1s among its provider's frames and without, in turn. Every frame has to be accounted for: payload is translated, and
    an I1 is control's or was refused by its rate."""
    with tempfile.TemporaryDirectory(prefix="perf-", dir=scratch()) as folder, contextlib.ExitStack() as stack:
        memory = setup(contexts, "both", "64", 1)
        stack.enter_context(Hugepages(2 * memory.memory))
        boxes = {
            name: stack.enter_context(Box(*captures(Path(folder) / name, contexts, name == "flood"), contexts, [core], memory))
            for name in ("calm", "flood")
        }
        found = {name: [] for name in boxes}
        before = None
        for turn in range(rounds + 1):
            for name in list(boxes)[:: 1 if turn % 2 else -1]:
                box = boxes[name]
                box.start()
                time.sleep(0.1)
                sample = box.ask(f"sample {seconds}")
                box.stop()
                if turn > 0:
                    found[name].append(sample)
            # After the first round every page that is ever used was.
            before = before or octets(boxes["flood"].process)
        grown = octets(boxes["flood"].process) - before
    for sample in found["calm"] + found["flood"]:
        account(sample)
    payload = {name: [one["translated"] / one["seconds"] for one in all] for name, all in found.items()}
    i1s = [i1s_of(one) / one["seconds"] for one in found["flood"]]
    return {
        "contexts": contexts,
        "i1s_per_second": round(stats.median(i1s)),
        "punted_per_second": round(stats.median([one["punted"] / one["seconds"] for one in found["flood"]])),
        "payload_pps": round(stats.median(payload["flood"])),
        "payload_pps_without": round(stats.median(payload["calm"])),
        "octets_grown": grown,
        "samples_pps": {name: [round(one) for one in all] for name, all in payload.items()},
    }


def i1s_of(sample):
    return sample["punted"] + sample["drops"].get("ControlRate", 0) + sample["drops"].get("RingFull", 0)


def account(sample):
    """Payload that was lost would be missing."""
    others = {reason: count for reason, count in sample["drops"].items() if reason not in ("ControlRate", "RingFull")}
    # What was under way at the start or the end may be counted on one side alone.
    if others or abs(sample["translated"] + i1s_of(sample) - sum(sample["received"])) > 8192:
        raise Failed(f"the box did not translate all payload: {sample}")
