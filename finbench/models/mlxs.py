"""Model folders read by mlx-lm, which runs on Apple's chips and, slower, on any Linux: fetched once, a process each."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finbench.core import paths
from finbench.core.console import waiting
from finbench.core.errors import FinbenchError, harmless
from finbench.core.files import write_atomic
from finbench.core.safety import read_json
from finbench.models import decisive, ggufs

VERSION = "mlx-lm==0.32.2"
_MLX = "0.32.4"
_PART = "metal" if sys.platform == "darwin" else "cpu"  # of MLX, which computes
PACKAGES = [VERSION, f"mlx=={_MLX}", f"mlx-{_PART}=={_MLX}"]
_READING = 3600.0  # seconds of the wall


def reader() -> Path | None:
    """The folder of mlx-lm and MLX, fetched from PyPI into the cache at the first time; None: they are installed.

    What else they need is here already: numpy, transformers, Jinja.
    """
    if importlib.util.find_spec("mlx") and importlib.util.find_spec("mlx_lm"):
        return None
    target = paths.cache_dir() / "converters" / VERSION.replace("==", "-")
    return ggufs.tool(target, PACKAGES, "mlx_lm/utils.py", f"{VERSION} from PyPI (once; 15 MB)")


def check(tool: Path | None, folder: Path) -> None:
    """Refuse a kind of model that mlx-lm does not know, by its config.json; no weights are read."""
    _run(tool, [str(folder)], "")


def log_probabilities(tool: Path | None, folder: Path, asked: Sequence[Sequence[int]]) -> list[Any]:
    """Log-probabilities of every next token of each list of tokens, float32, shape (tokens, vocabulary)."""
    import numpy as np
    import torch

    with tempfile.TemporaryDirectory() as scratch, waiting("Asking mlx-lm what the written model answers"):
        target = Path(scratch) / "answers.npz"
        _run(tool, [str(folder), str(target)], json.dumps([list(tokens) for tokens in asked]))
        with np.load(target) as found:
            return [torch.from_numpy(found[str(number)]) for number in range(len(asked))]


def spell_out(folder: Path) -> None:
    """Have config.json state rotary positions as transformers 4 wrote them too: many of mlx-lm's models read no other.

    They take a default for what is not stated, and are then another model. Nothing is changed for transformers.
    """
    config = read_json(folder / "config.json", folder)
    rope = config.get("rope_parameters") or {}
    main, local = rope.get("full_attention") or rope, rope.get("sliding_attention") or {}
    told = {key: main[key] for key in ("rope_theta", "partial_rotary_factor") if key in main}
    if "rope_theta" in local:
        told["rope_local_base_freq"] = local["rope_theta"]
    if main.get("rope_type", "default") != "default":
        told["rope_scaling"] = main
    if decisive.configuration(told | config) == decisive.configuration(config):
        write_atomic(folder / "config.json", json.dumps(told | config, indent=2) + "\n")


def _run(tool: Path | None, arguments: list[str], told: str) -> None:
    command = [sys.executable, "-P", "-m", "finbench.models.mlx_read", *arguments]
    # nothing of the user's own: keys and tokens lie in environments
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    found = [str(tool)] if tool else []
    environment = {**kept, "PYTHONPATH": os.pathsep.join([*found, *filter(None, sys.path)]), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, input=told, capture_output=True, text=True, check=False, env=environment, timeout=_READING
        )
    except subprocess.TimeoutExpired as fault:
        raise FinbenchError("mlx-lm was given up after an hour.", "Is the memory full? Use --to gguf.") from fault
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["killed"]
        raise FinbenchError(
            f"mlx-lm does not run the model: {harmless(lines[-1])[:300]}",
            "Use --to gguf, which llama.cpp runs on Apple's chips too; or merge it: finbench merge",
        )
