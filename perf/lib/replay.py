"""The whole box beside dpdk-testpmd, both replaying the same captures into nothing."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from . import stats
from .hugepages import Hugepages
from .programs import BUILT, Box, Setup, Testpmd

MODES = ("io", "macswap", "5tswap")
WAYS = ("out-null", "in-null", "out", "in", "both", "steered")
"""The way frames go. With `-null` the device on the other side is a plain net_null, which gives out empty frames as fast as
it is asked: testpmd swaps and sends them, the box drops them. Without, it gives nothing. Only replayed frames count. `steered` is `both`
with each worker's frames on its own queue."""


def devices(folder, way, queues):
    """The device on the hosts' side, and on the provider's."""

    def replay(number, name):
        files = [f"{name}.pcap"] if queues == 1 else [f"{name}{queue}.pcap" for queue in range(queues)]
        words = "".join(f",rx_pcap={folder / file}" for file in files)
        return f"net_pcap{number}{words},infinite_rx=1"

    if way == "steered":
        way = "both"
    silent = "" if way.endswith("-null") else ",no-rx=1"
    near = replay(0, "out") if way.startswith("out") or way == "both" else f"net_null0{silent}"
    far = replay(1, "in") if way.startswith("in") or way == "both" else f"net_null1{silent}"
    return near, far


def counted(way):
    """Which of the two ports replay."""
    return (not way.startswith("in"), not way.startswith("out"))


def setup(contexts, way, size, queues):
    # A replaying device keeps every frame of the capture in a buffer of its own.
    replayed = contexts * (2 if all(counted(way)) else 1)
    room = 2048 if contexts <= 1 << 20 else 256
    return Setup(buffers=replayed + 4096 * queues + 4095, room=room)


def measure(contexts, way, size="64", cores=(1,), rounds=7, seconds=0.5, say=print):
    """Samples in packets per second of testpmd's modes and of the box, in turn."""
    with tempfile.TemporaryDirectory(prefix="perf-", dir=scratch()) as folder:
        folder = Path(folder)
        words = ["--contexts", contexts, "--workers", len(cores), "--size", size, "--folder", folder, "--queues", len(cores)]
        words += ["--steered"] * (way == "steered")
        subprocess.run([str(word) for word in [BUILT / "perf-frames", *words]], check=True)
        near, far = devices(folder, way, len(cores))
        memory = setup(contexts, way, size, len(cores))
        with (
            Hugepages(2 * memory.memory),
            Testpmd([near, far], cores, memory) as peer,
            Box(near, far, contexts, cores, memory) as box,
        ):
            samples = take_turns(peer, box, counted(way), rounds, seconds)
    return row(dict(contexts=contexts, way=way, size=size, workers=len(cores)), samples)


def scratch():
    """Captures of millions of frames are read once; in memory that is no matter of disks."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def take_turns(peer, box, ports, rounds, seconds):
    samples = {mode: [] for mode in (*MODES, "box")}
    for turn in range(rounds + 1):
        # Each begins some round, so that none is always the one that comes after another.
        order = [*MODES, "box"]
        order = order[turn % 4 :] + order[: turn % 4]
        for name in order:
            program = box if name == "box" else peer
            if name != "box":
                peer.mode(name)
            program.start()
            time.sleep(0.1)
            found = program.sample(seconds, ports)
            program.stop()
            # The first round warms up.
            if turn > 0:
                samples[name].append(found)
    return samples


def row(what, samples):
    """Medians, and the ratio to each mode of testpmd by rounds."""
    to = {mode: stats.ratios(samples["box"], samples[mode]) for mode in MODES}
    return {
        **what,
        "mpps": {name: round(stats.median(all) / 1e6, 3) for name, all in samples.items()},
        "ns": round(1e9 / stats.median(samples["box"]), 2),
        "to": {mode: round(stats.median(all), 4) for mode, all in to.items()},
        "samples_pps": {name: [round(one) for one in all] for name, all in samples.items()},
    }
