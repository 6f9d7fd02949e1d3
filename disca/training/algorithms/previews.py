"""Previews: videos of fixed seeds and prompts, rows of frames side by side, as one picture."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ...files import replacing
from ...meanflow import shifted_sigmas
from ...methods.scheduled.disca import disca
from ...methods.seam.anchors import AtAnchors
from ...models.family import family_of
from ...models.predictor import Predictor
from ...schedule import Interval
from ...toy.world import CONTEXT_WIDTH, to_pictures
from ..contract.protocol import Samples
from ..contract.settings import PreviewSettings
from ..data.dataset import collate
from ..network.conditions import condition_of, without_prompt
from ..network.lora import Lora, adapters_off
from ..network.velocity import Condition, Network
from .sampling import CachedVelocity, guided, mean_velocity, sample

MOST_FRAMES = 6
EVERY_OTHER = Interval(2, warmup=1, last_step=False)
CAPTION = 16  # pixels above a row


class Previews:
    """The seeds, prompts and times that every preview of a run has."""

    def __init__(self, settings: PreviewSettings, dataset: Samples, device: torch.device):
        samples = [dataset[seed % len(dataset)] for seed in settings.seeds]
        self.batch = {name: value.to(device) for name, value in collate(samples, list(settings.seeds))[0].items()}
        self.null = without_prompt(self.batch, dataset.null)
        latent = self.batch["latent"]
        generators = [torch.Generator().manual_seed(seed) for seed in self.batch["index"].tolist()]
        noise = [torch.randn(latent.shape[1:], generator=generator) for generator in generators]
        self.noise = torch.stack(noise).to(latent)
        self.sigmas = shifted_sigmas(settings.steps, settings.shift)

    def condition(self, network: Network, scale: float) -> Condition:
        """The prompts; with the guidance scale for a model that is told it."""
        if not network.module.params.guidance_embed:
            return condition_of(self.batch, None)
        return condition_of(self.batch, torch.full_like(self.batch["latent"][:, 0, 0, 0, 0], scale))

    def write(self, path: Path | None, rows: Mapping[str, Tensor], network: nn.Module) -> None:
        """The rows [B, C, T, H, W] of latents as one picture; None: not this process's to write."""
        if path is None:
            return
        strips = [_strip(name, colours(latents.float().cpu(), network)) for name, latents in rows.items()]
        sheet = Image.new("RGB", (max(strip.width for strip in strips), sum(strip.height for strip in strips)))
        top = 0
        for strip in strips:
            sheet.paste(strip, (0, top))
            top += strip.height
        with replacing(path) as aside:
            sheet.save(aside, "PNG")


def original(
    network: Network, previews: Previews, scale: float, lora: Lora | None = None, takes_r: bool = False
) -> Tensor:
    """Samples under classifier-free guidance, of a MeanFlow model if it `takes_r`."""
    return _euler(network, previews, 1.0, scale, lora, takes_r)


def one_call(
    network: Network, previews: Previews, scale: float, lora: Lora | None = None, takes_r: bool = False
) -> Tensor:
    """Samples of a model that is told the guidance scale if it can be, and r if it `takes_r`."""
    return _euler(network, previews, scale, 1.0, lora, takes_r)


def mean_flow(network: Network, previews: Previews, scale: float) -> Tensor:
    """Samples of a MeanFlow model."""
    return sample(mean_velocity(network, previews.condition(network, scale)), previews.noise, previews.sigmas)


def cached(network: Network, predictor: Predictor, previews: Previews, scale: float) -> Tensor:
    """Samples of a MeanFlow model with the Predictor on every other step."""
    method, sigmas = disca(AtAnchors(EVERY_OTHER), predictor.features), previews.sigmas.tolist()
    u = CachedVelocity(network, previews.condition(network, scale), method, sigmas, predictor)
    return sample(u, previews.noise, previews.sigmas)


def distance(a: Tensor, reference: Tensor) -> float:
    """The squared error relative to the squared reference."""
    return ((a - reference).square().mean() / reference.square().mean()).item()


def colours(latents: Tensor, network: nn.Module) -> Tensor:
    """Pictures [B, 3, T, H, W] in [0, 1] of latents: exact in the toy world, else ComfyUI's linear preview."""
    if network.params.context_in_dim == CONTEXT_WIDTH:
        return (to_pictures(latents) + 1.0) / 2.0
    found = family_of(network).latent_format()
    factors = torch.tensor(found.latent_rgb_factors)
    bias = torch.tensor(found.latent_rgb_factors_bias or [0.0, 0.0, 0.0])
    return (torch.einsum("bcthw,co->bothw", latents, factors) + bias[:, None, None, None] + 1.0) / 2.0


def _euler(
    network: Network, previews: Previews, guidance: float, cfg: float, lora: Lora | None, takes_r: bool
) -> Tensor:
    with adapters_off(network.module, lora) if lora else nullcontext():
        condition = previews.condition(network, guidance)
        null = {name: value for name, value in condition.items() if name == "guidance"} | previews.null
        u = guided(network, condition, null, cfg, takes_r)
        return sample(u, previews.noise, previews.sigmas)


def _strip(name: str, video: Tensor) -> Image.Image:
    frames = torch.linspace(0, video.shape[2] - 1, min(MOST_FRAMES, video.shape[2])).round().long()
    rows = video[:, :, frames].clamp(0.0, 1.0).permute(0, 3, 2, 4, 1).flatten(2, 3).flatten(0, 1)  # [B·H, T·W, 3]
    zoom = max(1, 96 // video.shape[-1])
    pixels = (rows * 255.0).byte().repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    strip = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + CAPTION))
    ImageDraw.Draw(strip).text((2, 2), name, fill="white")
    strip.paste(Image.fromarray(pixels.numpy()), (0, CAPTION))
    return strip
