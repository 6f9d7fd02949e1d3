"""Caches that look at the run: which steps their deciders run in full."""

import math

import pytest
import torch

from disca.methods import METHODS
from disca.methods.adaptive.adacache import CODEBOOKS, AdaCache, RateByChange
from disca.methods.adaptive.easycache import EasyCache, RateOfChange
from disca.methods.adaptive.first_block import FirstBlock, FirstBlockCache
from disca.methods.adaptive.magcache import MagCache, Magnitudes
from disca.methods.adaptive.speca import SpeCa, Verified
from disca.methods.adaptive.teacache import InputChange, TeaCache
from disca.methods.seam.method import FIRST, MODULES, OUTPUT, SECOND, SITES, Span
from disca.methods.seam.when import FULL, Now

ADAPTIVE = ("TeaCache", "MagCache", "AdaCache", "EasyCache", "First-Block-Cache", "SpeCa")
RELEASED = TeaCache().rule().coefficients
NEVER_CACHED = {  # the neutral settings of each
    "TeaCache": [{"threshold": 0.0}],
    "MagCache": [
        {"calibration": name, "threshold": 0.0} for name in ("HunyuanVideo 1.0, 720p", "HunyuanVideo 1.5, 40 steps")
    ]
    + [{"most": 0}, {"retention": 1.0}],
    "AdaCache": [{"rate": 0.0}, {"final": 100}],
    "EasyCache": [{"threshold": 0.0}, {"warmup": 100}],
    "First-Block-Cache": [{"threshold": 0.0}, {"most": 0}, {"end": 0.0}, {"start": 1.0}],
    "SpeCa": [{"most": 0}],
}


def times(steps):
    return [1 - i / steps for i in range(steps + 1)]


def full_steps(rule, steps, look=None, exact=None, forced=(), sigmas=None):
    """The steps of a row that a decider runs in full: `look(step)` gives signals, `exact(step)` what a check finds."""
    decider, last, found = rule.fresh(sigmas or times(steps)), None, []
    for step in range(steps):
        signals = look(step) if look else {}
        now = Now(step, last, signals.__getitem__)
        full = decider.decide(now) == FULL or step in forced
        if not full and rule.checks:
            full = not decider.checked(now, *exact(step))
        if full:
            decider.saw(now)
            last = step
            found.append(step)
    return found


def moving(step):
    """Signals that change in every step, each by its own law."""
    x = torch.tensor([[1.0 + step, 2.0]])
    return {
        "latent": x,
        "entering": x,
        "modulated": x,
        "after_first": 2 * x + 1,
        "middle": x,
        "output": x * x,
    }


def not_a_number(step):
    return {name: torch.full_like(tensor, math.nan) for name, tensor in moving(step).items()}


def calm(step):
    """Signals in which nothing but the latent changes."""
    same = {name: torch.ones(1, 2) for name in moving(0)}
    return same | {"latent": torch.tensor([1.0 + step]), "after_first": torch.full((1, 2), 2.0)}


def constant(step):
    return {name: torch.ones(1, 2) for name in moving(0)}


def drafts(error):
    """A draft that is off by a share of what is exact."""
    return lambda step: (torch.full((1, 4), 2 * (1 + error)), torch.full((1, 4), 2.0))


def listed(text):
    return [step for part in text.split(",") for step in _range(part)]


def _range(part):
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


@pytest.mark.parametrize(("name", "settings"), [(name, one) for name, each in NEVER_CACHED.items() for one in each])
@pytest.mark.parametrize("signals", [moving, constant])
def test_a_neutral_setting_runs_every_step_in_full(name, settings, signals):
    assert full_steps(METHODS[name](**settings).rule(), 20, signals, drafts(0.0)) == [*range(20)]


@pytest.mark.parametrize("name", ["TeaCache", "EasyCache", "First-Block-Cache", "AdaCache"])
def test_what_is_not_a_number_runs_in_full(name):
    assert full_steps(METHODS[name]().rule(), 12, not_a_number) == [*range(12)]


