"""``python -m finbench.models.unpickle < PICKLE > SAFETENSORS``: a pickle's tensors, read where nothing can be done.

The process has the two files, which its parent opened, and can open no other, nor a socket, nor start a process.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zipfile
from typing import IO, Any

import torch

from finbench.core import jail

_SECONDS, _SECOND = 30.0, 2**24  # seconds of the processor for any file, and bytes that take one more
_MEMORY = 2**30  # bytes beside three times the file: what it holds, a tensor laid out anew, and torch's own
_LONGEST = 500  # characters of a tensor's name
_MOST_NAMES = 200_000
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class NoTensors(Exception):
    """The file holds something that is no tensor as safetensors stores them; the text says what."""


def convert(pickle: IO[bytes], target: IO[bytes], size: int) -> None:
    """Write the tensors of ``pickle`` (``size`` bytes, torch.save's of a state dict) to ``target`` as safetensors.

    Raises NoTensors for whatever else it holds, and what torch raises for a file that is torn or asks for more.
    """
    _check_archive(pickle, size)
    # only tensors and plain containers: torch refuses every other name that a pickle would call
    tensors = _checked(torch.load(pickle, map_location="cpu", weights_only=True), size)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        shape = list(tensor.shape)
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target.write(struct.pack("<Q", len(text)) + text)
    for tensor in tensors.values():
        target.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    target.flush()


def _check_archive(pickle: IO[bytes], size: int) -> None:
    """Refuse an archive that holds more than its own bytes: torch stores what it saves as it is, each part once."""
    zipped = pickle.read(4) == b"PK\x03\x04"
    pickle.seek(0)
    if not zipped:
        return
    try:
        with zipfile.ZipFile(pickle) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, EOFError) as fault:
        raise NoTensors("its archive is torn: fetch it again") from fault
    if not any(part.filename.endswith("/data.pkl") for part in parts):
        raise NoTensors("it is a zip archive of other files (none is data.pkl): unpack it, and convert what it holds")
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise NoTensors("its archive is compressed, which torch.save never does")
    if sum(part.file_size for part in parts) > size:
        raise NoTensors("its archive states more bytes than the file has")
    pickle.seek(0)


def _checked(found: Any, size: int) -> dict[str, torch.Tensor]:
    """The tensors by name, in the order of a safetensors file; NoTensors for anything else."""
    if not isinstance(found, dict) or not found:
        raise NoTensors(f"it holds a {type(found).__name__}, not tensors by their names")
    if len(found) > _MOST_NAMES:
        raise NoTensors(f"it names {len(found):,} tensors; no model has so many")
    storages, total = dict[int, int](), 0
    for name, value in found.items():
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST or name == "__metadata__" or not name.isascii():
            raise NoTensors(f"it names a tensor {str(name)[:60]!r}")
        if type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise NoTensors(f"{name[:80]} is a {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            kind = "quantised" if value.is_quantized else str(value.layout).rpartition(".")[2].replace("_", " ")
            raise NoTensors(f"{name[:80]} is no plain tensor ({kind}, {value.device.type})")
        if value.dtype not in _DTYPES:
            raise NoTensors(f"{name[:80]} is of the type {str(value.dtype).rpartition('.')[2]}")
        storage = value.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        total += value.nbytes
        if value.nbytes > storage.nbytes():
            raise NoTensors(f"{name[:80]} repeats its values: it has more than the file holds of it")
    if sum(storages.values()) > size or total > 2 * size:  # a head that is the embedding is there twice
        raise NoTensors("its tensors share their values: together they have far more bytes than the file")
    plain = {name: value.detach() for name, value in found.items()}
    return dict(sorted(plain.items(), key=lambda pair: (-pair[1].element_size(), pair[0])))


def _said(fault: BaseException) -> str:
    """A fault in one line; torch's own advises to trust the file."""
    text = str(fault)
    if isinstance(fault, NoTensors):  # our own words, with names of the file's
        return text.strip().splitlines()[0]
    if called := re.search(r"GLOBAL ([\w.]+)|(?:class|callable|function) ([\w.]+)", text):
        return f"it needs {called[1] or called[2]}, which is more than tensors"
    if found := re.search(r"WeightsUnpickler error: (.*)", text):
        text = found[1]
    if isinstance(fault, MemoryError) or "allocate memory" in text:
        return "it asks for more memory than tensors of its size take"
    lines = text.strip().splitlines() or ["torn"]
    return f"{type(fault).__name__}: {lines[0]}"


def _rehearse() -> None:
    """Have torch import all that it needs, while files can be opened."""
    "".encode("cp437")  # in which an archive names its parts where it does not say UTF-8
    for zipped in (True, False):
        saved, tensors = io.BytesIO(), {"a": torch.ones(2, 2), "b": torch.ones(2, dtype=torch.bfloat16)}
        torch.save(tensors, saved, _use_new_zipfile_serialization=zipped)
        saved.seek(0)
        convert(saved, io.BytesIO(), len(saved.getvalue()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    _rehearse()
    with open(0, "rb", closefd=False) as source, open(1, "wb", closefd=False) as sink:
        bytes_ = os.fstat(0).st_size
        jail.limit(_SECONDS + bytes_ / _SECOND, jail.mapped() + 3 * bytes_ + _MEMORY)
        jail.shut(2 * bytes_ + 2**26)
        try:
            convert(source, sink, bytes_)
        except BaseException as fault:  # noqa: BLE001 - whatever a hostile file can raise
            os.write(2, _said(fault)[:300].encode("utf-8", "replace"))
            os._exit(1)
        os._exit(0)
