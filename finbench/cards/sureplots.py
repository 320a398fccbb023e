"""Plots of the risk page as SVG: the reliability diagram, risk against coverage, and a score by year."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from finbench.cards.overtime import OverTime
from finbench.cards.plots import _head, _text
from finbench.scoring.calibration import Calibration

_SIZE, _LEFT, _TOP, _BOTTOM = 340, 44, 48, 40
_SPAN = _SIZE - _LEFT - 16


def reliability(title: str, found: Calibration) -> str:
    """Accuracy over mean confidence, a dot for each bin, its area that of its documents; dashed: what is calibrated."""
    most = max(point.n for point in found.bins)
    dots = [
        f'<circle class="d" cx="{_x(point.confidence)}" cy="{_y(point.accuracy, 1)}" r="{_dot(point.n / most)}"/>'
        for point in found.bins
    ]
    line = "L".join(f"{_x(point.confidence)} {_y(point.accuracy, 1)}" for point in found.bins)
    diagonal = f'<path class="m" d="M{_x(0)} {_y(0, 1)}L{_x(1)} {_y(1, 1)}"/>'
    path = f'<path class="w" fill="none" d="M{line}"/>'
    return _plot(title, "accuracy, %", "confidence, %", 1, [diagonal, path, *dots])


def coverage(title: str, found: Calibration) -> str:
    """Share of wrong answers among those taken, over the share that is taken; dashed: where all are taken."""
    top = next(end for end in (0.1, 0.2, 0.5, 1.0) if end >= max(wrong for _, wrong in found.curve))
    line = "L".join(f"{_x(share)} {_y(wrong, top)}" for share, wrong in found.curve)
    all_of_them = found.curve[-1][1]
    level = f'<path class="m" d="M{_x(0)} {_y(all_of_them, top)}H{_x(1)}"/>'
    return _plot(title, "wrong, %", "answers taken, %", top, [level, f'<path class="w" fill="none" d="M{line}"/>'])


def by_year(title: str, found: OverTime) -> str:
    """A dot for each year with its 95 % interval, its area that of its documents; dashed: the base's cut-off."""
    years = [int(part.name) for part in found.years]
    end = found.cutoff.year if found.cutoff else years[-1]
    first, last = min(years[0], end) - 1, max(years[-1], end) + 1
    ends = [end for part in found.years for end in part.score.interval or (part.score.value,)]
    top = 1.0 if max(ends) <= 1 else max(ends)
    most, marks = max(part.n for part in found.years), []
    if found.cutoff:
        at = _x((end - first) / (last - first))
        marks.append(f'<path class="m" d="M{at} {_y(0, top)}V{_y(top, top)}"/>')
    for year, part in zip(years, found.years, strict=True):
        at = _x((year - first) / (last - first))
        low, high = part.score.interval or (part.score.value, part.score.value)
        marks.append(f'<path class="w" style="opacity:.45" d="M{at} {_y(low, top)}V{_y(high, top)}"/>')
        marks.append(f'<circle class="d" cx="{at}" cy="{_y(part.score.value, top)}" r="{_dot(part.n / most)}"/>')
    named = "year" + (", dashed: cut-off" if found.cutoff else "")
    ticks = [(_x((year - first) / (last - first)), str(year)) for year in _some(first + 1, last - 1)]
    return _plot(title, "score, %" if top == 1 else "score", named, top, marks, ticks)


def _some(first: int, last: int) -> range:
    """At most six years from the first to the last."""
    return range(first, last + 1, max(1, math.ceil((last - first + 1) / 6)))


def _dot(share: float) -> float:
    return round(5 * math.sqrt(share), 1)


def _x(share: float) -> float:
    return round(_LEFT + share * _SPAN, 1)


def _y(share: float, top: float) -> float:
    return round(_SIZE - _BOTTOM - share / top * (_SIZE - _TOP - _BOTTOM), 1)


def _plot(
    title: str, upwards: str, across: str, top: float, marks: list[str], ticks: Sequence[tuple[float, str]] = ()
) -> str:
    """``ticks``: place and text of those below; default: shares from 0 to 100 %."""
    parts = [
        _head(f"{title}: {upwards} over {across}", _SIZE, _SIZE),
        f'<text x="0" y="14" style="font-weight:600">{escape(title)}</text>',
        _text(0, 29, upwards, "s"),
    ]
    for tick in range(6):
        share = tick / 5
        parts.append(f'<path class="g" d="M{_LEFT} {_y(share * top, top)}H{_x(1)}"/>')
        parts.append(_text(_LEFT - 6, _y(share * top, top) + 4, f"{100 * share * top:g}", "s", "end"))
    for at, said in ticks or [(_x(tick / 5), f"{20 * tick}") for tick in range(6)]:
        parts.append(_text(at, _SIZE - _BOTTOM + 16, said, "s", "middle"))
    parts.append(_text(_x(1), _SIZE - 6, across, "s", "end"))
    return "\n".join([*parts, *marks, "</svg>"]) + "\n"
