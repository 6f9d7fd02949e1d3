"""Pairs for the Predictor on a linear flow dx/dt = a·x, whose path and mean velocity are known."""

import math

import pytest
import torch

from disca.training.algorithms.pairs import Pair, Pairs
from disca.training.contract.method_settings import MOST_STEPS, PairSettings, PredictorSettings
from disca.training.contract.times import Draws, per_sample

A = 1.3
DELTA_MAX = 0.2
KINDS = ("line", "trajectory", "cached")
SHAPE = (1, 2, 1, 2, 2)


class LinearFlow:
    """What pairs ask of a network, in closed form, noted; the Predictor is `error` off in every velocity."""

    def __init__(self, error: float = 0.0):
        self.error = error
        self.asked: list[tuple[float, float]] = []  # (t, r)
        self.predicted = 0

    def velocity(self, x_t, t, r, condition):
        """1/(t - r) of the integral of a·x along the flow."""
        self.asked += zip(t.tolist(), r.tolist(), strict=True)
        length = per_sample(t - r, x_t).double()
        return (x_t * torch.where(length > 0, -torch.expm1(-A * length) / length, A)).to(x_t)

    def velocity_and_features(self, x_t, t, r, condition):
        """The state and the time stand for the features."""
        return self.velocity(x_t, t, r, condition), [x_t, t]

    def answered_velocity(self, answer, x_t, t, r, condition):
        self.predicted += 1
        return self.velocity(x_t, t, r, condition) + self.error


def drawn(shares: PairSettings, count: int, flow: LinearFlow | None = None) -> list[Pair]:
    """Pairs of so many samples, each with draws of its own; x_0 is 0, so that the noise is the line's direction."""
    pairs = Pairs(PredictorSettings(delta_max=DELTA_MAX, pairs=shares), flow or LinearFlow(), torch.nn.Identity())
    cpu = torch.device("cpu")
    return [pairs.draw(torch.zeros(SHAPE), Draws(0, torch.tensor([i]), cpu), {}) for i in range(count)]


def only(kind: str) -> PairSettings:
    """All pairs of that kind."""
    return PairSettings(**{kind: 1.0})


def ages(pairs: list[Pair]) -> torch.Tensor:
    """How long before the later state the features are."""
    return torch.cat([pair.cached[1] - pair.t for pair in pairs])


def growth(pair: Pair) -> float:
    """How much shorter the later state is than the anchor's."""
    return (pair.x_t.norm() / pair.cached[0].norm()).item()


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_at_most_delta_max_older_than_the_state_to_predict(kind):
    found = ages(drawn(only(kind), 400))
    assert found.min() >= 0.0 and 0.95 * DELTA_MAX < found.max() <= DELTA_MAX + 1e-6
    assert 0.4 * DELTA_MAX < found.mean() < 0.55 * DELTA_MAX


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_asked_for_times_from_0_to_1_only_and_for_no_step_backwards(kind):
    flow = LinearFlow()
    pairs = drawn(only(kind), 400, flow)
    flow.asked += [(pair.t.item(), pair.r.item()) for pair in pairs]
    assert all(0.0 <= r <= t <= 1.0 for t, r in flow.asked)
    assert any(r == 0.0 for _, r in flow.asked)


def test_both_states_of_a_line_pair_lie_on_one_line_to_its_noise():
    for pair in drawn(only("line"), 50):
        torch.testing.assert_close(pair.x_t * pair.cached[1], pair.cached[0] * pair.t)


@pytest.mark.parametrize("kind", ["trajectory", "cached"])
def test_the_later_state_of_a_path_pair_is_where_the_flow_leads(kind):
    for pair, age in zip(drawn(only(kind), 50), ages(drawn(only(kind), 50)).tolist(), strict=True):
        assert growth(pair) == pytest.approx(math.exp(-A * age), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_the_networks_velocity_at_the_later_state_even_where_the_predictor_led(kind):
    for pair in drawn(only(kind), 50, LinearFlow(error=0.5)):
        torch.testing.assert_close(pair.u_target, LinearFlow().velocity(pair.x_t, pair.t, pair.r, {}))


def test_the_predictor_leads_between_the_anchor_and_the_later_state_of_cached_pairs_only():
    apart = {}
    for kind in KINDS:
        pairs, exact = (drawn(only(kind), 60, LinearFlow(error)) for error in (0.5, 0.0))
        apart[kind] = sum(not torch.allclose(a.x_t, b.x_t) for a, b in zip(pairs, exact, strict=True))
    assert apart["line"] == apart["trajectory"] == 0
    assert 20 < apart["cached"] < 60, "where one step leads to the later state, it is the anchor's own"


def test_path_pairs_take_as_many_steps_as_a_schedule_predicts():
    steps = []
    for i in range(120):
        flow = LinearFlow()
        pairs = Pairs(PredictorSettings(delta_max=DELTA_MAX, pairs=only("trajectory")), flow, torch.nn.Identity())
        pairs.draw(torch.zeros(SHAPE), Draws(1, torch.tensor([i]), torch.device("cpu")), {})
        steps.append(len({t for t, _ in flow.asked}) - 1)
    shares = [steps.count(count) / len(steps) for count in range(1, MOST_STEPS + 1)]
    assert sum(shares) == 1.0 and all(share == pytest.approx(1 / MOST_STEPS, abs=0.12) for share in shares)


def test_a_batch_gives_the_pairs_of_its_samples_by_as_many_passes_as_any_of_them_alone():
    shares, count = PairSettings(line=0.25, trajectory=0.25, cached=0.5), 24
    flow, settings = LinearFlow(0.1), PredictorSettings(delta_max=DELTA_MAX, pairs=shares)
    draws = Draws(0, torch.arange(count), torch.device("cpu"))
    batch = Pairs(settings, flow, torch.nn.Identity()).draw(torch.zeros(count, *SHAPE[1:]), draws, {})
    alone, passes = drawn(shares, count, LinearFlow(0.1)), {len(flow.asked) // count}
    for one, cached, *parts in zip(alone, zip(*batch.cached, strict=True), *batch[1:], strict=True):
        assert all(torch.equal(a[0], b) for a, b in zip(one.cached, cached, strict=True))
        assert all(torch.allclose(a[0], b) for a, b in zip(one[1:], parts, strict=True))
    for i in range(count):
        flow = LinearFlow()
        Pairs(settings, flow, torch.nn.Identity()).draw(torch.zeros(SHAPE), Draws(0, torch.tensor([i]), "cpu"), {})
        passes.add(len(flow.asked))
    assert passes == {2 + 2 * (MOST_STEPS - 1)}


def test_kinds_of_pairs_come_in_the_shares_that_the_settings_name():
    shares, count = PairSettings(line=0.125, trajectory=0.25, cached=0.625), 1200
    flow = LinearFlow()
    pairs = drawn(shares, count, flow)
    lines = sum(
        growth(pair) == pytest.approx((pair.t / pair.cached[1]).item(), rel=1e-4)
        and growth(pair) != pytest.approx(math.exp(-A * age), rel=1e-3)
        for pair, age in zip(pairs, ages(pairs).tolist(), strict=True)
    )
    network, predictor = shares.passes
    assert lines / count == pytest.approx(shares.line / shares.total, abs=0.03)
    assert flow.predicted / count == pytest.approx(predictor, abs=0.06)
    assert (len(flow.asked) - flow.predicted) / count == pytest.approx(network, abs=0.06)
