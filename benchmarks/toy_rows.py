"""A row of a table on the toy world: which weights run how, and what is measured of it."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from comfy.model_patcher import ModelPatcher
from toy_runs import Prompts, Ran, run
from toy_world import mean_and_deviation

from disca.host.attach import attach
from disca.meanflow import shifted_sigmas
from disca.methods.scheduled.disca import disca
from disca.methods.seam.anchors import AtAnchors
from disca.methods.seam.cache import Cache
from disca.methods.seam.method import Method
from disca.models.checks import LoadedPredictor
from disca.schedule import Schedule
from disca.toy import world
from disca.toy.judge import NAMES, Judge, semantic_score
from disca.training.algorithms.previews import distance

TEACHER, FINE = "CFG-distilled", 100  # what all videos are compared with: this network's samples in so many steps


class Predicted(NamedTuple):
    """A Predictor's answers in all steps but those of a list."""

    predictor: str
    schedule: Schedule

    def of(self, predictors: Mapping[str, LoadedPredictor]) -> tuple[Method, ModelPatcher | None]:
        """The method, and the network that it answers with."""
        loaded = predictors[self.predictor]
        return disca(AtAnchors(self.schedule), loaded.spec.features), loaded.patcher


class Cached(NamedTuple):
    """A cache by its own rule, or on a list."""

    cache: Cache
    schedule: Schedule | None = None

    def of(self, predictors: Mapping[str, LoadedPredictor]) -> tuple[Method, ModelPatcher | None]:
        """The method, which needs no network."""
        return self.cache.method(AtAnchors(self.schedule) if self.schedule else None), None


class Row(NamedTuple):
    """A way to sample, and what the paper has for it."""

    title: str
    student: str
    steps: int
    cache: Predicted | Cached | None = None
    whole: tuple[str, int] | None = None  # network and steps of the run in full that a plain row is compared with
    scale: float = 1.0
    paper: str = ""

    @property
    def way(self) -> "Row":
        """What of it makes its videos."""
        return self._replace(title="", whole=None, paper="")


class Plain(NamedTuple):
    """The same network without a cache."""

    steps: int
    to_whole: float
    to_teacher: float
    score: float


class Figures(NamedTuple):
    """What a row came to with a seed; distances are squared errors relative to the squared reference."""

    full: float
    cost: float  # in full steps of one condition
    to_whole: float | None
    to_teacher: float
    score: float  # the mean of the attributes, in percent
    attributes: tuple[float, ...]
    equal_calls: Plain | None = None
    equal_cost: Plain | None = None


class Bench:
    """One seed's weights on one seed's noise."""

    def __init__(
        self,
        students: Mapping[str, ModelPatcher],
        predictors: Mapping[str, LoadedPredictor],
        prompts: Prompts,
        judge: Judge,
        seed: int = 0,
        costs: dict[Row, float] | None = None,
        shift: float = 1.0,
        fine: int = FINE,
    ):
        """`costs`: those that are counted already, and where others are put; only what is not in it is counted."""
        self._students, self._predictors, self._prompts, self._judge = students, predictors, prompts, judge
        self._noise, self._shift, self._fine = prompts.noise(seed), shift, fine
        self._costs = {} if costs is None else costs
        self._ran: dict[Row, Ran] = {}

    def figures(self, row: Row) -> Figures:
        """What the row comes to."""
        cost, ran = self.cost(row), self.ran(row)
        full = statistics.mean(full for _, full in ran.report.rows.values()) if row.cache else row.steps
        whole = (row.student, row.steps) if row.cache else row.whole
        by_attribute = self._scores(ran)
        plain = (self._plain(row, round(full)), self._plain(row, round(cost))) if row.cache else (None, None)
        to_whole = distance(ran.videos, self.ran(Row("", *whole)).videos) if whole else None
        score = statistics.mean(by_attribute)
        return Figures(full, cost, to_whole, self._to_teacher(ran), score, by_attribute, *plain)

    def ran(self, row: Row, counted: bool = False) -> Ran:
        """The row's videos; a way that two rows share is run once."""
        way = row.way
        if way not in self._ran or counted:
            model = self._students[row.student]
            if row.cache:
                method, compute = row.cache.of(self._predictors)
                model = attach(model, method, compute=compute)
            sigmas = shifted_sigmas(row.steps, self._shift)
            self._ran[way] = run(model, self._prompts, self._noise, sigmas, counted, row.scale)
        return self._ran[way]

    def cost(self, row: Row) -> float:
        """Counted operations over those of a full step; a plain run's are its calls."""
        if not row.cache:
            return row.steps * (1.0 if row.scale == 1.0 else 2.0)
        if row.way not in self._costs:
            step = self.ran(Row("", row.student, 1), counted=True).operations
            self._costs[row.way] = self.ran(row, counted=True).operations / step
        return self._costs[row.way]

    def _plain(self, row: Row, steps: int) -> Plain:
        ran, whole = (self.ran(Row("", row.student, each)) for each in (steps, row.steps))
        score = statistics.mean(self._scores(ran))
        return Plain(steps, distance(ran.videos, whole.videos), self._to_teacher(ran), score)

    def _to_teacher(self, ran: Ran) -> float:
        return distance(ran.videos, self.ran(Row("", TEACHER, self._fine)).videos)

    def _scores(self, ran: Ran) -> tuple[float, ...]:
        video = world.to_pictures(ran.videos)
        return tuple(semantic_score(self._judge, video, self._prompts.attributes).values())


def lines(rows: Sequence[Row], found: Mapping[Row, Sequence[Figures]]) -> Iterator[str]:
    """The table of these rows in Markdown, the mean and deviation of the seeds in each cell."""
    names = ", ".join(NAMES)
    yield (
        "| | full calls | cost in full steps | to its run in full | to the teacher's 100 steps | Semantic Score "
        f"| {names} "
        "| plain, as many full calls: to that run, to the teacher, Score | plain, the same cost: the same | paper |"
    )
    yield "| --- " * 10 + "|"
    for row in rows:
        if seeds := found.get(row):
            cells = [row.title, f"{statistics.mean(each.full for each in seeds):.1f}", f"{seeds[0].cost:.1f}"]
            cells += [_cell([each.to_whole for each in seeds]), _cell([each.to_teacher for each in seeds])]
            attributes = zip(*(each.attributes for each in seeds), strict=True)
            cells += [_score(seeds), ", ".join(f"{statistics.mean(values):.0f}" for values in attributes)]
            cells += [_beside([each.equal_calls for each in seeds]), _beside([each.equal_cost for each in seeds])]
            yield f"| {' | '.join([*cells, row.paper])} |"


def _cell(distances: Sequence[float | None]) -> str:
    return "" if None in distances else mean_and_deviation(distances).replace("+-", "±")


def _score(seeds: Sequence[Figures | Plain]) -> str:
    scores = [each.score for each in seeds]
    return f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores) if len(scores) > 1 else 0.0:.1f}"


def _beside(plain: Sequence[Plain | None]) -> str:
    if None in plain:
        return ""
    steps = statistics.mean(each.steps for each in plain)
    distances = _cell([each.to_whole for each in plain]), _cell([each.to_teacher for each in plain])
    return f"{steps:.3g} steps: {', '.join([*distances, _score(plain)])}"
