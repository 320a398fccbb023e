"""Rows of the user's own as a recipe names them."""

from __future__ import annotations

from pathlib import PurePath

from pydantic import Field

from finbench.core.strict import Record


class OwnData(Record):
    """Rows of the user's own, beside the tasks."""

    source: str = Field(min_length=1, description="a file, a folder of files, or hub:org/name[@rev]")
    weight: float = Field(default=1.0, gt=0, le=100, description="share of its rows seen per epoch")
    map: dict[str, str] = Field(default={}, description="finbench's name of a column -> the file's")
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="of the file; of a folder, of its files' names and hashes"
    )
    delimiter: str = Field(default=" ", description="between a prompt and its answer, where neither has white space")


class StartingAdapter(Record):
    """An adapter whose weights a training goes on from."""

    source: str = Field(min_length=1, description="its folder, or hub:org/name[@rev]; in a record, its name")
    identity: str | None = Field(default=None, description="SHA-256 of its weights and configuration")


def name_of_source(source: str) -> str:
    """What own rows are called in records: the file's or folder's name without its place, or the Hub's name."""
    return source if source.startswith("hub:") else PurePath(source).name or source
