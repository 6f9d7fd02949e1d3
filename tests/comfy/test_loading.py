"""Every layout, prefix and type of weight file gives the MODEL and the Predictor that the merged file gives."""

import json

import comfy.memory_management
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import pytest
import recipes
import torch
from safetensors.torch import save_file

from disca.limits import WEIGHT_DTYPES
from disca.models.loading import load_meanflow_model, load_model, load_network, load_predictor
from disca.weights.files import open_weights
from disca.weights.predictor_file import read_predictor, write_predictor
from disca.weights.predictor_spec import PredictorSpec

PREFIXES = ["", "model.", "module.", "model.diffusion_model.", "module.model."]
WRAPPERS = ["", "module.", "predictor.", "model.", "module.predictor.", "model.module.", "model.module.predictor."]
FILE_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.float8_e4m3fn,
}
OPTIONS = {  # as core's Load Diffusion Model sets them
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}


def joined(split):
    """Separate q, k, v -> the merged layout."""
    merged = {}
    for key, tensor in split.items():
        if "_attn_q." in key:
            parts = [split[key.replace("_attn_q.", f"_attn_{part}.")] for part in "qkv"]
            merged[key.replace("_attn_q.", "_attn_qkv.")] = torch.cat(parts)
        elif "_attn_k." not in key and "_attn_v." not in key:
            merged[key] = tensor
    return merged


def repackaged(merged):
    """ComfyUI's names for merged weights, as core's own conversion gives them."""
    return comfy.supported_models.HunyuanVideo.process_unet_state_dict(None, merged)


def prefixed(weights, prefix):
    return {prefix + key: tensor for key, tensor in weights.items()}


def state_of(patcher):
    return patcher.model.diffusion_model.state_dict()


def assert_same(ours, theirs):
    """The same keys, and the same bits under each."""
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert ours[key].dtype == tensor.dtype and ours[key].shape == tensor.shape, key
        assert bits(ours[key]).equal(bits(tensor)), key


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@pytest.fixture(scope="session")
def merged():
    """Case -> the transformer's and the Predictor's weights in the merged layout."""
    runs = {case: recipes.golden(case) for case in recipes.CASES}
    return {case: (joined(run.model), joined(run.predictor)) for case, run in runs.items()}


@pytest.fixture(scope="session")
def core(merged, tmp_path_factory):
    """Case -> the weights that core's own loader makes of the merged file."""
    folder = tmp_path_factory.mktemp("core")
    states = {}
    for case, (model, _) in merged.items():
        save_file(model, folder / f"{case}.safetensors")
        states[case] = state_of(comfy.sd.load_diffusion_model(str(folder / f"{case}.safetensors")))
    return states


@pytest.fixture
def file(tmp_path):
    """Writes weights to a file and gives its path."""

    def write(weights, metadata=None, name="file.safetensors"):
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, tmp_path / name, metadata)
        return str(tmp_path / name)

    return write


def split(merged):
    """The merged layout -> separate q, k, v in the transformer's blocks, as HunyuanVideo 1.5 is published."""
    parts = {}
    for key, tensor in merged.items():
        if "blocks." in key and "_attn_qkv." in key and "refiner" not in key:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                parts[key.replace("_attn_qkv.", f"_attn_{part}.")] = rows
        else:
            parts[key] = tensor
    return parts


LAYOUTS = {"merged": dict, "tensor_parallel": recipes.tensor_parallel, "split": split, "comfyui": repackaged}
CASE_LAYOUTS = [
    ("hv10_t2v", "merged"),
    ("hv10_t2v", "tensor_parallel"),
    ("hv10_t2v", "comfyui"),
    ("hv15_i2v", "merged"),
    ("hv15_i2v", "split"),
    ("hv15_i2v", "comfyui"),
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("case", "layout"), CASE_LAYOUTS)
def test_every_layout_gives_the_weights_of_the_merged_file(case, layout, prefix, merged, core, file):
    path = file(prefixed(LAYOUTS[layout](merged[case][0]), prefix))
    assert_same(state_of(load_meanflow_model(path)), core[case])


def test_split_layout_is_how_version_1_5_is_published(merged):
    assert split(merged["hv15_i2v"][0]).keys() == recipes.golden("hv15_i2v").model.keys()


def test_core_leaves_weights_of_a_split_file_unset(merged, file, caplog):
    comfy.sd.load_diffusion_model(file(split(merged["hv15_i2v"][0])))
    (told,) = [record.getMessage() for record in caplog.records if "missing" in record.getMessage()]
    assert repr("double_blocks.0.img_attn.qkv.weight") in told  # what memory held before may be the weight itself


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("dtype", FILE_DTYPES)
def test_every_type_is_kept_as_core_keeps_it(dtype, weight_dtype, merged, file):
    weights = {key: tensor.to(FILE_DTYPES[dtype]) for key, tensor in merged["hv10_t2v"][0].items()}
    theirs = comfy.sd.load_diffusion_model(file(weights, name="merged.safetensors"), OPTIONS[weight_dtype])
    ours = load_meanflow_model(file(recipes.tensor_parallel(weights)), weight_dtype)
    assert_same(state_of(ours), state_of(theirs))
    assert ours.model.manual_cast_dtype == theirs.model.manual_cast_dtype
    assert type(ours.model.diffusion_model.img_in.proj) is type(theirs.model.diffusion_model.img_in.proj)


