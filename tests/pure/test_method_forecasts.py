"""What the methods make of what they keep, in closed forms. Features are [1, tokens, width] in double precision."""

import pytest
import torch

from disca.methods import METHODS
from disca.methods.scheduled.rfc import Relational
from disca.methods.scheduled.spectrum import Chebyshev
from disca.methods.seam.method import MODULES, SITES, Span
from disca.methods.seam.whats import Residual, Reuse, Taylor

GENERATOR = torch.Generator().manual_seed(0)
A, B, C = (torch.randn(2, 3, 4, dtype=torch.float64, generator=GENERATOR) for _ in range(3))


def ages(step: float, full: list[float]) -> list[Span]:
    """How far back full steps are, the latest first, in a run of ten."""
    return [Span(step - earlier, (step - earlier) / 10) for earlier in reversed(full)]


def run(what, feature, full: list[int], step: int, given=lambda step: A, steps: int = 10):
    """The answer at a step, after these full ones."""
    kept = []
    for i, at in enumerate(full):
        kept = what.keep((given(at),), (feature(at),), kept, ages(at, full[:i]))
    context = {"step": step, "sigmas": [1 - i / steps for i in range(steps + 1)]}
    return what.answer((given(step),), kept, ages(step, full), None, context)[0]


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("full", [[0, 1], [0, 3], [0, 1, 5], [1, 4, 5]])
@pytest.mark.parametrize("what", [Taylor(1), Taylor(2), Chebyshev(blend=0.0)], ids=str)
def test_a_line_is_continued_exactly_after_any_gaps(what, full):
    same(run(what, lambda step: A + step * B, full, 8), A + 8 * B)


@pytest.mark.parametrize(("gap", "ahead"), [(1, 1), (3, 2), (4, 7)])
def test_order_2_misses_a_parabola_by_gap_times_steps_ahead(gap, ahead):
    last = 2 * gap
    found = run(Taylor(2), lambda step: A * step**2, [0, gap, last], last + ahead)
    same(found, A * ((last + ahead) ** 2 - ahead * gap))


def test_with_one_full_step_every_forecast_is_reuse():
    for what in (Taylor(2), Relational(), Chebyshev()):
        assert torch.equal(run(what, lambda step: A + step * B, [2], 5), A + 2 * B)


def test_fora_is_taylorseer_of_order_0_to_the_bit():
    fora, taylor = METHODS["FORA"]().ways(), METHODS["TaylorSeer"](order=0).ways()
    assert (fora[0].where, fora[0].sites) == (taylor[0].where, taylor[0].sites) == (SITES, MODULES)
    for way in (fora[0], taylor[0]):
        assert torch.equal(run(way.what, lambda step: A * step, [1, 2], 4), A * 2)


def test_a_residual_is_exact_where_blocks_add_what_they_always_add():
    same(run(Residual(), lambda step: A * step + B, [1, 3], 7, given=lambda step: A * step), A * 7 + B)


def test_a_residual_is_what_came_out_less_what_went_in():
    (kept,) = Residual().keep((A,), (B,), [], [])
    assert torch.equal(kept, B - A)


@pytest.mark.parametrize("speed", [1.0, 0.5, 3.0])
def test_rfc_is_exact_for_a_linear_module_while_its_input_keeps_its_direction(speed):
    """O = I M + C; the input goes on at another speed than before, which a series in steps cannot know."""
    M = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def given(step):
        return A + B * (step if step <= 3 else 3 + speed * (step - 3))

    same(run(Relational(), lambda step: given(step) @ M + C, [1, 3], 6, given), given(6) @ M + C)


def test_rfc_goes_in_the_direction_of_the_last_change_by_the_share_of_the_inputs():
    """|ΔI| = |B|, |I_now - I| = 3 |C|: three |C| / |B| times ΔO, for each row by itself."""
    found = run(Relational(), lambda step: A * step, [0, 1], 2, given=lambda step: (0 * B, B, B + 3 * C)[step])
    share = 3 * C.flatten(1).norm(dim=1) / B.flatten(1).norm(dim=1)
    same(found, A + share[:, None, None] * A)


def test_rfc_is_taylorseer_where_the_input_changes_evenly():
    for step in (4, 6):
        same(
            run(Relational(), lambda at: A * at**2, [1, 3], step, given=lambda at: A + B * at),
            run(Taylor(1), lambda at: A * at**2, [1, 3], step),
        )


