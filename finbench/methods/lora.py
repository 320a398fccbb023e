"""The LoRA family on peft: LoRA, rsLoRA, DoRA, QLoRA (LoRA on an NF4 base), LoRA+ and LoRA-FA."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import Any

from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe
from finbench.methods import convert
from finbench.methods.base import Becomes, Layer, Start, number
from finbench.methods.wrapping import PeftMethod

log = logging.getLogger(__name__)

_OWN = ("r", "lora_alpha", "lora_dropout", "target_modules")  # recipe keys say these
# Arguments of peft's LoraConfig that finbench sets itself, or that would give another thing than what is recorded.
REFUSED = {
    "bias": "trained biases change the base itself, so the base beside the adapter would no longer be the base",
    "modules_to_save": "whole modules beside a low-rank update are not a low-rank method: use --method full",
    "trainable_token_indices": "the embedding would change, which no LoRA runtime serves",
    "target_parameters": "experts are learnt by lora, qlora, rslora and lora+",
    "layer_replication": "the model would no longer be the base that is recorded",
    "ensure_weight_tying": "embeddings are never targets here",
    "eva_config": "use --method eva",
    "loftq_config": "use --method loftq",
    "corda_config": "use --method corda",
    "lora_ga_config": "use --method lora-ga",
    "kasa_config": "it cuts singular values off the base itself, so the base beside it would no longer be the base",
    "monteclora_config": "it needs a loss term of its own that peft leaves to the training loop",
    "arrow_config": "it routes between trained adapters and trains none",
    "alora_invocation_tokens": "it needs prompts with an invocation sequence, which the tasks do not have",
    "use_qalora": "it needs a GPTQ base",
    "qalora_group_size": "it belongs to use_qalora, which needs a GPTQ base",
    "lora_bias": "a trained bias is not part of the product BA, which is what is merged and served",
    "megatron_config": "finbench trains transformers' models",
    "megatron_core": "finbench trains transformers' models",
    "runtime_config": "it is about a machine, not about the adapter",
    "fan_in_fan_out": "it follows from the kind of layer",
    "inference_mode": "it is for inference",
}
# Known by these names elsewhere: here an option, or refused as one.
AS_OPTION = {"mica": "init_lora_weights=mica", "orthogonal": "init_lora_weights=orthogonal"}
AS_REFUSED = {
    "kasa": "kasa_config",
    "monteclora": "monteclora_config",
}
_INITIAL = ("pissa", "olora", "eva", "loftq", "corda", "lora-ga")  # starts that are methods of their own here
_SWITCHES = {"use_dora": "dora", "use_rslora": "rslora"}  # options that make lora, or qlora, one of these
_OTHER_FUNCTION = ("use_dora", "use_bdlora")  # no longer Wx + sBAx with two whole matrices
VARIANTS = (*_OTHER_FUNCTION, "velora_config")  # layers of another kind
# What peft raises on, or drops without a word, where the base is quantised.
_FULL_PRECISION = {"use_bdlora": "peft ignores it there", "velora_config": "peft has no such layer there"}


@dataclass(frozen=True)
class LoraMethod(PeftMethod):
    """A method that is peft's LoraConfig with some arguments set (``config``). ``starts``: it sets A and B itself.

    ``declines``: arguments that it takes at peft's default alone, and why. ``experts``: it takes ``target_parameters``.
    """

    becomes: Becomes = "plain LoRA"
    trains: str = "r(h+o)"
    config: dict[str, Any] = field(default_factory=dict)
    starts: bool = False
    declines: dict[str, str] = field(default_factory=dict)
    experts: bool = False

    def option_names(self) -> set[str]:
        """peft's arguments, less those that a recipe states by other names, and the method's own options."""
        quiet()  # bitsandbytes complains at its import
        from peft import LoraConfig, PeftConfig

        general = {part.name for part in dataclasses.fields(PeftConfig)}
        return {part.name for part in dataclasses.fields(LoraConfig)} - general - set(_OWN) | set(self.options)

    def offered(self) -> set[str]:
        """The options that are not refused, and those that are not what makes the method."""
        declined = {*REFUSED, *self.config, *self.declines, *(key for key in _SWITCHES if self._is_another(key))}
        if self.becomes == "converted LoRA" or self.starts:
            declined |= {*VARIANTS}
        if self.starts:
            declined |= {"init_lora_weights"}
        if self.experts:
            declined -= {"target_parameters"}
        return self.option_names() - declined | set(self.options)

    def meant(self) -> set[str]:
        return self.offered() | {*_SWITCHES}

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        self._options(recipe)
        self._initial(recipe)

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        self.reach(recipe, layers)
        from peft import LoraConfig

        plain = LoraConfig()
        for key, why in self.declines.items():
            default = getattr(plain, key)
            stated = recipe.options.get(key, default)
            if stated != default and (stated or default):
                raise FinbenchError(why, "Leave it out.")

    def ends_as(self, recipe: Recipe) -> Becomes:
        other = any(recipe.options.get(key) for key in (*_OTHER_FUNCTION, "target_parameters"))
        return "merged weights" if other and self.becomes == "plain LoRA" else self.becomes

    def on_codes(self, recipe: Recipe) -> bool:
        """What never looks at the weights themselves; of others peft has no layers there."""
        looks = any(recipe.options.get(key) for key in VARIANTS) or recipe.options.get("init_lora_weights") == "mica"
        return self.becomes == "plain LoRA" and not self.starts and not looks

    def tokenwise(self, recipe: Recipe) -> bool:
        """All but VeLoRA, which compresses what it keeps of a pass for the backward one."""
        return not recipe.options.get("velora_config")

    def _options(self, recipe: Recipe) -> None:
        stated = recipe.options
        for key in stated:
            if key in REFUSED and key not in self.options and not (self.experts and key == "target_parameters"):
                raise FinbenchError(f"The option {key} is refused: {REFUSED[key]}.", "Leave it out.")
            if key in self.config and stated[key] != self.config[key]:
                raise FinbenchError(
                    f"{key} is what makes method {self.name}; it cannot be {stated[key]!r}.",
                    "Choose another method: finbench methods",
                )
            if key in _FULL_PRECISION and recipe.bits != 16 and stated[key]:
                raise FinbenchError(
                    f"The option {key} does not work on {recipe.bits} bits: {_FULL_PRECISION[key]}.", "Use --bits 16"
                )
            if key in VARIANTS and stated[key] and (self.becomes == "converted LoRA" or self.starts):
                raise FinbenchError(
                    f"{self.name} is saved as a plain LoRA, and with {key} it would be none.",
                    "Leave it out, or: --method dora" if key == "use_dora" else "Leave it out.",
                )
            if stated[key] is True and self._is_another(key):
                more = " --bits 4" if self.bits == (4,) else "".join(f" --set {own}=true" for own in self.config)
                raise FinbenchError(
                    f"{self.name} with {key} is a method of its own, and is served as that one is.",
                    f"--method {_SWITCHES[key]}{more}",
                )

    def rehearse(self, recipe: Recipe, skeleton: Any) -> None:
        """Experts are parameters, not layers. In some families peft adds them, and the router, to ``all-linear``."""
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

        config = self.configuration(recipe)
        try:
            convert_peft_config_for_transformers(config, skeleton, None)
        except ValueError as fault:
            raise self._refused(recipe, fault) from fault
        if config.target_parameters:
            self._experts(recipe)
        super().rehearse(recipe, skeleton)

    def _experts(self, recipe: Recipe) -> None:
        """Refuse what does not go with updates of experts, which are added to their weights before these are used."""
        initial = recipe.options.get("init_lora_weights", True)
        layers = "Name layers alone, such as: --set target_modules=[q_proj,v_proj]"
        for there, what, hint in (
            (not self.experts, f"Method {self.name}", f"{layers}; or: --method lora"),
            (recipe.dropout > 0, "Dropout", f"--set dropout=0. {layers}"),
            (recipe.compile, "compile", f"--set compile=false. {layers}"),
            (recipe.sharding != "none", "Sharding", f"--set sharding=none. {layers}"),
            (initial not in (True, "gaussian"), f"init_lora_weights={initial}", f"Leave it out. {layers}"),
            *((recipe.options.get(key), key, f"Leave it out. {layers}") for key in VARIANTS),
        ):
            if there:
                raise FinbenchError(
                    f"{what} does not go with the experts of {recipe.base}: they are parameters, not layers.", hint
                )

    def _is_another(self, key: str) -> bool:
        """Whether a switch makes lora, qlora or rslora another method; dora takes use_rslora as an option."""
        plain = type(self) is LoraMethod and key not in self.config
        return plain and key in _SWITCHES and not (key == "use_rslora" and self.config)

    def _initial(self, recipe: Recipe) -> None:
        initial = recipe.options.get("init_lora_weights")
        if initial is not None and self.starts:
            raise FinbenchError(
                f"How it starts is what makes method {self.name}: it takes no init_lora_weights.",
                "Leave init_lora_weights out, or use it with: --method lora",
            )
        if isinstance(initial, str):
            kind = initial.lower().split("_niter")[0].replace("_", "-")
            if kind in _INITIAL:
                more = " --set niter=N" if "_niter" in initial else ""
                raise FinbenchError(f"init_lora_weights={initial} is a method of its own.", f"--method {kind}{more}")
            if kind not in ("gaussian", "orthogonal", "mica"):
                raise FinbenchError(
                    f"init_lora_weights={initial} is unknown, or needs data that finbench does not collect.",
                    "Known: true, gaussian, orthogonal, mica",
                )
            if kind == "mica" and self.name in ("lora+", "lora-fa"):
                raise FinbenchError(f"mica trains A alone, and {self.name} is about B.", "--method lora")
            if kind == "orthogonal" and self.name == "lora-fa":
                raise FinbenchError("orthogonal gives A half its rank, and lora-fa never changes it.", "--method lora")
            if kind == "mica" and recipe.bits != 16:
                raise FinbenchError("init_lora_weights=mica needs full-precision weights.", "Use --bits 16")
            if kind == "orthogonal" and recipe.rank % 2:
                raise FinbenchError("init_lora_weights=orthogonal needs an even rank.", f"--rank {recipe.rank + 1}")
        elif initial is not None and initial is not True:  # peft takes 0 for false too
            raise FinbenchError(f"init_lora_weights={initial} would not start as the base.", "Leave it out.")

    def configuration(self, recipe: Recipe, steps: int | None = None, **changes: Any) -> Any:
        """peft's LoraConfig of a recipe, with ``changes``."""
        from peft import LoraConfig

        own = {key: value for key, value in recipe.options.items() if key not in self.options}
        stated = {"r": recipe.rank, "lora_alpha": recipe.alpha, "lora_dropout": recipe.dropout}
        return self.made(LoraConfig, recipe, {**stated, **self.config, **own, **changes})


