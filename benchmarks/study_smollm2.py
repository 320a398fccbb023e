"""The study of docs/study-smollm2.md: what its grid found, as tables and plots.

    finbench sweep examples/sweep-study.yaml --out leaderboards/study --data-dir DATA    hours; the same command goes on
    python benchmarks/study_smollm2.py page                                              writes the tables and plots

Reads leaderboards/study/steps and scorecards; writes the measured part of the page and leaderboards/study/*.svg, *.csv.
Needs scipy and matplotlib.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finbench.cards import cardfiles, comparison
from finbench.core.catalog import PREFIX
from finbench.core.files import write_atomic
from finbench.core.prose import wrapped
from finbench.core.records import Score, Scorecard
from finbench.core.seal import edited
from finbench.scoring import measuring

ROOT = Path(__file__).resolve().parent.parent
STUDY, PAGE = ROOT / "leaderboards" / "study", ROOT / "docs" / "study-smollm2.md"
START, END = "<!-- measured by benchmarks/study_smollm2.py -->", "<!-- end -->"
TASKS, SEEDS = ("fpb", "tfns", "headlines"), (0, 1, 2)
GENERAL = ("piqa", "winogrande")
# as the literature names them; the first is what the others are held against, and the last but one what the last is
METHODS = {
    ("lora", 16): "LoRA",
    ("rslora", 16): "rsLoRA",
    ("dora", 16): "DoRA",
    ("lora+", 16): "LoRA+",
    ("rosa", 16): "ROSA",
    ("pissa", 16): "PiSSA",
    ("lora", 4): "QLoRA (LoRA, 4 bits)",
    ("irqlora", 4): "IR-QLoRA (4 bits)",
}
CONTROL, QLORA, IRQLORA = "LoRA", "QLoRA (LoRA, 4 bits)", "IR-QLoRA (4 bits)"


@dataclass(frozen=True)
class Cell:
    """One adapter: what it was trained as and on, its card, and what its training took."""

    method: str
    task: str
    seed: int
    card: Scorecard
    path: Path
    training: dict[str, Any]

    def score(self, task: str) -> Score:
        """Its score on a task."""
        return score_of(self.card, task)


def score_of(card: Scorecard, task: str) -> Score:
    """The score of a task that a card has."""
    return next(score for score in card.scores if score.task == PREFIX + task)


def steps(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Every finished step of a kind with its name; each file must be called by the key in it."""
    found = []
    for path in sorted((STUDY / "steps").glob("*.json")):
        step = json.loads(path.read_text(encoding="utf-8"))
        if step["kind"] == kind and step["state"] == "done":
            name = step["name"].removeprefix(f"{kind} ")
            if step["key"] != path.stem:
                sys.exit(f"{path} is not the step that it says it is.")
            found.append((name, step))
    return found


def named(method: str | None, bits: int, task: str, seed: int) -> str:
    """What a step of a cell is called."""
    return f"{task}-smollm2-135m-{str(method).replace('+', 'plus')}-{bits}bit-s{seed}"


def cells() -> list[Cell]:
    """Every finished cell. What it is comes from its card, and its steps must be named and have scored alike."""
    trained, found = dict(steps("train")), []
    for name, step in steps("score"):
        path = STUDY / "scorecards" / step["files"][0]
        card = cardfiles.read(path)
        if wrong := edited(cardfiles.raw(path)):
            sys.exit(f"{path} was edited: {', '.join(wrong[:3])}.")
        scores = {score.task: [score.main_metric, score.main.value] for score in card.scores}
        if any(scores.get(task) != value for task, value in step["scores"].items()):
            sys.exit(f"{path} does not have the scores of the step {name}.")
        if card.subject.adapter is None:
            continue
        subject = card.subject
        [task] = [one for one in TASKS if PREFIX + one in scores]
        own = named(subject.method, subject.bits, task, int(subject.seed or 0))
        if not name == subject.name == own:
            sys.exit(f"{path} is of {own}, its step of {name}.")
        method = METHODS[str(subject.method), subject.bits]
        found.append(Cell(method, task, int(subject.seed or 0), card, path, trained[name]))
    order = list(METHODS.values())
    return sorted(found, key=lambda cell: (order.index(cell.method), TASKS.index(cell.task), cell.seed))


