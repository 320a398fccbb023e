"""Answers of others' models, imported: shapes that are learnt, rows that are missing, the published reproductions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from make_reports import SEEDS, context, page, report_sources, workbook
from typer.testing import CliRunner

from finbench.cli.app import app
from finbench.core.errors import FinbenchError
from finbench.data.sources import import_data
from finbench.evaluation import import_card, verify
from make_data import as_whole


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """TAT-QA and FinQA with a test of two pages each, and one of FOMC's published tests."""
    home = tmp_path / "data"
    for name, rows in (("tatqa", [context(1), context(2)]), ("finqa", [page(1), page(2)])):
        file = tmp_path / ("tatqa_dataset_test_gold.json" if name == "tatqa" else "test.json")
        file.write_text(json.dumps(rows))
        import_data(name, [file], home)
    said = [("index", "sentence", "year", "label"), (1, "Rates rose.", 2020, 1), (2, "Rates fell.", 2020, 0)]
    said += [(3, "Rates rose.", 2021, 1)]
    import_data("fomc_combine_5768", [workbook(tmp_path / "lab-manual-combine-test-5768.xlsx", said)], home)
    as_whole(home)
    return home


def imported(data: Path, task: str, name: str, content: str) -> dict[str, float]:
    """Strict values of the card of a file of answers."""
    file = data.parent / name
    file.write_text(content, encoding="utf-8")
    [card] = import_card(file, task=task, out=data.parent / "cards", data_dir=data)
    assert (card.origin, card.status, card.subject.name) == ("answers", "complete", file.stem)
    found = verify(data.parent / "cards" / f"{file.stem}.json", data_dir=data)
    assert not found.faults
    return {key: measure.value for key, measure in card.scores[0].metrics.items()}


def golds() -> dict[str, Any]:
    return {q["uid"]: [q["answer"], q["scale"]] for n in (1, 2) for q in context(n)["questions"]}


def test_a_dictionary_of_answers_and_scales(data: Path) -> None:
    told = golds()
    assert imported(data, "tatqa", "gold.json", json.dumps(told))["em"] == 1.0
    told["00000001-q4"] = [None, "million"]
    told["00000002-q2"] = [["moulds"], ""]
    found = imported(data, "tatqa", "some.json", json.dumps(told))
    assert (found["acc"], found["em"], found["acc_arithmetic"], found["acc_spans"]) == (0.8, 0.8, 0.75, 0.5)


def test_official_predictions_of_finqa_are_programs(data: Path) -> None:
    tokens = [["divide(", "101", "400", ")", "EOF"], ["divide(", "101", "400", ")", "EOF"]]
    rows = [{"id": page(n)["id"], "predicted": tokens[n - 1]} for n in (1, 2)]
    assert imported(data, "finqa", "a.json", json.dumps(rows))["exe_acc"] == 0.5
    by_id = {page(1)["id"]: "25.25%", page(2)["id"]: "0.255"}
    assert imported(data, "finqa", "b.json", json.dumps(by_id)) == {"acc": 1.0, "exe_acc": 1.0}


def test_a_table_of_texts_takes_its_answers_in_order(data: Path) -> None:
    table = 'true_label,original_sent,text_output\n1,Rates rose.,"HAWKISH\n\nfor they rose"\n0,Rates fell.,NEUTRAL\n'
    table += "1,Rates rose.,dovish\n"
    assert imported(data, "fomc_combine_5768", "a.csv", table)["acc"] == pytest.approx(1 / 3)
    rows = [{"text": text, "output": answer} for text, answer in (("Rates  FELL", "dovish"), ("rates rose", "hawkish"))]
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, rows[1]])
    assert imported(data, "fomc_combine_5768", "b.jsonl", lines)["acc"] == 1.0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", '{"00000001-q1": "x"}', "9 of the 10 test rows of finbench_tatqa have no answer: '00000001-q2'"),
        ("a.json", "[1, 2]", "neither answers by id nor rows"),
        ("a.json", '{"a": "x", "a": "y"}', "not valid JSON"),
        ("a.csv", "id,answer,output\n00000001-q1,x,y\n", "more than one column of answers among id, answer, output"),
        ("a.csv", "id,said\n00000001-q1,x\n", "no column of answers among id, said"),
        ("a.csv", "id,answer\n7,x\n", "none of its 1 row is in the test, by id, answer"),
        ("a.csv", "", "the file is empty"),
    ],
)
def test_files_that_are_no_answers_are_refused(data: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(FinbenchError, match=said):
        imported(data, "tatqa", name, content)
    assert not (data.parent / "cards").exists()


def test_columns_of_other_names_are_named_as_for_the_audit(data: Path) -> None:
    rows = [("Kennung", "Modellausgabe", "answer")]
    rows += [(uid, json.dumps(answer), "no") for uid, answer in golds().items()]
    rows = [(uid, "|".join(map(str, a)) if isinstance(a, list) else a, no) for uid, a, no in rows]
    file = data.parent / "größe.csv"
    with file.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, delimiter=";").writerows(rows)
    stated = [
        "card",
        "import",
        str(file),
        "--task",
        "tatqa",
        "--out",
        str(data.parent / "cards"),
        "--data-dir",
        str(data),
    ]

    def told(*more: str) -> str:
        found = CliRunner().invoke(app, [*stated, *more])
        return str(found.exception) if found.exception else found.stdout

    assert "größe" in told("--map", "id=Kennung,answer=Modellausgabe")
    assert "--map names 'label'; there are id, text and answer" in told("--map", "label=x")
    assert "Unknown column 'Modelausgabe'. Did you mean Modellausgabe?" in told("--map", "answer=Modelausgabe")
    other = CliRunner().invoke(app, ["card", "import", str(data), "--map", "id=x"])
    assert "needs its task" in str(other.exception)


