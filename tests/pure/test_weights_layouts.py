"""The maps between the layouts lose nothing, mix nothing up, and tell what is missing or there twice."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from disca.weights import layouts

GOLDEN = Path(__file__).parents[1] / "golden"


def authors_keys(part):
    keys = set()
    for path in GOLDEN.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            keys |= set(json.loads(file.metadata()["shapes"])[part])
    return sorted(keys)


def test_split_attention_is_joined_in_the_order_q_k_v():
    keys = [f"double_blocks.0.img_attn_{part}.weight" for part in "vkq"]
    merged = layouts.merged(keys)
    assert merged.sources == {"double_blocks.0.img_attn_qkv.weight": tuple(reversed(keys))}
    assert merged.missing == merged.twice == []


def test_split_linear1_is_joined_in_the_order_q_k_v_mlp():
    keys = [f"single_blocks.3.linear1_{part}.bias" for part in ("mlp", "v", "k", "q")]
    assert layouts.merged(keys).sources == {"single_blocks.3.linear1.bias": tuple(reversed(keys))}


def test_tensor_parallel_linear2_loses_its_inner_name():
    assert "single_blocks.0.linear2.weight" in layouts.merged(["single_blocks.0.linear2.fc.weight"]).sources


def test_merged_keys_stay_as_they_are():
    keys = authors_keys("predictor") + authors_keys("model")
    kept = [key for key in keys if "_attn_q." not in key and "_attn_k." not in key and "_attn_v." not in key]
    assert layouts.merged(kept).sources == {key: (key,) for key in kept}


def test_the_missing_part_of_a_split_weight_is_named():
    parts = ["img_attn_q.weight", "img_attn_v.weight", "linear1_q.bias", "linear1_k.bias", "linear1_v.bias"]
    merged = layouts.merged([f"blocks.0.{part}" for part in parts])
    assert merged.missing == ["blocks.0.img_attn_k.weight", "blocks.0.linear1_mlp.bias"]


@pytest.mark.parametrize(
    "keys",
    [
        ["a.img_attn_qkv.weight", "a.img_attn_q.weight"],
        ["a.img_attn_q.weight", "a.img_attn_qkv.weight"],
        ["a.linear1_mlp.weight", "a.linear1.weight"],
        ["a.linear2.fc.weight", "a.linear2.weight"],
    ],
)
def test_a_weight_in_two_layouts_at_once_is_told(keys):
    assert layouts.merged(keys).twice == keys[1:]


@pytest.mark.parametrize("prefix", ["", "model.", "module.model.", "model.diffusion_model."])
def test_the_prefix_is_what_stands_before_the_mark(prefix):
    keys = [prefix + "fusion_mlp.0.weight", prefix + "fusion_mlp.0.bias"]
    assert layouts.prefix_of(keys, "fusion_mlp.0.weight") == prefix
    assert layouts.without_prefix(keys, prefix) == ({key.removeprefix(prefix): key for key in keys}, [])


def test_a_mark_within_a_name_is_no_mark():
    assert layouts.prefix_of(["my_fusion_mlp.0.weight"], "fusion_mlp.0.weight") is None


def test_companions_are_left_out_only_beside_a_prefix():
    assert layouts.without_prefix(["vae.a", "model.b"], "model.") == ({"b": "model.b"}, [])
    assert layouts.without_prefix(["vae.a", "b"], "") == ({"vae.a": "vae.a", "b": "b"}, [])


def test_keys_with_and_without_the_prefix_are_told():
    assert layouts.without_prefix(["a", "model.a", "model.b"], "model.")[1] == ["a"]


@pytest.mark.parametrize("key", [key for key in layouts.merged(authors_keys("predictor")).sources])
def test_names_of_predictor_weights_go_there_and_back(key):
    assert layouts.published_key(layouts.module_key(key)) == key
    assert layouts.published_key(key) == key
    assert layouts.module_key(layouts.module_key(key)) == layouts.module_key(key)