def bases() -> dict[int, tuple[Path, Scorecard]]:
    """The base's card by its bits: it has all tasks."""
    read = {path: cardfiles.read(path) for path in sorted((STUDY / "scorecards").glob("*.json"))}
    return {card.subject.bits: (path, card) for path, card in read.items() if card.subject.adapter is None}


def searches() -> dict[str, dict[str, Any]]:
    """The search of each method, as its step tells it: on the first task, with the first seed."""
    found = dict(steps("search"))
    return {shown: found[named(name, bits, TASKS[0], SEEDS[0])] for (name, bits), shown in METHODS.items()}


# ---------------------------------------------------------------- values


def values(found: Sequence[Cell], method: str, task: str) -> list[float]:
    """The main metric in points, a seed each, of the adapters that were trained on the task."""
    return [100 * cell.score(task).main.value for cell in found if (cell.method, cell.task) == (method, task)]


def means(found: Sequence[Cell], method: str) -> list[float]:
    """Mean over the tasks, a seed each."""
    by_task = [values(found, method, task) for task in TASKS]
    return [statistics.mean(seed) for seed in zip(*by_task, strict=True)]


def against(found: Sequence[Cell], pick: Callable[[str], list[float]]) -> dict[str, tuple[float, float, float, float]]:
    """method -> (difference to LoRA, low, high, p): Dunnett's test of many treatments and one control (1955)."""
    from scipy.stats import dunnett

    others = [method for method in METHODS.values() if method != CONTROL]
    tested = dunnett(*[pick(method) for method in others], control=pick(CONTROL), rng=np.random.default_rng(0))
    ends = tested.confidence_interval(0.95)
    control = statistics.mean(pick(CONTROL))
    return {
        method: (statistics.mean(pick(method)) - control, float(low), float(high), float(p))
        for method, low, high, p in zip(others, ends.low, ends.high, tested.pvalue, strict=True)
    }


def by_seed(pick: Callable[[str], list[float]]) -> dict[str, tuple[float, float, float, float]]:
    """method -> (difference to LoRA, low, high, p) with seeds as blocks: a seed draws one set of rows for all.

    A two-way layout without interaction; the comparisons are many-to-one, as Dunnett's, on its residual.
    """
    from scipy.optimize import brentq
    from scipy.stats import multivariate_t

    table = np.array([pick(method) for method in METHODS.values()])
    methods, seeds = table.shape
    free = (methods - 1) * (seeds - 1)
    residual = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    error = float(np.sqrt((residual**2).sum() / free * 2 / seeds))
    together = np.full((methods - 1, methods - 1), 0.5) + 0.5 * np.eye(methods - 1)

    def beyond(size: float) -> float:  # chance that the largest of the differences is beyond so many standard errors
        joint = multivariate_t(shape=together, df=free, seed=0)
        ends = np.full(methods - 1, size)
        return 1 - float(joint.cdf(ends, lower_limit=-ends, maxpts=200_000))

    half = error * float(brentq(lambda size: beyond(size) - 0.05, 1.5, 6, xtol=1e-3))
    control = list(METHODS.values()).index(CONTROL)
    told = {}
    for number, method in enumerate(METHODS.values()):
        if number != control:
            value = float(table[number].mean() - table[control].mean())
            told[method] = (value, value - half, value + half, max(0.0, beyond(abs(value) / error)))
    return told


