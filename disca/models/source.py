"""Which file of weights a MODEL or a Predictor in a graph is, so that a training can begin with it."""

from pathlib import Path

from comfy.model_patcher import ModelPatcher

from ..messages import quoted
from .checks import LoadedLesa, LoadedPredictor

ENDINGS = (".safetensors", ".sft")


def file_of_model(model: ModelPatcher) -> str:
    """The file that the MODEL was loaded from and still is; ValueError if there is none."""
    path = _file(model)
    if path is None:
        raise ValueError(
            "The MODEL was not loaded from one file, so that no training can begin with it. Connect one from a DisCa "
            "training, DisCa Load MeanFlow Model or Load Diffusion Model, or save it and choose that file."
        )
    if model.patches:
        raise ValueError(
            f"The MODEL is {quoted(path)} with a LoRA on it, and a training begins with a file. Save the two as one "
            "with ModelSave, put the file into models/diffusion_models, and choose it as model_name."
        )
    return path


def file_of_predictor(predictor: LoadedPredictor | LoadedLesa) -> str:
    """The file that the Predictor was loaded from; ValueError if it is none of DisCa's."""
    path = _file(predictor.patcher)
    if path is None or not isinstance(predictor, LoadedPredictor):
        raise ValueError(
            "What is connected as predictor is none of DisCa's own with a file. Connect one from DisCa Train Predictor "
            "or DisCa Load Predictor, or nothing for a new one."
        )
    return path


def _file(patcher: ModelPatcher) -> str | None:
    _, given, *_ = patcher.cached_patcher_init or (None, ())  # how ComfyUI's loaders and ours would load it again
    path = given[0] if given else None
    known = isinstance(path, str) and path.lower().endswith(ENDINGS) and Path(path).is_file()
    return path if known else None
