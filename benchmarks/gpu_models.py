"""What the sections of gpu_check.py share: Llamas of random weights, rows, a clock for steps, bases on the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AttentionInterface, TrainerCallback

from finbench.core import environment
from finbench.methods import method_named, quantise
from finbench.models import bases
from finbench.training import batches, loops, machines, packing, recipes, shapes

DEVICE = environment.device()
GPU = torch.cuda.is_available()
# hidden, MLP, layers, heads, key and value heads, vocabulary
SHAPES = {
    "gqa": (4096, 14336, 2, 32, 8, 32000),
    "1b": (2048, 8192, 16, 32, 8, 32000),
    "8b": shapes.SHAPES["llama-3.1-8b"],
}
TINY = (128, 256, 2, 4, 2, 600)
STARTS = (0, 26, 500)  # tokens that all rows begin with
NATS, COSINE = 0.15, 0.999
Rows = list[dict[str, Any]]


def row(name: str, found: str, limit: str = "", passed: bool | None = None) -> dict[str, Any]:
    """One line of the table."""
    return {"name": name, "found": found, "limit": limit, "passed": passed}


class Check:
    """What all sections share: the seed, whether models are small, and results of earlier sections."""

    def __init__(self, seed: int, tiny: bool, earlier: dict[str, Any]) -> None:
        self.seed, self.tiny, self.earlier = seed, tiny, earlier
        for name, shape in SHAPES.items():
            shapes.SHAPES[f"check-{name}"] = TINY if tiny else shape
        self.kept: dict[str, Any] = {}  # for section 9

    def shape(self, name: str) -> str:
        return f"check-{name}"

    def fast(self, reached: bool) -> bool | None:
        """A limit of speed, which a processor is not asked for."""
        return reached if GPU and not self.tiny else None


def model_of(shape: str, bits: int, dtype: Any, seed: int) -> Any:
    """A Llama with random weights, made where it will run; at 4 bits its layers but the head are NF4.

    Each layer keeps the size of what it is given, queries and keys excepted, and logits differ by some units: so
    attention and answers depend on every token.
    """
    import bitsandbytes as bnb
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = shapes.shaped(shape).config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, torch.nn.Linear):
            continue
        gain = 3.0 if name == "lm_head" else 1.5 if name.endswith(("q_proj", "k_proj")) else 1.0
        weight = torch.randn(layer.out_features, layer.in_features, device=DEVICE, dtype=dtype)
        weight *= gain / layer.in_features**0.5
        if bits == 16 or name == "lm_head":
            layer.weight = torch.nn.Parameter(weight)
            continue
        # coded layer by layer on the device: the model in 16 bits is never there
        made = bnb.nn.Linear4bit(layer.in_features, layer.out_features, False, dtype, True, "nf4", device="meta")
        made.weight = bnb.nn.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4")
        model.set_submodule(name, made.to(DEVICE))
    for module in model.modules():  # the embedding and the norms
        for name, tensor in list(module._parameters.items()):
            if tensor is not None and tensor.is_meta:
                value = torch.randn if tensor.dim() > 1 else torch.ones
                module._parameters[name] = torch.nn.Parameter(value(tensor.shape, device=DEVICE, dtype=dtype))
    with torch.device(DEVICE):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    if bits == 4:
        model.is_loaded_in_4bit = True
        quantise.cure_cpu_repacking(model)
    return model.eval()


def rows_like_fpb(number: int, vocabulary: int, start: int, seed: int) -> list[batches.TrainingRow]:
    """Random tokens: ``start`` that all rows begin with, 4 to 90 of their own (FPB's lengths), an answer of 2."""
    rng = random.Random(seed)
    begin = [rng.randrange(1, vocabulary) for _ in range(start)]
    made = []
    for _ in range(number):
        own = min(90, max(4, round(rng.gammavariate(4, 7))))
        made.append(batches.TrainingRow([*begin, *(rng.randrange(1, vocabulary) for _ in range(own + 2))], 2))
    return made


def long_rows(number: int, vocabulary: int, length: int, seed: int) -> list[batches.TrainingRow]:
    """Rows of which every token but the first is an answer, as published rates are of."""
    rng = random.Random(seed)
    return [
        batches.TrainingRow([rng.randrange(1, vocabulary) for _ in range(length)], length - 1) for _ in range(number)
    ]


def with_lora(model: Any, **stated: Any) -> tuple[Any, Any]:
    """(model, recipe): LoRA on all linear layers, no factor at zero."""
    wanted = {"tasks": ["mini_sentiment"], "rank": 16, "alpha": 32, "lr": 1e-4, **stated}
    recipe = recipes.recipe(None, wanted)
    made = method_named("lora").apply(model, recipe)
    generator = torch.Generator(DEVICE).manual_seed(1)
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if "lora_B" in name:
                tensor.copy_(0.01 * torch.randn(tensor.shape, generator=generator, device=DEVICE))
    return made, recipe


def autocast(dtype: Any) -> Any:
    """Half precision as training has it."""
    return torch.autocast(DEVICE.partition(":")[0], dtype, enabled=dtype != torch.float32)


def answers_and_gradients(
    model: Any, recipe: Any, loop: str, made: Sequence[batches.TrainingRow], dtype: Any
) -> tuple[Any, Any]:
    """(log-probabilities of the answers in the order of the rows, all gradients of the adapter as one vector)."""
    passes = dataclasses.replace(loops.Passes.of(recipe, loop, model.config.vocab_size, 0), rows=len(made))
    prepared = passes.prepare(made, model.device)
    model.zero_grad()
    with passes.at_work(model), loops.attending(prepared):
        with autocast(dtype):
            found, labels = loops.logits(model, prepared)
            chosen = labels != batches.IGNORED
            said = found.float()[chosen].log_softmax(-1).gather(1, labels[chosen][:, None])[:, 0]
        (-said.sum()).backward()
    return said.detach(), torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])


