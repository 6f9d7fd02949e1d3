"""Calibrating: what is measured is what the network does, and what a cache makes of it is what the law says."""

import gc
import json

import comfy.model_management
import graph
import pytest
import recipes
import torch
from PIL import Image

from disca.calibrate.__main__ import main
from disca.toy import WEIGHTS
from disca.toy.dataset import TOY, ToyDataset
from disca.toy.world import condition, random_scene

CASE = "hv10_t2v"
STEPS, SHIFT = 8, 5.0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where calibrations go."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    return tmp_path / "disca" / "calibrations"


@pytest.fixture
def calibrate(call, folder):
    """The report of DiscaCalibrate on a golden case's conditions, and what is in the file."""

    def run(model, method: str, case: str = CASE, **changes):
        inputs = {
            "positive": graph.conditioning(recipes.golden(case), model),
            "latent_image": graph.empty_latent(case),
            "seed": 7,
            "steps": STEPS,
            "shift": SHIFT,
            "name": "mine",
        }
        report, _ = call("DiscaCalibrate", model=model, method=method, **inputs | changes)
        return report, json.loads((folder / "mine.json").read_text())

    return run


@pytest.fixture
def cached(call):
    """The MODEL by DiscaApplyCache with settings of one's own."""

    def run(model, method: str, **settings):
        chosen = {"method": method, "preset": {"preset": "custom", **settings}}
        return call("DiscaApplyCache", model=model, method=chosen, cache_device="auto")[0]

    return run


MAGCACHE = {"threshold": 0.12, "most": 4, "retention": 0.2}


class Watched:
    """What hooks see of a run, without our code: the image tokens that enter and leave the blocks, and the answers."""

    def __init__(self, network, text: int):
        self.entering, self.leaving, self.read, self.answers = [], [], [], []
        first, last = network.double_blocks[0], (*network.double_blocks, *network.single_blocks)[-1]
        last_text = text if len(network.single_blocks) else 0

        def before(module, args, kwargs):
            self.entering.append((args[0] if args else kwargs["img"]).clone())

        def after(module, args, kwargs, out):
            tokens = out if isinstance(out, torch.Tensor) else out[0]
            self.leaving.append(tokens[:, last_text:].clone())

        self.hooks = [
            first.register_forward_pre_hook(before, with_kwargs=True),
            last.register_forward_hook(after, with_kwargs=True),
            first.img_attn.qkv.register_forward_pre_hook(lambda module, args: self.read.append(args[0].clone())),
            network.register_forward_hook(lambda module, args, out: self.answers.append(out.clone())),
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def watch(model, case: str, sample) -> Watched:
    """A plain run, seen by hooks."""
    conditions = graph.conditioning(recipes.golden(case), model)[0][0]
    with Watched(model.model.diffusion_model, conditions.shape[1]) as seen:
        sample(case, model)
    return seen


@pytest.mark.parametrize("case", recipes.CASES)
def test_the_ratios_are_those_of_the_residuals_that_hooks_see(case, load, sample, calibrate):
    model = load(case)[0]
    seen = watch(model, case, sample)
    lengths = [(out - into).norm(dim=-1) for into, out in zip(seen.entering, seen.leaving, strict=True)]
    wanted = [1.0] + [(now / before).mean().item() for before, now in zip(lengths, lengths[1:], strict=False)]
    _, found = calibrate(model, "MagCache", case)
    assert found["values"] == pytest.approx(wanted, rel=1e-4)


def change(now, before) -> float:
    return ((now - before).abs().sum() / before.abs().sum()).item()


@pytest.mark.parametrize("case", recipes.CASES)
def test_the_polynomial_is_fitted_to_changes_that_hooks_see(case, load, sample, pack, calibrate):
    model = load(case)[0]
    seen = watch(model, case, sample)
    pairs = [
        (change(seen.read[i], seen.read[i - 1]), change(seen.answers[i], seen.answers[i - 1])) for i in range(1, STEPS)
    ]
    _, found = calibrate(model, "TeaCache", case)
    wanted = pack("disca.methods.adaptive.calibration").fitted(pairs)
    for into, _ in pairs:
        powers = torch.tensor([into**power for power in (4, 3, 2, 1, 0)])
        ours, theirs = (powers @ torch.tensor(values) for values in (found["values"], wanted))
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-2)


