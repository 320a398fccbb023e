"""What a result belongs to: the weights that were scored, the base under them, and the bits of that base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finbench import hub
from finbench.core import safety
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import UNKNOWN, BaseModelId, Bits, Scorecard
from finbench.models import adapters, bases

_CONFIG, _RECORD = "adapter_config.json", "finbench.json"


def identity_of(card: Scorecard) -> str:
    """What was scored: the identity of the adapter, or the fingerprint of a base alone."""
    return card.subject.adapter or card.subject.base.fingerprint


def same_base(one: BaseModelId, other: BaseModelId) -> bool:
    """Whether nothing says that these are two; by what they are called where the fingerprint of one is not known."""
    if UNKNOWN not in (one.fingerprint, other.fingerprint):
        return one.fingerprint == other.fingerprint
    if one.hub_id is None and other.hub_id is None:
        return one.alias == other.alias
    return all(len({a, b} - {None}) < 2 for a, b in ((one.hub_id, other.hub_id), (one.revision, other.revision)))


def is_plain(card: Scorecard, base: BaseModelId, bits: Bits) -> bool:
    """Whether a result counts as the adapter's own: on its base, in its bits."""
    return same_base(card.subject.base, base) and card.subject.bits == bits


def named(card: Scorecard, base: BaseModelId, bits: Bits) -> list[str]:
    """What sets a result apart from those on ``base`` in ``bits``, in words; quantised weights are always named."""
    own = card.subject.base
    said: list[str] = []
    if not same_base(own, base) or (own.hub_id is None and base.fingerprint == UNKNOWN):  # a folder that is called so
        said = [f"on {own.hub_id or own.alias} {(own.revision or own.fingerprint)[:12]}"]
    elif own.source == "wheel" != base.source:
        said = ["on the base as embedded in finbench"]
    stored = card.subject.stored
    return said + ([f"base in {stored or '16 bits'}"] if stored or bits != 16 else [])


def alike(own: Scorecard, base: Scorecard) -> bool:
    """Whether the card of a base is of the same base in the same way; a card need not say what it was computed on."""
    one, other = own.subject, base.subject
    computed = {own.computed, base.computed} - {None}
    return (
        same_base(one.base, other.base)
        and (one.bits, one.chat) == (other.bits, other.chat)
        and (own.shots, own.limit, own.seed) == (base.shots, base.limit, base.seed)
        and len(computed) < 2
    )


@dataclass(frozen=True)
class Lying:
    """What lies in a repository: the identity of an adapter or model, its base where it names one, and its bits."""

    identity: str
    base: BaseModelId | None
    bits: Bits


def weights_at(repo: str, commit: str) -> Lying | None:
    """The adapter, or the model with a record, in a repository; None of anything else.

    Read from the Hub's own hashes: no weights are fetched that it has a SHA-256 of.
    """
    there = hub.fetch_paths(repo, commit, [_CONFIG, _RECORD])
    try:
        record = adapters.record(there[_RECORD].parent) if _RECORD in there else None
    except FinbenchError:  # of an older finbench, or torn: what it tells is not known
        record = None
    try:
        if _CONFIG in there:
            sha = hub.sha256_there(repo, commit, adapters.WEIGHTS)
            config = safety.read_json(there[_CONFIG], there[_CONFIG].parent)
            identity = adapters.identity_from(sha, config) if sha else None
            own = record and record.files.get(adapters.WEIGHTS) == sha
            if identity and record and own:
                return Lying(identity, record.base, record.recipe.bits)
            return Lying(identity, _named_base(config), 16) if identity else None
        if record and record.kind == "model":
            weights = [name for name in record.files if name.endswith(".safetensors")]
            if all(hub.sha256_there(repo, commit, name) == record.files[name] for name in weights):
                return Lying(digest(record.files), record.base, 16)
    except FinbenchError as fault:
        if isinstance(fault, hub.Unreachable):
            raise
    return None


def holds(repo: str, commit: str, card: Scorecard, lying: Lying | None) -> bool:
    """Whether the weights that a card is of lie in a repository; ``lying``: what ``weights_at`` found there.

    The weights of a base are fetched and hashed, unless the card names this very commit.
    """
    if card.subject.adapter or lying:
        return lying is not None and lying.identity == card.subject.adapter
    base = card.subject.base
    if (base.hub_id, base.revision) == (repo, commit):
        return True
    if base.fingerprint == UNKNOWN:
        return False
    return bases.resolve(f"hub:{repo}@{commit}").id.fingerprint == base.fingerprint


def _named_base(config: Mapping[str, Any]) -> BaseModelId | None:
    """The base that an ``adapter_config.json`` names; it need not be on the Hub."""
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        return None
    commit = revision if isinstance(revision, str) else None
    return BaseModelId(alias=name, hub_id=name, revision=commit, source="hub", fingerprint=UNKNOWN)
