"""Exports hold what their readers ask for: the Hub's own parsers, lm-eval's layout."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCardData, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results

from finbench.cards import cardfiles, exports
from finbench.core import seal
from finbench.core.errors import FinbenchError
from finbench.evaluation import evaluator
from finbench.hub import result_faults

REAL = Path(__file__).parent.parent / "leaderboards" / "scorecards" / "fpb-smollm2-135m-lora-s0.json"


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card of the dummy; do not write into its folder."""
    out = tmp_path_factory.mktemp("cards")
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment", "mini_ner"], out=out)
    return out / "dummy.json"


def test_the_hub_reads_the_entries(tmp_path: Path) -> None:
    found = cardfiles.read(REAL)
    data = found.scores[0].data.model_copy(update={"share": None})
    whole = [score.model_copy(update={"data": data}) for score in found.scores]
    card = tmp_path / "whole.json"
    changed = json.loads(found.model_copy(update={"scores": whole, "status": "complete"}).to_json())
    card.write_text(json.dumps(changed | {"seal": seal.card_seal(changed)}))
    named = {"benchmark": "hub:org/fin@" + "a" * 40, "source": "https://huggingface.co/org/a"}
    [path] = exports.export_card(card, format="eval-results", out=tmp_path, **named)
    assert result_faults(path.read_text()) == []
    assert path == tmp_path / ".eval_results" / "finbench.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    scores = cardfiles.read(card).scores
    assert [(e.dataset_id, e.task_id) for e in entries] == [("org/fin", score.task) for score in scores]
    assert {(e.dataset_revision, e.source_url) for e in entries} == {("a" * 40, "https://huggingface.co/org/a")}
    for entry, score in zip(entries, scores, strict=True):
        assert entry.value == round(100 * score.main.value, 1)
        assert entry.notes is not None
        for part in ("macro-F1 in %", f"n = {score.n}", "zero-shot", score.task_digest[:12], score.data.digest[:12]):
            assert part in entry.notes


def test_the_hub_reads_the_model_index(tmp_path: Path) -> None:
    [path] = exports.export_card(REAL, format="model-index", out=tmp_path, model="org/my-adapter")
    index = yaml.safe_load(path.read_text())["model-index"]
    name, results = model_index_to_eval_results(index)
    assert name == "org/my-adapter"
    scores = cardfiles.read(REAL).scores
    assert len(results) == sum(len(score.metrics) for score in scores)
    assert results[0].metric_value == round(100 * scores[0].metrics[str(results[0].metric_type)].value, 1)
    assert ModelCardData(model_name=name, eval_results=results).to_dict()["model-index"] == index


def test_a_part_of_a_test_is_named_where_the_hub_shows_its_score() -> None:
    card = cardfiles.read(REAL)
    scores = [
        score.model_copy(update={"n": 30, "data": score.data.model_copy(update={"share": 0.743})})
        for score in card.scores
    ]
    part = card.model_copy(update={"limit": 30, "scores": scores, "status": "partial"})
    said = "74.3 % of the test, a sample of 30 rows"
    _, results = model_index_to_eval_results(exports.model_index(part)["model-index"])
    assert {result.dataset_name for result in results} == {f"fpb ({said})"}
    with pytest.raises(FinbenchError, match=f"is of {said}; the Hub would show it as of the whole"):
        exports.eval_results(part, "org/fin")


def test_results_for_the_hub_name_their_benchmark(card: Path, tmp_path: Path) -> None:
    for wrong in (None, "org/fin", "./fin"):
        with pytest.raises(FinbenchError, match="benchmark|no data set of the Hub"):
            exports.export_card(card, format="eval-results", out=tmp_path, benchmark=wrong)


def test_lm_eval_results_have_its_layout(card: Path, tmp_path: Path) -> None:
    [path] = exports.export_card(card, format="lm-eval", out=tmp_path)
    assert re.fullmatch(r"results_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.json", path.name)
    found = json.loads(path.read_text())
    for score in cardfiles.read(card).scores:
        results = found["results"][score.task]
        for name, measure in score.metrics.items():
            assert results[f"{name},none"] == measure.value
            assert results[f"{name}_stderr,none"] >= 0
        assert found["versions"][score.task] == score.version
        assert found["n-samples"][score.task] == {"original": 150, "effective": 150}
        assert found["higher_is_better"][score.task][score.main_metric] is True


@pytest.mark.parametrize("format", ["eval-results", "model-index", "lm-eval", "every-eval-ever"])
def test_numbers_of_an_edited_card_are_not_exported(format: str, card: Path, tmp_path: Path) -> None:
    changed = json.loads(card.read_text())
    name = changed["scores"][0]["main_metric"]
    changed["scores"][0]["metrics"][name]["value"] = 0.99
    (tmp_path / "c.json").write_text(json.dumps(changed))
    with pytest.raises(FinbenchError, match=rf"c.json was edited after it was written: .*{name}"):
        exports.export_card(
            tmp_path / "c.json", format=format, out=tmp_path / "out", model="org/m", benchmark="hub:o/b"
        )
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_is_named_with_the_near_one(card: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="Did you mean eval-results"):
        exports.export_card(card, format="eval_results", out=tmp_path)
    assert not list(tmp_path.iterdir())
