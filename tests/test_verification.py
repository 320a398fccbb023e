"""Verification: every alteration of a card or its samples is found and named, by a careless and by a careful hand."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from rich.console import Console

from finbench.cards import cardfiles, comparison, exports, render, reporting
from finbench.cli import app
from finbench.core import catalog, seal
from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file, stable_json
from finbench.core.records import Scorecard
from finbench.evaluation import evaluator, rescore, verification
from finbench.evaluation.verification import Verification, verify
from finbench.leaderboard import examine
from finbench.scoring import measuring, metrics
from make_data import write_sources

Card = dict[str, Any]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card of the random dummy on two shipped sets; do not write into its folder."""
    out = tmp_path_factory.mktemp("cards")
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment", "mini_headline"], out=out)
    return out / "dummy.json"


@pytest.fixture
def card(original: Path, tmp_path: Path) -> Path:
    """A copy to alter."""
    shutil.copytree(original.parent, tmp_path / "cards")
    return tmp_path / "cards" / original.name


def change(path: Path, alter: Callable[[Card, Rows], None], *, careful: bool = False) -> None:
    """Edit card and rows. A careful hand also renews the samples' SHA-256, the run key and the seal."""
    found, rows = json.loads(path.read_text()), cardfiles.read_samples(path)
    before = stable_json(rows)
    alter(found, rows)
    if stable_json(rows) != before or careful:
        lines = "".join(stable_json(row) + "\n" for row in rows)
        cardfiles.samples_path(path).write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))
    if careful:
        found["samples"] = sha256_file(cardfiles.samples_path(path))
        found["run_key"] = cardfiles.run_key(Scorecard.parse(found, "altered"))
        found["seal"] = seal.card_seal(found)
    path.write_text(json.dumps(found, indent=1))


def test_an_untouched_card_follows_from_its_samples(original: Path) -> None:
    found = verify(original)
    assert found.faults == []
    assert found.level == "samples-attached"
    assert sum("every metric and interval" in check for check in found.checks) == 2
    assert "finbench_mini_sentiment: 150 of 150 answers scored again by the task's own scorer, on the data here" in (
        found.checks
    )


def test_nothing_of_a_task_is_right_where_one_of_its_rows_is_at_fault(card: Path) -> None:
    def one_row(_: Card, rows: Rows) -> None:
        row = next(row for row in rows if row["task"] == "finbench_mini_sentiment" and row["values"]["acc"] == 0)
        row["answer"] = row["values"]["macro_f1"][0]

    change(card, one_row, careful=True)
    found = verify(card)
    assert all(fault.field.startswith("samples[finbench_mini_sentiment ") for fault in found.faults)
    assert found.faults
    assert not [check for check in found.right if check.startswith("finbench_mini_sentiment: ")]
    assert [check for check in found.right if "every metric" in check]


def put(value: Any, *path: Any) -> Callable[[Card, Rows], None]:
    """An alteration that sets one value of the card."""

    def alter(card: Card, rows: Rows) -> None:
        place: Any = card
        for key in path[:-1]:
            place = place[key]
        assert place[path[-1]] != value
        place[path[-1]] = value

    return alter


CARELESS = {  # every value that people would want to be another one, and the name that must be told
    "subject.name": put("another", "subject", "name"),
    "subject.bits": put(4, "subject", "bits"),
    "subject.chat": put(True, "subject", "chat"),
    "subject.rank": put(8, "subject", "rank"),
    "subject.method": put("dora", "subject", "method"),
    "subject.seed": put(3, "subject", "seed"),
    "subject.adapter": put("ab" * 32, "subject", "adapter"),
    "subject.trainable_parameters": put(10, "subject", "trainable_parameters"),
    "subject.base.alias": put("llama", "subject", "base", "alias"),
    "subject.base.fingerprint": put("0" * 64, "subject", "base", "fingerprint"),
    "subject.base.revision": put("main", "subject", "base", "revision"),
    "engine": put("hf", "engine"),
    "dtype": put("float32", "dtype"),
    "shots": put(5, "shots"),
    "seed": put(1, "seed"),
    "seconds": put(4321.0, "seconds"),
    "peak_memory_bytes": put(1, "peak_memory_bytes"),
    "run_key": put("0" * 64, "run_key"),
    "samples": put("0" * 64, "samples"),
    "seal": put("0" * 64 + ":", "seal"),
    "origin": put("lm-eval", "origin"),
    "provenance.finbench": put("9.9", "provenance", "finbench"),
    "provenance.python": put("2.7", "provenance", "python"),
    "provenance.packages.torch": put("1.0", "provenance", "packages", "torch"),
    "provenance.created": put("2020-01-01T00:00:00Z", "provenance", "created"),
    "scores[1].version": put(77, "scores", 1, "version"),
    "scores[1].task_digest": put("0" * 64, "scores", 1, "task_digest"),
    "scores[1].n": put(149, "scores", 1, "n"),
    "scores[1].clusters": put(140, "scores", 1, "clusters"),
    "scores[1].duplicates": put(1, "scores", 1, "duplicates"),
    "scores[1].truncated": put(3, "scores", 1, "truncated"),
    "scores[1].prompt_tokens": put(3, "scores", 1, "prompt_tokens"),
    "scores[1].licence": put("MIT", "scores", 1, "licence"),
    "scores[1].data.rows": put(151, "scores", 1, "data", "rows"),
    "scores[1].data.digest": put("0" * 64, "scores", 1, "data", "digest"),
    "scores[1].data.split": put("train", "scores", 1, "data", "split"),
    "scores[1].metrics.macro_f1.value": put(0.9, "scores", 1, "metrics", "macro_f1", "value"),
    "scores[1].metrics.acc.value": put(0.9, "scores", 1, "metrics", "acc", "value"),
    "scores[1].metrics.acc.low": put(0.1, "scores", 1, "metrics", "acc", "low"),
    "scores[1].lenient.acc.high": put(0.99, "scores", 1, "lenient", "acc", "high"),
    "scores[1].parse_rate.value": put(0.5, "scores", 1, "parse_rate", "value"),
    "scores[1].baselines.random.acc": put(0.01, "scores", 1, "baselines", "random", "acc"),
}


