"""Pairs for the Predictor on a linear flow dx/dt = a·x, whose path and mean velocity are known."""

import pytest
import torch

from disca.training.algorithms.pairs import Pair, Pairs, Run
from disca.training.contract.method_settings import MOST_STEPS, PairSettings, PredictorSettings
from disca.training.contract.times import Draws, per_sample

A = 1.3
DELTA_MAX = 0.2
KINDS = ("line", "trajectory", "cached")
PATHS = ("trajectory", "cached")
SHAPE = (1, 2, 1, 2, 2)
CPU = torch.device("cpu")

pytestmark = pytest.mark.parametrize("features", [1, 2])  # that the Predictor sees


class LinearFlow:
    """What pairs ask of a network, in closed form, noted; the Predictor is `error` off in every velocity."""

    def __init__(self, error: float = 0.0):
        self.error = error
        self.asked: list[tuple[float, float]] = []  # (t, r)
        self.led = 0

    def velocity(self, x_t, t, r, condition):
        """1/(t - r) of the integral of a·x along the flow."""
        self.asked += zip(t.tolist(), r.tolist(), strict=True)
        length = per_sample(t - r, x_t).double()
        return (x_t * torch.where(length > 0, -torch.expm1(-A * length) / length, A)).to(x_t)

    def velocity_and_features(self, x_t, t, r, condition):
        """The state and the time stand for the features."""
        return self.velocity(x_t, t, r, condition), [x_t, t]

    def answered_velocity(self, answer, x_t, t, r, condition):
        self.led += 1
        return self.velocity(x_t, t, r, condition) + self.error


def pairs_of(shares: PairSettings, flow: LinearFlow, features: int, **settings) -> Pairs:
    """Of a Predictor that sees so many features."""
    settings = PredictorSettings(delta_max=DELTA_MAX, pairs=shares, **settings)
    return Pairs(settings, flow, torch.nn.Identity(), features)


def drawn(shares: PairSettings, count: int, features: int, flow: LinearFlow | None = None, **settings) -> list[Pair]:
    """Pairs of so many samples, each with draws of its own; x_0 is 0, so that the noise is the line's direction."""
    pairs, found = pairs_of(shares, flow or LinearFlow(), features, **settings), []
    for i in range(count):
        found += pairs.draw(torch.zeros(SHAPE), Draws(0, torch.tensor([i]), CPU), {})
    return found


def only(kind: str) -> PairSettings:
    """All pairs of that kind."""
    return PairSettings(**{kind: 1.0})


