"""peft's other tuners: each row of the table says what peft's code really does; each tuner has a row or a reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alone import read_alone
from conftest import TEXT, Trained, TrainOnce
from finbench.core.errors import FinbenchError
from finbench.engines.hf import HFEngine
from finbench.methods import METHODS, TUNERS, method_named
from finbench.methods.wrapping import PeftMethod
from finbench.models import adapters, attaching, bases
from finbench.training import recipes, runner
from finbench.training.merging import log_probabilities, merge

OPTIONS: dict[str, dict[str, Any]] = {
    "c3a": {"block_size": 32},
    "vblora": {"vector_length": 32},
    "ia3": {"target_modules": ["down_proj", "k_proj", "v_proj"], "feedforward_modules": ["down_proj"]},
}
ON_GPT2 = {"ia3": {"target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"]}}
QUICK = ("fourierft", "hira", "ia3", "road", "shira")  # the others are run by .ci/run
COMBINATIONS = [
    (name, base, bits)
    for name, tuner in TUNERS.items()
    for base in ("llama", "gpt2")
    for bits in tuner.bits
    if base == "llama" or (tuner.conv1d and bits != 8)  # LoRA's methods are tried on Conv1D layers at 8 bits too
]
ROWS = [
    pytest.param(*case, marks=[] if case[1:] == ("llama", 16) and case[0] in QUICK else [pytest.mark.slow])
    for case in COMBINATIONS
]


def recipe(base: Path, method: str, **overrides: Any) -> Any:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "method": method, "limit": 24, "batch_size": 8}
    stated |= {"dtype": "float32", "lr": 1e-2} | ({"rank": 4} if method_named(method).rank else {})
    own = OPTIONS.get(method, {}) | (ON_GPT2.get(method, {}) if base.name == "tiny-gpt2" else {})
    return recipes.recipe(None, {**stated, **own, **overrides})


@pytest.fixture
def trained(train_once: TrainOnce, folders: dict[str, Path]) -> Callable[..., Trained]:
    """The run of a combination."""
    return lambda method, base, bits: train_once(f"{method}-{base}-{bits}", recipe(folders[base], method, bits=bits))


@pytest.mark.parametrize(("method", "kind", "bits"), ROWS)
def test_it_trains_is_read_again_is_evaluated_and_merges(
    method: str, kind: str, bits: int, trained: Callable[..., Trained], folders: dict[str, Path], tmp_path: Path
) -> None:
    run = trained(method, kind, bits)
    on = bases.resolve(str(folders[kind]))
    model, tokenizer = bases.load(on, bits, torch.float32)
    base = log_probabilities(model, tokenizer, TEXT)
    found = log_probabilities(attaching.attach(model, adapters.read(run.folder).folder).eval(), tokenizer, TEXT)
    torch.testing.assert_close(found, run.logits, atol=1e-4, rtol=0)
    assert not torch.allclose(found, base, atol=1e-6)
    engine = HFEngine(on, bits, "float32")
    engine.use(run.folder)
    examined = log_probabilities(engine.lm.model, engine.tokenizer, TEXT)
    torch.testing.assert_close(examined, run.logits, atol=5e-4, rtol=0)
    engine.use(None)
    assert torch.equal(engine._probe(), engine.alone)
    made = merge(str(run.folder), tmp_path / "m", base=str(folders[kind]), dtype="float32").merge
    assert made is not None
    assert made.largest_difference < (0.05 if bits == 8 else 5e-4)


@pytest.mark.parametrize(
    ("kind", "modules", "forward"),
    [
        ("llama", "all-linear", 2),
        ("gpt2", "all-linear", 2),
        ("llama", ["q_proj", "v_proj"], 0),
        ("gpt2", ["c_attn", "c_proj"], 2),
    ],
)
def test_ia3_is_read_again_whatever_its_target_modules_are(
    kind: str, modules: Any, forward: int, folders: dict[str, Path], train_once: TrainOnce
) -> None:
    """peft writes its own ``feedforward_modules`` as endings, and on reading wants them among the target modules."""
    stated = {"base": str(folders[kind]), "tasks": ["mini_sentiment"], "method": "ia3", "limit": 24, "batch_size": 8}
    asked = recipes.recipe(None, {**stated, "dtype": "float32", "lr": 1e-2, "target_modules": modules})
    run = train_once(f"ia3-{kind}-{modules}", asked)
    assert len(attaching.peft_config(run.folder).feedforward_modules) == forward
    model, tokenizer = bases.load(bases.resolve(str(folders[kind])), 16, torch.float32)
    found = log_probabilities(attaching.attach(model, run.folder).eval(), tokenizer, TEXT)
    torch.testing.assert_close(found, run.logits, atol=1e-4, rtol=0)


def test_no_success_is_told_of_an_adapter_that_peft_cannot_read(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TUNERS["ia3"].__class__, "wrap", PeftMethod.wrap)
    with pytest.raises(FinbenchError, match="peft cannot read the configuration that it wrote itself: `feedforward"):
        runner.train(recipe(wide, "ia3", target_modules="all-linear"), tmp_path / "out")
    assert not (tmp_path / "out" / "finbench.json").exists()
    assert list((tmp_path / "out" / "checkpoints").glob("checkpoint-*"))


def test_variables_that_peft_leaves_behind_are_taken_back(folders: dict[str, Path]) -> None:
    model, _ = bases.load(bases.resolve(str(folders["llama"])), 16, torch.float32)
    before = {name: os.environ.get(name) for name in ("CC", "CXX")}
    method_named("boft").apply(model, recipe(folders["llama"], "boft"))
    assert {name: os.environ.get(name) for name in before} == before


@pytest.mark.parametrize(
    ("names", "kinds", "bits"),
    [
        (QUICK, ("llama",), 16),
        *(pytest.param(tuple(TUNERS), ("llama", "gpt2"), bits, marks=pytest.mark.slow) for bits in (16, 8, 4)),
    ],
)
def test_a_fresh_process_with_peft_alone_reads_every_tuner(
    names: tuple[str, ...],
    kinds: tuple[str, ...],
    bits: int,
    trained: Callable[..., Trained],
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    cases = [case for case in COMBINATIONS if case[0] in names and case[1] in kinds and case[2] == bits]
    runs = [trained(*case) for case in cases]
    logits = read_alone(
        [(folders[case[1]], run.folder, "peft", bits) for case, run in zip(cases, runs, strict=True)], TEXT, tmp_path
    )
    for case, run, found in zip(cases, runs, logits, strict=True):
        torch.testing.assert_close(found, run.logits, atol=1e-4, rtol=0, msg=str(case))


@pytest.mark.parametrize("method", list(TUNERS))
def test_gpt2s_layers_are_taken_or_refused_before_anything_is_loaded(
    method: str, gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(gpt2, method)
    if TUNERS[method].conv1d:
        run = runner.prepare(chosen)
        model, tokenizer = runner.begin(run, torch.float32)
        assert log_probabilities(model, tokenizer, TEXT).isfinite().all()
    else:
        monkeypatch.setattr(bases, "load", None)
        with pytest.raises(FinbenchError, match="Conv1D"):
            runner.prepare(chosen)


def test_every_tuner_of_peft_is_a_method_or_refused_with_a_reason() -> None:
    from peft import PeftType

    for kind in PeftType:
        name = kind.value.lower()
        if name in METHODS or name in TUNERS:
            continue
        with pytest.raises(FinbenchError, match=f"Method {name} is refused: "):
            method_named(name)


@pytest.mark.parametrize("method", [name for name, tuner in TUNERS.items() if tuner.divides])
def test_sizes_that_do_not_divide_are_refused_by_layer(method: str, wide: Path) -> None:
    [key] = TUNERS[method].divides
    size = {"road": 6, "gralora": 3}.get(method, 7)  # peft itself wants an even one, and a divisor of the rank
    more = {"rank": 3} if method == "gralora" else {}
    with pytest.raises(FinbenchError, match=rf"{key} {size} does not divide model.layers.0.self_attn"):
        runner.prepare(recipe(wide, method, **{key: size}, **more))
