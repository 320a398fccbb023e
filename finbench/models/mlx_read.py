"""``python -m finbench.models.mlx_read FOLDER [TARGET < PROMPTS]``: what a model folder answers through mlx-lm.

A process of its own: MLX is no package that finbench needs, and lies in a folder of the cache. Without TARGET it only
says whether mlx-lm knows the kind of model; nothing of the weights is read.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path


def main(folder: Path, target: Path | None) -> str:
    """Write log-probabilities, float32 (tokens, vocabulary) of each list of tokens; a reason where mlx-lm refuses."""
    from mlx_lm.utils import MODEL_REMAPPING, load_model

    stated = str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type"))
    kind = MODEL_REMAPPING.get(stated, stated)
    if not re.fullmatch(r"[\w-]+", kind) or importlib.util.find_spec(f"mlx_lm.models.{kind}") is None:
        return f"it knows no models of the type {stated[:60]!r}"
    if target is None:
        return ""
    import mlx.core as mx
    import numpy as np

    try:
        model, _ = load_model(folder)  # strict: every tensor has its place, and every place its tensor
    except (ValueError, TypeError, KeyError, AttributeError, FileNotFoundError, RuntimeError) as fault:
        return str(fault).strip().splitlines()[0]
    found = {}
    for number, tokens in enumerate(json.load(sys.stdin)):
        logits = model(mx.array([tokens]))[0].astype(mx.float32)
        found[str(number)] = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        if not np.isfinite(found[str(number)]).all():
            return "its answers are not finite numbers; another type of weights may do (--weights f32)"
    np.savez(target, allow_pickle=False, **found)
    return ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None) or 0)
