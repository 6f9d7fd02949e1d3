"""Find Schedule: it keeps the best of what was tried, its figures are those of runs, and it is for these runs."""

import gc
import logging
from types import SimpleNamespace

import comfy.model_management
import graph
import pytest
import recipes
import torch

HV10, HV15 = recipes.CASES
STEPS, SHIFT, SEED = 5, 5.0, 7
PUBLISHED = "0 2 4 7"  # for 8 steps of HunyuanVideo 1.5


@pytest.fixture
def cached(load, apply, pack):
    """A golden case's MODEL with DisCa, or with another method, at a schedule if one is given."""

    def run(case, method="DisCa", schedule=None):
        model, predictor = load(case)
        if method == "DisCa":
            return apply(model, predictor, "0 1")
        rule = pack("disca.methods.seam.anchors").AtAnchors(schedule) if schedule else None
        return pack("disca.host.attach").attach(model, pack("disca.methods").METHODS[method]().method(rule))

    return run


@pytest.fixture
def find(call):
    """The schedule, report and chart of the node; 3 full steps unless told otherwise."""

    def run(case, model, full_steps=3, allowed_error=None, **changes):
        goal = {"goal": "full_steps", "full_steps": full_steps}
        if allowed_error is not None:
            goal = {"goal": "allowed_error", "allowed_error": allowed_error}
        inputs = {
            "model": model,
            "positive": graph.conditioning(recipes.golden(case), model),
            "latent_image": graph.empty_latent(case),
            "seed": SEED,
            "steps": STEPS,
            "shift": SHIFT,
            "goal": goal,
        }
        return call("DiscaFindSchedule", **(inputs | changes))

    return run


@pytest.fixture
def error(load, apply, sample):
    """The squared error of DisCa's sampled run at a list, relative to the plain model's."""

    def run(case, anchors, steps=STEPS, **changes):
        settings = {"steps": steps, "shift": SHIFT, "seed": SEED} | changes
        full, _ = sample(case, load(case)[0], **settings)
        found, _ = sample(case, apply(*load(case), anchors), **settings)
        return ((found - full).square().sum() / full.square().sum()).item()

    return run


def tried(report: str) -> dict[str, float]:
    """Anchors and error of each list that the report says was tried."""
    lines = (line.removeprefix("tried ").split(": error ") for line in report.splitlines() if line.startswith("tried"))
    return {anchors: float(rest.partition(",")[0]) for anchors, rest in lines}


@pytest.mark.parametrize("measure", ["full", "cheap", "thorough"])
def test_what_is_kept_is_not_worse_than_the_published_list_and_the_figures_are_those_of_runs(
    measure, cached, find, error
):
    schedule, report, _ = find(HV15, cached(HV15), 4, steps=8, measure=measure)
    figures = tried(report)
    assert PUBLISHED in figures and len(figures) > 1
    assert schedule.measured.error <= figures[PUBLISHED] == pytest.approx(schedule.measured.published_error, rel=0.01)
    assert schedule.measured.published == (0, 2, 4, 7)
    for anchors, figure in figures.items():
        assert error(HV15, anchors, steps=8) == pytest.approx(figure, rel=0.02)
    assert f"{schedule}: 4 of 8 steps in full" in report


def test_several_prompts_guidance_and_a_batch_are_measured_together(cached, find, error, load):
    model = load(HV10)[0]
    other = graph.other_conditioning(HV10, model)
    guided = {"negative": [[other[0][0] * 0.1, other[0][1]]], "cfg": 2.0, "latent_image": graph.empty_latent(HV10, 2)}
    schedule, report, _ = find(HV10, cached(HV10), 2, prompts={"prompt0": other, "prompt1": None}, steps=3, **guided)
    assert schedule.measured.prompts == 2
    assert "on 4 videos" in report
    errors = [error(HV10, str(schedule), steps=3, **guided, **more) for more in ({}, {"positive": other})]
    assert min(errors) <= schedule.measured.error <= max(errors)


