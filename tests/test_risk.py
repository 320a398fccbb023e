"""``finbench risk``: one page from cards, with everything that was not tested in plain sight."""

from __future__ import annotations

import contextlib
import html
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import finbench
from finbench.cards import RiskPage, asking, cardfiles, riskpage, shifts, shown_points, subjectcards
from finbench.cards.render import amount
from finbench.cli import app
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Measure
from finbench.models import adapters
from finbench.models.adapters import AdapterFolder
from finbench.scoring import calibration

CARDS = Path(__file__).parent.parent / "leaderboards" / "scorecards"
ADAPTER, SUITE = CARDS / "fpb-smollm2-135m-lora-s0.json", CARDS / "suite-smollm2-135m-lora-s0.json"

PART = ", 74.3 % of the test"  # of fpb, which these cards are of


def copied(card: Path, folder: Path, **subject: Any) -> Path:
    """A card with its samples in a folder of its own; its subject may be called otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    found = cardfiles.read(card)
    changed = found.model_copy(update={"subject": found.subject.model_copy(update=subject)})
    cardfiles.write(folder / card.name, changed, cardfiles.read_samples(card))
    return folder / card.name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RiskPage, Path]]:
    out = tmp_path_factory.mktemp("risk") / "risk.html"
    with contextlib.chdir(CARDS.parent.parent):
        yield finbench.risk(ADAPTER, out=out), out


def test_the_page_shows_what_the_cards_hold_beside_the_base(made: tuple[RiskPage, Path]) -> None:
    page, out = made
    assert [one.title for one in page.shown] == ["Score", "How sure it is", "Cost of 1,000 documents"]
    scores = {row[0]: row for row in page.shown[0].rows}
    chosen = scores[f"fpb_mc{PART}"]
    assert chosen[2] == "84.9 [82.0, 87.7]"
    assert chosen[3] == "17.9"  # of the same sitting
    assert chosen[4].startswith("+67.1 [+63.3")  # as finbench compare says
    command, cards = page.shown[0].command, "leaderboards/scorecards"
    _, _, compared = command.partition(f"; finbench compare {cards}/{ADAPTER.name} ")
    assert all(cardfiles.read(CARDS.parent.parent / path).subject.kind == "base" for path in compared.split())
    assert compared
    assert "--adapter ADAPTER --base smollm2-135m " in command  # a card does not know where it lies
    assert f"--out {cards};" in command
    assert str(Path.home()) not in out.read_text(encoding="utf-8")
    text = out.read_text(encoding="utf-8")
    assert text.count("<svg") == 2
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # self-contained
    assert "What was not tested" in text
    for section in page.shown:
        assert section.command.startswith("finbench ")


def test_cards_of_several_sittings_are_compared_each_with_its_base() -> None:
    """As typed: one command for each card, and no card beside the base of another."""
    with contextlib.chdir(CARDS.parent.parent):
        command = finbench.risk(CARDS / "numeric-s0.json").shown[0].command
        typed = [shlex.split(part) for part in command.split("; ") if part.startswith("finbench compare ")]
        assert len(typed) == 2
        for words in typed:
            assert finbench.compare(words[2:])


def test_what_was_not_tested_is_said_and_what_was_is_not(made: tuple[RiskPage, Path]) -> None:
    said = " ".join(made[0].untested)
    who = "finbench eval --adapter ADAPTER --base smollm2-135m --bits 16 --no-chat "
    assert (
        f"`{who}--metadata noise=all --tasks fpb,fpb_mc --out leaderboards/scorecards/noisy`" in said
    )  # as it can be typed
    assert f"`{who}--tasks general`" in said
    assert f"`{who}--prompts 8 --tasks fpb_mc`" in said
    assert "`finbench train ADAPTER --seed 1`" in said
    assert f"A part of the test only: fpb{PART}; fpb_mc{PART}." in said
    suite = finbench.risk(SUITE, [SUITE])  # without its base, which takes seconds to test it against
    assert "Forgetting" in [one.title for one in suite.shown]
    assert "--tasks general" not in " ".join(suite.untested)
    assert "A part of the test only" in " ".join(suite.untested)
    alone = finbench.risk(base := CARDS / "fpb-smollm2-135m.json", [base])
    assert not any("forgot" in one or "training of the same" in one for one in alone.untested)
    scores, cost = alone.shown[0], alone.shown[-1]
    assert "compare" not in scores.command
    assert not {"base", "difference"} & {*scores.head}
    assert "USD" not in cost.head  # nothing was paid
    assert {len(row) for row in cost.rows} == {len(cost.head)}
    assert shown_points("mcc", -0.0001, sign=False) == amount(-0.0001, share=False) == "0.000"


def test_what_looks_like_a_command_can_be_copied_as_it_stands(made: tuple[RiskPage, Path], tmp_path: Path) -> None:
    finbench.risk(ADAPTER, [ADAPTER], out=tmp_path / "risk.md")
    for page, code in ((made[1], "<code>([^<]*)</code>"), (tmp_path / "risk.md", "`([^`]*)`")):
        text = page.read_text(encoding="utf-8")
        commands = [command for line in re.findall(code, text) for command in line.split("; ")]
        assert len(commands) >= 8
        for command in commands:
            words = shlex.split(html.unescape(command))
            assert words[0] == "finbench"
            assert words[1:3] == ["card", "calibration"] or words[1] in app._COMMANDS
            assert not {"N", "NAME", "..."} & {*words}
        assert code[0] == "`" or "`" not in text
    said = CliRunner().invoke(app.app, ["risk", str(ADAPTER), str(ADAPTER), "--out", str(tmp_path / "x.md")]).stdout
    assert any(line.startswith("  finbench eval ") and line.endswith(" --tasks general") for line in said.splitlines())


def test_another_training_is_of_the_adapters_own_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `finbench train` reads it: from where the adapter came, or from the folder where it lies."""
    monkeypatch.chdir(tmp_path)
    card = copied(ADAPTER, tmp_path, adapter_name="mine-s0", seed=3)
    Path("runs/mine-s0").mkdir(parents=True)
    assert "trainings: `finbench train runs/mine-s0 --seed 4`." in " ".join(finbench.risk(card, [card]).untested)
    card = copied(ADAPTER, tmp_path, adapter_name="mine-s0", seed=None)  # nobody's record
    assert "over trainings." in " ".join(finbench.risk(card, [card]).untested)
    card = copied(ADAPTER, tmp_path, adapter_source="hub:org/mine@0123abc")
    assert "trainings: `finbench train hub:org/mine@0123abc --seed " in " ".join(finbench.risk(card, [card]).untested)


