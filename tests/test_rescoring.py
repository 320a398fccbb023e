"""``finbench card rescore``: cards of earlier versions, from the answers that they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import boards
from finbench.cards import cardfiles
from finbench.cli.app import app
from finbench.core import catalog
from finbench.core.records import Scorecard
from finbench.core.seal import salted
from finbench.data import import_data
from finbench.evaluation import Rescored, evaluator, rescore_cards, verify
from finbench.scoring import clusters_of, metrics, prompts, split_metrics, values_of
from make_data import write_sources

TASK = "finbench_mini_sentiment"


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A card of the dummy engine, as an earlier version would have written it: all answers were unparsed."""
    evaluator.evaluate(model="dummy", engine="dummy", tasks=TASK, out=tmp_path)
    [path] = tmp_path.glob("*.json")
    return path


def aged(path: Path, answers: list[str], *, hashed: bool = False) -> Scorecard:
    """Rewrite the card with these answers, each read as none, under the version before."""
    card, rows = cardfiles.read(path), cardfiles.rows_by_task(path, cardfiles.read(path))[TASK]
    for row, answer in zip(rows, answers, strict=True):
        gold, _, labels = row["values"]["macro_f1"]
        item = [gold, None, labels]
        row["values"] |= {name: item for name in row["values"] if "f1" in name or name == "mcc"}
        row["values"] |= {"acc": 0.0, "acc_lenient": 0.0, "parse_rate": 0.0}
        row.pop("answer", None)
        row |= {"answer_sha256": salted(answer)} if hashed else {"answer": answer}
    [score] = card.scores
    strict, lenient, rate = split_metrics(values_of(rows), metrics.aggregations(TASK), clusters_of(rows))
    update = {"version": score.version - 1, "task_digest": "0" * 64}
    old = score.model_copy(update={**update, "metrics": strict, "lenient": lenient, "parse_rate": rate})
    return cardfiles.write(path, card.model_copy(update={"scores": [old]}), rows)


def golds() -> list[str]:
    lm_task = prompts.load(catalog.expand([TASK]), None)[TASK]
    return [str(doc["label"]) for doc in prompts.rows(lm_task, "test")]


def test_answers_in_the_card_are_scored_anew(card: Path) -> None:
    aged(card, [f"The sentiment is **{gold}**." for gold in golds()])
    [found] = rescore_cards([card])
    assert not found.refused
    assert "macro_f1 0.0000 -> 1.0000" in found.changes[0]
    [score] = cardfiles.read(card).scores
    assert (score.version, score.main.value, score.parse_rate.value) == (catalog.tasks()[TASK].version, 1.0, 1.0)
    assert verify(card).faults == []
    assert rescore_cards([card])[0].changes == []  # nothing is left to do


def test_hashes_give_away_what_is_usual_and_nothing_else_is_guessed(card: Path) -> None:
    aged(card, [f" {gold.capitalize()}." for gold in golds()], hashed=True)
    assert not rescore_cards([card])[0].refused
    before = aged(card, [f"My guess: {gold}" for gold in golds()], hashed=True)
    [found] = rescore_cards([card])
    assert "hashes of unknown words" in found.refused
    assert cardfiles.read(card) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw["subject"].update(name="another"), "was edited"),
        (lambda raw: raw["scores"][0].update(n=3), "was edited"),
    ],
    ids=["edited", "counts"],
)
def test_a_card_that_was_edited_stays_as_it_is(card: Path, change: Any, said: str) -> None:
    aged(card, golds())
    raw = json.loads(card.read_text())
    change(raw)
    card.write_text(json.dumps(raw))
    before = card.read_bytes()
    assert said in rescore_cards([card])[0].refused
    assert card.read_bytes() == before


