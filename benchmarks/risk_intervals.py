"""Do the intervals and thresholds of a risk page keep their promise? By simulation of answers whose truth is known.

    python benchmarks/risk_intervals.py run [--seed N]    writes benchmarks/risk_intervals.json (minutes of one core)
    python benchmarks/risk_intervals.py page              the tables of docs/risk.md, from what was written

Through the functions that make the page: `expected_error` and `threshold` of finbench.scoring.calibration, `crossed`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from finbench.core.files import write_atomic
from finbench.scoring import calibration
from finbench.scoring.crossed import crossed
from finbench.scoring.stats import Z95

RESULTS, PAGE = Path(__file__).with_suffix(".json"), Path(__file__).resolve().parent.parent / "docs" / "risk.md"
MARKS = "<!-- by `python benchmarks/risk_intervals.py page` -->", "<!-- end of benchmarks/risk_intervals.py -->"
TESTS, TABLES, SIZES = 200, 1_000, (60, 100, 300, 1_000)
LABELS = 3
SHARPNESS = {"calibrated": 1.0, "overconfident": 2.0, "underconfident": 0.5}  # logits beside those of the truth
Draw = tuple[Any, Any, Any]  # confidences, whether right, probability of being right


def labels(rng: Any, sharpness: float, n: int) -> Draw:
    """The likeliest of three labels by logits that are ``sharpness`` times those which the label is drawn by."""
    logits = rng.normal(0, 2, (n, LABELS))
    true = calibration.confidences(logits)
    return calibration.confidences(logits * sharpness), (rng.random(n) < true).astype(float), true


def surest(rng: Any, gap: float, n: int) -> Draw:
    """Confidences above 0.9 alone, which are too low by up to ``gap``."""
    confidence = 1 - 0.1 * rng.random(n)
    true = np.minimum(1, confidence + gap)
    return confidence, (rng.random(n) < true).astype(float), true


def agreed(rng: Any, lift: float, n: int) -> Draw:
    """The share of eight samples that agree, from a half to all; right as often, or by ``lift`` more or less."""
    confidence = 1 - rng.binomial(8, rng.beta(1, 3, n)) / 16
    true = np.clip(confidence + lift, 0, 1)
    return confidence, (rng.random(n) < true).astype(float), true


CASES = {
    **{name: (labels, factor) for name, factor in SHARPNESS.items()},
    "all above 0.9": (surest, 0.0),
    "all above 0.9, too low": (surest, 0.04),
    "agreement of 8 samples": (agreed, 0.0),
    "agreement of 8, too high": (agreed, -0.1),
}


def errors(rng: Any) -> Iterator[tuple[str, int, int, float, float]]:
    """Case, documents, copies of each, share of the intervals that hold the true error, and of plain percentiles."""
    for name, (draw, how) in CASES.items():
        many, _, true = draw(rng, how, 200_000)
        truth = float(np.abs(many - true).mean())
        for n, copies in [(n, 1) for n in SIZES] + [(300, 3)]:
            held = plain = 0
            for _ in range(TESTS):
                confidence, right, _ = (np.repeat(one, copies) for one in draw(rng, how, n // copies))
                sources = np.repeat(np.arange(n // copies), copies).tolist()
                found, _ = calibration.expected_error(confidence, right, sources)
                held += int(found.low - 1e-9 <= truth <= found.high + 1e-9)
                low, high = percentiles(rng, confidence, right, sources)
                plain += int(low <= truth <= high)
            yield name, n, copies, held / TESTS, plain / TESTS


def percentiles(rng: Any, confidence: Any, right: Any, sources: list[int], resamples: int = 400) -> tuple[float, float]:
    """The 2.5 and 97.5 % of resampled errors over the same bins: what the page does not do."""
    bins, of = calibration._bins(confidence, sources), np.asarray(sources)
    gaps = np.zeros((of.max() + 1, bins.max() + 1))
    np.add.at(gaps, (of, bins), confidence - right)
    sizes, weights = np.bincount(of), rng.multinomial(len(gaps), np.full(len(gaps), 1 / len(gaps)), resamples)
    low, high = np.quantile(np.abs(weights @ gaps).sum(axis=1) / (weights @ sizes), [0.025, 0.975])
    return float(low), float(high)


def thresholds(rng: Any) -> Iterator[tuple[str, int, float, int, int]]:
    """Case, documents, wanted share of errors, thresholds that were found, and those above which more are wrong."""
    for name, factor in SHARPNESS.items():
        many, _, true = labels(rng, factor, 200_000)
        for n in (300, 1_000):
            for wanted in (0.05, 0.1):
                found = broken = 0
                for _ in range(TESTS):
                    confidence, right, _ = labels(rng, factor, n)
                    rule = calibration.threshold(confidence, right, list(range(n)), wanted)
                    if rule.least is not None:
                        found += 1
                        broken += int((1 - true)[many > rule.least].mean() > wanted)
                yield name, n, wanted, found, broken


def prompts(rng: Any) -> Iterator[tuple[int, int, float, float, float]]:
    """Prompts, documents, spread of prompts; share of the means' intervals, and of those over documents, that hold."""
    for asked in (2, 3, 8, 10):
        for n in (60, 500):
            for spread in (0.02, 0.1, 0.3):
                held = alone = 0
                for _ in range(TABLES):
                    by_prompt = rng.normal(0, spread, (asked, 1))
                    table = 0.6 + rng.normal(0, 0.3, n) + by_prompt + rng.normal(0, 0.3, (asked, n))
                    own = crossed(table)
                    held += int(abs(own.mean - 0.6) <= student.ppf(0.975, own.df) * own.error)
                    alone += int(abs(table[0].mean() - 0.6) <= Z95 * table[0].std(ddof=1) / n**0.5)
                yield asked, n, spread, held / TABLES, alone / TABLES


