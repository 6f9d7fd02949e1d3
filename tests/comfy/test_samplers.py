"""Which r the network gets: from our sampler always the step's own; from core's samplers as the table says."""

import math

import comfy.samplers
import graph
import pytest
import torch
from comfy.ldm.flux.layers import timestep_embedding

STEPS = 8


class RecordedTimes:
    """The t of each network call, and the r if the network embedded one, in sigma."""

    def __init__(self, model):
        self.network = model.model.diffusion_model
        self.times: list[tuple[float, torch.Tensor | None]] = []

    def __enter__(self):
        self.hooks = [
            self.network.img_in.register_forward_pre_hook(lambda *_: self.times.append(None)),
            self.network.time_r_in.register_forward_pre_hook(self._embedded),
        ]
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def _embedded(self, _, args):
        self.times[-1] = args[0]


class AskedTimes:
    """The times at which a sampler asks a MODEL."""

    def __init__(self, model):
        self.model = model.clone()
        self.times: list[float] = []

    def __enter__(self):
        self.model.set_model_unet_function_wrapper(self._ask)
        return self

    def __exit__(self, *_): ...

    def _ask(self, apply_model, args):
        self.times.append(float(args["timestep"][0]))
        return apply_model(args["input"], args["timestep"], **args["c"])


def same_time(asked: float, sigma: float) -> bool:
    """Whether a sampler meant this sigma: exp(log(sigma)) may differ from it in the last bits, as math libraries do."""
    return math.isclose(asked, sigma, rel_tol=1e-5)


def is_a_step(asked: float, sigmas: torch.Tensor) -> bool:
    """Whether the run has a step at this time."""
    return any(same_time(asked, sigma) for sigma in sigmas[:-1].tolist())


def embedding_of(r: float) -> torch.Tensor:
    return timestep_embedding(torch.tensor([r]), 256, time_factor=1000.0)


def assert_told(recorded: RecordedTimes, expected: list[float]):
    assert len(recorded.times) == len(expected)
    for told, r in zip(recorded.times, expected, strict=True):
        assert told is not None
        assert torch.equal(told, embedding_of(r))


@pytest.fixture
def ours(call):
    return call("DiscaMeanFlowSampler")[0]


def sigmas_of(call, **changes) -> torch.Tensor:
    return call("DiscaMeanFlowSigmas", **({"steps": STEPS, "shift": 5.0, "denoise": 1.0} | changes))[0]


def test_the_network_is_told_where_each_step_ends(call, load, ours):
    model, _ = load("hv10_t2v")
    sigmas = sigmas_of(call)
    with RecordedTimes(model) as recorded:
        graph.sample_custom(call, model, "hv10_t2v", ours, sigmas, seed=1)
    assert_told(recorded, sigmas[1:].tolist())
    assert sigmas[-1] == 0.0


def test_split_sigmas_end_their_last_step_at_the_split(call, load, ours):
    model, _ = load("hv10_t2v")
    high, low = call("SplitSigmas", sigmas=sigmas_of(call), step=3)
    for part in (high, low):
        with RecordedTimes(model) as recorded:
            graph.sample_custom(call, model, "hv10_t2v", ours, part, seed=1)
        assert_told(recorded, part[1:].tolist())
    assert high[-1] == low[0] > 0.0


def test_denoise_below_one_takes_the_last_steps_of_a_longer_run(call, load, sample):
    model, _ = load("hv10_t2v")
    sigmas = sigmas_of(call, denoise=0.5)
    assert torch.equal(sigmas, sigmas_of(call, steps=2 * STEPS)[-STEPS - 1 :])
    with RecordedTimes(model) as recorded:
        sample("hv10_t2v", model, denoise=0.5)
    assert_told(recorded, sigmas[1:].tolist())


