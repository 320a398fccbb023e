"""The base of every record: unknown keys are refused by name, and all faults are named at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, ValidationInfo

from finbench.core import installing
from finbench.core.errors import FinbenchError, near_misses, shortened

Kind = TypeVar("Kind")
_adapter = functools.cache(TypeAdapter)
NEWER = "newer"  # type of the fault of a document that this finbench is too old for
_FAULTS = 20  # of a record that are shown one by one


class Record(BaseModel):
    """A frozen record that refuses unknown keys and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, value: Any, where: str) -> Self:
        """Validate ``value``; every fault in one FinbenchError that starts with ``where`` (a file, an option)."""
        return checked(cls, value, where)

    def to_json(self) -> str:
        """Indented JSON in field order, ending with a newline."""
        return self.model_dump_json(indent=1, by_alias=True) + "\n"


def no_truth(cls: Any, value: Any, info: ValidationInfo) -> Any:
    """Validator of all fields: ``true`` is no number, though Python takes it for 1."""
    leaves = _leaves(cls.__pydantic_fields__[info.field_name].annotation) if isinstance(value, bool) else ()
    if leaves and not any(leaf is bool or leaf is value for leaf in leaves):
        raise ValueError(f"a number or a text is expected, got {str(value).lower()}")
    return value


def _leaves(kind: Any) -> set[Any]:
    parts = get_args(kind)
    return set[Any]().union(*map(_leaves, parts)) if parts else {kind}


def plain(value: Any) -> Any:
    """``value`` as ``json.dumps`` takes it: records and dataclasses within as dictionaries, paths as text."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def checked(kind: Callable[..., Kind], value: Any, where: str, hint: str = "") -> Kind:
    """``value`` as a record, or as a dataclass that holds settings; every fault in one FinbenchError."""
    try:
        found: Kind = _adapter(kind).validate_python(value)
        return found
    except ValidationError as fault:
        faults = fault.errors(include_url=False, include_context=False)
        lines = [_explain(kind, error) for error in faults[:_FAULTS]]
        lines += [f"and {len(faults) - _FAULTS:,} more"] if len(faults) > _FAULTS else []
        raise FinbenchError(f"{where}: " + "; ".join(lines), hint or _hint(kind, faults)) from fault


def _explain(kind: Any, error: Mapping[str, Any]) -> str:
    place = shortened(".".join(str(part) for part in error["loc"]) or "value")
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        close = near_misses(shortened(str(error["loc"][-1])), _kinds(_kind_at(kind, error["loc"][:-1])))
        return f"unknown key {place!r}" + (f" (did you mean {' or '.join(close)}?)" if close else "")
    if error["type"] == "missing":
        return f"{place!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("value_error", NEWER):
        return f"{place}: {message}" if error["loc"] else message
    return f"{place}: {message}, got {shortened(repr(error['input']))}"


def _hint(kind: Any, faults: Sequence[Mapping[str, Any]]) -> str:
    """The keys that there are, where a key is unknown or missing; else which values to change."""
    if any(error["type"] == NEWER for error in faults):
        return f"Update finbench: {installing.update()}"
    for error in faults:
        if error["type"] in ("extra_forbidden", "unexpected_keyword_argument", "missing"):
            at = _kind_at(kind, error["loc"][:-1])
            alias = {name: field.alias or name for name, field in getattr(at, "model_fields", {}).items()}
            return f"Keys there: {', '.join(alias.get(name, name) for name in _kinds(at))}"
    places = [".".join(map(str, error["loc"])) for error in faults]
    return f"Change {', '.join(place or 'the value' for place in places[:3])}; the message says what is possible."


def _kind_at(kind: Any, place: tuple[int | str, ...]) -> Any:
    """The record or dataclass whose key is wrong: ``kind`` itself, or one inside it."""
    for name in place:
        inside = [_kinds(kind)[name]] if name in _kinds(kind) else []
        for one in inside:  # grows: a list's or a union's own kinds
            inside.extend(get_args(one))
            kind = one if isinstance(one, type) and _kinds(one) else kind
    return kind


def _kinds(kind: Any) -> dict[Any, Any]:
    """The keys of a record, or of a dataclass, with their types."""
    if dataclasses.is_dataclass(kind):
        return {name: one for name, one in get_type_hints(kind).items() if not name.startswith("_")}
    return {name: one.annotation for name, one in getattr(kind, "model_fields", {}).items()}
