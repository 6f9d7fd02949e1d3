"""Runs that fail, and runs of another size or model right after: nothing is left of them, and nothing is wrong next."""

import gc
import random
import weakref
from contextlib import contextmanager

import comfy.model_management
import graph
import pytest
import recipes
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytestmark = pytest.mark.usefixtures("one_thread")

SOME = "0 1 4 6"
OUT_OF_MEMORY = torch.cuda.OutOfMemoryError
SIZES = {  # frames, height, width of the latent, batch
    "larger": (3, 12, 16, 1),
    "narrower": (3, 12, 6, 1),
    "one frame": (1, 8, 12, 1),
    "more frames": (5, 8, 12, 1),
    "batch": (3, 8, 12, 2),
}
WHERE = {  # module of the transformer or Predictor, which of its calls in a run fails, error
    "first block, first step": (lambda model, _: model.double_blocks[0], 0, OUT_OF_MEMORY),
    "inner block, with features held": (lambda model, _: model.double_blocks[1], 1, ArithmeticError),
    "last block, before its features are kept": (lambda model, _: _last_block(model), 2, OUT_OF_MEMORY),
    "final layer of a full step": (lambda model, _: model.final_layer, 1, OUT_OF_MEMORY),
    "final layer of a predicted step": (lambda model, _: model.final_layer, 2, ArithmeticError),
    "Predictor's first layer": (lambda _, small: next(small.children()).now, 0, OUT_OF_MEMORY),
    "Predictor's last block": (lambda _, small: list(small.children())[-1][-1], 1, OUT_OF_MEMORY),
    "Predictor's block, last step": (lambda _, small: list(small.children())[-1][0], 3, ArithmeticError),
}
IN_THE_STORE = {  # method of the store, which of its calls fails, before or after it did its work
    "first allocation": ("_buffer", 0, False),
    "later allocation": ("_buffer", 1, False),
    "after the features were kept": ("keep", 1, True),
    "joining the features": ("take", 1, False),
}


def _last_block(model):
    return [*model.double_blocks, *model.single_blocks][-1]


def raiser(kind, call: int):
    """A function that raises at that call, counted from 0."""
    calls = iter(range(call + 1))

    def fail(*_):
        if next(calls, None) == call:
            raise kind(f"fault at call {call}")

    return fail


@contextmanager
def fault_in(module, kind, call: int):
    """The module's forward raises at that call, once it has done its work."""
    hook = module.register_forward_hook(raiser(kind, call))
    try:
        yield
    finally:
        hook.remove()


class FailingAllocator(TorchDispatchMode):
    """Runs out of memory at one operation; counts them."""

    def __init__(self, at: int | None = None):
        super().__init__()
        self.at, self.operations = at, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.operations += 1
        if self.operations - 1 == self.at:
            raise OUT_OF_MEMORY(f"no memory for {operation}")
        return operation(*args, **(kwargs or {}))


def of_size(case: str, model, size: tuple[int, ...] | None) -> dict:
    """The inputs of a run of that size, the golden run's if None."""
    positive = graph.conditioning(recipes.golden(case), model)
    if size is None:
        return {"positive": positive, "latent_image": graph.empty_latent(case)}
    frames, height, width, batch = size
    ((text, options),) = positive
    for name in {"concat_latent_image", "concat_mask"} & options.keys():
        rows = torch.arange(frames) % options[name].shape[2]
        options[name] = options[name][:, :, rows]
    channels = recipes.golden(case).tensors["latent"].shape[1]
    latent = {"samples": torch.zeros(batch, channels, frames, height, width)}
    return {"positive": [[text, options]], "latent_image": latent}


@pytest.fixture(scope="module")
def known():
    """Results of fresh runs, kept from test to test."""
    return {}


@pytest.fixture
def fresh(known, load, apply, sample):
    """The result of the first run of newly loaded files."""

    def run(case: str, size=None):
        if (case, size) not in known:
            model, predictor = load(case)
            known[case, size] = sample(case, apply(model, predictor, SOME), **of_size(case, model, size))[0]
        return known[case, size]

    return run


