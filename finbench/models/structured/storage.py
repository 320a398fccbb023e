"""Structured models on disk: factors as they are, or written out as an ordinary dense checkpoint.

A folder of factors holds ``factorised.safetensors``, ``structure.json`` (what was replaced by what), and a
``config.json`` whose model type no other program knows: transformers, lm-eval and vLLM refuse it, where under the
type of the dense model they would fill the missing weights with noise and go on. ``export_dense`` writes a folder that
they all load.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from finbench.core.errors import FinbenchError, reason
from finbench.core.files import folder_atomic, write_atomic
from finbench.core.records import Bits, Document
from finbench.core.safety import check_header, read_json, refuse_code, refuse_sizes
from finbench.methods import quantise
from finbench.models import tokenguard
from finbench.models.modelfiles import FACTORISED, STRUCTURE, damaged, empty_model, is_structured
from finbench.models.structured import counts, modules, surgery
from finbench.models.structured.structures import Factored, Structure

MODEL_TYPE = "finbench_factorised"
_LARGEST = 16 * 2**20  # bytes of a structure.json; 70B models have 600 layers, some 300 bytes each
_INCIDENTAL = ("auto_map", "_name_or_path", "name_or_path", "transformers_version", "quantization_config")


class Stored(Document):
    """``structure.json``: what a folder of factors holds."""

    newest: ClassVar[int] = 1

    schema_: int = Field(alias="schema", default=1, ge=0)
    model_type: str = Field(description="of the dense model, as transformers calls it")
    structure: Structure
    layers: list[Factored] = Field(min_length=1, max_length=100_000)
    bits: Bits = Field(default=16, description="8 and 4: factors quantised by bitsandbytes")
    parameters: int = Field(ge=1, description="of this model")
    dense_parameters: int = Field(ge=1, description="of the dense one")

    @property
    def described(self) -> str:
        """For people: kind, rank, parameters."""
        ranks = sorted({layer.rank for layer in self.layers})
        rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        smaller = f"{self.parameters:,} parameters for {self.dense_parameters:,}"
        bits = "" if self.bits == 16 else f", in {self.bits} bits"
        return f"{self.structure.kind}, {rank} in {len(self.layers)} layers, {smaller}{bits}"


def save(model: Any, folder: Path, tokenizer: Any = None, *, structure: Structure, bits: Bits = 16) -> Stored:
    """Write a structured model into the new ``folder``, whole or not at all; return its ``structure.json``.

    A folder of factors is replaced; FinbenchError for one that holds anything else.

    ``bits`` 16 keeps the dtype that the model has; 8 and 4 quantise the factors, and the linear layers that stayed
    dense, by bitsandbytes (LLM.int8, NF4), and leave embeddings, head, norms and sparse values as they are.
    """
    from safetensors.torch import save_file

    if folder.is_dir() and any(folder.iterdir()) and not is_structured(folder):
        raise FinbenchError(f"{folder} holds other files.", "Choose a new folder.")
    layers = [layer.record for layer in modules.layers(model).values()]
    if not layers:
        raise FinbenchError("The model has no low-rank structure.", "Save it as what it is: model.save_pretrained")
    stored = Stored(
        model_type=model.config.model_type,
        structure=structure,
        layers=layers,
        bits=bits,
        parameters=counts.parameters(model),
        dense_parameters=counts.dense_parameters(model),
    )
    written = model
    if bits != 16:
        dtype = next(model.parameters()).dtype
        written = _class(model.config, stored, folder).from_pretrained(
            None,
            config=model.config,
            state_dict=_state(model),
            dtype=dtype,
            device_map={"": "cpu"},
            quantization_config=quantise.config(bits, dtype),
        )
        _settle(written, folder)
    config = {key: value for key, value in model.config.to_dict().items() if key not in _INCIDENTAL}
    config |= {"model_type": MODEL_TYPE, "architectures": ["FinbenchFactorised"]}
    if bits != 16:
        config["quantization_config"] = written.config.quantization_config.to_dict()
    with folder_atomic(folder) as staging:
        tensors = {name: tensor.cpu() for name, tensor in _state(written).items()}
        save_file(tensors, staging / FACTORISED, {"format": "pt"})
        write_atomic(staging / "config.json", json.dumps(config, indent=1, sort_keys=True, default=str) + "\n")
        if model.can_generate():
            model.generation_config.save_pretrained(staging)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        write_atomic(staging / STRUCTURE, stored.to_json())
    return stored


def _state(model: Any) -> dict[str, Any]:
    """The tensors of a model, tied ones once, under the first of their names."""
    found: dict[str, Any] = {}
    seen: set[tuple[Any, ...]] = set()
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape, tensor.dtype)
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        found[name] = tensor.detach().contiguous()
    return found


def read(folder: Path) -> Stored:
    """The ``structure.json`` of a folder; FinbenchError for one that is missing, torn or does not hold together."""
    stored = Stored.parse(read_json(folder / STRUCTURE, folder, _LARGEST), str(folder / STRUCTURE))
    names = [layer.name for layer in stored.layers]
    if len(set(names)) != len(names):
        raise damaged(f"{folder / STRUCTURE} names a layer twice.")
    if stored.structure.kind == "dense":
        raise damaged(f"{folder / STRUCTURE} is of a dense model, which needs none.")
    return stored


def config_of(folder: Path, stored: Stored | None = None) -> Any:
    """transformers' configuration of the dense model."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    stored = stored or read(folder)
    stated = read_json(folder / "config.json", folder)
    refuse_code(stated, folder / "config.json")
    refuse_sizes(stated, folder / "config.json")
    if stated.get("model_type") != MODEL_TYPE or stored.model_type not in CONFIG_MAPPING:
        raise damaged(
            f"{folder} is of a model type that is not known: {stored.model_type[:60]!r} in {STRUCTURE}, "
            f"{str(stated.get('model_type'))[:60]!r} in config.json (which should say {MODEL_TYPE})."
        )
    kind = CONFIG_MAPPING[stored.model_type]
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise FinbenchError(
            f"{folder}: {stored.model_type} is no causal language model.",
            "Choose a causal language model: finbench bases",
        )
    stated = {key: value for key, value in stated.items() if key not in ("model_type", "architectures")}
    return kind.from_dict(stated)


