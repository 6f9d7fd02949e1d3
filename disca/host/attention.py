"""The attention kernel: ComfyUI's choice, or PyTorch's cuDNN attention where that is faster.

On Hopper cuDNN runs HunyuanVideo's shapes much faster than the flash kernel that ComfyUI prefers. `auto` does not go
by the card's name: it times both once for each shape that a run really has.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

OVERRIDE = "optimized_attention_override"  # ComfyUI's key in transformer_options
REPEATS = 3

_measured: dict[tuple, bool] = {}  # is cuDNN faster, by case: a fact about the machine, not state of a run


def choose_attention(model: ModelPatcher, choice: str) -> ModelPatcher:
    """A clone of the MODEL with `auto` or `cudnn`; another node's override is what the kernel is compared with."""
    model = model.clone()
    options = model.model_options["transformer_options"] = model.model_options["transformer_options"].copy()
    earlier = options.get(OVERRIDE)
    inner = earlier.inner if isinstance(earlier, AttentionOverride) else earlier
    options[OVERRIDE] = AttentionOverride(choice, inner)
    return model


@dataclass(frozen=True)
class AttentionOverride:
    """Called by ComfyUI in place of each attention, with the function that it would have called."""

    choice: str
    inner: Callable | None = None

    @torch.compiler.disable  # it measures and asks the device, which compiled blocks cannot
    def __call__(self, attend: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, **options) -> Tensor:
        def comfys() -> Tensor:
            return self.inner(attend, q, k, v, heads, **options) if self.inner else attend(q, k, v, heads, **options)

        def cudnns() -> Tensor:
            return cudnn_attention(q, k, v, options.get("skip_output_reshape", False))

        if not _cudnn_can(q, k, v, options):
            return comfys()
        if self.choice == "auto" and not _cudnn_is_faster(q, k, (attend, self.inner), cudnns, comfys):
            return comfys()
        return cudnns()


def cudnn_attention(q: Tensor, k: Tensor, v: Tensor, keep_heads: bool = False) -> Tensor:
    """Attention over [B, heads, L, d] by cuDNN, as [B, L, heads·d], or [B, heads, L, d] with `keep_heads`."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        out = scaled_dot_product_attention(q, k, v)
    return out if keep_heads else out.transpose(1, 2).flatten(2)


def _cudnn_can(q: Tensor, k: Tensor, v: Tensor, options: dict) -> bool:
    """Whether this is plain attention in a layout, type and size that cuDNN has a kernel for."""
    plain = options.get("skip_reshape") and options.get("mask") is None and options.get("scale") is None
    if not plain or q.device.type != "cuda" or options.get("enable_gqa") or torch.version.hip is not None:
        return False
    parameters = torch.backends.cuda.SDPAParams(q, k, v, None, 0.0, False, False)
    return torch.backends.cuda.can_use_cudnn_attention(parameters)


def _cudnn_is_faster(q: Tensor, k: Tensor, rivals: tuple, cudnns: Callable, comfys: Callable) -> bool:
    case = (q.shape, k.shape, q.stride(), q.dtype, q.device, *rivals)
    if case not in _measured:
        _measured[case] = _seconds(cudnns) < _seconds(comfys)
    return _measured[case]


def _seconds(attend: Callable) -> float:
    attend()  # picks its kernel
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(REPEATS):
        attend()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)
