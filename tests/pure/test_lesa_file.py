"""LESA files: what is written is read back, in the published layout, and what is damaged is refused in a sentence."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from disca.methods.scheduled.lesa import LesaNetwork
from disca.models.lesa_file import LesaSpec, lesa_shapes, read_lesa, write_lesa
from disca.weights.files import open_weights

SPEC = LesaSpec(4, 3, 5.0, (0, 1, 3), "model.safetensors", {"seed": 0})


@pytest.fixture
def file(tmp_path):
    """Written by us, and its state."""
    state = LesaNetwork(SPEC.steps, SPEC.hidden).state_dict()
    write_lesa(str(tmp_path / "lesa.safetensors"), SPEC, state)
    return tmp_path / "lesa.safetensors", state


def changed(path, metadata=(), **tensors):
    """The file with some tensors or metadata changed; None leaves a tensor out."""
    told = open_weights(str(path)).metadata | dict(metadata)
    state = load_file(path) | {key.replace("__", "."): tensor for key, tensor in tensors.items()}
    save_file({key: tensor for key, tensor in state.items() if tensor is not None}, path, told)
    return open_weights(str(path))


@pytest.mark.parametrize("steps, hidden", [(1, 1), (4, 3), (50, 256)])
def test_demanded_weights_are_the_networks(steps, hidden):
    found = {key: tuple(value.shape) for key, value in LesaNetwork(steps, hidden).state_dict().items()}
    assert lesa_shapes(LesaSpec(steps, hidden)) == found


def test_what_is_written_is_read_back(file):
    path, state = file
    spec, found = read_lesa(open_weights(str(path)))
    assert spec == SPEC and found.keys() == state.keys()
    assert all(found[key].equal(state[key]) for key in state)


def test_a_file_that_says_nothing_is_read_by_its_tensors(file):
    path, state = file
    save_file({key: tensor.bfloat16() for key, tensor in state.items()}, path)
    spec, found = read_lesa(open_weights(str(path)))
    assert spec == LesaSpec(4, 3)
    assert all(tensor.dtype == torch.float32 for tensor in found.values())


def test_a_state_that_is_not_the_spec_is_not_written(file, tmp_path):
    with pytest.raises(ValueError, match="'other.safetensors' does not fit a LESA predictor .for 5 steps"):
        write_lesa(str(tmp_path / "other.safetensors"), LesaSpec(5, 3), file[1])
    assert not (tmp_path / "other.safetensors").exists()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"latent__1__bias": None}, "1 missing: 'latent.1.bias'"),
        ({"latent__1__weight": torch.zeros(1, 4)}, r"'latent.1.weight' is \[1, 4\] instead of \[1, 8\]"),
        ({"more": torch.zeros(1)}, "1 not known: 'more'"),
        ({"latent__0__bias": torch.full((1,), float("nan"))}, "NaN or infinity in 'latent.0.bias'"),
        ({"latent__0__bias": torch.zeros(1, dtype=torch.int32)}, "whole numbers .* in 'latent.0.bias'"),
        ({"timestep__2__layers__0__grid": torch.zeros(5, 12)}, "knots in 'timestep.2.layers.0.grid' that do not rise"),
        ({"timestep__0__layers__0__base_weight": None}, "is not a LESA predictor: it has no 'timestep.0"),
        ({"timestep__0__layers__0__base_weight": torch.zeros(3)}, "is not a LESA predictor"),
        ({"timestep__0__layers__0__base_weight": torch.zeros(0, 5)}, "has a width of 1 to 4096"),
        ({"timestep__0__layers__0__base_weight": torch.zeros(3, 1)}, "is for 1 to 1000 steps"),
    ],
)
def test_damaged_tensors_are_refused(file, tensors, said):
    with pytest.raises(ValueError, match=said):
        read_lesa(changed(file[0], **tensors))


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"disca.steps": "8"}, "says that it is for '8' steps, but its tensors are for 4"),
        ({"disca.format": "other"}, "is a file of format 'other'"),
        ({"disca.format_version": "9"}, "version '9'.*Update DisCa"),
        ({"disca.shift": "wide"}, "says in its metadata what cannot be .could not convert"),
        ({"disca.shift": "nan"}, "the shift is out of range"),
        ({"disca.anchors": "1 2"}, "starts at step 1"),
        ({"disca.anchors": "0 4"}, "asks for step 4 in full"),
        ({"disca.training": "[]"}, "is no JSON object"),
    ],
)
def test_metadata_that_cannot_be_is_refused(file, metadata, said):
    with pytest.raises(ValueError, match=said):
        read_lesa(changed(file[0], metadata))
