"""Test texts in training rows: said at training time, recorded, and carried by the score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finbench.core import paths
from finbench.core.records import Contamination, Overlap
from finbench.data.contamination import Index
from finbench.scoring import measuring
from finbench.training import recipes, runner


def _plan(base: Path, data: Path) -> dict[str, dict[str, int]]:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "limit": 600, "batch_size": 8, "dtype": "float32"}
    plan = runner.train(recipes.recipe(None, stated), data / "out", data_dir=data, dry_run=True)
    assert isinstance(plan, dict)
    return dict(plan["contamination"])


def _test_split(data: Path, texts: list[str]) -> None:
    (data / "fpb").mkdir(parents=True)
    rows = [{"id": str(number), "text": text, "label": "neutral"} for number, text in enumerate(texts)]
    (data / "fpb" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


TOLD = 'The board\'s view: R&D costs of €5.6m rose "a little" - to 3.1 % of all sales of the group.'


def test_training_warns_of_test_texts_of_ranked_tasks_and_records_them(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = (paths.shipped("tasks") / "mini" / "mini_sentiment.train.jsonl").read_text(encoding="utf-8").splitlines()
    leaked = [str(json.loads(line)["text"]).upper() for line in shipped[:5]]
    _test_split(tmp_path, [*leaked, "None of the training rows holds this sentence of nine words ."])
    assert _plan(llama, tmp_path) == {"looked_for": {"fpb": 6}, "found": {"fpb": 5}, "editions": {}}
    assert "5 of 6 test texts of fpb" in " ".join(capsys.readouterr().err.split())


def test_clean_training_rows_are_not_accused(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _test_split(tmp_path, ["None of the training rows holds this sentence of nine words ."])
    assert _plan(llama, tmp_path) == {"looked_for": {"fpb": 1}, "found": {}, "editions": {}}
    assert "Warning" not in capsys.readouterr().err


def test_a_score_carries_the_overlap_of_its_own_set_and_nothing_where_nobody_looked() -> None:
    known = Contamination(looked_for={"fpb": 6, "tfns": 9}, found={"fpb": 5}, editions={"fpb": "a"})
    assert measuring.overlap_with_training(known, "fpb", "a") == Overlap(texts=5, of=6)
    assert measuring.overlap_with_training(known, "fpb", "b") is None  # other rows under the same name
    assert measuring.overlap_with_training(known, "tfns", "c") == Overlap(texts=0, of=9)
    assert measuring.overlap_with_training(known, "nwgi", "d") is None
    assert measuring.overlap_with_training(None, "fpb", "a") is None


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Label this: " + json.dumps({"t": TOLD})},
        {"prompt": "Label this: " + json.dumps({"t": TOLD}, ensure_ascii=False)},
        {"body": "<p>The board&#x27;s <b>view</b>: R&amp;D costs of \u20ac5.6m&nbsp;rose &quot;a little&quot; - "
                 "to 3.1 % of all sales of the group.</p>"},
        {"text": "The board\u2019s view: R&D co\u00adsts of \u20ac5.6m rose \u201ca little\u201d \u2014 "
                 "to 3.1\u00a0% of all sales of the group."},
        {"text": f"Yesterday. {TOLD.partition(' ')[2]}"},
        {"text": TOLD.rpartition(" ")[0] + " ..."},
        {"text": r"\times " + TOLD.upper()},
    ],
)  # fmt: skip
def test_a_text_is_found_as_other_files_spell_it(row: dict[str, str]) -> None:
    """In JSON, in HTML, with a typesetter's signs, cut by a word: each time it was learnt."""
    index = Index({"own": [TOLD, "The board's view of R&D costs is another text, of which nobody has seen a word."]})
    assert index.overlap([row]).found == {"own": 1}


def test_half_of_a_text_and_a_formula_are_no_copies() -> None:
    formula = r"Find $\theta$ where \neg x \times \beta = \frac{a}{b} holds for the rate of the bond"
    index = Index({"own": [TOLD, formula]})
    assert index.overlap([{"text": " ".join(TOLD.split()[:8])}, {"text": " ".join(TOLD.split()[8:])}]).found == {}
    short = Index({"own": ["Alder plc said its output came to EUR 67 mn ."]})
    assert short.overlap([{"text": "Birch plc said its output came to EUR 67 mn ."}]).found == {}
    assert index.overlap([{"text": formula}]).found == {"own": 1}
    assert index.overlap([{"text": json.dumps(formula)}]).found == {"own": 1}
