"""Is A really better than B: paired comparison of scorecards on the same documents."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles, setups
from finbench.cards.render import parts_of
from finbench.cards.setups import setup_of
from finbench.cards.verdicts import Comparison, Contest, Disagreement
from finbench.core import catalog, paths, seal
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import json_lines
from finbench.core.records import Score, Scorecard
from finbench.scoring import (
    Difference,
    clusters_of,
    documents_needed,
    hidden_metrics,
    holm,
    mcnemar,
    metrics,
    paired_difference,
    samples_of,
    value_of,
    values_of,
)

# fields in which two setups differ, where their names say little
_IN_WORDS = {
    "task_digest": "the definition of the task",
    "data.digest": "the rows of the test",
    "fewshot_digest": "the rows of the worked examples",
    "subject.chat": "the chat template",
}
Rows = Sequence[Mapping[str, Any]]
RowsByTask = dict[str, list[dict[str, Any]]]


@dataclass
class LoadedCard:
    """A scorecard with its scores and sample rows by task."""

    path: Path
    card: Scorecard
    name: str
    scores: dict[str, Score]
    rows: RowsByTask
    documents: dict[str, list[tuple[Any, Any]]]
    golds: dict[str, list[dict[str, Any]]]


def _load(path: Path) -> LoadedCard:
    card = cardfiles.read(path)
    if card.samples is None:
        raise FinbenchError(
            f"{path} has no samples, and only samples can be compared document by document.",
            "Score the subject again: finbench eval",
        )
    seal.refuse_edited(cardfiles.raw(path), str(path))
    scores = {score.task: score for score in card.scores}
    for score in card.scores:
        catalog.recall(score.task, score.task_digest)
    rows = cardfiles.rows_by_task(path, card)
    which = {task: documents(own) for task, own in rows.items()}
    right = {task: golds(task, own) for task, own in rows.items()}
    return LoadedCard(path, card, card.subject.name, scores, rows, which, right)


def _among(places: Sequence[Path | str]) -> list[Path]:
    """The cards of files and folders; of one folder alone, adapters before their base, whom they are to beat."""
    if not any(Path(place).is_dir() for place in places):
        paths = [path for path in map(Path, places) if not cardfiles.is_samples(path)]
        twice = [path for path, times in Counter(path.resolve() for path in paths).items() if times > 1]
        if twice:
            raise FinbenchError(
                f"{twice[0].name} is named twice, and a card does not differ from itself.",
                "Name two cards, or the folder they lie in: finbench compare scorecards",
            )
        return paths
    found = cardfiles.expand(places)
    if len(places) == 1 and Path(places[0]).is_dir():
        found.sort(key=lambda path: cardfiles.read(path).subject.kind == "base")
    return found


def compare(
    cards: Sequence[Path | str],
    *,
    tasks: Sequence[str] = (),
    data_dir: Path | None = None,
    across_profiles: bool = False,
) -> list[Comparison]:
    """Compare the first card of files and folders with each other one, on every task they share (or on ``tasks``).

    p-values are adjusted over all tasks and pairs at once (Holm). Raises FinbenchError, naming the field, for
    cards whose task digest, data digest or prompt style differ, and for cards without samples; for other profiles,
    budgets and chat templates too, unless ``across_profiles`` asks for just that.
    """
    wanted = [catalog.full_name(task) for task in tasks]
    found = [_load(path) for path in _among(cards)]
    folders = any(Path(place).is_dir() for place in cards)
    if folders:
        found = _fitting(found, wanted, across_profiles, named=found[0].path == Path(cards[0]))
    names = Counter(side.name for side in found)
    for side in found:
        if names[side.name] > 1:  # subjects of one name are called by their files
            side.name = str(side.path.with_suffix(""))
    if len(found) < 2:
        raise FinbenchError("A comparison needs two scorecards.", "finbench compare A.json B.json")
    first, sides = found[0], []
    for other in found[1:]:
        shared = [task for task in first.scores if task in other.scores]
        chosen = [task for task in shared if not wanted or task in wanted]
        if not chosen:
            named = f"Name tasks of both: --tasks {','.join(shared)}"
            raise FinbenchError(
                f"{first.path} and {other.path} share no task{' of those named' if wanted else ''}.",
                named if shared else "Score both on the same tasks: finbench eval --tasks fpb",
            )
        try:
            for task in chosen:
                _same_setup(first, other, task, across_profiles)
        except FinbenchError as fault:
            home = first.path.parent
            if folders or other.path.parent != home or len(cardfiles.expand([home])) == 2:
                raise
            there = f"or, of the cards that lie there, those that fit: finbench compare {shlex.quote(str(home))}"
            raise FinbenchError(fault.message, f"{fault.hint}; {there}") from fault
        sides.append((other, chosen))
    pairs = []
    for other, chosen in sides:
        contests = [_contest(first, other, task, data_dir) for task in chosen]
        pairs.append(Comparison(first.name, other.name, contests, sorted(first.scores.keys() ^ other.scores.keys())))
    every = [contest for pair in pairs for contest in pair.contests]
    for contest, adjusted in zip(every, holm([contest.p for contest in every]), strict=True):
        contest.adjusted = adjusted
    return pairs


def _fitting(
    found: Sequence[LoadedCard], wanted: Sequence[str], across_profiles: bool, named: bool
) -> list[LoadedCard]:
    """Of the cards of folders those that can be compared with one: with the first where it was ``named`` itself.

    Else with that which most subjects fit; of one subject's cards with the newest of these.
    """

    def subject(side: LoadedCard) -> tuple[Any, ...]:
        one = side.card.subject
        return one.name, one.base.fingerprint, one.adapter, one.bits

    def fit(one: LoadedCard, other: LoadedCard) -> bool:
        shared = [task for task in one.scores if task in other.scores and (not wanted or task in wanted)]
        try:
            for task in shared:
                _same_setup(one, other, task, across_profiles)
        except FinbenchError:
            return False
        return bool(shared) and one is not other

    def rank(one: LoadedCard) -> tuple[Any, ...]:
        others = {subject(other) for other in found if fit(one, other)} - {subject(one)}
        return len(others), -order.index(subject(one)), one.card.provenance.created

    order = list(dict.fromkeys(map(subject, found)))
    first = found[0] if named else max(found, key=rank)
    kept = [side for side in found if fit(first, side)]
    left = [side.path for side in found if side is not first and side not in kept]
    if not kept and len(left) > 1:
        most = "" if named else ", nor with each other"
        raise FinbenchError(
            f"None of the {len(left)} other cards can be compared with {first.path}{most}: they are of other tasks, "
            "rows or settings.",
            f"See why: finbench compare {shlex.join([str(first.path), str(left[0])])}",
        )
    if not kept:  # of the only other one it is said why
        return list(found)
    if left:
        names = ", ".join(path.name for path in left)
        say(f"Left out, of other tasks, rows or settings than {first.path.name}: {names}.")
    return [first, *kept]


def _same_setup(a: LoadedCard, b: LoadedCard, task: str, across_profiles: bool) -> None:
    one, other = (setup_of(side.card, side.scores[task]) for side in (a, b))
    apart = setups.apart(one, other, across_profiles)
    told = {field: f"{field}: {_short(first)} and {_short(second)}" for field, (first, second) in apart.items()}
    wrong = [f"{_IN_WORDS[field]} ({said})" if field in _IN_WORDS else said for field, said in told.items()]
    if "profile" in apart and apart.keys() <= setups.OF_PROFILES:
        raise FinbenchError(
            f"{a.name} and {b.name} answered {task.removeprefix(catalog.PREFIX)} in different ways; they differ in "
            f"{'; '.join(wrong)}.",
            "Compare them all the same: finbench compare --across-profiles",
        )
    if apart.keys() & {"data.digest", "n"} and _part(a, task) != _part(b, task):
        rest = [said for field, said in told.items() if field not in ("data.digest", "n")]
        others = f" They differ in {'; '.join(rest)} too." if rest else ""
        raise FinbenchError(
            f"{a.name} and {b.name} were not scored on the same rows of {task.removeprefix(catalog.PREFIX)}: "
            f"{a.name} {_of_what(a, task)}, {b.name} {_of_what(b, task)}.{others}",
            "Score both with one command, on the same rows: finbench eval --adapter A --adapter B",
        )
    if wrong:
        fault = f"{a.name} and {b.name} were not scored alike on {task.removeprefix(catalog.PREFIX)}; they differ in "
        fault += "; ".join(wrong) + "."
    elif a.documents[task] != b.documents[task]:
        fault = f"The samples of {a.path} and {b.path} are not of the same documents of {task}."
    elif apart_golds := other_golds(a.golds[task], b.golds[task]):
        raise FinbenchError(
            f"{a.path} and {b.path} have other right answers in {apart_golds:,} of {len(a.golds[task]):,} rows of "
            f"{task.removeprefix(catalog.PREFIX)}, and no difference between them would mean anything.",
            f"See which was edited: {'; '.join(f'finbench verify {shlex.quote(str(one.path))}' for one in (a, b))}",
        )
    else:
        return
    older = min(a, b, key=lambda side: side.scores[task].version)
    if "task_digest" in apart and a.scores[task].version != b.scores[task].version:
        raise FinbenchError(fault, f"Score the older one anew: finbench card rescore {shlex.quote(str(older.path))}")
    raise FinbenchError(fault, "Score both with one command: finbench eval --adapter A --adapter B")


def _part(side: LoadedCard, task: str) -> str:
    """Of what part of a test a score is, in words; empty of a whole one."""
    return ", ".join(parts_of(side.card, side.scores[task]))


def _of_what(side: LoadedCard, task: str) -> str:
    part, n = _part(side, task), f"n = {side.scores[task].n:,}"
    return f"is of a part ({part}; {n})" if part else f"is of the whole test ({n})"


def documents(rows: Rows) -> list[tuple[Any, Any]]:
    """Which documents rows are of, and the source of each, in order."""
    return [(row["doc"], row["cluster"]) for row in rows]


def golds(task: str, rows: Rows) -> list[dict[str, Any]]:
    """The right answers of each row by metric, as far as its values state them."""
    if task not in catalog.tasks():
        return [{} for _ in rows]
    return [metrics.golds(task, row["values"]) for row in rows]


def other_golds(a: Rows, b: Rows) -> int:
    """Of ``golds`` of the same documents: rows in which two cards differ, where both state them. Honest ones do not."""
    return sum(any(one[name] != two[name] for name in one.keys() & two.keys()) for one, two in zip(a, b, strict=True))


def follows(score: Score, rows: Rows, path: Path) -> None:
    """FinbenchError where the main number of a task's present version is not that of its own samples."""
    task, name = catalog.tasks().get(score.task), score.main_metric
    if task is None or task.version != score.version or name in hidden_metrics(rows):
        return
    how, values = aggregation_of(score.task, name), values_of(rows)[name]
    with _readable(str(path)):
        found = value_of(values, how, samples_of(rows))
    if abs(found - score.main.value) > 1e-9:
        raise FinbenchError(
            f"{path} says {name} = {score.main.value:.4f} of {score.task}; its samples give {found:.4f}.",
            f"See what else was edited: finbench verify {path}",
        )


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) > 12 else str(value)


