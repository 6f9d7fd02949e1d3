"""A LoRA of any trainer on a MODEL, by ComfyUI's own patches."""

import logging

import comfy.lora
import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter.base import WeightAdapterBase
from torch import Tensor

from ..weights.files import open_weights
from ..weights.lora_file import read_lora
from ..weights.lora_fit import Change, fit, report, require_some
from .checks import family_of_model

PREFIX = "diffusion_model."  # of the network's keys in a MODEL

logger = logging.getLogger(__name__)


class Rescaled(WeightAdapterBase):
    """An adapter after which rows or columns are brought to other lengths (DoRA), or rows are multiplied (OFT).

    ComfyUI's own takes the norm of the weight before the adapter where there is one for each row, and multiplies by an
    OFT's strength twice. The trainers take that of the weight with the adapter, and strength 1 is what they trained.
    """

    name = "rescaled"

    def __init__(self, loaded_keys: set[str], weights: tuple):
        self.loaded_keys = loaded_keys
        self.weights = weights  # the adapter, the lengths or None, the factors or None: ComfyUI moves and copies them

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: tuple[int, int, int] | None,
        function,
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Tensor | None = None,
    ) -> Tensor:
        """The weight, moved by `strength` of the way to what was trained; in place, as ComfyUI's own."""
        adapter, lengths, factors = self.weights
        settings = (strength_model, offset, function, intermediate_dtype, original_weight)
        trained = adapter.calculate_weight(weight.clone(), key, 1.0, *settings).float()
        if factors is not None:
            trained *= comfy.model_management.cast_to_device(factors, weight.device, torch.float32)
        if lengths is not None:
            summed = tuple(dim for dim in range(trained.ndim) if lengths.shape[dim] == 1)
            norms = torch.linalg.vector_norm(trained, dim=summed, keepdim=True)
            lengths = comfy.model_management.cast_to_device(lengths, weight.device, torch.float32)
            trained *= lengths / (norms + torch.finfo(torch.float32).eps)
        weight += (strength * (trained - weight)).to(weight.dtype)
        return weight


def load_lora(model: ModelPatcher, path: str, strength: float) -> tuple[ModelPatcher, str]:
    """A clone of the MODEL with the LoRA on it, and what was used of the file; ValueError if nothing fits."""
    family = family_of_model(model)
    lora = read_lora(open_weights(path))
    network = model.model.diffusion_model
    fitted = fit(lora, {name: tuple(weight.shape) for name, weight in network.named_parameters()})
    require_some(lora, fitted, family.title)
    depths = {kind.attribute: len(kind.of(network)) for kind in family.kinds}
    summary = report(lora, fitted, strength, depths)
    model = model.clone()
    if strength:
        model.add_patches(patches_of(fitted.changes), strength)
    if fitted.unknown or fitted.unfit:
        logger.warning("DisCa: %s", summary.replace("\n", "; "))
    return model, summary


def patches_of(changes: list[Change]) -> dict:
    """ComfyUI's patches, each for a weight or for rows of it."""
    tensors, targets = {}, {}
    for number, change in enumerate(changes):
        key = PREFIX + change.key
        targets[str(number)] = key if change.rows is None else (key, (0, *change.rows))
        tensors |= {f"{number}.{name}": tensor for name, tensor in change.adapter.tensors.items()}
    loaded = comfy.lora.load_lora(tensors, targets, log_missing=False)
    patches = {}
    for number, (change, target) in enumerate(zip(changes, targets.values(), strict=True)):
        patch, adapter = loaded[target], change.adapter
        if adapter.kind == "OFT" or adapter.magnitude is not None:
            patch = Rescaled({str(number)}, (patch, adapter.magnitude, adapter.rescale))
        patches[target] = patch
    return patches
