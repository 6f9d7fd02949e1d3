"""Headers of weight files made from any bytes, for the coverage-guided fuzzing of the header and layout code.

    python tests/fuzz/headers.py -max_total_time=300 [folder]      (libFuzzer's arguments; needs the atheris package)

The bytes are a list of edits to the header of a small, sound file, so that what coverage finds is deep in the layouts;
or, after a first byte of 255, the header itself.
"""

import json
import os
import sys
import tempfile
from math import prod
from pathlib import Path

WIDTH, MOST_DATA = 8, 2**20
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "U8": 1, "BOOL": 1, "C64": 8}
TOKENS = (
    "weight bias double_blocks single_blocks mm_single_blocks fusion_mlp fusion_mlp_img fusion_mlp_txt linear1 linear2 "
    "img_attn txt_attn img_attn_qkv img_attn_q img_attn_k img_attn_v txt_attn_qkv img_mlp fc1 fc2 fc lin linear qkv "
    "proj norm query_norm key_norm q_norm k_norm img_attn_q_norm modulation img_mod txt_mod time_r_in txt_in mlp "
    "individual_token_refiner blocks norm1 model module predictor vae diffusion_model lora_A alpha lora_unet "
    "scale_weight weight_scale scale_input input_scale comfy_quant scaled_fp8 linear1_q linear1_k linear1_v "
    "linear1_mlp 0 1 2 3 9 10 9999 10000 -1 \u00b2 now cached out"
).split()
METADATA = (
    "disca.format_version disca.family disca.width disca.depth disca.base_model disca.training _quantization_metadata "
    "format"
).split()
VALUES = (
    "1",
    "1.0",
    "1.5",
    "2",
    "8",
    "{}",
    "[]",
    "{",
    "null",
    '{"layers": {}}',
    '{"layers": {"a": 1}}',
    '{"layers": {"double_blocks.0": {"format": "float8_e4m3fn"}}}',
    '{"layers": []}',
    '{"steps": 3}',
    "[" * 10000,
    "\ud83d\ude00",
)


