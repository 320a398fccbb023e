"""Plans, publications and the zoo in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.padding import Padding

from finbench import models
from finbench.cards import amount
from finbench.cli.show.layout import put
from finbench.core import formats, refs
from finbench.core.catalog import PREFIX
from finbench.core.console import err, out
from finbench.hub import Change, page
from finbench.models.zoo import KnownAdapter, ZooEntry
from finbench.scoring.metrics import is_share, spoken

if TYPE_CHECKING:
    from finbench.core.records import Adapter
    from finbench.models.adapters import AdapterFolder
    from finbench.publishing import Pulled, Pushed

_COLOURS = {"added": "green", "replaced": "yellow", "moved": "cyan", "removed": "red", "unchanged": "dim"}


def size(count: float) -> str:
    """1.2 MB"""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def pushed(*pushes: Pushed) -> None:
    """Each plan, and the card after a dry run; else where it is now."""
    for number, done in enumerate(pushes):
        if number:
            out.print()
        _pushed(done)
    if any(done.published is None for done in pushes):
        said = "Nothing was sent. The same command without --dry-run does exactly this."
        err.print(said, highlight=False, soft_wrap=True)


def _pushed(done: Pushed) -> None:
    plan = done.plan
    state = "private" if plan.private else "public"
    if not plan.exists:
        state = f"new, {state}" if plan.compared else "not compared: the Hub is out of reach"
    how = "a pull request" if plan.pull_request else "one commit"
    put(f"[bold]{escape(page(plan.repo, plan.kind))}[/] ({state}), {how}: {escape(plan.message)}")
    plan_rows(plan.changes)
    put(f"[dim]{size(plan.upload_bytes)} to send[/]", wrap=True)
    if done.published is None:
        if done.readme:
            out.print("\n[bold]README.md[/]\n")
            put(done.readme, markup=False)
    elif not done.published.new and not done.published.pull_request:
        put(f"Nothing to do: {done.published.url} is as it should be.")
    else:
        what = "Pull request" if done.published.pull_request else "Published"
        put(f"{what}: {done.published.url}")
        if done.adapter and not done.published.pull_request:
            pin = f"hub:{plan.repo}@{done.published.sha}"
            put(f"To use it: {escape(models.adopting.to_score(done.adapter, pin))}")


def plan_rows(changes: Sequence[Change]) -> None:
    """What happens to each file, a line a file."""
    widest = max((len(change.state) for change in changes), default=0)
    sizes = max((len(size(change.size)) for change in changes), default=0)
    for change in changes:  # whole, however narrow the terminal: paths that end alike are told apart by their ends
        state = f"[{_COLOURS[change.state]}]{change.state:<{widest}}[/]"
        origin = f"  [dim]from {escape(change.origin)}[/]" if change.origin else ""
        put(f"{state}  {size(change.size):>{sizes}}  {escape(change.path)}{origin}")


def pulled(done: Pulled) -> None:
    """Where it is and what to do next; the base is shown, for the adapter does not choose it."""
    from finbench.publishing import stated_base

    put(f"{escape(done.source)} is in {escape(str(done.folder))}")
    folder = refs.typed(done.folder)
    if done.adapter is None:
        put(f"Next: finbench eval --model {escape(folder)}")
        return
    put(f"It states the base {escape(stated_base(done.adapter))}.")
    put(f"Next: {escape(models.adopting.to_score(done.adapter, folder))}")


def adopted(found: AdapterFolder, earlier: Adapter) -> None:
    """Whose it is now, and what to do next."""
    put(f"{escape(str(found.folder))} counts as made elsewhere: {found.identity[:12]}. Its old record is in history/.")
    put(f"Next: {escape(models.adopting.to_score(found, str(found.folder), earlier))}")


def zoo(entries: Sequence[ZooEntry]) -> None:
    """Published adapters: score, base, method, size, date."""
    if not entries:
        out.print("[dim]No published adapter is pinned yet: finbench zoo add hub:org/name[/]\n", soft_wrap=True)
        return
    for entry in entries:  # lines, not a table: names stay whole however narrow the terminal
        rank = f", r {entry.rank}" if entry.rank else ""
        stored = f", {formats.asked(entry.bits)}" if entry.bits not in (None, 16) else ""
        about = f"{entry.method}{rank}{stored} on {entry.base}, {size(entry.bytes)}, {entry.date}"
        put(f"[bold]zoo:{escape(entry.name)}[/]  {escape(about)}")
        for task, score in entry.scores.items():
            share = is_share(score.metric)
            base = f" (base {amount(score.base, share)})" if score.base is not None else ""
            put(escape(f"  {task.removeprefix(PREFIX)} {spoken(score.metric)} {amount(score.value, share)}{base}"))
        if not entry.scores:
            put("  scores unknown", wrap=True)
    out.print()


def others(found: Iterable[KnownAdapter]) -> None:
    """Adapters of others: name, base, and whether they can be scored here."""
    put("\nAdapters of others, none of which was loaded here:")
    for one in found:
        about = f"not scored: {one.refused}" if one.refused else f"scored by {', '.join(one.tasks)}"
        put(f"[bold]{escape(one.name)}[/]  {escape(one.base)}")
        put(Padding(escape(about), (0, 0, 0, 2)), wrap=True)
    put("\nWhat one needs: finbench zoo show NAME")


def added(entry: ZooEntry, path: Path) -> None:
    """What was pinned."""
    zoo([entry])
    put(f"zoo:{entry.name} is {escape(entry.hub)}, written to {escape(str(path))}")


def dev_hub(url: str) -> None:
    """How to talk to a development Hub."""
    from finbench.hub.dev import TOKEN

    put(f"A development Hub is at {url}. In another shell:\n", wrap=True)
    for line in (f"HF_ENDPOINT={url}", f"HF_TOKEN={TOKEN}", "HF_HUB_DISABLE_XET=1", "HF_HUB_OFFLINE=0"):
        put(f"  export {line}")
    put("\nThen: finbench push ..., hf download ..., and so on.", wrap=True)
