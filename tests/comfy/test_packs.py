"""Beside caches and forwards of other packs, played by small ones of the same kinds: the report says what they did."""

from types import ModuleType

import graph
import pytest
import recipes
import torch
from comfy.patcher_extension import WrappersMP
from graph import relative_error

CASE = "hv10_t2v"
SOME = "0 1 4 6"
SKIPPED = "another cache answered 4 of 8 steps: the network was not asked"


class EverySecond:
    """Runs every second call and answers the others with what came before, whatever the level."""

    def __init__(self):
        self.calls, self.last = 0, None

    def __call__(self, run):
        self.calls += 1
        if self.calls % 2 == 0:
            return self.last
        self.last = run()
        return self.last


def wrapper_around(level: str):
    """A cache by a wrapper of that level."""

    def cached(model):
        cache, model = EverySecond(), model.clone()
        model.add_wrapper_with_key(level, "test", lambda executor, *args, **kw: cache(lambda: executor(*args, **kw)))
        return model

    return cached


def function_wrapper(model):
    """A cache by the one function that ComfyUI calls instead of apply_model (Spectrum for SDXL)."""
    cache, model = EverySecond(), model.clone()
    model.set_model_unet_function_wrapper(
        lambda apply, args: cache(lambda: apply(args["input"], args["timestep"], **args["c"]))
    )
    return model


def block_handlers(model):
    """A cache by handlers that pass the tokens through where it knows them (Spectrum)."""
    model, count = model.clone(), {"calls": 0}

    def handler(first):
        def handle(args, extra):
            count["calls"] += first
            return (
                extra["original_block"](args)
                if count["calls"] % 2
                else {k: args[k] for k in ("img", "txt") if k in args}
            )

        return handle

    network = model.model.diffusion_model
    for kind, blocks in (("double_block", network.double_blocks), ("single_block", network.single_blocks)):
        for i in range(len(blocks)):
            model.set_model_patch_replace(handler(kind == "double_block" and i == 0), "dit", kind, i)
    return model


@pytest.fixture
def patched_network(monkeypatch):
    """Puts a function in the place of a method of the network, as packs do that know no other way."""

    def patch(model, method: str, function) -> None:
        monkeypatch.setattr(model.model.diffusion_model, method, function, raising=False)

    return patch


CACHES = {
    "around the guider": wrapper_around(WrappersMP.PREDICT_NOISE),  # LazyCache
    "around the conditions": wrapper_around(WrappersMP.CALC_COND_BATCH),
    "around apply_model": wrapper_around(WrappersMP.APPLY_MODEL),
    "around the network": wrapper_around(WrappersMP.DIFFUSION_MODEL),  # EasyCache
    "function wrapper": function_wrapper,
    "block handlers": block_handlers,
}


@pytest.mark.parametrize("order", ["before", "after", "without a Predictor"])
@pytest.mark.parametrize("kind", CACHES)
def test_steps_that_another_cache_answered_are_counted_and_told_first(kind, order, load, apply, sample):
    model, predictor = load(CASE)
    if order == "without a Predictor":
        both, full = CACHES[kind](model), "Nothing predicted: 4 full"
    elif order == "before":
        both, full = apply(CACHES[kind](model), predictor, SOME), None
    else:
        both, full = CACHES[kind](apply(model, predictor, SOME)), None
    _, report = sample(CASE, both)
    lines = report.splitlines()
    assert lines[0] == SKIPPED
    assert "test_packs." in lines[1]  # who is on the model
    assert not any("x: " in line or "compared" in line for line in lines)
    assert sum(map(int, graph.counts(report).replace("+", " ").split()[::2])) == 4
    assert full is None or full in lines


def test_a_forward_that_another_pack_left_on_the_network_is_told(load, apply, sample, patched_network):
    """CacheDiT's patch outlives its node: the MODEL of the next prompt has it too, and nothing on it says so."""
    model, predictor = load(CASE)
    forward, cache = model.model.diffusion_model.forward, EverySecond()

    def cached_forward(*args, **kwargs):
        return cache(lambda: forward(*args, **kwargs))

    patched_network(model, "forward", cached_forward)
    for target in (model, apply(model, predictor, SOME)):
        _, report = sample(CASE, target)
        assert report.splitlines()[0] == SKIPPED
        assert "cached_forward" in report.splitlines()[1]


