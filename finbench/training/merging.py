"""``finbench merge``: an adapter and its base become one model in 16 bits, with a report of how close the two are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from finbench.cards import model_card
from finbench.core import catalog, environment
from finbench.core.console import quiet, say
from finbench.core.errors import FinbenchError, reason
from finbench.core.files import folder_atomic, write_atomic
from finbench.core.records import Adapter, BaseModelId, Bits, Closeness, Merge, MergedModel
from finbench.methods import quantise
from finbench.models import Unchanged, adapters, attaching, bases, is_structured, structured
from finbench.scoring import prompts, task_of_examples

Place = Literal["dequantised", "bf16"]
_DTYPES = ("bfloat16", "float16", "float32")
_PROBES = "finbench_mini"  # whose examples an adapter without a recipe is compared on


class DenseCopy(Closeness):
    """A model of low-rank factors written as an ordinary dense one, and how close the two are."""

    source: BaseModelId
    kind: structured.Kind
    dtype: str
    parameters: int
    dense_parameters: int


Made = Adapter | MergedModel | DenseCopy


def merge_in_words(made: Made) -> tuple[str, str, Closeness]:
    """(what was made, what it was compared with, how close the two are), in words."""
    if isinstance(made, DenseCopy):
        sizes = f"{made.parameters:,} parameters are {made.dense_parameters:,}"
        return f"{made.source.alias} ({made.kind}) dense, {made.dtype}: {sizes}", "factors", made
    assert made.merge is not None
    name, bits = (made.recipe.name, made.recipe.bits) if isinstance(made, Adapter) else (made.method, made.bits)
    where = "the dequantised base" if made.merge.onto == "dequantised" else "the base's own weights"
    return f"{name} on {where}, {made.merge.dtype}", f"adapter on its {bits}-bit base", made.merge


def merge(
    adapter: str,
    out: Path,
    *,
    base: str | None = None,
    onto: str = "auto",
    dtype: str = "bfloat16",
    bits: Bits | None = None,
) -> Made:
    """Write the model that ``adapter`` and its base are together into the new folder ``out``; return its record.

    An adapter of a 16-bit base goes onto the base's own weights. One of a quantised base goes onto the dequantised
    weights, which is the function that was trained; with ``onto="bf16"`` onto the weights as published, which is
    another function, better or worse. The sum is made in float32 and written in ``dtype``. What was written is read
    again and compared with the adapter on its base, prompt by prompt (``Merge`` in the record).

    ``bits`` are those of the base that an adapter of another program was trained on; its files do not say, and 16
    are assumed. What it makes is a MergedModel. A model of low-rank factors in place of an adapter has its factors
    multiplied, and becomes a DenseCopy.

    Raises FinbenchError for a whole model, for an adapter that peft cannot merge, for an unfit base, for bits other
    than the recorded ones, and for ``onto`` 4 or 8 bits: quantising the sum would round the update away.
    """
    quiet()
    if dtype not in _DTYPES:
        raise FinbenchError(
            f"A model is written in bfloat16, float16 or float32, not in {dtype!r}.", "--dtype bfloat16"
        )
    if out.exists():
        raise FinbenchError(f"{out} exists already.", "Choose a new folder with --out.")
    if is_structured(adapters.locate(adapter)):
        return _dense(bases.resolve(adapter), out, dtype)
    folder = adapters.find(adapter)
    if folder.kind == "model":
        raise FinbenchError(f"{adapter} is a whole model already.", "It can be used as it is.")
    trained = recorded_bits(folder, bits)
    place = _onto(onto, trained)
    on = adapters.base_of(folder, base)
    say(f"Merging {folder.name} into {on.id.alias}; what is written is read again and compared ...")
    with folder_atomic(out) as staging:
        report = write(folder, on, trained, place, dtype, staging)
        made = _record(folder, on, trained, bool(bits or folder.base), report, staging)
        named = "finbench.json" if isinstance(made, Adapter) else "merge.json"
        write_atomic(staging / "README.md", model_card(made))
        write_atomic(staging / named, made.to_json())
    say(f"Wrote {out}.")
    return made


def _dense(source: bases.Base, out: Path, dtype: str) -> DenseCopy:
    computed, texts = bases.compute_dtype(dtype), probes([_PROBES])
    stored = structured.storage.check(source.folder)
    model, tokenizer = bases.load(source, stored.bits, computed)
    before = [log_probabilities(model, tokenizer, text) for text in texts]
    del model
    structured.storage.export_dense(source.folder, out, computed)
    model, _ = bases.load(bases.Base(source.id, out), 16, computed)
    after = [log_probabilities(model, tokenizer, text) for text in texts]
    say(f"Wrote {out}.")
    return DenseCopy(
        source=source.id,
        kind=stored.structure.kind,
        dtype=dtype,
        parameters=stored.parameters,
        dense_parameters=stored.dense_parameters,
        **compare(before, after),
    )


def write(folder: adapters.AdapterFolder, on: bases.Base, bits: Bits, place: Place, dtype: str, staging: Path) -> Merge:
    """Write the sum of adapter and base into ``staging``, in ``dtype``, read it again, and say how close it is."""
    if on.id.quantised and on.id.quantised.method != "gguf":
        raise FinbenchError(
            f"{on.id.alias} is quantised by {on.id.quantised.described}: rounded to codes, the update would be lost.",
            "Serve the adapter beside it, or name the model as it was before it was quantised: --base",
        )
    template = bases.chat_template(bases.load_tokenizer(on), on.id.alias) if folder.chat else None
    texts = probes(folder.tasks, template)
    stated = folder.record.dtype if folder.record else "auto"
    trained, tokenizer = bases.load(on, bits, bases.compute_dtype(stated if stated in _DTYPES else "auto"))
    merged, _ = bases.load(on, 16, bases.compute_dtype("float32"))
    trained = attaching.attach(trained, folder.folder, on).eval()  # an adapter may bring codes of its own
    if place == "dequantised":
        quantise.copy_dequantised(trained, merged)  # before any forward: that may repack quantised weights
    before = [log_probabilities(trained, tokenizer, text) for text in texts]
    del trained
    computed = bases.compute_dtype(dtype)
    merged = _sum(attaching.attach(merged, folder.folder, on), folder).to(computed)
    unchanged = Unchanged()
    unchanged.base(on)
    unchanged.adapter(folder.folder, folder.identity, folder.kind)
    merged.config.name_or_path = on.id.hub_id or on.id.alias
    bases.save(merged, on, staging)
    tokenizer.save_pretrained(staging)
    del merged
    written, _ = bases.load(bases.Base(on.id, staging), 16, computed)
    after = [log_probabilities(written, tokenizer, text) for text in texts]
    return Merge(adapter=folder.identity, onto=place, dtype=dtype, **compare(before, after))


def _sum(attached: Any, folder: adapters.AdapterFolder) -> Any:
    kind = str(folder.config.get("peft_type") or "LORA")
    if tied := _tied(attached):
        raise FinbenchError(
            f"{folder.name} changes {tied}, which is head and embedding at once: merged, it would change both.",
            "Evaluate it unmerged, with --engine hf.",
        )
    if attached.active_peft_config.is_prompt_learning:
        raise FinbenchError(
            f"{folder.name} is a {kind}: it changes no weights, so there is nothing to merge.",
            "Use it as an adapter: finbench eval --adapter ./folder",
        )
    try:
        return attached.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError, RuntimeError, AttributeError) as fault:
        raise FinbenchError(
            f"peft cannot merge {folder.name}, a {kind}: {reason(fault)}", "Evaluate or serve it unmerged."
        ) from fault


def _tied(attached: Any) -> str | None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = attached.get_base_model()
    ends = [layer for layer in (base.get_input_embeddings(), base.get_output_embeddings()) if layer is not None]
    adapted = [layer for layer in ends if isinstance(layer, BaseTunerLayer)]
    weights = {(layer.get_base_layer() if layer in adapted else layer).weight.data_ptr() for layer in ends}
    names = {layer: name for name, layer in base.named_modules()}
    return names[adapted[0]] if adapted and len(ends) == 2 and len(weights) == 1 else None


def _record(
    folder: adapters.AdapterFolder, on: bases.Base, bits: Bits, stated: bool, report: Merge, staging: Path
) -> Adapter | MergedModel:
    here = environment.provenance()
    if folder.record is None:
        kind = str(folder.config.get("peft_type") or "LORA").lower()
        made = MergedModel(base=on.id, method=kind, bits=bits, bits_stated=stated, merge=report, provenance=here)
        return made.model_copy(update={"tasks": folder.tasks, "chat": folder.chat})
    files = adapters.decisive_files(staging)
    changed = {"kind": "model", "files": files, "dtype": report.dtype, "quantisation": None}
    return folder.record.model_copy(update={**changed, "merge": report, "provenance": here})


def recorded_bits(folder: adapters.AdapterFolder, stated: Bits | None) -> Bits:
    """The bits of the base that an adapter was trained on: recorded, else ``stated``, else 16."""
    if folder.base is None:  # of a combined one too, where none of its parts has a record
        if stated is None:
            say("It has no finbench.json: its base is taken to be in 16 bits. If it was quantised, say --bits 4 or 8.")
        return stated or 16
    if stated not in (None, folder.bits):
        raise FinbenchError(f"{folder.name} was trained on {folder.bits} bits, not on {stated}.", "Leave --bits out.")
    return folder.bits


def _onto(wanted: str, bits: Bits) -> Place:
    if wanted.lower() in ("nf4", "int8", "4", "8", "4bit", "8bit", "4-bit", "8-bit"):
        raise FinbenchError(
            f"An adapter is never merged into {wanted}: quantising the sum would round the update away.",
            "Merge it into 16 bits (--onto dequantised or bf16), or serve it unmerged.",
        )
    if wanted not in ("auto", "dequantised", "bf16"):
        raise FinbenchError(
            f"--onto is auto, dequantised or bf16, not {wanted!r}.", "Leave it out, or: --onto dequantised"
        )
    if wanted == "dequantised" and bits == 16:
        raise FinbenchError("This adapter was trained on 16 bits: nothing was quantised.", "Leave --onto out.")
    return "bf16" if wanted == "bf16" or bits == 16 else "dequantised"


def probes(tasks: Sequence[str], template: Any = None) -> list[str]:
    """The prompts of every invented example of ``tasks``, else of the mini tasks: they need no data."""
    known = [name for name in tasks if name in catalog.tasks()]  # the folder of a benchmark may not be here
    texts = []
    for task in [task for task in catalog.expand(known) if task.examples] or catalog.expand([_PROBES]):
        lm_task = task_of_examples(task)
        texts += [prompts.pair(lm_task, doc, template)[0] for doc in lm_task.dataset["test"]]
    return texts


def log_probabilities(model: Any, tokenizer: Any, text: str) -> Any:
    """Log-probabilities of every next token, float32, shape (tokens, vocabulary), on the CPU."""
    import torch

    ids = torch.tensor([tokenizer.encode(text)], device=model.device)
    with torch.no_grad():
        return model(ids).logits[0].float().log_softmax(-1).cpu()


def compare(before: Sequence[Any], after: Sequence[Any]) -> dict[str, Any]:
    """The numbers of a ``Merge`` from two lists of log-probabilities (tokens, vocabulary)."""
    import torch

    pairs = list(zip(before, after, strict=True))
    same = torch.cat([one.argmax(-1) == other.argmax(-1) for one, other in pairs])
    divergence = torch.cat([(one.exp() * (one - other)).sum(-1) for one, other in pairs])
    return {
        "probes": len(pairs),
        "positions": len(same),
        "largest_difference": float(max((one - other).abs().max() for one, other in pairs)),
        "mean_divergence": max(0.0, float(divergence.mean())),
        "agreement": float(same.float().mean()),
        "answers": sum(bool(one[-1].argmax() == other[-1].argmax()) for one, other in pairs) / len(pairs),
    }
