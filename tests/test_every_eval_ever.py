"""Records of Every Eval Ever: valid by its own schemas, without texts that may not be published, and cards again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from finbench.cards import cardfiles, everyeval, exports
from finbench.core.errors import FinbenchError
from finbench.core.records import Scorecard
from finbench.evaluation import evaluator, import_card
from finbench.scoring import metrics

REAL = Path(__file__).parent.parent / "leaderboards" / "scorecards" / "fpb-smollm2-135m-lora-s0.json"
SPANS = REAL.with_name("board-smollm2-135m-4bit.json")  # the gold answers of a row are lists of hashes
SCHEMAS = Path(__file__).parent / "golden" / "every_eval_ever"
UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
Record = dict[str, Any]


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card of the dummy; do not write into its folder."""
    out = tmp_path_factory.mktemp("cards")
    evaluator.evaluate(engine="dummy", tasks=["mini"], limit=20, out=out)
    return out / "dummy.json"


def export(card: Path, out: Path, model: str | None = None) -> tuple[Path, Record, list[Record]]:
    """Path of the aggregate, its content, and the lines of the JSONL beside it."""
    aggregate, answers = exports.export_card(card, format="every-eval-ever", out=out, model=model)
    assert answers == aggregate.with_name(f"{aggregate.stem}_samples.jsonl")
    return aggregate, json.loads(aggregate.read_text()), [json.loads(row) for row in answers.read_text().splitlines()]


def validator(name: str) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


def test_both_files_are_valid_and_belong_together(card: Path, tmp_path: Path) -> None:
    for source in (card, REAL, SPANS):
        path, record, answers = export(source, tmp_path)
        assert [fault.message for fault in validator("eval").iter_errors(record)] == []
        for number, answer in enumerate(answers[:: 1 if source == card else 20]):
            assert [fault.message for fault in validator("instance_level_eval").iter_errors(answer)] == [], number
        name = path.relative_to(tmp_path).as_posix()
        assert re.fullmatch(rf"data/finbench/[^/]+/[^/]+/{UUID4}\.json", name)
        detail = record["detailed_evaluation_results"]
        assert detail["file_path"] == name.removesuffix(".json") + "_samples.jsonl"
        assert detail["total_rows"] == len(answers) == len(cardfiles.read_samples(source))
        assert detail["checksum"] == hashlib.sha256((tmp_path / detail["file_path"]).read_bytes()).hexdigest()
        assert {(row["evaluation_id"], row["model_id"]) for row in answers} == {
            (record["evaluation_id"], record["model_info"]["id"])
        }
        known = {result["evaluation_result_id"] for result in record["evaluation_results"]}
        assert {row["evaluation_result_id"] for row in answers if "evaluation_result_id" in row} <= known
        ids = [(row["evaluation_name"], row["sample_id"]) for row in answers]
        assert len(ids) == len(set(ids))
        if source == card:
            assert export(source, tmp_path)[0] == path  # the same files again


def test_every_metric_stands_in_it_with_its_interval(card: Path, tmp_path: Path) -> None:
    for source in (card, REAL):
        _, record, answers = export(source, tmp_path)
        scores = cardfiles.read(source).scores
        measures = {(score.task, name): measure for score in scores for name, measure in score.metrics.items()}
        assert len(record["evaluation_results"]) == len(measures)
        for result in record["evaluation_results"]:
            measure = measures[result["evaluation_name"], result["metric_config"]["metric_id"]]
            assert result["score_details"]["score"] == measure.value
            interval = result["score_details"]["uncertainty"]["confidence_interval"]
            assert (interval["lower"], interval["upper"]) == (measure.low, measure.high)
        for score in scores:
            own = [row for row in answers if row["evaluation_name"] == score.task]
            assert len(own) == score.n
            name = own[0]["evaluation_result_id"].rpartition("/")[2]
            if metrics.known_as(metrics.aggregations(score.task)[name]) == "mean":
                mean = sum(row["evaluation"]["score"] for row in own) / len(own)
                assert mean == pytest.approx(score.metrics[name].value, abs=1e-12)


