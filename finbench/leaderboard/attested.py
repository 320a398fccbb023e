"""What a card cannot say about itself: its adapter's training, and that somebody asked the model again.

``adapters/<first 16 digits of its identity>.json`` holds the training record of an adapter with what ties it to the
card: identity is the digest of weights and configuration. ``attestations/*.json`` say which documents a maintainer
asked again; the signature beside each is all that is believed of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from finbench.cards import cardfiles
from finbench.core import environment, seal
from finbench.core.console import say
from finbench.core.errors import FinbenchError, reason
from finbench.core.files import bearable, digest, json_text, sha256_file, stable_json, strict_json, write_atomic
from finbench.core.records import UNKNOWN, Adapter, Scorecard, Subject
from finbench.core.strict import Record
from finbench.core.version import __version__
from finbench.evaluation import Answered, Verification, drawing, options
from finbench.leaderboard import precedence, signing
from finbench.models import adapters

ADAPTERS, ATTESTATIONS = "adapters", "attestations"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_CLOCKS = timedelta(minutes=10)  # by which clocks may differ
_LARGEST = 16 * 2**20  # bytes of an attestation, or of a training; one of every task has some 50 kB


class AttestedAdapter(Record):
    """The record of an adapter, and its configuration, from which with the weights' SHA-256 its identity follows."""

    identity: str = Field(pattern=r"^[0-9a-f]{64}$", description="`subject.adapter` of its cards")
    config: dict[str, Any] = Field(description="adapter_config.json, less what does not decide an answer")
    record: Adapter = Field(description="finbench.json of the adapter folder")


class AskedAgain(Record):
    """What the model answered to documents of one task that were drawn when it was asked again."""

    task: str
    data: str = Field(description="digest of the task's rows")
    sizes: list[int] = Field(min_length=3, max_length=3, description="documents counted right, wrong, unparsed")
    rows: list[list[int]] = Field(min_length=3, max_length=3, description="documents asked of each of these")
    moved: list[int] = Field(description="documents that read differently")
    tolerated: float = Field(ge=0, le=drawing.TOLERATED, description="share that may")


class Attestation(Record):
    """A maintainer asked the model of a card again; the file beside it with ``.sig`` signs these very bytes."""

    schema_: Literal[1] = Field(alias="schema", default=1)
    card: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the card's file")
    samples: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of its samples")
    base: str = Field(description="fingerprint of the base that was asked")
    adapter: str | None = Field(description="identity of the adapter that was asked")
    seed: int = Field(ge=0, description="drawn when the model was asked; the documents follow from it and the card")
    tasks: list[AskedAgain]
    finbench: str = Field(description="version")
    packages: dict[str, str] = Field(description="versions of the packages that decide an answer")
    created: str = Field(description="UTC, ISO 8601, seconds")
    model_config = ConfigDict(populate_by_name=True)

    def when(self) -> datetime:
        """``created``; ValueError for what is no such time."""
        return datetime.strptime(self.created, _TIME).replace(tzinfo=UTC)


Vouched = tuple[Attestation, signing.Signed]
SampleRows = Mapping[str, Sequence[Mapping[str, Any]]]  # by task


def training_file(subject: Subject) -> str:
    """Where the training record of a subject's adapter lies in a leaderboard."""
    return f"{ADAPTERS}/{(subject.adapter or '')[:16]}.json"


def trained(folder: Path, subject: Subject) -> AttestedAdapter | None:
    """The training record of a card's adapter; None where there is none, or the card states another training.

    FinbenchError for a record that is another adapter's.
    """
    if subject.adapter is None or not (path := folder / training_file(subject)).is_file():
        return None
    try:
        stated = json.loads(json_text(path, _LARGEST))
        found = AttestedAdapter.parse(stated, str(path))
    except (OSError, ValueError, RecursionError) as fault:
        raise FinbenchError(
            f"{path} is torn or not JSON ({fault}).",
            "Delete it, then add the card again: finbench leaderboard add CARD --to DIR --adapter ./folder",
        ) from fault
    if beyond := seal.beyond(stated):
        raise FinbenchError(f"{path}: {beyond[0]} is a number beyond all that are measured.", "Add the card again.")
    files = found.record.files
    decisive = {"weights": files.get(adapters.WEIGHTS), "config": found.config}
    named = digest(files if found.record.kind == "model" else decisive)
    if not found.identity == subject.adapter == named:
        raise FinbenchError(f"{path} is not the record of the adapter {subject.adapter[:16]}.", "Add the card again.")
    if other := _stated_otherwise(found.record, subject):
        say(f"{path} is not shown with {subject.name}, which states another {other}.")
        return None
    return found


