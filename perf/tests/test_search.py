"""The search: it finds the edge of a made-up box, and keeps the rules for trials."""

import random
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.search import Goal, Load, Search, Unbounded


def cliff(edge):
    """Loses what is beyond the edge."""
    return lambda load, seconds: max(0.0, 1 - edge / load)


class Rules(unittest.TestCase):
    goal = Goal(0.0, trial_seconds=1.0, sum_seconds=4.0, exceed_ratio=0.5)

    def verdict(self, *trials):
        return Load(list(trials)).verdict(self.goal, 1.0, 4.0)

    def test_half_of_the_sum_without_loss_is_enough_and_less_is_not(self):
        self.assertIsNone(self.verdict((1, 0)))
        self.assertTrue(self.verdict((1, 0), (1, 0)))
        self.assertTrue(self.verdict((1, 0), (1, 0.1), (1, 0.1), (1, 0)))

    def test_more_than_half_with_loss_is_an_upper_bound(self):
        self.assertIsNone(self.verdict((1, 0.1), (1, 0.1)))
        self.assertIs(self.verdict((1, 0.1), (1, 0.1), (1, 0.1)), False)

    def test_short_trials_can_speak_against_a_load_and_never_for_it(self):
        self.assertIsNone(self.verdict(*[(0.5, 0)] * 20))
        self.assertIs(self.verdict(*[(0.5, 0.1)] * 5), False)
        self.assertIsNone(self.verdict(*[(0.5, 0.1)] * 5, *[(0.5, 0)] * 3), "short ones without loss make up for them")

    def test_loss_within_the_goal_is_none(self):
        goal = Goal(0.005, trial_seconds=1.0, sum_seconds=2.0)
        self.assertTrue(Load([(1, 0.005)]).verdict(goal, 1.0, 2.0))
        self.assertIsNone(Load([(1, 0.0051)]).verdict(goal, 1.0, 2.0))


class Finding(unittest.TestCase):
    def test_the_edge_lies_in_the_interval_and_the_interval_is_narrow(self):
        for edge in (1.2e4, 3.21e6, 9.99e6):
            goal = Goal(0.0, trial_seconds=1.0, sum_seconds=3.0)
            lower, upper = Search(cliff(edge), 1e4, 1e7).find(goal)
            self.assertLessEqual(lower, edge)
            self.assertGreater(upper, edge)
            self.assertLessEqual(1 - lower / upper, goal.width)

    def test_a_goal_that_allows_loss_finds_a_higher_load(self):
        search = Search(cliff(1e6), 1e3, 1e7)
        strict, _ = search.find(Goal(0.0, sum_seconds=1.0))
        loose, upper = search.find(Goal(0.1, sum_seconds=1.0))
        self.assertLessEqual(strict, 1e6)
        self.assertLess(loose, 1.12e6)
        self.assertGreater(upper, 1.1e6)

    def test_rare_hiccups_do_not_move_it(self):
        chance = random.Random(5)

        def hiccups(load, seconds):
            return 0.01 if chance.random() < 0.2 else cliff(2e6)(load, seconds)

        lower, _ = Search(hiccups, 1e4, 1e7).find(Goal(0.0, trial_seconds=1.0, sum_seconds=9.0))
        self.assertGreater(lower, 1.9e6)
        self.assertLessEqual(lower, 2e6)

    def test_all_that_can_be_sent_is_the_end(self):
        self.assertEqual(Search(cliff(1e9), 1e4, 1e7).find(Goal(0.0, sum_seconds=1.0)), (1e7, 1e7))

    def test_a_search_ends_with_what_is_decided_when_its_budget_is_spent(self):
        chance = random.Random(7)
        goal = Goal(0.0, width=1e-4, trial_seconds=1.0, sum_seconds=5.0)

        def moods(load, seconds):
            return 0.01 if chance.random() < min(0.9, load / 4e6) else 0.0

        search = Search(moods, 1e4, 1e7, budget=60.0)
        lower, upper = search.find(goal)
        self.assertLess(search.spent, 100.0)
        self.assertLess(lower, upper)
        unhurried = Search(moods, 1e4, 1e7)
        unhurried.find(goal)
        self.assertGreater(unhurried.spent, search.spent)

    def test_something_that_always_loses_is_said_to(self):
        with self.assertRaises(Unbounded):
            Search(lambda load, seconds: 0.5, 1e4, 1e7).find(Goal(0.0, sum_seconds=1.0))


if __name__ == "__main__":
    unittest.main()
