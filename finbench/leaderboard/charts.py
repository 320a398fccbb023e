"""Score against cost and against memory: one Vega-Lite drawing for the page, and the same as PNG.

The pages get the drawing once, with places to fill in (``%metric%`` and the like), and the bundle of vl-convert that
draws it, so that they need no network and no ``eval``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.installing import install
from finbench.leaderboard.rows import BoardRow, BoardTest

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
_WIDE = 20  # times from least to most, from which on the axis is logarithmic
_NAMED = 4  # points of a front that can all be named
AXES = {
    "cost": "Seconds of the machine for 1,000 documents",
    "memory": "Peak memory while answering, GB",
    "thinking": "Tokens of reasoning an answer",
    "price": "USD for 1,000 documents",
}


def scatter() -> dict[str, Any]:
    """Vega-Lite of score over what it costs: interval, point, and the front as steps; data are named ``rows``.

    FinbenchError where altair is not installed.
    """
    try:
        import altair as alt
    except ImportError as fault:
        raise FinbenchError("The leaderboard's charts need altair and vl-convert-python.", install("board")) from fault
    x = alt.X("x:Q", title="%axis%", scale=alt.Scale(type="linear", zero=False, padding=24, nice=True))
    y = alt.Y("score:Q", title="%metric%", scale=alt.Scale(zero=False, padding=22, nice=True))
    colour = alt.Color("method:N", title=None, scale=alt.Scale(scheme="tableau10"))
    tips = [
        alt.Tooltip("name:N", title="subject"),
        alt.Tooltip("method:N"),
        alt.Tooltip("said:N", title="%metric%"),
        alt.Tooltip("x:Q", title="%axis%", format=",.3~r"),
        alt.Tooltip("machine:N"),
    ]
    rows = alt.Chart(alt.NamedData("rows"))
    on_front = rows.transform_filter("datum.front")
    steps = on_front.mark_line(interpolate="step-after", strokeDash=[4, 3], strokeWidth=1.5, opacity=0.7).encode(
        x=x, y=y, detail="machine:N", order="x:Q", color=alt.value("%soft%")
    )
    measured = rows.transform_filter("datum.low !== null")
    whiskers = measured.mark_rule(strokeWidth=1.5, opacity=0.45).encode(x=x, y="low:Q", y2="high:Q", color=colour)
    points = rows.mark_point(filled=True, size=80, opacity=0.95).encode(
        x=x, y=y, color=colour, tooltip=tips, shape=alt.Shape("kind:N", legend=None)
    )
    # a front rises from left to right: names below its left and above its right cannot cover each other
    left = rows.transform_filter("datum.named && !datum.right").mark_text(
        align="left", dx=6, dy=15, fontSize=11, limit=190
    )
    right = rows.transform_filter("datum.named && datum.right").mark_text(
        align="right", dx=-6, dy=-9, fontSize=11, limit=190
    )
    names = [side.encode(x=x, y=y, text="name:N", color=alt.value("%ink%")) for side in (left, right)]
    drawn = alt.layer(steps, whiskers, points, *names).properties(width="container", height=260)
    spec: dict[str, Any] = json.loads(drawn.to_json(validate=True))
    spec["autosize"] = {"type": "fit", "contains": "padding"}
    return spec


def libraries() -> str:
    """What drew the page, for its reader and for comparing two pages; FinbenchError where that is not installed."""
    try:
        return ", ".join(f"{name} {version(name)}" for name in ("altair", "vl-convert-python"))
    except PackageNotFoundError as fault:
        raise FinbenchError("The leaderboard's page needs altair and vl-convert-python.", install("board")) from fault


@functools.cache
def bundle() -> str:
    """JavaScript of Vega, Vega-Lite and Vega-Embed in one; FinbenchError where vl-convert is not installed."""
    try:
        import vl_convert
    except ImportError as fault:
        raise FinbenchError("The leaderboard's page needs altair and vl-convert-python.", install("board")) from fault
    return str(vl_convert.javascript_bundle(_SNIPPET))


def point(test: BoardTest, row: BoardRow) -> dict[str, Any] | None:
    """A row as the drawing's data; None where its cost was not measured."""
    if row.cost is None:
        return None
    card = row.entry.card
    scale = 100 if test.share else 1
    main = row.main
    return {
        "name": row.name,
        "method": card.subject.method or card.subject.kind,
        "kind": card.subject.kind,
        "machine": row.entry.machine,
        "x": row.cost,
        "score": scale * main.value,
        "low": None if main.low is None else scale * main.low,
        "high": None if main.high is None else scale * main.high,
        "said": f"{scale * main.value:.1f}" if test.share else f"{main.value:.3f}",
        "front": row.on_cost_front,
    }


def _with_names(points: Sequence[Mapping[str, Any]], lower_is_better: bool) -> list[Mapping[str, Any]]:
    """Points of the front, the best first; of a long one its ends only, and none whose name another would cover."""
    front = sorted((one for one in points if one["front"]), key=lambda one: float(one["score"]))
    best_first = front if lower_is_better else front[::-1]
    scores = [one[key] for one in points for key in ("score", "low", "high") if one[key] is not None]
    named: list[Mapping[str, Any]] = []
    for one in best_first if len(front) <= _NAMED else [best_first[0], best_first[-1]]:
        if all(abs(other["score"] - one["score"]) >= (max(scores) - min(scores)) / 10 for other in named):
            named.append(one)
    return named


def png(test: BoardTest) -> bytes:
    """Score against cost in a test as PNG, for model cards and documents."""
    import vl_convert

    text = json.dumps(scatter())
    words = {"%axis%": AXES["cost"], "%metric%": test.measured, "%soft%": "#68727f", "%ink%": "#1c2430"}
    for place, word in words.items():
        text = text.replace(json.dumps(place), json.dumps(word))
    spec = json.loads(text)
    points = [made for row in test.rows if (made := point(test, row)) is not None]
    at = [one["x"] for one in points]
    named = _with_names(points, test.lower_is_better)
    for one in points:
        one["named"] = any(one is end for end in named)
        one["right"] = one["x"] > (min(at) + max(at)) / 2
    spec |= {"datasets": {"rows": points}, "width": 640, "title": f"{test.title} (n = {test.score.n:,})"}
    if at and min(at) > 0 and max(at) > _WIDE * min(at):  # only a logarithmic axis shows them
        for layer in spec["layer"]:
            if "x" in layer["encoding"]:
                layer["encoding"]["x"]["scale"] |= {"type": "log", "nice": False}
                del layer["encoding"]["x"]["scale"]["zero"]  # a logarithm has none
    return bytes(vl_convert.vegalite_to_png(json.dumps(spec), scale=2))
