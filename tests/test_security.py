"""Files of strangers: nothing of theirs runs, nothing leaves the cache, every refusal is quick. See SECURITY.md."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conftest import TOKEN, files_of, hub_environment, processor_time, quick, upload
from finbench.core import safety
from finbench.core.errors import FinbenchError
from finbench.hub.dev.server import DevHub
from finbench.models import adapters, attaching, bases, chatguard, modelfiles


class Bomb:
    """Touches the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.canary}'",)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "CANARY"
    yield path
    assert not path.exists()


@pytest.fixture
def adapter(lora: Path, tmp_path: Path) -> Path:
    """A copy of a good adapter, to be spoilt."""
    return shutil.copytree(lora, tmp_path / "adapter")


def configured(folder: Path, **changed: Any) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return folder


def refused(folder: Path, match: str, seconds: float = 5) -> None:
    start = processor_time()
    with pytest.raises(FinbenchError, match=match) as caught:
        adapters.read(folder)
    assert quick(processor_time() - start, seconds)
    assert len(caught.value.message) < 1_500


SPOKEN: list[dict[str, Any]] = [
    {"num_beams": 3000},
    {"num_beams": "x"},
    {"num_return_sequences": 2},
    {"max_time": 0.0},
    {"assistant_early_exit": 2**31},
    {"prompt_lookup_num_tokens": 2**31},
    {"stop_strings": ["a"]},
    {"repetition_penalty": "x"},
    {"repetition_penalty": 1e308},
    {"no_repeat_ngram_size": []},
    {"bad_words_ids": 0},
    {"bad_words_ids": [[]]},
    {"suppress_tokens": ["a"]},
    {"eos_token_id": {"a": 1}},
    {"eos_token_id": [10**30]},
]


@pytest.mark.parametrize("stated", SPOKEN, ids=str)
def test_settings_of_generation_that_are_no_choice_of_tokens(
    stated: dict[str, Any], llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(llama, tmp_path / "base")
    path = folder / "generation_config.json"
    own = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(own | stated))
    with pytest.raises(FinbenchError, match=next(iter(stated))):
        bases.resolve(str(folder))


def test_settings_of_generation_that_real_models_have(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "base")
    path = folder / "generation_config.json"
    own = json.loads(path.read_text()) if path.is_file() else {}
    more = {"repetition_penalty": 1.05, "top_k": 20, "eos_token_id": [1, 2], "pad_token_id": -1, "num_beams": 1}
    more |= {"num_return_sequences": 1, "max_time": None, "suppress_tokens": [1], "chat_format": "chatml"}
    path.write_text(json.dumps(own | more | {"return_dict_in_generate": True, "cache_implementation": "hybrid"}))
    assert bases.resolve(str(folder)).folder == folder


# ---------------------------------------------------------------- pickles


@pytest.mark.parametrize("to", ["a pipe", "/dev/zero", "/", "nowhere"])
@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "special_tokens_map.json", "chat_template.jinja"]
)
def test_a_file_of_a_model_that_is_no_file(name: str, to: str, llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "base")
    (folder / name).unlink(missing_ok=True)
    if to == "a pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(to)
    with pytest.raises(FinbenchError, match="is no plain file"):
        bases.resolve(str(folder))


def test_a_pickle_is_never_opened_under_any_name(adapter: Path, canary: Path) -> None:
    bomb = pickle.dumps(Bomb(canary))
    (adapter / "adapter_model.safetensors").write_bytes(bomb)
    refused(adapter, "is a pickle under another name")
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(bomb)
    refused(adapter, "only pickled weights .adapter_model.bin., which are never loaded")


@pytest.mark.parametrize("start", [b"\x80\x04", b"PK"])
def test_a_header_whose_length_begins_as_a_pickle_does_is_read(start: bytes, tmp_path: Path) -> None:
    """Lengths are multiples of eight, so one in 32 begins with the byte of a pickle, one in 65,536 as a zip file."""
    path = tmp_path / "model.safetensors"
    length = int.from_bytes(start, "little")
    named = b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    path.write_bytes(length.to_bytes(8, "little") + named.ljust(length) + bytes(8))
    assert list(safety.check_header(path)) == ["x"]
    assert load_file(path)["x"].tolist() == [0, 0]