def test_rows_answered_twice_and_tasks_that_are_none(data: Path) -> None:
    rows = [{"id": uid, "answer": "x"} for uid in golds()]
    with pytest.raises(FinbenchError, match="'00000001-q1' is answered more than once"):
        imported(data, "tatqa", "a.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    for task in ("finbench_reports", "fpb_mc"):
        with pytest.raises(FinbenchError, match="one task is meant, whose answers are text"):
            imported(data, task, "b.json", "{}")
    with pytest.raises(FinbenchError, match="No such file"):
        import_card(data / "nothing.json", task="tatqa", data_dir=data)


def test_the_command_says_what_was_left_out(data: Path) -> None:
    file = data.parent / "mine.json"
    file.write_text(json.dumps({**golds(), "other": ["x", ""]}))
    told = CliRunner().invoke(
        app,
        ["card", "import", str(file), "--task", "tatqa", "--data-dir", str(data), "--out", str(data.parent / "c")],
    )
    assert told.exit_code == 0, told.output
    assert "1 answers are to no test row here" in told.output
    assert "100.0" in told.output


def test_invented_tests_of_all_seeds_take_their_answers(tmp_path: Path) -> None:
    files = report_sources(tmp_path / "s", 12)
    for seed in SEEDS:
        name = f"fomc_split_combine_{seed}"
        import_data(name, files[name], tmp_path / "data")


# ---- published figures


def test_the_sample_predictions_of_tatqa(real_data: Path, tmp_path: Path) -> None:
    """EM 46.0 and F1 58.5 on the rows here; ``test_reports`` compares them with the official script row by row."""
    folder = real_data / "tatqa"
    import_data("tatqa", [folder / "tatqa_dataset_dev.json"], tmp_path)
    [card] = import_card(folder / "sample_prediction.json", task="tatqa", out=tmp_path / "c", data_dir=tmp_path)
    found = {name: round(100 * measure.value, 1) for name, measure in card.scores[0].metrics.items()}
    assert (card.scores[0].n, found["em"], found["f1"], found["acc"]) == (1264, 46.0, 58.5, 46.0)


def first_label(text: str) -> str | None:
    """The authors' way: the first label of the first line."""
    line = text.strip().split("\n")[0].casefold()
    places = {label: line.find(label) for label in ("dovish", "hawkish", "neutral") if label in line}
    return min(places, key=lambda label: places[label], default=None)


@pytest.mark.parametrize("kind", ["combine", "split-combine"])
def test_chatgpts_published_answers_on_fomc(real_data: Path, tmp_path: Path, kind: str) -> None:
    """Strict reads 98 % of them; the others name a second label in the line. Published, complete files: 58."""
    sklearn = pytest.importorskip("sklearn.metrics")
    ours, theirs, parsed = [], [], []
    for seed in SEEDS:
        name = f"fomc_{kind.replace('-', '_')}_{seed}"
        import_data(name, [real_data / "fomc" / "test_data" / f"lab-manual-{kind}-test-{seed}.xlsx"], tmp_path)
        file = real_data / "fomc" / "chatgpt_answers" / f"chatgpt_lab-manual-{kind}_{seed}.csv"
        [card] = import_card(file, task=name, out=tmp_path / "cards", data_dir=tmp_path)
        score = card.scores[0]
        ours.append(score.metrics["weighted_f1"].value)
        parsed.append(score.parse_rate.value)
        with file.open(encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        labels = ("dovish", "hawkish", "neutral")
        golds = [labels[int(float(row["true_label"]))] for row in rows]
        told = [first_label(row["text_output"]) or "none" for row in rows]
        theirs.append(sklearn.f1_score(golds, told, labels=labels, average="weighted"))
        assert score.n == len(rows)
    assert sum(theirs) / 3 == pytest.approx(0.595, abs=0.001)
    assert 0 <= sum(theirs) / 3 - sum(ours) / 3 < 0.01
    assert min(parsed) > 0.975
