"""What changes when the prompt, the text or the year does: sections of the risk page, and what they are made of."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finbench.cards import asking, cardfiles, overtime, sureplots, undernoise
from finbench.cards.render import amount, in_brackets, percent
from finbench.cards.subjectcards import HeldScore, SubjectCards
from finbench.cards.verdicts import shown_points
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Score, Scorecard
from finbench.scoring import metrics, noise


@dataclass(frozen=True)
class Section:
    """A part of the page: a table, plots, and how to get the numbers oneself. Without rows it was not tested."""

    title: str
    about: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    command: str
    missing: str  # what is not known without it
    plots: Sequence[str] = ()
    notes: Sequence[str] = ()
    to_test: str = ""  # the command that would tell it

    def dense(self) -> Section:
        """The section without columns that are empty in all rows."""
        kept = [at for at in range(len(self.head)) if not self.rows or any(row[at] for row in self.rows)]
        rows = [[row[at] for at in kept] for row in self.rows]
        return replace(self, head=[self.head[at] for at in kept], rows=rows)


def of_wording(found: SubjectCards) -> Section:
    """What several prompts gave."""
    told = [(one, of) for one in found.own if (of := one.score.prompts)]
    rows = [
        [one.task, f"{len(of.each)}", in_brackets(of.mean, metrics.is_share(one.score.main_metric)),
         shown_points(one.score.main_metric, of.spread).lstrip("+"), of.worst, percent(of.share.get("prompt", 0.0)),
         *(in_brackets(bias) if bias else "" for bias in (of.label_order_bias, of.answer_position_bias))]
        for one, of in told
    ]  # fmt: skip
    example = next(map(short, sorted(found.own, key=lambda one: one.score.form != "choice")), "fpb_mc")
    return Section(
        "Wording of the prompt",
        "The same documents asked in several ways that mean the same. Mean: over prompts, its interval of documents "
        "and prompts. Spread: best minus worst prompt. Biases in %: above 0 what is listed first is preferred.",
        ("task", "prompts", "mean", "spread", "worst", "variance by prompt, %", "label order", "answer position"),
        rows,
        f"{asked(found, [one for one, _ in told], ' --prompts 8')}; "
        f"finbench card prompts {found.words([one for one, _ in told])}",
        "how far it moves the score",
        to_test=f"{plainly(found)} --prompts 8 --tasks {example}",
    )


def of_years(found: SubjectCards, cutoff: str | None) -> Section:
    """Scores by year, and on both sides of the cut-off."""
    end = overtime.cutoff_of(found.subject.subject.base, cutoff)
    held = [(one, overtime.with_years(one.score, one.rows)) for one in found.own if one.rows]
    made = [(one, of) for one, own in held if (of := overtime.of_rows(one.card, one.score, own, end))]
    gone = dict.fromkeys(task.set for one, _ in held if (task := overtime.not_here(one.score)))
    rows = [
        [one.task, part.name, f"{part.n:,}", in_brackets(part.score, metrics.is_share(of.metric))]
        for one, of in made
        for part in (*of.years, *of.sides)
    ]
    return Section(
        "Years",
        "The score by the year of the documents, and before and after its base's cut-off: up to when that has read.",
        ("task", "year", "documents", "score"),
        rows,
        f"finbench card years {file_of(found)}" + (f" --cutoff {cutoff}" if cutoff else ""),
        f"the data of {', '.join(gone)}, which say the years, are not here (finbench data import)"
        if gone
        else "its documents have no years (fomc, finqa, xbrl_values ... have), so nothing is told of a later one",
        [sureplots.by_year(f"{short(one)}: {metrics.spoken(of.metric)} by year", of) for one, of in made],
        [f"{one.task}: {of.dated:,} of {of.n:,} documents have a year. {of.said}" for one, of in made],
    )


def of_noise(found: SubjectCards) -> Section:
    """The subject under each noise beside itself; why not, where the cards share no document."""
    rows, notes, faults = [], list[str](), []
    labelled = ",".join(_changed_by_noise(found))
    homes = list(dict.fromkeys(map(_noisy_home, found.noisy)))
    for home in dict.fromkeys(one.path for one in found.mains):
        try:
            under = undernoise.robustness(home, found.noisy, notes=notes) if found.noisy else []
        except FinbenchError as fault:  # perhaps these are under noise of another card of the subject
            faults.append(f"{fault.message} {fault.hint}".rstrip("."))
            continue
        for one in under:
            share = metrics.is_share(one.metric)
            ends = " to ".join(shown_points(one.metric, end) for end in one.difference.interval or ())
            gap = shown_points(one.metric, one.difference.value) + (f" [{ends}]" if ends else "")
            rows.append([one.task.removeprefix(catalog.PREFIX), one.noise, one.rule, f"{one.n:,}",
                         amount(one.plain.value, share), amount(one.noisy.value, share), gap,
                         in_brackets(one.flips)])  # fmt: skip
    return Section(
        "Noise",
        "The same documents with and without noise. Flips: answers in % that do not follow the rule, right or wrong.",
        ("task", "noise", "answer", "documents", "as it is", "noisy", "difference", "flips"),
        rows,
        f"{_asked_under_noise(found, {row[0] for row in rows})}; "
        f"finbench card noise {file_of(found)} {' '.join(map(found.word, homes))}",
        " ".join(faults) or "what typing errors, other names, number formats and negation do",
        notes=[*notes, *undernoise.unreached(dict.fromkeys(path.parent.parent for path in found.noisy))],
        to_test=""
        if faults
        else f"{plainly(found)} --metadata noise=all --tasks {labelled or 'fpb_mc'} "
        f"--out {found.word(found.path.parent / 'noisy')}",
    )


def _asked_under_noise(found: SubjectCards, tasks: set[str]) -> str:
    """The commands that score these tests under noise as the cards under noise say: one for all noises asked alike."""
    commands: dict[tuple[str, Path], list[str]] = {}
    for path in found.noisy:
        card = cardfiles.read(path)
        scores = [one for one in card.scores if one.task.removeprefix(catalog.PREFIX) in tasks]
        plain = card.model_copy(update={"arguments": _quiet(card.arguments)})
        held = [HeldScore(path, plain, _without_noise(one), []) for one in scores]
        if held:
            key = asked(found, held, placed=False), _noisy_home(path)
            commands.setdefault(key, []).append(str(undernoise.noise_of(scores[0])))
    told = {key: "all" if {*noises} == {*noise.NOISES} else ",".join(noises) for key, noises in commands.items()}
    return "; ".join(
        f"{command} --metadata noise={noises} --out {found.word(home)}" for (command, home), noises in told.items()
    )


def _noisy_home(path: Path) -> Path:
    """The folder that a card under noise was written below: of several noises each has one of its own there."""
    noises = {str(undernoise.noise_of(score)) for score in cardfiles.read(path).scores}
    return path.parent.parent if path.parent.name in noises else path.parent


def _without_noise(score: Score) -> Score:
    data = score.data.model_copy(update={"choices": _quiet(score.data.choices)})
    return score.model_copy(update={"data": data})


def _quiet(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Choices of rows, in a score or among a card's arguments, without that of a noise."""
    return {name: value for name, value in choices.items() if name not in ("noise", "metadata.noise")}