def skeleton(folder: Path) -> Any:
    """The structured model without weights, on torch's meta device."""
    stored = read(folder)
    config = config_of(folder, stored)
    config.__dict__.pop("quantization_config", None)
    model = empty_model(config)
    _replace(model, stored, folder)
    return model


def _replace(model: Any, stored: Stored, folder: Path) -> None:
    known = surgery.linears(model)
    where = folder / STRUCTURE
    for layer in stored.layers:
        if layer.name not in known:
            raise damaged(f"{where}: this model has no layer {layer.name[:80]!r}.")
        there = surgery.shape(known[layer.name])
        if layer.model_dump(include=set(there)) != there or layer.rank > min(layer.inputs, layer.outputs):
            raise damaged(f"{where}: {layer.name} does not fit the sizes of config.json.")
        if bool(layer.entries) != (stored.structure.kind == "sltrain") or layer.entries > layer.inputs * layer.outputs:
            raise damaged(f"{where}: {layer.name} cannot have {layer.entries:,} sparse values.")
        surgery.replace(model, layer, stored.structure)


def check(folder: Path) -> Stored:
    """Refuse a folder whose tensors are not those of its structure. Reads headers alone."""
    stored = read(folder)
    header = check_header(folder / FACTORISED)
    model = skeleton(folder)
    if (counts.parameters(model), counts.dense_parameters(model)) != (stored.parameters, stored.dense_parameters):
        raise damaged(f"{folder / STRUCTURE} counts other parameters than its layers have.")
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = set(model.all_tied_weights_keys)
    quantised = set(counts.quantisable(model)) if stored.bits != 16 else set()
    packed = {f"{name}.weight" for name, module in model.named_modules() if module in quantised}
    for name, shape in expected.items():
        if name not in header and name not in tied:
            raise damaged(f"{folder} lacks weights: {name}.")
        loose = stored.bits == 4 and name in packed  # packed two to a byte, in a column
        if name in header and header[name].get("shape") != shape and not loose:
            raise damaged(f"{folder / FACTORISED}: {name} has the shape {header[name].get('shape')}, not {shape}.")
    for name in header:  # bitsandbytes' own tensors lie beside a packed weight
        beside = {f"{name.partition('.weight.')[0]}.weight", f"{name.rpartition('.')[0]}.weight"}
        if name not in expected and not beside & packed:
            raise damaged(f"{folder / FACTORISED}: {name[:80]} belongs to no layer.")
    return stored


def from_pretrained(folder: Path, *, dtype: Any = None, **arguments: Any) -> Any:
    """As ``AutoModelForCausalLM.from_pretrained`` for a folder of factors, with the same arguments."""
    stored = check(folder)
    config = config_of(folder, stored)
    if stored.bits != 16 and arguments.get("quantization_config") is not None:
        del arguments["quantization_config"]  # its own is in config.json
    config.transformers_weights = FACTORISED
    found = _class(config, stored, folder).from_pretrained(
        folder, config=config, dtype=dtype or "auto", **{"local_files_only": True, "use_safetensors": True, **arguments}
    )
    model = found[0] if isinstance(found, tuple) else found
    _settle(model, folder)
    return found


