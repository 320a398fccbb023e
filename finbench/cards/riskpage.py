"""One page for whoever answers for a model in use: what its cards say of risk, and what nobody has tested."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finbench.cards import confidence, shifts, sureplots
from finbench.cards.comparison import aggregation_of, difference, documents
from finbench.cards.elsewhere import unseen
from finbench.cards.render import amount, describe_subject, from_template, in_brackets, percent
from finbench.cards.shifts import Section, asked, compared, file_of, short
from finbench.cards.subjectcards import GENERAL, HeldScore, SubjectCards, gathered
from finbench.cards.verdicts import shown_points
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.files import check_file, write_atomic
from finbench.scoring import calibration, clusters_of, hidden_metrics, metrics, samples_of, values_of

CHIP, MACHINE = 700.0, 100.0  # watts that are assumed of a GPU, and of a machine without one
_JOULES = 3.6e6  # of a kilowatt hour
_TEMPLATES = {".html": "risk.html.j2", ".md": "risk.md.j2"}


@dataclass(frozen=True)
class RiskPage:
    """Everything that the templates show."""

    subject: str
    what: str
    base: str
    written: str
    sections: list[Section]
    untested: list[str]

    @property
    def shown(self) -> list[Section]:
        """The sections that have something to show."""
        return [section for section in self.sections if section.rows]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the tables, without drawings."""
        told = ("title", "head", "rows", "command")
        sections = [{name: getattr(one, name) for name in told} for one in self.shown]
        return {"subject": self.subject, "sections": sections, "untested": self.untested}


def risk(
    subject: Path | str,
    cards: Sequence[Path | str] = (),
    *,
    out: Path | None = None,
    wanted: Sequence[float] = (0.05, 0.1, 0.2),
    watts: float | None = None,
    cutoff: str | None = None,
) -> RiskPage:
    """What is known of the risk of a ``subject``: an adapter folder, or a scorecard of it; written to ``out``.

    ``cards``: files and folders in which its cards lie, and its base's; default: the folder of the card, else
    ``scorecards``; folders within them are looked through too (cards under noise). ``out`` ends in .html or .md.
    ``wanted``: error rates to find thresholds for; ``watts``: what the machine draws while it answers; ``cutoff``: up
    to when the base has read (2024-08), where bases.yaml does not say it.

    Raises FinbenchError where no card of the subject lies there, for another ending of ``out``, and first where that
    cannot be written.
    """
    if out is not None and out.suffix not in _TEMPLATES:
        raise FinbenchError(f"{out} is neither a page nor Markdown.", "Name a file that ends in .html or .md")
    if out is not None:
        check_file(out, f"risk{out.suffix}")
    if watts is not None and not 0 < watts < float("inf"):
        raise FinbenchError(f"--watts {watts:g} is no power.", "Say what the machine draws in watts: --watts 120")
    page = _described(gathered(Path(subject), [Path(place) for place in cards]), wanted, watts, cutoff)
    if out is not None:
        write_atomic(out, from_template(_TEMPLATES[out.suffix], escape=out.suffix == ".html", page=page))
    return page


def risk_of(own: Sequence[Path], beside: Sequence[Path]) -> RiskPage:
    """The page of a subject's cards for its model card, without scores, which stand there: the first has its name."""
    page = _described(replace(gathered(own[0], [*own, *beside]), bare=True))
    return replace(page, sections=[one for one in page.sections if one.title != "Score"])


def _described(
    found: SubjectCards,
    wanted: Sequence[float] = (0.05, 0.1, 0.2),
    watts: float | None = None,
    cutoff: str | None = None,
) -> RiskPage:
    sections = [
        _scores(found),
        _calibration(found, wanted),
        shifts.of_wording(found),
        shifts.of_noise(found),
        shifts.of_years(found, cutoff),
        _forgetting(found),
        _contamination(found),
        _cost(found, watts),
    ]
    card = found.subject
    return RiskPage(
        subject=card.subject.name,
        what=describe_subject(card.subject),
        base=card.subject.base.alias,
        written=card.provenance.created[:10],
        sections=[section.dense() for section in sections],
        untested=list(_untested(found, sections)),
    )


# ---------------------------------------------------------------- sections


def _scores(found: SubjectCards) -> Section:
    own = [one for one in found.mains if one.score.family != GENERAL]
    return Section(
        "Score",
        "The main metric of each test, with its 95 % interval, and the paired difference to its base.",
        ("task", "metric", "score", "base", "difference", "documents"),
        [
            [one.task, metrics.spoken(one.score.main_metric), _main(one), *_beside(one), f"{one.score.n:,}"]
            for one in own
        ],
        asked(found, own) + compared(found, own),
        "how often it is right",
    )