@pytest.mark.parametrize("field", CARELESS)
def test_a_careless_edit_of_the_card_is_named(field: str, card: Path) -> None:
    change(card, CARELESS[field])
    found = verify(card)
    assert found.level == "none"
    assert any(fault.field == field or fault.field.startswith(field + " ") for fault in found.faults), found.faults


def row_of(rows: Rows, task: str = "finbench_mini_sentiment", number: int = 7) -> dict[str, Any]:
    return next(row for row in rows if row["task"] == task and row["index"] == number)


def values(name: str, part: int | None, new: Any) -> Callable[[Card, Rows], None]:
    """An alteration of one value of a sample row."""

    def alter(card: Card, rows: Rows) -> None:
        row = row_of(rows)
        if part is None:
            row["values"][name] = new(row["values"][name])
        else:
            row["values"][name][part] = new(row["values"][name][part])

    return alter


def other(label: str) -> str:
    return "positive" if label != "positive" else "negative"


def drop(card: Card, rows: Rows) -> None:
    rows.pop(20)


def twice(card: Card, rows: Rows) -> None:
    rows.append(dict(rows[20]))


def answer(card: Card, rows: Rows) -> None:
    row_of(rows)["answer"] = other(row_of(rows)["answer"])


def document(card: Card, rows: Rows) -> None:
    row_of(rows)["doc"] = "0" * 32


def source(card: Card, rows: Rows) -> None:
    row_of(rows)["cluster"] = row_of(rows, number=8)["cluster"]


SAMPLES = {
    "a gold label": (values("macro_f1", 0, other), "samples[finbench_mini_sentiment 7].values.macro_f1"),
    "a prediction": (values("macro_f1", 1, other), "samples[finbench_mini_sentiment 7].values.macro_f1"),
    "a label set": (values("macro_f1", 2, lambda _: ["a", "b"]), "samples[finbench_mini_sentiment 7]"),
    "an accuracy": (values("acc", None, lambda v: 1 - v), "samples[finbench_mini_sentiment 7].values."),
    "a parse rate": (values("parse_rate", None, lambda v: 1 - v), "samples[finbench_mini_sentiment 7].values."),
    "an answer": (answer, "samples[finbench_mini_sentiment 7].values."),
    "a document": (document, "samples[finbench_mini_sentiment 7].doc"),
    "a source": (source, "scores[finbench_mini_sentiment].clusters"),
    "a row less": (drop, "samples[finbench_mini_headline].index"),
    "a row more": (twice, "samples[finbench_mini_headline].index"),
}


@pytest.mark.parametrize("what", SAMPLES)
def test_a_careless_edit_of_the_samples_is_named(what: str, card: Path) -> None:
    alter, field = SAMPLES[what]
    change(card, alter)
    found = {fault.field for fault in verify(card).faults}
    assert "samples" in found  # the file's SHA-256
    assert any(name.startswith(field) for name in found), found


def rescored(alter: Callable[[Card, Rows], None]) -> Callable[[Card, Rows], None]:
    """An alteration of the rows after which all metrics are computed anew: nothing contradicts anything."""

    def both(card: Card, rows: Rows) -> None:
        alter(card, rows)
        for score in card["scores"]:
            own = [row for row in rows if row["task"] == score["task"]]
            strict, lenient, parse_rate = measuring.split_metrics(
                measuring.values_of(own), metrics.aggregations(score["task"]), measuring.clusters_of(own)
            )
            score["metrics"] = {name: m.model_dump() for name, m in strict.items()}
            score["lenient"] = {name: m.model_dump() for name, m in lenient.items()}
            score["parse_rate"] = parse_rate.model_dump()
            score |= measuring.sample_counts(own)

    return both


def everything_right(card: Card, rows: Rows) -> None:
    """Answers, readings and accuracies as if one that is wrong had been answered rightly."""
    row = next(row for row in rows if row["task"] == "finbench_mini_sentiment" and row["values"]["acc"] == 0)
    gold = row["values"]["macro_f1"][0]
    row["answer"] = gold
    for name, value in row["values"].items():
        row["values"][name] = 1.0 if isinstance(value, float) else [gold, gold, value[2]]


def hide(card: Card, rows: Rows) -> None:
    """Put the accuracy out of reach, as if it quoted restricted text, and claim another."""
    for row in rows:
        if "acc" in row["values"]:
            row["values"]["acc"] = {"sha256": "0" * 32}
    card["scores"][1]["metrics"]["acc"] |= {"value": 0.98, "low": 0.97, "high": 0.99}


def every_row(alter: Callable[[dict[str, Any]], Any]) -> Callable[[Card, Rows], None]:
    """An alteration of every row of the sentiment task."""

    def both(card: Card, rows: Rows) -> None:
        for row in rows:
            if row["task"] == "finbench_mini_sentiment":
                alter(row)

    return both


def impossible_share(card: Card, rows: Rows) -> None:
    card["scores"][1]["metrics"]["macro_f1"] |= {"value": 1.5, "low": 1.4, "high": 1.6}


