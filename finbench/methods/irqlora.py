"""IR-QLoRA: QLoRA whose base keeps more information (ICQ, ``icq.py``) and whose factors pass more on (IEC, ``iec.py``).

Each half has a switch. The elastic connections are folded into A and B when the adapter is saved, exactly, so with ICQ
off it is an ordinary LoRA of the NF4 base. With ICQ on it is one of a base with other codes: the shifts are saved
beside A and B, from which and from the published weights the codes are made again, and ``peft_type`` is one that peft
does not know, for peft would put A and B on the plain NF4 base without a word.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench.core.console import progress
from finbench.core.errors import FinbenchError
from finbench.core.records import Bits, Recipe
from finbench.methods import convert
from finbench.methods.base import Layer, Start, without_head
from finbench.methods.lora import VARIANTS, LoraMethod

KIND = "IRQLORA"  # peft_type of an adapter with shifts
_SHIFT, _SCALE = ".icq_shift", ".icq_scale"  # endings of their names in the file


@dataclass(frozen=True)
class IrQLora(LoraMethod):
    """ICQ and IEC on peft's 4-bit layers; with both off, qlora."""

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        """Blocks of 64 must not straddle rows: the shift of a block then is a constant times a sum of inputs."""
        super().verify(recipe, layers)
        for key in ("icq", "iec"):
            if not isinstance(self.stated(recipe, key), bool):
                raise FinbenchError(f"{key} is true or false, not {self.stated(recipe, key)!r}.", f"--set {key}=false")
        spread = self.stated(recipe, "spread")
        if isinstance(spread, bool) or not isinstance(spread, int | float) or not 0 < spread <= 1:
            raise FinbenchError(f"spread must be above 0 and at most 1, got {spread!r}.", "--set spread=0.1")
        if not self.stated(recipe, "icq"):
            return
        reached = self.reach(recipe, layers)
        without_head(self, recipe, reached, "a head is never quantised, so it has no shifts")
        odd = next((layer for layer in reached if layer.inputs % 64), None)
        if odd is not None:
            raise FinbenchError(
                f"irqlora: {odd.name} has {odd.inputs} inputs, which blocks of 64 do not divide, so a block's shift "
                "would belong to two rows.",
                "Use --set icq=false, target modules without it (--set target_modules=[...]), or another base.",
            )

    def plain(self, recipe: Recipe) -> bool:
        return not self.stated(recipe, "icq")

    def loads(self, recipe: Recipe) -> Bits:
        return 16 if self.stated(recipe, "icq") else 4  # the shifts are found in the weights

    def quantisation(self, recipe: Recipe, dtype: str) -> dict[str, str | bool | int] | None:
        found = super().quantisation(recipe, dtype)
        return {**found, "shift_bits": 8, "shift_group": 256} if found and self.stated(recipe, "icq") else found

    def configuration(self, recipe: Recipe, steps: int | None = None, **changes: Any) -> Any:
        """With elastic layers if the recipe has them: for Linear4bit, which is an nn.Linear too, and for that alone."""
        config = super().configuration(recipe, steps, **changes)
        if self.stated(recipe, "iec"):
            import bitsandbytes as bnb

            from finbench.methods.iec import ElasticLinear4bit

            config._register_custom_module({bnb.nn.Linear4bit: ElasticLinear4bit})
        return config

    def apply(self, model: Any, recipe: Recipe, start: Start | None = None) -> Any:
        """Adapters on the NF4 base; then, with ICQ, every layer below one gets codes of its own."""
        if not self.stated(recipe, "icq"):
            return super().apply(model, recipe)
        from finbench.methods import icq

        assert start is not None
        wrapped = super().apply(start.load(None), recipe)
        layers = list(convert.lora_layers(wrapped))
        with progress() as bar:  # minutes on a processor
            told = bar.add_task("calibrating the 4-bit codes (ICQ)", total=len(layers), note="layers")
            for name, module in layers:
                weight = convert.published(model, name).contiguous()
                found = icq.calibrate(weight, float(self.stated(recipe, "spread")))
                module.base_layer = icq.ShiftedLinear4bit(module.base_layer, weight, *found)
                bar.advance(told)
        return wrapped

    def state(self, model: Any) -> dict[str, Any]:
        return _shifts(model)  # to see that a resumed run found the same ones

    def restore(self, model: Any, state: Mapping[str, Any]) -> None:
        """FinbenchError if the base's codes are not those with which the run began."""
        import torch

        now = _shifts(model)
        if set(now) != set(state) or any(not torch.equal(now[key].cpu(), state[key].cpu()) for key in now):
            raise FinbenchError(
                "The 4-bit codes of the base are not those that this run began with: another machine or library.",
                "Train it from the beginning with another --out.",
            )

    def save(self, model: Any, recipe: Recipe, folder: Path) -> None:
        """peft's files with the connections folded in, and with the shifts if there are some."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        from finbench.methods import iec

        saved = get_peft_model_state_dict(model, save_embedding_layers=False)
        tensors = {name: tensor for name, tensor in saved.items() if not name.endswith(".lora_beta")}
        for name, module in convert.lora_layers(model):
            if isinstance(module, iec.ElasticLinear4bit):
                a, b = iec.folded(module, "default")
                tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = a.detach(), b.detach()
        config = copy.copy(model.peft_config["default"])
        config.inference_mode = True
        config.save_pretrained(str(folder))
        if not self.plain(recipe):
            path = folder / "adapter_config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "peft_type": KIND}, indent=2))
        tensors = {name: tensor.cpu().contiguous() for name, tensor in (tensors | _shifts(model)).items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _shifts(model: Any) -> dict[str, Any]:
    """Shifts and scales of every adapted layer, by their names in the file."""
    from finbench.methods.icq import ShiftedLinear4bit

    found = {}
    for name, module in convert.lora_layers(model):
        if isinstance(module.base_layer, ShiftedLinear4bit):
            found[name + _SHIFT], found[name + _SCALE] = module.base_layer.shift, module.base_layer.scale
    return found


def is_shift(name: str) -> bool:
    """Whether a tensor of an adapter's file belongs to the shifts."""
    return name.endswith((_SHIFT, _SCALE))