def test_an_imported_part_of_a_test_is_a_part(tmp_path: Path) -> None:
    """As is the sample of ``--limit``: a quarter of a data set says less than the data set."""
    path = copied(ADAPTER, tmp_path)
    card, rows = cardfiles.read(path), cardfiles.read_samples(path)
    part = [one.model_copy(update={"data": one.data.model_copy(update={"share": 0.25})}) for one in card.scores]
    cardfiles.write(path, card.model_copy(update={"scores": part}), rows)
    assert "A part of the test only: fpb, 25.0 % of the test; fpb_mc, 25.0 % of the test." in " ".join(
        finbench.risk(path, [path]).untested
    )


def test_wordings_stand_on_the_page_where_a_card_has_them() -> None:
    found = subjectcards.gathered(ADAPTER, [ADAPTER])
    share = Measure(value=0.8, low=0.75, high=0.84, method="mixed model")
    asked = SimpleNamespace(each=[0] * 8, mean=share, spread=0.112, worst="no_instruction", share={"prompt": 0.2},
                            label_order_bias=share, answer_position_bias=None)  # fmt: skip
    held: Any = SimpleNamespace(**{**vars(found.own[0].score), "prompts": asked}, is_whole=lambda limit: True)
    found.own[0] = replace(found.own[0], score=held)
    section = shifts.of_wording(found)
    around = "80.0 [75.0, 84.0]"
    assert section.rows == [[f"fpb{PART}", "8", around, "11.2", "no_instruction", "20.0", around, ""]]
    assert section.to_test.endswith("--tasks fpb_mc")  # a choice task, of which eight prompts cost least


def test_prompts_on_a_sample_of_a_whole_test_are_of_the_wording_alone(tmp_path: Path) -> None:
    how: dict[str, Any] = {"model": "dummy", "engine": "dummy", "tasks": "mini_sentiment", "reports": False}
    finbench.evaluate(**how, out=tmp_path)
    finbench.evaluate(**how, out=tmp_path / "wordings", limit=30, prompts="8")
    finbench.evaluate(**how, out=tmp_path / "noisy", limit=30, metadata={"noise": "lower"})
    (card,) = tmp_path.glob("*.json")
    rows = {one.title: [row[0] for row in one.rows] for one in finbench.risk(card).shown}
    assert rows["Score"] == rows["Noise"] == ["mini_sentiment"]
    assert rows["Wording of the prompt"] == ["mini_sentiment, a sample of 30 rows"]


def test_cost_is_of_one_prompt_and_answers_of_a_file_have_none(tmp_path: Path) -> None:
    found = subjectcards.gathered(ADAPTER, [ADAPTER])
    score = found.own[0].score
    several: Any = SimpleNamespace(each=[0] * 8)
    assert score.model_copy(update={"prompts": several}).own_seconds == pytest.approx(score.seconds / 8)
    card = cardfiles.read(mine := copied(ADAPTER, tmp_path))
    untimed = [one.model_copy(update={"seconds": 0.0}) for one in card.scores]
    cardfiles.write(mine, card.model_copy(update={"scores": untimed}), cardfiles.read_samples(mine))
    page = finbench.risk(mine, [mine])
    assert "Cost of 1,000 documents" not in [one.title for one in page.shown]
    assert any("the answers came from a file" in one for one in page.untested)