@pytest.fixture
def left_behind(pack, monkeypatch):
    """What is still alive of the runs so far: their state, and the tensors that their stores allocated."""
    store = pack("disca.host.running.features").FeatureStore
    run = pack("disca.host.running.run")
    kinds = (run.Run, run.Call, run.Evaluation, store, pack("disca.host.running.features").Features)
    allocate, tensors = store._buffer, []

    def watched(self, row):
        buffer = allocate(self, row)
        tensors.append(weakref.ref(buffer))
        return buffer

    monkeypatch.setattr(store, "_buffer", watched)

    def find():
        gc.collect()
        find.allocated = len(tensors)
        state = [type(kept).__name__ for kept in gc.get_objects() if type(kept) in kinds]
        return state + [tuple(tensor().shape) for tensor in tensors if tensor() is not None]

    return find


def fail(kind, run) -> None:
    """Runs what must raise that error, and drops the error: its traceback holds the frames that it came through."""
    with pytest.raises(kind) as caught:
        run()
    assert type(caught.value) is kind and caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("where", WHERE)
def test_an_error_in_a_module_ends_the_run_and_nothing_else(where, case, load, apply, sample, fresh, left_behind):
    expected = fresh(case)
    model, predictor = load(case)
    patched = apply(model, predictor, SOME)
    pick, call, kind = WHERE[where]
    with fault_in(pick(model.model.diffusion_model, predictor.patcher.model), kind, call):
        fail(kind, lambda: sample(case, patched))
    assert left_behind() == []
    assert torch.equal(sample(case, patched)[0], expected)
    assert left_behind() == [] and left_behind.allocated > 0


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("where", IN_THE_STORE)
def test_no_memory_for_the_features_ends_the_run_and_nothing_else(
    where, case, load, apply, sample, fresh, left_behind, pack, monkeypatch
):
    expected = fresh(case)
    method, call, worked = IN_THE_STORE[where]
    model, predictor = load(case)
    patched = apply(model, predictor, SOME)
    store = pack("disca.host.running.features").FeatureStore
    original, failing = getattr(store, method), raiser(OUT_OF_MEMORY, call)

    def spoiled(*args):
        done = original(*args) if worked else None
        failing()
        return done if worked else original(*args)

    guided = {"negative": graph.other_conditioning(case, model), "cfg": 3.0}
    with monkeypatch.context() as patch:
        patch.setattr(store, method, spoiled)
        fail(OUT_OF_MEMORY, lambda: sample(case, patched, **guided))
    assert left_behind() == []
    assert torch.equal(sample(case, patched)[0], expected)


def test_no_memory_at_any_operation_ends_the_run_and_nothing_else(load, apply, sample, fresh, left_behind):
    case, chance = "hv10_t2v", random.Random(3)
    expected = fresh(case)
    model, predictor = load(case)
    patched = apply(model, predictor, SOME)
    guided = {"negative": graph.other_conditioning(case, model), "cfg": 3.0}
    sample(case, patched, **guided)  # the first run also loads
    with FailingAllocator() as counting:
        whole = sample(case, patched, **guided)[0]
    assert counting.operations > 1000
    ended = 0
    for part in range(12):
        at = int(counting.operations * (part + chance.random()) / 12)
        try:
            with FailingAllocator(at):
                got = sample(case, patched, **guided)[0]
        except OUT_OF_MEMORY as error:
            assert error.__cause__ is None and error.__context__ is None
            ended += 1
        else:  # ComfyUI's attention tries once more by a way that needs less, and may round otherwise
            torch.testing.assert_close(got, whole, rtol=0, atol=1e-4)
        assert left_behind() == [], at
        if part % 3 == 2:
            assert torch.equal(sample(case, patched)[0], expected), at
    assert ended >= 6


