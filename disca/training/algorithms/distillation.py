"""What the distillations share: a student with one more embedder than its teacher, whole or as a LoRA."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..contract.protocol import Samples, trainable
from ..contract.settings import Settings
from ..network.export import export_distilled
from ..network.roles import Distillation, distillation
from .previews import Previews

LEARNING_RATE, LORA_LEARNING_RATE = 1e-5, 5e-5


class StudentTraining:
    """Trains a student that is told something that its teacher is not: `embedder` takes it in."""

    embedder: str
    may_change = frozenset[str]()

    def __init__(
        self, settings: Settings, dataset: Samples, device: torch.device, networks: Distillation | None = None
    ):
        self.settings, self.dataset, self.device = settings, dataset, device
        self.previews = Previews(settings, dataset, device)
        self.iterations = settings.iterations
        self.networks = networks or distillation(settings, device, added=self.embedder)
        self.network = self.networks.student
        lr = LORA_LEARNING_RATE if settings.lora.rank else LEARNING_RATE
        self.parts = {"network": trainable(self.networks.product, settings.optimizer, lr)}

    def export(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """The student, or its LoRA."""
        export_distilled(folder, self.networks, weights, self.settings)

    def shards(self) -> list[nn.Module]:
        """Both networks."""
        return self.networks.shards()
