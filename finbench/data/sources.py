"""The authors' original files, one reader a set, and ``finbench data import``."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench import catalog, paths
from finbench.console import say
from finbench.data.canonical import MIXED, Example, Report, split_rows, write
from finbench.errors import FinbenchError, unknown

SENTIMENT = ("negative", "neutral", "positive")
_SHOWN = 10  # faults listed in a message


Reader = Callable[[Path, str], Iterator[Example | str]]  # an Example, or a fault as "file:line: why"


def read_text(path: Path, fallback: str | None = None) -> str:
    """A text file, decoded strictly: by its byte order mark (UTF-8, UTF-16), else UTF-8, else ``fallback``.

    Line ends are left as they are. A fault names the line.
    """
    try:
        raw = path.read_bytes()
    except OSError as fault:
        raise FinbenchError(f"{path}: cannot be read ({fault.strerror}).") from fault
    encoding = "utf-8-sig"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as fault:
        if fallback and encoding == "utf-8-sig" and not raw.startswith(codecs.BOM_UTF8):
            text = raw.decode(fallback)
        else:
            line = fault.object.count(b"\n", 0, fault.start) + 1
            name = encoding.removesuffix("-sig").upper()
            raise FinbenchError(f"{path}:{line}: not {name} ({fault.reason}).") from fault
    if not text.strip():
        raise FinbenchError(f"{path}: the file is empty.")
    if "\0" in text:
        raise FinbenchError(
            f"{path}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL character; is this a text file?"
        )
    return text


def read_fpb(path: Path, agreement: str) -> Iterator[Example | str]:
    """Financial PhraseBank: ISO-8859-1 lines ``sentence@label``, split at the last ``@``."""
    # not splitlines(): it also breaks at characters such as U+0085, which ISO-8859-1 text may hold
    for number, line in enumerate(read_text(path, "iso-8859-1").split("\n"), 1):
        place = f"{path}:{number}"
        if not line.strip():
            continue
        text, at, label = line.rpartition("@")
        if not at or label.strip() not in SENTIMENT:
            yield f"{place}: a line is sentence@label with label {', '.join(SENTIMENT)}, found {line[-40:]!r}"
        elif not text.strip():
            yield f"{place}: the sentence is empty"
        else:
            yield Example(text.strip(), {"label": label.strip(), "agreement": agreement}, place)


def fiqa_label(score: float) -> str:
    """FiQA's score in [-1, 1] as a label: below -0.1 negative, from 0.1 positive, else neutral."""
    return "negative" if score < -0.1 else "neutral" if score < 0.1 else "positive"


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twins = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twins:
        raise ValueError(f"the key {twins[0]!r} occurs twice in one object")
    return dict(pairs)


