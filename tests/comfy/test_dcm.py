"""DCM's file of two experts gives two MODELs that answer as diffusers' network does, and the weights once."""

from contextlib import nullcontext

import comfy.model_management
import pytest
import recipes
import torch
from golden_double import double_embedding
from graph import FixedNoise, conditioning, relative_error
from safetensors.torch import save_file

from disca.limits import WEIGHT_DTYPES
from disca.models.dcm import load_dcm_experts
from disca.models.family import HUNYUANVIDEO_10
from disca.models.loading import load_meanflow_model, load_predictor
from disca.weights.diffusers_names import diffusers_names, diffusers_place, parts_of
from disca.weights.files import open_weights
from disca.weights.lora_file import read_lora

CASE = "hv10_dcm"
EMBEDDINGS = {"embedding in double": (double_embedding, 1e-5), "ComfyUI's embedding": (nullcontext, 1e-4)}
TO_Q = "transformer_blocks.0.attn.to_q"
SINGLE = "single_transformer_blocks.1.attn.to_v"


@pytest.fixture(scope="module")
def run():
    """Four steps of diffusers' network in double precision, with PEFT's adapter from step 2 on."""
    return recipes.golden(CASE)


@pytest.fixture(scope="module")
def name(run, model_folders):
    """The file that the run was made with, where a user would put it."""
    save_file(run.model, model_folders.diffusion_models / "dcm.safetensors")
    return "dcm.safetensors"


@pytest.fixture
def experts(call, name):
    return call("DiscaLoadDCM", model_name=name, weight_dtype="default")


@pytest.fixture
def file(tmp_path):
    def write(weights) -> str:
        save_file(weights, tmp_path / "chosen.safetensors")
        return str(tmp_path / "chosen.safetensors")

    return write


def sampled(call, run, first, second):
    """The run's four steps through core's nodes, x of the latent space: two of one MODEL, then two of the other."""
    (sampler,) = call("KSamplerSelect", sampler_name="euler")
    parts = call("SplitSigmas", sigmas=torch.tensor(run.meta["sigmas"]), step=run.meta["switch"])
    noise, latent = FixedNoise(run.tensors["latent"]), {"samples": torch.zeros_like(run.tensors["latent"])}
    for model, sigmas in zip((first, second), parts, strict=True):
        (guider,) = call("BasicGuider", model=model, conditioning=conditioning(run, model))
        inputs = {"noise": noise, "guider": guider, "sampler": sampler, "sigmas": sigmas, "latent_image": latent}
        latent, _ = call("SamplerCustomAdvanced", **inputs)
        (noise,) = call("DisableNoise")
    return first.model.process_latent_in(latent["samples"])


def weights_of(model):
    """The weights that the MODEL samples with."""
    comfy.model_management.load_models_gpu([model])
    return {key: tensor.clone() for key, tensor in model.model.diffusion_model.state_dict().items()}


def same(ours, theirs) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_two_samplers_on_split_sigmas_give_the_latent_of_diffusers(embedding, call, experts, run):
    embed, tolerance = EMBEDDINGS[embedding]
    with embed():
        error = relative_error(sampled(call, run, *experts)[None], run.tensors["x"][-1:])
    print(f"\n{embedding}: relative error of x {error:.1e}")
    assert error < tolerance


@pytest.mark.parametrize("order", [(0, 0), (1, 1), (1, 0)])
def test_the_other_expert_is_far_from_diffusers(order, call, experts, run):
    latent = sampled(call, run, *(experts[number] for number in order))
    assert relative_error(latent[None], run.tensors["x"][-1:]) > 1e-2


