"""Rows of a data set for lm-eval's ``custom_dataset``: found, checked line by line, handed over as ``datasets``.

Looked for, in this order: shipped beside this folder (``mini/<set>.<split>.jsonl``, or of a benchmark that
``finbench tasks new`` made ``rows/<split>.jsonl``); the data directory
(``<data>/<set>/<split>.jsonl``: what was asked for by ``--metadata``, else ``$FINBENCH_DATA``, else the user's
cache), as written by ``finbench data import``; the Hub, read and divided in memory, at the commit of
``datasets.lock`` where it names one.
"""

import importlib.util
import json
import os
import pathlib
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import datasets

SPLITS = ("train", "validation", "test")


def data_dir(chosen: str | None = None) -> pathlib.Path:
    """The data directory: ``chosen``, else ``$FINBENCH_DATA``, else ``finbench/data`` in the user's cache."""
    if chosen or os.environ.get("FINBENCH_DATA"):
        return pathlib.Path(chosen or os.environ["FINBENCH_DATA"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
    return pathlib.Path(cache) / "finbench" / "data"


def find(name: str, shipped: bool, chosen: str | None = None, beside: bool = False) -> dict[str, pathlib.Path]:
    """``{split: file}`` of the set ``name``; the files that exist. ``beside``: in ``rows/`` beside this folder."""
    if beside:
        files = {split: pathlib.Path(__file__).parent.parent / "rows" / f"{split}.jsonl" for split in SPLITS}
    elif shipped:
        home = pathlib.Path(__file__).parent.parent / "mini"
        files = {split: home / f"{name}.{split}.jsonl" for split in SPLITS}
    else:
        files = {split: data_dir(chosen) / name / f"{split}.jsonl" for split in SPLITS}
    return {split: file for split, file in files.items() if file.is_file()}


def read(file: pathlib.Path, labels: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a canonical JSONL file. A fault raises ValueError with ``file:line``."""
    rows: list[dict[str, Any]] = []
    with open(file, encoding="utf-8") as handle:
        try:
            for number, line in enumerate(handle, 1):
                rows.append(_row(line, labels, f"{file}:{number}"))
        except UnicodeDecodeError as fault:
            raise ValueError(f"{file}:{len(rows) + 1}: not UTF-8 ({fault.reason})") from fault
    if not rows:
        raise ValueError(f"{file}: no rows")
    return rows


def _row(line: str, labels: Sequence[str] | None, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"{place}: not a JSON object of Unicode text ({fault})") from fault
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"].strip():
        raise ValueError(f'{place}: a row needs a "text" that is not empty')
    return _labelled(row, labels, place)


def _labelled(row: dict[str, Any], labels: Sequence[str] | None, place: str) -> dict[str, Any]:
    if labels and "entities" not in row and row.get("label") not in labels:
        raise ValueError(f"{place}: label {row.get('label')!r} is not one of {', '.join(labels)}")
    if labels:
        row["choices"] = list(labels)
    return row


def load(
    finbench_set: str = "",
    finbench_data: str = "",
    finbench_labels: Sequence[str] | None = None,
    finbench_data_dir: str | None = None,
    finbench_label: str | None = None,
    finbench_agreement: int | str | None = None,
    **_: Any,
) -> dict[str, datasets.Dataset]:
    """lm-eval ``custom_dataset``: called with the task's metadata; returns ``{split: datasets.Dataset}``.

    ``finbench_label`` names the field whose label is asked for, where rows have several (``level3``).
    ``finbench_agreement`` keeps the rows on which at least so many per cent of the annotators agreed.
    """
    beside = finbench_data == "in its folder"
    files = find(finbench_set, finbench_data == "shipped", finbench_data_dir, beside)
    labels = None if finbench_label else finbench_labels
    if "test" in files:
        found = {split: read(file, labels) for split, file in files.items()}
    elif beside:
        raise FileNotFoundError(f"{pathlib.Path(__file__).parent.parent / 'rows' / 'test.jsonl'} is missing")
    else:
        missing = f"The data set {finbench_set!r} is not in {data_dir(finbench_data_dir) / finbench_set}"
        found = _from_hub(finbench_set, labels, missing, finbench_data)
    tables = {}
    for split, rows in found.items():
        place = str(files.get(split, f"{finbench_set}, {split}"))
        chosen = [row for row in rows if _agreed(row, finbench_agreement)]
        if not chosen:
            raise ValueError(f"{place}: no row has agreement {finbench_agreement} or above")
        if finbench_label:
            for row in chosen:
                row["label"] = row.get(finbench_label)
                _labelled(row, finbench_labels, place)
        try:
            tables[split] = datasets.Dataset.from_list(chosen)
        except (ValueError, TypeError, OverflowError) as fault:  # pyarrow's own are of these kinds
            raise ValueError(f"{place}: its rows are not of one shape ({fault})") from fault
    # a set that is a test alone has no worked examples: lm-eval must not draw them from the test
    return {split: tables.get(split, tables["test"].select([])) for split in SPLITS}


def _agreed(row: dict[str, Any], least: int | str | None) -> bool:
    """Whether a row has at least the agreement asked for, in per cent."""
    if least is None:
        return True
    if str(least) not in ("50", "66", "75", "100"):
        raise ValueError(f"agreement is 50, 66, 75 or 100 (per cent of the annotators), found {least!r}")
    return int(row.get("agreement", 100)) >= int(least)  # sets without levels are asked whole


def _from_hub(name: str, labels: Sequence[str] | None, missing: str, command: str) -> dict[str, list[dict[str, Any]]]:
    """The set's rows from the Hub, divided as ``finbench data import`` divides them."""
    sets = _sets()
    chosen = sets.SETS.get(name)
    if chosen is None or chosen.hub is None:
        raise FileNotFoundError(f"{missing}. Get it with: {command}")
    lock = pathlib.Path(__file__).parent.parent / "datasets.lock"
    pins = json.loads(lock.read_text(encoding="utf-8")) if lock.is_file() else {}
    pin = pins.get(name, {})
    revision = pin.get("revision") if pin.get("path") == chosen.hub.path else None
    try:
        with sets.Divided(
            name, _units(sets, chosen, revision), chosen.verbatim, offer=chosen.offer, template=chosen.template
        ) as divided:
            found = {split: list(divided.rows(split)) for split in SPLITS if divided.count(split)}
    except (OSError, sqlite3.Error, datasets.exceptions.DatasetsError) as fault:  # offline, gated, gone, disk full
        raise FileNotFoundError(
            f"{missing} nor to be had from hub:{chosen.hub.path} ({fault}). Get it with: {command}"
        ) from fault
    for split, rows in found.items():
        for number, row in enumerate(rows, 1):
            _labelled(row, labels, f"hub:{chosen.hub.path}, {split} row {number}")
    return found


def _units(sets: Any, chosen: Any, revision: str | None) -> Iterator[Any]:
    for item in chosen.units(sets.hub_records(chosen.hub, revision)):
        if isinstance(item, str):
            raise ValueError(item)
        if not isinstance(item, sets.Drop):
            yield item


def _sets() -> Any:
    """The package ``sets`` beside this file. lm-eval loads helpers by path, so imports by name do not reach it."""
    name = "finbench_sets"
    if name not in sys.modules:
        home = pathlib.Path(__file__).parent / "sets"
        spec = importlib.util.spec_from_file_location(
            name, home / "__init__.py", submodule_search_locations=[str(home)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
