"""Why adapters of the small base answer "No" to nearly every question of headlines: one change of the training a time.

    OMP_NUM_THREADS=1 python benchmarks/headlines_yes.py run --data-dir DATA     hours; goes on where it was stopped
    python benchmarks/headlines_yes.py linear --data-dir DATA                    a linear model of as many rows, minutes
    python benchmarks/headlines_yes.py page                                      the table of docs/validity.md

DATA is where ``finbench data import`` has put headlines, fpb, tfns, fiqa_sa and fin_ner. Three trainings of each arm,
on other rows each. Beside the main metric: how often Yes is said and is right, and whether the order of the questions
by the probability of Yes is right (AUC), which a model may have that never says it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from linear import answered, by_text
from scipy.stats import rankdata

import finbench
from finbench.cards import cardfiles
from finbench.core import catalog
from finbench.core.catalog import PREFIX
from finbench.core.files import write_atomic
from finbench.scoring import prompts
from finbench.training import recipes, runner

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "headlines_yes.json", HERE.parent / "docs" / "validity.md"
MARKS = "<!-- headlines: written by `python benchmarks/headlines_yes.py page` -->", "<!-- /headlines -->"
TASK, TEST, SEEDS = "headlines", 1_800, (0, 1, 2)
MIXED = ["fpb", "tfns", "fiqa_sa", "fin_ner"]
ARMS: dict[str, dict[str, Any]] = {  # what is stated of a training; "yes": share of rows whose answer is Yes
    "400 rows": {"limit": 400},
    "400 rows, of each of four other tasks too": {"limit": 400, "tasks": [TASK, *MIXED]},
    "400 rows, half of them Yes": {"limit": 400, "yes": 0.5},
    "400 rows, rate × 4": {"limit": 400, "faster": 4},
    "400 rows, 4 epochs": {"limit": 400, "epochs": 4},
    "1,600 rows": {"limit": 1_600},
    "1,600 rows, half of them Yes": {"limit": 1_600, "yes": 0.5},
    "1,600 rows, rate × 4": {"limit": 1_600, "faster": 4},
    "6,400 rows": {"limit": 6_400},
}


def balanced(data: Path, folder: Path, limit: int, yes: float, seed: int) -> str:
    """A file of ``limit`` train rows, prompt and answer as the task has them, of which a share is Yes."""
    lines = (data / TASK / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows: dict[str, list[dict[str, str]]] = {"Yes": [], "No": []}
    for row in map(json.loads, lines):
        prompt = f"Headline: {row['text']}\n{row['question']} Answer with Yes or No.\nAnswer:"
        rows[row["label"]].append({"prompt": prompt, "completion": row["label"]})
    rng, count = random.Random(seed), round(yes * limit)
    chosen = rng.sample(rows["Yes"], count) + rng.sample(rows["No"], limit - count)
    rng.shuffle(chosen)
    path = folder / f"rows-{limit}-{yes:g}-{seed}.jsonl"
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in chosen))
    return str(path)


def train(name: str, folder: Path, data: Path, seed: int) -> Path:
    """The adapter of an arm and seed, where it is not there yet."""
    arm, out = dict(ARMS[name]), folder / f"{list(ARMS).index(name)}-s{seed}"
    if (out / "finbench.json").is_file():
        return out
    stated: dict[str, Any] = {"base": "smollm2-135m", "name": out.name, "seed": seed, "batch_size": 8, "rank": 8}
    if share := arm.pop("yes", None):
        stated["data"] = [{"source": balanced(data, folder, arm.pop("limit"), share, seed)}]
    else:
        stated["tasks"] = [PREFIX + task for task in arm.pop("tasks", [TASK])]
    faster = arm.pop("faster", 1)
    recipe = recipes.recipe(None, {**stated, **arm})
    if faster != 1:
        recipe = recipes.recipe(None, {**stated, **arm, "lr": faster * recipe.lr})
    runner.train(recipe, out, data_dir=data, resume=(out / "checkpoints").is_dir())
    return out


def auc(positive: Any, negative: Any) -> float:
    """Probability that one of ``positive`` is above one of ``negative``, ties counted half."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def read(path: Path) -> dict[str, float]:
    """What a card says, in per cent; AUC over all questions, and the mean within questions with both answers."""
    card = cardfiles.read(path)
    rows = cardfiles.rows_by_task(path, card)
    said = [row["values"]["question_f1"] for row in rows[PREFIX + TASK]]
    main = next(score for score in card.scores if score.task == PREFIX + TASK)
    chosen = rows[f"{PREFIX}{TASK}_mc"]
    margins: dict[str, dict[bool, list[float]]] = {}
    for row in chosen:
        attribute, gold, _ = row["values"]["question_f1"]
        own = margins.setdefault(attribute, {True: [], False: []})
        own[gold == "Yes"].append(row["answer"][0] - row["answer"][1])
    both = [auc(own[True], own[False]) for own in margins.values() if own[True] and own[False]]
    every = [[value for own in margins.values() for value in own[side]] for side in (True, False)]
    yes = [gold == "Yes" for _, gold, answer in said if answer == "Yes"]
    return {
        "F1": 100 * main.main.value,
        "MCC": 100 * main.metrics["question_mcc"].value,
        "says Yes": 100 * len(yes) / len(said),
        "right then": 100 * statistics.mean(yes) if yes else float("nan"),
        "AUC": 100 * auc(*every),
        "AUC within questions": 100 * statistics.mean(both),
    }


