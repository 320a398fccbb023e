"""What a comparison found: its records, and in one sentence whether A is better, how sure, and what would settle it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from finbench.core import catalog
from finbench.core.errors import counted
from finbench.core.records import Measure
from finbench.scoring import UNTESTABLE, metrics

LEVEL = 0.05


@dataclass(frozen=True)
class Disagreement:
    """A document that A and B answer differently; ``text`` where the set lies on this disk."""

    index: int
    doc: str
    gold: str | None
    a: str
    b: str
    text: str | None = None


@dataclass
class Contest:
    """A and B on one task. ``p`` is that of the paired permutation test, ``adjusted`` after Holm over the table.

    ``part``: what of the test it is of, if not all; ``restricted``: its texts are for those who have them. ``apart``:
    documents, or sources of documents, that A and B answer differently: all that the test has to go by.
    """

    task: str
    metric: str
    n: int
    clusters: int
    a: Measure
    b: Measure
    difference: Measure
    p: float
    adjusted: float
    detectable: float | None
    needed: int | None
    only_a: int | None
    only_b: int | None
    mcnemar: float | None
    lower_is_better: bool
    part: str = ""
    restricted: bool = False
    apart: int = 0
    differing: list[Disagreement] = field(default_factory=list)
    by_prompt: dict[str, float] = field(default_factory=dict)  # A - B by each prompt that both were asked by

    @property
    def least(self) -> float:
        """The smallest p that a test on so many differing documents can give: all of them on one side."""
        return min(1.0, 2.0 ** (1 - self.apart))

    @property
    def few(self) -> str:
        """What differing documents are too few for, in words; nothing where they are enough."""
        if not 0 < self.apart <= UNTESTABLE < self.clusters:
            return ""
        what = counted(self.apart, "source" if self.clusters < self.n else "document")
        p = f"p = {self.least:.2f}"
        return f"only {what} differ{'s' if self.apart == 1 else ''}, and a test on so few cannot get below {p}"

    @property
    def at_odds(self) -> str:
        """Why interval and p do not say the same, in words; nothing where they do."""
        if not self.difference.interval or self.few or self.clusters <= UNTESTABLE:
            return ""
        low, high = self.difference.interval
        if (low <= 0 <= high) == (self.p >= LEVEL):
            return ""
        out, side = ("leaves out 0", "above") if self.p >= LEVEL else ("holds 0", "below")
        return (
            f"the interval {out} and p is {side} 5 %: the interval draws other documents, the test swaps the two's "
            "answers, and the verdict goes by the test"
        )

    @property
    def winner(self) -> str | None:
        """``a`` or ``b`` where the difference is significant."""
        if self.adjusted >= LEVEL or self.difference.value == 0:
            return None
        return "a" if (self.difference.value > 0) != self.lower_is_better else "b"


@dataclass(frozen=True)
class Comparison:
    """A against one other subject on every task that both have."""

    a: str
    b: str
    contests: list[Contest]
    unshared: list[str]

    @property
    def verdict(self) -> str:
        """One sentence: whether A is better, by how much, how sure, and what would settle it."""
        return _of_one(self) if len(self.contests) == 1 else _of_many(self)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        contests = [asdict(one) | {"winner": one.winner, "least": one.least} for one in self.contests]
        for contest in contests:
            contest |= {side: contest[side].model_dump() for side in ("a", "b", "difference")}
            for place in contest["differing"] if contest["restricted"] else ():
                place["text"] = None
        return {"a": self.a, "b": self.b, "verdict": self.verdict, "tasks": contests, "unshared": self.unshared}


def shown_probability(p: float) -> str:
    """p = 0.034, or p < 0.001."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def shown_points(metric: str, value: float, sign: bool = True) -> str:
    """A difference: in points of 100 for a share, as it is for any other metric."""
    scaled = 100 * value if metrics.is_share(metric) else value
    digits = 1 if metrics.is_share(metric) else 3
    return f"{scaled:{'+' if sign else ''}z.{digits}f}"


