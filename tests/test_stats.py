"""Intervals and paired tests: equal to scipy, statsmodels and scikit-learn, and of the promised coverage."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import f1_score, matthews_corrcoef
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint

from conftest import quick, task_helper
from finbench.scoring import measuring, metrics, paired, stats

LABELS = task_helper("labels")
SPANS = task_helper("spans")
NAMES = ("negative", "neutral", "positive")
Pairs = list[tuple[int, int]]


def items(pairs: Any, names: tuple[str, ...] = NAMES) -> list[tuple[str, str | None, tuple[str, ...]]]:
    return [(names[g], names[p] if p < len(names) else None, names) for g, p in pairs]


def mean_of(parts: stats.Counts) -> stats.Counts:
    return np.asarray(parts[..., 0] / parts[..., 1])


def shares(values: Any) -> stats.Counts:
    return np.stack([np.asarray(values, dtype=float), np.ones(len(values))], axis=1)


# ---------------------------------------------------------------- point values and closed forms


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts: tuple[int, int]) -> None:
    found = stats.wilson(*counts)
    expected = scipy_stats.binomtest(*counts).proportion_ci(method="wilson")
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("counts", [(5, 3), (-1, 3), (0, 0)])
def test_what_is_no_share_is_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        stats.wilson(*counts)


def test_welch_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((2, 2), (3, 5), (8, 3), (2, 40)):
        a, b = rng.normal(0, 1, n), rng.normal(1, 3, m)
        assert stats.welch(list(a), list(b)) == pytest.approx(scipy_stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert stats.welch([1.0, 1.0], [1.0]) == 1.0
    assert stats.welch([1.0, 1.0], [2.0]) == 0.0
    assert stats.welch([1.0], [2.0]) == 1.0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=60))
def test_label_metrics_equal_scikit_learn_and_the_tasks_own(pairs: Pairs) -> None:
    gold, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    expected = f1_score(gold, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
    assert LABELS.macro_f1(items(pairs)) == pytest.approx(expected)
    for name, value in (
        ("macro_f1", expected),
        ("weighted_f1", f1_score(gold, predicted, labels=[0, 1, 2], average="weighted", zero_division=0)),
        ("mcc", matthews_corrcoef(gold, predicted)),
    ):
        metric = metrics.summed(name, items(pairs))
        assert metric is not None
        assert float(metric.statistic(metric.parts.sum(axis=0))) == pytest.approx(value), name


def test_seed_spread_is_the_t_interval_of_scipy() -> None:
    values = [0.852, 0.842, 0.849]
    spread = stats.seed_spread(values)
    low, high = scipy_stats.t.interval(0.95, 2, np.mean(values), scipy_stats.sem(values))
    assert (spread.low, spread.high) == (pytest.approx(low), pytest.approx(high))
    assert (spread.mean, spread.deviation) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    with pytest.raises(ValueError, match="two seeds"):
        stats.seed_spread([0.5])


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_equals_statsmodels(b: int, c: int) -> None:
    expected = their_mcnemar([[0, b], [c, 0]], exact=True).pvalue if b + c else 1.0
    assert paired.mcnemar(b, c) == pytest.approx(expected, rel=1e-6)


def test_at_their_ends_the_tests_are_those_of_scipy_and_statsmodels() -> None:
    """None and all of n, one document, nothing but ties, p-values of 0 and 1, counts in the millions."""
    for n in (1, 2, 3, 723, 10**6):
        for k in {0, 1, n // 2, n - 1, n}:
            assert stats.wilson(k, n).interval == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-9)
    for b, c in ((0, 1), (1, 1), (0, 5000), (5000, 5000), (1, 100_000), (0, 10**6)):
        expected = their_mcnemar([[0, b], [c, 0]], exact=True).pvalue
        assert paired.mcnemar(b, c) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    for p_values in ([1.0], [0.0, 0.0], [1.0] * 3, [0.05] * 20, [0.0, 1.0, 0.5, 0.5], [1e-300] * 3):
        assert paired.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert paired.holm([]) == []
    for a, b in (([1, 1], [0, 0]), ([1, 0], [0, 1]), ([1] * 6, [0] * 6), ([0] * 9, [0] * 9), ([5] * 7, [5] * 6 + [4])):
        sides = np.array(a, float), np.array(b, float)
        expected = scipy_stats.permutation_test(
            sides, lambda x, y: x.mean() - y.mean(), permutation_type="samples", n_resamples=np.inf
        ).pvalue
        assert paired.permutation(shares(a), shares(b), mean_of) == pytest.approx(expected, abs=0.015)
    alone = paired.difference(shares([1]), shares([0]), mean_of)
    assert (alone.measure.lacking, alone.p, alone.detectable()) == ("one document", 1.0, None)
    same = paired.difference(shares([1] * 9), shares([1] * 9), mean_of)
    assert (same.measure.lacking, same.p, same.detectable()) == ("documents are all alike", 1.0, None)


def test_holm_equals_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 7, 12, 40):
        for p_values in (rng.random(size) ** 4, np.round(rng.random(size), 1)):  # ties too
            assert paired.holm(list(p_values)) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_detectable_effect_and_sample_size_equal_statsmodels() -> None:
    """A paired difference is a one-sample test: ratio=0 in statsmodels. Its power counts the far tail too."""
    n, deviation = 723, 0.31
    error = deviation / np.sqrt(n)
    effect = paired.DETECTABLE * error
    assert NormalIndPower().power(effect / deviation, n, 0.05, ratio=0) == pytest.approx(0.8, abs=1e-5)
    needed = paired.documents_needed(n, error, 0.01)
    expected = NormalIndPower().solve_power(0.01 / deviation, power=0.8, alpha=0.05, ratio=0)
    assert needed == pytest.approx(expected, abs=1)
    assert paired.documents_needed(n, error, 0.0) is None


# ---------------------------------------------------------------- resampling


def test_bootstrap_intervals_agree_with_scipy() -> None:
    values = np.random.default_rng(3).gamma(2.0, 0.2, size=400)
    ours = stats.estimate(shares(values), mean_of, bounds=paired.UNBOUNDED)[0]
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=1)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.002)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.002)


def test_both_ways_to_resample_have_the_distribution_of_the_plain_one() -> None:
    """Few kinds of documents: multinomial; many: drawn indices. Compare quantiles with a loop over resamples."""
    rng = np.random.default_rng(5)
    gold = rng.integers(3, size=300)
    predicted = np.where(rng.random(300) < 0.7, gold, rng.integers(4, size=300))
    metric = metrics.summed("macro_f1", items(zip(gold, predicted, strict=True)))
    assert metric is not None
    plain = np.array([metric.statistic(metric.parts[rng.integers(300, size=300)].sum(axis=0)) for _ in range(4000)])
    few = stats.resample(metric.parts, metric.statistic)
    noise = rng.random((300, 1)) * 1e-9  # makes every document a kind of its own
    many = stats.resample(np.concatenate([metric.parts, noise], axis=1), lambda sums: metric.statistic(sums[..., :-1]))
    for fast in (few, many):
        assert len(fast) == stats.RESAMPLES
        assert np.quantile(fast, [0.025, 0.5, 0.975]) == pytest.approx(
            np.quantile(plain, [0.025, 0.5, 0.975]), abs=0.006
        )


def test_ten_thousand_resamples_of_five_thousand_documents_take_less_than_two_seconds() -> None:
    rng = np.random.default_rng(0)
    start = time.process_time()
    stats.estimate(shares(rng.random(5000)), mean_of)
    assert quick(time.process_time() - start, 2)


def test_the_order_of_documents_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    for values in (rng.integers(4, size=500) / 4, rng.random(500)):
        shuffled = rng.permutation(values)
        one, other = (stats.estimate(shares(side), mean_of, resamples=500)[0] for side in (values, shuffled))
        assert (one.low, one.high) == (pytest.approx(other.low), pytest.approx(other.high))


def test_documents_of_one_source_widen_the_interval() -> None:
    """Ten copies of each of 60 documents say as much as 60 documents, not 600."""
    values = np.random.default_rng(4).random(60)
    copies, sources = np.repeat(values, 10), np.repeat(np.arange(60), 10)
    single = stats.estimate(shares(values), mean_of)[0]
    naive = stats.estimate(shares(copies), mean_of)[0]
    clustered = stats.estimate(shares(copies), mean_of, list(sources))[0]
    assert clustered.high - clustered.low == pytest.approx(single.high - single.low, rel=0.03)
    assert (naive.high - naive.low) < 0.5 * (single.high - single.low)
    assert clustered.method == "cluster bootstrap, 10000 resamples"  # 60 sources


def test_all_right_or_all_wrong_is_no_certainty() -> None:
    perfect = measuring.measure([(2, 0, 0)] * 30, SPANS.span_f1)
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(stats.wilson(30, 30).low)
    nothing = measuring.measure([(0, 1, 2)] * 30, SPANS.span_f1)
    assert (nothing.value, nothing.low) == (0.0, 0.0)
    assert nothing.high == pytest.approx(1 - stats.wilson(30, 30).low)


# ---------------------------------------------------------------- simulation: 2,000 evaluations each


JOINT = np.array([[0.10, 0.02, 0.01, 0.01], [0.04, 0.50, 0.05, 0.01], [0.01, 0.05, 0.19, 0.01]])


def coverage(draw: Any, truth: float, evaluations: int = 2000) -> float:
    """Share of simulated evaluations whose interval holds the truth."""
    found = [draw() for _ in range(evaluations)]
    return float(np.mean([measure.low <= truth <= measure.high for measure in found]))


def test_accuracy_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    assert 0.93 <= coverage(lambda: stats.wilson(int(rng.binomial(300, 0.8)), 300), 0.8) <= 0.97


def test_macro_f1_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    pairs = [(g, p) for g in range(3) for p in range(4)]
    metric = metrics.summed("macro_f1", items(pairs))
    assert metric is not None
    truth = float(metric.statistic(JOINT.ravel() @ metric.parts))

    def draw() -> Any:
        parts = np.repeat(metric.parts, rng.multinomial(300, JOINT.ravel()), axis=0)
        return stats.estimate(parts, metric.statistic, resamples=1000)[0]

    assert 0.93 <= coverage(draw, truth) <= 0.97


def _span_documents(rng: Any, n: int, ability: Any) -> stats.Counts:
    """(true positives, false positives, false negatives) of ``n`` documents with 0 to 5 entities."""
    entities = rng.poisson(1.6, size=n)
    hits = rng.binomial(entities, ability)
    return np.stack([hits, rng.poisson(0.4, size=n), entities - hits], axis=1).astype(float)


def test_span_f1_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    truth = 2 * 1.6 * 0.7 / (2 * 1.6 * 0.7 + 0.4 + 1.6 * 0.3)
    statistic = metrics._span_f1([(0, 0, 0)]).statistic

    def draw() -> Any:
        return stats.estimate(_span_documents(rng, 250, 0.7), statistic, resamples=1000)[0]

    assert 0.93 <= coverage(draw, truth) <= 0.97


def test_clustered_accuracy_intervals_cover_the_truth_where_naive_ones_do_not() -> None:
    """Five questions about each of 100 headlines, whose difficulty they share."""
    rng = np.random.default_rng(1)
    sources = list(np.repeat(np.arange(100), 5))
    naive = []

    def draw() -> Any:
        difficulty = rng.beta(3, 1, size=100)
        right = rng.random(500) < np.repeat(difficulty, 5)
        alone = stats.wilson(int(right.sum()), 500)
        naive.append(alone.low <= 0.75 <= alone.high)
        return stats.estimate(shares(right), mean_of, sources, resamples=1000)[0]

    assert 0.93 <= coverage(draw, 0.75) <= 0.97
    assert np.mean(naive) < 0.93


def test_the_paired_tests_keep_their_level() -> None:
    """2,000 pairs of equally good subjects: at most 5 % of the tests see a difference, up to chance."""
    rng = np.random.default_rng(7)
    seen = {"permutation of accuracy": 0, "permutation of span F1": 0, "McNemar": 0, "bootstrap": 0}
    statistic = metrics._span_f1([(0, 0, 0)]).statistic
    for _ in range(2000):
        difficulty = rng.beta(4, 2, size=200)
        a, b = (rng.random(200) < difficulty for _ in range(2))
        found = paired.difference(shares(a), shares(b), mean_of, resamples=500)
        seen["permutation of accuracy"] += found.p < 0.05
        seen["bootstrap"] += not found.measure.low <= 0 <= found.measure.high
        seen["McNemar"] += paired.mcnemar(int((a & ~b).sum()), int((b & ~a).sum())) < 0.05
        one, other = (_span_documents(rng, 150, 0.7) for _ in range(2))
        seen["permutation of span F1"] += paired.permutation(one, other, statistic, resamples=500) < 0.05
    rates = {name: count / 2000 for name, count in seen.items()}
    assert all(rate <= 0.065 for rate in rates.values()), rates  # 5 % and three standard errors
    assert rates["permutation of span F1"] >= 0.035
    assert rates["bootstrap"] >= 0.03


def test_the_paired_test_agrees_with_scipy_and_finds_what_is_there() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(40) + 0.15, rng.random(40)
    expected = scipy_stats.permutation_test(
        (a, b), lambda x, y: x.mean() - y.mean(), permutation_type="samples", n_resamples=10_000, rng=0
    )
    assert paired.permutation(shares(a), shares(b), mean_of) == pytest.approx(expected.pvalue, abs=0.01)
    assert paired.permutation(shares(b), shares(b), mean_of) == 1.0


# ---------------------------------------------------------------- the tasks' aggregations


def test_measures_agree_with_the_aggregation_that_lm_eval_uses() -> None:
    questions = [("up", "Yes", "Yes"), ("up", "No", "Yes"), ("down", "Yes", None), ("down", "No", "No")] * 10
    found = measuring.measure(questions, LABELS.question_f1)
    assert found.value == pytest.approx((2 / 3 + 0) / 2)
    assert found.low <= found.value <= found.high
    spans = [(2, 1, 0), (0, 0, 3), (1, 0, 0), (0, 0, 0)] * 9
    assert measuring.measure(spans, SPANS.span_f1).value == pytest.approx(6 / (6 + 1 + 3))
    scores = [0.25, 1.0, 0.5] * 20
    assert measuring.measure(scores, metrics.mean).value == pytest.approx(np.mean(scores))
    shared = stats.wilson(3, 4)
    assert measuring.measure([1.0, 0.0, 1.0, 1.0], metrics.mean) == shared


def test_an_aggregation_not_known_is_resampled_by_calling_it() -> None:
    rng = np.random.default_rng(1)
    values = list(rng.normal(size=150))

    def variance(sample: Any) -> float:
        return float(np.var(sample))

    found = measuring.measure(values, variance)
    theirs = scipy_stats.bootstrap((values,), np.var, method="percentile", rng=1).confidence_interval
    assert found.method == "bootstrap, 500 resamples"
    assert (found.low, found.high) == (pytest.approx(theirs.low, abs=0.06), pytest.approx(theirs.high, abs=0.06))
    other = [2 * value for value in values]
    gap = measuring.paired_difference(other, values, variance)
    assert gap.measure.value == pytest.approx(3 * variance(values))
    assert gap.p < 0.01
    assert measuring.paired_difference(values, values, variance).p == 1.0
    halves = list(np.repeat(np.arange(75), 2))
    assert measuring.measure(values, variance, halves).method == "cluster bootstrap, 500 resamples"


def test_paired_differences_by_sums_and_by_calling_agree() -> None:
    rng = np.random.default_rng(8)
    gold = rng.integers(3, size=200)
    a, b = (items(zip(gold, np.where(rng.random(200) < k, gold, 1), strict=True)) for k in (0.9, 0.7))

    def renamed(values: Any) -> float:
        return float(LABELS.macro_f1(values))

    fast, slow = measuring.paired_difference(a, b, LABELS.macro_f1), measuring.paired_difference(a, b, renamed)
    assert fast.measure.value == pytest.approx(slow.measure.value)
    assert fast.measure.low == pytest.approx(slow.measure.low, abs=0.02)
    assert fast.error == pytest.approx(slow.error, rel=0.15)
    assert fast.p < 0.01
    assert slow.p < 0.02


def test_an_aggregation_that_disagrees_with_its_interval_is_a_bug() -> None:
    def mean(values: Any) -> float:
        return 0.123

    mean.__module__ = "lm_eval.api.metrics"  # one of others by this name is resampled as it is
    with pytest.raises(AssertionError, match="lm-eval gives"):
        measuring.measure([1.0, 0.0], mean)


def test_the_aggregations_read_from_the_yaml_are_those_of_lm_eval() -> None:
    from lm_eval.tasks import TaskManager

    from finbench.core import paths

    manager = TaskManager(include_path=str(paths.shipped("tasks")), include_defaults=False)
    for name in ("finbench_mini_sentiment", "finbench_mini_ner", "finbench_mini_headline", "finbench_mini_xbrl_value"):
        theirs = manager.load([name])["tasks"][name]
        ours = metrics.aggregations(name)
        assert {key: how.__name__ for key, how in ours.items()} == {
            key: how.__name__ for key, how in theirs.aggregation().items()
        }
        assert metrics.lower_is_better(name) == [k for k, up in theirs.higher_is_better().items() if not up]


# ---------------------------------------------------------------- few units


def test_one_source_gives_no_interval_and_says_why() -> None:
    """30 questions about one filing: nothing is known of how another filing would do."""
    right = [1.0] * 19 + [0.0] * 11
    found = measuring.measure(right, metrics.mean, ["filing"] * 30)
    assert (found.value, found.low, found.high) == (19 / 30, None, None)
    assert (found.method, found.lacking, found.interval) == ("none, one source", "one source", None)
    assert measuring.measure([1.0] * 30, metrics.mean, ["filing"] * 30).interval is None  # all right is no better
    assert measuring.measure([("positive", "positive", NAMES)], LABELS.macro_f1).lacking == "one document"
    errors = measuring.measure([(1.0, 1.5), (2.0, 2.0), (0.5, 1.0)], task_helper("regression").mse, ["filing"] * 3)
    assert errors.lacking == "one source"


@pytest.mark.parametrize(("n", "reason"), [(10, "documents are all alike"), (60, "resamples are all alike")])
def test_documents_that_are_all_alike_give_no_interval(n: int, reason: str) -> None:
    """Rows of one label, all read right: macro-F1 over three labels is 1/3 whatever is drawn of them."""
    found = measuring.measure([("neutral", "neutral", NAMES)] * n, LABELS.macro_f1)
    assert found.value == pytest.approx(1 / 3)
    assert (found.interval, found.lacking) == (None, reason)
    assert measuring.measure([(1.0, 1.0)] * n, task_helper("regression").mse).interval is None


@pytest.mark.parametrize("n", [40, 60])
def test_an_unknown_aggregation_of_a_share_at_its_end_is_no_certainty(n: int) -> None:
    def gold_share(values: Any) -> float:
        return float(np.mean(values))

    found = measuring.measure([1.0] * n, gold_share, within=stats.SHARE)
    assert found.interval == (pytest.approx(stats.wilson(n, n).low), 1.0)


def test_the_jackknife_is_that_of_its_definition_and_of_the_mean() -> None:
    rng = np.random.default_rng(6)
    values = np.round(rng.random(40), 1)  # with ties
    assert stats.jackknife(shares(values), mean_of) == pytest.approx(scipy_stats.sem(values))
    spans = _span_documents(rng, 30, 0.7)
    statistic = metrics._span_f1([(0, 0, 0)]).statistic
    without = np.array([statistic(np.delete(spans, row, axis=0).sum(axis=0)) for row in range(30)])
    assert stats.jackknife(spans, statistic) == pytest.approx(np.sqrt(29 * without.var()))
    assert stats.spread(without, np.ones(30)) == pytest.approx(np.sqrt(29 * without.var()))


def test_a_share_of_few_sources_gets_wilsons_interval_of_its_effective_size() -> None:
    """The ends are where |share - p| is t standard errors of as many independent documents as have its error."""
    means = np.array([0.7, 0.5, 0.6, 0.9])
    right = [float(n < 10 * share) for share in means for n in range(10)]
    found = measuring.measure(right, metrics.mean, np.repeat(list("abcd"), 10).tolist())
    share, error, t = means.mean(), scipy_stats.sem(means), scipy_stats.t.ppf(0.975, 3)
    for end in found.interval:
        at_end = error**2 * end * (1 - end) / (share * (1 - share))  # variance if the end were the truth
        assert abs(share - end) == pytest.approx(t * np.sqrt(at_end))
    assert found.method == "Wilson, effective size by jackknife over 4 sources, Student's t"
    independent = stats.estimate(shares(right), mean_of)[0]
    assert stats.estimate(shares(right), mean_of, list(range(40)))[0].interval == independent.interval  # no sources


def test_sources_of_unlike_size_count_as_fewer() -> None:
    """With one source of nine tenths of the documents there is hardly more than one."""
    values = np.random.default_rng(3).random(60)
    alike, unlike = list(np.repeat(np.arange(6), 10)), [0] * 50 + list(range(1, 6)) * 2
    found = [stats.estimate(shares(values), mean_of, of)[0] for of in (alike, unlike)]
    grouped, sizes = stats.by_cluster(shares(values), unlike)
    assert sizes.tolist() == [50, 2, 2, 2, 2, 2]
    error, share = stats.jackknife(grouped, mean_of), values.mean()
    t = scipy_stats.t.ppf(0.975, 60**2 / (50**2 + 5 * 2**2) - 1) if 60**2 / (50**2 + 5 * 2**2) > 2 else None
    assert t is None  # as few as two sources, and no fewer
    n, t = share * (1 - share) / error**2, scipy_stats.t.ppf(0.975, 1)
    assert found[1].interval == pytest.approx(stats.score_interval(share, n, t))
    assert found[1].high - found[1].low > 2 * (found[0].high - found[0].low)


def test_sources_that_agree_by_chance_are_no_certainty() -> None:
    sources = ["a"] * 12 + ["b"] * 12
    alike = measuring.measure([1.0, 0.0] * 12, metrics.mean, sources)  # both at one half
    assert alike.interval == pytest.approx(stats.score_interval(0.5, 2, scipy_stats.t.ppf(0.975, 1)))
    perfect = measuring.measure([1.0] * 24, metrics.mean, sources)
    assert (perfect.method, perfect.interval) == ("Wilson, 2 of 2", stats.wilson(2, 2).interval)


def test_metrics_with_one_bound_or_none_stay_within_it() -> None:
    rng, sources = np.random.default_rng(2), np.repeat(np.arange(3), 5).tolist()
    pairs = [(float(a), float(a + e)) for a, e in zip(rng.random(15), rng.normal(0, [0.1, 1, 3] * 5), strict=True)]
    mse = measuring.measure(pairs, task_helper("regression").mse, sources, within=(0.0, np.inf))
    r2 = measuring.measure(pairs, task_helper("regression").r2, sources, within=(-np.inf, 1.0))
    assert 0 < mse.low < mse.value < mse.high
    assert r2.low < r2.value < r2.high < 1
    assert mse.high / mse.value == pytest.approx(mse.value / mse.low)
    assert mse.method == "Student's t, jackknife over 3 sources"
    gap = measuring.paired_difference([1.0, 4.0, 3.0, 9.0], [0.0, 1.0, 3.0, 2.0], metrics.mean).measure
    low, high = scipy_stats.ttest_1samp([1.0, 3.0, 0.0, 7.0], 0).confidence_interval()
    assert gap.interval == (pytest.approx(low), pytest.approx(high))
    assert gap.method == "Student's t, jackknife over 4 documents"


def _few(rng: Any, sources: int, share: float, alike: float) -> tuple[list[float], list[int]]:
    """Fifteen questions about each source, which differ in size and share their difficulty (correlation ``alike``)."""
    ability = rng.beta(share * (1 / alike - 1), (1 - share) * (1 / alike - 1), size=sources)
    asked = np.maximum(1, rng.poisson(15, size=sources))
    right = rng.random(asked.sum()) < np.repeat(ability, asked)
    return right.astype(float).tolist(), np.repeat(np.arange(sources), asked).tolist()


@pytest.mark.parametrize("sources", [2, 4, 8, 15, 40])
def test_intervals_of_few_sources_cover_the_truth_where_percentiles_do_not(sources: int) -> None:
    rng = np.random.default_rng(sources)
    held = np.zeros(2)
    for _ in range(600):
        right, of = _few(rng, sources, 0.8, 0.3)
        found = stats.estimate(shares(right), mean_of, of, resamples=400)[0].interval or (np.nan, np.nan)
        sums = stats.by_cluster(shares(right), of)[0]
        plain = np.quantile(stats.resample(sums, mean_of, resamples=400), [0.025, 0.975])
        held += [low <= 0.8 <= high for low, high in (found, plain)]
    assert held[0] / 600 >= 0.93
    assert held[1] / 600 < {2: 0.65, 4: 0.88, 8: 0.93}.get(sources, 1)


def test_differences_on_few_sources_cover_the_truth_and_are_possible() -> None:
    """Two equally able subjects on the same questions about four sources."""
    rng, held = np.random.default_rng(4), 0
    for _ in range(600):
        able = rng.beta(0.8 * 7 / 3, 0.2 * 7 / 3, size=(2, 4))
        of = np.repeat(np.arange(4), 15)
        a, b = ((rng.random(60) < side[of]).astype(float).tolist() for side in able)
        low, high = measuring.paired_difference(a, b, metrics.mean, of.tolist()).measure.interval
        assert -1 <= low <= high <= 1
        held += low <= 0 <= high
    assert held / 600 >= 0.93


def test_a_difference_on_few_sources_is_never_significant_and_says_so() -> None:
    a, b = [1.0] * 40, [0.0] * 40
    for sources, p in ((1, 1.0), (2, 0.5), (5, 2 / 2**5)):
        found = measuring.paired_difference(a, b, metrics.mean, [f"filing {number % sources}" for number in range(40)])
        assert (found.units, found.testable, found.detectable()) == (sources, False, None)
        assert found.p == pytest.approx(p, abs=0.02)
        assert (found.measure.interval is None) == (sources == 1)
    six = measuring.paired_difference(a, b, metrics.mean, [f"filing {number % 6}" for number in range(40)])
    assert six.testable
    assert six.p < 0.05


def test_a_difference_by_rounding_asks_for_no_number_of_documents() -> None:
    """Means of the same numbers in another order differ in the last bit: no n settles that."""
    effect = (0.1 + 0.2 + 0.3) / 3 - (0.3 + 0.2 + 0.1) / 3
    assert effect != 0
    assert paired.documents_needed(150, 0.05, effect) is None
    assert paired.documents_needed(150, 0.05, 0.01) is not None
