"""A HunyuanVideo 1.0 of the real class, small enough to train on two cores."""

import torch
from torch import nn

from ..messages import quoted
from ..models.family import HUNYUANVIDEO_10
from .world import CHANNELS, CONTEXT_WIDTH, POOLED_WIDTH

SIZES = {"small": (128, 2, 4), "tiny": (128, 1, 1)}  # name -> width, double blocks, single blocks
HEAD = 128  # of every HunyuanVideo
ZERO_AT_START = ("mod.lin", "modulation.lin", "adaLN_modulation", "final_layer.linear")


def new_network(size: str, seed: int) -> nn.Module:
    """A network that draws nothing yet, in fp32: every block starts as the identity."""
    if size not in SIZES:
        raise ValueError(f"model.toy is {quoted(size)}, but the toy networks are {', '.join(SIZES)}. Set one of them.")
    width, double, single = SIZES[size]
    settings = {
        "in_channels": CHANNELS, "out_channels": CHANNELS, "vec_in_dim": POOLED_WIDTH, "context_in_dim": CONTEXT_WIDTH,
        "hidden_size": width, "num_heads": width // HEAD, "depth": double, "depth_single_blocks": single,
        "guidance_embed": False, "meanflow": False,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initial = HUNYUANVIDEO_10.network(nn, **settings)
    for name, weight in initial.named_parameters():
        if any(part in name for part in ZERO_AT_START):
            nn.init.zeros_(weight)
    network = HUNYUANVIDEO_10.network(**settings)
    network.load_state_dict(initial.state_dict())
    return network