def aggregation_of(task: str, metric: str) -> metrics.Aggregation:
    """The aggregation of a task's metric; FinbenchError for a task that this finbench does not know."""
    if task not in catalog.tasks():
        raise catalog.not_here(task)
    found = metrics.aggregations(task)
    if metric not in found:
        raise FinbenchError(
            f"The task {task} has no metric {metric!r}; it has {', '.join(sorted(found))}.",
            "Score the subject again: finbench eval",
        )
    return found[metric]


def _contest(a: LoadedCard, b: LoadedCard, task: str, data_dir: Path | None) -> Contest:
    score, rows = a.scores[task], (a.rows[task], b.rows[task])
    metric = score.main_metric
    if metric in hidden_metrics(rows[0]) | hidden_metrics(rows[1]):
        others = ",".join(sorted((a.scores.keys() & b.scores.keys()) - {task}))
        raise FinbenchError(
            f"{metric} of {task} quotes restricted text, so its samples cannot be compared.",
            f"Name the other tasks: --tasks {others}" if others else "Compare scorecards of another task.",
        )
    for side in (a, b):
        follows(side.scores[task], side.rows[task], side.path)
    values, clusters = [values_of(side)[metric] for side in rows], clusters_of(rows[0])
    how, where = aggregation_of(task, metric), f"{a.path} or {b.path}"
    found = difference(values[0], values[1], how, clusters, where, samples_of(rows[0]))
    only_a, only_b, p_mcnemar = _right(rows, clusters)
    apart = {where for where, one, two in zip(clusters, *values, strict=True) if one != two}
    return Contest(
        task=task,
        metric=metric,
        n=score.n,
        clusters=len(set(clusters)),
        a=score.main,
        b=b.scores[task].main,
        difference=found.measure,
        p=found.p,
        adjusted=found.p,
        detectable=found.detectable(),
        needed=documents_needed(score.n, found.error, found.measure.value) if found.testable else None,
        only_a=only_a,
        only_b=only_b,
        mcnemar=p_mcnemar,
        lower_is_better=metric in score.lower_is_better,
        part=", ".join(parts_of(a.card, score)),
        restricted=catalog.tasks()[task].restricted,
        apart=len(apart),
        differing=list(_differing(rows, metric, _texts(task, data_dir))),
        by_prompt=_by_prompt(score, b.scores[task]),
    )


