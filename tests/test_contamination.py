"""Test texts in training rows: said at training time, recorded, and carried by the score."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from finbench.core import paths
from finbench.core.records import Contamination, Overlap
from finbench.data.contamination import Index, Page
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
        {"log": json.dumps({"sent": json.dumps({"prompt": "Label this:\n" + TOLD + "\nAnswer:"})})},
        {"tokens": ["\u0120" + word for word in TOLD.split()]},
        {"tokens": ["\u2581The", *(part for word in TOLD.split()[1:] for part in ("\u2581" + word[:3], word[3:]))]},
    ],
)  # fmt: skip
def test_a_text_is_found_as_other_files_spell_it(row: dict[str, str]) -> None:
    """In JSON, in HTML, with a typesetter's signs, cut by a word: each time it was learnt."""
    index = Index({"own": [TOLD, "The board's view of R&D costs is another text, of which nobody has seen a word."]})
    assert index.overlap([row]).found == {"own": 1}


LONG = (
    "A dealer bought 1,234 bonds in 2019 at $ 98.00 each and sold 12,345 of them, {} of them floating, in 2020 at "
    "a price that had risen by 5.0 % since the central bank cut its rate in March; the coupon of 1,500.00 a year was "
    "paid twice. What is the return of the dealer before taxes and after the costs of the funds that were borrowed, if "
    "the loan was paid back in four parts at the end of each half of a year?"
)


@pytest.mark.parametrize(
    "row",
    [
        {"text": LONG.format(7).replace(",234", "234").replace(",345", "345").replace(",500", "500")},
        {"text": LONG.format(7).replace("1,234", "1234.0").replace("12,345", "12345.0").replace("2020", "2020.00")},
        {"tokens": re.findall(r"\w+|[^\w\s]", LONG.format(7))},
        {"messages": [{"role": "user", "content": "Solve this. " + LONG.format(7)[:300]}]},
    ],
)
def test_figures_in_another_form_and_a_cut_hide_no_text(row: dict[str, Any]) -> None:
    index = Index(
        {"own": [LONG.format(7), "Another question, of which nobody has seen a word, about a dealer's bonds."]}
    )
    assert index.overlap([row]).found == {"own": 1}


def test_texts_that_begin_alike_are_told_apart_by_all_of_their_words() -> None:
    """Questions about one case: the case alone is none of them."""
    case = LONG.format(7).partition("What")[0]
    asked = [f"{case} What is the {what} that the dealer has to state?" for what in ("gain", "loss")]
    index = Index({"own": asked})
    assert index.overlap([{"text": case}]).found == {}
    assert index.overlap([{"text": asked[0]}]).found == {"own": 1}


@pytest.mark.parametrize(("first", "found"), [(0, {"own": 1}), (50, {})])
def test_a_page_is_seen_by_its_first_words_if_they_hold_figures(first: int, found: dict[str, int]) -> None:
    """``first``: the word from which on every fifth is a figure."""
    words = [str(7000 + at) if at >= first and not at % 5 else f"word{'abcdefghij'[at % 10]}" for at in range(300)]
    index = Index({"own": [Page("a/2019", " ".join(words)), Page("b/2019", " ".join(reversed(words)))]})
    assert index.overlap([{"text": " ".join(words[:41])}]).found == found


def test_half_of_a_text_and_a_formula_are_no_copies() -> None:
    formula = r"Find $\theta$ where \neg x \times \beta = \frac{a}{b} holds for the rate of the bond"
    index = Index({"own": [TOLD, formula]})
    assert index.overlap([{"text": " ".join(TOLD.split()[:8])}, {"text": " ".join(TOLD.split()[8:])}]).found == {}
    short = Index({"own": ["Alder plc said its output came to EUR 67 mn ."]})
    assert short.overlap([{"text": "Birch plc said its output came to EUR 67 mn ."}]).found == {}
    assert index.overlap([{"text": formula}]).found == {"own": 1}
    assert index.overlap([{"text": json.dumps(formula)}]).found == {"own": 1}