def asked(found: SubjectCards, held: Sequence[HeldScore], more: str = "", placed: bool = True) -> str:
    """The commands that score the subject on these tests as its cards say: one for each card, with ``more`` options.

    ``placed``: also into which folder, where that is not the one of ``finbench eval`` itself.
    """
    cards: dict[Path, list[HeldScore]] = {}
    for one in held:
        cards.setdefault(one.path, []).append(one)
    commands = []
    for own in cards.values():
        card = own[0].card
        who = _who(found, card)
        home = found.word(own[0].path.parent)
        where = f" --out {home}" if placed and not found.bare and home not in (".", "scorecards") else ""
        commands.append(asking.evaluation(card, who, [one.score for one in own]) + more + where)
    return "; ".join(commands)


def plainly(found: SubjectCards) -> str:
    """The ``finbench eval`` of the subject, in its bits and template, without tasks."""
    return asking.plain(found.subject, _who(found, found.subject))


def _who(found: SubjectCards, card: Scorecard) -> str:
    """The options that name the subject of a card."""
    subject, base = card.subject, asking.base_option(card.subject.base)
    if subject.kind == "base":
        return f"--model {base}"
    return f"--adapter {adapter_of(found, card)} --base {base}"


def _changed_by_noise(found: SubjectCards) -> list[str]:
    """The tasks of the cards whose answer is a label, which noise has rules for."""
    labelled = {name for name, task in catalog.tasks().items() if task.labels}
    return list(dict.fromkeys(short(one) for one in found.own if one.score.task in labelled))


def short(one: HeldScore) -> str:
    """The name of its task as users type it."""
    return one.score.task.removeprefix(catalog.PREFIX)


def typed(command: str) -> str:
    """A command within text, as the pages set it apart; a stranger's name cannot end it."""
    return f"`{command.replace('`', '')}`"


def file_of(found: SubjectCards) -> str:
    """The subject's card as a word of the shell."""
    return found.word(found.path)


def compared(found: SubjectCards, held: Sequence[HeldScore], more: str = "") -> str:
    """The commands, each after a "; ", that compare each card of these scores with those of its base."""
    bases: dict[Path, list[HeldScore]] = {}
    for one in held:
        if one.base:
            bases.setdefault(one.path, []).append(one.base)
    pairs = [f"{found.word(path)} {found.words(beside)}" for path, beside in bases.items()]
    return "".join(f"; finbench compare {pair}{more}" for pair in pairs)


def adapter_of(found: SubjectCards, card: Scorecard) -> str:
    """The adapter of a card as a word of the shell: where it came from, else lies; ADAPTER: not known here."""
    name = card.subject.adapter_name or card.subject.name
    if card.subject.adapter_source:
        return shlex.quote(card.subject.adapter_source)
    if found.adapter is not None:
        place = found.word(found.adapter)
        return place if "/" in place else f"./{place}"
    there = (place for place in (f"./{name}", f"runs/{name}") if Path(place).is_dir())
    return shlex.quote(next(there, "ADAPTER"))
