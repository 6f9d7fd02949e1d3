"""LESA's training on a flow whose outputs are known, and on the smallest toy network to the file that loads."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import small_networks
import torch

from disca.meanflow import shifted_sigmas
from disca.methods.scheduled.lesa import LesaNetwork
from disca.models.loading import load_lesa
from disca.training.algorithms.lesa_training import LesaTraining
from disca.training.budget.memory import Savings, job_of_run, operations, peak
from disca.training.budget.sizes import PUBLISHED
from disca.training.choose import chosen
from disca.training.contract.method_settings import LesaSettings
from disca.training.contract.settings import (
    DataSettings,
    ModelSettings,
    OptimiserSettings,
    PreviewSettings,
    SaveSettings,
    Settings,
)
from disca.training.engine.loop import train
from disca.training.records.log import read_log
from disca.training.records.run_folder import RunFolder

CPU = torch.device("cpu")
STEPS, ANCHORS = 6, "0-1 4"
SIGMAS = shifted_sigmas(STEPS, 1.0).tolist()


class Flow:
    """A network that answers with the square of its time, whatever goes in; notes when it was asked, and of what."""

    def __init__(self, meanflow: bool = True):
        self.asked: list[tuple[float, float | None]] = []
        self.seen: list[torch.Tensor] = []
        self.module = SimpleNamespace(params=SimpleNamespace(guidance_embed=False, meanflow=meanflow))

    def velocity(self, x_t, t, r, condition):
        self.asked.append((round(t[0].item(), 3), None if r is None else round(r[0].item(), 3)))
        self.seen.append(x_t)
        return (t**2).view(-1, 1, 1, 1, 1).expand_as(x_t)


class Samples:
    """Prompts with latents of several shapes."""

    fingerprint = "samples"
    shapes = ((1, 1, 2, 2), (1, 1, 2, 4))

    def __len__(self):
        return 5

    def __getitem__(self, i):
        return {"latent": torch.full(self.shapes[i % 2], float(i)), "context": torch.zeros(1, 1)}


def settings(tmp_path, path: str = "", **changes) -> Settings:
    lesa = {"steps": STEPS, "shift": 1.0, "anchors": ANCHORS, "hidden": 4, "runs": 4, "guided_iterations": 2}
    return Settings(
        "lesa",
        str(tmp_path / "run"),
        DataSettings("toy://shapes", batch=2),
        ModelSettings(path=path, toy="" if path else "tiny", dtype="fp32"),
        optimizer=OptimiserSettings(lr=1e-2, ema=0.0),
        save=SaveSettings(every=100),
        preview=PreviewSettings(every=100, seeds=(0,)),
        lesa=LesaSettings(**({"closed_iterations": 2} | lesa | changes)),
        device="cpu",
    )


def training(tmp_path, network=None, **changes) -> LesaTraining:
    return LesaTraining(settings(tmp_path, **changes), Samples(), CPU, network or Flow())


def batch(*positions: int) -> dict:
    return {"index": torch.tensor(positions)}


def losses(made: LesaTraining, *positions: int, closed: bool):
    return [*made.losses(batch(*positions), made.settings.lesa.guided_iterations if closed else 0)]


def test_before_training_the_errors_are_those_of_the_last_output_that_the_stage_has(tmp_path):
    """Guided: of the step before, always the full run's. Closed: of the last step in full."""
    squares = [t**2 for t in SIGMAS]
    for closed, before in ((False, {2: 1, 3: 2, 5: 4}), (True, {2: 1, 3: 1, 5: 4})):
        found = losses(training(tmp_path), 0, 2, closed=closed)
        for loss, (step, last) in zip(found, before.items(), strict=True):
            assert loss.name == "experts"
            torch.testing.assert_close(loss.t, torch.full((2,), SIGMAS[step]))
            torch.testing.assert_close(loss.value, torch.full((2,), squares[last] - squares[step]))


def test_the_second_stage_continues_its_own_answers(tmp_path):
    """With α·b = 1 each answer is 1 more than the last: two in a row are off by what the first was, and 1."""
    made = training(tmp_path)
    for kan, layer in zip(made.experts.timestep, made.experts.latent, strict=True):
        kan.layers[-1].base_weight.data.zero_()
        kan.layers[-1].spline_scaler.data.fill_(1.0)
        kan.layers[-1].spline_weight.data.fill_(1.0 / 4)  # of as many edges
        layer.bias.data.fill_(1.0)
    squares = [t**2 for t in SIGMAS]
    expected = {False: squares[2] + 1 - squares[3], True: squares[1] + 2 - squares[3]}
    for closed, value in expected.items():
        second = losses(made, 0, closed=closed)[1].value
        torch.testing.assert_close(second, torch.full((1,), value), atol=1e-4, rtol=0)


