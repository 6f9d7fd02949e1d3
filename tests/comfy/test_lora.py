"""A LoRA of any trainer gives what weights with it merged give."""

import json

import graph
import pytest
import recipes
import torch
from graph import relative_error
from lora_files import TRAINERS, lora_file, merged_layout
from mutations import described_fp8, scaled_fp8
from safetensors.torch import save_file
from torch.linalg import vector_norm as norm

CASES = ("hv10_t2v", "hv15_i2v")
SOME = "0 1 4 6"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights():
    """The weights of a case in the merged layout."""
    return {case: merged_layout(recipes.golden(case).model) for case in CASES}


@pytest.fixture(scope="module")
def lora_folder(tmp_path_factory, comfy_nodes):
    import folder_paths

    folder = tmp_path_factory.mktemp("loras")
    folder_paths.add_model_folder_path("loras", str(folder), is_default=True)
    return folder


@pytest.fixture
def with_lora(call, lora_folder):
    """The MODEL after DisCa Load LoRA with these tensors as its file, and the report."""

    def run(model, tensors, strength: float = 1.0, metadata=None, name: str = "chosen.safetensors"):
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, lora_folder / name, metadata)
        return call("DiscaLoadLora", model=model, lora_name=name, strength=strength)

    return run


@pytest.fixture(scope="module")
def merged_model(call, weights, model_folders):
    """A MODEL of the case's weights with something added to them."""

    def load(case: str, added: dict, strength: float = 1.0):
        both = dict(weights[case])
        both |= {key: both[key] + strength * change for key, change in added.items()}
        path = (
            model_folders.diffusion_models / f"merged_{len(list(model_folders.diffusion_models.iterdir()))}.safetensors"
        )
        save_file({key: tensor.contiguous() for key, tensor in both.items()}, path)
        return call("DiscaLoadModel", model_name=path.name, weight_dtype="default")[0]

    return load


def weights_of(model, names=None) -> dict[str, torch.Tensor]:
    """The network's weights as they are with all patches, by ComfyUI's names in the network."""
    names = names or [name for name, _ in model.model.diffusion_model.named_parameters()]
    return {name: model.patch_weight_to_device(f"diffusion_model.{name}", return_weight=True).float() for name in names}


def comfys(model, tensors: dict) -> dict:
    """Tensors under published names -> under ComfyUI's, by its own rules."""
    return model.model.model_config.process_unet_state_dict(dict(tensors))


def distance(ours: dict, theirs: dict) -> float:
    """The largest difference between two networks' weights, beside the largest of each weight."""
    return max(((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()).item() for name in theirs)


def merged(model, added: dict, strength: float = 1.0) -> dict[str, torch.Tensor]:
    """The MODEL's weights with changes, under published names, added to them."""
    changes = comfys(model, added)
    return {name: weight + strength * changes.get(name, 0) for name, weight in weights_of(model).items()}


def count_of(tensors: dict) -> int:
    """How many layers a low-rank file has."""
    return sum(".lora_up" in key or ".lora_B" in key or ".lora.up" in key for key in tensors)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainers_lora_gives_the_merged_weights(trainer, case, weights, load, with_lora):
    model, _ = load(case)
    tensors, added = lora_file(weights[case], trainer)
    patched, report = with_lora(model, tensors)
    count = count_of(tensors)
    assert report.startswith(f"{count} of {count} layers of 'chosen.safetensors' at strength 1")
    assert "match nothing" not in report and "do not fit" not in report
    assert distance(weights_of(patched), merged(model, added)) < 1e-5
    assert distance(weights_of(patched), weights_of(model)) > 1e-2


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("trainer", ["musubi-tuner", "diffusers"])
def test_a_loras_video_is_that_of_merged_weights(trainer, case, weights, load, with_lora, merged_model, sample):
    model, _ = load(case)
    tensors, added = lora_file(weights[case], trainer)
    video, _ = sample(case, with_lora(model, tensors, 0.5)[0], steps=2)
    assert relative_error(video, sample(case, merged_model(case, added, 0.5), steps=2)[0]) < 1e-4
    assert relative_error(video, sample(case, model, steps=2)[0]) > 1e-3


@pytest.mark.parametrize("strength", [-1.5, 0.3, 2.0])
def test_strength_scales_what_is_added(strength, weights, load, with_lora):
    model, _ = load("hv10_t2v")
    tensors, added = lora_file(weights["hv10_t2v"], "diffusers")
    patched, _ = with_lora(model, tensors, strength)
    assert distance(weights_of(patched), merged(model, added, strength)) < 1e-5


def test_strength_0_is_the_plain_model_bit_for_bit(weights, load, with_lora, sample):
    model, _ = load("hv10_t2v")
    tensors, _ = lora_file(weights["hv10_t2v"], "musubi-tuner")
    name = "lora_unet_final_layer_linear"
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(name)}
    tensors |= {f"{name}.set_weight": torch.ones(64, 256)}
    patched, report = with_lora(model, tensors, 0.0)
    assert patched is not model and "Strength 0: the model is left as it is." in report
    assert torch.equal(sample("hv10_t2v", patched, steps=2)[0], sample("hv10_t2v", model, steps=2)[0])