@dataclass(frozen=True)
class LoraPlus(LoraMethod):
    """LoRA with a larger learning rate for B."""

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        number(self, recipe, "lr_ratio", 1, 1000)

    def groups(self, model: Any, recipe: Recipe) -> list[dict[str, Any]]:
        """Only B is fast. A, and everything else that trains (such as DoRA's magnitude), keeps the recipe's rate.

        peft's own factory also speeds every 1-D tensor up, which the paper's argument on B's width does not cover.
        """
        ratio = number(self, recipe, "lr_ratio", 1, 1000)
        trained = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
        fast = [tensor for name, tensor in trained if ".lora_B." in name]
        slow = [tensor for name, tensor in trained if ".lora_B." not in name]
        vectors = sum(tensor.ndim == 1 for tensor in slow)
        log.info(
            "lora+: %d tensors at lr %g, of which %d are vectors; %d tensors (B) at lr %g",
            *(len(slow), recipe.lr, vectors, len(fast), ratio * recipe.lr),
        )
        return [
            {"params": slow, "lr": recipe.lr, "weight_decay": recipe.weight_decay},
            {"params": fast, "lr": ratio * recipe.lr, "weight_decay": recipe.weight_decay},
        ]


@dataclass(frozen=True)
class LoraFA(LoraMethod):
    """LoRA with A frozen, and the gradient of B corrected so that BA moves as the full gradient would have it."""

    def apply(self, model: Any, recipe: Recipe, start: Start | None = None) -> Any:
        """LoRA, then freeze every A: autograd then keeps r values a token of each layer's input, not h."""
        wrapped = super().apply(model, recipe, start)
        for name, tensor in wrapped.named_parameters():
            if ".lora_A." in name:
                tensor.requires_grad_(False)
        return wrapped

    def tune_optimizer(self, optimizer: Any, model: Any, recipe: Recipe) -> None:
        """Before each step: g_B <- s^-2 g_B (A A^T)^-1, the least-squares projection of the full gradient.

        A never changes, so its Gram matrix is inverted once, in float64. FinbenchError if it is close to singular.
        """
        import torch

        pairs = []
        for name, module in convert.lora_layers(model):
            a = module.lora_A["default"].weight.detach().double()
            gram = a @ a.T
            if not float(torch.linalg.cond(gram)) < 1e8:
                raise FinbenchError(f"lora-fa: A of {name} has dependent rows.", "Use a smaller --rank.")
            inverse = torch.linalg.inv(gram) / module.scaling["default"] ** 2
            pairs.append((module.lora_B["default"].weight, inverse.float()))

        def project(*_: Any) -> None:
            for weight, inverse in pairs:
                if weight.grad is not None:
                    weight.grad.copy_(weight.grad.float() @ inverse)

        optimizer.register_step_pre_hook(project)


