"""The list of full steps that leaves least error, found for a MODEL with its method and some prompts."""

import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor

from ...finding import Listed, Search, Steps, each_once, report_of, rival_of, written
from ...meanflow import shifted_sigmas
from ...measured import Measured, calls_to_measure, measure
from ...methods.seam.anchors import AtAnchors
from ...methods.seam.method import FIRST, SITES, Method, Way
from ...methods.seam.when import FULL
from ...models.checks import family_of_model
from ...rehearsal import Calls, calls_to_try
from ...schedule import PRESETS, Anchors
from ...schedule_chart import Mark, draw_chart
from ...schedule_file import Found, MeasuredOn
from ..running import progress
from ..running.run import KEY
from .asked import Asked, require_measurable, require_room, scenes_of
from .call_bar import CallBar
from .rehearsing import Scenes, rehearse
from .trials import Trials

REACH = 2  # full steps at most that answers are measured with: of three there would be a thousand lists
SO_FAR = "on the MODEL so far"
OURS = "(ours)"  # in the names of lists that are not published
KEPT, OTHERS = "#228833", "#ee6677"

logger = logging.getLogger(__name__)


class Finding(NamedTuple):
    """What was found."""

    schedule: Found
    report: str
    chart: Image.Image


def find_schedule(model: ModelPatcher, asked: Asked) -> Finding:
    """The best of the lists that measurements speak for and of those that others use; nothing stays on the MODEL.

    Costs are measured with what the method keeps over a stretch of blocks or of the output. A method that answers
    only inside blocks is measured as if it answered for all blocks at once. Lists are tried with the method as it is.
    """
    begun, method = time.perf_counter(), _method_of(model)
    require_measurable(model, asked)
    scenes, sigmas = scenes_of(model, asked), shifted_sigmas(asked.steps, asked.shift)
    method.at(AtAnchors(Anchors((0,)))).when.plan(sigmas.tolist())  # a network of its own may be for other runs
    way = measured_way(method)
    reach = min(way.what.reach, REACH)
    require_room(model, method, way, scenes, asked.steps)
    rivals = _rivals(method, sigmas.tolist())
    expected = _calls(asked, reach, rivals)
    before = _estimate(expected, asked)
    logger.info("DisCa: %s", before)
    progress.show(before)
    bar = CallBar(expected)

    def measured_on(prompts) -> Measured:
        return measure(prompts, sigmas.tolist(), reach, asked.cheap, bar)

    measured = rehearse(model, way, scenes, sigmas, measured_on)
    trials = Trials(model, scenes, sigmas, measured.ends, bar, measured.calls)
    search = Search(measured.choices(), rivals, trials.error_of, asked.thorough)
    kept = search.find(asked.goal)
    rival = rival_of(search, rivals, len(kept))
    facts = [*_notes(method, way), _spent(trials.calls, time.perf_counter() - begun, scenes)]
    published = rival_of(search, [one for one in rivals if one.origin != SO_FAR and OURS not in one.origin], len(kept))
    schedule = _found(model, asked, method, scenes, search, kept, published)
    report = report_of(search, kept, asked.steps, not asked.cheap, facts)
    progress.show(f"{written(kept)}\n{len(kept):d} of {asked.steps:d} in full, error {search.errors[kept]:.3g}")
    return Finding(schedule, report, _chart(search, kept, rival, asked))


def measured_way(method: Method) -> Way:
    """What stands in while costs are measured: its way over a stretch or the output, else its What over all blocks."""
    whole = [way for way in method.ways if way.where != SITES]
    return whole[0] if whole else Way(method.ways[0].what, FIRST)


def _method_of(model: ModelPatcher) -> Method:
    attachment = model.get_attachment(KEY)
    if attachment is None or attachment.method is None:
        raise ValueError(
            "There is no cache on this MODEL that a schedule could be found for. Put DisCa Apply Predictor or DisCa "
            "Apply Cache before this node."
        )
    return attachment.method