@pytest.mark.parametrize("change", ["repeated", "double precision"])
def test_sigmas_that_core_cannot_look_up_are_told_all_the_same(change, call, load, ours):
    model, _ = load("hv10_t2v")
    sigmas = sigmas_of(call)
    sigmas = sigmas.double() + 1e-9 if change == "double precision" else sigmas.repeat_interleave(2)
    with RecordedTimes(model) as recorded:
        graph.sample_custom(call, model, "hv10_t2v", ours, sigmas, seed=1)
    expected = sigmas.float().unique_consecutive()
    assert_told(recorded, expected[1:].tolist())


def test_sigmas_changed_behind_the_guiders_back_are_told_all_the_same(call, load, ours):
    model, _ = load("hv10_t2v")
    sigmas = sigmas_of(call)
    moved = sigmas * 0.9
    patched = model.clone()
    patched.add_wrapper_with_key(
        "sampler_sample", "test", lambda executor, guider, _, *args, **kwargs: executor(guider, moved, *args, **kwargs)
    )
    with RecordedTimes(model) as recorded:
        graph.sample_custom(call, patched, "hv10_t2v", ours, sigmas, seed=1)
    assert_told(recorded, moved[1:].tolist())


def test_every_core_sampler_is_in_the_table(pack):
    table = pack("disca.host.running.samplers")
    known = table.EXACT | table.EXTRAPOLATES | table.REFUSED.keys()
    cores = {table.name_of(comfy.samplers.sampler_object(name)) for name in comfy.samplers.SAMPLER_NAMES}
    assert cores <= known


@pytest.mark.parametrize("name", comfy.samplers.SAMPLER_NAMES)
def test_a_core_sampler_behaves_as_the_table_says(name, call, load, pack):
    table = pack("disca.host.running.samplers")
    sampler = comfy.samplers.sampler_object(name)
    model, _ = load("hv10_t2v")
    sigmas = sigmas_of(call)
    with AskedTimes(model) as asked:
        result = graph.sample_custom(call, asked.model, "hv10_t2v", sampler, sigmas, seed=1)
    at_each_step_once = len(asked.times) == STEPS and all(map(same_time, asked.times, sigmas[:-1].tolist()))
    reason = table.REFUSED.get(table.name_of(sampler))
    if reason is None:
        assert at_each_step_once
    elif reason == table.NOISE:
        noise = call("RandomNoise", noise_seed=1)[0].generate_noise(graph.empty_latent("hv10_t2v"))
        again = graph.sample_custom(call, model, "hv10_t2v", sampler, sigmas, seed=2, noise=noise)
        assert not torch.equal(result, again)
    elif reason == table.AT_THE_END:
        assert len(asked.times) > STEPS and all(is_a_step(time, sigmas) for time in asked.times)
    else:
        assert not all(is_a_step(time, sigmas) for time in asked.times)


def test_a_sampler_that_loses_r_is_refused_by_name(call, load, apply):
    model, predictor = load("hv10_t2v")
    patched = apply(model, predictor, "0 1 4 6")
    for name in ("heun", "dpm_2", "euler_ancestral", "dpmpp_2m_sde"):
        with pytest.raises(ValueError, match=f"'{name}' cannot run a MeanFlow model: .* Use DisCa MeanFlow Sampler"):
            graph.sample_custom(call, patched, "hv10_t2v", comfy.samplers.sampler_object(name), sigmas_of(call), seed=1)


def test_euler_with_churn_is_refused(call, load, apply):
    model, predictor = load("hv10_t2v")
    churned = comfy.samplers.ksampler("euler", {"s_churn": 1.0})
    with pytest.raises(ValueError, match="'euler' cannot run a MeanFlow model: it adds noise"):
        graph.sample_custom(call, apply(model, predictor, "0-7"), "hv10_t2v", churned, sigmas_of(call), seed=1)


