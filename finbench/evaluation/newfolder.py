"""The files of a new benchmark: its YAML, the templates and helpers that it follows, its rows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from finbench.core import catalog, owntasks, paths
from finbench.core.files import stable_json
from finbench.core.settings import TaskSettings
from finbench.core.taskfiles import loads
from finbench.data import SPLITS


def write(
    folder: Path, name: str, wanted: TaskSettings, bases: Sequence[str], prompt: str, extras: Sequence[str],
    labels: Sequence[str], divided: Mapping[str, Sequence[dict[str, Any]]], how: str, source: str | None,
) -> None:  # fmt: skip
    """Write the whole benchmark but its README into the empty ``folder``: rows by split as ``divided`` has them.

    ``how`` they were divided, in words.
    """
    config: dict[str, Any] = {}
    modules: set[str] = set()
    for template in bases:
        part = catalog.merged(paths.shipped("tasks") / template)
        modules |= {one.module for one in catalog.functions(part)}  # lm-eval loads those that are replaced too
        config |= part
        shutil.copyfile(paths.shipped("tasks") / template, folder / template)
    (folder / "lib").mkdir()
    helpers = [paths.shipped("tasks") / module for module in sorted(modules)]
    for helper in helpers:  # grows: one may load others
        shutil.copyfile(helper, folder / "lib" / helper.name)
        helpers += [one for one in loads(helper) if one not in helpers]
    (folder / "rows").mkdir()
    for split in SPLITS:
        if divided[split]:
            lines = "".join(stable_json(row) + "\n" for row in divided[split])
            (folder / "rows" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    metric = wanted.metric or next(name for name in owntasks.metric_names(config))
    stated: dict[str, Any] = {"task": name, "include": bases[0] if len(bases) == 1 else list(bases)}
    if not divided["validation"]:
        stated["validation_split"] = None
    if not divided["train"]:
        stated |= {"training_split": None, "fewshot_split": None}
    longest = max((len(label) for label in labels), default=0)
    if wanted.kind in ("labels", "yesno") and longest > 24:
        stated["generation_kwargs"] = {"until": ["\n"], "max_gen_toks": longest // 2 + 8, "do_sample": False}
    stated["doc_to_text"] = prompt.replace("{instruction}", _instruction(wanted.kind, labels)).lstrip()
    stated["metadata"] = {
        "version": 1,
        "finbench_set": name,
        **({"finbench_labels": list(labels)} if labels else {}),
        "finbench_main_metric": metric,
        "finbench_split": how,
        "finbench_paper": "own rows",
        "finbench_prompt_style": "own",
        "finbench_data": "in its folder",
        **({"finbench_source": source} if source else {}),
        "finbench_examples": _examples(wanted, extras, labels),
    }
    text = yaml.dump(stated, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)
    (folder / f"{name}.yaml").write_text(
        f"# Made by finbench tasks new. Change the prompt here.\n{text}", encoding="utf-8"
    )


class _Dumper(yaml.SafeDumper):
    """Text of several lines stands on one, in quotes, as in the shipped tasks; lists of words on one line."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flow = not any(isinstance(one, dict | list) for one in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)


def _examples(wanted: TaskSettings, extras: Sequence[str], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Rows that nobody wrote, one of each label at least: texts that may not be shown are not shown with the prompt."""
    made = []
    count = len(labels) if wanted.kind in ("labels", "spans") else 0  # macro F1 is over all labels: each has a row
    words = ["first", "second", "third", *(f"{number}th" for number in range(4, count + 1))]
    for number, word in enumerate(words):
        row: dict[str, Any] = {"text": f"The {word} example text.", **{name: f"{word} {name}" for name in extras}}
        if wanted.question:
            row["question"] = f"What does the {word} text say?"
        if wanted.kind in ("labels", "yesno"):
            same = wanted.metric == "question_f1"  # of which no question may have No alone
            row["label"] = labels[0 if same else number % len(labels)]
        elif wanted.kind == "spans":
            row["entities"] = [{"text": word, "type": labels[number % len(labels)], "start": 4}] if labels else []
        elif wanted.kind == "choice":
            row |= {"choices": ["one", "two", "three"], "label": number}
        elif wanted.kind == "number":
            row |= {"answer": str(number + 1), "tolerance": wanted.tolerance}
        else:
            row["answer"] = f"the {word} answer"
        if wanted.kind == "yesno":
            row["attribute"] = row.get("question", "it")
        made.append(row)
    return made


def _instruction(kind: str, labels: Sequence[str]) -> str:
    listed = f"{', '.join(labels[:-1])} or {labels[-1]}" if len(labels) > 1 else "".join(labels)
    return {
        "labels": f"Classify the text. Answer with one of: {listed}.",
        "yesno": "Answer the question about the text with Yes or No.",
        "number": "Answer with one number only.",
        "spans": "List what the text names as a JSON list of objects with the keys text and type "
        f"({listed}), in order. Write [] if there is nothing.",
        "text": "Answer in one line.",
        "choice": "",
    }[kind]
