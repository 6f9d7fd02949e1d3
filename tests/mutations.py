"""Small weight files of every kind and layout, and the ways in which a test spoils them."""

import json
import random
import struct
from dataclasses import dataclass, field

import recipes
import torch
from safetensors.torch import save
from torch import Tensor

from disca.weights import layouts
from disca.weights.predictor_spec import PredictorSpec, published_shapes

SPECS = {"1.0": PredictorSpec("1.0", 128, 2, 1, 4.0), "1.5": PredictorSpec("1.5", 128, 2, 1, 4.0)}
IMAGE_TO_VIDEO = dict(  # HunyuanVideo 1.5
    in_channels=65, out_channels=32, vec_in_dim=None, depth_single_blocks=0, patch_size=[1, 1, 1], guidance_embed=False,
    byt5=True, use_cond_type_embedding=True, vision_in_dim=1152, meanflow_sum=True,
)  # fmt: skip
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Base:
    """What a loader takes, before a test spoils it."""

    loader: str
    weights: Weights
    metadata: dict[str, str] = field(default_factory=dict)


def tiny_transformer(**changes) -> Weights:
    """Weights of a HunyuanVideo 1.0 of width 128, in the merged layout."""
    from comfy.ldm.hunyuan_video.model import HunyuanVideo

    settings = dict(
        image_model="hunyuan_video", in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=16,
        hidden_size=128, mlp_ratio=4.0, num_heads=1, depth=2, depth_single_blocks=1, axes_dim=[16, 56, 56], theta=256,
        patch_size=[1, 2, 2], qkv_bias=True, guidance_embed=True, byt5=False, meanflow=True,
        use_cond_type_embedding=False, vision_in_dim=None, meanflow_sum=False,
    )  # fmt: skip
    network = HunyuanVideo(**{**settings, **changes}, operations=torch.nn)
    return {layouts.published_key(key): tensor.bfloat16() for key, tensor in network.state_dict().items()}


def tiny_predictor(family: str = "1.0") -> Weights:
    """Random weights of a Predictor of width 128, in the merged layout."""
    return {key: torch.randn(shape).bfloat16() for key, shape in published_shapes(SPECS[family]).items()}


def split_qkv(weights: Weights) -> Weights:
    """The merged layout -> separate q, k, v in the transformer's blocks."""
    parts = {}
    for key, tensor in weights.items():
        if "blocks." in key and "_attn_qkv." in key and "refiner" not in key:
            rows = zip("qkv", tensor.chunk(3), strict=True)
            parts |= {key.replace("_attn_qkv.", f"_attn_{part}."): t.clone() for part, t in rows}
        else:
            parts[key] = tensor
    return parts


