"""Calibration: known by simulation, and read from what scorecards hold."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from typer.testing import CliRunner

import finbench
from finbench.cards import asking, cardfiles
from finbench.cards.confidence import untold
from finbench.cli import app
from finbench.core.errors import FinbenchError
from finbench.core.strict import plain
from finbench.engines import Generated
from finbench.engines.dummy import DummyEngine
from finbench.scoring import calibration, inwords

CARDS = Path(__file__).parent.parent / "leaderboards" / "scorecards"
ADAPTER, BASE = CARDS / "fpb-smollm2-135m-lora-s0.json", CARDS / "fpb-smollm2-135m.json"


def draw(rng: Any, n: int, sharpness: float, copies: int = 1) -> tuple[Any, Any, list[int]]:
    """Logits, ``sharpness`` times those by which the label is drawn; whether the likeliest is right; sources."""
    logits = rng.normal(0, 2, (n // copies, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (chances.cumsum(axis=1) > rng.random((len(logits), 1))).argmax(axis=1)
    right = (logits.argmax(axis=1) == label).astype(float)
    sources = np.repeat(np.arange(n // copies), copies).tolist()
    return np.repeat(sharpness * logits, copies, axis=0), np.repeat(right, copies), sources


def sure(logits: Any) -> Any:
    return 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)


@pytest.mark.parametrize(("sharpness", "copies"), [(1.0, 1), (2.0, 1), (0.5, 1), (1.0, 3)])
def test_the_interval_of_the_calibration_error_holds_the_truth(sharpness: float, copies: int) -> None:
    rng = np.random.default_rng(3)
    many, _, _ = draw(rng, 50_000, sharpness)
    truth = float(np.abs(sure(many) - sure(many / sharpness)).mean())
    held = []
    for _ in range(40):
        logits, right, sources = draw(rng, 300, sharpness, copies)
        found, chance = calibration.expected_error(sure(logits), right, sources)
        assert found.low is not None
        assert found.high is not None
        held.append(found.low - 1e-9 <= truth <= found.high + 1e-9)
        assert 0.01 < chance < 0.12
    assert np.mean(held) >= 0.85  # 95 %, and 40 draws; of plain percentiles it is 0 where the truth is 0


@pytest.mark.parametrize("gap", [0.0, 0.032])
def test_the_interval_holds_where_answers_are_almost_always_right(gap: float) -> None:
    rng = np.random.default_rng(11)
    held = []
    for _ in range(25):
        confidence = 1 - 0.1 * rng.random(200)
        right = (rng.random(200) < np.minimum(1, confidence + 1.25 * gap)).astype(float)
        many = 1 - 0.1 * rng.random(20_000)
        truth = float(np.abs(many - np.minimum(1, many + 1.25 * gap)).mean())
        found, _ = calibration.expected_error(confidence, right, list(range(200)))
        assert found.low is not None
        assert found.high is not None
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.88  # without chance from the confidences themselves 0.78 and 0.83


def test_agreement_of_few_documents_is_calibrated_where_it_is() -> None:
    rng = np.random.default_rng(8)
    held = []
    for _ in range(40):
        agreed = 1 - rng.binomial(16, rng.beta(1, 3, 120)) / 32  # a dozen values, the rarest of one document
        found, _ = calibration.expected_error(agreed, (rng.random(120) < agreed).astype(float), list(range(120)))
        held.append(found.low == 0)
    assert np.mean(held) >= 0.85


def test_neighbouring_confidences_are_one_bin_until_it_has_sources_enough() -> None:
    confidence = np.repeat([0.1, 0.2, 0.3, 0.4, 0.5], [30, 10, 5, 25, 4])
    right, docs = np.ones(74), list(range(74))
    assert [own.n for own in calibration.calibrated(confidence, right, docs).bins] == [30, 44]
    copies = np.repeat(docs[:2], 37).tolist()
    assert [own.n for own in calibration.calibrated(confidence, right, copies).bins] == [74]


def test_the_calibration_error_of_few_sources_has_no_interval() -> None:
    rng = np.random.default_rng(9)
    for n, said in ((1, False), (20, False), (50, False), (51, True)):
        logits, right, sources = draw(rng, n, 1.0)
        found, chance = calibration.expected_error(sure(logits), right, sources)
        assert (found.interval is not None) == said
        assert said or found.method.startswith("none")
        assert 0 <= chance <= 1


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_the_temperature_is_found_and_its_gain_is_real(sharpness: float) -> None:
    rng = np.random.default_rng(4)
    logits, right, sources = draw(rng, 1500, sharpness)
    found = calibration.tempered(logits, right, sources)
    assert found.temperature == pytest.approx(sharpness, rel=0.15)
    assert found.gain.low is not None
    assert (found.gain.low > 0) == (sharpness != 1)
    assert found.error.value < 0.05
    apart = draw(rng, 1500, sharpness)
    on_others = calibration.tempered(logits, right, sources, (apart[0], apart[1]))
    assert on_others.temperature == pytest.approx(sharpness, rel=0.15)
    assert "1,500 validation rows" in on_others.fitted_on


def test_a_threshold_keeps_its_promise() -> None:
    rng = np.random.default_rng(5)
    many, _, _ = draw(rng, 100_000, 2.0)
    confidence, wrong = sure(many), 1 - sure(many / 2)
    broken, found = 0, 0
    for _ in range(200):
        logits, right, sources = draw(rng, 500, 2.0)
        rule = calibration.threshold(sure(logits), right, sources, 0.1)
        if rule.least is not None:
            found += 1
            broken += wrong[confidence > rule.least].mean() > 0.1
    assert found > 80
    assert broken <= binom.ppf(0.999, 200, 0.05)


def test_a_threshold_of_repeated_documents_is_not_taken_for_surer() -> None:
    rng = np.random.default_rng(6)
    logits, right, sources = draw(rng, 2000, 1.0, copies=20)
    assert calibration.threshold(sure(logits), right, sources, 0.05).n == 100
    alone = calibration.threshold(sure(logits)[::20], right[::20], sources[::20], 0.2)
    assert calibration.threshold(sure(logits), right, sources, 0.2) == alone


def test_what_is_always_right_needs_no_threshold_and_what_never_is_has_none() -> None:
    half, docs = np.full(400, 0.5), list(range(400))
    assert calibration.threshold(half, np.ones(400), docs, 0.05).coverage == 1
    assert calibration.threshold(half, np.zeros(400), docs, 0.2).least is None
    assert calibration.threshold(half[:20], np.ones(20), docs[:20], 0.05).least is None  # 20 say nothing of 5 %


def test_brier_score_and_curve_add_up() -> None:
    rng = np.random.default_rng(7)
    logits, right, sources = draw(rng, 600, 1.5)
    found = calibration.calibrated(sure(logits), right, sources)
    parts = found.brier
    summed = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    assert parts.score.value == pytest.approx(summed) == pytest.approx(float(((sure(logits) - right) ** 2).mean()))
    assert found.curve[-1] == pytest.approx((1.0, 1 - right.mean()))
    most = np.argsort(-sure(logits))[:480]
    assert found.selective.value == pytest.approx(right[most].mean())
    assert sum(own.n for own in found.bins) == 600
    assert [own.n for own in found.bins] == pytest.approx([40] * 15, abs=1)


def test_documents_of_one_confidence_are_one_bin_and_share_the_coverage() -> None:
    confidence = np.repeat([1.0, 0.5], 50)
    right = np.concatenate([np.ones(50), np.tile([1.0, 0.0], 25)])
    found = calibration.calibrated(confidence, right, list(range(100)))
    assert [own.n for own in found.bins] == [50, 50]
    assert found.selective.value == pytest.approx((50 + 15) / 80)
    assert found.error.value == 0


# ---------------------------------------------------------------- scorecards


def test_a_card_tells_how_sure_its_subject_was() -> None:
    (found,) = finbench.calibrate([ADAPTER])
    rows = [row for row in cardfiles.read_samples(ADAPTER) if row["task"] == "finbench_fpb_mc"]
    logs = np.array([row["answer"] for row in rows])
    assert found.found.confidence == pytest.approx(float(sure(logs).mean()))
    assert found.found.accuracy == cardfiles.read(ADAPTER).scores[-1].metrics["acc"]
    assert found.found.error.low == 0  # this adapter is calibrated, as far as 723 sentences tell
    (base,) = finbench.calibrate([BASE])
    assert base.found.error.value > 0.4
    assert base.found.tempered is not None
    assert base.found.tempered.edge
    json.dumps(plain(base))


def samples_card(tmp_path: Path, readings: list[list[str]], right: str) -> Path:
    """A card whose documents have several answers, read as these; a reading is right if it is ``right``."""
    card = cardfiles.read(BASE)
    score = next(one for one in card.scores if one.task == "finbench_fpb")
    rows = [
        {"task": score.task, "index": at, "doc": f"d{at:031}", "cluster": f"c{at:015}", "answer": said,
         "sample": number,         "reading": said, "reasoning_tokens": 0, "answer_tokens": 1, "truncated": False,
         "values": {"macro_f1": 0, "acc": float(said == right)}}
        for at, own in enumerate(readings) for number, said in enumerate(own)
    ]  # fmt: skip
    path = tmp_path / "several.json"
    cardfiles.write(path, card.model_copy(update={"scores": [score.model_copy(update={"n": len(readings)})]}), rows)
    return path


def test_samples_that_agree_are_sure(tmp_path: Path) -> None:
    path = samples_card(tmp_path, [["a", "a", "b", "a"]] * 30 + [["b", "b", "", ""]] * 10 + [[""] * 4] * 10, "a")
    (found,) = finbench.calibrate([path])
    assert found.signal == "agreement of 4 samples"
    bins = [(own.n, own.confidence, own.accuracy) for own in found.found.bins]
    assert bins == [(20, 0.25, 0), (30, 0.75, 1)]  # 10 of 0 and 10 of 0.5 are one bin, of 20 sources
    assert found.found.tempered is None


@pytest.mark.parametrize(
    ("answer", "text", "sure"),
    [
        ("positive\nConfidence: 85", "positive", 85), ("positive\n\n**Confidence:** 85 %.", "positive", 85),
        ("positive\nConfidence: 0.9", "positive", None), ("positive\nconfidence: high", "positive", None),
        ("positive\nConfidence: 101", "positive", None), ("positive\nConfidence: -5", "positive", None),
        ("Confidence: 85\npositive", "Confidence: 85\npositive", None), ("positive", "positive", None),
    ],
)  # fmt: skip
def test_confidence_in_words_is_read_from_a_last_line_alone(answer: str, text: str, sure: int | None) -> None:
    generated, found = inwords.parted(Generated(answer), "chat")
    assert (generated.text, found) == (text, sure)
    assert inwords.parted(Generated("positive", "so it is\nConfidence: 40"), "cot")[1] == 40
    assert inwords.parted(Generated("", "no answer\nConfidence: 40"), "cot")[1] is None


def test_answers_are_asked_how_sure_they_are_and_their_cards_are_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def say(engine: DummyEngine, request: Any) -> Any:
        asked.append(request.args[0])
        number = request.doc_id
        if number % 10 == 9:
            return "positive"
        return f"{request.doc['label'] if number % 4 else 'none'}\nConfidence: {75 if number % 2 else 70}"

    monkeypatch.setattr(DummyEngine, "_answer", say)
    how: dict[str, Any] = {"model": "dummy", "engine": "dummy", "tasks": "mini_sentiment", "limit": 60, "out": tmp_path}
    [card] = finbench.evaluate(**how, profile="chat", confidence=True, reports=False)
    assert all("Confidence: <number>" in prompt for prompt in asked)
    path = next(tmp_path.glob("*.json"))
    rows = cardfiles.read_samples(path)
    assert [row.get("confidence") for row in rows[:3]] == [70, 75, 70]
    assert "confidence" not in rows[9]
    assert rows[1]["answer"] == rows[1]["values"]["macro_f1"][0]  # the line is no part of the answer
    (found,) = finbench.calibrate([path])
    assert "90.0 % of the answers state" in found.signal
    assert found.found.confidence == pytest.approx(sum(row.get("confidence", 0) for row in rows) / 6000)
    assert finbench.verify(path).faults == []
    assert " --confidence " in asking.evaluation(card, "--model dummy") + " "
    with pytest.raises(FinbenchError, match="--confidence is for the profiles"):
        finbench.evaluate(**how, confidence=True)
    rows[0]["confidence"] = 120
    cardfiles.write(path, card, rows)
    assert any("100 % sure" in str(fault) for fault in finbench.verify(path).faults)


def test_cards_that_do_not_tell_it_are_refused_with_what_to_type(tmp_path: Path) -> None:
    said = CliRunner().invoke(app.app, ["card", "calibration", str(CARDS / "xbrl-smollm2-135m.json")])
    assert isinstance(said.exception, FinbenchError)
    assert "one generated answer a document" in said.exception.message
    assert "--tasks fpb_mc" in said.exception.hint
    with pytest.raises(FinbenchError, match="other weights"):
        finbench.calibrate([ADAPTER], validation=BASE)
    with pytest.raises(FinbenchError, match="rows of the test"):
        finbench.calibrate([ADAPTER], validation=ADAPTER)
    for wrong in ("0", "1.5", "x", "nan"):
        assert CliRunner().invoke(app.app, ["card", "calibration", str(ADAPTER), "--error", wrong]).exit_code == 1


def test_the_command_shows_the_guarantee() -> None:
    done = CliRunner().invoke(app.app, ["card", "calibration", str(ADAPTER), "--error", "0.1"])
    assert done.exit_code == 0, done.output
    assert "at most 10 % wrong: take answers of more than 0.72" in done.output
    assert "cross-fitted" in done.output


def test_a_confidence_that_no_answer_states_is_said_and_not_counted_as_0() -> None:
    how: Any = SimpleNamespace(generation=SimpleNamespace(confidence=True), arguments={})
    score: Any = SimpleNamespace(form="generate", n=30)
    rows = [{"values": {"acc": 1.0}, "index": number} for number in range(30)]
    assert "none of its answers says so" in untold(how, score, rows)
    assert untold(how, score, [{**rows[0], "confidence": 90}, *rows[1:]]) == ""
