"""The plot of a model card: dots with 95 % intervals, base and adapter, task by task, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from finbench.cards import shorten_name
from finbench.core.catalog import PREFIX
from finbench.core.records import Measure, Score, Scorecard
from finbench.scoring import metrics

_SCALE = 2  # pixels a point: sharp on dense screens
_TALL = 8  # rows from which the scale is written above them too
_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 720, 210, 70, 46, 44
_INK, _PALE, _GRID, _BASE, _OWN = "#1c2430", "#68727f", "#dfe4ea", "#8a94a0", "#2f6f9f"


def ordered(cards: Sequence[Scorecard], trained: Sequence[str]) -> list[tuple[Scorecard, Score]]:
    """Every score with its card: what the adapter was trained on comes first, in its recipe's order."""
    pairs = [(card, score) for card in cards for score in card.scores]
    return sorted(pairs, key=lambda pair: trained.index(pair[1].task) if pair[1].task in trained else len(trained))


def scores(cards: Sequence[Scorecard], base_cards: Sequence[Scorecard], trained: Sequence[str] = ()) -> bytes:
    """A PNG of the main scores that are shares of 1, in the order of ``ordered``; equal cards give equal bytes."""
    rows = _rows(ordered(cards, trained), base_cards)
    height = _TOP + _ROW * max(1, len(rows)) + 40
    image = Image.new("RGB", (_WIDTH * _SCALE, height * _SCALE), "white")
    draw, font, small = ImageDraw.Draw(image), _font(13), _font(11)
    _text(draw, 16, 14, f"{cards[0].subject.name[:48]} beside its base", _INK, _font(14))
    bottom = height - 36
    for tick in range(0, 101, 20):
        at = _x(tick / 100)
        _line(draw, (at, _TOP), (at, bottom), _GRID, 1)
        _text(draw, at, bottom + 4, str(tick), _PALE, small, "ma")
        if len(rows) > _TALL:
            _text(draw, at, _TOP - 4, str(tick), _PALE, small, "md")
    for place, (label, about, own, base) in enumerate(rows):
        y = _TOP + _ROW * place + _ROW // 2
        _text(draw, 16, y - 14, label, _INK, font)
        _text(draw, 16, y + 3, about, _PALE, small)
        for measure, colour, shift in ((base, _BASE, 8), (own, _OWN, -8)):
            if measure is not None:
                if measure.interval is not None:
                    low, high = map(_x, measure.interval)
                    _line(draw, (low, y + shift), (high, y + shift), colour, 2)
                _dot(draw, _x(measure.value), y + shift, colour)
                _text(draw, _WIDTH - _RIGHT + 14, y + shift - 7, f"{100 * measure.value:.1f}", colour, small)
    _text(draw, 16, height - 20, "blue: this adapter   grey: its base   whiskers: 95 % intervals", _PALE, small)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _rows(
    pairs: Sequence[tuple[Scorecard, Score]], base_cards: Sequence[Scorecard]
) -> list[tuple[str, str, Measure, Measure | None]]:
    """Task, metric and number of documents, the adapter's score, the base's."""
    found = []
    for card, score in pairs:
        if metrics.is_share(score.main_metric):
            base = base_score(card, score, base_cards)
            about = f"{metrics.spoken(score.main_metric)}, n = {score.n:,}"
            label = shorten_name(score.task.removeprefix(PREFIX), 27)
            found.append((label, shorten_name(about, 34), score.main, base.main if base else None))
    return found


def base_score(card: Scorecard, score: Score, base_cards: Sequence[Scorecard]) -> Score | None:
    """The base's score in the very same exam: task, data, shots, template."""
    for other in base_cards:
        same = other.shots == card.shots and other.subject.chat == card.subject.chat and other.limit == card.limit
        for found in other.scores:
            if same and found.task_digest == score.task_digest and found.data.digest == score.data.digest:
                return found
    return None


def _x(share: float) -> float:
    return _LEFT + min(max(share, 0), 1) * (_WIDTH - _LEFT - _RIGHT)


def _font(size: int) -> Any:
    return ImageFont.load_default(size * _SCALE)


def _text(draw: Any, x: float, y: float, text: str, colour: str, font: Any, anchor: str = "la") -> None:
    draw.text((x * _SCALE, y * _SCALE), text, fill=colour, font=font, anchor=anchor)


def _line(draw: Any, start: tuple[float, float], end: tuple[float, float], colour: str, width: int) -> None:
    draw.line([(x * _SCALE, y * _SCALE) for x, y in (start, end)], fill=colour, width=width * _SCALE)


def _dot(draw: Any, x: float, y: float, colour: str) -> None:
    radius = 4.5
    draw.ellipse(
        [(x - radius) * _SCALE, (y - radius) * _SCALE, (x + radius) * _SCALE, (y + radius) * _SCALE], fill=colour
    )
