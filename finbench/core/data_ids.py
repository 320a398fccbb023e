"""Which rows were scored or learnt, and which test texts were looked for among them."""

from __future__ import annotations

from pydantic import Field

from finbench.core.strict import Record


class DataId(Record):
    """Which rows exactly."""

    set: str = Field(description="data set")
    split: str = Field(description="train, validation or test")
    rows: int = Field(description="rows that were used")
    digest: str = Field(description="SHA-256 over the canonical JSON of the rows, in order")
    origin: str | None = Field(default=None, description="shipped, files (the authors'), or hub:path")
    revision: str | None = Field(default=None, description="commit on the Hub")
    pinned: bool | None = Field(default=None, description="whether that commit was named before; null off the Hub")
    choices: dict[str, str] = Field(default={}, description="what was chosen of the set, such as agreement")
    share: float | None = Field(
        default=None,
        gt=0,
        description="rows read over those of the authors' test file, else of all files; null: all, or not known",
    )


class LearntData(DataId):
    """Which rows an adapter learnt from. Of rows of the user's own, ``set`` is the file's name, ``origin`` is own."""

    sha256: str | None = Field(
        default=None, description="of own rows: of the file (and its sheet's name), or of a folder's names and hashes"
    )
    dropped: dict[str, int] = Field(default={}, description="of own rows: why rows were left out -> how many")


class Contamination(Record):
    """Which test texts were in training rows; of the sets that were on the machine."""

    looked_for: dict[str, int] = Field(description="set -> different test texts that were looked for")
    found: dict[str, int] = Field(description="set -> how many of them stand in training rows")
    editions: dict[str, str] = Field(default={}, description="set -> SHA-256 of the test rows that were looked for")