def load(folder: Path, dtype: Any = None, device: str = "cpu") -> Any:
    """The model of a folder of factors, in eval mode on ``device``, in ``dtype`` or as stored.

    Raises FinbenchError for anything that is missing, of another shape, or asks to run code.
    """
    model = from_pretrained(folder, dtype=dtype, device_map={"": device})
    bits = read(folder).bits
    if bits == 4:
        quantise.cure_cpu_repacking(model)  # before any forward, which refuses ranks that its kernel cannot pack
    elif bits == 8:
        quantise.keep_cpu_scales(model)
    return model


def _class(config: Any, stored: Stored, folder: Path) -> Any:
    """The model class of transformers, whose instances are born with the structure.

    transformers then does the rest as for any model: empty weights, dtype, device, quantisation, tying.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    base = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]

    def begin(self: Any, config: Any, *arguments: Any, **named: Any) -> None:
        base.__init__(self, config, *arguments, **named)
        _replace(self, stored, folder)
        for layer in stored.layers:  # GPT-2 draws these weights from above, by the parent
            self.get_submodule(layer.name.rpartition(".")[0])._is_hf_initialized = True

    return type(base.__name__, (base,), {"__init__": begin, "__module__": base.__module__})


def _settle(model: Any, folder: Path) -> None:
    """Make a loaded model an instance of transformers' own class; look at what only the data can tell."""
    model.__class__ = type(model).__mro__[1]
    model.config.__dict__.pop("transformers_weights", None)
    for name, layer in modules.layers(model).items():
        if isinstance(layer, modules.SLTrainLinear):
            places, most = layer.support, layer.record.inputs * layer.record.outputs
            if int(places.min()) < 0 or int(places.max()) >= most or not bool((places.diff() > 0).all()):
                raise damaged(f"{folder}: the support of {name} is no set of places in its matrix.")
        for factor in (layer.down, layer.up):
            state = getattr(factor.weight, "quant_state", None)
            if state is not None and tuple(state.shape) != (factor.out_features, factor.in_features):
                raise damaged(f"{folder}: the packed weights of {name} are of another shape.")


def densify(model: Any) -> Any:
    """Replace every structured layer of ``model`` by the dense one that computes the same, in place; return it.

    The product is made in float32 at least and rounded once. Raises FinbenchError for CoLA, which computes no matrix,
    and for quantised factors.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    found = modules.layers(model)
    for name, layer in found.items():
        if isinstance(layer, modules.CoLALinear):
            raise FinbenchError(
                f"{name} has a non-linearity between its factors, so no dense layer computes the same.",
                "A CoLA model runs in finbench alone: finbench eval --model ./folder",
            )
        if type(layer.down) is not torch.nn.Linear or type(layer.up) is not torch.nn.Linear:
            raise FinbenchError(
                "The factors are quantised, or carry an adapter.", "Export the model as it was in 16 bits."
            )
    for name, layer in found.items():
        record, weight, bias = layer.record, layer.up.weight, layer.bias_of()
        with torch.no_grad():
            matrix = layer.matrix().to(weight.dtype)
            if record.form == "Conv1D":
                dense: Any = Conv1D(record.outputs, record.inputs).to(weight.device, weight.dtype)
            else:
                dense = torch.nn.Linear(record.inputs, record.outputs, record.bias, weight.device, weight.dtype)
            dense.weight.copy_(quantise.as_stored(dense, matrix))
            if bias is not None:
                dense.bias.copy_(bias)
        dense.train(layer.training)
        model.set_submodule(name, dense)
    return model


def export_dense(folder: Path, out: Path, dtype: Any = None) -> None:
    """Write the model of a folder of factors as an ordinary dense checkpoint into the new folder ``out``.

    It is as large as a model that never had structure. Raises FinbenchError where ``densify`` does.
    """
    from transformers import AutoTokenizer

    if out.exists():
        raise FinbenchError(f"{out} exists already.", "Choose a new folder.")
    model = densify(load(folder, dtype))
    with folder_atomic(out) as staging:
        model.save_pretrained(staging)
        if (folder / "tokenizer_config.json").is_file():
            tokenguard.check(folder)
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            except Exception as fault:  # the tokenizers library raises nothing narrower for files it cannot read
                raise damaged(f"{folder}: its tokenizer cannot be read: {reason(fault)}") from fault
            tokenizer.save_pretrained(staging)
