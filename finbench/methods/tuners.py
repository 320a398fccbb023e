"""peft's other tuners, by peft's own names. A row says what peft's code can do with it, as tests/test_tuners.py proves.

What is not here (prompt and prefix tuning, adapters between adapters, tuners that peft can neither merge nor tell
apart from their base) is refused by name.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe
from finbench.methods.base import Becomes, Layer
from finbench.methods.wrapping import PeftMethod

_BOTH = "inputs and outputs"
_GENERAL = ("target_modules", "inference_mode", "task_type", "peft_type", "auto_mapping", "peft_version")
_IDENTITY = ("base_model_name_or_path", "revision", "modules_to_save", "bias", "runtime_config", "loftq_config")
_FOLLOWS = ("fan_in_fan_out", "megatron_config", "megatron_core")  # from the kind of layer; finbench trains without


@dataclass(frozen=True)
class Tuner(PeftMethod):
    """A tuner of peft. ``peft_config`` is its configuration class; ``rank``, ``alpha`` and ``dropout`` say which of its
    fields the recipe's keys go to, None where it has no such thing. ``divides`` names fields that must divide sizes of
    every target, and which: ``inputs``, ``outputs`` or both.
    """

    becomes: Becomes = "merged weights"
    peft_config: str = ""
    rank: str | None = "r"
    alpha: str | None = None
    dropout: str | None = None
    divides: dict[str, str] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, str]:
        """Recipe key -> field of peft's configuration."""
        return {key: getattr(self, key) for key in ("rank", "alpha", "dropout") if getattr(self, key)}

    @property
    def kind(self) -> Any:
        """peft's configuration class."""
        quiet()  # bitsandbytes complains at its import
        import peft

        return getattr(peft, self.peft_config)

    def option_names(self) -> set[str]:
        """Every field of peft's configuration that a recipe does not state by another name."""
        own = {part.name for part in dataclasses.fields(self.kind)}
        return own - {*_GENERAL, *_IDENTITY, *_FOLLOWS, *self.fields.values()}

    def configuration(self, recipe: Recipe, steps: int | None = None) -> Any:
        stated = {name: getattr(recipe, key) for key, name in self.fields.items()}
        return self.made(self.kind, recipe, {**stated, **self.options, **recipe.options})

    def wrap(self, model: Any, config: Any, recipe: Recipe) -> Any:
        """As any; IA3 states in whole names what it may not read in endings, as peft leaves ``feedforward_modules``."""
        made = super().wrap(model, config, recipe)
        endings, wanted = getattr(config, "feedforward_modules", None), config.target_modules
        if isinstance(endings, set | list) and not isinstance(wanted, str) and not set(endings) <= set(wanted):
            modules = made.get_base_model().named_modules()
            layers = {name: layer.is_feedforward for name, layer in modules if hasattr(layer, "is_feedforward")}
            config.target_modules = set(layers)
            config.feedforward_modules = {name for name, forward in layers.items() if forward}
        return made

    def tokenwise(self, recipe: Recipe) -> bool:
        """All but PVeRA, which draws noise."""
        return self.peft_config != "PveraConfig"

    def verify(self, recipe: Recipe, layers: list[Layer]) -> None:
        super().verify(recipe, layers)
        for key, value in recipe.options.items():
            if key.startswith("init_") and not value:
                raise FinbenchError(f"{key}={value} would not start as the base.", "Leave it out.")
        config, kept = self.configuration(recipe), self.reach(recipe, layers)
        for key, sides in self.divides.items():
            size = getattr(config, key)
            for layer in kept:
                if size and any(side in sides and getattr(layer, side) % size for side in ("inputs", "outputs")):
                    raise FinbenchError(
                        f"{self.name}: {key} {size} does not divide {layer.name} ({layer.outputs} x {layer.inputs}).",
                        f"State one that divides its {sides}: --set {key}=...",
                    )


VERA = Tuner(
    name="vera",
    summary="Two vectors a layer; A and B random, frozen",
    equation="y = Wx + diag(b) B diag(d) Ax, A and B frozen",
    paper="Kopiczko et al. 2023, arXiv:2310.11454",
    trains="r + o",
    peft_config="VeraConfig",
    wide=True,
    dropout="vera_dropout",
    unused=("alpha",),
    # its authors: rank 256 and about ten times LoRA's rate, since only vectors train
    defaults={"rank": 256, "lr": 1.0e-2},
)
RANDLORA = Tuner(
    name="randlora",
    summary="Weights of a full-rank sum of random products",
    equation="y = Wx + s sum_i B_i diag(l_i) A_i diag(g_i) x, A and B frozen",
    paper="Albert et al. 2025, arXiv:2502.00987",
    trains="n(r + min(h,o)), n = ceil(min(h,o) / r)",
    peft_config="RandLoraConfig",
    alpha="randlora_alpha",
    dropout="randlora_dropout",
    # drawn again from their seed: peft would save the shared A and B once for every layer, 2 GB for a base of 0.3
    options={"save_projection": False},
    about={"save_projection": "save the random matrices too, 2 GB for a base of 0.3; without, they are drawn again"},
    # peft's own: alpha is 20 times the rank
    defaults={"rank": 32, "alpha": 640},
)
OFT = Tuner(
    name="oft",
    summary="A rotation of each layer's inputs, in blocks",
    equation="y = W Rx, R = (I+Q)(I-Q)^-1 by blocks, Q skew-symmetric; peft takes the series up to Q^4",
    paper="Qiu et al. 2023, arXiv:2306.07280",
    trains="h(b-1)/2, b = oft_block_size",
    conv1d=False,
    peft_config="OFTConfig",
    rank=None,
    dropout="module_dropout",
    unused=("rank", "alpha"),
    options={"oft_block_size": 32, "r": 0},
    about={
        "oft_block_size": "inputs that are rotated together; 0: as r says",
        "r": "blocks of a layer, where oft_block_size is 0",
    },
    divides={"oft_block_size": "inputs", "r": "inputs"},  # peft would take another one with a mere warning
)