@pytest.mark.parametrize(
    ("name", "settings"), [("TeaCache", {"calibration": "none"}), ("EasyCache", {}), ("First-Block-Cache", {})]
)
def test_one_step_that_is_not_a_number_is_full_and_later_ones_are_cached_again(name, settings):
    rule = METHODS[name](**settings).rule()
    assert not {6, 10} & {*full_steps(rule, 12, calm)}
    found = full_steps(rule, 12, lambda step: not_a_number(step) if step == 6 else calm(step))
    assert 6 in found and 10 not in found


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("signals", [moving, constant])
def test_the_first_step_of_a_row_is_full_and_all_of_a_run_of_one_step(name, signals):
    rule = METHODS[name]().rule()
    assert full_steps(rule, 20, signals, drafts(0.0))[0] == 0
    assert full_steps(rule, 1, signals, drafts(0.0)) == [0]


@pytest.mark.parametrize("name", ["TeaCache", "EasyCache", "First-Block-Cache", "AdaCache", "SpeCa"])
def test_a_row_that_starts_late_starts_in_full(name):
    decider = METHODS[name]().rule().fresh(times(20))
    assert decider.decide(Now(9, None, moving(9).__getitem__)) == FULL


@pytest.mark.parametrize("name", ["TeaCache", "EasyCache", "First-Block-Cache", "AdaCache"])
def test_a_decider_lists_the_tensors_that_it_keeps_each_once(name):
    decider = METHODS[name]().rule().fresh(times(20))
    assert [*decider.held()] == []
    for step in range(3):
        now = Now(step, step - 1 if step else None, moving(step).__getitem__)
        decider.decide(now)
        decider.saw(now)
    kept = [tensor for value in vars(decider).values() for tensor in (value if isinstance(value, tuple) else [value])]
    kept = {id(tensor) for tensor in kept if isinstance(tensor, torch.Tensor) and tensor.ndim}
    assert kept == {id(tensor) for tensor in decider.held()} and len(kept) == len([*decider.held()])


def test_where_they_stand_in():
    where = {name: METHODS[name]().ways()[0].where for name in ADAPTIVE}
    assert [where[name] for name in ADAPTIVE] == [FIRST, FIRST, FIRST, OUTPUT, SECOND, SITES]
    assert SpeCa().ways()[0].sites == MODULES


@pytest.mark.parametrize("name", ADAPTIVE)
def test_presets_are_settings(name):
    assert all(METHODS[name](**settings).method().name == name for settings in METHODS[name].presets.values())


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("TeaCache", {"threshold": -0.1}, "'threshold' is -0.1, but must be at least 0."),
        ("TeaCache", {"threshold": math.nan}, "'threshold' is nan, but must be a finite number."),
        ("TeaCache", {"coefficients": (1.0, math.inf)}, "'coefficients' is inf, but must be a finite number."),
        ("TeaCache", {"coefficients": (1.0,) * 6}, "but must be a list of at most 5."),
        ("TeaCache", {"calibration": "Wan"}, "'calibration' is 'Wan', but must be one of"),
        ("MagCache", {"most": 101}, "'most' is 101, but must be at most 100."),
        ("MagCache", {"most": 2.0}, "'most' is 2.0, but must be a whole number."),
        ("MagCache", {"retention": 1.1}, "'retention' is 1.1, but must be at most 1."),
        ("MagCache", {"ratios": (1.0, 0.0)}, "'ratios' is 0.0, but must be at least 1e-06."),
        ("AdaCache", {"codebook": "slowest"}, "'codebook' is 'slowest', but must be one of"),
        ("AdaCache", {"rate": True}, "'rate' is True, but must be a finite number."),
        ("EasyCache", {"warmup": 0}, "'warmup' is 0, but must be at least 1."),
        ("First-Block-Cache", {"start": -1}, "'start' is -1, but must be at least 0."),
        ("SpeCa", {"decay": 1.5}, "'decay' is 1.5, but must be at most 1."),
        ("SpeCa", {"error": "L3"}, "'error' is 'L3', but must be one of 'L1' or 'L2'."),
    ],
)
def test_a_setting_that_no_run_can_have_is_refused_in_a_sentence(name, settings, told):
    with pytest.raises(ValueError) as error:
        METHODS[name](**settings)
    assert told in str(error.value)


# TeaCache


def test_teacache_on_a_constant_input_runs_every_second_step_at_015():
    assert full_steps(TeaCache(threshold=0.15).rule(), 9, constant) == [0, 2, 4, 6, 8]


def test_teacache_below_the_least_of_its_polynomial_never_caches():
    assert full_steps(TeaCache(threshold=0.05).rule(), 20, moving) == [*range(20)]