def test_an_ancestral_euler_without_noise_is_euler(call, load, apply, caplog):
    model, predictor = load("hv10_t2v")
    quiet = comfy.samplers.ksampler("euler_ancestral", {"eta": 0.0})
    lines = run_of(quiet, call, load, apply, caplog)
    assert lines[0].endswith("x: 4 full + 4 predicted") and not any("sampler" in line for line in lines)
    patched, sigmas = apply(model, predictor, "0 1 4 6"), sigmas_of(call)
    results = [
        graph.sample_custom(call, patched, "hv10_t2v", sampler, sigmas, seed=1)
        for sampler in (quiet, comfy.samplers.sampler_object("euler"))
    ]
    assert graph.relative_error(*results) < 1e-5


@pytest.mark.parametrize("name", ["euler", "meanflow"])
@pytest.mark.parametrize("times", [(0.0, 0.5, 1.0), (1.0, 0.3, 0.6, 0.0), (2.0, 1.0, 0.0), (1.0, 0.5, -0.2)], ids=str)
def test_times_that_rise_or_are_none_are_refused(times, name, call, load, apply, ours):
    model, predictor = load("hv10_t2v")
    sampler = ours if name == "meanflow" else comfy.samplers.sampler_object(name)
    for target in [apply(model, predictor, "0"), *([model] if name == "meanflow" else [])]:
        with pytest.raises(
            ValueError, match="The sigmas are .* have to fall, from 1 at most to 0 at least.*DisCa Mean"
        ):
            graph.sample_custom(call, target, "hv10_t2v", sampler, torch.tensor(times), seed=1)


def test_repeated_times_under_euler_are_told_for_what_they_are(call, load, apply, caplog):
    """Core finds the first of two equal times: the second step is told that it ends where it starts."""
    sigmas = torch.tensor([1.0, 0.9, 0.9, 0.7, 0.6, 0.5, 0.3, 0.2, 0.0])
    model, predictor = load("hv10_t2v")
    with caplog.at_level("INFO"):
        euler = comfy.samplers.sampler_object("euler")
        graph.sample_custom(call, apply(model, predictor, "0 1 4 6"), "hv10_t2v", euler, sigmas, seed=1)
    told = caplog.records[-1].getMessage()
    assert "the sampler 'euler' left" in told and "or euler" not in told
    assert "its sigmas repeat a time, or were changed on the way: use DisCa MeanFlow Sampler" in told


@pytest.mark.parametrize("name", ["euler", "meanflow"])
def test_sigmas_changed_behind_the_guiders_back_are_told_first(name, call, load, apply, ours, caplog):
    model, predictor = load("hv10_t2v")
    patched, sigmas = apply(model, predictor, "0 1 4 6"), sigmas_of(call)
    patched.add_wrapper_with_key(
        "sampler_sample", "test", lambda run, guider, given, *args, **kw: run(guider, given * 0.9, *args, **kw)
    )
    sampler = ours if name == "meanflow" else comfy.samplers.sampler_object(name)
    with caplog.at_level("INFO"):
        graph.sample_custom(call, patched, "hv10_t2v", sampler, sigmas, seed=1)
    told = caplog.records[-1].getMessage()
    assert told.startswith("DisCa: the sampler or another node changed the times: 8 of 8 steps never came, 8 calls at")
    assert "x: " not in told


def test_a_sampler_that_extrapolates_runs_with_a_warning(call, load, apply, caplog):
    model, predictor = load("hv10_t2v")
    sampler = comfy.samplers.sampler_object("dpmpp_2m")
    with caplog.at_level("WARNING"):
        graph.sample_custom(call, apply(model, predictor, "0 1 4 6"), "hv10_t2v", sampler, sigmas_of(call), seed=1)
    assert "'dpmpp_2m' extrapolates over steps" in caplog.text


def run_of(sampler, call, load, apply, caplog, sigmas=None) -> list[str]:
    """The report's lines of a run with that sampler."""
    model, predictor = load("hv10_t2v")
    sigmas = sigmas_of(call) if sigmas is None else sigmas
    with caplog.at_level("INFO"):
        graph.sample_custom(call, apply(model, predictor, "0 1 4 6"), "hv10_t2v", sampler, sigmas, seed=1)
    (told,) = [record.getMessage() for record in caplog.records if "full + 4 predicted" in record.getMessage()]
    return told.removeprefix("DisCa: ").split("; ")