def _tuner(kind: str, arxiv: str = "", **more: Any) -> Tuner:
    takes = {"rank": "r", **more}
    return Tuner(
        name=kind.lower(),
        summary=f"peft's {kind}, as peft documents it",
        equation="see the paper" if arxiv else "see peft's documentation",
        paper=f"arXiv:{arxiv}" if arxiv else "-",
        refused="peft's code for it does not read quantised weights",
        unused=tuple(key for key in ("rank", "alpha", "dropout") if not takes.get(key)),
        peft_config=f"{kind}Config",
        **more,
    )


TUNERS: dict[str, Tuner] = {
    tuner.name: tuner
    for tuner in (
        _tuner("Adamss", conv1d=False, bits=(16,)),
        _tuner(
            "BOFT", "2311.06243", rank=None, dropout="boft_dropout", conv1d=False, divides={"boft_block_size": "inputs"}
        ),
        _tuner("C3A", "2407.19342", rank=None, conv1d=False, bits=(16,), divides={"block_size": _BOTH}),
        _tuner("Deft", alpha="alpha", dropout="deft_dropout", bits=(16,)),
        _tuner("Delora", "2503.18225", dropout="module_dropout", conv1d=False, bits=(16,)),
        _tuner("FourierFT", "2405.03003", rank=None),
        _tuner("Frod", rank=None, dropout="frod_dropout", options={"progressbar": False}, bits=(16,)),
        _tuner("Glora", "2306.07967", conv1d=False, bits=(16,)),
        _tuner("Gralora", alpha="alpha", dropout="gralora_dropout", bits=(16,), divides={"gralora_k": _BOTH}),
        _tuner("Hira", dropout="hira_dropout"),
        _tuner("HRA", "2405.17484", conv1d=False, bits=(16,)),
        _tuner("IA3", "2205.05638", rank=None),
        _tuner("LoHa", "2108.06098", alpha="alpha", dropout="rank_dropout", conv1d=False, bits=(16, 8)),
        _tuner("LoKr", "2309.14859", alpha="alpha", dropout="rank_dropout", conv1d=False, bits=(16, 8)),
        _tuner("Miss", "2409.15371", dropout="miss_dropout", conv1d=False),
        _tuner("Peanut", "2410.01870", conv1d=False, bits=(16,)),
        _tuner("Psoft", alpha="psoft_alpha", dropout="psoft_dropout", conv1d=False, bits=(16,)),
        _tuner("Pvera", "2512.07703", wide=True, dropout="pvera_dropout"),
        _tuner("Road", "2409.00119", rank=None, conv1d=False, divides={"group_size": "outputs"}),
        _tuner("Shira", wide=True, conv1d=False, bits=(16,)),
        _tuner("TinyLora", "2602.04118", wide=True, dropout="tinylora_dropout", bits=(16,)),
        _tuner("Supertuning", "2607.09287", conv1d=False, bits=(16,)),
        _tuner("UniLora", "2506.00799", wide=True, dropout="unilora_dropout", bits=(16,)),
        _tuner("VBLoRA", "2405.15179", wide=True, dropout="vblora_dropout", divides={"vector_length": _BOTH}),
        _tuner("WaveFT", rank=None),
    )
}

_PROMPTS = "it trains prompts or attention prefixes, not weights, so it can be neither merged nor served as an adapter"
REFUSED_TUNERS = {
    **dict.fromkeys(("prompt_tuning", "multitask_prompt_tuning", "p_tuning", "prefix_tuning"), _PROMPTS),
    **dict.fromkeys(("adaption_prompt", "cpt", "cartridge"), _PROMPTS),
    "xlora": "it mixes trained adapters and trains none",
    "poly": "it needs a task number with every row",
    "ln_tuning": "it trains norms, which are no linear layers; they change the base beside the adapter",
    "trainable_tokens": "the embedding would change, which no adapter runtime serves",
    "bone": "peft calls it miss now",
    "beft": "peft cannot merge it into layers without a bias",
    "lily": "peft cannot merge it",
    "shadow": "peft's code for it does not run under these bases",
    "osf": "it trains the singular vectors of the base itself, so the base beside it would no longer be the base",
}
