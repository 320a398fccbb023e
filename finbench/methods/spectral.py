"""Methods that start from a factorisation of the weights: PiSSA, OLoRA, LoftQ.

PiSSA and OLoRA move a part of W into the adapter and train it: W = R + s BA at the start. What they have learnt is an
ordinary LoRA of twice the rank, s (BA - B0A0), on the untouched W. On a quantised base the residual R is what is
quantised (two stages: factorise in full precision, save R, load R at 4 or 8 bits), so there is no adapter of the
plain base that equals it: the result is a whole model, dequantised R plus s BA, in 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finbench.core.errors import FinbenchError
from finbench.core.records import Bits, Recipe
from finbench.methods import convert, quantise
from finbench.methods.base import Layer, Start, without_head
from finbench.methods.lora import LoraMethod

_NEVER_QUANTISED = "an output head is never quantised"


def split(weight: Any, rank: int, scale: float, how: str, iterations: int | None = None) -> tuple[Any, Any]:
    """(a, b) such that ``scale * b @ a`` is the part of ``weight`` (outputs, inputs) that an adapter takes over.

    ``svd``: the top ``rank`` singular triples, sqrt(S) on both sides (PiSSA eq. 2-4; LoftQ eq. 8), exact, or randomised
    with ``iterations`` power iterations. ``qr``: the first ``rank`` columns of Q and rows of R (OLoRA eq. 5-6).
    """
    import torch

    if how == "qr":
        q, r = torch.linalg.qr(weight)
        return r[:rank] / scale, q[:, :rank]
    if iterations is None:
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    else:
        u, s, v = torch.svd_lowrank(weight, rank, niter=iterations)
        vh = v.T
    root = (s[:rank] / scale).sqrt()
    return root[:, None] * vh[:rank], u[:, :rank] * root


def _set(module: Any, a: Any, b: Any) -> None:
    module.lora_A["default"].weight.data = a.contiguous()
    module.lora_B["default"].weight.data = b.contiguous()


@dataclass(frozen=True)
class Residual(LoraMethod):
    """PiSSA and OLoRA: the adapter starts as a part of W, and the base keeps the rest."""

    how: Literal["svd", "qr"] = "svd"

    def loads(self, recipe: Recipe) -> Bits:
        return 16  # the residual is made before anything is quantised

    def makes(self, recipe: Recipe) -> Literal["peft", "model"]:
        return "peft" if recipe.bits == 16 else "model"

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        self._iterations(recipe)
        if recipe.bits != 16:
            without_head(self, recipe, self.reach(recipe, layers), _NEVER_QUANTISED)

    def _iterations(self, recipe: Recipe) -> int | None:
        """Power iterations of a randomised SVD; None: the exact one."""
        niter: Any = recipe.options.get("niter")
        if niter is not None and (isinstance(niter, bool) or not isinstance(niter, int) or not 1 <= niter <= 1000):
            raise FinbenchError(f"niter must be a whole number from 1 to 1000, got {niter!r}.", "--set niter=16")
        return None if niter is None else int(niter)

    def apply(self, model: Any, recipe: Recipe, start: Start | None = None) -> Any:
        """Factorise every target in float32, keep the first factors, and at 4 or 8 bits quantise the residual."""
        import torch

        wrapped = super().apply(model, recipe)
        seen = self._look(wrapped, recipe, start)
        for name, module in convert.lora_layers(wrapped):
            layer, scale = module.get_base_layer(), module.scaling["default"]
            weight = quantise.as_stored(layer, layer.weight.data.float())
            a, b = self._part(weight, seen.pop(name, None), module.r["default"], scale, recipe)
            _set(module, a, b)
            with torch.no_grad():
                layer.weight.copy_(quantise.as_stored(layer, weight - scale * b @ a))
        first = convert.lora_factors(wrapped)
        if recipe.bits != 16:
            assert start is not None
            wrapped = super().apply(start.load(wrapped.unload()), recipe)
            for name, module in convert.lora_layers(wrapped):
                own = first[name.removeprefix(convert.PREFIX)]
                _set(module, own.a.clone(), own.b.clone())
        wrapped.finbench_first = first
        return wrapped

    def _look(self, model: Any, recipe: Recipe, start: Start | None) -> dict[str, Any]:
        """What the split of a layer needs beside its weight, by name of the layer."""
        return {}

    def _part(self, weight: Any, seen: Any, rank: int, scale: float, recipe: Recipe) -> tuple[Any, Any]:
        """(a, b) such that ``scale * b @ a`` is the part of ``weight`` (outputs, inputs) that the adapter takes."""
        return split(weight, rank, scale, self.how, self._iterations(recipe))

    def save(self, model: Any, recipe: Recipe, folder: Path) -> None:
        """The converted LoRA; on a quantised residual the whole model in the dtype of the computation."""
        import torch

        last = convert.lora_factors(model)
        if recipe.bits != 16:
            whole(model, last).save_pretrained(folder)
            return
        learnt = {}
        for name, end in last.items():
            first = model.finbench_first[name]
            a, b = torch.cat([end.a, first.a]), torch.cat([end.b, -first.b], dim=1)
            learnt[name] = convert.Factors(a, b, end.scale)
        convert.write_lora(learnt, recipe, model.peft_config["default"].target_modules, folder)


def whole(model: Any, factors: dict[str, convert.Factors]) -> Any:
    """A 16-bit model that computes what ``model``, a LoRA on a quantised base, computes: dequantised W plus s BA."""
    import torch
    from transformers import AutoModelForCausalLM

    base = model.get_base_model()
    stated = {key: value for key, value in base.config.to_dict().items() if key != "quantization_config"}
    config = type(base.config).from_dict(stated)
    dtype = base.get_input_embeddings().weight.dtype
    plain = AutoModelForCausalLM.from_config(config, dtype=dtype).to(base.device)
    parameters = dict(plain.named_parameters())
    with torch.no_grad():
        for name, tensor in base.named_parameters():
            target = parameters.get(name.replace(".base_layer.bias", ".bias"))
            if target is not None and type(tensor) is torch.nn.Parameter:  # neither the adapter's nor quantised
                target.copy_(tensor)
    quantise.copy_dequantised(base, plain, factors)
    plain.generation_config = base.generation_config
    plain.config.name_or_path = base.config.name_or_path
    return plain


@dataclass(frozen=True)
class LoftQ(LoraMethod):
    """LoRA on an NF4 base, started at the best rank-r correction of the quantisation error."""

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        without_head(self, recipe, self.reach(recipe, layers), _NEVER_QUANTISED)

    def loads(self, recipe: Recipe) -> Bits:
        return 16  # the error is the difference between the two

    def apply(self, model: Any, recipe: Recipe, start: Start | None = None) -> Any:
        """One step of the paper's alternation: Q = NF4(W), then s BA = the rank-r SVD of W - Q.

        Q is the very base that ``qlora`` trains on, so the adapter is an ordinary LoRA for it. (Further steps quantise
        W - s BA, which would be another base. peft's own initialisation leaves s out, so there it starts at s times
        the correction.)
        """
        assert start is not None
        wrapped = super().apply(start.load(None), recipe)
        for name, module in convert.lora_layers(wrapped):
            error = convert.published(model, name) - quantise.dequantised(module.get_base_layer())
            _set(module, *split(error, module.r["default"], module.scaling["default"], "svd"))
        return wrapped


PISSA = Residual(
    name="pissa",
    summary="The top r singular triples of W",
    equation="y = (W - sB0A0)x + sBAx, sB0A0 = top r of SVD(W)",
    paper="Meng et al. 2024, arXiv:2404.02948",
    becomes="converted LoRA",
    starts=True,
    how="svd",
    options={"niter": None},
    about={"niter": "power iterations of a fast, randomised SVD (16); without, the exact one"},
    # the factors are as large as the weights, so the step must be smaller: 2e-5 for its authors' 7B models
    defaults={"lr": 2.0e-4},
)
OLORA = Residual(
    name="olora",
    summary="An orthonormal part of W, from its QR",
    equation="y = (W - sB0A0)x + sBAx, W = QR, sB0A0 = Q[:, :r] R[:r]",
    paper="Buyukakyuz 2024, arXiv:2406.01775",
    becomes="converted LoRA",
    starts=True,
    how="qr",
    defaults={"lr": 2.0e-4},
)
LOFTQ = LoftQ(
    name="loftq",
    summary="QLoRA that starts at the quantisation error",
    equation="y = Qx + sBAx, sB0A0 = top r of SVD(W - Q), Q = dequant(NF4(W))",
    paper="Li et al. 2023, arXiv:2310.08659",
    starts=True,
    bits=(4,),
    refused="there is little or no error of the weights to correct",
    defaults={"bits": 4},
)
