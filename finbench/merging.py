"""``finbench merge``: an adapter and its base become one model in 16 bits, with a report of how close the two are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from finbench import adapters, bases, cards, catalog, environment, examcheck, prompts
from finbench.console import quiet, say
from finbench.errors import FinbenchError
from finbench.files import folder_atomic, write_atomic
from finbench.methods import quantise
from finbench.records import Adapter, Bits, DType, Merge

Onto = Literal["auto", "dequantised", "bf16"]


def merge(
    adapter: str,
    out: Path,
    *,
    base: str | None = None,
    onto: str = "auto",
    dtype: str = "bfloat16",
) -> Adapter:
    """Write the model that ``adapter`` and its base are together into the new folder ``out``; return its record.

    An adapter of a 16-bit base goes onto the base's own weights. One of a quantised base goes onto the dequantised
    weights, which is the function that was trained; with ``onto="bf16"`` onto the weights as published, which is
    another function, better or worse. The sum is made in float32 and written in ``dtype``. What was written is read
    again and compared with the adapter on its base, prompt by prompt (``Merge`` in the record).

    Raises FinbenchError for an adapter that finbench did not train, for a whole model, for an unfit base, and for
    ``onto`` 4 or 8 bits: quantising the sum would round the update away.
    """
    quiet()
    folder = adapters.read(adapters.locate(adapter))
    if folder.kind == "model":
        raise FinbenchError(f"{adapter} is a whole model already.", "It can be used as it is.")
    record = folder.record
    if record is None:
        raise FinbenchError(
            f"{adapter} has no finbench.json: at which bits it was trained is not known.",
            "Merge it with peft's merge_and_unload, if you know.",
        )
    place = _onto(onto, record.recipe.bits)
    if dtype not in ("bfloat16", "float16", "float32"):
        raise FinbenchError(f"A model is written in bfloat16, float16 or float32, not in {dtype!r}.")
    if out.exists():
        raise FinbenchError(f"{out} exists already.", "Choose a new folder with --out.")
    on = adapters.base_of(folder, base)
    template = bases.chat_template(bases.load_tokenizer(on), on.id.alias) if record.recipe.chat else None
    texts = probes(list(record.recipe.tasks), template)
    with folder_atomic(out) as staging:
        trained, tokenizer = bases.load(on, record.recipe.bits, bases.compute_dtype(_dtype(record.dtype)))
        merged, _ = bases.load(on, 16, bases.compute_dtype("float32"))
        trained = adapters.attach(trained, folder.folder, on).eval()
        if place == "dequantised":
            quantise.copy_dequantised(trained, merged)  # before any forward: that may repack quantised weights
        before = [log_probabilities(trained, tokenizer, text) for text in texts]
        del trained
        merged = adapters.attach(merged, folder.folder, on).merge_and_unload(safe_merge=True)
        merged = merged.to(bases.compute_dtype(_dtype(dtype)))
        merged.config.name_or_path = on.id.hub_id or on.id.alias
        merged.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        del merged
        written, _ = bases.load(bases.Base(on.id, staging), 16, bases.compute_dtype(_dtype(dtype)))
        after = [log_probabilities(written, tokenizer, text) for text in texts]
        report = compare(before, after)
        made = record.model_copy(
            update={
                "kind": "model",
                "files": adapters.decisive_files(staging),
                "dtype": dtype,
                "quantisation": None,
                "provenance": environment.provenance(),
                "merge": Merge(adapter=folder.identity, onto=place, dtype=dtype, **report),
            }
        )
        write_atomic(staging / "README.md", cards.model_card(made))
        write_atomic(staging / "finbench.json", made.to_json())
    say(f"Wrote {out}.")
    return made


def _dtype(text: str) -> DType:
    return text if text in ("float32", "bfloat16", "float16") else "auto"  # type: ignore[return-value]


def _onto(wanted: str, bits: Bits) -> Literal["dequantised", "bf16"]:
    if wanted.lower() in ("nf4", "int8", "4", "8", "4bit", "8bit", "4-bit", "8-bit"):
        raise FinbenchError(
            f"An adapter is never merged into {wanted}: quantising the sum would round the update away.",
            "Merge it into 16 bits (--onto dequantised or bf16), or serve it unmerged.",
        )
    if wanted not in ("auto", "dequantised", "bf16"):
        raise FinbenchError(f"--onto is auto, dequantised or bf16, not {wanted!r}.")
    if wanted == "dequantised" and bits == 16:
        raise FinbenchError("This adapter was trained on 16 bits: nothing was quantised.", "Leave --onto out.")
    if wanted == "auto":
        return "bf16" if bits == 16 else "dequantised"
    return "bf16" if wanted == "bf16" else "dequantised"


def probes(tasks: Sequence[str], template: Any = None) -> list[str]:
    """The prompts of every invented example of ``tasks``: they need no data."""
    texts = []
    for task in catalog.expand(tasks):
        exam = examcheck.exam_of_examples(task)
        texts += [prompts.pair(exam, doc, template)[0] for doc in exam.dataset["test"]]
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
