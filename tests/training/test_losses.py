"""The three algorithms against closed forms: a linear flow dx/dt = a·x, whose mean velocity is known."""

import pytest
import torch

from disca.training.algorithms.discriminator import Discriminator, adversarial_loss, discriminator_loss
from disca.training.algorithms.losses import (
    adaptive_weight,
    cfg_distillation_loss,
    flow_matching_loss,
    meanflow_loss,
    meanflow_target,
    mse,
)
from disca.training.algorithms.pairs import Pair, following
from disca.training.contract.times import Draws, at_time, per_sample

A = 1.7
SHAPE = (6, 4, 2, 3, 3)


def velocity(x_t, t):
    return A * x_t


def mean_velocity(x_t, t, r, **options):
    """1/(t - r) of the integral of v along the flow through x_t, and v itself where r = t."""
    length = per_sample(t - r, x_t)
    back = torch.where(length > 0, (1.0 - torch.exp(-A * length)) / length.clamp(min=1e-12), torch.full_like(length, A))
    return x_t * back


def exact_derivative(u, x_t, t, r, v):
    """d/dt of x·(1 - exp(-a(t - r)))/(t - r) along dx/dt = v."""
    length = per_sample(t - r, x_t)
    decay = torch.exp(-A * length)
    return v * (1.0 - decay) / length + x_t * (A * decay * length - (1.0 - decay)) / length**2


def no_derivative(u, x_t, t, r, v):
    return torch.zeros_like(v)


@pytest.fixture
def points():
    g = torch.Generator().manual_seed(0)
    x_0, noise = (torch.randn(SHAPE, generator=g, dtype=torch.float64) for _ in range(2))
    t = torch.linspace(0.3, 1.0, SHAPE[0], dtype=torch.float64)
    return x_0, noise, t


def test_the_true_mean_velocity_is_the_meanflow_optimum(points):
    x_0, noise, t = points
    loss, capped = meanflow_loss(mean_velocity, velocity, exact_derivative, x_0, noise, t, t - 0.2)
    assert loss.max() < 1e-12
    assert not capped.any()


def test_without_the_derivative_the_true_mean_velocity_is_not_the_optimum(points):
    x_0, noise, t = points
    loss, _ = meanflow_loss(mean_velocity, velocity, no_derivative, x_0, noise, t, t - 0.2)
    assert loss.min() > 1e-4


def test_where_r_is_t_the_target_is_the_teachers_velocity(points):
    x_0, noise, t = points

    def never(*_):
        raise AssertionError("no derivative is needed where r = t")

    student = lambda x_t, t, r, **options: velocity(x_t, t) + 1.0  # noqa: E731
    loss, _ = meanflow_loss(student, velocity, never, x_0, noise, t, t)
    torch.testing.assert_close(loss, torch.ones_like(loss))


def test_in_step_with_others_the_derivative_is_taken_whatever_was_drawn_and_changes_nothing(points):
    x_0, noise, t = points
    taken = []

    def derivative(u, x_t, t, r, v):
        taken.append(len(t))
        return torch.full_like(v, 7.0)

    for r, expected in ((t, len(t)), (torch.where(t > t.mean(), t, t - 0.1), int((t <= t.mean()).sum()))):
        alone, _ = meanflow_loss(mean_velocity, velocity, derivative, x_0, noise, t, r)
        taken.clear()
        loss, _ = meanflow_loss(mean_velocity, velocity, derivative, x_0, noise, t, r, in_step=True)
        assert taken == [expected] and torch.equal(loss, alone)


def test_in_a_batch_only_samples_with_an_interval_are_derived_and_each_by_its_own_numbers(points):
    x_0, noise, t = points
    r = torch.where(torch.arange(len(t)) % 2 == 0, t, t - 0.2)
    asked = []

    def student(x_t, t, r, chosen=None):
        asked.append(chosen)
        return mean_velocity(x_t, t, r)

    def derivative(u, x_t, t, r, v):
        u(x_t, t, r)
        return exact_derivative(u, x_t, t, r, v)

    loss, _ = meanflow_loss(student, velocity, derivative, x_0, noise, t, r)
    assert loss.max() < 1e-12
    assert asked[0].tolist() == [False, True] * 3 and asked[1] is None


