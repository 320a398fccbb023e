"""Held-out rows: which they are, exact resume with the best so far, the step that is kept, refusals, what it costs."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter, Recipe
from finbench.data import import_data
from finbench.models import bases
from finbench.scoring import prompts
from finbench.training import answering, batches, checkpoints, curves, holdout, loops, recipes, runner, tuning
from finbench.training.validation import History, Validator
from make_data import write_sources

HELD = {"validation": 0.2, "validate_every": 2}


def test_a_share_that_is_held_out_is_told_in_words() -> None:
    made = recipes.recipe(None, {"tasks": ["mini_sentiment"], "validation": 0.15})
    assert f"8 rows of {holdout.spoken(made)}" == "8 rows of the 15 % of train that is held out"


def recipe(base: Path, **overrides: Any) -> Recipe:
    stated = {
        "base": str(base),
        "tasks": ["mini_sentiment"],
        "limit": 48,
        "batch_size": 8,
        "rank": 4,
        "dtype": "float32",
        "save_every": 3,
        "lr": 1e-2,
    }
    held = {} if overrides.get("validation", HELD) is None else HELD
    return recipes.recipe(None, {**stated, **held, **overrides})


def trained(base: Path, out: Path, **overrides: Any) -> Adapter:
    made = runner.train(recipe(base, **overrides), out)
    assert isinstance(made, Adapter)
    return made


def file_of(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("".join(json.dumps({"prompt": one, "completion": other}) + "\n" for one, other in rows))
    return str(path)


# ---------------------------------------------------------------- which rows


def test_a_share_is_held_out_by_source_and_nothing_of_it_is_learnt(llama: Path) -> None:
    run = runner.prepare(recipe(llama, limit=None, validate_every=1))
    assert run.held is not None
    learnt, held = {tuple(row.ids) for row in run.rows}, {tuple(row.ids) for row in run.held.rows}
    every = {tuple(row.ids) for row in runner.prepare(recipe(llama, limit=None, validation=None)).rows}
    assert not learnt & held
    assert learnt | held == every
    assert 0.1 < len(held) / len(every) < 0.3
    other = runner.prepare(recipe(llama, limit=None, validate_every=1, seed=5)).held
    assert other is not None
    assert {tuple(row.ids) for row in other.rows} != held


def test_rows_to_validate_on_decide_with_those_that_are_learnt_whether_all_are_packed(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same passes run them: one that is longer than the attention of the base reaches back would read too much."""
    own = file_of(tmp_path / "v.jsonl", [(f"Say {number}.", "yes") for number in range(9)] + [("one " * 150, "yes")])
    learnt = max(len(row.ids) for row in runner.prepare(recipe(llama, validation=None)).rows)
    assert learnt < 150
    monkeypatch.setattr(loops, "without_packing", lambda model, longest: "too long" * (longest > learnt))
    assert runner.prepare(recipe(llama, validation=None)).passes.loop != "padded"
    assert runner.prepare(recipe(llama, validation=own)).passes.loop == "padded"


