"""A sweep's YAML file -> its cells."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import pydantic.dataclasses
from pydantic import Field, JsonValue, TypeAdapter, ValidationError, field_validator, model_validator

from finbench import evaluation
from finbench.core import catalog, tracking
from finbench.core.errors import FinbenchError, unknown
from finbench.core.files import digest
from finbench.core.records import OwnData, Recipe, name_of_source
from finbench.core.settings import TEMPLATED, Evaluation, Settings
from finbench.core.strict import Record, no_truth
from finbench.grid.identity import Identities
from finbench.methods import method_named
from finbench.models import bases
from finbench.training import check_sharding, recipes

LARGEST = 100_000  # cells
APART = ("tasks", "max_length", "gpu_memory")  # settings that are told otherwise: the latter two are arguments
_ALWAYS = ("engine", "limit", "shots", "arguments", "bits", "chat", "seed", "metadata")


class Needs(Record):
    """What a step of a cell takes of the cluster while it runs."""

    cpus: float = Field(default=1, gt=0)
    gpus: float | None = Field(
        default=None,
        ge=0,
        description="a share of one, one, or several, a training process on each; default: one where there are any",
    )
    memory: float | None = Field(default=None, gt=0, description="GB of the node's memory")

    _no_truth = field_validator("*", mode="before")(no_truth)

    @field_validator("gpus")
    @classmethod
    def _whole(cls, gpus: float | None) -> float | None:
        if gpus and gpus > 1 and gpus != int(gpus):
            raise ValueError("more than one GPU is a whole number of them")
        return gpus

    @property
    def processes(self) -> int:
        """Of a training: one on each GPU."""
        return max(1, int(self.gpus or 0))

    def settled(self, there: int) -> Self:
        """With GPUs that the file leaves open decided: one, where a node has so many as ``there``; else none."""
        return self if self.gpus is not None else self.model_copy(update={"gpus": 1.0 if there else 0.0})


class Rule(Needs):
    """Other needs of the cells whose axes have these values."""

    when: dict[str, JsonValue]


class Tuning(Record):
    """Find the learning rate before training; cells that differ in the axes of ``over`` share one search."""

    budget: int = Field(ge=1, le=6, description="whole trainings: finbench tune --budget")
    over: list[str] = Field(default=["seed"], description="searched once, at the first value of these axes")
    limit: int | None = Field(default=None, ge=1, description="rows a task of a search at most; default: the cell's")

    _no_truth = field_validator("*", mode="before")(no_truth)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class CellSettings(Settings):
    """How each adapter, and each base, is scored: the settings of ``finbench eval``, and what only a sweep has."""

    also: list[str] = Field(default_factory=list, description="besides the tasks: what may have been forgotten")
    group: int = Field(default=8, ge=1, description="adapters of one base that are scored together at most")
    needs: Needs | None = Field(default=None, description="of a scoring; default: those of its cell")

    _no_truth = field_validator("*", mode="before")(no_truth)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class BaseSettings(Settings):
    """One more way to ask each base: the settings of ``eval``, except those that are stated here."""

    _no_truth = field_validator("*", mode="before")(no_truth)


def how(wanted: Settings, recipe: Recipe) -> dict[str, Any]:
    """What ``evaluate`` is told beside subject and tasks. A share of a GPU decides no result, so it is not in it.

    It decides the key of a step: a setting that is as usual is left out, so that a new one makes no other steps.
    """
    usual, own = Settings(), {one.name: getattr(wanted, one.name) for one in fields(Settings) if one.name not in APART}
    stated = {name: value for name, value in own.items() if name in _ALWAYS or value != getattr(usual, name)}
    stated["arguments"] = {key: value for key, value in wanted.arguments.items() if key != "gpu_memory"}
    stated["bits"] = wanted.bits or recipe.bits
    if wanted.chat is None:
        stated["chat"] = recipe.chat or wanted.profile in TEMPLATED
    return stated


def _over(usual: Mapping[str, Any], way: Mapping[str, Any]) -> dict[str, Any]:
    """A way with what it does not state; so of single arguments and choices of rows, too."""
    arguments = way.get("arguments")
    if isinstance(arguments, dict):  # max_length may be either
        usual = {key: value for key, value in usual.items() if key not in arguments}
    both = {key: {**usual[key], **value} for key, value in way.items()
            if isinstance(value, dict) and isinstance(usual.get(key), dict)}  # fmt: skip
    return {**usual, **way, **both}


class Sweep(Record):
    """A grid. Every axis and every key of ``common`` is a key of a recipe."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)
    axes: dict[str, list[JsonValue]] = Field(min_length=1, description="an axis -> its values; a mapping sets several")
    common: dict[str, JsonValue] = Field(default={}, description="recipe keys of every cell")
    include: list[dict[str, JsonValue]] = Field(default=[], description="further cells; axes not named take all values")
    exclude: list[dict[str, JsonValue]] = Field(default=[], description="cells of which all of these are true")
    tune: Tuning | None = None
    eval: CellSettings = CellSettings()
    beside: list[BaseSettings] = Field(default=[], description="ways to ask each base, besides that of its adapters")
    needs: Needs = Needs()
    needs_of: list[Rule] = Field(default=[], description="the last rule that fits decides")
    report: list[str] = Field(default=[], description="trackers that get every training and scorecard")
    retries: int = Field(default=2, ge=0, le=20, description="how often a step whose worker died is begun again")

    _no_truth = field_validator("*", mode="before")(no_truth)

    @model_validator(mode="before")
    @classmethod
    def _like_the_adapters(cls, stated: Any) -> Any:
        """What is not stated of another way to ask is as it is of the adapters', so that it is of the same rows."""
        usual, ways = (stated.get(key) for key in ("eval", "beside")) if isinstance(stated, dict) else (None, None)
        if not isinstance(usual, dict) or not isinstance(ways, list):
            return stated
        try:
            TypeAdapter(CellSettings).validate_python(usual)
        except ValidationError:  # is said of ``eval`` alone
            return stated
        usual = {key: value for key, value in usual.items() if key not in ("tasks", "also", "group", "needs")}
        return {**stated, "beside": [_over(usual, way) if isinstance(way, dict) else way for way in ways]}


