"""Contextual calibration: nothing to read is put before a subject, and what it prefers there is taken out."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import finbench
from finbench.cards import cardfiles, undernoise
from finbench.cards.contentfree import _labels, _preferred, _value
from finbench.cli import app
from finbench.core.errors import FinbenchError
from finbench.scoring import noise


def scored(out: Path, tasks: str, name: str = "", limit: int = 40) -> Path:
    finbench.evaluate(
        model="dummy", engine="dummy", tasks=tasks, out=out, metadata={"noise": name} if name else {}, limit=limit,
        reports=False,
    )  # fmt: skip
    (path,) = out.glob("*.json")
    return path


def f1(pairs: Sequence[tuple[str, str]], label: str) -> float:
    hits = sum(gold == said == label for gold, said in pairs)
    size = Counter(side for pair in pairs for side in pair)[label]
    return 2 * hits / size if size else 0.0


def divided(logs: Sequence[float], share: Sequence[float]) -> int:
    """Number of the label whose probability divided by ``share`` is the largest."""
    whole = sum(map(math.exp, logs))
    parts = [math.exp(log) / whole / one for log, one in zip(logs, share, strict=True)]
    return parts.index(max(parts))


def mean_share(rows: Sequence[dict[str, Any]]) -> list[float]:
    shares = [[math.exp(log) / sum(map(math.exp, row["answer"])) for log in row["answer"]] for row in rows]
    return [sum(column) / len(shares) for column in zip(*shares, strict=True)]


def test_it_is_the_division_of_its_authors_by_brute_force(tmp_path: Path) -> None:
    rng = random.Random(5)
    plain, empty = scored(tmp_path / "a", "pairs_mc"), scored(tmp_path / "b", "pairs_mc", "content-free")
    labels = cardfiles.read_samples(plain)[0]["values"]["macro_f1"][2]
    for path in (plain, empty):
        card, rows = cardfiles.read(path), cardfiles.read_samples(path)
        for row in rows:
            row["answer"] = [round(rng.uniform(-4, 0), 6) for _ in labels]
            said = labels[row["answer"].index(max(row["answer"]))]
            gold = row["values"]["macro_f1"][0]
            row["values"] = {
                name: float(said == gold) if name == "acc" else [gold, said, labels] for name in row["values"]
            }
        cardfiles.write(path, card, rows)
    rows, share = cardfiles.read_samples(plain), mean_share(cardfiles.read_samples(empty))
    pairs = [(row["values"]["macro_f1"][0], labels[divided(row["answer"], share)]) for row in rows]
    (found,) = finbench.contextual(plain, empty)
    assert list(found.preferred) == labels
    assert list(found.preferred.values()) == pytest.approx(share, abs=1e-6)
    assert found.calibrated.value == pytest.approx(sum(f1(pairs, label) for label in labels) / len(labels))
    assert found.difference.value == pytest.approx(found.calibrated.value - found.plain.value)
    done = CliRunner().invoke(app.app, ["card", "contextual", str(plain), str(empty)])
    assert done.exit_code == 0, done.output
    assert "nothing to read" in done.stdout


def test_a_preference_is_taken_out_and_each_question_has_its_own() -> None:
    """A subject that knows everything, behind a preference for "No" that differs by question."""
    task, rng = "finbench_headlines_mc", random.Random(3)
    lean = {"price": (0.0, 5.0), "price_up": (2.0, -6.0), "past_price": (0.0, 0.0)}

    def rows(knows: float) -> tuple[list[dict[str, Any]], list[Any]]:
        made, values = [], []
        for question, (yes, no) in lean.items():
            for _ in range(200):
                gold = rng.choice(["Yes", "No"])
                logs = [yes + knows * (gold == "Yes"), no + knows * (gold == "No")]
                made.append({"answer": logs})
                values.append([question, gold, "Yes" if logs[0] >= logs[1] else "No"])
        return made, values

    (read, values), (empty, nothing) = rows(1.0), rows(0.0)
    labels = _labels(task, values)
    assert labels == ["Yes", "No"]
    assert sum(gold == said for _, gold, said in values) < 500
    preferred = _preferred(empty, nothing, labels)
    assert preferred["price"] == pytest.approx([1 / (1 + math.exp(5)), 1 / (1 + math.exp(-5))])
    made = [_value(value, labels, row, preferred) for value, row in zip(values, read, strict=True)]
    assert [[question, gold, gold] for question, gold, _ in values] == made
    with pytest.raises(FinbenchError, match="not asked without content"):
        _value(["price_down", "Yes", "Yes"], labels, {"answer": [0.0, 0.0]}, preferred)


def test_nothing_is_left_to_read_not_even_what_quotes_the_text() -> None:
    rows = [{"text": f"Sales of {name} rose", "entity": name, "label": "organization", "choices": ["organization"]}
            for name in map(str, range(30))]  # fmt: skip
    made = noise.noisy("content-free", rows, "t")
    assert len(made) == len(rows)
    assert {row["text"] for row in made} == {"N/A", "[MASK]", ""}
    assert all(row["entity"] == row["text"] for row in made)
    asked = [{"text": "gold up", "question": "Up?", "attribute": "price_up", "label": "Yes", "choices": ["Yes", "No"]}]
    assert noise.noisy("content-free", asked, "t")[0]["question"] == "Up?"
    for columns in ({"question": "Did gold rise?"}, {"options": ["gold"]}):  # these tell what was in the text
        with pytest.raises(noise.NotReached):
            noise.noisy("content-free", [{"text": "gold up", "label": "Yes", "choices": ["Yes", "No"], **columns}], "t")


def test_it_is_no_noise_that_a_subject_is_judged_by(tmp_path: Path) -> None:
    assert "content-free" not in noise.several("all")
    plain, empty = scored(tmp_path / "a", "pairs_mc"), scored(tmp_path / "b", "pairs_mc", "content-free")
    assert finbench.verify(empty).faults == []
    assert not undernoise.is_noisy(cardfiles.read(empty).scores[0])
    with pytest.raises(FinbenchError, match="under noise"):
        finbench.robustness(plain, [empty])
    page = finbench.risk(plain, [tmp_path])
    assert not [one for one in page.shown if one.title == "Noise"]


def test_what_cannot_be_calibrated_is_said(tmp_path: Path) -> None:
    plain, empty = scored(tmp_path / "a", "pairs_mc"), scored(tmp_path / "b", "pairs_mc", "content-free")
    generated = scored(tmp_path / "c", "pairs"), scored(tmp_path / "d", "pairs", "content-free")
    for one, other in ((plain, plain), (empty, plain), generated, (plain, generated[1])):
        with pytest.raises(FinbenchError, match="No task of") as fault:
            finbench.contextual(one, other)
        assert "noise=content-free" in str(fault.value.hint)
    done = CliRunner().invoke(app.app, ["card", "contextual", str(plain), str(tmp_path / "none.json")])
    assert done.exit_code == 1
    assert "Traceback" not in done.output
