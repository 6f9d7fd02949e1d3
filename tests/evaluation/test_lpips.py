"""LPIPS against closed forms and the authors' library, on weights made here in the layout of the real files."""

import math
from math import prod

import pytest
import torch

from disca.evaluation.videos import lpips as module
from disca.evaluation.videos.comparison import MEASURES
from disca.evaluation.videos.lpips import BACKBONE, FEATURES, LINEAR, SCALE, SHIFT, WEIGHINGS, lpips
from disca.evaluation.videos.metrics import Metric, Missing
from disca.host.folders import predictor_folders

LIBRARY = [0.19541873, 0.19060884]  # what lpips 0.1.4 says of the random videos with the random weights below


def save(folder, backbone, linear):
    """Both files, AlexNet's with a part that is not used."""
    torch.save(backbone | {"classifier.6.bias": torch.zeros(1000)}, folder / BACKBONE)
    torch.save(linear, folder / LINEAR, _use_new_zipfile_serialization=False)  # as the real one is
    return folder


def random_weights():
    """Of the real shapes: the first is AlexNet, then what weighs its features."""
    generator = torch.Generator().manual_seed(1)

    def normal(shape):
        return torch.randn(shape, generator=generator) * (2.0 / max(prod(shape[1:]), 2)) ** 0.5

    backbone = {key: normal(shape) for key, shape in FEATURES.items()}
    return backbone, {key: normal(shape).abs() for key, shape in WEIGHINGS.items()}


@pytest.fixture
def folder(tmp_path):
    """Both files, with random weights."""
    return save(tmp_path, *random_weights())


@pytest.fixture
def videos():
    """Two random videos of two frames."""
    return list(torch.rand(2, 2, 40, 64, 3, generator=torch.Generator().manual_seed(0)))


def test_a_video_is_no_way_from_itself(folder, videos):
    assert lpips(videos[0], videos[0].clone(), folder).frames == [0.0, 0.0]


def test_it_is_as_far_there_as_back(folder, videos):
    there, back = (lpips(*pair, folder).frames for pair in (videos, videos[::-1]))
    assert there == pytest.approx(back, rel=1e-6) and min(there) > 0.0


def test_it_is_what_the_authors_library_says(folder, videos):
    assert lpips(*videos, folder).frames == pytest.approx(LIBRARY, rel=1e-5)


def test_of_two_greys_it_is_two_minus_twice_the_cosine_in_every_stage(tmp_path):
    """Two channels pass through all stages, the red and a 1; what is left of them is the angle of (red, 1)."""
    backbone = {key: torch.zeros(shape) for key, shape in FEATURES.items()}
    backbone["features.0.weight"][0, 0, 2, 2] = 1.0  # the red at the middle of each place, the edge's too
    for number, middle in ((3, 2), (6, 1), (8, 1), (10, 1)):
        backbone[f"features.{number}.weight"][0, 0, middle, middle] = 1.0
    for number in (0, 3, 6, 8, 10):
        backbone[f"features.{number}.bias"][1] = 1.0
    linear = {key: torch.full(shape, float(place + 1)) for place, (key, shape) in enumerate(WEIGHINGS.items())}
    reds = [max((2.0 * level - 1.0 - SHIFT[0]) / SCALE[0], 0.0) for level in (0.3, 0.9)]
    cosine = math.cos(math.atan(reds[0]) - math.atan(reds[1]))
    dark, light = (torch.full((1, 48, 48, 3), level) for level in (0.3, 0.9))
    found = lpips(torch.cat([dark, light]), torch.cat([light, light]), save(tmp_path, backbone, linear))
    assert found.frames == pytest.approx([(1 + 2 + 3 + 4 + 5) * (2.0 - 2.0 * cosine), 0.0], rel=1e-5)
    assert found.overall == pytest.approx(found.frames[0] / 2) and not found.higher_is_nearer


@pytest.mark.parametrize("side", [30, 31])
def test_a_picture_too_small_for_the_last_stage_is_not_measured(side, folder):
    video = torch.rand(1, side, 64, 3)
    found = lpips(video, 1.0 - video, folder)
    if side < 31:
        assert found == Missing("LPIPS", "it needs 31 pixels and the video has 30")
    else:
        assert isinstance(found, Metric) and math.isfinite(found.overall)


@pytest.mark.parametrize("lacking", [[BACKBONE], [LINEAR], [BACKBONE, LINEAR]])
def test_files_that_are_not_there_are_named_in_a_line(lacking, folder, videos):
    for name in lacking:
        (folder / name).unlink()
    line = lpips(*videos, folder).line
    assert line.startswith("LPIPS: not measured, it needs weights in ") and "\n" not in line
    assert [name for name in (BACKBONE, LINEAR) if name in line] == lacking


def test_the_files_are_looked_for_in_models_disca(folder, videos, monkeypatch):
    monkeypatch.setattr(module, "predictor_folders", lambda: [folder])
    assert MEASURES["LPIPS"](*videos).frames == lpips(*videos, folder).frames
    assert [path.parts[-2:] for path in predictor_folders()][-1:] == [("models", "disca")]


def test_nothing_is_downloaded_where_files_are_missing(tmp_path, videos, monkeypatch):
    monkeypatch.setattr(module, "predictor_folders", lambda: [tmp_path])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert BACKBONE in lpips(*videos).line and list(tmp_path.iterdir()) == []


class Payload:
    """What makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_file_with_code_in_it_is_refused_and_not_run(folder, videos):
    torch.save({key: Payload(str(folder / "ran")) for key in WEIGHINGS}, folder / LINEAR)
    assert "holds no weights, or is damaged" in lpips(*videos, folder).line
    assert not (folder / "ran").exists()


BAD = {
    "text": (lambda weights: "nothing", "holds something else than weights by name"),
    "numbers": (lambda weights: dict.fromkeys(weights, 1.0), "holds something else than weights by name"),
    "sparse": (lambda weights: {key: one.to_sparse() for key, one in weights.items()}, "holds something else"),
    "one missing": (
        lambda weights: dict([*weights.items()][1:]),
        "does not fit LPIPS 0.1 on AlexNet. 1 missing",
    ),
    "another network": (lambda weights: weights | {"lin5.model.1.weight": torch.ones(1)}, "1 not known: 'lin5"),
    "another width": (lambda weights: weights | {"lin0.model.1.weight": torch.ones(1, 128, 1, 1)}, "[1, 128, 1, 1]"),
    "whole numbers": (lambda weights: {key: one.long() for key, one in weights.items()}, "has whole numbers"),
    "NaN": (lambda weights: {key: one * math.nan for key, one in weights.items()}, "NaN or infinity in 'lin0"),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("case", BAD)
def test_a_file_of_something_else_is_told_by_what_is_wrong_with_it(case, folder, videos):
    spoil, said = BAD[case]
    torch.save(spoil(random_weights()[1]), folder / LINEAR)
    found = lpips(*videos, folder)
    assert isinstance(found, Missing) and said in found.line and "\n" not in found.line


@pytest.mark.parametrize("name", [BACKBONE, LINEAR])
@pytest.mark.parametrize("length", [0, 1, 1000, -100])
def test_a_download_that_broke_off_is_told(name, length, folder, videos):
    (folder / name).write_bytes((folder / name).read_bytes()[:length])
    assert f"{name}' holds no weights, or is damaged. Download it again." in lpips(*videos, folder).line
