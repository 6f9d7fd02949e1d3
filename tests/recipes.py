"""Weights and runs of the golden files: every weight is made from its key, its shape and a seed."""

import json
import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
CASES = ("hv10_t2v", "hv15_i2v")


class Golden(NamedTuple):
    """One run of the authors' code: its settings, its tensors, and the weights it ran with."""

    meta: dict
    tensors: dict[str, Tensor]
    model: dict[str, Tensor]
    predictor: dict[str, Tensor]


def weights(part: str, shapes: dict[str, list[int]], seed: int) -> dict[str, Tensor]:
    """The weights of a part, exactly the same everywhere: NumPy's RandomState stream is frozen."""
    made = {}
    for key, shape in shapes.items():
        stream = np.random.RandomState((zlib.crc32(f"{part}/{key}".encode()) ^ seed) & 0x7FFFFFFF)
        weight = stream.standard_normal(shape).astype(np.float32) * (0.06 if len(shape) > 1 else 0.1)
        if len(shape) == 1 and "norm" in key and key.endswith("weight"):
            weight += 1.0
        made[key] = torch.from_numpy(weight.astype(np.float32))
    return made


@cache
def golden(case: str) -> Golden:
    """The golden run of that name."""
    with safe_open(GOLDEN / f"{case}.safetensors", framework="pt") as file:
        meta = json.loads(file.metadata()["meta"])
        shapes = json.loads(file.metadata()["shapes"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    parts = (weights(part, shapes[part], meta["seed"]) for part in ("model", "predictor"))
    return Golden(meta, tensors, *parts)


def tensor_parallel(merged: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensor-parallel layout of merged HunyuanVideo 1.0 weights."""
    split = {}
    for key, tensor in merged.items():
        stem, _, kind = key.rpartition(".")
        if stem.endswith("_attn_qkv"):
            parts = tensor.chunk(3)
            split |= {f"{stem.removesuffix('_qkv')}_{p}.{kind}": t for p, t in zip("qkv", parts, strict=True)}
        elif stem.endswith("linear1"):
            width = merged[f"{stem.removesuffix('1')}2.weight"].shape[0]
            parts = tensor.split([width, width, width, tensor.shape[0] - 3 * width])
            split |= {f"{stem}_{p}.{kind}": t for p, t in zip(("q", "k", "v", "mlp"), parts, strict=True)}
        else:
            split[key.replace(".linear2.", ".linear2.fc.")] = tensor
    return {key: tensor.contiguous() for key, tensor in split.items()}


def second_feature(predictor: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a Predictor of two features has besides, drawn at random."""
    ends = ".2.weight"
    fusions = [key.removesuffix(ends) for key in predictor if key.startswith("fusion") and key.endswith(ends)]
    width = predictor[f"{fusions[0]}.2.weight"].shape[0]
    shapes = {f"{fusion}.change.weight": (width, width) for fusion in fusions}
    for mlp in ("vec", *(f"damping.{i:d}" for i in range(len(fusions)))):
        shapes |= {f"ages.{mlp}.0.weight": (64, 96), f"ages.{mlp}.0.bias": (64,)}
        shapes |= {f"ages.{mlp}.2.weight": (width, 64), f"ages.{mlp}.2.bias": (width,)}
    generator = torch.Generator().manual_seed(2)
    return {key: 0.05 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
