"""The step is exact where the mean velocity is known."""

import pytest
import recipes
import torch

from disca import meanflow


def test_one_step_is_exact_on_a_curved_path():
    """x_t = cos(t): v = -sin(t), u(t, r) = (cos t - cos r)/(t - r), so a single step lands on cos(r)."""
    t, r = torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    u = (torch.cos(t) - torch.cos(r)) / (t - r)
    assert torch.allclose(meanflow.step(torch.cos(t), u, t, r), torch.cos(r), atol=1e-15)


def test_mean_velocity_undoes_what_comfyui_makes_of_it():
    x_t, u, t = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64), 0.7
    assert torch.allclose(meanflow.mean_velocity(x_t, x_t - t * u, t), u, atol=1e-14)


@pytest.mark.parametrize("case", recipes.CASES)
def test_sigmas_are_the_authors(case):
    run = recipes.golden(case)
    sigmas = meanflow.shifted_sigmas(run.meta["steps"], run.meta["shift"])
    assert torch.allclose(1000 * sigmas, run.tensors["timesteps"], rtol=0, atol=1e-4)


def test_sigmas_are_the_papers_twenty():
    listed = [1, 0.9896, 0.9783, 0.9659, 0.9524, 0.9375, 0.9211, 0.9028, 0.8824, 0.8594, 0.8333]
    listed += [0.8036, 0.7692, 0.7292, 0.6818, 0.625, 0.5556, 0.4688, 0.3571, 0.2083, 0]
    assert torch.allclose(meanflow.shifted_sigmas(20, 5.0), torch.tensor(listed), atol=5e-5)


def test_denoise_takes_the_end_of_a_longer_run():
    assert torch.equal(meanflow.shifted_sigmas(5, 3.0, 0.5), meanflow.shifted_sigmas(10, 3.0)[-6:])
    assert meanflow.shifted_sigmas(5, 3.0, 0.0).numel() == 0


@pytest.mark.parametrize("steps, shift, denoise", [(20, 5.0, 1.0), (8, 7.0, 0.37), (7, 3.0, 0.9), (1000, 5.0, 0.01)])
def test_only_the_last_times_of_the_longer_run_are_computed_and_to_the_same_bits(steps, shift, denoise):
    total = int(steps / denoise)
    u = 1.0 - torch.arange(total + 1, dtype=torch.float64) / total
    assert torch.equal(
        meanflow.shifted_sigmas(steps, shift, denoise), meanflow.shifted(u, shift)[-(steps + 1) :].float()
    )


def test_the_longer_run_has_a_whole_number_of_steps_rounded_down():
    """7 / 0.9 = 7.78: seven steps, the first at 1; rounded, it would be the second of eight."""
    assert meanflow.shifted_sigmas(7, 5.0, 0.9)[0] == 1.0
    assert meanflow.shifted_sigmas(7, 5.0, 0.6)[0] < 1.0


def test_sigmas_are_rounded_once_from_double_precision():
    exact = [5.0 * u / (1.0 + 4.0 * u) for u in (1.0 - i / 50 for i in range(51))]
    in_single = meanflow.shifted(1.0 - torch.arange(51, dtype=torch.float32) / 50, 5.0)
    assert torch.equal(meanflow.shifted_sigmas(50, 5.0), torch.tensor(exact, dtype=torch.float64).float())
    assert not torch.equal(meanflow.shifted_sigmas(50, 5.0), in_single)


@pytest.mark.parametrize("denoise", [1e-12, 1e-300, 9e-5, -0.1, 1.1, float("nan"), float("inf")])
def test_a_denoise_that_makes_no_sense_is_refused_before_memory_is_asked_for(denoise):
    with pytest.raises(ValueError, match="'denoise' is .*, but must be from "):
        meanflow.shifted_sigmas(1000, 5.0, denoise)


def test_the_least_denoise_still_gives_that_many_steps():
    sigmas = meanflow.shifted_sigmas(1000, 5.0, meanflow.LEAST_DENOISE)
    assert len(sigmas) == 1001 and (sigmas.diff() < 0).all()


def test_shift_one_is_even():
    assert torch.allclose(meanflow.shifted_sigmas(4, 1.0), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
