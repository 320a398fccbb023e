"""Adapter folders: read one strictly, refuse a torn, poisoned or foreign one, put it on its base."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from finbench import hub
from finbench.core import catalog, environment, refs, safety
from finbench.core.combined import Combined
from finbench.core.errors import FinbenchError, listed, near_misses, reason
from finbench.core.files import bearable, digest, sha256_file
from finbench.core.records import Adapter, BaseModelId
from finbench.methods import METHODS, REFUSED_TUNERS, TUNERS, Tuner, irqlora, one_dtype
from finbench.models import bases, modelfiles, unfinished, zoo
from finbench.models.adapterfolder import AdapterFolder as AdapterFolder
from finbench.models.modelfiles import damaged

WEIGHTS, COMBINED = "adapter_model.safetensors", "combined.json"
_INCIDENTAL = ("base_model_name_or_path", "revision", "peft_version", "inference_mode")
_SCANNED = 2**22  # values of a tensor that are looked at together, in 32 bits each
_LARGEST_RECORD = 2**24  # bytes of a finbench.json; loss curve and digests take some 20,000
# What peft can load, also what finbench does not train. Safe since peft makes these from numbers of the configuration
# and fills them from the one file of weights; X-LoRA and Shadow open further adapters and models.
_OPENING_OTHERS = ("xlora", "shadow")
_TUNERS_OF_OURS = (name for name, method in METHODS.items() if isinstance(method, Tuner))
KINDS = {"lora", irqlora.KIND.lower(), *TUNERS, *REFUSED_TUNERS, *_TUNERS_OF_OURS} - {*_OPENING_OTHERS}
_COSTLY_STARTS = ("mica", "orthogonal")  # decompositions, which are left out where weights are filled in afterwards
_PEFT_RAISES = (
    *(ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError),
    *(ImportError, re.error),
)
Made = TypeVar("Made", Adapter, Combined)
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter_model.pkl", "pytorch_model.bin")


def record(folder: Path) -> Adapter:
    """The ``finbench.json`` of a folder."""
    return _parsed(Adapter, folder / "finbench.json")


def _parsed(kind: type[Made], path: Path) -> Made:
    try:
        if path.stat().st_size > _LARGEST_RECORD:
            raise damaged(f"{path} is too large for a record ({path.stat().st_size:,} bytes).", "the adapter")
        return kind.parse(json.loads(bearable(path.read_text(encoding="utf-8"))), str(path))
    except (OSError, ValueError, RecursionError) as fault:
        reason = "missing" if isinstance(fault, FileNotFoundError) else f"torn ({fault})"
        raise FinbenchError(f"{path} is {reason}.", "Train the adapter again, or fetch it again.") from fault


def locate(text: str) -> Path:
    """The folder of an adapter reference: ``./folder``, ``hub:org/name[@rev]`` (fetched), ``zoo:name`` (pinned)."""
    return _located(text)[0]


def find(text: str) -> AdapterFolder:
    """The adapter that a reference names, fetched if need be, read and checked; it knows where it came from."""
    folder, source = _located(text)
    return replace(read(folder), source=source)


def _located(text: str) -> tuple[Path, str | None]:
    """(folder, ``hub:org/name@commit`` or None)."""
    ref = refs.parse(text)
    if ref.kind == "zoo":
        ref = zoo.published(ref.name).ref
    if ref.kind == "hub":
        folder, sha = hub.fetch(ref.name, ref.revision)
        return folder, f"hub:{ref.name}@{sha}"
    if not ref.path.is_dir():
        if other := zoo.bare(text):
            raise other
        beside = [place.parent.name for place in ref.path.parent.glob("*/adapter_config.json")]
        close = [str(ref.path.with_name(name)) for name in near_misses(ref.path.name, beside)] if ref.path.name else []
        mean = f" Did you mean {' or '.join(close)}?" if close else "" if beside else refs.meant(text)
        mean += f" {ref.path.parent} has {', '.join(sorted(beside)[:5])}." if beside and not close else ""
        raise FinbenchError(
            f"No such adapter folder: {text}.{mean}", "Train one: finbench train --task fpb --out ./my-adapter"
        )
    return ref.path, None


def read(folder: Path) -> AdapterFolder:
    """Read and check an adapter folder, without its base. Every fault is a FinbenchError that names the file."""
    if (folder / "checkpoints").is_dir() and not (folder / "finbench.json").is_file():
        raise unfinished.refused(folder)
    found = record(folder) if (folder / "finbench.json").is_file() else None
    if found is not None and found.kind == "model":
        modelfiles.check_folder(folder)
        _compare(folder, found)
        return AdapterFolder(folder, found, "model", digest(found.files), {})
    config = stated_config(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickles = [name for name in PICKLES if (folder / name).is_file()]
        reason = f"only pickled weights ({pickles[0]}), which are never loaded" if pickles else f"no {WEIGHTS}"
        hint = "Save it again with safetensors: model.save_pretrained(folder)"
        if pickles:
            place = shlex.quote(str(folder) if "/" in str(folder) else f"./{folder}")
            hint = f"Have their tensors written as safetensors: finbench pull {place} --convert --out ./converted"
        raise FinbenchError(f"{folder} has {reason}.", hint)
    if found is not None:
        _compare(folder, found)
    safety.check_adapter(config, folder / "adapter_config.json", safety.check_header(weights))
    _scan(weights)
    name = identity(folder, config)
    combined = None if found else _combined(folder, name)
    return AdapterFolder(folder, found, "peft", name, config, combined=combined)


def _combined(folder: Path, name: str) -> Combined | None:
    """What ``combined.json`` says of the adapter ``name``; FinbenchError where it is torn or of another one."""
    path = folder / COMBINED
    if not path.is_file():
        return None
    made = _parsed(Combined, path)
    if made.identity != name:
        raise damaged(f"{path} is of another adapter: weights or configuration have changed.", "the adapter")
    return made


def identity(folder: Path, config: dict[str, Any] | None = None) -> str:
    """SHA-256 of a peft adapter: its weights, and its configuration less what names base and library.

    ``config``: the configuration, where it has been read already.
    """
    return identity_from(sha256_file(folder / WEIGHTS), stated_config(folder) if config is None else config)


def identity_from(weights: str, config: dict[str, Any]) -> str:
    """``identity`` from the SHA-256 of the weights."""
    return digest({"weights": weights, "config": decisive_config(config)})


def decisive_config(config: dict[str, Any]) -> dict[str, Any]:
    """What of an ``adapter_config.json`` decides an answer on a given base."""
    kept = {key: value for key, value in config.items() if key not in _INCIDENTAL}
    if isinstance(kept.get("target_modules"), list):  # a set: its order in the file means nothing
        kept["target_modules"] = sorted(map(str, kept["target_modules"]))
    return kept


def decisive_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of an adapter or model folder that decides an answer."""
    kinds = (".safetensors", ".jinja", ".model", ".txt", ".json")
    names = sorted(path.name for path in folder.iterdir() if path.suffix in kinds and path.name != "finbench.json")
    return {name: sha256_file(folder / name) for name in names}