def test_an_adapter_is_not_filed_under_its_bases_developer(tmp_path: Path) -> None:
    assert export(REAL, tmp_path)[1]["model_info"]["id"].startswith("unknown/")
    found = export(REAL, tmp_path, "org/adapter")[1]["model_info"]
    assert found["id"] == "org/adapter"
    assert found["additional_details"]["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_texts_are_there_where_they_may_be_and_hashes_else(card: Path, tmp_path: Path) -> None:
    _, _, answers = export(card, tmp_path)
    first = next(row for row in answers if row["evaluation_name"] == "finbench_mini_sentiment")
    assert "What is the sentiment of this financial news sentence" in first["input"]["raw"]
    assert first["input"]["reference"][0] in ("negative", "neutral", "positive")
    _, _, answers = export(REAL, tmp_path)
    withheld = "[withheld: the licence of fpb does not allow its texts to be published; salted SHA-256 "
    for row, answer in zip(cardfiles.read_samples(REAL), answers, strict=True):
        assert answer["input"]["raw"] == f"{withheld}{row['doc']}]"
        numbers = [repr(value) for value in row.get("answer", ())]
        assert answer["output"]["raw"] == (numbers or [f"{withheld}{row['answer_sha256']}]"])


@pytest.mark.parametrize("which", ["dummy", "real", "spans"])
def test_a_record_becomes_the_same_card_again(which: str, card: Path, tmp_path: Path) -> None:
    source = {"dummy": card, "real": REAL, "spans": SPANS}[which]
    path, _, _ = export(source, tmp_path / "export")
    import_card(path if which == "dummy" else tmp_path / "export", out=tmp_path / "cards")
    [made] = cardfiles.expand([tmp_path / "cards"])
    assert made.read_bytes() == source.read_bytes()
    assert cardfiles.read_samples(made) == cardfiles.read_samples(source)


def test_log_likelihoods_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from finbench.data.sources import import_data
    from make_data import write_sources

    monkeypatch.setenv("FINBENCH_DATA", str(tmp_path / "data"))
    import_data("piqa", write_sources(tmp_path / "sources", 24)["piqa"], tmp_path / "data")
    evaluator.evaluate(engine="dummy", tasks=["piqa"], limit=5, out=tmp_path / "cards")
    source = tmp_path / "cards" / "dummy.json"
    path, _, answers = export(source, tmp_path / "export")
    for row in answers:
        said, choices = [float(part) for part in row["output"]["raw"]], row["input"]["choices"]
        assert len(choices) == len(said) == 2
        assert row["answer_attribution"][0]["extracted_value"] == choices[said.index(max(said))]
    import_card(path, out=tmp_path / "again")
    assert (tmp_path / "again" / "dummy.json").read_bytes() == source.read_bytes()
    monkeypatch.setenv("FINBENCH_DATA", str(tmp_path / "none"))  # without the rows, hashes stand for their texts
    import_card(path, out=tmp_path / "unseen")
    assert "finbench_piqa: the texts of the record were not compared" in " ".join(capsys.readouterr().err.split())
    bare, _, answers = export(source, tmp_path / "bare")
    assert "are not on this machine; salted SHA-256" in answers[0]["input"]["raw"]
    assert "choices" not in answers[0]["input"]
    assert {row["answer_attribution"][0]["extracted_value"] for row in answers} <= {"0", "1"}
    monkeypatch.setenv("FINBENCH_DATA", str(tmp_path / "data"))
    import_card(bare, out=tmp_path / "there")  # where the rows are, of what was exported without them
    for made in ("unseen", "there"):
        assert (tmp_path / made / "dummy.json").read_bytes() == source.read_bytes()


# ---------------------------------------------------------------- refused


def changed(path: Path, alter: Callable[[Record], object]) -> None:
    record = json.loads(path.read_text())
    alter(record)
    path.write_text(json.dumps(record))


def better(record: Record) -> None:
    record["evaluation_results"][0]["score_details"]["score"] = 0.99


def forged(record: Record) -> None:
    """The number in both places."""
    better(record)
    details, result = record["source_metadata"]["additional_details"], record["evaluation_results"][0]
    inner = json.loads(details["scorecard"])
    score = next(score for score in inner["scores"] if score["task"] == result["evaluation_name"])
    score["metrics"][result["metric_config"]["metric_id"]]["value"] = 0.99
    details["scorecard"] = everyeval._text(inner)


def renamed(record: Record) -> None:
    """Somebody else's name, and all else as follows from it."""
    inner = json.loads(record["source_metadata"]["additional_details"]["scorecard"])
    inner["subject"]["adapter_source"] = "hub:famous/adapter@" + "a" * 40
    ours = everyeval.aggregate(Scorecard.parse(inner, "inner"), written=inner)
    record.update(ours | {"detailed_evaluation_results": record["detailed_evaluation_results"]})


def other(*keys: Any, value: Any = "another") -> Callable[[Record], object]:
    def alter(record: Record) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return alter


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (better, r"it says evaluation_results\[0\].score_details.score = 0.99, its scorecard -?0\."),
        (other("model_info", "additional_details", "bits", value="4"), 'bits = "4", its scorecard "16"'),
        (other("model_info", "name"), "model_info.name"),
        (other("model_info", "id", value="org/better"), "evaluation_id"),
        (other("model_info", "developer", value="OpenAI"), 'developer = "OpenAI", its scorecard nothing'),
        (other("model_info", "inference_engine", "name", value="vllm"), "inference_engine.name"),
        (other("eval_library", "version", value="9"), "eval_library.version"),
        (other("source_metadata", "evaluator_relationship", value="third_party"), "evaluator_relationship"),
        (other("evaluation_results", 0, "metric_config", "lower_is_better", value=1), "lower_is_better = 1"),
        (other("evaluation_results", 0, "score_details", "uncertainty", "num_samples", value=9000), "num_samples"),
        (other("evaluation_results", 0, "generation_config", "additional_details", "shots", value="5"), "shots"),
        (lambda record: record["evaluation_results"].append(record["evaluation_results"][0]), "= 13 entries"),
        (other("detailed_evaluation_results", "total_rows", value=7), "total_rows = 7, its scorecard 100"),
        (forged, r"its scorecard was edited after it was written: scores\[.*metrics"),
        (renamed, "its scorecard was edited after it was written: subject.adapter_source"),
        (lambda record: record.update(schema_version="0.2.2"), "is of schema 0.2.2"),
        (lambda record: record["source_metadata"].pop("additional_details"), "holds no scorecard"),
        (lambda record: record.pop("evaluation_results"), "evaluation_results = nothing, its scorecard 12 entries"),
        (lambda record: record["source_metadata"]["additional_details"].update(scorecard="{"), "is no record"),
    ],
)
def test_what_is_edited_or_not_ours_is_refused_in_one_line(
    card: Path, alter: Callable[[Record], object], said: str, tmp_path: Path
) -> None:
    path, _, _ = export(card, tmp_path / "export")
    changed(path, alter)
    with pytest.raises(FinbenchError, match=said) as fault:
        import_card(path, out=tmp_path / "cards")
    assert "\n" not in fault.value.message
    assert not (tmp_path / "cards").exists()