def _stated_otherwise(record: Adapter, subject: Subject) -> str:
    """What a card states of its adapter's training otherwise than the record, which no digest ties to the weights."""
    recipe, parameters = record.recipe, record.training.trainable_parameters
    meant = {"kind": record.kind, "method": recipe.method, "rank": recipe.rank, "seed": recipe.seed}
    meant |= {"trainable_parameters": parameters}
    wrong = [name for name, value in meant.items() if getattr(subject, name) not in (None, value)]
    unsaid = UNKNOWN in (subject.base.fingerprint, record.base.fingerprint)
    return ", ".join(wrong + ["base"] * (not unsaid and subject.base.fingerprint != record.base.fingerprint))


def training(folder: Path, reference: str, subject: Subject) -> str:
    """The training record of an adapter folder, as it lies at ``training_file`` of a leaderboard.

    FinbenchError if it is not the card's adapter, has none, or another one lies there.
    """
    found = adapters.read(adapters.locate(reference))
    if found.identity != subject.adapter:
        raise FinbenchError(
            f"{reference} is not the adapter of {subject.name}: its identity is {found.identity[:16]}.",
            "Name the card's own adapter: --adapter ./folder",
        )
    if found.record is None:
        raise FinbenchError(
            f"{reference} has no finbench.json: who trained it, and how, is not known.",
            "Leave --adapter out, or name a folder that finbench train wrote.",
        )
    if other := _stated_otherwise(found.record, subject):
        raise FinbenchError(
            f"{reference} was trained with another {other} than the card of {subject.name} states.",
            "Score it again: finbench eval --adapter ./folder",
        )
    made = AttestedAdapter(identity=found.identity, config=adapters.decisive_config(found.config), record=found.record)
    text, place = made.model_dump_json(indent=1, by_alias=True) + "\n", folder / training_file(subject)
    if place.exists() and place.read_text("utf-8", "replace") != text:
        raise FinbenchError(
            f"{place} is there already, and says otherwise than {reference}: nothing is overwritten.",
            "Leave --adapter out, or take that file away first, if it is yours.",
        )
    return text


def attestations(folder: Path, trusted: Path | None = None) -> list[Vouched]:
    """Every attestation of a leaderboard with what its signature is worth, by the keys in ``trusted``, or its own.

    FinbenchError naming each file that is torn, not signed, or signed by somebody whom nobody trusts.
    """
    found, faults = [], []
    if (folder / "reruns.json").exists():
        say(f"{folder / 'reruns.json'} is not signed, and gives no badge.")
    for path in sorted((folder / ATTESTATIONS).glob("*.json")):
        try:
            made, text = _read(path)
        except FinbenchError as fault:
            faults.append(fault.message)
            continue
        signed = _signed(path, text, made, trusted or folder)
        if signed.state == "bad":
            faults.append(f"{path.name} proves nothing: {signed.by}")
        found.append((made, signed))
    if faults:
        raise FinbenchError("\n".join(faults), f"Take out of {folder / ATTESTATIONS} what no maintainer signed.")
    return found


def _read(path: Path) -> tuple[Attestation, bytes]:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            raise ValueError("it is no file, or larger than any")
        text = path.read_bytes()
        made = Attestation.parse(strict_json(bearable(text.decode())), str(path))
        if made.when() > datetime.now(UTC) + _CLOCKS:
            raise ValueError(f"{made.created} is yet to come")
    except (OSError, ValueError, RecursionError) as fault:
        raise FinbenchError(
            f"{path.name} is no attestation ({reason(fault)}).",
            "Take it away, and sign anew: finbench leaderboard add CARD --rerun auto --key KEY",
        ) from fault
    return made, text


def _signed(path: Path, text: bytes, made: Attestation, trusted: Path) -> signing.Signed:
    signature = path.with_name(path.name + ".sig")
    if not signature.is_file():
        return signing.Signed("bad", f"there is no {signature.name}")
    with signature.open("rb") as stream:
        signed = stream.read(signing.LARGEST + 1)
    return signing.checked(text, signed, made.created, trusted / signing.SIGNERS, trusted / signing.REVOKED)


def level(path: Path, rows: SampleRows, found: Verification, vouched: Sequence[Vouched]) -> str:
    """How far a card of a leaderboard can be believed; ``found`` is told who asked its model again.

    ``reproduced``: a key that is believed vouches for this very file, and so much was asked that false rows would
    hardly pass. ``revoked``: only a key does that is not believed any more.
    """
    if found.level != "samples-attached" or not vouched:
        return found.level
    states, sha = set(), sha256_file(path)
    for made, signed in vouched:
        if made.card != sha or signed.state == "bad":
            continue
        if lacking := _lacking(made, cardfiles.read(path), rows):
            found.notes.append(f"asked again by {signed.by} at {made.created}, which shows too little: {lacking}")
            continue
        states.add(signed.state)
        if signed.state == "revoked":
            found.notes.append(f"asked again by {signed.by} at {made.created}, whose key is revoked")
        else:
            found.checks += [f"asked again and signed by {signed.by} at {made.created}"]
            found.checks += [f"{task.task}: {task.said}; {task.strength}" for task in _answered(made)]
    return "reproduced" if "good" in states else "revoked" if states else found.level


