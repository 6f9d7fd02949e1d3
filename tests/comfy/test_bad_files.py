"""A file that is not what it should be is refused in a sentence: which file, what was found, what to do."""

import gc
import json
import struct

import pytest
import recipes
import torch
from comfy.ldm.hunyuan_video.model import HunyuanVideo
from mutations import SPECS, header, scaled_fp8, split_qkv, tiny_predictor, tiny_transformer
from safetensors.torch import save, save_file

from disca.models.loading import load_meanflow_model, load_predictor
from disca.weights.files import open_weights
from disca.weights.lora_file import read_lora
from disca.weights.predictor_file import read_predictor
from disca.weights.predictor_spec import published_shapes
from disca.weights.transformer_file import transformer_weights

LOADERS = {"model": load_meanflow_model, "predictor": load_predictor}
READERS = {"model": transformer_weights, "predictor": read_predictor, "LoRA": read_lora}
QKV = "double_blocks.0.img_attn_qkv.weight"


@pytest.fixture(scope="module")
def bases():
    """What the loaders take, before a test spoils it."""
    torch.manual_seed(0)
    return {
        "model": tiny_transformer(),
        "split model": split_qkv(tiny_transformer()),
        "predictor": tiny_predictor(),
        "1.5 predictor": tiny_predictor("1.5"),
        "split predictor": split_qkv(tiny_predictor("1.5")),
        "scaled model": scaled_fp8(tiny_transformer()),
    }


@pytest.fixture
def refusal(tmp_path):
    """The sentence with which a loader refuses weights or bytes; it names the file."""

    def refuse(loader, content, metadata=None, name="chosen.safetensors"):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save_file(content, path, metadata)
        with pytest.raises(ValueError) as caught:
            LOADERS[loader](str(path))
        sentence = str(caught.value)
        assert f"'{name}'" in sentence and sentence.endswith(".")
        return sentence

    return refuse


def says(sentence: str, *parts: str) -> bool:
    """Whether it has the parts, whatever is quoted in them."""
    return all(part.replace("'", "") in sentence.replace("'", "") for part in parts)


BAD_BYTES = {
    "empty": (b"", "empty (0 bytes)", "Download it again"),
    "few bytes": (b"abc", "(3 bytes) is not a safetensors file", "Download"),
    "web page": (
        b"\n<!DOCTYPE html><html>Access denied</html>" * 9,
        "is not a safetensors file, but a web page",
        "log in or accept a licence",
    ),
    "text": (b"Entry not found", "is not a safetensors file, but text: 'Entry not found'", "Download it again"),
    "an answer in JSON": (b'{"error": "gated"}', 'but text: \'{"error": "gated"}\'', "Download it again"),
    "Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 25700000000\n",
        "is not a safetensors file, but a Git LFS pointer",
        "Run git lfs pull",
    ),
    "GGUF": (b"GGUF\3\0\0\0", "but GGUF under another name", "loader"),
    "zip of PyTorch": (b"PK\3\4\0\0", "but a PyTorch file, which can run code", "Convert it"),
    "pickle": (b"\x80\2}q\0.", "but a PyTorch file, which can run code", "Convert it"),
    "archive": (b"\x1f\x8b\x08\0", "but a packed archive", "Unpack it"),
    "absurd header length": (header(b"{}", length=2**62), "is not a safetensors file", "Download"),
    "header longer than the file": (header(b"{}", length=5000), "cut short or damaged: it has 10 bytes", "again"),
    "not JSON": (header(b"{]"), "is not a safetensors file", "Download"),
    "no tensors": (header(b"{}"), "no tensors", "Download it again"),
    "unknown type": (
        header(b'{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}', b"\0" * 8),
        "as C64",
        "Use a bf16",
    ),
    "size beyond all bounds": (
        header(b'{"a":{"dtype":"F32","shape":[9223372036854775807,9],"data_offsets":[0,0]}}'),
        "is not a safetensors file",
        "Download",
    ),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("kind", BAD_BYTES)
