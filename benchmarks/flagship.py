"""What an adapter reaches on the embedded bases once it has seen the whole train split of its task.

    finbench sweep examples/sweep-flagship.yaml --out OUT --data-dir DATA    hours; the same command goes on
    python benchmarks/flagship.py OUT --linear DATA                          a linear model where none is known
    python benchmarks/flagship.py OUT                                        the tables, on the terminal
    python benchmarks/flagship.py OUT --keep                                 what is finished, to benchmarks/flagship
    python benchmarks/flagship.py OUT --page                                 docs/results.md, its picture
    python benchmarks/flagship.py OUT --zoo                                  recipes and digests, to adapters_zoo

Reads OUT/scorecards, OUT/adapters and OUT/linear.json. Cells that are not finished are left open. A grid that was kept
goes on anywhere: copy benchmarks/flagship to OUT first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from linear import answered, by_nearest, by_text
from six_tasks import DOCS, keep, records, spread, table

from finbench.cards import cardfiles, contextual
from finbench.core import catalog, paths
from finbench.core.catalog import PREFIX, TRAINED
from finbench.core.files import write_atomic
from finbench.core.prose import wrapped
from finbench.core.records import Adapter, Recipe, Score, Scorecard
from finbench.core.seal import edited
from finbench.grid import sweepfile
from finbench.scoring import floors, prompts
from finbench.scoring.modelfree import TRAINED as MODELS
from finbench.training.reproduced import entry, trained

KEPT, PAGE, GRID = Path(__file__).with_suffix(""), DOCS / "results.md", DOCS.parent / "examples" / "sweep-flagship.yaml"
PICTURE = DOCS / "results.svg"
MARKS = "<!-- written by `python benchmarks/flagship.py OUT --page` -->", "<!-- end -->"
SINGLE, JOINT, CALIBRATED = "adapter", "one for all", "labels, calibrated"
ZOO = ("base", "method", "rank", "alpha", "lr", "epochs", "batch_size", "limit")  # what the cells of the grid state
COLUMNS = ("base", "5 examples", CALIBRATED, SINGLE, JOINT)


@dataclass
class Grid:
    """What is known of one base: its cards' scores, by column and task, and how its adapters were trained."""

    scores: defaultdict[tuple[str, str], list[Score]] = field(default_factory=lambda: defaultdict(list))
    points: defaultdict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    trained: defaultdict[str, list[Adapter]] = field(default_factory=lambda: defaultdict(list))  # of one task
    cards: list[Scorecard] = field(default_factory=list)  # of adapters
    records: dict[str, Adapter] = field(default_factory=dict)  # by the adapter that a card names

    @property
    def tasks(self) -> list[str]:
        """Those that an adapter was trained on."""
        return sorted({task for column, task in self.scores if column in (SINGLE, JOINT)})


def read(out: Path) -> dict[str, Grid]:
    """By base what its cards say; a card that was edited, or of no training that is there, ends it."""
    known, found = records(out), defaultdict[str, Grid](Grid)
    asked: dict[tuple[str, bool], Path] = {}  # by base, and whether there was nothing to read
    cards = {path: cardfiles.read(path) for path in sorted((out / "scorecards").glob("*.json"))}
    for path, card in sorted(cards.items(), key=lambda one: one[1].provenance.created):
        if wrong := edited(cardfiles.raw(path)):
            sys.exit(f"{path} was edited: {', '.join(wrong[:3])}.")
        grid, column = found[card.subject.base.alias], "5 examples" if card.shots else "base"
        if card.subject.adapter:
            if card.subject.adapter not in known:
                sys.exit(f"{path}: the record of its training is not in {out / 'adapters'}.")
            record = known[card.subject.adapter]
            column = SINGLE if len(record.recipe.tasks) == 1 else JOINT
            grid.cards.append(card)
            grid.records[card.subject.adapter] = record
            for task in record.recipe.tasks if column == SINGLE else ():
                grid.trained[task.removeprefix(PREFIX)].append(record)
        elif not card.shots:
            empty = "metadata.noise" in card.arguments
            labels = any(score.task.endswith("_mc") for score in card.scores)
            if labels or (card.subject.base.alias, empty) not in asked:
                asked[card.subject.base.alias, empty] = path
            if empty:
                continue
        for score in card.scores:
            key = column, score.task.removeprefix(PREFIX)
            if column == "base":  # asked once more, by a part of the grid: the last time counts
                grid.scores[key].clear()
                grid.points[key].clear()
            grid.scores[key].append(score)
            grid.points[key].append(100 * score.main.value)
    for name, grid in found.items():
        if (name, False) in asked and (name, True) in asked:
            for one in contextual(asked[name, False], asked[name, True]):
                task = one.task.removeprefix(PREFIX).removesuffix("_mc")
                grid.points[CALIBRATED, task].append(100 * one.calibrated.value)
    return found


