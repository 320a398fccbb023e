"""Scorecards on disk: ``<name>.json`` and ``<name>.samples.jsonl.zst``, each written at once, never half.

Any number of processes may write into one folder: each holds the folder's lock while it writes, and takes what
another has scored of the same run meanwhile into the card it writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import zstandard

from finbench.core.errors import FinbenchError, near_misses
from finbench.core.files import cannot_write, digest, json_lines, sha256_file, stable_json, strict_json, write_atomic
from finbench.core.records import Scorecard
from finbench.core.seal import card_seal, edited

_PATIENCE = 120  # seconds; a writer holds the lock for a fraction of one
# of samples, unpacked: values, which take more memory than bytes (17,000 rows have 400,000); bytes, beyond a few
# megabytes no more than so many times the file's (hashes of documents do not compress: eight times)
_MOST_PARTS, _LARGEST, _SMALL, _RATIO = 16 * 10**6, 256 * 2**20, 16 * 2**20, 200
_SAMPLES = ".samples.jsonl.zst"  # ends the name of a card's samples
_SHORTEST = 40  # bytes of a sample row: the hash of its document alone has 32
_OWN = "Put the samples file that finbench eval wrote with the card beside it, or score again: finbench eval"
_SLUG = 100  # characters of a file's name that come from a subject's; a file system takes 255 with what follows
_CARD, _CARD_PARTS = 16 * 2**20, 200_000  # bytes of a scorecard, values in it; one of every task has 0.1 MB and 4,000
_SHARED = 2**27  # characters of rows that cards share, and are kept: of usual rows 100,000, which take 0.3 GB
_PART = 100  # characters for which an object or list in a row counts
T = TypeVar("T")


class _Shared(dict[str, Any]):
    """Rows by their lines, where cards share them."""

    size = 0

    def keep(self, line: str, row: Any) -> None:
        """Keep a row; all others go where it would be too much, for cards come from strangers."""
        size = len(line) + _PART * (line.count("{") + line.count("["))
        if self.size + size > _SHARED:
            self.clear()
            self.size = 0
        self.size += size
        self[line] = row


_sharing: list[_Shared] = []


class SampleRow(dict[str, Any]):
    """A row that several cards have. ``known``: what was found out about it alone, by what was asked."""

    __slots__ = ("known",)

    def __init__(self, row: Mapping[str, Any]) -> None:
        super().__init__(row)
        self.known: dict[Hashable, Any] = {}


@contextlib.contextmanager
def sharing_rows() -> Iterator[None]:
    """Within it, a row that several cards have is one object, and nobody may change it (``of_row``)."""
    _sharing.append(_Shared())
    try:
        yield
    finally:
        _sharing.pop()


def of_row(row: Mapping[str, Any], what: Hashable, find: Callable[[Any], T]) -> T:
    """What ``find`` says of a row, which is asked once where cards share it. ``what``: all else that it depends on."""
    if not isinstance(row, SampleRow):
        return find(row)
    if what not in row.known:
        row.known[what] = find(row)
    found: T = row.known[what]
    return found


def read(path: Path) -> Scorecard:
    """A scorecard; FinbenchError for one that is missing, torn or not a scorecard."""
    return Scorecard.parse(raw(path), str(path))


def raw(path: Path) -> Any:
    """The JSON of a scorecard, not looked at; FinbenchError for what is no JSON, and no plain file."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise missing(path)
        text = path.read_text(encoding="utf-8") if path.stat().st_size <= _CARD else None
        if text is None or sum(map(text.count, ",[{")) > _CARD_PARTS:
            raise FinbenchError(f"{path} is larger than any scorecard can be.", "Name one that finbench eval wrote.")
        return strict_json(text)
    except (FileNotFoundError, NotADirectoryError) as fault:
        raise missing(path) from fault
    except (OSError, ValueError, RecursionError) as fault:
        written = "A scorecard is a .json file that finbench eval wrote"
        if path.suffix != ".json":
            raise FinbenchError(f"{path} is not a scorecard.", f"{written}: scorecards/NAME.json") from fault
        raise FinbenchError(
            f"{path} is torn or not JSON ({fault}).",
            f"{written}. Before a new one is written here, move this away.",
        ) from fault


