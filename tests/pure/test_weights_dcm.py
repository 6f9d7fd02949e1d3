"""What DCM's file holds is told apart, and diffusers' names become ComfyUI's, in the right order."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from disca.weights.dcm_file import DIFFUSERS, experts_of, read_expert_lora
from disca.weights.diffusers_names import SWAPPED, Place, diffusers_place
from disca.weights.files import TensorInfo, WeightsFile, open_weights
from disca.weights.layouts import merged
from disca.weights.merged import joined_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "hv10_dcm.safetensors"


@pytest.fixture(scope="module")
def shapes():
    """The keys and shapes that diffusers and PEFT give to a small network with DCM's adapter and layers."""
    with safe_open(GOLDEN, framework="pt") as file:
        return json.loads(file.metadata()["shapes"])["model"]


@pytest.fixture(scope="module")
def experts(shapes):
    return experts_of(
        WeightsFile("dcm.safetensors", {k: TensorInfo(tuple(s), torch.bfloat16) for k, s in shapes.items()}, {})
    )


@pytest.mark.parametrize(
    ("name", "place"),
    {
        "transformer_blocks.12.attn.to_k": Place("double_blocks.12.img_attn.qkv", "k"),
        "transformer_blocks.3.attn.add_v_proj": Place("double_blocks.3.txt_attn.qkv", "v"),
        "transformer_blocks.0.ff_context.net.0.proj": Place("double_blocks.0.txt_mlp.0"),
        "single_transformer_blocks.39.proj_mlp": Place("single_blocks.39.linear1", "mlp"),
        "single_transformer_blocks.0.proj_out": Place("single_blocks.0.linear2"),
        "context_embedder.token_refiner.refiner_blocks.1.norm_out.linear": Place(
            "txt_in.individual_token_refiner.blocks.1.adaLN_modulation.1"
        ),
        "context_embedder.time_text_embed.text_embedder.linear_2": Place("txt_in.c_embedder.out_layer"),
        "time_text_embed.guidance_embedder.linear_1": Place("guidance_in.in_layer"),
        "norm_out.linear": Place("final_layer.adaLN_modulation.1", SWAPPED),
        "proj_out": Place("final_layer.linear"),
        "double_blocks.0.img_attn.qkv": None,
        "transformer_blocks.0": None,
        "other_blocks.0.attn.to_q": None,
    }.items(),
)
def test_a_name_of_diffusers_has_its_place(name, place):
    assert diffusers_place(name) == place


def test_parts_are_joined_in_comfyuis_order_whatever_theirs():
    stem = "single_transformer_blocks.4"
    keys = [f"{stem}.{name}.bias" for name in ("proj_mlp", "attn.to_v", "attn.to_q", "attn.to_k")]
    order = [keys[i] for i in (2, 3, 1, 0)]
    assert merged(keys, DIFFUSERS).sources == {"single_blocks.4.linear1.bias": tuple(order)}


def test_a_missing_part_is_called_by_diffusers_name():
    keys = [f"transformer_blocks.2.attn.to_{part}.weight" for part in "qk"]
    assert merged(keys, DIFFUSERS).missing == ["transformer_blocks.2.attn.to_v.weight"]


def test_an_unknown_key_stays():
    assert merged(["some.weight", "key"], DIFFUSERS).sources == {"some.weight": ("some.weight",), "key": ("key",)}


def test_halves_of_the_last_modulation_change_places_when_read(tmp_path):
    weight = torch.arange(12.0).reshape(4, 3)
    save_file({"norm_out.linear.weight": weight}, tmp_path / "file.safetensors")
    file = open_weights(str(tmp_path / "file.safetensors"))
    key = "final_layer.adaLN_modulation.1.weight"
    weights = joined_weights(file, "", {"norm_out.linear.weight": "norm_out.linear.weight"}, DIFFUSERS)
    read = torch.empty(4, 3)
    replace(weights, swapped=frozenset({key})).read_into({key: read})
    assert torch.equal(read, weight[[2, 3, 0, 1]])


def test_each_key_goes_to_one_expert_or_the_lora(experts, shapes):
    parts = [part for weights in experts[:2] for parts in weights.sources.values() for part in parts]
    assert sorted([*parts, *experts.lora.values()]) == sorted(shapes)


def test_the_own_layers_are_those_that_they_replace(experts):
    own = experts.own.shapes
    assert own == {key: experts.semantic.shapes[key] for key in own}
    layers = {key.partition(".")[0] for key in own}
    assert layers == {"time_in", "guidance_in", "vector_in", "final_layer"}
    assert experts.own.swapped == experts.semantic.swapped == {key for key in own if "adaLN" in key}


def test_the_lora_counts_twice_whatever_its_rank(tmp_path):
    layer = "transformer_blocks.0.attn.to_q"
    factors = {f"{layer}.lora_A.lora1.weight": torch.ones(3, 5), f"{layer}.lora_B.lora1.weight": torch.ones(7, 3)}
    save_file(factors, tmp_path / "file.safetensors")
    lora = read_expert_lora(open_weights(str(tmp_path / "file.safetensors")), {key: key for key in factors})
    assert lora.layers.keys() == {layer} and lora.layers[layer]["alpha"] == 6.0
