"""The kinds of adapters that trainers write for a layer: what each has, how large a weight it is for, what it needs.

LoRA with or without a Tucker core and a bias, LoHa, LoKr, GLoRA, OFT, BOFT, whole differences and whole weights; each
low-rank kind may have a magnitude (DoRA). Their mathematics is ComfyUI's, under whose names the tensors are given.
"""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from ..messages import quoted
from .files import Shape

NEEDS = {  # kind -> what tells it
    "LoRA": ("lora_up.weight", "lora_down.weight"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "LoKr": ("lokr_w1", "lokr_w1_a", "lokr_w2", "lokr_w2_a"),
    "GLoRA": ("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
    "OFT": ("oft_blocks",),
    "difference": ("diff", "w_norm"),
    "weight": ("set_weight",),
}
WHOLE_KINDS = ("difference", "weight")
FACTORS = ("LoRA", "LoHa", "LoKr", "difference")  # what is added is a product of the tensors
CONVOLUTION = ("hada_t1", "hada_t2", "lokr_t2")  # ComfyUI has these for two dimensions, HunyuanVideo's layer has three

Tensors = dict[str, Tensor]


class Adapter(NamedTuple):
    """What is done to a weight or a bias, in the tensors that ComfyUI reads."""

    kind: str
    tensors: Tensors
    rows: int
    columns: int | None  # of the flattened weight; None: any
    magnitude: Tensor | None = None  # DoRA
    rescale: Tensor | None = None  # OFT, BOFT


class UnfitError(Exception):
    """An adapter that cannot be right, with the reason."""


def weight_adapter(tensors: Tensors) -> Adapter | None:
    """What the tensors of a layer do to its weight; None if nothing, UnfitError if it cannot be right."""
    kinds = [kind for kind, names in NEEDS.items() if any(name in tensors for name in names)]
    if not kinds:
        return None
    if len(kinds) > 1:
        raise UnfitError(f"{' and '.join(kinds)} at once")
    kind = kinds[0]
    if any(name in tensors for name in CONVOLUTION) or (
        kind in ("LoHa", "LoKr", "GLoRA") and any(tensor.ndim > 2 for tensor in tensors.values())
    ):
        raise UnfitError(f"{kind} of a convolution")
    if "alpha" in tensors and tensors["alpha"].numel() != 1:
        raise UnfitError("an alpha that is not one number")
    if kind in WHOLE_KINDS:
        (tensor,) = (tensors[name] for name in NEEDS[kind] if name in tensors)
        name = "diff" if kind == "difference" else "set_weight"
        return Adapter(kind, {name: tensor}, *_flattened(tensor.shape))
    own = {name: tensor for name, tensor in tensors.items() if name in (*ALL_NAMES[kind], "alpha")}
    if kind == "LoRA":
        own = _without_tucker(own)
    rows, columns = EXTENTS[kind](own)
    if kind == "OFT":
        constraint = own.pop("alpha", torch.zeros(())).float()  # the trainers multiply it by the number of rows
        own["alpha"] = constraint.reshape(()) * rows
    return Adapter(kind, own, rows, columns, tensors.get("dora_scale"), tensors.get("rescale"))


def bias_adapter(tensors: Tensors) -> Adapter | None:
    """What the tensors of a layer do to its bias; None if nothing, UnfitError if it cannot be right."""
    found = [name for name in ("diff_b", "b_norm", "lora_up.bias") if name in tensors]
    if not found:
        return None
    if len(found) > 1:
        raise UnfitError(f"{' and '.join(found)} at once")
    difference = tensors[found[0]]
    if found[0] == "lora_up.bias" and "alpha" in tensors and "lora_down.weight" in tensors:
        difference = difference.float() * (tensors["alpha"].float().reshape(()) / len(tensors["lora_down.weight"]))
    return Adapter("difference", {"diff": difference}, *_flattened(difference.shape))


def swapped_halves(adapter: Adapter) -> Adapter:
    """The adapter of a layer whose two halves of rows stand the other way round; UnfitError if it has no such rows."""
    name = {"LoRA": "lora_up.weight", "difference": "diff", "weight": "set_weight"}.get(adapter.kind)
    if name is None or adapter.rows % 2:
        raise UnfitError(f"{quoted(adapter.kind)} of diffusers' norm_out")

    def swap(tensor: Tensor) -> Tensor:
        return torch.cat(tensor.chunk(2)[::-1])

    magnitude = adapter.magnitude
    if magnitude is not None and len(magnitude) == adapter.rows:
        magnitude = swap(magnitude)
    return adapter._replace(tensors={**adapter.tensors, name: swap(adapter.tensors[name])}, magnitude=magnitude)


def magnitude_for(adapter: Adapter, shape: Shape) -> Tensor | None:
    """The magnitude, shaped so that it stands beside the norms it is for: one of each row, or of each input."""
    found = adapter.magnitude
    if found is None:
        return None
    of_inputs = len(shape) > 1 and found.ndim > 1 and found.shape[0] == 1 and found.numel() == shape[1]
    if not of_inputs and found.numel() != shape[0]:
        raise UnfitError(f"a magnitude of {quoted(list(found.shape))} for a weight of {quoted(list(shape))}")
    ones = [1] * len(shape)
    ones[1 if of_inputs else 0] = -1
    return found.reshape(ones)


def changes_nothing(adapter: Adapter) -> bool:
    """Whether it leaves each weight as it is: its alpha is 0, or one of the factors has only zeros."""
    tensors = adapter.tensors
    if adapter.kind not in FACTORS or adapter.magnitude is not None:
        return False
    scaled = adapter.kind != "LoKr" or any(name.endswith("_a") for name in tensors)  # whole factors have no rank
    if "alpha" in tensors and scaled and not tensors["alpha"].float().any():
        return True
    return not all(tensor.float().any() for name, tensor in tensors.items() if name != "alpha")


def _lora(tensors: Tensors) -> tuple[int, int | None]:
    up, down = _all(tensors, NEEDS["LoRA"])
    if prod(up.shape[1:]) != len(down):
        raise UnfitError(f"up of {quoted(list(up.shape))} and down of {quoted(list(down.shape))}")
    return len(up), prod(down.shape[1:])


def _loha(tensors: Tensors) -> tuple[int, int | None]:
    extents = set()
    for half in ("1", "2"):
        a, b = _all(tensors, (f"hada_w{half}_a", f"hada_w{half}_b"))
        if a.shape[1] != b.shape[0]:
            raise UnfitError("halves of different ranks")
        extents.add((a.shape[0], b.shape[1]))
    if len(extents) > 1:
        raise UnfitError("halves of different sizes")
    return extents.pop()


def _lokr(tensors: Tensors) -> tuple[int, int | None]:
    rows = columns = 1
    for number in ("1", "2"):
        name = f"lokr_w{number}"
        names = (name, name) if name in tensors else (f"{name}_a", f"{name}_b")
        a, b = _all(tensors, names)
        if name not in tensors and a.shape[1] != b.shape[0]:
            raise UnfitError("factors of different ranks")
        rows, columns = rows * a.shape[0], columns * b.shape[1]
    return rows, columns


def _glora(tensors: Tensors) -> tuple[int, int | None]:
    a1, a2, b1, b2 = _all(tensors, NEEDS["GLoRA"])
    if b2.shape[0] == b1.shape[1] == a1.shape[1] == a2.shape[0]:
        rows, columns, outer = b1.shape[0], b2.shape[1], (a1.shape[0], a2.shape[1])
    elif b2.shape[1] == b1.shape[0] == a1.shape[0] == a2.shape[1]:  # older LyCORIS
        rows, columns, outer = b2.shape[0], b1.shape[1], (a1.shape[1], a2.shape[0])
    else:
        raise UnfitError("factors of different ranks")
    if outer != (columns, columns):
        raise UnfitError("factors for another width")
    return rows, columns


def _oft(tensors: Tensors) -> tuple[int, int | None]:
    blocks = tensors["oft_blocks"]
    if blocks.ndim not in (3, 4) or blocks.shape[-1] != blocks.shape[-2] or not blocks.numel():
        raise UnfitError(f"blocks of {quoted(list(blocks.shape))}")
    rows = blocks.shape[-3] * blocks.shape[-1]
    if blocks.ndim == 4 and (blocks.shape[-1] % 2 or rows % (2 ** (len(blocks) - 1) * blocks.shape[-1])):
        raise UnfitError(f"blocks of {quoted(list(blocks.shape))}")
    return rows, None


EXTENTS = {"LoRA": _lora, "LoHa": _loha, "LoKr": _lokr, "GLoRA": _glora, "OFT": _oft}
ALL_NAMES = {**NEEDS, "LoRA": (*NEEDS["LoRA"], "lora_mid.weight"), "LoKr": (*NEEDS["LoKr"], "lokr_w1_b", "lokr_w2_b")}


def _without_tucker(tensors: Tensors) -> Tensors:
    """The core of a Tucker decomposition worked into the down weight: a plain LoRA, of any number of dimensions."""
    core = tensors.pop("lora_mid.weight", None)
    if core is None:
        return tensors
    (down,) = _all(tensors, ("lora_down.weight",))
    if core.ndim < 2 or core.shape[1] != len(down) or prod(down.shape[2:]) != 1:
        raise UnfitError(f"a core of {quoted(list(core.shape))} for down of {quoted(list(down.shape))}")
    down = torch.einsum("mn...,nj->mj...", core.float(), down.float().flatten(1))
    return {**tensors, "lora_down.weight": down}


def _all(tensors: Tensors, names: tuple[str, ...]) -> list[Tensor]:
    missing = [name for name in names if name not in tensors]
    if missing:
        raise UnfitError(f"no {' and '.join(missing)}")
    if any(tensors[name].ndim < 2 or not tensors[name].numel() for name in names):
        raise UnfitError("factors that are no matrices")
    return [tensors[name] for name in names]


def _flattened(shape: Shape) -> tuple[int, int]:
    return (shape[0] if shape else 1), prod(shape[1:])