def test_bytes_that_are_no_weights_are_refused(kind, loader, refusal):
    content, *told = BAD_BYTES[kind]
    sentence = refusal(loader, content)
    assert says(sentence, *told), sentence


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("missing", [1, 1000])
def test_a_truncated_file_is_to_be_downloaded_again(loader, missing, bases, refusal):
    whole = save(bases[loader])
    sentence = refusal(loader, whole[:-missing])
    assert f"{len(whole) - missing:,} bytes" in sentence and "Download it again" in sentence


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("name", "found", "do"),
    [
        ("chosen.ckpt", "is not a .safetensors file, but one that can run code", "Convert it"),
        ("chosen.PTH", "is not a .safetensors file, but one that can run code", "Convert it"),
        ("chosen.onnx", "is not a .safetensors file. ", "Convert it"),
        ("chosen.gguf", "is a GGUF file", "with a GGUF pack's loader"),
        ("chosen.safetensors.part", "is an unfinished download", "Wait for its end"),
        ("model.safetensors.index.json", "only lists the parts of a model", "as a single .safetensors file"),
    ],
)
def test_other_kinds_of_file_are_refused(name, found, do, loader, refusal):
    sentence = refusal(loader, b"PK\3\4", name=name)
    assert found in sentence and do in sentence


@pytest.mark.parametrize("loader", LOADERS)
def test_one_part_of_several_is_told_from_a_whole_file(loader, bases, refusal, tmp_path):
    name = "diffusion_pytorch_model-00002-of-00003.safetensors"
    sentence = refusal(loader, dict(list(bases[loader].items())[:9]), name=name)
    assert "is part 2 of 3 of a model" in sentence and "as a single .safetensors file" in sentence
    save_file(bases[loader], tmp_path / "model-00001-of-00001.safetensors")
    assert LOADERS[loader](str(tmp_path / "model-00001-of-00001.safetensors"))


