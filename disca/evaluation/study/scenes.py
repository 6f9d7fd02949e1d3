"""What a study samples: prompts as conditioning, of a dataset's samples or of texts, and the size of their videos."""

from collections.abc import Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...messages import cause
from ...models.checks import family_of_model
from ...toy.dataset import HELD_OUT, TOY, ToyDataset
from ...training.data.dataset import open_dataset, require_fits, without_caption
from ...training.network.prompts import conditioning
from ...training.network.texts import load_text_encoder
from ...training.network.vae import free_models
from ..costs.cost import latent_shape
from .settings import StudySettings

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


class Scene(NamedTuple):
    """A prompt as conditioning, and an empty latent of the size that its video has."""

    name: str  # what is asked for, or what the dataset calls it
    digest: str  # of what the network is given
    positive: list
    negative: list | None
    latent: Tensor  # [1, C, T, H, W], empty


def scenes_of(model: "ModelPatcher", settings: StudySettings) -> list[Scene]:
    """All of them; ValueError if the files are not for the MODEL."""
    return list(_of_texts(model, settings) if settings.prompts else _of_samples(model, settings))


def _of_samples(model: "ModelPatcher", settings: StudySettings) -> Iterator[Scene]:
    first, toy = (HELD_OUT, True) if settings.data == TOY else (0, False)
    dataset = ToyDataset() if toy else open_dataset(settings.data)
    network = model.model.diffusion_model
    if not toy:
        require_fits(dataset, family_of_model(model).name, network.out_channels, network.params.context_in_dim)
    for i in range(first, first + min(settings.samples, len(dataset))):
        sample = dataset[i]
        null = without_caption(sample, dataset.null)
        yield _scene(model, settings, cause(dataset.name(i)), sample, null, sample["latent"].shape)


def _of_texts(model: "ModelPatcher", settings: StudySettings) -> Iterator[Scene]:
    family = family_of_model(model)
    shape = latent_shape(family, settings.width, settings.height, settings.frames)
    encoder = load_text_encoder(family.name, settings.text_encoders)
    try:
        null = encoder.null()
        samples = [(text, encoder.inputs(text)) for text in settings.prompts]
    finally:
        free_models()
    for text, sample in samples:
        yield _scene(model, settings, cause(text), sample, null, shape)


def _scene(
    model: "ModelPatcher", settings: StudySettings, name: str, sample: dict, null: dict, shape: tuple[int, ...]
) -> Scene:
    out, guidance = model.model.process_latent_out, settings.guidance
    negative = conditioning(null, out, guidance) if settings.cfg != 1.0 else None
    digest = _digest({**sample, "shape": torch.tensor(shape), "cfg": torch.tensor(settings.cfg)}, null)
    return Scene(name, digest, conditioning(sample, out, guidance), negative, torch.zeros(1, *shape))


def _digest(*parts: dict[str, Tensor]) -> str:
    """A hash of all that is given but the dataset's own video, of which only the size counts."""
    found = sha256()
    for part in parts:
        for name in sorted(part.keys() - {"latent"}):
            values = part[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            found.update(f"{name}{tuple(part[name].shape)}".encode() + values.numpy().tobytes())
    return found.hexdigest()[:16]
