"""Tokenizers of strangers: tried in a process of its own before the first one is loaded here.

What a tokenizer takes depends on the text too, so what makes texts grow or search without end is bounded by its
description, and then tried on texts made of its own patterns. One that has passed is known by the hash of its files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finbench.core import jail, paths
from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file, write_atomic
from finbench.core.safety import read_json
from finbench.models.decisive import LARGEST_JSON

_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
_NOT = (".index.json", "structure.json", "finbench.json", "finbench-base.json")
_GROWTH = 16.0  # times the length of a text that all its steps together may make of it; real ones make three
_PREPENDED = 1_000  # characters that a normaliser may put before a text
_FILLED = 2**20  # tokens to which a text may be filled up
_PATTERNS = 100  # patterns in a tokenizer; real ones have ten
_LONG = 3_000  # characters of a text of the trial
_MORE = 256  # tokens beside those of a text
_SECONDS_MB_JSON = 0.5  # seconds a megabyte of tokenizer.json; those of 256,000 tokens have 35 and take 2 to 4 seconds
_SECONDS_MB = 3.0  # seconds a megabyte of the formats that transformers converts first, in Python
_HINT = "Choose another model; a tokenizer like this is broken or made to harm. Tell its author."
_passed: set[str] = set()


def check(folder: Path) -> None:
    """Refuse a tokenizer that takes too much time or memory when it is loaded, or makes too much of a text.

    Raises FinbenchError. The first time costs what loading it costs; afterwards, the hash of its files.
    """
    files = sorted({path for kind in _FILES for path in folder.glob(kind) if not path.name.endswith(_NOT)})
    for path in files:
        if path.stat().st_size > LARGEST_JSON:
            raise FinbenchError(f"{path} is too large ({path.stat().st_size:,} bytes).", _HINT)
    key = _key(files)
    mark = paths.cache_dir() / "tokenizers" / key
    if key in _passed or mark.is_file():
        return
    described = read_json(folder / "tokenizer.json", folder, LARGEST_JSON) if folder / "tokenizer.json" in files else {}
    try:
        literals = _bounded(described, folder / "tokenizer.json")
    except (TypeError, ValueError, AttributeError, LookupError) as fault:
        raise FinbenchError(f"{folder / 'tokenizer.json'} holds no tokenizer ({fault}).", "Fetch it again.") from fault
    from transformers import AutoTokenizer  # noqa: F401  before the fork, which then has it: it imports torch

    foreign = 0 if described else sum(path.stat().st_size for path in files if path.suffix in (".model", ".txt"))
    whole = (folder / "tokenizer.json").stat().st_size if described else 0
    seconds = jail.SECONDS + (_SECONDS_MB * foreign + _SECONDS_MB_JSON * whole) / 2**20
    jail.confined(_try, str(folder), literals, what=f"The tokenizer of {folder}", hint=_HINT, seconds=seconds)
    _passed.add(key)
    with contextlib.suppress(FinbenchError):  # a cache that cannot be written costs time, no more
        write_atomic(mark, "")


def _key(files: list[Path]) -> str:
    from importlib.metadata import version

    read_by = [version(name) for name in ("tokenizers", "transformers")]
    stated = [read_by, [[path.name, sha256_file(path)] for path in files]]
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()


def _parts(described: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normaliser, pre-tokenizer, post-processor or decoder, in each other or in a row."""
    found = [described]
    for part in found:  # grows
        if isinstance(part, dict):
            yield part
            found += part.values()
        elif isinstance(part, list):
            found += part


def _bounded(described: dict[str, Any], path: Path) -> list[str]:
    """The literal texts of a tokenizer's patterns; FinbenchError for one whose steps could make too much of a text."""
    literals: list[str] = []
    for where in ("normalizer", "pre_tokenizer", "decoder"):
        growth, prepended = 1.0, 0
        for step in _parts(described.get(where)):
            kind = step.get("type")
            pattern = step.get("pattern")
            searched = next(iter(pattern.values()), "") if isinstance(pattern, dict) else pattern or ""
            if pattern:
                literals.append(str(searched))
            if kind == "Replace":
                # a regular expression may match one character, or the place between two
                least = len(searched) if isinstance(pattern, dict) and "String" in pattern else 0
                growth *= max(1.0, len(step["content"]) / least if least else 1.0 + len(step["content"]))
            elif kind in ("ByteLevel", "Precompiled"):
                growth *= 2.0
            elif kind == "Metaspace":
                growth *= max(1.0, len(step.get("replacement", "")))
            elif kind == "Prepend":
                prepended += len(step["prepend"])
            if kind in ("WordPiece", "BPEDecoder", "CTC"):
                literals.append(str(step.get("prefix") or step.get("suffix") or step.get("word_delimiter_token") or ""))
        if growth > _GROWTH or prepended > _PREPENDED:
            said = f"make up to {growth:,.0f} characters of one" if growth > _GROWTH else "put too much before a text"
            raise FinbenchError(f"{path}: the steps of its {where} {said}.", _HINT)
    filled = (described.get("padding") or {}).get("strategy")
    if isinstance(filled, dict) and filled.get("Fixed", 0) > _FILLED:
        raise FinbenchError(f"{path} fills every text up to {filled['Fixed']:,} tokens.", _HINT)
    if len(literals) > _PATTERNS:
        raise FinbenchError(f"{path} has {len(literals):,} patterns.", _HINT)
    return literals


def _texts(literals: list[str]) -> Iterator[str]:
    """Texts on which a search without end shows: long runs, with an end that does not fit; and of its own patterns."""
    yield "".join(map(chr, range(32, 127)))
    yield "Operating profit rose to EUR 13.1 mn (8.7) — société, 12 %\n\n\t利益が増加した。 🙂"
    for run in ("a", " ", "1", "\n", "A1 a-", "é", "利", ".", "_", "'s ", "\u0301"):
        yield (run * _LONG)[:_LONG] + "!"
    own = "".join(literals)[:_LONG]
    for character in sorted(set(own))[:200]:
        yield character * 400 + "!"
    for literal in literals:
        for word in {literal[:100], *literal.replace("(", " ").replace(")", " ").replace("+", " ").split()[:5]}:
            yield (word * _LONG)[:_LONG] + "!"


def _try(folder: str, literals: list[str]) -> None:
    """In the jail: load it as it will be loaded, and go there and back with every text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    for text in _texts(literals):
        numbers = tokenizer(text)["input_ids"]
        if len(numbers) > 4 * len(text.encode()) * _GROWTH + _MORE:
            raise FinbenchError(
                f"The tokenizer of {folder} makes {len(numbers):,} tokens of {len(text):,} characters.", _HINT
            )
        made = tokenizer.decode(numbers)
        if len(made) > 64 * len(text) * _GROWTH + 2**16:
            raise FinbenchError(f"The tokenizer of {folder} makes {len(made):,} characters of {len(text):,}.", _HINT)
