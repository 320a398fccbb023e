"""What ``finbench pretrain`` prints for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from finbench.cli.show.layout import columned, put
from finbench.core.console import out
from finbench.pretraining import Pretrained, report
from finbench.pretraining.report import amount, size


def planned(plan: Mapping[str, Any], folder: Path) -> None:
    """What a run would be."""
    models = plan["models"]
    table = columned("", *(model["name"] for model in models), numbers=range(1, len(models) + 1))
    whole = next((model for model in models if model["name"] == "dense"), None)
    shown: dict[str, Callable[[Any], str]] = {
        "parameters": lambda m: f"{m['parameters']:,}",
        "trained": lambda m: f"{m['trainable_parameters']:,}",
        "compression": lambda m: f"{m['compression']:.2f}×",
        "rank": lambda m: "" if m["rank"] is None else str(m["rank"]),
        "operations a token": lambda m: amount(m["flops_training"]),
        "all operations": lambda m: f"{m['work']:.2e}",
        "memory, training": lambda m: size(m["memory_bytes"]),
        "stored at 16, 8, 4 bits": lambda m: ", ".join(
            size(m["bytes"][bits]) for bits in (("16",) if m["kind"] == "dense" else ("16", "8", "4"))
        ),
    }
    for name, cell in shown.items():
        table.add_row(f"[dim]{name}[/]", *(cell(model) for model in models))
    if whole:
        ratios = (f"{whole['flops_training'] / model['flops_training']:.2f}×" for model in models)
        table.add_row("[dim]operations: dense over this[/]", *ratios)
    for part in dict.fromkeys(part["name"] for model in models for part in model["parts"]):
        counts = ({p["name"]: p["parameters"] for p in model["parts"]}.get(part) for model in models)
        table.add_row(f"[dim]  {part}[/]", *("" if count is None else f"{count:,}" for count in counts))
    out.print(table)
    for model in models:
        kept = f"; {len(model['kept'])} layers stay dense, they would not become smaller" if model["kept"] else ""
        put(f"[dim]{model['name']}: {escape(model['what'])}{kept}[/]", wrap=True)
        for warning in model["warnings"]:
            put(f"[yellow]{escape(warning)}[/]", wrap=True)
    _sources(plan["sources"])
    put(
        f"\n{plan['steps']:,} steps, {plan['tokens']:,} tokens each model, vocabulary {plan['vocabulary']:,}, "
        f"{plan['dtype']}. Would be written to {escape(str(folder))}."
    )


def _sources(sources: list[dict[str, Any]]) -> None:
    heads = ("text", "share", "epochs", "documents", "tokens", "bytes a token", "held out", "left out")
    table = columned(*heads, numbers=range(1, len(heads)))
    for part in sources:
        table.add_row(
            escape(part["name"]),
            f"{100 * part['weight']:.1f} %",
            f"{part['epochs']:.2f}",
            f"{part['documents']:,}",
            f"{part['tokens']:,}",
            f"{part['bytes_per_token']:.2f}",
            f"{part['held_out_documents']:,}",
            ", ".join(f"{why}: {count:,}" for why, count in part["dropped"].items()),
        )
    out.print()
    out.print(table)


def trained(done: Pretrained, folder: Path) -> None:
    """The end of a run: the model beside its baselines, and what to type next."""
    table = columned("", *(model.name for model in done.models), numbers=range(1, len(done.models) + 1))
    for row in report.rows(done):
        table.add_row(f"[dim]{escape(row.name)}[/]", *map(escape, row.cells))
    out.print(table)
    for model in done.models:
        put(f"[dim]{model.name}: {escape(model.what)}[/]", wrap=True)
    for name, mean, worst in report.truncations(done):
        error = f"relative error of a matrix {mean:.3f} on average, {worst:.3f} at worst"
        put(f"[dim]{name} was cut from trained weights: {error}[/]", wrap=True)
    put(f"\nReport: {escape(str(folder / 'report.html'))}")
    for number, command in enumerate(report.commands(done, folder)):
        put(f"{'Next:' if not number else '  or:'} {escape(command)}")
