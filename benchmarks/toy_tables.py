"""The paper's Tables 1, 2, 4, 5 and ablations on the toy world, each method beside equal full calls and equal cost.

    COMFYUI_PATH=... python benchmarks/toy_tables.py                            all of them, three seeds
    COMFYUI_PATH=... python benchmarks/toy_tables.py --weights 0 --tables 2 4 --without "R = 1"

A seed is that of the noise and of all trainings of students and Predictors; with --weights, of the noise alone. Base
and CFG-distilled model are those that ship. What is not trained yet is trained first, into runs/toy: a MeanFlow model
takes 13 minutes on an idle core, the longer model of 4 steps 10, a Predictor two, the judge five. Distances are
squared errors relative to the squared reference, on held-out prompts and equal steps.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import toy_world  # prepares ComfyUI

import toy_four_steps  # isort: skip
import toy_meanflow  # isort: skip
import toy_predictors  # isort: skip
from toy_rows import TEACHER, Bench, Cached, Figures, Predicted, Row, lines  # isort: skip
from toy_runs import Prompts  # isort: skip
from disca.methods import METHODS  # isort: skip
from disca.models.loading import load_either, load_predictor  # isort: skip
from disca.schedule import PRESETS, Interval  # isort: skip
from disca.toy import WEIGHTS, world  # isort: skip
from disca.toy.judge import NAMES, SIZES, Judge, judge_in, semantic_score  # isort: skip

BASE, FREE, WIDER, STUDENT, RIVAL, LONGER = "base", "R = 1", "R = 0.4", "R = 0.2", "distilled to 4", "the same, longer"
OWN, JUDGED, PLAIN, ON_FREE = "Predictor", "with a discriminator", "on the CFG-distilled model", "on R = 1"
TRUE = 1024  # held-out true videos that the judge is tried on
Weights = Callable[[int], Path]  # of a seed, trained if they are not yet

STUDENTS: dict[str, Weights] = {
    BASE: lambda seed: WEIGHTS / "base.safetensors",
    TEACHER: lambda seed: toy_world.TEACHER,
    STUDENT: lambda seed: toy_world.chain_of(seed, "meanflow"),
    WIDER: partial(toy_meanflow.trained, toy_meanflow.WIDER),
    FREE: partial(toy_meanflow.trained, toy_meanflow.FREE),
    RIVAL: partial(toy_four_steps.trained, "as long as the Predictor"),
    LONGER: partial(toy_four_steps.trained, "four times as long"),
}
PREDICTORS: dict[str, Weights] = {
    OWN: lambda seed: toy_world.chain_of(seed, "predictor"),
    JUDGED: lambda seed: toy_predictors.trained(toy_predictors.DISCRIMINATOR, seed, STUDENTS[STUDENT](seed)),
    PLAIN: partial(toy_predictors.trained, toy_predictors.UNDISTILLED),
    ON_FREE: lambda seed: toy_predictors.trained(toy_predictors.SHIPPED, seed, STUDENTS[FREE](seed)),
}


def _preset(name: str, speed: str, paper: str = "", **settings: float | str) -> Row:
    """A cache at the paper's settings, on 50 steps of the CFG-distilled model."""
    cache = METHODS[name](**METHODS[name].presets[f"DisCa, {speed} speed"] | settings)
    return Row(f"{cache.title}, {speed} speed", TEACHER, 50, Cached(cache), paper=paper)


def _rival(name: str, full: int, paper: str, **settings: float | str) -> Row:
    """A cache with few of 50 steps in full."""
    cache = METHODS[name](**settings)
    return Row(f"{cache.title}, {full:d} of 50", TEACHER, 50, Cached(cache), paper=paper)


def _plain(student: str, steps: int, whole: int = 0, whose: str = "", paper: str = "") -> Row:
    """A network with every step in full, and the run that it is compared with: of so many steps, whosever."""
    title = f"MeanFlow, {student}" if student in (STUDENT, WIDER, FREE) else student
    paper = paper or PAPER.get(student, {}).get(steps, "")
    return Row(
        f"{title}, {steps:d} steps", student, steps, whole=(whose or student, whole) if whole else None, paper=paper
    )


