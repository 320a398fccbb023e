"""The base of every record: unknown keys are refused by name, and all faults are told at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from finbench.errors import FinbenchError, near_misses

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
            raise FinbenchError(f"{where}: " + "; ".join(lines)) from fault

    def to_json(self) -> str:
        """Indented JSON in field order, ending with a newline."""
        return self.model_dump_json(indent=1) + "\n"


def _explain(cls: type[BaseModel], error: Mapping[str, Any]) -> str:
    place = shortened(".".join(str(part) for part in error["loc"]) or "value")
    if error["type"] == "extra_forbidden":
        close = near_misses(shortened(str(error["loc"][-1])), cls.model_fields)
        return f"unknown key {place!r}" + (f" (did you mean {' or '.join(close)}?)" if close else "")
    if error["type"] == "missing":
        return f"{place!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" + (
        "" if error["type"] == "value_error" else f", got {shortened(repr(error['input']))}"
    )


def shortened(text: str, most: int = 200) -> str:
    """Text of a stranger, for a message."""
    return text if len(text) <= most else text[: most - 3] + "..."
