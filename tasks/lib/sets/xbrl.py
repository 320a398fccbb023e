"""XBRL without filings: tags of figures in sentences (FNXL, FiNER-139) and explanations of terms.

A figure's row offers ten candidates, which its split's questions share (``candidates.py``).
"""

import ast
import functools
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .base import Drop, Item, Record, Row, Set, Unit, WrongFile, split_in, text_of
from .candidates import offer

_TERM = re.compile(r"Explain this XBRL term briefly in one sentence: (?P<term>.*)\. Answer:\s*", re.DOTALL)


def _unit(text: str, figures: Sequence[tuple[str, str]], place: str, split: str | None) -> Iterator[Item]:
    """A sentence with its (figure, tag) pairs; a figure that has two tags cannot be asked about."""
    by_figure: dict[str, set[str]] = {}
    for figure, tag in figures:
        by_figure.setdefault(figure, set()).add(tag)
    rows: list[Row] = []
    for number, (figure, tags) in enumerate(by_figure.items()):
        if len(tags) > 1:
            yield Drop("a figure with two tags in one sentence")
            continue
        (tag,) = tags
        rows.append({"id": str(number), "text": text, "numeral": figure, "label": tag})
    if rows:
        label = json.dumps({row["numeral"]: row["label"] for row in rows}, sort_keys=True)
        yield Unit(text, label, rows, place, split)


# ---------------------------------------------------------------- FNXL


def fnxl(records: Iterable[Record]) -> Iterator[Item]:
    """FNXL: ``sentence`` and ``numerals-tags``."""
    for row, place, split in records:
        text, told = text_of(row, place, "sentence"), text_of(row, place, "numerals-tags")
        figures = _fnxl_figures(told)
        if not text or not figures:
            yield f"{place}: needs a sentence and a dictionary of us-gaap tags and figures"
        else:
            yield from _unit(text, figures, place, split)


def _fnxl_figures(told: str) -> list[tuple[str, str]]:
    """(figure, tag) pairs of ``{'us-gaap:Tag': ['1.0', ...]}``; empty if it is none."""
    try:
        value = ast.literal_eval(told) if len(told) < 100_000 else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    if not isinstance(value, dict):
        return []
    pairs = []
    for tag, figures in value.items():
        if not isinstance(tag, str) or not tag.startswith("us-gaap:") or not isinstance(figures, list):
            return []
        pairs += [(str(figure).strip(), tag.removeprefix("us-gaap:")) for figure in figures]
    return [(figure, tag) for figure, tag in pairs if figure]


# ---------------------------------------------------------------- FiNER-139


@functools.cache
def finer139_names() -> tuple[str, ...]:
    """FiNER-139's classes in the order of their codes: O, then B- of each tag, and I- where it follows at once.

    The I- classes of the other tags come last, in no order that matters here: they only go on with a figure.
    """
    lines = (pathlib.Path(__file__).parent / "finer139.txt").read_text(encoding="utf-8").split()
    names = ["O"]
    for line in lines:
        tag = line.removesuffix("+")
        names += [f"B-{tag}", f"I-{tag}"] if line.endswith("+") else [f"B-{tag}"]
    return tuple(names)


def finer139(records: Iterable[Record]) -> Iterator[Item]:
    """FiNER-139: ``tokens`` and ``ner_tags``, IOB2 as names or as the codes of the authors' class list."""
    known = {name[2:] for name in finer139_names() if name.startswith("B-")}
    for row, place, split in records:
        tokens, tags = _list(row.get("tokens")), _list(row.get("ner_tags"))
        if tokens is None or tags is None:
            raise WrongFile(
                f"{place}: columns tokens and ner_tags are expected, found {', '.join(map(str, row))[:120]}"
            )
        if len(tokens) != len(tags):
            yield f"{place}: {len(tokens)} tokens, {len(tags)} tags"
            continue
        try:
            figures = _figures([str(token) for token in tokens], [_class(tag) for tag in tags])
        except ValueError as fault:
            yield f"{place}: {fault}"
            continue
        unknown = sorted({tag for _, tag in figures} - known)
        if unknown:
            yield f"{place}: {unknown[0][:80]!r} is none of the 139 tags"
        elif not figures:
            yield Drop("no figure is tagged")
        else:
            yield from _unit(" ".join(map(str, tokens)), figures, place, split)


