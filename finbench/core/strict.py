"""The base of every record: unknown keys are refused by name, and all faults are told at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from finbench.core.errors import FinbenchError, near_misses, shortened

_FAULTS = 20  # of a record that are shown one by one


class Record(BaseModel):
    """A frozen record that refuses unknown keys and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, value: Any, where: str) -> Self:
        """Validate ``value``; every fault in one FinbenchError that starts with ``where`` (a file, an option)."""
        try:
            return cls.model_validate(value)
        except ValidationError as fault:
            found = fault.errors(include_url=False, include_context=False)
            lines = [_explain(cls, error) for error in found[:_FAULTS]]
            lines += [f"and {len(found) - _FAULTS:,} more"] if len(found) > _FAULTS else []
            raise FinbenchError(f"{where}: " + "; ".join(lines), _hint(cls, found, where)) from fault

    def to_json(self) -> str:
        """Indented JSON in field order, ending with a newline."""
        return self.model_dump_json(indent=1) + "\n"


def _explain(cls: type[BaseModel], error: Mapping[str, Any]) -> str:
    place = shortened(".".join(str(part) for part in error["loc"]) or "value")
    if error["type"] == "extra_forbidden":
        close = near_misses(shortened(str(error["loc"][-1])), _record_at(cls, error["loc"][:-1]).model_fields)
        return f"unknown key {place!r}" + (f" (did you mean {' or '.join(close)}?)" if close else "")
    if error["type"] == "missing":
        return f"{place!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" + (
        "" if error["type"] == "value_error" else f", got {shortened(repr(error['input']))}"
    )


def _hint(cls: type[BaseModel], found: Sequence[Mapping[str, Any]], where: str) -> str:
    """The keys that there are, where a key is unknown or missing; else the place of the value."""
    for error in found:
        if error["type"] in ("extra_forbidden", "missing"):
            fields = _record_at(cls, error["loc"][:-1]).model_fields
            return f"Keys there: {', '.join(field.alias or name for name, field in fields.items())}"
    return f"Write another value there: {where}"


def _record_at(cls: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """The record whose key is wrong: ``cls`` itself, or one inside it."""
    for name in place:
        kinds: list[Any] = [cls.model_fields[name].annotation] if name in cls.model_fields else []
        for kind in kinds:  # grows: a list's or a union's own kinds
            kinds.extend(get_args(kind))
            cls = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else cls
    return cls