def test_types_may_differ_within_a_file(merged, file):
    kinds = [torch.float32, torch.bfloat16, torch.float16]
    weights = {key: tensor.to(kinds[i % 3]) for i, (key, tensor) in enumerate(split(merged["hv15_i2v"][0]).items())}
    same = joined({key: tensor.float() for key, tensor in weights.items()})
    theirs = comfy.sd.load_diffusion_model(file(same, name="merged.safetensors"))
    assert_same(state_of(load_meanflow_model(file(weights))), state_of(theirs))


def test_other_parts_of_a_checkpoint_are_left_out(merged, core, file):
    weights = prefixed(split(merged["hv15_i2v"][0]), "model.diffusion_model.")
    weights |= {"vae.decoder.conv_in.weight": torch.ones(4, 4), "text_encoders.llama.logit_scale": torch.tensor(1.0)}
    assert_same(state_of(load_meanflow_model(file(weights))), core["hv15_i2v"])


def scaled_fp8(weights, form):
    """Block weights as fp8 with a scale, told in one of the three ways that ComfyUI reads; with its metadata."""
    out, layers = {}, {}
    for key, tensor in weights.items():
        layer = key.removesuffix(".weight")
        if "blocks." not in key or tensor.ndim != 2:
            out[key] = tensor
            continue
        scale = tensor.abs().max() / 448
        out[key] = (tensor / scale).to(torch.float8_e4m3fn)
        out[f"{layer}.scale_weight" if form == "scaled_fp8" else f"{layer}.weight_scale"] = scale
        layers[layer] = {"format": "float8_e4m3fn"}
    if form == "scaled_fp8":
        out["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
        out |= {f"{layer}.scale_input": torch.tensor(2.0) for layer in layers}
    if form == "comfy_quant":
        text = json.dumps({"format": "float8_e4m3fn"}).encode()
        out |= {f"{layer}.comfy_quant": torch.tensor(list(text), dtype=torch.uint8) for layer in layers}
    return out, layers


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("layout", ["merged", "comfyui"])
@pytest.mark.parametrize("form", ["scaled_fp8", "comfy_quant", "metadata"])
def test_scaled_fp8_is_kept_as_core_keeps_it(form, layout, prefix, merged, file):
    weights, layers = scaled_fp8(LAYOUTS[layout](merged["hv10_t2v"][0]), form)
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})} if form == "metadata" else None
    path = file(prefixed(weights, prefix), metadata)
    theirs, ours = comfy.sd.load_diffusion_model(path), load_meanflow_model(path)
    assert any(key.endswith(".weight_scale") for key in state_of(theirs))
    assert_same(state_of(ours), state_of(theirs))


def test_layers_named_with_their_prefix_in_the_metadata_are_found(merged, file):
    weights, layers = scaled_fp8(repackaged(merged["hv10_t2v"][0]), "metadata")
    told = [{"_quantization_metadata": json.dumps({"layers": prefixed(layers, p)})} for p in ("", "module.")]
    plain = load_meanflow_model(file(weights, told[0], "plain.safetensors"))
    assert_same(state_of(load_meanflow_model(file(prefixed(weights, "module."), told[1]))), state_of(plain))


def test_weights_are_frozen_also_when_loaded_in_inference_mode(merged, core, file):
    path = file(split(merged["hv15_i2v"][0]))
    predictor_path = file(merged["hv15_i2v"][1], name="predictor.safetensors")
    with torch.inference_mode():
        patchers = [load_meanflow_model(path), load_predictor(predictor_path).patcher]
    patchers += [load_meanflow_model(path), load_predictor(predictor_path).patcher]
    for patcher in patchers:
        assert not any(parameter.requires_grad for parameter in patcher.model.parameters())
    assert_same(state_of(patchers[0]), core["hv15_i2v"])


def test_weights_are_frozen_also_where_comfyui_leaves_their_gradients_on(merged, file, monkeypatch):
    def left_on(*arguments, **options):
        patcher = load(*arguments, **options)
        patcher.model.requires_grad_(True)
        return patcher

    load = comfy.sd.load_diffusion_model_state_dict
    monkeypatch.setattr(comfy.sd, "load_diffusion_model_state_dict", left_on)
    weights, predictor = merged["hv10_t2v"]
    path = file(weights)
    networks = [load_meanflow_model(path).model, load_model(path).model, load_network(path, torch.float32)]
    networks.append(load_predictor(file(predictor, name="predictor.safetensors")).patcher.model)
    assert not [parameter for network in networks for parameter in network.parameters() if parameter.requires_grad]