CAREFUL = {  # seals, hashes and keys renewed: found by what is recomputed
    "a score": (put(0.9, "scores", 1, "metrics", "macro_f1", "value"), ".metrics.macro_f1"),
    "a share that cannot be": (put(0.6667, "scores", 1, "metrics", "acc", "value"), ".metrics.acc"),
    "an interval": (put(0.3860, "scores", 1, "metrics", "acc", "low"), ".metrics.acc.low"),
    "how it was made": (put("exact", "scores", 1, "metrics", "acc", "method"), ".metrics.acc.method"),
    "a lenient score": (put(0.9, "scores", 1, "lenient", "acc", "value"), ".lenient.acc"),
    "the parse rate": (put(0.5, "scores", 1, "parse_rate", "value"), ".parse_rate"),
    "the count": (put(149, "scores", 1, "n"), ".n"),
    "the clusters": (put(10, "scores", 1, "clusters"), ".clusters"),
    "the duplicates": (put(3, "scores", 1, "duplicates"), ".duplicates"),
    "the version": (put(77, "scores", 1, "version"), ".version"),
    "the task digest": (put("0" * 64, "scores", 1, "task_digest"), ".task_digest"),
    "the family": (put("sentiment", "scores", 1, "family"), ".family"),
    "the form": (put("choice", "scores", 1, "form"), ".form"),
    "the licence": (put("MIT", "scores", 1, "licence"), ".licence"),
    "the main metric": (put("acc", "scores", 1, "main_metric"), ".main_metric"),
    "the data set": (put("fpb", "scores", 1, "data", "set"), ".data.set"),
    "the data digest": (put("0" * 64, "scores", 1, "data", "digest"), ".data.digest"),
    "the rows": (put(151, "scores", 1, "data", "rows"), ".n"),
    "the baselines": (put(0.01, "scores", 1, "baselines", "random", "acc"), ".baselines"),
    "no baselines": (put({}, "scores", 1, "baselines"), ".baselines"),
    "a metric taken out": (lambda card, rows: card["scores"][1]["metrics"].pop("acc"), ".metrics"),
    "a count beyond all bounds": (put(10**30, "scores", 1, "n"), "samples[finbench_mini_sentiment].index"),
    "a score above one": (impossible_share, ".metrics.macro_f1"),
    "the direction of a metric": (put(["macro_f1"], "scores", 1, "lower_is_better"), ".lower_is_better"),
    "the prompt style": (put("chatty", "scores", 1, "prompt_style"), ".prompt_style"),
    "the split": (put("train", "scores", 1, "data", "split"), ".data.split"),
    "worked examples of none": (put("train", "scores", 1, "fewshot_split"), ".fewshot_split"),
    "the overlap": (put({"texts": 3, "of": 2}, "scores", 1, "overlap"), ".overlap"),
    "a score twice": (lambda card, rows: card["scores"].append(card["scores"][1]), "scores[finbench_mini_sentiment]"),
    "answers taken out": (every_row(lambda row: row.pop("answer")), "samples[finbench_mini_sentiment 0].answer"),
    "sources taken out": (every_row(lambda row: row.pop("cluster")), "samples line 151"),
    "a metric taken out everywhere": (
        rescored(every_row(lambda row: row["values"].pop("parse_rate"))),
        "samples[finbench_mini_sentiment 0].values",
    ),
    "a limit of a complete card": (put(5, "limit"), "status"),
    "a gold label": (rescored(values("macro_f1", 0, other)), "samples[finbench_mini_sentiment 7].values.macro_f1"),
    "a prediction": (rescored(values("macro_f1", 1, other)), "samples[finbench_mini_sentiment 7].values.macro_f1"),
    "an accuracy": (rescored(values("acc", None, lambda v: 1 - v)), "samples[finbench_mini_sentiment 7].values."),
    "a lenient reading": (
        rescored(values("macro_f1_lenient", 1, other)),
        "samples[finbench_mini_sentiment 7].values.macro_f1_lenient",
    ),
    "an answer": (answer, "samples[finbench_mini_sentiment 7].values."),
    "a document": (document, "samples[finbench_mini_sentiment 7].doc"),
    "a source": (rescored(source), "samples[finbench_mini_sentiment 7].cluster"),
    "a metric hidden": (hide, "samples[finbench_mini_sentiment].values.acc"),
    "a document for another": (
        lambda card, rows: row_of(rows).update(doc=row_of(rows, number=8)["doc"]),
        "scores[finbench_mini_sentiment].duplicates",
    ),
}


@pytest.mark.parametrize("what", CAREFUL)
def test_a_careful_edit_is_found_by_recomputing(what: str, card: Path) -> None:
    alter, field = CAREFUL[what]
    change(card, alter, careful=True)
    found = verify(card)
    assert found.level == "none"
    assert any(field in fault.field for fault in found.faults), found.faults


def test_what_only_the_model_can_disprove_is_found_by_asking_it_again(card: Path) -> None:
    """A forged answer with all that follows from it passes every check but the rerun."""
    change(card, rescored(everything_right), careful=True)
    assert verify(card).level == "samples-attached"
    found = verify(card, rerun=150)
    assert found.level == "none"
    [fault] = found.faults
    assert fault.field == "samples[finbench_mini_sentiment].values"
    assert "149 of 150 documents read the same" in fault.message


def test_a_rerun_of_no_model_says_nothing(original: Path) -> None:
    found = verify(original, rerun=20)
    assert found.level == "samples-attached"  # the dummy engine has no model
    assert "finbench_mini_headline: 20 of 20 documents read the same when asked again" in found.checks


