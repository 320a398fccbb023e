"""Plans, publications and the zoo in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from finbench.cards import amount
from finbench.core.catalog import PREFIX
from finbench.core.console import err, out
from finbench.scoring.metrics import is_share, spoken

if TYPE_CHECKING:
    from finbench.hub import Change, Plan
    from finbench.models.zoo import ZooEntry
    from finbench.publishing import Pulled, Pushed

_COLOURS = {"added": "green", "replaced": "yellow", "removed": "red", "unchanged": "dim"}


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
    _plan(done.plan)
    if done.published is None:
        if done.readme:
            out.print("\n[bold]README.md[/]\n")
            out.print(done.readme, markup=False, highlight=False, soft_wrap=True)
    elif not done.published.new and not done.published.pull_request:
        out.print(f"Nothing to do: {done.published.url} is as it should be.", highlight=False, soft_wrap=True)
    else:
        what = "Pull request" if done.published.pull_request else "Published"
        out.print(f"{what}: {done.published.url}", highlight=False, soft_wrap=True)
        if done.plan.kind == "model" and not done.published.pull_request:
            pin = f"hub:{done.plan.repo}@{done.published.sha}"
            out.print(f"To use it: finbench eval --adapter {pin}", highlight=False, soft_wrap=True)


def plan_rows(changes: Sequence[Change]) -> None:
    """What happens to each file, a line a file."""
    widest = max((len(change.state) for change in changes), default=0)
    sizes = max((len(size(change.size)) for change in changes), default=0)
    for change in changes:  # whole, however narrow the terminal: paths that end alike are told apart by their ends
        state = f"[{_COLOURS[change.state]}]{change.state:<{widest}}[/]"
        out.print(f"{state}  {size(change.size):>{sizes}}  {escape(change.path)}", highlight=False, soft_wrap=True)


def _plan(plan: Plan) -> None:
    from finbench.hub import page

    visibility = "private" if plan.private else "public"
    state = (
        visibility
        if plan.exists
        else f"new, {visibility}"
        if plan.compared
        else "not compared: the Hub is out of reach"
    )
    how = "a pull request" if plan.pull_request else "one commit"
    where = page(plan.repo, plan.kind)
    out.print(f"[bold]{escape(where)}[/] ({state}), {how}: {escape(plan.message)}", highlight=False, soft_wrap=True)
    plan_rows(plan.changes)
    out.print(f"[dim]{size(plan.upload_bytes)} to send[/]", highlight=False)


def pulled(done: Pulled) -> None:
    """Where it is and what to do next; the base is shown, for the adapter does not choose it."""
    from finbench.publishing import stated_base

    out.print(f"{escape(done.source)} is in {escape(str(done.folder))}", highlight=False, soft_wrap=True)
    base = escape(stated_base(done.adapter))
    out.print(f"It states the base {base}.", highlight=False, soft_wrap=True)
    folder = str(done.folder) if "/" in str(done.folder) else f"./{done.folder}"
    out.print(f"Next: finbench eval --adapter {escape(folder)}", highlight=False, soft_wrap=True)


def zoo(entries: Sequence[ZooEntry]) -> None:
    """Published adapters: score, base, method, size, date."""
    if not entries:
        out.print("[dim]No published adapter is pinned yet: finbench zoo add hub:org/name[/]\n", soft_wrap=True)
        return
    for entry in entries:  # lines, not a table: names stay whole however narrow the terminal
        rank = f", r {entry.rank}" if entry.rank else ""
        bits = f", {entry.bits} bits" if entry.bits not in (None, 16) else ""
        about = f"{entry.method}{rank}{bits} on {entry.base}, {size(entry.bytes)}, {entry.date}"
        out.print(f"[bold]zoo:{escape(entry.name)}[/]  {escape(about)}", highlight=False, soft_wrap=True)
        for task, score in entry.scores.items():
            share = is_share(score.metric)
            base = f" (base {amount(score.base, share)})" if score.base is not None else ""
            line = f"  {task.removeprefix(PREFIX)} {spoken(score.metric)} {amount(score.value, share)}{base}"
            out.print(escape(line), highlight=False, soft_wrap=True)
        if not entry.scores:
            out.print("  scores unknown", highlight=False)
    out.print()


def added(entry: ZooEntry, path: Path) -> None:
    """What was pinned."""
    zoo([entry])
    out.print(
        f"zoo:{entry.name} is {escape(entry.hub)}, written to {escape(str(path))}", highlight=False, soft_wrap=True
    )


def dev_hub(url: str) -> None:
    """How to talk to a development Hub."""
    from finbench.hub.dev import TOKEN

    out.print(f"A development Hub is at {url}. In another shell:\n", highlight=False)
    for line in (f"HF_ENDPOINT={url}", f"HF_TOKEN={TOKEN}", "HF_HUB_DISABLE_XET=1", "HF_HUB_OFFLINE=0"):
        out.print(f"  export {line}", highlight=False, soft_wrap=True)
    out.print("\nThen: finbench push ..., hf download ..., and so on.", highlight=False)
