"""Previews as files: a picture of the latents' linear colours, and a video of each sample, decoded."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ...files import replacing
from ...models.family import family_of
from ...toy.world import CONTEXT_WIDTH, to_pictures
from ..network.vae import Decoder
from ..records.preview_video import write_video

MOST_FRAMES = 6  # of a row of the picture
CAPTION = 16  # pixels above a row


def write_picture(path: Path, rows: Mapping[str, Tensor], network: nn.Module) -> None:
    """The rows [B, C, T, H, W] of latents as one picture."""
    strips = [_strip(name, colours(latents.float().cpu(), network)) for name, latents in rows.items()]
    with replacing(path) as aside:
        _stacked(strips).save(aside, "PNG")


def write_videos(path: Path, rows: Mapping[str, Tensor], decoder: Decoder) -> None:
    """A video beside the picture for each sample of the rows [B, C, T, H, W] of latents: the rows above one another."""
    samples = zip(*(latents.cpu() for latents in rows.values()), strict=True)
    for number, latents in enumerate(samples, start=1):
        videos = {name: decoder.frames(each) for name, each in zip(rows, latents, strict=True)}
        write_video(path.with_name(f"{path.stem}-{number}.mp4"), _pictures(videos))


def colours(latents: Tensor, network: nn.Module) -> Tensor:
    """Pictures [B, 3, T, H, W] in [0, 1] of latents: exact in the toy world, else ComfyUI's linear preview."""
    if network.params.context_in_dim == CONTEXT_WIDTH:
        return (to_pictures(latents) + 1.0) / 2.0
    found = family_of(network).latent_format()
    factors = torch.tensor(found.latent_rgb_factors)
    bias = torch.tensor(found.latent_rgb_factors_bias or [0.0, 0.0, 0.0])
    return (torch.einsum("bcthw,co->bothw", latents, factors) + bias[:, None, None, None] + 1.0) / 2.0


def _pictures(videos: Mapping[str, Tensor]) -> Iterator[Image.Image]:
    """The frames of videos [T, H, W, 3] above one another, each under its name."""
    for frames in zip(*videos.values(), strict=True):
        yield _stacked([_captioned(name, frame) for name, frame in zip(videos, frames, strict=True)])


def _strip(name: str, video: Tensor) -> Image.Image:
    frames = torch.linspace(0, video.shape[2] - 1, min(MOST_FRAMES, video.shape[2])).round().long()
    rows = video[:, :, frames].permute(0, 3, 2, 4, 1).flatten(2, 3).flatten(0, 1)  # [B·H, T·W, 3]
    zoom = max(1, 96 // video.shape[-1])
    return _captioned(name, rows.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1))


def _captioned(name: str, pixels: Tensor) -> Image.Image:
    """A picture of pixels [H, W, 3], under its name."""
    height, width, _ = pixels.shape
    picture = Image.new("RGB", (width, height + CAPTION))
    ImageDraw.Draw(picture).text((2, 2), name, fill="white")
    picture.paste(Image.fromarray((pixels.clamp(0.0, 1.0) * 255.0).byte().numpy()), (0, CAPTION))
    return picture


def _stacked(pictures: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)))
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet
