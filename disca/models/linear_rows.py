"""Some rows of a linear layer, without what the others would cost."""

import comfy.ops
import torch
from torch import Tensor, nn

from ..weightless import is_weightless

CASTING = (comfy.ops.disable_weight_init.Linear, comfy.ops.manual_cast.Linear)
PLAIN = (nn.Linear, *CASTING)  # a subclass may compute in another way


def has_plain_rows(linear: nn.Module) -> bool:
    """Whether the layer is a product with a plain weight, so that rows of it can run alone.

    Not with a weight of a type of its own (products in fp8 or NVFP4, GGUF), nor with a hook or another forward (a LoRA
    beside the weight). A LoRA on the weight is no obstacle, put on before or in the layer's turn.
    """
    changed = "forward" in vars(linear) or linear._forward_hooks or linear._forward_pre_hooks
    plain = type(linear.weight) in (Tensor, nn.Parameter) or is_weightless(linear.weight)
    return type(linear) in PLAIN and plain and not changed


def rows_from(linear: nn.Module, first: int, x: Tensor) -> Tensor:
    """What the layer's rows from the first on make of x: [..., out - first]."""
    if not isinstance(linear, CASTING):
        return _product(x, linear.weight, linear.bias, first)
    weight, bias, stream = comfy.ops.cast_bias_weight(linear, x, offloadable=True)
    made = _product(x, weight, bias, first)
    comfy.ops.uncast_bias_weight(linear, weight, bias, stream)
    return made


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, first: int) -> Tensor:
    return torch.nn.functional.linear(x, weight[first:], None if bias is None else bias[first:])
