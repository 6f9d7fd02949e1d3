"""What a training exported -> what the graph takes: a Predictor, or a MODEL, with the LoRA on it where one was made."""

from pathlib import Path

import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor

from ..models.loading import load_meanflow_model, load_predictor
from ..models.lora import put_lora
from ..training.contract.settings import Settings
from ..weights.files import open_weights
from ..weights.transformer_file import transformer_weights

ADDED = {"cfg": "guidance_in", "meanflow": "time_r_in"}  # the embedder that a training adds to a model without it


def load_result(settings: Settings, export: Path):
    """The Predictor or MODEL that a run has exported."""
    if settings.algorithm == "predictor":
        return load_predictor(str(export / "predictor.safetensors"))
    if settings.lora.rank:
        return load_with_lora(settings.model.path, str(export / "lora.safetensors"), ADDED[settings.algorithm])
    path = str(export / "model.safetensors")
    return load_meanflow_model(path) if settings.algorithm == "meanflow" else comfy.sd.load_diffusion_model(path)


def load_with_lora(base: str, lora: str, added: str) -> comfy.model_patcher.ModelPatcher:
    """The base with the LoRA on it; an embedder that only the student has begins as the training lets it begin."""
    weights = transformer_weights(open_weights(base))
    state = {key: torch.empty(shape, dtype=weights.dtypes[key]) for key, shape in weights.shapes.items()}
    weights.read_into(state)
    if not any(key.startswith(f"{added}.") for key in state):
        state |= _embedder(state, added)
    model = comfy.sd.load_diffusion_model_state_dict(state, disable_dynamic=True)
    return put_lora(model, lora, 1.0)[0]


def _embedder(state: dict[str, Tensor], added: str) -> dict[str, Tensor]:
    """As `disca.training.network.build.add_embedder` makes it, by the keys of the file."""
    times = {key.removeprefix("time_in."): tensor for key, tensor in state.items() if key.startswith("time_in.")}
    copied = {f"{added}.{key}": tensor for key, tensor in times.items()}
    sums = not any(key.startswith("single_blocks.") for key in state)  # HunyuanVideo 1.5
    if added == "guidance_in" or sums:
        copied = {
            key: torch.zeros_like(tensor) if ".out_layer." in key or ".mlp.2." in key else tensor
            for key, tensor in copied.items()
        }
    return copied
