"""Short videos of two shapes that move, bounce and hide each other, as latents and pictures.

A latent pixel is 2x2 picture pixels of three colours, turned by a fixed orthogonal map into the 16 channels of
HunyuanVideo 1.0: latents become pictures by the transposed map, without a VAE.
"""

from typing import NamedTuple

import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (1.0, -0.8, -0.8),
    "green": (-0.8, 0.8, -0.8),
    "blue": (-0.6, -0.4, 1.0),
    "yellow": (1.0, 0.9, -0.8),
    "magenta": (1.0, -0.6, 0.9),
    "white": (1.0, 1.0, 1.0),
}
DIRECTIONS = {
    "right": (1, 0),
    "down right": (1, 1),
    "down": (0, 1),
    "down left": (-1, 1),
    "left": (-1, 0),
    "up left": (-1, -1),
    "up": (0, -1),
    "up right": (1, -1),
}
SPEEDS = {"slow": 1, "medium": 2, "fast": 3}  # picture pixels per frame
ATTRIBUTES = (SHAPES, tuple(COLOURS), tuple(DIRECTIONS), tuple(SPEEDS))

OBJECTS = 2
FRAMES, SIZE = 6, 16  # of the pictures; latents have half the size
RADIUS = 4  # of an object; whole, as places and speeds are, so that a shape has one form everywhere
EDGE = 1.5  # pixels over which an object fades into what is behind it
CHANNELS = 16
CONTEXT_WIDTH, POOLED_WIDTH = 32, 768  # ComfyUI knows HunyuanVideo 1.0 with a pooled text of 768 only
BACKGROUND = -0.9
LATENT_SCALE = 1.7  # gives the latents a standard deviation near 1


class Scene(NamedTuple):
    """Videos' contents: indices into ATTRIBUTES [B, objects, 4], and places at the start, (x, y) [B, objects, 2]."""

    attributes: Tensor
    places: Tensor


def random_scene(seed: int) -> Scene:
    """One scene; the same seed gives the same one everywhere."""
    g = torch.Generator().manual_seed(seed)
    choices = [torch.randint(len(values), (1, OBJECTS), generator=g) for values in ATTRIBUTES]
    places = torch.randint(RADIUS, SIZE - RADIUS + 1, (1, OBJECTS, 2), generator=g)
    return Scene(torch.stack(choices, dim=-1), places)


def random_scenes(first: int, count: int) -> Scene:
    """So many in one, those of the seeds from `first` on."""
    scenes = [random_scene(first + i) for i in range(count)]
    return Scene(*(torch.cat(parts) for parts in zip(*scenes, strict=True)))


def pictures(scene: Scene) -> Tensor:
    """The video [B, 3, frames, size, size] in [-1, 1]; the last object is in front."""
    shape, colour, direction, speed = scene.attributes.unbind(-1)
    velocity = torch.tensor(list(SPEEDS.values()))[speed, None] * torch.tensor(list(DIRECTIONS.values()))[direction]
    times = torch.arange(FRAMES)[:, None]
    places = _bounce(scene.places[:, :, None] + velocity[:, :, None] * times)
    video = torch.full((len(shape), 3, FRAMES, SIZE, SIZE), BACKGROUND)
    colours = torch.tensor(list(COLOURS.values()))
    for i in range(OBJECTS):
        cover = _cover(shape[:, i], places[:, i])[:, None]
        video = torch.lerp(video, colours[colour[:, i]][:, :, None, None, None], cover)
    return video


def to_latents(video: Tensor) -> Tensor:
    """Latents [B, 16, T, H/2, W/2], as the network sees them, of pictures [B, 3, T, H, W] in [-1, 1]."""
    squares = video.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))  # [B, 3, T, h, 2, w, 2]
    squares = squares.permute(0, 1, 4, 6, 2, 3, 5).flatten(1, 3)
    return torch.einsum("oc,bcthw->bothw", _mixing().to(video), squares - BACKGROUND) * LATENT_SCALE


def to_pictures(latents: Tensor) -> Tensor:
    """The inverse of `to_latents`."""
    squares = torch.einsum("oc,bothw->bcthw", _mixing().to(latents), latents / LATENT_SCALE) + BACKGROUND
    squares = squares.unflatten(1, (3, 2, 2)).permute(0, 1, 4, 5, 2, 6, 3)  # [B, 3, T, h, 2, w, 2]
    return squares.flatten(-2).flatten(-3, -2)


def condition(attributes: Tensor) -> dict[str, Tensor]:
    """What the network is told: a token for each attribute of each object, and all of them in one vector."""
    sizes = [len(values) for values in ATTRIBUTES]
    starts = torch.tensor([sum(sizes[:i]) for i in range(len(sizes))])
    tokens = torch.nn.functional.one_hot(attributes + starts, CONTEXT_WIDTH).float()
    tokens[..., -OBJECTS:] += torch.eye(OBJECTS)[:, None]
    pooled = tokens[..., : sum(sizes)].sum(-2).flatten(1)
    pooled = torch.nn.functional.pad(pooled, (0, POOLED_WIDTH - pooled.shape[-1]))
    return {"context": 4.0 * tokens.flatten(1, 2), "y": 4.0 * pooled}


def no_condition() -> dict[str, Tensor]:
    """The unconditional twin: nothing said."""
    tokens = OBJECTS * len(ATTRIBUTES)
    return {"context": torch.zeros(1, tokens, CONTEXT_WIDTH), "y": torch.zeros(1, POOLED_WIDTH)}


def _bounce(places: Tensor) -> Tensor:
    room = SIZE - 2 * RADIUS
    folded = torch.remainder(places - RADIUS, 2 * room)
    return RADIUS + torch.minimum(folded, 2 * room - folded)


def _cover(shape: Tensor, places: Tensor) -> Tensor:
    """How much of each pixel [B, T, H, W] an object covers, from its signed distance."""
    centres = torch.arange(SIZE) + 0.5
    dx = centres[None, None, None, :] - places[:, :, 0, None, None]
    dy = centres[None, None, :, None] - places[:, :, 1, None, None]
    circle = (dx**2 + dy**2).sqrt() - RADIUS
    square = torch.maximum(dx.abs(), dy.abs()) - 0.85 * RADIUS
    triangle = torch.maximum(dy - 0.7 * RADIUS, 0.84 * dx.abs() - 0.54 * (dy + RADIUS))
    distance = torch.stack([circle, square, triangle])[shape, torch.arange(len(shape))]
    return (0.5 - distance / EDGE).clamp(0.0, 1.0)


def _mixing() -> Tensor:
    """A fixed map [16, 12] with orthonormal columns."""
    columns = torch.arange(1, 13, dtype=torch.float64)
    rows = torch.arange(CHANNELS, dtype=torch.float64)[:, None]
    waves = torch.cos(torch.pi * (rows + 0.5) * columns / CHANNELS) * (2.0 / CHANNELS) ** 0.5  # rows of a DCT-II
    return waves.float()
