"""Recipes: read from the zoo, a YAML file or options, completed by the defaults, and checked."""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from finbench.core import catalog, formats, owntasks, paths
from finbench.core.errors import FinbenchError, near_misses, unknown
from finbench.core.records import VALIDATION, OwnData, Recipe, name_of_source
from finbench.data import own
from finbench.methods import METHODS, Method, Tuner, method_named
from finbench.training.synonyms import ELSEWHERE, SYNONYMS, options_of_peft

ALIASES = {
    "task": "tasks",
    "validate": "validate_on",
    "pairs": "preferences",
    "format": "bits",
}  # an option of the command line, or an axis of a sweep -> the recipe's own key
_GENTLE = 0.01  # of a method's rate, for pairs: at a tenth half of what was right is lost (docs/training.md)
_OF_METHOD = {"options", "rank", "alpha", "dropout", "lr", "search"}
KEYS = tuple(key for key in (*Recipe.model_fields, *ALIASES) if key not in ("name", "search"))  # of such cells


def recipe(source: str | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The Recipe from a zoo name, a YAML file or an adapter's folder, overrides on top, ``_defaults.yaml`` below.

    Precedence: overrides, the recipe, the adapter it starts from, the method's own defaults, ``_defaults.yaml``. None
    is a value as any other: it takes back a ``limit``, say.
    """
    defaults = _defaults()
    stated: dict[str, Any] = {}
    where = "options"
    changes = keyed(overrides or {})
    mapped = changes.pop("map", None)
    if "data" in changes:
        changes["data"] = _own(changes["data"], mapped)
    if source is not None:
        path = _recipe_path(source)
        # a record has the names of files alone: they lay where the command was typed
        home = Path.cwd() if path.is_dir() else path.parent
        stated, where = keyed(_recorded(path, changes) if path.is_dir() else catalog.read_yaml(path)), str(path)
        _check_kind(stated, path)
        if "data" in stated:
            stated["data"] = _own(stated["data"], mapped, home)
        if "validation" in stated:
            stated["validation"] = _validation(stated["validation"], mapped, home)
    if "validation" in changes:
        changes["validation"] = _validation(changes["validation"], mapped)
    _place_pairs(changes, mapped)
    _place_pairs(stated, mapped, home if source is not None else None)
    if set(changes) - {"seed", "search"}:
        stated.pop("search", None)  # another recipe than the one that was searched for
    chosen = {**stated, **changes}
    begun = _begun(chosen)
    method = method_named(str(chosen.get("method", begun.get("method", defaults["method"]))))
    chosen = {**begun, **_with_options(chosen, method, where)}
    complete = {**defaults, **method.defaults, **chosen}
    if complete.get("preferences") and "lr" not in chosen:
        complete["lr"] *= _GENTLE
    complete["method"] = method.name
    for key in method.unused:
        if complete[key] != {**defaults, **method.defaults}[key]:
            raise FinbenchError(f"{where}: method {method.name} has no {key}.", f"Leave {key} out: finbench methods")
    if "name" in changes and not re.fullmatch("[a-z0-9][a-z0-9._-]*", name := str(changes["name"])):
        said = f"--name {name}: a name is of small letters, digits, '.', '_' and '-', a letter or digit first."
        raise FinbenchError(said, f"--name {_slug(name)}")
    if mapped and not complete.get("data") and not complete.get("preferences"):
        raise FinbenchError("--map names columns of your own rows, and there are none.", "Add --data FILE")
    if not complete.get("tasks") and not complete.get("data") and not complete.get("preferences"):
        raise FinbenchError(
            "What should be trained? No task and no data are named.",
            "Add --task fpb or --data mine.jsonl, or name a recipe of: finbench zoo list",
        )
    if complete.get("validation") is None and (idle := [key for key in VALIDATION[1:] if chosen.get(key) is not None]):
        raise FinbenchError(
            f"{where}: {idle[0]} is about rows held out, and there are none.", "Add --validation 0.1, or leave it out."
        )
    pairwise = [key for key in ("beta", "sft_weight") if chosen.get(key) is not None]
    if complete.get("preferences") is None and pairwise:
        raise FinbenchError(
            f"{where}: {pairwise[0]} is about pairs of answers, and there are none.",
            "Add --pairs card.json, or leave it out.",
        )
    complete["tasks"] = task_weights(complete.get("tasks") or {})
    if complete.get("data") and "chat" not in chosen and any(map(_conversations, complete["data"])):
        complete["chat"] = True
    if isinstance(seed := complete["seed"], float) and seed.is_integer():
        complete["seed"] = int(seed)  # as it is in names
    # the file's name, where what it may say is still so
    kept = source is not None and path.is_file() and not {"tasks", "data", "base", "method"} & set(changes)
    complete.setdefault("name", f"{_slug(path.stem)}-s{complete['seed']}" if kept else _name(complete))
    result = Recipe.parse(complete, where)
    method.check(result)
    if result.preferences or result.start:
        from finbench.training import preferences

        preferences.check(result)
    return result


def _place_pairs(found: dict[str, Any], mapped: Mapping[str, str] | None, folder: Path | None = None) -> None:
    """Pairs of answers, and the adapter to start from, as records, in place; ``folder``: where they are looked for."""
    if isinstance(found.get("start"), str):
        found["start"] = {"source": found["start"]}
    if isinstance(start := found.get("start"), dict) and not re.match("(hub|zoo):", place := str(start.get("source"))):
        found["start"] = {**start, "source": own.absolute(place, folder)}
    if isinstance(stated := found.get("preferences"), str):
        found["preferences"] = stated = {"source": stated}
    if isinstance(stated, dict):
        columns = {"map": dict(mapped)} if mapped else {}
        found["preferences"] = {**columns, **stated, "source": own.absolute(str(stated.get("source")), folder)}


def _begun(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What the adapter that is gone on from decides."""
    if not isinstance(start := chosen.get("start"), dict):
        return {}
    from finbench.training import preferences

    return preferences.start_of(str(start.get("source")))


def keyed(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Options, or values of axes, under the recipe's own keys."""
    _check_twins(stated)
    found = {ALIASES.get(key, key): value for key, value in stated.items()}
    if "format" in stated:
        found["bits"] = formats.bits_of(stated["format"])
        if stated.get("bits", found["bits"]) != found["bits"]:
            two = f"bits {stated['bits']} and format {stated['format']}"
            raise FinbenchError(f"{two} say two things.", "Leave one of them out.")
        if dtype := formats.dtype_of(stated["format"]):
            found["dtype"] = dtype
            if stated.get("dtype", "auto") not in ("auto", dtype):
                two = f"dtype {stated['dtype']} and format {stated['format']}"
                raise FinbenchError(f"{two} say two things.", "Leave one of them out.")
    return found


def _check_twins(stated: Collection[str]) -> None:
    """Refuse two names of one key, of which one would count; of ``format`` beside ``bits`` the values are compared."""
    for alias, key in ALIASES.items():
        if alias in stated and key in stated and alias != "format":
            raise FinbenchError(f"{alias} and {key} are two names of one key.", "Leave one of them out.")


def check_keys(stated: Collection[str]) -> None:
    """Refuse the first key that an axis of a sweep cannot have, and one that is there under two names."""
    _check_twins(stated)
    for key in stated:
        word = _word(key)
        if word in SYNONYMS:
            own = SYNONYMS[word]
            raise FinbenchError(f"Unknown recipe key {key!r}: here it is {own}.", f"Write {own} instead of {key}.")
        if word in ELSEWHERE:
            raise FinbenchError(f"Unknown recipe key {key!r}: {ELSEWHERE[word]}.", f"Leave {key} out.")
        if key not in KEYS:
            raise unknown("recipe key", key, KEYS, "finbench zoo show fpb-smollm2-135m-lora")  # any: it shows them all


def defaults_of(method: Method) -> dict[str, Any]:
    """What ``method`` starts from unless a recipe says otherwise: rate, rank, scale, and what it sets by itself."""
    chosen = {**{key: _defaults()[key] for key in ("lr", "rank", "alpha")}, **method.defaults}
    return {key: value for key, value in chosen.items() if key not in method.unused}


@functools.cache
def _defaults() -> dict[str, Any]:
    return catalog.read_yaml(paths.shipped("adapters_zoo") / "_defaults.yaml")


def _with_options(chosen: dict[str, Any], method: Method, where: str) -> dict[str, Any]:
    loose = sorted(set(chosen) - set(Recipe.model_fields))
    if not loose:
        return chosen
    own = {key for other in METHODS.values() for key in other.options}
    if foreign := [key for key in loose if _foreign(key, method) or not (key in own or key in options_of_peft())]:
        known = f"Keys: {', '.join(Recipe.model_fields)}\nOptions of a method: finbench methods {method.name}"
        words = [_word(key) for key in foreign]
        meant = list(dict.fromkeys(SYNONYMS[word] for word in words if word in SYNONYMS))
        left = [key for key, word in zip(foreign, words, strict=True) if word in ELSEWHERE]
        todo = [f"write {', '.join(meant)}"] * bool(meant) + [f"leave out {', '.join(left)}"] * bool(left)
        said = ", ".join(todo)
        all_known = all(word in SYNONYMS or word in ELSEWHERE for word in words)
        raise FinbenchError(
            f"{where}: unknown recipe key {', '.join(repr(key) + _alike(key) for key in foreign)}.",
            f"{said[:1].upper()}{said[1:]}; every key: finbench train --help" if all_known else known,
        )
    strange = [key for key in loose if key not in method.option_names()]
    if strange:
        offered = sorted(method.offered())  # not those that are refused: they would be the next error
        raise FinbenchError(
            f"{where}: unknown recipe key {', '.join(repr(key) + _meant(key, method) for key in strange)}.",
            f"Keys: {', '.join(Recipe.model_fields)}\nOptions of {method.name}: {', '.join(offered)}",
        )
    stated = chosen.get("options") or {}
    if not isinstance(stated, Mapping):
        raise FinbenchError(
            f"{where}: options is a mapping, got {stated!r}.",
            "Write options: {key: value}, or one by one: --set key=value",
        )
    rest = {key: value for key, value in chosen.items() if key not in loose}
    return {**rest, "options": {**stated, **{key: chosen[key] for key in loose}}}


def _foreign(key: str, method: Method) -> bool:
    """Whether a key is another program's word; some tuners of peft have options of such names."""
    return _word(key) in {*SYNONYMS, *ELSEWHERE} and (not isinstance(method, Tuner) or key not in method.option_names())


def _word(key: str) -> str:
    """A key as other programs write it: on a command line with hyphens, and leading ones."""
    plain = key.strip("-").replace("-", "_").lower()
    return plain if plain in SYNONYMS or plain in ELSEWHERE else key


def _alike(key: str) -> str:
    word = _word(key)
    if word in SYNONYMS:
        return f" (here it is {SYNONYMS[word]})"
    if word in ELSEWHERE:
        return f" ({ELSEWHERE[word]})"
    plain = key.strip("-").replace("-", "_")
    if plain in Recipe.model_fields:
        return f" (write {plain})"
    close = near_misses(key, Recipe.model_fields) or near_misses(key, sorted(options_of_peft()))
    return f" (did you mean {close[0]}?)" if close else ""


def is_pretraining(path: str | None) -> bool:
    """Whether ``path`` is a file that ``finbench pretrain`` takes."""
    found = Path(path).expanduser() if path else None
    return found is not None and found.is_file() and _others(catalog.read_yaml(found)) == ("a pretraining", "pretrain")


def _check_kind(stated: Mapping[str, Any], path: Path) -> None:
    """Refuse a file that another command takes."""
    if other := _others(stated):
        raise FinbenchError(f"{path} is {other[0]}, not a recipe.", f"finbench {other[1]} {path}")


def _others(stated: Mapping[str, Any]) -> tuple[str, str] | None:
    """(what a file is, the command that takes it) where it is no recipe."""
    start = stated.get("start")  # of a pretraining says of what family it is; a recipe's is an adapter
    begins = {"start"} if isinstance(start, Mapping) and "source" not in start else set[str]()
    others = (({"axes"}, "a sweep", "sweep"), ({"structure", "context", *begins}, "a pretraining", "pretrain"))
    return next(((kind, command) for keys, kind, command in others if not keys.isdisjoint(stated)), None)


def _meant(key: str, method: Method) -> str:
    if owners := [name for name, other in METHODS.items() if key in other.options]:
        return f" (an option of {', '.join(owners)})"
    close = near_misses(key, Recipe.model_fields) or near_misses(key, method.meant())
    return f" (did you mean {close[0]}?)" if close else ""


def _recipe_path(source: str) -> Path:
    name = source.removeprefix("zoo:")
    if name in catalog.recipe_files():
        return catalog.recipe_files()[name]
    if source.startswith("hub:"):
        from finbench.models import adapters

        path = adapters.locate(source)
    else:
        path = Path(source).expanduser()
    if path.is_file() or (path / "finbench.json").is_file():
        return path
    if path.is_dir():
        hint = "Name a YAML file, or an adapter that finbench trained."
        raise FinbenchError(f"{source} has no finbench.json, which says how an adapter was trained.", hint)
    if path.suffix in (".yaml", ".yml") or "/" in source:
        hint = "A recipe is a name of finbench zoo list, a YAML file or the folder of an adapter."
        raise FinbenchError(f"No such recipe: {path}", hint)
    raise unknown("recipe", name, catalog.recipe_files(), "finbench zoo list")


def _recorded(folder: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter was trained by, from its own record; of another method what suits every method.

    A stranger's record decides neither which files are read (names alone, of files that lie here) nor, unless it is one
    of bases.yaml, which base is fetched: else FinbenchError.
    """
    from finbench.models import adapters

    recipe = adapters.record(folder).recipe
    known = {f"hub:{entry.hub_id}" for entry in catalog.bases().values()}
    if "base" not in changes and recipe.base.startswith("hub:") and recipe.base.partition("@")[0] not in known:
        raise FinbenchError(
            f"{folder} was trained on {recipe.base}, which bases.yaml does not know.",
            f"If you trust it, name it yourself: --base {shlex.quote(recipe.base)}",
        )
    other = changes.get("method", recipe.method) != recipe.method
    stated = recipe.model_dump(exclude={"name"} | (_OF_METHOD if other else set()))
    for part in (*stated.get("data", ()), *map(stated.get, ("validation", "preferences", "start"))):
        if isinstance(part, dict):
            part["source"] = name_of_source(part["source"])
    return stated


def _own(stated: Any, mapped: Mapping[str, str] | None, folder: Path | None = None) -> list[OwnData]:
    """Sources of own rows from names such as ``mine.jsonl:0.5``, or mappings; ``folder``: where they are looked for.

    A key of ``mapped`` is a column of all of them, or FILE:column of one.
    """
    found, used = [], set[str]()
    for one in stated if isinstance(stated, list) else [stated]:
        if isinstance(one, str):
            named = re.fullmatch(r"(.+):(\d+\.?\d*|\.\d+)", one)
            one = {"source": named[1], "weight": float(named[2])} if named else {"source": one}
        if not isinstance(one, Mapping):
            raise FinbenchError(
                f"data: a file, or a mapping with source, is expected, got {one!r}.",
                "Write data: [mine.jsonl], or data: [{source: mine.jsonl, weight: 0.5}]",
            )
        known = {file: of for file, of in _by_file(mapped or {}).items() if not file or _names(file, one)}
        used |= known.keys()
        own_map = {"map": known[""]} if "" in known else {}
        for file in filter(None, known):  # of this file alone: it goes before what a recipe says
            one = {**one, "map": known[file]}
        part = OwnData.parse({**own_map, **one}, "data")
        for name in part.map:
            if name not in own.COLUMNS:
                raise unknown("column", name, own.COLUMNS, "finbench data check --help")
        found.append(part.model_copy(update={"source": own.absolute(part.source, folder)}))
    for file in _by_file(mapped or {}):
        if file and file not in used:
            names = ", ".join(name_of_source(part.source) for part in found)
            raise FinbenchError(f"--map names columns of {file}, which is not among the rows.", f"There are: {names}")
    return found


def _by_file(mapped: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """File -> its columns, of ``--map``; those of all files under an empty name."""
    found: dict[str, dict[str, str]] = {}
    for key, column in mapped.items():
        file, _, name = key.rpartition(":")
        found.setdefault(file, {})[name] = column
    return found


def _names(file: str, stated: Mapping[str, Any]) -> bool:
    """Whether ``--map`` means this source: as it is written, or by its name."""
    source = str(stated.get("source", ""))
    return file in (source, source.partition("@")[0], name_of_source(source))


def _validation(stated: Any, mapped: Mapping[str, str] | None, folder: Path | None = None) -> Any:
    """A share as a number, ``split``, or a source of own rows; ``folder``: where that is looked for."""
    if isinstance(stated, str) and stated != "split":
        with contextlib.suppress(ValueError):
            return float(stated)
    if isinstance(stated, bool) or (isinstance(stated, list) and len(stated) != 1):
        raise FinbenchError(
            f"validation: a share of train, split or one file is expected, got {stated!r}.", "Write validation: 0.1"
        )
    if stated is None or stated == "split" or isinstance(stated, int | float | OwnData):
        return stated
    [stated] = stated if isinstance(stated, list) else [stated]
    source = {"source": stated} if isinstance(stated, str) else stated
    its = {
        key: column
        for key, column in (mapped or {}).items()
        if ":" not in key or _names(key.rpartition(":")[0], source)
    }
    return _own(stated, its, folder)[0]


def _conversations(part: OwnData) -> bool:
    """Whether a source holds conversations; a file is read once, for a sweep has many recipes."""
    path = Path(part.source)
    status = path.stat() if path.is_file() else None
    return _are_conversations(part.to_json(), status and (status.st_mtime_ns, status.st_size))


@functools.lru_cache(64)
def _are_conversations(part: str, _: Any) -> bool:
    return own.holds_conversations(OwnData.model_validate_json(part))


def task_weights(stated: Any) -> dict[str, float]:
    """Tasks as ``{full name: weight}`` from a mapping, or from names such as ``fpb`` and ``tfns:0.5``."""
    if isinstance(stated, str):
        stated = [stated]
    if isinstance(stated, list) and all(isinstance(item, str) for item in stated):
        stated = dict(map(_weighted, stated))
    if not isinstance(stated, Mapping) or not all(isinstance(name, str) for name in stated):
        raise FinbenchError(
            "tasks: a task, a list of tasks, or a mapping of tasks to weights is expected.",
            "Write tasks: [fpb], or with weights: {fpb: 1.0, tfns: 0.5}",
        )
    weights: dict[str, float] = {}
    for name, weight in stated.items():
        try:
            number = float("no number" if isinstance(weight, bool) else weight)
        except (TypeError, ValueError) as fault:
            raise FinbenchError(
                f"The weight of task {name} is not a number: {weight!r}.", "Write --task fpb:0.5"
            ) from fault
        for task in catalog.expand([name]):
            weights[task.name] = number
    return weights


def _weighted(item: str) -> tuple[str, str | float]:
    """``fpb:0.5`` -> (fpb, 0.5); the colon of ``lm_eval:boolq`` is part of the name."""
    prefix = owntasks.LM_EVAL if item.startswith(owntasks.LM_EVAL) else ""
    name, _, weight = item.removeprefix(prefix).partition(":")
    return prefix + name, weight or 1.0


def _name(complete: Mapping[str, Any]) -> str:
    """A name for people: it is never parsed."""
    pairs = complete.get("preferences")
    files = [name_of_source(part.source).partition("@")[0].split("/")[-1] for part in complete.get("data") or ()]
    names = [*complete["tasks"], *(f"{name.partition('.')[0]}-rows" for name in files)]  # beside a task of that name
    names += [f"{name_of_source(pairs['source']).partition('.')[0]}-pairs"] if isinstance(pairs, dict) else []
    tasks_part = "-".join(name.removeprefix(catalog.PREFIX).replace("_", "-") for name in names)
    base = str(complete["base"])
    short = Path(base).expanduser().resolve().name if base[:1] in ("~", ".", "/") else base.split("/")[-1].split("@")[0]
    method = complete["method"].replace("+", "plus")  # lora+ must not share a folder with lora
    return _slug(f"{tasks_part[:40]}-{short}-{method}-s{complete['seed']}")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._") or "recipe"
