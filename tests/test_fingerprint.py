"""A base's fingerprint: every byte of its weights and every setting that decides, whatever files they lie in."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from conftest import make_llama
from finbench.core import hashes
from finbench.core.errors import FinbenchError
from finbench.models import decisive, ggufs, modelfiles
from finbench.models.modelfiles import fingerprint


@pytest.fixture
def base(llama: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama, tmp_path / "base")


def _config(folder: Path, **changed: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize("place", [0.1, 0.3, 0.4, 0.6, 0.9])
def test_a_byte_anywhere_in_a_tensor_changes_it(base: Path, place: float) -> None:
    before, path = fingerprint(base), base / "model.safetensors"
    whole = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(whole[:8], "little")
    whole[start + int((len(whole) - start) * place)] ^= 1
    path.write_bytes(whole)
    assert fingerprint(base) != before


def test_weights_zeroed_between_start_middle_and_end_of_every_tensor(base: Path) -> None:
    """What three blocks of a tensor do not see: 40 % of the bytes of all large ones."""
    before, path = fingerprint(base), base / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        flat = tensor.reshape(-1).copy()
        size = flat.size
        flat[int(size * 0.26) : int(size * 0.46)] = 0
        flat[int(size * 0.54) : int(size * 0.74)] = 0
        tensors[name] = flat.reshape(tensor.shape)
    save_file(tensors, path, {"format": "pt"})
    assert fingerprint(base) != before


def test_shards_and_order_mean_nothing_and_names_types_and_shapes_do(base: Path, tmp_path: Path) -> None:
    before, path = fingerprint(base), base / "model.safetensors"
    tensors = load_file(path)
    names = sorted(tensors, reverse=True)
    where = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, base / file, {"format": "pt", "note": "other"})
        where |= dict.fromkeys(part, file)
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    path.unlink()
    assert fingerprint(base) == before
    for wrong in (
        {**tensors, names[0]: tensors[names[0]].reshape(1, *tensors[names[0]].shape)},
        {**tensors, names[0]: tensors[names[0]].view(numpy.int32)},
        {("x" if name == names[0] else name): tensor for name, tensor in tensors.items()},
    ):
        save_file(wrong, path, {"format": "pt"})
        assert fingerprint(base) != before


def test_a_tensor_in_two_shards_is_refused(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    for number in (1, 2):
        save_file(tensors, base / f"model-0000{number}-of-00002.safetensors")
    where = {name: f"model-0000{1 + at % 2}-of-00002.safetensors" for at, name in enumerate(tensors)}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (base / "model.safetensors").unlink()
    with pytest.raises(FinbenchError, match="in two files"):
        fingerprint(base)


SCALARS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"rms_norm_eps": 1e-5}),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    ("llama", {"attention_bias": True}),
    ("llama", {"max_position_embeddings": 4096}),
    ("llama", {"eos_token_id": 7}),
    ("llama", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}),
    ("llama", {"a_key_that_only_its_author_knows": 1}),
    ("gemma2", {"final_logit_softcapping": 15.0}),
    ("gemma2", {"attn_logit_softcapping": 25.0}),
    ("gemma2", {"query_pre_attn_scalar": 128}),
    ("gemma2", {"sliding_window": 1024}),
    ("granite", {"logits_scaling": 8.0}),
    ("granite", {"residual_multiplier": 0.22}),
    ("granite", {"embedding_multiplier": 12.0}),
    ("granite", {"attention_multiplier": 0.0078}),
    ("mixtral", {"num_experts_per_tok": 1}),
    ("qwen3_moe", {"norm_topk_prob": True}),
    ("deepseek_v3", {"routed_scaling_factor": 1.0}),
    ("phi", {"partial_rotary_factor": 0.25}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ("gemma3", {"text_config": {"final_logit_softcapping": 15.0}}),
    ("mamba2", {"time_step_limit": [0.0, 1.0]}),
]


@pytest.mark.parametrize(
    ("kind", "changed"), SCALARS, ids=lambda value: "-".join(value) if isinstance(value, dict) else value
)
def test_every_setting_of_an_architecture_that_decides_changes_it(
    base: Path, kind: str, changed: dict[str, Any]
) -> None:
    (base / "config.json").write_text(json.dumps({"model_type": kind}))
    before = fingerprint(base)
    _config(base, **changed)
    assert fingerprint(base) != before


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "qwen3_moe", "gemma3"])
def test_what_goes_without_saying_may_be_said(kind: str) -> None:
    """A newer version of transformers writes out defaults, and what follows from other keys."""
    from transformers import CONFIG_MAPPING

    short = {"model_type": kind, "num_hidden_layers": 3}
    long = json.loads(CONFIG_MAPPING[kind].from_dict(dict(short)).to_json_string(use_diff=False))
    assert len(long) > 15
    assert decisive.configuration(long) == decisive.configuration(short)


def test_what_a_file_says_of_itself_alone_changes_nothing(base: Path) -> None:
    before = fingerprint(base)
    _config(
        base, _name_or_path="x", transformers_version="4.1.0", dtype="bfloat16", torch_dtype="float16", use_cache=False
    )
    assert fingerprint(base) == before


def test_a_type_that_transformers_does_not_know_keeps_every_key(base: Path) -> None:
    _config(base, model_type="of_tomorrow", gate=1.0)
    before = fingerprint(base)
    _config(base, gate=2.0)
    assert fingerprint(base) != before


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"repetition_penalty": 1.2}, False),
        ({"eos_token_id": [0, 5]}, False),
        ({"suppress_tokens": [3]}, False),
        ({"transformers_version": "4.1.0", "output_scores": False}, True),
    ],
)
def test_generation_settings_that_change_an_answer_change_it(base: Path, changed: dict[str, Any], same: bool) -> None:
    path = base / "generation_config.json"
    stated = json.loads(path.read_text()) if path.is_file() else {}
    before = fingerprint(base)
    path.write_text(json.dumps(stated | changed))
    assert (fingerprint(base) == before) is same


def _tokenizer(base: Path, change: Any) -> None:
    path = base / "tokenizer.json"
    stated = json.loads(path.read_text())
    change(stated)
    path.write_text(json.dumps(stated))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["model"].update(byte_fallback=True),
        lambda t: t["model"].update(ignore_merges=True),
        lambda t: t["model"].update(unk_token="<|end|>"),
        lambda t: t["model"]["merges"].reverse(),
        lambda t: t["added_tokens"][0].update(lstrip=True),
        lambda t: t["added_tokens"][0].update(special=False),
        lambda t: t.update(normalizer={"type": "Lowercase"}),
        lambda t: t["pre_tokenizer"].update(add_prefix_space=True),
    ],
)
def test_every_part_of_a_tokenizer_that_decides_changes_it(base: Path, change: Any) -> None:
    before = fingerprint(base)
    _tokenizer(base, change)
    assert fingerprint(base) != before


def test_how_a_tokenizer_is_written_changes_nothing(base: Path) -> None:
    from transformers import AutoTokenizer

    before = fingerprint(base)
    _tokenizer(
        base,
        lambda t: t["model"].update(
            merges=[one if isinstance(one, str) else " ".join(one) for one in t["model"]["merges"]]
        ),
    )
    _tokenizer(
        base,
        lambda t: t.update(truncation={"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}),
    )
    assert fingerprint(base) == before
    AutoTokenizer.from_pretrained(base).save_pretrained(base)
    assert fingerprint(base) == before


_TOKEN = {"content": "ab", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
_BESIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "first token": ("tokenizer_config.json", {"add_bos_token": True}),
    "end": ("tokenizer_config.json", {"eos_token": "a"}),
    "legacy": ("tokenizer_config.json", {"legacy": False}),
    "another class": ("tokenizer_config.json", {"tokenizer_class": "GemmaTokenizer"}),
    "its fast name": ("tokenizer_config.json", {"tokenizer_class": "GemmaTokenizerFast"}),
    "another class, by config.json": ("config.json", {"tokenizer_class": "GemmaTokenizer"}),
    "a role of its own": ("tokenizer_config.json", {"answer_token": "ab"}),
    "tokens of a model": ("tokenizer_config.json", {"model_specific_special_tokens": {"x": "ab"}}),
    "more tokens": ("tokenizer_config.json", {"extra_special_tokens": ["ab"]}),
    "more tokens by name": ("tokenizer_config.json", {"extra_special_tokens": {"x": "ab"}}),
    "listed": ("tokenizer_config.json", {"added_tokens_decoder": {"7": _TOKEN}}),
    "listed, with its spaces": (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"0": {**_TOKEN, "content": "<|end|>", "lstrip": True, "rstrip": True}}},
    ),
    "a map": ("special_tokens_map.json", {"answer_token": "ab"}),
    "a map of what is known": ("special_tokens_map.json", {"eos_token": "<|other|>"}),
    "added": ("added_tokens.json", {"ab": 500}),
    "a key that only its author knows": ("tokenizer_config.json", {"of_tomorrow": 0.5}),
    "a length": ("tokenizer_config.json", {"model_max_length": 5}),
    "Mistral's": ("tekken.json", {"vocab": []}),
    "other files of a class that reads them": ("vocab.json", {"a": 1}),
}


def _cut(base: Path) -> Any:
    """What transformers makes of a text: the oracle."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    return tokenizer("the  <|end|>  profit ab cab ")["input_ids"], tokenizer.all_special_ids, tokenizer.eos_token_id


