"""What there is: tasks, data sets, recipes, bases, methods, servers, and what this machine can do."""

from __future__ import annotations

import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import finbench
from finbench import data, evaluation, training
from finbench.cli.show.layout import columned, put, put_facts
from finbench.core import formats
from finbench.core.catalog import FAMILIES, PREFIX, BaseEntry
from finbench.core.console import out
from finbench.core.records import Recipe, Task

if TYPE_CHECKING:  # each brings what only some of these tables need
    from finbench.data import ImportReport
    from finbench.evaluation import DoctorLine, NewTask
    from finbench.methods import Method, Tuner
    from finbench.serving import Server
    from finbench.training.reproduced import Reproducible

_MATTER = ("finbench", "hardware", "cache", "base", "Hub")  # of what the doctor finds, by its first word
_FACTS = "version family form main_metric labels baselines licence restricted split paper data"


def tasks(found: Iterable[Task], groups: Mapping[str, list[str]], here: Container[str]) -> None:
    """Tasks below their family, both forms of one in one row, no word broken at 80 columns; then the groups.

    In the order of the documents, but first those whose rows everybody has.
    """
    known = list(found)
    names = {task.name for task in known}
    families = list(dict.fromkeys(["mini", *FAMILIES, *(task.family for task in known)]))
    table = columned("task", "form", "main metric", "data")
    before = ""
    for task in sorted(known, key=lambda task: (families.index(task.family), task.name)):
        if task.name.endswith("_mc") and task.name.removesuffix("_mc") in names:
            continue
        form = "both" if f"{task.name}_mc" in names else task.form
        if task.family != before:
            table.add_row(f"[bold]{task.family}[/]")
        table.add_row(f"  {task.name.removeprefix(PREFIX)}", form, task.main_metric, _data_of(task, here))
        before = task.family
    for column in table.columns:
        column.no_wrap = True
    out.print(table)
    put("\nform both: the answer is generated; NAME_mc chooses the label by its log-likelihood.", wrap=True)
    put("data shipped: they come with finbench. Of what is not here, how to get it: finbench data list", wrap=True)
    put("\nGroups, which --tasks takes as it takes a task:")
    for name, members in groups.items():
        shown = ", ".join(member.removeprefix(PREFIX) for member in members)
        put(f"  [bold]{name.removeprefix(PREFIX)}[/]: {shown}", wrap=True)
    put("\nOne of them, with prompt, licence and paper: finbench tasks show NAME")


def _data_of(task: Task, here: Container[str]) -> str:
    """Whether the rows of a task are here; the name of their set where it is not the task's own."""
    if task.shipped:
        return "shipped"
    there = "[green]here[/]" if task.own or task.set in here else "[dim]not here[/]"
    return there if task.own or task.set == task.name.removeprefix(PREFIX) else f"{task.set}: {there}"


def task_details(shown: Sequence[Mapping[str, Any]]) -> None:
    """Tasks one by one."""
    for task in shown:
        out.rule(str(task["name"]), align="left")
        facts = {key.replace("_", " "): task[key] for key in _FACTS.split() if task[key] is not None}
        facts["baselines"] = ", ".join(f"{who} {value:g}" for who, value in task["baselines"].items()) or "not known"
        put_facts(columned("", ""), facts)
        out.print("\n[dim]prompt and answer of its first example[/]")
        put(str(task["golden_prompt"]), markup=False)
        for name, prompt in task["prompts"].items():
            out.print(f"\n[dim]prompt {name} (--prompts)[/]")
            put(str(prompt), markup=False)


def new_task(made: NewTask) -> None:
    """A benchmark that was made."""
    out.print(f"[bold]{escape(str(made.folder))}[/]", soft_wrap=True)
    facts: dict[str, Any] = {"rows": ", ".join(f"{count:,} {split}" for split, count in made.rows.items())}
    if made.labels:
        facts["labels of test"] = ", ".join(f"{label} {count:,}" for label, count in made.labels.items())
    facts["main metric"] = made.task.main_metric
    for who, values in made.baselines.items():
        what = f"{who} label" if made.labels else f"{who} answer"
        facts[what] = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    facts["licence"] = made.task.licence
    put_facts(columned("", ""), facts)
    for why, count in made.dropped.items():
        put(f"  {count:,} of {made.read:,} rows left out: {escape(why)}")
    for note in made.notes:
        put(f"  [yellow]{escape(note)}[/]", wrap=True)
    out.print("\n[dim]prompt and answer of an invented example[/]")
    put(made.prompt, markup=False)
    folder = made.folder if made.folder.is_absolute() else f"./{made.folder}"
    put(f"\nNext: finbench eval --model smollm2-135m --tasks {escape(shlex.quote(str(folder)))}")


