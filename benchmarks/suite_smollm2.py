"""The whole suite on the embedded base: the base beside one adapter trained on a little of every set.

    python benchmarks/suite_smollm2.py run --data-dir DATA    trains and scores into runs/ (about an hour, 2 cores)
    python benchmarks/suite_smollm2.py page                   docs/suite.md, from leaderboards/scorecards

DATA is where ``finbench data import`` has put the rows. Sets that are not there are left out. Of each test at most
``LIMIT`` rows are scored, a random sample since test rows lie in the order of their hash: a check that every task
works and can be learnt, not a leaderboard. The tasks made from XBRL filings have an adapter of their own, for their
prompts are long; so have those about reports, stance, claims and textbooks. TAT-QA's dev stands in for its train file,
which we did not have: ``finbench data import tatqa`` took a copy of it that is called ``tatqa_dataset_train.json``.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from finbench.cards import cardfiles, render
from finbench.core import catalog, paths
from finbench.core.records import Score
from finbench.evaluation import evaluator
from finbench.training import recipes, runner

LIMIT = {"suite": 200, "xbrl": 30, "numeric": 30, "claims": 100}  # test rows a task; fewer where prompts are long
HOME = Path(__file__).resolve().parent.parent
RESULTS = HOME / "leaderboards" / "scorecards"
PAGE = HOME / "docs" / "suite.md"
XBRL = ["finbench_xbrl_tags", "finbench_xbrl_values", "finbench_xbrl_formula", "finbench_xbrl_calc"]
PAGES = ["finbench_tatqa", "finbench_finqa", "finbench_convfinqa", "finbench_convfinqa_own", "finbench_xbrl_reason"]
TEXTBOOK = [f"finbench_xfinbench_{kind}" for kind in ("truth", "choice", "calc")]
OWN = {"xbrl": XBRL, "numeric": PAGES, "claims": ["finbench_fomc", "finbench_numclaim", *TEXTBOOK]}  # else the suite's
STUDIES = {  # name -> recipe
    "suite": "suite-smollm2-135m-lora",
    "xbrl": "xbrl-smollm2-135m-lora",
    "numeric": "numeric",
    "claims": "numeric",
}
PARTS = {"numeric": ": reports", "claims": ": stance, claims, textbooks"}  # of what one recipe is scored on
PUBLISHED = {  # by the authors, on whole tests of theirs, by their own metrics: what a trained model can reach
    "numeric": "The authors' own baselines, on the whole tests: TAT-QA 50.1 (TagOp, exact match), FinQA 65.0 and\n"
    "ConvFinQA 68.9 (FinQANet with RoBERTa-large, execution accuracy).",
    "claims": "The authors' own, on the whole tests: FOMC 71.7 and NumClaim 96.4 (RoBERTa-large, weighted F1),\n"
    "XFinBench 67.3 (o1, accuracy over all kinds of questions).",
}
HEAD = """\
# The whole suite on the embedded base

Written by `python benchmarks/suite_smollm2.py page` from the scorecards in
`leaderboards/scorecards`.

The adapters of SmolLM2-135M-Instruct were trained once, on at most 250 rows (XBRL: 150, `numeric`:
100) of each set that has a train split. They stand beside the base itself.
A task has at most 200 test rows here; n says how many. Values are in %, with a 95 % interval.
They are of the versions of the tasks that the cards state, most of them older than today's.

This is a check that a real model can be asked, trained and scored on the tasks.
With one seed and a 135M base it ranks nothing.
What adapters reach on whole train splits is in [results.md](results.md).
"""


def run(data_dir: Path | None, studies: list[str]) -> None:
    """Train, score beside the base, copy the cards to the leaderboard."""
    for study in studies:
        recipe = recipes.recipe(STUDIES[study])
        folder, out = Path("runs") / recipe.name, Path("runs") / f"{study}-scorecards"
        if not (folder / "finbench.json").is_file():
            runner.train(recipe, folder, data_dir=data_dir, resume=(folder / "checkpoints").is_dir())
        tasks = _tasks(study, data_dir)
        evaluator.evaluate([str(folder)], tasks=tasks, limit=LIMIT[study], out=out, data_dir=data_dir)
        RESULTS.mkdir(parents=True, exist_ok=True)
        for path in out.glob("*.json"):
            kept = path.stem if path.stem.startswith(f"{study}-") else f"{study}-{path.stem}"
            shutil.copy(path, RESULTS / f"{kept}.json")
            shutil.copy(cardfiles.samples_path(path), RESULTS / f"{kept}.samples.jsonl.zst")


def _tasks(study: str, data_dir: Path | None) -> list[str]:
    """The tasks of a study whose data are here."""
    wanted = [task.name for task in catalog.expand(["finbench", "mc", "finbench_finlora"])]
    choices = {f"{name}_mc" for name in OWN["claims"]}  # not measured
    return [
        name
        for name in wanted
        if name not in choices
        if next((own for own, names in OWN.items() if name in names), "suite") == study
        and (paths.data_dir(data_dir) / catalog.tasks()[name].set / "test.jsonl").is_file()
    ]


def page() -> str:
    """Markdown: for each task the base and the adapter with their intervals, the parse rates and the baselines."""
    lines = [HEAD]
    for study, recipe in STUDIES.items():
        adapter = recipe if recipe.startswith(study) else f"{study}-{recipe}"
        files = [RESULTS / f"{name}.json" for name in (f"{study}-smollm2-135m", f"{adapter}-s0")]
        if not all(file.is_file() for file in files):
            continue  # not run yet
        base, tuned = ({score.task: score for score in cardfiles.read(file).scores} for file in files)
        lines += [
            f"## `{recipe}`{PARTS.get(study, '')}",
            "",
            "| task | metric | n | base | adapter | parsed, base / adapter | majority, random label |",
            "|--|--|--:|--:|--:|--:|--:|",
            *(_line(base[name], tuned[name]) for name in base if name in tuned),
            "",
            *([PUBLISHED[study], ""] if study in PUBLISHED else []),
        ]
    return "\n".join(lines)


def _line(base: Score, tuned: Score) -> str:
    baselines = [base.baselines.get(name, {}).get(base.main_metric) for name in ("majority", "random")]
    if base.baselines == {}:  # a card of before constants of numbers were measured: as the task states it
        baselines = [catalog.tasks()[base.task].baselines.get("majority")]
    shown = ", ".join(render.percent(value) for value in baselines if value is not None)
    parsed = " / ".join(render.percent(score.parse_rate.value) for score in (base, tuned))
    return (
        f"| {base.task.removeprefix(catalog.PREFIX)} | {base.main_metric} | {base.n} | {render.in_brackets(base.main)} "
        f"| {render.in_brackets(tuned.main)} | {parsed} | {shown} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "page"])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--study", choices=list(STUDIES), action="append")
    given = parser.parse_args()
    if given.what == "run":
        run(given.data_dir, given.study or list(STUDIES))
    else:
        PAGE.write_text(page(), encoding="utf-8")