@pytest.mark.parametrize(("name", "changed"), _BESIDE.values(), ids=_BESIDE.keys())
def test_files_beside_the_tokenizer_that_decide_change_it(base: Path, name: str, changed: dict[str, Any]) -> None:
    _tokenizer(base, lambda t: t["added_tokens"].append({**t["added_tokens"][0], "id": 1, "content": "<|other|>"}))
    if name == "vocab.json":
        path = base / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "CTRLTokenizer"}))
    before, cut = fingerprint(base), _cut(base) if name != "vocab.json" else None
    path = base / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | changed))
    assert fingerprint(base) != before
    if cut is not None and '"ab"' in json.dumps(changed):
        assert _cut(base) != cut


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "is_local": False}),
        ("tokenizer_config.json", {"model_max_length": 10**30, "padding_side": "left", "name_or_path": "x"}),
        ("tokenizer_config.json", {"clean_up_tokenization_spaces": False, "add_bos_token": False}),
        ("tokenizer_config.json", {"extra_special_tokens": ["<|end|>"], "chat_template": "x"}),
        ("special_tokens_map.json", {"eos_token": "<|end|>"}),
        ("vocab.json", {"a": 1}),
    ],
)
def test_files_beside_the_tokenizer_that_repeat_change_nothing(base: Path, name: str, changed: dict[str, Any]) -> None:
    before, cut, path = fingerprint(base), _cut(base), base / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | changed))
    assert fingerprint(base) == before
    assert _cut(base) == cut