def imported(report: ImportReport) -> None:
    """The end of an import."""
    out.print(f"[bold]{escape(str(report.folder))}[/]", soft_wrap=True)
    kept = ", ".join(f"{count:,} {split}" for split, count in report.rows.items() if count)
    put(f"{report.read:,} rows read, kept {kept}", wrap=True)
    if report.note:
        put(f"[yellow]{escape(report.note)}[/]")
    for why, count in sorted(report.dropped.items()):
        put(f"  {count:,} left out: {why}")
    if report.faults:
        put(f"  {report.rejected:,} rejected: {escape(report.faults[0])}")


def locked(found: Mapping[str, Mapping[str, str]], path: Path) -> None:
    """Data sets and the commits they are pinned to."""
    table = columned("set", "Hub", "commit")
    for name, pin in found.items():
        table.add_row(name, pin["path"], pin["revision"][:12])
    out.print(table)
    out.print(f"Written to {escape(str(path))}.", soft_wrap=True)


def data_sets(tasks_by_set: Mapping[str, Task], found: Mapping[str, dict[str, Any] | None]) -> None:
    """Data sets, here or to be imported, by family."""
    table = columned("set", "train", "validation", "test", "from", "licence", numbers=range(1, 4))
    names = sorted(found, key=lambda name: (tasks_by_set[name].family, name))
    for name in names:
        card = found[name]
        if not card:
            continue
        counts = [f"{count:,}" if (count := card["rows"].get(split, 0)) else "-" for split in data.SPLITS]
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
        put(f"  {escape(command)}{which}")


def recipes(found: Mapping[str, Recipe], trained: Mapping[str, Reproducible]) -> None:
    """Recipes, two lines each: names stay whole on a narrow terminal. With what was measured of those ``trained``."""
    for name, recipe in found.items():
        about = f"{recipe.method}, r {recipe.rank}, {formats.asked(recipe.bits)} on {recipe.base}"
        put(f"[bold]{escape(name)}[/]  {escape(about)}")
        known = trained[name].scores if name in trained else {}
        shown = ", ".join(f"{task} {known[task]:.1f} (seed 0)" if task in known else task for task in recipe.learnt)
        put(Padding(escape(shown), (0, 0, 0, 2)), wrap=True)
    put("\nTrain one: finbench train NAME")


def bases(found: Iterable[BaseEntry]) -> None:
    """Base models."""
    table = columned("alias", "size", "Hub id", "licence")
    table.columns[2].no_wrap = True
    for base in found:
        notes = {"gated": base.gated, "chat": base.chat, "embedded": base.wheel is not None}
        shown = ", ".join([base.licence, *(name for name, true in notes.items() if true)])
        table.add_row(base.alias, base.parameters, base.hub_id, shown)
    out.print(table)
    put("\nEmbedded: comes in PyPI packages where the Hub cannot be reached.", wrap=True)
    put("Any other: --base hub:org/name[@revision] or --base ./folder", wrap=True, markup=False)


def methods(found: Iterable[Method], others: Iterable[Tuner]) -> None:
    """A line each, what the last column means, and the names of peft's other tuners."""
    found = list(found)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for head in ("method", "what it trains", "bits", "becomes"):
        table.add_column(head, no_wrap=head != "what it trains")
    for one in found:
        table.add_row(f"[bold]{one.name}[/]", escape(one.summary), _bits(one), one.becomes)
    put(table, wrap=True)
    out.print()
    meaning = Table.grid(padding=(0, 2))
    meaning.add_row("[dim]becomes[/]", "[dim]and is served[/]")
    for kind, how in finbench.methods.SERVED.items():
        meaning.add_row(kind, escape(how.replace("`", "")))
    put(meaning, wrap=True)
    out.print("\nTuners of peft, by peft's own name (*: not on GPT-2's Conv1D layers)")
    names = Table.grid(padding=(0, 2))
    names.add_column(no_wrap=True)
    by_bits: dict[str, list[str]] = {}
    for tuner in others:
        by_bits.setdefault(_bits(tuner), []).append(tuner.name + ("" if tuner.conv1d else "*"))
    for bits in sorted(by_bits, key=len, reverse=True):
        names.add_row(f"[dim]{bits} bits[/]", ", ".join(by_bits[bits]))
    put(names, wrap=True)
    put("\nEquation, paper, defaults and options of one: [bold]finbench methods NAME[/]", wrap=True)


