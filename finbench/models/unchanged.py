"""Whether files are still those that were named: somebody may write there between the look at them and their use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.models import adapters, bases, modelfiles


class Unchanged:
    """Looks at folders again; each is read once, and then only where the system says that a file has changed."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Path, str], list[Any]] = {}

    def base(self, base: bases.Base) -> None:
        """FinbenchError unless the folder of a base has what its fingerprint was taken of."""
        self._same(base.folder, base.id.fingerprint, lambda: modelfiles.fingerprint(base.folder))

    def adapter(self, folder: Path, identity: str, kind: str) -> None:
        """FinbenchError unless the folder of an adapter, or of a whole model, has what its identity was taken of."""
        whole = kind == "model"
        self._same(
            folder,
            identity,
            lambda: digest(adapters.decisive_files(folder)) if whole else adapters.identity(folder),
        )

    def _same(self, folder: Path, stated: str, taken: Any) -> None:
        stamps = [[path.name, *_stamp(path)] for path in sorted(folder.iterdir())]
        if self._seen.get((folder, stated)) == stamps:
            return
        try:
            now = taken()
        except (FinbenchError, OSError):
            now = None
        if now != stated:
            raise FinbenchError(
                f"{folder} has changed while it was in use: what answers is not what was named.",
                "Repeat the command when nothing else writes there.",
            )
        self._seen[folder, stated] = stamps


def _stamp(path: Path) -> tuple[int, ...]:
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
