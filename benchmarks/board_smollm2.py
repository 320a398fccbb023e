"""Rows of the leaderboard on the embedded base: four methods at one budget beside the base.

    python benchmarks/board_smollm2.py train --data-dir DATA    two adapters a method into runs/ (an hour, 2 idle cores)
    python benchmarks/board_smollm2.py score --data-dir DATA    their cards into leaderboards/scorecards (an hour)

One adapter a method for the short texts and one for XBRL values, whose prompts are several times as long; 250 training
rows of each set, one epoch, seed 0, the zoo's default rates; whole tests. One seed and untuned rates: it fills a
table, it ranks no method (`finbench tune`, several seeds).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles
from finbench.evaluation import evaluator
from finbench.training import recipes, runner

RESULTS = Path(__file__).resolve().parent.parent / "leaderboards" / "scorecards"
SUBJECTS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora"},
    "rslora": {"method": "rslora"},
    "dora": {"method": "dora"},
    "lora-4bit": {"method": "lora", "bits": 4},
}
STUDIES = {"board": ["fpb", "fiqa_sa", "fin_ner", "tfns", "headlines"], "board-xbrl": ["xbrl_values"]}


def folder_of(study: str, name: str) -> Path:
    """Where the adapter of a method lies."""
    return Path("runs") / f"{study}-smollm2-135m-{name}-s0"


def train(data_dir: Path | None, studies: list[str]) -> None:
    """Train what is not there yet."""
    for study in studies:
        for name, stated in SUBJECTS.items():
            folder = folder_of(study, name)
            if not (folder / "finbench.json").is_file():
                said = {"name": folder.name, "tasks": STUDIES[study], "limit": 250, "seed": 0}
                recipe = recipes.recipe(None, {**said, **stated})
                runner.train(recipe, folder, data_dir=data_dir, resume=(folder / "checkpoints").is_dir())


def score(data_dir: Path | None, studies: list[str]) -> None:
    """Score each adapter beside the base, task by task, and copy the cards to the leaderboard."""
    for study in studies:
        out = Path("runs") / f"{study}-scorecards"
        for task in STUDIES[study]:
            subjects = [str(folder_of(study, name)) for name in SUBJECTS]
            evaluator.evaluate(subjects, tasks=[task], out=out, data_dir=data_dir)
        for path in out.glob("*.json"):
            kept = path.stem if path.stem.startswith(f"{study}-") else f"{study}-{path.stem}"
            shutil.copy(path, RESULTS / f"{kept}.json")
            shutil.copy(cardfiles.samples_path(path), RESULTS / f"{kept}.samples.jsonl.zst")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "score"])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--study", choices=list(STUDIES), action="append")
    given = parser.parse_args()
    {"train": train, "score": score}[given.what](given.data_dir, given.study or list(STUDIES))
