"""What is to be compared, as a user writes it: a line for each method, its settings, and the steps to run in full.

DisCa at 0 1 2 5 9 13 17 19
TaylorSeer-Lite order=1 interval=3
TeaCache preset="fast"
plain steps=8
"""

import difflib
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_origin

from ...messages import cause, listing, quoted
from ...methods import METHODS
from ...methods.scheduled.lesa import LesaCache
from ...methods.seam.anchors import AtAnchors
from ...methods.seam.cache import Cache
from ...methods.seam.method import Method
from ...models.lesa_file import LesaSpec
from ...schedule import Schedule, parse_anchors
from ...settings.fields import fields_of
from ...weights.predictor_spec import PredictorSpec

if TYPE_CHECKING:
    from ...models.checks import LoadedLesa, LoadedPredictor

    Learned = LoadedPredictor | LoadedLesa

PLAIN = "plain"  # the model as it is
DISCA = "DisCa"
LEARNED = {DISCA: PredictorSpec, LesaCache.name: LesaSpec}  # those that answer with a file of the user's
NAMES = (PLAIN, *LEARNED, *(name for name in METHODS if name not in LEARNED))
MOST_STEPS, MOST_ENTRIES, MOST_LETTERS = 1000, 64, 20_000
WRITE = "Write a line for each, such as 'TaylorSeer-Lite order=1 at 0-2, 5, 9' or 'plain steps=8'."
VALUES = {"true": True, "false": False}


@dataclass(frozen=True)
class Entry:
    """A method to compare."""

    text: str  # as it was written, in one line
    name: str
    cache: Cache | None = None  # None: the plain model, or one of LEARNED
    full: Schedule | None = None  # steps to run in full in place of its own rule
    steps: int | None = None  # of the plain model's run

    def method(self) -> Method:
        """The method of a cache."""
        return self.cache.method(None if self.full is None else AtAnchors(self.full))

    def require(self, steps: int, predictor: "Learned | None") -> None:
        """ValueError unless it can be run in so many steps, with what is connected."""
        if self.full is not None:
            self.full.of(steps)
        kind = LEARNED.get(self.name)
        if kind is not None and not isinstance(getattr(predictor, "spec", None), kind):
            found = "none is given" if predictor is None else f"{predictor.spec.described} is"
            raise ValueError(
                f"{quoted(self.text)} needs a Predictor for it, but {found}. Give it one, or take the line out."
            )


def read_entries(text: str, full: Schedule | None = None) -> list[Entry]:
    """The lines that are no comments; ValueError for one that cannot be read. DisCa without a list goes by `full`."""
    if len(text) > MOST_LETTERS:
        raise ValueError(f"The list of methods has {len(text):d} letters, but may have {MOST_LETTERS:d}. Shorten it.")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ValueError(f"The list of methods is empty. {WRITE}")
    if len(lines) > MOST_ENTRIES:
        raise ValueError(f"The list has {len(lines):d} methods, but may have {MOST_ENTRIES:d}. Take some out.")
    if again := next((line for line in lines if lines.count(line) > 1), None):
        raise ValueError(f"{quoted(again)} is in the list of methods twice. Take one out.")
    return [read_entry(cause(line), full) for line in lines]


def read_entry(line: str, full: Schedule | None = None) -> Entry:
    """One line."""
    said, steps = re.fullmatch(r"(.*?)(?: at\b(.*))?", line).groups()
    at = None if steps is None else parse_anchors(steps)
    try:
        name, *settings = shlex.split(said)
    except ValueError as error:
        raise ValueError(f"Cannot read {quoted(line)} in the list of methods: {cause(error)}. {WRITE}") from None
    _require_name(name)
    given = dict(_setting(name, setting) for setting in settings)
    if name == PLAIN:
        return _plain(line, given, at)
    if name not in LEARNED:
        return Entry(line, name, _cache(name, given), at)
    if given:
        raise ValueError(f"{quoted(name)} has no settings, but {quoted(line)} sets {listing([*given])}. {WRITE}")
    if at is None and full is None:
        raise ValueError(f"Which steps should {quoted(name)} run in full? Write such as 'DisCa at 0 1 2 5 9 13 17 19'.")
    return Entry(line, name, full=at or full)


def _plain(line: str, given: dict[str, Any], at: Schedule | None) -> Entry:
    steps = given.pop("steps", None)
    if given or at is not None or type(steps) is not int or not 1 <= steps <= MOST_STEPS:
        raise ValueError(
            f"{quoted(line)} is no run of the plain model. Give it a number of steps from 1 to {MOST_STEPS:d} and "
            "nothing else, such as 'plain steps=8'."
        )
    return Entry(line, PLAIN, steps=steps)


def _require_name(name: str) -> None:
    if name in NAMES:
        return
    near = difflib.get_close_matches(name, NAMES, n=1)
    known = f"Did you mean {quoted(near[0])}?" if near else f"There are {listing(NAMES, len(NAMES))}."
    raise ValueError(f"{quoted(name)} in the list of methods is none. {known}")


def _setting(name: str, text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(
            f"Cannot read {quoted(text)} behind {quoted(name)}. Write settings such as order=1, without spaces around "
            "'=', and steps in full behind 'at'."
        )
    return key, _value(value)


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return VALUES.get(text.lower(), text)


def _cache(name: str, given: dict[str, Any]) -> Cache:
    """The settings, on top of those of a preset if one is named."""
    kind = METHODS[name]
    preset = given.pop("preset", None)
    if preset is not None and preset not in kind.presets:
        raise ValueError(f"{quoted(name)} has no preset {quoted(preset)}. It has {listing([*kind.presets], 20)}.")
    many = {key for key, field in fields_of(kind).items() if get_origin(field.annotation) is tuple}
    given = {key: _numbers(key, value) if key in many else value for key, value in given.items()}
    return kind(**{**kind.presets.get(preset, {}), **given})


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in str(value).split(","))
    except ValueError:
        raise ValueError(f"{quoted(key)} is {quoted(value)}, but must be numbers with commas between them.") from None
