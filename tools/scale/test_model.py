"""Limits of the model: python -m unittest discover -s tools/scale"""

import json
import math
import unittest
from dataclasses import replace

import model
from model import GIGABIT, Settings, Wire

FREE = Settings(network_latency=0, local_latency=0, local_bandwidth=math.inf, add_rate=math.inf)


class Limits(unittest.TestCase):
    def test_one_rank_loses_nothing(self):
        for compute in (0.0, 0.1, 2.0):
            self.assertEqual(model.efficiency(Settings(), compute, 1, GIGABIT), 1.0)

    def test_a_free_network_loses_nothing(self):
        for overlap in (True, False):
            for ranks in (2, 256):
                settings = replace(FREE, overlap=overlap)
                self.assertEqual(model.efficiency(settings, 0.5, ranks, math.inf), 1.0)

    def test_without_computing_there_is_only_exchange(self):
        self.assertEqual(model.efficiency(Settings(), 0.0, 2, GIGABIT), 0.0)

    def test_without_gradients_nothing_travels(self):
        settings = replace(Settings(), gradient_bytes=0)
        self.assertEqual(model.efficiency(settings, 0.5, 8, GIGABIT), 1.0)


class Exchange(unittest.TestCase):
    def test_two_ranks_send_every_byte_once(self):
        settings = replace(FREE, overlap=False, usable=1.0)
        # 2 (N - 1) / N of 45 MB at 45 MB a second.
        for ranks, seconds in ((2, 1.0), (4, 1.5), (100, 1.98)):
            self.assertAlmostEqual(model.visible_seconds(settings, 9.0, ranks, 45e6), seconds)

    def test_every_bucket_has_its_messages(self):
        settings = replace(FREE, overlap=False, network_latency=1e-3, bucket_bytes=15e6)
        found = model.visible_seconds(settings, 1.0, 5, math.inf)
        self.assertAlmostEqual(found, 3 * 2 * 4 * 1e-3)

    def test_buckets_hold_all_bytes(self):
        for size in (1.0, 4e6, 12e6, 13e6):
            settings = replace(Settings(), gradient_bytes=size, bucket_bytes=4e6)
            self.assertAlmostEqual(sum(model.buckets(settings)), size)
            self.assertEqual(len(model.buckets(settings)), math.ceil(size / 4e6))

    def test_the_last_bucket_is_never_hidden(self):
        settings = replace(FREE, usable=1.0, gradient_bytes=40e6, bucket_bytes=4e6)
        self.assertAlmostEqual(model.visible_seconds(settings, 1e6, 2, 40e6), 0.1)
        # A window of half a second, for one second of exchange.
        half = replace(settings, backward=0.5, hideable=1.0)
        self.assertAlmostEqual(model.visible_seconds(half, 1.0, 2, 40e6), 0.5)
        self.assertAlmostEqual(
            model.visible_seconds(replace(half, overlap=False), 1.0, 2, 40e6), 1.0
        )

    def test_ranks_of_a_host_share_its_card(self):
        settings = replace(FREE, overlap=False, usable=1.0, ranks_per_host=4)
        # On one host the card is not used.
        self.assertEqual(model.visible_seconds(settings, 1.0, 4, 1.0), 0.0)
        # Two hosts of 4: 4 ranks send 2 x 4/8 of 45 MB each through one card.
        self.assertAlmostEqual(model.visible_seconds(settings, 1.0, 8, 45e6), 4.0)
        local = replace(settings, local_bandwidth=45e6)
        self.assertAlmostEqual(model.visible_seconds(local, 1.0, 4, 1.0), 1.5)

    def test_more_never_gets_better(self):
        for overlap in (True, False):
            settings = replace(Settings(), overlap=overlap)
            for link in model.LINKS:
                found = [model.efficiency(settings, 0.161, n, link * GIGABIT) for n in model.RANKS]
                self.assertEqual(found, sorted(found, reverse=True))
            found = [model.efficiency(settings, 0.161, 8, link * GIGABIT) for link in model.LINKS]
            self.assertEqual(found, sorted(found))


class Benches(unittest.TestCase):
    def test_a_wire_is_found_again(self):
        wire = Wire(20e-6, 2e9)
        for ranks in (2, 4):
            settings = replace(
                FREE, local_latency=wire.latency, local_bandwidth=wire.bandwidth, add_rate=8e9,
                ranks_per_host=ranks,
            )  # fmt: skip
            sizes = (4e3, 1e6, 45e6)
            times = [(x, model.bucket_seconds(settings, ranks, x, math.inf)) for x in sizes]
            found = model.fit(times, ranks, 4e6, 8e9)
            self.assertAlmostEqual(found.latency / wire.latency, 1.0)
            self.assertAlmostEqual(found.bandwidth / wire.bandwidth, 1.0)

    def test_no_wire_follows_from_too_little(self):
        for points, ranks in (([], 2), ([(1e6, 1e-3)], 2), ([(1e6, 1e-3), (2e6, 2e-3)], 1)):
            with self.assertRaises(ValueError):
                model.fit(points, ranks, 4e6, math.inf)
        with self.assertRaises(ValueError):
            model.fit([(1e6, 2e-3), (2e6, 1e-3)], 2, 4e6, math.inf)

    def test_only_sums_are_read(self):
        rows = [
            {"call": "sum", "bytes": 4096, "seconds_median": 1e-4},
            {"call": "gather", "bytes": 4096, "seconds_median": 9.0},
        ]
        text = json.dumps({"ranks": 4, "calls": rows})
        self.assertEqual(model.sum_points(text), (4, [(4096, 1e-4)]))

    def test_checks_are_of_one_host(self):
        settings = replace(FREE, local_bandwidth=45e6, overlap=False)
        text = model.check(settings, 1.0, [model.measured("2=2.2"), model.measured("4=4/2")])
        self.assertIn("| 2 | 1.000 | 2.000 | 2.200 | 1.10 |", text)
        self.assertIn("| 4 | 2.000 | 3.500 | 4.000 | 1.14 |", text)


if __name__ == "__main__":
    unittest.main()
