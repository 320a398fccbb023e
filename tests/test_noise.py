"""Noise: what each transformation does to a text and to its answer, and what it does to a subject."""

from __future__ import annotations

import collections
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import finbench
from finbench.cards import cardfiles, undernoise
from finbench.cli import app
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.core.records import Measure
from finbench.leaderboard import intake
from finbench.scoring import noise, prompts

LABELS = ["negative", "neutral", "positive"]


def row(text: str, label: str = "positive") -> dict[str, Any]:
    return {"text": text, "label": label, "choices": LABELS}


def under(name: str, text: str, label: str = "positive") -> tuple[str, str] | None:
    """The text and its answer; None where the row is dropped."""
    beside = row("Sales of Acme Oyj rose by 1,000.5 in 2009 .")  # reached by every noise
    made = noise.noisy(name, [row(text, label), beside], "t")
    return next(((one["text"], one["label"]) for one in made if one["noise_of"] == 0), None)


@pytest.mark.parametrize(
    ("name", "text", "made"),
    [
        ("lower", "Nokia ROSE", "nokia rose"), ("upper", "Nokia rose", "NOKIA ROSE"),
        ("numbers", "EUR 1,234.5 mn, 12.5 %", "EUR 1.234,5 mn, 12,5 %"),
        ("numbers", "EUR 12,000 of 3,500,000.25.", "EUR 12.000 of 3.500.000,25."),
        ("numbers", "on 12.5.2010 in 2010, version 1.2.3", None),
        ("dates", "sales of 2,010 units; EUR 2010 mn; $2010; 2010 million", None),
        ("names", "The Group said so", None), ("names", "profit of the company", None),
        ("opposite", "Net profit rose by 5 %", "Net profit fell by 5 %"),
        ("opposite", "Net profit rose to 5 from 4", None),  # the figures would say the opposite
        ("opposite", "Sales rose but profit fell", None), ("opposite", "Sales rose less than expected", None),
        ("opposite", "The loss decreased", None), ("opposite", "It did not increase. Sales rose", None),
        ("negation", "Costs decreased by 5 %", "Costs did not decrease but increased by 5 %"),
    ],
)  # fmt: skip
def test_a_transformation_changes_what_it_says_and_nothing_else(name: str, text: str, made: str | None) -> None:
    found = under(name, text)
    assert (found and found[0]) == made
    flipped = noise.NOISES[name].rule == "flipped"
    assert found is None or found[1] == ("negative" if flipped else "positive")


def test_years_of_a_text_move_alike_and_names_are_replaced_alike() -> None:
    found = under("dates", "In 2008-2009 , up on 2007")
    assert found is not None
    years = [int(year) for year in found[0].replace("-", " ").split() if year.isdigit()]
    assert years[0] - 2008 == years[1] - 2009 == years[2] - 2007 > 2
    named = under("names", "Outotec Oyj rose . Outotec sold to Kone Corp ; $TSLA up")
    assert named is not None
    words = named[0].split()
    assert "Outotec" not in named[0]
    assert "Kone" not in named[0]
    assert "$TSLA" not in named[0]
    assert words[0] == words[4] != words[7]


@pytest.mark.parametrize("name", ["typos", "ocr"])
def test_slips_are_few_and_follow_the_seed(name: str) -> None:
    text = "Operating profit of the company rose clearly in the financial year on strong demand in all its markets"
    first, again, other = under(name, text), under(name, text), under(f"{name}@7", text)
    assert first == again != other
    assert first is not None
    assert other is not None
    words = text.split()
    for made in (first[0], other[0]):
        assert 1 <= sum(a != b for a, b in zip(words, made.split(), strict=True)) <= 8