def test_out_of_memory_is_what_comfyui_takes_for_it():
    assert comfy.model_management.is_oom(OUT_OF_MEMORY("CUDA out of memory"))


@pytest.mark.parametrize("case", recipes.CASES)
def test_runs_of_another_size_in_between_change_nothing(case, load, apply, sample, fresh):
    expected = {size: fresh(case, size) for size in (None, *SIZES.values())}
    model, predictor = load(case)
    patched = apply(model, predictor, SOME)
    for name, size in SIZES.items():
        for each in (None, size):
            got, report = sample(case, patched, **of_size(case, model, each))
            assert torch.equal(got, expected[each]), name
            assert graph.counts(report) == "4 full + 4 predicted"


@pytest.mark.parametrize("case", recipes.CASES)
def test_another_size_after_a_failed_run(case, load, apply, sample, fresh):
    expected = {size: fresh(case, size) for size in (None, *SIZES.values())}
    model, predictor = load(case)
    patched = apply(model, predictor, SOME)
    for name, size in SIZES.items():
        with fault_in(model.model.diffusion_model.final_layer, OUT_OF_MEMORY, 5):
            fail(OUT_OF_MEMORY, lambda size=size: sample(case, patched, **of_size(case, model, size)))
        assert torch.equal(sample(case, patched)[0], expected[None]), name
        assert torch.equal(sample(case, patched, **of_size(case, model, size))[0], expected[size]), name


@pytest.mark.parametrize("fails", [False, True])
def test_text_to_video_and_image_to_video_by_turns_change_nothing(fails, load, apply, sample, fresh, left_behind):
    expected = {case: fresh(case) for case in recipes.CASES}
    loaded = {case: load(case) for case in recipes.CASES}
    patched = {case: apply(model, predictor, SOME) for case, (model, predictor) in loaded.items()}
    for case in (*recipes.CASES, *recipes.CASES):
        if fails:
            with fault_in(loaded[case][1].patcher.model, OUT_OF_MEMORY, 2):
                fail(OUT_OF_MEMORY, lambda case=case: sample(case, patched[case]))
            other = next(other for other in recipes.CASES if other != case)
            assert torch.equal(sample(other, patched[other])[0], expected[other])
        assert torch.equal(sample(case, patched[case])[0], expected[case])
    assert left_behind() == []


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("fails", [False, True])
def test_a_deleted_model_is_collected(fails, case, load, apply, sample, left_behind):
    def sampled_once() -> dict[str, weakref.ref]:
        model, predictor = load(case)
        patched = apply(model, predictor, SOME)
        network, small = model.model.diffusion_model, predictor.patcher.model
        if fails:
            with fault_in(_last_block(network), OUT_OF_MEMORY, 2):
                fail(OUT_OF_MEMORY, lambda: sample(case, patched))
        else:
            sample(case, patched)
        things = {"MODEL": model, "patched MODEL": patched, "model": model.model, "network": network}
        things |= {"Predictor's patcher": predictor.patcher, "Predictor": small}
        things |= {"weight": next(network.parameters()), "Predictor's weight": next(small.parameters())}
        return {name: weakref.ref(thing) for name, thing in things.items()}

    watched = sampled_once()
    comfy.model_management.unload_all_models()
    comfy.model_management.cleanup_models()
    gc.collect()
    assert [name for name, thing in watched.items() if thing() is not None] == []
    assert left_behind() == []


def test_a_replaced_predictor_is_collected(load, apply, sample, fresh):
    model, predictor = load("hv10_t2v")
    patched = apply(model, predictor, SOME)
    sample("hv10_t2v", patched)
    watched = weakref.ref(predictor.patcher), weakref.ref(predictor.patcher.model)
    _, predictor = load("hv10_t2v")
    patched = apply(model, predictor, SOME)
    assert torch.equal(sample("hv10_t2v", patched)[0], fresh("hv10_t2v"))
    gc.collect()
    assert [thing() for thing in watched] == [None, None]