LORA = LoraMethod(
    name="lora",
    summary="Low-rank update beside frozen weights",
    equation="y = Wx + (alpha/r) BAx",
    paper="Hu et al. 2021, arXiv:2106.09685",
    experts=True,
)
RSLORA = LoraMethod(
    name="rslora",
    summary="LoRA with scale alpha/sqrt(r), for high ranks",
    equation="y = Wx + (alpha/sqrt(r)) BAx",
    paper="Kalajdzievski 2023, arXiv:2312.03732",
    config={"use_rslora": True},
    experts=True,
)
DORA = LoraMethod(
    name="dora",
    summary="LoRA on row directions, magnitudes apart",
    equation="W' = m * (W + sBA) / ||W + sBA||, a norm per output row",
    paper="Liu et al. 2024, arXiv:2402.09353",
    becomes="merged weights",
    trains="r(h+o) + o",
    config={"use_dora": True},
)
QLORA = LoraMethod(
    name="qlora",
    summary="LoRA on a base in NF4, with scales in 8 bits",
    equation="y = dequant(NF4(W))x + (alpha/r) BAx",
    paper="Dettmers et al. 2023, arXiv:2305.14314",
    experts=True,
    bits=(4,),
    refused="it is lora at 4 bits",
    defaults={"bits": 4},
)
LORA_PLUS = LoraPlus(
    name="lora+",
    summary="LoRA whose B learns faster than its A",
    equation="y = Wx + (alpha/r) BAx, lr_B = lambda lr_A",
    paper="Hayou et al. 2024, arXiv:2402.12354",
    options={"lr_ratio": 16},
    about={"lr_ratio": "learning rate of B over that of A"},
    # A below LoRA's rate and B, at lr_ratio times as much, above it; at 5e-4, half of LoRA's as its authors advise for
    # their 7B models, B's rate of 8e-3 undoes on the embedded base what was learnt
    defaults={"lr": 1.25e-4},
    experts=True,
)
LORA_FA = LoraFA(
    name="lora-fa",
    summary="LoRA with A frozen: less memory",
    equation="y = Wx + (alpha/r) BAx, A frozen, g_B <- (r/alpha)^2 g_B (AA^T)^-1",
    paper="Zhang et al. 2023, arXiv:2308.03303",
    trains="r o",
)
