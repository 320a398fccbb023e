"""Where the cards of a leaderboard lie: in folders by owner and subject, in one flat folder, or in Parquet files.

``scorecards/OWNER/SUBJECT/CARD.json`` with its samples beside it; ``scorecards/CARD.json``, of no owner; and rows of
``scorecards/**/*.parquet``, as ``datasets`` reads them, with the columns ``key``, ``card`` and ``samples``. A key is
the place of a card below ``scorecards``, without its ending, wherever it lies.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles
from finbench.core import paths
from finbench.core.errors import FinbenchError, harmless
from finbench.core.files import folder_atomic
from finbench.data import parquets

SCORECARDS = "scorecards"
COLUMNS = ("key", "card", "samples")
OWNER = r"[A-Za-z0-9][\w.-]{0,95}"  # who brings a card, a name of the Hub: one that nobody sees would be nobody's
_NAME = r"(?!\.)[^/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}"  # the last are bytes of a name that is no text
_KEY = re.compile(rf"{_NAME}|{OWNER}/{_NAME}(/{_NAME})?", re.ASCII)
_BATCH = 16  # rows of a Parquet file that are in memory
_SHARD = 2_000  # cards a Parquet file
_MOST = 10_000  # of a stranger's


@dataclass(frozen=True, order=True)
class CardPlace:
    """A card's key, and where it can be read; ``packed``: it is a row of a Parquet file, and ``path`` in the cache."""

    key: str
    path: Path = field(compare=False)
    packed: bool = field(default=False, compare=False)


def owner_of(key: str) -> str:
    """Who brought a card; empty for one of the flat folder."""
    return key.partition("/")[0] if "/" in key else ""


def key_of(folder: Path, path: Path) -> str:
    """The key of a card's file in a leaderboard."""
    return path.relative_to(folder / SCORECARDS).as_posix().removesuffix(".json")


def places(folder: Path) -> tuple[list[CardPlace], dict[str, str]]:
    """Every card of a leaderboard by its key, and what is wrong with files in which none could be found, by name."""
    root = folder / SCORECARDS
    found: dict[str, CardPlace] = {}
    wrong: dict[str, str] = {}
    files = sorted(_files(root))
    # a pipe would be waited for
    wrong |= {path.relative_to(root).as_posix(): "is no plain file" for path in files if not path.is_file()}
    files = [path for path in files if path.is_file()]
    for path in files:
        if path.suffix == ".json":
            key = key_of(folder, path)
            found[key] = CardPlace(key, path)
            if not _fits(key):
                wrong[f"{key}.json"] = (
                    "lies too deep, or its name or owner is none: cards are in scorecards/OWNER/SUBJECT/"
                )
    for path in files:
        if path.suffix != ".parquet":
            continue
        try:
            for place in _unpacked(path):
                if isinstance(place, str):
                    wrong[f"{path.name}: {place}"] = "and is left out"
                    continue
                before = found.setdefault(place.key, place)
                if before is not place and before.path.read_bytes() != place.path.read_bytes():
                    wrong[f"{path.name}: {place.key}"] = "is another card than that of the same name in the folder"
        except FinbenchError as fault:
            wrong[path.relative_to(root).as_posix()] = fault.message[:300]
        except Exception as fault:  # noqa: BLE001 - pyarrow raises many kinds
            wrong[path.relative_to(root).as_posix()] = f"cannot be read ({type(fault).__name__}: {fault})"[:300]
    fit = sorted(place for key, place in found.items() if f"{key}.json" not in wrong)
    return fit, {harmless(name): fault for name, fault in wrong.items()}  # which the page shows


def _files(root: Path) -> Iterator[Path]:
    """Files below a folder, without hidden ones and without following links to folders."""
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = (Path(place, name) for name in names if not name.startswith("."))
        yield from (path for path in files if not path.is_symlink())


def _fits(key: str) -> bool:
    """Whether a key is one or more names of files; longer ones than 200 bytes leave no room for an ending."""
    return bool(_KEY.fullmatch(key)) and all(len(os.fsencode(part)) <= 200 for part in key.split("/"))


def _unpacked(path: Path) -> Iterator[CardPlace | str]:
    """The cards of a Parquet file, each as two files in the cache, named by key and content; or what is wrong."""
    home = paths.cache_dir() / "leaderboard" / "rows"
    for row in parquets.rows(path, COLUMNS, batch=_BATCH, most=_MOST):
        key, card, samples = (row[name] for name in COLUMNS)
        if not isinstance(key, str) or not _fits(key):
            yield f"{str(key)[:80]!r} is no key of a card"
            continue
        content = (card or "").encode()
        place = home / hashlib.sha256(b"\0".join((key.encode(), content, samples or b""))).hexdigest()
        target = place / f"{key.rpartition('/')[2]}.json"
        if (_bytes(target), _bytes(cardfiles.samples_path(target))) != (content, samples):
            with folder_atomic(place) as staging:
                (staging / target.name).write_bytes(content)
                if samples is not None:
                    cardfiles.samples_path(staging / target.name).write_bytes(samples)
        yield CardPlace(key, target, packed=True)


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def pack(folder: Path, out: Path) -> list[Path]:
    """Write a leaderboard's cards as Parquet files, as ``datasets`` reads them, to ``out``; returns them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found, wrong = places(folder)
    if wrong or not found:
        said = [f"{name} {fault}" for name, fault in wrong.items()]
        raise FinbenchError("\n".join(said) or f"{folder} has no cards.", "finbench leaderboard build DIR lists them.")
    schema = pa.schema([("key", pa.string()), ("owner", pa.string()), ("card", pa.string()), ("samples", pa.binary())])
    shards = [found[start : start + _SHARD] for start in range(0, len(found), _SHARD)]
    names = [f"cards-{number:05}-of-{len(shards):05}.parquet" for number in range(len(shards))]
    with folder_atomic(out) as staging:
        for name, shard in zip(names, shards, strict=True):
            with pq.ParquetWriter(staging / name, schema, compression="zstd") as writer:
                for start in range(0, len(shard), _BATCH):
                    rows = [_row(place) for place in shard[start : start + _BATCH]]
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return [out / name for name in names]


def unpack(folder: Path, out: Path) -> list[Path]:
    """Write the cards of a leaderboard that lie in Parquet files, with their samples, below ``out``; returns them."""
    found = [place for place in places(folder)[0] if place.packed]
    if not found:
        raise FinbenchError(
            f"{folder} has no cards in Parquet files.", f"Its cards are files: ls {folder}/{SCORECARDS}"
        )
    with folder_atomic(out) as staging:
        for place in found:
            target = staging / f"{place.key}.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place.path, target)
            if (samples := cardfiles.samples_path(place.path)).is_file():
                shutil.copyfile(samples, cardfiles.samples_path(target))
    return [out / f"{place.key}.json" for place in found]


def _row(place: CardPlace) -> dict[str, Any]:
    card = cardfiles.read(place.path)
    samples = cardfiles.samples_bytes(place.path, card.samples).read_bytes() if card.samples else None
    text = place.path.read_text("utf-8")
    return {"key": place.key, "owner": owner_of(place.key), "card": text, "samples": samples}