def test_a_closed_run_asks_the_network_where_its_own_answers_led(tmp_path):
    network = Flow()
    made = training(tmp_path, network)
    losses(made, 0, closed=False)
    full = [(round(t, 3), round(r, 3)) for t, r in zip(SIGMAS[:-1], SIGMAS[1:], strict=True)]
    losses(made, 0, closed=False)
    assert network.asked == full  # its run is kept
    losses(made, 0, closed=True)
    assert network.asked[len(full) :] == [full[4]]  # the anchors before are the full run's
    u = [t**2 for t in SIGMAS]
    led = network.seen[0] - sum(u[min(step, 1)] for step in range(4)) / STEPS
    torch.testing.assert_close(network.seen[-1], led)


def test_a_network_without_meanflow_is_told_no_r(tmp_path):
    network = Flow(meanflow=False)
    losses(training(tmp_path, network), 0, closed=True)
    assert {r for _, r in network.asked} == {None}


def test_losses_stand_in_the_order_of_their_samples_whatever_their_shapes(tmp_path):
    """Runs of one number are one run, in any batch."""
    made = training(tmp_path, ByNoise())
    alone = {number: [loss.value for loss in losses(made, number, closed=True)] for number in range(4)}
    together = losses(training(tmp_path, ByNoise()), 3, 0, 5, 2, closed=True)  # 5 is run 1 of 4
    for step, loss in enumerate(together):
        torch.testing.assert_close(loss.value, torch.cat([alone[number][step] for number in (3, 0, 1, 2)]))


class ByNoise(Flow):
    """Its outputs differ from sample to sample."""

    def velocity(self, x_t, t, r, condition):
        return super().velocity(x_t, t, r, condition) * x_t


def test_gradients_reach_the_experts_only_and_lower_the_loss(tmp_path):
    made = training(tmp_path)
    optimiser = torch.optim.AdamW(made.experts.parameters(), lr=1e-2)
    sums = []
    for _ in range(30):
        optimiser.zero_grad()
        sums.append(0.0)
        for loss in losses(made, 0, 1, closed=True):
            loss.value.sum().backward()
            sums[-1] += loss.value.sum().item()
        optimiser.step()
    assert sums[-1] < 0.5 * sums[0]


def test_a_run_exports_what_loads_as_it_was_trained(tmp_path):
    with small_networks.training_mode():
        path = toy_model(tmp_path)
        run = settings(tmp_path, path)
        export = train(run, chosen)
    patcher, spec = load_lesa(str(export / "lesa.safetensors"))
    assert (spec.steps, spec.hidden, spec.shift, spec.anchors) == (STEPS, 4, 1.0, (0, 1, 4))
    assert spec.base_model == "model.safetensors" and spec.training["runs"] == 4
    torch.manual_seed(run.seed)
    new = LesaNetwork(STEPS, 4).state_dict()
    trained = patcher.model.state_dict()
    moved = {key for key in new if not torch.equal(new[key], trained[key])}
    assert {key for key in new if not key.startswith(("latent.0", "timestep.0")) and "grid" not in key} >= moved
    assert "latent.1.weight" in moved and "latent.2.weight" in moved
    log = read_log(RunFolder(tmp_path / "run"))
    assert len(log) == 4 and all(line["loss"]["experts"] > 0 for line in log)


def toy_model(tmp_path) -> str:
    """A small toy network of its own in a file, whose outputs are not zero."""
    from disca.toy.network import new_network
    from disca.training.network.export import export_network

    network = new_network("tiny", 0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if not weight.any() and weight.ndim > 1:
                weight.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    export_network(tmp_path, network, {}, Settings("flow", str(tmp_path), DataSettings("toy://shapes")))
    return str(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"anchors": "0 7"}, "asks for step 7 in full, but the run has 6 steps"),
        ({"anchors": "1 2"}, "starts at step 1"),
        ({"guided_iterations": 0, "closed_iterations": 0}, "are both 0"),
        ({"steps": 1}, "'steps' is 1, but must be at least 2"),
        ({"shift": 0.0}, "'shift' is 0.0, but must be at least 0.01"),
    ],
)
def test_settings_that_no_run_could_have_are_refused(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        settings(tmp_path, **changes)


def test_a_plan_that_leaves_nothing_out_is_refused(tmp_path):
    with pytest.raises(ValueError, match="All of the 6 steps run in full"):
        training(tmp_path, anchors="0-5")


def test_the_papers_settings_are_a_preset():
    paper = LesaSettings(preset="paper")
    assert (paper.steps, paper.shift, paper.hidden, paper.interval) == (50, 7.0, 256, 7)
    assert paper.weights == pytest.approx(3 * 788_480, rel=1e-2)


def test_what_a_run_needs_is_the_frozen_network_and_its_passes(tmp_path):
    run, sizes = settings(tmp_path, runs=1, guided_iterations=10, closed_iterations=0), PUBLISHED["1.0"]
    job = job_of_run(run)
    assert operations(sizes, job) == pytest.approx(sum(sizes.forward()) * STEPS / 10)
    needs = peak(sizes, job, Savings())
    assert needs["trained weights"] < 1e6 < needs["frozen weights"]
    assert sum(peak(sizes, job, replace(Savings(), swap=20)).values()) < sum(needs.values())