@pytest.fixture
def divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped sets have no validation split: the first 30 rows of train are taken for one."""
    real = prompts.rows

    def rows(lm_task: Any, split: str) -> list[dict[str, Any]]:
        train = real(lm_task, "train")
        return {"validation": train[:30], "train": train[30:]}.get(split) or real(lm_task, split)

    monkeypatch.setattr(prompts, "rows", rows)


@pytest.mark.usefixtures("divided")
def test_a_split_of_the_tasks_is_taken_as_it_is_and_changes_no_weight(llama: Path, tmp_path: Path) -> None:
    """With select=last the adapter is that of a run that validates nothing, though the method draws dropout."""
    stated = {"dropout": 0.1, "validate_every": 1, "select": "last"}
    with_rows = trained(llama, tmp_path / "a", validation="split", **stated)
    plain = runner.train(recipe(llama, validation=None, dropout=0.1), tmp_path / "b")
    assert isinstance(plain, Adapter)
    assert with_rows.files == plain.files
    found = with_rows.training.validation
    assert found is not None
    assert found.source == "the tasks' validation split"
    assert found.selected == with_rows.training.steps
    assert plain.training.validation is None
    assert "validat" not in plain.to_json().replace('"validation": null', "")


@pytest.mark.usefixtures("divided")
def test_test_rows_and_train_rows_are_refused_before_anything_is_loaded(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finbench.core import catalog

    lm_task = prompts.load(catalog.expand(["mini_sentiment"]), None)["finbench_mini_sentiment"]
    monkeypatch.setattr("finbench.models.bases.load", lambda *_, **__: pytest.fail("weights were loaded"))
    for split, what in (("test", "1 are test rows of mini_sentiment"), ("train", "1 are train rows")):
        text = prompts.rows(lm_task, split)[0]["text"]
        rows = [("A sentence that nobody has ever seen before now.", "neutral"), (f"Judge: {text.upper()}", "positive")]
        with pytest.raises(FinbenchError, match=what):
            trained(llama, tmp_path / "a", validation=file_of(tmp_path / "v.jsonl", rows), limit=None)
    mine = [(f"What does sentence {number} say of the year?", "good") for number in range(40)]
    data = file_of(tmp_path / "mine.jsonl", mine)
    again = file_of(tmp_path / "again.jsonl", [*mine[3:5], ("Another question, of which nobody knows.", "bad")])
    with pytest.raises(FinbenchError, match="2 are train rows"):
        trained(llama, tmp_path / "a", tasks=[], data=[data], validation=again)
    split_row = [(prompts.rows(lm_task, "validation")[0]["text"], "neutral")]
    with pytest.raises(FinbenchError, match="1 are train rows"):
        trained(llama, tmp_path / "a", data=[file_of(tmp_path / "d.jsonl", mine + split_row)], validation="split")
    assert not (tmp_path / "a").exists()


def test_a_held_out_row_of_ones_own_is_a_train_row_but_for_case_and_spaces_too(llama: Path, tmp_path: Path) -> None:
    """Its prompt is shorter than the texts that are looked for inside others, or one that nobody would look for."""
    mine = [(f"Row {number}: costs\nAnswer:", "good") for number in range(40)] + [("+ -", "bad"), ("利益は?", "bad")]
    data = file_of(tmp_path / "mine.jsonl", mine)
    new = [("Another question, of which nobody knows.", "bad"), ("Row 77: costs\nAnswer:", "good"), ("- +", "bad")]
    near = [("  ROW  3:  COSTS\n\nanswer:", "good"), ("+ -\n", "bad"), (" 利益は?", "bad")]
    stated: dict[str, Any] = {"tasks": [], "data": [data], "limit": None}
    with pytest.raises(FinbenchError, match="3 are train rows"):
        runner.prepare(recipe(llama, **stated, validation=file_of(tmp_path / "near.jsonl", [*near, *new])))
    run = runner.prepare(recipe(llama, **stated, validation=file_of(tmp_path / "new.jsonl", new)))
    assert run.held is not None
    assert len(run.held.rows) == 3
    both = file_of(tmp_path / "both.jsonl", [*mine, *[(prompt.upper(), answer) for prompt, answer in mine[:40]]])
    run = runner.prepare(recipe(llama, **{**stated, "data": [both]}, validation=0.3))
    assert run.held is not None
    assert run.held.left_out > 0


def test_a_held_out_row_that_holds_a_test_text_is_left_out_and_counted() -> None:
    sieve = holdout.Sieve(
        {"set": ["eight words that are in the test of it"]}, ["nine words that are learnt in train, one more"], {7}
    )
    assert sieve.fits(["something that is new to all of us here"])
    assert not sieve.fits(["Before: EIGHT words that are in the test of it!"])
    assert not sieve.fits(["nine words that are learnt in train, one more"])
    assert not sieve.fits(["new words alone"], 7)
    assert dict(sieve.counts) == {"set": 1, "": 2, "any": 3}
    sieve.refuse("x", ["other"])
    with pytest.raises(FinbenchError, match="2 are train rows|1 are test rows of set"):
        sieve.refuse("x")


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"validation": 0.9}, "at most 0.5"),
        ({"validation": True}, "a share of train, split or one file"),
        ({"validation": "nothing.jsonl"}, "nothing.jsonl"),
        ({"validation": None, "patience": 3}, "patience is about rows held out"),
        ({"validation": None, "select": "best"}, "select is about rows held out"),
        ({"validate_every": 0}, "counts steps from 1"),
        ({"select": "first"}, "select"),
        ({"patience": 0}, "patience"),
        ({"limit": 4, "validation": 0.01}, ""),
    ],
)
def test_a_fault_of_the_recipe_is_named(stated: dict[str, Any], said: str, llama: Path) -> None:
    if not said:  # one row is enough
        run = runner.prepare(recipe(llama, **stated))
        assert run.held is not None
        assert len(run.held.rows) == 1
        return
    with pytest.raises(FinbenchError) as caught:
        runner.prepare(recipe(llama, **stated))
    assert said in caught.value.message + caught.value.hint


def test_a_metric_that_cannot_be_computed_is_refused_before_the_first_step(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [(f"What does sentence {number} say?", "good") for number in range(40)]
    with pytest.raises(FinbenchError, match="only rows of your own"):
        trained(llama, tmp_path / "a", tasks=[], data=[file_of(tmp_path / "m.jsonl", mine)], validate="metric")
    monkeypatch.setattr(holdout, "sample_rows", lambda *_, **__: 1 / 0)
    with pytest.raises(FinbenchError, match="cannot be computed: ZeroDivisionError"):
        trained(llama, tmp_path / "a", validate="metric")


# ---------------------------------------------------------------- the step that is kept


@pytest.fixture
def harmed(monkeypatch: pytest.MonkeyPatch) -> int:
    """Held-out rows lose ever more after the step that is given: which one does best is no matter of rounding."""
    last, real = 6, Validator._loss

    def loss(self: Validator) -> float:
        return real(self) + 10 * max(0, self.trainer.state.global_step - last)

    monkeypatch.setattr(Validator, "_loss", loss)
    return last


def test_the_loss_is_that_of_the_rows_one_by_one_and_the_best_step_is_kept(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harmed: int
) -> None:
    """Training harms in the end; the adapter is what the best step's checkpoint holds."""
    from finbench.models import attaching, bases

    monkeypatch.setattr("finbench.training.checkpoints.shutil.rmtree", lambda *_, **__: None)
    monkeypatch.setattr("finbench.training.checkpoints.clear", lambda *_, **__: None)
    monkeypatch.setattr(checkpoints, "prune", lambda *_: None)
    stated = {"epochs": 4, "schedule": "constant"}
    made = trained(llama, tmp_path / "a", **stated)
    found = made.training.validation
    assert found is not None
    best = min((value, step) for step, value in found.curve if step)
    assert found.selected == best[1] <= harmed < made.training.steps
    assert found.curve == found.loss
    kept = load_file(tmp_path / "a" / "checkpoints" / f"checkpoint-{best[1]}" / "adapter_model.safetensors")
    saved = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in kept.items())
    run = runner.prepare(recipe(llama, **stated))
    assert run.held is not None
    model, _ = bases.load(bases.resolve(str(llama)), 16, torch.float32)
    one_by_one = loops.Passes("padded", 1)
    assert tuning.answer_loss(model, run.held.rows, one_by_one) == pytest.approx(found.curve[0][1], abs=1e-4)
    again = attaching.attach(model, tmp_path / "a")
    assert tuning.answer_loss(again, run.held.rows, one_by_one) == pytest.approx(best[0], abs=1e-4)


