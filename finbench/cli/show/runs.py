"""What commands print for people. No logic: each function shows what it is given."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from finbench.cards import task_views, terminal_tables
from finbench.cli.doctor import DoctorLine
from finbench.core import catalog
from finbench.core.catalog import PREFIX, BaseEntry
from finbench.core.console import out
from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter, Bits, DType, Recipe, Scorecard, Task
from finbench.data import SPLITS, ImportReport
from finbench.methods import method_named
from finbench.serving import Server
from finbench.training import Made, merge_in_words


def bits(value: int | None) -> Bits | None:
    """``--bits`` as the records want it."""
    if value in (None, 16, 8, 4):
        return value  # type: ignore[return-value]
    nearest = min((16, 8, 4), key=lambda known: abs(known - (value or 0)))
    raise FinbenchError(f"--bits is 16, 8 or 4, not {value}.", f"Type --bits {nearest}; 8 and 4 quantise the base.")


def dtype(value: str) -> DType:
    """``--dtype`` as the records want it."""
    if value in ("auto", "float32", "bfloat16", "float16"):
        return value  # type: ignore[return-value]
    raise FinbenchError(
        f"--dtype is auto, float32, bfloat16 or float16, not {value}.", "Leave it out, or: --dtype float32"
    )


def serving(server: Server) -> None:
    """Where a server is, what it serves, and how to ask it."""
    out.print(f"Serving at {server.url}, models: {', '.join(server.models)}", soft_wrap=True, highlight=False)
    out.print("Ask one of them:", highlight=False)
    out.print(Text(server.curl(server.models[-1])), soft_wrap=True)
    out.print("Ctrl-C ends it.", highlight=False)


def columned(*columns: str) -> Table:
    """A table without lines, with these headers; the first column is never broken."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    return table


def trained(adapter: Adapter, folder: Path, base: str) -> None:
    """The end of a training run; ``base`` as it was named, since eval finds by itself only what has an alias."""
    run = adapter.training
    out.print(
        f"[bold]{escape(str(folder))}[/]  {adapter.recipe.method}, {run.trainable_parameters:,} trainable parameters"
    )
    seen = f"{run.rows:,} rows, {run.steps:,} steps, {run.tokens:,} tokens ({100 * run.padding:.1f} % padding)"
    speed = f"{run.seconds:.0f} s, {run.tokens_per_second:,.0f} tokens/s"
    out.print(f"{seen}; {speed}; loss {run.loss_curve[0][1]:.3f} -> {run.final_loss:.3f}", highlight=False)
    reference = str(folder) if "/" in str(folder) else f"./{folder}"
    named = "" if base in catalog.bases() else f" --base {shlex.quote(base)}"
    out.print(f"Next: finbench eval --adapter {escape(reference + named)}", highlight=False, soft_wrap=True)


def merged(made: Made, folder: Path) -> None:
    """What a merge wrote, and how close it is."""
    what, against, report = merge_in_words(made)
    out.print(f"[bold]{escape(str(folder))}[/]  {escape(what)}")
    out.print(
        f"Against the {against}, {report.probes} prompts, {report.positions} tokens:\n"
        f"log-probabilities differ by at most {report.largest_difference:.2g}, mean divergence "
        f"{report.mean_divergence:.2g} nats;\n"
        f"{100 * report.agreement:.1f} % of next tokens and {100 * report.answers:.1f} % of answers agree.",
        highlight=False,
    )


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
    out.print(f"Mean negative log-likelihood on {search.validation_rows:,} rows held out of train.", highlight=False)
    out.print(f"Next: finbench train {escape(str(path))}", highlight=False, soft_wrap=True)


def outlined(plan: Mapping[str, Any], folder: Path) -> None:
    """What a search would be, rung by rung."""
    recipe, rates = plan["recipe"], plan["rates"]
    out.print(f"{recipe['method']} on {recipe['base']}, {recipe['bits']} bits: lr {rates[0]:g} to {rates[-1]:g}")
    table = columned("rung", "rates", "rows each", "steps each", "tokens each")
    for number, rung in enumerate(plan["rungs"], start=1):
        table.add_row(str(number), *(f"{rung[key]:,}" for key in ("trials", "rows", "steps", "tokens")))
    out.print(table)
    out.print(
        f"{plan['tokens']:,} training tokens in all, about {plan['budget']} whole trainings; ranked on "
        f"{plan['validation_rows']:,} rows held out of train. Would be written to {escape(str(folder))}.",
        highlight=False,
    )