PARTS = {"calibration error": errors, "thresholds": thresholds, "prompts": prompts}


def run(seed: int) -> None:
    """Simulate what RESULTS do not have of this seed yet."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    if found.get("seed") != seed:
        found = {"seed": seed}
    for number, (name, part) in enumerate(PARTS.items()):
        if name not in found:
            found[name] = []
            for row in part(np.random.default_rng([seed, number])):
                print(*row, flush=True)
                found[name].append(row)
            write_atomic(RESULTS, json.dumps(found, indent=1) + "\n")


def percent(share: float) -> str:
    """Whole per cent, but for shares that are nearly all or none."""
    return f"{100 * share:.0f}" if 0.005 < share < 0.995 or share in (0, 1) else f"{100 * share:.1f}"


def page() -> None:
    """The tables, between the marks."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    sizes = [(n, 1) for n in SIZES] + [(300, 3)]
    heads = [f"{n:,}" if copies == 1 else f"{n // copies} × {copies} copies" for n, copies in sizes]
    rows = {(name, n, copies): (held, plain) for name, n, copies, held, plain in found["calibration error"]}
    lines = [f"| interval of the calibration error: holds the truth in % | {' | '.join(heads)} |"]
    lines.append("|--" + "|--:" * len(heads) + "|")
    for name in CASES:
        cells = [f"{percent(rows[name, *size][0])} ({percent(rows[name, *size][1])})" for size in sizes]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| threshold | documents | errors wanted | found | broken |", "|--|--:|--:|--:|--:|"]
    for name, n, wanted, whole, broken in found["thresholds"]:
        lines.append(f"| {name} | {n:,} | {100 * wanted:.0f} % | {whole} of {TESTS} | {broken} |")
    lines += ["", "| prompts | documents | spread of prompts | interval of the mean: holds, % | over documents alone |"]
    lines.append("|--:|--:|--:|--:|--:|")
    for asked, n, spread, held, alone in found["prompts"]:
        lines.append(f"| {asked} | {n} | {spread:g} | {percent(held)} | {percent(alone)} |")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    write_atomic(PAGE, "\n\n".join([before + MARKS[0], "\n".join(lines), MARKS[1] + rest.partition(MARKS[1])[2]]))


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.what == "page":
        page()
    else:
        run(given.seed)


if __name__ == "__main__":
    main()