def test_a_zipped_checkpoint_under_the_name_of_safetensors(adapter: Path, canary: Path) -> None:
    import torch

    torch.save({"x": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    refused(adapter, "is a pickle under another name")


def test_pickles_and_code_beside_good_weights_are_not_fetched(dev_hub: DevHub, lora: Path, canary: Path) -> None:
    extra = {name: pickle.dumps(Bomb(canary)) for name in ("adapter_model.bin", "training_args.bin", "rng_state.pth")}
    extra |= {"modeling_x.py": f"open({str(canary)!r}, 'w')".encode(), "conftest.py": b"raise SystemExit(1)"}
    upload(dev_hub, "them/mixed", {**files_of(lora), **extra})
    found = adapters.find("hub:them/mixed")
    assert {path.suffix for path in found.folder.iterdir()} == {".json", ".safetensors"}


def test_a_file_that_is_a_link_in_git_is_its_text(dev_hub: DevHub, lora: Path) -> None:
    """A symbolic link in a repository arrives as a file that holds the target's name."""
    upload(dev_hub, "them/linked", {**files_of(lora), "adapter_config.json": b"/etc/passwd"})
    with pytest.raises(FinbenchError, match="torn or not JSON"):
        adapters.find("hub:them/linked")


# ---------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    "changed",
    [
        {"auto_mapping": {"base_model_class": "X", "parent_library": "evil"}},
        {"megatron_config": {"x": 1}, "megatron_core": "evil.module"},
        {"megatron_core": "os"},
        {"auto_map": {"AutoModel": "evil--modeling.X"}},
        {"trust_remote_code": True},
        {"_attn_implementation_internal": "evil/kernel"},
        {"nested": {"deeper": [{"auto_map": {"AutoConfig": "x.Y"}}]}},
    ],
)
def test_an_adapter_that_would_import_code_is_refused(adapter: Path, changed: dict[str, Any]) -> None:
    refused(configured(adapter, **changed), "asks to run code")


@pytest.mark.parametrize(
    "changed",
    [
        {"peft_type": "XLORA", "adapters": {"0": "./other"}},
        {"adapters": {"0": "hub/other"}},
        {"corda_config": {"cache_file": "./a.pt"}},
        {"corda_config": {"covariance_file": "./a.pt"}},
        {"prompt_tuning_init_state_dict_path": "./a.bin"},
        {"peft_type": "SHADOW", "shadow_model": "hub/other"},
        {"shadow_model": "hub/other"},
        {"nested": [{"weights_dir": "/tmp"}]},
    ],
)
def test_an_adapter_that_opens_further_files_is_refused(adapter: Path, changed: dict[str, Any]) -> None:
    refused(configured(adapter, **changed), "opens further ones|names further files")


def test_what_an_adapter_may_name_without_a_file_being_opened(adapter: Path) -> None:
    configured(adapter, tokenizer_name_or_path="x/y", corda_config={"cache_file": None}, use_trainable_adapters=False)
    adapters.read(adapter)


@pytest.mark.parametrize("changed", [{"r": 4096}, {"r": 5}, {"r": 4096, "rank_pattern": {"v_proj": 4}}, {"r": None}])
def test_a_rank_that_the_tensors_do_not_have_is_refused_before_anything_is_made(
    adapter: Path, changed: dict[str, Any]
) -> None:
    refused(configured(adapter, **changed), "states rank .*, and .* has 4", seconds=1)


def test_ranks_by_module_are_taken_as_peft_takes_them(adapter: Path) -> None:
    adapters.read(configured(adapter, r=64, rank_pattern={"q_proj": 4, r"layers\.\d\.self_attn\.v_proj": 4}))
    refused(configured(adapter, r=4, rank_pattern={"q_proj": 64}), "states rank 64, and .*q_proj.* has 4")


def test_factors_of_experts_are_stacked_and_their_rank_is_a_multiple(adapter: Path) -> None:
    """The tensors have rank 4: two experts of 2, say."""
    adapters.read(configured(adapter, r=2, target_parameters=["experts.down_proj"]))
    adapters.read(configured(adapter, r=8, target_parameters=["x.gate_up_proj"], rank_pattern={".*gate_up_proj": 2}))
    for changed, said in (
        ({"r": 3, "target_parameters": ["experts.down_proj"]}, "states rank 3, and .* has 4"),
        ({"r": 4096, "target_parameters": "down_proj"}, "states rank 4096, and .* has 4"),
        (
            {"r": 4, "target_parameters": ["down_proj", "gate_up_proj"], "rank_pattern": {"gate_up_proj": 4096}},
            "states rank 4096, and no tensor has it",
        ),
    ):
        refused(configured(adapter, **changed), said)
    many = {"rank_pattern": {f"x{n}": 4 for n in range(9_000)}, "target_parameters": [f"y{n}" for n in range(900)]}
    refused(configured(adapter, r=4, **many), "ranks and scales have 9,000 entries")
    scales = {f"x{n}": 8 for n in range(4_000)}  # peft looks through these at every module as well
    refused(configured(adapter, rank_pattern={}, alpha_pattern=scales), "ranks and scales have 4,000 entries")


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil--m.X"}}),
        ("config.json", {"_attn_implementation_internal": "evil/kernel"}),
        ("config.json", {"_attn_implementation": "evil/kernel"}),
        ("config.json", {"attn_implementation": "evil/kernel"}),
        ("config.json", {"experts_implementation": "evil/kernel"}),
        ("config.json", {"_experts_implementation_internal": "evil/kernel"}),
        ("config.json", {"text_config": {"attn_implementation": {"": "evil/kernel"}}}),
        ("config.json", {"text_config": {"auto_map": {"AutoConfig": "m.X"}}}),
        ("config.json", {"trust_remote_code": True}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil--t.X", None]}}),
        ("generation_config.json", {"custom_generate": "evil/generate"}),
    ],
)
def test_a_base_that_would_run_code_is_refused(llama: Path, tmp_path: Path, name: str, changed: dict[str, Any]) -> None:
    folder = shutil.copytree(llama, tmp_path / "base")
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | changed))
    with pytest.raises(FinbenchError, match="asks to run code"):
        bases.resolve(str(folder))


