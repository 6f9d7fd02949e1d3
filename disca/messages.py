"""Text from outside (widgets, file names, keys, captions), made fit to stand in a message."""

import os
import reprlib

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 160
_REPR.maxlevel, _REPR.maxlist, _REPR.maxtuple, _REPR.maxdict = 2, 8, 8, 8


def quoted(value: object) -> str:
    """The repr of what came from outside, cut to a line: no control character, no lone surrogate, no megabytes.

    ComfyUI's log cannot encode a lone surrogate, and its prompt thread ends on one.
    """
    return _REPR.repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