def test_a_copy_for_another_device_is_loaded_anew(merged, file):
    model = load_meanflow_model(file(recipes.tensor_parallel(merged["hv10_t2v"][0])), "fp8_e4m3fn")
    predictor = load_predictor(file(merged["hv10_t2v"][1], name="predictor.safetensors"), "fp8_e4m3fn").patcher
    for patcher in (model, predictor):
        copy = patcher.deepclone_multigpu(new_load_device=torch.device("cpu"))
        assert copy.model is not patcher.model
        assert_same(copy.model.state_dict(), patcher.model.state_dict())


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(("case", "layout"), CASE_LAYOUTS)
def test_every_predictor_layout_gives_the_weights_of_the_merged_file(case, layout, wrapper, merged, file):
    loaded = load_predictor(file(prefixed(LAYOUTS[layout](merged[case][1]), wrapper)))
    plain = load_predictor(file(merged[case][1], name="merged.safetensors"))
    assert_same(loaded.patcher.model.state_dict(), plain.patcher.model.state_dict())
    assert loaded.spec == plain.spec == PredictorSpec(case[2] + "." + case[3], 256, 2, 2, 4.0)


@pytest.mark.parametrize("case", recipes.CASES)
def test_predictor_weights_are_the_authors(case, merged, file):
    state = load_predictor(file(merged[case][1])).patcher.model.state_dict()
    fusion = next(key for key in merged[case][1] if key.endswith(".0.weight"))
    halves = [state[fusion.replace(".0.", f".{half}.")] for half in ("now", "cached")]
    assert torch.cat(halves, dim=1).equal(merged[case][1][fusion])
    assert sum(t.numel() for t in state.values()) == sum(t.numel() for t in merged[case][1].values())


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("dtype", FILE_DTYPES)
def test_predictor_runs_in_every_type(dtype, weight_dtype, merged, file):
    weights = {key: tensor.to(FILE_DTYPES[dtype]) for key, tensor in merged["hv10_t2v"][1].items()}
    network = load_predictor(file(weights), weight_dtype).patcher.model
    kept = {parameter.dtype for parameter in network.parameters()}
    assert kept == {OPTIONS[weight_dtype].get("dtype", torch.float32)}
    x, pe = torch.randn(1, 6, 256), torch.eye(2).expand(1, 1, 6, 64, 2, 2)
    with torch.inference_mode():
        assert network(x, x, vec=torch.randn(1, 256), pe=pe).isfinite().all()


@pytest.mark.parametrize("case", recipes.CASES)
def test_written_predictor_is_read_back(case, merged, file, tmp_path):
    spec, state = read_predictor(open_weights(file(LAYOUTS["split"](merged[case][1]))))
    spec = PredictorSpec(**{**vars(spec), "base_model": "some model", "training": {"steps": 3, "seeds": [1, 2]}})
    write_predictor(str(tmp_path / "ours.safetensors"), spec, state)
    assert open_weights(str(tmp_path / "ours.safetensors")).tensors.keys() == merged[case][1].keys()
    loaded = load_predictor(str(tmp_path / "ours.safetensors"))
    assert loaded.spec == spec
    assert_same(loaded.patcher.model.state_dict(), state)


@pytest.mark.parametrize(
    ("case", "layout", "weight_dtype"),
    [(*case, "default") for case in CASE_LAYOUTS]
    + [("hv10_t2v", "tensor_parallel", weight_dtype) for weight_dtype in WEIGHT_DTYPES[1:]],
)
def test_dynamic_vram_gets_the_weights_that_core_gives_it(case, layout, weight_dtype, merged, file, dynamic_vram):
    theirs = comfy.sd.load_diffusion_model(file(merged[case][0], name="merged.safetensors"), OPTIONS[weight_dtype])
    ours = load_meanflow_model(file(LAYOUTS[layout](merged[case][0])), weight_dtype)
    assert ours.is_dynamic() and theirs.is_dynamic()
    assert_same(state_of(ours), state_of(theirs))


def test_dynamic_vram_may_drop_what_is_mapped(merged, file, dynamic_vram):
    state = state_of(load_meanflow_model(file(recipes.tensor_parallel(merged["hv10_t2v"][0]))))
    kept = [key for key, t in state.items() if not hasattr(t.untyped_storage(), "_comfy_tensor_file_slice")]
    assert kept and all("qkv" in key or "linear1" in key for key in kept)


def test_dynamic_vram_can_be_left_for_one_model(merged, core, file, dynamic_vram):
    model = load_meanflow_model(file(recipes.tensor_parallel(merged["hv10_t2v"][0])))
    predictor = load_predictor(file(merged["hv10_t2v"][1], name="predictor.safetensors")).patcher
    assert predictor.is_dynamic()
    delegate, predictor_delegate = model.get_non_dynamic_delegate(), predictor.get_non_dynamic_delegate()
    assert not delegate.is_dynamic() and not predictor_delegate.is_dynamic()
    assert_same(state_of(delegate), core["hv10_t2v"])
    assert_same(predictor_delegate.model.state_dict(), predictor.model.state_dict())


def test_dynamic_vram_loads_scaled_fp8(merged, file, dynamic_vram):
    path = file(scaled_fp8(repackaged(merged["hv10_t2v"][0]), "scaled_fp8")[0])
    assert_same(state_of(load_meanflow_model(path)), state_of(comfy.sd.load_diffusion_model(path)))