@pytest.mark.parametrize(
    ("name", "changed", "other"),
    [
        ("config.json", {"configuration_files": ["config.4.0.0.json"]}, "config.4.0.0.json"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}, "tokenizer.4.0.0.json"),
        ("tokenizer_config.json", {"gguf_file": "a.gguf"}, "a.gguf"),
        ("config.json", {"transformers_weights": "other.safetensors"}, "other.safetensors"),
        ("config.json", {"transformers_weights": "adapter_model.bin"}, "adapter_model.bin"),
    ],
)
def test_a_base_that_has_other_files_read_instead_is_refused(
    llama: Path, tmp_path: Path, name: str, changed: dict[str, Any], other: str
) -> None:
    """transformers reads a file of a version by these keys; no check and no hash would see it."""
    folder = shutil.copytree(llama, tmp_path / "base")
    (folder / other).write_bytes((folder / name).read_bytes())
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changed))
    with pytest.raises(FinbenchError, match="has other files read instead"):
        bases.resolve(str(folder))


def test_what_the_libraries_write_themselves_is_no_fault(adapter: Path) -> None:
    configured(adapter, megatron_core="megatron.core", megatron_config=None, auto_mapping=None)
    adapters.read(adapter)
    safety.refuse_code({"_attn_implementation_autoset": True, "_attn_implementation": "sdpa"}, Path("config.json"))
    named = {"attn_implementation": {"": "eager", "vision_config": "sdpa"}, "experts_implementation": "grouped_mm"}
    safety.refuse_code({**named, "_experts_implementation": None, "text_config": named}, Path("config.json"))