def _by_prompt(one: Score, other: Score) -> dict[str, float]:
    """Main metric of the first minus that of the second, by every prompt that both were asked by."""
    sides = [
        {(prompt.name, prompt.digest): prompt.main.value for prompt in (side.prompts.each if side.prompts else ())}
        for side in (one, other)
    ]
    return {key[0]: value - sides[1][key] for key, value in sides[0].items() if key in sides[1]}


def difference(
    a: Sequence[Any], b: Sequence[Any], how: metrics.Aggregation, clusters: Sequence[str], where: str, samples: int
) -> Difference:
    """``scoring.paired_difference`` of values from samples; a FinbenchError with ``where`` if no scorer gives them."""
    with _readable(where):
        return paired_difference(a, b, how, clusters, samples)


@contextlib.contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as fault:
        raise FinbenchError(
            f"Values in the samples of {where} are not what the task's scorer gives ({type(fault).__name__}: {fault}).",
            "See which: finbench verify CARD",
        ) from fault


def _right(rows: Sequence[Rows], clusters: Sequence[str]) -> tuple[int | None, int | None, float | None]:
    """Documents that only A, and only B, has right, and McNemar's p where documents are independent."""
    values = [[row["values"].get("acc") for row in side] for side in rows]
    if any(value not in (0, 1) for side in values for value in side):
        return None, None, None
    only_a = sum(a > b for a, b in zip(*values, strict=True))
    only_b = sum(b > a for a, b in zip(*values, strict=True))
    return only_a, only_b, mcnemar(only_a, only_b) if len(set(clusters)) == len(clusters) else None