def run(folder: Path, data: Path) -> None:
    """Train and score what RESULTS do not have yet; write what is there, after each training."""
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in ARMS}
    if RESULTS.is_file():
        found |= json.loads(RESULTS.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        for name in ARMS:
            if str(seed) in found[name]:
                continue
            adapter = train(name, folder, data, seed)
            card = folder / "cards" / f"{adapter.name}.json"
            if not card.is_file():
                asked = {"tasks": f"{TASK},{TASK}_mc", "limit": TEST, "out": card.parent, "data_dir": data}
                finbench.evaluate(str(adapter), reports=False, **asked)  # type: ignore[call-arg]
            found[name][str(seed)] = read(card)
            write_atomic(RESULTS, json.dumps(found, indent=1) + "\n")


def linear(data: Path) -> None:
    """The main metric of ``linear.py``'s model of words on the same questions, of as many train rows; all once."""
    [task] = catalog.expand([TASK])
    lm_task = prompts.load([task], data)[task.name]
    rows, test = list(prompts.rows(lm_task, "train")), list(prompts.rows(lm_task, "test"))[:TEST]
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    for count in (400, 1_600, 6_400, len(rows)):
        drawn = {str(seed): random.Random(seed).sample(rows, count) for seed in (SEEDS if count < len(rows) else [0])}
        scores = {seed: {"F1": 100 * answered(lm_task, test, by_text(some, test))} for seed, some in drawn.items()}
        found[f"a linear model: {count:,} rows"] = scores
    write_atomic(RESULTS, json.dumps(found, indent=1) + "\n")


def page() -> None:
    """Means and standard deviations over the trainings of each arm, between the marks."""
    found: dict[str, dict[str, dict[str, float]]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    heads = list(next(one for seeds in found.values() for one in seeds.values()))
    lines = [f"| trained on | {' | '.join(heads)} |", "|--" + "|--:" * len(heads) + "|"]
    for name, seeds in found.items():
        cells = []
        for head in heads:
            values = [one[head] for one in seeds.values() if not math.isnan(one.get(head, math.nan))]
            around = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{around}" if values else "–")
        some = f" ({len(seeds)} of {len(SEEDS)} trainings)" if name in ARMS and len(seeds) < len(SEEDS) else ""
        if seeds:
            lines.append(f"| {name}{some} | {' | '.join(cells)} |")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    write_atomic(PAGE, "\n\n".join([before + MARKS[0], "\n".join(lines), MARKS[1] + after]))


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "linear", "page"))
    parser.add_argument("--out", type=Path, default=Path("runs") / "headlines-yes")
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args()
    data = given.data_dir or finbench.core.paths.data_dir(None)
    if given.what == "page":
        page()
    elif given.what == "linear":
        linear(data)
    else:
        run(given.out, data)


if __name__ == "__main__":
    main()
