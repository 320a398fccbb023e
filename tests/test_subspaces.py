"""ROSA and ReLoRA: a move changes no output, the rank of the sum grows, a run killed in a cycle ends in equal bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter
from finbench.methods import method_named
from finbench.methods.convert import lora_layers
from finbench.methods.subspaces import weight_of
from finbench.models import adapters, attaching, bases
from finbench.training import batches, loops, recipes, runner
from finbench.training.merging import log_probabilities
from finbench.training.trainer import AnswerTrainer, arguments

TEXT = "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn."


def recipe(base: Path, method: str, **overrides: Any) -> Any:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "method": method, "limit": 48, "batch_size": 8}
    stated |= {"dtype": "float32", "lr": 3e-3, "alpha": 8, "rank": 4}
    return recipes.recipe(None, {**stated, **overrides})


def _trainer(chosen: Any, folder: Path) -> tuple[AnswerTrainer, Any]:
    run = runner.prepare(chosen)
    model, tokenizer = runner.begin(run, torch.float32)
    made = AnswerTrainer(
        run.sampler,
        None,
        run.recipe,
        loops.Passes("padded", run.recipe.batch_size),
        model=model,
        args=arguments(run.recipe, run.steps, folder, torch.float32),
        train_dataset=run.rows,
        data_collator=lambda part: batches.collate(part, tokenizer.pad_token_id),
    )
    return made, tokenizer


@pytest.mark.parametrize(
    ("method", "base"), [("rosa", "llama"), ("rosa", "gpt2"), ("relora", "llama"), ("relora", "gpt2")]
)
def test_a_move_changes_no_output_and_the_optimiser_forgets(
    method: str, base: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    chosen = recipe(folders[base], method, every=100, epochs=20)  # no move by itself in four steps
    trainer, tokenizer = _trainer(chosen, tmp_path)
    trainer.args.max_steps = 4
    trainer.train()
    model, optimizer = trainer.model, trainer.optimizer.optimizer
    factors = [tensor for tensor in model.parameters() if tensor.requires_grad]
    assert all(optimizer.state[tensor]["exp_avg"].any() for tensor in factors)
    before = log_probabilities(model.eval(), tokenizer, TEXT)
    held = [(weight_of(m).clone(), m.lora_A["default"].weight.detach().clone()) for _, m in lora_layers(model)]
    method_named(method).move(model, trainer.optimizer, chosen, 4)
    assert float((log_probabilities(model, tokenizer, TEXT) - before).abs().max()) <= 1e-5
    for (weight, a), (_, module) in zip(held, lora_layers(model), strict=True):
        assert not torch.equal(weight_of(module), weight)
        assert not torch.allclose(module.lora_A["default"].weight, a, atol=1e-3)
    if method == "rosa":
        assert all(tensor not in optimizer.state for tensor in factors)
    else:
        for tensor in factors:
            for key in ("exp_avg", "exp_avg_sq"):
                assert int((optimizer.state[tensor][key] != 0).sum()) <= tensor.numel() * 0.01 + 1
            first, second = (optimizer.state[tensor][key] for key in ("exp_avg", "exp_avg_sq"))
            assert first.any()
            assert not first[second == 0].any()


def test_rosas_factors_are_singular_triples_that_differ_from_move_to_move(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    method = method_named("rosa")
    chosen = recipe(folders["llama"], "rosa")
    trainer, _ = _trainer(chosen, tmp_path)
    published, _ = bases.load(bases.resolve(str(folders["llama"])), 16, torch.float32)
    seen = []
    for step in range(1, 4):
        for name, module in lora_layers(trainer.model):
            own = published.get_submodule(name.removeprefix("base_model.model.")).weight
            low = module.scaling["default"] * module.lora_B["default"].weight @ module.lora_A["default"].weight
            torch.testing.assert_close(weight_of(module) + low, own, atol=1e-5, rtol=0)
            values, all_of_them = torch.linalg.svdvals(low.detach())[:4], torch.linalg.svdvals(own.detach())
            assert all(float((all_of_them - value).abs().min()) < 1e-4 for value in values)
            assert float(torch.linalg.svdvals(low.detach())[4:].max()) < 1e-5
        module = trainer.model.base_model.model.model.layers[0].mlp.up_proj
        seen.append(module.lora_A["default"].weight.detach().clone())
        method.move(trainer.model, torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]), chosen, step)
    assert not torch.allclose(seen[0], seen[1], atol=1e-2)
    again, _ = _trainer(chosen, tmp_path)
    first = again.model.base_model.model.model.layers[0].mlp.up_proj.lora_A["default"].weight
    assert torch.equal(first, seen[0])  # the seed decides


def test_relora_restarts_the_learning_rate(folders: dict[str, Path], tmp_path: Path) -> None:
    chosen = recipe(folders["llama"], "relora", every=5, epochs=4, restart_warmup=0.4, warmup=0.05)
    trainer, _ = _trainer(chosen, tmp_path)
    rates: list[float] = []
    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    trainer.train()
    assert len(rates) == 24
    assert [step for step, rate in enumerate(rates) if rate == 0] == [0, 5, 10, 15, 20]
    for start in (5, 10, 15):
        assert 0.4 < rates[start + 1] / rates[start + 2] < 0.8  # half way up, then on the falling cosine
    tops = [max(rates[start : start + 5]) for start in range(0, 20, 5)]
    assert tops == sorted(tops, reverse=True)
    assert trainer.model.finbench_moves == 4


@pytest.fixture(scope="module")
def trained(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Adapter]]:
    """Three cycles of each, as they are by themselves, cut to rank 4, and whole."""
    found = {}
    for method, forms in (("rosa", ({}, {"save_rank": 4}, {"save": "model"})), ("relora", ({}, {"save_rank": 4}))):
        for more in forms:
            name = "-".join([method, *map(str, more.values())])
            out = tmp_path_factory.mktemp("runs") / name
            made = runner.train(recipe(folders["llama"], method, every=2, **more), out)
            assert isinstance(made, Adapter)
            found[name] = (out, made)
    return found


@pytest.mark.parametrize(("method", "most"), [("rosa", 24), ("relora", 12)])
def test_the_rank_of_the_update_grows_with_the_cycles(method: str, most: int, trained: dict[str, Any]) -> None:
    out, made = trained[method]
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (most, most)
    tensors = load_file(out / adapters.WEIGHTS)
    update = next(
        tensors[name.replace("lora_A", "lora_B")] @ tensor
        for name, tensor in tensors.items()
        if "up_proj.lora_A" in name
    )
    values = torch.linalg.svdvals(update)
    assert int((values > 1e-4 * values[0]).sum()) > 4
    assert made.truncation is not None
    assert (made.truncation.rank, made.truncation.of) == (most, most)
    assert made.truncation.worst < 1e-4
    assert made.truncation.largest_difference < 1e-4


@pytest.mark.parametrize("method", ["rosa", "relora"])
def test_what_a_smaller_rank_loses_is_stated(method: str, trained: dict[str, Any]) -> None:
    out, made = trained[f"{method}-4"]
    lost = made.truncation
    assert json.loads((out / "adapter_config.json").read_text())["r"] == lost.rank == 4
    assert 0.01 < lost.weights <= lost.worst < 1
    assert lost.largest_difference > 1e-3
    whole, cut = (load_file(trained[name][0] / adapters.WEIGHTS) for name in (method, f"{method}-4"))
    gone, norm = 0.0, 0.0
    for name in (name for name in whole if ".lora_A." in name):
        one, other = (part[name.replace("lora_A", "lora_B")] @ part[name] for part in (whole, cut))
        gone, norm = gone + float((one - other).square().sum()), norm + float(one.square().sum())
    assert lost.weights == pytest.approx((gone / norm) ** 0.5, rel=1e-3)
    said = (out / "README.md").read_text()
    assert f"Cut off: {100 * lost.weights:.2g} % of its norm" in said


def test_a_whole_model_is_the_adapter_merged(trained: dict[str, Any], folders: dict[str, Path]) -> None:
    out, made = trained["rosa-model"]
    assert (made.kind, made.truncation) == ("model", None)
    whole, tokenizer = bases.load(bases.Base(made.base, out), 16, torch.float32)
    base, _ = bases.load(bases.resolve(str(folders["llama"])), 16, torch.float32)
    one = log_probabilities(whole, tokenizer, TEXT)
    other = log_probabilities(attaching.attach(base, trained["rosa"][0]).eval(), tokenizer, TEXT)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_weights_that_are_folded_into_are_float32(folders: dict[str, Path]) -> None:
    run = runner.prepare(recipe(folders["llama"], "rosa", dtype="bfloat16"))
    model, _ = runner.begin(run, torch.bfloat16)
    assert all(weight_of(module).dtype is torch.float32 for _, module in lora_layers(model))


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
@pytest.mark.parametrize("method", ["rosa", "relora"])
def test_a_move_of_the_embedded_base_changes_no_output(method: str) -> None:
    """In float32, relative to the largest logit; 210 matrices."""
    known = {"tasks": ["mini_sentiment"], "method": method, "limit": 128, "dtype": "float32", "every": 2}
    chosen = recipes.recipe(None, known)
    model, tokenizer = runner.begin(runner.prepare(chosen), torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, module in lora_layers(model):  # as if they had been trained
            factor = module.lora_B["default"].weight
            factor += 0.01 * torch.randn(factor.shape, generator=generator)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    with torch.no_grad():
        before = model.eval()(ids).logits
        method_named(method).move(model, torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]), chosen, 1)
        after = model(ids).logits
    assert float((after - before).abs().max() / before.abs().max()) <= 1e-5


_KILLED = """
import os, signal, sys
from pathlib import Path
from finbench.training import recipes
from finbench.training import runner
from finbench.training.trainer import TrainingWatch
real = TrainingWatch.on_step_end
def step_end(self, args, state, control, **more):
    if state.global_step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, args, state, control, **more)
