"""Older cards stated anew: what changes, what stays to the byte, and what is refused with its reason."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from test_verification import Card, Rows, change

from finbench.cards import cardfiles
from finbench.cli import app
from finbench.core import seal
from finbench.core.files import sha256_file
from finbench.engines.dummy import DummyEngine
from finbench.evaluation import evaluator
from finbench.evaluation.restating import restate
from finbench.evaluation.verification import verify
from finbench.scoring import earlier, measuring, metrics
from make_data import write_sources

SCHEMA_0 = Path(__file__).parent / "golden" / "schema0"


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A card on questions about a few headlines, and on a few texts."""
    evaluator.evaluate(engine="dummy", tasks=["mini_headline", "mini_sentiment"], limit=20, out=tmp_path / "cards")
    return tmp_path / "cards" / "dummy.json"


def contents(path: Path) -> tuple[bytes, bytes]:
    return path.read_bytes(), cardfiles.samples_path(path).read_bytes()


def by_an_older_rule(found: Card, rows: Rows) -> None:
    """Intervals as the first rule gave them."""
    for score in found["scores"]:
        own = [row for row in rows if row["task"] == score["task"]]
        strict, lenient, parsed = measuring.split_metrics(
            measuring.values_of(own),
            metrics.aggregations(score["task"]),
            measuring.clusters_of(own),
            rule=earlier.percentiles,
        )
        score["metrics"] = {name: m.model_dump() for name, m in strict.items()}
        score["lenient"] = {name: m.model_dump() for name, m in lenient.items()}
        score["parse_rate"] = parsed.model_dump()


def test_a_card_of_today_stays_as_it_is(card: Path) -> None:
    before = contents(card)
    [found] = restate([card])
    assert (found.changes, found.refused) == ([], "")
    assert contents(card) == before


def test_intervals_of_an_older_rule_become_those_of_today(card: Path) -> None:
    first = cardfiles.read(card)
    change(card, by_an_older_rule, careful=True)
    noted, before = verify(card), sha256_file(card)
    assert noted.faults == []
    assert any("by an earlier rule" in note for note in noted.notes)
    [planned] = restate([card], dry_run=True)
    assert sha256_file(card) == before
    [found] = restate([card.parent])
    assert found == planned
    assert any(line.startswith("finbench_mini_headline.metrics.") for line in found.changes)
    assert not any("finbench_mini_sentiment.metrics.acc" in line for line in found.changes)  # Wilson's, as before
    made = cardfiles.read(card)
    assert made.scores == first.scores
    assert made.restated is not None
    assert made.restated.before == before
    checked = verify(card)
    assert (checked.level, checked.faults) == ("samples-attached", [])
    assert not any("earlier rule" in note for note in checked.notes)
    again = contents(card)
    assert restate([card])[0].changes == []
    assert contents(card) == again


def test_a_card_of_schema_0_and_version_1_becomes_one_of_today(tmp_path: Path) -> None:
    shutil.copytree(SCHEMA_0, tmp_path / "old")
    path = tmp_path / "old" / "dummy.json"
    before = cardfiles.read(path)
    assert verify(path).level == "self-reported"
    [found] = restate([path])
    assert found.refused == ""
    assert found.changes[0] == "schema: 0 -> 1"
    card, checked = cardfiles.read(path), verify(path)
    assert (checked.level, checked.faults, checked.earlier) == ("samples-attached", [], [])
    for old, new in zip(before.scores, card.scores, strict=True):
        assert new.version > old.version
        assert new.main.value == pytest.approx(old.main.value)
        assert (new.n, new.seconds, new.prompt_tokens) == (old.n, old.seconds, old.prompt_tokens)
        assert new.clusters is not None
    assert verify(path, rerun=10).level == "reproduced"


def set_back(found: Card, rows: Rows) -> None:
    for score in found["scores"]:
        version, digest = max(metrics.history()[score["task"]].items())
        score |= {"version": version, "task_digest": digest}


