"""``finbench push``: from a path to files, from files to a plan, and from the plan to the Hub."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from finbench import hub
from finbench.cards import cardfiles, from_template
from finbench.core import catalog, owntasks, refs, taskcode, taskfiles
from finbench.core.console import agreed, quiet, say
from finbench.core.errors import FinbenchError, harmless
from finbench.core.files import sha256_file
from finbench.core.records import Scorecard
from finbench.core.settings import PushSettings, called_with
from finbench.core.version import __version__
from finbench.hub import File, Plan, Published
from finbench.models import adopting
from finbench.models.adapters import AdapterFolder
from finbench.publishing import benchmark
from finbench.publishing.adapter import Bundle, bundle
from finbench.publishing.belonging import holds, identity_of, is_plain, weights_at
from finbench.publishing.evidence import ENTRIES, check, files_of, there
from finbench.publishing.home import home
from finbench.publishing.licences import checked, hub_identifier

_MARKS = ("adapter_config.json", "finbench.json", "config.json", "dataset.json", "finbench.yaml")
_INTO = "Name the repository of the weights that were scored; or leave --model out, for a data set of results."
_APART = "These results are on another base or in other bits than the model's own, so its page does not show them."
_NOWHERE = "They belong to no benchmark of the Hub, which aggregates them nowhere: --benchmark hub:org/name names one."
_PROPOSED = f"The addresses of scorecards in {ENTRIES} lead to them only after the merge; each entry says so."
_CORRECT = "Correct it; or remove it, and one is written."
RESULTS = "results"  # results/<subject>/<revision>/<task>.json, as MTEB keeps them


@dataclass(frozen=True)
class Pushed:
    """What a push would do or has done. ``published`` is None after a dry run; ``readme`` is the card as sent.

    ``adapter``: what was published, where that is one.
    """

    plan: Plan
    readme: str
    published: Published | None
    adapter: AdapterFolder | None = None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        done = self.published
        outcome = {"commit": done.sha, "url": done.url, "pull_request": done.pull_request} if done else None
        return {**self.plan.as_dict(), "published": outcome, "readme": self.readme}


@called_with(PushSettings)
def push(wanted: PushSettings) -> Pushed:
    """Publish an adapter or model folder, scorecards, a data set or the tasks to ``hub:org/name``; or a benchmark.

    One commit, on the very state the plan was made for; with ``pr`` a pull request. A new repository is private
    unless ``public``. ``dry_run`` returns the plan without sending anything, without a Hub too. ``cards`` are the
    scorecards to publish beside an adapter (default: those of it in ``scorecards/`` here and beside it); those that are
    there already stay, and those of other weights move to ``finbench/history``; ``base`` names the Hub's
    repository of a base that was a folder in training; ``licence`` overrides the one that base and data give;
    ``benchmark`` alone publishes ``tasks`` (default: ranked ones, whole in ``data_dir``) as one; beside a path
    it names the one that results belong to. ``model`` sends scorecards to a model's repository instead of a data set
    of results; ``yes`` makes an adapter public that has no results.

    Raises FinbenchError for what cannot be published: restricted data, an adapter that is not whole, a card that
    ``finbench verify`` finds wrong, a token in a file, and for every refusal of the Hub.
    """
    quiet()
    to = wanted.to if wanted.path else wanted.benchmark
    if not to:
        missing = "where it goes" if wanted.path else "what to publish"
        raise FinbenchError(
            f"Say {missing}.", "finbench push PATH hub:org/name, or finbench push --benchmark hub:org/name"
        )
    target = refs.parse(to)
    if target.kind != "hub" or target.revision:
        raise FinbenchError(f"{to} is no repository of the Hub to push to.{refs.meant(to)}", "Write hub:org/name.")
    given = {"--cards": wanted.cards, "--base": wanted.base, "--licence": wanted.licence, "--model": wanted.model}
    if not wanted.path and (odd := [name for name, value in given.items() if value]):
        raise FinbenchError(f"A benchmark takes no {odd[0]}.", "Leave it out, or name a PATH before hub:org/name.")
    found = gather(wanted.path, wanted, target.name) if wanted.path else benchmark.gather(wanted, target.name)
    if wanted.path and ((wanted.benchmark and found.kind != "model") or wanted.tasks):
        raise FinbenchError(
            "--benchmark is of results in a model's repository, --tasks of a benchmark that is published itself.",
            "Add --model to scorecards, or leave PATH out: finbench push --help",
        )
    plan = hub.make_plan(
        target.name,
        found.files,
        message=found.message,
        kind=found.kind,
        public=wanted.public,
        pull_request=wanted.pr,
        owned=found.owned,
        dry=wanted.dry_run,
    )
    if found.seen and plan.parent != found.seen:
        raise hub.moved(plan)
    if found.into and plan.compared and not plan.exists:
        raise FinbenchError(f"{to} does not exist: there are no weights of which these could be results.", _INTO)
    proposed = wanted.pr and any(file.path == ENTRIES for file in found.files)
    for note in found.notes + ([_PROPOSED] if proposed else []):
        say(harmless(note))
    asked = not (found.results or plan.private or wanted.pr or wanted.yes)
    if found.adapter and asked and (wanted.dry_run or not agreed("Publish it without any result?")):
        raise FinbenchError(
            f"{to} would be public without any result; nothing was sent.",
            f"{adopting.to_score(found.adapter, str(wanted.path))}, then push again; or add --yes",
        )
    if wanted.public and plan.exists and plan.private:
        settings = hub.page(target.name, found.kind, "settings")
        say(f"It exists and stays private; its settings make it public: {settings}")
    if wanted.dry_run:
        return Pushed(plan, found.readme, None)
    return Pushed(plan, found.readme, hub.execute(plan), found.adapter)


def gather(path: Path, wanted: PushSettings, repo: str) -> Bundle:
    """The files to publish of whatever lies at the path."""
    if not path.exists():
        raise FinbenchError(f"No such folder: {path}", "Name an adapter folder, a folder of scorecards, or a data set.")
    if path.is_file() or not (any((path / name).is_file() for name in _MARKS) or any(path.glob("*.yaml"))):
        if path.is_dir() and not list(path.glob("*.json")):
            raise FinbenchError(
                f"{path} holds nothing that can be published.",
                "An adapter, a merged model, scorecards, <data dir>/<set>, or the tasks (finbench tasks path).",
            )
        return _cards(path, repo, wanted)
    if (path / "dataset.json").is_file():
        return _data(path, repo, wanted)
    if (path / "finbench.yaml").is_file():
        return _tasks(path, repo, wanted)
    if (path / "adapter_config.json").is_file() or (path / "config.json").is_file():
        return bundle(path, wanted, repo)
    if any(path.glob("*.yaml")):
        return _benchmark(path, wanted, repo)
    return bundle(path, wanted, repo)


def _cards(place: Path, repo: str, wanted: PushSettings) -> Bundle:
    """Scorecards for a data set of results: a file for each subject, revision and task, its samples beside it.

    With ``--model``: for the repository of the model itself, which need not be ours (a pull request then): the cards
    of one subject as they are, and entries of ``.eval_results``.
    """
    paths = cardfiles.expand([place])
    cards = [cardfiles.read(path) for path in paths]
    for path, card in zip(paths, cards, strict=True):
        if card.engine == "dummy":
            raise FinbenchError(f"{path} is of the dummy engine, which is no model.", "Leave it out.")
        check(path)
    return _for_model(paths, cards, repo, wanted) if wanted.model else _for_results(paths, cards, _free(repo, wanted))


def _for_model(paths: list[Path], cards: list[Scorecard], repo: str, wanted: PushSettings) -> Bundle:
    identities = {identity_of(card) for card in cards}
    if len(identities) > 1:
        raise FinbenchError(
            f"These cards are of {len(identities)} subjects; a model's repository is of one.",
            "Name the cards of one subject, or leave --model out.",
        )
    commit = hub.head(repo)
    lying = weights_at(repo, commit) if commit else None
    if commit and not holds(repo, commit, cards[0], lying):
        raise FinbenchError(
            f"hub:{repo} holds other weights than these cards are of ({cards[0].subject.name}, "
            f"{next(iter(identities))[:12]}).",
            _INTO,
        )
    known = [(path, card) for path, card in there(repo, *identities) if path.name not in {one.name for one in paths}]
    every = [*zip(paths, cards, strict=True), *known]
    base, bits = lying.base if lying else None, lying.bits if lying else 16
    plain = [(path, card) for path, card in every if is_plain(card, base or card.subject.base, bits)]
    where = home(wanted.benchmark) if wanted.benchmark else None
    files = files_of([path for path, _ in every], plain, repo, where, proposed=wanted.pr)
    shown = ", ".join(
        dict.fromkeys(score.task.removeprefix(catalog.PREFIX) for _, card in every for score in card.scores)
    )
    notes = [] if plain else [_APART]
    notes += [line for _, card in plain for line in where.left_out(card)] if where else [_NOWHERE]
    message = f"finbench: scores of {cards[0].subject.name} on {shown}"
    return Bundle(files, message, "", notes=notes, owned=(ENTRIES,), into=True)


def _free(repo: str, wanted: PushSettings) -> str | None:
    """The commit of the data set that is there, if any; FinbenchError where it is a benchmark's, whose files stay."""
    there = benchmark.lying(repo, wanted)
    if there and there.names & {hub.EVAL_YAML, hub.FACTS}:
        raise hub.taken(there)
    return there.sha if there else None