def _ablation(title: str, predictor: str, paper: str = "", student: str = STUDENT) -> Row:
    return Row(title, student, 20, Predicted(predictor, N4), paper=paper)


PAPER = {FREE: {20: "66.6", 10: "60.9"}, STUDENT: {20: "70.4", 10: "68.2"}}  # Semantic Scores of plain runs
TEACACHE = (0.11, 0.26)  # thresholds for about 19 and 10 of 50 steps in full, which the paper came to
ADACACHE = (1.6, 4.0)  # rates for about 8 and 4 of 50 steps in full
N4, N3, N2 = toy_world.SCHEDULES
EIGHT = PRESETS["HunyuanVideo 1.5, 8 steps"]
SEVENTH = Interval(7, warmup=1, last_step=False)  # 8 of 50
ORIGINAL = Row("base with CFG, 50 steps", BASE, 50, scale=toy_world.GUIDANCE, paper="73.5")
DISTILLED = _plain(TEACHER, 50)
DISCA = {
    n: Row(f"DisCa, N={n:d}", STUDENT, 20, Predicted(OWN, schedule), paper=paper)
    for n, schedule, paper in ((2, N2, "70.8"), (3, N3, "70.3"), (4, N4, "69.3"))
}
EIGHT_STEPS = _plain(STUDENT, 8, paper=".1778, 19.85")
FOUR_OF_EIGHT = Row("DisCa, 4 of 8", STUDENT, 8, Predicted(OWN, EIGHT), paper=".1942, 19.29")
REUSED = Row("reuse, N=4", STUDENT, 20, Cached(METHODS["reuse"](), N4))
TABLES: dict[str, tuple[str, Sequence[Row]]] = {
    "1": (
        "Table 1: distillation, and R of Restricted MeanFlow; the paper's figure is its Semantic Score",
        [_plain(student, steps) for student in (TEACHER, FREE, WIDER, STUDENT) for steps in (20, 10, 8, 4)],
    ),
    "2": (
        "Table 2: HunyuanVideo 1.0's rows; the paper's figure is its Semantic Score",
        [
            ORIGINAL, DISTILLED,
            _preset("Delta-DiT", "low"), _preset("Delta-DiT", "high", "42.7"),
            _preset("PAB", "low"), _preset("PAB", "high", "56.3"),
            _preset("TeaCache", "low", calibration="none", threshold=TEACACHE[0]),
            _preset("TeaCache", "high", "62.1", calibration="none", threshold=TEACACHE[1]),
            _preset("FORA", "low"), _preset("FORA", "high", "57.5"),
            _preset("TaylorSeer", "low"), _preset("TaylorSeer", "high", "63.7"),
            _plain(TEACHER, 20, 50), _plain(TEACHER, 10, 50), _plain(FREE, 20), _plain(FREE, 10, 20),
            _plain(STUDENT, 20), _plain(STUDENT, 10, 20), _plain(STUDENT, 9, 20), *DISCA.values(),
        ],
    ),
    "4": (
        "Table 4: HunyuanVideo 1.5's rows; the paper's figures are LPIPS and PSNR to its own 50 steps",
        [
            DISTILLED,
            _rival("TaylorSeer", 8, ".2050, 19.34", interval=7, warmup=1, order=1),
            _rival("MagCache", 8, ".2093, 19.03", threshold=100.0, most=6, retention=0.0),
            _rival("AdaCache", 8, ".2084, 19.08", codebook="fast", rate=ADACACHE[0], final=0),
            _rival("TaylorSeer", 4, ".2470, 18.74", interval=13, warmup=1, order=1),
            _rival("MagCache", 4, ".2416, 18.73", threshold=100.0, most=15, retention=0.0),
            _rival("AdaCache", 4, ".2551, 18.40", codebook="fast", rate=ADACACHE[1], final=0),
            EIGHT_STEPS, _plain(STUDENT, 4, 8), _plain(RIVAL, 4, 8, STUDENT), _plain(LONGER, 4, 8, STUDENT),
            Row("reuse, 4 of 8", STUDENT, 8, Cached(METHODS["reuse"](), EIGHT)),
            FOUR_OF_EIGHT,
        ],
    ),
    "5": (
        "Table 5: the Predictor with and without distillation",
        [
            DISTILLED,
            Row("Predictor without distillation, 8 of 50", TEACHER, 50, Predicted(PLAIN, SEVENTH)),
            Row("Predictor without distillation, 4 of 8", TEACHER, 8, Predicted(PLAIN, EIGHT)),
            EIGHT_STEPS,
            FOUR_OF_EIGHT,
        ],
    ),
    "ablations": (
        "Ablations at N=4; the paper's figure is its Semantic Score",
        [
            _plain(STUDENT, 20), DISCA[4]._replace(paper="68.5, without discriminator"),
            _ablation("DisCa, with a discriminator", JUDGED, "69.3"),
            REUSED._replace(title="without Predictor: reuse", paper="67.3"),
            _ablation("without restriction: on MeanFlow, R = 1", ON_FREE, student=FREE),
            _ablation("without distillation: on the CFG-distilled model", PLAIN, "65.2", TEACHER),
        ],
    ),
}  # fmt: skip


