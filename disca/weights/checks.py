"""Do the weights of a file fit a network, key by key and shape by shape?"""

from collections.abc import Mapping

import torch

from ..messages import listing, quoted
from .files import Shape


def require_fit(name: str, what: str, expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """ValueError that lists every missing, extra and misshapen key, unless both have the same keys and shapes."""
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    misshapen = [key for key in sorted(expected.keys() & found.keys()) if tuple(expected[key]) != tuple(found[key])]

    def shapes(key: str) -> str:
        return f"{quoted(key)} is {quoted(list(found[key]))} instead of {quoted(list(expected[key]))}"

    problems = [
        f"{len(keys)} {kind}: {listing(keys, shown=shown)}"
        for kind, keys, shown in (
            ("missing", missing, quoted),
            ("not known", extra, quoted),
            ("of another shape", misshapen, shapes),
        )
        if keys
    ]
    if problems:
        raise ValueError(f"{quoted(name)} does not fit {what}. {'; '.join(problems)}. Choose a file made for it.")


def require_once(name: str, twice: list[str]) -> None:
    """ValueError that lists the keys whose weight the file has under another key too, if there are any."""
    if twice:
        raise ValueError(
            f"{quoted(name)} holds {len(twice)} weights twice, under two names each: {listing(sorted(twice))}. "
            "Only one can be right: download the file again, or export it anew."
        )


def require_floating(name: str, dtypes: Mapping[str, torch.dtype]) -> None:
    """ValueError that names a weight of whole numbers, if there is one."""
    for key, dtype in dtypes.items():
        if not dtype.is_floating_point:
            kind = str(dtype).removeprefix("torch.")
            raise ValueError(
                f"{quoted(name)} has whole numbers ({quoted(kind)}) in {quoted(key)}, but weights are floating-point. "
                "Choose the fp32, bf16, fp16 or fp8 file."
            )
