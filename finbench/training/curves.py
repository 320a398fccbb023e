"""A training as curves: a line in the terminal while it runs, a page when it is done, a picture for its card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finbench.cards import from_template, plots
from finbench.core.files import write_atomic
from finbench.core.records import Adapter, Training

PAGE, PICTURE = "training.html", "training.svg"
_BARS = "▁▂▃▄▅▆▇█"
_WIDE = 12  # bars of the terminal's line
_POINTS = 240  # of a curve on the page
_HIDDEN = 30  # first points may be far above the rest: one in so many is left out

Points = Sequence[tuple[float, float]]  # (step, value)


def sparkline(values: Sequence[float]) -> str:
    """``values`` as bars between their least and their most, each a mean of like many; those that are none left out."""
    found = [value for value in values if math.isfinite(value)]
    if not found:
        return ""
    count = min(_WIDE, len(found))
    parts = [found[len(found) * at // count : len(found) * (at + 1) // count] for at in range(count)]
    means = [sum(part) / len(part) for part in parts]
    low, span = min(means), max(means) - min(means)
    return "".join(_BARS[min(7, int(8 * (mean - low) / span))] if span else _BARS[0] for mean in means)


def running(log: Sequence[Mapping[str, Any]]) -> str:
    """A training so far, on a line: its loss with its course, and that of held-out rows."""
    losses = [float(entry["loss"]) for entry in log if "loss" in entry]
    held = [float(entry["eval_loss"]) for entry in log if "eval_loss" in entry]
    shown = f"loss {losses[-1]:.3f} {sparkline(losses)}" if losses else ""
    return f"{shown}  held out {held[-1]:.3f}" if held else shown


def picture(name: str, training: Training) -> str:
    """The loss over steps as an SVG with a background of its own; of held-out rows too, and which step was kept."""
    found, held = smooth(training.loss_curve), training.validation
    series = {"train": found, **({"held out": held.loss} if held else {})}
    mark = held.selected if held else None
    return plots.curves(name[:48], _unit(training), series, _top(series), mark=mark, page=True)


def write(adapter: Adapter, log: Sequence[Mapping[str, Any]], samples: Sequence[Any], out: Path) -> None:
    """``training.html``: one self-contained page, no script, no request. ``training.svg``: the card's picture."""
    training, held = adapter.training, adapter.training.validation
    mark = held.selected if held else None
    loss = {"train": smooth(_of(log, "loss")), **({"held out": held.loss} if held else {})}
    figures = [plots.curves("Loss", _unit(training), loss, _top(loss), mark=mark)]
    if held and held.measure != "loss":
        figures.append(plots.curves("Held-out rows", held.measure, {held.measure: held.curve}, mark=mark))
    for title, about, key in (
        ("Accuracy", "share of a step's pairs whose chosen answer gained more", "accuracy"),
        ("Margin", "beta times what the chosen answer gained more, in nats", "margin"),
        ("Learning rate", "", "learning_rate"),
        ("Gradient norm", "before clipping", "grad_norm"),
        ("Speed", "tokens a second, without padding", "tokens_per_second"),
        ("Memory", "GB of the first process", "memory_gb"),
    ):
        if points := _of(log, key):
            figures.append(plots.curves(title, about, {"": points}))
    page = from_template("training.html.j2", escape=True, a=adapter, figures=figures, samples=samples)
    write_atomic(out / PICTURE, picture(adapter.recipe.name, training))
    write_atomic(out / PAGE, page)


def _unit(training: Training) -> str:
    return "nats a pair (DPO)" if training.preferred else "nats a token of the answers"


def _of(log: Sequence[Mapping[str, Any]], key: str) -> Points:
    """(step, value) of what was logged, at most ``_POINTS``; what is no number left out."""
    found = [(float(entry["step"]), float(entry[key])) for entry in log if entry.get(key) is not None]
    found = [point for point in found if math.isfinite(point[1])]
    stride = max(1, math.ceil(len(found) / _POINTS))
    return found[::stride]


def smooth(curve: Points) -> Points:
    """A running mean over a thirtieth of the curve: one batch says little."""
    wide = max(1, len(curve) // 30)
    return [
        (curve[end - 1][0], sum(value for _, value in part) / len(part))
        for end in range(1, len(curve) + 1)
        if (part := curve[max(0, end - wide) : end])
    ]


def _top(series: Mapping[str, Points]) -> float:
    """What a curve that starts far above the rest is cut at."""
    return max((points[len(points) // _HIDDEN][1] for points in series.values() if points), default=math.inf)
