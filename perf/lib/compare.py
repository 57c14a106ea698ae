"""What changed between two results beyond the noise.

Each thing measured has samples in both. The change of the median has a bootstrap interval; it counts as a change when the
interval leaves 1 out and the change is at least a percent. Ratios to what was measured beside it in the same round come
first, for they move less with the machine than absolute values do."""

import random
from dataclasses import dataclass

from . import stats

LEAST = 0.01
"""Smaller changes are not told, however sure they are."""
FEWEST = 3
"""Samples of each without which nothing can be said."""


@dataclass(frozen=True)
class Metric:
    """One thing measured, with what a larger value means."""

    samples: tuple
    larger_is_better: bool


@dataclass(frozen=True)
class Change:
    name: str
    before: float
    after: float
    low: float
    high: float
    verdict: str
    """better, worse, same, or unsure."""

    @property
    def ratio(self):
        return self.after / self.before


def metrics(result):
    """Everything in a result that has samples, by name."""
    found = {}
    for row in (result.get("stages") or {}).get("results", []):
        place = f"stages {row['contexts']:,} {row['direction']}"
        floor = row.get("floor", {}).get("samples_ns")
        for kind, values in row.items():
            if not isinstance(values, dict) or "samples_ns" not in values:
                continue
            found[f"{place} {kind} ns"] = Metric(tuple(values["samples_ns"]), False)
            if floor and kind != "floor":
                found[f"{place} {kind} / floor"] = Metric(tuple(stats.ratios(values["samples_ns"], floor)), False)
    for part in ("replay", "wire"):
        for row in result.get(part) or []:
            place = f"{part} {row['contexts']:,} {row['way']} {row['size']} {row['workers']}w {row.get('law', '')}".rstrip()
            samples = row["samples_pps"]
            for name, own in samples.items():
                found[f"{place} {name} pps"] = Metric(tuple(own), True)
                if name != "box":
                    found[f"{place} box / {name}"] = Metric(tuple(stats.ratios(samples["box"], own)), True)
    for row in result.get("handshakes") or []:
        found[f"handshakes {row['proof']} per second"] = Metric(tuple(row["samples_per_second"]), True)
    return found


def change(name, before, after, draws=2000, seed=1):
    """Compares two sets of samples of one thing."""
    chance = random.Random(seed)
    a, b = list(before.samples), list(after.samples)
    middle = (stats.median(a), stats.median(b))
    if min(len(a), len(b)) < FEWEST or middle[0] <= 0:
        return Change(name, *middle, float("nan"), float("nan"), "unsure")
    ratios = sorted(
        stats.median(chance.choices(b, k=len(b))) / stats.median(chance.choices(a, k=len(a))) for _ in range(draws)
    )
    low, high = ratios[int(0.025 * draws)], ratios[int(0.975 * draws)]
    moved = abs(middle[1] / middle[0] - 1) >= LEAST and not low <= 1 <= high
    larger = middle[1] > middle[0]
    verdict = "same" if not moved else "better" if larger == before.larger_is_better else "worse"
    return Change(name, *middle, low, high, verdict)


def compare(before, after):
    """All things measured in both."""
    old, new = metrics(before), metrics(after)
    return [change(name, old[name], new[name]) for name in old if name in new]


def differences(before, after):
    """What of the machines is not the same."""
    a, b = before.get("machine", {}), after.get("machine", {})
    return [f"{name}: {a.get(name)} and {b.get(name)}" for name in sorted({*a, *b}) if a.get(name) != b.get(name)]


def table(changes, everything=False):
    """A Markdown table of what changed, ratios first."""
    shown = [it for it in changes if everything or it.verdict in ("better", "worse")]
    if not shown:
        return "Nothing changed beyond the noise.\n"
    shown.sort(key=lambda it: (" / " not in it.name, it.name))
    lines = ["| what | before | after | change | 95 % interval | |", "|---|---:|---:|---:|---:|---|"]
    for it in shown:
        lines.append(
            f"| {it.name} | {number(it.before)} | {number(it.after)} | {it.ratio - 1:+.1%} "
            f"| {it.low - 1:+.1%} to {it.high - 1:+.1%} | {it.verdict} |"
        )
    return "\n".join(lines) + "\n"


def number(value):
    return f"{value / 1e6:.3f} M" if value >= 1e6 else f"{value:.4g}"
