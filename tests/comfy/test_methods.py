"""Every feature cache on both families: what none of them may change, and what each of them does."""

import gc
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import comfy.model_management
import graph
import pytest
import recipes
import torch
from cached_steps import NAMES, NEUTRAL, active
from graph import relative_error

STEPS = 8


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("name", NAMES)
def test_a_method_at_its_neutral_setting_is_the_plain_model(name, case, load, attached, sample):
    patched = attached(case, name, NEUTRAL.get(name, {"interval": 1}))
    cached, report = sample(case, patched)
    assert graph.counts(report) == "8 full"
    assert torch.equal(cached, sample(case, load(case)[0])[0])


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("name", NAMES)
def test_cond_and_uncond_together_equal_apart_and_a_second_run_is_the_first(name, case, load, attached, sample):
    model = load(case)[0]
    patched = attached(case, name, active(name), model)
    guided = {"negative": graph.other_conditioning(case, model), "cfg": 3.0}
    together, report = sample(case, patched, **guided)
    again, _ = sample(case, patched, **guided)
    with graph.split_batches(model):
        apart, _ = sample(case, patched, **guided)
    assert "cached" in graph.counts(report)
    assert torch.equal(again, together)
    assert relative_error(apart, together) < 1e-5
    assert relative_error(together, sample(case, model, **guided)[0]) > 1e-4


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("name", NAMES)
def test_batch_two_is_twice_batch_one(name, case, attached, sample):
    patched = attached(case, name, active(name))
    both, _ = sample(case, patched, latent_image=graph.empty_latent(case, batch=2))
    for i in range(2):
        one, _ = sample(case, patched, latent_image=graph.empty_latent(case) | {"batch_index": [i]})
        assert relative_error(one[0], both[i]) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_alive_after_a_run_and_an_interrupted_one_leaves_the_next_as_the_first(name, attached, sample, pack):
    case = "hv10_t2v"
    patched = attached(case, name, active(name))
    first, _ = sample(case, patched)
    interrupted, calls = patched.clone(), []

    def interrupt(apply_model, args):
        calls.append(1)
        if len(calls) == 5:
            comfy.model_management.interrupt_current_processing()
        return apply_model(args["input"], args["timestep"], **args["c"])

    interrupted.set_model_unet_function_wrapper(interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(case, interrupted)
    gc.collect()
    kinds = (
        pack("disca.host.running.run").Run,
        pack("disca.host.running.call").Call,
        pack("disca.host.running.features").FeatureStore,
    )
    assert not [kept for kept in gc.get_objects() if type(kept) in kinds]
    assert torch.equal(sample(case, patched)[0], first)


def calls_of(network, run) -> Counter:
    """How often modules inside blocks ran, by what they are."""
    counts, hooks = Counter(), []
    for name, module in network.named_modules():
        kind = name.rpartition(".")[2]
        if kind in ("qkv", "proj", "img_mlp", "txt_mlp", "linear1", "linear2") and "_blocks." in name:
            hooks.append(module.register_forward_hook(lambda *_, kind=kind: counts.update([kind])))
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return counts


DOUBLE, SINGLE = ("qkv", "proj", "img_mlp", "txt_mlp"), ("linear1", "linear2")
RUNS = {  # what runs on cached steps, of the modules that a full step runs; a hook on linear1 lets it run whole
    "reuse": (), "extrapolation": (), "TaylorSeer-Lite": (), "RFC-Lite": (), "Spectrum": (), "TeaCache": (),
    "MagCache": (), "EasyCache": (), "TaylorSeer": (), "RFC": (), "FORA": (),
    "PAB": ("img_mlp", "txt_mlp", "linear1", "linear2"), "Delta-DiT": DOUBLE,
}  # fmt: skip


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("name", RUNS)
def test_on_a_cached_step_only_what_the_method_needs_runs(name, case, load, attached, sample):
    model, _ = load(case)
    network = model.model.diffusion_model
    plain = calls_of(network, lambda: sample(case, model))
    patched, report = attached(case, name, active(name), model), []
    counts = calls_of(network, lambda: report.append(sample(case, patched)[1]))
    full = int(graph.counts(report[0]).split(" full")[0])
    assert 0 < full < STEPS and plain.keys() == {*DOUBLE, *(SINGLE if case == "hv10_t2v" else ())}
    for module, count in plain.items():
        in_full = count // STEPS
        cached = in_full if module in RUNS[name] else 0
        if name == "Delta-DiT" and not plain["linear1"]:  # the earlier ones of a single kind of blocks
            cached //= len(network.double_blocks)
        assert counts[module] == full * in_full + (STEPS - full) * cached, module


DECIDED = {  # settings beside the threshold that decides
    "TeaCache": {"calibration": "none"},
    "First-Block-Cache": {},
    "EasyCache": {"warmup": 2},
    "SpeCa": {"floor": 0.0, "fewest": 0, "decay": 1.0, "runs": "this step"},
}


@pytest.mark.parametrize("name", DECIDED)
def test_rows_decide_for_themselves(name, load, attached, sample, pack):
    """Three videos of two conditions: at a threshold that parts them, together and apart."""
    case, reports = "hv10_t2v", []
    model = load(case)[0]
    guided = {"negative": graph.other_conditioning(case, model), "cfg": 3.0}
    guided["latent_image"] = graph.empty_latent(case, batch=3)

    def run(threshold: float) -> torch.Tensor:
        patched = attached(case, name, DECIDED[name] | {"threshold": threshold}, model)
        patched.add_callback_with_key(pack("disca.host.running.run").ON_REPORT, "test", reports.append)
        return sample(case, patched, **guided)[0]

    low, high = 0.01, 4.0  # every step in full, and not every one
    for _ in range(24):
        together = run(threshold := (low * high) ** 0.5)
        full = {count for _, count in reports[-1].rows.values()}
        if len(full) > 1:
            break
        low, high = (threshold, high) if full == {STEPS} else (low, threshold)
    assert len(full) > 1 and "steps in full a video and condition" in str(reports[-1])
    with graph.split_batches(model):
        assert relative_error(run(threshold), together) < 1e-5


@pytest.mark.parametrize("name", ["TeaCache", "First-Block-Cache", "EasyCache", "AdaCache", "SpeCa", "TaylorSeer"])
def test_a_row_whose_inputs_change_size_in_the_middle_is_decided_for_anew(name, attached, sample):
    """From the fifth step on the network gets one frame of three."""
    case, calls = "hv10_t2v", []
    patched = attached(case, name, active(name))

    def crop(apply_model, args):
        calls.append(1)
        x = args["input"]
        if len(calls) < 5:
            return apply_model(x, args["timestep"], **args["c"])
        return apply_model(x[:, :, :1], args["timestep"], **args["c"]).expand_as(x)

    patched.set_model_unet_function_wrapper(crop)
    sampled, _ = sample(case, patched)
    assert sampled.isfinite().all()


def test_fora_is_taylorseer_of_order_0(attached, sample):
    settings = {"interval": 3, "warmup": 2}
    fora, _ = sample("hv15_i2v", attached("hv15_i2v", "FORA", settings))
    taylor, _ = sample("hv15_i2v", attached("hv15_i2v", "TaylorSeer", settings | {"order": 0}))
    assert torch.equal(fora, taylor)


def test_toca_that_brings_no_token_up_to_date_is_fora(attached, sample):
    settings = {"interval": 3, "warmup": 2}
    fora, _ = sample("hv10_t2v", attached("hv10_t2v", "FORA", settings))
    toca, _ = sample("hv10_t2v", attached("hv10_t2v", "ToCa", settings | {"ratio": 0.0}))
    assert torch.equal(fora, toca)


def test_speca_that_takes_every_draft_is_taylorseer(attached, sample):
    """At most two drafts in a row: full at 0, 3 and 6, as an interval of 3."""
    drafts = {"threshold": 100.0, "floor": 100.0, "fewest": 0, "most": 2}
    speca, _ = sample("hv10_t2v", attached("hv10_t2v", "SpeCa", drafts))
    taylor, _ = sample("hv10_t2v", attached("hv10_t2v", "TaylorSeer", {"interval": 3, "warmup": 1}))
    assert torch.equal(speca, taylor)


def test_a_draft_that_is_rejected_runs_again_in_full_and_is_counted(attached, load, sample):
    strict = {"threshold": 0.0, "floor": 0.0, "fewest": 0, "runs": "this step"}
    rejecting, report = sample("hv10_t2v", attached("hv10_t2v", "SpeCa", strict))
    assert graph.counts(report) == "8 full"
    assert "7 rejected and made again in full" in report
    assert torch.equal(rejecting, sample("hv10_t2v", load("hv10_t2v")[0])[0])


@pytest.mark.parametrize("case", recipes.CASES)
def test_a_rejected_draft_of_one_video_leaves_one_that_was_due_in_full_as_it_is(
    case, attached, sample, pack, monkeypatch
):
    """In one call both run in full then: what is kept of the one is its own run's, whatever the other's draft was."""
    verifier, run = pack("disca.methods.adaptive.speca")._Verifier, pack("disca.host.running.run").Run
    checked, decider_of = verifier.checked, run._decider
    patched = attached(case, "SpeCa", {"threshold": 100.0, "floor": 100.0, "fewest": 0, "most": 2, "runs": "this step"})
    alone, _ = sample(case, patched)

    def refusing(decider, now, drafted, exact):
        return checked(decider, now, drafted, exact) and not getattr(decider, "refuses", False)

    def watched(self, row):
        found = decider_of(self, row)
        found.refuses = row.video == 1
        return found

    monkeypatch.setattr(verifier, "checked", refusing)
    monkeypatch.setattr(run, "_decider", watched)
    both, report = sample(case, patched, latent_image=graph.empty_latent(case, 2))
    assert "made again in full" in report
    assert graph.relative_error(both[:1], alone) < 1e-5


def test_a_method_that_looks_inside_blocks_needs_blocks_that_it_knows(pack, monkeypatch, load):
    family = pack("disca.models.family")
    kinds = tuple(replace(kind, sites=()) for kind in family.HUNYUANVIDEO_15.kinds)
    plain = replace(family.HUNYUANVIDEO_15, kinds=kinds)
    monkeypatch.setitem(family.FAMILIES, "1.5", plain)
    method = pack("disca.methods").METHODS["FORA"]().method()
    with pytest.raises(ValueError, match="'FORA' looks inside blocks"):
        pack("disca.host.attach").attach(load("hv15_i2v")[0], method)


def test_what_does_not_fit_into_memory_is_refused_with_the_sum(attached, sample, pack, monkeypatch):
    monkeypatch.setattr(
        pack("disca.host.running.memory").psutil, "virtual_memory", lambda: SimpleNamespace(available=1000)
    )
    with pytest.raises(ValueError, match=r"'FORA' holds 0\.0. GB in this run, but there is room for 0\.00 GB"):
        sample("hv10_t2v", attached("hv10_t2v", "FORA", {}))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_to_be_held_is_what_is_held(name, attached, sample, pack, load):
    case = "hv10_t2v"
    model = load(case)[0]
    patched = attached(case, name, active(name))
    reports = []
    patched.add_callback_with_key(pack("disca.host.running.run").ON_REPORT, "test", reports.append)
    sample(case, patched)
    method, network = patched.get_attachment("disca").method, model.model.diffusion_model
    family, latent = pack("disca.models.family").family_of(network), graph.empty_latent(case)["samples"]
    text = graph.conditioning(recipes.golden(case), model)[0][0].shape[1]
    said = pack("disca.host.running.memory").bytes_held(method, family, network, latent.shape, text, 4)
    assert 0 < reports[0].bytes_held <= said
