"""Zip archives of strangers: the list of their files is bounded before Python makes an object of each of them."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path
from typing import IO

MEMBERS = 10_000  # files in an archive
TORN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)  # what reading a file raises
_LIST = MEMBERS * 2**10  # bytes of the list: a file has 46 and its name; two million of them would take 20 seconds
_SIZE = 5  # of the list, in what zipfile finds at the end of an archive


def opened(file: Path | IO[bytes]) -> zipfile.ZipFile:
    """An archive, by its path or as an open file; BadZipFile for none, and for one whose list is too long."""
    if isinstance(file, Path):
        with file.open("rb") as stream:
            _refuse_long(stream)
    else:
        _refuse_long(file)
    return zipfile.ZipFile(file)


def _refuse_long(stream: IO[bytes]) -> None:
    end = zipfile._EndRecData(stream)  # type: ignore[attr-defined]
    if end and end[_SIZE] > _LIST:
        raise zipfile.BadZipFile(f"its list of files has {end[_SIZE]:,} bytes: a zip bomb?")
    stream.seek(0)