def made(out: Path) -> dict[str, float]:
    """Points of the linear models that ``--linear`` trained, by digest of the test rows."""
    path = out / "linear.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def beside(score: Score, own: dict[str, float]) -> tuple[float | None, float | None]:
    """In points the best constant, and the best model that is none of language, trained on the whole train split."""
    values = {name: 100 * value[score.main_metric] for name, value in floors(score).items()}
    constants = [value for name, value in values.items() if name.startswith(("majority", "question", "always"))]
    models = [value for name, value in values.items() if name in MODELS.values()]
    models += [own[score.data.digest]] if score.data.digest in own else []
    return max(constants, default=None), max(models, default=None)


def linear(out: Path, grids: dict[str, Grid], data_dir: Path) -> None:
    """Train the linear models of test rows that ``tasks/linear.json`` does not have."""
    own = made(out)
    for score in {
        s.data.digest: s for grid in grids.values() for task in grid.tasks for s in grid.scores[SINGLE, task]
    }.values():
        if beside(score, own)[1] is not None:
            continue
        task = catalog.tasks()[score.task]
        lm_task = prompts.load([task], data_dir)[task.name]
        train, test = (list(prompts.rows(lm_task, split)) for split in ("train", "test"))
        test = test[: score.n]
        if prompts.data_id(task, lm_task, "test", test).digest != score.data.digest:
            sys.exit(f"{data_dir}: the test rows of {score.task} are not those of the cards.")
        guess = by_text if "choices" in train[0] else by_nearest
        own[score.data.digest] = 100 * answered(lm_task, test, guess(train, test))
        write_atomic(out / "linear.json", json.dumps(own, indent=1) + "\n")


def _percent(share: float | None) -> str:
    """Of a set whose size is known; filings have none."""
    return "–" if share is None else f"{100 * share:.0f}"


def scores(grid: Grid, own: dict[str, float]) -> str:
    """The table of one base; an adapter that is not above the linear model is marked."""
    rows = []
    columns = [column for column in COLUMNS if any(grid.points[column, task] for task in grid.tasks)]
    for task in grid.tasks:
        one = (grid.scores[SINGLE, task] or grid.scores[JOINT, task])[0]
        constant, model = beside(one, own)
        shown = []
        for column in columns:
            values = grid.points[column, task]
            two = " / ".join(f"{value:.1f}" for value in sorted(values))  # a deviation of two says too little
            shown.append(two if column == "5 examples" and len(values) == 2 else spread(values, 0))
            if column in (SINGLE, JOINT) and values and model is not None and statistics.mean(values) <= model:
                shown[-1] += "\u00a0↓"
        floor = ["–" if value is None else f"{value:.1f}" for value in (constant, model)]
        share = _percent(one.data.share)
        rows.append([task, one.main_metric, f"{one.n:,}", share, *floor, *shown])
    return table(["task", "metric", "n", "of the test, %", "best constant", "linear model", *columns], rows)