def _list(value: Any) -> list[Any] | None:
    return list(value) if isinstance(value, list | tuple) else None


def _class(tag: Any) -> str:
    names = finer139_names()
    if isinstance(tag, str) and (tag == "O" or tag[:2] in ("B-", "I-")):
        return tag
    if isinstance(tag, int) and not isinstance(tag, bool) and 0 <= tag < 2 * 139 + 1:
        return names[tag] if tag < len(names) else "I-"
    raise ValueError(f"a tag is O, B-..., I-... or its code, found {str(tag)[:40]!r}")


def _figures(tokens: list[str], classes: list[str]) -> list[tuple[str, str]]:
    """(figure, tag) pairs; a figure of several tokens is joined by blanks."""
    found: list[tuple[str, str]] = []
    inside = False
    for token, name in zip(tokens, classes, strict=True):
        if name.startswith("B-"):
            found.append((token, name[2:]))
        elif name.startswith("I-") and inside:
            found[-1] = (f"{found[-1][0]} {token}", found[-1][1])
        inside = name != "O" and bool(found)
    return found


# ---------------------------------------------------------------- terms


def terms(records: Iterable[Record]) -> Iterator[Item]:
    """XBRL terms as FinLoRA publishes them (``context``, ``target``), or as columns ``term`` and ``explanation``."""
    rows: list[tuple[str, str, str, str | None]] = []
    for row, place, split in records:
        if isinstance(row.get("context"), str):
            match = _TERM.fullmatch(row["context"].strip())
            term, told = (match["term"].strip() if match else ""), text_of(row, place, "target")
        else:
            term, told = text_of(row, place, "term"), text_of(row, place, "explanation", "definition")
        if not term or not told:
            yield f"{place}: needs a term and its explanation"
        elif "nan" in (term.casefold(), told.casefold()):
            yield Drop('the term or its explanation is "nan"')
        else:
            rows.append((term, told, place, split))
    tested = {told.casefold() for _, told, _, split in rows if split == "test"}
    for term, told, place, split in rows:
        if split == "train" and told.casefold() in tested:
            yield Drop("the explanation is also in the test split")
        else:  # of a term with two explanations the first stands: both are right
            yield Unit(term, "term", [{"text": term, "answer": told}], place, split)


XBRL_SETS = {
    "fnxl": Set(
        fnxl,
        "FNXL (Sharma et al. 2023), the authors' samples",
        "*_sample.csv",
        split_in,
        2973,
        tests={"*test*.csv": 988},
        corrected=(
            "Figures that have two tags in one sentence are left out, as are train and dev sentences of the test. Most "
            "tags of the test do not occur in the train sample."
        ),
        offer=offer,
    ),
    "finer139": Set(
        finer139,
        "FiNER-139 (Loukas et al. 2022), finer139.zip",
        "*train*.json* *val*.json* *dev*.json* *test*.json* *.parquet",
        split_in,
        1121256,
        tests={"*test*.json*": 108378},
        corrected=(
            "One row a tagged figure; sentences without one, and figures with two tags, are left out. Figures without "
            "a tag are not asked about."
        ),
        offer=offer,
    ),
    "xbrl_term": Set(
        terms,
        "XBRL Terminology (XBRL-Agent), as FinLoRA divides it",
        "*xbrl_term_*.jsonl",
        split_in,
        6507,
        tests={"*test*.json*": 651},
        corrected=(
            'Terms and explanations that are "nan" are left out, and train rows whose term or explanation is in the '
            "test; of a term with two explanations the first stands."
        ),
    ),
}
