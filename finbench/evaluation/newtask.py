"""``finbench tasks new``: a user's rows become a folder that stock lm-eval runs, by the rules of the shipped tasks."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.cards import from_template
from finbench.core import catalog, owntasks, paths, templates
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError, unknown
from finbench.core.files import folder_atomic
from finbench.core.records import OwnData, Task
from finbench.core.settings import TaskSettings, called_with
from finbench.data import SPLITS, own
from finbench.evaluation import newfolder, newrows, newsplits
from finbench.evaluation.newrows import Reading
from finbench.scoring import baselines, golden_prompt, has_our_scorer, other_prompts, prompts, task_faults

_BASES = {  # kind -> the shipped templates that it follows
    "labels": ["_labels_generate"],
    "yesno": ["_labels_generate"],
    "number": ["_labels_generate", "_numbers_generate", "_within_generate"],
    "spans": ["_labels_generate", "_entities_generate"],
    "text": ["_labels_generate", "_texts_generate"],
    "choice": ["_general_choice"],
}
_QUESTIONS = ["_labels_generate", "_questions_generate"]  # of yesno with the metric question_f1
_MARK = "Made by `finbench tasks new`"
_TAKEN = {"label", "answer", "entities", "choices", "tolerance", "attribute", "id", "group"}  # keys of rows
_SMALL = 100  # test rows, below which two models can hardly be told apart
_LEAST = 8  # rows of a split


@dataclass
class NewTask:
    """A benchmark that was made: where, of how many rows, and what needs no model on it."""

    task: Task
    folder: Path
    read: int
    rows: dict[str, int]
    dropped: dict[str, int]
    labels: dict[str, int]  # in the test split
    baselines: dict[str, dict[str, float]]
    prompt: str
    notes: list[str] = field(default_factory=list)


@called_with(TaskSettings)
def new_task(wanted: TaskSettings) -> NewTask:
    """Make a benchmark of the rows in ``file``: a folder with one YAML, its rows in three splits, and a README.

    Stock lm-eval runs it (``lm_eval run --include_path FOLDER``), and so does every command that takes a task.
    Texts are divided by salted hash, so that the same text, or one that differs by a few words, numbers or months, is
    never in two splits; or as a column, or the names of files, say.

    Raises FinbenchError for rows that cannot be used, each named by file and line, for labels that the scorer could not
    tell apart, and for a folder that holds something else. Nothing is written then.
    """
    quiet()
    folder = wanted.to or Path(newrows.title(wanted.file))
    name = _name(folder)
    bases = _bases(wanted)
    prompt, extras = _prompt(wanted)
    found = newrows.read(wanted, extras)
    labels = _names(wanted, found)
    _tellable(labels, found)
    divided = newsplits.divide(found, name, by_author=bool(wanted.split) or found.by_names)
    counts = {split: len(divided[split]) for split in SPLITS}
    stated = bool(wanted.split) or wanted.all_test or found.by_names
    if counts["test"] < _LEAST or (counts["train"] < _LEAST and not stated):
        raise FinbenchError(
            f"{len(found.rows):,} rows give {counts['train']} to train and {counts['test']} to test; "
            f"{_LEAST} each are the least.",
            "Mark more rows as test in the column of --split."
            if wanted.split
            else "Move rows into it, or give all in one file, which is divided by itself."
            if found.by_names
            else "Label more rows: 300 tell large differences, 2,000 small ones."
            + ("" if stated else " Are all of them for the test? Then: --all-test"),
        )
    if not counts["train"]:
        found.notes.append("all rows are test: there is nothing to train on, and no worked examples (--shots)")
    if counts["test"] < _SMALL:
        # half the width of a 95 % interval of the difference of two models that disagree on one row in four
        points = 100 * 1.96 * math.sqrt(0.25 / counts["test"])
        said = f"{counts['test']} test rows are few: differences below about {points:.0f} points will not show"
        whole = "; --all-test makes all rows the test"
        found.notes.append(said + (whole if counts["train"] and not stated else ""))
    if name != newrows.title(folder):
        found.notes.append(f"finbench has a task of that name: this one is called {name}")
    with folder_atomic(folder) as staging:
        how = newsplits.described(wanted, found)
        newfolder.write(staging, name, wanted, bases, prompt, extras, labels, divided, how, _source(wanted.file))
    try:
        [task] = catalog.include_tasks(folder / f"{name}.yaml")
        lm_task = prompts.load([task], None)[name]
        if faults := list(task_faults(task)):
            raise FinbenchError(f"The benchmark does not work: {'; '.join(faults)}.", "Change --prompt or --kind.")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    docs = prompts.rows(lm_task, "test")
    tally = Counter(str(doc["label"]) for doc in docs if "label" in doc)
    made = NewTask(
        task, folder, found.read, counts, dict(found.dropped), dict(tally.most_common()),
        _without_a_model(lm_task, docs), golden_prompt(task), found.notes,
    )  # fmt: skip
    (folder / "README.md").write_text(_readme(made, wanted), encoding="utf-8")
    [made.task] = catalog.include_tasks(folder / f"{name}.yaml")  # under the licence that the README states
    return made


def _source(file: Path) -> str | None:
    """The SHA-256 by which an adapter records that it learnt from these very rows; None for files it cannot learn."""
    try:
        return own.locate(OwnData(source=str(file))).sha256
    except FinbenchError:
        return None


def _name(folder: Path) -> str:
    """The name of the task: the folder's, with "own_" before one that finbench's own tasks have."""
    if set(",:") & set(str(folder)):
        said = f"{str(folder)!r} could not be named by --tasks, where a comma parts tasks and a colon folders."
        raise FinbenchError(said, "Choose a folder without them: --to my_task")
    name = newrows.title(folder)
    if not name:
        raise FinbenchError(
            f"A benchmark's name has a-z and 0-9, of which {folder.name!r} has none.", "Name its folder: --to my_task"
        )
    if {name, catalog.PREFIX + name} & {*catalog.shipped_tasks(), *catalog.groups()}:
        name = f"own_{name}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        readme = folder / "README.md"
        if not (readme.is_file() and _MARK in readme.read_text(encoding="utf-8", errors="replace")):
            raise FinbenchError(f"{folder} exists and was not made by this command.", "Choose a new folder: --to DIR")
        raise FinbenchError(
            f"{folder} is there already, and scorecards may name it.",
            f"Choose another --to, or remove it: rm -r {folder}",
        )
    return name


def _bases(wanted: TaskSettings) -> list[str]:
    """The templates of the kind; FinbenchError for a metric that they do not have, or options of another kind."""
    chosen = _BASES[wanted.kind]
    if wanted.kind == "yesno" and wanted.metric == "question_f1":
        chosen = _QUESTIONS
    known = [name for name in _metrics(chosen) if not name.endswith("_lenient") and name != "parse_rate"]
    if wanted.metric and wanted.metric not in known:
        raise unknown(f"metric of kind {wanted.kind}", wanted.metric, known, "finbench tasks new --help")
    wrong = [
        (bool(wanted.split) and wanted.all_test, "--split and --all-test: name one of the two"),
        (wanted.kind == "choice" and not wanted.choices, "choice needs --choices: a,b,c,d or one column with lists"),
        (wanted.kind != "choice" and wanted.choices, "--choices is for --kind choice"),
        (wanted.kind != "number" and wanted.tolerance != "0", "--tolerance is for --kind number"),
        (wanted.kind in ("labels", "choice", "spans") and wanted.question, "--question is for yesno, number and text"),
        (wanted.kind not in ("labels", "yesno", "spans") and wanted.labels, "--labels is for labels, yesno and spans"),
        (not re.fullmatch(r"\d+(\.\d+)?%?", wanted.tolerance), f"--tolerance {wanted.tolerance!r} is no number"),
        (wanted.text == wanted.label, "--text and --label name one column"),
    ]
    if faults := [said for bad, said in wrong if bad]:
        raise FinbenchError("; ".join(faults) + ".", "See every option: finbench tasks new --help")
    return chosen


def _metrics(templates_: Sequence[str]) -> list[str]:
    merged: dict[str, Any] = {}
    for template in templates_:
        merged |= catalog.merged(paths.shipped("tasks") / template)
    return owntasks.metric_names(merged)


# ---------------------------------------------------------------- prompt and labels


def _prompt(wanted: TaskSettings) -> tuple[str, list[str]]:
    """(template, the further columns that it shows)."""
    from jinja2 import Environment, TemplateError, meta

    stated = wanted.prompt.replace("\\n", "\n") if wanted.prompt else None  # a shell leaves the two signs as they are
    if stated is None or "{{" not in stated:
        ask = {
            "labels": "Text: {{text}}",
            "yesno": "Text: {{text}}",
            "spans": "Text: {{text}}",
            "choice": "Question: {{text}}",
        }
        shown = ask.get(wanted.kind, "{{text}}") + ("\n\nQuestion: {{question}}" if wanted.question else "")
        stated = f"{stated if stated is not None else '{instruction}'}\n\n{shown}\nAnswer:"
    stated = re.sub(r"\{\{\s*" + re.escape(wanted.text) + r"\s*\}\}", "{{text}}", stated)
    if wanted.question:
        stated = re.sub(r"\{\{\s*" + re.escape(wanted.question) + r"\s*\}\}", "{{question}}", stated)
    if odd := templates.beyond(stated):
        raise FinbenchError(f"--prompt has {odd}, which is more than a form to fill.", "Write columns as {{column}}.")
    try:
        names = meta.find_undeclared_variables(Environment().parse(stated))
    except TemplateError as fault:
        raise FinbenchError(f"--prompt is no template ({fault}).", "Write columns as {{column}}.") from fault
    if "text" not in names:
        raise FinbenchError(
            "--prompt does not show the text.", "Put {{text}} where it stands, or write no {{...}} at all."
        )
    if wanted.label in names:
        raise FinbenchError(f"--prompt shows {wanted.label}, which is the answer.", "Take it out.")
    if taken := names & _TAKEN - ({"choices"} if wanted.kind == "choice" else set()):
        raise FinbenchError(
            f"--prompt shows {sorted(taken)[0]}, a name that the task itself uses.", "Rename that column in the file."
        )
    if stated != stated.rstrip():
        stated = stated.rstrip()  # the answer begins with the space
    return stated, sorted(names - {"text", "question", "choices"})


def _names(wanted: TaskSettings, found: Reading) -> list[str]:
    """The labels of the task, in the order of ``--labels``, else by name."""
    if wanted.kind == "yesno":
        return ["Yes", "No"]
    if wanted.kind == "labels":
        used = {str(row.fields["label"]) for row in found.rows}
    elif wanted.kind == "spans":
        used = {one["type"] for row in found.rows for one in row.fields["entities"]}
    else:
        return []
    stated = list(
        dict.fromkeys(part.partition("=")[2].strip() or part.strip() for part in (wanted.labels or "").split(","))
    )
    stated = [name for name in stated if name]
    if absent := [name for name in stated if name not in used]:
        found.notes.append(f"no row has the label {', '.join(absent)}")
    names = stated or sorted(used)
    if len(names) < 2 and wanted.kind == "labels":
        raise FinbenchError(f"Every row has the label {names[0]!r}: there is nothing to tell.", "Name another --label.")
    return names


def _tellable(labels: Sequence[str], found: Reading) -> None:
    """Each label, as an answer, must be read as itself; a label inside another is said."""
    parse = paths.helper("labels").parse
    lost = [
        label
        for label in labels
        if any(
            parse(text, labels) != label for text in (label, f" {label}.", label.upper() if len(label) > 1 else label)
        )
    ]
    if lost:
        row = next((row for row in found.rows if row.fields.get("label") == lost[0]), None)
        where = f" ({row.place})" if row else ""
        raise FinbenchError(
            f"The label {lost[0]!r}{where} cannot be read from an answer: another begins alike, or it is no word.",
            "Give it another name: --labels 'A+=strong,A-=weak'",
        )
    for label in labels:
        inside = [
            other for other in labels if other != label and re.search(rf"\b{re.escape(label)}\b", other, re.IGNORECASE)
        ]
        if inside:
            found.notes.append(
                f"the label {label!r} is a part of {inside[0]!r}: an answer counts by the longest that fits"
            )


# ---------------------------------------------------------------- what is known of it


def described(task: Task) -> dict[str, Any]:
    """What is known of a task, its prompt, and what needs no model on the main metric: of those of others, measured."""
    shown = {**task.model_dump(), "golden_prompt": golden_prompt(task), "prompts": other_prompts(task)}
    if task.own:
        lm_task = prompts.load([task], None)[task.name]
        measured = _without_a_model(lm_task, prompts.rows(lm_task, "test"))
        shown["baselines"] = {who: round(values[task.main_metric], 3) for who, values in measured.items()}
    return shown


def _without_a_model(lm_task: Any, docs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What random and majority labels get; where there are none, the most frequent answer of the test."""
    if labels := baselines(lm_task, docs):
        return labels
    if not has_our_scorer(lm_task) or lm_task.OUTPUT_TYPE != "generate_until":
        return {}
    golds = Counter(str(lm_task.doc_to_target(doc)) for doc in docs)
    answer, _ = golds.most_common(1)[0]
    each = [lm_task.process_results(doc, [answer]) for doc in docs]
    how = lm_task.aggregation()
    shown = [name for name in each[0] if not name.endswith("_lenient") and name != "parse_rate"]
    return {"majority": {name: float(how[name]([values[name] for values in each])) for name in shown}}


def _readme(made: NewTask, wanted: TaskSettings) -> str:
    licence = wanted.licence or "unknown"
    if not re.fullmatch(r"[A-Za-z0-9.-]+", licence):  # no identifier of the Hub
        licence = f"other\nlicense_name: {json.dumps(licence)}"
    about = {"made": made, "task": made.task, "mark": _MARK, "source": [wanted.file.name], "licence": licence}
    return from_template("newtask.md.j2", escape=False, **about)