def costs(grid: Grid) -> str:
    """How each adapter was trained: medians over seeds."""
    rows = []
    for task, many in sorted(grid.trained.items()):
        one = many[0]
        took = statistics.median(record.training.seconds for record in many) / 60
        first = [
            f"{100 * card.scores[0].main.value:.1f}"
            for card in grid.cards
            if (record := grid.records[str(card.subject.adapter)]) in many and record.recipe.seed == 0
        ]
        alike = one.contamination.found.get(task, 0) if one.contamination else 0
        rows.append([
            task, f"{sum(data.rows for data in one.data):,}", _percent(one.data[0].share), str(alike),
            f"{one.recipe.epochs:g}", f"{one.training.steps:,}", f"{one.recipe.lr:g}", str(len(many)),
            *(first or ["–"]), f"{took:.0f}",
        ])  # fmt: skip
    shares = "train rows", "of the train split, %", "test texts in train"
    return table(["task", *shares, "epochs", "steps", "rate", "seeds", "seed 0", "minutes"], rows)


def picture(grids: dict[str, Grid], own: dict[str, float]) -> str:
    """A dot a way and task, the bases one below the other; pale dots are the trainings."""
    ways = {"best constant": "#8a94a0", "base at its best": "#a3862b", "linear model": "#c0643c", "adapter": "#2f6f9f"}
    row, left, right, top = 24, 200, 700, 40
    parts = [
        f'<circle cx="{left + 8 + 128 * number}" cy="14" r="5" fill="{colour}"/>'
        f'<text x="{left + 18 + 128 * number}" y="18">{way}</text>'
        for number, (way, colour) in enumerate(ways.items())
    ]
    for name, grid in grids.items():
        bottom = top + row * len(grid.tasks)
        for tick in range(0, 101, 20):
            x = left + (right - left) * tick / 100
            parts.append(f'<path d="M{x} {top - 4}V{bottom}" stroke="#8a94a0" stroke-opacity=".3"/>')
            parts.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle" class="s">{tick} %</text>')
        parts.append(f'<text x="0" y="{top - 10}" style="font-weight:600">{name}</text>')
        for place, task in enumerate(grid.tasks):
            y = top + row * place + row // 2
            many = grid.points[SINGLE, task]
            constant, model = beside((grid.scores[SINGLE, task] or grid.scores[JOINT, task])[0], own)
            base = [statistics.mean(grid.points[way, task]) for way in COLUMNS[:3] if grid.points[way, task]]
            points = constant, max(base, default=None), model, statistics.mean(many) if many else None
            parts.append(f'<text x="12" y="{y + 4}">{task}</text>')
            shown = [(value, ways["adapter"], 4, 0.35) for value in many]
            shown += [
                (value, colour, 5, 1) for value, colour in zip(points, ways.values(), strict=True) if value is not None
            ]
            parts += [
                f'<circle cx="{left + (right - left) * value / 100:.1f}" cy="{y}" r="{size}" fill="{colour}" '
                f'fill-opacity="{opacity}"/>'
                for value, colour, size, opacity in shown
            ]
        top = bottom + 56
    style = "text{font:13px system-ui,sans-serif;fill:#1c2430}.s{font-size:11px;fill:#68727f}.p{fill:#fff}"
    dark = "@media(prefers-color-scheme:dark){text{fill:#e6eaef}.s{fill:#96a1ad}.p{fill:#14191f}}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-12 -8 736 {top - 16}" width="736" height="{top - 16}" '
    head += 'role="img" aria-label="What adapters reach on each task, beside what needs no training">'
    back = f'<rect class="p" x="-12" y="-8" width="736" height="{top - 16}"/>'
    return "\n".join([f"{head}<style>{style}{dark}</style>{back}", *parts, "</svg>"]) + "\n"


