"""What noise does: a subject on texts under a noise beside the same subject on the texts as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles
from finbench.cards.comparison import aggregation_of
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Measure, Score, Scorecard
from finbench.scoring import clusters_of, measure, metrics, noise, paired_difference, samples_of, values_of

UNREACHED = "unreached.txt"  # beside the folders of several noises: those that reach none of the tasks, a line each
_HOW = "Score both: finbench eval ... and the same with --metadata noise=all --out scorecards/noisy"
_RIGHT = "right"  # stands for the label where a scorer keeps none


class NothingShared(FinbenchError):
    """Two cards of one task without a document in both."""


@dataclass(frozen=True)
class UnderNoise:
    """One noise on one task: scores on the rows that it changes, and answers that do not follow its rule."""

    subject: str
    task: str
    noise: str  # with its seed, where that is not 0
    rule: str
    metric: str
    n: int  # documents that it changes
    of: int  # documents of the test as it is
    plain: Measure  # of the same documents without noise
    noisy: Measure
    difference: Measure  # noisy minus plain, paired
    p: float  # of the paired permutation test
    flips: Measure  # share of the documents whose answer does not follow the rule


def noise_of(score: Score) -> str | None:
    """The noise that a score is under; None for the test as it is."""
    return score.data.choices.get("noise")


def is_noisy(score: Score) -> bool:
    """A score is under a noise, so that something is still there to be read."""
    stated = noise_of(score)
    return stated is not None and noise.named(stated)[0].rule != "none"


def robustness(
    plain: Path | str, noisy: Sequence[Path | str], *, tasks: Sequence[str] = (), notes: list[str] | None = None
) -> list[UnderNoise]:
    """Scores of the card ``plain`` beside those of ``noisy``, document by document.

    ``noisy``: files, or folders, which are looked through with those within them for cards of the same subject.
    ``notes``: takes a sentence for each score under noise that has no document in common with ``plain``.

    A flip is an answer that does not follow the rule of the noise: another label where the answer should stay,
    anything but the opposite of the first answer where it should turn: a neutral answer, or none that can be read, has
    no opposite. Right or wrong does not matter for it.

    Raises FinbenchError for cards of another subject or setup, for sampled answers (``temperature``), which differ
    without noise too, and where no task, or no document of any, is in both.
    """
    first, own = cardfiles.read(Path(plain)), Path(plain)
    rows, names = cardfiles.rows_by_task(own, first), {task.name for task in catalog.expand(tasks)}
    scores = {score.task: score for score in first.scores if noise_of(score) is None}
    found, apart = [], []
    named = {Path(place) for place in noisy if not Path(place).is_dir()}
    for path in cardfiles.expand([*named, *(within for place in noisy for within in _folders(Path(place)))]):
        card = cardfiles.read(path)
        if path not in named and card.subject.adapter != first.subject.adapter:
            continue
        under = [score for score in card.scores if is_noisy(score) and (not names or score.task in names)]
        if not under or path.resolve() == own.resolve():
            continue
        alike(first, card, path)
        others = cardfiles.rows_by_task(path, card)
        for score in under:
            if score.task in scores and rows.get(score.task) and others.get(score.task):
                try:
                    found.append(beside(first, scores[score.task], rows[score.task], score, others[score.task]))
                except NothingShared as fault:
                    apart.append(fault)
    if apart and not found:
        raise NothingShared(" ".join(fault.message for fault in apart), apart[0].hint)
    if not found:
        raise FinbenchError(f"No task of {own} is scored under noise in the other cards.", _HOW)
    if notes is not None:
        notes += [fault.message for fault in apart]
    return sorted(found, key=lambda one: (one.task, list(noise.NOISES).index(one.noise.partition("@")[0])))


def unreached(places: Iterable[Path | str]) -> list[str]:
    """What is noted beside the folders of several noises: which of them changed no row, or had no rule for it."""
    files = dict.fromkeys(folder / UNREACHED for place in places for folder in _folders(Path(place)))
    return [line for file in files if file.is_file() for line in file.read_text(encoding="utf-8").splitlines()]


def _folders(place: Path) -> list[Path]:
    """A folder and those within it; empty for a file."""
    return [place, *sorted(path for path in place.rglob("*") if path.is_dir())] if place.is_dir() else []


def alike(one: Scorecard, other: Scorecard, path: Path) -> None:
    """Refuse a card of other weights, or asked in another way."""
    told = [
        {"weights": card.subject.base.fingerprint, "adapter": card.subject.adapter, "bits": card.subject.bits,
         "chat": card.subject.chat, "shots": card.shots, "engine": card.engine, "dtype": card.dtype,
         "profile": card.generation and card.generation.model_dump()}
        for card in (one, other)
    ]  # fmt: skip
    if apart := [name for name in told[0] if told[0][name] != told[1][name]]:
        raise FinbenchError(f"{path} differs from the card without noise: {', '.join(apart)}.", _HOW)


def beside(
    card: Scorecard, plain: Score, rows: Sequence[Mapping[str, Any]], noisy: Score, others: Sequence[Mapping[str, Any]]
) -> UnderNoise:
    """One task under noise beside itself; documents that only one of the two cards has are left out."""
    if card.generation and card.generation.temperature:
        raise FinbenchError(
            f"{plain.task}: answers sampled at temperature {card.generation.temperature:g} differ without noise too.",
            "Score both without --temperature: the most probable answer.",
        )
    if (plain.version, plain.task_digest) != (noisy.version, noisy.task_digest):
        raise FinbenchError(f"{plain.task}: the two cards are of different versions of it.", _HOW)
    chosen = [{name: value for name, value in one.data.choices.items() if name != "noise"} for one in (plain, noisy)]
    if chosen[0] != chosen[1]:
        told = " and ".join(", ".join(f"{name}={value}" for name, value in own.items()) or "none" for own in chosen)
        raise FinbenchError(f"{plain.task}: the two cards are of other rows (--metadata {told}).", _HOW)
    catalog.recall(plain.task, plain.task_digest)
    if any("of" not in row for row in others):
        raise FinbenchError(f"{noisy.task}: its samples do not say which rows they were made of.", _HOW)
    known = {(row["index"], row.get("sample", 0)): row for row in rows}
    kept = [row for row in others if (row["of"], row.get("sample", 0)) in known]
    if not kept:
        raise NothingShared(
            f"{plain.task.removeprefix(catalog.PREFIX)}: {noise_of(noisy)} has no document in common with the card "
            "without noise.",
            "Score both with one --limit, or the one without noise without --limit.",
        )
    before, samples = [known[row["of"], row.get("sample", 0)] for row in kept], samples_of(kept)
    how, sources = aggregation_of(plain.task, plain.main_metric), clusters_of(before)
    a, b = (values_of(own)[plain.main_metric] for own in (kept, before))
    found = paired_difference(a, b, how, sources, samples)
    stated = str(noise_of(noisy))
    kind, _ = noise.named(stated)
    flips = [float(not _follows(kind.rule, one, other)) for one, other in zip(before, kept, strict=True)]
    within = metrics.bounds(plain.main_metric)
    return UnderNoise(
        card.subject.name,
        plain.task,
        stated,
        kind.rule,
        plain.main_metric,
        len(kept) // samples,
        plain.n,
        measure(b, how, sources, within=within, samples=samples),
        measure(a, how, sources, within=within, samples=samples),
        found.measure,
        found.p,
        measure(flips, metrics.mean, sources, within=(0.0, 1.0), samples=samples),
    )


def _follows(rule: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the second answer is what the rule makes of the first; what has no opposite cannot turn into it."""
    one, other = _label(before), _label(after)
    if rule != "flipped":
        return one == other
    turned = (noise.FLIPPED | {_RIGHT: _RIGHT}).get(str(one))
    return turned is not None and turned == other


def _label(row: Mapping[str, Any]) -> str | None:
    """What the scorer read: the label, None for an answer that did not parse."""
    for value in row["values"].values():
        match value:
            case [_, (str() | None) as said, [*_]] | [str(), str(), (str() | None) as said]:
                return said
    return _RIGHT if row["values"].get("acc") == 1 else None
