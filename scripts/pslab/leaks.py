"""What a box holds: memory, descriptors, packet buffers, contexts. Compared before and after something that should leave no trace."""

import os
from pathlib import Path

from . import box

SETTLE_S = 5.0
# Caches and tables fill up to their bounds in the first minutes, and allocators keep what they had at their busiest.
MEMORY_MORE_MB = 48
DESCRIPTORS_MORE = 8
BUFFERS_MORE = 512  # on their way, or in workers' caches
CONTEXTS_MORE = 16  # those of sessions that came back another way, until they have been idle for long enough


def measure():
    """What each box that runs holds now, by its name."""
    found = {}
    for each in box.every():
        number = box.pid(each)
        if number is None:
            continue
        status = box.ctl_json(each, "status")
        memory = status["memory"]
        found[each.box] = {
            "process": number,
            "memory_mb": resident_mb(number),
            "descriptors": len(os.listdir(f"/proc/{number}/fd")),
            "buffers": memory["buffers"] - memory["buffers_free"],
            "contexts": status["contexts"]["total"],
        }
    return found


def resident_mb(number):
    for line in Path(f"/proc/{number}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0


def grown(before, after):
    """What there is more of than it should be. A process that was started in between is held against the one before it: it
    has had less time to grow."""
    wrong = [f"{name} does not run" for name in before if name not in after]
    bounds = {"memory_mb": MEMORY_MORE_MB, "descriptors": DESCRIPTORS_MORE, "buffers": BUFFERS_MORE, "contexts": CONTEXTS_MORE}
    for name, now in after.items():
        then = before.get(name, now)
        for what, more in bounds.items():
            if now[what] > then[what] + more:
                wrong.append(f"{name}: {what} grew from {then[what]} to {now[what]}")
    return wrong