def full_steps(network, run) -> list[int]:
    """The calls of the network in which its blocks ran."""
    calls = []
    hooks = [
        network.register_forward_pre_hook(lambda *_: calls.append(False)),
        network.double_blocks[-1].register_forward_hook(lambda *_: calls.__setitem__(-1, True)),
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return [step for step, ran in enumerate(calls) if ran]


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.5])
def test_magcache_caches_where_the_law_says(threshold, load, sample, calibrate, cached):
    model = load(CASE)[0]
    _, found = calibrate(model, "MagCache")
    patched = cached(model, "MagCache", calibration="mine.json", **MAGCACHE | {"threshold": threshold})
    wanted, ratio, error = [], 1.0, 0.0
    for step, gamma in enumerate(found["values"]):
        ratio *= gamma
        error += abs(1 - ratio)
        if step < max(1, int(0.2 * STEPS)) or step - wanted[-1] > 4 or error >= threshold:
            wanted.append(step)
            ratio, error = 1.0, 0.0
    assert full_steps(model.model.diffusion_model, lambda: sample(CASE, patched)) == wanted


def test_the_report_says_which_steps_would_run_in_full(load, sample, calibrate, cached):
    model = load(CASE)[0]
    report, _ = calibrate(model, "MagCache")
    told = next(line for line in report.splitlines() if line.startswith("threshold 0.12, most 4, retention 0.2: "))
    patched = cached(model, "MagCache", calibration="mine.json", **MAGCACHE)
    full = full_steps(model.model.diffusion_model, lambda: sample(CASE, patched))
    assert told.endswith(f"{len(full):d} of 8 steps in full: {' '.join(map(str, full))}")


def test_a_threshold_of_0_is_the_plain_model(load, sample, calibrate, cached):
    model = load(CASE)[0]
    for method in ("MagCache", "TeaCache"):
        calibrate(model, method)
        settings = MAGCACHE | {"threshold": 0.0} if method == "MagCache" else {"threshold": 0.0}
        patched = cached(model, method, calibration="mine.json", **settings)
        assert torch.equal(sample(CASE, patched)[0], sample(CASE, model)[0])


def test_a_calibrated_teacache_runs_both_ends_in_full(load, sample, calibrate, cached):
    model = load(CASE)[0]
    calibrate(model, "TeaCache")
    patched = cached(model, "TeaCache", calibration="mine.json", threshold=100.0)
    assert full_steps(model.model.diffusion_model, lambda: sample(CASE, patched)) == [0, STEPS - 1]


def test_another_number_of_steps_is_told_in_the_report(load, sample, calibrate, cached):
    model = load(CASE)[0]
    calibrate(model, "MagCache")
    patched = cached(model, "MagCache", calibration="mine.json", **MAGCACHE)
    notice = "The calibration was made with 8 steps, but the run has"
    assert notice not in sample(CASE, patched)[1]
    assert f"{notice} 3: the nearest ratio is taken for each step." in sample(CASE, patched, steps=3)[1]


def test_a_published_calibration_is_told_to_be_for_other_steps(load, sample, cached):
    patched = cached(load(CASE)[0], "TeaCache", calibration="HunyuanVideo 1.0", threshold=0.15)
    assert (
        "The calibration was made with 50 steps, but the run has 3: it is used as it is."
        in sample(CASE, patched, steps=3)[1]
    )


def test_a_calibration_of_another_model_or_method_is_refused(load, calibrate, cached):
    calibrate(load(CASE)[0], "MagCache")
    with pytest.raises(ValueError, match="The calibration's 'family' is '1.0', but the run's is '1.5'"):
        cached(load("hv15_i2v")[0], "MagCache", calibration="mine.json", **MAGCACHE)
    with pytest.raises(ValueError, match="The calibration's 'method' is 'MagCache', but the run's is 'TeaCache'"):
        cached(load(CASE)[0], "TeaCache", calibration="mine.json", threshold=0.1)


def test_a_damaged_file_is_refused(load, folder, cached):
    folder.mkdir(parents=True)
    (folder / "mine.json").write_text("{")
    with pytest.raises(ValueError, match="The calibration 'mine.json' cannot be used: it is not JSON"):
        cached(load(CASE)[0], "MagCache", calibration="mine.json", **MAGCACHE)


def test_only_files_in_the_folder_itself_can_be_chosen(load, folder, cached, tmp_path, pack):
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "outside.json", folder / "sub" / "deep.json", folder / "fine.json"):
        place.write_text("{")
    (folder / "link.json").symlink_to(tmp_path / "outside.json")
    (folder / "round.json").symlink_to(folder / "round.json")
    calibrations = pack("disca.server.calibrations")
    assert calibrations.names() == ["fine.json"]
    for name in ("link.json", "round.json", "../../outside.json", "sub/deep.json", str(tmp_path / "outside.json")):
        with pytest.raises(ValueError, match="'calibration' is '.*', but must be one of"):
            cached(load(CASE)[0], "MagCache", calibration=name, **MAGCACHE)
        with pytest.raises(ValueError, match="There is no calibration"):
            calibrations.load(name)