def test_cards_of_other_weights_stay_out(tmp_path: Path) -> None:
    mine = copied(ADAPTER, tmp_path)
    copied(CARDS / "fpb-smollm2-135m-lora-s1.json", tmp_path)
    page = finbench.risk(mine)
    assert [row[0] for row in page.shown[0].rows] == [f"fpb{PART}", f"fpb_mc{PART}"]
    assert any("base was not scored" in one for one in page.untested)


def test_an_adapter_folder_finds_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = copied(ADAPTER, tmp_path / "scorecards")
    identity = cardfiles.read(card).subject.adapter
    monkeypatch.setattr(adapters, "read", lambda folder: SimpleNamespace(identity=identity))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter").mkdir()
    page = finbench.risk("adapter")
    assert page.subject == "fpb-smollm2-135m-lora-s0"
    commands = " ".join(section.command for section in page.shown)
    assert "--adapter ./adapter " in commands
    assert f"scorecards/{ADAPTER.name}" in commands
    assert "--out" not in commands  # scorecards is where finbench eval writes
    other = AdapterFolder(Path("adapter"), None, "peft", "f" * 64, {"base_model_name_or_path": "./tiny"})
    monkeypatch.setattr(adapters, "read", lambda folder: other)
    with pytest.raises(FinbenchError, match=r"Make one: finbench eval --adapter ./adapter --base ./tiny --tasks \w+;"):
        finbench.risk("adapter")


def test_noise_and_its_flips_are_on_the_page(tmp_path: Path) -> None:
    for name in ("plain", "noisy"):
        finbench.evaluate(
            model="dummy",
            engine="dummy",
            tasks="mini_sentiment",
            out=tmp_path if name == "plain" else tmp_path / name,
            metadata={"noise": "lower"} if name == "noisy" else {},
            limit=30,
            reports=False,
        )
    (card,) = tmp_path.glob("*.json")
    page = finbench.risk(card)
    noise = next(one for one in page.shown if one.title == "Noise")
    assert [row[:4] for row in noise.rows] == [["mini_sentiment", "lower", "same", "30"]]
    assert [row[0] for row in page.shown[0].rows] == ["mini_sentiment, a sample of 30 rows"]


def test_a_noise_without_a_common_document_is_noted_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    how: dict[str, Any] = {"model": "dummy", "engine": "dummy", "tasks": "mini_sentiment", "reports": False}
    finbench.evaluate(**how, limit=30, out=tmp_path)
    finbench.evaluate(**how, limit=20, out=tmp_path / "noisy", metadata={"noise": "lower,upper"})

    def moved(name: str) -> None:
        (path,) = (tmp_path / "noisy" / name).glob("*.json")
        rows = [{**row, "of": row["of"] + 1000} for row in cardfiles.read_samples(path)]
        cardfiles.write(path, cardfiles.read(path), rows)

    (card,) = tmp_path.glob("*.json")
    moved("upper")
    section = next(one for one in finbench.risk(card).shown if one.title == "Noise")
    assert [row[1] for row in section.rows] == ["lower"]
    assert section.notes == ["mini_sentiment: upper has no document in common with the card without noise."]
    assert "--limit 20 " in section.command
    assert section.command.count("--metadata noise=lower,upper --out noisy") == 1
    assert section.command.endswith(f"finbench card noise {card.name} noisy")
    done = CliRunner().invoke(app.app, ["card", "noise", str(card), str(tmp_path / "noisy")])
    assert "upper has no document in common" in " ".join(done.stdout.split())
    moved("lower")
    page = finbench.risk(card)
    assert "Noise" not in [one.title for one in page.shown]
    assert any("lower has no document in common" in one and "--limit" in one for one in page.untested)


def test_a_temperature_at_the_edge_is_not_said_to_help_nothing() -> None:
    gain = Measure(value=2.477, low=2.3, high=2.6, method="x")
    said = riskpage._heat(calibration.Tempered(50.0, "validation", True, gain, gain))
    assert "50.00 (the largest that is tried: " in said
    assert "none helps" not in said


