"""Trials that say more of the machine than of the box are made again, and by the same rule for whoever is measured."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib import load
from lib.programs import Failed

CALM = {"program": 300, "generator": 90, "machine": 0}


def trial(loss=0.0, missed=0, **away):
    sent = [500 - missed, 500]
    return {"loss_ratio": loss, "sent": sent, "missed": missed, "generator_short": missed > 5, "away_us": {**CALM, **away}}


class Rig:
    """Answers what it was told to, and its last answer for ever."""

    def __init__(self, *trials):
        self.left, self.made = list(trials), 0

    def trial(self, pair, **what):
        self.made += 1
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


class Disturbed(unittest.TestCase):
    def find(self, *trials):
        rig = Rig(*trials)
        found = load.Trials(rig, 0)
        return found(1e6, 0.1), rig.made, found

    def test_a_calm_trial_counts_whatever_it_lost(self):
        self.assertEqual(self.find(trial(0.3), trial(0.0))[:2], (0.3, 1))

    def test_who_was_away_is_asked_again(self):
        for away in ({"program": 4000}, {"generator": 1100}, {"machine": 100_000}):
            lost, made, found = self.find(trial(0.02, **away), trial(0.001))
            self.assertEqual((lost, made, found.repeated, found.disturbed), (0.001, 2, 1, 0), away)
        self.assertEqual(self.find(trial(0.02, missed=10), trial(0.001))[:2], (0.001, 2))

    def test_when_none_is_calm_the_least_disturbed_counts_and_not_the_best(self):
        worse = trial(0.0, program=9000)
        lost, made, found = self.find(worse, trial(0.02, program=1500), worse)
        self.assertEqual((lost, made, found.disturbed), (0.02, load.TRIES, 1))

    def test_patience_ends_on_a_machine_that_is_never_calm(self):
        rig = Rig(trial(0.02, program=9000))
        trials = load.Trials(rig, 0)
        for _ in range(100):
            trials(1e6, 1.0)
        self.assertEqual((trials.repeated, trials.disturbed), (load.PATIENCE, 100))
        self.assertLess(rig.made, 100 + load.PATIENCE)

    def test_the_highest_load_is_one_the_generator_makes(self):
        rig = Rig(*[trial(missed=100)] * load.TRIES, trial(missed=10))
        self.assertAlmostEqual(load.Trials(rig, 0).made(1e6, 0.1), 0.97e6)
        with self.assertRaises(Failed):
            load.Trials(Rig(trial(missed=100)), 0).made(1e6, 0.1)


if __name__ == "__main__":
    unittest.main()
