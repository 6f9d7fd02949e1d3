"""Flow matching: how a base model is trained; by `data.caption_dropout` it learns what guidance needs."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ...meanflow import shifted
from ..contract.protocol import Batch, Loss, Samples, trainable
from ..contract.settings import Settings
from ..contract.times import Draws
from ..network.conditions import condition_of, latents
from ..network.export import export_network, exported_model
from ..network.roles import base_network
from .losses import flow_matching_loss
from .previews import Previews, original

LEARNING_RATE = 1e-4
SHIFT = 1.5  # times lean towards noise, where a video's contents are decided


class FlowMatching:
    """Trains a whole network on videos."""

    may_change = frozenset[str]()
    load = staticmethod(exported_model)

    def __init__(self, settings: Settings, dataset: Samples, device: torch.device):
        self.settings, self.dataset, self.device = settings, dataset, device
        self.previews = Previews(settings, dataset, device)
        self.iterations = settings.iterations
        self.network = base_network(settings, device)
        self.parts = {"network": trainable(self.network.module, settings.optimizer, LEARNING_RATE)}

    def losses(self, batch: Batch, iteration: int) -> Iterator[Loss]:
        """The flow-matching loss."""
        draws = Draws(self.settings.seed, batch["index"], self.device)
        t, noise = shifted(draws.uniform(), SHIFT), draws.noise(latents(batch))
        u = partial(self.network.velocity, r=None, condition=condition_of(batch))
        value = flow_matching_loss(u, latents(batch), noise, t)
        yield Loss("network", value, t)

    def probe(self, batch: Batch) -> list[str]:
        """Nothing can be silently wrong here."""
        return []

    def preview(self, path: Path | None) -> dict[str, float]:
        """Samples with and without guidance."""
        rows = {
            "guidance 1": original(self.network, self.previews, 1.0),
            f"guidance {self.settings.preview.guidance:g}": original(
                self.network, self.previews, self.settings.preview.guidance
            ),
        }
        self.previews.write(path, rows, self.network.module)
        return {}

    def export(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """The whole network."""
        export_network(folder, self.network.module, weights, self.settings)

    def shards(self) -> list[nn.Module]:
        """The network."""
        return self.network.shards()
