"""The search for the highest load that loses no more than a goal allows, by MLRsearch's rules for trials.

One trial on a busy machine proves little: a load is a *lower bound* when enough trials of full length, by the sum of their
durations, lost no more than the goal, even if all that are missing went wrong; an *upper bound* when it could not become
one any more; else it is undecided and measured again (draft-ietf-bmwg-mlrsearch-15, Load Classification). Nothing here
knows what is measured: `measure(load, seconds)` answers the ratio of what was lost."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Goal:
    """What counts as good enough."""

    loss_ratio: float
    """Of a trial."""
    width: float = 0.005
    """Of the interval in the end, relative to its upper end."""
    trial_seconds: float = 1.0
    """Of a trial of full length."""
    sum_seconds: float = 21.0
    """Of trials of full length for a decision."""
    exceed_ratio: float = 0.5
    """Share of that in which more may be lost."""
    coarse: int = 2
    """Phases before the last, each twice as wide and half as long as the next."""


@dataclass
class Load:
    """Trials made at one load: seconds of them by length and outcome, for one goal and length."""

    trials: list = field(default_factory=list)

    def verdict(self, goal, seconds, total):
        """True for a lower bound, False for an upper one, None while undecided."""
        sums = {(long, low): 0.0 for long in (True, False) for low in (True, False)}
        for length, lost in self.trials:
            sums[length >= seconds, lost <= goal.loss_ratio] += length
        # Short trials with much loss count as far as short ones without do not make up for them.
        balance = sums[False, True] * goal.exceed_ratio / (1 - goal.exceed_ratio)
        high = sums[True, False] + max(0.0, sums[False, False] - balance)
        whole = max(sums[True, True] + high, total)
        allowed = whole * goal.exceed_ratio
        # A sum of decimal fractions is a little off.
        pessimist = whole - sums[True, True] <= allowed + 1e-9
        optimist = high <= allowed + 1e-9
        return pessimist if pessimist == optimist else None


class Unbounded(Exception):
    """Even the smallest load loses too much."""


class Search:
    """Between `least` and `most`, in frames per second. After `budget` seconds of trials for a goal it answers with what is
    decided by then: on a machine that is busy by turns, loads that are hard to decide never end."""

    def __init__(self, measure, least, most, budget=math.inf):
        self.measure, self.least, self.most, self.budget = measure, least, most, budget
        self.loads = {}
        self.spent = 0.0

    def _try(self, load, seconds):
        lost = self.measure(load, seconds)
        self.spent += seconds
        self.loads.setdefault(load, Load()).trials.append((seconds, lost))
        return lost

    def _decide(self, load, goal, seconds, total):
        """Measures one load until it is decided; whether it is a lower bound."""
        while (verdict := self.loads.setdefault(load, Load()).verdict(goal, seconds, total)) is None:
            self._try(load, seconds)
        return verdict

    def _bounds(self, goal, seconds, total):
        """What is decided already: the smallest upper bound, and the greatest lower one below it."""
        decided = {load: trials.verdict(goal, seconds, total) for load, trials in self.loads.items()}
        upper = min((load for load, verdict in decided.items() if verdict is False), default=None)
        lower = max(
            (load for load, verdict in decided.items() if verdict and (upper is None or load < upper)), default=None
        )
        return lower, upper

    def find(self, goal):
        """The interval: a load that is a lower bound, and one that is an upper bound or the most there can be."""
        self.ends = self.spent + self.budget
        lost = self._try(self.most, goal.trial_seconds / 2**goal.coarse)
        # A first guess is what came through when everything was sent.
        guess = max(self.least, self.most * (1 - lost))
        interval = (guess, guess)
        for phase in range(goal.coarse, -1, -1):
            seconds, width = goal.trial_seconds / 2**phase, goal.width * 2**phase
            # Before the last phase one good trial in a row is enough to go on.
            total = goal.sum_seconds if phase == 0 else seconds
            interval = self._narrow(goal, seconds, total, width, interval)
        return interval

    def _narrow(self, goal, seconds, total, width, start):
        for load in start:
            self._decide(load, goal, seconds, total)
        step = width
        while True:
            lower, upper = self._bounds(goal, seconds, total)
            if lower is not None and self.spent >= self.ends:
                return (lower, upper or self.most)
            if lower is None:
                if upper <= self.least:
                    raise Unbounded(f"at {upper:.0f} frames per second more than {goal.loss_ratio:.2%} are lost")
                # Ever larger steps away from what is known.
                load, step = max(self.least, upper * (1 - step)), min(0.5, step * 2)
            elif upper is None:
                if lower >= self.most:
                    return (self.most, self.most)
                load, step = min(self.most, lower / (1 - step)), min(0.5, step * 2)
            elif 1 - lower / upper <= width:
                return (lower, upper)
            else:
                load = math.sqrt(lower * upper)
            self._decide(load, goal, seconds, total)