def test_a_flip_drops_what_is_neutral_and_labels_that_are_no_sentiment() -> None:
    assert under("opposite", "Net sales rose", "neutral") is None
    with pytest.raises(FinbenchError, match="no labels of it"):
        noise.noisy("opposite", [{"text": "rates rose", "label": "hawkish", "choices": ["dovish", "hawkish"]}], "fomc")
    with pytest.raises(noise.NotReached, match="changed no row"):
        noise.noisy("numbers", [row("no figure")], "t")
    with pytest.raises(FinbenchError, match="only where it is a label"):
        noise.noisy("typos", [{"text": "a", "answer": "1"}], "finqa")
    for wrong in ("typo", "typos@x"):
        with pytest.raises(FinbenchError):
            noise.named(wrong)


def loaded(**metadata: str) -> Any:
    return prompts.load(catalog.expand(["mini_sentiment"]), None, metadata=metadata)["finbench_mini_sentiment"]


def test_the_test_split_alone_is_noisy() -> None:
    plain, noisy = loaded(), loaded(noise="upper")
    assert noisy.finbench_origin["choices"] == {"noise": "upper"}
    before, after = prompts.rows(plain, "test"), prompts.rows(noisy, "test")
    assert [one["text"] for one in after] == [one["text"].upper() for one in before]
    assert prompts.rows(noisy, "train") == prompts.rows(plain, "train")
    train, asked = prompts.rows(plain, "train"), prompts.rows(loaded(split="train"), "test")
    assert asked != train  # the first of them are a sample, whatever the order of the file
    assert sorted(asked, key=str) == sorted(train, key=str)
    with pytest.raises(FinbenchError, match="no validation rows"):
        loaded(split="validation")
    with pytest.raises(FinbenchError, match="split"):
        loaded(split="dev")


def test_a_subject_is_scored_under_noise_and_beside_itself(tmp_path: Path) -> None:
    runs: dict[str, Path] = {}
    for name in ("", "upper", "typos"):
        out = tmp_path / (name or "plain")
        chosen = {"noise": name} if name else {}
        finbench.evaluate(
            model="dummy", engine="dummy", tasks="mini_sentiment", out=out, metadata=chosen, limit=60, reports=False
        )
        (runs[name],) = out.glob("*.json")
    found = finbench.robustness(runs[""], [runs["upper"].parent, runs["typos"]])
    assert [one.noise for one in found] == ["typos", "upper"]
    assert [one.n for one in found] == [60, 60]
    card = cardfiles.read(runs[""])
    assert found[1].plain == card.scores[0].main
    assert finbench.verify(runs["upper"]).faults == []
    assert any("only scores of the test as it is" in fault for fault in intake.check(runs["upper"]))
    done = CliRunner().invoke(app.app, ["card", "noise", *map(str, runs.values()), "--json"])
    assert done.exit_code == 0, done.output
    assert [one["noise"] for one in json.loads(done.stdout)] == ["typos", "upper"]
    with pytest.raises(FinbenchError, match="No task"):
        finbench.robustness(runs[""], [runs[""]])
    finbench.evaluate(
        model="dummy", engine="dummy", tasks="mini_sentiment", out=tmp_path / "train", metadata={"split": "train"},
        limit=60, reports=False,
    )  # fmt: skip
    (other,) = (tmp_path / "train").glob("*.json")  # its rows have the same numbers, and are others
    with pytest.raises(FinbenchError, match=r"are of other rows \(--metadata split=train and none\)"):
        finbench.robustness(other, [runs["upper"]])


