"""The whole suite on the embedded base: the base beside one adapter trained on a little of every set.

    python benchmarks/suite_smollm2.py run --data-dir DATA    trains and scores into runs/suite (about an hour, 2 cores)
    python benchmarks/suite_smollm2.py table                  the table of docs/results.md, from leaderboards/scorecards

DATA is where ``finbench data import`` has put the rows. Sets that are not there are left out. Of each test at most
``LIMIT`` rows are scored, a random sample since test rows lie in the order of their hash: a check that every task
works and can be learnt, not a leaderboard.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from finbench import cardfiles, cards, catalog, evaluation, paths, training
from finbench.records import Score

RECIPE = "suite-smollm2-135m-lora"
LIMIT = 200
RESULTS = Path(__file__).parent.parent / "leaderboards" / "scorecards"
NAMES = ("suite-smollm2-135m", "suite-smollm2-135m-lora-s0")


def run(data_dir: Path | None) -> None:
    """Train, score beside the base, copy the cards to the leaderboard."""
    recipe = catalog.recipe(RECIPE)
    folder, out = Path("runs") / recipe.name, Path("runs") / "suite-scorecards"
    if not (folder / "finbench.json").is_file():
        training.train(recipe, folder, data_dir=data_dir, resume=(folder / "checkpoints").is_dir())
    here = [
        task.name
        for task in catalog.expand(["finbench", "mc", "finbench_finlora"])
        if (paths.data_dir(data_dir) / task.set / "test.jsonl").is_file()
    ]
    evaluation.evaluate([str(folder)], tasks=here, limit=LIMIT, out=out, data_dir=data_dir)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for path in out.glob("*.json"):
        name = path.stem if path.stem.startswith("suite-") else f"suite-{path.stem}"
        shutil.copy(path, RESULTS / f"{name}.json")
        shutil.copy(cardfiles.samples_path(path), RESULTS / f"{name}.samples.jsonl.zst")


def table() -> str:
    """Markdown: for each task the base and the adapter with their intervals, the parse rates and the baselines."""
    base, tuned = ({score.task: score for score in cardfiles.read(RESULTS / f"{name}.json").scores} for name in NAMES)
    lines = [
        "| task | metric | n | base | adapter | parsed, base / adapter | majority, random label |",
        "|--|--|--:|--:|--:|--:|--:|",
    ]
    for task in catalog.expand(["finbench", "mc", "finbench_finlora"]):
        if task.name in base and task.name in tuned:
            lines.append(_line(base[task.name], tuned[task.name]))
    return "\n".join(lines)


def _line(base: Score, tuned: Score) -> str:
    baselines = [base.baselines.get(name, {}).get(base.main_metric) for name in ("majority", "random")]
    shown = ", ".join(cards.percent(value) for value in baselines if value is not None)
    parsed = " / ".join(cards.percent(score.parse_rate.value) for score in (base, tuned))
    return (
        f"| {base.task.removeprefix(catalog.PREFIX)} | {base.main_metric} | {base.n} | {cards.interval(base.main)} "
        f"| {cards.interval(tuned.main)} | {parsed} | {shown} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--data-dir", type=Path, default=None)
    given = parser.parse_args()
    if given.what == "run":
        run(given.data_dir)
    else:
        print(table())
