"""What commands share: options that are declared once, and answers for people or programs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from finbench.core.errors import FinbenchError, harmless, harmless_json
from finbench.core.settings import DATA_DIR

if TYPE_CHECKING:
    from finbench.core.records import Bits, DType, Recipe

_EXAMPLES = {
    "--set": "rank=8",
    "--arg": "dtype=float32",
    "--metadata": "agreement=75",
    "--map": "prompt=question,completion=answer",
}
DataDir = Annotated[Path | None, DATA_DIR]


@dataclass(frozen=True)
class Found:
    """What a command found."""

    value: Any  # a record, or what ``strict.plain`` takes: printed with --json
    show: Callable[[], object]  # prints it for a person
    fault: Exception | None = None  # raised afterwards


def declared(command: Callable[..., Any]) -> Callable[..., None]:
    """A command with its options as typer wants them; if it returns a Found, that is printed, with ``--json`` or not.

    An option is declared as ``Annotated[type, help]``, or with another name ``Annotated[type, "--name", help]``; one
    without a default is an argument, as is ``Annotated[type, "NAME", help]``. What has more to say is declared by
    typer's own Option or Argument.
    """
    own = signature(command, eval_str=True)
    options = [_option(one) for one in own.parameters.values()]
    if own.return_annotation is not None:
        json_ = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
        options.append(Parameter("as_json", Parameter.KEYWORD_ONLY, default=False, annotation=json_))

    @functools.wraps(command)
    def run(as_json: bool = False, **given: Any) -> None:
        found: Found | None = command(**given)
        if found is None:
            return
        if as_json:
            from finbench.core.strict import plain

            value = found.value
            text = value.to_json().rstrip() if hasattr(value, "to_json") else json.dumps(plain(value), indent=1)
            typer.echo(harmless_json(text))
        else:
            found.show()
        if found.fault:
            raise found.fault

    run.__signature__ = Signature(options)  # type: ignore[attr-defined]
    return run


def echo(text: str, err: bool = False) -> None:
    """Print a text whole, without colours or folds; what a terminal would obey is shown as its escape."""
    typer.echo(harmless(text), err=err)


def with_own_tasks(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options by which benchmarks are named that are not finbench's."""
    own = signature(command, eval_str=True)

    @functools.wraps(command)
    def run(include_path: list[Path] | None = None, trust_task_code: bool = False, **given: Any) -> Any:
        if include_path or trust_task_code:
            from finbench.core import catalog

            catalog.trust_code(trust_task_code)
            for folder in include_path or []:
                catalog.include_tasks(folder)
        return command(**given)

    panel = {"rich_help_panel": "Benchmarks of your own"}
    paths = Annotated[
        list[Path] | None, typer.Option(help="Folder of lm-eval tasks, repeatable; also $FINBENCH_TASKS.", **panel)
    ]
    trust = Annotated[
        bool, typer.Option("--trust-task-code", help="Run the code that such a folder carries; asked once.", **panel)
    ]
    more = [
        Parameter("include_path", Parameter.KEYWORD_ONLY, default=None, annotation=paths),
        Parameter("trust_task_code", Parameter.KEYWORD_ONLY, default=False, annotation=trust),
    ]
    kept = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in own.parameters.values()]
    run.__signature__ = own.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
    return run


@dataclass(frozen=True)
class RecipeOptions:
    """A recipe as options of train, plan and tune; the cells of a sweep have the same keys."""

    recipe: Annotated[
        str | None,
        typer.Argument(help="Recipe: a name of `finbench zoo list`, a YAML file or an adapter (./folder, hub:)."),
    ] = None
    base: Annotated[str | None, "Alias of `finbench bases`, hub:org/name[@rev] or ./folder."] = None
    task: Annotated[list[str] | None, "Tasks to learn, commas between, repeatable; fpb:0.5 takes half its rows."] = None
    data: Annotated[
        list[str] | None, "Rows of your own, repeatable: a file, a folder, hub:org/name; mine.jsonl:0.5 takes half."
    ] = None
    map: Annotated[
        list[str] | None, "Which columns are what: prompt=question,completion=answer; of one file: FILE:prompt=q,..."
    ] = None
    method: Annotated[str | None, "See `finbench methods`."] = None
    bits: Annotated[int | None, "16, 8 (int8) or 4 (NF4)."] = None
    rank: Annotated[int | None, "Rank of the update."] = None
    lr: Annotated[float | None, "Peak learning rate; tune searches around it."] = None
    epochs: Annotated[float | None, "Passes over the rows."] = None
    seed: Annotated[int | None, "Seed of weights and order."] = None
    limit: Annotated[int | None, "Rows a task, a seeded choice."] = None
    name: Annotated[str | None, "Name of the run, and of its folder in runs/."] = None
    validation: Annotated[
        str | None, "Rows to validate on, none of a test: 0.1 of train, split (the tasks' own), or a file."
    ] = None
    pairs: Annotated[
        str | None,
        "DPO: a scorecard of train rows (right answers beside its failures), or rows of prompt,chosen,rejected.",
    ] = None
    start: Annotated[str | None, "--from", "Adapter to go on from, and the pairs' reference; default: the base."] = None
    set: Annotated[list[str] | None, "Any other recipe key or option, key=value, repeatable."] = None

    def resolved(self, data_dir: Path | None = None, fitted: bool = True) -> Recipe:
        """The recipe: options go before the file, and ``--set`` before options.

        Without a file, what is not stated is chosen for base and rows, unless not ``fitted``.
        """
        from finbench.models import bases
        from finbench.training import recipes, suit

        named = {key: value for key, value in vars(self).items() if value is not None and key not in ("recipe", "set")}
        if self.task:
            named["task"] = [name.strip() for text in self.task for name in text.split(",") if name.strip()]
        if self.map:
            named["map"] = columns(self.map)
        stated = {**named, **settings(self.set or [])}
        made = recipes.recipe(self.recipe, stated)
        bases.check_there(made.base)  # at once, and not after seconds of imports
        return suit(made, recipes.keyed(stated), data_dir) if fitted and self.recipe is None else made


