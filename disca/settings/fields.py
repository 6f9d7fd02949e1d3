"""How a setting is written down: once, with its type, limits, default and what it is.

A YAML file, a node's inputs and code all go by that.
"""

import os
import re
from typing import Annotated, Any, get_args

from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import ArgsKwargs

from ..limits import LONGEST_NAME, require_here, require_text
from ..messages import quoted

MANY = 10_000_000  # iterations
MOST_SEED = 0xFFFFFFFF  # of the nodes: what is drawn takes a million times as much and stays below 64 bits
MOST_LISTED = 64
FOLDER = "folder"  # in pydantic's context: paths are relative to it, and must be there


def fields_of(section: type) -> dict[str, FieldInfo]:
    """A section's settings by their names."""
    return section.__pydantic_fields__


def limits_of(field: FieldInfo) -> tuple[float, float]:
    """Between what a number lies, or each of a list."""
    inner = field if field.annotation in (int, float) else FieldInfo.from_annotation(get_args(field.annotation)[0])
    (least,) = (limit.ge for limit in inner.metadata if isinstance(limit, Ge))
    (most,) = (limit.le for limit in inner.metadata if isinstance(limit, Le))
    return least, most


def limits(least: float, most: float) -> Any:
    """That a number is from least to most, and no text or flag."""
    return Field(ge=least, le=most, strict=True)


def require_rising(name: str, ends: tuple[float, float]) -> None:
    """ValueError if a range goes down."""
    low, high = ends
    if low > high:
        raise ValueError(f"{quoted(name)} goes from {low:g} down to {high:g}. Write the smaller number first.")


def number(default: float, least: float, most: float, description: str, step: float = 1) -> Any:
    """A number from least to most; the interface moves it by the step."""
    return Field(default, ge=least, le=most, strict=True, description=description, json_schema_extra={"step": step})


def _text(value: Any, info: ValidationInfo) -> Any:
    require_text(info.field_name, value)
    return value


Text = Annotated[str, BeforeValidator(_text)]


def location(exists: bool = True, remote: bool = False, needed: bool = False) -> AfterValidator:
    """That a text is a path: one that exists before the run, may be a url, or has to be named."""

    def located(value: str, info: ValidationInfo) -> str:
        name, folder = info.field_name, (info.context or {}).get(FOLDER)
        if not remote:
            require_here(name, value)
        if folder is None or "://" in value:
            return value
        if not value and needed:
            raise ValueError(f"{quoted(name)} is empty. Name a path.")
        return _absolute(name, value, folder, exists) if value else value

    return AfterValidator(located)


def _absolute(name: str, value: str, folder: str, exists: bool) -> str:
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in re.split(r"[/\\]", value)):
        raise ValueError(f"{quoted(name)} has a name of more than {LONGEST_NAME} bytes in it. Shorten it.")
    absolute = os.path.normpath(os.path.join(folder, os.path.expanduser(value)))
    if exists and not os.path.exists(absolute):
        raise ValueError(
            f"{quoted(name)} is {quoted(value)}, but there is nothing at {quoted(absolute)}. Correct the path."
        )
    return absolute


def with_preset(given: Any, presets: dict[str, dict[str, Any]]) -> Any:
    """What a section is made of, filled up from the preset that it names."""
    values = given.kwargs if isinstance(given, ArgsKwargs) else given
    if not isinstance(values, dict):
        return given
    values = presets.get(str(values.get("preset")), {}) | values
    return ArgsKwargs(given.args, values) if isinstance(given, ArgsKwargs) else values