def test_two_loras_add_up(weights, load, with_lora):
    model, _ = load("hv15_i2v")
    first, added = lora_file(weights["hv15_i2v"], "musubi-tuner", seed=1)
    second, more = lora_file(weights["hv15_i2v"], "diffusers", seed=2)
    patched, _ = with_lora(with_lora(model, first, 0.5)[0], second, -0.7, name="second.safetensors")
    added = {key: 0.5 * change - 0.7 * more[key] for key, change in added.items()}
    assert distance(weights_of(patched), merged(model, added)) < 1e-5


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_lora_before_or_after_the_predictor_gives_what_merged_weights_give(
    order, weights, load, with_lora, merged_model, apply, sample
):
    model, predictor = load("hv10_t2v")
    tensors, added = lora_file(weights["hv10_t2v"], "OneTrainer")
    if order == "before":
        both = apply(with_lora(model, tensors, 0.5)[0], predictor, SOME)
    else:
        both = with_lora(apply(model, predictor, SOME), tensors, 0.5)[0]
    cached, report = sample("hv10_t2v", both)
    assert graph.counts(report) == "4 full + 4 predicted"
    reference = apply(merged_model("hv10_t2v", added, 0.5), predictor, SOME)
    assert relative_error(cached, sample("hv10_t2v", reference)[0]) < 1e-4


@pytest.mark.parametrize("form", ["fp8_e4m3fn", "scaled", "described"])
def test_a_lora_on_fp8_weights_is_right_to_their_rounding(form, weights, call, with_lora, model_folders):
    """ComfyUI takes the weight out of fp8, adds, and rounds to fp8 again."""
    base = weights["hv10_t2v"]
    made = {"scaled": scaled_fp8, "described": described_fp8}.get(form, dict)({k: t.clone() for k, t in base.items()})
    save_file(made, model_folders.diffusion_models / f"lora_{form}.safetensors")
    dtype = form if form.startswith("fp8") else "default"
    (model,) = call("DiscaLoadModel", model_name=f"lora_{form}.safetensors", weight_dtype=dtype)
    tensors, added = lora_file(base, "diffusers")
    patched, report = with_lora(model, tensors)
    assert report.startswith(f"{count_of(tensors)} of {count_of(tensors)} layers")
    ours, plain, exact = weights_of(patched), weights_of(model), merged(model, added)
    for name in ("double_blocks.0.img_attn.qkv.weight", "single_blocks.1.linear1.weight"):
        assert norm(ours[name] - exact[name]) < 0.06 * norm(exact[name]) < 0.3 * norm(plain[name] - exact[name])


DOUBLE, SINGLE = "double_blocks.1.img_attn_qkv", "single_blocks.0.linear1"
PLACES = {  # name in the file -> layer, first row, rows
    "all of qkv": ("lora_unet_double_blocks_1_img_attn_qkv", DOUBLE, 0, 768),
    "v of qkv": ("diffusion_model.double_blocks.1.img_attn_v", DOUBLE, 512, 256),
    "mlp of linear1": ("transformer.single_transformer_blocks.0.proj_mlp", SINGLE, 768, 1024),
}