def stated_config(folder: Path) -> dict[str, Any]:
    """What ``adapter_config.json`` says; FinbenchError for one that is missing, unsafe or of an unknown kind."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        below = [str(found.parent) for found in sorted(folder.glob(f"*/{path.name}"))[:3]]
        raise FinbenchError(
            f"{folder} is not an adapter folder: adapter_config.json is missing.",
            f"Did you mean {listed(below, 'or')}?"
            if below
            else "Name the folder in which it lies; a whole model is scored by eval --model.",
        )
    config = safety.read_json(path, folder)
    safety.refuse_code(config, path)
    kind = str(config.get("peft_type") or "LORA").lower()  # peft's first files had no type
    if kind in _OPENING_OTHERS:
        raise FinbenchError(
            f"{path}: an adapter of the kind {kind.upper()} opens further ones, which nobody has checked.",
            "Ask its author for one LoRA: model.save_pretrained(folder) of each adapter it mixes.",
        )
    if kind not in KINDS:
        close = near_misses(kind, KINDS)
        meant = f" (did you mean {close[0].upper()}?)" if close else ""
        raise FinbenchError(
            f"{path}: peft_type {str(config['peft_type'])[:60]!r} is no method that finbench can load{meant}.",
            "See them all: finbench methods",
        )
    return config


def _compare(folder: Path, found: Adapter) -> None:
    """Every file that decides an answer must be the one that was trained: safetensors has no checksum of its own."""
    present = decisive_files(folder)
    for name in sorted({*found.files, *present}):
        if name not in present:
            raise damaged(f"{folder} is incomplete: {name} is missing.", "the adapter")
        if name not in found.files:
            raise damaged(f"{folder} holds {name}, which finbench.json does not list.", "the adapter")
        if present[name] != found.files[name]:
            raise FinbenchError(
                f"{folder / name} is not what was trained (its SHA-256 differs); finbench.json is of other weights.",
                f"Fetch the adapter again; or, if these are new weights of yours: finbench adopt {folder}",
            )


def _scan(weights: Path) -> None:
    """Refuse weights that are torn, not finite, or that change nothing.

    A NaN in a query projection can leave logits finite (attention kernels swallow it), so looking at outputs
    is not enough. A LoRA whose every B is zero is the base under another name.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="pt") as tensors:
            names = list(tensors.keys())
            if not names:
                raise damaged(f"{weights} holds no tensors.", "the adapter")
            effect = not any(".lora_B." in name for name in names)
            for name in names:
                tensor = tensors.get_tensor(name)
                pieces = tensor.flatten().split(_SCANNED) if tensor.is_floating_point() else ()
                if not all(piece.float().isfinite().all() for piece in pieces):
                    raise FinbenchError(
                        f"{weights}: {name} has values that are not finite.", "Train it with a smaller --lr."
                    )
                effect = effect or (".lora_B." in name and bool(tensor.any()))
    except (SafetensorError, OSError) as fault:
        raise damaged(f"{weights} is torn or not safetensors ({fault}).", "the adapter") from fault
    if not effect:
        raise FinbenchError(
            f"{weights} has no effect: every lora_B is zero, so it is the base itself.",
            "Train it longer or with a larger --lr, or fetch a trained one.",
        )