def _gap(contest: Contest) -> str:
    unit = " points" if metrics.is_share(contest.metric) else ""
    ends = [shown_points(contest.metric, end) for end in contest.difference.interval or ()]
    around = f"95 % interval {' to '.join(ends)}" if ends else f"no interval ({contest.difference.lacking})"
    shown = shown_points(contest.metric, contest.difference.value)
    p = shown_probability(contest.p)
    if shown_probability(contest.adjusted) != p:
        p += f" ({shown_probability(contest.adjusted)} after Holm)"
    return f"{metrics.spoken(contest.metric)} {shown}{unit}, {around}, {p}"


def _of_one(comparison: Comparison) -> str:
    [contest] = comparison.contests
    task = contest.task.removeprefix(catalog.PREFIX) + (f" ({contest.part})" if contest.part else "")
    if contest.winner:
        what = "better" if contest.winner == "a" else "worse"
        test = f"paired permutation test, n = {contest.n:,}, of which {len(contest.differing):,} differ"
        return f"{comparison.a} is {what} than {comparison.b} on {task}: {_gap(contest)} ({test}).{_odds(comparison)}"
    unit = " points" if metrics.is_share(contest.metric) else ""
    if contest.clusters <= UNTESTABLE:
        what = "source" if contest.clusters < contest.n else "document"
        few = f"one {what}" if contest.clusters == 1 else f"{contest.clusters} {what}s"
        enough = f"from {few}, and fewer than {UNTESTABLE + 1} cannot show any difference"
    elif contest.detectable is None:
        enough = "all answers score alike"
    elif contest.few:
        enough = contest.few
    else:
        enough = f"enough for differences from {shown_points(contest.metric, contest.detectable, sign=False)}{unit} on"
    differ = f", of which {len(contest.differing):,} differ" if contest.differing and not contest.few else ""
    settle = ""
    if contest.needed and contest.needed > contest.n and not contest.few:
        settle = f"; about {contest.needed:,} documents like these would settle a difference of this size"
    return (
        f"No difference between {comparison.a} and {comparison.b} can be shown on {task}: {_gap(contest)}{settle} "
        f"(n = {contest.n:,}{differ}, {enough}).{_odds(comparison)}"
    )


def _of_many(comparison: Comparison) -> str:
    winners = [contest.winner for contest in comparison.contests]
    better, worse, open_ = (winners.count(side) for side in ("a", "b", None))
    shares = [c for c in comparison.contests if metrics.is_share(c.metric)]
    mean = sum(c.difference.value * (-1 if c.lower_is_better else 1) for c in shares) / max(len(shares), 1)
    by = f"{100 * mean:+.1f} points in the mean of the main metrics, "
    if better or worse:
        head = f"{comparison.a} is {'better' if better else 'worse'} than {comparison.b}"
        head += " on some tasks and worse on others" if better and worse else ""
    else:
        head = f"No difference between {comparison.a} and {comparison.b} can be shown"
    needed = [c.needed for c in comparison.contests if not c.winner and not c.few and c.needed and c.needed > c.n]
    settle = f"; up to {max(needed):,} documents would settle what is open" if needed else ""
    return (
        f"{head}: {by if shares else ''}significantly better on {better} of {len(winners)} tasks, worse on {worse}, "
        f"undecided on {open_} (paired permutation tests at 5 %, Holm-adjusted){settle}."
        f"{_few(comparison)}{_odds(comparison)}{_partial(comparison)}"
    )


def _few(comparison: Comparison) -> str:
    """The tasks on which too few documents differ for any test."""
    told = [f"{one.task.removeprefix(catalog.PREFIX)}: {one.few}" for one in comparison.contests if one.few]
    return "".join(f" On {one}." for one in told)


def _odds(comparison: Comparison) -> str:
    """The tasks on which interval and p do not say the same, and why."""
    told: dict[str, list[str]] = {}
    for one in comparison.contests:
        told.setdefault(one.at_odds, []).append(one.task.removeprefix(catalog.PREFIX))
    return "".join(f" On {', '.join(tasks)} {why}." for why, tasks in told.items() if why)


def _partial(comparison: Comparison) -> str:
    """The tasks of which the documents are not the whole test, each with its part."""
    parts = [f"{one.task.removeprefix(catalog.PREFIX)} ({one.part})" for one in comparison.contests if one.part]
    return f" Not whole tests: {', '.join(parts)}." if parts else ""
