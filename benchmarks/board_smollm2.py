"""Rows of the leaderboard on the embedded base: four methods at one budget, one adapter each for three sets.

    python benchmarks/board_smollm2.py run --data-dir DATA    trains and scores into runs/ (half an hour, 2 idle cores)

250 training rows each of fpb, fiqa_sa and tfns, one epoch, seed 0, the zoo's default rates; whole tests of fpb and
fiqa_sa. One seed and untuned rates: it fills a table, it ranks no method (`finbench tune`, several seeds).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from finbench import cardfiles, catalog, evaluation, training

RESULTS = Path(__file__).resolve().parent.parent / "leaderboards" / "scorecards"
SUBJECTS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora"},
    "rslora": {"method": "rslora"},
    "dora": {"method": "dora"},
    "lora-4bit": {"method": "lora", "bits": 4},
}
TRAINED, SCORED = ["fpb", "fiqa_sa", "tfns"], ["fpb", "fiqa_sa"]


def run(data_dir: Path | None) -> None:
    """Train what is not there yet, score each beside the base, copy the cards to the leaderboard."""
    out = Path("runs") / "board-scorecards"
    for name, stated in SUBJECTS.items():
        folder = Path("runs") / f"board-smollm2-135m-{name}-s0"
        if not (folder / "finbench.json").is_file():
            recipe = catalog.recipe(None, {"tasks": TRAINED, "limit": 250, "seed": 0, **stated})
            training.train(recipe, folder, data_dir=data_dir, resume=(folder / "checkpoints").is_dir())
        evaluation.evaluate([str(folder)], tasks=SCORED, out=out, data_dir=data_dir)
    for path in out.glob("*.json"):
        kept = path.stem if path.stem.startswith("board-") else f"board-{path.stem}"
        shutil.copy(path, RESULTS / f"{kept}.json")
        shutil.copy(cardfiles.samples_path(path), RESULTS / f"{kept}.samples.jsonl.zst")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run"])
    parser.add_argument("--data-dir", type=Path, default=None)
    run(parser.parse_args().data_dir)
