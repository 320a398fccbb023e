"""``finbench export``: an adapter as files that llama.cpp, Ollama or MLX run, and how close they are to it."""

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
from finbench.models import adapters, bases, ggufs, mlxs, modelfiles
from finbench.training import gguf_lora, merging, modelfile

MODEL, LORA = "model.gguf", "adapter.gguf"
# the first is what is written where nothing is said: MLX computes in the type of the weights
_WEIGHTS = {"gguf": ("f16", "q8_0", "bf16", "f32"), "mlx": ("bf16", "f16", "f32")}
_FAR = 0.03  # nats: SmolLM2 rounded to bfloat16 is at 0.002, with another base of its rotary positions at 0.11
_MLX_DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
_PLACES: dict[Bits, merging.Place] = {16: "bf16", 8: "dequantised", 4: "dequantised"}
_LARGE = 2**30  # weights from which the sum is kept in bfloat16: in float32 a model of 8B is 32 GB for a while


class Exported(Record):
    """``export.json``: what was written, of what, and how close it is on probe prompts."""

    adapter: str = Field(description="identity of the adapter")
    base: BaseModelId
    weights: Literal["f16", "q8_0", "bf16", "f32"] = Field(description="type of the model's matrices")
    merge: Merge = Field(description="the adapter on its base, against the two as one model")
    gguf: Closeness | None = Field(default=None, description="that model, against model.gguf as it is read back")
    mlx: Closeness | None = Field(default=None, description="that model, against itself as mlx-lm runs it")
    lora: str | None = Field(default=None, description="why there is no adapter.gguf; null: it is there, or for MLX")
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
    weights: str | None = None,
) -> Exported:
    """Write an adapter and its base as one model, in a form that others run, into the new folder ``out``.

    ``to="gguf"`` writes ``model.gguf``, and beside it ``adapter.gguf``, the LoRA alone for a GGUF of its base, where
    the two have that form; ``to="ollama"`` a Modelfile as well. ``to="mlx"`` writes a model folder of safetensors,
    which mlx-lm loads as it is. What was written is read back, MLX's by mlx-lm itself, and asked the probes of
    ``merge``; the record is returned.

    Raises what ``merge`` raises; FinbenchError where llama.cpp's converter, or mlx-lm, is not to be had or refuses the
    model, and for a chat template that a Modelfile cannot hold.
    """
    quiet()
    form = _form(to)
    weights = _WEIGHTS[form][0] if weights is None else weights
    if weights not in _WEIGHTS[form]:
        raise FinbenchError(
            f"--weights is one of {', '.join(_WEIGHTS[form])}, not {weights!r}.", f"--weights {_WEIGHTS[form][1]}"
        )
    if out.exists() or out.is_symlink():
        raise FinbenchError(f"{out} exists already.", "Choose a new folder with --out.")
    folder = adapters.find(adapter)
    if folder.kind == "model":
        raise FinbenchError(f"{adapter} is a whole model, not an adapter.", "Export the adapter that it was made of.")
    trained = merging.recorded_bits(folder, bits)
    on = adapters.base_of(folder, base)
    # whatever refuses the model is found before the long part
    text = _modelfile(folder, on) if to == "ollama" else None
    write, tool = (_as_mlx, _reader(on)) if form == "mlx" else (_as_gguf, ggufs.converter())
    with folder_atomic(out) as staging:
        made = write(folder, on, trained, weights, tool, staging)
        if text is not None:
            write_atomic(staging / "Modelfile", text)
        record = Exported(
            adapter=folder.identity,
            base=on.id,
            weights=weights,  # type: ignore[arg-type]
            files={path.name: sha256_file(path) for path in sorted(staging.iterdir()) if path.is_file()},
            provenance=environment.provenance(),
            **made,
        )
        write_atomic(staging / "export.json", record.to_json())
    say(f"Wrote {out}.")
    return record


def _as_gguf(
    folder: adapters.AdapterFolder, on: bases.Base, trained: Bits, weights: str, converter: Path | None, staging: Path
) -> dict[str, Any]:
    """Write GGUF files into ``staging``; what the record says of them."""
    assert converter is not None
    dtype = "float32" if modelfiles.elements(on.folder) < _LARGE else "bfloat16"
    merged, read, texts = staging / "merged", staging / "read", merging.probes(folder.tasks)
    merged.mkdir()
    report = merging.write(folder, on, trained, _PLACES[trained], dtype, merged)
    ggufs.convert(converter, merged, staging / MODEL, weights)
    ggufs.dequantise(staging / MODEL, read, {"package": MODEL}, dtype)
    close = merging.compare(*(_answers(on, one, dtype, texts)[0] for one in (merged, read)))
    lora = None
    try:
        gguf_lora.write(folder.folder, folder.config, on.folder, staging / LORA)
    except gguf_lora.NoLora as why:
        lora = str(why)
    for made in (merged, read):
        shutil.rmtree(made)
    return {"merge": report, "gguf": Closeness(**close), "lora": lora, "converter": ggufs.CONVERTER}