def taking(kind: type[Any], panel: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the annotated fields of the dataclass ``kind`` as options; its first parameter is one of ``kind``.

    In the help of the command they stand together in a ``panel`` of this title.
    """
    known = signature(kind, eval_str=True).parameters
    options = {name: one for name, one in known.items() if get_origin(one.annotation) is Annotated}

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        own = signature(command, eval_str=True)

        @functools.wraps(command)
        def run(**given: Any) -> Any:
            from finbench.core.strict import checked

            stated = {name: _as_field(one, given.pop(name)) for name, one in options.items()}
            there = {key: value for key, value in stated.items() if value is not None}
            name = f"finbench {command.__name__.rstrip('_').replace('_', ' ')}"
            return command(checked(kind, there, name, f"See its options: {name} --help"), **given)

        rest = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in list(own.parameters.values())[1:]]
        shared = [_option(one, panel) for one in options.values()]
        run.__signature__ = own.replace(parameters=[*shared, *rest])  # type: ignore[attr-defined]
        return run

    return decorated


def _option(stated: Parameter, panel: str | None = None) -> Parameter:
    """What may be several is a list of texts, and one without a value is None."""
    kind, *about = get_args(stated.annotation)
    stated = stated.replace(kind=Parameter.KEYWORD_ONLY)
    if not isinstance(about[-1], str):
        return stated
    *names, text = about
    plain = text.replace("[", "\\[")  # [ would begin markup
    parts = [kind, *get_args(kind)]
    if any(get_origin(part) in (Mapping, Sequence) for part in parts):
        kind, stated = list[str] | None, stated.replace(default=None)
    elif choices := [part for part in parts if get_origin(part) is Literal]:
        kind = type(get_args(choices[0])[0]) | None
    if stated.default is Parameter.empty:
        return stated.replace(annotation=Annotated[kind, typer.Argument(help=plain)])
    if names and not names[0].startswith("-"):
        return stated.replace(annotation=Annotated[kind, typer.Argument(help=plain, metavar=names[0])])
    return stated.replace(annotation=Annotated[kind, typer.Option(*names, help=plain, rich_help_panel=panel)])


def _as_field(option: Parameter, value: Any) -> Any:
    """The value of an option as its field wants it."""
    kind, *about = get_args(option.annotation)
    name = about[0] if len(about) > 1 else f"--{option.name}"
    return pairs(value, name) if value and get_origin(kind) is Mapping else value


def pairs(stated: Iterable[str], option: str) -> dict[str, str]:
    """``key=value`` texts of an option, by key."""
    found = {}
    for text in stated:
        key, equals, value = text.partition("=")
        if not equals or not key:
            example = f"For example: {option} {_EXAMPLES[option]}"
            raise FinbenchError(f"{option} takes key=value, got {text!r}.", example)
        found[key] = value
    return found


def columns(stated: Iterable[str]) -> dict[str, str]:
    """``--map``: finbench's names of columns, behind FILE: where they are of one file, and the file's."""
    found = {}
    for text in stated:
        head, _, _ = text.partition("=")
        file, colon, _ = head.rpartition(":")
        named = pairs(text.removeprefix(file + colon).split(","), "--map")
        found.update({f"{file}{colon}{name}": column for name, column in named.items()})
    return found


def settings(stated: Iterable[str]) -> dict[str, Any]:
    """``--set``: recipe keys and their values, which are YAML."""
    import yaml

    try:
        return {key: yaml.safe_load(value) for key, value in pairs(stated, "--set").items()}
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        raise FinbenchError(
            f"--set: not a YAML value ({str(fault).splitlines()[0]}).",
            "Quote the whole: --set 'target_modules=[q_proj,v_proj]'",
        ) from fault


def numbers(stated: str, option: str) -> list[float]:
    """``0.7,0.3`` as numbers."""
    try:
        return [float(part) for part in stated.split(",")]
    except ValueError as fault:
        raise FinbenchError(
            f"{option} {stated}: numbers with commas between are expected.", f"{option} 0.7,0.3"
        ) from fault


def bits(value: int | None) -> Bits | None:
    """``--bits`` as the records want it."""
    if value in (None, 16, 8, 4):
        return value  # type: ignore[return-value]
    nearest = min((16, 8, 4), key=lambda known: abs(known - (value or 0)))
    raise FinbenchError(f"--bits is 16, 8 or 4, not {value}.", f"Type --bits {nearest}; 8 and 4 quantise the base.")


def dtype(value: str) -> DType:
    """``--dtype`` as the records want it."""
    if value in ("auto", "float32", "bfloat16", "float16"):
        return value  # type: ignore[return-value]
    raise FinbenchError(
        f"--dtype is auto, float32, bfloat16 or float16, not {value}.", "Leave it out, or: --dtype float32"
    )