@pytest.mark.parametrize("loop", ["padded", "packed", "shared"])
def test_every_loop_sees_the_same_loss(loop: str, llama: Path, tmp_path: Path) -> None:
    one, other = (trained(llama, tmp_path / name, loop=name, lr=1e-3) for name in ("padded", loop))
    assert one.training.validation is not None
    assert other.training.validation is not None
    for (step, value), (again, found) in zip(one.training.validation.loss, other.training.validation.loss, strict=True):
        assert step == again
        assert found == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize("method", ["adalora", "full", "galore", "dora", "vera"])
def test_any_method_goes_back_to_its_best_step(
    method: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a model made anew, into which the best step's checkpoint is restored as a resumed run would."""
    from finbench.methods import METHODS
    from finbench.training.trainer import AnswerTrainer

    if method not in METHODS:
        pytest.skip(f"no {method}")
    monkeypatch.setattr(checkpoints, "prune", lambda *_: None)
    own = {"lr": 1e-3} if method == "full" else {"lr": 0.3}
    ranked = {} if "rank" in METHODS[method].unused else {"rank": 4}
    plain = {"base": str(llama), "tasks": ["mini_sentiment"], "limit": 48, "batch_size": 8, "dtype": "float32"}
    chosen = recipes.recipe(None, {**plain, "method": method, "epochs": 4, **own, **ranked, **HELD})
    run = runner.prepare(chosen)
    folder = tmp_path / "checkpoints"
    model, tokenizer = runner.begin(run, run.dtype)
    monkeypatch.setattr(History, "best", property(lambda self: 4 if len(self.curve) > 2 else None))
    trainer, _ = runner.fit(run, model, tokenizer, folder)
    assert trainer.validated is not None
    assert trainer.validated.selected == 4
    fresh, _ = runner.begin(run, run.dtype)
    other, _ = runner.fit(replace(run, held=None, steps=4), fresh, tokenizer, tmp_path / "o", folder / "checkpoint-4")
    assert isinstance(other, AnswerTrainer)
    ours, theirs = dict(model.named_parameters()), dict(fresh.named_parameters())
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.usefixtures("harmed")
def test_patience_ends_a_training_and_the_record_says_so(llama: Path, tmp_path: Path) -> None:
    made = trained(llama, tmp_path / "a", epochs=20, patience=2, schedule="constant")
    found = made.training.validation
    assert found is not None
    assert found.stopped
    assert made.training.steps < 120
    assert made.training.steps == [step for step, _ in found.curve][-1]
    assert sum(step > found.selected for step, _ in found.curve) == 2
    assert made.training.loss_curve[-1][0] == made.training.steps
    rows = runner.prepare(recipe(llama)).rows
    assert made.training.tokens < 20 * sum(len(row.ids) for row in rows)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "ended early after 2 validations" in card
    assert "training.svg" in card


def test_history_by_hand() -> None:
    class Stated:
        patience, validate_on = 2, "loss"

    def of(*values: float, lower: bool = True) -> History:
        log = [{"step": 2 * at, "eval_loss": value, "eval_seconds": 1.0} for at, value in enumerate(values)]
        return History(Stated, lower, [{"step": 1, "loss": 3.0}, *log])  # type: ignore[arg-type]

    assert of().best is None
    assert of(1.0).best is None
    assert (of(1.0, 2.0).best, of(1.0, 2.0).helped) == (2, False)
    assert (of(3.0, 2.0, 2.0).best, of(3.0, 2.0, 2.0).waited, of(3.0, 2.0, 2.0).over) == (2, 1, False)
    assert of(3.0, 2.0, 2.5, 2.0).over
    assert of(3.0, math.nan, 2.5).best == 4
    assert of(0.1, 0.4, 0.3, lower=False).best == 2
    assert of(3, 2, 1, 5).bests == [2, 4]


@pytest.mark.usefixtures("divided")
def test_the_metric_is_what_eval_gives_on_the_same_rows(llama: Path, tmp_path: Path) -> None:
    """Oracle: finbench's own evaluation, with the held-out rows in the place of the test."""
    from finbench.core import catalog
    from finbench.engines import HFEngine
    from finbench.training.answering import Answerer

    run = runner.prepare(recipe(llama, validate="metric", validation="split"))
    assert run.held is not None
    assert run.held.measure == catalog.tasks()["finbench_mini_sentiment"].main_metric
    one = run.held.asked[0]
    engine = HFEngine(bases.resolve(str(llama)), dtype="float32")
    instances = prompts.asked(one.lm_task, one.docs)
    for instance, answer in zip(instances, engine.answer(instances, lambda done: None), strict=True):
        instance.resps = [answer]
    expected = one.value(instances)
    model, tokenizer = bases.load(bases.resolve(str(llama)), 16, torch.float32)
    assert Answerer(model, tokenizer).metric(run.held.asked, None) == pytest.approx(expected)
    rights = prompts.asked(one.lm_task, one.docs)
    for instance in rights:
        instance.resps = [prompts.gold_answer(one.lm_task, instance.doc)]
    assert one.value(rights) == 1.0
    made = trained(llama, tmp_path / "a", validate="metric", validation="split")
    found = made.training.validation
    assert found is not None
    assert not found.lower_is_better
    assert [step for step, _ in found.curve] == [step for step, _ in found.loss]
    assert found.value == max(value for step, value in found.curve if step)


# ---------------------------------------------------------------- exact resume


_RUN = """
import sys; from pathlib import Path; sys.path.insert(0, {tests!r})
from test_validation import recipe, runner
runner.train(recipe(Path(sys.argv[1]), epochs=6, dropout=0.1, lr=0.05), Path(sys.argv[2]), resume=len(sys.argv) > 3)
"""


def test_killed_in_the_middle_it_ends_in_the_same_bits_with_the_same_best_step(llama: Path, tmp_path: Path) -> None:
    whole = trained(llama, tmp_path / "whole", epochs=6, dropout=0.1, lr=0.05)
    out, rng = tmp_path / "killed", random.Random(5)
    for wanted in (12, 24):
        code = _RUN.format(tests=str(Path(__file__).parent))
        process = subprocess.Popen([sys.executable, "-c", code, str(llama), str(out), *["again"][: wanted > 12]])
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            steps = [checkpoints.step_of(path) for path in (out / "checkpoints").glob("checkpoint-*")]
            if steps and max(steps) >= wanted:
                break
            time.sleep(0.02)
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (out / "finbench.json").exists()
    resumed = runner.train(recipe(llama, epochs=6, dropout=0.1, lr=0.05), out, resume=True)
    assert isinstance(resumed, Adapter)
    assert resumed.files == whole.files
    one, other = whole.training.validation, resumed.training.validation
    assert one is not None
    assert other is not None
    same = {"seconds": 0.0}
    assert one.model_copy(update=same) == other.model_copy(update=same)


@pytest.mark.usefixtures("harmed")
def test_from_any_checkpoint_and_with_the_best_one_torn(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    stated = {"epochs": 3, "patience": 4, "schedule": "constant"}
    with monkeypatch.context() as kept_all:
        kept_all.setattr("finbench.training.checkpoints.shutil.rmtree", lambda *_, **__: None)
        kept_all.setattr("finbench.training.checkpoints.clear", lambda *_, **__: None)
        kept_all.setattr(checkpoints, "prune", lambda *_: None)
        whole = trained(llama, tmp_path / "whole", **stated)
    found = whole.training.validation
    assert found is not None
    kept = sorted((tmp_path / "whole" / "checkpoints").glob("checkpoint-*"), key=checkpoints.step_of)
    after = [path for path in kept if checkpoints.step_of(path) > found.selected]
    assert after
    for last in (kept[0], after[0], kept[-1]):
        out = tmp_path / last.name
        (out / "checkpoints").mkdir(parents=True)
        for path in kept:
            if checkpoints.step_of(path) <= checkpoints.step_of(last):
                shutil.copytree(path, out / "checkpoints" / path.name)
        shutil.copy(kept[0].parent / "run.json", out / "checkpoints")
        if last == after[0]:  # the checkpoint that it needs at the end is torn: an earlier one is gone on from
            next((out / "checkpoints" / f"checkpoint-{found.selected}").glob("*.safetensors")).write_bytes(b"torn")
        resumed = runner.train(recipe(llama, **stated), out, resume=True)
        assert isinstance(resumed, Adapter)
        assert resumed.files == whole.files, last.name
    assert f"the best step it knows, {found.selected}, has none" in capsys.readouterr().err


@pytest.mark.usefixtures("harmed")
def test_the_best_checkpoint_is_never_pruned(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []
    real = checkpoints.prune

    def prune(folder: Path, kept: Any = ()) -> None:
        real(folder, kept)
        seen.append({checkpoints.step_of(path) for path in folder.glob("checkpoint-*")})

    monkeypatch.setattr(checkpoints, "prune", prune)
    made = trained(llama, tmp_path / "a", epochs=5, schedule="constant")
    assert made.training.validation is not None
    best = made.training.validation.selected
    assert best < made.training.steps - 6
    assert all(best in steps for steps in seen if max(steps) >= best)
    assert max(map(len, seen)) <= 4


@pytest.mark.slow
def test_two_processes_validate_and_keep_what_one_does(llama: Path, tmp_path: Path) -> None:
    # at 0.02 the training is chaotic: rounding of 1e-7 is 0.04 nat after twelve steps
    chosen = recipe(llama, lr=0.005, epochs=3, validate="metric")
    one, two = runner.train(chosen, tmp_path / "one"), runner.train(chosen, tmp_path / "two", processes=2)
    assert isinstance(one, Adapter)
    assert isinstance(two, Adapter)
    assert one.training.validation is not None
    assert two.training.validation is not None
    assert [v for _, v in two.training.validation.loss] == pytest.approx(
        [v for _, v in one.training.validation.loss], abs=1e-5
    )
    assert two.training.validation.selected == one.training.validation.selected


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize("tokens", [10_000, 100_000, 10_000_000])
@pytest.mark.parametrize("held", [20, 200, 2000])
def test_auto_costs_a_tenth_at_most_or_as_little_as_it_can(tokens: int, held: int, llama: Path) -> None:
    rows = [batches.TrainingRow(list(range(60)), 3)] * held
    plan = holdout.schedule(recipe(llama, validate_every="auto"), rows, [], tokens, max(1, tokens // 960))
    spent = plan.times * plan.rows * 30
    assert plan.work == pytest.approx(spent / tokens)
    assert plan.work <= 0.1
    assert plan.times == math.ceil(max(1, tokens // 960) / plan.every) + 1
    stated = holdout.schedule(recipe(llama, validate_every=7), rows, [], tokens, 100)
    assert (stated.every, stated.rows, stated.times) == (7, held, 16)
    tiny = holdout.schedule(recipe(llama, validate_every="auto"), rows, [], 600, 5)  # before and after, on 8 rows
    assert (tiny.rows, tiny.times, tiny.every) == (8, 2, 5)


def test_the_first_answers_are_counted_as_long_as_they_may_be(llama: Path) -> None:
    """What has not learnt yet when to end says all that it may, once."""
    rows = [batches.TrainingRow(list(range(60)), 3)] * 50
    asked = [holdout.AskedTask("finbench_mini_sentiment", None, [])]
    plan = holdout.schedule(recipe(llama, validate_every="auto"), rows, asked, 33_000, 32)
    each, first = plan.rows * 30 + plan.answered * (30 + 3 * 4), plan.answered * 16 * 4
    assert plan.work == pytest.approx((plan.times * each + first) / 33_000)
    assert plan.work <= 0.1
    assert plan.times > 2


# ---------------------------------------------------------------- curves


def test_a_sparkline_by_hand() -> None:
    assert curves.sparkline([8, 7, 6, 5, 4, 3, 2, 1]) == "█▇▆▅▄▃▂▁"
    assert curves.sparkline([1, 1, 1]) == "▁▁▁"
    assert curves.sparkline([]) == curves.sparkline([math.nan]) == ""
    assert len(curves.sparkline([float(number) for number in range(1000)])) == 12
    log = [{"step": 0, "eval_loss": 2.5}, {"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.0}]
    assert curves.running(log) == "loss 1.000 █▁  held out 2.500"


def test_a_sample_answer_of_no_task_is_right_where_it_says_the_right_one_and_nothing_else() -> None:
    said = ["Neutral.\n", "neutral", "negative", "", "neutral, for nothing is said"]
    assert [answering.is_right(each, "neutral", None) for each in said] == [True, True, False, False, False]


@pytest.mark.parametrize("validation", [None, 0.2])
def test_a_sample_answer_of_a_task_is_right_where_its_own_scorer_says_so(
    validation: float | None, llama: Path, tmp_path: Path
) -> None:
    mine = file_of(tmp_path / "mine.jsonl", [(f"Say {number}.", f"{number}") for number in range(20)])
    stated = {"tasks": ["mini_headline", "mini_sentiment"], "data": [mine], "limit": None}
    run = runner.prepare(recipe(llama, validation=validation, **stated))
    model, tokenizer = runner.begin(run, torch.float32)
    shown = answering.shown(run, model, tokenizer, answering.shown(run, model, tokenizer))
    assert [(one.before_right, one.after_right) for one in shown] == [(False, False)] * 3
    assert all(one.before == one.after for one in shown)
    assert run.samples[-1][1] is None  # a row of one's own
    assert [asked and asked.name for _, asked in run.samples[:2]] == [
        "finbench_mini_headline",
        "finbench_mini_sentiment",
    ]
    for row, asked in run.samples[:2]:
        assert asked is not None
        [doc] = asked.docs
        assert tokenizer.decode(row.ids, skip_special_tokens=True) == "".join(prompts.pair(asked.lm_task, doc))
        right = prompts.gold_answer(asked.lm_task, doc)
        wrong = {"Yes": "No", "No": "Yes"}.get(right, "no label")
        for said in (right, f" {right.upper()}.", f" {right}\n{wrong}", f" The answer is **{right}**."):
            assert answering.is_right(said, right, asked)
        for said in ("", wrong, f"\n{right}", f" {wrong}\n{right}"):
            assert not answering.is_right(said, right, asked)


def test_no_scorer_reads_an_answer_where_labels_are_chosen(llama: Path, tmp_path: Path) -> None:
    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "data")
    run = runner.prepare(recipe(llama, tasks=["fpb_mc"], validation=None), tmp_path / "data")
    assert [asked for _, asked in run.samples] == [None] * 3


def test_the_page_is_one_file_that_shows_every_curve_and_escapes_what_it_quotes(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [(f"<script>alert({number})</script> & what does it say?", f"<b>{number}</b>") for number in range(40)]
    data = file_of(tmp_path / "mine.jsonl", mine)
    trained(llama, tmp_path / "a", tasks=[], data=[data], limit=None)
    page = (tmp_path / "a" / "training.html").read_text()
    assert page.count("<svg") == 5
    for title in ("Loss", "Learning rate", "Gradient norm", "Speed", "Memory", "Answers before and after"):
        assert title in page
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page
    assert page.count('class="sample"') == 3
    assert len(re.findall("<h3>(before|after): (right|wrong)</h3>", page)) == 6
    assert str(tmp_path) not in page
    for text in ("http://", "https://"):
        assert text not in page.replace("http://www.w3.org/2000/svg", "")
    from xml.etree import ElementTree

    ElementTree.fromstring((tmp_path / "a" / "training.svg").read_text())


# ---------------------------------------------------------------- defaults for base and rows


def test_defaults_follow_base_and_rows_and_leave_what_is_stated(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finbench.training import suited

    plain = recipes.recipe(None, {"base": str(llama), "tasks": ["mini_sentiment"]})

    def chosen(size: float, rows: int, *stated: str) -> Recipe:
        monkeypatch.setattr(bases, "parameter_count", lambda model: size)
        found = suited.choose(plain, stated, rows)
        assert len(found.reasons) == len({"lr", "batch_size", "epochs", "rank"} - set(stated))
        return found.recipe

    small = chosen(1.35e8, 3_453)  # the embedded base on FPB: a second pass alone
    assert small == plain.model_copy(update={"epochs": 2})
    assert (chosen(7e9, 3_453).lr, chosen(6.5e10, 3_453).lr) == (2e-4, 1e-4)
    assert 2e-4 < chosen(1e9, 3_453).lr < 1e-3
    few = chosen(7e9, 100)
    assert (few.batch_size, few.epochs) == (8, 5)
    assert [chosen(7e9, rows).epochs for rows in (900, 1_200, 4_799, 4_800)] == [5, 4, 2, 1]
    many = chosen(7e9, 80_000)
    assert (many.batch_size, many.epochs, many.rank, many.alpha) == (32, 1, 32, 64)
    kept = chosen(7e9, 80_000, "lr", "rank")
    assert (kept.lr, kept.rank, kept.alpha) == (plain.lr, plain.rank, plain.alpha)
    assert suited.suit(plain.model_copy(update={"limit": 8}), []).lr == plain.lr