def scaled_fp8(weights: Weights) -> Weights:
    """Block weights as fp8 with a scale, in the older form."""
    scaled = {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    for key, tensor in weights.items():
        quantised = "blocks." in key and tensor.ndim == 2
        scaled[key] = tensor.to(torch.float8_e4m3fn) if quantised else tensor
        if quantised:
            scaled[key.replace(".weight", ".scale_weight")] = torch.tensor(1.0)
    return scaled


def described_fp8(weights: Weights) -> Weights:
    """Block weights as fp8 with a scale, each layer with its settings beside it."""
    scaled = {}
    for key, tensor in scaled_fp8(weights).items():
        scaled[key.replace(".scale_weight", ".weight_scale")] = tensor
        if key.endswith(".scale_weight"):
            settings = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
            scaled[key.replace(".scale_weight", ".comfy_quant")] = settings
    del scaled["scaled_fp8"]
    return scaled


def comfys(weights: Weights) -> Weights:
    """The merged layout under ComfyUI's names."""
    return {layouts.module_key(key): tensor for key, tensor in weights.items()}


def under(prefix: str, weights: Weights) -> Weights:
    """The weights under a prefix."""
    return {prefix + key: tensor for key, tensor in weights.items()}


def bases() -> dict[str, Base]:
    """Weights in every layout."""
    model, model15 = tiny_transformer(), tiny_transformer(**IMAGE_TO_VIDEO)
    small, small15 = tiny_predictor(), tiny_predictor("1.5")
    told = {"disca.format_version": "1", "disca.family": "1.5", "disca.width": "128", "disca.training": '{"steps": 3}'}
    checkpoint = under("model.diffusion_model.", split_qkv(model)) | {"vae.decoder.weight": torch.ones(4, 4)}
    return {
        "model": Base("model", model),
        "tensor-parallel model": Base("model", recipes.tensor_parallel(model)),
        "ComfyUI's model": Base("model", comfys(model)),
        "checkpoint": Base("model", checkpoint),
        "scaled model": Base("model", scaled_fp8(model)),
        "described model": Base("model", described_fp8(comfys(model))),
        "1.5 model": Base("model", model15),
        "split 1.5 model": Base("model", split_qkv(model15)),
        "predictor": Base("predictor", small),
        "tensor-parallel predictor": Base("predictor", under("module.", recipes.tensor_parallel(small))),
        "1.5 predictor": Base("predictor", small15, told),
        "split 1.5 predictor": Base("predictor", under("module.predictor.", split_qkv(small15))),
        "ComfyUI's predictor": Base("predictor", comfys(small15)),
    }


def header(text: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of this header and data."""
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def renamed(weights, chance):
    key = chance.choice(list(weights))
    other = chance.choice(list(weights))
    place = chance.randrange(max(1, len(key)))
    names = [
        key[:place] + chance.choice("0129._axq") + key[place + 1 :],
        key[:place] + key[place + 1 :],
        key + chance.choice([".weight", ".lora_A", ".scale_weight", ".comfy_quant", "0"]),
        chance.choice(["model.", "module.", "vae.", ".", ""]) + key,
        key.replace("0", str(chance.choice([1, 2, 9, 77, 4711, 10**15]))),
        other,
        layouts.module_key(key),
        "scaled_fp8",
    ]
    return chance.choice(names), key


def rename(weights, chance):
    name, key = renamed(weights, chance)
    weights[name] = weights.pop(key)


def duplicate(weights, chance):
    name, key = renamed(weights, chance)
    weights[name] = weights[key].clone()


def drop(weights, chance):
    stem = chance.choice(list(weights))
    stem = stem[: chance.randrange(1, len(stem) + 1)] if chance.random() < 0.3 else stem
    for key in [key for key in weights if key.startswith(stem)][: len(weights) - 1]:
        del weights[key]


def reshape(weights, chance):
    key = chance.choice(list(weights))
    tensor = weights[key]
    shapes = [
        tensor.flatten(),
        tensor.reshape(1, *tensor.shape),
        tensor.reshape(*tensor.shape, 1),
        tensor.transpose(0, -1) if tensor.ndim else tensor,
        tensor.new_zeros(()),
        tensor.new_zeros(0),
        tensor.new_zeros([0, *tensor.shape]),
        tensor.new_zeros([0, 2**40]),
        tensor[:-1] if tensor.ndim else tensor,
        tensor.flatten()[:1],
    ]
    weights[key] = chance.choice(shapes).clone().contiguous()


def retype(weights, chance):
    key = chance.choice(list(weights))
    kinds = [torch.int8, torch.uint8, torch.bool, torch.int64, torch.float64, torch.float8_e4m3fn, torch.float32]
    weights[key] = weights[key].to(chance.choice(kinds))


def swap(weights, chance):
    key = chance.choice(list(weights))
    other = chance.choice([other for other, tensor in weights.items() if tensor.shape == weights[key].shape])
    weights[key], weights[other] = weights[other], weights[key]


def wrap(weights, chance):
    prefix = chance.choice(["model.", "module.", "model.diffusion_model.", "predictor.", "vae.", "a.b.c."])
    for key in list(weights):
        if chance.random() < 0.98:
            weights[prefix + key] = weights.pop(key)


def poke(weights, chance):
    tensor = weights[chance.choice(list(weights))]
    if tensor.numel() and tensor.is_floating_point():
        tensor.view(-1)[chance.randrange(tensor.numel())] = chance.choice([float("nan"), float("inf"), 1e4])


def flip_bytes(content, chance):
    end = 8 + struct.unpack("<Q", content[:8])[0]
    spoiled = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 20])):
        spoiled[chance.randrange(0, end)] = chance.randrange(256)
    return bytes(spoiled)


def change_header(content, chance):
    end = 8 + struct.unpack("<Q", content[:8])[0]
    table = json.loads(content[8:end])
    entry = table[chance.choice(list(table))]
    field = chance.choice(["dtype", "shape", "data_offsets"])
    values = [[-1], [2**63, 2], [0, 0], [1, 2, 3], [0, 2**40], "F32", "F8_E4M3", "F4", "U16", None, {}, [1.5], 3]
    entry[field] = chance.choice(values)
    text = json.dumps(table).encode()
    return header(text, content[end:])


def cut(content, chance):
    return content[: chance.randrange(len(content))]


def lengthen(content, chance):
    return content + bytes(chance.choice([1, 8, 5000]))


def upcast(weights, chance):
    keys = [key for key, tensor in weights.items() if tensor.dtype == torch.bfloat16 and tensor.ndim == 1]
    if keys:
        key = chance.choice(keys)
        weights[key] = weights[key].float()


def shuffle(weights, chance):
    for key in chance.sample(list(weights), len(weights)):
        weights[key] = weights.pop(key)


def put_under_a_prefix(weights, chance):
    prefix = chance.choice(["model.", "module.", "a.b.", "model.diffusion_model.", "\u00e9."])
    if any(key.startswith(layouts.CHECKPOINT_COMPANIONS) for key in weights):
        return  # a checkpoint's other parts are known by their names
    for key in list(weights):
        weights[prefix + key] = weights.pop(key)


def add_space(content, chance):
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return header(content[8:end] + b" " * chance.randrange(1, 2000), content[end:])


def escape(content, chance):
    end = 8 + struct.unpack("<Q", content[:8])[0]
    letter = chance.choice("abdegiklmnoqtvx")
    table = json.dumps(json.loads(content[8:end]), indent=chance.choice([None, 1]))
    return header(table.replace(f"_{letter}", f"_\\u{ord(letter):04x}").encode(), content[end:])


HARMLESS_CHANGES = (upcast, shuffle, put_under_a_prefix)
HARMLESS_BYTE_CHANGES = (add_space, escape)
TENSOR_CHANGES = (rename, duplicate, drop, reshape, retype, swap, wrap, poke)
BYTE_CHANGES = (flip_bytes, flip_bytes, change_header, change_header, cut, lengthen)
METADATA = (
    *({} for _ in range(6)),
    {"format": "pt"},
    {"disca.width": "7"},
    {"disca.depth": "2"},
    {"disca.format_version": "0"},
    {"disca.training": "{"},
    {"_quantization_metadata": "{}"},
    {"_quantization_metadata": '{"layers": {"double_blocks.0.img_mlp.0": {"format": "float8_e4m3fn"}}}'},
)


def mutant(base: Base, chance: random.Random) -> bytes:
    """The bytes of a file that a few random changes have spoiled, more or less."""
    weights = {key: tensor.clone() for key, tensor in base.weights.items()}
    for _ in range(chance.choice([0, 1, 1, 2, 3])):
        chance.choice(TENSOR_CHANGES)(weights, chance)
    content = save(weights, base.metadata | chance.choice(METADATA))
    return chance.choice(BYTE_CHANGES)(content, chance) if chance.random() < 0.35 else content


def variant(base: Base, chance: random.Random) -> bytes:
    """The bytes of another file with the same weights: no change in it matters."""
    weights = {key: tensor.clone() for key, tensor in base.weights.items()}
    for change in chance.sample(HARMLESS_CHANGES, chance.choice([0, 1, 2])):
        change(weights, chance)
    content = save(weights, base.metadata | chance.choice([{}, {"format": "pt"}, {"author": "\u4e0a"}]))
    for change in chance.sample(HARMLESS_BYTE_CHANGES, chance.choice([0, 1, 2])):
        content = change(content, chance)
    return content
