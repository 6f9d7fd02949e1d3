"""Sampling on flows whose samples are known: exact steps, guidance, anchors and rules between them."""

import math
from types import SimpleNamespace

import pytest
import torch

from disca.meanflow import shifted_sigmas
from disca.training.algorithms.sampling import CachedVelocity, Extrapolation, Rule, guided, sample
from disca.training.contract.times import per_sample

A = 1.3
NOISE = torch.linspace(-2.0, 2.0, 6).view(2, 3)


def mean_velocity(x_t, t, r):
    """1/(t - r) of the integral of a·x along dx/dt = a·x."""
    return x_t * -torch.expm1(-A * per_sample(t - r, x_t)) / per_sample(t - r, x_t)


class Noted:
    """A network whose features are its time, and which answers with the features that it is given; notes its steps."""

    def __init__(self):
        self.steps: list[str] = []

    def velocity_and_features(self, x_t, t, condition, r):
        self.steps.append("full")
        return per_sample(t, x_t).expand_as(x_t), [per_sample(t, x_t).expand_as(x_t)]

    def predicted_velocity(self, rule, cached, x_t, t, condition, r):
        self.steps.append("predicted")
        return rule(x_t, *cached)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_true_mean_velocities_lead_to_the_sample_in_any_number_of_steps(steps):
    for shift in (1.0, 5.0):
        found = sample(mean_velocity, NOISE, shifted_sigmas(steps, shift))
        torch.testing.assert_close(found, NOISE * math.exp(-A))


def test_guidance_goes_on_from_the_velocity_without_prompt_through_that_with_it():
    network = SimpleNamespace(velocity=lambda x_t, t, condition: x_t + condition["y"])
    condition, null = {"y": 5.0}, {"y": 2.0}
    for scale, expected in ((0.0, 2.0), (0.5, 3.5), (1.0, 5.0), (4.0, 14.0)):
        u = guided(network, condition, null, scale)
        torch.testing.assert_close(u(NOISE, None, None), NOISE + expected)


def test_guidance_of_scale_1_asks_for_the_prompt_only():
    asked = []
    network = SimpleNamespace(velocity=lambda x_t, t, condition: asked.append(condition) or x_t)
    guided(network, "prompt", "no prompt", 1.0)(NOISE, None, None)
    assert asked == ["prompt"]


def test_anchor_steps_run_in_full_and_all_others_by_the_rule():
    network = Noted()
    sample(CachedVelocity(network, {}, (0, 1, 4), Rule()), NOISE, shifted_sigmas(6, 1.0))
    assert network.steps == ["full", "full", "predicted", "predicted", "full", "predicted"]


@pytest.mark.parametrize(("rule", "behind"), [(Rule, (1, 1, 2)), (Extrapolation, (0, 0, 0))])
def test_the_rule_gives_the_last_anchors_features_or_the_line_through_the_last_two(rule, behind):
    """The features are the time: the line meets them exactly, the last ones are as old as they are."""
    sigmas, seen = shifted_sigmas(6, 1.0), []
    u = CachedVelocity(Noted(), {}, (0, 1, 3), rule())
    sample(lambda *args: seen.append(u(*args)) or seen[-1], NOISE, sigmas)
    for step, back in zip((2, 4, 5), behind, strict=True):
        torch.testing.assert_close(seen[step], sigmas[step - back].expand_as(NOISE))


def test_the_line_goes_through_the_last_two_anchors_and_not_through_the_first():
    rule, times = Extrapolation(), torch.tensor([[0.9], [0.5], [0.4]])
    for t, features in zip(times, (7.0, 1.0, 2.0), strict=True):
        rule.keep([torch.full((1, 2), features)], t)
    rule.begin(torch.tensor([0.2]))
    torch.testing.assert_close(rule(), torch.full((1, 2), 4.0))
