"""Methods that start from what the first training batches show: gradients (LoRA-GA), inputs (CorDA).

Like PiSSA they move a part of W into the adapter, W = R + s BA at the start, and are saved as PiSSA is. The batches are
the recipe's own first ones, so a start repeats with its seed and a resumed training begins as the first one did.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe
from finbench.methods import convert, quantise
from finbench.methods.base import Layer, Start, last_positions, number, without_head
from finbench.methods.spectral import Residual

_DAMPING = 0.01  # of the mean diagonal, added to a covariance: inputs of few tokens do not span all directions


def _without_labels(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: tensor for key, tensor in batch.items() if key != "labels"}


@dataclass(frozen=True)
class Collected(Residual):
    """A start from the first ``batches`` training batches."""

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        without_head(self, recipe, self.reach(recipe, layers), "the start looks at layers alone")
        batches: Any = recipe.options.get("batches", self.options["batches"])
        if isinstance(batches, bool) or not isinstance(batches, int) or not 1 <= batches <= 32:
            raise FinbenchError(f"batches is a whole number from 1 to 32, not {batches!r}.", "--set batches=8")

    def _look(self, model: Any, recipe: Recipe, start: Start | None) -> dict[str, Any]:
        assert start is not None
        training = model.training
        model.eval()  # without dropout
        found: dict[str, Any] = {}
        batches = itertools.islice(start.batches, int(recipe.options.get("batches", self.options["batches"])))
        with self._collecting(model, found) as run:
            for batch in batches:
                run(batch)
        model.train(training)
        return found

    @contextmanager
    def _collecting(self, model: Any, found: dict[str, Any]) -> Iterator[Any]:
        """Gives the function that runs a batch; what it shows of each layer is summed into ``found``."""
        raise NotImplementedError


@dataclass(frozen=True)
class LoraGA(Collected):
    """LoRA-GA: the first step of B and A moves W as the largest directions of the full gradient would."""

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        number(self, recipe, "gamma", 1, 1e6)
        narrow = min(self.reach(recipe, layers), key=lambda layer: min(layer.inputs, layer.outputs))
        if 2 * recipe.rank > min(narrow.inputs, narrow.outputs):
            raise FinbenchError(
                f"lora-ga takes twice the rank of directions, and {narrow.name} is {narrow.inputs} x {narrow.outputs}.",
                f"Use --rank {min(narrow.inputs, narrow.outputs) // 2} or less.",
            )

    @contextmanager
    def _collecting(self, model: Any, found: dict[str, Any]) -> Iterator[Any]:
        """Gradients of the weights, float32, as (outputs, inputs); each is taken away as soon as it is there."""
        import torch

        layers = {name: module.get_base_layer() for name, module in convert.lora_layers(model)}
        trained = {name: tensor.requires_grad for name, tensor in model.named_parameters()}
        hooks = []

        def take(name: str, layer: Any) -> Any:
            def hook(weight: Any) -> None:
                own = quantise.as_stored(layer, weight.grad.float())
                found[name] = found[name] + own if name in found else own
                weight.grad = None

            return hook

        model.requires_grad_(False)
        for name, layer in layers.items():
            layer.weight.requires_grad_(True)
            hooks.append(layer.weight.register_post_accumulate_grad_hook(take(name, layer)))

        def run(batch: dict[str, Any]) -> None:
            labels = batch["labels"]  # of the last positions (see batches.collate)
            with torch.enable_grad():
                kept = last_positions(batch, labels.shape[1])
                logits = model(**_without_labels(batch), logits_to_keep=kept, use_cache=False).logits
                told = logits[:, :-1].flatten(0, 1).float()
                loss: Any = torch.nn.functional.cross_entropy(told, labels[:, 1:].flatten())
                loss.backward()

        try:
            yield run
        finally:
            for hook in hooks:
                hook.remove()
            for name, tensor in model.named_parameters():
                tensor.requires_grad_(trained[name])

    def _part(self, weight: Any, seen: Any, rank: int, scale: float, recipe: Recipe) -> tuple[Any, Any]:
        """A from the first ``rank`` right singular vectors of the gradient, B from the next left ones (eq. 8)."""
        import torch

        if seen is None or not float(seen.norm()):
            raise FinbenchError(
                "lora-ga: a layer has no gradient on the first batches.", "Train other layers: --set target_modules=..."
            )
        niter = self._iterations(recipe)
        if niter is None:
            u, _, vh = torch.linalg.svd(seen, full_matrices=False)
        else:
            u, _, v = torch.svd_lowrank(seen, 2 * rank, niter=niter)
            vh = v.T
        size = len(weight) ** 0.25 / number(self, recipe, "gamma", 1, 1e6) ** 0.5
        return size * vh[:rank], size * u[:, rank : 2 * rank]


@dataclass(frozen=True)
class Corda(Collected):
    """CorDA: the part of W that matters most (ipm) or least (kpm) for inputs like those of the first batches."""

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        mode = recipe.options.get("mode", self.options["mode"])
        if mode not in ("ipm", "kpm"):
            raise FinbenchError(f"mode is ipm or kpm, not {mode!r}.", "--set mode=ipm")

    @contextmanager
    def _collecting(self, model: Any, found: dict[str, Any]) -> Iterator[Any]:
        """Covariances of the inputs of each layer, float32 (inputs, inputs), not centred, over all real tokens."""
        import torch

        real: list[Any] = []

        def take(name: str) -> Any:
            def hook(_: Any, inputs: tuple[Any, ...]) -> None:
                tokens = inputs[0][real[0]].float()
                own = tokens.T @ tokens
                found[name] = found[name] + own if name in found else own

            return hook

        hooks = [module.register_forward_pre_hook(take(name)) for name, module in convert.lora_layers(model)]

        def run(batch: dict[str, Any]) -> None:
            real[:] = [batch["attention_mask"].bool()]
            with torch.no_grad():
                model(**_without_labels(batch), logits_to_keep=last_positions(batch, 1), use_cache=False)

        try:
            yield run
        finally:
            for hook in hooks:
                hook.remove()

    def _part(self, weight: Any, seen: Any, rank: int, scale: float, recipe: Recipe) -> tuple[Any, Any]:
        """W = U S V C^-1 from the SVD of W C: the first (ipm) or last (kpm) triples, sqrt(S) on both sides (eq. 3)."""
        import torch

        if seen is None or not float(seen.norm()):
            raise FinbenchError("corda: a layer has no inputs on the first batches.", "Train other layers.")
        covariance = seen / seen.diagonal().mean()
        covariance += _DAMPING * torch.eye(len(covariance), device=seen.device)
        u, s, vh = torch.linalg.svd(weight @ covariance, full_matrices=False)
        least = recipe.options.get("mode", self.options["mode"]) == "kpm"
        kept = slice(len(s) - rank, None) if least else slice(rank)
        root = (s[kept] / scale).sqrt()
        back = torch.linalg.solve(covariance.double(), vh[kept].T.double()).T.float()  # the covariance is symmetric
        return root[:, None] * back, u[:, kept] * root


LORA_GA = LoraGA(
    name="lora-ga",
    summary="Starts along the gradient of the first batches",
    equation="y = (W - sB0A0)x + sBAx, dL/dW = USV', A0 ~ V[:r]', B0 ~ U[r:2r]",
    paper="Wang et al. 2024, arXiv:2407.05000",
    becomes="converted LoRA",
    starts=True,
    bits=(16,),
    refused="the gradient moves numbers of any size into the adapter, and what is left would be rounded anew",
    options={"batches": 8, "gamma": 16.0, "niter": None},
    about={
        "batches": "training batches whose gradients are summed",
        "gamma": "the larger, the smaller the start: sqrt(outputs) / gamma a direction",
        "niter": "power iterations of a fast, randomised SVD (16); without, the exact one",
    },
    defaults={"lr": 2.0e-4},
)
CORDA = Corda(
    name="corda",
    summary="The part of W that the first batches use most",
    equation="y = (W - sB0A0)x + sBAx, sB0A0 = top r of SVD(WC) C^-1, C = XX'",
    paper="Yang et al. 2024, arXiv:2406.05223",
    becomes="converted LoRA",
    starts=True,
    options={"batches": 32, "mode": "ipm"},
    about={
        "batches": "training batches whose inputs are looked at",
        "mode": "ipm: what they use most is trained; kpm: what they use least, the rest is kept",
    },
    defaults={"lr": 2.0e-4},
)
