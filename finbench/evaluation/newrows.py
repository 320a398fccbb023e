"""A user's rows, read for a benchmark of their own: every row that cannot be used is named with its file and line."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.core import paths
from finbench.core.errors import FinbenchError, near_misses, shortened
from finbench.core.settings import TaskSettings
from finbench.data import own, readers, splits
from finbench.evaluation import newnames

MOST = 1_000_000  # rows
_PATTERN = "*.csv *.tsv *.jsonl *.ndjson *.json *.parquet *.xlsx"
_LONGEST = 200_000  # characters of a text; a book has more, and no model reads one as a question
_SHOWN = 8  # faults that are listed
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_POSITION, _LETTER = r"\d{1,3}", r"[A-Za-z][.)]?"  # of a choice
YES_NO = {"yes": "Yes", "no": "No", "y": "Yes", "n": "No", "true": "Yes", "false": "No", "1": "Yes", "0": "No"}


@dataclass
class NewRow:
    """A row as the task will have it: ``fields``, the split its author gave it, and where it was read."""

    fields: dict[str, Any]
    place: str
    split: str | None = None


@dataclass
class Reading:
    """What reading found. ``dropped``: why rows were left out, and how many."""

    rows: list[NewRow] = field(default_factory=list)
    read: int = 0
    faults: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    by_names: bool = False  # the names of files state the splits

    def fault(self, said: str, why: str = "cannot be used") -> None:
        """Note a row that cannot be used."""
        self.faults.append(said)
        self.dropped[why] += 1


def read(wanted: TaskSettings, extras: Sequence[str]) -> Reading:
    """The rows of all files; ``extras`` are further columns that the prompt shows.

    Raises FinbenchError, with all faults in one, where a row cannot be used, unless ``skip_bad``: a torn line, an empty
    text or answer, an unknown label, the same question with two answers. A column that is missing always stops it.
    """
    found = Reading()
    labels = _labels(wanted.labels)
    raw = list(_raw(wanted, extras, found))
    if not wanted.split and not wanted.all_test:
        found.by_names, notes = newnames.divided(raw)
        found.notes += notes
    if wanted.kind in ("labels", "yesno") and not labels:
        labels = _seen(raw, wanted)
    for record in raw:
        try:
            fields = _fields(record.row, wanted, extras, labels)
            split = record.detail if found.by_names else _split(record.row, wanted)
        except ValueError as fault:
            found.fault(f"{record.place}: {fault}")
            continue
        found.rows.append(NewRow(fields, record.place, split))
    if wanted.kind == "choice":
        _number_choices(found)
    _conflicts(found, wanted)
    if found.faults and not wanted.skip_bad:
        more = f"\n  ... and {len(found.faults) - _SHOWN:,} more" if len(found.faults) > _SHOWN else ""
        raise FinbenchError(
            f"{len(found.faults):,} of {found.read:,} rows cannot be used:\n  "
            + "\n  ".join(found.faults[:_SHOWN])
            + more,
            "Correct the file, or leave such rows out, counted: --skip-bad",
        )
    if not found.rows:
        raise FinbenchError(f"There is no row to use in {wanted.file}.", "Name a file with rows.")
    return found


def _raw(wanted: TaskSettings, extras: Sequence[str], found: Reading) -> Iterator[readers.RawRecord]:
    columns = [wanted.text, wanted.label, *extras]
    columns += [name for name in (wanted.question, wanted.split) if name]
    columns += [name.strip() for name in (wanted.choices or "").split(",") if name.strip()]
    for file in readers.expand([wanted.file], _PATTERN, "Name a CSV or JSONL file."):
        checked = False
        for record in _decoded(file, columns, found):
            found.read += 1
            if found.read > MOST:
                raise FinbenchError(f"{file}: more than {MOST:,} rows.", "Take a sample: a benchmark needs thousands.")
            if isinstance(record, str):
                found.fault(record)
                continue
            if not checked and file.suffix in (".csv", ".tsv", ".parquet"):
                _header(file, record.row, columns)
            checked = True
            if missing := [name for name in columns if name not in record.row]:
                found.fault(f"{record.place}: no {missing[0]!r}; it has {shortened(', '.join(map(str, record.row)))}")
                continue
            yield newnames.told(record, file, wanted.file)


def _decoded(file: readers.SourceFile, columns: Sequence[str], found: Reading) -> Iterator[readers.RawRecord | str]:
    if file.suffix not in (".csv", ".tsv"):
        yield from readers.decoder_of(file, None)(file)
        return
    lines = [line.rstrip("\r\n") for line in readers.first_lines(file, 2)]
    told = readers.told_delimiter(lines[0]) if lines else ""
    first, delimiter = "".join(lines[1:] if told else lines[:1]), told or ","
    for other, name in _DELIMITERS.items():
        if columns[0] not in _cells(first, ",") and columns[0] in _cells(first, other):
            delimiter = other
            found.notes.append(f"{file.name}: its fields are separated by {name}")
    if columns[0] not in _cells(first, delimiter):
        _header(file, dict.fromkeys(_cells(first, delimiter)), columns, delimiter)
    yield from readers.decode_csv(file, delimiter)


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(delimiter)]


def _header(file: readers.SourceFile, row: Mapping[str, Any], columns: Sequence[str], delimiter: str = "") -> None:
    missing = [name for name in columns if name not in row]
    if not missing:
        return
    there = [str(name) for name in row]
    close = near_misses(missing[0], there)
    mean = f" Did you mean {' or '.join(close)}?" if close else ""
    below = itertools.islice(readers.decode_csv(file, delimiter), 200) if delimiter else ()
    headless = own.looks_like_a_row(there, (one.row for one in below if isinstance(one, readers.RawRecord)))
    bare = " Its first line looks like a row: does the header line lack?" if headless else ""
    raise FinbenchError(
        f"{file}:1: no column {missing[0]!r}.{mean}{bare} The first line is: {shortened(', '.join(there))}",
        "Name a column of the first line; a CSV needs a header line, and commas, semicolons, tabs or bars between.",
    )


# ---------------------------------------------------------------- one row


def _labels(stated: str | None) -> dict[str, str]:
    """What is written in the column -> the label; ``0=dovish,1=hawkish`` or ``dovish,hawkish``."""
    found: dict[str, str] = {}
    for part in (stated or "").split(","):
        value, equals, name = (piece.strip() for piece in part.partition("="))
        if not value:
            continue
        if _folded(value) in map(_folded, found):
            raise FinbenchError(
                f"--labels names {value!r} twice.", "Write each once: --labels negative,neutral,positive"
            )
        found[value] = name if equals else value
    return found


def _folded(text: str) -> str:
    return _plain(unicodedata.normalize("NFKC", text))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _written(value: Any) -> str:
    """An answer as text: 1.0 of a table is the label 1."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")  # so do some programs write text into Parquet
    # NaN: how tables write that nothing is there, in CSV as a word
    return "" if value is None or value != value or str(value).strip().lower() == "nan" else str(value)


