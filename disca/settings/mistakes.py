"""What pydantic finds wrong in settings, as a sentence that says what was found and what is needed."""

import difflib
from collections.abc import Collection
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError

from ..messages import cause, listing, quoted
from .fields import fields_of

UNKNOWN = "unexpected_keyword_argument"
NEEDED = {  # by pydantic's type of the error
    "int_type": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_too_long": "at most {max_length:,} characters long",
    "literal_error": "one of {expected}",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "dataclass_type": "written as 'key: value' lines",
}

Keys = tuple[str | int, ...]


class Mistake(NamedTuple):
    """The first that is wrong."""

    place: Keys  # from the outermost group on; a number: of an entry in a list
    sentence: str
    by_key: bool  # the key itself is none, whatever it holds


def first_mistake(error: ValidationError, section: type) -> Mistake:
    """What to say of the error; a key that is none goes first: it may be why another lacks."""
    found = min(error.errors(include_url=False), key=lambda one: one["type"] != UNKNOWN)
    place = found["loc"]
    if place and isinstance(place[0], int):  # handed over by position
        place = ([*fields_of(section)][place[0]], *place[1:])
    return Mistake(place, _sentence(found, place, section), found["type"] == UNKNOWN)


def _sentence(found: dict[str, Any], place: Keys, section: type) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "value_error":
        return cause(context["error"])
    if kind == UNKNOWN:
        known = fields_of(_at(place[:-1], section))
        return f"{quoted(place[-1])} is not a key of {_called(place[:-1])}. {_suggestion(str(place[-1]), known)}"
    if kind == "missing" and isinstance(place[-1], str):
        return f"{_called(place[:-1])} needs the key {quoted(place[-1])}."
    needed = NEEDED.get(kind, "")
    if kind == "missing":
        needed = f"a list of {len(get_args(_at(place[:-1], section))):d} numbers"
    if not needed:
        return f"{_called(place)} is {quoted(found['input'])}. {cause(found['msg'])}."
    return f"{_called(place)} is {quoted(found['input'])}, but must be {needed.format(**context)}."


def _at(place: Keys, section: type) -> Any:
    for key in place:
        section = get_args(section)[0] if isinstance(key, int) else fields_of(section)[key].annotation
    return section


def _called(place: Keys) -> str:
    keys = [key for key in place if isinstance(key, str)]
    return quoted(keys[-1]) if keys else "the run"


def _suggestion(key: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean {quoted(near[0])}?" if near else f"Its keys are {listing([*known], 20)}."