def contrast(pick: Callable[[str], list[float]], a: str, b: str) -> tuple[float, float, float, float]:
    """(a - b, low, high, p): t test with the spread of seeds pooled over all methods, as Dunnett's has it."""
    from scipy.stats import t

    groups = {method: pick(method) for method in METHODS.values()}
    free = sum(len(group) - 1 for group in groups.values())
    pooled = sum((len(group) - 1) * statistics.variance(group) for group in groups.values()) / free
    error = (pooled * (1 / len(groups[a]) + 1 / len(groups[b]))) ** 0.5
    gap = statistics.mean(groups[a]) - statistics.mean(groups[b])
    half = float(t.ppf(0.975, free)) * error
    return gap, gap - half, gap + half, float(2 * t.sf(abs(gap) / error, free))


def by_documents(a: Sequence[Cell], b: Sequence[Cell], task: str) -> Any:
    """Paired difference on a task over documents, of the answers of several adapters each: documents are resampled."""
    sides, clusters = [], []
    for side in (a, b):
        rows = [cardfiles.rows_by_task(cell.path, cell.card)[PREFIX + task] for cell in side]
        metric = side[0].score(task).main_metric
        sides.append([value for one in rows for value in measuring.values_of(one)[metric]])
        clusters = [source for one in rows for source in measuring.clusters_of(one)]
    how = comparison.aggregation_of(PREFIX + task, a[0].score(task).main_metric)
    return measuring.paired_difference(sides[0], sides[1], how, clusters)


# ---------------------------------------------------------------- tables


def gap(told: Sequence[float]) -> str:
    """A difference in points with its interval; bold where zero lies outside."""
    value, low, high = told[:3]
    text = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")
    return f"**{text}**" if low > 0 or high < 0 else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|--" * 1 + "|" + "--:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def scores(found: Sequence[Cell]) -> str:
    """Mean and standard deviation over seeds."""
    head = ["", *(f"{task}, {_metric(found, task)}" for task in TASKS), "mean of the three"]
    rows = []
    for kind, name in (("random", "random answers"), ("majority", "always the most frequent answer")):
        asked = [next(cell for cell in found if cell.task == task).score(task) for task in TASKS]
        own = [100 * score.baselines[kind][score.main_metric] for score in asked]
        rows.append([name, *(f"{value:.1f}" for value in own), f"{statistics.mean(own):.1f}"])
    for bits, (_, card) in sorted(bases().items(), reverse=True):
        own = [100 * score_of(card, task).main.value for task in TASKS]
        name = "base, untrained" if bits == 16 else f"base, untrained, {bits} bits"
        rows.append([name, *(f"{value:.1f}" for value in own), f"{statistics.mean(own):.1f}"])
    for method in METHODS.values():
        columns = [*(values(found, method, task) for task in TASKS), means(found, method)]
        rows.append([method, *(f"{statistics.mean(one):.1f} ± {statistics.stdev(one):.1f}" for one in columns)])
    return table(head, rows)


def differences(found: Sequence[Cell]) -> str:
    """Against LoRA."""
    told = [against(found, lambda method, task=task: values(found, method, task)) for task in TASKS]
    every = against(found, lambda method: means(found, method))
    head = ["against LoRA, 16 bits", *TASKS, "mean of the three", "p of the mean"]
    rows = [[method, *(gap(one[method]) for one in told), gap(every[method]), _p(every[method][3])] for method in every]
    ours = [contrast(lambda m, task=task: values(found, m, task), IRQLORA, QLORA) for task in TASKS]
    mean = contrast(lambda method: means(found, method), IRQLORA, QLORA)
    rows.append(["IR-QLoRA against QLoRA (t test)", *map(gap, ours), gap(mean), _p(mean[3])])
    return table(head, rows)


def blocked(found: Sequence[Cell]) -> str:
    """The same, seed by seed."""
    told = [by_seed(lambda method, task=task: values(found, method, task)) for task in TASKS]
    every = by_seed(lambda method: means(found, method))
    head = ["against LoRA, by seed", *TASKS, "mean of the three", "p of the mean"]
    rows = [[method, *(gap(one[method]) for one in told), gap(every[method]), _p(every[method][3])] for method in every]
    return table(head, rows)