def test_a_rerun_on_a_real_model_and_on_a_changed_one(llama: Path, tmp_path: Path) -> None:
    evaluator.evaluate(
        model=str(llama), tasks=["mini_sentiment"], limit=12, out=tmp_path, arguments={"dtype": "float32"}
    )
    [path] = tmp_path.glob("*.json")
    found = verify(path, rerun=5, base=str(llama))
    assert (found.level, found.faults) == ("reproduced", [])
    from conftest import make_llama

    with pytest.raises(FinbenchError, match="not the one of the card"):
        verify(path, rerun=5, base=str(make_llama(tmp_path / "other", seed=9)))


# ---------------------------------------------------------------- less than samples


def test_without_samples_a_card_is_self_reported_and_must_be_possible(card: Path) -> None:
    def bare(found: Card, rows: Rows) -> None:
        found["samples"] = None
        found["seal"] = seal.card_seal(found)

    change(card, bare)
    found = verify(card)
    assert (found.level, found.faults) == ("self-reported", [])
    assert any("rest on the word" in note for note in found.notes)

    def impossible(found: Card, rows: Rows) -> None:
        found["scores"][1]["metrics"]["acc"] |= {"value": 0.5007, "low": 0.4, "high": 0.6}
        found["seal"] = seal.card_seal(found)

    found_json = json.loads(card.read_text())
    impossible(found_json, [])
    card.write_text(json.dumps(found_json))
    [fault] = verify(card).faults
    assert fault.field == "scores[finbench_mini_sentiment].metrics.acc"
    assert "not a share of 150 documents" in fault.message


def test_missing_and_torn_files(card: Path, tmp_path: Path) -> None:
    cardfiles.samples_path(card).write_bytes(b"\x28\xb5\x2f\xfd torn")
    assert {fault.field for fault in verify(card).faults} == {"samples"}
    cardfiles.samples_path(card).unlink()
    assert "missing" in verify(card).faults[0].message
    card.write_text("{")
    with pytest.raises(FinbenchError, match="torn or not JSON"):
        verify(card)
    with pytest.raises(FinbenchError, match="No such scorecard"):
        verify(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda card: card.update(extra=1), "unknown key 'extra'"),
        (lambda card: card.update(schema=99), "written by a newer finbench"),
        (lambda card: card.update(schema=0), "schema"),
        (lambda card: card["scores"][0].pop("clusters"), "'scores.0.clusters' is missing"),
        (lambda card: card["scores"][0]["parse_rate"].pop("method"), "method' is missing"),
        (lambda card: card.pop("subject"), "'subject' is missing"),
        (lambda card: card["scores"][0].update(n="many"), "scores.0.n"),
        (lambda card: card["scores"][0].update(truncated=-1), "truncated"),
    ],
)
def test_a_card_outside_the_schema_is_named(alter: Any, said: str, card: Path) -> None:
    found = json.loads(card.read_text())
    alter(found)
    card.write_text(json.dumps(found))
    [fault] = verify(card).faults
    assert fault.field == "schema"
    assert said in fault.message


@pytest.mark.parametrize("text", ["[]", "null", "3", '"card"', '{"schema": "one"}', "{}"])
def test_what_is_no_card_at_all_is_one_fault(text: str, card: Path) -> None:
    card.write_text(text)
    assert [fault.field for fault in verify(card).faults] == ["schema"]


def test_json_too_deep_for_any_card_is_refused(card: Path) -> None:
    card.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(FinbenchError, match="torn or not JSON"):
        verify(card)


def test_a_key_that_is_there_twice_is_refused_for_readers_see_different_values(card: Path) -> None:
    card.write_text(card.read_text().replace('"engine"', '"engine": "hf", "engine"'))
    with pytest.raises(FinbenchError, match="the key 'engine' is there twice"):
        verify(card)
    with pytest.raises(FinbenchError, match="the key 'engine' is there twice"):
        cardfiles.read(card)


@pytest.mark.parametrize(
    "row",
    [
        {"task": "finbench_mini_sentiment", "index": 0, "doc": "d", "values": {}},
        {"task": "finbench_mini_sentiment", "index": 0, "doc": "d", "values": {"acc": None, "macro_f1": 3}},
        {"task": "finbench_mini_sentiment", "index": 0, "doc": "d", "values": {"macro_f1": [[], {}, []]}},
        {"task": 7, "index": 0, "doc": "d", "values": {"acc": 1.0}},
        {"task": "finbench_mini_sentiment", "index": "0", "doc": "d", "values": {"acc": 1.0}},
        {"task": "finbench_mini_sentiment", "index": 0, "doc": ["d"], "values": {"acc": 1.0}},
        {"seal": 5},
        {},
    ],
)
def test_rows_of_any_shape_are_faults_and_no_traces(row: dict[str, Any], card: Path) -> None:
    def alter(found: Card, rows: Rows) -> None:
        place = next(n for n, old in enumerate(rows) if old["task"] == "finbench_mini_sentiment")
        rows[place] = dict(row)

    change(card, alter, careful=True)
    assert verify(card).level == "none"


def test_the_command_exits_1_and_names_the_field(card: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["finbench", "verify", str(card), *arguments])
        with pytest.raises(SystemExit) as stopped:
            app.main()
        return stopped.value.code, " ".join(capsys.readouterr().out.split())

    code, said = call()
    assert code in (0, None)
    assert "samples-attached" in said
    change(card, put("another", "subject", "name"))
    code, said = call()
    assert code == 1
    assert "fault subject.name was edited after the card was written" in said
    assert "Not to be trusted" in said
    code, said = call("--json")
    assert code == 1
    assert json.loads(said)["faults"][0]["field"] == "subject.name"


