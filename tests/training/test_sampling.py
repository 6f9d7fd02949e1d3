"""Sampling on flows whose samples are known: exact steps, guidance, anchors and methods between them."""

import math
from types import SimpleNamespace

import pytest
import torch

from disca.meanflow import shifted_sigmas
from disca.methods.scheduled.disca import disca
from disca.methods.scheduled.extrapolation import Extrapolation
from disca.methods.scheduled.lesa import LesaCache
from disca.methods.scheduled.reuse import PlainReuse
from disca.methods.scheduled.taylorseer import TaylorSeer
from disca.methods.seam.anchors import AtAnchors
from disca.methods.seam.method import Span
from disca.methods.seam.whats import Line, Taylor
from disca.schedule import Anchors
from disca.training.algorithms.sampling import CachedVelocity, guided, sample
from disca.training.contract.times import per_sample

A = 1.3
reuse, line = PlainReuse().method, Extrapolation(damping=1.0, along="sigma").method
series, still = Extrapolation(damping=1.0).method, Extrapolation(damping=0.0).method
NOISE = torch.linspace(-2.0, 2.0, 6).view(2, 3)


def mean_velocity(x_t, t, r):
    """1/(t - r) of the integral of a·x along dx/dt = a·x."""
    return x_t * -torch.expm1(-A * per_sample(t - r, x_t)) / per_sample(t - r, x_t)


class Noted:
    """A network whose features are its time, and which answers with the features that it is given; notes its steps."""

    def __init__(self):
        self.steps: list[str] = []

    def velocity_and_features(self, x_t, t, r, condition):
        self.steps.append("full")
        return per_sample(t, x_t).expand_as(x_t), [per_sample(t, x_t).expand_as(x_t)]

    def answered_velocity(self, answer, x_t, t, r, condition):
        self.steps.append("answered")
        return answer([x_t], {})[0]


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_true_mean_velocities_lead_to_the_sample_in_any_number_of_steps(steps):
    for shift in (1.0, 5.0):
        found = sample(mean_velocity, NOISE, shifted_sigmas(steps, shift))
        torch.testing.assert_close(found, NOISE * math.exp(-A))


def test_guidance_goes_on_from_the_velocity_without_prompt_through_that_with_it():
    network = SimpleNamespace(velocity=lambda x_t, t, r, condition: x_t + condition["y"])
    condition, null = {"y": 5.0}, {"y": 2.0}
    for scale, expected in ((0.0, 2.0), (0.5, 3.5), (1.0, 5.0), (4.0, 14.0)):
        u = guided(network, condition, null, scale)
        torch.testing.assert_close(u(NOISE, None, None), NOISE + expected)


def test_guidance_of_scale_1_asks_for_the_prompt_only():
    asked = []
    network = SimpleNamespace(velocity=lambda x_t, t, r, condition: asked.append(condition) or x_t)
    guided(network, "prompt", "no prompt", 1.0)(NOISE, None, None)
    assert asked == ["prompt"]


def at(*anchors: int) -> AtAnchors:
    """A rule: full at these steps."""
    return AtAnchors(Anchors(anchors))


def test_anchor_steps_run_in_full_and_all_others_by_the_method():
    network, sigmas = Noted(), shifted_sigmas(6, 1.0)
    sample(CachedVelocity(network, {}, reuse(at(0, 1, 4)), sigmas.tolist()), NOISE, sigmas)
    assert network.steps == ["full", "full", "answered", "answered", "full", "answered"]


@pytest.mark.parametrize(
    ("method", "behind"),
    [(reuse, (1, 1, 2)), (line, (0, 0, 0)), (series, (0, 0, 0)), (still, (1, 1, 2))],
)
def test_the_method_gives_the_last_anchors_features_or_the_line_through_the_last_two(method, behind):
    """The features are the time: the line meets them exactly, the last ones are as old as they are."""
    sigmas, seen = shifted_sigmas(6, 1.0), []
    u = CachedVelocity(Noted(), {}, method(at(0, 1, 3)), sigmas.tolist())
    sample(lambda *args: seen.append(u(*args)) or seen[-1], NOISE, sigmas)
    for step, back in zip((2, 4, 5), behind, strict=True):
        torch.testing.assert_close(seen[step], sigmas[step - back].expand_as(NOISE))


