"""Several trainings of one recipe: mean, spread and interval against other arithmetic, coverage at known truth."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from finbench.scoring import EXACT, SeedVariance, mean_over_trainings, metrics, p_values, pooled, seed_variance
from finbench.scoring.measuring import error_over_documents


def simulated(draw: Any, n: int, seeds: int, between: float, *, mean: float = 0.0, easy: Any = None) -> Any:
    """0 and 1 of ``seeds`` trainings on ``n`` documents: probit of ability + seed + document (sd 1) + chance (sd 1)."""
    easy = draw.normal(size=n) if easy is None else easy
    ability = mean + between * draw.normal(size=(seeds, 1))
    return (ability + easy + draw.normal(size=(seeds, n)) > 0).astype(float)


def truth(between: float, mean: float = 0.0) -> float:
    """The share right over all seeds and documents of ``simulated``."""
    return float(scipy_stats.norm.cdf(mean / math.sqrt(2 + between**2)))


def test_mean_and_error_are_those_of_a_table_of_documents_and_seeds() -> None:
    """For means the jackknife is s / sqrt(n) of the documents' own means: everything follows by hand."""
    runs = simulated(np.random.default_rng(1), 40, 3, 0.5)
    found = mean_over_trainings(list(runs), metrics.mean)
    of_documents = statistics.stdev(runs.mean(axis=0)) ** 2 / 40
    of_seeds = statistics.stdev(runs.mean(axis=1)) ** 2 / 3
    weighted = of_documents * scipy_stats.t.ppf(0.975, 39) + of_seeds * scipy_stats.t.ppf(0.975, 2)
    z, share = weighted / (of_documents + of_seeds), runs.mean()
    size = share * (1 - share) / (of_documents + of_seeds)
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    assert found.value == pytest.approx(share)
    bounded = mean_over_trainings(list(runs), metrics.mean, within=(0.0, 1.0))
    assert (bounded.low, bounded.high) == pytest.approx((middle - half, middle + half))
    half = z * math.sqrt(of_documents + of_seeds)
    assert (found.low, found.high) == pytest.approx((share - half, share + half))


def test_the_spread_of_seeds_is_pooled_by_degrees_of_freedom() -> None:
    one, two = seed_variance([0.1, 0.3]), seed_variance([0.2, 0.2, 0.5])
    assert (one.value, one.df) == pytest.approx((0.02, 1))
    assert pooled([one, two]).value == pytest.approx((0.02 + 2 * 0.03) / 3)
    assert pooled([one, two]).df == 3


def test_trainings_that_answer_alike_have_the_interval_of_documents() -> None:
    run = [1.0, 0.0, 1.0, 1.0] * 20
    found = mean_over_trainings([run, run], metrics.mean, within=(0.0, 1.0))
    assert found.value == 0.75
    assert found.low == pytest.approx(0.6447, abs=3e-3)  # Wilson's, 60 of 80
    assert mean_over_trainings([run, run], metrics.mean, ["one"] * 80).low is None


@pytest.mark.parametrize(("seeds", "between"), [(2, 0.1), (3, 0.0), (3, 0.3), (5, 0.6)])
def test_the_interval_covers_what_other_documents_and_seeds_would_give(seeds: int, between: float) -> None:
    """400 experiments: two standard errors are 2.2 points. Documents alone cover far less."""
    draw, hits, alone = np.random.default_rng(7), 0, 0
    for _ in range(400):
        runs = list(simulated(draw, 200, seeds, between, mean=0.5))
        found = mean_over_trainings(runs, metrics.mean, within=(0.0, 1.0))
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth(between, 0.5) <= found.high
        half = 1.96 * np.mean(runs, axis=0).std(ddof=1) / math.sqrt(200)
        alone += abs(found.value - truth(between, 0.5)) <= half
    assert hits / 400 >= 0.93
    if between >= 0.3:
        assert alone / 400 < 0.85


def p_apart(a: tuple[list[Any], SeedVariance], b: tuple[list[Any], SeedVariance]) -> float:
    """That two recipes have one mean, by their trainings and what is known of the variance between seeds."""
    signed = [(sign / len(runs), run) for sign, (runs, _) in ((1, a), (-1, b)) for run in runs]
    gap = sum(weight * np.mean(run) for weight, run in signed)
    error, units = error_over_documents(signed, metrics.mean)
    parts = [(error**2, units - 1.0), *((seeds.value / len(runs), seeds.df) for runs, seeds in (a, b))]
    return float(p_values(np.array([gap]), [(np.array([part]), np.array([df])) for part, df in parts])[0])


@pytest.mark.parametrize("seeds", [(1, 1), (3, 1), (3, 3)])
def test_recipes_of_one_mean_are_told_apart_in_five_of_a_hundred_at_most(seeds: tuple[int, int]) -> None:
    """The spread of single trainings is known from 16 others. Tests of documents alone are wrong far more often."""
    draw, apart, alone, sides = np.random.default_rng(3), 0, 0, 400
    for _ in range(sides):
        known = seed_variance(simulated(draw, 200, 16, 0.3).mean(axis=1))
        easy = draw.normal(size=200)
        a, b = (simulated(draw, 200, count, 0.3, easy=easy) for count in seeds)
        spread = [known if len(one) == 1 else seed_variance(one.mean(axis=1)) for one in (a, b)]
        apart += p_apart((list(a), spread[0]), (list(b), spread[1])) < 0.05
        alone += p_apart((list(a), EXACT), (list(b), EXACT)) < 0.05
    assert apart / sides <= 0.072  # two standard errors above 5 %
    assert alone / sides > 0.15


def test_what_differs_far_more_than_seeds_is_told_apart() -> None:
    draw = np.random.default_rng(5)
    easy = draw.normal(size=300)
    a, b = simulated(draw, 300, 3, 0.1, mean=1.5, easy=easy), simulated(draw, 300, 1, 0.1, easy=easy)
    own = seed_variance(a.mean(axis=1))
    assert p_apart((list(a), own), (list(b), SeedVariance(0.03**2, 15))) < 0.001
    assert p_apart((list(a), own), (list(b), SeedVariance(0.5**2, 15))) > 0.05


def test_a_metric_that_is_no_sum_over_documents() -> None:
    """The same mean by an aggregation that nobody knows: called on resamples instead."""

    def unknown(values: Any) -> float:
        return sum(values) / len(values)

    runs = list(simulated(np.random.default_rng(2), 40, 3, 0.2))
    known, called = mean_over_trainings(runs, metrics.mean), mean_over_trainings(runs, unknown)
    assert (known.value, known.low, known.high) == pytest.approx((called.value, called.low, called.high))