@pytest.mark.parametrize("changed", [{"tokenizer_class": "T5Tokenizer"}, {"add_bos_token": False}, {"legacy": False}])
def test_without_tokenizer_json_the_class_and_all_that_it_is_told_count(base: Path, changed: dict[str, Any]) -> None:
    (base / "tokenizer.json").unlink()
    (base / "tokenizer.model").write_bytes(b"sentence pieces")
    (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    before = fingerprint(base)
    (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"} | changed))
    assert fingerprint(base) != before


# ---------------------------------------------------------------- read once, and again when it has changed


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose bytes were hashed; files of any size are kept."""
    seen: list[str] = []
    taken, whole = hashes._read, hashes.sha256_file
    monkeypatch.setattr(hashes, "_KEPT", 1000)
    monkeypatch.setattr(hashes, "_read", lambda path, **how: seen.append(path.name) or taken(path, **how))
    monkeypatch.setattr(hashes, "sha256_file", lambda path: seen.append(path.name) or whole(path))
    return seen


def test_weights_are_read_once(base: Path, tmp_path: Path, reads: list[str]) -> None:
    first = fingerprint(base)
    (tmp_path / "link").symlink_to(base)
    assert fingerprint(tmp_path / "link") == first
    os.link(base / "model.safetensors", tmp_path / "other")  # moves the time of change: read again, and kept
    assert fingerprint(base) == fingerprint(base) == first
    assert reads == ["model.safetensors"] * 2


def test_the_hash_of_the_file_and_of_its_tensors_take_one_pass(base: Path, reads: list[str]) -> None:
    weights = base / "model.safetensors"
    import hashlib

    assert hashes.of_file(weights) == hashlib.sha256(weights.read_bytes()).hexdigest()
    kept = hashes.of_tensors(weights)
    assert reads == ["model.safetensors"]
    header_free = {
        name: hashlib.sha256(
            json.dumps(["F32", list(tensor.shape)], separators=(",", ":")).encode() + tensor.tobytes()
        ).hexdigest()
        for name, tensor in load_file(weights).items()
    }
    assert kept == header_free


def test_a_change_that_sets_its_time_back_is_seen(base: Path, reads: list[str]) -> None:
    first, path = fingerprint(base), base / "model.safetensors"
    about = path.stat()
    with path.open("r+b") as handle:
        handle.seek(-8, os.SEEK_END)
        handle.write(b"\1" * 8)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert path.stat().st_mtime_ns == about.st_mtime_ns
    assert path.stat().st_size == about.st_size
    assert fingerprint(base) != first


def test_a_change_right_after_the_hash_is_seen(base: Path, reads: list[str]) -> None:
    """Within a tick of the system's clock two changes have one time."""
    path = base / "model.safetensors"
    content = bytearray(path.read_bytes())
    found = set()
    for last in range(5):
        content[-1] = last
        path.write_bytes(content)
        found.add(fingerprint(base))
    assert len(found) == 5


def test_another_file_with_all_times_equal_is_another(base: Path, tmp_path: Path, reads: list[str]) -> None:
    other = make_llama(tmp_path / "other", seed=1)
    first = fingerprint(base)
    about = (base / "model.safetensors").stat()
    shutil.move(other / "model.safetensors", base / "model.safetensors")
    os.utime(base / "model.safetensors", ns=(about.st_atime_ns, about.st_mtime_ns))
    assert fingerprint(base) != first


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"stamp": 1}', '{"stamp": [], "found": {"tensors": {}}}'])
def test_a_torn_entry_is_taken_for_none(base: Path, tmp_path: Path, reads: list[str], torn: str) -> None:
    first = fingerprint(base)
    for entry in (tmp_path / "cache" / "hashes").iterdir():
        entry.write_text(torn)
    assert fingerprint(base) == first


def test_a_cache_that_cannot_be_written_costs_time_alone(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    first = fingerprint(base)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "file"))
    assert fingerprint(base) == first
    assert len(reads) == 2