def draw(*shape: int, size: float = 0.1) -> torch.Tensor:
    return torch.randn(shape) * size


def kron(a, b):
    return torch.einsum("ij,kl->ikjl", a, b).reshape(a.shape[0] * b.shape[0], -1)


def rotation(blocks):
    skew = blocks - blocks.transpose(-1, -2)
    eye = torch.eye(blocks.shape[-1])
    return (eye + skew) @ torch.linalg.inv(eye - skew)


def lengthened(weight, lengths, dim):
    return weight * lengths / weight.norm(dim=dim, keepdim=True)


def low_rank(rows, columns=256):
    up, down = draw(rows, 4), draw(4, columns)
    return {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(2.0)}, 0.5 * up @ down


def lora_kind(weight):
    tensors, change = low_rank(len(weight))
    return tensors, weight + change


def dora_of_rows(weight):
    tensors, change = low_rank(len(weight))
    lengths = torch.rand(len(weight), 1) + 0.5
    return tensors | {"dora_scale": lengths}, lengthened(weight + change, lengths, 1)


def dora_of_inputs(weight):
    tensors, change = low_rank(len(weight))
    lengths = torch.rand(1, 256) + 0.5
    return tensors | {"dora_scale": lengths}, lengthened(weight + change, lengths, 0)


def peft_dora(weight):
    up, down, lengths = draw(len(weight), 4), draw(4, 256), torch.rand(len(weight)) + 0.5
    tensors = {"lora_A.default.weight": down, "lora_B.default.weight": up}
    tensors |= {"lora_magnitude_vector.default.weight": lengths}
    return tensors, lengthened(weight + up @ down, lengths[:, None], 1)


def loha(weight):
    w1_a, w1_b, w2_a, w2_b = draw(len(weight), 3), draw(3, 256), draw(len(weight), 3), draw(3, 256)
    tensors = {"hada_w1_a": w1_a, "hada_w1_b": w1_b, "hada_w2_a": w2_a, "hada_w2_b": w2_b, "alpha": torch.tensor(6.0)}
    return tensors, weight + 2.0 * (w1_a @ w1_b) * (w2_a @ w2_b)


