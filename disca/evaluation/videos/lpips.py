"""LPIPS (Zhang et al. 2018) of two videos: how far AlexNet's features are apart, weighed as people see differences.

Nothing is downloaded. Its two files are those that torchvision and the library lpips use, and the user has them or not.
"""

import importlib.util
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from ...host.folders import PREDICTORS, predictor_folders
from ...messages import cause, listing, quoted
from ...weights.checks import require_fit, require_floating
from .metrics import Metric, Missing

NAME = "LPIPS"
BACKBONE, LINEAR = "alexnet-owt-7be5be79.pth", "alex.pth"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of the colours, from -1 to 1
EPSILON = 1e-10  # added to a length that is divided by
CLASSIFIER = "classifier."  # the part of AlexNet that is not used
LEAST = 31  # pixels from which the last features have a place


class Stage(NamedTuple):
    """A convolution of AlexNet, by its number in torchvision's file, and whether the largest of 3x3 is taken before."""

    number: int
    shape: tuple[int, int, int, int]
    stride: int
    padding: int
    pooled: bool


STAGES = (
    Stage(0, (64, 3, 11, 11), 4, 2, False),
    Stage(3, (192, 64, 5, 5), 1, 2, True),
    Stage(6, (384, 192, 3, 3), 1, 1, True),
    Stage(8, (256, 384, 3, 3), 1, 1, False),
    Stage(10, (256, 256, 3, 3), 1, 1, False),
)
FEATURES = {f"features.{one.number}.weight": one.shape for one in STAGES} | {
    f"features.{one.number}.bias": one.shape[:1] for one in STAGES
}
WEIGHINGS = {f"lin{place}.model.1.weight": (1, one.shape[0], 1, 1) for place, one in enumerate(STAGES)}
ORIGINS = {
    BACKBONE: f"{BACKBONE} (torchvision's AlexNet)",
    LINEAR: f"{LINEAR} (LPIPS 0.1's own, part of the library lpips)",
}
FORMS = {BACKBONE: ("AlexNet", FEATURES), LINEAR: ("LPIPS 0.1 on AlexNet", WEIGHINGS)}


def lpips(reference: Tensor, video: Tensor, folder: Path | None = None) -> Metric | Missing:
    """0 for the same, for each frame, of videos [T, H, W, 3] in 0..1; with the weights of a folder if one is given."""
    if min(reference.shape[1:3]) < LEAST:
        return Missing(NAME, f"it needs {LEAST:d} pixels and the video has {min(reference.shape[1:3]):d}")
    files = {name: _found(name, _places(name) if folder is None else [folder]) for name in FORMS}
    if lacking := [name for name, path in files.items() if path is None]:
        where = f"models/{PREDICTORS}" if folder is None else quoted(folder)
        return Missing(NAME, f"it needs weights in {where}: {listing(lacking, shown=ORIGINS.get)}")
    try:
        weights = {key: one.to(reference) for name, path in files.items() for key, one in read(name, path).items()}
    except ValueError as error:
        return Missing(NAME, cause(error))
    pairs = zip(reference.split(1), video.split(1), strict=True)
    frames = [distance(*pair, weights) for pair in pairs]
    return Metric(NAME, frames, sum(frames) / len(frames), False)


@torch.inference_mode()
def distance(reference: Tensor, frame: Tensor, weights: dict[str, Tensor]) -> float:
    """Of two pictures [1, H, W, 3] in 0..1: squared differences of features, weighed, their means over places added."""
    pairs = zip(features(reference, weights), features(frame, weights), WEIGHINGS, strict=True)
    return sum(float(((one - other).square() * weights[key]).sum(1).mean()) for one, other, key in pairs)


def features(frame: Tensor, weights: dict[str, Tensor]) -> Iterator[Tensor]:
    """Each stage's features of a picture, of length 1 at every place."""
    shift, scale = frame.new_tensor(SHIFT), frame.new_tensor(SCALE)
    x = ((2.0 * frame - 1.0 - shift) / scale).permute(0, 3, 1, 2)  # [1, 3, H, W]
    for one in STAGES:
        weight, bias = (weights[f"features.{one.number}.{part}"] for part in ("weight", "bias"))
        x = max_pool2d(x, 3, 2) if one.pooled else x
        x = conv2d(x, weight, bias, one.stride, one.padding).relu()
        yield x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON)


def read(name: str, path: Path) -> dict[str, Tensor]:
    """The weights of one of the two files; ValueError unless they are what belongs in it, and finite."""
    what, expected = FORMS[name]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception:  # a damaged file raises whatever its bytes lead to, one with code in it too
        raise ValueError(f"{quoted(path)} holds no weights, or is damaged. Download it again.") from None
    if not isinstance(state, dict) or not all(_is_dense(one) for one in state.values()):
        raise ValueError(f"{quoted(path)} holds something else than weights by name. Download it again.")
    state = {str(key): one for key, one in state.items() if not str(key).startswith(CLASSIFIER)}
    require_fit(path.name, what, expected, {key: tuple(one.shape) for key, one in state.items()})
    require_floating(path.name, {key: one.dtype for key, one in state.items()})
    if spoiled := [key for key, one in state.items() if not one.isfinite().all()]:
        raise ValueError(f"{quoted(path)} has NaN or infinity in {quoted(spoiled[0])}. Download it again.")
    return {key: one.float().clone() for key, one in state.items()}  # the file may go


def _is_dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def _places(name: str) -> list[Path]:
    """Where a file may lie: the user's folders, then where the library that downloads it puts it."""
    if name == BACKBONE:
        return [*predictor_folders(), Path(torch.hub.get_dir(), "checkpoints")]
    spec = importlib.util.find_spec("lpips")  # found, not imported
    inside = [Path(place, "weights", "v0.1") for place in (spec and spec.submodule_search_locations) or ()]
    return [*predictor_folders(), *inside]


def _found(name: str, places: Sequence[Path]) -> Path | None:
    return next((place / name for place in places if (place / name).is_file()), None)
