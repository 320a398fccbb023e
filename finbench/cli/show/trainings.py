"""What the commands that train print for people. No logic: each function shows what it is given."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from finbench import models
from finbench.cli.show.layout import columned, put, put_facts
from finbench.core import catalog, formats, refs
from finbench.core.combined import Combined
from finbench.core.console import duration, out
from finbench.core.errors import counted
from finbench.core.records import Adapter, MergedModel, Quantised, Recipe
from finbench.methods import method_named
from finbench.pretraining import Pretrained, report
from finbench.pretraining.report import amount, size
from finbench.training import Exported, Made, Run, exported_in_words, merge_in_words, reproduced


def trained(adapter: Adapter, folder: Path, base: str) -> None:
    """The end of a training run; ``base`` as it was named, since eval finds by itself only what has an alias."""
    run = adapter.training
    out.print(
        f"[bold]{escape(str(folder))}[/]  {adapter.recipe.method}, {run.trainable_parameters:,} trainable parameters"
    )
    unit = "pair" if run.preferred else "row"
    seen = f"{counted(run.rows, unit)}, {counted(run.steps, 'step')}, "
    seen += f"{run.tokens:,} tokens ({100 * run.padding:.1f} % padding)"
    speed = f"{run.seconds:.0f} s, {run.tokens_per_second:,.0f} tokens/s"
    put(f"{seen}; {speed}; loss {run.loss_curve[0][1]:.3f} -> {run.final_loss:.3f}", wrap=True)
    if (pairs := run.preferred) and adapter.recipe.preferences:
        start = "the adapter it started from" if adapter.recipe.start else "the base"
        shown = f"{pairs.accuracy:.1%} of the pairs preferred at the end, margin {pairs.margin:.3f}"
        more = f" and SFT of weight {adapter.recipe.sft_weight:g}" if adapter.recipe.sft_weight else ""
        put(f"DPO with beta {adapter.recipe.beta:g}{more}, reference {start}: {shown}.", wrap=True)
    if held := run.validation:
        share = 100 * held.seconds / max(run.seconds, 1e-9)
        put(f"Kept: {escape(held.as_text)}.", wrap=True)
        put(
            f"Validation: {len(held.curve)} times, {held.seconds:.1f} s, {share:.1f} % of the training."
            + (f" {held.left_out:,} rows were left out: they hold test or train texts." if held.left_out else ""),
            wrap=True,
        )
    if beside := reproduced.compared(adapter):
        put(escape(beside), wrap=True)
    put(f"Curves: {escape(str(folder / 'training.html'))}")
    if adapter.recipe.name != folder.resolve().name:
        put(f"Scorecards call it {adapter.recipe.name}, as its recipe does; --name gives another.", wrap=True)
    reference = refs.typed(folder)
    named = "" if base in catalog.bases() else f" --base {shlex.quote(base)}"
    own = (catalog.own(task) for task in adapter.recipe.tasks)
    folders = [str(one.root) for one in own if one and one.task.own == "folder"]
    if not adapter.recipe.tasks:  # rows of one's own are no test
        known = next((one.map for one in adapter.recipe.data if "prompt" in one.map), {})
        text, label = (shlex.quote(known.get(name, "COLUMN")) for name in ("prompt", "completion"))
        alike = " --prompt '{{text}}'" if known else ""  # tasks new has an instruction of its own, which it never saw
        stated = escape(f"finbench tasks new FILE --text {text} --label {label}{alike}")
        put(f"Next: a benchmark of rows that it has not seen: {stated}")
        folders = ["./FOLDER"]
    named += f" --tasks {shlex.quote(','.join(folders))}" if folders else ""
    put(f"{'Next' if adapter.recipe.tasks else 'Then'}: finbench eval --adapter {escape(reference + named)}")


def runs(found: Sequence[Run], place: Path) -> None:
    """A line for each run: what differs, its state, loss and scores."""
    if not found:
        put(f"No run lies in {escape(str(place))}. Begin one: finbench train --task fpb")
        return
    keys = [key for key in Recipe.model_fields if any(key in run.differs for run in found)]
    tasks = sorted({task for run in found for task in run.scores})
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("run", overflow="fold")
    kinds = ["what"] if any(run.what for run in found) else []
    for head in (*kinds, *keys, "state", "loss", *(task.removeprefix(catalog.PREFIX) for task in tasks)):
        table.add_column(head, overflow="fold", justify="right" if head not in (*kinds, *keys, "state") else "left")
    for run in found:
        values = [*([run.what] if kinds else []), *(_valued(run.differs.get(key)) for key in keys)]
        colour = {"done": "green", "running": "cyan", "unfinished": "yellow"}.get(run.state, "red")
        scores = [f"{run.scores[task]:.3f}" if task in run.scores else "" for task in tasks]
        loss = "" if run.loss is None else f"{run.loss:.3f}"
        shown = str(Path(run.folder).relative_to(place))
        table.add_row(escape(shown), *map(escape, values), f"[{colour}]{run.state}[/]", loss, *scores)
    out.print(table)
    for run in found:
        if run.state == "unfinished":
            put(f"\n{escape(run.folder)} goes on: {escape(run.resume)}")
    done = [run for run in found if run.state == "done"]
    if not tasks and done:
        line = f"finbench eval --model {shlex.quote(done[0].folder)}"
        if done[0].recipe:
            line = models.adopting.to_score(models.adapters.read(Path(done[0].folder)), done[0].folder)
        put(f"\nNo scores of a whole test are there yet: {escape(line)}", wrap=True)


def _valued(value: object) -> str:
    """A value of a recipe, short: tasks and files by name."""
    if isinstance(value, Mapping) and "source" in value:
        return str(value["source"])
    if isinstance(value, Mapping):
        return ", ".join(
            str(key).removeprefix(catalog.PREFIX) + ("" if part == 1 else f":{part:g}") for key, part in value.items()
        )
    if isinstance(value, list):
        return ", ".join(str(part.get("source", part)) if isinstance(part, Mapping) else str(part) for part in value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def merged(made: Made, folder: Path) -> None:
    """What a merge wrote, and how close it is."""
    what, against, close = merge_in_words(made)
    out.print(f"[bold]{escape(str(folder))}[/]  {escape(what)}")
    put(
        f"Against the {against}, {close.probes} prompts, {close.positions} tokens:\n"
        f"log-probabilities differ by at most {close.largest_difference:.2g}, mean divergence "
        f"{close.mean_divergence:.2g} nats;\n"
        f"{100 * close.agreement:.1f} % of next tokens and {100 * close.answers:.1f} % of answers agree.",
        wrap=True,
    )
    tasks, chat = ["mini_sentiment"], ""
    if isinstance(made, MergedModel):  # what was merged may say it
        tasks = [name.removeprefix(catalog.PREFIX) for name in made.tasks if name in catalog.tasks()] or tasks
        chat = " --chat" if made.chat else ""
    line = f"finbench eval --model {shlex.quote(refs.typed(folder))} --tasks {','.join(tasks)}{chat}"
    if isinstance(made, Adapter):  # its recipe says of which tasks, and how it is asked
        line = models.adopting.to_score(models.adapters.read(folder), str(folder))
    put(f"Next: {escape(line)}")


def combined(made: Combined, folder: Path) -> None:
    """Of what a LoRA was made, and what was lost."""
    out.print(f"[bold]{escape(str(folder))}[/]  one LoRA of rank {made.rank} ({made.how})")
    for part in made.parts:
        put(f"  {part.weight:g} x {part.source or part.name} ({part.method}, rank {part.rank})", wrap=True)
    if made.lost:
        put(f"Cut to rank {made.rank}, no update moved by more than {100 * made.lost:.2g} % of its norm.", wrap=True)
    put(f"Next: finbench eval --adapter {shlex.quote(refs.typed(folder))}")


def exported(made: Exported, folder: Path) -> None:
    """What an export wrote, how close it is, and what to type next."""
    put(exported_in_words(made, folder), wrap=True)


def tuned(recipe: Recipe, path: Path) -> None:
    """What a search found, rung by rung."""
    search = recipe.search
    assert search is not None
    table = columned("lr", *(f"{rows:,} rows" for rows in sorted({trial.rows for trial in search.trials})))
    for lr in sorted({trial.lr for trial in search.trials}):
        own = {trial.rows: trial for trial in search.trials if trial.lr == lr}
        cells = []
        for rows in sorted({trial.rows for trial in search.trials}):
            loss = own[rows].loss if rows in own else math.nan
            cells.append("diverged" if loss is None else "" if math.isnan(loss) else f"{loss:.4f}")
        mark = "[bold green]" if lr == recipe.lr else ""
        table.add_row(f"{mark}{lr:g}", *(f"{mark}{cell}" for cell in cells))
    out.print(table)
    put(f"Mean negative log-likelihood on {search.validation_rows:,} rows held out of train.", wrap=True)
    known = (catalog.own(task) for task in recipe.tasks)
    roots = dict.fromkeys(str(one.root) for one in known if one and one.task.own == "folder")
    named = "".join(f" --include-path {shlex.quote(root)}" for root in roots)
    put(f"Next: finbench train {escape(str(path) + named)}")


def outlined(plan: Mapping[str, Any], folder: Path) -> None:
    """What a search would be, rung by rung."""
    recipe, rates = plan["recipe"], plan["rates"]
    out.print(
        f"{recipe['method']} on {recipe['base']}, {formats.asked(recipe['bits'])}: lr {rates[0]:g} to {rates[-1]:g}"
    )
    table = columned("rung", "rates", "rows each", "steps each", "tokens each")
    for number, rung in enumerate(plan["rungs"], start=1):
        table.add_row(str(number), *(f"{rung[key]:,}" for key in ("trials", "rows", "steps", "tokens")))
    out.print(table)
    put(
        f"{plan['tokens']:,} training tokens in all, about {plan['budget']} whole trainings; with "
        f"{plan['validation_rows']:,} rows held out of train, scored after each trial, about {plan['trainings']:.1f}. "
        f"Would be written to {escape(str(folder))}.",
        wrap=True,
    )


def _format(plan: Mapping[str, Any]) -> str:
    found = plan["base"].get("quantised")
    return formats.asked(plan["recipe"]["bits"], found and Quantised(**found))


def planned(plan: Mapping[str, Any], folder: Path) -> None:
    """What a training run would be."""
    recipe = plan["recipe"]
    rank = "" if "rank" in method_named(recipe["method"]).unused else f", rank {recipe['rank']}"
    batch, unit = recipe["batch_size"] * recipe["accumulate"], "pairs" if recipe.get("preferences") else "rows"
    epochs = f"{recipe['epochs']:g} epoch{'' if recipe['epochs'] == 1 else 's'}"
    other = recipe["name"] != folder.resolve().name
    shown = {
        "folder": folder,
        **({"name": f"{recipe['name']}, in scorecards; --name gives another"} if other else {}),
        "base": f"{plan['base']['alias']} from {plan['base']['source']}",
        "method": f"{recipe['method']}, {_format(plan)}{rank}, lr {recipe['lr']:g}, seed {recipe['seed']}",
        "saved as": plan["becomes"],
        unit: f"{plan['rows']:,} of " + ", ".join(Recipe.parse(recipe, "recipe").learnt),
        "steps": f"{plan['steps']:,} of {batch} {unit}, {epochs}",
        "tokens": f"{plan['tokens']:,}{_computed(plan)}",
        **({"checkpointing": "every layer's activations"} if plan["gradient_checkpointing"] else {}),
        **({"validation": _validation(plan["validation"])} if plan["validation"] else {}),
    }
    put_facts(columned("", ""), shown)
    out.print("\n[dim]first row, prompt and answer[/]")
    put("".join(plan["first_pair"]), markup=False)


def _computed(plan: Mapping[str, Any]) -> str:
    """How many positions run for the tokens of the rows, and why that is another number."""
    ways = {"shared": "shared starts run once", "padded": "with padding", "packed": "rows end to end"}
    return f", of which {plan['computed'] / plan['tokens']:.1%} are computed ({ways[plan['loop']]})"


def _validation(held: Mapping[str, Any]) -> str:
    left = f", {held['left_out']:,} left out" if held["left_out"] else ""
    return (
        f"{held['measure']} on {held['rows']:,} rows of {held['source']}{left}, every {held['every']:,} steps, "
        f"{held['times']:,} times: about {held['work']:.0%} of the work"
    )


def costs(plan: dict[str, Any]) -> None:
    """What ``finbench plan`` found."""
    need = plan["memory_gib"]
    words = {"trained": "trained weights with optimiser"}
    parts = ", ".join(f"{words.get(name, name)} {value:g}" for name, value in need.items() if name != "total")
    count = f"{plan['processes']} x " if plan["processes"] > 1 else ""
    time = f"{plan['seconds']:,.{int(plan['seconds'] < 100)}f}"
    shown = {
        "machine": f"{count}{plan['gpu']}, {plan['gpu_gib']:g} GiB",
        "base": plan["shape"],
        "memory": f"{need['total']:g} GiB: {parts}; the rest is the libraries'",
        **({"checkpointing": "on: layers are run again backwards"} if plan["gradient_checkpointing"] else {}),
        "work": f"{plan['steps']:,} steps, {plan['tokens']:,} tokens{_computed(plan)}",
        "time": f"{time} s after loading, {plan['tokens_per_second']:,} tokens/s{_alone(plan)}",
        "estimate": f"{plan['source']}; the machine computes {plan['busy']:.0%} of the time, else it waits for Python",
        **({} if plan["cost"] is None else {"cost": f"{plan['cost']:.2f}"}),
    }
    put_facts(Table.grid(padding=(0, 2)), shown)


def _alone(plan: Mapping[str, Any]) -> str:
    """What a time on this processor presumes: that nobody else uses it, and what it takes as others do now."""
    if plan["gpu"] != "cpu":
        return ""
    now = plan["seconds_now"]
    return ", if nothing else runs here" + (f"; as busy as this machine is now, {duration(now)}" if now else "")


def pretraining_planned(plan: Mapping[str, Any], folder: Path) -> None:
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
        "optimiser state": lambda m: size(m["optimizer_bytes"]),
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


def pretraining_costs(plan: Mapping[str, Any]) -> None:
    """What ``finbench plan`` found of a pretraining."""
    models = plan["models"]
    table = columned("", *(model["name"] for model in models), numbers=range(1, len(models) + 1))
    shown: dict[str, Callable[[Any], str]] = {
        "parameters": lambda m: f"{m['parameters']:,}",
        "compression": lambda m: f"{m['compression']:.2f}×",
        "all operations": lambda m: f"{m['work']:.2e}",
        "memory, training": lambda m: size(m["memory_bytes"]),
        "hours": lambda m: f"{m['hours']:,.{1 if m['hours'] >= 10 else 2}f}",
        **({} if models[0]["cost"] is None else {"cost": lambda m: f"{m['cost']:,.2f}"}),
    }
    for name, cell in shown.items():
        table.add_row(f"[dim]{name}[/]", *(cell(model) for model in models))
    out.print(table)
    count = f"{plan['processes']} x " if plan["processes"] > 1 else ""
    put(
        f"\n{plan['steps']:,} steps, {plan['tokens']:,} tokens each model, vocabulary {plan['vocabulary']:,}, on "
        f"{count}{plan['gpu']}. Speed: {plan['source']}."
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


def pretrained(done: Pretrained, folder: Path) -> None:
    """The end of a run: the model beside its baselines, and what to type next."""
    table = columned("", *(model.name for model in done.models), numbers=range(1, len(done.models) + 1))
    for name, cells in report.rows(done).items():
        table.add_row(f"[dim]{escape(name)}[/]", *map(escape, cells))
    out.print(table)
    for model in done.models:
        put(f"[dim]{model.name}: {escape(model.what)}[/]", wrap=True)
    for name, mean, worst in report.truncations(done):
        error = f"relative error of a matrix {mean:.3f} on average, {worst:.3f} at worst"
        put(f"[dim]{name} was cut from trained weights: {error}[/]", wrap=True)
    put(f"\nReport: {escape(str(folder / 'report.html'))}")
    for number, command in enumerate(report.commands(done, folder)):
        put(f"{'Next:' if not number else '  or:'} {escape(command)}")
