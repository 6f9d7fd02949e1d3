"""Which r the network gets: from our sampler always the step's own; from core's samplers as the table says."""

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
    table = pack("disca.host.samplers")
    known = table.EXACT | table.EXTRAPOLATES | table.REFUSED.keys()
    cores = {table.name_of(comfy.samplers.sampler_object(name)) for name in comfy.samplers.SAMPLER_NAMES}
    assert cores <= known


@pytest.mark.parametrize("name", comfy.samplers.SAMPLER_NAMES)
def test_a_core_sampler_behaves_as_the_table_says(name, call, load, pack):
    table = pack("disca.host.samplers")
    sampler = comfy.samplers.sampler_object(name)
    model, _ = load("hv10_t2v")
    sigmas = sigmas_of(call)
    with RecordedTimes(model) as recorded:
        result = graph.sample_custom(call, model, "hv10_t2v", sampler, sigmas, seed=1)
    told_right = len(recorded.times) == STEPS and all(
        told is not None and torch.equal(told, embedding_of(r))
        for told, r in zip(recorded.times, sigmas[1:].tolist(), strict=True)
    )
    reason = table.REFUSED.get(table.name_of(sampler))
    if reason is None:
        assert told_right
    elif reason == table.NOISE:
        noise = call("RandomNoise", noise_seed=1)[0].generate_noise(graph.empty_latent("hv10_t2v"))
        again = graph.sample_custom(call, model, "hv10_t2v", sampler, sigmas, seed=2, noise=noise)
        assert not torch.equal(result, again)
    elif reason == table.AT_THE_END:
        assert len(recorded.times) > STEPS and all(told is not None for told in recorded.times)
    else:
        assert any(told is None for told in recorded.times)


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


def test_a_sampler_that_extrapolates_runs_with_a_warning(call, load, apply, caplog):
    model, predictor = load("hv10_t2v")
    sampler = comfy.samplers.sampler_object("dpmpp_2m")
    with caplog.at_level("WARNING"):
        graph.sample_custom(call, apply(model, predictor, "0 1 4 6"), "hv10_t2v", sampler, sigmas_of(call), seed=1)
    assert "'dpmpp_2m' extrapolates over steps" in caplog.text


def test_an_unknown_sampler_runs_in_full_where_r_is_lost(call, load, apply, caplog):
    def midpoint(model, x, sigmas, extra_args=None, callback=None, disable=None):
        s_in = x.new_ones([x.shape[0]])
        for t, r in zip(sigmas[:-1], sigmas[1:], strict=True):
            between = (t + r) / 2
            x_0 = model(x, t * s_in, **extra_args)
            x_0 = model(x + (x - x_0) / t * (between - t), between * s_in, **extra_args)
            x = x + (x - x_0) / t * (r - t)
        return x

    model, predictor = load("hv10_t2v")
    with caplog.at_level("INFO"):
        graph.sample_custom(
            call, apply(model, predictor, "0 1 4 6"), "hv10_t2v", comfy.samplers.KSAMPLER(midpoint), sigmas_of(call), 1
        )
    assert "'midpoint' is not known to DisCa" in caplog.text
    assert "16 calls: 4 full, 4 predicted, 8 fallback (8 at a time that is not one of the run's steps" in caplog.text