def lokr(weight):
    w1, w2 = draw(4, 8), draw(len(weight) // 4, 32)
    return {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(9.0)}, weight + kron(w1, w2)


def decomposed_lokr(weight):
    a, b, w2_a, w2_b = draw(4, 2), draw(2, 8), draw(len(weight) // 4, 2), draw(2, 32)
    tensors = {"lokr_w1_a": a, "lokr_w1_b": b, "lokr_w2_a": w2_a, "lokr_w2_b": w2_b, "alpha": torch.tensor(3.0)}
    return tensors, weight + 1.5 * kron(a @ b, w2_a @ w2_b)


def dora_lokr(weight):
    w1, w2, lengths = draw(4, 8), draw(len(weight) // 4, 32), torch.rand(len(weight), 1) + 0.5
    return {"lokr_w1": w1, "lokr_w2": w2, "dora_scale": lengths}, lengthened(weight + kron(w1, w2), lengths, 1)


def glora(weight):
    a1, a2, b1, b2 = draw(256, 3), draw(3, 256), draw(len(weight), 3), draw(3, 256)
    tensors = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2}
    return tensors, weight + weight @ a1 @ a2 + b1 @ b2


def oft(weight):
    blocks = draw(len(weight) // 8, 8, 8)
    rotated = torch.einsum("knm,kni->kmi", rotation(blocks), weight.reshape(-1, 8, 256))
    return {"oft_blocks": blocks}, rotated.reshape(weight.shape)


def rescaled_oft(weight):
    tensors, trained = oft(weight)
    factors = torch.rand(len(weight), 1) + 0.5
    return tensors | {"rescale": factors}, trained * factors


def bound_oft(weight):
    """The trainers' bound of a rotation is alpha times the number of rows."""
    blocks, alpha = draw(len(weight) // 8, 8, 8), 1e-4
    skew = blocks - blocks.transpose(-1, -2)
    bound = blocks * (alpha * len(weight) / skew.norm())
    assert alpha * len(weight) < skew.norm()
    rotated = torch.einsum("knm,kni->kmi", rotation(bound), weight.reshape(-1, 8, 256))
    return {"oft_blocks": blocks, "alpha": torch.tensor(alpha)}, rotated.reshape(weight.shape)


def boft(weight):
    """Two stages of butterflies: neighbours first, then those four rows apart."""
    blocks, trained = draw(2, len(weight) // 8, 8, 8), weight
    for stage, turns in enumerate(rotation(blocks)):
        half = 4 * 2**stage
        order = torch.arange(len(weight)).reshape(-1, 2, half).transpose(1, 2).flatten()
        turned = torch.einsum("bij,bjn->bin", turns, trained[order].reshape(-1, 8, 256)).reshape(weight.shape)
        trained = torch.empty_like(turned)
        trained[order] = turned
    return {"oft_blocks": blocks}, trained


def difference(weight):
    change = draw(*weight.shape)
    return {"diff": change}, weight + change


KINDS = (
    lora_kind, dora_of_rows, dora_of_inputs, peft_dora, loha, lokr, decomposed_lokr, dora_lokr, glora, oft,
    rescaled_oft, bound_oft, boft, difference,
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_adapter_changes_a_layer_or_rows_of_one(kind, place, weights, load, with_lora):
    """At strength s the weight goes s of the way to what was trained."""
    model, _ = load("hv10_t2v")
    name, layer, start, rows = PLACES[place]
    before = weights["hv10_t2v"][f"{layer}.weight"]
    tensors, trained = kind(before[start : start + rows])
    key = next(iter(comfys(model, {f"{layer}.weight": before})))
    for strength in (1.0, 0.4, -0.7):
        patched, report = with_lora(model, {f"{name}.{end}": tensor for end, tensor in tensors.items()}, strength)
        assert report.startswith("1 of 1 layers")
        expected = before.clone()
        expected[start : start + rows] += strength * (trained - before[start : start + rows])
        assert distance(weights_of(patched, [key]), {key: expected}) < 1e-5


def test_a_tucker_core_changes_a_convolution(weights, load, with_lora):
    model, _ = load("hv10_t2v")
    before = weights["hv10_t2v"]["img_in.proj.weight"]
    up, core, down = draw(256, 3, 1, 1, 1), draw(3, 5, 1, 2, 2), draw(5, 16, 1, 1, 1)
    ends = {"lora_up.weight": up, "lora_mid.weight": core, "lora_down.weight": down, "alpha": torch.tensor(3.0)}
    patched, _ = with_lora(model, {f"lora_unet_img_in_proj.{end}": tensor for end, tensor in ends.items()})
    change = torch.einsum("om,mndhw,ni->oidhw", up.flatten(1), core, down.flatten(1))
    assert distance(weights_of(patched, ["img_in.proj.weight"]), {"img_in.proj.weight": before + change}) < 1e-5


def test_biases_norms_and_whole_weights_are_changed(weights, load, with_lora):
    model, _ = load("hv10_t2v")
    base = weights["hv10_t2v"]
    changes = {
        "double_blocks.0.img_attn_k.diff_b": draw(256),
        "double_blocks.0.img_attn_q_norm.diff": draw(128),
        "double_blocks.1.txt_attn_k_norm.w_norm": draw(128),
        "txt_in.individual_token_refiner.blocks.0.norm1.w_norm": draw(256),
        "txt_in.individual_token_refiner.blocks.0.norm1.b_norm": draw(256),
        "single_blocks.0.linear1_mlp.set_weight": draw(1024, 256),
        "single_blocks.0.linear2.lora_A.weight": draw(2, 1280),
        "single_blocks.0.linear2.lora_B.weight": draw(256, 2),
        "single_blocks.0.linear2.lora_B.bias": draw(256),
    }
    patched, report = with_lora(model, {f"diffusion_model.{key}": tensor for key, tensor in changes.items()}, 0.5)
    *differences, replaced, down, up, bias = changes.values()
    expected = {
        "double_blocks.0.img_attn_qkv.bias": torch.cat((torch.zeros(256), differences[0], torch.zeros(256))),
        "double_blocks.0.img_attn_q_norm.weight": differences[1],
        "double_blocks.1.txt_attn_k_norm.weight": differences[2],
        "txt_in.individual_token_refiner.blocks.0.norm1.weight": differences[3],
        "txt_in.individual_token_refiner.blocks.0.norm1.bias": differences[4],
        "single_blocks.0.linear1.weight": torch.cat(
            (torch.zeros(768, 256), 2 * (replaced - base["single_blocks.0.linear1.weight"][768:]))
        ),
        "single_blocks.0.linear2.weight": up @ down,
        "single_blocks.0.linear2.bias": bias,
    }
    assert report.startswith("6 of 6 layers") and "replaces some weights" in report
    assert distance(weights_of(patched), merged(model, expected, 0.5)) < 1e-5


NOTHING = {  # layers that change nothing
    "alpha 0": {"lora_A.weight": (4, 1280), "lora_B.weight": (256, 4), "alpha": 0.0},
    "up of zeros": {"lora_A.weight": (4, 1280), "lora_B.weight": torch.zeros(256, 4)},
    "LoKr of alpha 0": {"lokr_w1": (8, 8), "lokr_w2_a": (32, 2), "lokr_w2_b": (2, 160), "alpha": 0.0},
    "LoHa of zeros": {
        f"hada_w{i}_{ab}": torch.zeros(*([256, 4] if ab == "a" else [4, 1280])) for i in (1, 2) for ab in "ab"
    },
    "difference of zeros": {"diff": torch.zeros(256, 1280)},
}


@pytest.mark.parametrize("kind", NOTHING)
def test_layers_that_change_nothing_are_counted_and_named(kind, load, with_lora):
    model, _ = load("hv10_t2v")
    ends = {
        end: torch.randn(value) if isinstance(value, tuple) else torch.as_tensor(value)
        for end, value in NOTHING[kind].items()
    }
    patched, report = with_lora(model, {f"{LINEAR2}.{end}": tensor for end, tensor in ends.items()})
    assert f"1 of them change nothing, as alpha or weights are 0: '{LINEAR2}'." in report.splitlines()
    assert distance(weights_of(patched), weights_of(model)) == 0.0


@pytest.mark.parametrize("kind", ["LoKr in whole", "DoRA"])
def test_an_alpha_of_0_that_stops_nothing_is_not_told(kind, load, with_lora):
    model, _ = load("hv10_t2v")
    ends = (
        {"lokr_w1": draw(8, 8), "lokr_w2": draw(32, 160)}
        if kind == "LoKr in whole"
        else {"lora_A.weight": draw(4, 1280), "lora_B.weight": draw(256, 4), "dora_scale": draw(256, 1)}
    )
    patched, report = with_lora(
        model, {f"{LINEAR2}.{end}": tensor for end, tensor in ends.items()} | {f"{LINEAR2}.alpha": torch.zeros(())}
    )
    assert "change nothing" not in report
    assert distance(weights_of(patched), weights_of(model)) > 1e-3


def test_alpha_is_read_from_the_metadata_of_diffusers_and_peft(weights, load, with_lora):
    """It is divided by the rank, or with rank-stabilised LoRA by the rank's root; a layer may have its own."""
    model, _ = load("hv10_t2v")
    tensors, added = lora_file(weights["hv10_t2v"], "diffusers")
    qkv = "double_blocks.0.img_attn_qkv.weight"
    for key, config, scale, own in (
        ("lora_adapter_metadata", {"transformer.lora_alpha": 12, "transformer.r": 3}, 4.0, 4.0),
        ("adapter_config", {"lora_alpha": 6.0, "use_rslora": True}, 6 / 3**0.5, 6 / 3**0.5),
        ("adapter_config", {"lora_alpha": 3, "alpha_pattern": {"transformer_blocks.0.attn.to_q": 9}}, 1.0, 3.0),
    ):
        patched, report = with_lora(model, tensors, metadata={key: json.dumps(config)})
        changes = {name: change * scale for name, change in added.items()}
        changes[qkv] = torch.cat((added[qkv][:256] * own, changes[qkv][256:]))
        assert "no alpha" not in report
        assert distance(weights_of(patched), merged(model, changes)) < 1e-5
    assert "It has no alpha: taken for the rank" in with_lora(model, tensors)[1]


def test_what_matches_nothing_is_counted_and_named(weights, load, with_lora, caplog):
    model, _ = load("hv10_t2v")
    tensors, added = lora_file(weights["hv10_t2v"], "musubi-tuner")
    stray = {f"lora_unet_double_blocks_{i}_img_attn_qkv.diff": torch.zeros(768, 256) for i in range(90, 97)}
    stray |= {"lora_te1_layers_0_mlp.diff": torch.zeros(2, 2), "text_encoder.layers.3.lora_A.weight": torch.zeros(2, 2)}
    stray |= {"lora_unet_img_in_proj.dora_wrong": torch.zeros(2)}
    odd = "lora_unet_single_blocks_0_linear2"
    wrong = {f"{odd}.lora_down.weight": torch.zeros(4, 77)}
    patched, report = with_lora(model, tensors | stray | wrong)
    count = count_of(tensors)
    told = report.splitlines()
    assert told[0].startswith(f"{count - 1} of {count + 8} layers")
    assert told[1].startswith("8 match nothing in this model: 'lora_unet_double_blocks_90_img_attn_qkv', ")
    assert told[1].endswith(" and 4 more.")
    assert told[2].startswith(f"1 do not fit and are left out: '{odd}' (up of [256, 3] and down of [4, 77])")
    assert told[3].startswith("2 are for text encoders and left out: ") and "'lora_te1_layers_0_mlp'" in told[3]
    assert "match nothing" in caplog.text
    added.pop("single_blocks.0.linear2.weight")
    assert distance(weights_of(patched), merged(model, added)) < 1e-5


LINEAR2 = "single_blocks.0.linear2"
MOD = "double_blocks.0.img_mod.linear"
REFUSED = {  # keys with their shapes, and what is said
    "Wan": ({"lora_unet_blocks_0_cross_attn_k.lora_down.weight": (4, 8)}, "seem to be those of Wan"),
    "Qwen-Image": ({"transformer.transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight": (4, 8)}, "Qwen-Image"),
    "Stable Diffusion": ({"lora_unet_down_blocks_0_proj_in.lora_up.weight": (4, 8)}, "Stable Diffusion"),
    "text encoders": ({"lora_te_text_model_layers_0_fc1.lora_up.weight": (4, 8)}, "text encoders only"),
    "another size": ({f"{MOD}.diff": (1536, 3072)}, "(for [1536, 3072], the model has [1536, 256])"),
    "half a pair": ({f"{MOD}.lora_A.weight": (4, 256)}, "(no lora_up.weight)"),
    "only alphas": ({f"{MOD}.alpha": ()}, "(only alpha)"),
    "LoKr of a convolution": (
        {"img_in.proj.lokr_w1": (16, 4), "img_in.proj.lokr_w2": (16, 4, 1, 2, 2)},
        "(LoKr of a convolution)",
    ),
    "a magnitude of another size": (
        {f"{LINEAR2}.lora_A.weight": (4, 1280), f"{LINEAR2}.lora_B.weight": (256, 4), f"{LINEAR2}.dora_scale": (7, 1)},
        "(a magnitude of [7, 1] for a weight of [256, 1280])",
    ),
    "an alpha of several numbers": (
        {f"{LINEAR2}.oft_blocks": (32, 8, 8), f"{LINEAR2}.alpha": (2,)},
        "an alpha that is not one number",
    ),
    "two kinds": ({f"{MOD}.diff": (1536, 256), f"{MOD}.lora_A.weight": (4, 256)}, "(LoRA and difference at once)"),
    "a whole model": ({f"{MOD}.weight": (4, 4)}, "is not a LoRA: it has no lora_down"),
    "a layer twice": (
        {"lora_unet_single_blocks_0_linear2.diff": (256, 1280), f"diffusion_model.{LINEAR2}.diff": (256, 1280)},
        f"same layer twice, as 'diffusion_model.{LINEAR2}' and 'lora_unet_single_blocks_0_linear2'",
    ),
    "a tensor twice": ({f"{LINEAR2}.lora_A": (4, 8), f"{LINEAR2}.lora_A.weight": (4, 8)}, "the 'lora_down.weight' of"),
    "a layer whole and in parts": (
        {"double_blocks.0.img_attn_qkv.diff": (768, 256), "transformer_blocks.0.attn.to_q.diff": (256, 256)},
        "has the same layer twice",
    ),
    "GLoRA of another width": (
        {
            f"{MOD}.a1.weight": (7, 4),
            f"{MOD}.a2.weight": (4, 7),
            f"{MOD}.b1.weight": (1536, 4),
            f"{MOD}.b2.weight": (4, 256),
        },
        "(factors for another width)",
    ),
    "GLoRA of a flattened convolution": (
        {
            "img_in.proj.a1.weight": (64, 4),
            "img_in.proj.a2.weight": (4, 64),
            "img_in.proj.b1.weight": (256, 4),
            "img_in.proj.b2.weight": (4, 64),
        },
        "(GLoRA of a convolution)",
    ),
    "LoHa of a convolution": (
        {f"{MOD}.hada_w{i}_{part}": (4, 4, 1) for i in (1, 2) for part in "ab"},
        "(LoHa of a convolution)",
    ),
    "NaN": ({f"{LINEAR2}.diff": float("nan")}, "has NaN or infinity"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_of_which_nothing_fits_is_refused_with_what_it_seems_to_be(kind, load, with_lora):
    shapes, told = REFUSED[kind]
    tensors = {
        key: torch.full((2,), shape) if isinstance(shape, float) else draw(*shape) for key, shape in shapes.items()
    }
    with pytest.raises(ValueError, match="^'chosen.safetensors' ") as caught:
        with_lora(load("hv10_t2v")[0], tensors)
    sentence = str(caught.value)
    assert told in sentence and sentence.endswith(".") and ("Choose a LoRA" in sentence or "again" in sentence)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_a_lora_of_whole_numbers_is_refused(dtype, load, with_lora):
    with pytest.raises(ValueError, match="has whole numbers .* but weights are floating-point. Choose"):
        with_lora(load("hv10_t2v")[0], {f"{LINEAR2}.diff": torch.ones(256, 1280, dtype=dtype)})


@pytest.mark.parametrize("text", ["{", "[]", '{"lora_alpha": "much"}', '{"lora_alpha": 1e999}', '{"alpha_pattern": 7}'])
def test_metadata_that_is_no_configuration_is_refused(text, weights, load, with_lora):
    tensors, _ = lora_file(weights["hv10_t2v"], "bare")
    with pytest.raises(ValueError, match="in its metadata that cannot be read: .*Download it again"):
        with_lora(load("hv10_t2v")[0], tensors, metadata={"adapter_config": text})


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_that_is_no_number_is_refused(strength, weights, load, with_lora):
    tensors, _ = lora_file(weights["hv10_t2v"], "bare")
    with pytest.raises(ValueError, match=f"'strength' is {strength}, but must be a finite number"):
        with_lora(load("hv10_t2v")[0], tensors, strength)


def test_a_file_for_another_model_by_its_own_word_is_told(weights, load, with_lora):
    tensors, _ = lora_file(weights["hv10_t2v"], "musubi-tuner")
    model, _ = load("hv10_t2v")
    _, report = with_lora(model, tensors, metadata={"modelspec.architecture": "flux-1-dev/lora"})
    assert "It says that it is for 'flux-1-dev/lora': expect nonsense." in report
    _, report = with_lora(model, tensors, metadata={"modelspec.architecture": "hunyuan-video/lora"})
    assert "nonsense" not in report


def test_another_model_is_refused(with_lora, weights):
    tensors, _ = lora_file(weights["hv10_t2v"], "bare")
    with pytest.raises(ValueError, match="This MODEL is a Flux, but DisCa works on HunyuanVideo"):
        with_lora(graph.tiny_image_model(), tensors)


def test_a_pickled_lora_is_refused_unread(load, call, lora_folder):
    (lora_folder / "old.pt").write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match="'old.pt' is not a .safetensors file"):
        call("DiscaLoadLora", model=load("hv10_t2v")[0], lora_name="old.pt", strength=1.0)
