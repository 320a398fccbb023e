"""The planned tests of docs/study-plan.md, and what stands beside them, from the scorecards of its grid.

    finbench sweep examples/sweep-six-tasks.yaml --out OUT --data-dir DATA     hours; the same command goes on
    python benchmarks/six_tasks.py OUT                                         tables, on the terminal
    python benchmarks/six_tasks.py OUT --beside DATA                           first the base at its best, an hour, and
                                                                               linear models of the same rows
    python benchmarks/six_tasks.py OUT --keep                                  what is finished, to benchmarks/six_tasks
    python benchmarks/six_tasks.py OUT --page                                  docs/study.md and its pictures

Reads OUT/scorecards, OUT/adapters, OUT/base and OUT/linear.json. Says which trainings are missing; the planned tests
are made of all of them or not at all. What stands beside them is asked once. A grid that was kept goes on anywhere,
with the version that began it: cp -r benchmarks/six_tasks OUT, then the first command.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from finbench.cards import Heading, cardfiles, contextual, plots
from finbench.cards.comparison import aggregation_of
from finbench.core import catalog
from finbench.core.catalog import PREFIX
from finbench.core.files import write_atomic
from finbench.core.prose import wrapped
from finbench.core.records import Adapter, Measure, Score, Scorecard, Subject
from finbench.core.seal import edited
from finbench.leaderboard import attested
from finbench.models import adapters
from finbench.scoring import clusters_of, holm, metrics, seed_spread, values_of
from finbench.scoring.stats import by_cluster

TASKS = ("fpb", "tfns", "fiqa_sa", "fin_ner_typing", "headlines", "xbrl_values")
SEEDS = (0, 1, 2, 3, 4)
WAYS = {
    ("lora", 16): "LoRA",
    ("lora+", 16): "LoRA+",
    ("dora", 16): "DoRA",
    ("pissa", 16): "PiSSA",
    ("lora", 4): "QLoRA",
    ("irqlora", 4): "IR-QLoRA",
}
PLANNED = (("LoRA+", "LoRA"), ("DoRA", "LoRA"), ("PiSSA", "LoRA"), ("QLoRA", "LoRA"), ("IR-QLoRA", "QLoRA"))
BASE, LIMIT = "smollm2-135m", 600
SHOTS = ((0, 0), (5, 0), (5, 1), (5, 2))  # worked examples, and the seed that draws them
LABELS = tuple(f"{task}_mc" for task in TASKS[:-1])
KEPT = Path(__file__).with_suffix("")
DOCS = KEPT.parent.parent / "docs"
MARKS = "<!-- written by `python benchmarks/six_tasks.py OUT --page` -->", "<!-- end -->"
_CARDS = ("*.json", "*.samples.jsonl.zst")
_FINISHED = ("steps/*.json", "searches/*/search.json", "searches/*/*-tuned.yaml", "linear.json")
_FINISHED += tuple(f"{folder}/{name}" for folder in ("scorecards", "base/*") for name in _CARDS)
_RESAMPLES = 2_000
Points = Mapping[tuple[str, str, int], float]  # way, task, seed -> main metric in points


@dataclass(frozen=True)
class Planned:
    """A planned difference: its interval, p before and after Holm, and the mean without each task."""

    pair: tuple[str, str]
    value: float
    low: float
    high: float
    p: float
    corrected: float
    without: dict[str, float]

    @property
    def found(self) -> bool:
        """By the rule of the plan: significant, and of one sign whichever task is left out."""
        return self.corrected < 0.05 and all(one * self.value > 0 for one in self.without.values())


def difference(points: Points, pair: tuple[str, str], tasks: Sequence[str]) -> tuple[float, float, float]:
    """(mean over tasks of the paired differences, its standard error, Welch-Satterthwaite's degrees of freedom)."""
    found, shares = [], []
    for task in tasks:
        gaps = [points[pair[0], task, seed] - points[pair[1], task, seed] for seed in SEEDS]
        found.append(statistics.mean(gaps))
        shares.append(statistics.variance(gaps) / len(gaps))
    total = sum(shares)
    free = total**2 / sum(share**2 / (len(SEEDS) - 1) for share in shares) if total else float(len(SEEDS) - 1)
    return statistics.mean(found), total**0.5 / len(tasks), free


def planned(points: Points) -> list[Planned]:
    """The five planned tests."""
    told = []
    for pair in PLANNED:
        value, error, free = difference(points, pair, TASKS)
        half = float(student.ppf(0.975, free)) * error
        p = float(2 * student.sf(abs(value) / error, free)) if error else float(value == 0)
        left = {task: difference(points, pair, [one for one in TASKS if one != task])[0] for task in TASKS}
        told.append((pair, value, value - half, value + half, p, left))
    corrected = holm([one[4] for one in told])
    return [
        Planned(pair, value, low, high, p, float(own), left)
        for (pair, value, low, high, p, left), own in zip(told, corrected, strict=True)
    ]


def single(points: Points) -> dict[tuple[str, str], list[tuple[str, float, float, float, float]]]:
    """Not planned: each pair on each task (value, low, high, p after Holm over all thirty)."""
    cells = []
    for pair, task in itertools.product(PLANNED, TASKS):
        value, error, free = difference(points, pair, [task])
        half = float(student.ppf(0.975, free)) * error
        p = float(2 * student.sf(abs(value) / error, free)) if error else float(value == 0)
        cells.append((pair, task, value, value - half, value + half, p))
    corrected = holm([one[-1] for one in cells])
    found: dict[tuple[str, str], list[tuple[str, float, float, float, float]]] = {}
    for (pair, task, value, low, high, _), own in zip(cells, corrected, strict=True):
        found.setdefault(pair, []).append((task, value, low, high, float(own)))
    return found


@dataclass(frozen=True)
class Cell:
    """An adapter that was trained on a task, its card and the record of its training."""

    way: str
    task: str
    seed: int
    card: Scorecard
    path: Path
    record: Adapter

    @property
    def points(self) -> float:
        """Its main metric on that task."""
        return 100 * self.score.main.value

    @property
    def score(self) -> Score:
        """Its score on the task it was trained on."""
        return next(score for score in self.card.scores if score.task == PREFIX + self.task)

    def sums(self) -> tuple[Any, Any]:
        """(sums of each source, shape (sources, k); the statistic of their total) of the main metric."""
        rows = cardfiles.rows_by_task(self.path, self.card)[PREFIX + self.task]
        name = self.score.main_metric
        how = metrics.known_as(aggregation_of(PREFIX + self.task, name))
        made = metrics.summed(how, values_of(rows)[name])
        if made is None:
            sys.exit(f"{self.path}: {name} is no function of sums.")
        sources = np.unique(clusters_of(rows), return_inverse=True)[1]
        return by_cluster(made.parts[None], sources.tolist())[0][0], made.statistic


Cells = Mapping[tuple[str, str, int], Cell]  # by way, task and seed


def by_documents(cells: Cells, pair: tuple[str, str]) -> tuple[float, float, float]:
    """Not planned: a difference and its interval over documents of these adapters, resampled by source.

    A task whose documents are all of one source tells nothing of others, and is left out.
    """
    draws: dict[str, Any] = {}
    for number, task in enumerate(TASKS):
        rng = np.random.default_rng([number, 1])
        weights: Any = None
        for side, sign in zip(pair, (1, -1), strict=True):
            for seed in SEEDS:
                parts, statistic = cells[side, task, seed].sums()
                if len(parts) == 1:
                    continue
                if weights is None:  # the same documents for all
                    weights = rng.multinomial(len(parts), np.full(len(parts), 1 / len(parts)), _RESAMPLES)
                    weights = np.vstack([np.ones(len(parts)), weights])  # the first as they are
                    draws[task] = np.zeros(len(weights))
                draws[task] += sign * 100 * statistic(weights @ parts) / len(SEEDS)
    value, *drawn = np.mean(list(draws.values()), axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(value), float(low), float(high)


def records(out: Path) -> dict[str, Adapter]:
    """By identity the record of each training: of its adapter's folder, or of the file that was kept of it."""
    folders = [adapters.read(path.parent) for path in sorted((out / "adapters").glob("*/finbench.json"))]
    kept = [
        attested.AttestedAdapter.parse(json.loads(path.read_text(encoding="utf-8")), str(path))
        for path in sorted((out / "adapters").glob("*.json"))
    ]
    found = {one.identity: one.record for one in folders if one.record is not None}
    return found | {one.identity: one.record for one in kept}


def read(out: Path) -> dict[tuple[str, str, int], Cell]:
    """The adapters of the grid by way, task and seed; a card that was edited, or is of another grid, ends it."""
    trained, found = records(out), dict[tuple[str, str, int], Cell]()
    for path in sorted((out / "scorecards").glob("*.json")):
        card = cardfiles.read(path)
        subject = card.subject
        if subject.adapter is None:
            continue
        if wrong := edited(cardfiles.raw(path)):
            sys.exit(f"{path} was edited: {', '.join(wrong[:3])}.")
        if subject.adapter not in trained:
            sys.exit(f"{path}: the record of its training is not in {out / 'adapters'}.")
        recipe = trained[subject.adapter].recipe
        tasks = [task for task in TASKS if list(recipe.tasks) == [PREFIX + task]]
        way = WAYS.get((recipe.method, recipe.bits))
        if way is None or not tasks or recipe.seed not in SEEDS or recipe.search is None:
            sys.exit(f"{path} is no training of the plan.")
        cell = Cell(way, tasks[0], recipe.seed, card, path, trained[subject.adapter])
        if found.setdefault((cell.way, cell.task, cell.seed), cell) is not cell:
            sys.exit(f"{path}: another card is of the same training.")
    return found


def rates(cells: Cells) -> dict[tuple[str, str], tuple[float, bool]]:
    """By way and task the rate that was found, and whether it is an end of what was tried."""
    found: dict[tuple[str, str], tuple[float, bool]] = {}
    for (way, task, _), cell in cells.items():
        recipe = cell.record.recipe
        tried = [trial.lr for trial in recipe.search.trials] if recipe.search else []
        told = recipe.lr, recipe.lr in (min(tried), max(tried))
        if found.setdefault((way, task), told) != told:
            sys.exit(f"{cell.path}: its rate is not that of the other seeds.")
    return found


def ask_base(out: Path, data_dir: Path) -> None:
    """The base by each of its templates: worked examples or none, labels with and without a text to read."""
    wanted: list[tuple[str, tuple[str, ...], list[str]]] = []
    wanted += [(f"shots-{shots}-{seed}", TASKS, ["--shots", str(shots), "--seed", str(seed)]) for shots, seed in SHOTS]
    wanted += [("labels", LABELS, []), ("content-free", LABELS, ["--metadata", "noise=content-free"])]
    for how in ("chat", "raw"):
        for name, tasks, more in wanted:
            folder = str(out / "base" / f"{how}-{name}")  # what is scored there is not asked again
            command = ["eval", "--model", BASE, "--tasks", ",".join(tasks), "--limit", str(LIMIT), *more]
            command += ["--chat" if how == "chat" else "--no-chat", "--data-dir", str(data_dir), "--out", folder]
            subprocess.run([sys.executable, "-m", "finbench", *command], check=True)


def linear(out: Path, cells: Cells, data_dir: Path) -> None:
    """What needs no language model, in points, of the test rows of the cards: trained on the rows of each seed's
    adapters, a value a seed, and on the whole train split (``linear.py`` has the models)."""
    from linear import answered, by_nearest, by_text

    from finbench.scoring import prompts
    from finbench.training.batches import choose

    told: dict[str, dict[str, list[float]]] = {}
    for task in TASKS:
        one = catalog.tasks()[PREFIX + task]
        lm_task = prompts.load([one], data_dir)[one.name]
        train, test = (list(prompts.rows(lm_task, split)) for split in ("train", "test"))
        test = test[: prompts.whole(lm_task, LIMIT)]
        guess = by_text if "choices" in train[0] else by_nearest
        told[task] = {"all": [100 * answered(lm_task, test, guess(train, test))], "same": []}
        for seed in SEEDS:
            cell = cells["LoRA", task, seed]
            rows = choose(train, cell.record.data[0].rows, seed)
            same = prompts.data_id(one, lm_task, "train", rows).digest == cell.record.data[0].digest
            if not same or prompts.data_id(one, lm_task, "test", test).digest != cell.score.data.digest:
                sys.exit(f"{data_dir}: the rows of {task} are not those of {cell.path}.")
            told[task]["same"].append(100 * answered(lm_task, test, guess(rows, test)))
    write_atomic(out / "linear.json", json.dumps(told, indent=1) + "\n")


def keep(out: Path, scored: Iterable[Subject], to: Path) -> None:
    """Copy what is finished, of ``scored`` adapters the records: of others only the training is lost."""
    for path in sorted(path for pattern in _FINISHED for path in out.glob(pattern)):
        target = to / path.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    subjects = {subject.adapter: subject for subject in scored}
    for folder in sorted(path.parent for path in (out / "adapters").glob("*/finbench.json")):
        subject = subjects.get(adapters.identity(folder))
        if subject is not None:
            write_atomic(to / attested.training_file(subject), attested.training(to, str(folder), subject))


def of_base(out: Path) -> dict[str, dict[str, list[float]]]:
    """By how it was asked and task the main metric of the base in points, a list over draws of worked examples."""
    found: dict[str, dict[str, list[float]]] = {}
    for how in ("raw", "chat"):
        for shots, seed in SHOTS:
            for path in (out / "base" / f"{how}-shots-{shots}-{seed}").glob("*.json"):
                for score in cardfiles.read(path).scores:
                    own = found.setdefault(f"{how}, {shots} examples", {})
                    own.setdefault(score.task.removeprefix(PREFIX), []).append(100 * score.main.value)
        plain = sorted((out / "base" / f"{how}-labels").glob("*.json"))
        free = sorted((out / "base" / f"{how}-content-free").glob("*.json"))
        for one in contextual(plain[0], free[0]) if plain and free else ():
            task = one.task.removeprefix(PREFIX).removesuffix("_mc")
            found.setdefault(f"{how}, labels", {})[task] = [100 * one.plain.value]
            found.setdefault(f"{how}, labels calibrated", {})[task] = [100 * one.calibrated.value]
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|--" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def spread(values: Sequence[float], whole: int) -> str:
    """Their mean and standard deviation, and how many there are where fewer than the ``whole``."""
    if not values:
        return "–"
    around = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{around}" + f" ({len(values)})" * (len(values) < whole)


def gap(value: float, low: float, high: float) -> str:
    """A difference in points with its interval."""
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")


def scores(out: Path, cells: Cells) -> str:
    """Table of what stands beside the adapters, and of these."""
    rows = []
    asked = [next((cell.score for cell in cells.values() if cell.task == task), None) for task in TASKS]
    for kind in ("random", "majority", "question_majority", "always_yes"):
        own = [one.baselines.get(kind) if one else None for one in asked]
        told = [f"{100 * v[one.main_metric]:.1f}" if one and v else "–" for one, v in zip(asked, own, strict=True)]
        rows.append([kind.replace("_", " "), *told])
    if (out / "linear.json").is_file():
        found = json.loads((out / "linear.json").read_text(encoding="utf-8"))
        for kind, name in (
            ("same", "linear model (xbrl_values: nearest row), the adapters' rows"),
            ("all", "linear model (xbrl_values: nearest row), the whole train split"),
        ):
            rows.append([name, *(spread(found[task][kind], 0) for task in TASKS)])
    rows += [[f"base: {how}", *(spread(own.get(task, ()), 0) for task in TASKS)] for how, own in of_base(out).items()]
    for way in WAYS.values():
        rows.append([way, *(spread(points_of(cells, way, task), len(SEEDS)) for task in TASKS)])
    head = [f"{task}, {one.main_metric}, n = {one.n}" if one else task for task, one in zip(TASKS, asked, strict=True)]
    return table(["", *head], rows)


def points_of(cells: Cells, way: str, task: str) -> list[float]:
    """A value a seed."""
    return [cells[way, task, seed].points for seed in SEEDS if (way, task, seed) in cells]


def tests(cells: Cells) -> list[str]:
    """Tables of the planned tests and of the single tasks, once all trainings are there."""
    missing = len(WAYS) * len(TASKS) * len(SEEDS) - len(cells)
    if missing:
        return [f"{missing} trainings are missing: no planned test is made."]
    points, lines = {key: cell.points for key, cell in cells.items()}, []
    for one in planned(points):
        left = min(one.without.items(), key=lambda item: item[1] * (1 if one.value > 0 else -1))
        lines.append([
            " against ".join(one.pair), gap(one.value, one.low, one.high), f"{one.p:.3f}", f"{one.corrected:.3f}",
            f"{left[1]:+.1f} without {left[0]}".replace("-", "−"), "yes" if one.found else "no",
            gap(*by_documents(cells, one.pair)),
        ])  # fmt: skip
    head = [
        "planned",
        "mean of six",
        "p",
        "Holm",
        "least without a task",
        "found",
        "over documents, not planned, without xbrl_values",
    ]
    every = [
        [" against ".join(pair), *(gap(*one[1:4]) + f", p {one[4]:.2f}" for one in own)]
        for pair, own in single(points).items()
    ]
    return [table(head, lines), table(["not planned; p corrected for thirty", *TASKS], every)]


def unusual(cells: Cells) -> str:
    """Table of the answers to headlines that are not the adapter's commonest one to their question: what it read."""
    rows = []
    for way in WAYS.values():
        counts = []
        for cell in (cells[way, "headlines", seed] for seed in SEEDS if (way, "headlines", seed) in cells):
            by_question: dict[str, list[str | None]] = {}
            for row in cardfiles.rows_by_task(cell.path, cell.card)[PREFIX + "headlines"]:
                question, _, said = row["values"]["question_f1"]
                by_question.setdefault(question, []).append(said)
            counts.append(sum(len(said) - max(map(said.count, said)) for said in by_question.values()))
        rows.append([way, *(str(count) for count in counts)])
    return table(["", *(f"seed {seed}" for seed in SEEDS)], rows)


def costs(cells: Cells) -> list[str]:
    """Tables of the rates that were found, and of what a training took: medians over seeds."""
    found = rates(cells)
    tried = [[way, *(_rate(found.get((way, task))) for task in TASKS)] for way in WAYS.values()]
    rows = []
    for way in WAYS.values():
        own = [
            [cells[way, task, seed].record.training for seed in SEEDS if (way, task, seed) in cells] for task in TASKS
        ]
        numbers = max((one.trainable_parameters for many in own for one in many), default=0)
        took = [f"{statistics.median(one.seconds for one in many):.0f}" if many else "–" for many in own]
        rows.append([way, f"{numbers:,}", *took])
    return [
        table(["rate (* an end of what was tried)", *TASKS], tried),
        table(["seconds of a training", "trained numbers", *TASKS], rows),
    ]


def _rate(told: tuple[float, bool] | None) -> str:
    return "–" if told is None else f"{told[0]:g}{'*' * told[1]}"


def plot(out: Path, cells: Cells, task: str) -> str:
    """A forest of the ways on a task: the mean over seeds, its interval, pale the trainings; dashed the floors."""
    shown: list[plots.Line] = []
    for way in WAYS.values():
        own = [cells[way, task, seed] for seed in SEEDS]
        spread = seed_spread([cell.score.main.value for cell in own])
        mean = Measure(value=spread.mean, low=spread.low, high=spread.high, method="Student's t over seeds")
        runs = [plots.SeedRun(cell.card, cell.score, None) for cell in own]
        shown.append(plots.Line(way, "", [plots.TableCell(mean, True, runs)]))
    constant = {kind: 100 * values[own[0].score.main_metric] for kind, values in own[0].score.baselines.items()}
    best = max(constant, key=lambda kind: constant[kind])
    floors = {best.replace("_", "-"): constant[best]}  # a picture shows the first word
    if (out / "linear.json").is_file():
        name = "linear" if f"{task}_mc" in LABELS else "nearest"
        floors[name] = json.loads((out / "linear.json").read_text(encoding="utf-8"))[task]["all"][0]
    if asked := [statistics.mean(found[task]) for found in of_base(out).values() if task in found]:
        floors["base at its best"] = max(asked)
    for name, value in floors.items():
        exact = Measure(value=value / 100, low=None, high=None, method="none")
        shown.append(plots.Line(name, "", [plots.TableCell(exact, True)], baseline=True))
    return plots.forest(plots.Table([Heading(own[0].score, ())], [], shown, "seeds", False), 0)


def page(out: Path, cells: Cells) -> None:
    """Write the measured part of docs/study.md, and its pictures."""
    first = next(iter(cells.values())).record
    hours = sum(cell.record.training.seconds for cell in cells.values()) / 3600
    names = ("torch", "transformers", "peft", "bitsandbytes")
    versions = ", ".join(f"{name} {first.provenance.packages[name]}" for name in names)
    told, made, read, took = tests(cells), scores(out, cells), unusual(cells), costs(cells)
    drawn = [task for task in TASKS if any(cell.task == task for cell in cells.values())]
    for task in drawn:
        write_atomic(DOCS / f"study-{task}.svg", plot(out, cells, task))
    draws = " (of the base, over draws of its examples)" if of_base(out) else ""
    parts = [
        f"{len(cells)} adapters, {hours:.1f} core-hours of training; {first.provenance.hardware['cpu']}, one thread "
        f"each; {versions}.",
        "**Planned tests**, in points with 95 % intervals:\n\n" + told[0],
        f"**Scores** in points, mean ± standard deviation over five seeds{draws}:\n\n" + made,
        "Dashed lines in the pictures: the best constant or random answer, the linear model (nearest row) of the whole "
        "train split, the base at its best.",
        "\n\n".join(f"![Scores on {task}, a dot a training](study-{task}.svg)" for task in drawn),
        *("**Single tasks**, not planned:\n\n" + table for table in told[1:]),
        "**Answers to headlines** that are not the adapter's commonest one to that question, of 594:\n\n" + read,
        "**Rates** that the searches found:\n\n" + took[0],
        "**Cost**, medians of five trainings with another one beside them:\n\n" + took[1],
    ]
    text = (DOCS / "study.md").read_text(encoding="utf-8")
    before, after = text.partition(MARKS[0])[0], text.partition(MARKS[1])[2]
    write_atomic(DOCS / "study.md", before + "\n\n".join([MARKS[0], wrapped("\n\n".join(parts)), MARKS[1]]) + after)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--beside", type=Path, metavar="DATA", help="score the base first, with data from there")
    parser.add_argument("--keep", action="store_true", help="copy what is finished to benchmarks/six_tasks")
    parser.add_argument("--page", action="store_true", help="write docs/study.md and docs/study-*.svg")
    given = parser.parse_args()
    cells = read(given.out)
    if given.beside:
        ask_base(given.out, given.beside)
        linear(given.out, cells, given.beside)
    if given.keep:
        keep(given.out, [cell.card.subject for cell in cells.values()], KEPT)
    if given.page:
        page(given.out, cells)
        return
    print("\n\n".join([scores(given.out, cells), *tests(cells), unusual(cells), *costs(cells)]))


if __name__ == "__main__":
    main()
