"""Rows of a data set for lm-eval's ``custom_dataset``: found, checked line by line, handed over as ``datasets``.

Looked for, in this order: shipped beside this folder (``mini/<set>.<split>.jsonl``); the data directory
(``<data>/<set>/<split>.jsonl``: what was asked for by ``--metadata``, else ``$FINBENCH_DATA``, else the user's
cache), as written by ``finbench data import``.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import datasets

SPLITS = ("train", "validation", "test")


def data_dir(chosen: str | None = None) -> pathlib.Path:
    """The data directory: ``chosen``, else ``$FINBENCH_DATA``, else ``finbench/data`` in the user's cache."""
    if chosen or os.environ.get("FINBENCH_DATA"):
        return pathlib.Path(chosen or os.environ["FINBENCH_DATA"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
    return pathlib.Path(cache) / "finbench" / "data"


def find(name: str, shipped: bool, chosen: str | None = None) -> dict[str, pathlib.Path]:
    """``{split: file}`` of the set ``name``; the files that exist."""
    if shipped:
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
    **_: Any,
) -> dict[str, datasets.Dataset]:
    """lm-eval ``custom_dataset``: called with the task's metadata; returns ``{split: datasets.Dataset}``."""
    files = find(finbench_set, finbench_data == "shipped", finbench_data_dir)
    if "test" not in files:
        place = data_dir(finbench_data_dir) / finbench_set
        raise FileNotFoundError(f"The data set {finbench_set!r} is not in {place}. Get it with: {finbench_data}")
    tables = {}
    for split, file in files.items():
        rows = read(file, finbench_labels)
        try:
            tables[split] = datasets.Dataset.from_list(rows)
        except (ValueError, TypeError, OverflowError) as fault:  # pyarrow's own are of these kinds
            raise ValueError(f"{file}: its rows are not of one shape ({fault})") from fault
    return tables