# ---------------------------------------------------------------- restricted texts


@pytest.fixture
def restricted(tmp_path: Path) -> Path:
    """A card on a restricted set, whose data lie in ``tmp_path/data``."""
    from finbench.data.sources import import_data

    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "data")
    evaluator.evaluate(engine="dummy", tasks=["fpb"], out=tmp_path / "o", data_dir=tmp_path / "data")
    return tmp_path / "o" / "dummy.json"


def test_restricted_answers_are_read_again_by_their_salted_hashes(restricted: Path, tmp_path: Path) -> None:
    def forge(card: Card, rows: Rows) -> None:
        rows[3]["values"]["macro_f1"][1] = other(rows[3]["values"]["macro_f1"][1])

    assert all("answer" not in row for row in cardfiles.read_samples(restricted))
    here, away = verify(restricted, data_dir=tmp_path / "data"), verify(restricted, data_dir=tmp_path / "nowhere")
    assert (here.faults, away.faults) == ([], [])
    assert any("scored again" in check for check in here.checks)
    assert any("rest on the card" in note for note in away.notes)
    change(restricted, rescored(forge), careful=True)
    for place in ("data", "nowhere"):
        faults = verify(restricted, data_dir=tmp_path / place).faults
        assert any(fault.field.startswith("samples[finbench_fpb 3].values.macro_f1") for fault in faults), faults


def test_answers_that_nobody_can_read_again_and_documents_that_are_there_twice_rest_on_the_card(
    restricted: Path, tmp_path: Path
) -> None:
    """A forger hides what was answered behind hashes of nothing, or counts one document twice."""

    def nothing(card: Card, rows: Rows) -> None:
        for row in rows[:5]:
            row["answer_sha256"] = "0" * 32

    def twice(card: Card, rows: Rows) -> None:
        rows[0] |= {key: value for key, value in rows[1].items() if key != "index"}

    kept = restricted.read_bytes(), cardfiles.samples_path(restricted).read_bytes()
    change(restricted, nothing, careful=True)
    n = cardfiles.read(restricted).scores[0].n
    for place, said in (("data", "rests on the card: only hashes"), ("nowhere", "the gold labels, how 5 of")):
        [note] = verify(restricted, data_dir=tmp_path / place).notes
        assert f"how 5 of its {n} answers were read" in note
        assert said in note
    restricted.write_bytes(kept[0])
    cardfiles.samples_path(restricted).write_bytes(kept[1])
    change(restricted, rescored(twice), careful=True)
    assert verify(restricted, data_dir=tmp_path / "data").faults
    assert any(
        "that 1 documents are there twice" in note for note in verify(restricted, data_dir=tmp_path / "no").notes
    )


