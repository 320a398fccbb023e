"""The table of the whole train splits, on cards of real trainings."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from sklearn.metrics import f1_score

from finbench.cards import cardfiles

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NAME = "fpb-smollm2-135m-lora-16bit-s{}"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return runpy.run_path(str(BENCHMARKS / "flagship.py"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two adapters of fpb, and their base."""
    kept, out = BENCHMARKS / "six_tasks", tmp_path / "out"
    shutil.copytree(kept / "adapters", out / "adapters")
    (out / "scorecards").mkdir()
    for name in (NAME.format(0), NAME.format(1), "smollm2-135m"):
        for path in (kept / "scorecards").glob(f"{name}.*"):
            shutil.copyfile(path, out / "scorecards" / path.name)
    return out


def test_the_table_has_the_numbers_of_the_cards(bench: dict[str, Any], out: Path) -> None:
    grid = bench["read"](out)["smollm2-135m"]
    assert grid.tasks == ["fpb"]
    values = [
        100 * cardfiles.read(out / "scorecards" / f"{NAME.format(seed)}.json").scores[0].main.value for seed in (0, 1)
    ]
    assert grid.points["adapter", "fpb"] == values
    [row] = [line for line in bench["scores"](grid, {}).splitlines() if line.startswith("| fpb")]
    assert f" {sum(values) / 2:.1f} ± " in row
    assert "↓" not in row
    digest = grid.scores["adapter", "fpb"][0].data.digest
    [row] = [line for line in bench["scores"](grid, {digest: 99.0}).splitlines() if line.startswith("| fpb")]
    assert " 99.0 |" in row
    assert "↓" in row  # below the linear model
    assert "| fpb | 400 | 74 | 0 | 1 | 50 | " in bench["costs"](grid)
    assert f" | {values[0]:.1f} | " in bench["costs"](grid)  # of seed 0
    assert "labels, calibrated" not in bench["scores"](grid, {})  # nothing is known of it


