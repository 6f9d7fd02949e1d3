"""Previews: videos of fixed seeds and prompts, sampled in each way that a training compares."""

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ...meanflow import shifted_sigmas
from ...messages import cause
from ...methods.scheduled.disca import disca
from ...methods.seam.anchors import AtAnchors
from ...models.family import family_of
from ...models.predictor import Predictor
from ...schedule import Interval
from ..contract.protocol import Samples
from ..contract.settings import Settings
from ..contract.velocity import Velocity
from ..network.lora import Lora, adapters_off
from ..network.sample_prompts import read_texts
from ..network.vae import Decoder, free_models
from ..network.velocity import Network
from .preview_files import write_picture, write_videos
from .sampling import CachedVelocity, guided, mean_velocity, sample
from .scenes import Scene, scenes_of_dataset, scenes_of_prompts

EVERY_OTHER = Interval(2, warmup=1, last_step=False)

log = logging.getLogger(__name__)


class Previews:
    """What every preview of a run shows, and the files it becomes."""

    def __init__(self, settings: Settings, dataset: Samples, device: torch.device):
        self._settings, self._dataset, self._device = settings.preview, dataset, device
        own = settings.preview.every and settings.preview.prompts
        self._texts = read_texts(settings, dataset) if own else []
        self._failed = False
        self.sigmas = shifted_sigmas(settings.preview.steps, settings.preview.shift)

    @cached_property
    def scenes(self) -> list[Scene]:
        """What is sampled, on the CPU."""
        if self._texts:
            return scenes_of_prompts(self._settings, self._dataset, self._texts)
        return scenes_of_dataset(self._settings, self._dataset)

    def sampled(self, velocity: Callable[[Scene], Velocity], sigmas: Tensor | None = None) -> Tensor:
        """Samples [B, C, T, H, W] of all scenes, one after another, by the velocity that each has."""
        times = self.sigmas if sigmas is None else sigmas
        scenes = (scene.to(self._device) for scene in self.scenes)
        return torch.cat([sample(velocity(scene), scene.noise, times) for scene in scenes])

    def write(self, path: Path | None, rows: Mapping[str, Tensor], network: nn.Module) -> None:
        """The rows [B, C, T, H, W] of latents as a picture, and as videos; None: not this process's to write."""
        if path is None:
            return
        write_picture(path, rows, network)
        if self._settings.vae:
            self._write_videos(path, rows, family_of(network).name)

    def _write_videos(self, path: Path, rows: Mapping[str, Tensor], family: str) -> None:
        """Where they cannot be decoded or written the run goes on, and says so once."""
        try:
            write_videos(path, rows, Decoder(self._settings.vae, family))
        except (RuntimeError, ValueError, OSError, MemoryError) as error:
            if not self._failed:
                log.warning(f"The previews could not be made into videos ({cause(error)}). The training goes on.")
            self._failed = True
        finally:
            free_models()


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
    return previews.sampled(lambda scene: mean_velocity(network, scene.condition(network, scale)))


def cached(network: Network, predictor: Predictor, previews: Previews, scale: float) -> Tensor:
    """Samples of a MeanFlow model with the Predictor on every other step."""
    method, sigmas = disca(AtAnchors(EVERY_OTHER), predictor.features), previews.sigmas.tolist()
    return previews.sampled(
        lambda scene: CachedVelocity(network, scene.condition(network, scale), method, sigmas, predictor)
    )


def distance(a: Tensor, reference: Tensor) -> float:
    """The squared error relative to the squared reference."""
    return ((a - reference).square().mean() / reference.square().mean()).item()


def _euler(
    network: Network, previews: Previews, guidance: float, cfg: float, lora: Lora | None, takes_r: bool
) -> Tensor:
    def velocity(scene: Scene) -> Velocity:
        condition = scene.condition(network, guidance)
        null = {name: value for name, value in condition.items() if name == "guidance"} | scene.null
        return guided(network, condition, null, cfg, takes_r)

    with adapters_off(network.module, lora) if lora else nullcontext():
        return previews.sampled(velocity)