@pytest.mark.parametrize("length", [640, 896, 1408, 15392])
def test_a_sound_file_is_no_other_file_by_the_length_of_its_header(length, tmp_path):
    """Its bytes are those that a pickle or a web page may begin with."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + header + bytes(4))
    assert open_weights(str(tmp_path / "a.safetensors")).tensors["a"].shape == (1,)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_the_layout_of_diffusers_is_named(prefix, refusal):
    keys = ("transformer_blocks.0.attn.to_q.weight", "context_embedder.proj_in.weight", "x_embedder.proj.weight")
    sentence = refusal("model", {prefix + key: torch.zeros(4, 4) for key in keys})
    assert "is in diffusers' layout" in sentence and "Choose the authors' file or ComfyUI's" in sentence


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    "key",
    [
        "transformer.blocks.0.attn.lora_A.weight",
        "lora_unet_blocks_0.lora_up.weight",
        "blocks.0.diff.alpha",
        "a.lokr_w1",
    ],
)
def test_a_lora_is_sent_to_load_lora(loader, key, refusal):
    sentence = refusal(loader, {key: torch.zeros(4, 4)})
    assert "is a LoRA" in sentence and "Load it with DisCa Load LoRA" in sentence


@pytest.mark.parametrize(
    ("loader", "other", "found", "do"),
    [
        ("model", "predictor", "no txt_in.individual_token_refiner", "Choose a file such as hyvideo10"),
        ("predictor", "model", "not a DisCa Predictor", "Choose a file such as hyvideo10_t2v_predictor"),
        ("predictor", "split model", "neither fusion_mlp.0.weight, fusion_mlp_img.0.weight", "Choose a file"),
    ],
)
def test_a_file_of_the_other_loader_is_refused(loader, other, found, do, bases, refusal):
    sentence = refusal(loader, bases[other])
    assert found in sentence and do in sentence


IMPOSTORS = {  # keys, as they are in the files of others
    "VAE of HunyuanVideo": (["encoder.conv_in.conv.weight", "decoder.conv_in.conv.weight"], "a VAE", "Load VAE"),
    "VAE of Wan": (["encoder.conv1.weight", "decoder.conv1.weight"], "a VAE", "Load VAE"),
    "CLIP": (["text_model.encoder.layers.0.mlp.fc1.weight"], "a text encoder", "text encoders"),
    "T5": (["encoder.block.0.layer.0.SelfAttention.q.weight"], "a text encoder", "text encoders"),
    "Qwen": (["model.layers.0.self_attn.q_proj.weight", "visual.blocks.0.norm1.weight"], "a text encoder", "text enco"),
    "CLIP vision": (["vision_model.encoder.layers.0.mlp.fc1.weight"], "a CLIP vision model", "Load CLIP Vision"),
    "embedding": (["emb_params"], "an embedding (textual inversion)", "models/embeddings"),
    "embedding for SDXL": (["clip_g", "clip_l"], "an embedding (textual inversion)", "models/embeddings"),
    "ControlNet": (["controlnet_blocks.0.weight"], "a ControlNet", "Load ControlNet Model"),
    "latent": (["latent_tensor", "latent_format_version_0"], "a saved latent", "Load Latent"),
}


@pytest.mark.parametrize("loader", ["model", "predictor", "LoRA"])
@pytest.mark.parametrize("kind", IMPOSTORS)
def test_a_file_of_another_kind_is_named_for_what_it_is(kind, loader, tmp_path):
    keys, what, where = IMPOSTORS[kind]
    save_file({key: torch.ones(2, 2) for key in keys}, tmp_path / "chosen.safetensors")
    file = open_weights(str(tmp_path / "chosen.safetensors"))
    with pytest.raises(ValueError, match=r"'chosen.safetensors' is .*\.$") as error:
        READERS[loader](file)
    assert f"It seems to be {what}" in str(error.value) and where in str(error.value)


@pytest.mark.parametrize("kind, weights", [("model", "a HunyuanVideo model"), ("predictor", "a DisCa Predictor")])
def test_models_and_predictors_are_named_where_they_do_not_belong(kind, weights, bases, tmp_path):
    save_file(bases[kind], tmp_path / "chosen.safetensors")
    file = open_weights(str(tmp_path / "chosen.safetensors"))
    for reader in READERS.keys() - {kind}:
        with pytest.raises(ValueError, match=f"It seems to be {weights}"):
            READERS[reader](file)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_file_of_another_model_is_refused(loader, refusal):
    weights = {f"model.diffusion_model.input_blocks.{i}.0.weight": torch.zeros(4) for i in range(20)}
    sentence = refusal(loader, weights)
    assert "input_blocks.0.0.weight" in sentence and "Choose a file such as" in sentence


def test_a_model_without_time_r_in_is_refused(bases, refusal):
    weights = {key: tensor for key, tensor in bases["model"].items() if "time_r_in" not in key}
    sentence = refusal("model", weights)
    assert "no time_r_in weights" in sentence and "without MeanFlow" in sentence
    assert "Load it with core's Load Diffusion Model" in sentence


def test_hunyuan_image_is_refused(refusal):
    image = tiny_transformer(patch_size=[2, 2], axes_dim=[64, 64], vec_in_dim=None)
    sentence = refusal("model", image)
    assert says(sentence, "img_in.proj.weight is [128, 16, 2, 2] instead of 5-dimensional")
    assert "HunyuanVideo 1.0 or 1.5 is needed" in sentence
    sentence = refusal("model", tiny_transformer(patch_size=[1, 1, 1], vec_in_dim=None))
    assert "is HunyuanImage21Refiner" in sentence and "HunyuanVideo 1.0 or 1.5 is needed" in sentence


MODEL_KEYS = {  # how the weights are spoiled: (key -> new tensor, or None to drop it), and what the sentence says
    "missing": ({QKV: None}, ["1 missing: double_blocks.0.img_attn.qkv.weight"]),
    "extra": (
        {"double_blocks.0.extra.weight": torch.zeros(4)},
        ["1 not known: double_blocks.0.extra.weight"],
    ),
    "misshapen": (
        {QKV: torch.zeros(300, 128)},
        ["1 of another shape", "img_attn.qkv.weight is [300, 128] instead of [384, 128]"],
    ),
    "0-d": ({QKV: torch.tensor(1.0)}, ["img_attn.qkv.weight is [] instead of [384, 128]"]),
    "zero-size": ({QKV: torch.zeros(0, 128)}, ["img_attn.qkv.weight is [0, 128] instead of [384, 128]"]),
    "0-d patches": ({"img_in.proj.weight": torch.tensor(1.0)}, ["img_in.proj.weight is []", "5-dimensional"]),
    "no patches": ({"img_in.proj.weight": None}, ["img_in.proj.weight is missing"]),
    "empty patches": ({"img_in.proj.weight": torch.zeros(128, 16, 1, 0, 2)}, ["[128, 16, 1, 0, 2]"]),
    "odd width": ({"img_in.proj.weight": torch.zeros(100, 16, 1, 2, 2)}, ["width 100 is not a multiple of 128"]),
    "0-d output": ({"final_layer.linear.weight": torch.tensor(1.0)}, ["final_layer.linear.weight is []"]),
    "whole numbers": ({QKV: torch.ones(384, 128, dtype=torch.int8)}, ["whole numbers (int8)", QKV, "bf16"]),
    "two layouts": (
        {"double_blocks.0.img_attn_q.weight": torch.zeros(128, 128)},
        ["1 weights twice", "double_blocks.0.img_attn_q"],
    ),
    "published and ComfyUI's name": (
        {"double_blocks.0.img_attn.qkv.weight": torch.zeros(384, 128)},
        ["1 weights twice", "double_blocks.0.img_attn"],
    ),
    "scale without weight": (
        {"double_blocks.7.proj.weight_scale": torch.tensor(1.0)},
        ["double_blocks.7.proj.weight'"],
    ),
    "block scales": ({QKV.replace("weight", "weight_scale"): torch.ones(4)}, ["[4]", "one scale per layer"]),
    "fp8 without a scale": (
        {
            QKV: torch.zeros(384, 128).to(torch.float8_e4m3fn),
            QKV.replace("weight", "comfy_quant"): torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8),
        },
        ["1 layers that are fp8 without a scale", QKV],
    ),
    "scale of what is not fp8": (
        {
            "scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn),
            QKV.replace("weight", "scale_weight"): torch.tensor(2.0),
        },
        ["or the other way round", QKV],
    ),
    "settings that are no text": (
        {QKV.replace("weight", "comfy_quant"): torch.zeros(4)},
        ["not text"],
    ),
    "settings not JSON": (
        {QKV.replace("weight", "comfy_quant"): torch.tensor(list(b"{"), dtype=torch.uint8)},
        ["not JSON"],
    ),
    "another quantisation": (
        {QKV.replace("weight", "comfy_quant"): torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)},
        ["nvfp4", "float8_e4m3fn", "core's Load Diffusion Model"],
    ),
}


def spoiled(weights, changes):
    return {key: tensor for key, tensor in {**weights, **changes}.items() if tensor is not None}


@pytest.mark.parametrize("kind", MODEL_KEYS)
def test_a_model_with_wrong_keys_is_refused(kind, bases, refusal):
    changes, told = MODEL_KEYS[kind]
    sentence = refusal("model", spoiled(bases["model"], changes))
    assert says(sentence, *told), sentence
    assert any(verb in sentence for verb in ("Choose", "Download", "download", "choose")), sentence


@pytest.mark.parametrize("loader", LOADERS)
def test_keys_with_and_without_their_prefix_are_refused(loader, bases, refusal):
    weights = bases[loader] | {f"module.{key}": tensor.clone() for key, tensor in bases[loader].items()}
    sentence = refusal(loader, weights)
    assert f"{len(bases[loader])} weights twice" in sentence and "download the file again" in sentence


@pytest.mark.parametrize("base", ["split model", "split predictor"])
def test_a_split_group_that_lacks_a_part_is_refused(base, bases, refusal):
    sentence = refusal(base.split()[1], spoiled(bases[base], {"double_blocks.1.txt_attn_k.weight": None}))
    assert says(sentence, "1 keys missing: double_blocks.1.txt_attn_k.weight", "Download it again")


@pytest.mark.parametrize("base", ["split model", "split predictor"])
@pytest.mark.parametrize("shapes", [((127, 128), (129, 128)), ((128, 127), (128, 128)), ((), (128, 128))])
def test_a_split_group_with_uneven_parts_is_refused(shapes, base, bases, refusal):
    keys = ["double_blocks.0.img_attn_q.weight", "double_blocks.0.img_attn_k.weight"]
    changes = {key: torch.zeros(shape) for key, shape in zip(keys, shapes, strict=True)}
    sentence = refusal(base.split()[1], spoiled(bases[base], changes))
    assert says(sentence, f"{keys[0]} {list(shapes[0])}", "same shape")


@pytest.mark.parametrize("base", ["model", "predictor"])
def test_a_split_linear1_with_a_part_of_no_rows_is_refused(base, bases, refusal):
    weights = recipes.tensor_parallel(bases[base])
    key = next(key for key in weights if key.endswith("linear1_mlp.bias"))
    sentence = refusal(base, weights | {key: torch.tensor(1.0)})
    assert says(sentence, f"{key} []", "same shape")


def test_a_quantised_file_with_split_layers_is_refused(bases, refusal):
    weights = bases["split model"] | {"double_blocks.0.img_attn_q.scale_weight": torch.tensor(1.0)}
    sentence = refusal("model", weights)
    assert "quantised with split q, k, v" in sentence and "Use the bf16 file" in sentence


@pytest.mark.parametrize("told", ["{", "[]", '{"layers": 3}', '{"layers": {"a": 1}}', "[" * 100_000])
def test_quantisation_metadata_that_says_nothing_is_refused(told, bases, refusal):
    assert "ownload" in refusal("model", bases["model"], {"_quantization_metadata": told}) or "a" in told


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("base", ["model", "split model", "predictor", "1.5 predictor", "split predictor"])
def test_nan_and_infinity_are_named_with_their_key(base, value, bases, refusal):
    key = sorted(bases[base])[len(bases[base]) // 2]
    tensor = bases[base][key].clone()
    tensor.view(-1)[-1] = value
    sentence = refusal(base.split()[-1], bases[base] | {key: tensor})
    assert f"NaN or infinity in '{key}'" in sentence and "download it again" in sentence


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.float32])
def test_nan_is_found_in_every_type(dtype, bases, refusal):
    weights = {key: tensor.to(dtype) for key, tensor in bases["predictor"].items()}
    weights["fusion_mlp.2.bias"] = torch.full((128,), float("nan")).to(dtype)
    assert "'fusion_mlp.2.bias'" in refusal("predictor", weights)


def test_a_refused_file_leaves_no_network_behind(bases, refusal):
    gc.collect()
    before = sum(type(thing) is HunyuanVideo for thing in gc.get_objects())
    refusal("model", bases["model"] | {QKV: torch.full((384, 128), float("nan"))})
    gc.collect()
    assert sum(type(thing) is HunyuanVideo for thing in gc.get_objects()) == before


PREDICTOR_KEYS = {
    "missing": ({"mm_single_blocks.1.q_norm.weight": None}, ["1 missing: mm_single_blocks.1.q_norm.weight"]),
    "extra": ({"mm_single_blocks.0.gate": torch.zeros(2)}, ["1 not known: mm_single_blocks.0.gate"]),
    "misshapen": (
        {"mm_single_blocks.1.linear2.weight": torch.zeros(128, 600)},
        ["linear2.weight is [128, 600] instead of [128, 640]"],
    ),
    "another width in one block": (
        {"mm_single_blocks.1.linear1.weight": torch.zeros(1792, 256)},
        ["width 128", "[1792, 256] instead of [896, 128]"],
    ),
    "odd fusion": ({"fusion_mlp.0.weight": torch.zeros(128, 255)}, ["[128, 255] instead of [128, 256]"]),
    "0-d fusion": ({"fusion_mlp.0.weight": torch.tensor(1.0)}, ["fusion_mlp.0.weight is [] instead of"]),
    "0-d width": ({"fusion_mlp.2.weight": torch.tensor(1.0)}, ["fusion_mlp.2.weight missing or without values"]),
    "zero-size": ({"fusion_mlp.2.weight": torch.zeros(0, 128)}, ["fusion_mlp.2.weight missing or without values"]),
    "no blocks": (
        {key: None for key in published_shapes(SPECS["1.0"]) if "blocks" in key},
        ["mm_single_blocks.0.linear1.weight"],
    ),
    "no first block": (
        {key: None for key in published_shapes(SPECS["1.0"]) if "blocks.0" in key},
        ["mm_single_blocks.0.linear1.weight"],
    ),
    "block beyond a gap": ({"mm_single_blocks.4.q_norm.weight": torch.zeros(128)}, ["up to 4, but lacks 2, 3"]),
    "block beyond all bounds": ({"mm_single_blocks.99999999999.q_norm.weight": torch.zeros(128)}, ["1 not known"]),
    "block that is no number": ({"mm_single_blocks.\u00b2.q_norm.weight": torch.zeros(128)}, ["1 not known"]),
    "whole numbers": ({"fusion_mlp.2.bias": torch.ones(128, dtype=torch.int64)}, ["(int64) in 'fusion_mlp.2.bias'"]),
    "published and ComfyUI's name": (
        {"mm_single_blocks.0.modulation.lin.bias": torch.zeros(384)},
        ["1 weights twice", "mm_single_blocks.0.modulation.lin"],
    ),
    "parts of the other family": (
        {key: torch.zeros(shape) for key, shape in published_shapes(SPECS["1.5"]).items()},
        ["HunyuanVideo 1.0 Predictor", "not known: double_blocks.0"],
    ),
}


@pytest.mark.parametrize("kind", PREDICTOR_KEYS)
def test_a_predictor_with_wrong_keys_is_refused(kind, bases, refusal):
    changes, told = PREDICTOR_KEYS[kind]
    sentence = refusal("predictor", spoiled(bases["predictor"], changes))
    assert says(sentence, *told), sentence
    assert any(verb in sentence for verb in ("Choose", "Download", "download", "choose")), sentence


PREDICTOR_METADATA = {
    "family": ({"disca.family": "1.5"}, ["says family 1.5, but its tensors have family 1.0", "download it again"]),
    "width": ({"disca.width": "3072"}, ["says width 3072, but its tensors have width 128"]),
    "depth": ({"disca.depth": "two"}, ["says depth two, but its tensors have depth 2"]),
    "version": ({"disca.format_version": "4"}, ["format version 4; this DisCa reads up to 3", "Update DisCa"]),
    "training": ({"disca.training": "{steps: 3}"}, ["training settings that are not JSON", "Write the Predictor anew"]),
    "training list": ({"disca.training": "[1]"}, ["training settings that are not a JSON object"]),
    "training depth": ({"disca.training": "[" * 100_000}, ["training settings that are not JSON"]),
}


@pytest.mark.parametrize("kind", PREDICTOR_METADATA)
def test_predictor_metadata_that_is_not_true_is_refused(kind, bases, refusal):
    metadata, told = PREDICTOR_METADATA[kind]
    sentence = refusal("predictor", bases["predictor"], metadata)
    assert says(sentence, *told), sentence
