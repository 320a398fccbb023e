"""The page: one HTML file with its data, its drawing and its script inside; details beside it where they are many.

Nothing is fetched: a content security policy allows only the scripts whose hashes stand in the page, and the files of
``details/``. Text from cards travels as JSON and is put into the page as text.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import re
from collections.abc import Sequence
from typing import Any

from finbench.cards import describe_subject, from_template, in_brackets, what_it_cost, who_answered
from finbench.core.files import digest
from finbench.core.records import Measure, Score, Scorecard
from finbench.leaderboard import charts, commands, precedence, published, tables, trainings
from finbench.leaderboard.board import FAMILIES, Board
from finbench.leaderboard.evidence import evidence_of
from finbench.leaderboard.rows import BoardCard, BoardRow, BoardTest
from finbench.leaderboard.store import SCORECARDS
from finbench.scoring import BASELINES, metrics

LARGEST = 2_000_000  # bytes of the page; details that would make it larger, or are of more cards, lie beside it
MANY = 200  # cards
LEVELS = {
    "self-reported": "no samples: rests on the word of its author",
    "samples-attached": "every number follows from the samples beside the card",
    "reproduced": "a maintainer asked the model again, on documents that nobody knew before, and signed that it "
    "answered the same",
    "revoked": "the key that signed its rerun is not believed any more: no more than samples-attached",
}


def files(board: Board, blocks: Sequence[published.PublishedScore] = ()) -> dict[str, str]:
    """``index.html`` and, beyond 200 cards or 2 MB, ``details/*.js``, by name."""
    details = _details(board)
    parts = importlib.resources.files("finbench").joinpath("templates/leaderboard")
    values: dict[str, Any] = {
        "board": board,
        "families": [(name, title) for name, title in FAMILIES.items() if board.family(name)],
        "published": blocks,
        "marks": published.marks,
        "levels": LEVELS,
        "newest": max((entry.card.provenance.created for entry in board.entries), default="")[:10],
        "css": parts.joinpath("board.css").read_text("utf-8"),
        "drawing": _json(charts.scatter()),
        "libraries": charts.libraries(),
        "scripts": [charts.bundle(), parts.joinpath("board.js").read_text("utf-8")],
    }
    if len(board.entries) <= MANY:
        text = _page(values, payload(board) | {"details": details}, beside=False)
        if len(text.encode()) <= LARGEST:
            return {"index.html": text}
    named = {key: f"details/{digest(key)[:12]}.js" for key in details}
    made = {"index.html": _page(values, payload(board) | {"beside": named}, beside=True)}
    return made | {named[key]: f"finbenchDetail({_json(key)}, {_json(found)});\n" for key, found in details.items()}


def _page(values: dict[str, Any], data: dict[str, Any], *, beside: bool) -> str:
    digests = [hashlib.sha256(script.encode()).digest() for script in values["scripts"]]
    sources = [f"'sha256-{base64.b64encode(one).decode()}'" for one in digests] + (["'self'"] if beside else [])
    policy = f"default-src 'none'; script-src {' '.join(sources)}; style-src 'unsafe-inline'; img-src data:; "
    policy += "base-uri 'none'; form-action 'none'"
    return from_template("leaderboard/page.html.j2", escape=True, policy=policy, data=_json(data), **values)


def same(one: str, other: str) -> bool:
    """Two pages are alike; where they were drawn by other versions of the libraries, apart from what those give."""
    return one == other or (_libraries(one) != _libraries(other) and _own_text(one) == _own_text(other))


def _libraries(text: str) -> str:
    found = re.search(r'<meta name="generator" content="([^"]*)">', text)
    return found[1] if found else ""


def _own_text(text: str) -> str:
    """Without what depends on the libraries: their script, their names, and the policy with the script's hash."""
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', text)
    text = re.sub(r"<script[^>]* data-library>.*?</script>", "", text, flags=re.DOTALL)
    return text.replace(f'content="{_libraries(text)}"', "").replace(policy[0] if policy else "\0", "")


def _json(value: Any) -> str:
    """JSON that cannot end a script element or open a comment in one."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate({ord(sign): f"\\u{ord(sign):04x}" for sign in "<>\u2028\u2029"})


def payload(board: Board) -> dict[str, Any]:
    """Cards and tests as the script reads them; rows are lists, for there may be thousands."""
    place = {entry.key: number for number, entry in enumerate(board.entries)}
    recipes = {entry.recipe: entry for entry in reversed(board.entries) if entry.recipe}  # the first training of each
    together = [_together(entry, board.entries) for entry in recipes.values()]
    place |= {key: len(board.entries) + number for number, key in enumerate(recipes)}
    return {
        "cards": [*map(_card, board.entries), *together],
        "tests": [_test(test, place) for test in board.tests],
        "overview": _overview(board),
        "levels": LEVELS,
        "axes": charts.AXES,
    }


def _card(entry: BoardCard) -> dict[str, Any]:
    card, subject = entry.card, entry.card.subject
    same = subject.model_dump(include={"adapter", "bits", "kind", "seed", "chat"})
    took = trainings.budget(entry)
    return {
        "key": entry.key,
        "who": (entry.recipe or digest(same | {"base": subject.base.fingerprint}))[:10],
        "name": entry.name,
        "base": subject.base.alias,
        "kind": subject.kind,
        "method": subject.method or subject.kind,
        "what": describe_subject(subject),
        "bits": subject.bits,
        "rank": subject.rank if subject.kind == "peft" else None,
        "parameters": subject.trainable_parameters,
        "level": entry.level,
        **({"rows": took.rows, "steps": took.steps, "lr": took.rate, "rate": took.chosen} if took else {}),
        "memory": 0 if any(score.hosted for score in card.scores) else card.peak_memory_bytes,
        "machine": entry.machine,
    }


def _together(first: BoardCard, entries: Sequence[BoardCard]) -> dict[str, Any]:
    """A recipe of several trainings, as its rows show it: believed as far as the weakest of them."""
    levels = [entry.level for entry in entries if entry.recipe == first.recipe]
    weakest = min(levels, key=lambda level: precedence.STRENGTH[level])
    return _card(first) | {"key": first.recipe, "name": first.recipe_name, "level": weakest}


def _test(test: BoardTest, place: dict[str, int]) -> dict[str, Any]:
    score = test.score
    return {
        "key": test.key,
        "task": test.task,
        "title": test.title,
        "conditions": list(test.conditions),
        "family": score.family,
        "form": score.form,
        "whole": test.whole,
        "ranked": test.ranked,
        "metric": metrics.spoken(score.main_metric),
        "share": test.share,
        "lower": test.lower_is_better,
        "seeds": tables.seeds(test),
        "n": score.n,
        "version": score.version,
        "style": score.prompt_style,
        "licence": score.licence,
        "digests": [score.task_digest[:12], score.data.digest[:12]],
        "baselines": {
            said: round(score.baselines[name][score.main_metric], 5)
            for name, said in BASELINES.items()
            if score.main_metric in score.baselines.get(name, {})
        },
        "rows": [_row(row, place) for row in test.rows],
    }


def _row(row: BoardRow, place: dict[str, int]) -> list[Any]:
    """Card, value, low, high, group, parsed, tokens a second, seconds for 1,000 documents, fronts, seen, USD for them.

    And trainings (of several the card and main metric of each), their deviation, and the lenient value; of answers that
    were generated otherwise than directly also the share that the budget cut off, and tokens of reasoning an answer.
    """
    answers, lenient = row.score.answers, row.score.lenient.get(row.score.main_metric)
    each = [[place[run.entry.key], *_rounded(run.score.main)] for run in row.runs or (row,)]
    more: list[Any] = [each if row.entry.recipe else row.trainings]
    more += [None if row.deviation is None else round(row.deviation, 5)]
    more += [lenient and round(lenient.value, 5), *([] if answers is None else [round(answers.truncated.value, 4)])]
    return [
        place[row.entry.recipe or row.entry.key],
        *_rounded(row.score.main),
        row.group,
        round(row.score.parse_rate.value, 4),
        None if row.tokens_per_second is None else round(row.tokens_per_second, 1),
        None if row.cost is None else round(row.cost, 2),
        row.on_cost_front + 2 * row.on_memory_front + 4 * row.on_thinking_front + 8 * row.on_price_front,
        0 if row.seen is None else round(row.seen, 4),
        None if row.score.price is None else round(row.score.price, 4),
        *more,
        *([] if row.thinking is None else [round(row.thinking, 1)]),
    ]


def _overview(board: Board) -> list[list[str]]:
    """Keys of the tests on the first screen: those of whole tests, and those of first rows; one a task each."""
    chosen: list[list[str]] = []
    for whole in (True, False):
        best: dict[str, BoardTest] = {}
        for test in board.tests:
            primary = test.score.form == "generate" or test.score.family == "general"
            if test.whole == whole and primary and test.ranked:
                rivals = [best.get(test.task, test), test]  # of equals the first stays
                best[test.task] = max(rivals, key=lambda one: (not one.conditions, len(one.rows)))
        chosen.append([test.key for test in best.values()])
    return chosen


def _details(board: Board) -> dict[str, Any]:
    scores: dict[str, dict[str, Any]] = {entry.key: {} for entry in board.entries}
    for test in board.tests:
        for run in (run for row in test.rows for run in row.runs or (row,)):
            scores[run.entry.key][test.key] = _scores(run)
    return {entry.key: detail(entry) | {"scores": scores[entry.key]} for entry in board.entries}


def detail(entry: BoardCard) -> dict[str, Any]:
    """Everything about one card but its scores: where it comes from, how far to believe it, how to get it again."""
    card, subject = entry.card, entry.card.subject
    steps = commands.reproduce(entry)
    facts: list[tuple[str, Any]] = [
        ("Card", f"{SCORECARDS}/{entry.key}.json"),
        ("Status", card.status + (f", first {card.limit} rows of each test" if card.limit else "")),
        ("Base", f"{subject.base.alias} ({subject.base.hub_id or 'not on the Hub'}, {subject.base.source})"),
        ("Base revision", subject.base.revision),
        ("Base fingerprint", subject.base.fingerprint),
        ("Adapter SHA-256", subject.adapter),
        ("Trained with seed", subject.seed),
        ("Computed by", f"{card.engine}, {card.dtype}, {card.form}; asked by {card.origin}"),
        ("Arguments", ", ".join(f"{key}={value}" for key, value in card.arguments.items())),
        ("Prompts", f"{'chat template' if subject.chat else 'raw'}, {card.shots or 'zero'} shots"),
        ("Answers", _generated(card)),
        ("Machine", entry.machine),
        ("Run", f"{card.seconds:,.0f} s, peak memory {card.peak_memory_bytes / 1e9:.2f} GB"),
        ("Made", f"{card.provenance.created} by finbench {card.provenance.finbench}, Python {card.provenance.python}"),
        ("Packages", ", ".join(f"{name} {version}" for name, version in card.provenance.packages.items())),
        ("Samples SHA-256", card.samples),
    ]
    if entry.trained is not None:
        run, made = entry.trained.record.training, entry.trained.record.provenance.hardware
        machine = made.get("gpu", made.get("cpu", "?"))
        facts += [
            ("Training", f"{run.rows:,} rows, {run.steps:,} steps, {run.tokens:,} tokens in {run.seconds:,.0f} s"),
            ("Training speed", f"{run.tokens_per_second:,.0f} tokens/s on {machine}"),
            ("Training memory", f"{run.peak_memory_bytes / 1e9:.2f} GB"),
            ("Final loss", f"{run.final_loss:.4f}"),
        ]
    return {
        "facts": [[name, str(value)] for name, value in facts if value not in (None, "")],
        "steps": [list(step) for step in steps.steps],
        "recipe": list(steps.recipe) if steps.recipe else None,
        "checks": entry.found.checks[:40],
        "notes": entry.found.notes[:40],
    }


def _generated(card: Scorecard) -> str:
    """How answers were generated; empty for the plain way."""
    stated = card.generation.model_dump(exclude_none=True) if card.generation else {}
    return ", ".join(f"{name} {value}" for name, value in stated.items() if (name, value) != ("samples", 1))


def _scores(row: BoardRow) -> dict[str, Any]:
    score = row.score
    overlap = score.overlap
    return {
        "metrics": [_measure(name, measure) for name, measure in score.metrics.items()],
        "lenient": [_measure(name, measure) for name, measure in score.lenient.items()],
        "parsed": _measure("parse_rate", score.parse_rate),
        "breakdown": proof.breakdown if (proof := evidence_of(score, row.entry.samples)) else None,
        "facts": [
            ["Task", f"{score.task}, version {score.version}, {score.task_digest}"],
            ["Data", f"{score.data.set}, {score.data.split}, {score.data.digest}"],
            ["From", " ".join(filter(None, [score.data.origin or "not stated", score.data.revision]))],
            ["Documents", f"{score.n:,} in {score.clusters:,} groups of one source"],
            ["Interval", score.main.method],
            ["Truncated prompts", str(score.truncated)],
            *_answers(score),
            *([["Answered by", who_answered(told)], ["Cost", what_it_cost(score)]] if (told := score.hosted) else []),
            ["Test texts in training", f"{overlap.texts:,} of {overlap.of:,}" if overlap else "not known"],
        ],
    }


def _answers(score: Score) -> list[list[str]]:
    """What generated answers took, and what several samples give together."""
    if score.answers is None:
        return []
    found, share = score.answers, metrics.is_share("acc")
    told = [
        ["Tokens of answers", f"{found.thinking_tokens:,} of reasoning, {found.answer_tokens:,} after it"],
        ["Cut off by the budget", f"{in_brackets(found.truncated, share)} %"],
    ]
    told += [["Accuracy of the majority", f"{in_brackets(found.majority, share)} %"]] if found.majority else []
    return told + [[f"pass@{k}", f"{in_brackets(measure, share)} %"] for k, measure in found.pass_at.items()]


def _measure(name: str, measure: Measure) -> list[Any]:
    return [metrics.spoken(name), metrics.is_share(name), *_rounded(measure)]


def _rounded(measure: Measure) -> list[float | None]:
    """Value, low, high."""
    return [None if part is None else round(part, 5) for part in (measure.value, measure.low, measure.high)]
