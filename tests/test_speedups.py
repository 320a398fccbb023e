"""Options that not every machine has: refused with what to type; the same losses where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_launch import SMALL, curve
from test_training import recipe

from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter
from finbench.training import runner, speedups


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ({"optimizer": "paged_adamw_8bit"}, "no GPU is here", "optimizer=adamw_8bit"),
        ({"optimizer": "paged_adamw_32bit"}, "no GPU is here", "optimizer=adamw"),
        ({"kernels": "liger"}, "Liger's kernels run on a GPU", "kernels=torch"),
        ({"compile": True, "sharding": "fsdp"}, "not been made to work together", "compile=false"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(
    overrides: dict[str, Any], message: str, hint: str, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FinbenchError, match=message) as caught:
        speedups.check(recipe(llama, **overrides))
    assert hint in caught.value.hint


def test_what_is_to_be_installed_is_named(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speedups.shutil, "which", lambda name: None)
    with pytest.raises(FinbenchError, match=r"a C\+\+ compiler") as caught:
        speedups.check(recipe(llama, compile=True))
    assert "apt install g++" in caught.value.hint
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(speedups.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FinbenchError, match="not installed") as caught:
        speedups.check(recipe(llama, kernels="liger"))
    assert caught.value.hint == 'pip install "finbench[liger]"'
    with pytest.raises(FinbenchError, match="Triton"):
        speedups.check(recipe(llama, compile=True))
    speedups.check(recipe(llama, optimizer="paged_adamw_8bit"))


def test_moments_in_8_bits_learn_as_well(llama: Path, tmp_path: Path) -> None:
    wide = {**SMALL, "rank": 64, "target_modules": ["up_proj", "down_proj"]}  # smaller tensors keep theirs in 32 bits
    plain = runner.train(recipe(llama, **wide), tmp_path / "plain")
    small = runner.train(recipe(llama, **wide, optimizer="adamw_8bit"), tmp_path / "small")
    assert curve(small) != curve(plain)
    assert curve(small) == pytest.approx(curve(plain), abs=0.02)
    with pytest.raises(FinbenchError, match="optimizer 'adamw_8bit' there, 'adamw' now"):
        runner.train(recipe(llama, **wide), tmp_path / "small")


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["padded", "shared"])
def test_compiled_layers_have_the_losses_of_plain_ones(loop: str, llama: Path, tmp_path: Path) -> None:
    stated = {**SMALL, "loop": loop}
    plain = runner.train(recipe(llama, **stated), tmp_path / "plain")
    compiled = runner.train(recipe(llama, **stated, compile=True), tmp_path / "compiled")
    assert isinstance(compiled, Adapter)
    assert curve(compiled) == pytest.approx(curve(plain), abs=1e-4)
