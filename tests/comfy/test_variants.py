"""The other HunyuanVideos that a MeanFlow model may be, and the types its weights are kept in."""

import comfy.supported_models
import graph
import pytest
import recipes
import torch
from comfy.model_patcher import ModelPatcher
from graph import relative_error
from safetensors.torch import save_file

SOME = "0 1 4 6"


def variant(base, kind: str, **shape) -> ModelPatcher:
    """A MODEL of another kind with the width and depth of the golden one, and random weights."""
    config = getattr(comfy.supported_models, kind)({**base.model.model_config.unet_config, **shape})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.normal_(std=0.06)
    return ModelPatcher(model, base.load_device, base.offload_device)


VARIANTS = {
    "HunyuanVideo 1.0 image-to-video, concatenated": ("hv10_t2v", "HunyuanVideoI2V", {"in_channels": 33}, {}),
    "HunyuanVideo 1.0 image-to-video, token replace": ("hv10_t2v", "HunyuanVideo", {}, {"guiding_frame_index": 0}),
    "HunyuanVideo 1.0 with a reference latent": ("hv10_t2v", "HunyuanVideo", {}, {"ref_latent": (1, 16, 1, 8, 12)}),
    "HunyuanVideo 1.5 text-to-video": ("hv15_i2v", "HunyuanVideo15", {}, {}),
    "HunyuanVideo 1.5 super-resolution": ("hv15_i2v", "HunyuanVideo15_SR_Distilled", {"in_channels": 98}, {}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_exact_when_neutral_and_cached_otherwise(name, load, apply, sample):
    case, kind, shape, extra = VARIANTS[name]
    base, predictor = load(case)
    model = variant(base, kind, **shape)
    extra = {key: torch.randn(value) if isinstance(value, tuple) else value for key, value in extra.items()}
    ((text, options),) = graph.conditioning(recipes.golden(case), model)
    image = ("concat_latent_image", "concat_mask", "clip_vision_output")
    options = {key: value for key, value in options.items() if key not in image}
    positive = [[text, options | extra]]
    plain, _ = sample(case, model, positive=positive)
    neutral, _ = sample(case, apply(model, predictor, "0-7"), positive=positive)
    cached, report = sample(case, apply(model, predictor, SOME), positive=positive)
    assert torch.equal(neutral, plain)
    assert torch.isfinite(cached).all()
    assert graph.counts(report) == "4 full + 4 predicted"


@pytest.mark.parametrize("weight_dtype", ["fp8_e4m3fn", "fp8_e5m2"])
def test_fp8_weights_give_what_the_rounded_weights_give(weight_dtype, call, load, apply, sample, model_folders):
    """The types that ComfyUI's loader offers, for the model and for the Predictor."""
    run = recipes.golden("hv15_i2v")
    rounded = getattr(torch, weight_dtype.replace("fp8", "float8"))
    for folder, weights in (("diffusion_models", run.model), ("disca", run.predictor)):
        kept = "cond_type_embedding.weight"  # which ComfyUI keeps in full
        rounding = {key: tensor if key == kept else tensor.to(rounded).float() for key, tensor in weights.items()}
        save_file(rounding, getattr(model_folders, folder) / f"rounded_{weight_dtype}.safetensors")
    name, original = f"rounded_{weight_dtype}.safetensors", "hv15_i2v_published.safetensors"
    load("hv15_i2v")

    def cached(file: str, dtype: str):
        (model,) = call("DiscaLoadModel", model_name=file, weight_dtype=dtype)
        (predictor,) = call("DiscaLoadPredictor", predictor_name=file, weight_dtype=dtype)
        assert next(predictor.patcher.model.parameters()).dtype == (torch.float32 if dtype == "default" else rounded)
        return sample("hv15_i2v", apply(model, predictor, SOME))[0]

    assert relative_error(cached(original, weight_dtype), cached(name, "default")) < 1e-5


def test_half_precision_stays_within_its_rounding(call, load, apply, sample):
    """A bf16 model and Predictor beside fp32 ones, on the all-bf16 path that GPUs take."""
    model, predictor = load("hv15_i2v")
    exact, _ = sample("hv15_i2v", apply(model, predictor, SOME))
    config = type(model.model.model_config)(model.model.model_config.unet_config)
    config.set_inference_dtype(torch.bfloat16, None)
    half = config.get_model({})
    half.load_state_dict(model.model.state_dict())
    small = type(predictor.patcher.model)
    assert small.__name__ == "DoubleStreamPredictor"
    halved = ModelPatcher(half, model.load_device, model.offload_device)
    rough, report = sample("hv15_i2v", apply(halved, predictor, SOME))
    assert graph.counts(report) == "4 full + 4 predicted"
    assert relative_error(rough, exact) < 0.1
