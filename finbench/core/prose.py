"""Lines of generated Markdown: prose of at most 100 characters, tables and fences as they are."""

from __future__ import annotations

import re
import textwrap

WIDTH = 100
_ITEM = re.compile(r"\s*(?:[-*]|\d+\.)\s+")
_APART = ("|", "#", "<!--", "![", "---")  # lines that are no part of a paragraph
_STARTS_A_LIST = re.compile(r" (?=(?:[-+*>#]+|\d+[.)])(?:\s|$))")  # such a word must not begin a line


def wrapped(page: str) -> str:
    """The page with its long paragraphs and list items filled anew; whatever fits stays as it is."""
    lines: list[str] = []
    block: list[str] = []
    fenced = False

    def end() -> None:
        lines.extend(_filled(block) if any(len(line) > WIDTH for line in block) else block)
        block.clear()

    for line in page.split("\n"):
        bare = line.strip()
        if bare.startswith("```"):
            fenced = not fenced
        if fenced or not bare or bare.startswith(("```", *_APART)):
            end()
            lines.append(line)
            continue
        if _ITEM.match(line):
            end()
        block.append(line)
    end()
    return "\n".join(lines)


def _filled(block: list[str]) -> list[str]:
    found = _ITEM.match(block[0])
    start = found[0] if found else block[0][: len(block[0]) - len(block[0].lstrip())]
    text = " ".join([block[0][len(start) :].strip(), *(line.strip() for line in block[1:])])
    filled = textwrap.wrap(
        _STARTS_A_LIST.sub("\0", text),
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in filled]
