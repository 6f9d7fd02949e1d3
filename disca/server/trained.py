"""What a training exported -> what the graph takes: a Predictor, or a MODEL, with the LoRA on it where one was made."""

from pathlib import Path

import comfy.sd
from comfy.model_patcher import ModelPatcher

from ..models.loading import load_meanflow_model, load_predictor
from ..models.lora import load_lora
from ..training.contract.settings import Settings
from ..training.network.export import LORA, NETWORK, PREDICTOR


def load_result(settings: Settings, export: Path):
    """The Predictor or MODEL that a run has exported; one that is whole is taken before a LoRA on its base."""
    if settings.algorithm == "predictor":
        return load_predictor(str(export / PREDICTOR))
    if (export / NETWORK).exists():
        return _load(settings, export / NETWORK)
    return load_lora(_load(settings, Path(settings.model.path)), str(export / LORA), 1.0)[0]


def _load(settings: Settings, path: Path) -> ModelPatcher:
    load = load_meanflow_model if settings.algorithm == "meanflow" else comfy.sd.load_diffusion_model
    return load(str(path))
