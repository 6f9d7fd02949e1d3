"""Text from outside (widgets, file names, keys, captions), made fit to stand in a message."""

import os
import reprlib
from collections.abc import Callable, Sequence

MAX_CHARACTERS = 2000  # of another's error

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 160
_REPR.maxlevel, _REPR.maxlist, _REPR.maxtuple, _REPR.maxdict = 2, 8, 8, 8


def quoted(value: object) -> str:
    """The repr of what came from outside, cut to a line: no control character, no lone surrogate, no megabytes.

    ComfyUI's log cannot encode a lone surrogate, and its prompt thread ends on one.
    """
    try:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        text = _REPR.repr(value)
        if isinstance(value, str) and value.isprintable():  # nothing else is escaped: Windows paths as they are typed
            text = text.replace("\\\\", "\\")
    except Exception:  # a number too long to be written, or a type whose repr fails
        text = f"a value of type {type(value).__name__}"
    return cause(" ".join(text.split("\n")))


def listing(values: Sequence[object], most: int = 8, shown: Callable[[object], str] = quoted) -> str:
    """The first of them as `shown`, and how many more there are."""
    first = ", ".join(map(shown, values[:most]))
    return first + (f" and {len(values) - most} more" if len(values) > most else "")


def cause(error: object, encoding: str = "utf-8") -> str:
    """What an error or another program says, for a message: its lines are kept, what cannot be encoded is escaped."""
    text = str(error)
    if len(text) > MAX_CHARACTERS:
        text = text[: MAX_CHARACTERS // 2] + " ... " + text[-MAX_CHARACTERS // 2 :]
    text = "".join(letter if letter == "\n" or letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return text.encode(encoding, "backslashreplace").decode(encoding)
