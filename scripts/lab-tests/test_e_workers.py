#!/usr/bin/env python3
"""Two workers give the same result as one: the same tests, the same verdicts."""

import unittest

import test_b_traffic as traffic
import test_c_survival as survival
from common import MB, need_boxes


def setUpModule():
    need_boxes()


class TwoWorkersTraffic(traffic.Traffic):
    options = {"workers": 2}


class TwoWorkersOnTheWire(traffic.OnTheWire):
    options = {"workers": 2}


class TwoWorkersSizes(traffic.Sizes):
    options = {"workers": 2}


# Shorter sessions are enough to see every kind of failure handed over between workers.


class TwoWorkersCut(survival.Cut):
    options = {"workers": 2}
    size = 80 * MB


class TwoWorkersOneWay(survival.OneWay):
    options = {"workers": 2}
    size = 80 * MB


class TwoWorkersCrash(survival.Crash):
    options = {"workers": 2}
    size = 80 * MB


if __name__ == "__main__":
    unittest.main()
