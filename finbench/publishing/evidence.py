"""Scorecards, data and tasks as they lie on the Hub."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from finbench.cards import cardfiles, from_template
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file
from finbench.core.records import Scorecard
from finbench.hub import File
from finbench.publishing.adapter import Bundle, check, evidence_files
from finbench.publishing.licences import hub_identifier

RESULTS = "results"  # results/<subject>/<revision>/<task>.json, as MTEB keeps them


def cards_bundle(places: Sequence[Path], model: bool) -> Bundle:
    """Scorecards for a data set of results: a file for each subject, revision and task, its samples beside it.

    With ``model``: for the repository of the model itself, which need not be ours (a pull request then): the cards
    of one subject as they are, and entries of ``.eval_results``.
    """
    paths = cardfiles.expand(places)
    cards = [cardfiles.read(path) for path in paths]
    for path, card in zip(paths, cards, strict=True):
        if card.engine == "dummy":
            raise FinbenchError(f"{path} is of the dummy engine, which is no model.", "Leave it out.")
        check(path)
    return _for_model(paths, cards) if model else _for_results(paths, cards)


def _for_model(paths: Sequence[Path], cards: Sequence[Scorecard]) -> Bundle:
    identities = {card.subject.adapter or card.subject.base.fingerprint for card in cards}
    if len(identities) > 1:
        raise FinbenchError(
            f"These cards are of {len(identities)} subjects; a model's repository is of one.",
            "Name the cards of one subject, or leave --model out.",
        )
    files, tasks = evidence_files(paths, cards)
    shown = ", ".join(name.removeprefix(catalog.PREFIX) for name in tasks)
    return Bundle(files, f"finbench: scores of {cards[0].subject.name} on {shown}", "")


def _for_results(paths: Sequence[Path], cards: Sequence[Scorecard]) -> Bundle:
    files: dict[str, File] = {}
    for path, card in zip(paths, cards, strict=True):
        rows = cardfiles.read_samples(path)
        for score in card.scores:
            own = [row for row in rows if row["task"] == score.task]
            place = _place(card, score.task)
            for name, content in _alone(card, score.task, own).items():
                files[f"{place}{name}"] = File(f"{place}{name}", content)
    names = sorted({card.subject.name for card in cards})
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return Bundle(list(files.values()), f"finbench: scores of {shown}", "", kind="dataset")


def _alone(card: Scorecard, task: str, rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """A card of one task, with its own samples and seal: {ending: bytes}."""
    only = card.model_copy(update={"scores": [score for score in card.scores if score.task == task]})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card.json"
        cardfiles.write(path, only, rows)
        return {".json": path.read_bytes(), ".samples.jsonl.zst": cardfiles.samples_path(path).read_bytes()}


def _place(card: Scorecard, task: str) -> str:
    """Subject (its repository, else its name), revision, and task with the settings that are not the usual ones."""
    subject = card.subject
    if subject.adapter:
        source, _, revision = (subject.adapter_source or "").removeprefix("hub:").partition("@")
    else:
        source, revision = subject.base.hub_id or "", subject.base.revision or ""
    parts = [task, f"{subject.bits}bit" if subject.bits != 16 else "", "chat" if subject.chat else ""]
    parts += [f"{card.shots}shot" if card.shots else "", f"first{card.limit}" if card.limit else ""]
    parts.append(f"on-{subject.base.fingerprint[:8]}" if subject.adapter else "")
    name = _slug(source.replace("/", "__") or subject.name)
    commit = _slug(revision or (subject.adapter or subject.base.fingerprint)[:40])
    return f"{RESULTS}/{name}/{commit}/{_slug('-'.join(part for part in parts if part))}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:120] or "unknown"


def data_bundle(folder: Path, repo: str) -> Bundle:
    """Canonical rows of a data set, where its licence lets them be passed on; FinbenchError where it does not."""
    try:
        stated = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        name, shas = str(stated["set"]), dict(stated["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise FinbenchError(f"{folder}/dataset.json is torn ({fault}).", "Import the set again.") from fault
    task = catalog.of_set(name)
    identifier = hub_identifier(task.licence)
    if task.restricted or identifier is None:
        raise FinbenchError(
            f"The licence of {name} ({task.licence}) does not let us publish its rows.",
            "Others import it from its authors: " + task.data,
        )
    for file, sha in shas.items():
        if not (folder / file).is_file() or sha256_file(folder / file) != sha:
            raise FinbenchError(f"{folder / file} is not what dataset.json states.", "Import the set again.")
    head: dict[str, Any] = {"license": identifier, "language": ["en"], "tags": ["finbench", "finance"]}
    splits = [{"split": Path(file).stem, "path": file} for file in sorted(shas)]
    head["configs"] = [{"config_name": "default", "data_files": splits}]
    body = from_template("dataset.md.j2", escape=False, repo=repo, set=name, about=stated, task=task)
    readme = f"---\n{yaml.safe_dump(head, sort_keys=False, width=1000)}---\n\n{body.strip()}\n"
    files = [File(file, folder / file) for file in ["dataset.json", *sorted(shas)]]
    files.append(File("README.md", readme.encode()))
    message = f"finbench: {name}, {sum(stated['rows'].values()):,} rows {str(stated['digest'])[:12]}"
    return Bundle(files, message, readme, kind="dataset")


def tasks_bundle(folder: Path, repo: str) -> Bundle:
    """The task folder as stock lm-eval takes it: ``lm_eval run --include_path``."""
    wanted = [p for p in sorted(folder.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    files = [File(path.relative_to(folder).as_posix(), path) for path in wanted if not path.name.startswith(".")]
    head = {"license": "apache-2.0", "language": ["en"], "tags": ["finbench", "finance", "lm-eval"]}
    body = from_template("tasks.md.j2", escape=False, repo=repo, tasks=list(catalog.tasks().values()))
    readme = f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n{body.strip()}\n"
    files = [file for file in files if file.path != "README.md"]
    files.append(File("README.md", readme.encode()))
    return Bundle(files, f"finbench: {len(catalog.tasks())} tasks", readme, kind="dataset")