def _main(one: HeldScore) -> str:
    return in_brackets(one.score.main, metrics.is_share(one.score.main_metric))


def _beside(one: HeldScore) -> tuple[str, str]:
    """The base's score, and the paired difference with its interval; nothing for a base itself."""
    if one.base is None:
        return "" if one.card.subject.kind == "base" else "not scored", ""
    metric, base = one.score.main_metric, one.base
    value = amount(base.score.main.value, metrics.is_share(metric))
    hidden = not one.rows or not base.rows or metric in hidden_metrics(one.rows) | hidden_metrics(base.rows)
    if hidden or documents(one.rows) != documents(base.rows):
        return value, ""
    catalog.recall(one.score.task, one.score.task_digest)
    how = aggregation_of(one.score.task, metric)
    a, b = values_of(one.rows)[metric], values_of(base.rows)[metric]
    gap = difference(a, b, how, clusters_of(one.rows), one.card.subject.name, samples_of(one.rows)).measure
    ends = " to ".join(shown_points(metric, end) for end in gap.interval or ())
    return value, shown_points(metric, gap.value) + (f" [{ends}]" if ends else "")


def _calibration(found: SubjectCards, wanted: Sequence[float]) -> Section:
    told = [one for one in found.mains if not confidence.untold(one.card, one.score, one.rows)]
    made = [(one, of) for one in told for of in _sureness(found, one, wanted)]
    rows, notes = [], ["A rule holds with 95 % probability, for documents like these: another source or year is not."]
    for one, of in made:
        own, parts = of.found, of.found.brier
        rules = [_rule(rule.wanted, rule.least, rule.coverage) for rule in own.thresholds]
        rows.append([one.task, percent(own.confidence), percent(own.accuracy.value), in_brackets(own.error),
                     percent(own.chance), in_brackets(own.selective), "; ".join(rules)])  # fmt: skip
        notes.append(
            f"{one.task}: confidence from {of.signal}. Brier score {in_brackets(parts.score, share=False)} = "
            f"reliability {parts.reliability:z.3f} - resolution {parts.resolution:z.3f} + uncertainty "
            f"{parts.uncertainty:.3f} + within bins {parts.within:z.3f}." + _heat(own.tempered)
        )
    drawn: list[tuple[Callable[..., str], str]] = [
        (sureplots.reliability, "reliability"), (sureplots.coverage, "what abstaining buys"),
    ]  # fmt: skip
    plots = [
        draw(f"{short(one)}: {name}", of.found)
        for one, of in made
        if one.score.family != GENERAL
        for draw, name in drawn
    ]
    fitted = f" --validation {found.word(found.fits[0].path)}" if found.fits else ""
    return Section(
        "How sure it is",
        "Confidence is the probability that it gives its own answer. Calibration error: mean distance from how often "
        "it is right; chance alone shows as much as its column says.",
        ("task", "confidence", "accuracy", "calibration error", "by chance", "surest 80 % right", "rule"),
        rows,
        f"finbench card calibration {file_of(found)}{fitted}",
        "how sure it is when it is right: no score here has log-likelihoods of labels, several answers a prompt, or "
        "confidence in words",
        plots,
        notes * bool(rows),
    )


def _sureness(found: SubjectCards, one: HeldScore, wanted: Sequence[float]) -> list[confidence.CardCalibration]:
    """The calibration of a score, its temperature fitted on validation rows where there are some of its task."""
    fits = [of for of in found.fits if of.score.task == one.score.task and of.rows and one.score.form == "choice"]
    fit = confidence.of_labels(fits[0].rows) if fits else None
    return confidence.of_rows(one.card, one.score, one.rows, fit, wanted)


def _heat(found: calibration.Tempered | None) -> str:
    if found is None:
        return ""
    return (
        f" Temperature {found.temperature:.2f}{found.at_edge}, fitted on {found.fitted_on}: it gains "
        f"{in_brackets(found.gain, share=False)} nats of log loss, and leaves a calibration error of "
        f"{in_brackets(found.error)} %."
    )


def _rule(wanted: float, least: float | None, coverage: float) -> str:
    if least is None:
        return f"{100 * wanted:g} % wrong: none"
    if least == 0:
        return f"{100 * wanted:g} % wrong: take all"
    return f"{100 * wanted:g} % wrong: above {least:.3f} ({percent(coverage)} % taken)"


