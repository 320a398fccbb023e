"""An adapter on its base: put there, beside others, or into the one that a model trains."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from finbench.core import environment, safety
from finbench.core.errors import FinbenchError, counted, reason
from finbench.methods import irqlora, one_dtype
from finbench.models import bases
from finbench.models.adapters import WEIGHTS, identity, stated_config

_COSTLY_STARTS = ("mica", "orthogonal")  # decompositions, which are left out where weights are filled in afterwards
_PEFT_RAISES = (
    *(ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError),
    *(ImportError, re.error),
)


def peft_config(folder: Path) -> Any:
    """The configuration as peft reads it. Raises FinbenchError for one that it cannot read."""
    from peft import PeftConfig

    stated = stated_config(folder)
    with fitting(folder):
        own = stated.get("peft_type") == irqlora.KIND
        return irqlora.peft_config(stated) if own else PeftConfig.from_pretrained(str(folder))


def check_readable(folder: Path, method: str) -> None:
    """No success is told of a training of ``method`` whose adapter nothing can load. Raises FinbenchError."""
    try:
        peft_config(folder)
    except FinbenchError as fault:
        raise FinbenchError(
            f"peft cannot read the configuration that it wrote itself: {reason(fault.__cause__ or fault)}",
            f"The checkpoints are kept. Train with other options (finbench methods {method}) or target modules.",
        ) from fault


@contextlib.contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """What peft raises of the adapter of ``folder`` as one FinbenchError, when it is read, put on its base, or runs."""
    try:
        yield
    except _PEFT_RAISES as fault:
        key = "it lacks " if isinstance(fault, KeyError) else ""
        raise _misfit(folder, key + reason(fault)) from fault


def _misfit(folder: Path, said: str) -> FinbenchError:
    return FinbenchError(
        f"{folder} does not fit its base: {said}",
        "Name the right base with --base; if it is the right one, its adapter_config.json is wrong.",
    )


def _check_known(folder: Path, stored: Collection[str], there: Collection[str]) -> None:
    """Refuse tensors of the file for which the model has no place."""
    if odd := sorted({*stored} - {*there}):
        raise _misfit(folder, f"{len(odd)} of its tensors match no module, such as {odd[0]}.")


def _check_whole(folder: Path, stored: Collection[str], there: Collection[str]) -> None:
    """Refuse a file without some of the tensors that its configuration makes in the model."""
    if lost := sorted({*there} - {*stored}):
        raise FinbenchError(
            f"{folder / WEIGHTS} lacks {counted(len(lost), 'tensor')} that its adapter_config.json promises, such as "
            f"{lost[0]}.",
            "Fetch it again, or save it anew; if the file is whole, name the right base with --base.",
        )


def stands_beside(model: Any, folder: Path) -> bool:
    """Whether the adapter of ``folder`` may be loaded beside those that the PeftModel ``model`` has.

    Only LoRAs stand side by side: peft mixes no two kinds of tuner in one model, and adapters of other kinds may share
    tensors (VeRA's projections) that do not fit each other.
    """
    kind = str(stated_config(folder).get("peft_type") or "LORA")
    kinds = {kind, *(config.peft_type.value for config in model.peft_config.values())}
    return kinds == {"LORA"} and not irqlora.calibrated(model)


@environment.compilers_kept()
def attach(model: Any, folder: Path, base: bases.Base | None = None) -> Any:
    """Put the adapter of ``folder`` on ``model`` (a base, or a PeftModel of it) and make it the active one.

    An adapter that brings its own 4-bit codes makes them from the published weights of ``base``.
    Raises FinbenchError unless every tensor of the file has arrived in the model and nothing is left untouched.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    copied, stated = _copied(model, folder), stated_config(folder)
    name = "a" + identity(folder, stated)[:16]
    calibrated, start = stated.get("peft_type") == irqlora.KIND, stated.get("init_lora_weights")
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    modules = [module for module, _ in plain.named_modules()]
    safety.check_patterns(stated, folder / "adapter_config.json", modules)
    with fitting(folder), environment.patterns_kept():
        how = {"adapter_name": name, "autocast_adapter_dtype": False, "low_cpu_mem_usage": start in _COSTLY_STARTS}
        if calibrated:
            model = _calibrate(model, folder, stated, name, base)
        elif not isinstance(model, PeftModel):
            model = PeftModel.from_pretrained(model, folder, **how)
        elif name not in model.peft_config:
            model.load_adapter(folder, **how)
    one_dtype(model).set_adapter(name)
    with safe_open(folder / WEIGHTS, framework="pt") as tensors:
        stored = set(tensors.keys()) - copied
    loaded = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    if calibrated:  # the codes below are not the adapter's tensors
        stored = {key for key in stored if not irqlora.is_shift(key)}
        loaded = {key for key in loaded if ".shifted." not in key}
    _check_known(folder, stored, loaded)
    # one that touches exactly the first n layers of a deeper base was made for another
    layers = {int(match[1]) for key in stored if (match := re.search(r"\.(?:layers|h)\.(\d+)\.", key))}
    depth = getattr(model.config, "num_hidden_layers", None)
    chosen = getattr(model.peft_config[name], "layers_to_transform", None)
    if layers and depth and chosen is None and layers == set(range(len(layers))) and len(layers) < depth:
        raise FinbenchError(
            f"{folder} does not fit its base: it has {len(layers)} layers, the base {depth}.",
            "Name the right base with --base; if it is meant so, state layers_to_transform in adapter_config.json.",
        )
    _check_whole(folder, stored, loaded)  # last: of a base with more layers it lacks those
    return model


def load_into(model: Any, folder: Path) -> None:
    """Put the weights of ``folder`` into the adapter that ``model``, a PeftModel, trains.

    Raises FinbenchError unless they are the very tensors that it has.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    stored = load_file(folder / WEIGHTS)
    there = get_peft_model_state_dict(model, save_embedding_layers=False)
    _check_known(folder, stored, there)
    _check_whole(folder, stored, there)
    if odd := [key for key in stored if stored[key].shape != there[key].shape]:
        raise _misfit(folder, f"{counted(len(odd), 'tensor')} of another shape, such as {odd[0]}.")
    set_peft_model_state_dict(model, stored)


@contextlib.contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Inside, the adapter of ``model``, a PeftModel that is not trained, stays as it is.

    peft makes the update and the norms of each DoRA layer again in every pass; here they are made once, where four
    times the memory of the layers is free.
    """
    from peft.helpers import DoraCaching
    from peft.tuners.lora.dora import DoraLinearLayer

    norms = [module for module in model.modules() if isinstance(module, DoraLinearLayer)]
    layers = [module for module in model.modules() if any(getattr(module, "use_dora", {}).values())]
    numbers = sum(layer.in_features * layer.out_features for layer in layers)  # of a layer at 4 bits, too
    if not norms or 4 * numbers * model.dtype.itemsize > environment.free_memory():
        yield
        return
    try:
        with DoraCaching():
            yield
    finally:
        for module in norms:
            module._cache_clear()


def _calibrate(model: Any, folder: Path, stated: dict[str, Any], name: str, base: bases.Base | None) -> Any:
    from peft import PeftModel
    from safetensors.torch import load_file

    if isinstance(model, PeftModel):
        raise ValueError("it brings its own 4-bit codes, so it stands beside no other adapter")

    def published() -> Any:
        if base is None:
            raise ValueError("it brings its own 4-bit codes, which are made from the published weights of its base")
        return bases.load(base, 16, model.get_input_embeddings().weight.dtype)[0]

    return irqlora.attach(model, stated, load_file(folder / WEIGHTS), name, published)


def _copied(model: Any, folder: Path) -> set[str]:
    """Tensors of the file that are the base's own embedding or head: peft saves them beside an adapter of these."""
    import torch
    from safetensors import safe_open

    own = [layer.weight for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    with safe_open(folder / WEIGHTS, framework="pt") as tensors:
        names = [name for name in tensors.keys() if name.endswith(".base_layer.weight")]  # noqa: SIM118
        found = {name: tensors.get_tensor(name) for name in names}
    return {
        name
        for name, tensor in found.items()
        if any(weight.shape == tensor.shape and torch.equal(weight.cpu(), tensor.to(weight.dtype)) for weight in own)
    }