def states(pair: Pair) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The later state and its time, then those of the full steps, the latest first."""
    return list(zip([pair.x_t, *pair.kept.features[::2]], [pair.t, *pair.kept.times], strict=True))


def tensors(pair: Pair) -> list[torch.Tensor]:
    """All that a pair consists of."""
    return [*pair.kept.features, *pair.kept.times, *pair[1:]]


def test_the_states_of_a_line_pair_lie_on_one_line_at_most_delta_max_apart(features):
    pairs = drawn(only("line"), 50, features)
    gaps = torch.stack([torch.cat([pair.t, *pair.kept.times]).diff() for pair in pairs])
    assert gaps.shape == (50 * PredictorSettings().full_steps, features)
    assert gaps.min() >= 0.0 and 0.95 * DELTA_MAX < gaps.max() <= DELTA_MAX + 1e-6
    assert all(0.4 * DELTA_MAX < mean < 0.55 * DELTA_MAX for mean in gaps.mean(dim=0).tolist())
    for pair in pairs:
        for x, t in states(pair):
            torch.testing.assert_close(x * pair.t, pair.x_t * t)


@pytest.mark.parametrize("kind", PATHS)
def test_the_full_steps_of_a_run_are_what_is_predicted_one_after_the_other(kind, features):
    draws = [Draws(7, torch.tensor([3]), CPU) for _ in range(2)]
    settings = PredictorSettings(pairs=only(kind))
    pairs = list(Pairs(settings, LinearFlow(), torch.nn.Identity(), features).draw(torch.zeros(SHAPE), draws[0], {}))
    draws[1].noise(torch.zeros(SHAPE)), draws[1].uniform()
    run = Run.drawn(draws[1], settings)
    step, before = torch.tensor([0]), [run.times(torch.tensor([0]))[0]] * features
    for length, pair in zip(run.lengths, pairs, strict=True):
        step = step + length
        assert [pair.t, pair.r] == list(run.times(step))
        assert pair.kept.times == before
        before = [pair.t, *before][:features]
    assert pairs[-1].r == 0.0, "a run ends with a full step"


@pytest.mark.parametrize("kind", PATHS)
def test_the_states_of_a_run_are_where_the_flow_leads_from_noise(kind, features):
    for pair in drawn(only(kind), 20, features, full_steps=4):
        for x, t in states(pair):
            torch.testing.assert_close(x * torch.exp(-A * (t - pair.t)), pair.x_t, rtol=1e-4, atol=1e-5)
    first = drawn(only(kind), 1, features)[0].kept
    noise = Draws(0, torch.tensor([0]), CPU).noise(torch.zeros(SHAPE))
    assert all(torch.equal(x, noise) and t == 1.0 for x, t in zip(first.features[::2], first.times, strict=True))


def test_runs_have_every_shift_in_the_range_and_one_to_most_steps_between_full_ones(features):
    settings = PredictorSettings(shift=(1.0, 6.0), full_steps=5)
    run = Run.drawn(Draws(0, torch.arange(3000), CPU), settings)
    assert len(run.lengths) == 5
    logs = run.shift.log() / torch.tensor(6.0).log()
    assert all((logs < part).float().mean() == pytest.approx(part, abs=0.03) for part in (0.25, 0.5, 0.75, 1.0))
    for length in run.lengths:
        counts = length.bincount(minlength=MOST_STEPS + 1)
        assert counts[0] == 0 and len(counts) == MOST_STEPS + 1 and counts[1:].min() > 200
    t, r = run.times(sum(run.lengths))
    assert (r == 0.0).all() and (t > 0.0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_asked_for_times_from_0_to_1_only_and_for_no_step_backwards(kind, features):
    flow = LinearFlow()
    pairs = drawn(only(kind), 60, features, flow)
    flow.asked += [(pair.t.item(), pair.r.item()) for pair in pairs]
    assert all(0.0 <= r <= t <= 1.0 for t, r in flow.asked)
    assert any(r == 0.0 for _, r in flow.asked)


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_the_networks_velocity_at_the_later_state_even_where_the_predictor_led(kind, features):
    for pair in drawn(only(kind), 8, features, LinearFlow(error=0.5)):
        torch.testing.assert_close(pair.u_target, LinearFlow().velocity(pair.x_t, pair.t, pair.r, {}))


def test_the_predictor_leads_between_the_full_steps_of_cached_runs_only(features):
    apart = {}
    for kind in KINDS:
        pairs, exact = (drawn(only(kind), 20, features, LinearFlow(error)) for error in (0.5, 0.0))
        apart[kind] = sum(not torch.allclose(a.x_t, b.x_t) for a, b in zip(pairs, exact, strict=True)) / len(pairs)
    assert apart["line"] == apart["trajectory"] == 0
    assert apart["cached"] > 0.8, "all but those to which full steps alone led"


def test_a_batch_gives_the_pairs_of_its_samples_by_as_many_passes_as_any_of_them_alone(features):
    shares, count, full_steps = PairSettings(line=0.25, trajectory=0.25, cached=0.5), 12, 3
    flow, settings = LinearFlow(0.1), {"full_steps": full_steps}
    draws = Draws(0, torch.arange(count), CPU)
    batch = list(pairs_of(shares, flow, features, **settings).draw(torch.zeros(count, *SHAPE[1:]), draws, {}))
    passes = {len(flow.asked) // count}
    for number in range(count):
        flow, alone = LinearFlow(0.1), Draws(0, torch.tensor([number]), CPU)
        pairs = pairs_of(shares, flow, features, **settings).draw(torch.zeros(SHAPE), alone, {})
        for one, many in zip(pairs, batch, strict=True):
            for a, b in zip(tensors(one), tensors(many), strict=True):
                torch.testing.assert_close(a[0], b[number])
        passes.add(len(flow.asked))
    assert passes == {sum(shares.passes(full_steps, features))}


def test_kinds_of_pairs_come_in_the_shares_that_the_settings_name(features):
    shares, count, flow = PairSettings(line=0.125, trajectory=0.25, cached=0.625), 600, LinearFlow()
    pairs = drawn(shares, count, features, flow, full_steps=1)
    on_line = [all(torch.allclose(x * pair.t, pair.x_t * t, rtol=1e-4) for x, t in states(pair)) for pair in pairs]
    network, led = shares.passes(1, features)
    assert sum(on_line) / count == pytest.approx(shares.line / shares.total, abs=0.04)
    assert flow.led / count == led and (len(flow.asked) - flow.led) / count == network
