"""Safetensors files, read tensor by tensor, with errors a user can act on."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..messages import listing, quoted
from .impostors import refuse_content, refuse_experts, refuse_folder, refuse_name, refuse_part

GROUP_BYTES = 64 * 2**20  # the file is mapped anew after so much was read, which gives back the pages already copied

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor."""

    shape: Shape
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class WeightsFile:
    """The header of a safetensors file; the tensors stay on disk until they are asked for."""

    path: str
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return os.path.basename(self.path)

    def read(self, keys: list[str]) -> Iterator[tuple[str, Tensor]]:
        """Each key with its tensor, mapped from the file, checked for NaN and infinity; use it before the next one."""
        remaining = sorted(keys)
        while remaining:
            size = 0
            with safe_open(self.path, framework="pt") as file:
                while remaining and size < GROUP_BYTES:
                    key = remaining.pop(0)
                    size += self.tensors[key].nbytes
                    tensor = file.get_tensor(key)
                    require_finite(self.name, key, tensor)
                    yield key, tensor
                    del tensor


def open_weights(path: str) -> WeightsFile:
    """The file's header; ValueError in one sentence if it is not a whole safetensors file with tensors in it."""
    name = os.path.basename(path)
    refuse_folder(path)
    refuse_name(path)
    refuse_content(path)
    refuse_part(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}
            header = {key: (tuple(part.get_shape()), part.get_dtype()) for key, part in slices.items()}
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(_explain(name, path, str(error))) from error
    unknown = sorted({dtype for _, dtype in header.values() if dtype not in DTYPES})
    if unknown:
        raise ValueError(
            f"{quoted(name)} stores tensors as {listing(unknown)}, which DisCa does not read. Use a bf16 or fp8 file."
        )
    if not header:
        raise ValueError(f"{quoted(name)} holds no tensors. Download it again.")
    return WeightsFile(path, {key: TensorInfo(shape, DTYPES[kind]) for key, (shape, kind) in header.items()}, metadata)


def require_finite(name: str, key: str, tensor: Tensor) -> None:
    """ValueError that names the key if there is a NaN or an infinity in the tensor."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return
    values = tensor.to(torch.bfloat16) if tensor.dtype.itemsize == 1 else tensor  # torch has no aminmax for fp8
    if not all(torch.isfinite(extreme) for extreme in torch.aminmax(values)):
        raise ValueError(
            f"{quoted(name)} has NaN or infinity in {quoted(key)}. The file is damaged: download it again."
        )


def refuse_lora(name: str, keys: list[str], wanted: str) -> None:
    """ValueError if the keys are those of a LoRA, or of a model with one beside it."""
    refuse_experts(name, keys, wanted)
    if any(re.search(r"lora_|\.alpha$|\.dora_scale$|\.(hada|lokr)_[wt]|\.oft_blocks$", key) for key in keys):
        raise ValueError(
            f"{quoted(name)} is a LoRA, but {wanted} is needed here. Load it with DisCa Load LoRA after the model."
        )


def _explain(name: str, path: str, message: str) -> str:
    size = os.path.getsize(path)
    words = message.lower().replace(" ", "")  # safetensors words the same error differently from version to version
    if "incomplete" in words or "invalidheaderlength" in words:
        return (
            f"{quoted(name)} is cut short or damaged: it has {size:,} bytes, its header says otherwise. "
            "Download it again."
        )
    return (
        f"{quoted(name)} ({size:,} bytes) is not a safetensors file ({quoted(message)}). "
        "Download the .safetensors version again."
    )
