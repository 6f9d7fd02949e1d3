"""Predictor files: what the authors published is what we demand, and what we write we read."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from disca.weights import layouts
from disca.weights.files import open_weights
from disca.weights.predictor_file import read_predictor, to_module, to_published, write_predictor
from disca.weights.predictor_layout import LAYOUTS
from disca.weights.predictor_spec import PredictorSpec, published_shapes

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = {"1.0": "hv10_t2v", "1.5": "hv15_i2v"}
PARAMETERS = {  # of the published files
    "1.0": (PredictorSpec("1.0", 3072, 2, 24, 4.0), 311_501_312),
    "1.5": (PredictorSpec("1.5", 2048, 2, 16, 4.0), 327_287_808),
}


def spec_of(family, **changes):
    return PredictorSpec(**{"family": family, "width": 64, "depth": 3, "heads": 2, "mlp_ratio": 4.0, **changes})


def published(spec):
    return {key: torch.randn(shape) for key, shape in published_shapes(spec).items()}


@pytest.mark.parametrize("family", LAYOUTS)
def test_demanded_weights_are_the_authors(family):
    with safe_open(GOLDEN / f"{CASES[family]}.safetensors", framework="pt") as file:
        shapes = json.loads(file.metadata()["shapes"])["predictor"]
    joined = {
        key: [sum(shapes[part][0] for part in parts), *shapes[parts[0]][1:]]
        for key, parts in layouts.merged(shapes).sources.items()
    }
    demanded = published_shapes(PredictorSpec(family, 256, 2, 2, 4.0))
    assert {key: list(shape) for key, shape in demanded.items()} == joined


@pytest.mark.parametrize("family", LAYOUTS)
def test_demanded_weights_are_as_many_as_in_the_published_files(family):
    spec, count = PARAMETERS[family]
    assert sum(torch.Size(shape).numel() for shape in published_shapes(spec).values()) == count


@pytest.mark.parametrize("features", [1, 2])
@pytest.mark.parametrize("family", LAYOUTS)
def test_module_names_and_back(family, features):
    weights = published(spec_of(family, features=features))
    back = to_published(to_module(weights))
    assert back.keys() == weights.keys() and all(back[key].equal(weights[key]) for key in weights)


@pytest.mark.parametrize("form", [{}, {"residual": True}, {"features": 2}, {"residual": True, "features": 2}], ids=str)
@pytest.mark.parametrize("family", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_written_predictor_is_read_back_with_its_metadata(family, dtype, form, tmp_path):
    spec = spec_of(family, **form, base_model="hyvideo", training={"steps": 10, "loss": "l2", "lr": 1e-5})
    state = {key: tensor.to(dtype) for key, tensor in to_module(published(spec)).items()}
    write_predictor(str(tmp_path / "p.safetensors"), spec, state)
    file = open_weights(str(tmp_path / "p.safetensors"))
    read_spec, read_state = read_predictor(file)
    assert read_spec == spec and file.tensors.keys() == published_shapes(spec).keys()
    assert read_state.keys() == state.keys()
    assert all(read_state[key].view(torch.uint8).equal(state[key].view(torch.uint8)) for key in state)


@pytest.mark.parametrize("family", LAYOUTS)
@pytest.mark.parametrize(("width", "heads", "depth", "mlp_ratio"), [(64, 4, 1, 2.0), (96, 3, 5, 4.0), (48, 1, 12, 1.5)])
def test_sizes_are_read_from_the_tensors(family, width, heads, depth, mlp_ratio, tmp_path):
    spec = PredictorSpec(family, width, depth, heads, mlp_ratio)
    write_predictor(str(tmp_path / "p.safetensors"), spec, to_module(published(spec)))
    assert read_predictor(open_weights(str(tmp_path / "p.safetensors")))[0] == spec


def test_a_state_that_is_not_the_spec_is_not_written(tmp_path):
    state = to_module(published(spec_of("1.0")))
    with pytest.raises(ValueError, match="'p.safetensors' does not fit .*4 blocks.*8 missing"):
        write_predictor(str(tmp_path / "p.safetensors"), spec_of("1.0", depth=4), state)
    assert not (tmp_path / "p.safetensors").exists()


def test_read_weights_do_not_hold_the_file(tmp_path):
    path = tmp_path / "p.safetensors"
    write_predictor(str(path), spec_of("1.5"), to_module(published(spec_of("1.5"))))
    _, state = read_predictor(open_weights(str(path)))
    before = {key: tensor.clone() for key, tensor in state.items()}
    path.write_bytes(bytes(path.stat().st_size))
    assert all(state[key].equal(before[key]) for key in state)


@pytest.mark.parametrize(
    ("features", "said", "has"), [(1, "two", "no weights for a second feature"), (2, "residual", "two features")]
)
def test_a_form_that_the_tensors_are_not_of_is_refused(features, said, has, tmp_path):
    path = tmp_path / "p.safetensors"
    save_file(published(spec_of("1.0", features=features)), path, {"disca.form": said})
    with pytest.raises(ValueError, match=f"says form '{said}', but its tensors have .*{has}.* It is damaged"):
        read_predictor(open_weights(str(path)))


def test_a_second_feature_that_is_not_whole_is_refused(tmp_path):
    path, weights = tmp_path / "p.safetensors", published(spec_of("1.5", features=2))
    del weights["fusion_mlp_txt.change.weight"]
    save_file(weights, path)
    with pytest.raises(ValueError, match="1 missing: 'fusion_mlp_txt.change.weight'"):
        read_predictor(open_weights(str(path)))
