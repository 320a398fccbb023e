"""A scorecard from a file of answers that somebody else's model gave: every answer is scored by us.

The file is a dictionary by id, or a table (CSV, JSON, JSONL, Excel) of answers with an id or the text that was asked.
Its shape is learnt from the task's own rows: the column whose values are their ids or texts, and the column of answers.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from finbench.cards import write_reports
from finbench.core import catalog, paths
from finbench.core.console import say
from finbench.core.errors import FinbenchError, counted, reason, unknown
from finbench.core.files import json_text, sha256_file, unique_keys
from finbench.core.records import UNKNOWN, BaseModelId, Scorecard, Subject, Task
from finbench.data import read_rows
from finbench.evaluation.scored import UNCOUNTED, asked_rows, blank, score_answers, stored
from finbench.scoring import prompts

_ANSWERS = (
    *("answer", "prediction", "predicted", "predictions", "pred", "output", "response", "generated_text"),
    *("text_output", "model_output", "model_answer", "llm_responses", "completion", "resp"),
)
_SHAPES = "Give a JSON object of id and answer, or rows with an id (or the text) and a column called answer."
_ROLES = ("id", "text", "answer")
_LARGEST = 2**28  # bytes of a JSON file of answers
_SCALES = ("", "thousand", "million", "billion", "percent")
_SHOWN = 3
_OWN = re.compile(r"[0-9a-f]{16}-(?P<own>.+)")

Answers = dict[str, list[str]]  # id or normalised text -> answers, in the order of the file


def import_answers(
    file: Path,
    task: str,
    *,
    out: Path = Path("scorecards"),
    name: str | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
    data_dir: Path | None = None,
) -> list[Scorecard]:
    """The scorecard of the answers in ``file`` to every test row of ``task``, written to ``out`` with its samples.

    ``columns``: which is the ``id``, the ``text`` or the ``answer``, where names and values do not say it.

    Raises FinbenchError where the shape is not known, where an answer is missing, and for rows answered twice.
    """
    [chosen] = _one(task)
    lm_task = prompts.load([chosen], data_dir)[chosen.name]
    docs = prompts.rows(lm_task, "test")
    told = _read(file, docs, columns)
    answers = _matched(file, told, docs, chosen)
    instances = prompts.requests(lm_task, None)
    for instance in instances:
        instance.resps = [answers[instance.doc_id]]
    made = score_answers(chosen, lm_task, instances, asked_rows(chosen, lm_task, None), **UNCOUNTED)
    written = stored(out, file, _blank(file, name or file.stem), [made])
    write_reports(out)
    return [written]


def _one(task: str) -> list[Task]:
    found = catalog.expand([task])
    if len(found) != 1 or found[0].form == "choice":
        raise FinbenchError(
            f"--task {task}: one task is meant, whose answers are text.", "See the tasks: finbench tasks list"
        )
    return found


def _read(file: Path, docs: Sequence[Mapping[str, Any]], named: Mapping[str, str]) -> Answers:
    """Answers by id or text, as the file gives them."""
    if not file.is_file():
        raise FinbenchError(f"No such file: {file}.", _SHAPES)
    if file.suffix.lower() == ".json":
        try:
            document = json.loads(json_text(file, _LARGEST).removeprefix("\ufeff"), object_pairs_hook=unique_keys)
        except (OSError, ValueError, RecursionError) as fault:
            raise FinbenchError(f"{file}: not valid JSON ({reason(fault)}).", _SHAPES) from fault
        if isinstance(document, dict) and not any(isinstance(value, dict) for value in document.values()):
            return {str(key): [_said(value)] for key, value in document.items()}
        rows: Any = document
        if isinstance(document, dict):
            rows = [{"id": key, **value} if isinstance(value, dict) else None for key, value in document.items()]
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise FinbenchError(f"{file}: neither answers by id nor rows.", _SHAPES)
        return _columns(file, rows, docs, named)
    return _columns(file, list(read_rows(file)), docs, named)


def _columns(
    file: Path, rows: Sequence[Mapping[str, Any]], docs: Sequence[Mapping[str, Any]], named: Mapping[str, str]
) -> Answers:
    """Answers of a table: the column of answers by its name, that of ids or texts by its values; or as ``named``."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    for role, column in named.items():
        if role not in _ROLES:
            raise FinbenchError(f"--map names {role!r}; there are id, text and answer.", "--map id=...,answer=...")
        if column not in names:
            raise unknown("column", column, list(map(str, names)), f"the first line of {file}")
    answers = [name for name in names if re.sub(r"\W", "_", str(name)).casefold() in _ANSWERS]
    answers = [named["answer"]] if "answer" in named else answers
    keys = {key for doc in docs for key in _keys(doc)}
    # of different values, and of two columns the wordier one: labels 0, 1, 2 are no ids
    values = {name: {told for row in rows for told in (str(row.get(name)), _normal(row.get(name)))} for name in names}
    fits = {name: (len(told & keys), sum(map(len, told & keys))) for name, told in values.items()}
    best = named.get("id") or named.get("text") or max(fits, key=lambda name: fits[name], default=None)
    if len(answers) != 1 or best is None or not fits[best][0] or best in answers:
        several = "more than one column of answers" if answers else "no column of answers"
        shown = ", ".join(map(str, names))[:200]
        if len(answers) == 1:
            raise FinbenchError(f"{file}: none of its {counted(len(rows), 'row')} is in the test, by {shown}.", _SHAPES)
        raise FinbenchError(
            f"{file}: {several} among {shown}.", f"{_SHAPES} Or name them: --map id=COLUMN,answer=COLUMN"
        )
    found: Answers = {}
    for row in rows:
        key = str(row.get(best)) if str(row.get(best)) in keys else _normal(row.get(best))
        found.setdefault(key, []).append(_said(row.get(answers[0])))
    return found