def test_a_limit_takes_the_documents_of_the_test_as_it_is(tmp_path: Path) -> None:
    how: dict[str, Any] = {"model": "dummy", "engine": "dummy", "tasks": "mini_sentiment", "reports": False}
    rows = [one["noise_of"] for one in prompts.rows(loaded(noise="numbers"), "test")]
    limit = rows[2] + 1
    assert limit > 3  # else this test tells nothing
    assert prompts.whole(loaded(noise="numbers"), limit) == 3
    finbench.evaluate(**how, limit=limit, out=tmp_path)
    (noisy,) = finbench.evaluate(**how, limit=limit, out=tmp_path / "noisy", metadata={"noise": "numbers"})
    assert not noisy.scores[0].is_whole(limit)
    (found,) = finbench.robustness(tmp_path / "dummy.json", [tmp_path / "noisy"])
    assert (found.n, found.of) == (3, limit)
    assert finbench.verify(tmp_path / "noisy" / "dummy.json").faults == []
    with pytest.raises(noise.NotReached, match=f"none of the {rows[0]} rows"):
        finbench.evaluate(**how, limit=rows[0], out=tmp_path / "none", metadata={"noise": "numbers"})


def test_of_several_noises_one_that_changes_no_row_is_noted_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"model": "dummy", "engine": "dummy", "limit": 30, "reports": False}
    finbench.evaluate(**how, tasks="mini_sentiment", out=tmp_path / "plain")
    both = "mini_sentiment,mini_headline"  # the second asks of a text, so that no noise has a rule for it
    made = finbench.evaluate(**how, tasks=both, out=tmp_path / "noisy", metadata={"noise": "opposite,upper@2,lower"})
    assert [card.arguments["metadata.noise"] for card in made] == ["upper@2", "lower"]
    assert {path.name for path in (tmp_path / "noisy").iterdir()} == {"upper@2", "lower", "unreached.txt"}
    done = CliRunner().invoke(app.app, ["card", "noise", str(tmp_path / "plain/dummy.json"), str(tmp_path / "noisy")])
    assert "opposite changed no row" in " ".join(done.stdout.split())
    page = finbench.risk(tmp_path / "plain" / "dummy.json")
    assert not [one for one in page.shown if one.title == "Noise"]  # these lie elsewhere
    page = finbench.risk(tmp_path / "plain" / "dummy.json", [tmp_path])
    (shown,) = [one for one in page.shown if one.title == "Noise"]
    assert [row[1] for row in shown.rows] == ["upper@2", "lower"] or [row[1] for row in shown.rows] == [
        "lower",
        "upper@2",
    ]
    assert "opposite changed no row" in shown.notes[0]
    assert noise.several("all@3") == [f"{name}@3" for name in noise.NOISES]
    with pytest.raises(noise.NotReached):
        finbench.evaluate(**how, tasks="mini_sentiment", out=tmp_path / "none", metadata={"noise": "opposite,negation"})


