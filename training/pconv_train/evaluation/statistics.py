"""Means with bootstrap intervals, and paired differences; what is resampled is the photo."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconv_train.evaluation.run import Record

ALL = "all"  # the mean over all columns
_DRAWS = 2000

Values = dict[str, float]  # photo → figure


@dataclass(frozen=True)
class Interval:
    """Mean over photos with its 95 % bootstrap interval (percentiles)."""

    mean: float
    low: float
    high: float
    photos: int
    above: int  # photos whose value is more than 0, which tells of differences
    below: int


def bootstrap(values: Iterable[float], seed: int = 0) -> Interval:
    """Resample values with replacement, the same draws for the same seed and number of values."""
    array: NDArray[np.float64] = np.fromiter(values, float)
    draws = np.random.default_rng((seed, array.size)).integers(array.size, size=(_DRAWS, array.size))
    low, high = np.percentile(array[draws].mean(1), [2.5, 97.5])
    above, below = int((array > 0).sum()), int((array < 0).sum())
    return Interval(float(array.mean()), float(low), float(high), array.size, above, below)


def by_photo(records: Iterable[Record], metric: str, columns: list[str]) -> dict[str, dict[str, Values]]:
    """Sort one figure: method → column (and ALL) → photo → value. ALL has the photos that have every column."""
    sorted_: dict[str, dict[str, Values]] = {}
    for record in records:
        value = record["figures"].get(metric)
        if value is not None and record["column"] in columns:
            sorted_.setdefault(record["method"], {}).setdefault(record["column"], {})[record["photo_sha256"]] = value
    for found in sorted_.values():
        if len(columns) > 1 and len(found) == len(columns):
            complete = set.intersection(*(set(values) for values in found.values()))
            means = {p: float(np.mean([found[c][p] for c in columns])) for p in sorted(complete)}
            if means:
                found[ALL] = means
    return sorted_


def summarize(values: Mapping[str, Mapping[str, Values]], seed: int) -> dict[str, dict[str, Interval]]:
    """Turn method → column → photo → value into intervals."""
    return {
        method: {column: bootstrap(found.values(), seed) for column, found in columns.items()}
        for method, columns in values.items()
    }


def paired_differences(
    values: Mapping[str, Mapping[str, Values]], reference: str, seed: int
) -> dict[str, dict[str, Interval]]:
    """Subtract the reference's figure on the same photo: method − reference, on the photos that both have."""
    if reference not in values:
        return {}
    differences: dict[str, dict[str, Values]] = {}
    for method, columns in values.items():
        for column, found in columns.items():
            other = values[reference].get(column, {})
            both = {photo: found[photo] - other[photo] for photo in found if photo in other}
            if method != reference and both:
                differences.setdefault(method, {})[column] = both
    return summarize(differences, seed)


def costs(records: Iterable[Record]) -> dict[str, dict[str, float]]:
    """Median seconds and megapixels a second, and peak memory, by method."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["method"], []).append(record)
    result: dict[str, Any] = {}
    for method, rows in found.items():
        result[method] = {
            "seconds": median(row["seconds"] for row in rows),
            "megapixels_per_second": median(row["megapixels"] / max(row["seconds"], 1e-9) for row in rows),
            "peak_mib": max(row["peak_mib"] for row in rows),
        }
    return result