def test_detail_is_the_semantic_expert_with_the_lora_and_its_own_layers(experts, run):
    semantic, detail = map(weights_of, experts)

    def merged(layer):
        up, down = (run.model[f"{layer}.lora_{factor}.lora1.weight"] for factor in "BA")
        return run.model[f"{layer}.base_layer.weight"] + 2.0 * up @ down

    attention = torch.cat([merged(f"transformer_blocks.0.attn.to_{part}") for part in "qkv"])
    assert torch.allclose(detail["double_blocks.0.img_attn.qkv.weight"], attention, atol=1e-6)
    out = merged("context_embedder.token_refiner.refiner_blocks.1.attn.to_out.0")
    assert torch.allclose(detail["txt_in.individual_token_refiner.blocks.1.self_attn.proj.weight"], out, atol=1e-6)
    joined = torch.cat([merged(f"single_transformer_blocks.1.attn.to_{part}") for part in "qkv"])
    linear1 = detail["single_blocks.1.linear1.weight"]
    assert torch.allclose(linear1[:768], joined, atol=1e-6)
    assert torch.equal(linear1[768:], run.model["single_transformer_blocks.1.proj_mlp.weight"])
    assert torch.equal(detail["final_layer.linear.bias"], run.model["proj_out_lora.bias"])
    shift, scale = detail["final_layer.adaLN_modulation.1.weight"].chunk(2)
    assert torch.equal(torch.cat([scale, shift]), run.model["norm_out_lora.linear.weight"])
    own = {key for key in semantic if key.startswith(("time_in.", "guidance_in.", "vector_in.", "final_layer."))}
    blocks = ("double_blocks.", "single_blocks.", "txt_in.individual_token_refiner.")
    ends = ("img_attn.qkv.weight", "img_attn.proj.weight", "linear1.weight", "self_attn.qkv.weight")
    ends += ("self_attn.proj.weight",)
    changed = {key for key in semantic if not torch.equal(semantic[key], detail[key])}
    assert changed == own | {key for key in semantic if key.startswith(blocks) and key.endswith(ends)}


def test_semantic_is_bit_for_bit_the_same_after_detail_was_used(call, experts, run):
    semantic, detail = experts
    before, answer = weights_of(semantic), sampled(call, run, semantic, semantic)
    sampled(call, run, detail, detail)
    assert torch.equal(sampled(call, run, semantic, semantic), answer)
    assert same(weights_of(semantic), before)


def test_both_experts_share_one_network(experts, run):
    semantic, detail = experts
    assert semantic.model is detail.model and semantic.is_clone(detail)
    own = sum(t.numel() for key, t in run.model.items() if "lora" in key)
    kept = semantic.model.diffusion_model.parameters()
    assert sum(t.numel() for t in kept) + own == sum(t.numel() for t in run.model.values())


@pytest.mark.parametrize("prefix", ["transformer.", "module.", "model.diffusion_model."])
def test_a_prefix_changes_nothing(prefix, experts, file, run):
    others = load_dcm_experts(file({prefix + key: tensor for key, tensor in run.model.items()}))
    for one, other in zip(experts, others, strict=True):
        assert same(weights_of(one), weights_of(other))


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
def test_both_experts_sample_in_every_type(weight_dtype, call, name, run):
    experts = call("DiscaLoadDCM", model_name=name, weight_dtype=weight_dtype)
    assert sampled(call, run, *experts).isfinite().all()


def test_dynamic_vram_gets_the_same_weights(experts, file, run, dynamic_vram):
    semantic, detail = load_dcm_experts(file(run.model))
    assert semantic.is_dynamic() and detail.is_dynamic()
    assert same(semantic.model.diffusion_model.state_dict(), experts[0].model.diffusion_model.state_dict())


def test_a_copy_of_either_for_another_device_is_loaded_anew(experts):
    for model in experts:
        copy = model.deepclone_multigpu(new_load_device=torch.device("cpu"))
        assert copy.model is not model.model
        assert same(weights_of(copy), weights_of(model))


def test_every_weight_of_the_published_network_has_a_name_in_diffusers_and_back():
    with torch.device("meta"):
        weights = HUNYUANVIDEO_10.network(torch.nn).state_dict()
    layers = {key.rpartition(".")[0] for key in weights}
    assert len(layers) == 510
    for layer in layers:
        names = diffusers_names(layer)
        assert [place.part for _, place in names if place.part in parts_of(layer)] == list(parts_of(layer))
        assert all(diffusers_place(name) == place for name, place in names) and names, layer


def changed(weights, without=(), **replaced):
    """The weights without these keys, and with others in place of theirs or beside them."""
    return {key: tensor for key, tensor in weights.items() if key not in without} | replaced