def documents(found: Sequence[Cell]) -> str:
    """The same differences with the documents as what is sampled, for these adapters."""
    rows = []
    for method in METHODS.values():
        if method == CONTROL:
            continue
        row = [method]
        for task in TASKS:
            pair = [[c for c in found if (c.method, c.task) == (name, task)] for name in (method, CONTROL)]
            one = by_documents(pair[0], pair[1], task)
            row.append(gap([100 * (v or 0.0) for v in (one.measure.value, one.measure.low, one.measure.high)]))
        rows.append(row)
    return table(["against LoRA, these adapters", *TASKS], rows)


def forgetting(found: Sequence[Cell]) -> str:
    """Accuracy on general tasks against the base of the same bits, over the nine adapters of a method."""
    rows = []
    for bits, (_, card) in sorted(bases().items(), reverse=True):
        name = "base, untrained" if bits == 16 else f"base, untrained, {bits} bits"
        own = [score_of(card, task).main for task in GENERAL]
        rows.append([name, *(f"{100 * one.value:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]" for one in own)])
    for (_, bits), method in METHODS.items():
        path, card = bases()[bits]
        adapters = [cell for cell in found if cell.method == method]
        beside = [Cell("base", "", 0, card, path, {})] * len(adapters)
        row = [f"{method}, change"]
        for task in GENERAL:
            one = by_documents(adapters, beside, task)
            row.append(gap([100 * (v or 0.0) for v in (one.measure.value, one.measure.low, one.measure.high)]))
        rows.append(row)
    return table(["", *(f"{task}, {_metric(found, task)}" for task in GENERAL)], rows)


def costs(found: Sequence[Cell]) -> str:
    """What a training took: medians over the nine adapters of a method."""
    rows = []
    told = searches()
    for method in METHODS.values():
        own = [cell for cell in found if cell.method == method]
        count = own[0].card.subject.trainable_parameters or 0
        speed = statistics.median(cell.training["tokens_per_second"] for cell in own)
        seconds = statistics.median(cell.training["seconds"] for cell in own)
        search = told.get(method, {})
        trials = (search.get("search") or {}).get("trials") or []
        lowest, highest = (f(t["lr"] for t in trials) for f in (min, max)) if trials else (0.0, 0.0)
        edge = " (an end of its range)" if trials and search["lr"] in (lowest, highest) else ""
        rows.append(
            [method, f"{count:,}", f"{search.get('lr', 0):.2g}{edge}", f"{speed:.0f}", f"{seconds:.0f}",
             f"{search.get('seconds', 0) / 60:.0f}"]
        )  # fmt: skip
    return table(["", "trained numbers", "learning rate", "tokens/s", "s a training", "min of the search"], rows)


def _metric(found: Sequence[Cell], task: str) -> str:
    score = next(cell for cell in found if any(s.task == PREFIX + task for s in cell.card.scores)).score(task)
    named = {"macro_f1": "macro-F1", "question_f1": "F1 of nine questions"}
    return f"{named.get(score.main_metric, score.main_metric)}, n = {score.n:,}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


# ---------------------------------------------------------------- plots and files


# names of dots that lie on each other
_BESIDE: dict[str, Any] = {
    "LoRA": {"xytext": (9, -4)},
    "LoRA+": {"xytext": (-9, -10), "ha": "right"},
    "rsLoRA": {"xytext": (-9, 4), "ha": "right"},
}