class Loaded(Mapping):
    """Networks by name, each trained and loaded when it is asked for."""

    def __init__(self, sources: Mapping[str, Weights], load: Callable, seed: int):
        self._sources, self._load, self._seed, self._found = sources, load, seed, {}

    def __getitem__(self, name: str):
        if name not in self._found:
            self._found[name] = self._load(str(self._sources[name](self._seed)))
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def measured(
    rows: Sequence[Row], seeds: Sequence[int], prompts: Prompts, judge: Judge, weights: int | None = None
) -> dict[Row, list[Figures]]:
    """The figures of all rows, seed by seed; what a row costs is counted with the first."""
    found, costs = {row: [] for row in rows}, {}
    for seed in seeds:
        own = seed if weights is None else weights
        students, predictors = Loaded(STUDENTS, load_either, own), Loaded(PREDICTORS, load_predictor, own)
        bench = Bench(students, predictors, prompts, judge, seed, costs, toy_world.SHIFT)
        for row in rows:
            found[row].append(bench.figures(row))
            short = found[row][-1]
            sys.stderr.write(f"seed {seed:d}, {row.title}: {short.to_teacher:.4f}, {short.score:.1f}\n")
    return found


def needs(row: Row) -> set[str]:
    """The trainings that a row cannot be without."""
    return {row.student} | ({row.cache.predictor} if isinstance(row.cache, Predicted) else set())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tables", nargs="+", choices=[*TABLES], default=[*TABLES])
    trainings = [*STUDENTS, *PREDICTORS]
    parser.add_argument("--without", nargs="+", choices=trainings, default=[], help="leaves out rows that need these")
    parser.add_argument("--weights", type=int, help="the seed of all weights; the seeds are then the noise's alone")
    parser.add_argument("--samples", type=int, default=toy_world.SAMPLES, help="held-out prompts")
    options = parser.parse_args()
    wanted = {name: [row for row in TABLES[name][1] if not needs(row) & {*options.without}] for name in options.tables}
    judge, true = judge_in(toy_world.RUNS), world.random_scenes(toy_world.FIRST, TRUE)
    said = semantic_score(judge, world.pictures(true), true.attributes)
    chance = dict(zip(NAMES, SIZES, strict=True))
    listed = ", ".join(f"{name} {share:.1f} (by chance {100 / chance[name]:.1f})" for name, share in said.items())
    sys.stdout.write(f"The judge on {TRUE:d} true videos: {listed}; mean {statistics.mean(said.values()):.1f} %\n")
    rows = list(dict.fromkeys(row for rows in wanted.values() for row in rows))
    prompts = Prompts(toy_world.FIRST, options.samples, toy_world.GUIDANCE)
    found = measured(rows, options.seeds, prompts, judge, options.weights)
    for name, rows in wanted.items():
        sys.stdout.write("\n".join(["", f"### {TABLES[name][0]}", "", *lines(rows, found), ""]))


if __name__ == "__main__":
    main()
