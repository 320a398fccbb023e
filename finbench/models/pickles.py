"""Adapters and models whose weights exist only as pickles: their tensors written as safetensors, by a shut process."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import __version__ as safetensors_version

from finbench import hub
from finbench.core import disguised, safety
from finbench.core.console import waiting
from finbench.core.errors import FinbenchError, harmless
from finbench.core.files import sha256_file
from finbench.core.version import __version__
from finbench.models import adapters, decisive, modelfiles

RECORD = "converted.json"  # where the weights of a converted folder come from
_INDEX = "pytorch_model.bin.index.json"
_MODELS = ("pytorch_model.bin", "pytorch_model.pt", "pytorch_model.pth")
_STALLED = 600.0  # seconds of the wall beside those that a slow disk takes for the file
_SLOWEST = 5e6  # bytes a second
_SAID = 100_000  # bytes of what the reader says that are looked at
_REFUSED = "Ask its author for safetensors: model.save_pretrained(folder)"


def convert(folder: Path, target: Path, source: str, linked: bool = False) -> None:
    """Write what ``folder`` holds into the empty folder ``target``, its pickled weights as safetensors.

    Configuration and tokenizer are copied and must be safe before a pickle is opened. Each pickle is read by a process
    of its own that runs nothing of it (``unpickle``). ``converted.json`` records the ``source``, and the SHA-256 of
    each file before and after. ``linked``: files may be links that lead outside of the folder.

    Raises FinbenchError for a folder with safetensors, for links that lead out of it, and for more than tensors.
    """
    files = _files(folder, linked)
    if any(name.endswith(".safetensors") for name in files):
        raise FinbenchError(f"{folder} has safetensors: nothing is to be converted.", "Leave --convert out.")
    for name, path in files.items():
        if not name.endswith(".index.json") and any(fnmatch.fnmatchcase(name, pattern) for pattern in hub.SAFE_FILES):
            if path.stat().st_size > decisive.LARGEST_JSON:
                raise FinbenchError(f"{path} is too large ({path.stat().st_size:,} bytes).", _REFUSED)
            shutil.copyfile(path, target / name)
    if "adapter_config.json" in files:
        adapters.stated_config(target)
        named = {_only(folder, files, adapters.PICKLES): adapters.WEIGHTS}
    else:
        for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
            if name == "config.json" or name in files:
                safety.refuse_code(safety.read_json(target / name, folder, decisive.LARGEST_JSON), target / name)
        named = _shards(folder, files, target)
    made = {}
    for name, plain in named.items():
        with waiting(f"Reading the tensors of {name} in a process that can do nothing else"):
            made[name] = _one(files[name], target / plain)
    tools = {"finbench": __version__, "torch": torch.__version__, "safetensors": safetensors_version}
    record = {"source": source, "files": made, "made_by": tools}
    (target / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _files(folder: Path, linked: bool) -> dict[str, Path]:
    """The plain files at the top of a folder by their names; FinbenchError for one that lies elsewhere."""
    if not folder.is_dir():
        raise FinbenchError(f"No such folder: {folder}", "Name the folder that holds the pickled weights.")
    own = folder.resolve()
    places = [own, own.parents[1] / "blobs"] if own.parent.name == "snapshots" else [own]  # as `hf download` links
    found = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file():
            continue
        if not linked and not any(path.resolve().is_relative_to(place) for place in places):
            raise FinbenchError(f"{path} is a link that leads outside of {folder}.", "Copy the file into the folder.")
        found[path.name] = path
    return found


def _only(folder: Path, files: dict[str, Path], known: tuple[str, ...]) -> str:
    there = [name for name in known if name in files]
    if len(there) == 1:
        return there[0]
    said = f"has {' and '.join(there)}" if there else f"has none of {', '.join(known)}"
    raise FinbenchError(f"{folder} {said}; one file of pickled weights is expected.", "Keep the one that is meant.")


def _shards(folder: Path, files: dict[str, Path], target: Path) -> dict[str, str]:
    """Pickle -> safetensors file of a model; the index of several is written anew."""
    if _INDEX not in files:
        return {_only(folder, files, _MODELS): "model.safetensors"}
    index = safety.read_json(files[_INDEX], folder, decisive.LARGEST_JSON)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise modelfiles.damaged(f"{files[_INDEX]} names no files.")
    names = sorted(set(places.values()))
    if lacking := [name for name in names if name not in files or not name.endswith(hub.PICKLES)]:
        raise modelfiles.damaged(f"{folder} is incomplete: {lacking[0][:80]}.")
    plain = {name: f"model-{place:05d}-of-{len(names):05d}.safetensors" for place, name in enumerate(names, 1)}
    anew = {"metadata": {}, "weight_map": {tensor: plain[name] for tensor, name in places.items()}}
    (target / "model.safetensors.index.json").write_text(json.dumps(anew) + "\n", encoding="utf-8")
    return plain


def _check_start(pickle: Path, plain: str) -> None:
    """Refuse by its first bytes what cannot be a file of torch.save, and say what it is."""
    if fault := disguised.refusal(pickle):
        raise fault
    with pickle.open("rb") as handle:
        start = handle.read(9)
    if start[8:] == b"{":
        raise FinbenchError(
            f"{pickle} is safetensors under another name: nothing is to be converted.",
            f"Rename it to {plain}.",
        )
    if not start.startswith((b"\x80", b"PK\x03\x04")):
        raise FinbenchError(f"{pickle} is no pickle, or it is torn.", f"Fetch it again. {_REFUSED}")


def _one(pickle: Path, target: Path) -> dict[str, Any]:
    """Convert one file; what is known of it before and after."""
    _check_start(pickle, target.name)
    code = [sys.executable, "-P", "-m", "finbench.models.unpickle"]
    # no secret of the user's is in its memory, and one thread, for it can start no other
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    with pickle.open("rb") as source, target.open("xb") as sink, tempfile.TemporaryFile() as said_to:
        size = os.fstat(source.fileno()).st_size
        sha = hashlib.file_digest(source, "sha256").hexdigest()  # of the very file that is read
        source.seek(0)
        try:
            done = subprocess.run(
                code, stdin=source, stdout=sink, stderr=said_to, env=environment, check=False,
                timeout=_STALLED + size / _SLOWEST,
            )  # fmt: skip
        except subprocess.TimeoutExpired as fault:
            raise FinbenchError(f"{pickle} was given up: reading its tensors took too long.", _REFUSED) from fault
        said_to.seek(0)
        lines = said_to.read(_SAID).decode("utf-8", "replace").strip().splitlines()
    if done.returncode:
        said = harmless(lines[-1])[:300] if lines else "its reader was stopped at its bound of time or memory"
        raise FinbenchError(f"{pickle} stays unread: {said}.", _REFUSED)
    tensors = len(safety.check_header(target))
    return {
        "sha256": sha,
        "bytes": size,
        "tensors": tensors,
        "written": target.name,
        "written_sha256": sha256_file(target),
    }