def missing(path: Path) -> FinbenchError:
    """The fault for a path at which no scorecard lies: a folder, or a name with something like it beside."""
    if path.is_dir():
        inside = [str(one) for one in sorted(path.glob("*.json")) if samples_path(one).is_file()][:3]
        written = "finbench eval writes them: scorecards/<subject>.json, or where --out said"
        return FinbenchError(
            f"{path} is a folder, not a scorecard.", f"Name one: {', '.join(inside)}" if inside else written
        )
    beside = [other.name for other in path.parent.glob("*.json")] if path.parent.is_dir() else []
    close = near_misses(path.name, beside)
    mean = f" Did you mean {' or '.join(str(path.with_name(name)) for name in close)}?" if close else ""
    return FinbenchError(
        f"No such scorecard: {path}.{mean}", "finbench eval writes them: scorecards/<subject>.json, or where --out said"
    )


def folder(place: Path) -> list[Scorecard]:
    """Every scorecard of a folder, bases first, then by name; other JSON files are passed over."""
    found = []
    for path in sorted(place.glob("*.json")):
        with contextlib.suppress(FinbenchError):
            found.append(read(path))
    return sorted(found, key=lambda card: (card.subject.kind != "base", card.subject.name, card.provenance.created))


def expand(places: Iterable[Path | str]) -> list[Path]:
    """Scorecard files among files and folders, each once; other JSON files of a folder are passed over.

    So are samples, which ``scorecards/*`` names beside their cards. Raises FinbenchError for a file that is no
    scorecard, and where there is none at all.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if is_samples(place):
            continue
        if not place.is_dir():
            read(place)
            found.append(place)
            continue
        for path in sorted(place.glob("*.json")):
            with contextlib.suppress(FinbenchError):
                read(path)
                found.append(path)
    if not found:
        raise FinbenchError("No scorecard is there.", "Make some: finbench eval --adapter ./folder")
    return list(dict.fromkeys(found))


def is_samples(path: Path) -> bool:
    """Whether a file is the samples of a card, by its name."""
    return path.name.endswith(_SAMPLES)


def samples_path(card: Path) -> Path:
    """Where the samples of a card lie."""
    return card.with_name(card.name.removesuffix(".json") + _SAMPLES)


def samples_bytes(card: Path, sha256: str) -> Path:
    """The samples file of a card by its SHA-256; that of before where a writer was killed between its two files."""
    path = samples_path(card)
    try:
        for candidate in (path, _previous(path)):
            if candidate.is_file() and sha256_file(candidate) == sha256:
                return candidate
    except OSError as fault:
        raise FinbenchError(
            f"{path} cannot be read ({fault.strerror}).", f"Allow yourself to read it: chmod u+r {path}"
        ) from fault
    if not path.is_file():
        raise FinbenchError(f"{path} is missing.", f"It belongs beside {card}.")
    raise FinbenchError(
        f"{path} is not as {card.name} names it: its SHA-256 differs, so a row was edited or it is another card's.",
        _OWN,
    )


def read_samples(card: Path) -> list[dict[str, Any]]:
    """The sample rows of a card; checked against the SHA-256 in it."""
    found = read(card)
    return [] if found.samples is None else parse_samples(samples_bytes(card, found.samples))


def rows_by_task(path: Path, card: Scorecard) -> dict[str, list[dict[str, Any]]]:
    """Sample rows of every score of a card, by index; none where the card has no samples.

    FinbenchError for rows that are not there or lack what a metric needs: one line, whoever forged them.
    """
    if card.samples is None:
        return {}
    found: dict[str, list[dict[str, Any]]] = {score.task: [] for score in card.scores}
    for number, row in enumerate(parse_samples(samples_bytes(path, card.samples))):
        if wrong := unlike_row(row):
            raise _forged(path, f"line {number + 1} is no sample row ({wrong})")
        found.setdefault(row["task"], []).append(row)
    for score in card.scores:
        rows = found[score.task]
        if not rows:
            raise _forged(path, f"there are no rows of {score.task}")
        for row in rows:
            if row["values"].keys() != rows[0]["values"].keys() or score.main_metric not in row["values"]:
                raise _forged(path, f"row {row['index']} of {score.task} has other metrics than the score")
    return {task: sorted(rows, key=in_order) for task, rows in found.items()}


def _forged(path: Path, what: str) -> FinbenchError:
    return FinbenchError(f"The samples of {path} cannot be used: {what}.", f"finbench verify {path}")


def in_order(row: Mapping[str, Any]) -> tuple[int, int]:
    """Rows of a task are sorted by document, then by sample."""
    return int(row["index"]), int(row.get("sample", 0))


def unlike_row(row: dict[str, Any]) -> str:
    """What makes a line of a samples file no sample row; empty if it is one."""
    kinds = {"task": str, "index": int, "doc": str, "cluster": str, "values": dict}
    if lacking := [name for name in kinds if name not in row]:
        return f"lacks {', '.join(lacking)}"
    may: dict[str, type] = {
        "prompts": dict,
        "sample": int,
        "reading": str,
        "reasoning_tokens": int,
        "answer_tokens": int,
        "truncated": bool,
        "of": int,
        "confidence": int,
        "year": int,
    }
    kinds |= {name: kind for name, kind in may.items() if name in row}
    return next((f"{name} is of a wrong type" for name, kind in kinds.items() if type(row[name]) is not kind), "")


def parse_samples(path: Path) -> list[dict[str, Any]]:
    """The rows of a samples file, whoever it belongs to."""
    try:
        largest = min(_LARGEST, max(_SMALL, _RATIO * path.stat().st_size))
        with path.open("rb") as handle:
            stated = zstandard.frame_content_size(handle.read(64))  # -1: not stated
            handle.seek(0)
            with zstandard.ZstdDecompressor().stream_reader(handle, closefd=False) as stream:
                text = stream.read(largest + 1) if stated <= largest else b""
        if max(stated, len(text)) > largest or sum(map(text.count, (b",", b"[", b"{"))) > _MOST_PARTS:
            raise FinbenchError(f"{path} is larger than any samples file can be.", _OWN)
        if len(text) < stated:
            raise FinbenchError(f"{path} is torn: {len(text):,} of {stated:,} bytes are there.", _OWN)
        frame = zstandard.ZstdDecompressor().decompressobj()  # of a size that is known to be bearable
        frame.decompress(path.read_bytes())
        if hidden := len(frame.unused_data):
            raise FinbenchError(f"{path} has {hidden:,} bytes behind its samples, which no reader shows.", _OWN)
        if text.count(b"\n") * _SHORTEST > len(text) + _SHORTEST:  # each becomes an object of many times its size
            raise FinbenchError(f"{path} is no samples file: its lines are too short.", _OWN)
        rows = _parsed(text.decode("utf-8"))
    except (OSError, ValueError, RecursionError, zstandard.ZstdError) as fault:
        raise FinbenchError(f"{path} is missing or torn ({fault}).", _OWN) from fault
    if not all(isinstance(row, dict) for row in rows):
        raise FinbenchError(f"{path}: every line must be a JSON object.", _OWN)
    return rows


def _parsed(text: str) -> list[Any]:
    """The values of JSON lines; of a line that another card had too, the same object."""
    if not _sharing:
        return json_lines(text)
    found, kept = [], _sharing[-1]
    for line in filter(str.strip, text.split("\n")):
        if line not in kept:
            value = strict_json(line)
            kept.keep(line, SampleRow(value) if isinstance(value, dict) else value)
        found.append(kept[line])
    return found


@contextlib.contextmanager
def lock(folder: Path, patience: int | None = None) -> Iterator[None]:
    """Hold the folder while its files change; others wait. The lock goes with its process, even a killed one."""
    from filelock import FileLock, Timeout

    patience = patience or _PATIENCE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder / ".lock"), timeout=patience):
            yield
    except Timeout as fault:
        raise FinbenchError(
            f"Another process has been writing in {folder} for {patience} s.", "Wait for it, or choose another --out."
        ) from fault
    except OSError as fault:
        raise cannot_write(folder, fault) from fault


def write(path: Path, card: Scorecard, samples: Sequence[dict[str, Any]]) -> Scorecard:
    """Write samples, then the card that names and seals them; return the card as written.

    The samples of before stay beside the new ones until the card is written: a kill or a full disk in between
    leaves the earlier card with its own samples.
    """
    lines = "".join(stable_json(row) + "\n" for row in samples)
    target = samples_path(path)
    kept = _keep(target)
    try:
        write_atomic(target, zstandard.ZstdCompressor(level=10).compress(lines.encode("utf-8")))
        card = card.model_copy(update={"samples": sha256_file(target), "seal": None})
        card = card.model_copy(update={"seal": card_seal(json.loads(card.to_json()))})
        write_atomic(path, card.to_json())
    except BaseException:
        if kept:
            _previous(target).replace(target)
            _previous(target).unlink(missing_ok=True)  # renaming a file over its own second name does nothing
        else:
            target.unlink(missing_ok=True)
        raise
    _previous(target).unlink(missing_ok=True)
    return card


def _previous(samples: Path) -> Path:
    return samples.with_name(f".{samples.name}.previous")


def _keep(samples: Path) -> bool:
    """Give the samples of before a second name; False if there are none."""
    previous, card = _previous(samples), samples.with_name(samples.name.partition(".samples.")[0] + ".json")
    try:
        # a writer was killed: the card's own samples are these
        if previous.exists() and card.exists() and read(card).samples == sha256_file(previous):
            previous.replace(samples)  # does nothing where both are one file
        previous.unlink(missing_ok=True)
        if samples.exists():
            os.link(samples, previous)
        return samples.exists()
    except OSError as fault:
        raise cannot_write(samples, fault) from fault


def store(folder: Path, card: Scorecard, samples: dict[str, list[dict[str, Any]]]) -> tuple[Path, Scorecard]:
    """Write a card, with its samples by task, under a name that is free or that of its own run.

    Scores of the same run for other tasks, or for these by another process, are kept. Returns path and card.
    """
    with lock(folder):
        path = place_for(folder, card.subject.name, card.run_key)
        scores = {score.task: score for score in card.scores}
        if path.exists():
            samples, before = dict(samples), read(path)
            try:
                rows = rows_by_task(path, before)
            except FinbenchError:  # its samples are lost: scores without evidence are not carried on
                rows = {}
            for score in before.scores if rows else []:
                if score.task not in scores:
                    scores[score.task] = score
                    samples[score.task] = rows[score.task]
        # another one's score may be of a part of its test
        status = "partial" if any(score.data.share for score in scores.values()) else card.status
        merged = card.model_copy(update={"scores": [scores[name] for name in sorted(scores)], "status": status})
        return path, write(path, merged, [row for name in sorted(scores) for row in samples[name]])


def excerpt(path: Path, tasks: Collection[str], target: Path) -> None:
    """Write what a card says of some of its tasks, with their samples, as a card of its own."""
    with lock(path.parent):
        card = read(path)
        rows = rows_by_task(path, card)
    scores = [score for score in card.scores if score.task in tasks]
    write(target, card.model_copy(update={"scores": scores}), [row for score in scores for row in rows[score.task]])


def gather(paths: Iterable[Path], folder: Path) -> list[Path]:
    """Copy cards with their samples into a folder, where those of one run are one card; return where they are.

    Of two scores of one task the newer card's counts. A card that was edited, or whose samples are not whole, stays a
    file of its own, as it is.
    """
    found = []
    for card, path in sorted(((read(path), path) for path in paths), key=lambda one: one[0].provenance.created):
        whole = card.samples is not None and not edited(raw(path))
        try:
            rows = rows_by_task(path, card) if whole else {}
        except FinbenchError:
            whole = False
        if whole:
            found.append(store(folder, card, rows)[0])
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for name in (samples_path(path).name, path.name):  # a card comes after its samples: a stop leaves none without
            if path.with_name(name).is_file():
                write_atomic(folder / name, path.with_name(name).read_bytes())
        found.append(folder / path.name)
    return list(dict.fromkeys(found))


def run_key(card: Scorecard) -> str:
    """Digest of all that decides an answer except task and data: subject, settings, versions."""
    settings = card.model_dump(include={"engine", "shots", "limit", "seed", "arguments", "computed", "chat_template"})
    if card.generation is not None:
        plain = set() if card.generation.confidence else {"confidence"}  # cards from before have no such key
        settings["generation"] = card.generation.model_dump(exclude=plain)
    # what is for people; how a base is stored decides its fingerprint
    told: dict[str, Any] = {
        "name": True,
        "adapter_name": True,
        "adapter_source": True,
        "base": {"structure", "quantised"},
    }
    made_with = {"versions": card.provenance.packages, "finbench": card.provenance.finbench}
    return digest({"subject": card.subject.model_dump(exclude=told), "settings": settings, **made_with})


def slug(name: str) -> str:
    """A subject's name as that of a file."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower())[:_SLUG].strip("-.") or "subject"


def place_for(folder: Path, name: str, run_key: str) -> Path:
    """The file for a card of subject ``name``: an earlier one of the same run, else a name that is free.

    Evidence is never overwritten by a run with other settings: that gets the run's key in its name.
    """
    for candidate in (folder / f"{slug(name)}.json", folder / f"{slug(name)}-{run_key[:8]}.json"):
        if not candidate.exists() or read(candidate).run_key == run_key:
            return candidate
    raise FinbenchError(f"{folder} has a card of {name} that is not readable.", "Choose another --out.")