@pytest.mark.parametrize("name", ["", "../mine", "a/b", "a\\b", "/mine", "nul", "a\0"])
def test_a_name_that_is_no_file_in_the_folder_is_refused_before_the_run(name, load, calibrate, folder):
    with pytest.raises(ValueError, match="'name' "):
        calibrate(load(CASE)[0], "MagCache", name=name)
    assert not folder.exists()


def test_a_model_that_is_calibrated_again_is_cached_anew(load, calibrate, comfy_nodes):
    node = comfy_nodes.NODE_CLASS_MAPPINGS["DiscaApplyCache"]
    chosen = {"method": "MagCache", "preset": {"preset": "custom", "calibration": "mine.json", **MAGCACHE}}
    assert node.fingerprint_inputs(method=chosen) == ""  # there is none yet
    prints = []
    for shift in (5.0, 1.0, 1.0):
        calibrate(load(CASE)[0], "MagCache", shift=shift)
        prints.append(node.fingerprint_inputs(method=chosen, cache_device="auto"))
    assert prints[0] != prints[1] == prints[2] != ""
    for other in ({}, None, {"preset": None}, {"preset": {"calibration": None}}, {"preset": {"calibration": ["a", 0]}}):
        assert node.fingerprint_inputs(method=other) == ""


def test_the_models_own_cache_has_no_part_in_it_and_stays(load, sample, calibrate, cached):
    model = load(CASE)[0]
    _, plain = calibrate(model, "MagCache")
    patched = cached(model, "MagCache", calibration="mine.json", **MAGCACHE)
    before, _ = sample(CASE, patched)
    assert calibrate(patched, "MagCache")[1] == plain
    assert torch.equal(sample(CASE, patched)[0], before)


def test_prompts_and_negatives_are_measured_each(load, calibrate):
    model = load(CASE)[0]
    positive, other = graph.conditioning(recipes.golden(CASE), model), graph.other_conditioning(CASE, model)
    one, two = (calibrate(model, "MagCache", positive=prompt)[1]["values"] for prompt in (positive, other))
    report, both = calibrate(model, "MagCache", prompts={"prompt0": other})
    assert both["values"] == pytest.approx([sum(pair) / 2 for pair in zip(one, two, strict=True)], rel=1e-4)
    assert "ratios of 2 videos and conditions" in report
    assert "of 4 videos" in calibrate(model, "MagCache", prompts={"prompt3": other}, negative=other, cfg=2.0)[0]


@pytest.mark.parametrize("prompts", ["x", {"prompt99": None}, {"other": []}, {"prompt0": 3}, [1]])
def test_prompts_that_are_none_are_refused(prompts, load, calibrate):
    with pytest.raises(ValueError, match="'prompt"):
        calibrate(load(CASE)[0], "MagCache", prompts=prompts)


def test_cfg_without_a_negative_is_refused(load, calibrate):
    with pytest.raises(ValueError, match="'cfg' is 3, but no negative conditioning is connected"):
        calibrate(load(CASE)[0], "MagCache", cfg=3.0)


def test_a_model_that_is_not_told_r_is_measured_by_euler(load, call, calibrate, pack):
    model = graph.without_time_r(load(CASE)[0])
    torch.manual_seed(0)
    for parameter in model.model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    _, found = calibrate(model, "MagCache")
    assert len(found["values"]) == STEPS and found["family"] == "1.0"


def test_a_condition_that_starts_late_is_refused(load, calibrate, folder):
    model = load(CASE)[0]
    late = graph.timed(graph.conditioning(recipes.golden(CASE), model), start=0.5)
    always = graph.other_conditioning(CASE, model)
    with pytest.raises(ValueError, match="1 of 2 videos and conditions were not seen in every one of 8 steps"):
        calibrate(model, "MagCache", positive=always + late)
    assert not folder.exists()


def test_another_cache_on_the_model_is_refused_by_name(load, call, calibrate):
    (cached,) = call(
        "EasyCache", model=load(CASE)[0], reuse_threshold=0.2, start_percent=0.1, end_percent=0.9, verbose=False
    )
    with pytest.raises(ValueError, match="EasyCache or LazyCache is on this MODEL too"):
        calibrate(cached, "MagCache")


def test_a_controlnet_is_measured_with_what_it_adds(load, calibrate):
    model = load(CASE)[0]
    plain = graph.conditioning(recipes.golden(CASE), model)
    found = [calibrate(model, "MagCache", positive=p)[1]["values"] for p in (plain, graph.with_control(plain, model))]
    assert found[0] != pytest.approx(found[1], rel=1e-3)


