"""Compare Methods: rows are runs as other nodes make them, none is lost, and a list that cannot be run is refused."""

import re

import comfy.model_management
import graph
import pytest
import recipes
import torch
from torch.utils.flop_counter import FlopCounterMode

HV10, HV15 = recipes.CASES
STEPS, SHIFT, SEED = 6, 5.0, 7
TOY_PROMPT = {
    f"{place}_{name}": value
    for place, values in (("front", ("circle", "red", "right", "slow")), ("back", ("square", "blue", "up", "slow")))
    for name, value in zip(("shape", "colour", "direction", "speed"), values, strict=True)
}
COLUMNS = ("number", "method", "full", "cached", "seconds", "speed", "theory", "MB", "error")


@pytest.fixture
def compare(call):
    """The rows, the text below them, the chart, the latents and the names."""

    def run(case, model, methods, **changes):
        inputs = {
            "model": model,
            "positive": graph.conditioning(recipes.golden(case), model),
            "latent_image": graph.empty_latent(case),
            "seed": SEED,
            "steps": STEPS,
            "shift": SHIFT,
            "methods": methods,
        }
        table, chart, latents, names = call("DiscaCompareMethods", **(inputs | changes))
        _, _, *lines = table.splitlines()
        rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
        rows = [dict(zip(COLUMNS, map(str.strip, row), strict=True)) for row in rows]
        return rows, "\n".join(line for line in lines if not line.startswith("|")), chart, latents, names

    return run


def distance(latent, reference, model) -> float:
    """Squared, relative to the reference, in the network's latent space."""
    ours, theirs = (model.model.process_latent_in(each["samples"]) for each in (latent, reference))
    return float((ours - theirs).square().sum() / theirs.square().sum())


@pytest.mark.parametrize("case", [HV10, HV15])
def test_rows_are_the_runs_that_other_nodes_make(case, load, apply, sample, call, pack, compare):
    model, predictor = load(case)
    methods = "# mine\n\nDisCa at 0 1 3\n  TaylorSeer-Lite   order=1 at 0-2, 5\nplain steps=3"
    rows, said, _, latents, names = compare(case, model, methods, predictor=predictor)
    settings = {"shift": SHIFT, "seed": SEED}
    rule = pack("disca.methods.seam.anchors").AtAnchors(pack("disca.schedule").Anchors((0, 1, 2, 5)))
    taylor = pack("disca.methods").METHODS["TaylorSeer-Lite"](order=1).method(rule)
    expected = [
        sample(case, model, steps=STEPS, **settings)[0],
        sample(case, apply(model, predictor, "0 1 3"), steps=STEPS, **settings)[0],
        sample(case, pack("disca.host.attach").attach(model, taylor), steps=STEPS, **settings)[0],
        sample(case, model, steps=3, **settings)[0],
    ]
    assert all(torch.equal(ours["samples"], theirs) for ours, theirs in zip(latents, expected, strict=True))
    assert [row["method"] for row in rows] == [
        "every step in full", "DisCa at 0 1 3", "TaylorSeer-Lite order=1 at 0-2, 5", "plain steps=3",
    ]  # fmt: skip
    assert [(row["full"], row["cached"]) for row in rows] == [("6", "0"), ("3", "3"), ("4", "2"), ("3", "0")]
    for row, latent in zip(rows, latents, strict=True):
        assert float(row["error"]) == pytest.approx(distance(latent, latents[0], model), rel=5e-3)
    assert rows[0]["error"] == "0" and rows[3]["theory"] == "2.00x"
    assert [name.split(":")[0] for name in names] == [f"{i} {row['method']}" for i, row in enumerate(rows)]
    assert "failed" not in said


