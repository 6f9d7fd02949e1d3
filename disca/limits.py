"""What may stand in a widget, a prompt or a YAML file: one sentence for each way in which a value can be wrong."""

import math
from collections.abc import Collection
from numbers import Integral, Real

from .messages import listing, quoted

MOST_TEXT = 100_000  # characters
LONGEST_NAME = 255  # bytes of a file's name, on every usual disk
MOST_NAME = 150  # bytes of a run's or dataset's: there is room for what is made in it
RESERVED = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}  # on Windows, with any ending
RESERVED |= {f"{port}{number}" for port in ("COM", "LPT") for number in "123456789\u00b9\u00b2\u00b3"}
FORBIDDEN = set('<>:"|?*')  # in file names on Windows

# What a user chooses from. Saved workflows hold these words: add at the end, never rename.
WEIGHT_DTYPES = ("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")  # as in core's Load Diffusion Model
CACHE_DEVICES = ("auto", "gpu", "cpu")
ATTENTION = ("comfy", "auto", "cudnn")  # comfy: left as it is


def require_number(
    name: str, value: object, whole: bool, least: float | None = None, most: float | None = None, below: bool = False
) -> None:
    """ValueError unless it is a finite number from least to most, or below most; a whole one if that is wanted."""
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    fits = fits and (whole or _is_finite(value))
    if not fits:
        kind = "a whole number" if whole else "a finite number"
        raise ValueError(f"{quoted(name)} is {quoted(value)}, but must be {kind}.")
    if least is not None and value < least:
        raise ValueError(f"{quoted(name)} is {quoted(value)}, but must be at least {quoted(least)}.")
    if most is not None and (value >= most if below else value > most):
        limit = "less than" if below else "at most"
        raise ValueError(f"{quoted(name)} is {quoted(value)}, but must be {limit} {quoted(most)}.")


def require_text(name: str, value: object) -> None:
    """ValueError unless it is a text that a file can hold: no lone surrogate, no NUL, no megabytes."""
    if not isinstance(value, str):
        raise ValueError(f"{quoted(name)} is {quoted(value)}, but must be a text.")
    if len(value) > MOST_TEXT:
        raise ValueError(f"{quoted(name)} has {len(value)} characters, but may have {MOST_TEXT}. Shorten it.")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(
            f"{quoted(name)} is {quoted(value)}, with characters in it that no file can hold. Remove them."
        )


def require_here(name: str, value: str) -> None:
    """ValueError if it is a url, of which the file system would make folders of odd names."""
    if "://" in value:
        raise ValueError(f"{quoted(name)} is {quoted(value)}, which is not on this machine. Give a path that is.")


def require_flag(name: str, value: object) -> None:
    """ValueError unless it is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{quoted(name)} is {quoted(value)}, but must be true or false.")


def require_choice(name: str, value: object, options: Collection[str]) -> None:
    """ValueError that lists the options unless it is one of them."""
    if not any(value == option for option in options):
        raise ValueError(
            f"{quoted(name)} is {quoted(value)}, but must be one of {listing(list(options), 20)}. Choose one of them."
            if options
            else f"{quoted(name)} is {quoted(value)}, but there is nothing to choose from."
        )


def require_folder_name(name: str, value: object) -> None:
    """ValueError unless it names a folder, or one in another, on every system, and none above the place it is for."""
    require_text(name, value)
    if len(value.encode()) > MOST_NAME:
        raise ValueError(
            f"{quoted(name)} has {len(value.encode()):d} bytes, but a folder's name may have {MOST_NAME}. Shorten it."
        )
    if not all(map(_is_name, value.replace("\\", "/").split("/"))):
        raise ValueError(
            f"{quoted(name)} is {quoted(value)}, which cannot be a folder's name on every system. "
            "Give one such as 'my_cats', of letters, digits, dashes and underscores."
        )


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is larger than all others
        return False


def _is_name(part: str) -> bool:
    plain = part.isprintable() and part == part.strip() and part.rstrip(".") == part != ""
    return plain and not FORBIDDEN & set(part) and part.partition(".")[0].rstrip().upper() not in RESERVED