def _as_mlx(
    folder: adapters.AdapterFolder, on: bases.Base, trained: Bits, weights: str, reader: Path | None, staging: Path
) -> dict[str, Any]:
    """Write a model folder into ``staging``; what the record says of it. FinbenchError where mlx-lm sees another."""
    dtype = _MLX_DTYPES[weights]
    report = merging.write(folder, on, trained, _PLACES[trained], dtype, staging)
    before, asked = _answers(on, staging, dtype, merging.probes(folder.tasks))
    mlxs.spell_out(staging)
    close = Closeness(**merging.compare(before, mlxs.log_probabilities(reader, staging, asked)))
    if close.mean_divergence > _FAR:
        raise FinbenchError(
            f"mlx-lm computes something else of the model: log-probabilities differ by up to "
            f"{close.largest_difference:.2g} (on average {close.mean_divergence:.2g} nats), and "
            f"{100 * close.agreement:.0f} % of next tokens agree.",
            "Nothing was written. Use --to gguf, or --weights f32 if rounding may be the cause.",
        )
    return {"merge": report, "mlx": close, "converter": mlxs.VERSION}


def _reader(on: bases.Base) -> Path | None:
    """Where mlx-lm lies, which knows the kind of model."""
    found = mlxs.reader()
    mlxs.check(found, on.folder)
    return found


def _form(to: str) -> str:
    """gguf or mlx; FinbenchError for what is not written."""
    form = {"ollama": "gguf"}.get(to, to)
    if form not in _WEIGHTS:
        hint = "--to ollama writes a Modelfile beside the GGUF."
        if to == "onnx":
            hint = "optimum writes it of a merged model: finbench merge, then optimum-cli export onnx"
        raise FinbenchError(f"--to is gguf, ollama or mlx, not {to!r}.", hint)
    return form


def _modelfile(folder: adapters.AdapterFolder, on: bases.Base) -> str:
    tokenizer = bases.load_tokenizer(on)
    chat = folder.chat if folder.base else bool(tokenizer.chat_template)  # without a record nobody knows
    try:
        return modelfile.text(tokenizer, on.id.alias, chat, MODEL)
    except FinbenchError as fault:  # of a template, whose hint is for an evaluation
        raise FinbenchError(fault.message, "Use --to gguf, which needs no template.") from fault


def _answers(on: bases.Base, folder: Path, dtype: str, texts: list[str]) -> tuple[list[Any], list[list[int]]]:
    """What a folder of a model answers to each text, and the tokens of each."""
    model, tokenizer = bases.load(bases.Base(on.id, folder), 16, bases.compute_dtype(dtype))
    found = [merging.log_probabilities(model, tokenizer, text) for text in texts]
    return found, [tokenizer.encode(text) for text in texts]


def exported_in_words(made: Exported, to: Path) -> str:
    """What was written, how close it is, and what to type next."""
    close = made.gguf or made.mlx
    assert close is not None
    where, what, name = shlex.quote(str(to)), "Read back", re.sub("[^a-z0-9_-]", "-", to.resolve().name.lower())
    if made.mlx:
        first = f"Adapter and base as one model, {made.weights}, in safetensors: mlx-lm loads the folder as it is."
        what, then = f"Run by {made.converter}", f"mlx_lm.chat --model {where}"
    else:
        none = f"No {LORA}: {made.lora}."
        lora = f"{LORA}: the LoRA alone, for a GGUF of {made.base.alias}." if made.lora is None else none
        first, then = f"{MODEL}: adapter and base as one model, {made.weights}. {lora}", f"llama-cli -m {where}/{MODEL}"
    if "Modelfile" in made.files:
        then = f"cd {where} && ollama create {name} -f Modelfile && ollama run {name}"
    return "\n".join(
        (
            first,
            f"{what}, on {close.probes} prompts ({close.positions} tokens): log-probabilities differ by at most "
            f"{close.largest_difference:.2g} from the merged model's, {100 * close.agreement:.1f} % of next tokens and "
            f"{100 * close.answers:.1f} % of answers agree.",
            f"Next: {then}",
        )
    )
