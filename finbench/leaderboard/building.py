"""A leaderboard folder: cards in, tables and page out; and whether what lies there is what the cards give."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import itertools
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles
from finbench.core import copies, environment
from finbench.core.errors import FinbenchError
from finbench.core.files import write_atomic
from finbench.leaderboard import charts, known, page, published, tables
from finbench.leaderboard.board import Board, board
from finbench.leaderboard.known import Kept
from finbench.leaderboard.page import PagePart
from finbench.leaderboard.reading import entries, read
from finbench.leaderboard.store import SCORECARDS

_PATIENCE = 3600  # seconds for which a build waits for another one of the same folder, which may be of thousands
_TORN = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # how ``write_atomic`` names what a kill may leave
PARQUET = "leaderboard.parquet"  # written where pyarrow is, and beside the cards on the Hub; not meant for Git


Tables = dict[str, Callable[[], str | bytes]]  # by the names of their files


@dataclass(frozen=True)
class Built:
    """What was made of a folder: the board, the files in it, and which of them are not as they should be."""

    folder: Path
    board: Board
    files: list[str]
    stale: list[str] = field(default_factory=list)

    @property
    def stale_named(self) -> str:
        """The first stale files, and how many more there are."""
        more = len(self.stale) - 6
        return ", ".join(self.stale[:6]) + (f" and {more:,} more" if more > 0 else "")

    @property
    def refusals(self) -> list[str]:
        """What is wrong with cards that are not shown, a line a fault."""
        return [f"{one.file}: {fault}" for one in self.board.refused for fault in one.faults]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "folder": str(self.folder),
            "cards": len(self.board.entries),
            "tests": len(self.board.tests),
            "refused": {one.file: one.faults for one in self.board.refused},
            "files": self.files,
            "stale": self.stale,
        }


@environment.uncollected()
def build(folder: Path = Path("leaderboards"), *, check: bool = False, trusted: Path | None = None) -> Built:
    """Write the tables (``leaderboard.md``, csv, json, parquet) and the page (``index.html``, ``page/``, a feed).

    Only files that change are written, by one build at a time, which reads the cards when it is its turn. Those of
    ``page/`` that an earlier build wrote and this one has not are removed.

    Every card is verified first; one in which something is wrong is not shown, stops no other and stands in
    ``board.refused``. With ``check`` nothing is written, and ``stale`` names the files that are not what the cards
    give. Raises FinbenchError for a folder without cards.
    ``trusted``: a leaderboard whose keys and order of arrival are believed, not those in ``folder``.
    """
    _has_cards(folder)
    with contextlib.nullcontext() if check else cardfiles.lock(folder / page.PAGE, _PATIENCE):
        cards = read(folder, trusted)
        made, blocks = board(cards.entries, cards.refused), published.read(folder)
        shown = _tables(made, blocks)
        if check:
            return _checked(folder, made, shown, blocks)
        names = {*shown}
        with (
            known.kept("parts", str(folder.resolve())) as parts,
            copies.meanwhile(functools.partial(_write_tables, folder, shown), worth=made.large) as written,
        ):
            for name, content in page.files(made, blocks):
                names.add(name)
                _write(folder, name, content, parts)
            written()
        for name in _left_over(folder, names):
            (folder / name).unlink()
    return Built(folder, made, sorted(names))


def _checked(folder: Path, made: Board, shown: Tables, blocks: Sequence[published.PublishedScore]) -> Built:
    """What was made, and which files are not what it gives."""
    own = ((name, make()) for name, make in shown.items() if name != PARQUET or (folder / PARQUET).is_file())
    # a board may keep its page out of Git
    pages = page.files(made, blocks) if (folder / "index.html").is_file() else ()
    names, stale = set(), []
    for name, content in itertools.chain(own, pages):
        names.add(name)
        if _stale(folder, name, content.text() if isinstance(content, PagePart) else content):
            stale.append(name)
    return Built(folder, made, sorted(names), sorted([*_left_over(folder, names), *stale]))


def _tables(made: Board, blocks: Sequence[published.PublishedScore]) -> Tables:
    """Every table by the name of its file, made when it is called."""
    columns = functools.cache(functools.partial(tables.columns, made))
    found: Tables = {
        "leaderboard.md": lambda: tables.markdown(made, blocks),
        "leaderboard.csv": lambda: tables.as_csv(columns()),
        "leaderboard.json": lambda: tables.as_json(columns()),
    }
    if importlib.util.find_spec("pyarrow"):
        found[PARQUET] = lambda: tables.as_parquet(columns())
    return found


def _write_tables(folder: Path, shown: Tables) -> None:
    for name, make in shown.items():
        _write(folder, name, make(), known.Kept())


def _head(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return stream.read(200).decode("utf-8", "replace")


def _stale(folder: Path, name: str, content: str | bytes) -> bool:
    """Whether a file is not what it should be."""
    path = folder / name
    if not path.is_file():
        return True
    there = path.read_bytes()
    if isinstance(content, bytes):
        return not tables.same_parquet(there, content)
    return not page.same(name, there.decode("utf-8", "replace"), content)


def _write(folder: Path, name: str, content: str | bytes | PagePart, parts: Kept) -> None:
    """Write a file unless it is there as it should be: as ``parts`` says what such inputs give, or as it is made."""
    path = folder / name
    there = path.read_bytes() if path.is_file() else None
    if isinstance(content, PagePart):
        before = parts.before.get(name)
        if there is not None and before == [content.inputs, hashlib.sha256(there).hexdigest()]:
            parts.used[name] = before
            return
        inputs, content = content.inputs, content.text()
        if inputs is not None:
            parts.used[name] = [inputs, hashlib.sha256(content.encode()).hexdigest()]
    data = content.encode() if isinstance(content, str) else content
    if there != data:
        write_atomic(path, data)


def _left_over(folder: Path, names: Collection[str]) -> list[str]:
    """Files that an earlier build wrote and this one has not; what else lies there is not ours to remove."""

    def place(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    def torn(path: Path) -> bool:
        made = _TORN.fullmatch(path.name)
        return made is not None and place(path.with_name(made[1])) in names

    there = [path for path in (folder / page.PAGE).rglob("*") if path.is_file() and place(path) not in names]
    left = [path for path in there if torn(path) or page.ours(_head(path))]
    return [place(path) for path in [*left, *filter(torn, folder.iterdir())]]


def _has_cards(folder: Path) -> None:
    if not (folder / SCORECARDS).is_dir():
        raise FinbenchError(
            f"{folder} is no leaderboard: it has no folder {SCORECARDS}.",
            f"Add a card: finbench leaderboard add CARD --to {folder}",
        )


def pictures(folder: Path, out: Path) -> list[Path]:
    """PNG of score against cost for every test of at least two subjects, for model cards and documents."""
    _has_cards(folder)
    written = []
    for test in board(entries(folder)).tests:
        if len(test.rows) > 1 and any(row.cost is not None for row in test.rows):
            path = out / f"{cardfiles.slug(test.title)}-{test.key}.png"
            write_atomic(path, charts.png(test))
            written.append(path)
    return written
