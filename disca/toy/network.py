"""A HunyuanVideo 1.0 of the real class, small enough to train on two cores."""

import comfy.ops
import torch
from comfy.ldm.hunyuan_video.model import HunyuanVideo
from torch import nn

from ..messages import quoted
from .world import CHANNELS, CONTEXT_WIDTH, POOLED_WIDTH

SIZES = {"small": (128, 2, 4), "tiny": (128, 1, 1)}  # name -> width, double blocks, single blocks
HEAD = 128  # of every HunyuanVideo
STILL = ("mod.lin", "modulation.lin", "adaLN_modulation", "final_layer.linear")  # begin at zero


def new_network(size: str, seed: int) -> nn.Module:
    """A network that draws nothing yet, in fp32: every block starts as the identity."""
    if size not in SIZES:
        raise ValueError(f"model.toy is {quoted(size)}, but the toy networks are {', '.join(SIZES)}. Set one of them.")
    width, double, single = SIZES[size]
    settings = {
        "in_channels": CHANNELS, "out_channels": CHANNELS, "patch_size": [1, 2, 2], "axes_dim": [16, 56, 56],
        "vec_in_dim": POOLED_WIDTH, "context_in_dim": CONTEXT_WIDTH, "hidden_size": width, "num_heads": width // HEAD,
        "mlp_ratio": 4.0, "depth": double, "depth_single_blocks": single, "theta": 256, "qkv_bias": True,
        "guidance_embed": False, "byt5": False, "meanflow": False, "meanflow_sum": False,
        "use_cond_type_embedding": False, "vision_in_dim": None,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initial = HunyuanVideo(**settings, dtype=torch.float32, operations=nn)
    for name, weight in initial.named_parameters():
        if any(part in name for part in STILL):
            nn.init.zeros_(weight)
    network = HunyuanVideo(**settings, dtype=torch.float32, operations=comfy.ops.manual_cast)
    network.load_state_dict(initial.state_dict())
    return network