def test_teacache_without_a_limit_runs_the_first_and_the_last_step():
    assert full_steps(InputChange(math.inf, RELEASED), 50, moving) == [0, 49]


def test_teacache_compares_with_the_step_before_also_when_that_was_cached():
    values = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]  # against the last full step every one would be a change of 1
    read = full_steps(InputChange(1.5), 6, lambda step: {"modulated": torch.tensor([[values[step]]])})
    assert read == [0, 5]


def test_teacache_sums_changes_until_a_full_step_and_then_from_zero():
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]  # a change of 1 in each step
    rule = InputChange(2.5)
    signals = [{"modulated": torch.tensor([[value]])} for value in values]
    assert full_steps(rule, 8, signals.__getitem__) == [0, 3, 6, 7]
    assert full_steps(rule, 8, signals.__getitem__, forced={2}) == [0, 2, 5, 7]


@pytest.mark.parametrize(("change", "estimate"), [(0.0, 0.0961), (0.1, 0.129), (0.2, 0.134), (0.3, 0.343), (0.4, 2.75)])
def test_teacaches_released_polynomial(change, estimate):
    assert TeaCache().rule().estimated(change) == pytest.approx(estimate, rel=4e-3)


def test_teacache_without_a_calibration_takes_the_change_itself_and_with_your_own_that():
    assert TeaCache(calibration="none").rule().estimated(0.3) == 0.3
    assert TeaCache(coefficients=(2.0, 1.0)).rule().estimated(0.5) == 2


def test_a_polynomial_that_falls_below_zero_takes_nothing_off_the_sum_and_an_endless_change_is_not_small():
    assert InputChange(1.0, (-1.0, 0.0)).estimated(3.0) == 0
    assert InputChange(1.0, (-1.0, 0.0)).estimated(math.inf) == math.inf


def test_at_a_repeated_time_the_last_step_is_the_first_of_that_time():
    sigmas = [1.0, 0.8, 0.6, 0.6, 0.0]
    assert full_steps(InputChange(math.inf), 3, moving, sigmas=sigmas) == [0, 2]


# MagCache


@pytest.mark.parametrize(
    ("settings", "steps", "full"),
    [
        (MagCache.presets["HunyuanVideo 1.0, 720p, slow"], 50, "0-9,12,15,18,22,25,29,33,38,43,46,48,49"),
        (MagCache.presets["HunyuanVideo 1.0, 720p, fast"], 50, "0-9,14,18,23,29,34,41,46,48,49"),
        (MagCache.presets["HunyuanVideo 1.0, 544p, fast"], 50, "0-9,14,18,23,29,34,41,46,48"),
        (MagCache.presets["HunyuanVideo 1.5, 20 steps"], 20, "0-4,7,10,13,15,17-19"),
        (
            {"calibration": "HunyuanVideo 1.5, 40 steps", "threshold": 0.24, "most": 12, "retention": 0.02},
            50,
            "0,5,18,28,36,42,46,49",
        ),
        (
            {"calibration": "HunyuanVideo 1.5, 40 steps", "threshold": 1.0, "most": 16, "retention": 0.02},
            50,
            "0,17,34,45",
        ),
    ],
)
def test_magcaches_full_steps_are_the_published_ratios(settings, steps, full):
    rule = MagCache(**settings).rule()
    assert full_steps(rule, steps) == listed(full)
    assert [step for step, way in enumerate(rule.plan(times(steps))) if way == FULL] == listed(full)


def test_magcache_at_the_first_step_is_full_without_any_retention():
    assert full_steps(Magnitudes((1.0, 1.0, 1.0), 1.0, 5, 0.0), 3) == [0]


def test_magcache_caches_at_most_that_many_in_a_row():
    assert full_steps(Magnitudes((1.0,) * 10, 1.0, 3, 0.0), 10) == [0, 4, 8]


def test_magcache_multiplies_the_ratios_and_sums_the_errors():
    ratios = (1.0, 0.5, 0.5, 0.5, 0.5)  # R 0.5, 0.25; errors 0.5, 1.25
    assert full_steps(Magnitudes(ratios, 1.25, 9, 0.0), 5) == [0, 2, 4]
    assert full_steps(Magnitudes(ratios, 1.3, 9, 0.0), 5) == [0, 3]


