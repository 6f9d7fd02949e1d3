"""Tensors in safetensors files: what is written comes back, shared out in any way, and what is damaged is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from disca.training.engine import tensor_files
from disca.training.engine.distributed import Processes
from disca.training.engine.eight_bits import copy_rows
from disca.training.engine.tensor_files import ROWS, Chunk, SavedTensors

ALONE = Processes(0, 1, torch.device("cpu"))
TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int64, torch.uint8)


def filled(*shape: int, dtype=torch.float32) -> torch.Tensor:
    """Numbers of this type."""
    return (torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 50).abs().to(dtype)


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether they have the same bits."""
    return a.dtype == b.dtype and a.flatten().view(torch.uint8).equal(b.flatten().view(torch.uint8))


def in_rows(folder: Path, whole: dict[str, torch.Tensor], ends: list[int], total: int) -> list[Path]:
    """A file of each process, as if so many rows of "w" had been held by each; scales go with their rows."""
    files, start = [], 0
    for number, end in enumerate(ends):
        parts = {
            name: tensor if name.endswith("qmap") else tensor[len(tensor) * start // total : len(tensor) * end // total]
            for name, tensor in whole.items()
        }
        files.append(folder / f"{number}.safetensors")
        parts = {name: part.contiguous() for name, part in parts.items()}
        save_file(parts, files[-1], {ROWS: json.dumps({"w": [start, total]})})
        start = end
    return files


@pytest.mark.parametrize("at_once", [1, 2**30])
def test_every_type_and_shape_comes_back_to_the_bit(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(tensor_files, "GROUP_BYTES", at_once)
    shapes = ((), (0,), (1,), (3, 5), (2, 3, 4))
    tensors = {f"{dtype}/{shape}": filled(*shape, dtype=dtype) for dtype in TYPES for shape in shapes}
    tensors["turned"] = filled(4, 3).T
    tensor_files.write(tensors, tmp_path, ALONE)
    back = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    with SavedTensors(tmp_path.iterdir()) as saved:
        assert saved.names == tensors.keys() and not saved.lacks(tensors)
        for name, tensor in back.items():
            saved.read_into(name, tensor)
    assert all(equal(back[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("ends", [[7], [3, 7], [1, 2, 3, 7], [0, 7]])
def test_rows_from_several_processes_come_together(tmp_path, ends):
    whole = filled(7, 3)
    with SavedTensors(in_rows(tmp_path, {"w": whole}, ends, 7)) as saved:
        back = torch.zeros_like(whole)
        assert not saved.lacks({"w": back})
        saved.read_into("w", back)
    assert equal(back, whole)


@pytest.mark.parametrize("shape", [(6, 3), (8, 3), (7, 4), (7,), (), (7, 3, 1)])
def test_another_shape_is_found(tmp_path, shape):
    with SavedTensors(in_rows(tmp_path, {"w": filled(7, 3)}, [3, 7], 7)) as saved:
        assert saved.lacks({"w": torch.zeros(shape)}) == ["w"]


def test_rows_that_nobody_wrote_are_found(tmp_path):
    files = in_rows(tmp_path, {"w": filled(7, 3)}, [2, 4, 7], 7)
    for some in (files[:2], files[1:], files[::2], [*files, files[0]]):
        with SavedTensors(some) as saved:
            assert saved.lacks({"w": torch.zeros(7, 3)}) == ["w"]


@pytest.mark.parametrize(
    "rows",
    [None, "", "null", "[]", "{", "[" * 10**5, '{"w": 3}', '{"w": [0]}', '{"w": [0, "7"]}', '{"w": [-1, 7]}']
    + ['{"w": [1, 7]}', '{"w": [0, 6]}', '{"w": [0.0, 7]}', '{"w": [false, 7]}', '{"v": [0, 7]}', '{"w": [0, 1e400]}'],
)
def test_a_header_that_says_nothing_sensible_is_refused(tmp_path, rows):
    save_file({"w": filled(7, 3)}, tmp_path / "0.safetensors", None if rows is None else {ROWS: rows})
    with pytest.raises(ValueError, match="'0.safetensors' is damaged") as error:
        SavedTensors([tmp_path / "0.safetensors"])
    assert "\n" not in str(error.value)


def eight_bits(rows: int, columns: int, values: bool = True):
    """torchao's state of a weight."""
    made = pytest.importorskip("torchao.optim.subclass_8bit").OptimState8bit.zeros((rows, columns))
    return made.copy_(torch.randn(rows, columns, generator=torch.Generator().manual_seed(4))) if values else made


def pieces(state) -> dict[str, torch.Tensor]:
    """What a file holds of it."""
    return {f"w/{name}": getattr(state, name) for name in ("codes", "scale", "qmap")}


@pytest.mark.parametrize("ends", [[16], [8, 16], [4, 8, 16]])
def test_eight_bit_state_comes_back_to_the_bit_where_blocks_stay_whole(tmp_path, ends):
    state, back = eight_bits(16, 320), eight_bits(16, 320, values=False)
    with SavedTensors(in_rows(tmp_path, pieces(state), ends, 16)) as saved:
        assert not saved.lacks({"w": back})
        saved.read_into("w", back)
    assert back.codes.equal(state.codes) and back.scale.equal(state.scale)


@pytest.mark.parametrize(("first", "whole_blocks"), [(4, True), (2, False)])
def test_eight_bit_rows_are_copied_only_where_their_blocks_stay_whole(tmp_path, first, whole_blocks):
    state, held = eight_bits(16, 320), eight_bits(4, 320, values=False)
    (file,) = in_rows(tmp_path, pieces(state), [16], 16)
    with safe_open(file, framework="pt") as opened:
        assert copy_rows(held, first, Chunk(opened, "w", 0, 16, (16, 320), 256)) == whole_blocks
    assert not whole_blocks or held.dequantize().equal(state.dequantize()[4:8])


def test_eight_bit_state_is_read_as_numbers_where_one_process_holds_too_little_for_it(tmp_path):
    state, back = eight_bits(16, 320), torch.zeros(16, 320)
    with SavedTensors(in_rows(tmp_path, pieces(state), [4, 16], 16)) as saved:
        saved.read_into("w", back)
    assert back.equal(state.dequantize())


def test_numbers_and_rows_across_blocks_become_eight_bit_state_again(tmp_path):
    whole, back = filled(16, 320), eight_bits(16, 320, values=False)
    with SavedTensors(in_rows(tmp_path, {"w": whole}, [5, 16], 16)) as saved:
        saved.read_into("w", back)
    assert back.codes.equal(eight_bits(16, 320, values=False).copy_(whole).codes)


@pytest.mark.parametrize(
    ("piece", "spoil"),
    [
        ("codes", torch.Tensor.int),
        ("scale", lambda s: s[1:]),
        ("scale", torch.Tensor.half),
        ("scale", lambda s: s[None]),
        ("qmap", lambda q: q[1:]),
        ("codes", lambda c: c[0, 0]),
    ],
)
def test_eight_bit_state_whose_pieces_do_not_fit_is_refused(tmp_path, piece, spoil):
    parts = pieces(eight_bits(16, 320))
    parts[f"w/{piece}"] = spoil(parts[f"w/{piece}"]).clone()
    save_file(parts, tmp_path / "0.safetensors", {ROWS: '{"w": [0, 16]}'})
    with pytest.raises(ValueError, match="is damaged"):
        SavedTensors([tmp_path / "0.safetensors"])