def planned(plan: Mapping[str, Any], folder: Path) -> None:
    """What a training run would be."""
    recipe = plan["recipe"]
    table = columned("", "")
    table.show_header = False
    ranked = "rank" not in method_named(recipe["method"]).unused
    how = [
        recipe["method"],
        f"{recipe['bits']} bits",
        *([f"rank {recipe['rank']}"] if ranked else []),
        f"lr {recipe['lr']:g}",
        f"seed {recipe['seed']}",
    ]
    batch = recipe["batch_size"] * recipe["accumulate"]
    shown = {
        "folder": folder,
        "base": f"{plan['base']['alias']} from {plan['base']['source']}",
        "method": ", ".join(how),
        "becomes": plan["becomes"],
        "rows": f"{plan['rows']:,} of " + ", ".join(recipe["tasks"]),
        "steps": f"{plan['steps']:,} of {batch} rows, {recipe['epochs']:g} epoch{'' if recipe['epochs'] == 1 else 's'}",
        "tokens": f"{plan['tokens']:,}; computed {plan['computed'] / plan['tokens']:.1%} of them, {plan['loop']}",
    }
    for name, value in shown.items():
        table.add_row(f"[dim]{name}[/]", escape(str(value)))
    out.print(table)
    out.print("\n[dim]first row, prompt and answer[/]")
    out.print("".join(plan["first_pair"]), markup=False, highlight=False, soft_wrap=True)


def scored(cards: Sequence[Scorecard], folder: Path) -> None:
    """The end of an evaluation: tables with bars, and where the files are."""
    for table in terminal_tables(cards, out.width):
        out.print(table)
        out.print()
    out.print("[dim]▓▒ 95 % interval; lenient: score under lenient parsing; parsed: share that parses strictly[/]")
    for view in task_views(cards):
        for warning in view.warnings:
            out.print(f"[yellow]{escape(view.title)}:[/] {escape(warning)}", highlight=False)
    partial = [card.subject.name for card in cards if card.status == "partial"]
    if partial:
        out.print(f"[yellow]Partial[/] (not for a leaderboard): {escape(', '.join(partial))}")
    out.print(f"Report: {escape(str(folder / 'report.html'))}", highlight=False, soft_wrap=True)


def tasks(found: Iterable[Task], groups: Mapping[str, list[str]]) -> None:
    """Tasks by family, both forms of one in one row; then the groups."""
    known = list(found)
    names = {task.name for task in known}
    table = columned("family", "task", "forms", "main metric", "data set")
    before = ""
    for task in sorted(known, key=lambda task: (task.family, task.name)):
        if task.name.endswith("_mc") and task.name.removesuffix("_mc") in names:
            continue
        forms = [task.form] + (["_mc"] if f"{task.name}_mc" in names else [])
        data = "shipped" if task.shipped else task.set
        family = "" if task.family == before else task.family
        table.add_row(family, task.name.removeprefix(PREFIX), ", ".join(forms), task.main_metric, data)
        before = task.family
    table.columns[1].no_wrap = table.columns[4].no_wrap = True
    out.print(table)
    out.print()
    for name, members in groups.items():
        shown = ", ".join(member.removeprefix(PREFIX) for member in members)
        out.print(f"[bold]{name.removeprefix(PREFIX)}[/]: {shown}", highlight=False, soft_wrap=True)
    out.print(
        "\nOne of them, with prompt, licence and paper: finbench tasks show NAME", highlight=False, soft_wrap=True
    )


def task_details(shown: Sequence[Mapping[str, Any]]) -> None:
    """Tasks one by one."""
    for task in shown:
        out.rule(str(task["name"]), align="left")
        table = columned("", "")
        table.show_header = False
        for key in (
            "version",
            "family",
            "form",
            "main_metric",
            "labels",
            "baselines",
            "licence",
            "restricted",
            "split",
            "paper",
            "data",
        ):
            if task[key] is not None:
                table.add_row(f"[dim]{key.replace('_', ' ')}[/]", escape(str(task[key])))
        out.print(table)
        out.print("\n[dim]prompt and answer of its first example[/]")
        out.print(str(task["golden_prompt"]), markup=False, highlight=False, soft_wrap=True)