def test_the_line_goes_through_the_last_two_anchors_and_not_through_the_first():
    along, kept = Line(), []
    for features in (7.0, 1.0, 2.0):
        kept = along.keep([], [torch.full((1, 2), features)], kept, [])
    ages = [Span(2, torch.tensor([0.2])), Span(3, torch.tensor([0.3]))]
    (answer,) = along.answer([NOISE], kept, ages, None, {})
    torch.testing.assert_close(answer, torch.full((1, 2), 4.0))


def test_steps_count_evenly_however_long_they_are():
    kept = Taylor().keep([], [torch.full((1, 2), 2.0)], [torch.full((1, 2), 1.0)], [Span(2, 0.1)])
    (answer,) = Taylor().answer([NOISE], kept, [Span(3, 0.9), Span(5, 1.0)], None, {})
    torch.testing.assert_close(answer, torch.full((1, 2), 3.5))


@pytest.mark.parametrize("what", [Line(), Taylor()])
def test_before_a_second_anchor_the_answer_is_the_last_features(what):
    kept = what.keep([], [NOISE], [], [])
    assert torch.equal(what.answer([NOISE], kept, [Span(1, 0.1)], None, {})[0], NOISE)


def test_the_line_keeps_the_type_of_the_features():
    kept = [NOISE.bfloat16(), NOISE.bfloat16() * 2.0]
    ages = [Span(1, torch.tensor([0.1, 0.2])), Span(2, torch.tensor([0.2, 0.3]))]
    (answer,) = Line().answer([NOISE], kept, ages, None, {})
    assert answer.dtype == torch.bfloat16


@pytest.mark.parametrize("method", [reuse, line, series, disca])
def test_with_every_step_in_full_a_method_is_the_plain_run(method):
    sigmas = shifted_sigmas(6, 1.0)
    u = CachedVelocity(Noted(), {}, method(at(*range(6))), sigmas.tolist(), torch.nn.Identity())
    plain = sample(lambda x_t, t, r: per_sample(t, x_t).expand_as(x_t), NOISE, sigmas)
    assert torch.equal(sample(u, NOISE, sigmas), plain)


def test_what_stands_in_for_the_network_gives_its_output_and_keeps_its_own_answers():
    """Outputs are the time; each answer adds the number of outputs that are kept to the last."""
    network, sigmas, seen = Noted(), shifted_sigmas(5, 1.0), []

    def compute(kept, step, times):
        return kept[0] + len(kept)

    u = CachedVelocity(network, {}, LesaCache().method(at(0, 3)), sigmas.tolist(), compute)
    sample(lambda *args: seen.append(u(*args)) or seen[-1], NOISE, sigmas)
    assert network.steps == ["full", "full"]
    expected = torch.tensor([1.0, 2.0, 4.0, 0.4, 4.4])
    torch.testing.assert_close(torch.stack([made[0, 0] for made in seen]), expected)


def test_a_network_that_takes_no_r_is_told_none():
    told = []

    class Plain(Noted):
        def velocity_and_features(self, x_t, t, r, condition):
            told.append(r)
            return super().velocity_and_features(x_t, t, r, condition)

    sigmas = shifted_sigmas(3, 1.0)
    sample(CachedVelocity(Plain(), {}, reuse(at(0, 2)), sigmas.tolist(), takes_r=False), NOISE, sigmas)
    assert told == [None, None]


def test_a_method_that_looks_into_the_network_is_refused():
    with pytest.raises(ValueError, match="'TaylorSeer' looks into the network"):
        CachedVelocity(Noted(), {}, TaylorSeer().method(at(0, 1)), shifted_sigmas(6, 1.0).tolist())