def foreign(step):
    """A sampler that no table knows: step(ask, x, t, r) gives the next latent."""

    def foreign_sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        def ask(x, t):
            return model(x, t * x.new_ones([x.shape[0]]), **extra_args)

        for t, r in zip(sigmas[:-1], sigmas[1:], strict=True):
            x = step(ask, x, t, r)
        return x

    return comfy.samplers.KSAMPLER(foreign_sampler)


def euler(ask, x, t, r):
    return x + (x - ask(x, t)) / t * (r - t)


def euler_in_double_precision(ask, x, t, r):
    wide = x.double()
    return (wide + (wide - ask(x, t).double()) / t.double() * (r - t).double()).float()


def midpoint(ask, x, t, r):
    between = (t + r) / 2
    x_0 = ask(x + (x - ask(x, t)) / t * (between - t), between)
    return x + (x - x_0) / t * (r - t)


def noisy(ask, x, t, r):
    return euler(ask, x, t, r) + (0.05 * torch.randn_like(x) if r > 0 else 0)


def twice_at_one_time(ask, x, t, r):
    return x + ((x - ask(x, t)) + (x - ask(x, t))) / 2 / t * (r - t)


def half_a_step(ask, x, t, r):
    return x + 0.9 * (x - ask(x, t)) / t * (r - t)


@pytest.mark.parametrize("step", [euler, euler_in_double_precision])
def test_an_unknown_sampler_that_takes_the_exact_step_raises_no_alarm(step, call, load, apply, caplog):
    lines = run_of(foreign(step), call, load, apply, caplog)
    assert lines[0].endswith("x: 4 full + 4 predicted")
    assert not any("sampler" in line for line in lines)


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (midpoint, "lost r in 8 of 16 calls"),
        (noisy, "left the mean velocity's way after 7 of 8 calls"),
        (twice_at_one_time, "of 16 calls (noise or other stages)"),
        (half_a_step, "after 7 of 8 calls"),
    ],
)
def test_an_unknown_sampler_is_judged_by_what_it_does_and_told_first(step, told, call, load, apply, caplog):
    lines = run_of(foreign(step), call, load, apply, caplog)
    assert lines[0].startswith("the sampler 'foreign_sampler' ") and told in lines[0]
    assert not any("x: " in line for line in lines)


def test_calls_between_the_steps_run_in_full(call, load, apply, caplog):
    lines = run_of(foreign(midpoint), call, load, apply, caplog)
    assert "4 full + 4 predicted + 8 fallback" in lines
    assert "8 in full: at a time that is not one of the run's steps" in lines


def test_one_call_more_at_another_time_is_counted_but_no_alarm(call, load, apply, caplog):
    asked = []

    def with_a_look_ahead(ask, x, t, r):
        if not asked:
            asked.append(ask(x, t * 0.999))
        return euler(ask, x, t, r)

    lines = run_of(foreign(with_a_look_ahead), call, load, apply, caplog)
    assert lines[0].endswith("x: 4 full + 4 predicted + 1 fallback")


def test_a_denoise_mask_is_not_taken_for_a_sampler_that_strays(load, apply, sample):
    model, predictor = load("hv10_t2v")
    latent = {"samples": torch.randn(1, 16, 3, 8, 12), "noise_mask": torch.zeros(1, 1, 3, 8, 12)}
    latent["noise_mask"][..., 6:] = 1.0
    _, report = sample("hv10_t2v", apply(model, predictor, "0 1 4 6"), latent_image=latent)
    assert "sampler" not in report


def test_a_sampler_of_the_table_is_not_told_twice(call, load, apply, caplog):
    lines = run_of(comfy.samplers.sampler_object("dpmpp_2m"), call, load, apply, caplog)
    assert any(line.startswith("Warning: the sampler 'dpmpp_2m' extrapolates") for line in lines)
    assert lines[0].endswith("x: 4 full + 4 predicted")
