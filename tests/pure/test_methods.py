"""What every cache promises as a choice of the user's."""

from typing import Literal, get_args, get_origin

import pytest

from disca.methods import METHODS
from disca.methods.seam.anchors import AtAnchors
from disca.methods.seam.method import FIRST, LATE, MODULES, OUTPUT, SECOND, SITES
from disca.methods.seam.when import FULL
from disca.schedule import Anchors
from disca.settings.fields import fields_of

SIGMAS = [1 - step / 20 for step in range(21)]
EVERY_STEP = {"Spectrum": {"growth": 0.0}}  # what else its interval of 1 needs
KNOWN_SITES = {*MODULES, "attn"}

every_method = pytest.mark.parametrize("name", METHODS)
scheduled = pytest.mark.parametrize("name", [name for name, cache in METHODS.items() if cache.scheduled])
presets = pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name, cache in METHODS.items() for preset in cache.presets]
)


@every_method
def test_it_says_what_it_is_and_where_it_is_from(name):
    cache = METHODS[name]
    assert cache.name == name and cache.title and cache.source
    assert cache.__doc__ and not cache.__doc__.startswith(f"{cache.__name__}(")


@every_method
def test_each_setting_says_what_it_is(name):
    for setting in fields_of(METHODS[name]).values():
        assert setting.description.endswith(".")


@presets
def test_a_preset_makes_settings_and_a_method(name, preset):
    cache = METHODS[name](**METHODS[name].presets[preset])
    assert cache.method().name == name


@presets
def test_a_preset_names_settings_that_are_there_with_their_types(name, preset):
    cache = METHODS[name]
    for setting, value in cache.presets[preset].items():
        kind = fields_of(cache)[setting].annotation
        assert value in get_args(kind) if get_origin(kind) is Literal else isinstance(value, kind)


@scheduled
def test_interval_1_is_full_at_every_step(name):
    rule = METHODS[name](interval=1, **EVERY_STEP.get(name, {})).rule()
    assert rule.plan(SIGMAS) == (FULL,) * 20


@scheduled
def test_the_first_step_is_full(name):
    assert METHODS[name]().rule().plan(SIGMAS)[0] == FULL


@scheduled
def test_another_list_takes_the_place_of_its_own(name):
    plan = METHODS[name]().method(AtAnchors(Anchors((0, 3, 9)))).when.plan(SIGMAS)
    assert [step for step, decision in enumerate(plan) if decision == FULL] == [0, 3, 9]


@every_method
def test_its_ways_lead_to_places_that_are_known(name):
    for way in METHODS[name]().ways():
        assert way.where in (FIRST, SECOND, LATE, SITES, OUTPUT)
        assert bool(way.sites) == (way.where == SITES)
        assert {*way.others} <= {*way.sites} <= KNOWN_SITES


@pytest.mark.parametrize(
    ("name", "where", "sites"),
    [
        ("FORA", SITES, MODULES),
        ("RFC", SITES, MODULES),
        ("PAB", SITES, ("img_attn", "txt_attn", "attn")),
        ("ToCa", SITES, (*MODULES, "attn")),
        ("Delta-DiT", LATE, ()),
        ("RFC-Lite", FIRST, ()),
        ("Spectrum", FIRST, ()),
        ("LESA", OUTPUT, ()),
    ],
)
def test_it_stands_in_where_the_paper_has_it(name, where, sites):
    (way,) = METHODS[name]().ways()
    assert (way.where, way.sites) == (where, sites)


@scheduled
def test_its_plan_names_ways_that_it_has(name):
    method = METHODS[name]().method()
    assert {FULL, *range(len(method.ways))} == {*method.when.plan(SIGMAS)}


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("FORA", {"interval": 0}, "'interval' is 0, but must be at least 1."),
        ("FORA", {"warmup": 0}, "'warmup' is 0, but must be at least 1."),
        ("FORA", {"order": 1}, "'order' is not a key of the run."),
        ("Delta-DiT", {"interval": 101}, "'interval' is 101, but must be at most 100."),
        ("PAB", {"high": 1001}, "'high' is 1001, but must be at most 1000."),
        ("PAB", {"low": 800, "high": 100}, "Set 'low' below 'high'."),
        ("PAB", {"low": 500, "high": 500}, "no timestep lies between them"),
        ("ToCa", {"ratio": 1.1}, "'ratio' is 1.1, but must be at most 1."),
        ("DuCa", {"slope": -0.1}, "'slope' is -0.1, but must be at least 0."),
        ("RFC", {"threshold": -1}, "'threshold' is -1, but must be at least 0."),
        ("RFC-Lite", {"threshold": "much"}, "'threshold' is 'much', but must be a finite number."),
        ("Spectrum", {"ridge": 0}, "'ridge' is 0, but must be at least 0.0001."),
        ("Spectrum", {"history": 1}, "'history' is 1, but must be at least 2."),
        ("LESA", {"interval": 2.5}, "'interval' is 2.5, but must be a whole number."),
    ],
)
def test_a_setting_out_of_its_range_is_refused_in_a_sentence(name, settings, told):
    with pytest.raises(ValueError) as error:
        METHODS[name](**settings)
    assert told in str(error.value)