@dataclass(frozen=True)
class Cell:
    """One training and its scorecard. ``key`` is a digest of all that decides it, except versions of libraries."""

    name: str
    values: dict[str, Any]  # the axes, as a person knows them
    recipe: Recipe
    needs: Needs
    key: str  # of the training
    scored: dict[str, Any]  # its base's weights and the tasks it is scored on, as they are now
    beside: list[dict[str, Any]]  # the same for each other way in which its base is asked
    search: str | None  # key of the search that gives the learning rate
    searched: Recipe | None  # what is searched, for this cell and those that share its search
    folder: str  # of the adapter, in the results


def read(source: Path | str) -> Sweep:
    """The sweep of a YAML file; FinbenchError names every unknown key and wrong value."""
    path = Path(source)
    if not path.is_file():
        raise FinbenchError(f"No such sweep file: {path}.", "Begin with one of examples/, or see docs/sweep.md")
    found = catalog.read_yaml(path)
    if "axes" not in found and "name" not in found and not found.keys().isdisjoint(recipes.KEYS):
        raise FinbenchError(f"{path} is a recipe, not a sweep: it has no axes.", f"finbench train {path}")
    sweep = Sweep.parse(found, str(path))
    rules = [*sweep.exclude, *(rule.when for rule in sweep.needs_of)]
    stated: list[Mapping[str, Any]] = [sweep.axes, sweep.common, *sweep.include, *rules]
    for part in stated:
        recipes.check_keys(part)
    for rule in rules:
        _check_names(rule)
    if sweep.report:
        tracking.named(sweep.report)
    if sweep.tune:
        for axis in sweep.tune.over:
            if axis not in sweep.axes:
                raise unknown("axis", axis, sweep.axes, str(path))
    if empty := [axis for axis, values in sweep.axes.items() if not values]:
        raise FinbenchError(f"{path}: axis {empty[0]} has no values.", "Name one, or leave the axis out.")
    return sweep


