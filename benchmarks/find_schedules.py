"""What schedules that find themselves are worth on the toy world, against the published lists of as many full steps.

    COMFYUI_PATH=... python benchmarks/find_schedules.py                      shift 1, 2 and 5, three seeds
    COMFYUI_PATH=... python benchmarks/find_schedules.py --shifts 5 --prompts 1 --method reuse
    COMFYUI_PATH=... python benchmarks/find_schedules.py --full-steps 4 5 6

Lists are found on `--prompts` scenes and run on `--held-out` others with other noise; a seed is other noise for both.
Errors are squared distances to the video with all 20 steps in full, relative to the squared video. Of the lists found
by either measure and the published one, the one is kept whose runs came closest on the scenes that were measured; of
that one anchors are moved one by one for as long as runs come closer. At the end the lists of 8 of shift 1, 2 and 5 are
run at the other shifts too.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from disca.training.network.comfy import prepare_comfy

prepare_comfy("cpu")

import comfy.ops  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from disca.finding import Listed, Search, Steps, written  # noqa: E402
from disca.meanflow import shifted_sigmas  # noqa: E402
from disca.measured import Measured, measure  # noqa: E402
from disca.methods.scheduled.disca import Learned  # noqa: E402
from disca.methods.seam.method import Span, What  # noqa: E402
from disca.methods.seam.whats import Reuse, Taylor  # noqa: E402
from disca.models.loading import build_predictor, load_network  # noqa: E402
from disca.rehearsal import Anchor, Answer, full_run, try_lists  # noqa: E402
from disca.schedule import PRESETS  # noqa: E402
from disca.toy import WEIGHTS, world  # noqa: E402
from disca.training.network.blocks import make_out_of_place  # noqa: E402
from disca.training.network.velocity import Network  # noqa: E402
from disca.weights.files import open_weights  # noqa: E402
from disca.weights.predictor_file import read_predictor  # noqa: E402

STEPS, GUIDANCE = 20, 3.0
HELD_OUT, FIND_ON = 900_000, 910_000  # the first scenes of either; no training comes to them
WHATS = {"reuse": Reuse(), "half-damped": Taylor(1, 0.5), "Taylor 1": Taylor(1), "Taylor 2": Taylor(2)}
PUBLISHED = {len(preset.listed): preset for preset in PRESETS.values() if preset.steps == STEPS and "N=" in preset.name}

COLUMNS = ("published", "kept", "moved", "by drift", "by misses", "expected", "came")
HEADINGS = "  ".join(f"{column:>9s}" for column in (*COLUMNS, "kept /", "moved / published"))
Figures = dict[int, list[float]]  # of each budget: the errors under COLUMNS
CARRIED = 8  # of the steps in full in the lists that are run at other shifts


class Models(NamedTuple):
    """What ships: the distilled network and its Predictor."""

    network: Network
    predictor: nn.Module


class ToyPrompts:
    """Scenes on the shipped network, their steps answered by one method's What."""

    def __init__(self, models: Models, what: What, sigmas: Sequence[float], scenes: range, seed: int):
        (self._network, self._compute), self._what, self._sigmas = models, what, sigmas
        drawn = world.Scene(*map(torch.cat, zip(*map(world.random_scene, scenes), strict=True)))
        self._condition = world.condition(drawn.attributes) | {"guidance": torch.full((len(scenes),), GUIDANCE)}
        shape = world.to_latents(world.pictures(drawn)).shape
        self.noise = torch.randn(shape, generator=torch.Generator().manual_seed(scenes.start + seed))

    def full(self, step: int, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The network's."""
        return self._network.velocity_and_features(x, *self._times(step), self._condition)

    def answering(self, anchors: Sequence[Anchor]) -> Answer:
        """The method's."""
        kept, steps = [], [anchor.step for anchor in anchors]
        for i, anchor in enumerate(anchors):
            kept = list(self._what.keep((), anchor.features, kept, self._spans(steps[:i], anchor.step)))

        def answer(step: int, y: Tensor) -> Tensor:
            ages = self._spans(steps, step)
            at = {"step": step, "sigmas": self._sigmas, "t": self._sigmas[step]}

            def made(tokens: Sequence[Tensor], arguments: Mapping[str, Any]) -> Sequence[Tensor]:
                return self._what.answer(tokens, kept, ages, self._compute, {**at, "arguments": arguments})

            return self._network.answered_velocity(made, y, *self._times(step), self._condition)

        return answer

    def _times(self, step: int) -> tuple[Tensor, Tensor]:
        count = len(self.noise)
        return torch.full((count,), self._sigmas[step]), torch.full((count,), self._sigmas[step + 1])

    def _spans(self, steps: Sequence[int], now: int) -> list[Span]:
        return [Span(now - step, self._sigmas[step] - self._sigmas[now]) for step in reversed(steps)]


def shipped() -> Models:
    """The models whose weights ship."""
    network = load_network(str(WEIGHTS / "meanflow.safetensors"), torch.float32).requires_grad_(False)
    spec, state = read_predictor(open_weights(str(WEIGHTS / "predictor.safetensors")))
    predictor = build_predictor(spec, dtype=torch.float32, operations=comfy.ops.manual_cast)
    predictor.load_state_dict(state)
    make_out_of_place(predictor.blocks)
    return Models(Network(network), predictor)


class Held:
    """What lists are found on in one seed at one shift, and the other scenes that they are run on."""

    def __init__(self, models: Models, method: str, shift: float, seed: int, prompts: int, held_out: int):
        what = WHATS.get(method, Learned(models.predictor.features))
        self._sigmas = shifted_sigmas(STEPS, shift).tolist()
        self._reach = what.reach
        scenes = (range(FIND_ON, FIND_ON + prompts), range(HELD_OUT, HELD_OUT + held_out))
        self._found_on, self._held = (ToyPrompts(models, what, self._sigmas, each, seed) for each in scenes)
        self._end = full_run(self._held, self._sigmas).x[-1]
        self.name = f"shift {shift:g}, seed {seed:d}"
        self.error_of_others = cache(self._error_of_others)  # of a run on the scenes held out

    def measure(self) -> Measured:
        """What leaving steps out costs on the scenes to find on."""
        return measure([self._found_on], self._sigmas, self._reach)

    def error(self, anchors: Steps, measured: Measured) -> float:
        """Of a run on the scenes that were measured."""
        return self._error(anchors, self._found_on, *measured.ends)

    def _error_of_others(self, anchors: Steps) -> float:
        return self._error(anchors, self._held, self._end)

    def _error(self, anchors: Steps, prompts: ToyPrompts, end: Tensor) -> float:
        return try_lists([anchors], [prompts], [end], self._sigmas, self._reach).errors[anchors]


@torch.no_grad()
def compare(held: Held, budgets: Sequence[int]) -> tuple[Figures, dict[int, Steps]]:
    """For so many full steps, the errors of the published list and of those found, on scenes held out; and the lists.

    A number of full steps that has no published list is compared with the published list of 8.
    """
    measured, figures, lists = held.measure(), {}, {}
    run = cache(lambda anchors: held.error(anchors, measured))
    for budget in budgets:
        preset = PUBLISHED.get(budget, PUBLISHED[CARRIED])
        by_drift, by_misses = (choices[budget - 1] for choices in measured.choices())
        asked = measured.choices(), [Listed(preset.listed, "published")], run
        lists[budget], moved = (Search(*asked, thorough).best(budget) for thorough in (False, True))
        others = (preset.listed, lists[budget], moved, by_drift.anchors, by_misses.anchors)
        expected = (by_drift.error, run(by_drift.anchors))
        figures[budget] = [*map(held.error_of_others, others), *expected]
        said = f"{held.name}, {budget} of {STEPS}: {written(lists[budget])}"
        say(f"{said:64s} {figures_of([figures[budget]])}")
        if moved != lists[budget]:
            say(f"{'moved':>40s}: {written(moved)}")
    full, answered = measured.calls
    say(
        f"{held.name}: measured with {full} calls in full and {answered} answered a prompt, "
        f"then {run.cache_info().currsize} runs"
    )
    return figures, lists


@torch.no_grad()
def carried(held: Mapping[float, Held], lists: Mapping[float, Steps]) -> Iterator[str]:
    """The error over the published list's, of each shift's list at every shift, on scenes held out."""
    published = PUBLISHED[CARRIED].listed
    for found_at, anchors in lists.items():
        shares = {at: one.error_of_others(anchors) / one.error_of_others(published) for at, one in held.items()}
        at = ", ".join(f"{share:.2f} at shift {shift:g}" for shift, share in shares.items())
        yield f"list of {CARRIED} found at shift {found_at:g}, over the published one: {at}"


def figures_of(rows: Sequence[Sequence[float]]) -> str:
    """The means of each column, and how the kept list and the moved one compare with the published one."""
    means = [statistics.mean(column) for column in zip(*rows, strict=True)]
    return "  ".join(f"{mean:9.5f}" for mean in means) + f"  {means[1] / means[0]:9.2f}  {means[2] / means[0]:9.2f}"


def say(line: str) -> None:
    """Prints a line at once: the next one takes a while."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shifts", type=float, nargs="+", default=[1.0, 2.0, 5.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--held-out", type=int, default=32)
    parser.add_argument("--full-steps", type=int, nargs="+", default=[*PUBLISHED])
    parser.add_argument("--method", choices=["DisCa", *WHATS], default="DisCa")
    options = parser.parse_args()
    models, found = shipped(), defaultdict(list)
    say(f"{'':64s} {HEADINGS}")
    for seed in options.seeds:
        held, lists = {}, {}
        for shift in options.shifts:
            held[shift] = Held(models, options.method, shift, seed, options.prompts, options.held_out)
            figures, lists[shift] = compare(held[shift], options.full_steps)
            for budget, errors in figures.items():
                found[shift, budget].append(errors)
        if CARRIED in options.full_steps:
            for line in carried(held, {shift: kept[CARRIED] for shift, kept in lists.items()}):
                say(line)
    for (shift, budget), rows in sorted(found.items()):
        say(f"{f'shift {shift:g}, {budget} of {STEPS}, mean of {len(rows)} seeds':64s} {figures_of(rows)}")


if __name__ == "__main__":
    main()