TrainingWatch.on_step_end = step_end
runner.train(recipes.recipe(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "base"), [("rosa", "llama"), ("relora", "llama"), ("rosa", "gpt2")])
def test_killed_in_the_middle_of_a_cycle_it_ends_in_the_same_bits(
    method: str, base: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Cycles of four steps, checkpoints after 3 and 6, killed at the end of step 7."""
    chosen = recipe(folders[base], method, every=4, epochs=2, save_every=3, dropout=0.1)
    (tmp_path / "r.yaml").write_text(json.dumps(chosen.model_dump(exclude={"search"})))
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "r.yaml"), str(tmp_path / "cut"), "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole = runner.train(chosen, tmp_path / "whole")
    resumed = runner.train(chosen, tmp_path / "cut", resume=True)
    assert isinstance(whole, Adapter)
    assert isinstance(resumed, Adapter)
    assert resumed.files == whole.files
    assert resumed.training.loss_curve == whole.training.loss_curve


@pytest.mark.parametrize(
    ("stated", "message", "hint"),
    [
        ({"method": "rosa", "bits": 4}, "rounded to the quantised weights", "--bits 16"),
        ({"method": "relora", "bits": 8}, "rounded to the quantised weights", "--bits 16"),
        (
            {"method": "rosa", "every": 6},
            r"would never move: a cycle has 6 steps, and so many has the run \(6\)",
            "epochs",
        ),
        ({"method": "rosa", "every": 0}, "a number of steps from 1 on", "every=50"),
        ({"method": "rosa", "every": 1.5}, "a number of steps from 1 on", "every=0.25"),
        ({"method": "rosa", "pick": "middle"}, "random, top or bottom", ""),
        ({"method": "rosa", "save": "delta"}, "lora or model", "save=lora"),
        ({"method": "rosa", "save": "model", "save_rank": 4}, "of save=lora", "save_rank=64"),
        ({"method": "rosa", "use_dora": True}, "saved as a plain LoRA", "Leave it out"),
        ({"method": "rosa", "target_modules": ["lm_head"]}, "is its embedding too", "target_modules"),
        ({"method": "relora", "every": 1}, "a cycle of 1 step learns nothing", "every=2"),
        ({"method": "relora", "every": 0.1}, "a cycle of 1 step learns nothing", "every=2"),
        ({"method": "relora", "prune": 0}, "above 0 and at most 1", "prune=0.9"),
    ],
    ids=str,
)
def test_it_is_refused_before_any_weight_is_loaded(
    stated: dict[str, Any], message: str, hint: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "load", None)
    with pytest.raises(FinbenchError, match=message) as caught:
        runner.prepare(recipe(folders["llama"], **stated))
    assert hint in caught.value.hint