def test_what_is_on_the_model_has_no_part_in_it_and_stays(load, apply, sample, compare):
    model, predictor = load(HV10)
    patched = apply(model, predictor, "0 1")
    before = sample(HV10, patched, steps=STEPS, shift=SHIFT, seed=SEED)[0]
    _, _, _, latents, _ = compare(HV10, patched, "reuse at 0-5")
    assert torch.equal(latents[0]["samples"], sample(HV10, model, steps=STEPS, shift=SHIFT, seed=SEED)[0])
    assert torch.equal(latents[1]["samples"], latents[0]["samples"])
    assert torch.equal(sample(HV10, patched, steps=STEPS, shift=SHIFT, seed=SEED)[0], before)


def test_a_model_without_meanflow_is_compared_too(load, compare):
    plain = graph.without_time_r(load(HV10)[0])
    plain.model.load_state_dict(load(HV10)[0].model.state_dict(), strict=False)
    rows, said, *_ = compare(HV10, plain, "reuse at 0-5\nreuse at 0 3")
    assert [row["error"] == "0" for row in rows] == [True, True, False] and "failed" not in said


def test_a_method_that_fails_is_a_row_that_says_why_and_no_other_is_lost(load, compare, pack, monkeypatch):
    memory, (model, _) = pack("disca.host.running.memory"), load(HV10)
    network, latent = model.model.diffusion_model, graph.empty_latent(HV10)["samples"].shape
    family, text = pack("disca.models.family").family_of(network), recipes.golden(HV10).tensors["txt"].shape[1]
    held = memory.bytes_held(pack("disca.methods").METHODS["RFC"]().method(), family, network, latent, text, 4)
    room = memory.psutil.virtual_memory()._replace(available=held - 1)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: room)
    rows, said, _, latents, names = compare(HV10, model, "reuse at 0 3\nRFC at 0 3\nFORA at 0-5")
    assert [one["full"] for one in rows] == ["6", "2", "failed, see below", "6"]
    assert re.search(r"^2 failed: 'RFC' holds .* but there is room for", said, re.MULTILINE)
    assert len(latents) == len(names) == 3


def test_an_interrupt_keeps_the_rows_that_are_done(load, compare, pack, monkeypatch):
    rows = pack("disca.evaluation.side_by_side.rows")
    told = rows.row_of

    def row_of(text, *others):
        if text.startswith("reuse"):
            comfy.model_management.interrupt_current_processing()
        return told(text, *others)

    monkeypatch.setattr(rows, "row_of", row_of)
    found, said, _, latents, _ = compare(HV10, load(HV10)[0], "reuse at 0 3\nFORA at 0 3\nPAB at 0 3")
    assert [row["method"] for row in found] == ["every step in full", "reuse at 0 3"] and len(latents) == 2
    assert "Interrupted: methods that are not in the table were not run." in said
    assert not comfy.model_management.processing_interrupted()


def test_an_interrupt_before_there_is_a_row_ends_the_node(load, compare):
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        compare(HV10, load(HV10)[0], "reuse at 0 3")


def operations(case, model, method, pack, compare, **changes) -> tuple[int, int, float]:
    """Counted while sampling, every step in full and by the method, and the speed-up that the table has by them."""
    attention, runs, counted = pack("disca.host.counting").ATTENTION, pack("disca.host.comparing").Runs, []
    run = runs.run

    def count(self, *given):
        with FlopCounterMode(display=False, custom_mapping=attention) as counter:
            result = run(self, *given)
        counted.append(counter.get_total_flops())
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "run", count)
        rows, *_ = compare(case, model, method, **changes)
    _, full, cached = counted
    return full, cached, float(rows[1]["theory"][:-1])