def method(found: Method) -> None:
    """One method: what it computes, what becomes of it, and every option."""
    put(f"[bold]{found.name}[/]  {escape(found.summary)}\n", wrap=True)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    whole = found.becomes == "model"
    reason = f": {found.refused}" if found.refused and found.bits != (16, 8, 4) else ""
    defaults = ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                         for key, value in training.recipes.defaults_of(found).items())  # fmt: skip
    layers = [] if found.conv1d else ["nn.Linear, not GPT-2's Conv1D"]
    for name, text in (
        ("computes", found.equation),
        ("trains", found.trains and f"a layer: {found.trains} (h inputs, o outputs, rank r)"),
        ("paper", found.paper.removeprefix("-")),
        ("bits", ("" if whole else "any of " if len(found.bits) > 1 else "only ") + _bits(found) + reason),
        ("layers", ", ".join(layers)),
        ("becomes", f"{found.becomes}: {finbench.methods.SERVED[found.becomes].replace('`', '')}"),
        ("defaults", defaults),
        ("not used", ", ".join(found.unused)),
    ):
        if text:
            table.add_row(name, escape(text))
    put(table, wrap=True)
    offered = found.offered()
    if found.options:
        put("\nIts own options, as [bold]--set key=value[/], and their defaults", wrap=True)
        own = Table.grid(padding=(0, 2))
        for key, value in found.options.items():
            shown = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            own.add_row(key, shown, escape(found.about.get(key, "as peft documents it")))
        put(own, wrap=True)
    if others := sorted(offered - set(found.options)):
        put(f"\nAlso, as peft documents them: {', '.join(others)}", wrap=True)
    bits = "" if 16 in found.bits or "bits" in found.defaults else f" --bits {found.bits[0]}"
    put(f"\nTry it: [bold]finbench train --task mini_sentiment --method {found.name}{bits}[/]", wrap=True)


def _bits(found: Method) -> str:
    return ", ".join(map(str, found.bits))


def doctor(findings: Sequence[DoctorLine], everything: bool) -> None:
    """The doctor's report, faults first: what matters, or ``everything``; below each finding what to type."""
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "fault": "[bold red]fault[/]"}
    faults = [finding for finding in findings if finding.state == "fault"]
    shown = [finding for finding in findings if finding.state != "fault"]
    if not everything:
        busy = [finding for finding in shown if finding.what == "cores" and finding.state == "note"]
        asked = {"Hub"} if any(finding.what == "Hub token" for finding in shown) else set()  # then it has answered
        quiet = {finding.what for finding in shown if finding.state == "ok"} & {"cache", *asked}
        shown = [one for one in shown if one.what.split()[0] in _MATTER and one.what not in quiet]
        shown = [*busy, *shown]
        sets = [finding for finding in findings if finding.what.startswith("data ")]
        here = [finding.what.removeprefix("data ") for finding in sets if finding.state == "ok"]
        named = f": {', '.join(here[:6])}{', ...' if len(here) > 6 else ''}" if here else ""
        state = f"{len(here)} of {len(sets)} sets are here{named}; the mini tasks need none"
        hint = "" if here else "finbench data list"
        shown.append(evaluation.DoctorLine("data", "ok" if here else "note", state, hint))
    table = columned("", "", "")
    for finding in [*faults, *shown]:
        mend = f"\n[cyan]{escape(finding.mend)}[/]" if finding.mend else ""
        table.add_row(marks[finding.state], escape(finding.what), escape(finding.detail) + mend)
    table.columns[1].no_wrap = True
    out.print(table)
    if not everything:
        put(f"\nAll {len(findings)} findings: finbench doctor --all")


def serving(server: Server) -> None:
    """Where a server is, what it serves, and how to ask it."""
    put(f"Serving at {server.url}, models: {', '.join(server.models)}")
    if server.terms is not None and server.terms.rank:
        more = server.terms.capacity - len(server.terms.adapters)
        size = server.terms.slot_bytes / 2**20
        put(f"Room for {more} more adapters of rank {server.terms.rank} at most ({size:.1f} MiB each):", wrap=True)
        out.print(Text(f"finbench serve add zoo:name --url {server.url}"), soft_wrap=True)
    put("Ask one of them:", wrap=True)
    out.print(Text(server.curl(server.models[-1])), soft_wrap=True)
    put("Ctrl-C ends it.", wrap=True)


def added(found: Mapping[str, Any]) -> None:
    """An adapter that a running server serves now."""
    put(f"{found['name']} is served: {found['source']}, {found['bytes'] / 2**20:.1f} MiB, {found['adapter'][:12]}.")


def removed(found: Mapping[str, Any]) -> None:
    """One that it serves no more."""
    put(f"{found['name']} is not served any more.")


def served(found: Mapping[str, Any]) -> None:
    """The adapters of a running server, and for how many more there is room."""
    table = columned("name", "from", "adapter", "MiB", "under way")
    for one in found["adapters"]:
        size = f"{one['bytes'] / 2**20:.1f}"
        table.add_row(one["name"], Text(one["source"]), one["adapter"][:12], size, str(one["running"]))
    if found["adapters"]:
        out.print(table)
    more, size = found["capacity"] - len(found["adapters"]), found["slot_bytes"] / 2**20
    put(f"Base: {found['base']}. ", wrap=True)
    if found["rank"]:
        put(f"Room for {more} more of rank {found['rank']} at most ({size:.1f} MiB each).", wrap=True)
    if found["owners"]:
        put(f"From the Hub those of: {', '.join(found['owners'])}.", wrap=True)