def test_recipes_of_a_part_of_the_grid_leave_the_others_in_place(
    bench: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = out / "adapters_zoo"
    shutil.copytree(BENCHMARKS.parent / "adapters_zoo", zoo)
    monkeypatch.setattr(bench["paths"], "shipped", lambda name: out / name)
    before = yaml.safe_load((zoo / "trained.yaml").read_text(encoding="utf-8"))
    grids = bench["read"](out)
    bench["zoo"](grids)
    after = yaml.safe_load((zoo / "trained.yaml").read_text(encoding="utf-8"))
    assert after.keys() == before.keys()
    [record] = [one for one in grids["smollm2-135m"].records.values() if one.recipe.seed == 0]
    own = after.pop("fpb-smollm2-135m-whole")
    assert own["weights"] == record.files["adapter_model.safetensors"]
    assert own["learnt"] == 400
    assert {name: before[name] for name in after} == after
    assert yaml.safe_load((zoo / "fpb-smollm2-135m-whole.yaml").read_text(encoding="utf-8"))["limit"] == 400


def test_a_card_that_was_edited_or_whose_training_is_unknown_ends_it(bench: dict[str, Any], out: Path) -> None:
    card = out / "scorecards" / f"{NAME.format(0)}.json"
    text = card.read_text(encoding="utf-8")
    stated = json.loads(text)
    stated["scores"][0]["n"] += 1
    card.write_text(json.dumps(stated), encoding="utf-8")
    with pytest.raises(SystemExit, match="was edited"):
        bench["read"](out)
    card.write_text(text, encoding="utf-8")
    shutil.rmtree(out / "adapters")
    (out / "adapters").mkdir()
    with pytest.raises(SystemExit, match="record of its training"):
        bench["read"](out)


def test_what_a_base_gets_with_calibrated_labels_stands_beside_its_adapters(
    bench: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card without content calibrates another one, and has no score of its own in the table."""
    base = out / "scorecards" / "smollm2-135m.json"
    card = cardfiles.read(base)
    empty = card.model_copy(update={"arguments": {**card.arguments, "metadata.noise": "content-free"}})
    cardfiles.write(out / "scorecards" / "empty.json", empty, cardfiles.read_samples(base))
    asked = []

    def contextual(plain: Path, free: Path) -> list[SimpleNamespace]:
        asked.append((plain.name, free.name))
        return [SimpleNamespace(task="finbench_fpb_mc", calibrated=SimpleNamespace(value=0.456))]

    monkeypatch.setitem(bench["read"].__globals__, "contextual", contextual)
    grid = bench["read"](out)["smollm2-135m"]
    assert asked == [("smollm2-135m.json", "empty.json")]
    assert grid.points["labels, calibrated", "fpb"] == [pytest.approx(45.6)]
    assert len(grid.points["base", "fpb"]) == 1
    page = out / "results.md"
    monkeypatch.setitem(bench["page"].__globals__, "PAGE", page)
    monkeypatch.setitem(bench["page"].__globals__, "PICTURE", out / "results.svg")
    page.write_text("no place\n")
    with pytest.raises(SystemExit, match="has no place for the tables"):
        bench["page"]({"smollm2-135m": grid}, {})
    first, last = bench["MARKS"]
    page.write_text(f"before\n\n{first}\nold\n{last}\n\nafter\n")
    bench["page"]({"smollm2-135m": grid}, {})
    text = page.read_text()
    assert text.startswith(f"before\n\n{first}\n\n0 of the 62 trainings of that file are done. 2 are")
    assert "\n\n## smollm2-135m\n\n| task |" in text
    assert text.endswith(f"{last}\n\nafter\n")
    assert " 45.6 |" in text
    assert "old" not in text
    drawn = (out / "results.svg").read_text()
    dots = re.findall(r'cx="([\d.]+)" cy="\d+" r="5" fill="(#\w+)" fill-opacity="1"', drawn)
    across = {colour: float(x) for x, colour in dots}
    assert across["#a3862b"] == 200 + 5 * 45.6  # the base at its best: calibrated
    adapter = statistics.mean(grid.points["adapter", "fpb"])
    assert across["#2f6f9f"] == pytest.approx(200 + 5 * adapter, abs=0.05)


def test_the_page_of_results_is_that_of_the_kept_cards(bench: dict[str, Any]) -> None:
    grids, own = bench["read"](bench["KEPT"]), bench["made"](bench["KEPT"])
    assert bench["measured"](grids, own) in bench["PAGE"].read_text(encoding="utf-8")
    assert bench["picture"](grids, own) == bench["PICTURE"].read_text(encoding="utf-8")


def test_the_paragraph_on_passes_has_the_numbers_of_its_cards(bench: dict[str, Any]) -> None:
    cards = {path.stem: cardfiles.read(path) for path in (BENCHMARKS / "passes").glob("*.json")}

    def points(task: str, passes: int, rate: str, *seeds: int) -> list[float]:
        names = (f"{task}-smollm2-135m-lora-epochs{passes}-lr{rate}-s{seed}" for seed in seeds)
        return [100 * cards[name].scores[0].main.value for name in names]

    text = " ".join(bench["PAGE"].read_text(encoding="utf-8").split())
    two = points("fomc", 2, "0.002", 0, 1, 2)
    assert f"three seeds gave {statistics.mean(two):.1f} ± {statistics.stdev(two):.1f} in two passes" in text
    two = [points("fomc", 2, rate, 0)[0] for rate in ("0.0005", "0.001")]
    four = [points("fomc", 4, rate, 0)[0] for rate in ("0.0005", "0.001", "0.002")]
    assert f"seed 0 gives {two[0]:.1f} and {two[1]:.1f} in two passes at 0.0005 and 0.001" in text
    assert f"and {four[0]:.1f}, {four[1]:.1f} and {four[2]:.1f} in four at" in text
    kept = bench["read"](bench["KEPT"])["smollm2-135m"]
    for task, said in (("finer_ord", "107 steps, and"), ("numclaim", "106 steps, below the linear model, and")):
        few, more = points(task.replace("_", "-"), 1, "0.002", 0, 1, 2), kept.points["adapter", task]
        old, new = (f"{statistics.mean(many):.1f} ± {statistics.stdev(many):.1f}" for many in (few, more))
        assert f"{task} had {old} in one pass, with {said} has {new} in three" in text
    for task, passes, rate, said in (
        ("fin_ner", 3, "0.002", "fin_ner had {} in three passes and has {} in five"),
        ("fpb", 1, "0.002", "{} in one and {} in two,"),
        ("fiqa_sa", 3, "0.001", "in two, {} in three and {} in five,"),
        ("fin_ner_typing", 3, "0.002", "fin_ner_typing lost by it: {} in three and {} in five, at"),
    ):
        few, more = points(task.replace("_", "-"), passes, rate, 0, 1, 2), kept.points["adapter", task]
        assert (
            said.format(*(f"{statistics.mean(many):.1f} ± {statistics.stdev(many):.1f}" for many in (few, more)))
            in text
        )
    made = {cards[f"fomc-smollm2-135m-lora-epochs4-lr0.001-s{seed}"].subject.adapter for seed in range(3)}
    assert made == {name for name, record in kept.records.items() if record in kept.trained["fomc"]}  # bit for bit


def test_what_is_said_of_tasks_without_a_right_answer_is_so(bench: dict[str, Any]) -> None:
    kept = bench["read"](bench["KEPT"])["smollm2-135m"]
    text = " ".join(bench["PAGE"].read_text(encoding="utf-8").split())
    asked, constants = [], []
    for task in ("xbrl_calc", "xbrl_reason"):
        scores = kept.scores["adapter", task]
        assert kept.points["adapter", task] == [0, 0, 0]
        numbers = sum(round(score.parse_rate.value * score.n) for score in scores)
        asked += [numbers, sum(score.n for score in scores)]
        constants.append(bench["beside"](scores[0], bench["made"](bench["KEPT"]))[0])
    assert "a number, in {} of {} answers and {} of {}".format(*asked) in text
    assert "constants with {:.1f} and {:.1f}".format(*constants) in text
    formula = kept.points["adapter", "xbrl_formula"]
    assert f"there they have {statistics.mean(formula):.1f} ± {statistics.stdev(formula):.1f}" in text


def test_what_is_said_of_the_rates_that_won_is_so(bench: dict[str, Any]) -> None:
    kept = bench["read"](bench["KEPT"])["smollm2-135m"]
    text = " ".join(bench["PAGE"].read_text(encoding="utf-8").split())
    won = [kept.trained[task][0].recipe.lr for task in kept.tasks if kept.trained.get(task)]
    assert f"0.002, won on {won.count(0.002)} of {len(won)} tasks" in text
    assert f"0.00025, on {won.count(0.00025)}:" in text


def test_what_is_said_of_copied_explanations_is_so(bench: dict[str, Any]) -> None:
    kept = bench["read"](bench["KEPT"])["smollm2-135m"]
    text = " ".join(bench["PAGE"].read_text(encoding="utf-8").split())
    points, [score, *_] = kept.points["adapter", "xbrl_term"], kept.scores["adapter", "xbrl_term"]
    _, nearest = bench["beside"](score, bench["made"](bench["KEPT"]))
    assert f"of {score.n} the explanation" in text
    assert f"{nearest:.1f} in all, the adapters {statistics.mean(points):.1f} ± {statistics.stdev(points):.1f}" in text


def test_what_is_said_of_tags_by_value_and_by_label_is_so(bench: dict[str, Any]) -> None:
    path = bench["KEPT"] / "scorecards" / "xbrl-tags-smollm2-135m-lora-s0.json"
    right = [row["values"]["acc"] for row in cardfiles.read_samples(path)]
    text = " ".join(bench["PAGE"].read_text(encoding="utf-8").split())
    assert f"xbrl_tags has {100 * statistics.mean(right):.1f} because" in text
    assert f"of {len(right)} rows) or label" in text
    assert pytest.approx(sum(right), abs=0.5) == 0.985 * 409 + 0.872 * 78


def test_what_is_said_of_values_is_so(bench: dict[str, Any]) -> None:
    [score] = bench["read"](bench["KEPT"])["smollm2-135m"].scores["adapter", "xbrl_values"]
    text = " ".join(bench["PAGE"].read_text(encoding="utf-8").split())
    log = " ".join((bench["PAGE"].parent / "design-log.md").read_text(encoding="utf-8").split())
    said, [constant, nearest] = 100 * score.main.value, bench["beside"](score, bench["made"](bench["KEPT"]))
    assert f"label: the adapter has {said:.1f}, the program" in text
    assert f"has {said:.1f} on {score.n} questions about the same company" in log
    assert f"the nearest train row {nearest:.1f}, the best constant {constant:.1f}." in log


def test_a_program_looks_tags_and_values_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    below = runpy.run_path(str(BENCHMARKS / "below.py"))
    tag_of, value_of = below["tag_of"], below["value_of"]
    facts = "[as of 2020-12-31]\nus-gaap:Assets 1500 USD\nus-gaap:Goodwill -20 USD\n(1 more fact.)"
    assert tag_of({"text": facts, "question": "Which tag is 1,500 USD?"}) == "us-gaap:Assets"
    assert tag_of({"text": facts, "question": "Which tag is 20 USD?"}) == "us-gaap:Goodwill"
    assert tag_of({"text": facts, "question": "What is total goodwill filed under?"}) == "us-gaap:Goodwill"
    assert value_of({"text": facts, "question": "What is goodwill as of 2020-12-31?"}) == "-20"
    assert value_of({"text": facts, "question": "What are the total assets?"}) == "1500"


def test_what_is_said_of_headlines_is_so(bench: dict[str, Any]) -> None:
    rows = cardfiles.read_samples(bench["KEPT"] / "scorecards" / "headlines-smollm2-135m-lora-s0.json")
    text = " ".join(bench["PAGE"].read_text(encoding="utf-8").split())
    asked: dict[str, list[tuple[str, str]]] = {}
    for question, gold, answer in (row["values"]["question_f1"] for row in rows):
        asked.setdefault(question, []).append((gold, answer))
    future = [pair for name in ("future_price", "future_news") for pair in asked.pop(name)]
    assert f"the test has {sum(gold == 'Yes' for gold, _ in future)} such rows" in text
    assert {answer for _, answer in future} == {"No"}
    del asked["price_constant"]
    f1 = [
        f1_score([gold == "Yes" for gold, _ in pairs], [answer == "Yes" for _, answer in pairs])
        for pairs in asked.values()
    ]
    assert f"a mean F1 of {100 * statistics.mean(f1):.1f}, and" in text