def test_as_many_full_steps_as_there_are_is_every_step(cached, find):
    schedule, report, _ = find(HV10, cached(HV10), STEPS)
    assert str(schedule) == "0 1 2 3 4"
    assert schedule.measured.error == 0.0
    assert report.startswith("0 1 2 3 4: 5 of 5 steps in full, error 0\n")


@pytest.mark.parametrize("measure", ["full", "cheap"])
def test_the_run_at_the_list_for_an_allowed_error_is_within(measure, cached, find, error):
    model = cached(HV10)
    worst = find(HV10, model, 1)[0].measured.error
    schedule, _, _ = find(HV10, model, allowed_error=worst / 4, measure=measure)
    assert 1 < len(schedule.listed) < STEPS
    assert error(HV10, str(schedule)) <= worst / 4
    assert find(HV10, model, allowed_error=0.0, measure=measure)[0].listed == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("TaylorSeer-Lite", "looks at more full steps than 2"),
        ("FORA", "answers inside blocks"),
        ("DuCa", "has several ways"),
        ("Delta-DiT", None),
        ("EasyCache", None),
        ("RFC-Lite", None),
        ("SpeCa", "answers inside blocks"),
    ],
)
def test_every_kind_of_method_finds_its_list(method, said, cached, find):
    schedule, report, _ = find(HV10, cached(HV10, method), 2, steps=4)
    assert len(schedule.listed) == 2 and schedule.method == method
    assert schedule.measured.error == pytest.approx(min(tried(report).values()), rel=0.01)
    assert said in report if said else "measured with" not in report and "measured as if" not in report


def test_a_model_without_meanflow_has_its_list_too(load, find, pack):
    plain = graph.without_time_r(load(HV10)[0])
    plain.model.load_state_dict(load(HV10)[0].model.state_dict(), strict=False)
    attach, methods = pack("disca.host.attach").attach, pack("disca.methods").METHODS
    schedule, _, _ = find(HV10, attach(plain, methods["reuse"]().method()), 2, steps=4)
    assert schedule.measured.error > 0.0


def test_the_model_stays_as_it_was(cached, find, sample):
    model = cached(HV10)
    before = sample(HV10, model, steps=STEPS)[0]
    find(HV10, model, 2)
    assert torch.equal(sample(HV10, model, steps=STEPS)[0], before)


def test_the_chart_is_a_picture(cached, find):
    _, _, chart = find(HV10, cached(HV10), 2)
    assert chart.shape == (1, 480, 960, 3)
    assert 0.0 <= chart.min() < chart.max() <= 1.0


def test_what_it_costs_is_said_before_it_starts(cached, find, caplog):
    with caplog.at_level(logging.INFO):
        find(HV10, cached(HV10), 2)
    said = next(message for message in caplog.messages if "finding the schedule" in message)
    # in full 5, 3 from step 2 on, 3 lists of 2; answered 2 a step left out but for the first of each stretch, 1, 3 x 3
    assert said == "DisCa: finding the schedule takes about as long as 2.8 runs in full, and 26 cached steps"