def _for_results(paths: Sequence[Path], cards: Sequence[Scorecard], seen: str | None) -> Bundle:
    """``seen``: the commit of the data set to add to, if there is one."""
    files: dict[str, File] = {}
    for path, card in zip(paths, cards, strict=True):
        rows = cardfiles.read_samples(path)
        for score in card.scores:
            own = [row for row in rows if row["task"] == score.task]
            place = _place(card, score.task)
            for name, content in _alone(card, score.task, own).items():
                files[f"{place}{name}"] = File(f"{place}{name}", content)
    names = sorted({card.subject.name for card in cards})
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return Bundle(list(files.values()), f"finbench: scores of {shown}", "", kind="dataset", seen=seen)


def _alone(card: Scorecard, task: str, rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """A card of one task, with its own samples and seal: {ending: bytes}."""
    only = card.model_copy(update={"scores": [score for score in card.scores if score.task == task]})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card.json"
        cardfiles.write(path, only, rows)
        return {".json": path.read_bytes(), ".samples.jsonl.zst": cardfiles.samples_path(path).read_bytes()}


def _place(card: Scorecard, task: str) -> str:
    """Subject, revision, and the task with the settings that are not the usual ones."""
    subject = card.subject
    if subject.adapter:
        source, _, revision = (subject.adapter_source or "").removeprefix("hub:").partition("@")
    else:
        source, revision = subject.base.hub_id or "", subject.base.revision or ""
    parts = [task, f"{subject.bits}bit" if subject.bits != 16 else "", "chat" if subject.chat else ""]
    parts += [f"{card.shots}shot" if card.shots else "", f"sample{card.limit}" if card.limit else ""]
    parts.append(f"on-{subject.base.fingerprint[:8]}" if subject.adapter else "")
    name = _slug(source.replace("/", "__") or subject.name)
    commit = _slug(revision or (subject.adapter or subject.base.fingerprint)[:40])
    return f"{RESULTS}/{name}/{commit}/{_slug('-'.join(part for part in parts if part))}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:120] or "unknown"


def _data(folder: Path, repo: str, wanted: PushSettings) -> Bundle:
    """Canonical rows of a data set; FinbenchError where its licence does not let them be passed on."""
    try:
        stated = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        name, shas = str(stated["set"]), dict(stated["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise FinbenchError(f"{folder}/dataset.json is torn ({fault}).", "Import the set again.") from fault
    task = catalog.of_set(name)
    identifier = hub_identifier(task.licence)
    if task.restricted or identifier is None:
        raise FinbenchError(
            f"The licence of {name} ({task.licence}) does not let us publish its rows.",
            "Others import it from its authors: " + task.data,
        )
    for file, sha in shas.items():
        if not (folder / file).is_file() or sha256_file(folder / file) != sha:
            raise FinbenchError(f"{folder / file} is not what dataset.json states.", "Import the set again.")
    splits = [{"split": Path(file).stem, "path": file} for file in sorted(shas)]
    head: dict[str, Any] = {"license": identifier, "language": ["en"], "tags": ["finbench", "finance"]}
    head["configs"] = [{"config_name": "default", "data_files": splits}]
    files = [File(file, folder / file) for file in ["dataset.json", *sorted(shas)]]
    message = f"finbench: {name}, {sum(stated['rows'].values()):,} rows {str(stated['digest'])[:12]}"
    made = _described(files, message, head, "dataset.md.j2", repo=repo, set=name, about=stated, task=task)
    return replace(made, seen=_free(repo, wanted))


def _tasks(folder: Path, repo: str, wanted: PushSettings) -> Bundle:
    """The task folder as stock lm-eval takes it: ``lm_eval run --include_path``."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    files = [File(path.relative_to(folder).as_posix(), path) for path in paths if not path.name.startswith(".")]
    files = [file for file in files if file.path != "README.md"]
    head = {"license": "apache-2.0", "language": ["en"], "tags": ["finbench", "finance", "lm-eval"]}
    known = list(catalog.shipped_tasks().values())
    made = _described(files, f"finbench: {len(known)} tasks", head, "tasks.md.j2", repo=repo, tasks=known)
    return replace(made, seen=_free(repo, wanted))


def _benchmark(folder: Path, wanted: PushSettings, repo: str) -> Bundle:
    """A benchmark of the user's own, as stock lm-eval takes it, with ``eval.yaml`` for the Hub.

    The licence that is ``wanted`` counts where the folder states none; it goes into the README, not into any digest.
    FinbenchError where the licence keeps the rows here, and for a repository that holds something else.
    """
    found, licence = owntasks.read(folder), wanted.licence
    own_files = [file for file in taskcode.files_of(found.root) if not {"__pycache__", ".git"} & set(file.parts)]
    files = [File(file.relative_to(found.root).as_posix(), file) for file in own_files]
    name, readme = ", ".join(found.tasks), found.root / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else f"# {name}\n"
    for own in found.tasks.values():
        stated = own.task.licence
        if licence is not None:
            if stated != owntasks.UNSTATED and (hub_identifier(stated) or stated) != checked(licence):
                raise FinbenchError(
                    f"{own.task.name} states the licence {stated}, not {licence}.",
                    "Leave --licence out, or correct it where it is stated.",
                )
        elif own.task.restricted or hub_identifier(stated) is None:
            unstated = f", or for good as license: at the top of {readme}. The benchmark stays the same one."
            raise FinbenchError(
                f"The licence of {own.task.name} ({stated}) does not let us publish its rows.",
                f"Where you may pass them on, say so: --licence {hub_identifier(stated) or 'cc-by-4.0'}"
                + (unstated if stated == owntasks.UNSTATED else ""),
            )
    there = benchmark.lying(repo, wanted)
    own_yaml = {own.file.relative_to(found.root).as_posix() for own in found.tasks.values()}
    called = found.root.resolve().name  # by this or by a task it is known again: either may be renamed
    ours = there and there.own and (there.own == called or there.names & own_yaml)
    if there and there.names - {".gitattributes"} and not ours:
        raise hub.taken(there)
    text = _stating(text, hub.OWN, json.dumps(called))
    text = _stating(text, "license", licence) if licence else text
    kept = [file for file in files if file.path not in ("README.md", hub.EVAL_YAML)]
    kept += [_stated(found, text, repo), File("README.md", text.encode())]
    seen = there.sha if there else None
    return Bundle(kept, f"finbench: the benchmark {name}", text, kind="dataset", seen=seen)


def _stated(found: owntasks.OwnFolder, readme: str, repo: str) -> File:
    """``eval.yaml``: the folder's own where it has one, else made of its tasks and of the README's ``configs``."""
    own, configs = found.root / hub.EVAL_YAML, taskfiles.head_of(readme).get("configs")
    configs = configs if isinstance(configs, list) else []
    stated = [str(one.get("config_name", "default")) for one in configs if isinstance(one, dict)]
    if own.is_file():
        if faults := hub.benchmark_faults(own.read_text(encoding="utf-8", errors="replace")):
            raise FinbenchError(f"{own}: {'; '.join(faults)}.", _CORRECT)
        for one in taskfiles.read_yaml(own)["tasks"]:
            if one["id"] not in found.tasks:
                raise FinbenchError(f"{own}: {one['id'][:100]!r} is no task of {found.root}.", _CORRECT)
            if (config := one.get("config", "default")) not in (stated or ["default"]):
                raise FinbenchError(f"{own}: {config[:100]!r} is no configuration that README.md states.", _CORRECT)
        return File(hub.EVAL_YAML, own)
    first, tasks = stated[0] if stated else "default", []
    for name, task in found.tasks.items():
        split = task.config.get("test_split") or task.config.get("validation_split") or "test"
        tasks.append((name, name if name in stated else first, str(split)))
    return benchmark.eval_yaml(repo, f"Tasks of lm-eval, scored strictly by finbench {__version__}.", tasks)


def _stating(text: str, key: str, value: str) -> str:
    """A README with this in its block of metadata, in place of what it says of it."""
    head = taskfiles.head_of(text)
    if not head:
        return f"---\n{key}: {value}\n---\n\n{text}"
    begin, block, rest = text.split("---", 2)
    kept = re.sub(rf"^{key}(_name|_link)?:.*\n", "", block, flags=re.MULTILINE)
    return f"{begin}---\n{key}: {value}{kept}---{rest}"


def _described(files: list[File], message: str, head: dict[str, Any], template: str, **about: Any) -> Bundle:
    """A data set with a page: the Hub's block of metadata, and a template filled."""
    text = from_template(template, escape=False, **about)
    readme = f"---\n{yaml.safe_dump(head, sort_keys=False, width=1000)}---\n\n{text.strip()}\n"
    return Bundle([*files, File("README.md", readme.encode())], message, readme, kind="dataset")
