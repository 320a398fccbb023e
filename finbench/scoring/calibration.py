"""How sure a model is when it is right: calibration, abstaining, and a threshold with a guarantee. Numpy only.

Everything is of the answer that was given: ``confidence``, its probability as the model states it, and ``right``, 1 or
0, one number a document; ``sources`` names what documents share. Only what a scorecard holds is needed, no gold label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finbench.core.records import Measure
from finbench.scoring.stats import FEW, SHARE, Z95, Counts, by_cluster, estimate, ratio, resample

BINS = 15  # of equal size at most (Nixon et al. 2019); fewer where a bin would have less than ``_IN_BIN`` sources
_IN_BIN = 20
_RESAMPLES = 2_000
_FOLDS = 5
_HOTTEST = 50.0  # temperatures from 1/50 to 50 are looked at
COVERAGE = 0.8
SURE = 0.95  # probability with which a guaranteed error rate holds
STARTS = 5  # shares of the documents from which a threshold is looked for
_STEPS = 100  # shares of the documents that are tried as thresholds
_LEAST = 1e-12  # probability that a logarithm is taken of


@dataclass(frozen=True)
class Bin:
    """A point of the reliability diagram: mean confidence and accuracy of documents of like confidence."""

    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Brier:
    """The Brier score of "the answer is right": reliability - resolution + uncertainty + within (Murphy 1973).

    ``within``: what confidences of one bin differ by (Stephenson, Coelho and Jolliffe 2008).
    """

    score: Measure
    reliability: float
    resolution: float
    uncertainty: float
    within: float


@dataclass(frozen=True)
class Tempered:
    """What dividing the log-probabilities by one number gains, on documents that it was not fitted to."""

    temperature: float
    fitted_on: str  # for people
    edge: bool  # the best is as far as was looked: no temperature makes these answers trustworthy
    gain: Measure  # of log loss, in nats a document: above 0 is better
    error: Measure  # expected calibration error afterwards

    @property
    def at_edge(self) -> str:
        """What to say beside a temperature where the search ended; empty for others."""
        if not self.edge:
            return ""
        if self.temperature < 1:
            return " (the smallest that is tried)"
        return " (the largest that is tried: its confidence says next to nothing)"


@dataclass(frozen=True)
class Threshold:
    """Where an answer is taken whose confidence is above ``least``, at most ``wanted`` of those taken are wrong.

    That holds with probability ``SURE`` over the documents that it was found on. ``least`` None: there is none.
    """

    wanted: float
    least: float | None
    coverage: float  # share of the documents whose answer is taken
    wrong: float  # share of those answers that was wrong here
    n: int  # documents it was found on, one of each source


@dataclass(frozen=True)
class Calibration:
    """All of it, for one subject on one task."""

    n: int
    sources: int
    confidence: float  # mean
    accuracy: Measure
    error: Measure  # expected calibration error, adaptive bins
    chance: float  # what perfectly calibrated answers would show on average, by chance
    bins: list[Bin]
    brier: Brier
    curve: list[tuple[float, float]]  # coverage, share of wrong answers among those taken
    area: float  # under the curve
    selective: Measure  # accuracy of the ``COVERAGE`` most confident answers
    thresholds: list[Threshold]
    tempered: Tempered | None = None


def padded(logs: Sequence[Sequence[float]]) -> Counts:
    """Log-likelihoods of labels as an array, shape (documents, labels); -inf where a document has fewer labels."""
    found = np.full((len(logs), max(map(len, logs))), -np.inf)
    for row, own in zip(found, logs, strict=True):
        row[: len(own)] = own
    return found


def confidences(logs: Counts, temperature: float = 1.0) -> Counts:
    """Probability of the likeliest label of each document, from log-likelihoods of its labels at a temperature."""
    return np.asarray(1 / np.exp((logs - logs.max(axis=1, keepdims=True)) / temperature).sum(axis=1))


def calibrated(
    confidence: Counts, right: Counts, sources: Sequence[Any], wanted: Sequence[float] = (0.05, 0.1, 0.2)
) -> Calibration:
    """Calibration and abstaining of answers of this ``confidence``; ``wanted``: error rates to find thresholds for."""
    bins = _bins(confidence, sources)
    groups = [bins == number for number in range(bins.max() + 1)]
    points = [Bin(int(own.sum()), float(confidence[own].mean()), float(right[own].mean())) for own in groups]
    parts = np.column_stack([right, np.ones(len(right))])
    coverage, wrong = _curve(confidence, right)
    error, chance = expected_error(confidence, right, sources)
    return Calibration(
        n=len(right),
        sources=len(set(sources)),
        confidence=float(confidence.mean()),
        accuracy=estimate(parts, _mean, sources, resamples=_RESAMPLES)[0],
        error=error,
        chance=chance,
        bins=points,
        brier=_brier(confidence, right, sources, points),
        curve=list(zip(coverage.tolist(), wrong.tolist(), strict=True)),
        area=float(wrong.mean()),
        selective=_selective(confidence, right, sources),
        thresholds=[threshold(confidence, right, sources, rate) for rate in wanted],
    )


def _mean(sums: Counts) -> Counts:
    return ratio(sums[..., 0], sums[..., 1])


def _bins(confidence: Counts, sources: Sequence[Any]) -> Any:
    """The bin of each document: equally many in each; documents of one confidence are in one bin.

    Neighbouring bins are one until each has ``_IN_BIN`` sources, or there is one bin.
    """
    values, own = np.unique(confidence, return_inverse=True)
    if len(values) > BINS:
        count = max(1, min(BINS, len(set(sources)) // _IN_BIN))
        edges = np.unique(np.quantile(confidence, np.arange(1, count) / count))
        own = np.unique(np.searchsorted(edges, confidence, side="left"), return_inverse=True)[1]
    within: list[set[Any]] = [set() for _ in range(own.max() + 1)]
    for number, source in zip(own.tolist(), sources, strict=True):
        within[number].add(source)
    merged, held, bins = [], set[Any](), 0
    for seen in within:
        merged.append(bins)
        held |= seen
        if len(held) >= _IN_BIN:
            held, bins = set(), bins + 1
    last = bins if not held else bins - 1  # what is left over joins the bin before it
    return np.minimum(merged, max(0, last))[own]


def _gaps(difference: Counts, bins: Any) -> Counts:
    """Parts whose sums give the calibration error: a column for each bin, and one that counts."""
    parts = np.zeros((len(difference), bins.max() + 2))
    parts[np.arange(len(difference)), bins] = difference
    parts[:, -1] = 1
    return parts


def _gap(sums: Counts) -> Counts:
    return ratio(np.abs(sums[..., :-1]).sum(axis=-1), sums[..., -1])


def expected_error(confidence: Counts, right: Counts, sources: Sequence[Any]) -> tuple[Measure, float]:
    """Expected calibration error over adaptive bins with its interval over sources, and what chance alone would show.

    An absolute difference is never below 0, so that its value lies too high and its resamples twice as far: the upper
    end is the farther one of the basic and the normal interval, the lower that of the basic one (Davison and Hinkley
    1997, 5.2), or 0 where perfect calibration would show as much one time in 40. Chance is the larger of two: residuals
    within each bin, with a random sign for each source (wild bootstrap), which sources share; and answers that are
    right as often as they are sure, for of answers that are all right no residual is left. Up to ``FEW`` sources there
    is no interval. How often it holds the truth for 60 sources and more: benchmarks/risk_intervals.py, whose table is
    in docs/risk.md; in small in tests/test_calibration.py.
    """
    parts = _gaps(confidence - right, bins := _bins(confidence, sources))
    share = ratio(parts[:, :-1].sum(axis=0), np.bincount(bins).astype(np.float64))
    rest, _ = by_cluster(_gaps(confidence - right - share[bins], bins), sources)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_RESAMPLES // 4, len(rest)))
    inflated = math.sqrt(len(rest) / max(1, len(rest) - len(share)))  # residuals are smaller than errors
    null = inflated * np.abs(signs @ rest[:, :-1]).sum(axis=1) / len(parts)
    kept = _by_chance(confidence, bins)
    limit = max(float(np.quantile(one, 0.975)) for one in (null, kept))
    grouped, _ = by_cluster(parts, sources)
    if len(grouped) <= FEW:
        value, why = float(_gap(grouped.sum(axis=0))), f"none, {FEW} sources or fewer"
        found = Measure(value=value, low=None, high=None, method=why)
    else:
        value, values = float(_gap(grouped.sum(axis=0))), resample(grouped, _gap, _RESAMPLES)
        low, high = np.quantile(values, [0.025, 0.975])
        ends = 2 * value - float(high), max(2 * value - float(low), value + Z95 * float(values.std()))
        kind = f"{'cluster ' if len(grouped) < len(parts) else ''}bootstrap, {_RESAMPLES} resamples"
        found = Measure(value=value, low=max(0.0, min(value, ends[0])), high=min(1.0, ends[1]), method=f"basic {kind}")
    if found.interval and found.value <= limit:
        found = found.model_copy(update={"low": 0.0})
    return found, max(float(null.mean()), float(kept.mean()))


def _by_chance(confidence: Counts, bins: Any) -> Counts:
    """Calibration errors of answers that are right as often as they are sure, each for itself."""
    rng, found = np.random.default_rng(1), []
    for _ in range(_RESAMPLES // 4):
        right = rng.random(len(confidence)) < confidence
        found.append(np.abs(np.bincount(bins, confidence - right)).sum() / len(confidence))
    return np.array(found)


def _brier(confidence: Counts, right: Counts, sources: Sequence[Any], points: Sequence[Bin]) -> Brier:
    squares = (confidence - right) ** 2
    score, _ = estimate(np.column_stack([squares, np.ones(len(right))]), _mean, sources, resamples=_RESAMPLES)
    share, mean = np.array([own.n for own in points]) / len(right), float(right.mean())
    reliability = float(share @ [(own.confidence - own.accuracy) ** 2 for own in points])
    resolution = float(share @ [(own.accuracy - mean) ** 2 for own in points])
    uncertainty = mean * (1 - mean)
    return Brier(
        score, reliability, resolution, uncertainty, float(squares.mean()) - reliability + resolution - uncertainty
    )


def _taken(confidence: Counts, count: int) -> Counts:
    """How much of each document is among the ``count`` most confident; those of the last confidence share alike."""
    least = np.sort(confidence)[-count]
    above, level = confidence > least, confidence == least
    return np.asarray(above + level * (count - above.sum()) / level.sum())


def _curve(confidence: Counts, right: Counts) -> tuple[Counts, Counts]:
    """Coverage and share of wrong answers at ``_STEPS`` coverages, the most confident first."""
    counts = np.unique(np.ceil(np.arange(1, _STEPS + 1) / _STEPS * len(right) - 1e-9).astype(int))
    wrong = [float(_taken(confidence, count) @ (1 - right)) / count for count in counts]
    return counts / len(right), np.array(wrong)


def _selective(confidence: Counts, right: Counts, sources: Sequence[Any]) -> Measure:
    taken = _taken(confidence, math.ceil(COVERAGE * len(right) - 1e-9))
    parts = np.column_stack([taken * right, taken])
    return estimate(parts, _mean, sources, bounds=SHARE, resamples=_RESAMPLES)[0]


def threshold(confidence: Counts, right: Counts, sources: Sequence[Any], wanted: float) -> Threshold:
    """The threshold of widest coverage above which at most ``wanted`` are wrong, with probability ``SURE``.

    Learn then test (Angelopoulos et al. 2021): thresholds are confidences of documents, tried from few documents to
    many by the exact binomial test (Clopper and Pearson 1934) of the answers above each, until one fails; from
    ``STARTS`` places, which share the risk. One document of each source counts, drawn with a fixed seed, so that they
    are independent.
    """
    from scipy.special import bdtr

    drawn = np.random.default_rng(0).permutation(len(right))
    first = sorted({sources[at]: at for at in drawn}.values())
    order = np.argsort(-confidence[first], kind="stable")
    scores = np.append(confidence[first][order], 0.0)  # above nothing: every answer is taken
    misses = np.concatenate([[0.0], np.cumsum(1 - right[first][order])])
    n, level, best = len(first), (1 - SURE) / STARTS, -1
    above = np.searchsorted(-scores, -scores, side="left")  # answers of more confidence than that at each rank
    ranks = np.unique(np.ceil(np.arange(1, _STEPS + 1) / _STEPS * n).astype(int))
    ranks = ranks[(1 - wanted) ** above[ranks] <= level]  # where even no wrong answer tells nothing, none is tried
    for start in range(STARTS):
        for rank in ranks[ranks >= start * n // STARTS]:
            # given the confidence at the rank, the answers above it are independent draws
            if bdtr(misses[above[rank]], above[rank], wanted) > level:
                break
            best = max(best, int(rank))
    if best < 0:
        return Threshold(wanted, None, 0.0, 0.0, n)
    taken = int(above[best])
    return Threshold(wanted, float(scores[best]), taken / n, float(misses[taken] / taken), n)


def fitted(logs: Counts, right: Counts) -> float:
    """The temperature of least log loss of "the likeliest label is the right one"."""
    from scipy.optimize import minimize_scalar

    edge = math.log(_HOTTEST)

    def loss(log_temperature: float) -> float:
        return float(log_loss(confidences(logs, math.exp(log_temperature)), right).mean())

    return math.exp(float(minimize_scalar(loss, bounds=(-edge, edge), method="bounded").x))


def log_loss(confidence: Counts, right: Counts) -> Counts:
    """Of "the answer is right", in nats, one a document."""
    return np.asarray(-np.log(np.clip(np.where(right == 1, confidence, 1 - confidence), _LEAST, 1)))


def tempered(
    logs: Counts,
    right: Counts,
    sources: Sequence[Any],
    validation: tuple[Counts, Counts] | None = None,
) -> Tempered:
    """The gain of a temperature: fitted on ``validation`` (log-likelihoods, right), else cross-fitted by source."""
    if validation is not None:
        temperature = fitted(*validation)
        after, said = confidences(logs, temperature), f"{len(validation[1]):,} validation rows"
    else:
        temperature = fitted(logs, right)
        order = {source: number for number, source in enumerate(dict.fromkeys(sources))}
        fold = np.array([order[source] % _FOLDS for source in sources])
        after = np.empty(len(right))
        for number in range(_FOLDS):
            inside = np.flatnonzero(fold == number)
            others = np.flatnonzero(fold != number)
            if len(inside) and len(others):
                own = fitted(logs[others], right[others])
                after[inside] = confidences(logs[inside], own)
            elif len(inside):  # of one source nothing is left to fit to
                after[inside] = confidences(logs[inside])
        said = f"the test itself, cross-fitted in {_FOLDS} parts by source (there are no validation rows)"
    saved = log_loss(confidences(logs), right) - log_loss(after, right)
    parts = np.column_stack([saved, np.ones(len(right))])
    gain, _ = estimate(parts, _mean, sources, bounds=(-math.inf, math.inf), resamples=_RESAMPLES)
    edge = abs(math.log(temperature)) > 0.99 * math.log(_HOTTEST)
    return Tempered(temperature, said, edge, gain, expected_error(after, right, sources)[0])