def test_a_row_edit_that_moves_no_number_is_told_by_the_sha256_alone(restricted: Path, tmp_path: Path) -> None:
    """The hash of an answer says nothing that could be recomputed, so nobody can say which row it was."""

    def hash_of_another(card: Card, rows: Rows) -> None:
        rows[3]["answer_sha256"] = "0" * 32

    change(restricted, hash_of_another)
    for place in ("data", "nowhere"):
        [fault] = verify(restricted, data_dir=tmp_path / place).faults
        assert fault.field == "samples"
        assert "its SHA-256 differs" in fault.message


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card on three restricted sets, whose data lie nowhere by now; do not write into its folder."""
    from finbench.data.sources import import_data

    place, names = tmp_path_factory.mktemp("several"), ["fpb", "headlines", "fin_ner"]
    sources = write_sources(place / "s")
    for name in names:
        import_data(name, sources[name], place / "data")
    evaluator.evaluate(engine="dummy", tasks=names, out=place / "o", data_dir=place / "data")
    return place / "o" / "dummy.json"


def turned(row: dict[str, Any], other: dict[str, Any]) -> None:
    """Two questions of a headline change their names."""
    for name, value in row["values"].items():
        if isinstance(value, list):
            value[0], other["values"][name][0] = other["values"][name][0], value[0]


UNLIKE = {  # values that no scorer gives, of row 3 (by name, as it is, and what it becomes), and where all are named
    "labels that are no words": ("fpb", "macro_f1", lambda value: [*value[:2], [*value[2], {"a": 1}]]),
    "labels in another order": ("fpb", "mcc", lambda value: [*value[:2], value[2][::-1]]),
    "more labels": ("fpb", "weighted_f1", lambda value: [*value[:2], [*value[2], *(f"zz{n}q" for n in range(3000))]]),
    "an accuracy of more than all": ("fpb", "acc_lenient", lambda value: 2.5),
    "a parse rate below none": ("fin_ner", "parse_rate", lambda value: -1),
    "counts below none": ("fin_ner", "span_f1", lambda value: [0, 0, -5]),
    "counts of a type less": ("fin_ner", "span_macro_f1", lambda value: value[:2]),
    "counts of no type": ("fin_ner", "span_macro_f1", lambda value: [[0, 0, 1], [0, 0]]),
    "an answer that is neither": ("headlines", "question_f1", lambda value: [*value[:2], "Perhaps"]),
    "a question that nobody asked": ("headlines", "question_mcc", lambda value: ["rest", *value[1:]]),
    "a question that is no word": ("headlines", "question_f1", lambda value: [{"a": 1}, *value[1:]]),
    "a question asked again": ("headlines", "question_f1", lambda value: ["price", *value[1:]]),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_values_that_no_scorer_gives_are_named_without_the_data(what: str, several: Path, tmp_path: Path) -> None:
    (task, metric, made), card = UNLIKE[what], tmp_path / "cards" / several.name
    shutil.copytree(several.parent, card.parent)
    assert verify(card, data_dir=tmp_path).faults == []

    def forge(_: Card, rows: Rows) -> None:
        row = row_of(rows, f"finbench_{task}", 3)
        row["values"][metric] = made(row["values"][metric])

    change(card, forge, careful=True)
    fields = {fault.field for fault in verify(card, data_dir=tmp_path).faults}
    assert f"samples[finbench_{task} 3].values.{metric}" in fields
    assert all(field.startswith(f"samples[finbench_{task} 3].values.") for field in fields)


def test_every_kind_of_metric_that_ships_is_known_in_shape() -> None:
    shipped = [task for task in catalog.tasks().values() if not task.own]
    kinds = {metrics.known_as(how) for task in shipped for how in metrics.aggregations(task.name).values()}
    assert kinds <= rescore.FITTING.keys()
    assert not rescore.FITTING["finlora_acc"](["x", 5], "finlora_acc", None)


def test_what_no_check_foresaw_is_a_fault_and_no_trace(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((verification, "split_metrics"), (rescore, "scored_again"), (verification, "_sealed")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *_: {}["surprised"])
            said = {fault.message for fault in verify(card).faults}
            assert said == {"cannot be read (KeyError)"}
            assert examine.faults(card)[0][0].endswith("cannot be read (KeyError)")


def test_no_answer_is_counted_for_another_question_of_its_headline(several: Path, tmp_path: Path) -> None:
    card = tmp_path / "cards" / several.name
    shutil.copytree(several.parent, card.parent)
    change(card, lambda _, rows: turned(*(row_of(rows, "finbench_headlines", n) for n in (3, 5))), careful=True)
    faults = verify(card, data_dir=tmp_path).faults
    assert {fault.field.partition(".")[0] for fault in faults} == {f"samples[finbench_headlines {n}]" for n in (3, 5)}
    assert "is of 'future_price'; the task asks 'price_down' here" in {fault.message for fault in faults}


def test_labels_of_ones_own_do_not_cost_the_time_of_who_looks(
    several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row with hundreds of its own: nothing is resampled over them, no answer sought among them (ten seconds)."""
    card = tmp_path / "cards" / several.name
    shutil.copytree(several.parent, card.parent)

    def forge(_: Card, rows: Rows) -> None:
        for number, row in enumerate(row for row in rows if row["task"] == "finbench_fpb"):
            for value in row["values"].values():
                if isinstance(value, list):
                    value[2] = [*value[2], *(f"zz{n}q" for n in range(300)), f"u{number}"]

    change(card, forge, careful=True)
    looked, split = [], verification.split_metrics
    monkeypatch.setattr(verification, "split_metrics", lambda *found: looked.append(found) or split(*found))
    monkeypatch.setattr(rescore, "without_data", lambda *found: pytest.fail("answers are sought among its labels"))
    assert verify(card, data_dir=tmp_path).faults
    assert len(looked) == 2  # of the other tasks


def test_a_part_of_a_test_is_not_complete_and_no_more_than_the_whole(several: Path, tmp_path: Path) -> None:
    card = tmp_path / "cards" / several.name
    shutil.copytree(several.parent, card.parent)
    change(card, put("complete", "status"), careful=True)
    [fault] = verify(card, data_dir=tmp_path).faults
    assert (fault.field, "finbench card rescore" in fault.message) == ("status", True)
    with pytest.raises(FinbenchError, match="share"):
        change(card, put(7.0, "scores", 0, "data", "share"), careful=True)


def test_another_edition_of_a_set_is_no_fault_of_the_card(restricted: Path, tmp_path: Path) -> None:
    from finbench.data.sources import import_data

    import_data("fpb", write_sources(tmp_path / "s2", count=60)["fpb"], tmp_path / "other")
    found = verify(restricted, data_dir=tmp_path / "other")
    assert found.faults == []
    assert any("another edition" in check for check in found.checks)


def test_what_another_edition_has_too_must_read_the_same(restricted: Path, tmp_path: Path) -> None:
    """A card may say that its rows are others than those here; of documents that are here too nothing is believed."""

    def edition(card: Card, rows: Rows) -> None:
        card["scores"][0]["data"]["digest"] = "0" * 64
        rows[0]["doc"] = "0" * len(rows[0]["doc"])

    def prediction(card: Card, rows: Rows) -> None:
        edition(card, rows)
        rows[3]["values"]["macro_f1"][1] = other(rows[3]["values"]["macro_f1"][1])

    def gold(card: Card, rows: Rows) -> None:
        edition(card, rows)
        values = rows[3]["values"]
        told = other(values["macro_f1"][0])
        for name, value in values.items():
            if isinstance(value, list):
                value[0] = told
                if "acc" + name[len(name.removesuffix("_lenient")) :] in values:
                    values["acc" + name[len(name.removesuffix("_lenient")) :]] = float(value[1] == told)

    kept = restricted.read_bytes(), cardfiles.samples_path(restricted).read_bytes()
    for forge, faults, said in ((edition, 0, False), (prediction, 1, False), (gold, 0, True)):
        restricted.write_bytes(kept[0])
        cardfiles.samples_path(restricted).write_bytes(kept[1])
        change(restricted, rescored(forge), careful=True)
        found = verify(restricted, data_dir=tmp_path / "data")
        assert any("samples[finbench_fpb 3]" in fault.field for fault in found.faults) == bool(faults), found.faults
        assert any("1 of these have another right answer here" in check for check in found.checks) == said, found.checks
        assert any("1 of its right answers are others in the rows here" in note for note in found.notes) == said


