"""What a server that takes adapters while it runs was started with; a file tells it, for vLLM makes our middleware."""

from __future__ import annotations

from pydantic import Field

from finbench.core.strict import Record

PLACE = "FINBENCH_SERVE_TERMS"  # the environment variable that names the file


class Served(Record):
    """An adapter behind its name."""

    name: str
    source: str = Field(description="hub:org/name@commit, or the folder")
    adapter: str = Field(description="identity: SHA-256 of weights and configuration")
    bytes: int = Field(description="of the weights")


class Terms(Record):
    """The base, what is served at the start, and what may be added."""

    base: str = Field(description="name under which the base is served")
    reference: str = Field(description="what names the base in finbench")
    fingerprint: str
    names: list[str] = Field(description="by which an adapter without a record may call that base")
    rank: int = Field(default=0, description="largest that is taken; 0: nothing is added while it runs")
    targets: list[str] = Field(default=[], description="endings of layers that have room for an update")
    capacity: int = Field(default=0, description="adapters at once")
    slot_bytes: int = Field(default=0, description="what vLLM keeps for each")
    owners: list[str] = Field(default=[], description="on the Hub, whose adapters are fetched")
    place: str = Field(default="", description="folder for checked copies of adapters")
    adapters: list[Served] = Field(default=[], description="served from the start")