def test_weights_that_change_while_they_are_read(base: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]) -> None:
    taken = hashes._read

    def touched(path: Path, **how: Any) -> Any:
        found = taken(path, **how)
        os.utime(path)
        return found

    monkeypatch.setattr(hashes, "_read", touched)
    with pytest.raises(FinbenchError, match="changed while it was read"):
        fingerprint(base)


@pytest.mark.parametrize("holes", [b"\0" * 8, b""])
def test_bytes_that_no_tensor_has_are_refused(base: Path, holes: bytes) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes() + holes if holes else path.read_bytes()[:-1])
    with pytest.raises(FinbenchError, match=r"no tensor has|torn"):
        fingerprint(base)


def test_a_gguf_file_is_every_byte_of_it(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + bytes(2**23))
    first = ggufs._identity(path)
    with path.open("r+b") as handle:
        handle.seek(2**21 + 5)  # between the first megabyte, the middle one and the last
        handle.write(b"x")
    assert ggufs._identity(path) != first


def test_a_configuration_that_no_class_takes_is_one_line(base: Path) -> None:
    from finbench.models import bases

    _config(base, hidden_size="many")
    with pytest.raises(FinbenchError, match="cannot be loaded as a causal language model"):
        bases.resolve(str(base))
    assert modelfiles.is_structured(base) is False
