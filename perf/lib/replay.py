"""The whole box beside dpdk-testpmd, both replaying the same captures into nothing."""

import contextlib
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


ALONE = "alone"
"""The box, or testpmd, with one worker, in the same rounds as with several."""


def captures(folder, contexts, way, size, queues):
    """Writes what is replayed, a file for each queue; the devices on the two sides."""
    folder.mkdir()
    words = ["--contexts", contexts, "--workers", queues, "--size", size, "--folder", folder, "--queues", queues]
    words += ["--steered"] * (way == "steered")
    subprocess.run([str(word) for word in [BUILT / "perf-frames", *words]], check=True)
    return devices(folder, way, queues)


def measure(contexts, way, size="64", cores=(1,), rounds=7, seconds=0.5, say=print):
    """Samples in packets per second of testpmd's modes and of the box, in turn; of both with one worker as well where there are
    several."""
    with tempfile.TemporaryDirectory(prefix="perf-", dir=scratch()) as folder, contextlib.ExitStack() as stack:
        ports = captures(Path(folder) / "all", contexts, way, size, len(cores))
        memory = setup(contexts, way, size, len(cores))
        several = len(cores) > 1
        stack.enter_context(Hugepages((3 if several else 2) * memory.memory))
        peer = stack.enter_context(Testpmd(ports, cores, memory))
        box = stack.enter_context(Box(*ports, contexts, cores, memory))
        programs = {mode: Mode(peer, mode, len(cores)) for mode in MODES} | {"box": box}
        if several:
            ports = captures(Path(folder) / "one", contexts, way, size, 1)
            one = stack.enter_context(Box(*ports, contexts, cores[:1], setup(contexts, way, size, 1)))
            programs |= {f"5tswap {ALONE}": Mode(peer, "5tswap", 1), f"box {ALONE}": one}
        samples = take_turns(programs, counted(way), rounds, seconds)
    return row(dict(contexts=contexts, way=way, size=size, workers=len(cores)), samples)


class Mode:
    """A way to forward of testpmd's, on so many of its cores."""

    def __init__(self, peer, mode, cores):
        self.peer, self.mode, self.cores = peer, mode, cores
        self.stop, self.sample = peer.stop, peer.sample

    def start(self):
        self.peer.mode(self.mode)
        self.peer.ask(f"set nbcore {self.cores}")
        self.peer.start()


def scratch():
    """Captures of millions of frames are read once; in memory that is no matter of disks."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def take_turns(programs, ports, rounds, seconds):
    samples = {name: [] for name in programs}
    names = list(programs)
    for turn in range(rounds + 1):
        # Each begins some round, so that none is always the one that comes after another.
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            program = programs[name]
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
    alone = {name: stats.ratios(samples[name], one) for name in samples if (one := samples.get(f"{name} {ALONE}"))}
    return {
        **what,
        "mpps": {name: round(stats.median(all) / 1e6, 3) for name, all in samples.items()},
        "ns": round(1e9 / stats.median(samples["box"]), 2),
        "to": {mode: round(stats.median(all), 4) for mode, all in to.items()},
        **({"scaling": {name: round(stats.median(all), 4) for name, all in alone.items()}} if alone else {}),
        "samples_pps": {name: [round(one) for one in all] for name, all in samples.items()},
    }