def _normal(value: Any) -> str:
    return str(paths.helper("sets").normalise(value)) if isinstance(value, str) else ""


def _keys(doc: Mapping[str, Any]) -> list[str]:
    """By what a row may be named: its id here, its authors' id, its page with its number, its text."""
    identity = str(doc.get("id") or "")
    own = _OWN.search(identity)
    named = [identity, str(doc.get("uid") or ""), own["own"] if own else ""]
    if own and doc.get("document"):
        named.append(f"{doc['document']}-{own['own']}")
    return [name for name in (*named, _normal(doc.get("text"))) if name]


def _said(value: Any) -> str:
    """An answer as text: of spans joined by "|", with the scale that stands beside it, of a program its text."""
    if isinstance(value, list) and value and value[-1] == "EOF" and all(isinstance(part, str) for part in value):
        return re.sub(r"\( ", "(", re.sub(r" \)", ")", ", ".join(value[:-1]).replace("(,", "(").replace(", )", ")")))
    if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str) and value[1] in _SCALES:
        spans = value[0] if isinstance(value[0], list) else [value[0]]
        said = [f"{_said(span)} {value[1]}".strip() for span in spans if span not in (None, "")]
        return " | ".join(said)
    if isinstance(value, list):
        return " | ".join(map(_said, value))
    return "" if value is None else str(value)


def _matched(file: Path, told: Answers, docs: Sequence[Mapping[str, Any]], task: Task) -> list[str]:
    """The answer to each row. A text that is asked several times takes its answers in the order of the file."""
    left = {key: list(answers) for key, answers in told.items()}
    missing: list[str] = []
    order = sorted(range(len(docs)), key=lambda at: _order(docs[at]))
    found: dict[int, str] = {}
    for at in order:
        key = next((key for key in _keys(docs[at]) if left.get(key)), None)
        if key is None:
            named = str(docs[at].get("uid") or docs[at].get("text") or docs[at].get("id"))
            missing.append(repr(textwrap.shorten(named, 60, placeholder=" ...")))
        else:
            found[at] = left[key].pop(0)
    if missing:
        shown = ", ".join(missing[:_SHOWN])
        raise FinbenchError(
            f"{file}: {len(missing):,} of the {len(docs):,} test rows of {task.name} have no answer: {shown}"
            + (", ..." if len(missing) > _SHOWN else "."),
            "Give an answer to each row of the data here"
            + ("." if task.shipped else f", or import the same rows: {task.data}"),
        )
    over = Counter({key: len(answers) for key, answers in left.items() if answers and key in told})
    known = {key for doc in docs for key in _keys(doc)}
    if twice := [key for key in over if key in known]:
        raise FinbenchError(f"{file}: {twice[0][:60]!r} is answered more than once.", "Leave one answer to each row.")
    if over:
        say(f"{file.name}: {sum(over.values()):,} answers are to no test row here; left out")
    return [found[at] for at in range(len(docs))]


def _order(doc: Mapping[str, Any]) -> tuple[int, str]:
    """The order of the authors' file, where a row's own id is its number there."""
    own = _OWN.search(str(doc.get("id") or ""))
    return (int(own["own"]), "") if own and own["own"].isdigit() else (0, str(doc.get("id") or ""))


def _blank(file: Path, name: str) -> Scorecard:
    """The card of a file of answers, without its scores: nothing is known of who gave them but a name."""
    base = BaseModelId(alias=name, hub_id=None, revision=None, source="folder", fingerprint=UNKNOWN)
    return blank(
        datetime.now(UTC),
        {},
        origin="answers",
        subject=Subject(name=name, base=base, kind="model"),
        engine="answers of others",
        arguments={"answers_sha256": sha256_file(file)},
    )