def test_rfc_answers_with_the_last_where_input_or_output_did_not_change():
    same(run(Relational(), lambda step: A, [1, 3], 5), A)  # D = 0 and ΔI = 0
    same(run(Relational(), lambda step: A, [1, 3], 5, given=lambda step: B * step), A)  # D = 0
    same(run(Relational(), lambda step: A * step, [1, 3], 5), A * 3)  # ΔI = 0
    same(run(Relational(), lambda step: A * step, [1, 3], 5, given=lambda step: B * max(step - 3, 0)), A * 3)
    assert run(Relational(), lambda step: A, [1, 3], 5).isfinite().all()


def test_a_row_of_rfc_that_stands_still_leaves_the_others_alone():
    def given(step):
        return torch.cat([A[:1], B[1:] * step])

    found = run(Relational(), lambda step: C * step, [1, 3], 5, given)
    same(found, torch.cat([C[:1] * 3, C[1:] * 5]))


def test_rfc_survives_half_precision_over_many_tokens():
    """A norm over all of them would be 512,000, and half precision ends at 65,504."""
    ones = torch.ones(1, 4096, 64, dtype=torch.float16)
    found = run(Relational(), lambda step: ones * step, [0, 1], 2, given=lambda step: ones * 1000 * step)
    assert torch.equal(found, ones * 2) and found.dtype == torch.float16


def polynomial(degree: int):
    return lambda step: A + B * (step / 10) ** degree + C * (step / 10) ** max(degree - 1, 1)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_chebyshev_polynomials_forecast_those_of_their_degree_exactly_without_a_ridge(degree):
    what = Chebyshev(degree, ridge=0.0, blend=1.0, history=8)
    same(run(what, polynomial(degree), [0, 1, 2, 4, 6], 9), polynomial(degree)(9))


def test_a_small_ridge_changes_a_forecast_little_and_a_large_one_pulls_it_to_nothing():
    exact = polynomial(2)(8)
    errors = [
        (run(Chebyshev(2, ridge, 1.0), polynomial(2), [0, 1, 2, 4, 6], 8) - exact).norm()
        for ridge in (1e-6, 1e-3, 1e-1)
    ]
    assert errors[0] < 1e-4 * exact.norm() and errors == sorted(errors)
    assert run(Chebyshev(2, 1e9, 1.0), polynomial(2), [0, 1, 2, 4, 6], 8).norm() < 1e-6 * exact.norm()


def test_the_fit_is_that_of_ridge_regression():
    """Its normal equations, (XᵀX + ridge) c = XᵀH, solved by another way."""
    full, step, what = [0, 1, 2, 5], 7, Chebyshev(3, 0.1, 1.0)
    x = torch.tensor(full, dtype=torch.float64) / 5 - 1
    X = torch.stack([x**0, x, 2 * x**2 - 1, 4 * x**3 - 3 * x], dim=1)
    H = torch.stack([polynomial(3)(at).flatten() for at in full])
    c = torch.linalg.solve(X.T @ X + 0.1 * torch.eye(4, dtype=torch.float64), X.T @ H)
    tau = step / 5 - 1
    now = torch.tensor([1, tau, 2 * tau**2 - 1, 4 * tau**3 - 3 * tau], dtype=torch.float64)
    same(run(what, polynomial(3), full, step), (now @ c).view_as(A))


def test_the_blend_is_of_the_polynomials_and_the_line():
    answers = [run(Chebyshev(2, 0.1, blend), polynomial(3), [0, 1, 2, 4], 6) for blend in (0.0, 1.0, 0.25)]
    same(answers[2], 0.75 * answers[0] + 0.25 * answers[1])


def test_spectrum_keeps_no_more_than_its_history():
    what, kept = Chebyshev(history=3), []
    for step in range(6):
        kept = what.keep((A, B), (A * step, B * step), kept, [])
    assert [float(tensor[0, 0, 0] / A[0, 0, 0]) for tensor in kept[::2]] == pytest.approx([5, 4, 3])
    assert len(kept) == 6 == what.tensors * 2


def test_several_streams_are_forecast_each_by_itself():
    for what in (Taylor(1), Relational(), Chebyshev(blend=0.0), Residual(), Reuse()):
        streams = [A, B[:, :2]], [A * 2, C[:, :2]]
        kept = what.keep(streams[0], streams[0], [], [])
        kept = what.keep(streams[1], streams[1], kept, ages(1, [0]))
        context = {"step": 2, "sigmas": [1 - i / 10 for i in range(11)]}
        together = what.answer(streams[1], kept, ages(2, [0, 1]), None, context)
        for index in range(2):
            kept = what.keep(streams[0][index : index + 1], streams[0][index : index + 1], [], [])
            kept = what.keep(streams[1][index : index + 1], streams[1][index : index + 1], kept, ages(1, [0]))
            (alone,) = what.answer(streams[1][index : index + 1], kept, ages(2, [0, 1]), None, context)
            assert torch.equal(together[index], alone)
