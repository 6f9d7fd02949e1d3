"""The trainings on the smallest toy network: what is trained, what is not, and what comes out."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import small_networks
import torch
from PIL import Image

from disca.models.loading import load_network
from disca.toy.dataset import ToyDataset
from disca.toy.network import new_network
from disca.training.algorithms.flow_matching import SHIFT
from disca.training.algorithms.losses import ADAPTIVE_C, mse
from disca.training.choose import chosen, make_training
from disca.training.contract.method_settings import CfgSettings, MeanFlowSettings, PairSettings, PredictorSettings
from disca.training.contract.settings import (
    DataSettings,
    LoraSettings,
    ModelSettings,
    OptimiserSettings,
    PreviewSettings,
    SaveSettings,
    Settings,
)
from disca.training.contract.times import Draws
from disca.training.contract.yaml_settings import read_settings
from disca.training.data.dataset import DatasetWriter, collate, open_dataset
from disca.training.engine.loop import train
from disca.training.network.conditions import guided_condition
from disca.training.network.export import export_network
from disca.training.network.roles import add_embedder, new_predictor, predictor_spec
from disca.training.toy_chain import PACK
from disca.training.toy_weights import SUMS, sha256, ship
from disca.weights.files import open_weights
from disca.weights.predictor_file import read_predictor, write_predictor

CPU = torch.device("cpu")
KINDS = ("line", "trajectory", "cached")
FORMS = ("two", "residual", "authors")
PAIRS = 2  # of a sample


@pytest.fixture(autouse=True)
def _training():
    with small_networks.training_mode():
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of a base model, one told its guidance, and one with MeanFlow, whose outputs are not zero."""
    folder = tmp_path_factory.mktemp("toys")
    network = new_network("tiny", 0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if not weight.any() and weight.ndim > 1:
                weight.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    found = {}
    for name, embedder in (("base", None), ("cfg", "guidance_in"), ("meanflow", "time_r_in")):
        if embedder:
            add_embedder(network, embedder)
        if embedder == "time_r_in":
            torch.nn.init.normal_(network.time_r_in.out_layer.weight, std=0.1)
        place = folder / name
        place.mkdir()
        export_network(place, network, {}, Settings("flow", str(place), DataSettings("toy://shapes")))
        found[name] = str(place / "model.safetensors")
    return found


def settings(tmp_path, algorithm: str, path: str, **changes) -> Settings:
    """A run of two iterations."""
    given = {
        "data": DataSettings("toy://shapes", batch=2),
        "model": ModelSettings(path=path, dtype="fp32"),
        "optimizer": OptimiserSettings(lr=1e-3, ema=0.5),
        "save": SaveSettings(every=2),
        "preview": PreviewSettings(every=2, steps=2),
        "iterations": 2,
        "device": "cpu",
    }
    return Settings(algorithm=algorithm, out=str(tmp_path / algorithm), **(given | changes))


def batch(samples: int = 2) -> dict:
    """Samples of the toy world."""
    dataset = ToyDataset()
    return collate([dataset[i] for i in range(samples)], list(range(samples)))[0]


def predictor_settings(**changes) -> PredictorSettings:
    return PredictorSettings(**({"mse_iterations": 1, "gan_iterations": 1, "full_steps": PAIRS} | changes))


def test_the_whole_chain_runs_from_nothing_to_a_predictor(tmp_path):
    new = settings(tmp_path, "flow", "", model=ModelSettings(toy="tiny", dtype="fp32"))
    model = train(new, chosen) / "model.safetensors"
    for algorithm in ("cfg", "meanflow"):
        model = train(settings(tmp_path, algorithm, str(model)), chosen) / "model.safetensors"
    network = load_network(str(model), torch.float32)
    assert network.params.guidance_embed and network.params.meanflow
    made = train(settings(tmp_path, "predictor", str(model), predictor=predictor_settings()), chosen)
    spec, _ = read_predictor(open_weights(str(made / "predictor.safetensors")))
    assert (spec.family, spec.width, spec.residual) == ("1.0", 128, True)
    for algorithm in ("flow", "cfg", "meanflow", "predictor"):
        with Image.open(tmp_path / algorithm / "previews" / "step-000002.png") as picture:
            assert picture.height > 100 and picture.convert("L").getextrema()[1] > 0
    check_shipped(tmp_path / "shipped", {"meanflow": model, "predictor": made / "predictor.safetensors"})


def check_shipped(folder: Path, results: dict[str, Path]) -> None:
    """That what would be shipped, a stage at a time, loads, is half as large, and has the hashes that are told."""
    for stage, path in results.items():
        ship({stage: path}, folder)
    assert load_network(str(folder / "meanflow.safetensors"), torch.float32).params.meanflow
    assert read_predictor(open_weights(str(folder / "predictor.safetensors")))[0].residual
    for stage, path in results.items():
        assert (folder / f"{stage}.safetensors").stat().st_size < 0.6 * path.stat().st_size
        assert (folder / f"{stage}-curves.png").exists() and (folder / f"{stage}-preview.png").exists()
    sums = [line.split() for line in (folder / SUMS).read_text().splitlines()]
    assert sums == [[sha256(folder / name), name] for name in ("meanflow.safetensors", "predictor.safetensors")]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["iteration"]) for line in lines[:2]] == [("meanflow", 1), ("meanflow", 2)]
    assert {line["stage"] for line in lines[2:]} == {"predictor"}


