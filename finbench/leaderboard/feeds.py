"""What other programs show of the board: an Atom feed of new cards, and a badge for each subject's model card."""

from __future__ import annotations

import math
import re
import uuid
from html import escape
from typing import Any

from finbench.cards import in_brackets
from finbench.leaderboard import precedence
from finbench.leaderboard.payload import BoardSubject, Payload
from finbench.leaderboard.rows import BoardCard, BoardRow, BoardTest
from finbench.scoring import metrics

_NEWEST = 50  # entries of the feed
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # which no escape may stand for
_COLOURS = {"self-reported": "#8a5000", "samples-attached": "#1f5f8f", "reproduced": "#1d6b3c", "revoked": "#68727f"}
_LETTER = 6.6  # pixels, of the widest usual letters


def atom(made: Payload) -> str:
    """The cards that came last, the newest first, with what they scored."""
    found: dict[str, list[tuple[BoardTest, BoardRow]]] = {}
    for test in made.board.tests:
        for row in test.rows:
            for run in row.runs or (row,):
                found.setdefault(run.entry.key, []).append((test, run))
    # a card that the order of arrival does not name came last
    order = sorted(
        made.board.entries, key=lambda one: (one.arrival, one.card.provenance.created, one.key), reverse=True
    )
    entries = [_entry(entry, made.cards[made.place[entry.key]], found.get(entry.key, [])) for entry in order[:_NEWEST]]
    first = order[-1].key + str(order[-1].card.run_key) if order else ""  # of the card that came first, which stays
    newest = max((entry.card.provenance.created for entry in order[:_NEWEST]), default="1970-01-01T00:00:00+00:00")
    return f"""<?xml version="1.0" encoding="utf-8"?>
<!-- finbench leaderboard -->
<feed xmlns="http://www.w3.org/2005/Atom">
<title>finbench leaderboard: new cards</title>
<id>{uuid.uuid5(uuid.NAMESPACE_URL, f"finbench leaderboard {first}").urn}</id>
<link rel="alternate" href="index.html"/>
<link rel="self" href="feed.atom"/>
<updated>{_xml(newest)}</updated>
{"".join(entries)}</feed>
"""


def _entry(entry: BoardCard, card: dict[str, Any], rows: list[tuple[BoardTest, BoardRow]]) -> str:
    told = [
        f"{test.title}{'' if test.whole else ' (partial)'}: {metrics.spoken(test.score.main_metric)} "
        f"{in_brackets(row.main, test.share)}"
        for test, row in rows
    ]
    # of the card's answers, so that a card that is only scored anew is no new entry
    mark = uuid.uuid5(uuid.NAMESPACE_URL, f"finbench card {entry.key} {entry.card.run_key}").urn
    return f"""<entry>
<title>{_xml(entry.name)}</title>
<id>{mark}</id>
<link rel="alternate" href="page/subject/{card["who"]}.html"/>
<updated>{_xml(entry.card.provenance.created)}</updated>
<author><name>{_xml((entry.card.subject.adapter_source or "not stated").partition("/")[0])}</name></author>
<summary>{_xml(f"{card['what']} on {card['base']}, {entry.level}. " + "; ".join(told))}</summary>
</entry>
"""


def badge(subject: BoardSubject, card: dict[str, Any]) -> str:
    """In how many tests a subject is in the first group, coloured by the weakest evidence that this rests on."""
    best = [max((row.group == 1 for row in rows), default=False) for rows in subject.rows.values()]
    every = [row for rows in subject.rows.values() for row in rows]
    counted = [row for row in every if row.group == 1] or every
    levels = [run.entry.level for row in counted for run in row.runs or (row,)] + [card["level"]]
    level = min(levels, key=lambda one: precedence.STRENGTH[one])
    many = "1 test" if len(best) == 1 else f"{len(best)} tests"
    said = f"group 1 in {sum(best)} of {many}" if any(best) else many
    said += {"self-reported": ", self-reported", "revoked": ", revoked"}.get(level, "")
    left, right = 12 + math.ceil(len("finbench") * _LETTER), 12 + math.ceil(len(said) * _LETTER)
    full = f"{card['name']} on the finbench leaderboard: {said} ({level})"
    return f"""<!-- finbench leaderboard -->
<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img">
<title>{_xml(full)}</title>
<rect width="{left + right}" height="20" rx="3" fill="#454d57"/>
<path d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{right - 3}z" fill="{_COLOURS[level]}"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{left / 2}" y="14">finbench</text>
<text x="{left + right / 2}" y="14">{said}</text>
</g>
</svg>
"""


def _xml(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))