# ---------------------------------------------------------------- bombs


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"r": 10**6}, "a rank is a whole number"),
        ({"r": 0}, "a rank is a whole number"),
        ({"r": True}, "a rank is a whole number"),
        ({"r": "8"}, "a rank is a whole number"),
        ({"rank_pattern": {"q_proj": 10**6}}, "a rank is a whole number"),
        ({"rank_pattern": [1]}, "no mapping"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan; a scale is a number other than 0"),
        ({"lora_dropout": float("nan")}, "a number that JSON does not have"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"lora_alpha": None}, "lora_alpha is None; a scale is a number other than 0"),
        ({"lora_alpha": 0}, "lora_alpha is 0"),
        ({"alpha_pattern": {"q_proj": 1e999}}, "alpha_pattern q_proj is inf"),
        ({"layer_replication": [[0, 10**6]]}, "layer_replication"),
        ({"target_modules": r"(?:\w+\.?)+\w+[^.]!q"}, "takes too long"),
        ({"rank_pattern": {r"(?:(?:\w|\.)+)+!x": 4}}, "takes too long"),
        ({"target_modules": "("}, "invalid or takes too long"),
        ({"target_modules": ["q" * 3_000]}, "too many or too long"),
        ({"target_modules": {"a": 1}}, "neither a name nor a list"),
        ({"lora_alpha": 10**30}, "lora_alpha is 1000.*at most 1,000,000,000"),
        ({"alpha_pattern": {"q_proj": -(10**30)}}, "at most 1,000,000,000"),
        ({"lora_alpha": 10**400}, "a number of 401 digits"),
        ({"anything": [{"else": -(10**400)}]}, "a number of 402 digits"),
        ({"anything": "\ud800"}, "torn or not JSON .*surrogates"),
        ({"modules_to_save": [f"x{n}" for n in range(101)]}, "modules_to_save has 101 names"),
        ({"layers_pattern": [f"x{n}" for n in range(9_000)]}, "layers_pattern has 9,000 names"),
        ({"layers_pattern": r"(?:[\w!]+\.?)+x"}, "takes too long"),
        ({"modules_to_save": [r"(?:[\w!]+\.?)+:"]}, "takes too long"),
        ({"n_frequency_pattern": {r"(?:[\w!]+\.?)+:": 4}}, "takes too long"),
    ],
)
def test_configurations_that_take_all_memory_or_time(adapter: Path, changed: dict[str, Any], match: str) -> None:
    refused(configured(adapter, **changed), match)


# It ends at once on the names of modules that have tensors here, and never on others of the base.
ENDLESS = r"(?:[\w!]+\.?)+(?:(?<=q_proj)|(?<=v_proj)|(?<=lm_head)|(?<=tokens)|(?<=c_attn)|(?<=!))"


@pytest.mark.parametrize("changed", [{"target_modules": ENDLESS}, {"exclude_modules": ENDLESS}])
def test_a_search_without_end_on_names_that_only_the_base_has(
    adapter: Path, llama: Path, changed: dict[str, Any]
) -> None:
    import torch

    model = bases.load(bases.resolve(str(llama)), 16, torch.float32)[0]
    adapters.read(configured(adapter, **changed))
    start = processor_time()
    with pytest.raises(FinbenchError, match="names modules by a regular expression that is invalid or takes too long"):
        attaching.attach(model, adapter)
    assert quick(processor_time() - start, 3)


@pytest.mark.filterwarnings("ignore:The following alpha_pattern keys")
def test_patterns_of_every_module_take_peft_no_time(adapter: Path, llama: Path) -> None:
    """Python compiles more than 512 anew at each module."""
    import torch

    model = bases.load(bases.resolve(str(llama)), 16, torch.float32)[0]
    configured(adapter, alpha_pattern={f"x{n}": 8 for n in range(3_000)})
    start = processor_time()
    attaching.attach(model, adapter)
    assert quick(processor_time() - start, 2)