def cells(sweep: Sweep, data_dir: Path | None = None) -> list[Cell]:
    """Every cell, each once, in the order of the file: the last axis runs fastest.

    Raises FinbenchError for a cell of which the file, and the name of its base, show that it could not be trained
    (method x bits, rank, options, an unknown task or base), naming it. What only its rows or its base itself show, or
    that a folder of a base is not on the node, ends the cell alone.
    """
    grids = [sweep.axes, *(_included(sweep.axes, extra) for extra in sweep.include)]
    count = sum(math.prod(map(len, axes.values())) for axes in grids)  # before they are made
    if count > LARGEST:
        raise FinbenchError(f"{sweep.name} has {count:,} cells; at most {LARGEST:,} can be run.", "Split the file.")
    first, *more = ([_flat(axes, values) for values in itertools.product(*axes.values())] for axes in grids)
    chosen = [*_kept(sweep, first), *itertools.chain(*more)]
    if not chosen:
        raise FinbenchError(f"{sweep.name} has no cells: everything is excluded.", "Look at exclude.")
    made: dict[str, Cell] = {}
    known = Identities(data_dir)
    needs = [(_ways(rule.when), rule) for rule in sweep.needs_of]
    parsed = [_recipe(sweep, values) for values in chosen]
    told = [recipe.name.removesuffix(f"-s{recipe.seed}") for recipe in parsed]
    for values, recipe, name, varied in zip(chosen, parsed, told, _telling(chosen, told), strict=True):
        full = {**recipe.model_dump(), **_said(values)} if needs else {}
        rules = [rule for ways, rule in needs if _fits(full, ways)]
        cell = _cell(sweep, values, recipe.model_copy(update={"name": _name(recipe, name, varied)}), rules, known)
        made.setdefault(cell.key, cell)
    _check_scorings(sweep, list(made.values()))
    return list(made.values())


