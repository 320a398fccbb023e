"""Published adapters by name: pins of commits on the Hub, with what they score. Weights are never in here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from finbench.core import catalog, paths, refs
from finbench.core.errors import FinbenchError, near_misses
from finbench.core.files import write_atomic
from finbench.core.strict import Record

UNKNOWN = "unknown"  # shown for what an adapter made elsewhere does not say


class ZooScore(Record):
    """The main number of one task, from the published scorecard."""

    value: float
    low: float | None = Field(description="lower end of the 95 % interval; null: there is none")
    high: float | None = Field(description="upper end of it")
    base: float | None = Field(default=None, description="the base's own, in the card beside it")
    metric: str
    n: int


class ZooEntry(Record):
    """An entry of ``published.yaml``: what ``zoo:name`` means, and what ``zoo list`` shows."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    hub: str = Field(description="org/name@commit")
    adapter: str = Field(description="identity of the adapter: SHA-256 of weights and configuration")
    base: str = Field(default=UNKNOWN, description="the base's Hub id, as the adapter states it")
    base_revision: str | None = Field(default=None, description="its commit")
    method: str = UNKNOWN
    rank: int | None = None
    bits: Literal[16, 8, 4] | None = None
    bytes: int = Field(description="of the weights")
    date: str = Field(default=UNKNOWN, description="when it was trained, YYYY-MM-DD")
    licence: str = Field(default=UNKNOWN, description="as its card states it")
    scorecard: str | None = Field(default=None, description="SHA-256 of its scorecard's file at that commit")
    scores: dict[str, ZooScore] = Field(default={}, description="by task")

    @property
    def ref(self) -> refs.Ref:
        """The pinned commit as a reference."""
        found = refs.parse(f"hub:{self.hub}")
        if not found.pinned:
            raise FinbenchError(f"zoo:{self.name} is not pinned to a commit ({self.hub}).", "Add it again: zoo add")
        return found


class KnownAdapter(Record):
    """A published adapter of others that nobody here has loaded: what it needs to be scored, as its pages say.

    A file of ``adapters_zoo/others``.
    """

    name: str
    hub: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", description="org/name")
    git: str | None = Field(default=None, description="where it lies, if not on the Hub")
    folder: str | None = Field(default=None, description="in which folder of git")
    base: str = Field(description="the base's Hub id, or what is known of it")
    bits: Literal[16, 8, 4] = Field(default=16, description="in which its authors run the base")
    pickled: bool = Field(default=False, description="only pickled weights: finbench pull --convert")
    note: str | None = Field(default=None, description="what to put into the commands, and what else to know of them")
    prompt: str = Field(description="its own, always without a chat template")
    tasks: list[str] = Field(default=[], description="tasks and groups that ask in its own words")
    words: list[str] = Field(default=[], description="with which it answers")
    refused: str | None = Field(default=None, description="why finbench cannot score it")
    source: str = Field(description="the page that says so")

    @property
    def commands(self) -> list[str]:
        """What to type to score it; nothing where that cannot be."""
        if self.refused is not None:
            return []
        alias = next((one.alias for one in catalog.bases().values() if one.hub_id == self.base), f"hub:{self.base}")
        adapter = f"hub:{self.hub}" if self.hub and not self.pickled else f"./{self.name}"
        adapter += f"/{self.folder}" if self.folder else ""
        bits = f" --bits {self.bits}" if self.bits != 16 else ""
        asks = f"finbench eval --adapter {adapter} --base {alias}{bits} --no-chat --tasks {','.join(self.tasks)}"
        fetch = [f"finbench pull hub:{self.hub} --convert --out ./{self.name}"] if self.pickled else []
        fetch += [f"git clone {self.git} {self.name}"] if self.git else []
        return [*fetch, asks]


def known_adapters() -> dict[str, KnownAdapter]:
    """Adapters of others by name: what each needs to be scored here."""
    files = sorted((paths.shipped("adapters_zoo") / "others").glob("*.yaml"))
    return {path.stem: KnownAdapter.parse({"name": path.stem, **catalog.read_yaml(path)}, str(path)) for path in files}


def own_file() -> Path:
    """Where ``zoo add`` writes: ``$FINBENCH_ZOO``, else the checkout's file, else the user's configuration folder."""
    if chosen := os.environ.get("FINBENCH_ZOO"):
        return Path(chosen).expanduser()
    if _shipped().parent.parent != Path(__file__).resolve().parents[1]:  # beside the package: a checkout
        return _shipped()
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()) / "finbench" / "zoo.yaml"


def _shipped() -> Path:
    return paths.shipped("adapters_zoo") / "published.yaml"


def entries() -> dict[str, ZooEntry]:
    """Every published adapter by name: the shipped ones, and the user's own, which win."""
    found: dict[str, ZooEntry] = {}
    for path in dict.fromkeys([_shipped(), own_file()]):
        if path.is_file():
            for name, stated in catalog.read_yaml(path).items():
                if not isinstance(stated, dict):
                    raise FinbenchError(
                        f"{path}: {name}: a mapping is expected.",
                        f"Write the keys of {name} below it, indented; or delete it and add it again: finbench zoo add",
                    )
                found[name] = ZooEntry.parse({"name": name, **stated}, f"{path}: {name}")
    return found


def bare(name: str) -> FinbenchError | None:
    """The refusal of an adapter's name without ``zoo:``, which says how it is had; None for other names."""
    if name in entries():
        return FinbenchError(f"{name} is an adapter of the zoo, which is named with zoo: before it.", f"zoo:{name}")
    if name in known_adapters():
        return FinbenchError(
            f"{name} is an adapter of others, which is not pinned here.", f"What it needs: finbench zoo show {name}"
        )
    return None


def published(name: str) -> ZooEntry:
    """The entry ``zoo:name``. Raises FinbenchError with near misses; a recipe's name is told apart."""
    known = entries()
    if name in known:
        return known[name]
    if name in catalog.recipe_files():
        raise FinbenchError(f"zoo:{name} is a recipe without a published adapter.", f"Train it: finbench train {name}")
    if other := bare(name):
        raise other
    close = near_misses(name, [*known, *known_adapters(), *catalog.recipe_files()])
    mean = f" Did you mean {' or '.join(close)}?" if close else ""
    raise FinbenchError(f"No adapter of the zoo is called {name!r}.{mean}", "See them all: finbench zoo list")


def write(entry: ZooEntry) -> Path:
    """Add or replace an entry in the user's file; return that file."""
    path = own_file()
    stated = catalog.read_yaml(path) if path.is_file() else {}
    stated[entry.name] = entry.model_dump(exclude={"name"}, exclude_defaults=True)
    head = "# name -> a published adapter, pinned to a commit; written by `finbench zoo add hub:org/name`.\n"
    write_atomic(path, head + yaml.safe_dump(dict(sorted(stated.items())), sort_keys=False, allow_unicode=True))
    return path
