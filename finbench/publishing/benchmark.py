"""A benchmark on the Hub: the data set repository that ``finbench push --benchmark`` makes, and what belongs to one.

Rows go with it where their licence allows it. Of the others it holds the hash of every row and a script that makes them
from the authors' files and compares. ``benchmark.json`` says which task, by its digest, asks which rows: by that a
score belongs to it or does not, whatever the repository is called.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from finbench import hub
from finbench.cards import from_template
from finbench.core import catalog, paths
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import digest, sha256_file
from finbench.core.records import Task
from finbench.core.settings import PushSettings
from finbench.core.version import __version__
from finbench.data import SPLITS, describe_set
from finbench.hub import File
from finbench.publishing.adapter import Bundle
from finbench.publishing.home import BenchmarkFacts, BenchmarkTask, HeldSet
from finbench.publishing.licences import hub_identifier
from finbench.scoring import prompts

_SCRIPT = "import_rows.py"
_OWNED = ("data/*/*", "rows/*/*")  # of sets that are not in it any more


def gather(wanted: PushSettings, repo: str) -> Bundle:
    """The files of a benchmark. FinbenchError for a name that is taken, and for sets that are not here or not whole."""
    tasks, left = _chosen(wanted)
    before = _before(repo, wanted)
    say(f"Reading the rows of {len(tasks)} task{'s' if len(tasks) > 1 else ''}.")
    loaded = prompts.load(tasks, wanted.data_dir)
    files: list[File] = []
    sets: dict[str, HeldSet] = {}
    asked: dict[str, BenchmarkTask] = {}
    for task in tasks:
        lm_task = loaded[task.name]
        if task.set not in sets:
            sets[task.set], made = _held(task, lm_task, wanted.data_dir)
            files += made
        docs = prompts.rows(lm_task, "test")
        asked[task.name] = BenchmarkTask(
            version=task.version,
            digest=task.digest,
            form=task.form,
            metric=task.main_metric,
            set=task.set,
            rows=len(docs),
            data=prompts.data_id(task, lm_task, "test", docs).digest,
        )
    content = {"tasks": {k: v.model_dump() for k, v in asked.items()}, "sets": {k: v.sha256 for k, v in sets.items()}}
    facts = BenchmarkFacts(repository=repo, version=__version__, digest=digest(content), tasks=asked, sets=sets)
    readme = _readme(facts)
    about = f"Tasks on financial texts, scored strictly by finbench {facts.version}; values in per cent."
    stated = eval_yaml(repo, about, [(name, one.set, "test") for name, one in asked.items()])
    files += [File(hub.FACTS, facts.to_json().encode()), stated]
    files.append(File("README.md", readme.encode()))
    if any(not held.shipped for held in sets.values()):
        files.append(File(_SCRIPT, from_template("import_rows.py.j2", escape=False, facts=facts).encode()))
    notes = left + _changed(before, facts)
    message = f"finbench: benchmark {facts.version} {facts.digest[:12]}"
    return Bundle(
        files,
        message,
        readme,
        kind="dataset",
        owned=(*_OWNED, _SCRIPT),
        notes=notes,
        seen=before.sha if before else None,
    )


def lying(repo: str, wanted: PushSettings) -> hub.BenchmarkRepo | None:
    """The data set that is there; None of none, and where a dry run cannot ask. FinbenchError for one that moved."""
    if not wanted.dry_run:
        hub.check_token()
    try:
        found = hub.find_benchmark(repo, writing=not wanted.dry_run)
    except hub.Unreachable:
        if not wanted.dry_run:
            raise
        return None
    if found and found.repo != repo:
        raise FinbenchError(
            f"hub:{repo} is called hub:{found.repo} now; nothing was sent.", f"Write hub:{found.repo} instead."
        )
    return found


def _before(repo: str, wanted: PushSettings) -> hub.BenchmarkRepo | None:
    """What lies in the repository; FinbenchError where that is something else than this benchmark."""
    found = lying(repo, wanted)
    stated = str(((found and found.facts) or {}).get("repository"))
    if found and found.names - {".gitattributes"} and not hub.is_called(found, stated):
        raise hub.taken(found)
    return found


def _chosen(wanted: PushSettings) -> tuple[list[Task], list[str]]:
    """The tasks, and a sentence on each set that was left out since it is not here, or only in part."""
    named = [name.strip() for name in wanted.tasks.split(",") if name.strip()]
    tasks = catalog.expand(named or ["finbench", "finbench_mc"])  # those that are ranked
    if own := [task.name for task in tasks if task.own]:
        raise FinbenchError(
            f"{own[0]} is no task of finbench.",
            "A folder of your own is pushed as it is: finbench push DIR hub:org/name",
        )
    faults = {
        name: fault for name in dict.fromkeys(task.set for task in tasks) if (fault := _unfit(name, wanted.data_dir))
    }
    if faults and named:
        name, fault = next(iter(faults.items()))
        raise FinbenchError(f"{name} is {fault}.", f"{catalog.of_set(name).data}; or leave it out of --tasks.")
    kinds = Counter(faults.values())
    left = [f"Left out, {kind}: {', '.join(name for name in faults if faults[name] == kind)}." for kind in kinds]
    kept = [task for task in tasks if task.set not in faults]
    if not kept:
        raise FinbenchError(
            " ".join(["No ranked task has its whole set here.", *left]), "Import sets: finbench data list"
        )
    return kept, left


def _unfit(name: str, data_dir: Path | None) -> str:
    """Why a set cannot be part of a benchmark; empty if it can."""
    if catalog.of_set(name).shipped:
        return ""
    about = describe_set(name, data_dir)
    if about is None:
        return "not in the data directory"
    if about.get("share") is not None:
        return f"not whole: {100 * float(about['share']):.1f} % of the test"
    return "" if about.get("complete", True) else "not whole: some of the authors' rows are not here"


def _held(task: Task, lm_task: Any, data_dir: Path | None) -> tuple[HeldSet, list[File]]:
    """A set as the benchmark holds it: files of rows, or of their hashes."""
    contents, files = {}, []
    if task.shipped:
        rows = {split: prompts.rows(lm_task, split) for split in SPLITS}
        contents = {f"{split}.jsonl": _lines(found) for split, found in rows.items() if found}
    else:
        folder, about = paths.data_dir(data_dir) / task.set, describe_set(task.set, data_dir) or {}
        for name, sha in dict(about.get("sha256", {})).items():
            if not (folder / name).is_file() or sha256_file(folder / name) != sha:
                raise FinbenchError(
                    f"{folder / name} is not what dataset.json states.", f"Import it again: {task.data}"
                )
            contents[name] = (folder / name).read_bytes()
        files = [File(f"data/{task.set}/dataset.json", folder / "dataset.json")]
    shipped = not task.restricted and hub_identifier(task.licence) is not None
    place, made = ("data", contents) if shipped else ("rows", {name: _hashes(data) for name, data in contents.items()})
    held = HeldSet(
        licence=task.licence,
        shipped=shipped,
        rows={Path(name).stem: data.count(b"\n") for name, data in contents.items()},
        sha256={name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        source=task.data,
    )
    return held, [File(f"{place}/{task.set}/{name}", data) for name, data in made.items()] + (files if shipped else [])


def _lines(rows: list[dict[str, Any]]) -> bytes:
    lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    return "".join(lines).encode()


def _hashes(data: bytes) -> bytes:
    """Of each row its number and the SHA-256 of its line, which tell no text."""
    lines = data.splitlines()
    return _lines([{"row": row, "sha256": hashlib.sha256(line).hexdigest()} for row, line in enumerate(lines)])


def eval_yaml(repo: str, about: str, tasks: list[tuple[str, str, str]]) -> File:
    """``eval.yaml`` of a benchmark with these tasks: (id, configuration of the data set, split)."""
    stated = {
        "name": repo.partition("/")[2],
        "description": about,
        "evaluation_framework": hub.FRAMEWORK,
        "tasks": [{"id": name, "config": config, "split": split} for name, config, split in tasks],
    }
    text = yaml.safe_dump(stated, sort_keys=False, allow_unicode=True, width=1000)
    if faults := hub.benchmark_faults(text):
        raise FinbenchError(f"{hub.EVAL_YAML}: {'; '.join(faults)}.", "This is a fault of finbench: report it.")
    return File(hub.EVAL_YAML, text.encode())


def _readme(facts: BenchmarkFacts) -> str:
    licences = sorted({str(hub_identifier(held.licence)) for held in facts.sets.values() if held.shipped})
    head: dict[str, Any] = {"license": licences[0] if len(licences) == 1 else licences or "other"}
    head |= {"language": ["en"], "tags": ["finbench", "finance", "benchmark"], "version": facts.version}
    head["configs"] = [
        {
            "config_name": name,
            "data_files": [
                {"split": split, "path": f"{'data' if held.shipped else 'rows'}/{name}/{split}.jsonl"}
                for split in held.rows
            ],
        }
        for name, held in facts.sets.items()
    ]
    text = from_template(
        "benchmark.md.j2", escape=False, facts=facts, script=_SCRIPT, page=hub.page(facts.repository, "dataset")
    )
    return f"---\n{yaml.safe_dump(head, sort_keys=False, width=1000)}---\n\n{text.strip()}\n"


def _changed(before: hub.BenchmarkRepo | None, facts: BenchmarkFacts) -> list[str]:
    """What a new version does to results of the one before."""
    if before is None or before.facts is None:
        return []
    old = before.facts.get("tasks")
    new = {name: asked.model_dump() for name, asked in facts.tasks.items()}
    old = old if isinstance(old, dict) else {}
    other = [name.removeprefix(catalog.PREFIX) for name in old if old[name] != new.get(name)]
    if not other:
        return []
    return [f"Results of the version before do not count any more on: {', '.join(other)}."]
