"""NaN and infinity, wherever they come in: told with place and step, and no speed-up for a black video."""

import graph
import pytest
import recipes
import torch

CASE = "hv10_t2v"
SOME = "0 1 4 6"
SPOILS = [float("nan"), float("inf"), -float("inf")]


def report_of(sample, case, model, **changes) -> list[str]:
    return sample(case, model, **changes)[1].splitlines()


def spoil(tensor: torch.Tensor, number: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[tensor.numel() // 2] = number
    return tensor


def answers(change):
    """A function wrapper that changes the answer of the network at the third step."""
    calls = []

    def wrapper(apply_model, args):
        out = apply_model(args["input"], args["timestep"], **args["c"])
        calls.append(1)
        return change(out) if len(calls) == 3 else out

    return wrapper


@pytest.mark.parametrize("number", SPOILS)
@pytest.mark.parametrize("case", recipes.CASES)
def test_it_is_named_in_the_conditioning(number, case, load, apply, sample, caplog):
    model, predictor = load(case)
    ((text, options),) = graph.conditioning(recipes.golden(case), model)
    lines = report_of(sample, case, apply(model, predictor, SOME), positive=[[spoil(text, number), options]])
    assert lines[0] == "NaN or infinity in the conditioning at step 0: the result is spoiled"
    assert lines[0] in caplog.text
    assert not any("x: " in line for line in lines)


def test_it_is_named_in_the_image_conditioning(load, sample):
    model, _ = load("hv15_i2v")
    ((text, options),) = graph.conditioning(recipes.golden("hv15_i2v"), model)
    options = options | {"concat_latent_image": spoil(options["concat_latent_image"], float("nan"))}
    lines = report_of(sample, "hv15_i2v", model, positive=[[text, options]])
    assert lines[0].startswith("NaN or infinity in the image conditioning at step 0")


@pytest.mark.parametrize("number", SPOILS)
def test_it_is_named_in_the_latent(number, load, apply, sample):
    model, predictor = load(CASE)
    latent = {"samples": spoil(torch.randn(1, 16, 3, 8, 12), number)}
    lines = report_of(sample, CASE, apply(model, predictor, "0 1 4 6"), latent_image=latent, denoise=0.5)
    assert lines[0] == "NaN or infinity in the latent at step 0: the result is spoiled"


def test_it_is_named_in_the_features(load, apply, sample):
    model, predictor = load(CASE)
    patched, calls = apply(model, predictor, SOME), []

    def spoiled(_, __, out):
        calls.append(1)
        return spoil(out, float("nan")) if len(calls) == 3 else out  # third full call: step 4

    hook = model.model.diffusion_model.single_blocks[-1].register_forward_hook(spoiled)
    try:
        lines = report_of(sample, CASE, patched)
    finally:
        hook.remove()
    assert lines[0] == "NaN or infinity in the features at step 4: the result is spoiled"


def test_it_is_named_in_the_networks_output(load, sample):
    model, _ = load(CASE)
    calls = []

    def spoiled(_, __, out):
        calls.append(1)
        return spoil(out, float("nan")) if len(calls) == 6 else out

    hook = model.model.diffusion_model.final_layer.register_forward_hook(spoiled)
    try:
        lines = report_of(sample, CASE, model)
    finally:
        hook.remove()
    assert lines[0] == "NaN or infinity in the network's output at step 5: the result is spoiled"


def test_it_is_named_where_another_node_makes_it_between_the_steps(load, sample):
    model = load(CASE)[0].clone()
    model.set_model_unet_function_wrapper(answers(lambda out: spoil(out, float("nan"))))
    assert report_of(sample, CASE, model)[0] == "NaN or infinity in the latent at step 3: the result is spoiled"


def test_it_is_named_where_another_node_makes_it_at_the_last_step(load, sample):
    model, calls = load(CASE)[0].clone(), []

    def last(apply_model, args):
        calls.append(1)
        out = apply_model(args["input"], args["timestep"], **args["c"])
        return spoil(out, float("nan")) if len(calls) == 8 else out

    model.set_model_unet_function_wrapper(last)
    assert report_of(sample, CASE, model)[0] == "NaN or infinity in the sampled latent: the result is spoiled"


def test_looking_takes_no_large_number_for_infinity(pack):
    finite = pack("disca.host.running.observation.finite").Finite()
    largest = torch.finfo(torch.float16).max
    finite.look(0, "here", torch.tensor([largest, largest, -largest], dtype=torch.float16))
    finite.look(1, "there", torch.empty(0))
    finite.look(2, "a mask", torch.tensor([True]))
    assert finite.problem() is None
    finite.look(3, "there", torch.tensor([1.0, -float("inf"), float("inf")], dtype=torch.bfloat16))
    assert finite.problem() == "NaN or infinity in there at step 3: the result is spoiled"