@pytest.mark.parametrize("method", ["DisCa at 0 2", "reuse at 0 2", "ToCa ratio=0.5 at 0 2", "PAB at 0 2"])
def test_the_speed_up_by_operations_is_that_of_the_operations_counted(method, load, pack, compare):
    model, predictor = load(HV10)
    full, cached, said = operations(HV10, model, method, pack, compare, predictor=predictor)
    assert said == pytest.approx(full / cached, abs=6e-3)


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("", "The list of methods is empty. Write a line for each"),
        ("# nothing", "The list of methods is empty"),
        (
            "TaylorSeer-Light",
            "'TaylorSeer-Light' in the list of methods is not a method. Did you mean 'TaylorSeer-Lite'",
        ),
        ("nonsense", "'nonsense' in the list of methods is not a method. There are 'plain', 'DisCa'"),
        ("reuse at 1 2", "starts at step 1, but step 0 must be an anchor"),
        ("reuse at", "The anchor list is empty"),
        ("reuse at 0 6", "asks for step 6 in full, but the run has 6 steps"),
        ("reuse interval", "Cannot read 'interval' after 'reuse'. Write settings such as order=1"),
        ("TaylorSeer order=7", "'order' is 7, but must be at most 2"),
        ("TaylorSeer order=1.5", "'order' is 1.5, but must be a whole number"),
        ("TaylorSeer oder=1", "'oder' is not a setting of 'TaylorSeer'. Did you mean 'order'"),
        ("TaylorSeer self=1", "'self' is not a setting of 'TaylorSeer'"),
        ("TaylorSeer order=1 order=2", "'TaylorSeer' sets 'order' twice"),
        ("reuse at " + " ".join(map(str, range(600))), "letters, but may have 1000"),
        ("plain steps=\u0668", "Give it a number of steps"),
        ("TeaCache preset=quick", "'TeaCache' has no preset 'quick'. It has 'released, slow'"),
        ("TeaCache coefficients=1,x", "'coefficients' is '1,x', but must be numbers with commas"),
        ("reuse at 0 1\nreuse  at 0 1", "'reuse at 0 1' is in the list of methods twice"),
        ("plain", "'plain' is not a run of the plain model. Give it a number of steps"),
        ("plain steps=0", "Give it a number of steps from 1 to 100"),
        ("plain steps=8 at 0 1", "Give it a number of steps"),
        ("plain steps=true", "Give it a number of steps"),
        ("DisCa", "Which steps should 'DisCa' run in full"),
        ("DisCa order=1 at 0 1", "'DisCa' has no settings"),
        ("DisCa at 0 1", "'DisCa at 0 1' needs a Predictor for it, but none is given"),
        ("LESA at 0 1", "'LESA at 0 1' needs a Predictor for it, but none is given"),
        ("reuse 'at 0", 'Cannot read "reuse \'at 0" in the list of methods'),
        ("\n".join(f"reuse interval={i}" for i in range(2, 70)), "The list has 68 methods, but may have 64"),
        ("x" * 20_001, "20001 letters, but may have 20000"),
    ],
)
def test_a_list_that_cannot_be_run_is_refused_before_any_run(methods, said, load, compare, pack, monkeypatch):
    monkeypatch.setattr(pack("disca.host.comparing").Runs, "run", lambda *_: pytest.fail("there was a run"))
    with pytest.raises(ValueError, match=re.escape(said)):
        compare(HV10, load(HV10)[0], methods)


def test_a_list_that_is_wrong_is_refused_when_it_is_queued(comfy_nodes):
    node = comfy_nodes.NODE_CLASS_MAPPINGS["DiscaCompareMethods"]
    with pytest.raises(ValueError, match="Did you mean 'reuse'"):
        node.validate_inputs(methods="reus at 0")
    with pytest.raises(ValueError, match="asks for step 25 in full, but the run has 20 steps"):
        node.validate_inputs(methods="reuse at 0 25", steps=20)
    with pytest.raises(ValueError, match="'DisCa at 0' needs a Predictor for it, but none is given"):
        node.validate_inputs(methods="DisCa at 0", steps=20)
    linked = {"schedule": None, "predictor": None, "steps": None}
    assert node.validate_inputs(methods="reuse at 0 25\nDisCa", **linked) is True