def test_a_still_sample_is_no_division_by_zero():
    still, t = torch.zeros(SHAPE), torch.full((SHAPE[0],), 0.5)
    target, _ = meanflow_target(still, still, t, t - 0.2, cap=1.0)
    assert not target.any()


def test_errors_of_bf16_tensors_are_counted_in_fp32():
    a, b = torch.full((1, 256), 1.0), torch.full((1, 256), 1.0 + 2.0**-7)
    torch.testing.assert_close(mse(a.bfloat16(), b.bfloat16()), torch.tensor([2.0**-14]), rtol=1e-6, atol=0.0)
    assert mse(a.bfloat16(), b.bfloat16()).dtype == torch.float32


def test_as_the_interval_vanishes_the_target_becomes_the_teachers_velocity(points):
    x_0, _, t = points
    v, du_dt = velocity(x_0, t), torch.randn_like(x_0)
    apart = [mse(meanflow_target(v, du_dt, t, t - length)[0], v).max() for length in (1e-1, 1e-2, 1e-3)]
    assert apart[0] > 50 * apart[1] > 2500 * apart[2] > 0


def test_a_derivative_that_is_too_large_is_capped_at_the_velocity(points):
    x_0, _, t = points
    v = velocity(x_0, t)
    target, capped = meanflow_target(v, 1e4 * torch.ones_like(v), t, t - 0.2, cap=1.0)
    sizes = (target - v).flatten(1).norm(dim=1)
    assert capped.all()
    torch.testing.assert_close(sizes.double(), v.flatten(1).norm(dim=1))