def test_a_cache_that_skips_one_of_two_conditions_is_told_as_in_part(load, sample):
    model, _ = load(CASE)
    with graph.split_batches(model):
        _, report = sample(CASE, function_wrapper(model), negative=graph.other_conditioning(CASE, model), cfg=2.0)
    assert report.startswith("another cache answered 8 of 8 steps (8 of them in part): the network was not asked")


def test_an_anchor_that_another_cache_answered_is_not_predicted_from(load, apply, sample):
    """Steps 0 and 4 are anchors; 4 is answered from outside, so 5 to 7 would predict from features of step 0."""
    model, predictor = load(CASE)
    both, calls = apply(model, predictor, "0 4"), []

    def fifth_is_known(apply_model, args):
        calls.append(args["input"])
        return args["input"] * 0.9 if len(calls) == 5 else apply_model(args["input"], args["timestep"], **args["c"])

    both.set_model_unet_function_wrapper(fifth_is_known)
    _, report = sample(CASE, both)
    assert report.startswith("another cache answered 1 of 8 steps")
    assert graph.counts(report) == "1 full + 5 predicted + 1 fallback"
    assert "1 in full: features from before the last full step" in report


def test_the_plain_run_beside_nothing_has_no_alarm(load, apply, sample):
    for case in recipes.CASES:
        model, predictor = load(case)
        for target in (model, apply(model, predictor, SOME)):
            first = sample(case, target)[1].splitlines()[0]
            assert first.startswith(("Nothing predicted: 8 full", "0.", "1.", "2.", "3.")), first


def without_options(network):
    """ComfyUI's forward as packs copied it from a time when blocks were not handed transformer_options."""
    original = type(network).forward_orig

    class Forgetful(dict):
        """Calls its handlers with what they were called with then."""

        def __getitem__(self, key):
            handler = super().__getitem__(key)

            def forgetting(args, extra):
                options = args.pop("transformer_options")
                old = extra["original_block"]
                return handler(args, {"original_block": lambda a: old({**a, "transformer_options": options})})

            return forgetting

    def forward_orig(*args, transformer_options, **kwargs):
        replaced = transformer_options.get("patches_replace", {})
        forgetful = {**replaced, "dit": Forgetful(replaced.get("dit", {}))}
        options = {**transformer_options, "patches_replace": forgetful}
        return original(network, *args, transformer_options=options, **kwargs)

    return forward_orig


@pytest.mark.parametrize("case", recipes.CASES)
def test_handlers_without_transformer_options_run_natively_and_are_counted(case, load, apply, sample, patched_network):
    """MagCache's and TeaCache's forwards."""
    model, predictor = load(case)
    plain, _ = sample(case, model)
    patched_network(model, "forward_orig", without_options(model.model.diffusion_model))
    cached, report = sample(case, apply(model, predictor, SOME))
    assert torch.equal(cached, plain)
    assert graph.counts(report) == "4 full + 4 fallback"
    assert "4 in full: another node calls the blocks without transformer_options" in report


def test_a_forward_that_passes_the_handlers_by_is_told(load, apply, sample, patched_network):
    model, predictor = load(CASE)
    plain, _ = sample(CASE, model)
    original = type(model.model.diffusion_model).forward_orig

    def forward_orig(*args, transformer_options, **kwargs):
        options = {key: value for key, value in transformer_options.items() if key != "patches_replace"}
        return original(model.model.diffusion_model, *args, transformer_options=options, **kwargs)

    patched_network(model, "forward_orig", forward_orig)
    cached, report = sample(CASE, apply(model, predictor, SOME))
    assert torch.equal(cached, plain)
    assert report.startswith("another node runs the network in its own way, past DisCa")
    assert "Nothing predicted: 0 calls" in report.splitlines()


