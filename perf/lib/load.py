"""What the box does under a load that is set: the rate without loss (RFC 2544 by MLRsearch's rules), latency at shares of
it, long runs, and what a reload costs. All over memif, with our own generator."""

import time

from .programs import Failed
from .search import Goal, Search, Unbounded

LEAST = 10_000.0
"""Frames per second below which nobody wants to know."""
SHARES = (0.1, 0.5, 0.9)


def goals(quick):
    if quick:
        return {
            "ndr": Goal(0.0, width=0.05, trial_seconds=0.1, sum_seconds=0.5, coarse=1),
            "pdr": Goal(0.005, width=0.05, trial_seconds=0.1, sum_seconds=0.5, coarse=1),
        }
    return {
        "ndr": Goal(0.0, width=0.01, trial_seconds=0.5, sum_seconds=5.0),
        "pdr": Goal(0.005, width=0.01, trial_seconds=0.5, sum_seconds=5.0),
    }


BUDGET = 120.0
"""Seconds of trials for a goal. What is decided by then is the answer."""

AWAY_US = {"program": 1000, "generator": 200, "machine": 0}
"""How long who has to run may be away before a trial says more of the machine than of the box. A ring of 1,024 frames is full
after 200 µs at ten million per second, both ways together. Of programs only the sum is known, which has ticks in it."""
TRIES = 6
PATIENCE = 60.0
"""Seconds of trials made again, in one search: a machine that is never quiet must not hold it up for hours."""
SHORT = 0.03
"""Of its frames the generator may leave out at the highest load that is tried."""


def disturbance(found):
    """0 for a trial that can be believed; the more, the less it says."""
    return max(
        2.0 * found["generator_short"],
        *((away - AWAY_US[who]) / 1000 for who, away in found["away_us"].items() if away > AWAY_US[who]),
        0.0,
    )


class Trials:
    """Trials at a load. Those in which the generator did not keep up, or another took the core of who is measured, say nothing
    of the box and are made again; when none is undisturbed, the one counts that is least."""

    def __init__(self, rig, pair, **what):
        self.rig, self.pair, self.what, self.repeated, self.disturbed = rig, pair, what, 0, 0
        self.patience = PATIENCE

    def find(self, **what):
        least = None
        for _ in range(TRIES):
            found = self.rig.trial(self.pair, **self.what, **what)
            if least is None or disturbance(found) < disturbance(least):
                least = found
            if disturbance(least) == 0:
                return least
            if self.patience <= 0:
                break
            self.repeated += 1
            self.patience -= what["seconds"]
        self.disturbed += 1
        return least

    def made(self, load, seconds):
        """The highest load from this one down that the generator makes when it has to keep time."""
        for _ in range(TRIES):
            found = self.find(rate=load, seconds=seconds)
            if found["missed"] <= SHORT * (sum(found["sent"]) + found["missed"]):
                return load
            load *= 0.97
        raise Failed(f"the generator does not make the load it was asked for: {found}")

    def __call__(self, load, seconds):
        return self.find(rate=load, seconds=seconds)["loss_ratio"]


def rates(rig, name, size, ways="both", quick=True):
    """The rates without loss and with little, and with everything sent, of the box or of testpmd in a mode."""
    with rig.running(name) as pair:
        time.sleep(0.05)
        most = rig.trial(pair, ways=ways, size=size, seconds=0.5)["received_pps"]
        # memif makes who sends more than is taken wait, so this is the most that can be sent, but for a little.
        trials = Trials(rig, pair, ways=ways, size=size)
        search = Search(trials, LEAST, trials.made(0.97 * most, 0.1), BUDGET)
        found = {"mrr_pps": most}
        for goal, what in goals(quick).items():
            try:
                lower, upper = search.find(what)
            except Unbounded as reason:
                lower, upper = None, None
                found[f"{goal}_reason"] = str(reason)
            found[f"{goal}_pps"], found[f"{goal}_upper_pps"] = lower, upper
        found |= {"repeated": trials.repeated, "disturbed": trials.disturbed}
        found["trials"] = [
            [round(load), seconds, round(ratio, 6)] for load, all in sorted(search.loads.items()) for seconds, ratio in all.trials
        ]
    return found


def latency(rig, name, rate, size="78", seconds=1.0, rounds=3):
    """Percentiles of the time from generator to generator at shares of a rate; of each the median round. `away_us` is of that
    round: what it does not explain is the program's."""
    found = {}
    with rig.running(name) as pair:
        time.sleep(0.05)
        for share in SHARES:
            trials = Trials(rig, pair, size=size, latency=True)
            rows = [trials.find(rate=rate * share, seconds=seconds) for _ in range(rounds)]
            middle = sorted(rows, key=lambda trial: trial["latency_ns"]["p50"])[rounds // 2]
            found[f"{share:.0%}"] = {
                **middle["latency_ns"],
                "loss_ratio": middle["loss_ratio"],
                "away_us": middle["away_us"],
                "repeated": trials.repeated,
                "disturbed": trials.disturbed,
            }
    return found


def soak(rig, rate, seconds, size="imix"):
    """A long run at a constant rate: the loss of all trials together and of the worst."""
    ratios, late, received = [], 0, 0
    with rig.running("box") as pair:
        ended = time.monotonic() + seconds
        while time.monotonic() < ended:
            found = rig.trial(pair, size=size, seconds=5.0 if seconds >= 10 else 1.0, rate=rate)
            ratios.append(found["loss_ratio"])
            late += found["late"]
            received += sum(found["received"])
    return {
        "rate_pps": rate,
        "trials": len(ratios),
        "received": received,
        "late": late,
        "loss_ratio": sum(ratios) / len(ratios),
        "worst_trial": max(ratios),
    }


CALM = 400_000.0
"""Frames per second of which a device's ring holds those of several milliseconds: so what is lost is not the scheduler's."""


def reconfiguration(rig, rate=CALM, seconds=1.0, every=0.05):
    """Frames lost while all workers get a new snapshot again and again, and without that; per reload, the time for which
    nothing would have gone through to lose as much."""
    with rig.running("box") as pair:
        time.sleep(0.05)
        calm = Trials(rig, pair, size="78").find(seconds=seconds, rate=rate)
        rounds = []
        while len(rounds) < TRIES and not any(disturbance(busy) == 0 for busy, _ in rounds):
            rig.begin(pair, size="78", seconds=seconds, rate=rate)
            reloads, ended = 0, time.monotonic() + seconds
            while time.monotonic() < ended:
                rig.box.ask("publish")
                reloads += 1
                time.sleep(every)
            rounds.append((rig.end(), reloads))
    busy, reloads = min(rounds, key=lambda one: disturbance(one[0]))
    count = {what: round(trial["loss_ratio"] * (sum(trial["sent"]) + trial["refused"])) for what, trial in (("calm", calm), ("busy", busy))}
    return {
        "rate_pps": rate,
        "reloads": reloads,
        "lost": count["busy"],
        "lost_without": count["calm"],
        "away_us": busy["away_us"],
        "blocked_us_per_reload": round(count["busy"] / rate / reloads * 1e6, 3),
    }
