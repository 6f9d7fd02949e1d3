"""LESA's experts, and the splines that they are made of."""

import pytest
import torch

from disca.meanflow import shifted_sigmas
from disca.methods import METHODS
from disca.methods.scheduled.kan import ORDER, Kan, KanLayer
from disca.methods.scheduled.lesa import HISTORY, Lesa, LesaCache, LesaNetwork, in_its_runs
from disca.methods.seam.anchors import AtAnchors
from disca.methods.seam.method import OUTPUT
from disca.schedule import Anchors

STEPS = 4
SIGMAS = [1.0, 0.9, 0.5, 0.25, 0.0]
OUTPUTS = [torch.full((2, 1, 1, 2, 2), float(9 - i)) for i in range(9)]  # the latest first: 9, 8, 7, ...


def network(**latent: float) -> LesaNetwork:
    """One whose α is 1 everywhere; `latent`: weight of the newest, of the oldest, and b."""
    found = LesaNetwork(STEPS, hidden=2)
    for expert, (kan, layer) in enumerate(zip(found.timestep, found.latent, strict=True)):
        constant(kan.layers[-1], 0.5)  # two edges
        layer.weight.data[0, -1] += latent.get("newest", 0.0)
        layer.weight.data[0, 0] += latent.get("oldest", 0.0)
        layer.bias.data += latent.get("b", 0.0) * (expert + 1)
    return found


def constant(layer: KanLayer, value: float) -> None:
    """Every edge gives this, whatever goes in, as long as it is in range."""
    layer.base_weight.data.zero_()
    layer.spline_scaler.data.fill_(1.0)
    layer.spline_weight.data.fill_(value)


def spline(coefficients: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    layer = KanLayer(1, 1)
    constant(layer, 0.0)
    layer.spline_weight.data[0, 0] = coefficients
    return layer.double()(x[:, None])[:, 0]


X = torch.linspace(-2.95, 2.95, 60, dtype=torch.float64)
KNOTS = KanLayer(1, 1).grid[0].double()


def test_the_bases_add_up_to_one_in_range_and_reach_no_further():
    layer = KanLayer(1, 1).double()
    torch.testing.assert_close(layer.bases(X[:, None]).sum(-1), torch.ones(60, 1, dtype=torch.float64))
    assert (layer.bases(X[:, None]) >= 0).all()
    assert layer.bases(torch.tensor([[-7.0], [7.0]], dtype=torch.float64)).abs().max() == 0


def test_a_spline_can_be_each_polynomial_of_its_order():
    """By its blossom: the coefficient is the mean of the products of its inner knots."""
    a, b, c = (KNOTS[1 + i : len(KNOTS) - ORDER + i] for i in range(ORDER))
    for coefficients, expected in (
        ((a + b + c) / 3, X),
        ((a * b + b * c + a * c) / 3, X**2),
        (a * b * c, X**3),
    ):
        torch.testing.assert_close(spline(coefficients, X), expected, rtol=1e-5, atol=1e-5)


def test_a_base_spline_is_two_thirds_at_its_middle_knot():
    coefficients = torch.zeros(len(KNOTS) - ORDER - 1)
    coefficients[3] = 1.0
    torch.testing.assert_close(
        spline(coefficients, KNOTS[4:7]), torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_an_edge_adds_its_base_to_its_spline():
    layer = KanLayer(2, 1)
    constant(layer, 0.25)
    layer.base_weight.data.copy_(torch.tensor([[2.0, 0.0]]))
    layer.spline_scaler.data.copy_(torch.tensor([[4.0, 8.0]]))
    x = torch.tensor([[1.0, -1.0]])
    torch.testing.assert_close(layer(x), 2 * torch.nn.functional.silu(x[:, :1]) + 3.0)


def test_a_kan_of_constants_is_constant():
    kan = Kan((3, 2, 1))
    for layer in kan.layers:
        constant(layer, 0.5)
    torch.testing.assert_close(kan(torch.randn(5, 3).clamp(-2, 2)), torch.ones(5, 1))


def test_its_weights_are_named_and_shaped_as_in_the_published_files():
    shapes = {key: tuple(value.shape) for key, value in LesaNetwork(50).state_dict().items()}
    widths = (51, 256, 256, 1)
    expected = {}
    for expert, reads in enumerate((4, 8, 8)):
        expected |= {f"latent.{expert}.weight": (1, reads), f"latent.{expert}.bias": (1,)}
        for i, (ins, outs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            layer = f"timestep.{expert}.layers.{i}."
            expected |= {layer + "base_weight": (outs, ins), layer + "spline_weight": (outs, ins, 8)}
            expected |= {layer + "spline_scaler": (outs, ins), layer + "grid": (ins, 12)}
    assert shapes == expected
    assert sum(parameter.numel() for parameter in LesaNetwork(50).parameters()) == 2_365_463


def test_weights_of_another_make_it_the_same():
    first, second = network(newest=0.5, b=1.0), LesaNetwork(STEPS, hidden=2)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(OUTPUTS, 2, SIGMAS), second(OUTPUTS, 2, SIGMAS))


def test_an_untrained_network_is_reuse_to_the_bit():
    last = torch.randn(2, 1, 1, 2, 2)
    assert torch.equal(LesaNetwork(STEPS, hidden=8)([last, *OUTPUTS], 3, SIGMAS), last)


def test_without_a_factor_for_the_time_it_is_reuse_to_the_bit():
    still = network(newest=3.0, b=1.0)
    for kan in still.timestep:
        constant(kan.layers[-1], 0.0)
    assert torch.equal(still(OUTPUTS, 3, SIGMAS), OUTPUTS[0])


@pytest.mark.parametrize(("step", "expert"), [(0, 0), (1, 1), (2, 2), (3, 2)])
def test_above_0_9_the_first_expert_answers_and_at_0_5_the_last(step, expert):
    torch.testing.assert_close(network(b=1.0)(OUTPUTS, step, SIGMAS), OUTPUTS[0] + expert + 1)


def test_the_last_weight_is_the_newest_outputs():
    torch.testing.assert_close(network(newest=2.0)(OUTPUTS, 3, SIGMAS), OUTPUTS[0] + 2 * 9)
    torch.testing.assert_close(network(oldest=2.0)(OUTPUTS, 3, SIGMAS), OUTPUTS[0] + 2 * 2)  # the eighth
    torch.testing.assert_close(network(oldest=2.0)(OUTPUTS, 0, SIGMAS), OUTPUTS[0] + 2 * 6)  # the fourth


def test_where_history_is_short_its_oldest_stands_in():
    torch.testing.assert_close(network(oldest=2.0)(OUTPUTS[:3], 3, SIGMAS), OUTPUTS[0] + 2 * 7)
    torch.testing.assert_close(network(oldest=2.0)(OUTPUTS[:1], 3, SIGMAS), OUTPUTS[0] + 2 * 9)


def test_the_factor_is_of_the_distances_to_all_times():
    found, asked = network(b=1.0), []
    found.timestep[2].register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0]))
    found(OUTPUTS, 2, SIGMAS)
    torch.testing.assert_close(asked[0], torch.tensor([[-0.5, -0.4, 0.0, 0.25, 0.5]]))


