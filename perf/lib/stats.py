"""What samples say: medians, and how far they can be trusted."""

import random
import statistics


def median(samples):
    return statistics.median(samples)


def ratios(ours, theirs):
    """Round by round: samples of one round were taken one after the other, so what the machine did hit both."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def interval(samples, confidence=0.95, draws=2000, seed=1):
    """The bootstrap's interval of the median."""
    if len(samples) < 2:
        return (samples[0], samples[0])
    chance = random.Random(seed)
    medians = sorted(median(chance.choices(samples, k=len(samples))) for _ in range(draws))
    edge = (1 - confidence) / 2
    return (medians[int(edge * draws)], medians[min(draws - 1, int((1 - edge) * draws))])
