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
    return {"ndr": Goal(0.0), "pdr": Goal(0.005)}


class Trials:
    """Trials at a load; those in which the generator did not keep up say nothing of the box, and are made again."""

    def __init__(self, rig, pair, **what):
        self.rig, self.pair, self.what, self.repeated = rig, pair, what, 0

    def __call__(self, load, seconds):
        for _ in range(8):
            found = self.rig.trial(self.pair, seconds=seconds, rate=load, **self.what)
            if not found["generator_short"]:
                return found["loss_ratio"]
            self.repeated += 1
        raise Failed(f"the generator does not make the load it was asked for: {found}")


def rates(rig, name, size, ways="both", quick=True):
    """The rates without loss and with little, and with everything sent, of the box or of testpmd in a mode."""
    with rig.running(name) as pair:
        time.sleep(0.05)
        most = rig.trial(pair, ways=ways, size=size, seconds=0.5)["received_pps"]
        # memif makes who sends more than is taken wait, so this is the most that can be sent, but for a little.
        trials = Trials(rig, pair, ways=ways, size=size)
        search = Search(trials, LEAST, 0.97 * most)
        found = {"mrr_pps": most}
        for goal, what in goals(quick).items():
            try:
                lower, upper = search.find(what)
            except Unbounded as reason:
                lower, upper = None, None
                found[f"{goal}_reason"] = str(reason)
            found[f"{goal}_pps"], found[f"{goal}_upper_pps"] = lower, upper
        found["repeated"] = trials.repeated
        found["trials"] = [
            [round(load), seconds, round(ratio, 6)] for load, all in sorted(search.loads.items()) for seconds, ratio in all.trials
        ]
    return found


def latency(rig, name, rate, size="78", seconds=1.0, rounds=3):
    """Percentiles of the time from generator to generator at shares of a rate; of each the median round."""
    found = {}
    with rig.running(name) as pair:
        time.sleep(0.05)
        for share in SHARES:
            trials = [
                rig.trial(pair, size=size, seconds=seconds, rate=rate * share, latency=True) for _ in range(rounds)
            ]
            middle = sorted(trials, key=lambda trial: trial["latency_ns"]["p50"])[len(trials) // 2]
            found[f"{share:.0%}"] = {**middle["latency_ns"], "loss_ratio": middle["loss_ratio"]}
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
        calm = rig.trial(pair, size="78", seconds=seconds, rate=rate)
        rig.begin(pair, size="78", seconds=seconds, rate=rate)
        reloads, ended = 0, time.monotonic() + seconds
        while time.monotonic() < ended:
            rig.box.ask("publish")
            reloads += 1
            time.sleep(every)
        busy = rig.end()
    count = {what: round(trial["loss_ratio"] * (sum(trial["sent"]) + trial["refused"])) for what, trial in (("calm", calm), ("busy", busy))}
    return {
        "rate_pps": rate,
        "reloads": reloads,
        "lost": count["busy"],
        "lost_without": count["calm"],
        "blocked_us_per_reload": round(count["busy"] / rate / reloads * 1e6, 3),
    }
