"""What counts as a change, and what of a result is compared."""

import random
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib import compare, report, stats


def noisy(middle, spread, count=9, seed=3):
    chance = random.Random(seed)
    return tuple(middle * (1 + chance.uniform(-spread, spread)) for _ in range(count))


def change(before, after, larger_is_better=True):
    return compare.change("it", compare.Metric(before, larger_is_better), compare.Metric(after, larger_is_better))


class Verdicts(unittest.TestCase):
    def test_what_is_beyond_the_noise_is_told_with_its_direction(self):
        faster = change(noisy(100, 0.02), noisy(110, 0.02, seed=4))
        self.assertEqual(faster.verdict, "better")
        self.assertLess(faster.low, 1.1)
        self.assertGreater(faster.high, 1.09)
        self.assertEqual(change(noisy(100, 0.02), noisy(110, 0.02, seed=4), False).verdict, "worse")
        self.assertEqual(change(noisy(100, 0.02), noisy(90, 0.02, seed=4)).verdict, "worse")

    def test_what_the_noise_could_be_is_no_change(self):
        self.assertEqual(change(noisy(100, 0.2), noisy(105, 0.2, seed=8)).verdict, "same")

    def test_hardly_anything_is_no_change_however_sure(self):
        self.assertEqual(change((100.0,) * 9, (100.5,) * 9).verdict, "same")
        self.assertEqual(change((100.0,) * 9, (102.0,) * 9).verdict, "better")

    def test_two_samples_say_nothing(self):
        self.assertEqual(change((100.0, 101.0), (200.0, 201.0)).verdict, "unsure")

    def test_the_same_twice_is_the_same(self):
        alike = [change(noisy(100, 0.05, seed=n), noisy(100, 0.05, seed=n + 1000)).verdict for n in range(100)]
        self.assertGreaterEqual(alike.count("same"), 85)


ROW = {"contexts": 1000, "way": "both", "size": "64", "workers": 1}


def result(box, peer=(10.0, 11.0, 12.0)):
    samples = {"io": list(peer), "macswap": list(peer), "5tswap": list(peer), "box": list(box)}
    stage = {"contexts": 1024, "direction": "egress"}
    stage |= {kind: {"ns": 1, "samples_ns": own} for kind, own in (("floor", [1, 1, 1]), ("stages", [2, 2, 2]))}
    return {"replay": [{**ROW, "samples_pps": samples}], "stages": {"results": [stage]}}


class Results(unittest.TestCase):
    def test_everything_with_samples_is_compared(self):
        names = compare.metrics(result((5, 6, 7)))
        self.assertEqual(names["replay 1,000 both 64 1w box pps"].samples, (5, 6, 7))
        self.assertEqual(names["stages 1,024 egress stages / floor"].samples, (2, 2, 2))
        self.assertFalse(names["stages 1,024 egress stages ns"].larger_is_better)

    def test_a_slower_machine_changes_rates_and_not_ratios(self):
        before = result((5.0, 5.1, 5.2), (10.0, 10.2, 10.4))
        after = result((2.5, 2.55, 2.6), (5.0, 5.1, 5.2))
        verdicts = {it.name: it.verdict for it in compare.compare(before, after)}
        self.assertEqual(verdicts["replay 1,000 both 64 1w box pps"], "worse")
        self.assertEqual(verdicts["replay 1,000 both 64 1w box / 5tswap"], "same")

    def test_only_what_both_have_is_compared(self):
        self.assertEqual(compare.compare({}, result((1, 2, 3))), [])

    def test_the_table_shows_changes_alone_unless_asked(self):
        changes = compare.compare(result((5.0, 5.1, 5.2)), result((8.0, 8.1, 8.2)))
        self.assertIn("better", compare.table(changes))
        self.assertNotIn("| same |", compare.table(changes))
        self.assertIn("| same |", compare.table(changes, True))
        self.assertIn("Nothing changed", compare.table(compare.compare(result((1, 2, 3)), result((1, 2, 3)))))


class Statistics(unittest.TestCase):
    def test_the_interval_holds_the_median(self):
        low, high = stats.interval([5, 1, 4, 2, 3, 6, 7])
        self.assertLessEqual(low, 4)
        self.assertGreaterEqual(high, 4)
        self.assertEqual(stats.interval([3]), (3, 3))

    def test_ratios_are_those_of_rounds(self):
        self.assertEqual(stats.ratios([1, 9], [2, 3]), [0.5, 3])
        with self.assertRaises(ValueError):
            stats.ratios([1], [1, 2])


class Plots(unittest.TestCase):
    def test_they_are_drawn_of_what_there_is(self):
        self.assertEqual([name for name, _ in report.plots(result((5, 6, 7)))], ["stages", "replay"])
        for _, drawn in report.plots(result((5, 6, 7))):
            self.assertTrue(drawn.startswith("<svg") and drawn.endswith("</svg>\n"))
            self.assertNotIn("nan", drawn)


if __name__ == "__main__":
    unittest.main()
