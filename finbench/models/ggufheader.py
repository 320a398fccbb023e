"""The header of a GGUF file, walked through before a library makes objects of it: forty megabytes took 8 GB there.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from finbench.core.errors import FinbenchError

_VALUES = 2_000_000  # keys and members of arrays; a vocabulary of 262,144 has 1.3 million, with its merges
_TENSORS = 20_000  # of a model; 405 billion parameters are in 1,138
_DIMENSIONS = 8  # of a tensor; ggml has four
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value, by its kind
_TEXT, _LIST = 8, 9
_ENDS = "it ends before all that it states ({})"
UNREAD = "It is torn, or of a kind that transformers does not read. Fetch it again, or choose: finbench bases"


def check(path: Path) -> None:
    """FinbenchError for a header that states more than the file has, or more than any model's."""
    if path.stat().st_size < struct.calcsize("<4sIQQ"):
        raise _refused(path, _ENDS.format("in its header"))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _Header(path, data).walk()
        except struct.error as fault:
            raise _refused(path, _ENDS.format("in its header")) from fault


def _refused(path: Path, why: str) -> FinbenchError:
    return FinbenchError(f"{path.name} could not be unpacked: {why}.", UNREAD)


class _Header:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at, self.left = path, data, 4, _VALUES
        # a file of the other order of bytes has its version there
        self.order = ">" if struct.unpack_from("<I", data, 4)[0] & 0xFFFF == 0 else "<"

    def walk(self) -> None:
        _, tensors, keys = self._take("IQQ")
        if tensors > _TENSORS:
            raise _refused(self.path, f"its header states {tensors:,} tensors, and {_TENSORS:,} are the most")
        self._count(keys)
        for _ in range(keys):
            self._texts(1)
            self._values(self._take("I")[0], 1)
        last = 0
        for _ in range(tensors):
            self._texts(1)
            [dimensions] = self._take("I")
            if dimensions > _DIMENSIONS:
                raise _refused(self.path, f"a tensor of {dimensions:,} dimensions")
            last = max(last, self._take(f"{dimensions}QIQ")[-1])
        if self.at + last > len(self.data):  # places of tensors are counted from the end of the header
            raise _refused(self.path, _ENDS.format("in a tensor"))

    def _take(self, form: str) -> tuple[int, ...]:
        found = struct.unpack_from(self.order + form, self.data, self.at)
        self.at += struct.calcsize(self.order + form)
        return found

    def _count(self, more: int) -> None:
        self.left -= more
        if self.left < 0:
            raise _refused(self.path, f"its header states more than {_VALUES:,} values")

    def _texts(self, count: int) -> None:
        length = struct.Struct(f"{self.order}Q")
        for _ in range(count):
            self.at += length.size + length.unpack_from(self.data, self.at)[0]
            if self.at > len(self.data):
                raise _refused(self.path, _ENDS.format("in a text"))

    def _values(self, kind: int, count: int) -> None:
        if kind == _TEXT:
            self._texts(count)
        elif kind == _LIST:
            kind, members = self._take("IQ")
            self._count(members)
            if kind == _LIST:
                raise _refused(self.path, "a list of lists, which no model has")
            self._values(kind, members)
        elif kind in _SIZES:
            self.at += _SIZES[kind] * count
            if self.at > len(self.data):
                raise _refused(self.path, _ENDS.format("in a list"))
        else:
            raise _refused(self.path, f"a value of the unknown kind {kind}")