def test_a_card_from_before_learns_that_its_rows_are_a_part_of_the_set(tmp_path: Path) -> None:
    """As of the leaderboard's first cards: nobody knew then how many rows the authors' set has."""
    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "data")
    path = boards.scored(tmp_path / "cards", tmp_path / "data", ["fpb"])
    card, rows = cardfiles.read(path), cardfiles.read_samples(path)
    [score] = card.scores
    part = score.data.share
    assert part

    def written(**of_data: Any) -> bytes:
        update = {"data": score.data.model_copy(update={"share": None, **of_data})}
        cardfiles.write(path, card.model_copy(update={"scores": [score.model_copy(update=update)]}), rows)
        return path.read_bytes()

    before = written(digest="0" * 64)  # rows of another edition, of which nothing is known here
    assert rescore_cards([path], data_dir=tmp_path / "data")[0] == Rescored(str(path))
    assert path.read_bytes() == before
    written()
    [found] = rescore_cards([path], data_dir=tmp_path / "data")
    assert found.changes == ["finbench_fpb: its rows are 2.5 % of the test"]
    again = cardfiles.read(path)
    assert (again.scores, again.status) == (card.scores, "partial")
    assert verify(path, data_dir=tmp_path / "data").faults == []
    assert rescore_cards([path], data_dir=tmp_path / "data")[0].changes == []


def test_a_card_whose_data_are_missing_is_named_and_the_others_are_scored(card: Path, tmp_path: Path) -> None:
    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "data")
    absent = boards.scored(tmp_path / "a", tmp_path / "data", ["fpb"])
    old = cardfiles.read(absent)
    scores = [score.model_copy(update={"version": score.version - 1}) for score in old.scores]
    cardfiles.write(absent, old.model_copy(update={"scores": scores}), cardfiles.read_samples(absent))
    before = absent.read_bytes()
    strange = absent.with_name("strange.json")
    scores = [score.model_copy(update={"task": "finbench_gone"}) for score in scores]
    rows = [{**row, "task": "finbench_gone"} for row in cardfiles.read_samples(absent)]
    cardfiles.write(strange, old.model_copy(update={"scores": scores}), rows)
    aged(card, [f"{gold}." for gold in golds()])
    cards = [absent, strange, card]
    missing, unknown = rescore_cards(cards[:2], data_dir=tmp_path / "none")
    assert missing.refused.startswith(f"No data for fpb in {tmp_path}")
    assert "finbench data import fpb" in missing.hint
    assert unknown.refused == "finbench_gone is not a task of this finbench"
    done = CliRunner().invoke(app, ["card", "rescore", *map(str, cards), "--data-dir", str(tmp_path / "none")])
    assert done.exit_code == 1
    words = done.stdout.split()
    assert [word for word in words if word in ("new", "left")] == ["new", "left", "left"]
    assert words[-3:] == ["finbench", "tasks", "list"]
    assert absent.read_bytes() == before
    assert cardfiles.read(card).scores[0].main.value == 1.0


def test_short_numbers_and_empty_lists_are_guessed(card: Path) -> None:
    aged(card, [" -0.333" if number % 2 else "[]" for number in range(len(golds()))], hashed=True)
    assert not rescore_cards([card])[0].refused


def test_a_model_is_asked_together_and_alone_and_by_chance(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose answers depend on what runs beside them, as half precision does."""
    wanted = [f"My guess: {gold}" for gold in golds()]
    aged(card, wanted, hashed=True)
    asked: list[int] = []

    class Engine:
        name = "hf"

        def answer(self, requests: list[Any], done: Any) -> list[str]:
            asked.append(len(requests))
            drawn = [request.args[1].get("do_sample") and len(asked) % 3 == 0 for request in requests]
            alone = len(requests) == 1 and requests[0].doc_id % 2 == 0
            return [
                wanted[request.doc_id] if alone or lucky else "Hm."
                for request, lucky in zip(requests, drawn, strict=True)
            ]

        def close(self) -> None: ...

    monkeypatch.setattr("finbench.evaluation.rescoring.engine_of", lambda *_: Engine())
    [found] = rescore_cards([card], ask=True)
    assert not found.refused
    assert asked[0] > 1
    assert set(asked[1:]) == {1}
    [score] = cardfiles.read(card).scores
    assert score.lenient["acc"].value == 1.0
    assert verify(card).faults == []