def test_only_the_student_gets_a_gradient(points):
    x_0, noise, t = points
    own, teachers = (torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    student = lambda x_t, t, r, **options: own * mean_velocity(x_t, t, r)  # noqa: E731
    loss, _ = meanflow_loss(student, lambda x, t: teachers * velocity(x, t), exact_derivative, x_0, noise, t, t - 0.1)
    (2.0 * loss.sum()).backward()
    assert own.grad is not None and teachers.grad is None


def test_flow_matching_is_solved_by_noise_minus_data(points):
    x_0, noise, t = points
    assert flow_matching_loss(lambda x_t, t: noise - x_0, x_0, noise, t).max() == 0


@pytest.mark.parametrize("g", [0.0, 1.0, 4.0])
def test_the_guided_velocity_is_null_plus_g_times_the_difference(points, g):
    x_0, noise, t = points
    scale = torch.full_like(t, g)
    guided = lambda x_t, t, g: x_t + per_sample(g, x_t) * (3.0 * x_t - x_t)  # noqa: E731
    loss = cfg_distillation_loss(guided, lambda x, t: 3.0 * x, lambda x, t: x, x_0, noise, t, scale)
    assert loss.max() < 1e-25


def test_the_discriminator_wants_targets_up_and_predictions_down():
    predicted, target = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    discriminator_loss(predicted, target).sum().backward()
    assert (predicted.grad > 0).all() and (target.grad < 0).all()


def test_the_predictor_wants_predictions_up_as_the_discriminator_does_not():
    predicted = torch.zeros(3, requires_grad=True)
    adversarial_loss(predicted).sum().backward()
    assert (predicted.grad < 0).all()


def test_the_hinge_is_at_rest_once_both_are_told_apart():
    assert discriminator_loss(torch.tensor([-1.0]), torch.tensor([1.0])) == 0


def test_a_discriminator_learns_to_tell_two_kinds_of_features_apart():
    torch.manual_seed(0)
    discriminator = Discriminator(features=16, taps=2, width=32)
    optimiser = torch.optim.AdamW(discriminator.parameters(), lr=1e-3)
    direction = torch.randn(16)
    for _ in range(60):
        fake = [torch.randn(8, 12, 16) for _ in range(2)]
        real = [torch.randn(8, 12, 16) + direction for _ in range(2)]
        t = torch.rand(8)
        loss = discriminator_loss(discriminator(fake, t, 3), discriminator(real, t, 3)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.5


def test_a_score_is_of_its_own_sample_and_of_no_features_size():
    discriminator = Discriminator(features=16, taps=2, width=32)
    taps, t = [torch.randn(4, 12, 16) for _ in range(2)], torch.rand(4)
    scores = discriminator(taps, t, 3)
    assert scores.shape == (4,) and scores.unique().numel() == 4
    alone = torch.cat([discriminator([tap[i : i + 1] for tap in taps], t[i : i + 1], 3) for i in range(4)])
    torch.testing.assert_close(scores, alone)
    torch.testing.assert_close(discriminator([100.0 * tap for tap in taps], t, 3), scores, rtol=1e-3, atol=1e-4)
    assert discriminator([tap.bfloat16() for tap in taps], t, 3).dtype == torch.float32


def test_a_new_discriminator_judges_alike_at_all_times_and_can_learn_to_tell_them_apart():
    discriminator = Discriminator(features=16, taps=1, width=32)
    taps, (early, late) = [torch.randn(1, 12, 16)], (torch.tensor([0.1]), torch.tensor([0.9]))
    assert torch.equal(discriminator(taps, early, 3), discriminator(taps, late, 3))
    (discriminator(taps, early, 3) - 2.0).square().sum().backward()
    time = discriminator.heads[0].time
    with torch.no_grad():
        time.weight -= time.weight.grad
    assert not torch.allclose(discriminator(taps, early, 3), discriminator(taps, late, 3))


def test_the_next_step_has_the_same_length_and_stops_at_zero():
    t, r = torch.tensor([0.9, 0.3]), torch.tensor([0.7, 0.1])
    x_t = torch.ones(2, 1, 1, 1, 1)
    x, t_next, r_next = following(Pair([], x_t, t, r, x_t), 2.0 * x_t)
    torch.testing.assert_close(x.flatten(), torch.tensor([0.6, 0.6]))
    torch.testing.assert_close(t_next, r)
    torch.testing.assert_close(r_next, torch.tensor([0.5, 0.0]))


def test_adaptive_weights_bring_easy_and_hard_samples_to_one_scale():
    easy_and_hard = torch.tensor([0.1, 10.0], requires_grad=True)
    weight = adaptive_weight(easy_and_hard, power=1.0)
    torch.testing.assert_close(weight * easy_and_hard.detach(), torch.ones(2), rtol=0.02, atol=0.0)
    assert not weight.requires_grad


def test_without_a_power_all_samples_weigh_alike():
    assert torch.equal(adaptive_weight(torch.tensor([0.0, 1e-6, 3.0]), power=0.0), torch.ones(3))


def test_times_stay_within_the_restriction():
    t, r = Draws(0, torch.arange(2000), torch.device("cpu")).restricted_times(0.2)
    assert (r >= 0).all() and (r <= t).all() and (t - r <= 0.2 + 1e-6).all()
    assert 0.09 < (t - r)[t > 0.2].mean() < 0.11


def test_a_share_of_the_samples_has_r_at_t():
    t, r = Draws(0, torch.arange(2000), torch.device("cpu")).restricted_times(0.2, share_r_equals_t=0.5)
    assert 0.45 < (t == r).float().mean() < 0.56


def test_a_sample_draws_the_same_in_any_batch():
    like = torch.zeros(4, 3, 2)
    whole, part = (Draws(7, torch.arange(first, 4), torch.device("cpu")) for first in (0, 2))
    assert torch.equal(whole.uniform()[2:], part.uniform())
    assert torch.equal(whole.noise(like)[2:], part.noise(like[2:]))


def test_no_sample_of_a_run_draws_what_a_sample_of_the_next_seed_does():
    like, cpu = torch.zeros(4_000, 3), torch.device("cpu")
    one = {tuple(row) for row in Draws(7, torch.arange(4_000), cpu).noise(like).tolist()}
    other = {tuple(row) for row in Draws(8, torch.arange(4), cpu).noise(like[:4]).tolist()}
    assert len(one) == 4_000 and len(other) == 4 and not one & other


def test_at_time_runs_from_data_to_noise():
    x_0, noise = torch.zeros(2, 1), torch.ones(2, 1)
    assert at_time(x_0, noise, torch.tensor([0.25, 1.0])).flatten().tolist() == [0.25, 1.0]
