"""Prompts of a run's own for its previews: encoded once, before networks are loaded, and kept in the run's folder."""

import json
import logging
import os
from hashlib import sha256

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...messages import cause, quoted
from ..contract.protocol import Samples
from ..contract.settings import PreviewSettings, Settings
from ..data.dataset import TEXT, Sample
from ..data.tensors import write_tensors
from ..records.run_folder import RunFolder
from .texts import TextEncoder, load_text_encoder
from .vae import free_models, load_vae, require_vae

KEY, CONTENT = "prompts", "content"  # in the header: hashes of what was encoded by which files, and of what came of it
BLOCKS, BLOCK_BYTES = 256, 4096  # of a file of weights, spread over it, that tell it from others
FAR = 0.5  # of the dataset's empty prompt: other precisions of the same weights are a few percent from it

log = logging.getLogger(__name__)


def prepare_previews(settings: Settings, dataset: Samples) -> None:
    """Sees to it that the run's prompts are encoded, and that its VAE fits; ValueError if the files do not allow it."""
    preview = settings.preview
    if not preview.every:
        return
    with torch.random.fork_rng(devices=[]):  # text encoders draw weights before they have them: the training is not to
        try:
            if preview.vae:
                require_vae(load_vae(preview.vae), dataset.family)
            if preview.prompts:
                _keep_texts(settings, dataset)
        finally:
            free_models()


def read_texts(settings: Settings, dataset: Samples) -> list[Sample]:
    """The text inputs of each prompt of the run; ValueError if its folder does not hold just these, whole."""
    path, preview = RunFolder(settings.out).prompts, settings.preview
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
            if found.get(KEY) != _key(preview, dataset):
                raise ValueError("it holds other prompts, or of other text encoders")
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # not mapped from it
        if found.get(CONTENT) != _content(tensors):
            raise ValueError("its tensors are not those that were written")
        return [
            {name: tensors[f"{i}/{name}"] for name in TEXT if f"{i}/{name}" in tensors}
            for i in range(len(preview.prompts))
        ]
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{quoted(path)} does not hold the prompts of the previews ({cause(error)}).") from None


def _keep_texts(settings: Settings, dataset: Samples) -> None:
    path, preview = RunFolder(settings.out).prompts, settings.preview
    try:
        read_texts(settings, dataset)
        return
    except ValueError as error:
        if path.exists():
            log.info("%s They are encoded again.", cause(error))
    tensors = _encoded(load_text_encoder(dataset.family, preview.text_encoders), preview, dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, {KEY: _key(preview, dataset), CONTENT: _content(tensors)})


def _encoded(encoder: TextEncoder, preview: PreviewSettings, dataset: Samples) -> dict[str, Tensor]:
    _require_same(encoder.null(), dataset.null)
    texts = map(encoder.inputs, preview.prompts)
    return {f"{i}/{name}": tensor for i, text in enumerate(texts) for name, tensor in text.items()}


def _require_same(made: Sample, null: Sample) -> None:
    """ValueError unless the empty prompt is what the dataset's text encoders make of it, but for rounding."""
    for name in ("context", "y"):
        if name not in null:
            continue
        ours, theirs = made[name].float(), null[name].float()
        if ours.shape != theirs.shape or not (ours - theirs).norm() <= FAR * theirs.norm():
            raise ValueError(
                "The text encoders make something else of an empty prompt than those that the dataset was built with "
                f"({quoted(name)} is {quoted([*ours.shape])} here and {quoted([*theirs.shape])} there, with other "
                "values). Give the files of the text encoders that the dataset was built with."
            )


def _key(preview: PreviewSettings, dataset: Samples) -> str:
    """A hash of the prompts and of all that encodes them."""
    content = [dataset.family, preview.prompts, [*map(file_print, preview.text_encoders)]]
    return sha256(json.dumps(content).encode()).hexdigest()


def file_print(path: str) -> str:
    """A hash of a file's size and of blocks all over it, from its first bytes to its last: of gigabytes, at once."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = sha256(f"{size}".encode())
        for i in range(BLOCKS):
            file.seek(i * max(0, size - BLOCK_BYTES) // (BLOCKS - 1))
            digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


def _content(tensors: dict[str, Tensor]) -> str:
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