def plot(found: Sequence[Cell], target: Path) -> None:
    """Score over the seconds of a training: a dot a method, whiskers from the least to the greatest seed."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "finbench"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.4, 4.8))
    colours = {16: "#2f6f9f", 4: "#9f3f5f"}
    for (_, bits), method in METHODS.items():
        own = [cell for cell in found if cell.method == method]
        x = statistics.median(cell.training["seconds"] for cell in own)
        y = means(found, method)
        middle = statistics.mean(y)
        axes.errorbar([x], [middle], yerr=[[middle - min(y)], [max(y) - middle]], fmt="o", color=colours[bits], ms=7,
                      capsize=3)  # fmt: skip
        axes.annotate(method.partition(" (")[0], (x, middle), textcoords="offset points", fontsize=9,
                      **_BESIDE.get(method, {"xytext": (8, 5)}))  # fmt: skip
    axes.set_xlabel("seconds a training of 400 rows, one thread (median of nine)")
    axes.set_ylabel("mean main metric of fpb, tfns, headlines in %")
    axes.set_title("smollm2-135m: dots are means, whiskers the least and greatest of three seeds", fontsize=10)
    handles = [pyplot.Line2D([], [], marker="o", ls="", color=colour) for colour in colours.values()]
    axes.legend(handles, [f"{bits} bits" for bits in colours], frameon=False)
    axes.grid(color="#dfe4ea", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.14, y=0.12)
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None, "Creator": None})


def rows_csv(found: Sequence[Cell]) -> str:
    """Every number of every cell, a line a score."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    about = ["tokens_per_second", "training_seconds"]
    out.writerow(["method", "bits", "trained_on", "seed", "task", "metric", "value", "low", "high", "n", *about])
    for cell in found:
        for score in cell.card.scores:
            out.writerow([cell.card.subject.method, cell.card.subject.bits, cell.task, cell.seed,
                          score.task.removeprefix(PREFIX), score.main_metric, score.main.value, score.main.low,
                          score.main.high, score.n, cell.training["tokens_per_second"],
                          cell.training["seconds"]])  # fmt: skip
    return text.getvalue()


def measured() -> str:
    """The measured part of the page, Markdown."""
    found = cells()
    first = found[0].card
    software = first.provenance.packages
    machine = first.provenance.hardware
    trained = sum(cell.training["seconds"] for cell in found) / 3600
    searched = sum(step["seconds"] for step in searches().values()) / 3600
    versions = ", ".join(f"{name} {software[name]}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    parts = [
        f"{len(found)} adapters, {trained:.1f} core-hours of training and {searched:.1f} of searches; "
        f"{machine['cpu']}, one thread each; {versions}.",
        "**Scores** in %, mean ± standard deviation over three seeds:\n\n" + scores(found),
        "**Differences** in points with simultaneous 95 % intervals (Dunnett), bold where zero lies outside:\n\n"
        + differences(found),
        "**The same with seeds as blocks**, because all methods have the same rows for a seed (many-to-one on the "
        "residual of methods and seeds, 14 degrees of freedom):\n\n" + blocked(found),
        "**The same for exactly these adapters**, where documents are what is sampled: paired bootstrap over "
        "documents, the answers of three seeds pooled before the metric (so the values differ from the means above), "
        "no correction for several comparisons:\n\n" + documents(found),
        "**Forgetting**: the general tasks, and the change against the base of the same bits, in points (paired "
        "bootstrap over documents, the nine adapters of a method together):\n\n" + forgetting(found),
        "**Cost**: medians of the nine trainings of a method, one thread, and the rate that its search found:\n\n"
        + costs(found),
    ]
    return wrapped("\n\n".join(parts))


def page() -> None:
    """Write everything that follows from the results."""
    found = cells()
    wanted = len(METHODS) * len(TASKS) * len(SEEDS)
    if len(found) < wanted:
        sys.exit(f"{len(found)} of {wanted} cells are done: finbench sweep examples/sweep-study.yaml goes on.")
    plot(found, STUDY / "score-over-cost.svg")
    write_atomic(STUDY / "scores.csv", rows_csv(found))
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(START)[0], text.partition(END)[2]
    write_atomic(PAGE, f"{before}{START}\n{measured()}\n{END}{after}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("page",))
    parser.parse_args()
    page()
