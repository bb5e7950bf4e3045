"""JSON of a stranger's file, read as objects of exactly the fields and types that are declared."""

from __future__ import annotations

from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from petra.runtimes.torch_text import shown

NOT_GIVEN: Any = Field(default=None)  # never written: only what a file gives is

R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """A JSON object with these fields and no others, of exactly these types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def to_json(self) -> bytes:
        return self.model_dump_json(exclude_unset=True).encode()


class Choice(Record):
    """A JSON object with one of these fields."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("one of several was to be given")
        return self


def read(record: type[R], content: bytes) -> R:
    """Raises ValueError that names the place and what stands there, in one safe line."""
    try:
        return record.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = shown(".".join(str(part) for part in first["loc"][-4:]))[1:-1]
        raise ValueError(f"{place}: {_reason(first)}" if place else _reason(first)) from None


def _reason(error: ErrorDetails) -> str:
    if error["type"] == "value_error":  # one of petra's own
        return error["msg"].removeprefix("Value error, ")
    if error["type"] in ("json_invalid", "missing"):
        return error["msg"]
    if error["type"] == "extra_forbidden":
        return f"no exported program has this; it says {shown(error['input'])}"
    return f"{error['msg'][:200]}, not {shown(error['input'])}"