def test_what_stands_in_for_the_blocks_is_named(load, apply, sample, monkeypatch):
    """WaveSpeed puts one module in the place of all blocks, while a step runs."""
    module = ModuleType("/somewhere/custom_nodes/Comfy-Fast.first_block")

    class AllBlocks(torch.nn.Module):
        def __init__(self, double, single):
            super().__init__()
            self.pairs, self.joined = double, single

        def forward(self, img, txt, **kwargs):
            for block in self.pairs:
                img, txt = block(img=img, txt=txt, **kwargs)
            kwargs = {key: value for key, value in kwargs.items() if not key.startswith("modulation_dims")}
            both = torch.cat((txt, img), 1)
            for block in self.joined:
                both = block(both, **kwargs)
            return both[:, txt.shape[1] :], txt

    AllBlocks.__module__, AllBlocks.__qualname__ = module.__name__, "AllBlocks"
    model, predictor = load(CASE)
    plain, _ = sample(CASE, model)
    network = model.model.diffusion_model
    alone = torch.nn.ModuleList([AllBlocks(network.double_blocks, network.single_blocks)])
    both = apply(model, predictor, SOME)

    def replaced(apply_model, args):
        with monkeypatch.context() as patch:
            patch.setitem(network._modules, "double_blocks", alone)
            patch.setitem(network._modules, "single_blocks", torch.nn.ModuleList())
            return apply_model(args["input"], args["timestep"], **args["c"])

    both.set_model_unet_function_wrapper(replaced)
    cached, report = sample(CASE, both)
    assert relative_error(cached, plain) < 1e-5
    assert report.splitlines()[0].startswith(
        "'Comfy-Fast.first_block.AllBlocks' stands in for the transformer's blocks"
    )
    assert "4 in full: 'Comfy-Fast.first_block.AllBlocks' stands in for blocks" in report
    assert "no features" not in report


def test_blocks_that_another_node_leaves_out_are_told(load, apply, sample):
    model, predictor = load(CASE)
    patched = apply(model, predictor, SOME)
    patched.set_model_patch_replace(
        lambda args, extra: {"img": args["img"], "txt": args["txt"]}, "dit", "double_block", 1
    )
    _, report = sample(CASE, patched)
    assert "8 calls without all blocks: another node left some out" in report
    assert graph.counts(report) == "4 full + 4 fallback"


@pytest.mark.parametrize("key", ["easycache", "cache_dit_turbo", "spectrum"])
def test_a_cache_that_is_known_is_refused_by_name_beside_a_predictor(key, load, apply, sample):
    model, predictor = load(CASE)
    patched = apply(model, predictor, SOME)
    patched.model_options["transformer_options"][key] = object()
    with pytest.raises(ValueError, match="is on this MODEL too, and both decide which steps to skip"):
        sample(CASE, patched)
    model = model.clone()
    model.model_options["transformer_options"][key] = object()
    assert sample(CASE, model)[1].startswith("Nothing predicted: 8 full")


@pytest.mark.parametrize("node", ["EasyCache", "LazyCache"])
def test_without_a_predictor_cores_caches_run_and_their_steps_are_told(node, load, call, sample):
    model, _ = load(CASE)
    (cached,) = call(node, model=model, reuse_threshold=0.9, start_percent=0.1, end_percent=0.9, verbose=False)
    _, report = sample(CASE, cached)
    answered = int(report.split()[3])
    assert report.startswith("another cache answered") and answered > 0
    assert f"Nothing predicted: {8 - answered} full" in report


def in_halves(model, backwards: bool):
    """Tiles: the left and the right half of the latent, each in a call of its own."""

    def tiled(apply, args):
        halves = [*enumerate(args["input"].chunk(2, dim=-1))]
        done = {i: apply(x, args["timestep"], **args["c"]) for i, x in (halves[::-1] if backwards else halves)}
        return torch.cat([done[0], done[1]], dim=-1)

    model = model.clone()
    model.set_model_unet_function_wrapper(tiled)
    return model


def twice(model):
    """A second look of the network at something else, in the same call."""
    model = model.clone()
    model.add_wrapper_with_key(
        WrappersMP.DIFFUSION_MODEL,
        "test",
        lambda run, x, *args, **kw: run(x, *args, **kw) + 0 * run(2 * x, *args, **kw),
    )
    return model


def test_features_of_one_tile_are_no_other_tiles(load, apply, sample):
    model, predictor = load(CASE)
    patched = apply(model, predictor, SOME)
    forwards, report = sample(CASE, in_halves(patched, False))
    backwards, _ = sample(CASE, in_halves(patched, True))
    assert torch.equal(forwards, backwards)
    assert torch.equal(forwards, sample(CASE, in_halves(model, False))[0])
    assert report.startswith("Nothing predicted: 8 full + 8 fallback")
    assert "in full: another node evaluates a condition in several pieces" in report


@pytest.mark.parametrize("inside", [True, False])
def test_a_network_that_runs_twice_in_a_call_predicts_nothing(inside, load, apply, sample):
    model, predictor = load(CASE)
    patched = twice(apply(model, predictor, SOME)) if inside else apply(twice(model), predictor, SOME)
    result, report = sample(CASE, patched)
    assert torch.equal(result, sample(CASE, twice(model))[0])
    assert "in full: another node evaluates a condition in several pieces" in report