@pytest.mark.parametrize(("algorithm", "start"), [("cfg", "base"), ("meanflow", "cfg"), ("predictor", "meanflow")])
def test_a_dataset_of_several_sizes_and_lengths_trains(tmp_path, files, algorithm, start):
    world = ToyDataset()
    with DatasetWriter(str(tmp_path / "data"), world.encoder, world.family, world.null) as writer:
        for number, (frames, height, width) in enumerate([(1, 8, 8), (2, 8, 6), (2, 6, 8), (3, 4, 4)]):
            cut = world[number]["latent"][:, :1, :1, :1].expand(-1, frames, height, width).contiguous()
            writer.add(f"item-{number}", world[number] | {"latent": cut})
    run = settings(
        tmp_path, algorithm, files[start], data=DataSettings(str(tmp_path / "data"), batch=4),
        predictor=predictor_settings(),
    )  # fmt: skip
    made = train(run, chosen)
    lines = [json.loads(line) for line in (tmp_path / algorithm / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2] and all(map(math.isfinite, lines[-1]["loss"].values()))
    assert any(made.glob("*.safetensors")) and (tmp_path / algorithm / "previews" / "step-000002.png").exists()


@pytest.mark.parametrize("algorithm", ["cfg", "meanflow"])
def test_a_lora_run_leaves_its_base_as_it_was(tmp_path, files, algorithm):
    path = files["base" if algorithm == "cfg" else "cfg"]
    run = settings(tmp_path, algorithm, path, lora=LoraSettings(rank=2))
    training = make_training(run, ToyDataset(), CPU)
    before = {name: weight.clone() for name, weight in training.networks.student.module.state_dict().items()}
    made = train(run, lambda settings, processes: (training, ToyDataset()))
    assert (made / "lora.safetensors").stat().st_size > 0
    after = training.networks.student.module.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(
        ".adapter." in name or name.split(".")[0] in training.networks.lora.originals for name in moved
    )


@pytest.mark.parametrize("lora", [LoraSettings(), LoraSettings(rank=2)], ids=["all weights", "LoRA"])
@pytest.mark.parametrize(
    ("algorithm", "start"),
    [("cfg", "base"), ("cfg", "cfg"), ("meanflow", "cfg"), ("meanflow", "meanflow")],
    ids=["cfg", "cfg of a model that is told its guidance", "meanflow", "meanflow of a MeanFlow model"],
)
def test_before_training_student_and_teacher_are_one(tmp_path, files, algorithm, start, lora):
    """CFG at g = 1 and MeanFlow at r = t ask for what the teacher answers, whatever it is told itself."""
    training = make_training(settings(tmp_path, algorithm, files[start], lora=lora), ToyDataset(), CPU)
    told = {name: value for name, value in batch().items() if name in ("context", "y")}
    x, t = batch()["latent"], torch.tensor([0.3, 0.8])
    extra = {"guidance": torch.ones(2)}
    with torch.no_grad():
        student = training.networks.student.velocity(x, t, t if algorithm == "meanflow" else None, told | extra)
        teacher = training.networks.teacher(x, t, told if algorithm == "cfg" else told | extra)
    torch.testing.assert_close(student, teacher)


def test_a_new_student_misses_the_guided_velocity_by_what_guidance_adds(tmp_path, files):
    """(g - 1)^2 of what the prompt changes: nothing at 1, four times as much at 5 as at 3."""
    values = []
    for scale in (1.0, 3.0, 5.0):
        run = settings(tmp_path, "cfg", files["base"], cfg=CfgSettings(guidance=(scale, scale)))
        values.append(next(make_training(run, ToyDataset(), CPU).losses(batch(), 0)).value.detach())
    assert values[0].max() < 1e-9 and values[1].min() > 1e-6
    torch.testing.assert_close(values[2], 4.0 * values[1], rtol=1e-3, atol=0.0)


def test_before_training_samples_with_r_at_t_have_no_meanflow_loss_and_others_have(tmp_path, files):
    def values(**meanflow) -> torch.Tensor:
        run = settings(tmp_path, "meanflow", files["cfg"], meanflow=MeanFlowSettings(**meanflow))
        return next(make_training(run, ToyDataset(), CPU).losses(batch(4), 0)).value.detach()

    assert values(share_r_equals_t=1.0).max() < 1e-9
    assert values(share_r_equals_t=0.0).min() > 1e-6
    assert values(share_r_equals_t=0.0, R=0.0).max() < 1e-9


def test_dual_numbers_and_differences_give_one_meanflow_loss_and_the_cap_is_heeded(tmp_path, files):
    def loss(**meanflow):
        chosen = MeanFlowSettings(share_r_equals_t=0.0, **({"cap": 0.0} | meanflow))
        run = settings(tmp_path, "meanflow", files["cfg"], meanflow=chosen)
        return next(make_training(run, ToyDataset(), CPU).losses(batch(3), 0))

    dual, near, far = loss(derivative="dual"), loss(h=1e-4), loss(h=0.02)
    torch.testing.assert_close(near.value, dual.value, rtol=0.05, atol=0.0)
    assert (far.value - dual.value).norm() > 2.0 * (near.value - dual.value).norm()
    capped = loss(derivative="dual", cap=1e-6)
    assert (dual.extra["capped"], capped.extra["capped"]) == (0.0, 1.0)
    assert (capped.value < 0.1 * dual.value).all()


@pytest.mark.parametrize("algorithm", ["meanflow", "predictor"])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_samples_are_weighed_by_their_errors_as_the_settings_ask(tmp_path, files, algorithm, power):
    path = files["cfg" if algorithm == "meanflow" else "meanflow"]
    changes = {
        "meanflow": MeanFlowSettings(adaptive=power, share_r_equals_t=0.0),
        "predictor": predictor_settings(adaptive=power, start="random"),
    }
    training = make_training(settings(tmp_path, algorithm, path, **changes), ToyDataset(), CPU)
    for iteration in (0, 1):
        loss = next(training.losses(batch(), iteration))
        error = next(training.losses(batch(), 0)).value.detach()
        expected = 1.0 / (error + ADAPTIVE_C) if power else torch.ones(2)
        shared = PAIRS if algorithm == "predictor" else 1
        torch.testing.assert_close(torch.as_tensor(loss.weight).expand(2), expected / shared)


@pytest.mark.parametrize(("algorithm", "start"), [("cfg", "base"), ("meanflow", "cfg"), ("predictor", "meanflow")])
def test_a_batch_trains_as_its_samples_do_one_by_one(tmp_path, files, algorithm, start):
    """Pairs of all kinds and the discriminator among it: batch and number of processes change nothing."""
    mixed = PairSettings(line=0.3, trajectory=0.3, cached=0.4)
    changes = {"predictor": predictor_settings(mse_iterations=0, start="random", pairs=mixed)}
    changes["meanflow"] = MeanFlowSettings(derivative="dual")  # a difference makes much of the last digits
    run = settings(tmp_path, algorithm, files[start], **changes)
    training, dataset = make_training(run, ToyDataset(), CPU), ToyDataset()

    def trained(numbers: list[int]) -> list[torch.Tensor]:
        samples = collate([dataset[i] for i in numbers], numbers)[0]
        losses = list(training.losses(samples, 5))
        for part in training.parts.values():
            part.module.zero_grad()
        sum((loss.value * loss.weight).sum() for loss in losses).backward()
        modules = [part.module for part in training.parts.values()]
        values = [loss.value.detach() for loss in losses]
        return [*values, *(p.grad.clone() for m in modules for p in m.parameters() if p.grad is not None)]

    together, apart = trained([0, 1, 2, 3]), [trained([i]) for i in range(4)]
    count = 2 * PAIRS if algorithm == "predictor" else 1
    for place, whole in enumerate(together):
        parts = [one[place] for one in apart]
        expected = torch.cat(parts) if place < count else sum(parts)
        assert (whole - expected).norm() <= 1e-4 * expected.norm() + 1e-7


def test_flow_matching_tells_the_captions_at_times_that_lean_to_noise(tmp_path):
    run = settings(tmp_path, "flow", "", model=ModelSettings(toy="tiny", dtype="fp32"))
    many = collate([ToyDataset()[i] for i in range(4)] * 100, list(range(400)))[0]
    training = make_training(run, ToyDataset(), CPU)
    seen = []
    training.network.velocity = lambda x_t, t, r, condition: seen.append((t, condition)) or x_t
    next(training.losses(many, 0))
    ((t, condition),) = seen
    assert all(torch.equal(condition[name], many[name]) for name in condition)
    assert t.median().item() == pytest.approx(SHIFT / (1.0 + SHIFT), abs=0.05)


def test_the_toys_base_model_learns_from_empty_captions_too():
    assert read_settings(PACK / "training" / "toy" / "base.yaml").data.caption_dropout == 0.1


@pytest.mark.parametrize(
    ("algorithm", "path", "rank", "rates"),
    [
        ("flow", "base", 0, [1e-4]),
        ("cfg", "base", 0, [1e-5]),
        ("cfg", "base", 2, [5e-5]),
        ("meanflow", "cfg", 2, [5e-5]),
        ("predictor", "meanflow", 0, [1e-4, 0.03]),
    ],
)
def test_each_training_has_learning_rates_of_its_own(tmp_path, files, algorithm, path, rank, rates):
    predictor, lora = predictor_settings(lr_discriminator=0.03), LoraSettings(rank=rank)
    open_rate = OptimiserSettings(lr=0.0, ema=0.0)
    run = settings(tmp_path, algorithm, files[path], predictor=predictor, lora=lora, optimizer=open_rate)
    training = make_training(run, ToyDataset(), CPU)
    assert [part.optimiser.lr for part in training.parts.values()] == rates


def test_the_discriminator_moves_without_momentum(tmp_path, files):
    run = settings(tmp_path, "predictor", files["meanflow"], predictor=predictor_settings())
    parts = make_training(run, ToyDataset(), CPU).parts
    assert parts["discriminator"].optimiser.betas == (0.0, 0.999)
    assert parts["predictor"].optimiser == run.optimizer


def test_the_predictor_and_the_discriminator_get_their_own_gradients_only(tmp_path, files):
    run = settings(tmp_path, "predictor", files["meanflow"], predictor=predictor_settings(mse_iterations=0))
    training = make_training(run, ToyDataset(), CPU)
    grown = []
    for loss in training.losses(batch(), iteration=5):
        loss.value.sum().backward()
        grown.append((loss.name, {name for name, part in training.parts.items() if _has_gradient(part.module)}))
        for part in training.parts.values():
            part.module.zero_grad()
    assert grown == [("predictor", {"predictor"}), ("discriminator", {"discriminator"})] * PAIRS
    assert not _has_gradient(training.network.module)


def test_the_adversarial_gradient_is_held_down_to_that_of_the_squared_error(tmp_path, files):
    loud = predictor_settings(mse_iterations=0, gan_weight=1.0, start="random")
    run = settings(tmp_path, "predictor", files["meanflow"], predictor=loud)
    training = make_training(run, ToyDataset(), CPU)
    for head in training.discriminator.heads:
        torch.nn.init.normal_(head.out.weight, std=1e3)
        head.out.bias.data.fill_(-1e6)  # the hinge acts
    samples = batch()
    told = {name: samples[name] for name in ("context", "y")}
    pair = next(training.pairs.draw(samples["latent"], Draws(0, samples["index"], CPU), told))
    u = (pair.u_target + 0.1).requires_grad_(True)
    adversarial, share, _ = training._adversarial(u, pair, told)
    squared, capped = (torch.autograd.grad(term.sum(), u)[0] for term in (mse(u, pair.u_target), adversarial))
    assert share > 1.0
    torch.testing.assert_close(capped.norm(), squared.norm())


def test_a_pair_without_a_step_is_no_sample_for_the_discriminator_nor_for_what_it_asks(tmp_path, files):
    run = settings(tmp_path, "predictor", files["meanflow"], predictor=predictor_settings(start="random"))
    training = make_training(run, ToyDataset(), CPU)
    samples = batch()
    told = {name: samples[name] for name in ("context", "y")}
    pair = next(training.pairs.draw(samples["latent"], Draws(0, samples["index"], CPU), told))
    pair = pair._replace(r=torch.stack([pair.t[0], pair.t[1] - 0.05]))
    u = (pair.u_target + 0.1).requires_grad_(True)
    adversarial, _, fake = training._adversarial(u, pair, told)
    judged = training._discriminator_loss(fake, pair, told).value
    (gradient,) = torch.autograd.grad(adversarial.sum(), u)
    for empty, step in (adversarial, judged, gradient):
        assert not empty.any() and step.any()


def test_the_discriminators_gradient_is_held_down_as_the_settings_ask(tmp_path, files):
    def pulled(**changes):
        chosen = predictor_settings(start="random", **changes)
        run = settings(tmp_path, "predictor", files["meanflow"], predictor=chosen)
        torch.manual_seed(0)  # the discriminator's weights
        training = make_training(run, ToyDataset(), CPU)
        told = guided_condition(batch(), training.network, Draws(0, batch()["index"], CPU), (1.0, 5.0))
        pair = next(training.pairs.draw(batch()["latent"], Draws(0, batch()["index"], CPU), told))
        u = (pair.u_target + 0.1).requires_grad_(True)
        adversarial, share, _ = training._adversarial(u, pair, told)
        (gradient,) = torch.autograd.grad(adversarial.sum(), u)
        squared = 0.2 * torch.ones_like(u) / u[0].numel()
        return gradient.flatten(1).norm(dim=1) / squared.flatten(1).norm(dim=1), share

    whole, share = pulled(gan_cap=0.0)
    assert whole.mean().item() == pytest.approx(share, rel=1e-3)
    limit = 0.5 * whole.min().item()
    torch.testing.assert_close(pulled(gan_cap=limit)[0], torch.full_like(whole, limit), rtol=1e-3, atol=0.0)
    assert torch.equal(pulled(gan_cap=2.0 * whole.max().item())[0], whole)


def test_h_is_by_what_is_computed_in_where_none_is_given():
    own, given = MeanFlowSettings(), MeanFlowSettings(h=0.02)
    assert (own.distance("fp32"), own.distance("bf16"), given.distance("bf16")) == (0.01, 0.05, 0.02)
    with pytest.raises(ValueError, match="h is below 1e-4"):
        MeanFlowSettings(h=1e-7)


def test_the_adversarial_term_comes_in_evenly_over_its_ramp(tmp_path, files):
    ramp = 20
    chosen = predictor_settings(mse_iterations=7, gan_weight=0.6, gan_ramp=ramp, start="random")
    training = make_training(settings(tmp_path, "predictor", files["meanflow"], predictor=chosen), ToyDataset(), CPU)

    def value(iteration: int) -> torch.Tensor:
        return next(training.losses(batch(), iteration)).value.detach()

    alone, whole = value(6), value(7 + ramp)
    for done in (1, ramp // 2, ramp):
        torch.testing.assert_close(value(6 + done) - alone, (whole - alone) * done / ramp)
    samples = batch()
    draws = Draws(0, samples["index"], CPU)
    told = guided_condition(samples, training.network, draws, training.settings.cfg.guidance)
    pair = next(training.pairs.draw(samples["latent"], draws, told))
    with torch.no_grad():
        u = training._predicted(pair, told)
    torch.testing.assert_close(whole - alone, 0.6 * training._adversarial(u, pair, told)[0].detach())
    assert (whole > alone).all()


def test_a_quiet_adversarial_gradient_stays_as_it_is(tmp_path, files):
    quiet = predictor_settings(mse_iterations=0, start="random")
    training = make_training(settings(tmp_path, "predictor", files["meanflow"], predictor=quiet), ToyDataset(), CPU)
    samples = batch()
    told = {name: samples[name] for name in ("context", "y")}
    pair = next(training.pairs.draw(samples["latent"], Draws(0, samples["index"], CPU), told))
    u = (pair.u_target + 5.0).requires_grad_(True)
    adversarial, share, fake = training._adversarial(u, pair, told)
    squared, kept = (torch.autograd.grad(term.sum(), u)[0] for term in (mse(u, pair.u_target), adversarial))
    assert 0.0 < share < 1.0
    kept, squared = (gradient.flatten(1).norm(dim=1) for gradient in (kept, squared))
    assert (kept / squared).mean().item() == pytest.approx(share, rel=1e-5)


def test_the_discriminators_accuracy_is_the_share_of_what_it_judges_rightly(tmp_path, files):
    chosen = predictor_settings(mse_iterations=0)
    training = make_training(settings(tmp_path, "predictor", files["meanflow"], predictor=chosen), ToyDataset(), CPU)
    samples = batch()
    told = {name: samples[name] for name in ("context", "y")}
    pair = next(training.pairs.draw(samples["latent"], Draws(0, samples["index"], CPU), told))
    _, _, fake = training._adversarial(pair.u_target + 0.1, pair, told)
    for predicted, target, expected in (((-1.0, -2.0), (3.0, 0.5), 1.0), ((-1.0, -2.0), (3.0, -0.5), 0.75)):
        answers = iter([torch.tensor(predicted), torch.tensor(target)])
        training.discriminator.forward = lambda *_, answers=answers: next(answers)
        assert training._discriminator_loss(fake, pair, told).extra == {"accuracy": expected}


@pytest.mark.parametrize("form", FORMS)
def test_a_new_predictor_starts_as_a_copy_of_the_cache(tmp_path, files, form):
    run = settings(tmp_path, "predictor", files["meanflow"], predictor=predictor_settings(form=form))
    network = load_network(files["meanflow"], torch.float32)
    predictor = new_predictor(predictor_spec(network, run), run.predictor, run.seed, CPU)
    tokens, cached = torch.randn(2, 1, 12, 128)
    with torch.no_grad():
        features = predictor(tokens, cached, **passed(form))
    apart = (features - cached).norm() / cached.norm()
    assert apart < 0.1 if form == "authors" else apart == 0.0


def passed(form: str) -> dict:
    """What a Predictor of that form is given besides tokens and features."""
    more = {"before": [torch.randn(1, 12, 128)], "times": torch.tensor([[0.5, 0.1, 0.2]])} if form == "two" else {}
    return {"vec": torch.randn(1, 128), "pe": torch.eye(2).expand(1, 1, 12, 64, 2, 2), **more}


@pytest.mark.parametrize("form", ["residual", "authors"])
def test_a_predictor_of_two_features_starts_as_the_one_of_one_that_it_goes_on_from(tmp_path, files, form):
    earlier = settings(
        tmp_path, "predictor", files["meanflow"], predictor=predictor_settings(form=form, start="random")
    )
    network = load_network(files["meanflow"], torch.float32)
    spec = predictor_spec(network, earlier)
    one = new_predictor(spec, earlier.predictor, earlier.seed, CPU)
    path = str(tmp_path / "one.safetensors")
    write_predictor(path, spec, one.state_dict())
    later = settings(tmp_path, "predictor", files["meanflow"], predictor=predictor_settings(form="two", path=path))
    two = new_predictor(predictor_spec(network, later), later.predictor, later.seed, CPU)
    tokens, cached = torch.randn(2, 1, 12, 128)
    given = passed("two")
    with torch.no_grad():
        expected = one(tokens, cached, vec=given["vec"], pe=given["pe"])
        assert torch.equal(two(tokens, cached, **given), expected)


def test_a_predictor_of_two_features_is_not_trained_on_as_one_of_one(tmp_path, files):
    two = settings(tmp_path, "predictor", files["meanflow"], predictor=predictor_settings(form="two"))
    spec = predictor_spec(load_network(files["meanflow"], torch.float32), two)
    path = str(tmp_path / "two.safetensors")
    write_predictor(path, spec, new_predictor(spec, two.predictor, two.seed, CPU).state_dict())
    one = predictor_settings(form="residual", path=path)
    with pytest.raises(
        ValueError, match="a Predictor of two features, but predictor.form asks for one. Set it to 'two'"
    ):
        make_training(settings(tmp_path, "predictor", files["meanflow"], predictor=one), ToyDataset(), CPU)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_learns_from_every_kind_of_pair(tmp_path, files, form, kind):
    shares = PairSettings(**{name: float(name == kind) for name in KINDS})
    chosen = predictor_settings(form=form, pairs=shares, mse_iterations=12, gan_iterations=0)
    run = settings(tmp_path, "predictor", files["meanflow"], predictor=chosen, preview=PreviewSettings())
    training = make_training(run, ToyDataset(), CPU)

    def error() -> float:
        with torch.no_grad():
            return sum(loss.value.mean().item() for loss in training.losses(batch(), 0))

    before = error()
    optimiser = torch.optim.AdamW(training.predictor.parameters(), lr=1e-4 if form == "authors" else 1e-3)
    for _ in range(12):
        optimiser.zero_grad()
        for loss in training.losses(batch(), 0):
            loss.value.mean().backward()
        optimiser.step()
    assert error() < 0.95 * before


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_take_as_many_passes_as_is_said(tmp_path, files, kind):
    chosen = predictor_settings(pairs=PairSettings(**{kind: 1.0}))
    training = make_training(settings(tmp_path, "predictor", files["meanflow"], predictor=chosen), ToyDataset(), CPU)
    passes = {"velocities": 0, "Predictor": 0}

    def count(name: str):
        return lambda *_: passes.__setitem__(name, passes[name] + 1)

    training.network.module.final_layer.register_forward_hook(count("velocities"))
    training.predictor.register_forward_hook(count("Predictor"))
    samples = batch(1)
    told = {name: samples[name] for name in ("context", "y")}
    draws = 60
    for i in range(draws):
        list(training.pairs.draw(samples["latent"], Draws(i, samples["index"], CPU), told))
    network, predictor = chosen.pairs.passes(PAIRS, chosen.features)
    full = passes["velocities"] - passes["Predictor"]
    assert full / draws == pytest.approx(network, abs=0.25)
    assert passes["Predictor"] / draws == pytest.approx(predictor, abs=0.25)


@pytest.mark.parametrize(("form", "version"), [("authors", "1"), ("residual", "2"), ("two", "3")])
def test_a_predictor_of_any_form_survives_its_file(tmp_path, files, form, version):
    run = settings(tmp_path, "predictor", files["meanflow"], predictor=predictor_settings(form=form))
    training = make_training(run, ToyDataset(), CPU)
    training.export(tmp_path, {})
    file = open_weights(str(tmp_path / "predictor.safetensors"))
    spec, state = read_predictor(file)
    assert spec == training.spec and (spec.residual, spec.features) == (form != "authors", 2 if form == "two" else 1)
    assert (file.metadata["disca.format_version"], file.metadata["disca.form"]) == (version, form)
    assert all(torch.equal(state[key], weight) for key, weight in training.predictor.state_dict().items())


def test_training_goes_on_from_a_predictor_file(tmp_path, files):
    run = settings(tmp_path, "predictor", files["meanflow"], predictor=predictor_settings(start="random"))
    first = make_training(run, ToyDataset(), CPU)
    first.export(tmp_path, {})
    more = replace(run.predictor, path=str(tmp_path / "predictor.safetensors"))
    second = make_training(replace(run, seed=9, predictor=more), ToyDataset(), CPU)
    for key, weight in first.predictor.state_dict().items():
        assert torch.equal(weight, second.predictor.state_dict()[key])


def test_a_predictor_of_another_shape_is_refused(tmp_path, files):
    run = settings(tmp_path, "predictor", files["meanflow"], predictor=predictor_settings())
    make_training(run, ToyDataset(), CPU).export(tmp_path, {})
    other = predictor_settings(path=str(tmp_path / "predictor.safetensors"), depth=3)
    with pytest.raises(ValueError, match="its depth is 2, but .* need 3"):
        make_training(replace(run, predictor=other), ToyDataset(), CPU)


def test_a_model_without_r_is_noticed_before_the_predictor_is_trained_on_it(tmp_path, files):
    run = settings(tmp_path, "predictor", files["meanflow"], predictor=predictor_settings())
    training = make_training(run, ToyDataset(), CPU)
    assert not any("WARNING" in line for line in training.probe(batch()))
    torch.nn.init.zeros_(training.network.module.time_r_in.out_layer.weight)
    assert any("r has no effect" in line for line in training.probe(batch()))


@pytest.mark.parametrize(
    "family, channels, width, told",
    [("1.5", 16, 32, "built for HunyuanVideo 1.5"), ("1.0", 32, 32, "32 latent channels"), ("1.0", 16, 64, "width 64")],
)
def test_a_dataset_of_another_model_is_refused(tmp_path, files, family, channels, width, told):
    with DatasetWriter(str(tmp_path / "data"), "encoder", family) as writer:
        writer.add("one", {"latent": torch.zeros(channels, 1, 4, 4), "context": torch.zeros(2, width)})
    run = settings(tmp_path, "meanflow", files["cfg"])
    with pytest.raises(ValueError, match=told):
        make_training(run, open_dataset(str(tmp_path / "data")), CPU)


def _has_gradient(module: torch.nn.Module) -> bool:
    return any(weight.grad is not None and weight.grad.any() for weight in module.parameters())
