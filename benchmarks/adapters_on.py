"""What can be made of adapters that are trained, beside what one would do without: pairs of answers, and merges.

    OMP_NUM_THREADS=1 python benchmarks/adapters_on.py pairs --data-dir DATA     DPO from the failures on train rows
    OMP_NUM_THREADS=1 python benchmarks/adapters_on.py merges --data-dir DATA    merged, and trained on both tasks
    python benchmarks/adapters_on.py page                                        the tables of docs/training.md

On the small base, ``--seeds`` trainings of each. A step whose result is there is not done again. DATA is where
``finbench data import`` has put fpb, tfns and headlines. Rates are the methods' defaults: none was searched.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import finbench
from finbench.core.catalog import PREFIX
from finbench.core.files import write_atomic
from finbench.core.records import Scorecard
from finbench.training import recipes, runner

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "adapters_on.json", HERE.parent / "docs" / "training.md"
BASE = "smollm2-135m"
DPO: dict[str, dict[str, Any]] = {  # what is stated beside the pairs
    "DPO": {},
    "DPO at ten times the rate": {"lr": 1e-4},
    "DPO and SFT (`sft_weight=1`)": {"sft_weight": 1.0},
}
MERGES = {"linear": [0.5, 0.5], "cat": None, "ties": None, "dare_ties": None}
TASKS = (("fpb", "tfns"), ("fpb", "headlines"))


class Study:
    """The steps of a measurement, in a folder."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.out, self.data, self.rows, self.asked, self.test = (
            given.out,
            given.data_dir,
            given.rows,
            given.asked,
            given.test,
        )

    def trained(self, name: str, tasks: tuple[str, ...], seed: int, **stated: Any) -> str:
        """The adapter's folder; ``tasks`` may be none, where pairs say what is learnt."""
        folder = self.out / name
        chosen: dict[str, Any] = {"base": BASE, "name": name, "seed": seed, **stated}
        chosen |= {"tasks": [PREFIX + task for task in tasks]} if tasks else {}
        if not (folder / "finbench.json").is_file():
            recipe = recipes.recipe(None, chosen)
            runner.train(recipe, folder, data_dir=self.data, resume=(folder / "checkpoints").is_dir())
        return str(folder)

    def scored(self, adapter: str, tasks: str, place: str = "test", limit: int | None = None, **stated: Any) -> Path:
        """The card of an adapter."""
        cards = self.out / "cards" / place
        finbench.evaluate(  # type: ignore[call-arg]  # every field is a keyword
            adapter, tasks=tasks, out=cards, data_dir=self.data, limit=limit or self.test, reports=False, **stated
        )
        return cards / f"{Path(adapter).name}.json"


def numbers(card: Path) -> dict[str, dict[str, float]]:
    """Main metric, accuracy and share of strict answers by task."""
    found = {}
    for score in Scorecard.model_validate_json(card.read_text()).scores:
        own = {"main": score.main.value, "parsed": score.parse_rate.value}
        found[score.task.removeprefix(PREFIX)] = own | {"n": score.n, "acc": score.metrics["acc"].value}
    return found


def pairs(study: Study, seed: int) -> dict[str, Any]:
    """An adapter, what pairs of its failures make of it, and one that is trained on as many rows more."""
    start = study.trained(f"fpb-s{seed}", ("fpb",), seed, limit=study.rows)
    asked = study.scored(start, "fpb", "train", study.asked, metadata={"split": "train"})
    found = {"start": numbers(study.scored(start, "fpb"))}
    for number, (name, stated) in enumerate(DPO.items()):
        own = study.trained(f"fpb-dpo{number}-s{seed}", (), seed, preferences=str(asked), start=start, **stated)
        found[name] = numbers(study.scored(own, "fpb"))
        many = json.loads((Path(own) / "finbench.json").read_text())["training"]["rows"]
    more = study.trained(f"fpb-more-s{seed}", ("fpb",), seed, limit=study.rows + many)
    return {"pairs": many, "scores": found | {"trained on as many rows more": numbers(study.scored(more, "fpb"))}}


def merges(study: Study, seed: int) -> dict[str, Any]:
    """Adapters of two tasks, their merges, and one that is trained on both."""
    found: dict[str, Any] = {}
    for two in TASKS:
        parts = [study.trained(f"{task}-s{seed}", (task,), seed, limit=study.rows) for task in two]
        both = study.trained(f"{'-'.join(two)}-s{seed}", two, seed, limit=study.rows)
        made = {f"trained on {task}": part for task, part in zip(two, parts, strict=True)} | {"trained on both": both}
        for how, weights in MERGES.items():
            folder = study.out / f"{'-'.join(two)}-{how}-s{seed}"
            if not folder.is_dir():
                finbench.combine(parts, folder, how=how, weights=weights, seed=seed)
            made[f"`merge --how {how}`"] = str(folder)
        own = {name: numbers(study.scored(one, ",".join(two))) for name, one in made.items()}
        found[" and ".join(two)] = own
    return found


def table(found: list[dict[str, dict[str, dict[str, float]]]], tasks: tuple[str, ...]) -> list[str]:
    """Mean and standard deviation over seeds, in per cent: main metric, accuracy, strict answers of each task."""
    heads = [
        f"{task}, {what}"
        for task in tasks
        for what in ("macro-F1" if task != "headlines" else "F1", "accuracy", "strict")
    ]
    lines = [f"| | {' | '.join(heads)} |", f"|--|{'--:|' * len(heads)}"]
    for name in found[0]:
        cells = []
        for task in tasks:
            for key in ("main", "acc", "parsed"):
                values = [100 * one[name][task][key] for one in found]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def page() -> None:
    """Write both tables between their marks."""
    found, text = json.loads(RESULTS.read_text("utf-8")), PAGE.read_text("utf-8")
    made = {"pairs": table([one["scores"] for one in found["pairs"].values()], ("fpb",))}
    by_seed = list(found.get("merges", {}).values())
    for two in TASKS if by_seed else ():
        made.setdefault("merges", []).extend([*table([one[" and ".join(two)] for one in by_seed], two), ""])
    for name, lines in made.items():
        start, end = f"<!-- {name}: measured by benchmarks/adapters_on.py -->\n", f"<!-- end of {name} -->"
        before, rest = text.split(start)
        text = before + start + "\n" + "\n".join(lines).rstrip() + "\n\n" + end + rest.split(end)[1]
    write_atomic(PAGE, text)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pairs", "merges", "page"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs") / "adapters-on")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=250, help="training rows of a task")
    parser.add_argument("--asked", type=int, default=800, help="train rows that are asked for pairs")
    parser.add_argument("--test", type=int, default=300, help="test rows of a task")
    given = parser.parse_args()
    if given.what == "page":
        page()
        return
    for seed in range(given.seeds):
        made = {"pairs": pairs, "merges": merges}[given.what](Study(given), seed)
        found = json.loads(given.results.read_text("utf-8")) if given.results.is_file() else {}
        stated = {"rows": given.rows, "asked": given.asked, "test": given.test}
        found["stated"] = stated
        found.setdefault(given.what, {})[str(seed)] = made
        write_atomic(given.results, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
