"""``finbench export``: an adapter as files that llama.cpp and Ollama run, and how close they are to it."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from finbench.core import environment
from finbench.core.console import quiet, say
from finbench.core.errors import FinbenchError
from finbench.core.files import folder_atomic, sha256_file, write_atomic
from finbench.core.records import BaseModelId, Bits, Closeness, Merge, Provenance
from finbench.core.strict import Record
from finbench.models import adapters, bases, ggufs, modelfiles
from finbench.training import gguf_lora, merging, modelfile

MODEL, LORA = "model.gguf", "adapter.gguf"
_WEIGHTS = ("f16", "q8_0", "bf16", "f32")
_LARGE = 2**30  # weights from which the sum is kept in bfloat16: in float32 a model of 8B is 32 GB for a while


class Exported(Record):
    """``export.json``: what was written, of what, and how close it is on probe prompts."""

    adapter: str = Field(description="identity of the adapter")
    base: BaseModelId
    weights: Literal["f16", "q8_0", "bf16", "f32"] = Field(description="type of the matrices of model.gguf")
    merge: Merge = Field(description="the adapter on its base, against the two as one model")
    gguf: Closeness = Field(description="that model, against model.gguf as it is read back")
    lora: str | None = Field(description="why there is no adapter.gguf; null: it is there")
    files: dict[str, str] = Field(description="SHA-256 of each")
    converter: str
    provenance: Provenance


def export(
    adapter: str,
    out: Path,
    *,
    to: str = "gguf",
    base: str | None = None,
    bits: Bits | None = None,
    weights: str = "f16",
) -> Exported:
    """Write ``model.gguf``, the adapter and its base as one model, into the new folder ``out``; return its record.

    Beside it lies ``adapter.gguf``, the LoRA alone for a GGUF of its base, where the two have that form; with
    ``to="ollama"`` a Modelfile as well. ``model.gguf`` is read back and asked the probes of ``merge``.

    Raises what ``merge`` raises; FinbenchError where llama.cpp's converter is not to be had or refuses the model, and
    for a chat template that a Modelfile cannot hold.
    """
    quiet()
    if to not in ("gguf", "ollama"):
        raise FinbenchError(f"--to is gguf or ollama, not {to!r}.", "--to ollama writes a Modelfile beside the GGUF.")
    if weights not in _WEIGHTS:
        raise FinbenchError(f"--weights is one of {', '.join(_WEIGHTS)}, not {weights!r}.", "--weights q8_0")
    if out.exists() or out.is_symlink():
        raise FinbenchError(f"{out} exists already.", "Choose a new folder with --out.")
    folder = adapters.find(adapter)
    if folder.kind == "model":
        raise FinbenchError(f"{adapter} is a whole model, not an adapter.", "Export the adapter that it was made of.")
    trained = merging.recorded_bits(folder, bits)
    on = adapters.base_of(folder, base)
    tokenizer = bases.load_tokenizer(on)
    recipe = folder.record.recipe if folder.record else None
    chat = recipe.chat if recipe else bool(tokenizer.chat_template)
    # whatever cannot be said in a Modelfile is found before the long part
    text = modelfile.text(tokenizer, on.id.alias, chat, MODEL) if to == "ollama" else None
    converter = ggufs.converter()
    dtype = "float32" if modelfiles.elements(on.folder) < _LARGE else "bfloat16"
    with folder_atomic(out) as staging:
        merged, read = staging / "merged", staging / "read"
        merged.mkdir()
        place: merging.Place = "bf16" if trained == 16 else "dequantised"
        report = merging.write(folder, on, trained, place, dtype, merged)
        ggufs.convert(converter, merged, staging / MODEL, weights)
        ggufs.dequantise(staging / MODEL, read, {"package": MODEL}, dtype)
        close = _compared(on, (merged, read), dtype, list(recipe.tasks) if recipe else [])
        lora = None
        try:
            gguf_lora.write(folder.folder, folder.config, on.folder, staging / LORA)
        except gguf_lora.NoLora as why:
            lora = str(why)
        for made in (merged, read):
            shutil.rmtree(made)
        if text is not None:
            write_atomic(staging / "Modelfile", text)
        record = Exported(
            adapter=folder.identity,
            base=on.id,
            weights=weights,  # type: ignore[arg-type]
            merge=report,
            gguf=close,
            lora=lora,
            files={path.name: sha256_file(path) for path in sorted(staging.iterdir()) if path.is_file()},
            converter=ggufs.CONVERTER,
            provenance=environment.provenance(),
        )
        write_atomic(staging / "export.json", record.to_json())
    say(f"Wrote {out}.")
    return record


def _compared(on: bases.Base, folders: tuple[Path, Path], dtype: str, tasks: list[str]) -> Closeness:
    """How close two folders of one model are."""
    texts, found = merging.probes(tasks), list[list[Any]]()
    for folder in folders:
        model, tokenizer = bases.load(bases.Base(on.id, folder), 16, bases.compute_dtype(dtype))
        found.append([merging.log_probabilities(model, tokenizer, text) for text in texts])
        del model
    return Closeness(**merging.compare(*found))


def exported_in_words(made: Exported, to: Path) -> str:
    """What was written, how close it is, and what to type next."""
    close = made.gguf
    lora = (
        f"{LORA}: the LoRA alone, for a GGUF of {made.base.alias}." if made.lora is None else f"No {LORA}: {made.lora}."
    )
    lines = [
        f"{MODEL}: adapter and base as one model, {made.weights}. {lora}",
        f"Read back, on {close.probes} prompts ({close.positions} tokens): log-probabilities differ by at most "
        f"{close.largest_difference:.2g} from the merged model's, {100 * close.agreement:.1f} % of next tokens and "
        f"{100 * close.answers:.1f} % of answers agree.",
    ]
    if "Modelfile" in made.files:
        name = re.sub("[^a-z0-9_-]", "-", to.resolve().name.lower())
        lines.append(f"Next: cd {shlex.quote(str(to))} && ollama create {name} -f Modelfile && ollama run {name}")
    else:
        lines.append(f"Next: llama-cli -m {shlex.quote(str(to / MODEL))}")
    return "\n".join(lines)