def _seen(raw: Sequence[readers.RawRecord], wanted: TaskSettings) -> dict[str, str]:
    """The labels that the column has, as they are written; of those that differ by case or spaces the most frequent."""
    if wanted.kind == "yesno":
        return YES_NO
    written = [_written(record.row[wanted.label]) for record in raw]
    counts = Counter(text for text in written if text.strip())
    if len(counts) > 50 and len(counts) > 0.2 * len(written):
        raise FinbenchError(
            f"{wanted.label} has {len(counts):,} different values in {len(written):,} rows: these are no labels.",
            "Free text is --kind text, a number --kind number.",
        )
    first: dict[str, str] = {}
    for label, _ in sorted(counts.most_common(), key=lambda one: one[0] != one[0].strip()):  # best without spaces
        first.setdefault(_folded(label), label)
    return {label: label.strip() for label in first.values()}


def _fields(
    row: Mapping[str, Any], wanted: TaskSettings, extras: Sequence[str], labels: dict[str, str]
) -> dict[str, Any]:
    """A row of the task; ValueError says what is wrong with it."""
    text = _filled(row, wanted.text)
    fields: dict[str, Any] = {"text": text}
    if wanted.question:
        fields["question"] = _filled(row, wanted.question)
    fields |= {name: _filled(row, name) for name in extras}
    value = row[wanted.label]
    if isinstance(value, list | dict) and wanted.kind != "spans":
        raise ValueError(f"{wanted.label} is a {type(value).__name__}, not an answer")
    written = _written(value).strip()
    if not written and wanted.kind != "spans":
        raise ValueError(f"no answer in {wanted.label}")
    if wanted.kind in ("labels", "yesno"):
        fields["label"] = _label(_written(value), labels, exact=not wanted.labels and wanted.kind == "labels")
        if wanted.kind == "yesno":
            fields["attribute"] = fields.get("question", "it")
    elif wanted.kind == "number":
        fields |= {"answer": _number(written, wanted.tolerance), "tolerance": wanted.tolerance}
    elif wanted.kind == "spans":
        fields["entities"] = _spans(value, text, labels)
    elif wanted.kind == "choice":
        names = [name.strip() for name in (wanted.choices or "").split(",")]
        fields |= {"choices": _choices(row, names), "label": written}
    else:
        fields["answer"] = " ".join(written.split())
    return fields


