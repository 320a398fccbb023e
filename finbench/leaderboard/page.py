"""The page: a light first screen, a page a task, a subject and a comparison, and the scripts that hold their data.

Everything is a file that a browser opens from disk or from any static host. Data are scripts, since pages from disk
may not fetch, and are read when a reader asks for them. A content security policy allows nothing from elsewhere. Text
from cards travels as JSON and is put into a page as text.
"""

from __future__ import annotations

import functools
import html
import importlib.resources
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finbench.cards import from_template
from finbench.core.files import digest
from finbench.leaderboard import charts, details, feeds, published
from finbench.leaderboard.board import Board
from finbench.leaderboard.payload import LEVELS, BoardSubject, Payload, detail_name, file_of, script_json
from finbench.leaderboard.rows import BoardTest

PAGE = "page"  # folder of all but the first screen
MARK = "finbench leaderboard"  # in a comment at the head of each file there: what lacks it is not ours to remove
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'"
)


@dataclass(frozen=True)
class PagePart:
    """A file of the page that takes its time: ``inputs``, the digest of all that it is made from, and its text.

    Equal inputs give equal text, so that a build need not make one anew whose file is known. None: nobody knows.
    """

    inputs: str | None
    text: Callable[[], str]


def files(board: Board, blocks: Sequence[published.PublishedScore] = ()) -> Iterator[tuple[str, str | PagePart]]:
    """Name and content of ``index.html``, ``feed.atom`` and all of ``page/``."""
    made = Payload(board)
    heads, overview = made.heads(), made.overview()
    templates = importlib.resources.files("finbench").joinpath("templates/leaderboard")
    newest = max((entry.card.provenance.created for entry in board.entries), default="")[:10]
    values = {"board": board, "published": blocks, "marks": published.marks, "levels": LEVELS, "newest": newest}
    values |= {"families": heads["families"], "first": script_json(made.first(overview))}
    yield "index.html", _html("page", **values)
    yield "feed.atom", feeds.atom(made)
    for name in ("board.css", "board.js"):
        yield f"{PAGE}/{name}", f"/* {MARK} */\n{templates.joinpath(name).read_text('utf-8')}"
    yield f"{PAGE}/charts.js", PagePart(digest(charts.libraries()), _drawing)
    yield f"{PAGE}/heads.js", script("heads", heads)
    yield f"{PAGE}/cards.js", script("cards", made.cards)
    yield f"{PAGE}/overview.js", script("overview", overview)
    shell = _Shell()
    yield f"{PAGE}/compare.html", shell.page("compare", "", "Two subjects side by side", "")
    for test in board.tests:
        yield from _task(test, made, shell)
    for subject in made.subjects.values():
        yield from _subject(subject, made, shell)
    for entry, inputs, make in details.of(board):
        part = f"details/{detail_name(entry)}"
        yield f"{PAGE}/{part}.js", PagePart(inputs and digest(inputs), functools.partial(_detail, part, make))


def _detail(part: str, make: Callable[[], dict[str, Any]]) -> str:
    return script(part, make())


def script(part: str, value: Any) -> str:
    """A file that gives ``value`` to the script of the page. A text of JSON is read faster than code is."""
    text = script_json(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"/* {MARK} */\nfinbench({script_json(part)}, '{text}');\n"


def same(name: str, one: str, other: str) -> bool:
    """Two files are alike; the drawing may have been made by other versions of its libraries, which its head names."""
    drawn = name == f"{PAGE}/charts.js" and one.partition("\n")[0] != other.partition("\n")[0]
    return one == other or (drawn and one.startswith(f"/* {MARK}: "))


def ours(head: str) -> bool:
    """Whether a file under ``page/`` that begins so was written by a build."""
    return re.match(rf"(/\* |<!-- |<!doctype html><!-- ){MARK}[ :]", head) is not None


def _drawing() -> str:
    drawing = script("charts", charts.scatter()) + charts.bundle()
    return drawing.replace(MARK, f"{MARK}: {charts.libraries()}", 1)


def _task(test: BoardTest, made: Payload, shell: _Shell) -> Iterator[tuple[str, str]]:
    at = f"{PAGE}/task/{file_of(test)}"
    yield f"{at}.html", shell.page("task", test.key, test.title, "../")
    yield f"{at}.js", script(f"task/{file_of(test)}", made.rows(test))


def _subject(subject: BoardSubject, made: Payload, shell: _Shell) -> Iterator[tuple[str, str]]:
    at, card = f"{PAGE}/subject/{subject.who}", made.cards[subject.card]
    yield f"{at}.html", shell.page("subject", subject.who, card["name"], "../")
    yield f"{at}.js", script(f"subject/{subject.who}", made.subject(subject))
    yield f"{at}.svg", feeds.badge(subject, card)


class _Shell:
    """The page around a table, which the script fills: rendered once for each kind of page, not for each subject."""

    def __init__(self) -> None:
        self.rendered: dict[str, str] = {}

    def page(self, view: str, key: str, title: str, root: str) -> str:
        if view not in self.rendered:
            self.rendered[view] = _html("shell", view=view, root=root)
        return self.rendered[view].replace("%key%", key).replace("%title%", html.escape(title))


def _html(template: str, **values: Any) -> str:
    text = from_template(f"leaderboard/{template}.html.j2", escape=True, policy=_POLICY, **values)
    return text.replace("<!doctype html>", f"<!doctype html><!-- {MARK} -->", 1)