@contextlib.contextmanager
def off_by_one() -> Iterator[None]:
    """A planted fault: every token attends to the values of the token before. The checks must see it."""

    def shifted(module: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
        return packing.attend(module, query, key, value.roll(1, 2), *rest, **named)

    AttentionInterface.register(packing.ATTENTION, shifted)
    try:
        yield
    finally:
        AttentionInterface.register(packing.ATTENTION, packing.attend)


def card_here() -> machines.Card | None:
    """What is known of the card, or the processor, that is here."""
    if not GPU:
        return machines.card("cpu")
    name = machines.known_as(torch.cuda.get_device_name(0))
    return machines.CARDS[name] if name else None


def peak() -> float:
    """Dense TFLOP/s of the card or processor that is here; infinite for a card that is not in the table."""
    card = card_here()
    return card.tflops if card else math.inf


def let_go() -> None:
    """Give back what nobody holds any more."""
    environment.release_memory()


def fitting(what: Callable[..., Any], *given: Any) -> Any:
    """What ``what`` gives; None where the card's memory runs out."""
    with contextlib.suppress(torch.OutOfMemoryError):
        return what(*given)
    let_go()  # not within the handler: there the fault's frames still hold their tensors
    return None


class Clock(TrainerCallback):
    """When each optimiser step was done, on the card too."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if GPU:
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self, warm: int) -> list[float]:
        """Of each step after the first ``warm`` ones."""
        return [after - before for before, after in itertools.pairwise(self.ends[warm - 1 :])]


# in the names of torch's operations -> whose they are
_KERNELS = {
    "_varlen_attn": "flash, for sequences of any length",
    "attention_math": "plain products",
    "efficient_attention": "the memory-efficient one",
    "cudnn_attention": "cuDNN",
    "flash_attention_for_cpu": "torch's own for a processor",
    "flash_attention": "flash",
}


def kernels_of(profile: Any) -> list[str]:
    """Which kernels attention ran by, in words; forward and backward."""
    names = {event.key for event in profile.key_averages()}
    found = {next((word for part, word in _KERNELS.items() if part in name), "") for name in names}
    if "flash, for sequences of any length" in found:  # it calls that one
        found.discard("flash")
    return sorted(found - {""})


def base_folder(check: Check, folder: Path, shape: str, tokenizer_only: bool = False) -> Path:
    """A base of random weights on the disk, with a byte-level tokenizer of 600 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from finbench.core import paths

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    raw.train([str(paths.shipped("tasks") / "mini" / "mini_sentiment.train.jsonl")], trainer)
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", pad_token="<|end|>").save_pretrained(folder)
    if not tokenizer_only:
        model = model_of(check.shape(shape), 16, bases.compute_dtype("auto"), check.seed)
        model.config.eos_token_id = model.config.pad_token_id = model.config.bos_token_id = 0
        model.save_pretrained(folder)
        del model
        let_go()
    return folder


def saved_adapters(base: Path, folder: Path, ranks: Sequence[int]) -> list[Path]:
    """LoRAs of random weights, one of each of ``ranks``, as any other program would save them."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model, made = AutoModelForCausalLM.from_pretrained(base, dtype="auto"), []
    for number, rank in enumerate(ranks):
        torch.manual_seed(number)
        modules = ["q_proj", "v_proj", "o_proj"]
        stated = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules, task_type="CAUSAL_LM")
        wrapped = get_peft_model(model, stated)
        for name, tensor in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(tensor, std=0.02)
        wrapped.peft_config["default"].base_model_name_or_path = ""
        made.append(folder / f"rank{rank}-{number}")
        wrapped.save_pretrained(made[-1], save_embedding_layers=False)
        (made[-1] / "README.md").unlink()
        model = wrapped.unload()
    return made
