"""Frozen weights of the blocks stored in 8 bits."""

import math

import torch
from torch import Tensor, nn

from ...models.family import family_of

FP8 = torch.float8_e4m3fn


class Scale:
    """Multiplies by a power of two, which is exact in every floating type."""

    def __init__(self, exponent: int):
        self.factor = 2.0**exponent

    def __call__(self, weight: Tensor) -> Tensor:
        return weight * self.factor


@torch.no_grad()
def store_fp8(network: nn.Module) -> int:
    """Stores the frozen linear weights of the blocks as float8_e4m3fn and gives their number.

    ComfyUI's layers cast them at each call (`comfy_cast_weights`), then undo the scale (`weight_function`). With it the
    largest value is near the type's largest: a plain cast puts most weights of a transformer among its subnormals.
    """
    count, prefixes = 0, family_of(network).prefixes
    for name, layer in network.named_modules():
        if not name.startswith(prefixes) or not isinstance(layer, nn.Linear):
            continue
        if layer.weight.requires_grad or layer.weight.dtype == FP8:
            continue
        exponent = _exponent(layer.weight)
        layer.weight = nn.Parameter((layer.weight.float() * 2.0**exponent).to(FP8), requires_grad=False)
        layer.comfy_cast_weights = True
        layer.weight_function = [Scale(-exponent), *layer.weight_function]
        count += 1
    return count


def _exponent(weight: Tensor) -> int:
    largest = weight.abs().max().float().item()
    return math.floor(math.log2(torch.finfo(FP8).max / largest)) if largest > 0 else 0