# AdaCache


@pytest.mark.parametrize("codebook", CODEBOOKS.values())
def test_a_smaller_change_never_makes_the_next_full_step_nearer(codebook):
    rule = RateByChange(codebook)
    steps = [rule.steps_after(change / 1000) for change in range(1200)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == codebook[-1][1]


def test_a_change_at_a_limit_belongs_to_the_next_row_of_the_codebook():
    rule = RateByChange(((0.5, 4), (1.0, 2)))
    assert [rule.steps_after(change) for change in (0.4999, 0.5, 1.0, 7.0)] == [4, 2, 2, 2]


def test_an_unknown_change_makes_the_next_step_full():
    assert [RateByChange(CODEBOOKS["100 steps"]).steps_after(change) for change in (math.nan, math.inf)] == [1, 1]


def test_adacache_runs_the_first_two_and_the_last_two_steps_and_goes_by_its_codebook_between():
    assert full_steps(AdaCache(codebook="fast").rule(), 20, constant) == [0, 1, 7, 13, 18, 19]
    assert full_steps(AdaCache(codebook="fast", final=0).rule(), 20, constant) == [0, 1, 7, 13, 19]
    assert full_steps(AdaCache(codebook="fast", final=0, rate=0.5).rule(), 12, constant) == [0, 1, 4, 7, 10]


def test_a_codebook_of_ones_runs_every_step():
    assert full_steps(RateByChange(((1.0, 1),)), 20, constant) == [*range(20)]


def test_adacaches_change_is_counted_by_the_step():
    def look(step):
        return {"middle": torch.tensor([[1.0 + step]])}

    rule = RateByChange(((0.25, 4), (0.6, 2), (1.0, 1)), final=0)
    # 1 -> 2: 1, so 1; 2 -> 3: 0.5, so 2; 3 -> 5: 2/3 by 2 steps, so 2; 5 -> 7: 0.2, so 4
    assert full_steps(rule, 12, look) == [0, 1, 2, 4, 6, 10]


# EasyCache


def test_easycaches_rate_is_that_between_the_last_two_full_steps():
    def look(step):  # the answer is 3x: k = 3, and x moves by 1 from 10 on
        x = torch.tensor([10.0 + step])
        return {"latent": x, "output": 3 * x}

    # behind step 1, |v| = 33: each cached step adds 3/33
    assert full_steps(RateOfChange(3.5 / 11, 2), 9, look) == [0, 1, 5, 8]
    decider = RateOfChange(1.0, 1).fresh(times(9))
    for step, last in ((0, None), (1, 0)):
        now = Now(step, last, look(step).__getitem__)
        decider.decide(now)
        decider.saw(now)
    assert decider._rate.item() == pytest.approx(3 / 33)


def test_easycache_runs_the_warmup_and_the_last_step():
    def look(step):
        return {"latent": torch.tensor([1.0 + step]), "output": torch.tensor([7.0])}  # an answer that stays: k = 0

    assert full_steps(EasyCache().rule(), 20, look) == [0, 1, 2, 3, 4, 19]
    assert full_steps(RateOfChange(1.0, 1), 20, look) == [0, 1, 19]  # no rate before the second full step


def test_easycache_is_exact_where_the_answer_is_the_latent_and_an_offset():
    what = EasyCache().ways()[0].what
    x, offset = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 4.0]])
    kept = what.keep((x,), (x + offset,), [], [])
    later = torch.tensor([[3.0, 8.0]])
    (answer,) = what.answer((later,), kept, [Span(1, 0.1)], None, {})
    assert torch.equal(answer, later + offset)


def test_channels_that_stay_change_no_decision_of_easycache():
    def look(step, more=0):
        x = torch.cat([torch.tensor([10.0 + step]), torch.full((more,), 100.0)])
        return {"latent": x, "output": 3 * x[:1]}

    rule = RateOfChange(3.5 / 11, 2)
    assert full_steps(rule, 20, look) == full_steps(rule, 20, lambda step: look(step, 5))


# First-Block-Cache


def first_block(values):
    """Signals of a first block that adds these numbers, a step each, to other tokens in each step."""

    def look(step):
        entering = torch.tensor([[8.0 * step, 4.0]])
        return {"entering": entering, "after_first": entering + values[step]}

    return look