def _filled(row: Mapping[str, Any], name: str) -> str:
    if isinstance(row[name], list | dict):
        raise ValueError(f"{name} is a {type(row[name]).__name__}, not a text")
    text = _written(row[name])
    if not text.strip():
        raise ValueError(f"{name} is empty")
    if len(text) > _LONGEST:
        raise ValueError(f"{name} has {len(text):,} characters; at most {_LONGEST:,} are asked")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as fault:
        raise ValueError(f"{name} is not Unicode text ({fault.reason})") from fault
    return text.strip()


def _label(written: str, labels: dict[str, str], exact: bool) -> str:
    if written in labels:
        return labels[written]
    if written.strip() in labels and not exact:
        return labels[written.strip()]
    known = {_folded(value): name for value, name in labels.items()}
    known |= {_folded(name): name for name in labels.values()}
    if exact and _folded(written) in known:
        other = known[_folded(written)]
        by = "case or spaces" if _plain(written) == _plain(other) else "how it is written in Unicode"
        raise ValueError(
            f"the label {written!r} differs from {other!r} by {by} alone "
            f"(--labels {shlex.quote(','.join(labels.values()))} takes both for one)"
        )
    if _folded(written) not in known:
        raise ValueError(f"the label {shortened(repr(written))} is none of {shortened(', '.join(labels.values()))}")
    return known[_folded(written)]


def _number(written: str, tolerance: str) -> str:
    amount = paths.helper("amounts").plain_number(written)
    if amount and amount.kind == "percent" and not tolerance.endswith("%") and float(tolerance):
        raise ValueError(
            f"{shortened(repr(written))} is {amount.value}, of which a tolerance of {tolerance} is no small part: "
            "write the bare number, or --tolerance 1%"
        )
    if amount is None:
        raise ValueError(f"{shortened(repr(written))} is not one number (a point is the decimal point: 1,000.5)")
    return written


def _spans(value: Any, text: str, labels: dict[str, str]) -> list[dict[str, Any]]:
    """Entities, each with the offset at which it stands in the text."""
    try:
        stated = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"not a JSON list of spans ({fault})") from fault
    if stated is None or not isinstance(stated, list):
        raise ValueError('the spans are no JSON list of {"text": ..., "type": ...}; [] where there are none')
    found, at = [], 0
    for one in stated:
        if not isinstance(one, dict) or not all(isinstance(one.get(key), str) and one[key] for key in ("text", "type")):
            raise ValueError(f"a span needs text and type, found {shortened(repr(one))}")
        kind = _label(one["type"], labels, exact=False) if labels else one["type"]
        start = one["start"] if type(one.get("start")) is int else text.find(one["text"], at)
        start = text.find(one["text"]) if start < 0 else start
        if text[start : start + len(one["text"])] != one["text"] or start < 0:
            raise ValueError(f"the span {shortened(repr(one['text']))} does not stand in the text")
        at = start + len(one["text"])
        found.append({"text": one["text"], "type": kind, "start": start})
    return found