def test_another_edition_does_not_have_many_other_right_answers(restricted: Path, tmp_path: Path) -> None:
    """One altered document makes an edition of a card; its right answers cannot be whatever suits it for that."""

    def golds(card: Card, rows: Rows) -> None:
        card["scores"][0]["data"]["digest"] = "0" * 64
        rows[0]["doc"] = "0" * len(rows[0]["doc"])
        for row in rows[1:]:
            values = row["values"]
            for name, value in values.items():
                if isinstance(value, list):
                    value[0] = value[1] or value[0]
                    if "acc" + name[len(name.removesuffix("_lenient")) :] in values:
                        values["acc" + name[len(name.removesuffix("_lenient")) :]] = float(value[1] == value[0])

    change(restricted, rescored(golds), careful=True)
    found = verify(restricted, data_dir=tmp_path / "data")
    assert any("other right answers than the rows here" in fault.message for fault in found.faults), found.faults


@pytest.mark.slow  # the gate builds the leaderboard of these cards: a level that changed makes its files stale
def test_committed_cards_can_be_believed_and_are_of_todays_tasks() -> None:
    board = Path(__file__).parent.parent / "leaderboards"
    listed = (board / "README.md").read_text(encoding="utf-8").split("\nOf earlier versions are ")[1]
    of_earlier = set(re.findall(r"`([\w-]+)`", listed.split("\n\n")[0]))
    places = sorted((board / "scorecards").glob("*.json"))
    assert of_earlier < {path.stem for path in places}
    for path in places:
        found = verify(path)
        if path.stem in of_earlier:
            assert any(fault.field.endswith("].version") for fault in found.faults), path.name
        else:
            assert (found.level, found.faults) == ("samples-attached", []), path.name


@pytest.mark.parametrize(("name", "task"), [("finer_ord", "finer_ord"), ("finlora_fpb", "finlora_fpb")])
def test_restricted_answers_that_cannot_be_read_are_no_crash(
    name: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finbench.data.sources import import_data
    from finbench.engines.dummy import DummyEngine

    monkeypatch.setattr(DummyEngine, "_answer", lambda self, request: "Words that no label has.")
    import_data(name, write_sources(tmp_path / "s")[name], tmp_path / "data")
    evaluator.evaluate(engine="dummy", tasks=[task], out=tmp_path / "o", data_dir=tmp_path / "data", limit=20)
    card = tmp_path / "o" / "dummy.json"
    for folder in (tmp_path / "data", tmp_path / "nowhere"):
        found = verify(card, data_dir=folder)
        assert (found.level, found.faults) == ("samples-attached", [])


@pytest.mark.parametrize(("off", "believed"), [(0.02, True), (-0.02, True), (0.05, False), (-0.05, False)])
def test_a_bootstraps_ends_may_be_those_of_another_numpy(off: float, believed: bool, tmp_path: Path) -> None:
    """NumPy 2.5 draws other multinomials by one seed, which moves ends by less than a hundredth of the width."""
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path)
    card = tmp_path / "dummy.json"
    main = cardfiles.read(card).scores[0].main
    assert main.interval
    assert "bootstrap" in main.method
    low, high = main.interval
    place = ("scores", 0, "metrics", cardfiles.read(card).scores[0].main_metric, "high")
    change(card, put(high + off * (high - low), *place), careful=True)
    assert bool(verify(card).faults) != believed


# ---------------------------------------------------------------- intervals of few sources


@pytest.fixture
def one_filing(tmp_path: Path) -> Path:
    """A card on the first two questions of mini_xbrl, which are about one filing."""
    evaluator.evaluate(engine="dummy", tasks=["mini_xbrl"], limit=2, out=tmp_path / "one")
    return tmp_path / "one" / "dummy.json"


def test_a_card_of_one_source_has_no_interval_and_every_view_says_why(one_filing: Path, tmp_path: Path) -> None:
    score = cardfiles.read(one_filing).scores[0]
    assert (score.n, score.clusters, score.main.interval, score.main.lacking) == (2, 1, None, "one source")
    found = verify(one_filing)
    assert (found.level, found.faults) == ("samples-attached", [])
    shown = f"{100 * score.main.value:.1f} [–: one source]"
    assert shown in (one_filing.parent / "report.md").read_text()
    assert "<small>–: one source</small>" in (one_filing.parent / "report.html").read_text()
    for how in ("md", "latex", "html"):
        dash = "--" if how == "latex" else "–"
        assert f"[{dash}: one source]" in reporting.report([one_filing], format=how)
    drawn = Console(width=100, record=True, file=io.StringIO())
    drawn.print(*render.terminal_tables([cardfiles.read(one_filing)]))
    assert "–: no interval (one source)" in drawn.export_text()
    with pytest.raises(FinbenchError, match="the Hub would show it as of the whole"):
        exports.export_card(one_filing, format="eval-results", out=tmp_path, benchmark="hub:org/set")
    for how in ("model-index", "every-eval-ever", "lm-eval"):
        files = exports.export_card(one_filing, format=how, out=tmp_path / how)
        text = "".join(file.read_text() for file in files)
        assert "confidence_interval" not in text
        assert "low:" not in text
        assert ('"N/A"' in text) == (how == "lm-eval")


