"""du/dt along the flow: how the mean velocity changes as (x, t) moves with the velocity v while r stays.

DisCa writes it as a Jacobian-vector product with tangents (v, 1, 0) for (x, t, r) (Algorithm 2, line 7). A central
difference needs nothing special from attention, recomputation, sharding or fp8, and trains as well; dual numbers give
it exactly, through an attention that knows its own derivative.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import scaled_dot_product_attention

from ..contract.times import at_least_fp32, per_sample
from ..contract.velocity import Velocity

OVERRIDE = "optimized_attention_override"  # ComfyUI's key in transformer_options
CHUNK = 256  # query rows at a time: the tangent of attention needs the scores


@torch.no_grad()
def central_difference(u: Velocity, x_t: Tensor, t: Tensor, r: Tensor, v: Tensor, h: float = 0.01) -> Tensor:
    """[u(x + h·v, t + h, r) - u(x - h·v, t - h, r)] / 2h, one-sided where t + h > 1 or t - h < r."""
    after, before = (t + h).clamp(max=1.0), torch.maximum(t - h, r)
    forward = u(x_t + per_sample(after - t, x_t) * v, after, r)
    backward = u(x_t - per_sample(t - before, x_t) * v, before, r)
    return (at_least_fp32(forward) - at_least_fp32(backward)) / per_sample(after - before, x_t)


@torch.no_grad()
def dual_numbers(u: Velocity, x_t: Tensor, t: Tensor, r: Tensor, v: Tensor) -> Tensor:
    """The exact derivative by forward-mode differentiation; RuntimeError where no derivative came through."""
    with forward_ad.dual_level():
        x = forward_ad.make_dual(x_t, v.to(x_t.dtype))
        time = forward_ad.make_dual(t, torch.ones_like(t))
        out = u(x, time, r, transformer_options={OVERRIDE: attention_with_tangent})
        tangent = forward_ad.unpack_dual(out).tangent
        if tangent is None:
            raise RuntimeError(
                "The network passes no forward derivative, so dual numbers cannot be used here. "
                "Set meanflow.derivative to difference."
            )
        return at_least_fp32(tangent)


def attention_with_tangent(attend: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, **options) -> Tensor:
    """ComfyUI's attention over [B, heads, L, d] with a forward derivative, which no fused kernel of PyTorch has."""
    if not options.get("skip_reshape"):
        q, k, v = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (q, k, v))
    out = Attention.apply(q, k, v, options.get("mask"))
    return out if options.get("skip_output_reshape") else out.transpose(1, 2).flatten(2)


class Attention(torch.autograd.Function):
    """softmax(q·kᵀ/√d)·v by the fused kernel, and its tangent in closed form."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.mask = inputs
        ctx.save_for_forward(*tensors)

    @staticmethod
    def jvp(ctx, dq: Tensor | None, dk: Tensor | None, dv: Tensor | None, _: None) -> Tensor:
        q, k, v = ctx.saved_tensors
        dq, dk, dv = (torch.zeros_like(x) if dx is None else dx for x, dx in ((q, dq), (k, dk), (v, dv)))
        rows = range(0, q.shape[2], CHUNK)
        return torch.cat([_tangent(q, k, v, dq, dk, dv, ctx.mask, slice(i, i + CHUNK)) for i in rows], dim=2)


def _tangent(
    q: Tensor, k: Tensor, v: Tensor, dq: Tensor, dk: Tensor, dv: Tensor, mask: Tensor | None, rows: slice
) -> Tensor:
    scale = q.shape[-1] ** -0.5
    q, dq = q[:, :, rows], dq[:, :, rows]
    scores = q @ k.transpose(-1, -2) * scale
    if mask is not None:
        scores = scores + (mask[..., rows, :] if mask.shape[-2] > 1 else mask)
    p = scores.softmax(-1)  # [B, heads, chunk, L]
    ds = (dq @ k.transpose(-1, -2) + q @ dk.transpose(-1, -2)) * scale
    dp = p * (ds - (p * ds).sum(-1, keepdim=True))
    return dp @ v + p @ dv
