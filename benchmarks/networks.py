"""HunyuanVideo networks of any size with random weights, and their Predictors, on a real ComfyUI."""

import sys
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from disca.training.network.comfy import choose_device, prepare_comfy

prepare_comfy(choose_device("auto").type, training=False)

import comfy.model_management  # noqa: E402
import comfy.utils  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402

from disca.methods.scheduled.lesa import LesaNetwork  # noqa: E402
from disca.models.family import FAMILIES, Family  # noqa: E402
from disca.models.loading import LoadedPredictor, build_predictor  # noqa: E402
from disca.weights.predictor_spec import PredictorSpec  # noqa: E402

comfy.utils.set_progress_bar_enabled(False)


@dataclass(frozen=True)
class Size:
    """The shape of a network, of the latent it is measured on, and of its text; and how it is sampled."""

    family: str
    width: int
    blocks: tuple[int, ...]  # of each of the family's kinds
    few: tuple[int, ...]  # of each, in the tiny network
    latent: tuple[int, int, int]  # frames, height, width
    text_tokens: int
    steps: int
    shift: float

    @property
    def row(self) -> Family:
        """What is known of the family."""
        return FAMILIES[self.family]

    @property
    def changes(self) -> dict[str, object]:
        """What makes the published network that one, in ComfyUI's words."""
        sizes = self.row.sized(self.width, self.width // 128, self.blocks)
        return {**sizes, "context_in_dim": 3584, "byt5": False}

    @property
    def tokens(self) -> int:
        """Image and text tokens of a call."""
        return prod(self.latent) // prod(self.row.config["patch_size"]) + self.text_tokens


def published(family: str, **measured) -> Size:
    """The published network of a family, and what it is measured on."""
    row = FAMILIES[family]
    return Size(family, row.config[row.sizes[0]], tuple(row.config[kind.count] for kind in row.kinds), **measured)


FULL_SIZE = {
    size.family: size
    for size in (  # 704x704, 129 frames; 848x480, 121 frames
        published("1.0", few=(2, 3), latent=(33, 88, 88), text_tokens=256, steps=20, shift=5.0),
        published("1.5", few=(3, 0), latent=(31, 30, 53), text_tokens=1000, steps=8, shift=7.0),
    )
}


def tiny(size: Size) -> Size:
    """A network and latent of the same kind that a CPU runs in seconds."""
    return replace(size, width=256, blocks=size.few, latent=(3, 16, 16), text_tokens=16)


def dtype_and_device() -> tuple[torch.dtype, torch.device]:
    """bf16 on a GPU, fp32 on the CPU."""
    device = comfy.model_management.get_torch_device()
    return (torch.float32 if device.type == "cpu" else torch.bfloat16), device


def random_model(size: Size) -> ModelPatcher:
    """A MODEL of that size."""
    dtype, device = dtype_and_device()
    config = size.row.comfy_config(**size.changes)
    config.set_inference_dtype(dtype, None)
    with torch.no_grad():
        return ModelPatcher(_randomised(config.get_model({}, device=device)), device, torch.device("cpu"))


def random_predictor(size: Size, features: int = 1) -> LoadedPredictor:
    """A two-block Predictor of so many features for a model of that size."""
    dtype, device = dtype_and_device()
    spec = PredictorSpec(size.family, size.width, depth=2, heads=size.width // 128, mlp_ratio=4.0, features=features)
    with torch.no_grad():
        network = _randomised(build_predictor(spec, dtype=dtype, device=device))
    return LoadedPredictor(ModelPatcher(network, device, torch.device("cpu")), spec)


def random_experts(steps: int) -> ModelPatcher:
    """LESA's experts for runs of so many steps."""
    _, device = dtype_and_device()
    with torch.no_grad():
        return ModelPatcher(_randomised(LesaNetwork(steps)).to(device), device, torch.device("cpu"))


def conditioning(size: Size) -> list:
    """Random text of that size."""
    text = torch.randn(1, size.text_tokens, 3584)
    return [[text, {"pooled_output": torch.randn(1, 768), "guidance": 6.0}]]


def latent(size: Size) -> dict:
    """An empty latent of that size."""
    return {"samples": torch.zeros(1, size.row.latent_format().latent_channels, *size.latent)}


def _randomised(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in network.parameters():
        parameter.normal_(std=0.02)
    return network
