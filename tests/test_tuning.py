"""finbench tune: equal budgets, rows held out of train, a search that goes on, a recipe that says where it is from."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.records import Adapter, Search, Trial
from finbench.methods import METHODS, method_named
from finbench.models import bases
from finbench.scoring import prompts
from finbench.training import loops, recipes, runner, tuning
from finbench.training.holdout import place


def recipe(base: Path, method: str = "lora", **overrides: Any) -> Any:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "method": method, "limit": 64, "batch_size": 8}
    stated |= {"dtype": "float32", "lr": 3e-3} | ({} if "rank" in method_named(method).unused else {"rank": 4})
    return recipes.recipe(None, {**stated, **overrides})


def _search(found: Any) -> Search:
    assert found.search is not None
    return found.search  # type: ignore[no-any-return]


@pytest.mark.parametrize("budget", range(1, 7))
def test_each_rung_costs_one_training_whatever_the_budget(budget: int) -> None:
    rates, rungs = tuning.plan(1e-3, budget)
    assert len(rungs) == budget
    assert all(count * share == 1 for count, share in rungs)
    assert len(rates) == rungs[0][0] == 2**budget
    assert 1e-3 in rates
    assert all(b / a == pytest.approx(2, rel=1e-3) for a, b in itertools.pairwise(rates))


@pytest.mark.parametrize("seed", range(12))
def test_of_few_sources_one_is_held_out_and_of_one_none_can_be(seed: int, llama: Path) -> None:
    """Four filings, of which a fifth would be none with four seeds of ten."""
    stated, sources = recipe(llama, seed=seed, limit=None), [f"filing {number % 4}" for number in range(400)]
    sides = {side: tuning._side(stated, side, 1.0)("xbrl", 400, sources.__getitem__) for side in ("held", "train")}
    of = {side: {sources[number] for number in numbers} for side, numbers in sides.items()}
    assert of["held"] | of["train"] == set(sources)
    assert not of["held"] & of["train"]
    assert (
        of["held"] == {one for one in set(sources) if place(one, seed, "finbench-tune") < 0.2} or len(of["held"]) == 1
    )
    with pytest.raises(FinbenchError, match="too few train rows \\(400, of 1 source\\)"):
        tuning._side(stated, "train", 1.0)("xbrl", 400, lambda number: "one filing")


@pytest.mark.parametrize("budget", [0, -1, 7])
def test_a_budget_that_makes_no_search_is_refused(budget: int, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="from 1 to 6 whole trainings") as caught:
        tuning.tune(recipe(llama), tmp_path / "t", budget=budget)
    assert caught.value.hint == "--budget 3"


def test_a_dry_run_says_the_same_work_for_every_method_and_writes_nothing(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = prompts.rows

    def spy(lm_task: Any, split: str) -> Any:
        asked.append(split)
        return real(lm_task, split)

    monkeypatch.setattr(prompts, "rows", spy)
    monkeypatch.setattr(bases, "load", None)
    monkeypatch.chdir(tmp_path)
    seen = {}
    for name, method in METHODS.items():
        found = tuning.search_outline(recipe(llama, name, limit=400, bits=method.bits[0]), budget=3)
        assert [rung["trials"] for rung in found["rungs"]] == [8, 4, 2]
        assert found["tokens"] == sum(rung["trials"] * rung["tokens"] for rung in found["rungs"])
        assert len(found["rates"]) == 8
        whole, rows = found["tokens"] / 3, found["validation_rows"]
        scored = (found["trainings"] - 3) / 14 * 2 * whole  # of each of fourteen trials, at half of a step's work
        assert scored / rows == pytest.approx(whole / (2 * found["rungs"][-1]["rows"]), rel=0.1)  # tokens a row
        seen[name] = (found["rungs"], found["tokens"], found["validation_rows"])
    assert len({str(work) for work in seen.values()}) == 1
    assert set(asked) == {"train"}
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "xdg"}


def test_a_plan_takes_a_fifth_of_the_rows_to_be_held_out_or_where_some_are_left_out_as_many_as_may_be() -> None:
    def share(limit: int | None) -> float:
        parts = [SimpleNamespace(rows=min(rows, limit or rows)) for rows in (100, 3000)]
        run: Any = SimpleNamespace(recipe=SimpleNamespace(limit=limit, epochs=2), data=parts)
        return tuning.held_share(run)

    assert share(None) == (20 + 200) / (2 * 3100)
    assert share(150) == (20 + 150) / (2 * 250)


def test_what_is_outlined_is_what_is_done(llama: Path, tmp_path: Path) -> None:
    chosen = recipe(llama, limit=32)
    found = tuning.search_outline(chosen, budget=2)
    tuned, _ = tuning.tune(chosen, tmp_path / "t", budget=2)
    trials = _search(tuned).trials
    assert [sum(trial.rung == rung for trial in trials) for rung in (0, 1)] == [r["trials"] for r in found["rungs"]]
    assert {(t.rows, t.steps) for t in trials} == {(r["rows"], r["steps"]) for r in found["rungs"]}
    assert {t.lr for t in trials if t.rung == 0} == set(found["rates"])
    assert _search(tuned).validation_rows == found["validation_rows"]


def test_a_method_that_needs_steps_is_refused_for_its_rungs_not_for_the_rows_held_out(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "MOST_HELD_OUT", 8)  # one step's worth
    tuning.search_outline(recipe(llama, "adalora", limit=64), budget=1)
    with pytest.raises(FinbenchError, match="more than 2 optimiser steps"):
        tuning.search_outline(recipe(llama, "adalora", limit=64), budget=2)


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_ends_in_the_same_recipe(llama: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of a trial: what was finished is kept, the rest is done again."""
    stated = ["--base", str(llama), "--task", "mini_sentiment", "--limit", "64", "--budget", "2", "--rank", "4"]
    stated += ["--set", "dtype=float32", "--set", "batch_size=8"]

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "finbench", "tune", *stated, "--out", str(out)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait(timeout=600) == 0
    search = tmp_path / "parts" / "search.json"
    running = start(tmp_path / "parts")
    while not search.is_file() or len(json.loads(search.read_text())["trials"]) < 3:
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.wait()
    before = json.loads(search.read_text())["trials"]
    assert len(before) < 6
    assert start(tmp_path / "parts").wait(timeout=600) == 0
    assert json.loads(search.read_text())["trials"][: len(before)] == before
    one, other = (next((tmp_path / name).glob("*-tuned.yaml")) for name in ("whole", "parts"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("method", ["lora", pytest.param("vera", marks=pytest.mark.slow)])
def test_the_winner_is_the_likeliest_on_held_out_rows_at_the_same_cost_for_any_method(
    method: str, llama: Path, tmp_path: Path
) -> None:
    chosen = recipe(llama, method)
    tuned, path = tuning.tune(chosen, tmp_path / "t", budget=2)
    search = _search(tuned)
    assert [(trial.rung, trial.rows) for trial in search.trials] == [(0, 16)] * 4 + [(1, 32)] * 2
    last = [trial for trial in search.trials if trial.rung == 1]
    assert tuned.lr == min(last, key=lambda trial: trial.loss or 1e9).lr
    first = sorted((trial for trial in search.trials if trial.rung == 0), key=lambda trial: trial.loss or 1e9)
    assert {trial.lr for trial in last} == {trial.lr for trial in first[:2]}
    again = recipes.recipe(str(path))
    assert again.model_dump(exclude={"name"}) == tuned.model_dump(exclude={"name"})
    assert tuned.model_dump(exclude={"lr", "search"}) == chosen.model_dump(exclude={"lr", "search"})


def test_passes_are_held_against_padded_ones_once_a_search(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its trainings start from the same weights; one that finds nothing better is padded in all."""
    plain, asked = loops.settled, []

    def spy(passes: loops.Passes, *others: Any) -> tuple[loops.Passes, str]:
        asked.append(passes.loop)
        found = plain(passes, *others)[0]
        return (found if passes.loop == "padded" else dataclasses.replace(found, loop=answer)), ""

    monkeypatch.setattr(loops, "settled", spy)
    begun, real = [], runner.fit

    def fit(*args: Any, **how: Any) -> Any:
        begun.append(real(*args, **how))
        return begun[-1]

    monkeypatch.setattr(runner, "fit", fit)
    for answer in ("packed", "padded"):
        tuning.tune(recipe(llama, loop="auto"), tmp_path / answer, budget=2)
        assert [trainer.passes.loop for trainer, _ in begun] == [answer] * 6
        assert len(asked) == 1
        begun.clear()
        asked.clear()
    planned = iter(["packed", "packed", "padded"])  # held out, and the rungs: rows of the second are too long
    monkeypatch.setattr(loops, "choose", lambda *_: (next(planned), ""))
    answer = "packed"
    tuning.tune(recipe(llama), tmp_path / "longer", budget=2)
    assert [trainer.passes.loop for trainer, _ in begun] == ["packed"] * 4 + ["padded"] * 2


def test_no_text_is_on_both_sides_and_none_is_of_another_split(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sentences, whatever they are asked: two tasks on one text are held out together."""
    chosen = recipe(llama, limit=None)
    seen: dict[str, list[dict[str, Any]]] = {}
    real = tuning._side
    lm_task = prompts.load(catalog.expand(chosen.tasks), None)["finbench_mini_sentiment"]
    docs = prompts.rows(lm_task, "train")

    def spy(what: Any, side: Any, share: float) -> Any:
        select = real(what, side, share)

        def run(name: str, count: int, known_by: Any) -> Any:
            numbers = select(name, count, known_by)
            seen[side] = [docs[number] for number in numbers]
            return numbers

        return run

    for side in ("held", "train"):
        runner.prepare(tuning._untouched(chosen), None, spy(chosen, side, 1.0))
    texts = {side: {row["text"] for row in rows} for side, rows in seen.items()}
    assert not texts["held"] & texts["train"]
    lines = (paths.shipped("tasks") / "mini" / "mini_sentiment.train.jsonl").read_text().splitlines()
    assert texts["held"] | texts["train"] <= {json.loads(line)["text"] for line in lines}
    count = len(seen["held"]) + len(seen["train"])
    assert 0.1 * count < len(seen["held"]) <= tuning.MOST_HELD_OUT
    monkeypatch.setattr(tuning, "MOST_HELD_OUT", 7)
    runner.prepare(tuning._untouched(chosen), None, spy(chosen, "held", 1.0))
    assert len(seen["held"]) == 7


@pytest.mark.slow
def test_a_stopped_search_goes_on_and_ends_as_one_that_was_not(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(llama)
    _, whole = tuning.tune(chosen, tmp_path / "whole", budget=2)
    real, asked = tuning._trial, []

    def stopped(run: Any, *others: Any) -> Trial:
        asked.append((others[1], run.recipe.lr))
        if len(asked) == 4:
            raise Interrupted("Stopped.")
        return real(run, *others)

    monkeypatch.setattr(tuning, "_trial", stopped)
    with pytest.raises(Interrupted):
        tuning.tune(chosen, tmp_path / "parts", budget=2)
    before = list(asked)
    _, path = tuning.tune(chosen, tmp_path / "parts", budget=2)
    assert asked[4:][0] == before[-1]
    assert len(asked) == 4 + 3
    assert path.read_bytes() == whole.read_bytes()
    tuning.tune(chosen, tmp_path / "parts", budget=2)  # finished: nothing is trained again
    assert len(asked) == 7


def test_a_folder_of_another_search_is_refused(llama: Path, tmp_path: Path) -> None:
    tuning.tune(recipe(llama, limit=16), tmp_path / "t", budget=1)
    for other, budget in ((recipe(llama, limit=16, rank=2), 1), (recipe(llama, limit=16), 2)):
        with pytest.raises(FinbenchError, match="of another search") as caught:
            tuning.tune(other, tmp_path / "t", budget=budget)
        assert "--out" in caught.value.hint
    (tmp_path / "t" / "search.json").write_text("{")
    with pytest.raises(FinbenchError, match="is torn"):
        tuning.tune(recipe(llama, limit=16), tmp_path / "t", budget=1)


def test_a_rate_that_diverges_is_ranked_last_and_if_all_do_it_is_said(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="Every learning rate diverged") as caught:
        tuning.tune(recipe(llama, lr=1e30, max_grad_norm=0, warmup=0), tmp_path / "t", budget=1)
    assert "--lr" in caught.value.hint
    trials = [
        Trial(rung=0, lr=lr, rows=1, steps=1, loss=loss) for lr, loss in ((1, None), (2, 0.5), (4, 0.2), (3, 0.2))
    ]
    assert [trial.lr for trial in tuning._ranked(trials, 0)] == [3, 4, 2, 1]


def test_the_tuned_recipe_is_trained_and_recorded_and_a_change_parts_it_from_its_search(
    llama: Path, tmp_path: Path
) -> None:
    tuned, path = tuning.tune(recipe(llama, limit=16), tmp_path / "t", budget=1)
    made = runner.train(recipes.recipe(str(path)), tmp_path / "a")
    assert isinstance(made, Adapter)
    assert made.recipe.search == tuned.search
    assert recipes.recipe(str(path), {"seed": 1}).search == tuned.search
    for change in ({"lr": 1e-4}, {"rank": 2}, {"method": "dora"}):
        assert recipes.recipe(str(path), change).search is None
    stated = yaml.safe_load(path.read_text())
    assert stated["search"]["validation_rows"] > 0
    assert set(stated["search"]["data"]) == set(_search(tuned).data)


@pytest.mark.parametrize(("method", "own"), [("lora", {}), ("dora", {}), ("lora", {"rank_pattern": {"q_proj": 2}})])
def test_the_loss_that_decides_is_the_same_by_every_loop(
    method: str, own: dict[str, Any], llama: Path, tmp_path: Path
) -> None:
    """Oracle: each row by itself, no padding, and the log-probabilities of its answer's tokens by torch."""
    run = runner.prepare(recipe(llama, method, **own))
    model, tokenizer = runner.begin(run, run.dtype)
    runner.fit(run, model, tokenizer, tmp_path)
    total = count = 0.0
    with torch.no_grad():
        for row in run.rows:
            found = model(input_ids=torch.tensor([row.ids])).logits[0, :-1].float().log_softmax(-1)
            said = torch.tensor(row.ids[1:])[-row.answer :]
            total -= float(found[-row.answer :].gather(1, said[:, None]).sum())
            count += row.answer
    for loop in ("padded", "packed", "shared"):
        passes = loops.Passes(loop, 4, tokens=300, pad=tokenizer.pad_token_id)  # type: ignore[arg-type]
        assert tuning.answer_loss(model, run.rows, passes) == pytest.approx(total / count, rel=1e-4)