def test_disca_without_a_list_goes_by_the_schedule(load, call, compare):
    model, predictor = load(HV10)
    (schedule,) = call("DiscaCacheSchedule", plan={"plan": "anchors", "anchors": "0 2 4"})
    rows, *_ = compare(HV10, model, "DisCa\nDisCa at 0 1", predictor=predictor, schedule=schedule)
    assert [(row["full"], row["cached"]) for row in rows[1:]] == [("3", "3"), ("2", "4")]


def test_presets_and_lists_of_numbers_are_the_nodes_settings(pack):
    read = pack("disca.evaluation.side_by_side.entries").read_entries
    methods = pack("disca.methods").METHODS
    tea, fitted, switch = read(
        'TeaCache preset="DisCa, high speed"\nTeaCache coefficients=1,-2.5,0 threshold=1\nSpeCa runs="this step"'
    )
    assert tea.cache == methods["TeaCache"](**methods["TeaCache"].presets["DisCa, high speed"])
    assert fitted.cache == methods["TeaCache"](coefficients=(1.0, -2.5, 0.0), threshold=1.0)
    assert switch.cache == methods["SpeCa"](runs="this step")


def test_tiles_are_the_videos_row_by_row_each_under_its_name(call):
    videos = [torch.rand(2, 40, 60, 3, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    (tiled,) = call("DiscaTileVideos", videos=videos, names=["one", "two", "one"], columns=[2])
    (alone,) = call("DiscaTileVideos", videos=videos[:1], names=["one"], columns=[0])
    line, high, wide = 18, tiled.shape[1] // 2, tiled.shape[2] // 2
    heads = []
    for number, video in enumerate(videos):
        top, left = number // 2 * high, number % 2 * wide
        assert torch.equal(tiled[:, top + line : top + line + 40, left : left + 60], video)
        heads.append(tiled[:, top : top + line, left : left + 60])
    assert torch.equal(heads[0], heads[2]) and not torch.equal(heads[0], heads[1])
    assert torch.equal(alone[:, :line, :60], heads[0]) and heads[0].min() < 0.5 < heads[0].mean()


@pytest.mark.parametrize(
    ("videos", "names", "said"),
    [
        ([(2, 8, 8, 3)], ["a", "b"], "There are 1 videos and 2 names"),
        ([(2, 8, 8, 3), (3, 8, 8, 3)], ["a", "b"], "'b' has 3 frames of 8x8, and the first video 2 frames of 8x8"),
        ([(2, 8, 8, 4)], ["a"], "'a' has the shape [2, 8, 8, 4]. Give [frames, height, width, 3]"),
    ],
)
def test_videos_that_are_not_alike_cannot_be_tiled(videos, names, said, call):
    with pytest.raises(ValueError, match=re.escape(said)):
        call("DiscaTileVideos", videos=[torch.zeros(shape) for shape in videos], names=names, columns=[0])


def test_two_videos_are_compared_by_every_measure(call, pack):
    reference = torch.rand(3, 24, 32, 3, generator=torch.Generator().manual_seed(0))
    report, strip, difference, plot = call("DiscaCompareVideos", reference=reference, video=reference.clone())
    assert report.startswith("PSNR (dB): the same in all frames\nSSIM: 1.0000")
    assert len(report.splitlines()) == len(pack("disca.evaluation.videos.comparison").MEASURES)
    assert strip.shape == (3, 24, 96, 3) and torch.equal(strip[:, :, :32], reference)
    assert not difference.any() and plot.shape[-1] == 3


def test_a_graph_compares_decodes_each_and_tiles_them(execute):
    toy = {"model": ["models", 1], "predictor": ["models", 2], "positive": ["prompt", 0], "latent_image": ["latent", 0]}
    run = {"seed": 1, "steps": 4, "shift": 1.0, "methods": "DisCa at 0 2\nreuse at 0 2"}
    prompt = {
        "models": {"class_type": "DiscaToyModels", "inputs": {}},
        "prompt": {"class_type": "DiscaToyPrompt", "inputs": TOY_PROMPT},
        "latent": {
            "class_type": "EmptyHunyuanLatentVideo",
            "inputs": {"width": 64, "height": 64, "length": 21, "batch_size": 1},
        },
        "compare": {"class_type": "DiscaCompareMethods", "inputs": toy | run},
        "decode": {"class_type": "DiscaToyDecode", "inputs": {"samples": ["compare", 2], "size": 64}},
        "tile": {"class_type": "DiscaTileVideos", "inputs": {"videos": ["decode", 0], "names": ["compare", 3]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["tile", 0]}},
    }
    outputs, error, _ = execute(prompt)
    assert error is None and len(outputs["show"]["images"]) == 6  # frames


def test_the_report_of_a_run_has_its_speed_up_by_operations(load, apply, sample, compare):
    model, predictor = load(HV10)
    _, report = sample(HV10, apply(model, predictor, "0 1 3"), steps=STEPS, shift=SHIFT, seed=SEED)
    rows, *_ = compare(HV10, model, "DisCa at 0 1 3", predictor=predictor)
    assert f"by its operations: {float(rows[1]['theory'][:-1]):.1f}x" in report.splitlines()
    _, plain = sample(HV10, model, steps=STEPS)
    assert "by its operations" not in plain


def test_a_predictor_of_another_family_is_refused_before_any_run(load, compare, pack, monkeypatch):
    monkeypatch.setattr(pack("disca.host.comparing").Runs, "run", lambda *_: pytest.fail("there was a run"))
    (model, _), (_, other) = load(HV10), load(HV15)
    with pytest.raises(ValueError, match="The Predictor is for HunyuanVideo 1.5, but the MODEL is HunyuanVideo 1.0"):
        compare(HV10, model, "reuse at 0 2\nDisCa at 0 2", predictor=other)


def answering(model):
    """The MODEL with another node's wrapper that answers every call in the network's place."""
    model = model.clone()
    model.set_model_unet_function_wrapper(lambda apply_model, call: torch.zeros_like(call["input"]))
    return model


def test_a_run_that_the_network_never_saw_loses_nothing(load, apply, sample, compare):
    model, predictor = load(HV10)
    _, report = sample(HV10, apply(answering(model), predictor, "0 1 3"), steps=STEPS)
    assert "by its operations" not in report
    with pytest.raises(ValueError, match="ends in zeros|No call of the run was answered by the network"):
        compare(HV10, answering(model), "reuse at 0 1")


def test_a_run_that_ends_in_zeros_is_nothing_to_compare_with(load, compare):
    latent = graph.empty_latent(HV10)
    latent["noise_mask"] = torch.zeros(1, 1, *latent["samples"].shape[-2:])
    with pytest.raises(ValueError, match="Give an empty latent without a mask"):
        compare(HV10, load(HV10)[0], "reuse at 0 1", latent_image=latent)


@pytest.mark.parametrize("method", ["DisCa at 0 2", "reuse at 0 2", "FORA at 0 2"])
def test_operations_count_the_tokens_of_glyphs_and_first_frames(method, load, pack, compare):
    model, predictor = load(HV15)
    full, cached, said = operations(HV15, model, method, pack, compare, predictor=predictor)
    assert said == pytest.approx(full / cached, abs=6e-3)


def test_operations_count_rows_that_part_and_those_made_again(load, pack, compare):
    model, _ = load(HV10)
    latent = graph.empty_latent(HV10, 3)
    latent["samples"] = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(0)) * 5
    method = "SpeCa runs='this step' threshold=0.2 fewest=1"
    full, cached, said = operations(HV10, model, method, pack, compare, latent_image=latent, steps=12)
    assert said == pytest.approx(full / cached, abs=6e-3)