def _kept(sweep: Sweep, values: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells that no rule of ``exclude`` fits; a rule that fits none of them is refused: it does not do its work."""
    common, rules = _said(sweep.common), [_ways(rule) for rule in sweep.exclude]
    said = [common | _said(one) for one in values] if rules else []
    fitting = [{n for n, one in enumerate(said) if _fits(one, ways)} for ways in rules]
    for number, found in enumerate(fitting):
        if not found:
            raise FinbenchError(
                f"exclude.{number} fits no cell: {sweep.exclude[number]}.",
                "Its keys and values are those of axes and common. Correct it, or leave it out.",
            )
    return [one for n, one in enumerate(values) if not any(n in found for found in fitting)]


def _included(axes: Mapping[str, list[Any]], extra: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The axes of a line of ``include``: those it does not name, under any name, as they are."""
    key = {name: recipes.ALIASES.get(name, name) for name in (*axes, *extra)}
    known, taken = {key[name] for name in axes}, {key[name] for name in extra}
    others = {axis: values for axis, values in axes.items() if key[axis] not in taken}
    return others | {
        name: value if isinstance(value, list) and key[name] in known else [value] for name, value in extra.items()
    }


def _check_scorings(sweep: Sweep, made: Sequence[Cell]) -> None:
    """Refuse, before hours of training, settings of a scoring that do not fit each other."""
    tasks = catalog.tasks()
    for number, wanted in enumerate((sweep.eval, *sweep.beside)):
        where, more = "eval", "Here options are keys of eval."
        if number:
            where = f"beside.{number - 1}"
            more = f"Here options are keys of {where}: what it does not state is as in eval, null takes it away."
        if wanted.engine in evaluation.options.ENDPOINTS:
            raise FinbenchError(f"{where}: a grid's bases are here, and not at an endpoint.", "engine: hf, or vllm")
        unlike: dict[tuple[int, bool], tuple[Recipe, set[str]]] = {}
        for cell in made:
            told = unlike.setdefault((cell.recipe.bits, cell.recipe.chat), (cell.recipe, set()))
            told[1].update([cell.scored, *cell.beside][number]["tasks"])
        for recipe, names in unlike.values():
            try:
                evaluation.options.fitting(Evaluation(**how(wanted, recipe)), [tasks[name] for name in sorted(names)])
            except FinbenchError as fault:
                raise FinbenchError(f"{where}: {fault.message}", f"{fault.hint} {more}") from fault


def _telling(chosen: Sequence[Mapping[str, Any]], told: Sequence[str]) -> list[set[str]]:
    """Of each cell the keys that differ among those which are ``told`` apart by nothing else."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for name, one in zip(told, chosen, strict=True):
        alike.setdefault(name, []).append(one)
    differ: dict[str, set[str]] = {}
    for name, group in alike.items():
        keys = set[str]().union(*group)
        differ[name] = {key for key in keys if len({json.dumps(one.get(key), sort_keys=True) for one in group}) > 1}
    return [differ[name] for name in told]


def _flat(axes: Iterable[str], values: Iterable[Any]) -> dict[str, Any]:
    """The values of one cell; a mapping stands for several keys, unless it is a value itself (``fpb: 0.5``)."""
    found: dict[str, Any] = {}
    for axis, value in zip(axes, values, strict=True):
        key = recipes.ALIASES.get(axis, axis)
        inside = {recipes.ALIASES.get(name, name) for name in value} if isinstance(value, dict) else set()
        itself = key in ("tasks", "options", "map") and key not in inside
        if isinstance(value, dict) and not itself and "source" not in value:  # one with a source is a file of rows
            found.update(value)
        else:
            found[axis] = value
    return found


def _ways(rule: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Of each key of a rule the value, or the values, that fit it, each as ``_said``; a mapping is several keys."""
    return [
        [_said(_flat([key], [one])) for one in (wanted if isinstance(wanted, list) else [wanted])]
        for key, wanted in rule.items()
    ]


def _fits(said: Mapping[str, Any], ways: Iterable[Iterable[Mapping[str, Any]]]) -> bool:
    """Whether a cell, as ``_said``, has for each key of a rule one of its ``_ways``."""
    return all(any(one.items() <= said.items() for one in key) for key in ways)


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values under the recipe's own keys, tasks by their full names: what a rule means, whatever it writes."""
    found = recipes.keyed(values)
    return {**found, "tasks": recipes.task_weights(found["tasks"] or {})} if "tasks" in found else found


def _check_names(rule: Mapping[str, Any]) -> None:
    """Refuse a rule with a name of nothing, which would fit no cell in silence."""
    for one in itertools.chain(*_ways(rule)):  # which refuses unknown tasks and formats
        if "method" in one:
            method_named(str(one["method"]))
        if "base" in one:
            _check_base(str(one["base"]))


def _check_base(base: str) -> None:
    """Refuse an unknown base; a folder that is not here may be on the nodes."""
    if not Path(base).expanduser().is_absolute():
        bases.check_there(base)


def _recipe(sweep: Sweep, values: Mapping[str, Any]) -> Recipe:
    try:
        common = recipes.keyed(sweep.common)
        if "method" in values:  # what is common to all methods of the grid may mean nothing to this one
            unused = method_named(str(values["method"])).unused
            common = {key: value for key, value in common.items() if key not in unused}
        made = recipes.recipe(None, {**common, **recipes.keyed(values)})
        _check_base(made.base)
        return made
    except FinbenchError as fault:
        shown = ", ".join(f"{key} {value}" for key, value in values.items())
        raise FinbenchError(f"Cell {shown}: {fault.message}", fault.hint or "Leave such cells out: exclude") from fault


def _searched(sweep: Sweep, tune: Tuning, values: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """What is searched for a cell, and what of it is that of the first values of ``tune.over``, not the cell's own."""
    first = recipes.keyed(_flat(tune.over, [sweep.axes[axis][0] for axis in tune.over]))
    free = {key for axis in tune.over for value in sweep.axes[axis] for key in recipes.keyed(_flat([axis], [value]))}
    own = {key: value for key, value in recipes.keyed(values).items() if key not in free}
    searched = _recipe(sweep, {**own, **first})
    if "tasks" in first:
        first["tasks"] = searched.tasks
    if tune.limit is not None:
        first["limit"] = min(tune.limit, searched.limit or tune.limit)
        searched = searched.model_copy(update={"limit": first["limit"]})
    return searched, first


def _cell(sweep: Sweep, values: dict[str, Any], recipe: Recipe, rules: Sequence[Rule], known: Identities) -> Cell:
    """``rules``: those of ``needs_of`` that fit it."""
    ruled = rules[-1].model_dump(exclude={"when"}, exclude_unset=True) if rules else {}
    needs = Needs(**{**sweep.needs.model_dump(), **ruled})
    _together(sweep, recipe, needs)
    decisive = {**recipe.model_dump(exclude={"name"}), "data": known.learnt(recipe), "weights": known.base(recipe.base)}
    search = searched = None
    if sweep.tune:
        searched, first = _searched(sweep, sweep.tune, values)
        searched = searched.model_copy(update={"name": recipe.name})
        of = {key: value for key, value in searched.model_dump(exclude={"name"}).items() if key not in first}
        of |= {"data": known.learnt(searched), "weights": known.base(searched.base)}
        search = digest({"of": of, "first": first, "budget": sweep.tune.budget})
    key = digest({"recipe": decisive, "search": search})
    own = [*(sweep.eval.named or recipe.tasks), *sweep.eval.also]
    scored, *beside = (
        {"weights": known.base(recipe.base), "tasks": known.tasks([task.name for task in catalog.expand(tasks)])}
        for tasks in (own, *(way.named or own for way in sweep.beside))
    )
    folder = f"adapters/{recipe.name}-{key[:8]}"
    return Cell(recipe.name, values, recipe, needs, key, scored, beside, search, searched, folder)


def _together(sweep: Sweep, recipe: Recipe, needs: Needs) -> None:
    """Refuse what cannot be done by the processes of a cell, and one that nothing scores."""
    if not recipe.tasks and not sweep.eval.named:
        raise FinbenchError(
            f"Cell {recipe.name} learns from rows of your own, and no task is named to score it on.",
            "Name some: eval: {tasks: [fpb]}",
        )
    try:
        check_sharding(recipe, needs.processes)
    except FinbenchError as fault:
        raise FinbenchError(f"Cell {recipe.name}: {fault.message}", "Give it as many GPUs: needs: {gpus: N}") from fault
    if sweep.tune and needs.processes > 1:
        raise FinbenchError(
            f"Cell {recipe.name}: a search trains in one process, and the cell takes {needs.processes} GPUs.",
            "State lr for such cells in a sweep of their own, without tune.",
        )


def _name(recipe: Recipe, name: str, varied: set[str]) -> str:
    """A recipe's own name with what else differs between the cells; for people, never parsed."""
    for key in sorted(varied - {"base", "method", "task", "tasks", "data", "map", "seed", "options"}):
        key = recipes.ALIASES.get(key, key)
        stated = getattr(recipe, key)
        if stated is None:
            continue
        value = name_of_source(stated.source) if isinstance(stated, OwnData) else str(stated)
        value = (f"{stated:g}" if isinstance(stated, float) else value).lower()
        name += {"bits": f"-{value}bit", "rank": f"-r{value}"}.get(key, f"-{key}{value}".replace("_", ""))
    return re.sub(r"[^a-z0-9._-]+", "", name)[: 120 - len(f"-s{recipe.seed}")] + f"-s{recipe.seed}"