def _choices(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    if len(names) == 1:
        stated = row[names[0]]
        try:
            stated = json.loads(stated) if isinstance(stated, str) else stated
        except (ValueError, RecursionError) as fault:
            raise ValueError(f"{names[0]} is no JSON list ({fault})") from fault
        choices = [_written(one).strip() for one in stated] if isinstance(stated, list) else []
    else:
        choices = [_written(row[name]).strip() for name in names]
        choices = [one for one in choices if one]
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise ValueError(f"choices must be two or more, all different, found {shortened(repr(choices))}")
    return choices


def _number_choices(found: Reading) -> None:
    """Which choice is right: its own text, its letter, or its number, from 0 or from 1 as the whole file shows.

    A file whose golds are all numbers, or all letters, means one thing by them: texts where each is one of its choices.
    """
    stated = [(str(row.fields["label"]), row.fields["choices"]) for row in found.rows]
    texts = all(gold in choices for gold, choices in stated)
    alike = any(all(re.fullmatch(form, gold) for gold, _ in stated) for form in (_POSITION, _LETTER))
    golds = [gold for gold, choices in stated if alike or gold not in choices]
    numbers = [int(gold) for gold in golds if re.fullmatch(_POSITION, gold)]
    if texts and len(numbers) == len(stated) and any(_other_choices(stated, first) for first in (0, 1)):
        raise FinbenchError(
            "The right choices are numbers, and so are the choices: is a number a choice's text or its place?",
            "Write them as letters (A, B, ...).",
        )
    first = 0 if 0 in numbers else 1
    most = max((len(row.fields["choices"]) for row in found.rows), default=0)
    if numbers and not texts and first == 1 and most not in numbers:
        raise FinbenchError(
            f"The right choices are the numbers {min(numbers)} to {max(numbers)}: do they count from 0 or from 1?",
            "Write them as letters (A, B, ...), or as the text of the choice.",
        )
    kept = []
    for row in found.rows:
        gold, choices = str(row.fields["label"]), row.fields["choices"]
        if gold in choices and (texts or not alike):
            number = choices.index(gold)
        elif re.fullmatch(_LETTER, gold):
            number = ord(gold[0].upper()) - ord("A")
        else:
            number = int(gold) - first if re.fullmatch(_POSITION, gold) else -1
        if not 0 <= number < len(choices):
            found.fault(f"{row.place}: {shortened(repr(gold))} is none of the {len(choices)} choices")
            continue
        row.fields["label"] = number
        kept.append(row)
    found.rows = kept


def _other_choices(stated: Sequence[tuple[str, list[str]]], first: int) -> bool:
    """Whether all golds are places of choices too, counted from ``first``, of other choices."""
    places = [int(gold) - first for gold, _ in stated]
    fit = all(0 <= place < len(choices) for place, (_, choices) in zip(places, stated, strict=True))
    return fit and any(choices[place] != gold for place, (gold, choices) in zip(places, stated, strict=True))


def _split(row: Mapping[str, Any], wanted: TaskSettings) -> str | None:
    if not wanted.split:
        return "test" if wanted.all_test else None
    stated = _written(row[wanted.split])
    split = splits.split_named(_folded(stated))
    if split is None:
        raise ValueError(f"{wanted.split} is {shortened(repr(stated))}, not train, validation or test")
    return split


# ---------------------------------------------------------------- rows beside each other


def asked(fields: Mapping[str, Any]) -> str:
    """What a row asks, normalised: two rows with the same are one question."""
    shown = [str(fields[name]) for name in sorted(fields) if name not in _ANSWERS and isinstance(fields[name], str)]
    return "\0".join(str(paths.helper("sets").splits.signed(text)) for text in [*shown, *fields.get("choices", ())])


_ANSWERS = ("label", "answer", "tolerance", "attribute")


def gold(fields: Mapping[str, Any]) -> str:
    """The right answer of a row, to be compared."""
    return json.dumps([fields.get(name) for name in ("label", "answer", "entities")], ensure_ascii=False)


def _conflicts(found: Reading, wanted: TaskSettings) -> None:
    """Of copies with one answer the first stays; of a question with two answers none does."""
    by_question: dict[str, list[NewRow]] = {}
    for row in found.rows:
        by_question.setdefault(asked(row.fields), []).append(row)
    kept: list[NewRow] = []
    for copies in by_question.values():
        answers = {gold(row.fields) for row in copies}
        first = copies[0]
        if len(answers) > 1:
            other = next(row for row in copies if gold(row.fields) != gold(first.fields))
            said = f"{other.place}: the same text as {first.place}, with another answer"
            for _ in copies:
                found.dropped["same text, different answers"] += 1
            found.faults.append(said)
            continue
        splits = {row.split for row in copies}
        if len(splits) > 1:
            other = next(row for row in copies if row.split != first.split)
            found.faults.append(f"{other.place}: the same text as {first.place}, in {other.split} and in {first.split}")
            found.dropped["same text in two splits"] += len(copies)
            continue
        found.dropped["duplicate"] += len(copies) - 1
        kept.append(first)
    found.dropped = +found.dropped
    found.rows = kept


def title(path: Path) -> str:
    """A task's name from that of a file or folder."""
    return re.sub(
        r"[^a-z0-9]+", "_", path.name.removesuffix(path.suffix).lower() if path.suffix else path.name.lower()
    ).strip("_")
