"""Data sets: from the authors' original files to canonical rows (see ``sources.py`` for the format)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.data import audit, contamination, own, parquets, readers, splits, xbrl
    from finbench.data.sources import (
        SPLITS,
        ImportReport,
        describe_set,
        edition_of_test,
        import_data,
        lock_file,
        lock_sets,
        locked_sets,
        on_hub,
        read_rows,
    )
else:
    __getattr__ = face(__name__)

__all__ = [
    "SPLITS",
    "ImportReport",
    "audit",
    "contamination",
    "describe_set",
    "edition_of_test",
    "import_data",
    "lock_file",
    "lock_sets",
    "locked_sets",
    "on_hub",
    "own",
    "parquets",
    "read_rows",
    "readers",
    "splits",
    "xbrl",
]
