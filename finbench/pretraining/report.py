"""The report of a pretraining: its model beside the dense baselines, as Markdown and as one page with curves."""

from __future__ import annotations

from pathlib import Path

from finbench.cards import from_template, plots
from finbench.core import catalog
from finbench.core.files import write_atomic
from finbench.pretraining.prepared import RECORD
from finbench.pretraining.result import Pretrained, overall
from finbench.pretraining.spec import ALL
from finbench.training import curves


def rows(done: Pretrained) -> dict[str, list[str]]:
    """The comparison: a quantity, and what it is for each model.

    Ratios are to the dense model of the whole size, where there is one.
    """
    models = done.models
    whole = next((model for model in models if model.name == "dense"), None)
    found = {
        "parameters": [amount(model.parameters) for model in models],
        "compression, embeddings counted": [f"{model.compression:.2f}×" for model in models],
        "weight files": [size(model.bytes) for model in models],
    }
    for bits in models[0].stored:
        found[f"  at {bits} bits"] = [size(model.stored[bits]) if bits in model.stored else "" for model in models]
    found["operations a token, training"] = [amount(model.flops_training) for model in models]
    found["tokens a second"] = [f"{model.tokens_per_second:,.0f}" for model in models]
    if whole and len(models) > 1:
        work = [whole.flops_training / model.flops_training for model in models]
        speed = [model.tokens_per_second / whole.tokens_per_second for model in models]
        found["operations: dense over this"] = [f"{ratio:.2f}×" for ratio in work]
        found["speed: this over dense"] = [f"{ratio:.2f}×" for ratio in speed]
    if any(model.optimizer_state_bytes for model in models):
        found["optimiser state"] = [size(model.optimizer_state_bytes or 0) for model in models]
    found["peak memory"] = [size(model.peak_memory_bytes) for model in models]
    found["training loss, last tenth"] = [f"{model.final_loss:.4f}" for model in models]
    if any(model.base_bits for model in models):
        found["bits per byte of the base"] = [_bits(model.base_bits) for model in models]
    found["bits per byte before"] = [f"{model.first_bits:.4f}" for model in models]
    for name in sorted(models[0].bits_curve[-1][1], key=lambda name: name != ALL):
        shown = "bits per byte after" if name == ALL or len(done.sources) == 1 else f"  on {name}"
        found[shown] = [f"{model.bits_curve[-1][1][name]:.4f}" for model in models]
    for bits in models[0].stored_bits:
        found[f"  stored at {bits} bits"] = [_bits(model.stored_bits.get(bits, {})) for model in models]
    for task in models[0].scores:
        found[task] = [f"{100 * model.scores[task]:.1f}" if task in model.scores else "" for model in models]
    return found


def _bits(found: dict[str, float]) -> str:
    return f"{overall(found):.4f}" if found else ""


def amount(value: float) -> str:
    """124.4M, 1.56B: powers of a thousand as people who count parameters write them."""
    for unit, power in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= power:
            return f"{value / power:.3g}{unit}" if value / power < 100 else f"{value / power:.1f}{unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Bytes in decimal units."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= power:
            return f"{value / power:.2f} {unit}"
    return f"{value:.0f} B"


def figures(done: Pretrained) -> list[str]:
    """The curves: training loss, smoothed, and held-out bits per byte of all text."""
    losses = {model.name: curves.smooth(model.loss_curve) for model in done.models}
    bits = {model.name: [(step, overall(found)) for step, found in model.bits_curve] for model in done.models}
    # a random start is far above everything that follows
    most = max(points[min(1, len(points) - 1)][1] for points in bits.values())
    top = max(points[len(points) // 20][1] for points in losses.values())
    return [
        plots.curves("Training loss", "nats a token, running mean", losses, top),
        plots.curves("Held-out text", "bits per byte", bits, most),
    ]


def truncations(done: Pretrained) -> list[tuple[str, float, float]]:
    """(model, mean, worst) relative error of the layers that were truncated."""
    return [
        (model.name, sum(errors) / len(errors), max(errors))
        for model in done.models
        if model.cutting and (errors := model.cutting.errors)
    ]


def write(done: Pretrained, out: Path) -> None:
    """The record, ``report.md``, and ``report.html``: one self-contained page, no script, no request."""
    write_atomic(out / RECORD, done.to_json())  # first: a report can be made again
    values = {
        "run": done,
        "rows": rows(done),
        "truncations": truncations(done),
        "amount": amount,
        "parts": list(dict.fromkeys(part.name for model in done.models for part in model.parts)),
    }
    write_atomic(out / "report.md", from_template("pretrain.md.j2", escape=False, **values))
    write_atomic(out / "report.html", from_template("pretrain.html.j2", escape=True, **values, figures=figures(done)))


def commands(done: Pretrained, out: Path) -> list[str]:
    """What to type next."""
    model = done.models[0]
    place = out / (model.dense_folder or model.folder)
    shown = str(place) if str(place)[:1] in "/." else f"./{place}"
    return [
        f"finbench eval --model {shown} --tasks piqa,fpb",
        f"finbench train --base {shown} --task mini_sentiment",
    ]


def with_scores(done: Pretrained, out: Path) -> Pretrained:
    """``done`` with the main scores of the recipe's tasks; scorecards lie in ``out/scorecards``.

    A prompt that is longer than the context is cut on the left, which the card counts: it would be late to refuse it.
    """
    from finbench.evaluation import evaluate

    names = [task.name for task in catalog.expand(done.recipe.tasks)]
    scored = []
    for model in done.models:
        place = (out / (model.dense_folder or model.folder)).resolve()
        found = evaluate(
            [], model=str(place), tasks=names, out=out / "scorecards" / model.name, arguments={"truncate": "left"}
        )
        own = {score.task.removeprefix(catalog.PREFIX): score.main.value for card in found for score in card.scores}
        scored.append(model.model_copy(update={"scores": own}))
    return done.model_copy(update={"models": scored})
