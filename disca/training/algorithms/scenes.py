"""What previews are sampled of: samples of the dataset, or prompts of the run's own, and the noise they start from."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...models.family import FAMILIES
from ..contract.protocol import Batch, Sample, Samples
from ..contract.settings import PreviewSettings
from ..data.dataset import TEXT, collate
from ..network.conditions import condition_of, without_prompt
from ..network.velocity import Condition, Network


class Scene(NamedTuple):
    """What is sampled at once."""

    batch: Batch
    null: Condition  # the same without its prompt
    noise: Tensor  # [B, C, T, H, W]

    def condition(self, network: Network, scale: float) -> Condition:
        """The prompts; with the guidance scale for a model that is told it."""
        if not network.module.params.guidance_embed:
            return condition_of(self.batch, None)
        return condition_of(self.batch, torch.full_like(self.batch["latent"][:, 0, 0, 0, 0], scale))

    def to(self, device: torch.device) -> "Scene":
        """The same on a device."""
        batch, null = ({name: value.to(device) for name, value in each.items()} for each in (self.batch, self.null))
        return Scene(batch, null, self.noise.to(device))


def scenes_of_dataset(settings: PreviewSettings, dataset: Samples) -> list[Scene]:
    """The samples that the seeds choose, as far as they have the shapes of the first; all are sampled at once."""
    return [_scene([dataset[seed % len(dataset)] for seed in settings.seeds], [*settings.seeds], dataset)]


def scenes_of_prompts(settings: PreviewSettings, dataset: Samples, texts: list[Sample]) -> list[Scene]:
    """One for each text: it takes the place of that of the dataset's sample whose turn it is, first frames stay."""
    samples = [dataset[seed % len(dataset)] for seed in settings.seeds]
    turns = [
        (sample, seed)
        for sample, seed in zip(samples, settings.seeds, strict=True)
        if sample["latent"].shape == samples[0]["latent"].shape
    ]
    scenes = []
    for i, text in enumerate(texts):
        sample, seed = turns[i % len(turns)]
        scenes.append(_scene([_resized(sample, settings, dataset) | text], [seed], dataset))
    return scenes


def _scene(samples: list[Sample], seeds: list[int], dataset: Samples) -> Scene:
    batch = collate(samples, seeds)[0]
    latent = batch["latent"]
    generators = [torch.Generator().manual_seed(seed) for seed in batch["index"].tolist()]
    noise = [torch.randn(latent.shape[1:], generator=generator) for generator in generators]
    return Scene(batch, without_prompt(batch, dataset.null), torch.stack(noise).to(latent))


def _resized(sample: Sample, settings: PreviewSettings, dataset: Samples) -> Sample:
    """The sample without its text; at a size of the settings that is not its own, without a first frame too."""
    kept = {name: tensor for name, tensor in sample.items() if name not in TEXT}
    channels, *own = kept["latent"].shape
    found = FAMILIES[dataset.family].latent_format()
    ratios = found.temporal_downscale_ratio, found.spacial_downscale_ratio, found.spacial_downscale_ratio
    asked = (settings.frames and settings.frames + ratios[0] - 1), settings.height, settings.width
    size = [length // ratio or own_length for length, ratio, own_length in zip(asked, ratios, own, strict=True)]
    if size == own:
        return kept
    kept.pop("clip_fea", None)
    return {name: tensor.new_zeros(tensor.shape[0], *size) for name, tensor in kept.items()}