def _answered(made: Attestation) -> list[Answered]:
    return [Answered(one.task, made.seed, one.sizes, one.rows, one.moved, one.tolerated) for one in made.tasks]


def _lacking(made: Attestation, card: Scorecard, rows: SampleRows) -> str:
    """Why an attestation does not show that the card's answers are those of its model; empty if it does."""
    if fault := unfit(card):
        return fault
    if (made.samples, made.base, made.adapter) != (card.samples, card.subject.base.fingerprint, card.subject.adapter):
        return "another model, or other samples"
    if made.when() + _CLOCKS < card.provenance.when():  # dated back to when its key was still valid
        return "it is older than the card"
    scores = {score.task: score for score in card.scores}
    if sorted(one.task for one in made.tasks) != sorted(scores):
        return "not every task of the card"
    for stated, one in zip(made.tasks, _answered(made), strict=True):
        score = scores[one.task]
        groups = drawing.strata(score, rows[one.task])
        drawn = drawing.draw(card, score, groups, one.asked, made.seed)
        if stated.data != score.data.digest or one.sizes != [*map(len, groups)] or one.rows != drawn:
            return f"{one.task}: its documents do not follow from seed and card"
        if not one.same or not set(one.moved) <= {row for group in drawn for row in group}:
            return f"{one.task}: {one.said}"
        if one.escape(drawing.FALSE) >= drawing.ESCAPE:
            return f"{one.task}: {one.asked} documents, of which {one.strength}"
    return ""


def unfit(card: Scorecard) -> str:
    """Why asking the model of a card again would show nothing about a model; empty if it would."""
    if card.engine in options.ENDPOINTS:
        return "whoever runs an endpoint decides what it answers"
    if no_model := precedence.without_model(card):
        return f"its engine {no_model}"
    if UNKNOWN in (card.subject.base.fingerprint, card.subject.adapter):
        return "the card does not say which weights answered"
    return "" if card.samples else "the card has no samples"


def attest(folder: Path, path: Path, found: Verification, key: Path) -> Path:
    """Sign what ``finbench verify --rerun`` found of a card on a leaderboard; returns the attestation's path."""
    card = cardfiles.read(path)
    asked = [
        AskedAgain(
            task=one.task,
            data=next(score.data.digest for score in card.scores if score.task == one.task),
            **{name: getattr(one, name) for name in ("sizes", "rows", "moved", "tolerated")},
        )
        for one in found.asked
    ]
    made = Attestation(
        card=sha256_file(path),
        samples=card.samples or "",
        base=card.subject.base.fingerprint,
        adapter=card.subject.adapter,
        seed=found.asked[0].seed,
        tasks=asked,
        finbench=__version__,
        packages=environment.versions(environment.packages(card.engine)),
        created=datetime.now(UTC).strftime(_TIME),
    )
    if lacking := _lacking(made, card, cardfiles.rows_by_task(path, card)):
        raise FinbenchError(f"Not signed, for it would show too little: {lacking}.", "Ask more: --rerun auto")
    text = stable_json(made.model_dump(by_alias=True)).encode() + b"\n"
    place = folder / ATTESTATIONS / f"{path.stem}-{digest(text.decode())[:8]}.json"
    write_atomic(place.with_name(place.name + ".sig"), signing.sign(text, key))
    write_atomic(place, text)
    return place


def can_sign(folder: Path, key: Path, card: Scorecard) -> None:
    """FinbenchError unless a rerun of the card would show something, and ``key`` signs and is believed here."""
    if fault := unfit(card):
        raise FinbenchError(f"{card.subject.name} cannot be vouched for: {fault}.", "Add it without --key.")
    now = datetime.now(UTC).strftime(_TIME)
    found = signing.checked(b"", signing.sign(b"", key), now, folder / signing.SIGNERS, folder / signing.REVOKED)
    if found.state != "good":
        why = "is revoked" if found.state == "revoked" else f"is not believed here: {found.by}"
        add = f'echo "you@example.org $(ssh-keygen -y -f {key})" >> {folder / signing.SIGNERS}'
        raise FinbenchError(f"The key {key} {why}.", f"A maintainer adds it: {add}")
