"""Weight files are read lazily, in any number of pieces, and joined row by row."""

import pytest
import torch
from safetensors.torch import save_file

from disca.weights import files
from disca.weights.files import open_weights
from disca.weights.merged import merged_weights


@pytest.fixture
def weights():
    names = [f"blocks.{i}.img_attn_{part}.weight" for i in range(3) for part in "qkv"]
    return {name: torch.randn(4, 4) for name in names} | {"mark": torch.randn(5)}


@pytest.fixture
def file(tmp_path, weights):
    save_file(weights, tmp_path / "file.safetensors", {"by": "a test"})
    return open_weights(str(tmp_path / "file.safetensors"))


def test_a_folder_a_missing_file_and_an_empty_one_are_refused_with_where_they_are(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "gone")
    for name, told in {
        "folder.safetensors": "is a folder. Give the path of the .safetensors file in it.",
        "": "is a folder. Give the path of the .safetensors file in it.",
        "missing.safetensors": "cannot be opened (No such file or directory). Check the path",
        "link.safetensors": "cannot be opened (No such file or directory). Check the path",
        "empty.safetensors": "is empty (0 bytes). Download it again.",
    }.items():
        with pytest.raises(ValueError) as error:
            open_weights(str(tmp_path / name))
        assert told in str(error.value) and str(tmp_path) in str(error.value), name


def test_header_tells_shapes_types_sizes_and_metadata(file):
    assert file.name == "file.safetensors" and file.metadata == {"by": "a test"}
    assert file.tensors["mark"] == files.TensorInfo((5,), torch.float32) and file.tensors["mark"].nbytes == 20


@pytest.mark.parametrize("group_bytes", [1, 100, 2**20])
def test_reading_gives_every_tensor_once_however_it_is_grouped(group_bytes, file, weights, monkeypatch):
    monkeypatch.setattr(files, "GROUP_BYTES", group_bytes)
    read = [(key, tensor.clone()) for key, tensor in file.read(list(weights))]
    assert [key for key, _ in read] == sorted(weights)
    assert all(tensor.equal(weights[key]) for key, tensor in read)


def test_joined_weights_hold_the_rows_of_their_parts(file, weights):
    merged = merged_weights(file, "mark")
    targets = {key: torch.empty(shape) for key, shape in merged.shapes.items()}
    merged.read_into(targets)
    assert targets["mark"].equal(weights["mark"])
    for i in range(3):
        parts = [weights[f"blocks.{i}.img_attn_{part}.weight"] for part in "qkv"]
        assert targets[f"blocks.{i}.img_attn_qkv.weight"].equal(torch.cat(parts))


def test_parts_of_different_types_are_joined_in_float32(tmp_path):
    kinds = [torch.float8_e4m3fn, torch.bfloat16, torch.float16]
    parts = {f"a.img_attn_{part}.bias": torch.ones(2).to(kind) for part, kind in zip("qkv", kinds, strict=True)}
    save_file(parts | {"mark": torch.ones(1)}, tmp_path / "file.safetensors")
    merged = merged_weights(open_weights(str(tmp_path / "file.safetensors")), "mark")
    assert merged.dtypes == {"a.img_attn_qkv.bias": torch.float32, "mark": torch.float32}


def test_weights_without_a_target_are_checked_too(tmp_path):
    save_file({"mark": torch.ones(1), "other": torch.tensor([1.0, float("nan")])}, tmp_path / "file.safetensors")
    merged = merged_weights(open_weights(str(tmp_path / "file.safetensors")), "mark")
    with pytest.raises(ValueError, match="NaN or infinity in 'other'"):
        merged.read_into({"mark": torch.empty(1)})
