"""Optimisers of reduced moments: what they compute, that they resume exactly, what is refused, what they hold."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_pretraining import in_child, recipe, same, text  # noqa: F401  a fixture
from torch import nn

from finbench.core.errors import FinbenchError
from finbench.pretraining import loop, lowmemory, prepared, report, result, run, spec

KINDS = ["galore", "apollo", "apollo-mini", "fira"]
RANK, GAP, SEED = 3, 4, 7
BETAS, RATE, EPS, DECAY = (0.9, 0.95), 0.03, 1e-6, 0.1
SHAPES = {"tall": (11, 6), "wide": (5, 9), "square": (6, 6), "plain": (7, 4), "vector": (6,)}


def stated(kind: str) -> spec.OptimizerSpec:
    return spec.OptimizerSpec(kind=kind, rank=1 if kind == "apollo-mini" else RANK, update_gap=GAP)  # type: ignore[arg-type]


def made(kind: str) -> tuple[dict[str, nn.Parameter], lowmemory.LowMemoryAdamW]:
    """Five weights, three of them reduced, and their optimiser."""
    torch.manual_seed(0)
    weights = {name: nn.Parameter(torch.randn(shape)) for name, shape in SHAPES.items()}
    how = stated(kind)
    low, others = list(weights.values())[:3], list(weights.values())[3:]
    groups = [
        {"params": others, "weight_decay": DECAY},
        {"params": low, "weight_decay": DECAY, "rank": how.rank},
    ]
    return weights, lowmemory.LowMemoryAdamW(groups, how, SEED, lr=RATE, betas=BETAS, eps=EPS)


def gradients(step: int) -> dict[str, torch.Tensor]:
    """Of a step: some steps have large ones, which the limiter of norms must meet."""
    drawn = torch.Generator().manual_seed(100 + step)
    size = 5.0 if step in (3, 6) else 1.0
    return {name: size * torch.randn(shape, generator=drawn) for name, shape in SHAPES.items()}


def walked(weights: dict[str, nn.Parameter], optimizer: Any, steps: range) -> list[dict[str, np.ndarray]]:
    """The weights after each step."""
    seen = []
    for step in steps:
        for name, gradient in gradients(step).items():
            weights[name].grad = gradient
        optimizer.step()
        seen.append({name: weight.detach().numpy().copy() for name, weight in weights.items()})
    return seen


def by_formulas(kind: str, steps: int) -> list[dict[str, np.ndarray]]:
    """The same by the formulas of the papers, in NumPy's float64, one weight after another."""
    weights, _ = made(kind)
    how, low = stated(kind), list(SHAPES)[:3]
    now = {name: weight.detach().numpy().astype(float) for name, weight in weights.items()}
    held: dict[str, dict[str, Any]] = {name: {"m": 0.0, "v": 0.0} for name in now}
    seen = []
    for step in range(steps):
        for name, gradient in gradients(step).items():
            g, state = gradient.numpy().astype(float), held[name]
            turned = name in low and g.shape[0] < g.shape[1]
            if name in low and step % GAP == 0:
                if kind.startswith("apollo"):
                    shape = (int(how.rank or 0), min(g.shape))
                    number = 1 << 32 | low.index(name)
                    state["p"] = lowmemory.random_directions(SEED, number, step // GAP, shape, "cpu").numpy()
                else:
                    u, _, vh = np.linalg.svd(g)
                    p = (u.T if turned else vh)[:RANK]
                    # a singular vector has no sign of its own, and moments outlive it: that of torch's LAPACK counts
                    left, _, right = (part.numpy() for part in torch.linalg.svd(gradient, full_matrices=False))
                    state["p"] = p * np.sign(np.sum(p * (left.T if turned else right)[:RANK], axis=1, keepdims=True))
            g = g.T if turned else g
            r = g @ state["p"].T if name in low else g
            state["m"] = BETAS[0] * state["m"] + (1 - BETAS[0]) * r
            state["v"] = BETAS[1] * state["v"] + (1 - BETAS[1]) * r * r
            n = state["m"] / (np.sqrt(state["v"]) + EPS)
            if name in low:
                over = (np.linalg.norm(n), np.linalg.norm(r))
                if kind != "apollo-mini":
                    over = tuple(np.linalg.norm(x, axis=1, keepdims=True) for x in (n, r))  # type: ignore[assignment]
                phi = over[0] / (over[1] + 1e-8)
                scale = float(how.scale or 0)
                if kind == "galore":
                    n = scale * n @ state["p"]
                elif kind == "fira":
                    n = scale * n @ state["p"] + limited((g - scale * r @ state["p"]) * phi, state)
                else:
                    n = np.sqrt(scale) * limited(phi * g, state)
            rate = RATE * np.sqrt(1 - BETAS[1] ** (step + 1)) / (1 - BETAS[0] ** (step + 1))
            now[name] = now[name] - rate * (n.T if turned else n)
            now[name] = now[name] - RATE * DECAY * now[name]
        seen.append({name: weight.copy() for name, weight in now.items()})
    return seen


def limited(update: np.ndarray, state: dict[str, Any]) -> np.ndarray:
    """No norm is above 1.01 times that before."""
    norm = np.linalg.norm(update)
    if (before := state.get("norm")) is not None and norm > 1.01 * (before + 1e-8):
        update = update * (1.01 * (before + 1e-8) / norm)
    state["norm"] = np.linalg.norm(update)
    return update


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_is_that_of_the_papers(kind: str) -> None:
    weights, optimizer = made(kind)
    for step, (own, formulas) in enumerate(
        zip(walked(weights, optimizer, range(11)), by_formulas(kind, 11), strict=True)
    ):
        for name in SHAPES:
            np.testing.assert_allclose(own[name], formulas[name], atol=2e-5, err_msg=f"{name}, step {step}")


def theirs(kind: str, weights: dict[str, nn.Parameter], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The authors' optimiser over ``weights``, with the settings of ours."""
    how = stated(kind)
    low, others = list(weights.values())[:3], list(weights.values())[3:]
    own: dict[str, Any] = {"rank": how.rank, "update_proj_gap": GAP, "proj_type": "std"}
    if kind == "fira":
        adamw = pytest.importorskip("fira").FiraAdamW
        own["alpha"] = how.scale
    elif kind == "galore":
        adamw = pytest.importorskip("galore_torch").GaLoreAdamW
        own["scale"] = how.scale
    else:
        adamw = pytest.importorskip("apollo_torch").APOLLOAdamW
        own |= {"scale": how.scale, "proj": "random", "scale_type": "tensor" if kind == "apollo-mini" else "channel"}
        from apollo_torch import random_projector

        def ours(shape: Any, seed: int, device: Any = None, dtype: Any = None) -> torch.Tensor:
            """Our draw where theirs would be: its seed counts weights from 1, and refreshes in hundreds."""
            refresh, number = divmod(seed, 100)
            small = (min(shape), max(shape)) if min(shape) == how.rank else tuple(shape)
            drawn = lowmemory.random_directions(SEED, 1 << 32 | (number - 3), refresh, small, "cpu") * np.sqrt(how.rank)
            return drawn if small == tuple(shape) else drawn.T

        monkeypatch.setattr(random_projector, "stable_randn", ours)
        monkeypatch.setattr(random_projector, "next_seed", lambda seed: seed + 100)
    groups = [{"params": others, "weight_decay": DECAY}, {"params": low, "weight_decay": DECAY, **own}]
    return adamw(groups, lr=RATE, betas=BETAS, eps=EPS, no_deprecation_warning=True)


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_is_that_of_the_authors_package(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is installed: they are no dependencies, and apollo-torch is not for commercial use."""
    weights, optimizer = made(kind)
    others, _ = made(kind)
    peer = theirs(kind, others, monkeypatch)
    for step, (own, other) in enumerate(
        zip(walked(weights, optimizer, range(11)), walked(others, peer, range(11)), strict=True)
    ):
        for name in SHAPES:
            np.testing.assert_allclose(own[name], other[name], atol=2e-6, err_msg=f"{name}, step {step}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_was_saved_as_data_goes_on_to_the_same_bits(kind: str) -> None:
    weights, optimizer = made(kind)
    whole = walked(weights, optimizer, range(11))
    weights, optimizer = made(kind)
    walked(weights, optimizer, range(6))  # between two refreshes
    kept = io.BytesIO()
    torch.save([optimizer.state_dict(), {name: weight.data for name, weight in weights.items()}], kept)
    kept.seek(0)
    state, values = torch.load(kept, weights_only=True)
    weights, optimizer = made(kind)
    optimizer.load_state_dict(state)
    for name, value in values.items():
        weights[name].data = value
    again = walked(weights, optimizer, range(6, 11))
    assert all(np.array_equal(again[-1][name], whole[-1][name]) for name in SHAPES)
    assert lowmemory.held_bytes(optimizer) == sum(
        value.numel() * 4 for one in optimizer.state.values() for value in one.values() if torch.is_tensor(value)
    )


def test_a_gradient_that_is_no_number_and_a_vector_are_one_line() -> None:
    weights, optimizer = made("galore")
    for name, gradient in gradients(0).items():
        weights[name].grad = gradient * float("nan")
    with pytest.raises(FinbenchError, match="diverged"):
        optimizer.step()
    with pytest.raises(FinbenchError, match="no vectors"):
        lowmemory.LowMemoryAdamW(
            [{"params": [nn.Parameter(torch.ones(4))], "rank": 2}], stated("fira"), 0, RATE, BETAS, EPS
        )


# ---------------------------------------------------------------- the recipe


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": "galor"}, "optimizer.kind: Input should be 'adamw', 'galore', 'apollo'"),
        ({"optimizer": "fira", "structure": {"kind": "cola", "rank": 8}}, "fira reduces .* cola trains factors"),
        ({"optimizer": {"kind": "adamw", "rank": 8}}, "rank: adamw keeps whole moments"),
        ({"optimizer": {"kind": "galore", "rank": 1.5}}, "a share of the width lies between 0 and 1"),
        ({"optimizer": {"kind": "galore", "gap": 3}}, "unknown key 'optimizer.gap'"),
        ({"optimizer": "apollo", "baselines": ["parameters"]}, "beside apollo there is: dense"),
    ],
)
def test_what_no_low_memory_optimiser_can_do_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(FinbenchError, match=said):
        recipe(tmp_path, **{"structure": "dense", **change})


def test_relora_has_adamw(tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="relora trains factors"):
        recipe(tmp_path, tmp_path, structure="dense", relora={"rank": 4}, optimizer="galore")


def test_the_numbers_that_are_not_stated_are_the_authors_own(tmp_path: Path) -> None:
    def of(kind: str, **more: Any) -> tuple[Any, ...]:
        found = spec.OptimizerSpec(kind=kind, **more)  # type: ignore[arg-type]
        return found.rank, found.scale, found.update_gap

    assert of("galore") == of("fira") == (0.25, 0.25, 200)
    assert (of("apollo"), of("apollo-mini")) == ((0.25, 1.0, 200), (1, 128.0, 200))
    assert of("galore", rank=64, scale=1.0, update_gap=50) == (64, 1.0, 50)
    assert of("adamw") == (None, None, None)
    path = tmp_path / "r.yaml"
    path.write_text("start: {shape: llama-tiny, vocabulary: 300}\ndata: [{text: a.txt}]\nsteps: 3\noptimizer: galore\n")
    assert spec.read_recipe(path, {"optimizer.rank": 16}).optimizer.rank == 16
    assert spec.read_recipe(path, {"optimizer": "adamw"}).optimizer == spec.OptimizerSpec()


def test_runs_and_records_of_before_there_was_a_choice_are_adamws(tmp_path: Path) -> None:
    def decided(**more: Any) -> Any:
        stated = recipe(tmp_path, structure="dense", **more)
        return prepared.decisive(stated, [], "t", None, "float32")["optimizer"]

    assert decided() is None  # what a mark without the key gives
    assert decided(optimizer="galore") != decided(optimizer="fira")
    found = json.loads((Path(__file__).parent.parent / "benchmarks" / "pretrain_cpu.json").read_text())
    old = result.Trained.parse(found["scratch"]["cola"]["models"][0], "a record of then")
    assert (old.optimizer, old.optimizer_state_bytes) == ("adamw", None)


def test_a_rank_above_a_matrix_is_refused_before_anything_is_trained(text: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(FinbenchError, match=r"optimizer.rank 40 is above the smaller side of .* \(32 x 32\)") as fault:
        run.pretrain(dense(text, {"kind": "galore", "rank": 40}), tmp_path / "run")
    assert "optimizer.rank=32" in fault.value.hint
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- runs


def dense(text: Path, optimizer: Any, **more: Any) -> spec.PretrainRecipe:  # noqa: F811
    return recipe(text, structure="dense", optimizer=optimizer, **more)


@pytest.mark.parametrize("kind", ["adamw", *KINDS])
def test_what_is_planned_of_the_state_is_what_is_held(text: Path, tmp_path: Path, kind: str) -> None:  # noqa: F811
    stated = dense(text, kind, steps=2, baselines=[] if kind == "adamw" else ["dense"])
    plan = run.pretrain(stated, tmp_path / "run", dry_run=True)
    assert isinstance(plan, dict)
    done = run.pretrain(stated, tmp_path / "run")
    assert isinstance(done, run.Pretrained)
    for planned, model in zip(plan["models"], done.models, strict=True):
        assert planned["optimizer_bytes"] == model.optimizer_state_bytes
    assert done.models[-1].optimizer == "adamw"
    assert done.models[-1].optimizer_state_bytes == pytest.approx(8 * done.models[-1].parameters, rel=0.01)
    if kind != "adamw":
        own, whole = done.models
        assert own.optimizer == kind
        assert own.parameters == whole.parameters
        assert (own.optimizer_state_bytes or 0) < 0.8 * (whole.optimizer_state_bytes or 0)
        assert plan["models"][0]["memory_bytes"] < plan["models"][1]["memory_bytes"]
        assert own.bits_curve[0] == whole.bits_curve[0]
    assert "optimiser state" in report.rows(done)
    assert json.loads((tmp_path / "run" / "pretrain.json").read_text())["models"][0]["optimizer"] == kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_a_killed_run_ends_in_the_same_bits(
    text: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    step: int,
) -> None:
    """Killed at steps 3 and 5 of 6, with checkpoints after 2 and 4 and new directions after 3."""
    stated = dense(text, {"kind": kind, "update_gap": 3})
    whole = run.pretrain(stated, tmp_path / "whole")
    real = loop.PretrainTrainer.training_step

    def deadly(self: Any, *given: Any, **named: Any) -> Any:
        if self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *given, **named)

    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(loop.PretrainTrainer, "training_step", deadly)
        assert in_child(lambda: run.pretrain(stated, out) and None) == signal.SIGKILL
    with pytest.raises(FinbenchError, match="begun with another recipe"):
        run.pretrain(dense(text, {"kind": kind, "update_gap": 2}), out, resume=True)
    again = run.pretrain(stated, out, resume=True)
    assert same(out / "model", tmp_path / "whole" / "model")
    assert isinstance(whole, run.Pretrained)
    assert isinstance(again, run.Pretrained)
    assert again.models[0].loss_curve == whole.models[0].loss_curve
    assert again.models[0].optimizer_state_bytes == whole.models[0].optimizer_state_bytes


def test_gpt2_whose_layers_store_their_weights_transposed(text: Path, tmp_path: Path) -> None:  # noqa: F811
    start = {"shape": "gpt2-tiny", "vocabulary": 300, "config": {"n_embd": 32, "n_layer": 1, "n_head": 2}}
    done = run.pretrain(dense(text, "galore", start=start, steps=30, lr=1e-2), tmp_path / "run")
    assert isinstance(done, run.Pretrained)
    assert done.models[0].bits < done.models[0].first_bits


def test_the_page_has_the_state_at_124m_and_1b() -> None:
    """Counted on configurations; nothing is allocated."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    page = (Path(__file__).parent.parent / "docs" / "pretrain.md").read_text(encoding="utf-8")
    with torch.device("meta"):
        models = [
            AutoModelForCausalLM.from_config(GPT2Config(**spec.SHAPES["gpt2-124m"])),
            AutoModelForCausalLM.from_config(LlamaConfig(**spec.SHAPES["llama-1b"])),
        ]
    for kind in ("adamw", *KINDS):
        cells = [report.size(lowmemory.state_bytes(model, spec.OptimizerSpec(kind=kind))) for model in models]  # type: ignore[arg-type]
        assert f"| {kind} | {' | '.join(cells)} |" in page, (kind, cells)
