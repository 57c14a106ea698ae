"""The whole box beside dpdk-testpmd behind memif: a generator in another process sends to one or the other."""

import contextlib
import os
import tempfile
import time
from pathlib import Path

from . import machine, programs, stats
from .hugepages import Hugepages
from .programs import Box, Generator, Setup, Testpmd
from .replay import MODES, row

PEER, BOX = 0, 1
"""Which pair of the generator's devices leads to whom."""


def device(number, role, folder, name, way):
    """One end of a memif; `name` says of whom, `way` of which side."""
    words = f"role={role},id={way},socket={folder / name}.sock,socket-abstract=no,rsize=10,bsize=2048"
    return f"net_memif{number},{words}"


class Rig:
    """A generator, testpmd and the box, the last two resting until they are started."""

    def __init__(self, contexts, cores=(1,), generator_cores=(0,), zero_copy=False):
        self.contexts, self.cores, self.generator_cores = contexts, cores, generator_cores
        self.zero_copy = zero_copy
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with self.stack as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perf-")))
            setup = Setup(descriptors=1024)
            stack.enter_context(Hugepages(3 * setup.memory))
            servers = {name: [device(way, "server", folder, name, way) for way in (0, 1)] for name in ("peer", "box")}
            self.peer = stack.enter_context(Testpmd(servers["peer"], self.cores, setup))
            self.box = stack.enter_context(Box(*servers["box"], self.contexts, self.cores, setup))
            tail = ",zero-copy=yes" if self.zero_copy else ""
            pairs = [
                [device(2 * pair + way, "client", folder, name, way) + tail for way in (0, 1)]
                for pair, name in enumerate(("peer", "box"))
            ]
            self.generator = stack.enter_context(Generator(pairs, self.generator_cores, setup))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *what):
        return self.stack.__exit__(*what)

    def begin(self, pair, **what):
        self.program = self.box if pair == BOX else self.peer
        self.before = self._away()
        self.generator.begin(
            pair=pair, contexts=self.contexts, workers=len(self.cores), translated=pair == BOX, **what
        )

    def end(self):
        """What the generator saw, and in `away_us` how long who had to run could not: what is measured then is the machine."""
        found = self.generator.end()
        program, stolen = (now - then for now, then in zip(self._away(), self.before))
        # Of this program, as of the other, no more is known than the sum.
        found["away_us"] = {"program": program, "generator": found["generator"]["longest_us"], "machine": stolen}
        return found

    def _away(self):
        return programs.waited(self.program.process, self.program.polling), machine.stolen()

    def trial(self, pair, **what):
        self.begin(pair, **what)
        return self.end()

    @contextlib.contextmanager
    def running(self, name):
        """The box, or testpmd in one of its modes, and the number of its pair."""
        program = self.box if name == "box" else self.peer
        if name != "box":
            self.peer.mode(name)
        program.start()
        try:
            yield BOX if name == "box" else PEER
        finally:
            program.stop()


def measure(contexts, ways="both", size="64", cores=(1,), generator_cores=(0,), rounds=7, seconds=0.5, law="uniform"):
    """Samples in packets per second of testpmd's modes and of the box, in turn, with as much load as memif takes."""
    samples = {mode: [] for mode in (*MODES, "box")}
    with Rig(contexts, cores, generator_cores) as rig:
        for turn in range(rounds + 1):
            order = [*MODES, "box"]
            order = order[turn % 4 :] + order[: turn % 4]
            for name in order:
                with rig.running(name) as pair:
                    time.sleep(0.02)
                    found = rig.trial(pair, ways=ways, size=size, seconds=seconds, law=law)
                # The first round warms up.
                if turn > 0:
                    samples[name].append(found["received_pps"])
    return row(dict(contexts=contexts, way=ways, size=size, workers=len(cores), law=law), samples)