def rewritten(path: Path, alter: Callable[[list[Record]], object]) -> None:
    """A record whose lines are others, and whose checksum is theirs."""
    beside = path.with_name(f"{path.stem}_samples.jsonl")
    lines = [json.loads(line) for line in beside.read_text().splitlines()]
    alter(lines)
    beside.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    facts = {"checksum": hashlib.sha256(beside.read_bytes()).hexdigest(), "total_rows": len(lines)}
    changed(path, lambda record: record["detailed_evaluation_results"].update(facts))


def otherwise(line: Record) -> None:
    """A text of its own, with the hash of it."""
    line["input"]["raw"] = "What is the sentiment?"
    line["sample_hash"] = hashlib.sha256(
        ("What is the sentiment?" + line["input"]["reference"][0]).encode()
    ).hexdigest()


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda lines: lines[3]["evaluation"].update(is_correct=True, score=1.0), r"jsonl:4: it says evaluation\."),
        (lambda lines: otherwise(lines[0]), r"jsonl:1: it says sample_hash"),
        (lambda lines: lines[0]["output"].update(raw=["positive"]), "extracted_value|output"),
        (lambda lines: lines[0]["answer_attribution"][0].update(extracted_value="x"), "extracted_value"),
        (lambda lines: lines[0].update(model_id="org/better"), "model_id"),
        (lambda lines: lines[0].update(interactions=[]), "interactions = 0 entries, its scorecard nothing"),
        (lambda lines: lines.append(lines[0]), "twice|rows|samples"),
        (lambda lines: lines.pop(), "rows|samples|documents"),
    ],
)
def test_lines_that_do_not_follow_from_the_card_are_refused(
    card: Path, alter: Callable[[list[Record]], object], said: str, tmp_path: Path
) -> None:
    path, _, _ = export(card, tmp_path / "export")
    rewritten(path, alter)
    with pytest.raises(FinbenchError, match=said) as fault:
        import_card(path, out=tmp_path / "cards")
    assert "\n" not in fault.value.message
    assert not (tmp_path / "cards").exists()