def imported(report: ImportReport) -> None:
    """The end of an import."""
    out.print(f"[bold]{escape(str(report.folder))}[/]", soft_wrap=True)
    kept = ", ".join(f"{count:,} {split}" for split, count in report.rows.items() if count)
    out.print(f"{report.read:,} rows read, kept {kept}", highlight=False)
    if report.note:
        out.print(f"[yellow]{escape(report.note)}[/]", highlight=False, soft_wrap=True)
    for why, count in sorted(report.dropped.items()):
        out.print(f"  {count:,} left out: {why}", highlight=False, soft_wrap=True)
    if report.faults:
        out.print(f"  {report.rejected:,} rejected: {escape(report.faults[0])}", highlight=False, soft_wrap=True)


def locked(found: Mapping[str, Mapping[str, str]], path: Path) -> None:
    """Data sets and the commits they are pinned to."""
    table = columned("set", "Hub", "commit")
    for name, pin in found.items():
        table.add_row(name, pin["path"], pin["revision"][:12])
    out.print(table)
    out.print(f"Written to {escape(str(path))}.", soft_wrap=True)


def data_sets(tasks_by_set: Mapping[str, Task], found: Mapping[str, dict[str, Any] | None]) -> None:
    """Data sets, here or to be imported, by family."""
    table = columned("set", "train", "validation", "test", "from", "licence")
    for column in table.columns[1:4]:
        column.justify = "right"
    names = sorted(found, key=lambda name: (tasks_by_set[name].family, name))
    for name in names:
        card = found[name]
        if not card:
            continue
        counts = [f"{count:,}" if (count := card["rows"].get(split, 0)) else "-" for split in SPLITS]
        hub = card.get("hub")
        origin = ("Hub" if hub["pinned"] else "Hub, unpinned") if hub else "files"
        if not card.get("complete", True):
            origin += ", a part"
        table.add_row(name, *counts, origin, tasks_by_set[name].licence)
    if table.row_count:
        out.print(table)
    missing = [name for name in names if not found[name]]
    if missing:
        begun = "\nNot here" if table.row_count else "None is here"
        out.print(f"{begun}; get one, with a network or from its authors' files:")
    for command in dict.fromkeys(tasks_by_set[name].data for name in missing):
        made = [name for name in missing if tasks_by_set[name].data == command]
        which = "" if made[0] in command.split() else f"  [dim]# {', '.join(made)}[/]"
        out.print(f"  {escape(command)}{which}", highlight=False, soft_wrap=True)


def recipes(found: Mapping[str, Recipe]) -> None:
    """Recipes, two lines each: names stay whole on a narrow terminal."""
    for name, recipe in found.items():
        about = f"{recipe.method}, r {recipe.rank}, {recipe.bits} bits on {recipe.base}"
        out.print(f"[bold]{escape(name)}[/]  {escape(about)}", highlight=False, soft_wrap=True)
        shown = ", ".join(task.removeprefix(PREFIX) for task in recipe.tasks)
        out.print(Padding(escape(shown), (0, 0, 0, 2)), highlight=False)
    out.print("\nTrain one: finbench train NAME", highlight=False, soft_wrap=True)


def bases(found: Iterable[BaseEntry]) -> None:
    """Base models."""
    table = columned("alias", "size", "Hub id", "licence")
    table.columns[2].no_wrap = True
    for base in found:
        notes = {"gated": base.gated, "chat": base.chat, "embedded": base.wheel is not None}
        shown = ", ".join([base.licence, *(name for name, true in notes.items() if true)])
        table.add_row(base.alias, base.parameters, base.hub_id, shown)
    out.print(table)
    out.print("\nAny other: --base hub:org/name[@revision] or --base ./folder", highlight=False, markup=False)


def doctor(findings: Sequence[DoctorLine]) -> None:
    """The doctor's report: a line each, and below it what to type."""
    marks = {"ok": "[green]ok   [/]", "note": "[yellow]note [/]", "fault": "[bold red]fault[/]"}
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        line = f"{marks[finding.state]}  {escape(finding.what):{width}}  {escape(finding.detail)}"
        out.print(line, highlight=False, soft_wrap=True)
        if finding.mend:
            out.print(f"{'':{width + 9}}{escape(finding.mend)}", style="cyan", highlight=False, soft_wrap=True)


# ---------------------------------------------------------------- scorecards
