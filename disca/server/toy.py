"""The toy world in a graph: its networks as MODELs, its prompts as conditioning, its latents as pictures."""

import comfy.latent_formats
import comfy.model_patcher
import torch
from torch import Tensor

from ..messages import quoted
from ..models.checks import LoadedPredictor
from ..models.loading import load_meanflow_model, load_model, load_predictor
from ..toy import WEIGHTS, world

MOST_PIXELS = 2**28  # three gigabytes


def load() -> tuple[comfy.model_patcher.ModelPatcher, comfy.model_patcher.ModelPatcher, LoadedPredictor]:
    """The model as it was first trained, to be guided; what became of it by MeanFlow; the latter's Predictor."""
    original = load_model(str(WEIGHTS / "base.safetensors"))
    meanflow = load_meanflow_model(str(WEIGHTS / "meanflow.safetensors"))
    return original, meanflow, load_predictor(str(WEIGHTS / "predictor.safetensors"))


def prompt(objects: list[list[str]]) -> list:
    """Conditioning that asks for these objects, each [shape, colour, direction, speed]; the last one is in front."""
    conditioning = world.condition(torch.tensor([[_indices(names) for names in objects]]))
    return [[conditioning["context"], {"pooled_output": conditioning["y"]}]]


def pictures(latent: dict, size: int) -> Tensor:
    """The frames [T, B * size, size, 3] in [0, 1] of a LATENT, its videos below one another."""
    samples = latent["samples"]
    _require_toy(samples)
    if samples.shape[0] * world.FRAMES * size**2 > MOST_PIXELS:
        raise ValueError(
            f"{samples.shape[0]:d} videos of {size:d} x {size:d} pixels are more than fit into memory. "
            "Decode fewer videos, or at a smaller size."
        )
    video = world.to_pictures(comfy.latent_formats.HunyuanVideo().process_in(samples.float()))
    frames = ((video + 1.0) / 2.0).permute(2, 0, 1, 3, 4)  # [T, B, 3, H, W]
    steps, videos = frames.shape[:2]
    frames = torch.nn.functional.interpolate(frames.flatten(0, 1), (size, size), mode="bicubic").clamp(0.0, 1.0)
    return frames.permute(0, 2, 3, 1).reshape(steps, videos * size, size, 3)


def _indices(names: list[str]) -> list[int]:
    return [list(values).index(name) for values, name in zip(world.ATTRIBUTES, names, strict=True)]


def _require_toy(samples: Tensor) -> None:
    side = world.SIZE // 2
    if tuple(samples.shape[1:]) != (world.CHANNELS, world.FRAMES, side, side):
        raise ValueError(
            f"The latent has the shape {quoted(list(samples.shape))}, but toy videos have [videos, {world.CHANNELS}, "
            f"{world.FRAMES}, {side}, {side}]. Make it with Empty HunyuanVideo 1.0 Latent: {8 * side} wide, {8 * side} "
            f"high, {4 * world.FRAMES - 3} long."
        )