@pytest.fixture
def saved(cached, find, tmp_path, monkeypatch):
    """Finds a schedule and saves it under a name."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))

    def run(name):
        return find(HV10, cached(HV10), 3, save_as=name)[0]

    return run


def test_a_saved_schedule_is_listed_and_read_as_it_was(saved, call, comfy_nodes, tmp_path):
    schedule = saved("mine/cats")
    assert (tmp_path / "disca" / "schedules" / "mine" / "cats.json").is_file()
    combo = comfy_nodes.NODE_CLASS_MAPPINGS["DiscaCacheSchedule"].define_schema().inputs[0]
    names = next(option for option in combo.options if option.key == "file").inputs[0].options
    assert names == ["mine/cats.json"]
    for name in (names[0], "mine\\cats.json"):
        assert call("DiscaCacheSchedule", plan={"plan": "file", "schedule_name": name})[0] == schedule


def test_a_schedule_that_is_found_again_is_read_again(saved, comfy_nodes):
    node = comfy_nodes.NODE_CLASS_MAPPINGS["DiscaCacheSchedule"]
    plan = {"plan": "file", "schedule_name": "cats.json"}
    before = node.fingerprint_inputs(plan)
    saved("cats")
    assert node.fingerprint_inputs(plan) != before


def test_no_file_outside_of_the_folder_is_read_or_written(saved, call, find, cached, tmp_path):
    saved("cats")
    for name in ("../cats.json", "/etc/passwd", "..\\cats", "a/../../cats"):
        with pytest.raises(ValueError, match="'schedule_name' is .*must be one of 'cats.json'"):
            call("DiscaCacheSchedule", plan={"plan": "file", "schedule_name": name})
        with pytest.raises(ValueError, match="cannot be a folder's name"):
            find(HV10, cached(HV10), 3, save_as=name)


def test_a_schedule_is_refused_in_runs_that_it_was_not_found_for(cached, find, call, load, sample):
    model, predictor = load(HV10)
    schedule = find(HV10, cached(HV10), 2)[0]
    (patched,) = call("DiscaApplyPredictor", model=model, predictor=predictor, schedule=schedule, cache_device="auto")
    right = {"steps": STEPS, "shift": SHIFT}
    assert graph.counts(sample(HV10, patched, **right)[1]) == "2 full + 3 predicted"
    for wrong, said in (
        ({"shift": 3.0}, "was found at shift 5, where step . is at sigma .* but the run has"),
        ({"steps": 6}, "is written for 5 steps, but the run has 6"),
        ({"denoise": 0.5}, "was found at shift 5"),
    ):
        with pytest.raises(ValueError, match=said):
            sample(HV10, patched, **(right | wrong))


def test_a_schedule_is_refused_on_another_family_with_every_kind_of_rule(cached, find, sample):
    schedule = find(HV10, cached(HV10), 2, steps=3)[0]
    for method in ("reuse", "PAB", "DuCa", "EasyCache"):
        with pytest.raises(ValueError, match="was found for 'HunyuanVideo 1.0', but the model is 'HunyuanVideo 1.5'"):
            sample(HV15, cached(HV15, method, schedule), steps=3, shift=SHIFT)


@pytest.mark.parametrize("calls", [2, 12, 24])  # in the run in full, measuring, trying
def test_an_interrupt_ends_it_and_leaves_nothing(calls, cached, find, sample, pack):
    model = cached(HV10)
    before, made = sample(HV10, model, steps=STEPS)[0], []
    interrupted = model.clone()

    def interrupt(apply_model, args):
        made.append(1)
        if len(made) == calls:
            comfy.model_management.interrupt_current_processing()
        return apply_model(args["input"], args["timestep"], **args["c"])

    interrupted.set_model_unet_function_wrapper(interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        find(HV10, interrupted, 2)
    assert len(made) <= calls + 1
    gc.collect()
    kinds = (
        pack("disca.host.running.run").Run,
        pack("disca.rehearsal").Path,
        pack("disca.host.finding.rehearsing").Seen,
    )
    assert not [kept for kept in gc.get_objects() if type(kept) in kinds]
    assert torch.equal(sample(HV10, model, steps=STEPS)[0], before)


def test_a_model_without_a_cache_is_refused(load, find):
    with pytest.raises(ValueError, match="There is no cache on this MODEL"):
        find(HV10, load(HV10)[0])


def test_more_full_steps_than_steps_are_refused(cached, find):
    with pytest.raises(ValueError, match="'full_steps' is 6, but the run has 5 steps"):
        find(HV10, cached(HV10), 6)


def test_features_that_do_not_fit_into_main_memory_are_refused_with_the_sum(cached, find, pack, monkeypatch):
    memory = pack("disca.host.finding.asked").psutil
    monkeypatch.setattr(memory, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(ValueError, match=r"Measuring keeps 0\.0. GB in main memory, .* but 0\.00 GB are free"):
        find(HV10, cached(HV10))


def test_what_keeps_steps_in_full_is_named(cached, find):
    model = cached(HV10).clone()
    model.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "single_block", 0)
    with pytest.raises(ValueError, match="ran in full all the same: 'another node replaces blocks"):
        find(HV10, model, 2, steps=3)


@pytest.mark.parametrize("measure", ["full", "cheap"])
def test_what_could_not_be_tried_is_refused_before_anything_runs(measure, cached, find):
    model, calls = cached(HV10).clone(), []
    model.set_model_unet_function_wrapper(lambda apply_model, args: calls.append(1) or apply_model(**args))
    ((text, options),) = graph.conditioning(recipes.golden(HV10), model)
    cacher = model.clone()
    cacher.model_options["transformer_options"]["easycache"] = object()
    clip = [[torch.zeros(1, 77, 768), {"pooled_output": torch.zeros(1, 768)}]]
    for asked, said in (
        (
            {"positive": graph.with_control([[text, options]], model)},
            "has a ControlNet, beside which steps run in full",
        ),
        ({"positive": clip}, "use the text encoders of HunyuanVideo 1.0"),
        ({"positive": [[text[0], options]]}, "use the text encoders of HunyuanVideo 1.0"),
        ({"positive": [[text.long(), options]]}, "use the text encoders of HunyuanVideo 1.0"),
        ({"prompts": {"prompt1": [[None, {}]]}}, "use the text encoders of HunyuanVideo 1.0"),
        ({"negative": clip, "cfg": 2.0}, "use the text encoders of HunyuanVideo 1.0"),
        ({"model": cacher}, "EasyCache or LazyCache is on this MODEL too"),
    ):
        with pytest.raises(ValueError, match=said):
            find(HV10, asked.pop("model", model), 2, measure=measure, **asked)
    assert calls == []


@pytest.mark.parametrize("method", ["reuse", "EasyCache"])
@pytest.mark.parametrize("when", [{"start": 0.3}, {"end": 0.5}], ids=["late", "ends"])
def test_a_prompt_that_is_active_in_a_part_of_the_run_is_refused(method, when, cached, find):
    model = cached(HV10, method)
    both = graph.conditioning(recipes.golden(HV10), model) + graph.timed(graph.other_conditioning(HV10, model), **when)
    with pytest.raises(ValueError, match="active in a part of the run only"):
        find(HV10, model, 2, positive=both)


def test_a_file_that_could_not_be_written_is_refused_before_anything_runs(saved, find, cached, tmp_path):
    saved("cats")
    folder = next(tmp_path.rglob("cats.json")).parent
    (folder / "taken.json").mkdir()
    model, calls = cached(HV10).clone(), []
    model.set_model_unet_function_wrapper(lambda apply_model, args: calls.append(1) or apply_model(**args))
    for name, said in (("taken", "'taken' is no file in"), ("cats.json/mine", "which is a file, not a folder")):
        with pytest.raises(ValueError, match=said):
            find(HV10, model, 2, save_as=name)
    assert calls == [] and {path.name for path in folder.iterdir()} == {"cats.json", "taken.json"}


def test_the_preset_on_the_model_may_be_for_another_number_of_steps(load, pack, find, caplog):
    """Steps of the trials say nothing of the list that the MODEL had."""
    model, predictor = load(HV10)
    preset = pack("disca.schedule").PRESETS["HunyuanVideo 1.0, 20 steps, N=4"]
    schedule, _, _ = find(HV10, pack("disca.host.attach").attach_predictor(model, predictor, preset))
    assert schedule.steps == STEPS and "written for" not in caplog.text


def test_trials_are_not_warned_of_what_the_list_before_them_had(load, apply, find, caplog):
    model, predictor = load(HV10)
    find(HV10, apply(model, predictor, "0"), 5)  # every step in full: nothing is predicted
    assert "predicts from features" not in caplog.text