def _rivals(method: Method, sigmas: list[float]) -> list[Listed]:
    """Published lists for so many steps, and the one that the MODEL has now, if it is one."""
    steps = len(sigmas) - 1
    lists = {name: preset.listed for name, preset in PRESETS.items() if preset.steps == steps}
    try:
        plan = method.when.plan(sigmas) or ()
    except ValueError:  # it is for other runs
        plan = ()
    lists[SO_FAR] = [step for step, way in enumerate(plan) if way == FULL]
    return each_once([Listed(tuple(anchors), name) for name, anchors in lists.items() if anchors])


def _calls(asked: Asked, reach: int, rivals: Sequence[Listed]) -> Calls:
    """About what is to come; how many lists an allowed error takes is not known before."""
    full_steps = asked.goal.full_steps or asked.steps // 2
    lists = [range(full_steps)] * ((1 if asked.cheap else 2) + sum(len(one.anchors) == full_steps for one in rivals))
    parts = (calls_to_measure(asked.steps, reach, asked.cheap), calls_to_try(lists, asked.steps))
    full, answered = map(sum, zip(*parts, strict=True))
    return Calls(full * len(asked.positives), answered * len(asked.positives))


def _estimate(expected: Calls, asked: Asked) -> str:
    plain = asked.steps * len(asked.positives)
    runs = f"as {expected.full / plain:.1f} runs in full, and {expected.answered:d} cached steps"
    open_ended = asked.thorough or asked.goal.allowed_error is not None
    more = ", and more for each further list that is tried" if open_ended else ""
    return f"finding the schedule takes about as long {runs}{more}"


def _notes(method: Method, way: Way) -> list[str]:
    notes = []
    if way not in method.ways:
        notes.append("the method answers inside blocks: costs were measured as if it answered for all of them at once")
    if len(method.ways) > 1:
        notes.append("the method has several ways: costs were measured with one of them")
    if way.what.renews:
        notes.append("the method's answers change what it keeps: costs were measured without that")
    if way.what.reach > REACH:
        notes.append(f"the method looks at more full steps than {REACH:d}: costs were measured with these")
    return notes


def _spent(calls: Calls, seconds: float, scenes: Scenes) -> str:
    videos = len(scenes.positives) * len(scenes.noise)
    on = "a video" if videos == 1 else f"{videos:d} videos"
    return f"{calls.full:d} calls in full and {calls.answered:d} cached steps in {seconds:.3g} s, on {on}"


def _found(
    model: ModelPatcher, asked: Asked, method: Method, scenes: Scenes, search: Search, kept: Steps, published: Steps
) -> Found:
    family = family_of_model(model)
    measured = MeasuredOn(
        width=family.widths(model.model.diffusion_model)[0],
        size=_size(model, scenes.noise),
        prompts=len(asked.positives),
        seed=asked.seed,
        error=search.errors[kept],
        published=published,
        published_error=search.errors[published] if published else None,
        estimated=() if asked.cheap else tuple(search.expected),
    )
    name = asked.name or f"found, {len(kept):d} of {asked.steps:d}"
    return Found(kept, asked.steps, name, family=family.title, shift=asked.shift, method=method.name, measured=measured)


def _size(model: ModelPatcher, latent: Tensor) -> tuple[int, int, int]:
    """Width, height and frames of the video."""
    form = model.get_model_object("latent_format")
    frames, height, width = latent.shape[2:]
    each = form.spacial_downscale_ratio
    return width * each, height * each, (frames - 1) * form.temporal_downscale_ratio + 1


def _chart(search: Search, kept: Steps, rival: Steps, asked: Asked) -> Image.Image:
    """With the lists that were run, where what is drawn is of the same kind."""
    if asked.cheap:
        title = "error of the answers on the path in full, by the number of full steps"
        count, proposed = len(kept), search.proposed(len(kept))
        name, colour = ("found", KEPT) if proposed == kept else ("measured, not kept", OTHERS)
        best = Mark(f"{name}: {written(proposed)}", count, search.expected[count - 1], colour)
        return draw_chart(search.expected, [best], title)
    marks = [Mark(f"found: {written(kept)}, {search.errors[kept]:.2g} in a run", len(kept), search.errors[kept], KEPT)]
    if rival and rival != kept:
        name = f"compared with: {written(rival)}, {search.errors[rival]:.2g} in a run"
        marks.append(Mark(name, len(rival), search.errors[rival], OTHERS))
    return draw_chart(search.expected, marks, "error expected, by the number of full steps")
