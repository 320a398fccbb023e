"""Which adapters vLLM serves beside their base, which merged, which not, and every reason for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import make_lora
from finbench.core.errors import FinbenchError
from finbench.core.settings import Evaluation
from finbench.engines import servable
from finbench.engines.vllm import parity, plugin
from finbench.evaluation import options, preflight
from finbench.evaluation.subjects import candidates
from finbench.models import bases

PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}


@pytest.mark.parametrize(
    ("changes", "how", "words"),
    [
        ({}, "unmerged", ()),
        ({"use_rslora": True, "rank_pattern": {"q_proj": 32}}, "unmerged", ()),
        ({"init_lora_weights": "eva"}, "unmerged", ()),
        ({"use_dora": True, "bias": "all"}, "merged", ("DoRA", "biases")),
        ({"init_lora_weights": "pissa_niter_4"}, "merged", ("changed base weights",)),
        ({"peft_type": "VERA"}, "merged", ("type VERA",)),
        ({"target_modules": ["q_proj", "lm_head"]}, "merged", ("lm_head",)),
        ({"r": 1024}, "merged", ("1024",)),
        ({"peft_type": "PROMPT_TUNING"}, "no", ("PROMPT_TUNING", "nothing to merge")),
    ],
)
def test_every_reason_is_given_at_once(changes: dict[str, Any], how: str, words: tuple[str, ...]) -> None:
    found = servable.route({**PLAIN, **changes}, recorded=True)
    assert found.how == how
    assert all(any(word in reason for reason in found.reasons) for word in words)


def test_architectures_without_lora_in_vllm_are_merged() -> None:
    assert servable.route(PLAIN, recorded=True, architecture="GPT2LMHeadModel").how == "merged"
    assert servable.route(PLAIN, recorded=False, architecture="GPT2LMHeadModel").how == "no"
    assert servable.route(PLAIN, recorded=False, architecture="LlamaForCausalLM").how == "unmerged"


def test_what_finbench_did_not_train_cannot_be_merged() -> None:
    assert servable.route({**PLAIN, "use_dora": True}, recorded=False).how == "no"


def test_ranks_are_rounded_up_to_what_vllm_takes() -> None:
    ranks = [servable.served_rank({"r": rank}) for rank in (1, 2, 8, 9, 64, 200, 300, 512, 513)]
    assert ranks == [1, 8, 8, 16, 64, 256, 320, 512, None]
    assert servable.served_rank({"r": 8, "rank_pattern": {"q_proj": 20}}) == 32


def test_tensors_that_match_nothing_are_found_by_name_and_shape(lora: Path, llama: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    layers = bases.linear_layers(bases.resolve(str(llama)))
    assert servable.unmatched(lora, layers) == []
    tensors = load_file(lora / "adapter_model.safetensors")
    first, *rest = sorted(tensors)
    wide = next(name for name in rest if ".lora_A." in name)
    changed = {**tensors, wide: tensors[wide].repeat(1, 2), first.replace("model.layers", "layers"): tensors[first]}
    del changed[first]
    save_file(changed, tmp_path / "adapter_model.safetensors")
    assert servable.unmatched(tmp_path, layers) == sorted([wide, first.replace("model.layers", "layers")])


def test_all_faults_of_all_adapters_come_together(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dora = make_lora(tmp_path / "dora", llama, "org/tiny-llama", use_dora=True)
    loha = make_lora(tmp_path / "renamed", llama, "org/tiny-llama", seed=2)
    config = json.loads((loha / "adapter_config.json").read_text())
    (loha / "adapter_config.json").write_text(json.dumps({**config, "bias": "all", "use_rslora": True}))
    found, _ = candidates(Evaluation([str(dora), str(loha)], base=str(llama), bits=8, engine="vllm"))
    with pytest.raises(FinbenchError) as fault:
        preflight.choose("vllm", found, {})
    text = fault.value.message
    assert all(word in text for word in ("dora", "DoRA", "renamed", "biases", "not int8", "heads of size 16"))
    assert "finbench.json" in text  # why it is not merged


def test_auto_says_why(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = candidates(Evaluation(model=str(llama)))
    assert preflight.choose("auto", found, {}) == ("hf", found)
    assert "Engine hf: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("engine", "given", "words"),
    [
        ("vllm", {"answers": "gold"}, "answers"),
        ("hf", {"tensor_parallel": "2"}, "tensor_parallel"),
        ("vllm", {"tensor_parallel": "0"}, "at least 1"),
        ("vllm", {"data_parallel": "two"}, "whole number"),
    ],
)
def test_arguments_belong_to_an_engine(engine: str, given: dict[str, str], words: str) -> None:
    with pytest.raises(FinbenchError, match=words):
        options.arguments(engine, given)


def test_nothing_of_vllm_is_imported_before_it_runs() -> None:
    assert plugin.WRAPPER.startswith("finbench.engines.vllm.punica.")
    assert "vllm" not in sys.modules


def test_an_adapter_that_is_served_as_its_base_is_refused_unless_it_is_one() -> None:
    base, own = [[-1.0, -2.0]], [[-1.5, -1.4]]
    folder = Path("zoo/a")

    def checked(said: parity.Scores, peft: parity.Scores) -> dict[Path, float]:
        known = {folder: parity.Reference([[1, 2]], peft, base)}
        return parity.check(known, lambda adapter, ids: said if adapter else base, "float32")

    assert checked(own, own) == {folder: 0.0}
    assert checked(base, base) == {folder: 0.0}  # untrained
    with pytest.raises(FinbenchError, match="served as the base"):
        checked(base, own)
    with pytest.raises(FinbenchError, match="served wrongly"):
        checked([[-1.3, -2.0]], own)
    with pytest.raises(FinbenchError, match="not finite"):
        checked([[-1.5, float("nan")]], own)


def test_half_precision_excuses_neither_a_wrong_base_nor_the_base_in_the_adapters_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path("zoo/a")

    def checked(own: float, base: float, peft_own: float, peft_base: float, dtype: str = "bfloat16") -> float:
        known = {folder: parity.Reference([[1]], [[peft_own]], [[peft_base]])}
        return parity.check(known, lambda adapter, ids: [[own]] if adapter else [[base]], dtype)[folder]

    assert checked(-2.0, -3.05, -2.02, -3.0) == pytest.approx(0.02)
    with pytest.raises(FinbenchError, match="base is served wrongly"):
        checked(-9.0, -10.0, -2.0, -3.0)
    with pytest.raises(FinbenchError, match="base is served wrongly"):
        checked(-2.0, -3.9, -2.0, -3.0)
    with pytest.raises(FinbenchError, match="served as the base"):
        checked(-3.05, -3.06, -2.5, -3.0)  # not the same bits, yet the base
    checked(-3.1, -3.05, -2.9, -3.0)
    assert "not shown to be served" in capsys.readouterr().err
    with pytest.raises(FinbenchError, match="served wrongly"):
        checked(-4.0, -3.05, -2.9, -3.0)  # which moves little by right, and much as it is served
    assert checked(-2.3, -3.0, -2.0, -3.0) == pytest.approx(0.3)
    with pytest.raises(FinbenchError, match=r"differ from peft's by 0.3, where float16 explains 0.15\."):
        checked(-2.3, -3.0, -2.0, -3.0, "float16")


def test_what_rounding_cannot_explain_is_found_by_the_mean_over_all_probes() -> None:
    """An adapter that moves by 4, as trained ones do: rounding of 0.1 here and there, or a scale that is wrong."""
    import random

    folder, rows, draw = Path("zoo/a"), 3, random.Random(0)
    base = [[draw.gauss(-6, 2) for _ in range(parity.TOP)] for _ in range(rows)]
    own = [[value + draw.gauss(0, 4) for value in row] for row in base]

    def rounded(scores: parity.Scores) -> parity.Scores:
        return [[value + draw.gauss(0, 0.1) for value in row] for row in scores]

    def served(part: float) -> dict[Path, float]:
        said = [[b + part * (o - b) for o, b in zip(*rows, strict=True)] for rows in zip(own, base, strict=True)]
        known = {folder: parity.Reference([[0] * parity.TOP] * rows, rounded(own), rounded(base))}
        return parity.check(known, lambda adapter, ids: rounded(said if adapter else base), "bfloat16")

    assert 0.1 < served(1.0)[folder] < 0.2
    for part in (0.5, 0.8, 1.2, 2.0, -1.0):
        with pytest.raises(FinbenchError, match="served wrongly"):
            served(part)
    for part in (0.0, 0.1):
        with pytest.raises(FinbenchError, match="served as the base"):
            served(part)
