"""Options of peft's are refused by name before any weight is loaded, and what narrows the targets is saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from alone import read_alone
from finbench.core.errors import FinbenchError
from finbench.methods import METHODS, TUNERS, method_named
from finbench.methods.lora import LoraMethod
from finbench.models import attaching, bases
from finbench.training import recipes, runner
from finbench.training.merging import log_probabilities

TEXT = "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn."


@pytest.fixture(scope="module")
def untied(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a Llama whose head has weights of its own."""
    made = tmp_path_factory.mktemp("bases") / "untied"
    shutil.copytree(folders["llama"], made)
    stated = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**stated, "tie_word_embeddings": False}))
    return made


def recipe(base: Path, method: str, **more: Any) -> Any:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "method": method, "limit": 24, "batch_size": 8}
    stated |= {"dtype": "float32"} if "rank" in method_named(method).unused else {"dtype": "float32", "rank": 4}
    return recipes.recipe(None, {**stated, **more})


# ---------------------------------------------------------------- refused before any weight is loaded

REFUSED = [
    ("lora", {"use_dora": True}, "lora with use_dora is a method of its own", "--method dora"),
    ("lora", {"use_rslora": True}, "lora with use_rslora is a method of its own", "--method rslora"),
    ("lora", {"init_lora_weights": "pissa_niter_4"}, "is a method of its own", "--method pissa --set niter=N"),
    ("qlora", {"use_dora": True}, "qlora with use_dora", "--method dora --bits 4"),
    ("qlora", {"use_rslora": True}, "qlora with use_rslora", "--method rslora --bits 4"),
    ("rslora", {"use_dora": True}, "rslora with use_dora", "--method dora --set use_rslora=true"),
    ("loftq", {"use_dora": True}, "saved as a plain LoRA", "--method dora"),
    ("lora+", {"use_dora": "no"}, r"lora\+: use_dora is true or false, got 'no'", "finbench methods"),
    ("pissa", {"use_rslora": 1}, "pissa: use_rslora is true or false, got 1", "finbench methods"),
    ("lora", {"rank_pattern": [4]}, r"rank_pattern is a mapping, got \[4\]", "finbench methods"),
    ("lora", {"rank_pattern": {"q_porj": 4}}, "matches none of the layers .* Did you mean q_proj", "They end in: "),
    ("lora", {"alpha_pattern": {"q_porj": 4}}, "matches none of the layers .* Did you mean q_proj", "They end in: "),
    (
        "lora",
        {"rank_pattern": {"q_proj:4": None}},
        "q_proj:4 is None",
        "space after the colon: --set 'rank_pattern={q_proj: 4}'",
    ),
    ("lora", {"rank_pattern": {"q_proj": 0}}, "q_proj is 0", "--set 'rank_pattern={q_proj: 4}'"),
    ("lora", {"rank_pattern": {"(": 4}}, r"rank_pattern: '\(' is not a regular expression", ""),
    ("lora", {"rank_pattern": {"lm_head": 4}}, "'lm_head' matches none of the layers", "They end in: "),
    ("hira", {"target_modules": ["q_proj"], "rank_pattern": {"v_proj": 4}}, "'v_proj' matches none", "in: q_proj"),
    ("lora", {"alpha_pattern": {"q_proj": -1.0}}, "a number above 0 is expected", "alpha_pattern"),
    ("delora", {"lambda_pattern": {"q_proj": 0}}, "a number above 0 is expected", "lambda_pattern"),
    ("hira", {"rank_pattern": {"k_proj": 65}}, r"Rank 65 is above .*k_proj \(64 x 128\)", "64 or less in rank_pattern"),
    ("lora", {"exclude_modules": 3}, "exclude_modules is a text or a list of which each is a text", ""),
    ("lora", {"exclude_modules": "q_proj"}, "regular expression for whole names and matches no", "modules=[down_proj"),
    ("lora", {"exclude_modules": "("}, r"exclude_modules '\(' is not a regular expression", ""),
    ("lora", {"exclude_modules": ["q_porj"]}, "'q_porj' is none of the target modules. Did you mean q_proj", ""),
    ("lora", {"target_modules": ["q_proj"], "layers_to_transform": [0, 9]}, "has no layer 9", "layers 0 to 1"),
    ("lora", {"target_modules": ["q_proj"], "layers_to_transform": "0"}, "is a whole number or a list of which", ""),
    ("lora", {"layers_pattern": "layers"}, "peft refuses this configuration", ""),
    ("lora", {"qalora_group_size": 4}, "needs a GPTQ base", "Leave it out"),
    ("lora", {"use_bdlora": {"blocks": 2}}, "use_bdlora is a mapping of .*nblocks", "finbench methods"),
    ("lora", {"use_bdlora": {"target_modules_bd_a": "q_proj"}}, "use_bdlora is a mapping of", "finbench methods"),
    ("lora", {"velora_config": {"num_groups": "x"}}, "velora_config is a mapping of", "finbench methods"),
    ("vera", {"d_initial": -0.1}, "d_initial is a number above 0, got -0.1", "finbench methods"),
    ("vera", {"projection_prng_key": -1}, "projection_prng_key is a whole number from 0 on", ""),
    ("vera", {"save_projection": "false"}, "save_projection is true or false", ""),
    ("randlora", {"sparse": 2}, "sparse is true or false", ""),
    ("adalora", {"beta1": 1.0}, "beta1 is a number above 0 and below 1, got 1.0", ""),
    ("adalora", {"deltaT": 0}, "deltaT is a whole number from 1 on, got 0", ""),
    ("adalora", {"orth_reg_weight": -1.0, "beta2": 2}, "beta2 is .*\n.*orth_reg_weight|orth_reg.*\n.*beta2", ""),
    ("oft", {"num_cayley_neumann_terms": 2.5}, "num_cayley_neumann_terms is a whole number, got 2.5", ""),
    ("adalora", {"warm": "0.1"}, "warm must be a number from 0 to 8, got '0.1'", "warm=0.1"),
    ("adalora", {"final": False}, "final must be a number from 0 to 8, got False", "final=0.3"),
    ("oft", {"oft_block_size": 0}, "peft refuses", ""),
    ("oft", {"oft_block_size": 1}, "oft with these options trains nothing at all", "oft_block_size"),
    ("fourierft", {"n_frequency": 0}, "n_frequency is a whole number from 1 on", ""),
    ("fourierft", {"n_frequency": 10**6}, "peft refuses fourierft on .*n_frequency", ""),
    ("c3a", {"block_size": 100}, "block_size 100 does not divide", "inputs and outputs"),
    ("lokr", {"decompose_factor": -2}, "decompose_factor is a whole number from -1 on", ""),
    ("glora", {"config_A_B": "lorra"}, "config_A_B is lora or vector or constant or none, got 'lorra'", ""),
    ("waveft", {"wavelet_family": "db999"}, "peft refuses", ""),
    ("road", {"variant": "road_3"}, "peft refuses", ""),
]


