"""Exports for MLX: a folder that mlx-lm loads as it is, asked by mlx-lm where that is installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import finbench
from conftest import make_lora
from finbench.core.errors import FinbenchError
from finbench.models import bases, decisive, ggufs, mlxs
from finbench.training import exporting, merging

installed = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("mlx", "mlx_lm"))), reason="pip install --no-deps mlx mlx-cpu mlx-lm"
)


@pytest.fixture
def turned(llama: Path, tmp_path: Path) -> Path:
    """The tiny Llama with rotary positions that are nobody's default, and weights that make them count."""
    from safetensors.torch import load_file, save_file

    made = Path(shutil.copytree(llama, tmp_path / "turned"))
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"rope_parameters": {"rope_theta": 7.0}}))
    tensors = load_file(made / "model.safetensors")
    scales = {"_proj": 6, "model.norm": 5}
    large = {
        name: value * next((by for part, by in scales.items() if part in name), 1) for name, value in tensors.items()
    }
    save_file(large, made / "model.safetensors", {"format": "pt"})
    return made


@installed
@pytest.mark.parametrize("weights", ["f32", None])
def test_mlx_answers_as_the_merged_model(turned: Path, tmp_path: Path, weights: str | None) -> None:
    lora = make_lora(tmp_path / "lora", turned, r=4)
    made = finbench.export(str(lora), tmp_path / "out", base=str(turned), bits=16, to="mlx", weights=weights)
    assert made.gguf is None
    assert made.mlx is not None
    assert made.weights == (weights or "bf16")
    assert made.mlx.mean_divergence < (1e-6 if weights else 0.02)
    assert made.mlx.agreement == 1 or not weights
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {*made.files, "export.json"} == names >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert exporting.Exported.parse(json.loads((tmp_path / "out" / "export.json").read_text()), "it") == made
    said = exporting.exported_in_words(made, tmp_path / "out")
    assert "Run by mlx-lm" in said
    assert f"mlx_lm.chat --model {tmp_path / 'out'}" in said
    on = bases.resolve(str(tmp_path / "out"))  # and it is a model for finbench as well
    assert on.id.quantised is None
    model, _ = bases.load(on, 16, torch.float32)
    assert model.config.rope_parameters["rope_theta"] == 7


@installed
def test_without_older_keys_mlx_would_be_another_model(
    turned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlxs, "spell_out", lambda folder: None)
    lora = make_lora(tmp_path / "lora", turned, r=4)
    with pytest.raises(FinbenchError, match="mlx-lm computes something else of the model: .*on average"):
        finbench.export(str(lora), tmp_path / "out", base=str(turned), bits=16, to="mlx", weights="f32")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@installed
@pytest.mark.parametrize("stated", ["bloom", "os", "llama.os", None, ["llama"], "../llama"])
def test_a_type_that_mlx_does_not_know_is_refused_before_weights_are_read(stated: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": stated}))
    with pytest.raises(FinbenchError, match="mlx-lm does not run the model: it knows no models of the type") as fault:
        mlxs.check(None, tmp_path)
    assert "--to gguf" in fault.value.hint
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mistral"}))  # under another's name
    mlxs.check(None, tmp_path)


def test_a_missing_mlx_is_said_before_anything_long(
    lora: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mlxs.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(ggufs, "_installed", lambda *_: "no route to host")
    monkeypatch.setattr(merging, "write", None)
    with pytest.raises(FinbenchError, match=r"^mlx-lm==[\d.]+ could not be had from PyPI .no route to host"):
        finbench.export(str(lora), tmp_path / "out", base=str(llama), bits=16, to="mlx")
    assert not (tmp_path / "out").exists()


def test_a_model_that_mlx_computes_otherwise_is_not_written(
    lora: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mlx-lm stands aside: its answers are those of a model to which all tokens are as probable."""
    size = json.loads((llama / "config.json").read_text())["vocab_size"]
    monkeypatch.setattr(mlxs, "reader", lambda: None)
    monkeypatch.setattr(mlxs, "check", lambda *_: None)
    monkeypatch.setattr(
        mlxs, "log_probabilities", lambda _, __, asked: [torch.full((len(ids), size), -9.0) for ids in asked]
    )
    with pytest.raises(FinbenchError, match="mlx-lm computes something else of the model"):
        finbench.export(str(lora), tmp_path / "out", base=str(llama), bits=16, to="mlx")
    assert not (tmp_path / "out").exists()


@installed
def test_answers_that_are_no_numbers_are_refused(turned: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(turned / "model.safetensors")
    save_file(
        {name: value * float("nan") if "down_proj" in name else value for name, value in tensors.items()},
        turned / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(FinbenchError, match="its answers are not finite numbers; another type of weights may do"):
        mlxs.log_probabilities(None, turned, [[1, 2, 3]])


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"model_type": "llama", "rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}}, {"rope_theta": 7.0}),
        (
            {"model_type": "llama", "rope_parameters": {"rope_theta": 7.0, "rope_type": "linear", "factor": 4.0}},
            {"rope_theta": 7.0, "rope_scaling": {"rope_theta": 7.0, "rope_type": "linear", "factor": 4.0}},
        ),
        ({"model_type": "llama", "rope_theta": 7.0}, {"rope_theta": 7.0}),
        ({"model_type": "gpt2"}, {}),
        (
            {
                "model_type": "gemma3_text",
                "rope_parameters": {
                    "full_attention": {"rope_theta": 5e5, "rope_type": "default"},
                    "sliding_attention": {"rope_theta": 5e3, "rope_type": "default"},
                },
            },
            {"rope_theta": 5e5, "rope_local_base_freq": 5e3},
        ),
    ],
)
def test_positions_are_told_in_older_keys_too(stated: dict[str, Any], told: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(stated))
    mlxs.spell_out(tmp_path)
    made = json.loads((tmp_path / "config.json").read_text())
    assert made == told | stated
    assert decisive.configuration(made) == decisive.configuration(stated)
