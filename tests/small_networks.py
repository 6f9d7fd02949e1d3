"""Small HunyuanVideos of the real class with random weights, and inputs for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.ldm.hunyuan_video.model
import comfy.model_management
import comfy.ops
import torch
from torch import Tensor, nn

SHARED = {
    "image_model": "hunyuan_video",
    "context_in_dim": 24,
    "hidden_size": 32,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "axes_dim": [4, 6, 6],
    "theta": 256,
    "qkv_bias": True,
    "meanflow": True,
    "meanflow_sum": False,
}
SHAPES = {
    "1.0": {
        "in_channels": 4,
        "out_channels": 4,
        "vec_in_dim": 8,
        "depth": 2,
        "depth_single_blocks": 2,
        "patch_size": [1, 2, 2],
        "guidance_embed": True,
        "byt5": False,
        "use_cond_type_embedding": False,
        "vision_in_dim": None,
    },
    "1.5": {
        "in_channels": 4,
        "out_channels": 4,
        "vec_in_dim": None,
        "depth": 3,
        "depth_single_blocks": 0,
        "patch_size": [1, 1, 1],
        "guidance_embed": False,
        "byt5": False,
        "use_cond_type_embedding": True,
        "vision_in_dim": None,
    },
}


@contextmanager
def training_mode() -> Iterator[None]:
    """ComfyUI with rotary embeddings that have a gradient, as the training process sets it."""
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    try:
        yield
    finally:
        comfy.model_management.in_training = before


def network(family: str, dtype: torch.dtype = torch.float32, **changes) -> nn.Module:
    """The same small network of that family at each call."""
    shape = {**SHARED, **SHAPES[family], **changes}
    made = comfy.ldm.hunyuan_video.model.HunyuanVideo(**shape, dtype=dtype, operations=comfy.ops.manual_cast)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            scale = 0.3 if "_in." in name else 0.06  # times that are told apart
            drawn = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_(drawn + 1.0 if "norm" in name and name.endswith("weight") else drawn)
    return made


def inputs(family: str, dtype: torch.dtype = torch.float32, batch: int = 1) -> tuple[Tensor, Tensor, Tensor, dict]:
    """x_t, t, r and conditions for the network of that family."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    condition = {"context": draw(batch, 5, 24)}
    if family == "1.0":
        condition |= {"y": draw(batch, 8), "guidance": torch.full((batch,), 6.0)}
    times = torch.linspace(0.7, 0.4, batch)
    return draw(batch, 4, 2, 6, 4), times, times - 0.2, condition