def _forgetting(found: SubjectCards) -> Section:
    general = [one for one in found.own if one.score.family == GENERAL]
    alone = found.subject.subject.kind == "base"
    return Section(
        "Forgetting",
        "General tasks, which say nothing of finance: what is lost to the base on the same rows.",
        ("task", "score", "base", "difference", "documents"),
        [] if alone else [[one.task, _main(one), *_beside(one), f"{one.score.n:,}"] for one in general],
        asked(found, general) + compared(found, general, " --tasks general"),
        "nothing is forgotten by a base alone" if alone else "what it forgot",
        to_test="" if alone else f"{shifts.plainly(found)} --tasks general",
    )


def _contamination(found: SubjectCards) -> Section:
    rows = [
        [one.task, f"{seen.texts:,} of {seen.of:,}", percent(seen.texts / seen.of)]
        for one in found.mains
        if (seen := one.score.overlap) is not None
    ]
    return Section(
        "Contamination",
        "Texts of the test that stood in the rows it was trained on, as its own record states. "
        "What its base has read before nobody knows.",
        ("task", "texts seen in training", "%"),
        rows,
        f"finbench verify {file_of(found)}",
        "whether it was trained on texts of the test (of a base nobody knows)",
    )


def _cost(found: SubjectCards, watts: float | None) -> Section:
    rows = []
    timed = [one for one in found.mains if one.score.seconds or one.score.hosted]  # answers of a file took no time here
    for one in timed:
        score, chip = one.score, one.card.provenance.hardware.get("gpu")
        seconds = 1000 * score.own_seconds / score.n
        power = watts or (CHIP * int(one.card.provenance.hardware.get("gpus", 1)) if chip else MACHINE)
        price = "" if score.price is None else f"{score.price:,.2f}"
        energy = "" if score.hosted or not score.seconds else f"{seconds * power / _JOULES * 1000:,.3g}"
        memory = "" if score.hosted else f"{one.card.peak_memory_bytes / 1e9:.1f}"
        rows.append([one.task, f"{seconds:,.0f}", f"{score.prompt_tokens / score.n:,.0f}", memory, price, energy])
    machines = dict.fromkeys(
        f"{card.engine}, {card.computed or 'not known'}, {'asked from ' if unseen(card) else ''}"
        f"{card.provenance.hardware.get('gpu', card.provenance.hardware.get('cpu', 'hardware not stated'))}"
        for card in (one.card for one in timed)
    )
    assumed = f"{watts:g} W" if watts else f"{CHIP:g} W for each GPU, {MACHINE:g} W for a machine without one"
    return Section(
        "Cost of 1,000 documents",
        "As measured while it was scored, which is in batches and not one request at a time.",
        ("task", "seconds", "tokens a prompt", "peak memory, GB", "USD", "energy, Wh"),
        rows,
        asked(found, found.mains),
        "not measured, the answers came from a file",
        notes=[
            f"Energy is an estimate: seconds times {assumed}; nothing was measured, cooling and idling are left out. "
            f"Of a machine that draws 120 W: {shifts.typed(f'finbench risk {file_of(found)} --watts 120')}",
            f"Measured on: {'; '.join(machines)}.",
        ],
    )


def _untested(found: SubjectCards, sections: Sequence[Section]) -> Iterator[str]:
    """What the page does not show, a sentence each, the reader's own cards first; at its end what would tell it."""
    alone = found.subject.subject.kind == "base"
    yield from (
        f"{one.title}: {one.missing}" + (f": {shifts.typed(one.to_test)}" if one.to_test else ".")
        for one in sections
        if not one.rows and not (alone and "base alone" in one.missing)
    )
    lone = [one.task for one in found.own if one.base is None]
    if lone and not alone:
        yield f"Its base was not scored beside it on {'; '.join(lone)}."
    if part := [one.task for one in found.own if one.score.data.share or not one.score.is_whole(one.card.limit)]:
        yield f"A part of the test only: {'; '.join(part)}."
    if not alone:
        seed, again = found.subject.subject.seed, ""
        if seed is not None:  # finbench trained it, and its record says how
            command = f"finbench train {shifts.adapter_of(found, found.subject)} --seed {seed + 1}"
            again = f": {shifts.typed(command)}"
        yield f"Another training of the same recipe: intervals are over documents, not over trainings{again}."
    yield "Another language or another source than the test's, or documents of later years than those above."
    yield "Attacks: instructions hidden in documents, and answers that harm."
