"""A judge of toy videos: a small network that learns from the world's own pictures to name what moves in a video."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from .world import ATTRIBUTES, FRAMES, OBJECTS, SIZE, pictures, random_scenes

NAMES = ("shape", "colour", "direction", "speed")
SIZES = [len(values) for values in ATTRIBUTES]
FIRST = 10_000_000  # of its scenes: no training of a model comes that far, nor do the held-out ones lie there


@dataclass(frozen=True)
class JudgeSettings:
    """How a judge is trained: scenes of its own, some of them blurred and noisy, as sampled videos are."""

    iterations: int = 2500
    batch: int = 64
    width: int = 64
    lr: float = 4e-3
    blur: float = 1.0  # pixels, at most
    noise: float = 0.1  # standard deviation, at most
    seed: int = 0


class Judge(nn.Module):
    """Logits of each attribute, [B, objects, values], of pictures [B, 3, frames, size, size].

    It looks at two neighbouring frames at a time: shapes are in the first, motion is in what changes to the next.
    """

    def __init__(self, width: int):
        super().__init__()
        seen = 2 * width
        self.look = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(24, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(),
            nn.Linear(width * (SIZE // 4) ** 2, seen), nn.BatchNorm1d(seen), nn.ReLU(),
        )  # fmt: skip
        self.name = nn.Sequential(
            nn.Flatten(), nn.Linear((FRAMES - 1) * seen, 256), nn.BatchNorm1d(256), nn.ReLU(),
            nn.Linear(256, OBJECTS * sum(SIZES)),
        )  # fmt: skip

    def forward(self, video: Tensor) -> tuple[Tensor, ...]:
        frames = video.transpose(1, 2)
        pairs = torch.cat([frames[:, :-1], frames[:, 1:] - frames[:, :-1]], dim=2)
        seen = self.look(pairs.flatten(0, 1)).unflatten(0, (len(video), FRAMES - 1))
        return self.name(seen).unflatten(-1, (OBJECTS, -1)).split(SIZES, dim=-1)


def named(judge: Judge, video: Tensor) -> Tensor:
    """What the judge says is in the videos, as indices into ATTRIBUTES [B, objects, 4]."""
    with torch.inference_mode():
        return torch.stack([logits.argmax(-1) for logits in judge(video.clamp(-1.0, 1.0))], dim=-1)


def semantic_score(judge: Judge, video: Tensor, attributes: Tensor) -> dict[str, float]:
    """How often each attribute is found as the prompt has it, in percent, over the videos and their objects."""
    right = (named(judge, video) == attributes).float().mean((0, 1)) * 100.0
    return dict(zip(NAMES, right.tolist(), strict=True))


def train_judge(settings: JudgeSettings = JudgeSettings()) -> Judge:
    """A judge; the same settings give the same one on the same machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        judge = Judge(settings.width)
    optimiser = torch.optim.AdamW(judge.parameters(), settings.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.lr, settings.iterations)
    draws = torch.Generator().manual_seed(settings.seed)
    for i in range(settings.iterations):
        scenes = random_scenes(FIRST + i * settings.batch, settings.batch)
        logits = judge(spoiled(pictures(scenes), settings, draws))
        losses = [
            functional.cross_entropy(found.flatten(0, 1), right.flatten())
            for found, right in zip(logits, scenes.attributes.unbind(-1), strict=True)
        ]
        optimiser.zero_grad()
        sum(losses).backward()
        optimiser.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


def spoiled(video: Tensor, settings: JudgeSettings, draws: torch.Generator) -> Tensor:
    """The pictures with noise and blur, of a strength of each video's own, mostly little."""
    strength = torch.rand(2, len(video), 1, 1, 1, 1, generator=draws).square()
    noise = torch.randn(video.shape, generator=draws)
    return (blurred(video, settings.blur * strength[0]) + settings.noise * strength[1] * noise).clamp(-1.0, 1.0)


def blurred(video: Tensor, radius: Tensor) -> Tensor:
    """The pictures under a bell of that standard deviation [B, 1, 1, 1, 1], in pixels."""
    places = torch.arange(-2, 3.0)
    bell = torch.exp(-0.5 * (places / radius.flatten()[:, None].clamp(min=0.05)) ** 2)
    bell = bell / bell.sum(-1, keepdim=True)
    kernel = (bell[:, :, None] * bell[:, None, :])[:, None]  # [B, 1, 5, 5]
    layers = functional.pad(video.flatten(1, 2), (2, 2, 2, 2), mode="replicate")
    rows = functional.conv2d(layers.transpose(0, 1), kernel, groups=len(video))  # a video is a channel of it
    return rows.transpose(0, 1).unflatten(1, video.shape[1:3])


def judge_in(folder: Path, settings: JudgeSettings = JudgeSettings()) -> Judge:
    """The judge of these settings from the folder, trained and put there if it has none."""
    key = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode()).hexdigest()[:8]
    path = folder / f"judge-{key}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_file(train_judge(settings).state_dict(), path)
    judge = Judge(settings.width)
    judge.load_state_dict(load_file(path))
    return judge.eval().requires_grad_(False)
