from dataclasses import asdict

import numpy as np
import pytest
from pconv_train.evaluation.measure import Metric
from pconv_train.evaluation.statistics import ALL, bootstrap, by_photo, paired_differences, summarize
from pconv_train.evaluation.tables import difference_tables


def record(method, column, photo, value):
    return {"method": method, "column": column, "photo_sha256": photo, "figures": {"psnr": value}}


def test_the_interval_holds_the_mean_and_is_that_of_the_normal_law():
    values = np.random.default_rng(0).normal(30, 4, 400)
    found = bootstrap(values, seed=3)
    assert found.low < found.mean < found.high
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.1 * half)


def test_same_seed_same_interval():
    values = [1.0, 2.0, 5.0]
    assert bootstrap(values, 1) == bootstrap(values, 1)
    assert bootstrap([7.0], 1).low == bootstrap([7.0], 1).high == 7.0


def test_the_mean_of_all_columns_takes_photos_that_have_them_all():
    records = [record("a", "N", "1", 1.0), record("a", "B", "1", 3.0), record("a", "N", "2", 100.0)]
    values = by_photo(records, "psnr", ["N", "B"])
    assert values["a"][ALL] == {"1": 2.0}
    assert summarize(values, 0)["a"]["N"].photos == 2


def test_figures_without_a_meaning_are_left_out():
    assert by_photo([record("a", "N", "1", None)], "psnr", ["N"]) == {}


def test_differences_are_of_the_same_photo():
    rows = [record("a", "N", "1", 31.0), record("b", "N", "1", 30.0), record("a", "N", "2", 21.0)]
    rows += [record("b", "N", "2", 20.0), record("a", "N", "3", 99.0)]  # b failed on photo 3
    found = paired_differences(by_photo(rows, "psnr", ["N"]), "b", 0)
    assert list(found) == ["a"]
    difference = found["a"]["N"]
    assert (difference.mean, difference.low, difference.high, difference.photos) == (1.0, 1.0, 1.0, 2)


def test_differences_count_the_photos_on_which_a_method_is_better():
    numbers = {"columns": ["N"], "reference": "b", "measured": ["a", "b"], "tables": {}}
    metrics = [Metric("psnr", "PSNR", "higher", 1), Metric("l1", "l1", "lower", 1), Metric("seam", "Seam", "one", 1)]
    for metric in metrics:
        values = {
            "a": {"N": {"1": 2.0, "2": 3.0, "3": 5.0, "4": 5.0}},
            "b": {"N": {"1": 1.0, "2": 4.0, "3": 4.0, "4": 5.0}},
        }
        found = paired_differences(values, "b", 0)["a"]["N"]
        assert (found.above, found.below, found.photos) == (2, 1, 4)
        numbers["tables"][metric.key] = {"differences": {"a": {"N": asdict(found)}}}
    numbers["metrics"] = [asdict(metric) for metric in metrics]
    psnr, l1, seam = (table.rows[0].cells[0].interval for table in difference_tables(numbers))
    assert psnr.endswith("; 2/4 better")
    assert l1.endswith("; 1/4 better")
    assert "better" not in seam
