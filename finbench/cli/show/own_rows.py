"""What ``finbench data check`` prints."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Sequence

import numpy as np
from rich.markup import escape
from rich.text import Text

from finbench.cli.show.layout import columned, put
from finbench.core.console import out
from finbench.core.errors import harmless
from finbench.core.records import name_of_source
from finbench.training import CheckedData

_BAR = 34  # characters of the longest bar
_HEAD, _TAIL, _ANSWER = 4, 4, 8  # lines that are shown of what comes before an answer, and of an answer
_LABELS = 12


def checked(found: Sequence[CheckedData]) -> None:
    """Source by source."""
    for number, one in enumerate(found):
        if number:
            put()
        _source(one)
    if not any(one.fault for one in found):
        put(f"\nNext: finbench train {escape(_options(found))}")


def _options(found: Sequence[CheckedData]) -> str:
    """What ``finbench train`` is to be given."""
    recipe = found[0].recipe
    parts = []
    for part in recipe.data:
        source = part.source if part.source.startswith("hub:") else os.path.relpath(part.source)
        weight = "" if part.weight == 1 else f":{part.weight:g}"
        parts.append(f"--data {shlex.quote(min(part.source, source, key=len) + weight)}")
    alike = all(part.map == recipe.data[0].map for part in recipe.data)
    for part in recipe.data[:1] if alike else recipe.data:
        if part.map:
            file = "" if alike else f"{name_of_source(part.source)}:"
            parts.append(
                "--map " + shlex.quote(file + ",".join(f"{name}={column}" for name, column in part.map.items()))
            )
    if recipe.bad_rows != "refuse":
        parts.append(f"--set bad_rows={recipe.bad_rows}")
    default = "smollm2-135m"
    return " ".join([*parts, *([] if recipe.base == default else [f"--base {shlex.quote(recipe.base)}"])])


def _source(one: CheckedData) -> None:
    made, survey = one.made, one.made.survey
    put(f"[bold]{escape(survey.name)}[/]  {escape(survey.said.removeprefix(survey.name + ': '))}", wrap=True)
    put()
    rows = columned("", "", "", numbers=range(1, 2))
    rows.add_row("read", f"{survey.read + sum(survey.elsewhere.values()):,}", "")
    for why, count in made.dropped(one.recipe).items():
        rows.add_row(f"  {why}", f"{count:,}", f"[dim]{_becomes(why, one)}[/]")
    rows.add_row("learnt", f"[bold]{made.rows:,}[/]", _apart(one))
    out.print(rows)
    for line in [*survey.faults, *made.faults]:
        put(Text(f"  {line}", style="red"), wrap=True)
    _lengths(one)
    if survey.labels:
        shown = "  ".join(f"{label.strip()!r} {count:,}" for label, count in list(survey.labels.items())[:_LABELS])
        more = f"  and {len(survey.labels) - _LABELS} more" if len(survey.labels) > _LABELS else ""
        put(f"\n[dim]answers[/]  {escape(shown)}{more}", wrap=True)
    for line in survey.warnings():
        put(f"[yellow]warning[/]  {escape(line)}", wrap=True)
    _tests(one)
    for text, place in made.shown:
        put(f"\n[dim]{escape(place)}[/]")
        put(_row(text.text, text.spans, one.end if text.closed else ""))


def _becomes(why: str, one: CheckedData) -> str:
    """What is done about rows that are left out."""
    if why == "bad" or why == "refused":
        return "left out" if one.recipe.bad_rows == "drop" else "refused: correct them, or --set bad_rows=drop"
    if why == "too long":
        ways = "refused: --set long_rows=cut or drop, or a larger max_length"
        return f"more than {one.longest:,} tokens, " + ("left out" if one.recipe.long_rows == "drop" else ways)
    if why.endswith("cut"):
        return f"at {one.longest:,} tokens"
    return "left out"


def _apart(one: CheckedData) -> str:
    if not one.made.apart:
        return ""
    return f"[dim]{one.made.apart:,} conversations in a row for each answer: the template rewrites earlier turns[/]"


def _lengths(one: CheckedData) -> None:
    lengths = np.array(one.made.lengths)
    if not len(lengths):
        return
    bars = one.histogram
    most = max(count for *_, count in bars)
    put(f"\n[dim]tokens a row, by the tokenizer of {escape(one.base)}[/]")
    table = columned("", "", "", numbers=range(1))
    for first, last, count in bars:
        bar = "█" * round(_BAR * count / most) or ("▏" if count else "")
        over = first > one.longest
        label = f"{first:,}-{last:,}" if last > first else f"{first:,}"
        table.add_row(f"{label:>13}", f"[{'red' if over else 'cyan'}]{bar}[/]", f"{count:,}" if count else "")
    out.print(table)
    if one.made.uncounted:
        put(f"[dim]rows of far more tokens than a row may have, not counted here: {one.made.uncounted:,}[/]", wrap=True)
    middle, high = (int(np.percentile(lengths, share)) for share in (50, 90))
    put(
        f"[dim]median {middle:,}, nine of ten up to {high:,}, longest {int(lengths.max()):,}; "
        f"{int(lengths.sum()):,} in all, {one.made.answers:,} of them learnt[/]",
        wrap=True,
    )


def _tests(one: CheckedData) -> None:
    looked, found = one.contamination.looked_for, one.contamination.found
    if not looked:
        put("\n[dim]test texts[/]  no ranked test set is on this machine to compare with", wrap=True)
        return
    for name, count in found.items():
        put(f"[yellow]warning[/]  {count:,} of {looked[name]:,} test texts of {escape(name)} stand in these rows.")
    if not found:
        put(
            f"\n[dim]test texts[/]  none of {', '.join(looked)} ({sum(looked.values()):,}) stands in these rows",
            wrap=True,
        )


def _row(text: str, spans: Sequence[tuple[int, int]], end: str) -> Text:
    """A row with its answers marked: by colour, or in brackets where there is none."""
    made, seen = Text(), 0
    plain = out.color_system is None
    for number, (first, last) in enumerate(spans):
        before = _few(text[seen:first], _HEAD if not number else 1, _TAIL)
        answer = _few(text[first:last], _ANSWER, 2)
        made.append(harmless(before), "dim")
        ends = end if number == len(spans) - 1 else ""
        made.append(harmless(f"⟦{answer}{ends}⟧" if plain else answer), "bold green")
        if ends and not plain:
            made.append(harmless(ends), "green")
        seen = last
    return Text("\n").join(_indented(made))


def _indented(text: Text) -> list[Text]:
    width = max(20, out.width - 2)
    lines = [part for line in text.split("\n", allow_blank=True) for part in (line.wrap(out, width) or [line])]
    return [Text("  ") + line for line in lines]


def _few(text: str, head: int, tail: int) -> str:
    """The first and last lines of a text, as wide as the terminal; nothing of a short one is lost."""
    width = max(20, out.width - 2)
    lines = (
        [
            part
            for line in text.split("\n")
            for part in (textwrap.wrap(line, width, drop_whitespace=False, replace_whitespace=False) or [""])
        ]
        if len(text) > width * (head + tail) or text.count("\n") >= head + tail
        else []
    )
    if len(lines) <= head + tail:
        return text
    left = len(lines) - head - tail
    return "\n".join([*lines[:head], f"… {left:,} lines …", *lines[-tail:]])