def _score(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("a score is a number, found a truth value")
    return float(value)


def read_fiqa(path: Path, split: str) -> Iterator[Example | str]:
    """FiQA task 1: ``{id: {"sentence", "info": [{"sentiment_score", "target", ...}]}}``, scores as text or number.

    A sentence about several targets is one row with the mean score, unless their labels differ: then no label
    of the whole sentence is right, and the row is a fault of kind "conflict".
    """
    try:
        entries = json.loads(read_text(path), object_pairs_hook=_no_twins)
        if not isinstance(entries, dict) or not entries:
            raise ValueError("an object of sentences by id is expected")
    except (ValueError, RecursionError) as fault:
        line = getattr(fault, "lineno", 1)
        raise FinbenchError(f"{path}:{line}: not a FiQA file ({fault}).") from fault
    for key, entry in entries.items():
        place = f"{path}: id {ascii(key)[1:-1]}"
        try:
            text = entry["sentence"].strip()
            scores = [_score(info["sentiment_score"]) for info in entry["info"]]
            targets = list(dict.fromkeys(str(info.get("target", "")).strip() for info in entry["info"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as fault:
            yield f"{place}: {type(fault).__name__}: {fault}"
            continue
        if not text or not scores or not all(-1 <= score <= 1 for score in scores):
            yield f"{place}: needs a sentence and scores between -1 and 1"
            continue
        labels = {fiqa_label(score) for score in scores}
        fields = {
            "label": labels.pop() if len(labels) == 1 else MIXED,  # the mean of -0.1 thrice is below
            "score": round(math.fsum(scores) / len(scores), 6),
            "kind": "post" if "post" in path.stem.lower() or text.startswith("$") else "headline",
            "targets": targets,
        }
        yield Example(text, fields, place, split)


def read_tfns(path: Path, split: str) -> Iterator[Example | str]:
    """Twitter Financial News Sentiment: CSV ``text,label``; 0 bearish, 1 bullish, 2 neutral."""
    codes = {"0": "negative", "1": "positive", "2": "neutral"}
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = next(reader)
        if [name.strip() for name in header] != ["text", "label"]:
            raise FinbenchError(f"{path}:1: the header must be text,label, found {','.join(header)!r}.")
        start = reader.line_num + 1
        for row in reader:
            place, start = f"{path}:{start}", reader.line_num + 1
            if not row:
                continue
            if len(row) != 2 or row[1].strip() not in codes:
                yield f"{place}: a row is text,label with label 0, 1 or 2, found {row[-1][:40]!r} in {len(row)} fields"
            elif not row[0].strip():
                yield f"{place}: the text is empty"
            else:
                yield Example(row[0].strip(), {"label": codes[row[1].strip()]}, place, split)
    except csv.Error as fault:
        raise FinbenchError(f"{path}:{reader.line_num}: not valid CSV ({fault}).") from fault


def _agreement(path: Path) -> str:
    """The agreement level in the authors' file name; 50 % is what every level has at least."""
    levels = {"allagree": "100", "75agree": "75", "66agree": "66", "50agree": "50"}
    return next((level for word, level in levels.items() if word in path.stem.lower()), "50")


def _authors_split(path: Path) -> str:
    """The authors' split by the file's name, which is the only place where they state it."""
    stem = path.stem.lower()
    for word, split in (("train", "train"), ("dev", "validation"), ("valid", "validation"), ("test", "test")):
        if word in stem:
            return split
    raise FinbenchError(
        f"{path.name}: the name does not say which split it is.", "Name it ...train..., ...valid... or ...test..."
    )


def _tfns_split(path: Path) -> str:
    """The authors publish train and validation only; validation is the test split, as in the literature."""
    return "train" if _authors_split(path) == "train" else "test"


@dataclass(frozen=True)
class Source:
    """How a set is read: ``detail`` turns a file into the reader's second argument (a split, a level).

    ``nested``: each file holds the rows of those that sort before it, so a repeated row is no duplicate.
    """

    read: Reader
    detail: Callable[[Path], str]
    origin: str
    whole: int  # rows of the authors' complete files
    nested: bool = False

    def order(self, files: list[Path]) -> list[Path]:
        """By name, so that the order in which they were given changes nothing; nested: strictest first."""
        return sorted(files, key=lambda path: (-int(self.detail(path)) if self.nested else 0, path.name))


SOURCES = {
    "fpb": Source(read_fpb, _agreement, "Financial PhraseBank v1.0, Sentences_*Agree.txt", 4846, nested=True),
    "fiqa_sa": Source(read_fiqa, _authors_split, "FiQA 2018 open challenge, task 1", 1111),
    "tfns": Source(
        read_tfns, _tfns_split, "Twitter Financial News Sentiment, sent_train.csv and sent_valid.csv", 11931
    ),
}


def import_data(name: str, files: list[Path], data_dir: Path | None = None, skip_bad: bool = False) -> Report:
    """Turn the authors' original files of set ``name`` into canonical rows in the data directory.

    Rows that cannot be read stop the import, all named by file and line, unless ``skip_bad``: then they are
    left out and counted. Nothing is written before everything was read.
    """
    name = name.removeprefix(catalog.PREFIX)
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES, "finbench data list")
    source = SOURCES[name]
    report = Report(name, paths.data_dir(data_dir) / name)
    _check_files(name, files)
    examples = _read(source, files, report)
    if report.faults and not skip_bad:
        more = f"\n  ... and {len(report.faults) - _SHOWN} more" if len(report.faults) > _SHOWN else ""
        raise FinbenchError(
            f"{len(report.faults)} of {report.read} rows cannot be read:\n  "
            + "\n  ".join(report.faults[:_SHOWN])
            + more,
            "Mend the file, or leave such rows out with --skip-bad.",
        )
    if not examples:
        raise FinbenchError(f"{name}: there is no row in {', '.join(path.name for path in files)}.")
    task = catalog.expand([name])[0]
    rows = split_rows(name, examples, report)
    counts = report.by_file.values()
    given = max(counts) if source.nested else sum(counts)  # the loosest file holds the others
    if given != source.whole:
        report.note = (
            f"These files hold {given:,} of the authors' {source.whole:,} rows: not the whole set, nor its scores."
        )
    earlier = describe(name, data_dir)
    about = {"source": source.origin, "licence": task.licence, "restricted": task.restricted, "split_rule": task.split}
    about |= {"complete": not report.note}
    write(report, rows, about, files)
    if earlier and earlier["rows"] != report.rows:
        say(f"It takes the place of an earlier import with {sum(earlier['rows'].values()):,} rows.")
    return report


def _read(source: Source, files: list[Path], report: Report) -> list[Example]:
    """Every example of the files; faults and repetitions between nested files go into ``report``."""
    examples: list[Example] = []
    earlier: set[tuple[str, str]] = set()
    for path in source.order(files):
        own: set[tuple[str, str]] = set()
        for item in source.read(path, source.detail(path)):
            report.read += 1
            report.by_file[path.name] += 1
            fault = item if isinstance(item, str) else _unwritable(item)
            if fault or isinstance(item, str):
                report.faults.append(fault)
            elif (key := (item.text, str(item.fields["label"]))) in earlier:
                report.dropped["also in a file of higher agreement"] += 1
            else:
                examples.append(item)
                own.add(key)
        if source.nested:
            earlier |= own
    return examples


def _unwritable(example: Example) -> str:
    """Why an example cannot be UTF-8: JSON escapes can spell half of a surrogate pair. Empty if it can."""
    try:
        json.dumps([example.text, example.fields], ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as fault:
        return f"{example.place}: not Unicode text ({fault.reason})"
    return ""


def _check_files(name: str, files: list[Path]) -> None:
    missing = [str(path) for path in files if not path.is_file()]
    if missing or not files:
        message = (
            f"No such file: {', '.join(missing)}." if missing else f"Which files? {name} is made from the authors' own."
        )
        raise FinbenchError(message, f"Like this: {catalog.expand([name])[0].data}")
    stems = [path.stem.lower() for path in files]
    if name == "fiqa_sa" and any("absa" in s for s in stems) and not all("absa" in s for s in stems):
        raise FinbenchError(
            "These FiQA files are of two families whose splits contradict each other.",
            "Give either the challenge's task1_*_ABSA_{train,test}.json or one re-split, never both.",
        )


def describe(name: str, data_dir: Path | None = None) -> dict[str, Any] | None:
    """``dataset.json`` of an imported set, or None."""
    path = paths.data_dir(data_dir) / name / "dataset.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict) or not isinstance(value.get("rows"), dict):
            raise ValueError("an object with rows is expected")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as fault:
        raise FinbenchError(
            f"{path} is torn ({fault}).", f"Import it again: {catalog.expand([name])[0].data}"
        ) from fault
    return value