def with_answers(line: Record, numbers: list[str]) -> None:
    line["output"]["raw"] = numbers


def test_the_answers_are_those_that_the_scorecard_names(tmp_path: Path) -> None:
    path, _, answers = export(REAL, tmp_path / "export")
    shifted = [repr(float(number) - 1) for number in answers[-1]["output"]["raw"]]
    assert len(shifted) == 3  # log-likelihoods
    rewritten(path, lambda lines: with_answers(lines[-1], shifted))
    with pytest.raises(FinbenchError, match="its answers are not those that its scorecard names"):
        import_card(path, out=tmp_path / "cards")
    assert not (tmp_path / "cards").exists()


@pytest.mark.parametrize("number", ["nan", "inf", "1e999"])
def test_an_answer_that_is_no_number_is_refused_in_one_line(number: str, tmp_path: Path) -> None:
    path, _, _ = export(REAL, tmp_path / "export")
    rewritten(path, lambda lines: with_answers(lines[-1], [number, "-1.0", "-2.0"]))
    with pytest.raises(FinbenchError, match=rf"is no record of finbench \(.*{number}"):
        import_card(path, out=tmp_path / "cards")


def test_a_card_says_of_which_repository_it_is(card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = cardfiles.read(card)
    base = found.subject.base.model_copy(update={"hub_id": "org/base"})
    adapter = {"adapter": "a" * 64, "adapter_source": "hub:org/lora@main", "adapter_name": "lora"}
    for subject, known in (({"base": base}, "org/base"), ({"base": base, **adapter}, "org/lora")):
        own = found.model_copy(update={"subject": found.subject.model_copy(update=subject)})
        assert everyeval.aggregate(own)["model_info"]["id"] == known
        assert everyeval.aggregate(own, "org/better")["model_info"]["id"] == known
        with pytest.raises(FinbenchError, match=f"The card is of hub:{known}, not of org/better"):
            everyeval.files(own, card, "org/better", None)
    path, _, _ = export(card, tmp_path / "export", "org/mine")
    import_card(path, out=tmp_path / "cards")
    assert "is org/mine only this record says" in " ".join(capsys.readouterr().err.split())


def test_what_is_torn_or_alone_is_refused(card: Path, tmp_path: Path) -> None:
    path, _, _ = export(card, tmp_path / "export")
    beside = path.with_name(f"{path.stem}_samples.jsonl")
    beside.write_text(beside.read_text().replace('"is_correct": false', '"is_correct": true'))
    with pytest.raises(FinbenchError, match="its SHA-256 differs"):
        import_card(path, out=tmp_path / "cards")
    beside.unlink()
    with pytest.raises(FinbenchError, match="_samples.jsonl is missing"):
        import_card(path, out=tmp_path / "cards")
    beside.write_text("")
    path.write_text(path.read_text()[:3000])
    with pytest.raises(FinbenchError, match="is no record of finbench"):
        import_card(path, out=tmp_path / "cards")


def test_a_card_without_samples_gives_the_aggregate_alone(card: Path) -> None:
    bare = cardfiles.read(card).model_copy(update={"samples": None})
    [(name, text)] = everyeval.files(bare, card, None, None).items()
    assert name.endswith(".json")
    assert "detailed_evaluation_results" not in json.loads(text)