def test_the_answer_has_the_type_of_the_output():
    assert network(newest=1.0)([out.bfloat16() for out in OUTPUTS], 2, SIGMAS).dtype == torch.bfloat16


def test_a_run_of_other_steps_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="was trained for 4 steps, but the run has 2. Set steps to 4"):
        network()(OUTPUTS, 0, [1.0, 0.5, 0.0])


def test_eight_outputs_are_kept_with_the_latest_first_whoever_made_them():
    what, kept = Lesa(), []
    for made in reversed(OUTPUTS):
        kept = what.keep((), (made,), kept, []) if made.max() != 8 else what.renewed((made,), kept)
    assert what.renews and what.computes and len(kept) == HISTORY == what.tensors
    assert [float(tensor.max()) for tensor in kept] == [9, 8, 7, 6, 5, 4, 3, 2]


def test_the_network_answers_and_where_there_is_none_the_last_output_does():
    context = {"step": 3, "sigmas": SIGMAS}
    (made,) = Lesa().answer((OUTPUTS[0],), OUTPUTS, [], network(b=1.0), context)
    torch.testing.assert_close(made, OUTPUTS[0] + 3)
    assert Lesa().answer((OUTPUTS[0],), OUTPUTS, [], None, context) == OUTPUTS[:1]


def test_it_stands_in_for_the_whole_network():
    assert [(type(way.what), way.where) for way in METHODS["LESA"]().ways()] == [(Lesa, OUTPUT)]


def test_runs_that_its_network_was_trained_for_go_by_its_rule():
    method, sigmas = LesaCache().method(), shifted_sigmas(20, 5.0)
    rounded = ((sigmas * 1000).round() / 1000).tolist()
    for shift in (5.0, None):
        assert in_its_runs(method, 20, shift).when.plan(rounded) == method.when.plan(rounded)
    assert in_its_runs(method, 20, None).when.plan(shifted_sigmas(20, 1.0).tolist())


@pytest.mark.parametrize(
    ("steps", "shift", "denoise", "said"),
    [
        (19, 5.0, 1.0, "trained for 20 steps, but the run has 19. Set steps to 20"),
        (20, 6.0, 1.0, "trained at shift 5, where step 1[0-9] begins at sigma .*Set the shift to 5 with"),
        (20, 1.0, 1.0, "trained at shift 5, where step 14 begins at sigma 0.682, but in this run it begins at 0.300"),
        (20, 5.0, 0.5, "where step 13 begins at sigma 0.729, but in this run .* scheduler simple and denoise 1"),
    ],
)
def test_other_runs_are_refused_before_they_begin(steps, shift, denoise, said):
    with pytest.raises(ValueError, match=said):
        in_its_runs(LesaCache().method(), 20, 5.0).when.plan(shifted_sigmas(steps, shift, denoise).tolist())


def test_a_schedule_that_was_found_is_still_seen_as_one():
    """So that it is refused in runs that it was not found for."""
    schedule = Anchors((0, 3), 8)
    assert in_its_runs(LesaCache().method(AtAnchors(schedule)), 8, 5.0).when.listing() is schedule