@pytest.mark.parametrize(
    "changed",
    [{"alora_invocation_tokens": "evil"}, {"lora_dropout": []}, {"modules_to_save": ["lm_head"]}, {"bias": {}}],
)
def test_what_peft_trips_over_is_one_line(adapter: Path, llama: Path, changed: dict[str, Any]) -> None:
    """Some of a configuration is first looked at when the model computes."""
    from finbench.engines.hf import HFEngine

    engine = HFEngine(bases.resolve(str(llama)), dtype="float32")
    with pytest.raises(FinbenchError, match="does not fit its base: ") as caught:
        engine.use(configured(adapter, **changed))
    assert "adapter_config.json is wrong" in caught.value.hint


def test_a_deep_and_a_long_configuration(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text('{"x":' * 100_000 + "1" + "}" * 100_000)
    refused(adapter, "torn or not JSON")
    (adapter / "adapter_config.json").write_text('{"x": "' + "y" * 2_000_000 + '"}')
    refused(adapter, "too large for a configuration")


def test_a_million_keys(adapter: Path) -> None:
    entries = (f'"k{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(10**6))
    header = ("{" + ",".join(entries) + "}").encode()
    (adapter / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(adapter, "no model needs that")
    entries = (f'"k{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(300_000))
    header = ("{" + ",".join(entries) + "}").encode()
    (adapter / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(adapter, "names more than 200,000 tensors")


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        b'{"a": 1}',
        b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b"\xff\xfe",
        b"[" * 5_000,
    ],
)
def test_headers_that_lie(adapter: Path, header: bytes) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    refused(adapter, "torn or not safetensors|no tensors")


def test_truncations_at_every_boundary_and_elsewhere(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    ends = {8 + length + end for entry in header.values() if "data_offsets" in entry for end in entry["data_offsets"]}
    cuts = {0, 1, 7, 8, 9, 8 + length - 1, 8 + length, len(whole) - 1, *ends} - {len(whole)}
    cuts |= set(np.random.default_rng(0).integers(0, len(whole), 100).tolist())
    for cut in sorted(cuts):
        weights.write_bytes(whole[:cut])
        refused(adapter, "torn or not safetensors|is empty, not a file of weights")
    weights.write_bytes(whole + b"\0")
    refused(adapter, "torn or not safetensors")
    weights.write_bytes(whole)
    adapters.read(adapter)


def test_flipped_bits_never_reach_a_score(dev_hub: DevHub, lora: Path) -> None:
    """In transit and on disk: what arrives is what the Hub lists, or nothing."""
    from finbench import hub

    sha = upload(dev_hub, "them/good", files_of(lora))
    fetched = hub.fetch("them/good").folder / "adapter_model.safetensors"
    whole, real = fetched.read_bytes(), fetched.resolve()
    rng = np.random.default_rng(1)
    for _ in range(40):
        spoilt = bytearray(whole)
        spoilt[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        real.chmod(0o644)
        real.write_bytes(bytes(spoilt))
        again = hub.fetch("them/good", sha).folder / "adapter_model.safetensors"
        assert again.read_bytes() == whole
        real = again.resolve()


def test_values_that_are_not_finite(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    for value in (np.nan, np.inf, -np.inf):
        for name in tensors:
            spoilt = {key: tensor.copy() for key, tensor in tensors.items()}
            spoilt[name].flat[-1] = value
            save_file(spoilt, weights)
            refused(adapter, "not finite")


# ---------------------------------------------------------------- chat templates


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}" + "{% for c in range(9) %}" + 3 * "{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ messages[0].content * 99999999 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'x' | center(1000000000) }}",
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(70) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "x" * 300_000,
    ],
)
def test_templates_that_never_end_or_take_too_much(template: str) -> None:
    start = processor_time()
    with pytest.raises(FinbenchError, match="chat template of x"):
        chatguard.check(template, "x")
    assert quick(processor_time() - start, 1.5)  # half a second, and the start of a process


def test_a_template_is_not_refused_because_the_machine_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that waits costs nothing: only its own time counts."""
    monkeypatch.setattr(chatguard, "_IMPORTS", chatguard._IMPORTS + "import time\ntime.sleep(2)\n")
    chatguard.check("{{ messages[0].content }} <busy>", "x")


SSTI = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages.append(1) }}",
    "{% for c in ().__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
]


@pytest.mark.parametrize("template", SSTI)
def test_templates_that_reach_for_the_system_reach_nothing(
    llama: Path, tmp_path: Path, canary: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(llama, tmp_path / "base")
    (folder / "chat_template.jinja").write_text(template)
    base = bases.resolve(str(folder))
    apply = bases.chat_template(bases.load_tokenizer(base), "x")
    try:
        made = apply([{"role": "user", "content": "Hello"}])
    except FinbenchError as fault:
        made = fault.message
    assert "subprocess" not in made
    assert "<class" not in made


def test_a_template_that_waits_for_a_word_is_stopped_too(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "base")
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(
        "{% if 'profit' in messages[0].content %}" + loop + "{% endif %}{{ messages[0].content }}"
    )
    apply = bases.chat_template(bases.load_tokenizer(bases.resolve(str(folder))), "x")
    assert apply([{"role": "user", "content": "Hello"}]) == "Hello"
    start = processor_time()
    with pytest.raises(FinbenchError, match="was stopped"):
        apply([{"role": "user", "content": "a profit"}])
    assert quick(processor_time() - start, 3)


# ---------------------------------------------------------------- secrets, and other people's text


@pytest.mark.slow
def test_a_token_is_in_nothing_that_a_command_says_or_writes(
    dev_hub: DevHub, lora: Path, llama: Path, tmp_path: Path
) -> None:
    import subprocess
    import sys

    secret = "hf_" + "S3cret" * 6
    dev_hub.tokens = {secret: dev_hub.tokens[TOKEN]}
    environment = {
        **os.environ,
        **hub_environment(dev_hub, tmp_path / "home"),
        "HF_TOKEN": secret,
        "FINBENCH_DEBUG": "1",
    }
    environment |= {"FINBENCH_ZOO": str(tmp_path / "zoo.yaml")}

    def finbench(*arguments: str) -> str:
        command = [sys.executable, "-m", "finbench", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        return done.stdout + done.stderr

    said = finbench("push", str(lora), "hub:org/tiny", "--json")
    assert '"commit"' in said
    dev_hub.faults.set("500@GET /api/models/")
    said += finbench("pull", "hub:org/tiny", "--out", "x")
    dev_hub.faults.set("403@POST")
    said += finbench("push", str(llama), "hub:org/other")
    dev_hub.faults.set()
    said += finbench("zoo", "add", "hub:org/tiny") + finbench("doctor")
    assert secret not in said
    assert "Traceback" in said  # FINBENCH_DEBUG shows traces: not there either
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_text_of_strangers_is_shown_as_text(dev_hub: DevHub, lora: Path, tmp_path: Path) -> None:
    from finbench.publishing.publish import push

    folder = shutil.copytree(lora, tmp_path / "adapter")
    configured(folder, base_model_name_or_path="org/<img src=x onerror=alert(1)>")
    with pytest.raises(FinbenchError, match="does not name its base as a repository"):
        push(folder, "hub:org/tiny", dry_run=True)
    configured(folder, base_model_name_or_path="org/tiny-llama", peft_type="LORA", note="</script>[x](http://evil)")
    assert "evil" not in push(folder, "hub:org/tiny", dry_run=True).readme


def test_nothing_is_written_outside_the_caches(dev_hub: DevHub, lora: Path, tmp_path: Path) -> None:
    upload(dev_hub, "them/good", files_of(lora))
    outside = set(tmp_path.iterdir())
    for fault in ("listing@/tree/", "wrong@GET .*resolve", "short@GET .*resolve", "etag@resolve", ""):
        dev_hub.faults.set(*([fault] if fault else []))
        with contextlib.suppress(FinbenchError):
            adapters.find("hub:them/good")
    assert set(tmp_path.iterdir()) - outside <= {tmp_path / "cache", tmp_path / "hf", tmp_path / "xdg"}
    modelfiles_written = [p for p in (tmp_path / "cache").rglob("*") if p.is_symlink()]
    hf = (tmp_path / "hf").resolve()
    assert all(hf in p.resolve().parents for p in modelfiles_written)


def test_the_fingerprint_of_a_base_is_taken_of_checked_files_only(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "base")
    (folder / "model.safetensors").write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(FinbenchError, match="pickle under another name"):
        modelfiles.check_folder(folder)


# ---------------------------------------------------------------- files that change between the look and the use


def _other_weights(folder: Path) -> None:
    """Another file of weights in the place of the one that was looked at, as a rename puts it there."""
    name = "adapter_model.safetensors" if (folder / "adapter_config.json").is_file() else "model.safetensors"
    tensors = {key: value * np.float32(1.5) for key, value in load_file(folder / name).items()}
    save_file(tensors, folder / "new.safetensors", metadata={"format": "pt"})
    (folder / "new.safetensors").replace(folder / name)


@pytest.mark.parametrize("when", ["loaded", "answered"])
@pytest.mark.parametrize("which", ["adapter", "base"])
def test_weights_that_are_swapped_after_they_were_named_answer_for_nobody(
    which: str, when: str, adapter: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training may write into the folder again, or a link may be turned, while a base is loaded for minutes."""
    from finbench.engines import hf
    from finbench.evaluation import evaluator, journal

    base = Path(shutil.copytree(llama, tmp_path / "base"))
    place, changed = {"adapter": adapter, "base": base}[which], []

    def swapped(real: Any) -> Any:
        def call(*given: Any, **how: Any) -> Any:
            if not changed:
                _other_weights(place)
                changed.append(place)
            return real(*given, **how)

        return call

    if when == "loaded":
        monkeypatch.setattr(hf.bases, "load", swapped(bases.load))
    else:
        monkeypatch.setattr(hf.HFEngine, "answer", swapped(hf.HFEngine.answer))
    asked = {"adapter": str(adapter), "base": str(base), "tasks": ["mini_sentiment"], "limit": 2}
    with pytest.raises(FinbenchError, match=f"{place} has changed while it was in use"):
        evaluator.evaluate(**asked, out=tmp_path / "o")
    assert changed
    cards = [json.loads(path.read_text())["subject"]["adapter"] for path in (tmp_path / "o").glob("*.json")]
    assert not [one for one in cards if which == "base" or one]
    assert not list((tmp_path / "o" / journal.FOLDER).glob("*.jsonl"))  # nor are they taken for answers next time


def test_a_base_that_is_swapped_while_it_is_loaded_trains_nothing(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finbench.training import recipes, runner

    base, real, changed = Path(shutil.copytree(llama, tmp_path / "base")), bases.load, []

    def load(*given: Any, **how: Any) -> Any:
        changed.append(_other_weights(base))
        return real(*given, **how)

    monkeypatch.setattr(bases, "load", load)
    recipe = recipes.recipe(None, {"base": str(base), "tasks": ["mini_sentiment"], "limit": 4, "epochs": 1, "rank": 2})
    with pytest.raises(FinbenchError, match="has changed while it was in use"):
        runner.train(recipe, tmp_path / "a")
    assert changed
    assert not (tmp_path / "a" / "finbench.json").exists()


def test_an_adapter_that_is_swapped_while_it_is_merged_is_no_model(
    adapter: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finbench import training

    real, changed = bases.load, []

    def load(*given: Any, **how: Any) -> Any:
        if not changed:
            changed.append(_other_weights(adapter))
        return real(*given, **how)

    monkeypatch.setattr(bases, "load", load)
    with pytest.raises(FinbenchError, match="has changed while it was in use"):
        training.merge(str(adapter), tmp_path / "m", base=str(llama))
    assert not (tmp_path / "m").exists()
