"""ComfyUI's timestep embedding in double precision, for golden runs only.

Its own takes `exp` in float32, whose last bit differs between math libraries, and times up to 6,000 make that 6e-5.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from comfy.ldm.flux import layers
from comfy.ldm.hunyuan_video import model
from comfy_api.v0_0_2 import ComfyExtension
from torch import Tensor


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000, time_factor: float = 1000.0) -> Tensor:
    """ComfyUI's embedding: its product of time and factor, then all in float64, rounded once at the end."""
    t = time_factor * t
    half = torch.arange(dim // 2, dtype=torch.float64, device=t.device)
    angles = t[:, None].double() * torch.exp(half * (-math.log(max_period) / len(half)))
    return torch.cat([angles.cos(), angles.sin()], dim=-1).to(t if torch.is_floating_point(t) else torch.float32)


@contextmanager
def double_embedding() -> Iterator[None]:
    """ComfyUI embeds times in double precision in this block."""
    with patch.object(layers, "timestep_embedding", timestep_embedding):
        with patch.object(model, "timestep_embedding", timestep_embedding):
            yield


async def comfy_entrypoint() -> ComfyExtension:
    """Called by the ComfyUI of a test's server, which embeds so from then on."""
    layers.timestep_embedding = model.timestep_embedding = timestep_embedding
    return NoNodes()


class NoNodes(ComfyExtension):
    """An extension that offers nothing."""

    async def get_node_list(self) -> list:
        """No nodes."""
        return []