def test_too_few_steps_for_a_polynomial_are_refused(load, calibrate):
    with pytest.raises(ValueError, match="A polynomial needs 5 different finite changes, but 2 of 2"):
        calibrate(load(CASE)[0], "TeaCache", steps=3)


def test_an_interrupt_leaves_nothing(load, calibrate, folder, pack):
    model, calls = load(CASE)[0].clone(), []

    def interrupt(apply_model, args):
        calls.append(1)
        if len(calls) == 5:
            comfy.model_management.interrupt_current_processing()
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        calibrate(model, "MagCache")
    gc.collect()
    kinds = (pack("disca.host.running.run").Run, pack("disca.methods.adaptive.measuring").Magnifying)
    assert not folder.exists()
    assert not [kept for kept in gc.get_objects() if type(kept) in kinds]


def test_a_calibration_says_what_it_was_made_on(load, calibrate):
    _, found = calibrate(load(CASE)[0], "TeaCache")
    latent = graph.empty_latent(CASE)["samples"]
    assert found["size"] == [latent.shape[4] * 8, latent.shape[3] * 8, (latent.shape[2] - 1) * 4 + 1]
    assert {key: found[key] for key in ("method", "family", "steps", "shift")} == {
        "method": "TeaCache", "family": "1.0", "steps": STEPS, "shift": SHIFT,
    }  # fmt: skip
    found = calibrate(load("hv15_i2v")[0], "MagCache", "hv15_i2v")[1]
    latent = graph.empty_latent("hv15_i2v")["samples"]
    assert found["size"] == [latent.shape[4] * 16, latent.shape[3] * 16, (latent.shape[2] - 1) * 4 + 1]


@pytest.mark.parametrize("method", ["TeaCache", "MagCache"])
def test_the_curve_is_a_picture(method, load, call, folder):
    model = load(CASE)[0]
    positive = graph.conditioning(recipes.golden(CASE), model)
    times = {"seed": 7, "steps": STEPS, "shift": SHIFT}
    given = {"positive": positive, "latent_image": graph.empty_latent(CASE), "name": "mine", **times}
    _, picture = call("DiscaCalibrate", model=model, method=method, **given)
    assert picture.shape == (1, 400, 960, 3) and picture.min() < 0.2 and picture.max() == 1.0


@pytest.fixture
def command(tmp_path):
    """The command on the toy's models; gives its exit code and what it wrote."""

    def run(*arguments: str, model: str = "meanflow") -> tuple[int, dict | None]:
        out = tmp_path / "made" / "toy.json"
        given = ["--model", str(WEIGHTS / f"{model}.safetensors"), "--data", TOY, "--out", str(out), "--cpu"]
        ended = main([*given, "--prompts", "2", "--steps", "6", "--shift", "1", *arguments])
        return ended, json.loads(out.read_text()) if out.exists() else None

    return run


def test_the_command_gives_what_the_node_gives(command, call, calibrate):
    ended, found = command("--method", "MagCache", "--guidance", "3", "--prompts", "1")
    attributes = random_scene(0).attributes
    conditions = condition(attributes)
    positive = [[conditions["context"], {"pooled_output": conditions["y"], "guidance": 3.0}]]
    latent = {"samples": torch.zeros(1, *ToyDataset()[0]["latent"].shape)}
    times = {"seed": 0, "steps": 6, "shift": 1.0}
    _, wanted = calibrate(call("DiscaToyModels")[1], "MagCache", positive=positive, latent_image=latent, **times)
    assert ended == 0
    assert found | {"values": ()} == wanted | {"values": ()}
    assert found["values"] == pytest.approx(wanted["values"], rel=1e-4)


def test_the_command_measures_a_model_with_guidance_and_draws(command, tmp_path, caplog):
    caplog.set_level("INFO")
    picture = str(tmp_path / "curve.png")
    ended, found = command("--method", "TeaCache", "--cfg", "3", "--picture", picture, model="base")
    assert ended == 0 and len(found["values"]) == 5
    assert "TeaCache's polynomial of 4 videos and conditions, 64x64, 21 frames, in 6 steps at shift 1" in caplog.text
    assert Image.open(picture).size == (960, 400)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--steps", "1"], "'steps' is 1, but must be at least 2"),
        (["--shift", "nan"], "'shift' is nan, but must be a finite number"),
        (["--data", "nowhere"], "There is no index.json in 'nowhere'"),
        (["--model", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--steps", "3", "--prompts", "1"], "A polynomial needs 5 different finite changes"),
    ],
)
def test_what_is_wrong_ends_the_command_with_a_sentence(arguments, told, command, caplog):
    ended, found = command("--method", "TeaCache", *arguments)
    assert (ended, found) == (2, None)
    assert told in caplog.text