@pytest.fixture
def restricted(tmp_path: Path) -> Path:
    """A card on a restricted set, whose data lie in ``tmp_path/data``, of the version before today's."""
    from finbench.data.sources import import_data

    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "data")
    evaluator.evaluate(engine="dummy", tasks=["fpb"], out=tmp_path / "o", data_dir=tmp_path / "data")
    change(tmp_path / "o" / "dummy.json", set_back, careful=True)
    return tmp_path / "o" / "dummy.json"


def test_answers_of_an_earlier_version_are_scored_again_by_their_hashes(restricted: Path, tmp_path: Path) -> None:
    today = cardfiles.read(restricted).scores[0]
    [found] = restate([restricted], data_dir=tmp_path / "data")
    assert found.refused == ""
    score = cardfiles.read(restricted).scores[0]
    assert (score.metrics, score.lenient, score.data) == (today.metrics, today.lenient, today.data)
    assert score.version == today.version + 1
    assert verify(restricted, data_dir=tmp_path / "data").level == "samples-attached"


def refused(path: Path, **more: Any) -> str:
    before = contents(path) if cardfiles.samples_path(path).is_file() else path.read_bytes()
    [found] = restate([path], **more)
    after = contents(path) if cardfiles.samples_path(path).is_file() else path.read_bytes()
    assert after == before
    assert found.changes == []
    return found.refused


def test_what_the_samples_do_not_allow_is_refused_with_its_reason(
    restricted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    assert "its rows are not on this machine (finbench data import fpb" in refused(restricted, data_dir=tmp_path / "no")
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "asked_otherwise", lambda task: [2])
        assert "it asked other questions" in refused(restricted, data_dir=data)
    kept = contents(restricted)
    change(restricted, lambda found, rows: found.update(shots=5), careful=True)
    assert "worked examples were drawn in another way" in refused(restricted, data_dir=data)
    restricted.write_bytes(kept[0])
    cardfiles.samples_path(restricted).write_bytes(kept[1])
    change(restricted, lambda found, rows: rows[0].update(doc="0" * 32), careful=True)
    assert "of another edition" in refused(restricted, data_dir=data)
    monkeypatch.setattr(DummyEngine, "_answer", lambda self, request: "Words that no label has.")
    evaluator.evaluate(engine="dummy", tasks=["fpb"], out=tmp_path / "w", data_dir=data, limit=9)
    change(tmp_path / "w" / "dummy.json", set_back, careful=True)
    assert "9 of its 9 answers are hashes of words" in refused(tmp_path / "w" / "dummy.json", data_dir=data)


def test_a_card_that_cannot_be_trusted_or_has_no_samples_is_refused(card: Path) -> None:
    kept = card.read_bytes()
    change(card, lambda found, rows: found["scores"][0]["metrics"]["acc"].update(value=0.9))
    assert "it cannot be trusted: scores[0].metrics.acc.value was edited" in refused(card)
    found = json.loads(kept) | {"samples": None}
    card.write_text(json.dumps(found | {"seal": seal.card_seal(found)}))
    assert refused(card) == "it has no samples"


def test_the_command_says_what_changed_and_exits_1_where_one_is_refused(
    card: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["finbench", "card", "restate", *arguments])
        with pytest.raises(SystemExit) as stopped:
            app.main()
        return stopped.value.code, " ".join(capsys.readouterr().out.split())

    code, said = call(str(card))
    assert code in (0, None)
    assert said.endswith("as it was")
    change(card, by_an_older_rule, careful=True)
    code, said = call(str(card), "--dry-run")
    assert "would be restated" in said
    assert "mini_headline.metrics." in said
    other = card.parent / "other.json"
    other.write_text(card.read_text())
    shutil.copy(cardfiles.samples_path(card), cardfiles.samples_path(other))
    change(other, lambda found, rows: found.update(engine="hf"))
    code, said = call(str(card.parent), "--json")
    assert code == 1
    outcome = {Path(one["card"]).name: one for one in json.loads(said)}
    assert outcome["dummy.json"]["changes"]
    assert outcome["dummy.json"]["refused"] is None
    assert "engine was edited" in outcome["other.json"]["refused"]
    assert verify(card).faults == []
