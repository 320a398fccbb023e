"""Financial PhraseBank on the embedded base: three seeds of the zoo's recipe beside the base.

    python benchmarks/fpb_smollm2.py run --data-dir DATA     trains and scores into runs/fpb (17 minutes of one core)
    python benchmarks/fpb_smollm2.py table                   the table of docs/quickstart.md, from the scorecards
    python benchmarks/fpb_smollm2.py terminal                what `finbench eval` prints (README)

DATA is where ``finbench data import fpb Sentences_*Agree.txt`` has put the rows.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
from pathlib import Path

from finbench.cards import cardfiles, render
from finbench.core.records import Score, Scorecard
from finbench.evaluation import evaluator
from finbench.models import adapters
from finbench.scoring import floors
from finbench.training import recipes, runner

RECIPE = "fpb-smollm2-135m-lora"
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent.parent / "leaderboards" / "scorecards"


def run(data_dir: Path | None) -> None:
    """Train three seeds, score them beside the base in both forms, copy the cards to the leaderboard."""
    folders = []
    for seed in SEEDS:
        recipe = recipes.recipe(RECIPE, {"seed": seed})
        folders.append(Path("runs") / recipe.name)
        runner.train(recipe, folders[-1], data_dir=data_dir, resume=(folders[-1] / "checkpoints").is_dir())
    out = Path("runs") / "fpb-scorecards"
    evaluator.evaluate([str(folder) for folder in folders], tasks=["fpb", "fpb_mc"], out=out, data_dir=data_dir)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for path in out.glob("*.json"):
        shutil.copy(path, RESULTS / f"fpb-{path.name}" if path.stem == "smollm2-135m" else RESULTS / path.name)
        samples = cardfiles.samples_path(path)
        target = RESULTS / (f"fpb-{samples.name}" if path.stem == "smollm2-135m" else samples.name)
        shutil.copy(samples, target)
    for folder in folders:
        print(folder, adapters.record(folder).training.tokens_per_second, "tokens/s")


def table() -> str:
    """Markdown: the base, each seed, and their mean with the standard deviation over seeds."""
    paths = [RESULTS / "fpb-smollm2-135m.json", *(RESULTS / f"{RECIPE}-s{seed}.json" for seed in SEEDS)]
    shown = [cardfiles.read(path) for path in paths]
    lines = [
        "| subject | macro-F1, 95 % interval | accuracy | parsed | macro-F1, log-likelihood form |",
        "|--|--:|--:|--:|--:|",
    ]
    for card in shown:
        by_task = {score.task: score for score in card.scores}
        score, choice = by_task["finbench_fpb"], by_task["finbench_fpb_mc"]
        lines.append(
            f"| {card.subject.name} | {render.in_brackets(score.main)} | {render.percent(score.metrics['acc'].value)} "
            f"| {render.percent(score.parse_rate.value)} | {render.percent(choice.main.value)} |"
        )
    trained = shown[1:]
    lines.append("| **mean of the seeds ± standard deviation** | " + " | ".join(_columns(trained)) + " |")
    score = _score(shown[0], "finbench_fpb")
    for said, values in floors(score).items():
        accuracy = render.percent(values["acc"]) if "acc" in values else ""
        lines.append(f"| {said} | {render.percent(values['macro_f1'])} | {accuracy} | | |")
    return "\n".join([f"n = {score.n} test sentences", "", *lines])


def terminal() -> str:
    """The table that a terminal of 80 columns shows for the generative form."""
    from rich.console import Console

    found = [cardfiles.read(RESULTS / "fpb-smollm2-135m.json"), cardfiles.read(RESULTS / f"{RECIPE}-s0.json")]
    one = [card.model_copy(update={"scores": [_score(card, "finbench_fpb")]}) for card in found]
    console = Console(width=80, no_color=True, record=True, file=io.StringIO())
    for shown in render.terminal_tables(one, 80):
        console.print(shown)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()).rstrip()


def _columns(trained: list[Scorecard]) -> list[str]:
    picked = [
        lambda card: _score(card, "finbench_fpb").main.value,
        lambda card: _score(card, "finbench_fpb").metrics["acc"].value,
        lambda card: _score(card, "finbench_fpb").parse_rate.value,
        lambda card: _score(card, "finbench_fpb_mc").main.value,
    ]
    columns = []
    for pick in picked:
        values = [100 * pick(card) for card in trained]
        columns.append(f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}")
    return columns


def _score(card: Scorecard, task: str) -> Score:
    return next(score for score in card.scores if score.task == task)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "terminal"))
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    if options.what == "run":
        run(options.data_dir)
    print(terminal() if options.what == "terminal" else table())