def base_of(adapter: AdapterFolder, named: str | None) -> bases.Base:
    """The base to put ``adapter`` on: the one named by the user, else the one it names if bases.yaml knows it.

    The adapter never chooses by itself. Raises FinbenchError when its record says that it was trained on
    another base: adapters of equal shape load anywhere and score nonsense.
    """
    trained_on = adapter.base
    name = named or _known_base(adapter, trained_on)
    if named is None and trained_on and trained_on.source == "hub" and trained_on.revision:
        name = f"hub:{trained_on.hub_id}@{trained_on.revision}"
    base = bases.resolve(name, trained_on.source if trained_on and trained_on.source != "folder" else None)
    if trained_on is not None and base.id.fingerprint != trained_on.fingerprint:
        raise _of_another_base(adapter, trained_on, base.id, named or base.id.alias)
    stated = str(adapter.config.get("base_model_name_or_path") or "")
    known = {entry.hub_id for entry in catalog.bases().values()}
    if trained_on is None and stated in known and base.id.hub_id in known - {stated}:
        raise FinbenchError(
            f"{adapter.name} states the base {stated}, not {base.id.hub_id}.", f"Name it: --base hub:{stated}"
        )
    return base


def _of_another_base(adapter: AdapterFolder, trained_on: BaseModelId, found: BaseModelId, named: str) -> FinbenchError:
    """The fault of a base that is not the recorded one, or is by its name and not by its bytes."""
    record = shlex.quote(str(adapter.folder / "finbench.json"))
    anew = f"train it again, or use it without its record: mv {record} {record}.old"
    same = [(one.source, one.alias, one.hub_id, one.revision) for one in (trained_on, found)]
    fingerprints = f"{trained_on.fingerprint[:12]}; {named} is {found.fingerprint[:12]}"
    if same[0] == same[1]:
        return FinbenchError(
            f"{adapter.name} records the base {trained_on.alias} by another fingerprint ({fingerprints}): an earlier "
            "finbench named it, or its files have changed.",
            f"If the files are right, {anew}",
        )
    return FinbenchError(
        f"{adapter.name} was trained on another base (recorded {trained_on.alias}, fingerprint {fingerprints}).",
        {
            "hub": f"Name the base it was trained on: --base hub:{trained_on.hub_id}@{trained_on.revision}",
            "wheel": f"Name the base it was trained on: --base {trained_on.alias}",
            "folder": f"Name the folder of the base it was trained on ({trained_on.alias}): --base ./folder",
        }[trained_on.source],
    )


def _known_base(adapter: AdapterFolder, trained_on: BaseModelId | None) -> str:
    stated = str(adapter.config.get("base_model_name_or_path") or "")
    names = [trained_on.alias, trained_on.hub_id] if trained_on else [stated]
    for entry in catalog.bases().values():
        if entry.alias in names or entry.hub_id in names:
            return entry.alias
    shown = trained_on.alias if trained_on else stated
    raise FinbenchError(
        f"{adapter.name} names the base {shown!r}, which bases.yaml does not know.",
        "If you trust it, name it yourself: --base ./folder or --base hub:org/name",
    )


def peft_config(folder: Path) -> Any:
    """The configuration as peft reads it. Raises FinbenchError for one that it cannot read."""
    from peft import PeftConfig

    stated = stated_config(folder)
    with fitting(folder):
        own = stated.get("peft_type") == irqlora.KIND
        return irqlora.peft_config(stated) if own else PeftConfig.from_pretrained(str(folder))


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
    if stored != loaded:
        odd = sorted(stored ^ loaded)
        raise _misfit(folder, f"{len(odd)} tensors match no module, such as {odd[0]}.")
    # one that touches exactly the first n layers of a deeper base was made for another
    layers = {int(match[1]) for key in stored if (match := re.search(r"\.(?:layers|h)\.(\d+)\.", key))}
    depth = getattr(model.config, "num_hidden_layers", None)
    chosen = getattr(model.peft_config[name], "layers_to_transform", None)
    if layers and depth and chosen is None and layers == set(range(len(layers))) and len(layers) < depth:
        raise FinbenchError(
            f"{folder} does not fit its base: it has {len(layers)} layers, the base {depth}.",
            "Name the right base with --base; if it is meant so, state layers_to_transform in adapter_config.json.",
        )
    return model


def load_into(model: Any, folder: Path) -> None:
    """Put the weights of ``folder`` into the adapter that ``model``, a PeftModel, trains.

    Raises FinbenchError unless they are the very tensors that it has.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    stored = load_file(folder / WEIGHTS)
    there = get_peft_model_state_dict(model, save_embedding_layers=False)
    odd = sorted(stored.keys() ^ there.keys()) or [key for key in stored if stored[key].shape != there[key].shape]
    if odd:
        raise _misfit(folder, f"{len(odd)} tensors match no module, such as {odd[0]}.")
    set_peft_model_state_dict(model, stored)


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