def test_of_several_cards_the_present_version_is_shown_then_the_newest(tmp_path: Path) -> None:
    def put(card: Path, name: str, created: str, present: bool, seconds: float) -> Path:
        found = cardfiles.read(card)
        scores = [
            one.model_copy(update={"seconds": seconds, "task_digest": one.task_digest if present else "0" * 64})
            for one in found.scores
        ]
        provenance = found.provenance.model_copy(update={"created": created})
        changed = found.model_copy(update={"scores": scores, "provenance": provenance})
        cardfiles.write(tmp_path / name, changed, cardfiles.read_samples(card))
        return tmp_path / name

    now = catalog.tasks()["finbench_fpb"].digest
    base = cardfiles.read(CARDS / "fpb-smollm2-135m.json")
    assert now in {one.task_digest for one in base.scores}  # else the cards here are old, and the test tells nothing
    card = CARDS / "fpb-smollm2-135m.json"
    old = put(card, "a.json", "2026-03-01T00:00:00Z", False, 1.0)
    put(card, "b.json", "2026-01-01T00:00:00Z", True, 2.0)
    put(card, "c.json", "2026-02-01T00:00:00Z", True, 3.0)
    found = subjectcards.gathered(old, [tmp_path])
    assert {one.score.seconds for one in found.own} == {3.0}
    adapter = put(ADAPTER, "z.json", "2026-01-01T00:00:00Z", True, 4.0)
    found = subjectcards.gathered(adapter, [tmp_path])
    assert {one.base and one.base.score.seconds for one in found.own} == {2.0}  # of the same time


def test_the_commands_ask_as_the_card_was_asked(tmp_path: Path) -> None:
    finbench.evaluate(
        model="dummy", engine="dummy", tasks="mini_sentiment", out=tmp_path, limit=30, shots=2, seed=3, reports=False,
        profile="chat", samples=2, temperature=0.5,
    )  # fmt: skip
    (card,) = tmp_path.glob("*.json")
    command = finbench.risk(card).shown[0].command.partition(";")[0]
    for option in ("--tasks mini_sentiment", "--limit 30", "--shots 2 --seed 3", "--profile chat", "--samples 2",
                   "--temperature 0.5", "--engine dummy", "--bits 16"):  # fmt: skip
        assert f" {option} " in f"{command} ", command
    assert command.startswith("finbench eval --model dummy "), command  # no folder, for there is none


def test_a_choice_of_rows_is_asked_for_once() -> None:
    card = cardfiles.read(ADAPTER)
    under = card.model_copy(update={"arguments": {"metadata.noise": "upper", "batch_size": 4}})
    command = asking.evaluation(under, "--adapter here")
    assert command.count("noise=upper") == command.count("--metadata noise=upper") == 1
    assert "--arg batch_size=4" in command
    assert "--arg" not in asking.evaluation(under.model_copy(update={"origin": "lm-eval"}), "--adapter here")


def test_text_of_a_card_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = copied(ADAPTER, tmp_path, name="<script>x</script>|a", adapter_name="a`<script>;reboot")
    monkeypatch.chdir(tmp_path)
    Path("a`<script>;reboot").mkdir()
    finbench.risk(card, out=tmp_path / "risk.html")
    finbench.risk(card, out=tmp_path / "risk.md")
    assert "<script>" not in (tmp_path / "risk.html").read_text(encoding="utf-8")
    text = (tmp_path / "risk.md").read_text(encoding="utf-8")
    assert "finbench eval --adapter './a<script>;reboot' " in text  # one word of the shell, within code
    assert "<script>" not in re.sub("`[^`]*`", "", text)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables
    assert "### What was not tested" in text


def test_the_energy_is_an_estimate_that_says_so(made: tuple[RiskPage, Path]) -> None:
    plain, hot = made[0].shown[-1], finbench.risk(ADAPTER, [ADAPTER], watts=200).shown[-1]
    for one, other in zip(plain.rows, hot.rows, strict=True):
        assert float(other[-1]) == pytest.approx(2 * float(one[-1]), rel=0.01)
        assert float(one[-1]) == pytest.approx(float(one[1]) * 100 / 3600, rel=0.01)
    assert "estimate" in plain.notes[0]
    with pytest.raises(FinbenchError, match="no power"):
        finbench.risk(ADAPTER, watts=-1)


def test_the_command_writes_the_page_and_says_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    base = CARDS / "fpb-smollm2-135m.json"
    done = CliRunner().invoke(app.app, ["risk", str(base), str(base), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "untested" in done.output
    assert out.is_file()
    found = CliRunner().invoke(app.app, ["risk", str(base), str(base), "--out", str(out), "--json"])
    assert json.loads(found.stdout)["sections"][0]["title"] == "Score"
    for wrong in ("page.pdf", "page"):
        refused = CliRunner().invoke(app.app, ["risk", str(ADAPTER), "--out", str(tmp_path / wrong)])
        assert isinstance(refused.exception, FinbenchError)
    assert isinstance(CliRunner().invoke(app.app, ["risk", str(tmp_path / "none.json")]).exception, FinbenchError)
