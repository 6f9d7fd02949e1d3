"""HunyuanVideo networks of any size with random weights, and their Predictors, on a real ComfyUI."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from disca.training.network.comfy import choose_device, prepare_comfy

prepare_comfy(choose_device("auto").type, training=False)

import comfy.model_management  # noqa: E402
import comfy.utils  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402

from disca.models.family import FAMILIES  # noqa: E402
from disca.models.loading import LoadedPredictor, build_predictor  # noqa: E402
from disca.weights.predictor_spec import PredictorSpec  # noqa: E402

comfy.utils.set_progress_bar_enabled(False)


@dataclass(frozen=True)
class Size:
    """The shape of a network, of the latent it is measured on, and of its text."""

    family: str
    width: int
    double_blocks: int
    single_blocks: int
    latent: tuple[int, int, int]  # frames, height, width
    text_tokens: int


FULL_SIZE = {
    "1.0": Size("1.0", 3072, 20, 40, (33, 88, 88), 256),  # 704x704, 129 frames
    "1.5": Size("1.5", 2048, 54, 0, (31, 30, 53), 1000),  # 848x480, 121 frames
}


def tiny(size: Size) -> Size:
    """A network and latent of the same kind that a CPU runs in seconds."""
    double, single = (2, 3) if size.family == "1.0" else (3, 0)
    return replace(size, width=256, double_blocks=double, single_blocks=single, latent=(3, 16, 16), text_tokens=16)


def dtype_and_device() -> tuple[torch.dtype, torch.device]:
    """bf16 on a GPU, fp32 on the CPU."""
    device = comfy.model_management.get_torch_device()
    return (torch.float32 if device.type == "cpu" else torch.bfloat16), device


def random_model(size: Size) -> ModelPatcher:
    """A MODEL of that size."""
    dtype, device = dtype_and_device()
    sizes = {"hidden_size": size.width, "num_heads": size.width // 128, "context_in_dim": 3584, "byt5": False}
    counts = {"depth": size.double_blocks, "depth_single_blocks": size.single_blocks}
    config = FAMILIES[size.family].comfy_config(**sizes, **counts)
    config.set_inference_dtype(dtype, None)
    with torch.no_grad():
        return ModelPatcher(_randomised(config.get_model({}, device=device)), device, torch.device("cpu"))


def random_predictor(size: Size) -> LoadedPredictor:
    """A two-block Predictor for a model of that size."""
    dtype, device = dtype_and_device()
    spec = PredictorSpec(size.family, size.width, depth=2, heads=size.width // 128, mlp_ratio=4.0)
    with torch.no_grad():
        network = _randomised(build_predictor(spec, dtype=dtype, device=device))
    return LoadedPredictor(ModelPatcher(network, device, torch.device("cpu")), spec)


def conditioning(size: Size) -> list:
    """Random text of that size."""
    text = torch.randn(1, size.text_tokens, 3584)
    return [[text, {"pooled_output": torch.randn(1, 768), "guidance": 6.0}]]


def latent(size: Size) -> dict:
    """An empty latent of that size."""
    return {"samples": torch.zeros(1, 16 if size.family == "1.0" else 32, *size.latent)}


def _randomised(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in network.parameters():
        parameter.normal_(std=0.02)
    return network