def test_what_holds_under_every_noise_is_said_once(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how: dict[str, Any] = {"model": str(llama), "engine": "hf", "tasks": "mini_sentiment", "limit": 4, "reports": False}
    finbench.evaluate(**how, out=tmp_path / "noisy", metadata={"noise": "upper,lower"})
    said = capsys.readouterr().err
    assert said.count("is taken for: ") == 1
    assert [line for line in said.splitlines() if " of 2)" in line] == ["noise=upper (1 of 2)", "noise=lower (2 of 2)"]
    finbench.evaluate(**how, out=tmp_path / "again", metadata={"noise": "upper"})
    assert "is taken for: " in capsys.readouterr().err


def forged(path: Path, change: Any) -> None:
    card, rows = cardfiles.read(path), cardfiles.read_samples(path)
    for one in rows:
        change(one)
    cardfiles.write(path, card, rows)


def test_flips_are_answers_that_do_not_follow_the_rule(tmp_path: Path) -> None:
    for name in ("plain", "noisy"):
        chosen = {"noise": "upper"} if name == "noisy" else {}
        finbench.evaluate(
            model="dummy",
            engine="dummy",
            tasks="mini_sentiment",
            out=tmp_path / name,
            metadata=chosen,
            limit=60,
            reports=False,
        )
    plain, noisy = (next((tmp_path / name).glob("*.json")) for name in ("plain", "noisy"))

    def answer(path: Path, said: Any) -> None:
        def change(one: dict[str, Any]) -> None:
            gold, _, labels = one["values"]["macro_f1"]
            new = said(one["index"], gold)
            for name in ("macro_f1", "weighted_f1", "mcc"):
                one["values"][name] = [gold, new, labels]
            one["values"]["acc"] = float(gold == new)

        forged(path, change)

    answer(plain, lambda index, gold: gold)
    answer(noisy, lambda index, gold: "neutral" if index < 30 else gold)
    (found,) = finbench.robustness(plain, [noisy])
    golds = [one["values"]["macro_f1"][0] for one in cardfiles.read_samples(plain)][:30]
    assert found.plain.value == 1
    assert found.flips.value == pytest.approx((30 - golds.count("neutral")) / 60)
    assert found.flips.low is not None
    assert 0 < found.flips.low < found.flips.value
    assert found.difference.high is not None
    assert found.difference.high < 0
    assert isinstance(found.difference, Measure)
    assert found.p < 0.001


def read_as(said: str | None) -> dict[str, Any]:
    """A sample row whose answer was read so."""
    return {"values": {"acc": 0.0, "macro_f1": ["positive", said, LABELS]}}


def test_what_has_no_opposite_never_follows_a_flip() -> None:
    said = ["positive", "negative", "neutral", None]
    follow = {(a, b) for a in said for b in said if undernoise._follows("flipped", read_as(a), read_as(b))}
    assert follow == {("positive", "negative"), ("negative", "positive")}
    stays = {(a, b) for a in said for b in said if undernoise._follows("same", read_as(a), read_as(b))}
    assert stays == {(one, one) for one in said}
    # where a scorer keeps no label, only what is right both times is known to follow
    right, wrong = {"values": {"acc": 1.0}}, {"values": {"acc": 0.0}}
    assert undernoise._follows("flipped", right, right)
    assert not undernoise._follows("flipped", wrong, wrong)
    assert not undernoise._follows("flipped", right, wrong)


def test_sampled_answers_are_refused_beside_noise(tmp_path: Path) -> None:
    for name in ("plain", "noisy"):
        finbench.evaluate(
            model="dummy", engine="dummy", tasks="mini_sentiment", out=tmp_path / name, limit=30, reports=False,
            profile="chat", samples=2, temperature=0.7, metadata={"noise": "lower"} if name == "noisy" else {},
        )  # fmt: skip
    plain, noisy = (next((tmp_path / name).glob("*.json")) for name in ("plain", "noisy"))
    with pytest.raises(FinbenchError, match=r"sampled at temperature 0\.7") as refused:
        finbench.robustness(plain, [noisy])
    assert "without --temperature" in refused.value.hint


# ---------------------------------------------------------------- minimal pairs


def test_pairs_are_the_scripts_and_differ_in_one_thing_and_the_label() -> None:
    script = paths.shipped("tasks") / "mini" / "pairs.py"
    subprocess.run([sys.executable, script, "--check"], check=True)
    made = runpy.run_path(str(script))["rows"]("test")
    pairs = collections.defaultdict(list)
    for one in made:
        pairs[one["group"]].append(one)
    assert len(pairs) == 500
    assert len({one["text"] for one in made}) == 1000
    kinds: collections.Counter[tuple[str, str]] = collections.Counter()
    for a, b in pairs.values():
        assert {a["label"], b["label"]} == {"negative", "positive"}
        apart = [(x, y) for x, y in zip(a["text"].split(), b["text"].split(), strict=True) if x != y]
        assert len(apart) == 1, (a, b)
        kinds[tuple(sorted(word.strip(".,").lower() for word in apart[0]))] += 1  # type: ignore[index]
    assert kinds["loss", "profit"] > 100
    assert kinds["narrowed", "widened"] > 50
    # no word alone gives the label away
    for word in ("rose", "fell", "increased", "declined"):
        labels = collections.Counter(one["label"] for one in made if f" {word} " in one["text"] + " ")
        assert min(labels.values()) > 0.35 * labels.total()
