"""Zip archives of strangers: looked at before anything is read of them."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

from finbench.core import zips
from finbench.core.errors import FinbenchError

_UNPACKED = 4 << 30  # bytes an archive may unpack to
_UNPACK = "If you trust it, unpack it yourself and name the folder."
_RATIO, _RATIO_WHOLE = 200, 100  # times its size, above 100 MB, and of all files: text compresses 20 times at most


def opened(path: Path) -> tuple[zipfile.ZipFile, list[str]]:
    """An archive and the names of its files, after a look at what it claims to be. Nothing is unpacked to disk."""
    try:
        archive = zips.opened(path)
        infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as fault:
        raise FinbenchError(
            f"{path}: the archive cannot be read ({fault}).",
            "Download it again, or unpack it yourself and name the folder.",
        ) from fault
    unpacked = sum(info.file_size for info in infos)
    packed = min(sum(info.compress_size for info in infos), path.stat().st_size)  # files may state the same bytes
    if len(infos) > zips.MEMBERS or unpacked > _UNPACKED or unpacked > max(100 << 20, _RATIO_WHOLE * packed):
        raise FinbenchError(f"{path}: {len(infos):,} files, {unpacked:,} bytes: a zip bomb?", _UNPACK)
    for info in infos:
        parts = info.filename.replace("\\", "/").split("/")
        member = f"{path}: the member {info.filename!r}"
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise FinbenchError(f"{member} points outside the archive.", _UNPACK)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise FinbenchError(f"{member} is a link.", _UNPACK)
        if info.flag_bits & 1:
            raise FinbenchError(f"{member} is encrypted.", "Unpack it first.")
        if info.file_size > 100 << 20 and info.file_size > _RATIO * info.compress_size:
            raise FinbenchError(f"{member} unpacks to {info.file_size:,} bytes: a zip bomb?", _UNPACK)
    names = sorted(i.filename for i in infos if not i.is_dir() and not i.filename.startswith("__MACOSX/"))
    return archive, names