class Bytes:
    """Reads numbers from bytes; zeros after the end."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def number(self) -> int:
        """The next byte."""
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def choice(self, things):
        """One of the things."""
        return things[self.number() % len(things)]


def sound_headers() -> list[dict[str, list]]:
    """Key -> [type, shape] of a file in every layout."""
    from disca.weights import layouts
    from disca.weights.predictor_spec import PredictorSpec, published_shapes

    small = published_shapes(PredictorSpec("1.0", WIDTH, 2, 1, 1.0))
    small15 = published_shapes(PredictorSpec("1.5", WIDTH, 1, 1, 1.0))
    model = {layouts.MODEL_MARK: (WIDTH,), "time_r_in.mlp.0.weight": (WIDTH, WIDTH)}
    model |= {f"double_blocks.0.{key.partition('.0.')[2]}": s for key, s in small15.items() if "double_blocks" in key}
    model |= {f"single_blocks.0.{key.partition('.0.')[2]}": s for key, s in small.items() if "blocks.0" in key}
    merged = [small, small15, model]
    headers = [*merged, *map(_split, merged), {layouts.module_key(key): shape for key, shape in small15.items()}]
    return [{key: ["BF16", list(shape)] for key, shape in header.items()} for header in headers]


def _split(shapes: dict) -> dict:
    split = {}
    for key, (rows, *others) in shapes.items():
        if "_attn_qkv." in key:
            split |= {key.replace("_attn_qkv.", f"_attn_{part}."): (rows // 3, *others) for part in "qkv"}
        elif ".linear1." in key:
            split |= {key.replace("linear1.", f"linear1_{part}."): (WIDTH, *others) for part in "qkv"}
            split[key.replace("linear1.", "linear1_mlp.")] = (rows - 3 * WIDTH, *others)
        else:
            split[key.replace(".linear2.", ".linear2.fc.")] = (rows, *others)
    return split


def file_of(data: bytes, headers: list[dict[str, list]]) -> bytes:
    """The file that the bytes describe."""
    source = Bytes(data)
    if source.number() == 255:
        text = data[1:]
        return len(text).to_bytes(8, "little") + text + bytes(4096)
    source.at = 0
    header = {key: [kind, list(shape)] for key, (kind, shape) in source.choice(headers).items()}
    metadata: dict[str, str] = {}
    while source and len(header) < 500:
        _edit(source, header, metadata)
    text, size = {"__metadata__": metadata} if metadata else {}, 0
    for key, (kind, shape) in header.items():
        end = size + min(prod(shape) * SIZES[kind], MOST_DATA)
        text[key] = {"dtype": kind, "shape": shape, "data_offsets": [size, end]}
        size = end
    written = json.dumps(text).encode()
    return len(written).to_bytes(8, "little") + written + bytes([source.number()]) * size


def _edit(source: Bytes, header: dict, metadata: dict) -> None:
    keys = list(header) or [""]
    key, kind = keys[source.number() % len(keys)], source.number() % 10
    if kind == 0:
        header.pop(key, None)
    elif kind == 1:
        header[_name(source)] = [source.choice(list(SIZES)), [source.number() % 33 for _ in range(source.number() % 4)]]
    elif kind == 2 and key in header:
        header[_renamed(key, source)] = header.pop(key)
    elif kind == 3 and key in header:
        header[_renamed(key, source)] = header[key]
    elif kind == 4 and key in header:
        header[key] = [header[key][0], [source.number() % 65 for _ in range(source.number() % 6)]]
    elif kind == 5 and key in header:
        header[key] = [source.choice(list(SIZES)), header[key][1]]
    elif kind == 6:
        metadata[source.choice(METADATA)] = source.choice(VALUES)
    elif kind == 7:
        prefix = source.choice(TOKENS) + "."
        for each in keys:
            header[prefix + each] = header.pop(each, ["F32", [1]])
    elif kind == 8:
        for each in keys:
            header[each] = [source.choice(["F16", "F32", "F8_E4M3"]), header.get(each, ["", [1]])[1]]
    elif key in header:
        shape = header[key][1]
        header[f"{key.removesuffix('.weight')}.{source.choice(['scale_weight', 'weight_scale', 'comfy_quant'])}"] = [
            source.choice(["F32", "U8"]),
            shape[:0] if source.number() % 2 else [source.number()],
        ]


def _renamed(key: str, source: Bytes) -> str:
    parts = key.split(".")
    parts[source.number() % len(parts)] = source.choice(TOKENS)
    return ".".join(parts)


def _name(source: Bytes) -> str:
    return ".".join(source.choice(TOKENS) for _ in range(1 + source.number() % 6))


def check(content: bytes, path: Path) -> str:
    """Reads the file by both rooms of the loaders: 'loaded' or the refusal's sentence, anything else raises."""
    import torch

    from disca.weights.files import open_weights
    from disca.weights.predictor_file import read_predictor, to_published
    from disca.weights.predictor_spec import published_shapes
    from disca.weights.quantised import quantisation_of
    from disca.weights.transformer_file import transformer_weights

    path.write_bytes(content)
    try:
        file = open_weights(str(path))
    except ValueError as error:
        return _sentence(error, path)
    told = []
    try:
        weights = transformer_weights(file)
        plain = weights.without(quantisation_of(weights).keys)
        plain.require_floating()
        shapes, joined = plain.shapes, [key for key, parts in plain.sources.items() if len(parts) > 1]
        plain.read_into({key: torch.empty(shapes[key], dtype=plain.dtypes[key]) for key in joined})
        used = [part for parts in weights.sources.values() for part in parts]
        assert len(used) == len(set(used)) <= len(file.tensors)
        told.append("loaded")
    except ValueError as error:
        told.append(_sentence(error, path))
    try:
        spec, state = read_predictor(file)
        shapes = {key: tuple(tensor.shape) for key, tensor in to_published(state).items()}
        assert shapes == published_shapes(spec)
        told.append("loaded")
    except ValueError as error:
        told.append(_sentence(error, path))
    return " / ".join(told)


def _sentence(error: ValueError, path: Path) -> str:
    sentence = str(error)
    assert f"'{path.name}'" in sentence and sentence.endswith("."), sentence
    return sentence


def main() -> None:
    """Fuzzes until libFuzzer's arguments say to stop; what fails is left in a file."""
    import atheris
    import torch  # noqa: F401 (not to be instrumented)

    with atheris.instrument_imports(include=["disca"]):
        import disca.weights.predictor_file
        import disca.weights.quantised
        import disca.weights.transformer_file  # noqa: F401
    headers = sound_headers()
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "fuzzed.safetensors"
        atheris.Setup(sys.argv, lambda data: check(file_of(data, headers), path) and None)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))  # pytest has the pack on the path
    main()
