"""The prose of filings: an instance's text blocks, an inline report's text, as paragraphs.

Text blocks hold HTML written as text, and nest (a note, and each policy and table in it); what stands in a longer one
is left out. A report is cut at its items ("Item 7."), which are its chapters.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from lxml import etree, html

from finbench.data.xbrl.inputs import documents
from finbench.data.xbrl.parsing import INLINE, XBRLI, Element, events, local, namespace, without_names

_LEAST = 200  # characters of a passage: less is a heading or a number
_LARGEST = 8 * 2**20  # characters of a text block; those of the largest banks are near 2 MiB
_BLOCK = frozenset(("p", "div", "table", "tr", "td", "th", "ul", "ol", "li", "br", "hr", "body", "section", "article"))
_BLOCK |= {"h1", "h2", "h3", "h4", "h5", "h6", "header", "footer", "blockquote"}
_CELL = frozenset(("td", "th"))
_UNSEEN = frozenset(("script", "style", "head", "title", "header"))
_ITEM = re.compile(r"^\s*item\s+\d{1,2}[a-c]?\s*[.:\u2014-]", re.IGNORECASE)


def passages(path: Path) -> Iterator[str]:
    """The passages of the filings in a file, folder or zip, each some paragraphs. Raises FinbenchError."""
    for document in documents(path):
        read = _of_report if document.kind == "inline" else _of_instance
        for name, data in ((document.name, document.data), *document.more):
            yield from (passage for passage in read(name, data) if len(passage) >= _LEAST)


def _of_instance(name: str, data: bytes) -> list[str]:
    blocks: list[str] = []
    for event, element in events(name, data):
        if event == "end" and element.get("contextRef") and not len(element) and namespace(element) != XBRLI:
            text = element.text or ""
            if _LEAST <= len(text) <= _LARGEST and "<" in text:
                # else there is nothing in it, or characters that XML does not allow
                with contextlib.suppress(etree.ParserError, ValueError):
                    root = html.fragment_fromstring(text, create_parent="div")
                    blocks.append("\n\n".join(_paragraphs(root)))
            element.clear()
    chosen: list[tuple[int, str]] = []
    for place, block in sorted(enumerate(blocks), key=lambda pair: -len(pair[1])):
        if not any(block in longer for _, longer in chosen):
            chosen.append((place, block))
    return [block for _, block in sorted(chosen)]


def _of_report(name: str, data: bytes) -> list[str]:
    read = events(name, without_names(data))
    _, root = next(read)
    for _ in read:  # to its end: then the tree is whole
        pass
    found: list[list[str]] = [[]]
    for paragraph in _paragraphs(root):
        if _ITEM.match(paragraph) and len(paragraph) < _LEAST:
            found.append([])
        found[-1].append(paragraph)
    return ["\n\n".join(part) for part in found]


def _paragraphs(root: Element) -> Iterator[str]:
    """The text below an element in its order, block by block; rows of tables that hold words and numbers are lines."""
    held: list[str] = []

    def flush() -> Iterator[str]:
        text = " ".join("".join(held).split())
        held.clear()
        if text and any(character.isalpha() for character in text):
            yield text

    # by hand, not by recursion: the parser allows 256 levels, and each would be a generator
    stack: list[tuple[Element, bool]] = [(root, False)]
    while stack:
        element, leaving = stack.pop()
        name = local(element).lower() if isinstance(element.tag, str) else ""
        if leaving:
            if name in _CELL or (name in _BLOCK and _in_cell(element)):
                held.append(" ")
            elif name in _BLOCK:
                yield from flush()
            held.append(element.tail or "" if element is not root else "")
            continue
        hidden = name in _UNSEEN or (name and namespace(element) in INLINE and name in ("header", "hidden"))
        if not name or hidden or "display:none" in (element.get("style") or "").replace(" ", ""):
            held.append(element.tail or "")
            continue
        if name in _BLOCK and name not in _CELL and not _in_cell(element):
            yield from flush()
        held.append(element.text or "")
        stack.append((element, True))
        stack.extend((child, False) for child in reversed(element))
    yield from flush()


def _in_cell(element: Element) -> bool:
    """Whether an element lies in a table's cell: a row stays one line."""
    above = (parent for parent in element.iterancestors() if isinstance(parent.tag, str))
    return any(local(parent).lower() in _CELL for parent in above)