def bad_files(weights):
    nan = torch.full((256, 256), float("nan"))
    base, up, down = (f"{TO_Q}.{part}.weight" for part in ("base_layer", "lora_B.lora1", "lora_A.lora1"))
    plain = {key.replace(".base_layer.", "."): tensor for key, tensor in weights.items() if "lora" not in key}
    return {
        "diffusers' HunyuanVideo without experts": (plain, "is not DCM's file of two experts", "Choose DCM's"),
        "DCM for Wan": (
            {"blocks.0.attn1.to_q.base_layer.weight": torch.zeros(4, 4)},
            "is not DCM's file of two experts",
            "for HunyuanVideo",
        ),
        "no layers of its own": (
            {key: t for key, t in weights.items() if not key.startswith("norm_out_lora.")},
            "does not fit DCM's detail expert. 2 missing: 'final_layer.adaLN_modulation.1.bias'",
            "Choose a file made for it",
        ),
        "a layer of another size": (
            changed(weights, **{"proj_out_lora.weight": torch.zeros(64, 128)}),
            "'final_layer.linear.weight' is [64, 128] instead of [64, 256]",
            "Choose a file made for it",
        ),
        "a factor is missing": (changed(weights, [up]), f"'lora_up.weight' of '{TO_Q}'", "Download it again"),
        "a factor without a base": (
            changed(weights, [base], **{f"{TO_Q}.weight": torch.zeros(256, 256)}),
            "is not DCM's file of two experts",
            "Choose DCM's",
        ),
        "a LoRA beside a plain weight": (
            changed(weights, [f"{SINGLE}.base_layer.weight"], **{f"{SINGLE}.weight": torch.zeros(256, 256)}),
            "2 factors of its LoRA too few or too many",
            "Download it again",
        ),
        "a LoRA of another width": (
            changed(weights, **{down: torch.zeros(8, 128)}),
            f"has a LoRA of another model: of its 22 layers 1 do not fit: '{TO_Q}'",
            "Choose DCM's own file",
        ),
        "factors of two ranks": (changed(weights, **{down: torch.zeros(4, 256)}), "LoRA of another model", "Choose"),
        "a factor that is a number": (changed(weights, **{down: torch.zeros(())}), "LoRA of another model", "Choose"),
        "a part is missing": (
            changed(weights, ["single_transformer_blocks.0.proj_mlp.weight"]),
            "1 keys missing: 'single_transformer_blocks.0.proj_mlp.weight'",
            "Download it again",
        ),
        "a weight is missing": (
            changed(weights, ["norm_out.linear.bias"]),
            "1 missing: 'final_layer.adaLN_modulation.1.bias'",
            "Choose a file made for it",
        ),
        "a weight too many": (changed(weights, extra=torch.zeros(1)), "1 not known: 'extra'", "Choose a file made"),
        "a weight twice": (
            changed(weights, **{f"{TO_Q}.weight": weights[base].clone()}),
            "1 weights twice",
            "Only one can",
        ),
        "whole numbers": (changed(weights, **{up: torch.zeros(256, 8, dtype=torch.int8)}), "whole numbers", "Choose"),
        "whole numbers of its own": (
            changed(weights, **{"proj_out_lora.bias": torch.zeros(64, dtype=torch.int8)}),
            "whole numbers",
            "Choose",
        ),
        "NaN": (changed(weights, **{base: nan}), f"NaN or infinity in '{base}'", "download it again"),
        "NaN in the LoRA": (changed(weights, **{up: nan[:, :8]}), f"NaN or infinity in '{up}'", "download it again"),
        "NaN in its own": (
            changed(weights, **{"proj_out_lora.weight": nan[:64]}),
            "NaN or infinity in 'proj_out_lora.weight'",
            "download it again",
        ),
    }


@pytest.mark.parametrize("kind", bad_files(recipes.golden(CASE).model))
def test_a_bad_file_is_refused_in_a_sentence(kind, file, run):
    weights, *told = bad_files(run.model)[kind]
    with pytest.raises(ValueError, match="^'chosen.safetensors' ") as caught:
        load_dcm_experts(file({key: tensor.contiguous() for key, tensor in weights.items()}))
    assert all(part in str(caught.value) for part in told), caught.value
    assert str(caught.value).endswith(".")


LOADERS = {
    "a whole model": load_meanflow_model,
    "a Predictor": load_predictor,
    "a LoRA": lambda path: read_lora(open_weights(path)),
}


@pytest.mark.parametrize("wanted", LOADERS)
def test_the_other_loaders_send_the_file_here(wanted, file, run):
    with pytest.raises(ValueError, match=f"holds DCM's two experts, but {wanted} is needed .* DisCa Load DCM Experts"):
        LOADERS[wanted](file(run.model))