def test_first_block_cache_compares_with_the_last_full_step_alone():
    values = [8.0, 9.0, 10.0, 11.0, 12.0, 13.0]  # 8 -> 10 is a quarter; 10 -> 13 more
    assert full_steps(FirstBlock(0.25), 6, first_block(values)) == [0, 2, 5]


def test_a_step_that_others_want_in_full_is_what_the_next_is_compared_with():
    values = [8.0, 9.0, 10.0, 11.0, 12.0, 13.0]
    assert full_steps(FirstBlock(0.25), 6, first_block(values), forced={1}) == [0, 1, 4]


def test_first_block_cache_keeps_to_its_share_of_the_steps_and_to_so_many_in_a_row():
    same = first_block([1.0] * 10)
    assert full_steps(FirstBlock(0.1), 10, same) == [0]
    assert full_steps(FirstBlock(0.1, start=0.3, end=0.8), 10, same) == [0, 1, 2, 8, 9]
    assert full_steps(FirstBlock(0.1, most=2), 10, same) == [0, 3, 6, 9]


def test_a_first_block_that_adds_nothing_runs_every_step_in_full():
    assert full_steps(FirstBlockCache().rule(), 5, first_block([0.0] * 5)) == [*range(5)]


# SpeCa


@pytest.mark.parametrize("runs", ["next step", "this step"])
@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_speca_between_its_limits(runs, norm):
    rule = SpeCa(runs=runs, error=norm).rule()
    assert full_steps(rule, 50, exact=drafts(0.0)) == [0, 13, 26, 39]
    assert full_steps(rule, 50, exact=drafts(9.0)) == [*range(0, 50, 5)]
    assert full_steps(rule, 50, exact=drafts(math.nan)) == [*range(0, 50, 5)]


@pytest.mark.parametrize(("runs", "full"), [("this step", [0, 7, 14]), ("next step", [0, 8])])
def test_too_large_an_error_runs_this_step_again_as_in_the_paper_or_the_next_as_released(runs, full):
    def exact(step):
        return drafts(9.0 if step in (7, 14) else 0.0)(step)

    assert full_steps(SpeCa(runs=runs, fewest=0, most=12).rule(), 15, exact=exact) == full


def test_a_step_that_was_run_again_starts_the_count_anew():
    rule = Verified(fewest=2, most=3, rejects=True)
    assert full_steps(rule, 12, exact=lambda step: drafts(9.0 if step == 3 else 0.0)(step)) == [0, 3, 7, 11]


def test_specas_threshold_falls_from_one_to_a_tenth_and_not_below_its_floor():
    rule = Verified()
    assert rule.tolerance(0) == 1 and rule.tolerance(1) == pytest.approx(0.1)
    assert rule.tolerance(0.5) == pytest.approx(0.1**0.5)
    assert Verified(floor=0.4).tolerance(0.9) == 0.4


def test_specas_norms_are_relative_to_what_is_exact():
    far = (torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]]))  # L1 4/3; L2 the same
    near = (torch.tensor([[1.0, 1.0, 3.0, 3.0]]), torch.tensor([[2.0, 2.0, 2.0, 2.0]]))  # 0.5; 0.5
    mixed = (torch.tensor([[2.0, 2.0, 2.0, 6.0]]), torch.tensor([[2.0, 2.0, 2.0, 2.0]]))  # 0.5; 1
    for pair, expected in ((far, (4 / 3, 4 / 3)), (near, (0.5, 0.5)), (mixed, (0.5, 1.0))):
        for order, error in zip((1, 2), expected, strict=True):
            now = Now(1, 0, None)
            above, below = (
                Verified(threshold=limit, decay=1.0, floor=0.0, fewest=0, order=order, rejects=True)
                for limit in (error * 1.001, error * 0.999)
            )
            assert above.fresh(times(9)).checked(now, *pair) and not below.fresh(times(9)).checked(now, *pair)


def test_a_draft_along_a_line_has_no_error():
    what = SpeCa().ways()[0].what
    first, second = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 8.0]])
    kept = what.keep((), (first,), [], [])
    kept = what.keep((), (second,), kept, [Span(2, 0.2)])
    (drafted,) = what.answer((second,), kept, [Span(4, 0.4)], None, {})
    assert torch.equal(drafted, second + 2 * (second - first))
