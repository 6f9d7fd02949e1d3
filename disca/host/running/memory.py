"""What a method will hold in a run, known before it starts: in bytes, and whether there is room."""

import logging
import math

import psutil
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher

from ...messages import quoted
from ...methods.seam.method import OUTPUT, SITES, Method
from ...models.checks import family_of_model
from ...models.family import Family
from ...weightless import is_weightless
from . import progress

LITE = "Take 'TaylorSeer-Lite' or another method that keeps only what comes out of the last block"

logger = logging.getLogger(__name__)


def bytes_held(
    method: Method, family: Family, network: torch.nn.Module, latent: torch.Size, text: int, size: int
) -> int:
    """What all rows together hold, for latents [B, C, T, H, W] and so many text tokens, numbers of `size` bytes."""
    width, _ = family.widths(network)
    image = math.prod(math.ceil(side / part) for side, part in zip(latent[2:], network.patch_size, strict=True))
    tokens = method.when.tensors * image
    numbers = method.when.latents * math.prod(latent[1:])
    for way in method.ways:
        if way.where == OUTPUT:
            numbers += way.what.tensors * math.prod(latent[1:])
        elif way.where == SITES:
            tokens += sum(
                way.at(site).tensors * _tokens_at(site, image, text)
                for kind in family.kinds
                for site in kind.sites
                if site in way.sites
                for _ in kind.of(network)
            )
        else:
            tokens += way.what.tensors * (image + text)
    return latent[0] * (tokens * width + numbers) * size


def require_room(model: ModelPatcher, method: Method, latent: torch.Size, conds: dict, cache: str) -> None:
    """Says what the method will hold; ValueError if there is no room for that."""
    texts = [entry["cross_attn"].shape[1] for entries in conds.values() for entry in entries or ()]
    network, size = model.model.diffusion_model, model.model.get_dtype_inference().itemsize
    family = family_of_model(model)
    held = sum(bytes_held(method, family, network, latent, text, size) for text in texts)
    holds = f"{quoted(method.name)} holds {held / 1e9:.2f} GB in this run"
    counted = is_weightless(next(network.parameters()))
    if held > (room := _room(model.load_device, cache)) and not counted:
        raise ValueError(f"{holds}, but there is room for {room / 1e9:.2f} GB. {LITE}, or make a smaller video.")
    logger.info("DisCa: %s", holds)
    progress.show(holds)


def _tokens_at(site: str, image: int, text: int) -> int:
    return {"img": image, "txt": text}.get(site.partition("_")[0], image + text)


def _room(device: torch.device, cache: str) -> int:
    """Bytes where the features may wait: on the card, in main memory, or in both together."""
    host = psutil.virtual_memory().available
    if device.type == "cpu" or cache == "cpu":
        return host
    card = model_management.get_total_memory(device)
    return card if cache == "gpu" else card + host