@pytest.mark.parametrize(("method", "stated", "message", "hint"), REFUSED, ids=str)
def test_it_is_refused_by_name_before_any_weight_is_loaded(
    method: str,
    stated: dict[str, Any],
    message: str,
    hint: str,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bases, "load", None)
    with pytest.raises(FinbenchError, match=message) as caught:
        runner.prepare(recipe(folders["llama"], method, **stated))
    assert hint in caught.value.hint


@pytest.mark.parametrize("method", [*METHODS, "hira"])
def test_a_head_that_is_the_embedding_is_no_target(
    method: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter of it would go into the embedding too when it is merged, and pissa would change that at its start."""
    monkeypatch.setattr(bases, "load", None)
    for base in ("llama", "gpt2"):
        if method != "full" and (base == "llama" or method_named(method).conv1d):
            with pytest.raises(FinbenchError, match="lm_head of .* is its embedding too") as caught:
                runner.prepare(recipe(folders[base], method, target_modules=["lm_head"]))
            assert caught.value.hint == "Leave it out of target_modules."


@pytest.mark.parametrize(
    ("method", "bits", "why"),
    [
        ("irqlora", 4, "never quantised, so it has no shifts"),
        ("loftq", 4, "never quantised"),
        ("pissa", 4, "never quantised"),
        ("olora", 8, "never quantised"),
        ("eva", 16, "looks at no inputs of it"),
        ("rosa", 16, "changes the weights of its targets"),
        *(("lora", bits, "") for bits in (16, 4)),
        ("pissa", 16, ""),
    ],
)
def test_a_head_of_its_own_is_a_target_where_the_method_can_take_it(
    method: str, bits: int, why: str, untied: Path
) -> None:
    """Without the refusals some of these would end in a trace, and pissa on 4 bits in a model with a random head."""
    chosen = recipe(untied, method, bits=bits, target_modules=["q_proj", "lm_head"])
    layers = bases.linear_layers(bases.resolve(str(untied)))
    if why:
        with pytest.raises(FinbenchError, match=f"{method} cannot take lm_head of .*{why}"):
            method_named(method).verify(chosen, layers)
    else:
        method_named(method).verify(chosen, layers)


@pytest.mark.parametrize("base", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_what_can_be_trained_is_not_refused(base: str, folders: dict[str, Path]) -> None:
    """The rehearsal on a base without weights passes every method and tuner."""
    fitting = {"oft": {"oft_block_size": 16}, "vblora": {"vector_length": 32}, "c3a": {"block_size": 32}}
    for method in (*METHODS.values(), *TUNERS.values()):
        if base == "llama" or method.conv1d:
            chosen = recipe(folders[base], method.name, bits=method.bits[0], **fitting.get(method.name, {}))
            found = bases.resolve(chosen.base)
            method.verify(chosen, bases.linear_layers(found))
            method.rehearse(chosen, bases.skeleton(found))


def test_what_an_option_makes_of_a_method_is_declared(folders: dict[str, Path]) -> None:
    plain, other = (recipe(folders["llama"], "lora+", use_dora=value) for value in (False, True))
    method = method_named("lora+")
    assert (method.ends_as(plain), method.ends_as(other)) == ("plain LoRA", "merged weights")
    assert all(
        one.ends_as(recipe(folders["llama"], one.name, bits=one.bits[0])) == one.becomes for one in METHODS.values()
    )


def test_options_of_its_own_are_explained_and_refused_ones_not_offered() -> None:
    for method in METHODS.values():
        assert set(method.about) == set(method.options)
        assert set(method.options) <= method.offered()
    assert not {"use_dora", "use_rslora"} & method_named("lora").offered()
    assert "use_rslora" in method_named("dora").offered()
    assert not {"use_dora", "init_lora_weights", "rank_pattern"} & method_named("eva").offered()
    assert not {"use_dora", "velora_config"} & method_named("irqlora").offered()
    assert not {"use_dora", "init_lora_weights"} & method_named("rosa").offered()


# ---------------------------------------------------------------- saved with what they leave out


NARROWED = [
    ("pissa", {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1]}),
    ("eva", {"target_modules": ["q_proj"], "layers_to_transform": 0, "layers_pattern": "layers"}),
    ("eva", {"target_modules": r".*\.(q|v)_proj"}),
    ("adalora", {"exclude_modules": ["down_proj", "k_proj"]}),
    ("rosa", {"target_modules": r".*\.(q|v)_proj", "exclude_modules": r".*\.0\..*"}),
]


@pytest.mark.slow
def test_the_layers_that_are_left_out_are_saved(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """peft alone reads an adapter that is converted when it is saved, and so does finbench, which refuses misfits."""
    said, real = [], runner._save

    def spy(run: Any, model: Any, tokenizer: Any, *rest: Any) -> Any:
        said.append(log_probabilities(model.eval(), tokenizer, TEXT))
        return real(run, model, tokenizer, *rest)

    monkeypatch.setattr(runner, "_save", spy)
    told = []
    for number, (method, stated) in enumerate(NARROWED):
        out = tmp_path / f"{number}-{method}"
        runner.train(recipe(folders["llama"], method, lr=3e-3, **stated), out)
        told.append((folders["llama"], out, "peft", 16))
        config = json.loads((out / "adapter_config.json").read_text())
        assert {key: config[key] for key in stated} == stated
    base = bases.resolve(str(folders["llama"]))
    plain, tokenizer = bases.load(base, 16, torch.float32)
    untrained = log_probabilities(plain, tokenizer, TEXT)
    for (_, out, _, _), expected, found in zip(told, said, read_alone(told, TEXT, tmp_path), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0, msg=out.name)
        assert not torch.allclose(found, untrained, atol=1e-4)
        attached = attaching.attach(bases.load(base, 16, torch.float32)[0], out, base).eval()
        torch.testing.assert_close(log_probabilities(attached, tokenizer, TEXT), expected, atol=1e-4, rtol=0)


def test_a_rank_is_held_to_the_layers_that_are_reached(folders: dict[str, Path]) -> None:
    """k_proj is 64 x 128; without it there is room for more."""
    lora = method_named("lora")
    assert isinstance(lora, LoraMethod)
    layers = bases.linear_layers(bases.resolve(str(folders["llama"])))
    with pytest.raises(FinbenchError, match="Rank 100 is above"):
        lora.verify(recipe(folders["llama"], "lora", rank=100), layers)
    lora.verify(recipe(folders["llama"], "lora", rank=100, exclude_modules=["k_proj", "v_proj"]), layers)
    lora.verify(recipe(folders["llama"], "lora", rank=100, rank_pattern={"[kv]_proj": 64, "k_proj": 100}), layers)
    with pytest.raises(FinbenchError, match="Rank 65 is above .*k_proj") as caught:  # the first match counts
        lora.verify(recipe(folders["llama"], "lora", rank=4, rank_pattern={"layers.1.*": 8, "k_proj": 65}), layers)
    assert caught.value.hint == "Use 64 or less in rank_pattern."
