"""What is measured, quickly or in full."""

import os
from dataclasses import dataclass

PARTS = ("stages", "failover", "replay", "flood", "wire", "rates", "scale", "handshakes")
DEVICES = {"replay", "flood", "wire", "rates", "scale"}
"""Those that need DPDK and hugepages."""
PROOFS = {"HBA": ["--peers", "65536"], "CGA-2048": ["--cga", "2048", "--peers", "8192", "--block", "4096"]}
"""How peers prove their locators, as the example handshakes is told."""
SIZES = ("64", "78", "imix", "1500")
LADDER = (1000, 64_512, 258_048, 1_032_192, 4_128_768, 16_515_072)
"""As FD.io's CSIT counts sessions."""


@dataclass(frozen=True)
class Case:
    contexts: int
    way: str = "both"
    size: str = "64"
    workers: int = 1
    law: str = "uniform"


@dataclass(frozen=True)
class Plan:
    stage_sizes: tuple
    stage_rounds: int
    rounds: int
    seconds: float
    replay: tuple
    wire: tuple
    rates: tuple
    fill: tuple
    churn: tuple


def quick():
    return Plan(
        stage_sizes=(1 << 10, 1 << 16, 1 << 20),
        stage_rounds=7,
        rounds=3,
        seconds=0.3,
        replay=(
            Case(1000, "out-null"),
            Case(1000, "in-null"),
            Case(1000),
            Case(LADDER[3], "out-null"),
            Case(LADDER[3]),
        ),
        wire=(Case(1000), Case(LADDER[3])),
        rates=(Case(1000, size="78"),),
        fill=(LADDER[3],),
        churn=(LADDER[3],),
    )


def full(cores):
    ways = ("out-null", "in-null", "out", "in", "both")
    # A replayed capture stays in packet buffers, twice over for two programs: as much as memory allows.
    spare = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    replayed = [contexts for contexts in LADDER[:5] if contexts * 4 * 640 < spare / 2]
    replay = [Case(contexts, way) for contexts in replayed for way in ways if contexts <= LADDER[3] or way == "both"]
    replay += [Case(contexts, "both", size) for size in SIZES[1:] for contexts in LADDER[:2]]
    replay += [
        Case(contexts, way, workers=n) for n in range(2, cores + 1) for contexts in (1000, LADDER[3]) for way in ("both", "steered")
    ]
    wire = [Case(contexts) for contexts in (1000, LADDER[1], LADDER[3], LADDER[4], LADDER[5])]
    wire += [Case(1000, size=size) for size in SIZES[1:]] + [Case(LADDER[3], law="zipf")]
    return Plan(
        stage_sizes=tuple(1 << power for power in (10, 16, 18, 20, 22, 24)),
        stage_rounds=9,
        rounds=7,
        seconds=0.5,
        replay=tuple(replay),
        wire=tuple(wire),
        rates=tuple(Case(contexts, size=size) for contexts, size in ((1000, "78"), (1000, "imix"), (LADDER[3], "78"))),
        fill=(LADDER[3], LADDER[4], LADDER[5]),
        churn=(LADDER[3], LADDER[5]),
    )