def _differing(rows: Sequence[Rows], metric: str, texts: Mapping[str, str]) -> Iterator[Disagreement]:
    for one, other in zip(*rows, strict=True):
        if one["values"][metric] != other["values"][metric]:
            gold, a = gold_and_answer(one["values"][metric])
            _, b = gold_and_answer(other["values"][metric])
            yield Disagreement(one["index"], one["doc"], gold, a, b, texts.get(str(one.get("cluster"))))


def gold_and_answer(value: Any) -> tuple[str | None, str]:
    """(gold, what was read from the answer) of a per-document value of a metric, for people."""
    match value:
        case [gold, predicted, [*_]] | [_, str(gold), predicted] | [gold, predicted]:  # with labels, question, neither
            return str(gold), "unparsed" if predicted is None else str(predicted)
    return None, json.dumps(value, ensure_ascii=False)


def _texts(task: str, data_dir: Path | None) -> dict[str, str]:
    """Texts by cluster hash, from the rows that lie here."""
    known = catalog.tasks()[task]
    file = paths.data_dir(data_dir) / known.set / "test.jsonl"
    if known.own:
        file = catalog.root_of(task) / "rows" / "test.jsonl"
    if known.shipped:
        file = paths.shipped("tasks") / "mini" / f"{known.set}.test.jsonl"
    if not file.is_file():
        return {}
    rows = json_lines(file.read_text(encoding="utf-8"))
    return {seal.salted(f"text:{row.get('text')}")[:16]: str(row.get("text")) for row in rows}
