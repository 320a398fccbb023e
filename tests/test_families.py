"""Families of models, a tiny one of each: every path gives what the plain one gives, or is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from test_engines import _ask, _gap, _requests
from test_loops import assert_same, gradients, single
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from conftest import Once, _tokenizer
from finbench.engines import forward, products
from finbench.engines.lm import TreeLM
from finbench.models import bases
from finbench.training import loops, merging, runner

SHAPE = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
WINDOW = 24  # tokens: shorter than every prompt
# what sets each family apart, as its configuration states it
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
             "attn_pdrop": 0.0},
    "mistral": {"sliding_window": WINDOW},
    "gemma3_text": {"num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": WINDOW,
                    "layer_types": ["sliding_attention", "full_attention"]},
    "qwen3": {"head_dim": 32},
    "phi3": {},
    "olmo2": {},
    "qwen3_moe": {"head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48,
                  "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
}  # fmt: skip


@pytest.fixture(scope="module", params=list(FAMILIES))
def base(request: pytest.FixtureRequest, once: Once) -> Path:
    """Folder of a tiny model of a family, its weights large enough that answers differ much."""
    kind = request.param

    def make(folder: Path) -> None:
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SHAPE, **FAMILIES[kind]}))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and not any(part in name for part in ("embed", "wte", "wpe", "lm_head")):
                    parameter.mul_(3)
        model.save_pretrained(folder)
        _tokenizer(folder)

    return once(f"families/{kind}", make)


@pytest.fixture(scope="module")
def loaded(base: Path) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(base)


def both(loaded: tuple[Any, Any], **options: Any) -> tuple[TreeLM, HFLM]:
    model, tokenizer = loaded
    ours, stock = (of(pretrained=model, tokenizer=tokenizer, batch_size=1, **options) for of in (TreeLM, HFLM))
    return ours, stock


@pytest.fixture(params=["as stored", "laid out", "as on a GPU"])
def passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights as they are stored, or laid out for products, small ones and from the first token on.

    On a GPU a prefix is attended with each row.
    """
    if request.param == "as on a GPU":
        monkeypatch.setattr(forward, "_APART", ())
    if request.param == "laid out":
        monkeypatch.setattr(products, "_LEAST", 1)
        monkeypatch.setattr(products, "_SUMMED", 40)
        monkeypatch.setattr(forward, "_LAID_FROM", 1)


def test_log_likelihoods_are_stock_lm_evals(loaded: tuple[Any, Any], passes: None) -> None:
    ours, stock = both(loaded)
    assert ours.slow == ""
    assert ours.forward.flat
    asked = _requests(0)
    expected = stock.loglikelihood(asked, disable_tqdm=True)
    assert len({round(value, 3) for value, _ in expected}) > len(asked) / 2
    assert _gap(ours.loglikelihood(asked, disable_tqdm=True), expected) <= 1e-4


def test_answers_are_stock_lm_evals(loaded: tuple[Any, Any], passes: None) -> None:
    ours, stock = both(loaded)
    prompts = list(dict.fromkeys(request.args[0] for request in _requests(1, 12) if request.args[0]))
    asked = [_ask(text, {"until": ["\n", "e"], "max_gen_toks": 12, "do_sample": False}) for text in prompts]
    assert ours.generate_until(asked, disable_tqdm=True) == stock.generate_until(asked, disable_tqdm=True)


@pytest.mark.parametrize("loop", ["packed", "shared"])
def test_gradients_are_the_plain_loops_or_the_loop_is_refused(loop: str, base: Path, tmp_path: Path) -> None:
    run, model, rows = single(base)
    refused = loops.without_packing(bases.skeleton(run.base), max(len(row.ids) for row in run.rows))
    if refused:
        assert run.passes.loop == "padded"
        assert refused in run.slower
        return
    experts = "moe" in base.name  # their kernel does not compute in float64
    if not experts:
        model.double()
    plain = gradients(run, model, "padded", rows, tmp_path)
    assert_same(gradients(run, model, loop, rows, tmp_path), plain, 1e-4 if experts else 1e-6)


def test_a_merged_adapter_answers_as_it_does_on_its_base(base: Path, tmp_path: Path) -> None:
    runner.train(single(base)[0].recipe, tmp_path / "adapter")
    made = merging.merge(str(tmp_path / "adapter"), tmp_path / "merged", base=str(base), dtype="float32")
    assert made.merge is not None
    assert made.merge.agreement == 1
    assert made.merge.largest_difference < 1e-3