def peft_config(stated: Mapping[str, Any]) -> Any:
    """The LoraConfig in an ``adapter_config.json`` of ours; ValueError or TypeError as peft raises them."""
    from peft import PeftConfig

    return PeftConfig.from_peft_type(**{**stated, "peft_type": "LORA"})


def calibrated(model: Any) -> bool:
    """Whether a model in memory carries an adapter with shifts."""
    from finbench.methods.iec import CalibratedLinear4bit

    return any(isinstance(module, CalibratedLinear4bit) for module in model.modules())


def attach(
    model: Any, stated: Mapping[str, Any], tensors: Mapping[str, Any], name: str, load: Callable[[], Any]
) -> Any:
    """``model`` with the adapter ``tensors`` under ``name``; ``load`` gives the base in full precision.

    On an NF4 base the adapted layers compute with their own codes while the adapter is in force. On other bits there is
    nothing to shift, and A and B stand on what is there. ValueError where shifts and layers do not fit each other.
    """
    import bitsandbytes as bnb
    import torch
    from peft import PeftModelForCausalLM, set_peft_model_state_dict

    from finbench.methods import icq, iec

    config = peft_config(stated)
    config._register_custom_module({bnb.nn.Linear4bit: iec.CalibratedLinear4bit})
    wrapped = PeftModelForCausalLM(model, config, adapter_name=name, autocast_adapter_dtype=False)
    set_peft_model_state_dict(wrapped, {k: t for k, t in tensors.items() if not is_shift(k)}, adapter_name=name)
    wrapped.eval()
    layers = [(own, m) for own, m in wrapped.named_modules() if isinstance(m, iec.CalibratedLinear4bit)]
    if not layers:
        return wrapped
    full = load()
    for own, module in layers:
        weight = convert.published(full, own).contiguous()
        blocks = weight.numel() // icq.BLOCK
        wanted = [(torch.int8, (blocks,)), (torch.float32, (-(-blocks // icq.GROUP),))]
        parts = [tensors[key] for key in (own + _SHIFT, own + _SCALE) if key in tensors]
        if [(part.dtype, tuple(part.shape)) for part in parts] != wanted:
            raise ValueError(f"the shifts of {own.removeprefix(convert.PREFIX)} are missing or of another size or type")
        module.shifted = icq.ShiftedLinear4bit(module.base_layer, weight, *parts)
    return wrapped


IRQLORA = IrQLora(
    name="irqlora",
    summary="QLoRA that keeps more information (ICQ, IEC)",
    equation="y = (dequant(NF4(W - tau)) + tau)x + s(B + beta2 Q)(A + beta1 P)x",
    paper="Qin et al. 2024, arXiv:2402.05445",
    becomes="finbench adapter",
    trains="r(h+o) + 2",
    bits=(4,),
    refused="its shifts and connections are for NF4 layers",
    declines={key: f"irqlora has layers of its own, so {key} does not go with it." for key in VARIANTS},
    options={"icq": True, "iec": True, "spread": 0.1},
    about={
        "icq": "shift each block of 64 weights so that its codes carry more",
        "iec": "two scaled connections around A and B",
        "spread": "shifts looked at: this share of sigma around a block's median",
    },
    defaults={"bits": 4},
)