def test_an_interval_that_one_source_cannot_give_is_a_fault(one_filing: Path) -> None:
    kept = one_filing.read_bytes(), cardfiles.samples_path(one_filing).read_bytes()

    def edit(low: Any, high: Any, method: str) -> Verification:
        one_filing.write_bytes(kept[0])
        cardfiles.samples_path(one_filing).write_bytes(kept[1])

        def alter(card: Card, rows: Rows) -> None:
            main = card["scores"][0]["main_metric"]
            card["scores"][0]["metrics"][main] |= {"low": low, "high": high, "method": method}

        change(one_filing, alter, careful=True)
        return verify(one_filing)

    value = cardfiles.read(one_filing).scores[0].main.value
    narrow = edit(max(0.0, value - 0.01), min(1.0, value + 0.01), "cluster bootstrap, 10000 resamples")
    assert narrow.faults
    assert edit(None, None, "none, too many").faults
    assert edit(None, None, "").faults


def test_comparing_on_few_sources_says_that_nothing_can_be_shown(one_filing: Path, tmp_path: Path) -> None:
    evaluator.evaluate(
        engine="dummy", tasks=["mini_xbrl"], limit=2, out=tmp_path / "two", arguments={"answers": "gold"}
    )
    [pair] = comparison.compare([one_filing, tmp_path / "two" / "dummy.json"])
    assert "no interval (one source)" in pair.verdict
    assert "from one source, and fewer than 6 cannot show any difference" in pair.verdict
    assert (pair.contests[0].detectable, pair.contests[0].needed, pair.contests[0].winner) == (None, None, None)


# ---------------------------------------------------------------- another version as a hiding place


def test_a_version_set_back_is_no_way_around_the_scorer(card: Path) -> None:
    def set_back(found: Card, rows: Rows) -> None:
        rescored(everything_right)(found, rows)
        found["scores"][1] |= {"version": 1, "task_digest": "0" * 64}

    change(card, set_back, careful=True)
    [fault] = verify(card).faults
    assert fault.field == "scores[finbench_mini_sentiment].version"
    assert "is 1; this finbench has version 7 (the card was written by finbench" in fault.message


# ---------------------------------------------------------------- samples that are none


def test_missing_samples_are_named_once(card: Path) -> None:
    cardfiles.samples_path(card).unlink()
    found = verify(card)
    assert [fault.field for fault in found.faults] == ["samples"]
    assert "is missing" in found.faults[0].message


FORGED: dict[str, Callable[[Card, Rows], None]] = {
    "no values": lambda card, rows: rows[3].pop("values") and None,
    "no document": lambda card, rows: rows[3].pop("doc") and None,
    "no index": lambda card, rows: rows[3].pop("index") and None,
    "no metric": lambda card, rows: row_of(rows)["values"].pop("macro_f1") and None,
    "a number for text": lambda card, rows: rows[3].update(index="three"),
    "no rows of a task": lambda card, rows: rows.__delitem__(slice(0, 150)),
    "a label of no task": lambda card, rows: row_of(rows)["values"].update(macro_f1=["up", "down", ["left"]]),
    "no item": lambda card, rows: row_of(rows)["values"].update(macro_f1=3),
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_rows_are_one_clear_line_in_compare_and_report(what: str, card: Path, original: Path) -> None:
    found, rows = json.loads(card.read_text()), cardfiles.read_samples(card)
    FORGED[what](found, rows)
    lines = "".join(stable_json(row) + "\n" for row in rows)
    cardfiles.samples_path(card).write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))
    found["samples"], found["subject"]["name"] = sha256_file(cardfiles.samples_path(card)), "forger"
    card.write_text(json.dumps(found | {"seal": seal.card_seal(found)}))
    for act in (lambda: comparison.compare([card, original]), lambda: reporting.report([card, original])):
        with pytest.raises(FinbenchError, match="amples (of|give)|have other right answers in 1 of") as caught:
            act()
        assert "\n" not in caught.value.message
        assert "finbench verify" in str(caught.value.hint)
    assert verify(card).faults


def _frames(*parts: bytes, size: bool = True) -> bytes:
    return b"".join(zstandard.ZstdCompressor(write_content_size=size).compress(part) for part in parts)


def test_samples_that_are_no_samples_are_refused_at_small_cost(card: Path) -> None:
    """Bombs, torn frames, data behind the frame, links and pipes."""
    file = cardfiles.samples_path(card)
    whole = file.read_bytes()
    text = zstandard.ZstdDecompressor().decompressobj().decompress(whole)
    bomb = zstandard.ZstdCompressor().compressobj()
    inflated = b"".join(bomb.compress(bytes(2**24)) for _ in range(20)) + bomb.flush()
    hidden = text[: text.index(b"\n") + 1]
    cases = {
        "a bomb": (inflated, "larger than any"),
        "empty objects": (_frames(b"{}\n" * 3_000_000), "too short"),
        "torn at a line": (_frames(text)[: len(whole) // 2], "torn"),
        "rows behind the frame": (_frames(text, hidden), "behind its samples"),
        "no zstd": (b"{}", "torn"),
        "nothing": (b"", "torn|each once|0 rows"),
    }
    for what, (content, said) in cases.items():
        file.write_bytes(content)
        change_sha(card)
        found = verify(card)
        assert any(re.search(said, fault.message) for fault in found.faults), (what, found.faults[:3])
    file.unlink()
    file.symlink_to("/dev/zero")
    assert any("is missing" in fault.message for fault in verify(card).faults)
    card.unlink()
    os.mkfifo(card)
    with pytest.raises(FinbenchError, match="No such scorecard"):
        verify(card)


def change_sha(card: Path) -> None:
    """State the samples that lie there, and seal again."""
    found = json.loads(card.read_text()) | {"samples": sha256_file(cardfiles.samples_path(card))}
    card.write_text(json.dumps(found | {"seal": seal.card_seal(found)}))
