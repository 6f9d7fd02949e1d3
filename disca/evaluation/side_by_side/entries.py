"""What is to be compared, as a user writes it: a line for each method, its settings, and the steps to run in full.

DisCa at 0 1 2 5 9 13 17 19
TaylorSeer-Lite order=1 interval=3
TeaCache preset="DisCa, low speed"
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
    from ...models.checks import Learned

PLAIN = "plain"  # the model as it is
DISCA = "DisCa"
NEED_A_FILE = {DISCA: PredictorSpec, LesaCache.name: LesaSpec}  # those that answer with a network of the user's
NAMES = (PLAIN, *NEED_A_FILE, *(name for name in METHODS if name not in NEED_A_FILE))
MOST_STEPS, MOST_ENTRIES, MOST_LETTERS, MOST_LINE = 100, 64, 20_000, 1000
UNSEEN = "\ufeff\u200b\u200c\u200d\u2060"  # letters that an editor may leave
WRITE = "Write a line for each, such as 'TaylorSeer-Lite order=1 at 0-2, 5, 9' or 'plain steps=8'."
VALUES = {"true": True, "false": False}


@dataclass(frozen=True)
class Entry:
    """A method to compare."""

    text: str  # as it was written, in one line
    name: str
    cache: Cache | None = None  # None: the plain model, or one of NEED_A_FILE
    anchors: Schedule | None = None  # steps to run in full in place of its own rule
    steps: int | None = None  # of the plain model's run

    def method(self) -> Method:
        """The method of a cache."""
        return self.cache.method(None if self.anchors is None else AtAnchors(self.anchors))

    def require_steps(self, steps: int) -> None:
        """ValueError unless it can be run in so many steps."""
        if self.anchors is not None:
            self.anchors.of(steps)

    def require_predictor(self, predictor: "Learned | None") -> None:
        """ValueError if it needs another network than that, or one at all."""
        kind = NEED_A_FILE.get(self.name)
        if kind is not None and not isinstance(getattr(predictor, "spec", None), kind):
            found = "none is given" if predictor is None else f"{predictor.spec.described} is"
            raise ValueError(
                f"{quoted(self.text)} needs a Predictor for it, but {found}. Give it one, or take the line out."
            )


def read_entries(text: str, anchors: Schedule | None = None) -> list[Entry]:
    """The lines that are not comments; ValueError for one that cannot be read. DisCa without a list takes `anchors`."""
    if len(text) > MOST_LETTERS:
        raise ValueError(f"The list of methods has {len(text):d} letters, but may have {MOST_LETTERS:d}. Shorten it.")
    lines = [" ".join(line.split()) for line in text.translate(dict.fromkeys(map(ord, UNSEEN))).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ValueError(f"The list of methods is empty. {WRITE}")
    if len(lines) > MOST_ENTRIES:
        raise ValueError(f"The list has {len(lines):d} methods, but may have {MOST_ENTRIES:d}. Take some out.")
    if again := next((line for line in lines if lines.count(line) > 1), None):
        raise ValueError(f"{quoted(again)} is in the list of methods twice. Take one out.")
    return [read_entry(line, anchors) for line in lines]


def read_entry(line: str, anchors: Schedule | None = None) -> Entry:
    """One line of them."""
    if len(line) > MOST_LINE:
        raise ValueError(
            f"A line of the list of methods has {len(line):d} letters, but may have {MOST_LINE:d}: {quoted(line)}. "
            "Write steps as ranges, such as 0-99."
        )
    said, steps = re.fullmatch(r"(.*?)(?: at\b(.*))?", line).groups()
    at = None if steps is None else parse_anchors(steps)
    try:
        name, *settings = shlex.split(said)
    except ValueError as error:
        raise ValueError(f"Cannot read {quoted(line)} in the list of methods: {cause(error)}. {WRITE}") from None
    _require_name(name)
    given = _settings(name, settings)
    if name == PLAIN:
        return _plain(cause(line), given, at)
    if name not in NEED_A_FILE:
        return Entry(cause(line), name, _cache(name, given), at)
    if given:
        raise ValueError(f"{quoted(name)} has no settings, but {quoted(line)} sets {listing([*given])}. {WRITE}")
    if at is None and anchors is None:
        raise ValueError(f"Which steps should {quoted(name)} run in full? Write such as 'DisCa at 0 1 2 5 9 13 17 19'.")
    return Entry(cause(line), name, anchors=at or anchors)


def _plain(line: str, given: dict[str, Any], at: Schedule | None) -> Entry:
    steps = given.pop("steps", None)
    if given or at is not None or type(steps) is not int or not 1 <= steps <= MOST_STEPS:
        raise ValueError(
            f"{quoted(line)} is not a run of the plain model. Give it a number of steps from 1 to {MOST_STEPS:d} and "
            "nothing else, such as 'plain steps=8'."
        )
    return Entry(line, PLAIN, steps=steps)


def _require_name(name: str) -> None:
    if name in NAMES:
        return
    near = difflib.get_close_matches(name, NAMES, n=1)
    known = f"Did you mean {quoted(near[0])}?" if near else f"There are {listing(NAMES, len(NAMES))}."
    raise ValueError(f"{quoted(name)} in the list of methods is not a method. {known}")


def _settings(name: str, texts: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in (_setting(name, text) for text in texts):
        if key in found:
            raise ValueError(f"{quoted(name)} sets {quoted(key)} twice. Take one out.")
        found[key] = value
    return found


def _setting(name: str, text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(
            f"Cannot read {quoted(text)} after {quoted(name)}. Write settings such as order=1, without spaces around "
            "'=', and steps in full after 'at'."
        )
    return key, _value(value)


def _value(text: str) -> Any:
    for kind in () if not text.isascii() else (int, float):
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
    if unknown := next((key for key in given if key not in fields_of(kind)), None):
        near = difflib.get_close_matches(unknown, [*fields_of(kind)], n=1)
        known = f"Did you mean {quoted(near[0])}?" if near else f"It has {listing([*fields_of(kind)], 20)}."
        raise ValueError(f"{quoted(unknown)} is not a setting of {quoted(name)}. {known}")
    many = {key for key, field in fields_of(kind).items() if get_origin(field.annotation) is tuple}
    given = {key: _numbers(key, value) if key in many else value for key, value in given.items()}
    return kind(**{**kind.presets.get(preset, {}), **given})


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in str(value).split(","))
    except ValueError:
        raise ValueError(f"{quoted(key)} is {quoted(value)}, but must be numbers with commas between them.") from None