def measured(grids: dict[str, Grid], own: dict[str, float]) -> str:
    """The measured part of docs/results.md: how much is done, and for each base its tables."""
    wanted = [_decisive(cell.recipe) for cell in sweepfile.cells(sweepfile.read(GRID))]
    shown = [
        _decisive(grid.records[str(card.subject.adapter)].recipe) for grid in grids.values() for card in grid.cards
    ]
    done = sum(recipe in wanted for recipe in shown)
    earlier = f" {len(shown) - done} are of an earlier version of it, with fewer passes." if done < len(shown) else ""
    said = f"{done} of the {len(wanted)} trainings of that file are done.{earlier} What is not, the tables leave out."
    parts = [] if done == len(wanted) == len(shown) else [said]
    for name, grid in grids.items():
        parts += [f"## {name}", scores(grid, own), "How they were trained; minutes of one core:", costs(grid)]
    return wrapped("\n\n".join([MARKS[0], *parts, MARKS[1]]))


def _decisive(recipe: Recipe) -> dict[str, Any]:
    """What a cell of the grid states: its rate is searched."""
    return recipe.model_dump(exclude={"name", "lr", "search"})


def page(grids: dict[str, Grid], own: dict[str, float]) -> None:
    """Write it there."""
    text = PAGE.read_text(encoding="utf-8")
    if not all(mark in text for mark in MARKS):
        sys.exit(f"{PAGE} has no place for the tables: {' '.join(MARKS)}")
    before, after = text.partition(MARKS[0])[0], text.partition(MARKS[1])[2]
    write_atomic(PICTURE, picture(grids, own))
    write_atomic(PAGE, before + measured(grids, own) + after)


def zoo(grids: dict[str, Grid]) -> None:
    """Write the recipe of each adapter of seed 0, whichever seed is best, and what it gave."""
    folder, defaults = (
        paths.shipped("adapters_zoo"),
        catalog.read_yaml(paths.shipped("adapters_zoo") / "_defaults.yaml"),
    )
    found = {name: one.model_dump() for name, one in trained().items()}  # of a part of the grid, the rest stays
    for base, grid in grids.items():
        for card in grid.cards:
            record = grid.records[str(card.subject.adapter)]
            if record.recipe.seed:
                continue
            tasks = [task.removeprefix(PREFIX) for task in record.recipe.tasks]
            name = f"{'all' if len(tasks) > 1 else tasks[0].replace('_', '-')}-{base}-whole"
            shown = {score.task.removeprefix(PREFIX): round(100 * score.main.value, 1) for score in card.scores}
            found[name] = entry(record).model_copy(update={"scores": shown}).model_dump()
            whole = record.recipe.model_dump(exclude_none=True, include={"tasks", *ZOO})
            stated = {key: value for key, value in whole.items() if defaults.get(key) != value}
            head = f"# An adapter of docs/results.md; {TRAINED} says which weights it gave. The rate: finbench tune.\n"
            write_atomic(folder / f"{name}.yaml", head + yaml.safe_dump(stated, sort_keys=False))
    head = "# recipe -> the weights that it gave, and on what; written by `python benchmarks/flagship.py OUT --zoo`\n"
    write_atomic(folder / TRAINED, head + yaml.safe_dump(dict(sorted(found.items())), sort_keys=False))


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--linear", type=Path, metavar="DATA", help="train linear models first, on rows from there")
    parser.add_argument("--keep", action="store_true", help="copy what is finished to benchmarks/flagship")
    parser.add_argument("--page", action="store_true", help="write docs/results.md")
    parser.add_argument("--zoo", action="store_true", help="write recipes and digests to adapters_zoo")
    given = parser.parse_args()
    grids = read(given.out)
    if given.linear:
        linear(given.out, grids, given.linear)
    if given.keep:
        keep(given.out, [card.subject for grid in grids.values() for card in grid.cards], KEPT)
    if given.zoo:
        zoo(grids)
    if given.page:
        page(grids, made(given.out))
    if given.zoo or given.page:
        return
    for name, grid in grids.items():
        print("\n\n".join([name, scores(grid, made(given.out)), costs(grid)]))


if __name__ == "__main__":
    main()
