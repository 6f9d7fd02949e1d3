"""A row of a comparison: a method's run beside the one with every step in full, from the same noise."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ...host.attach import attach, attach_predictor, plain
from ...host.comparing import Interrupted, RunResult, Runs
from ...host.running.run import KEY
from ...meanflow import shifted_sigmas
from ...messages import cause
from ...rehearsal import square
from ...report import Report
from ..costs.theory import speed_up_of_run
from .entries import NEED_A_FILE, PLAIN, Entry

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ...models.checks import Learned

ALL_IN_FULL = "every step in full"


@dataclass(frozen=True)
class Row:
    """What came of a method, beside the first row's run, which has every step in full; or why nothing did."""

    text: str
    full_calls: float = 0  # of the network; in a row of means a fraction
    cached_calls: float = 0  # predicted ones too
    seconds: float = 0.0  # in the network
    measured: float = 1.0  # speed-up over the first row, by seconds
    theory: float = 1.0  # the same by operations
    bytes_held: int = 0  # of features
    error: float = 0.0  # squared distance of the latent to the first row's, relative to that
    notes: tuple[str, ...] = ()  # what to know of the run
    problem: str = ""  # why there is none

    @property
    def came(self) -> bool:
        """Whether there was a run."""
        return not self.problem


class Reference(NamedTuple):
    """The run with every step in full, as far as others are compared with it."""

    latent: Tensor  # in the network's latent space
    seconds: float  # in the network


@dataclass
class MethodComparison:
    """The rows so far, and the latents of those that came, in the same order."""

    rows: list[Row] = field(default_factory=list)
    latents: list[dict] = field(default_factory=list)
    interrupted: bool = False


def compare(
    runs: Runs, entries: Sequence[Entry], predictor: "Learned | None", on_row: Callable[[MethodComparison], None]
) -> MethodComparison:
    """All rows, `on_row` called after each; an interrupt once the first is there ends it, and loses none."""
    found = MethodComparison()
    try:
        for row, result in rows_of(runs, entries, predictor):
            found.rows.append(row)
            if result is not None:
                found.latents.append(result.latent)
            on_row(found)
    except Interrupted:
        if not found.rows:
            raise
        found.interrupted = True
    return found


def rows_of(
    runs: Runs, entries: Sequence[Entry], predictor: "Learned | None"
) -> Iterator[tuple[Row, RunResult | None]]:
    """The run with every step in full, then each method's."""
    runs.warm_up()
    first, result, reference = full_run(runs)
    yield first, result
    done = 1 + runs.settings.steps
    for entry in entries:
        yield attempt(runs, entry, predictor, reference)
        done += entry.steps or runs.settings.steps
        runs.skip_to(done)


def full_run(runs: Runs) -> tuple[Row, RunResult, Reference]:
    """The run with every step in full; ValueError if nothing can be compared with it."""
    result = runs.run(plain(runs.model), runs.settings.steps)
    reference = Reference(result.model_latent, result.report.seconds)
    if not square(reference.latent):
        raise ValueError(
            "The run with every step in full ends in zeros. Give an empty latent without a mask, and conditions that "
            "hold from the start to the end."
        )
    return row_of(ALL_IN_FULL, result, reference, 1.0), result, reference


def attempt(
    runs: Runs, entry: Entry, predictor: "Learned | None", reference: Reference
) -> tuple[Row, RunResult | None]:
    """A method's run; where it fails, a row that says why."""
    try:
        model, steps = attached(runs.model, entry, predictor), entry.steps or runs.settings.steps
        result = runs.run(model, steps)
        sigmas = shifted_sigmas(steps, runs.settings.shift).tolist()
        theory = speed_up_of_run(model, runs.settings.positive, result.model_latent, sigmas, result.report)
        return row_of(entry.text, result, reference, theory or runs.settings.steps / steps), result
    except Interrupted:
        raise
    except Exception as error:  # whatever it is: the other rows are worth having
        return failed(runs, entry.text, error), None


def failed(runs: Runs, text: str, error: Exception) -> Row:
    """The row of a run that ended in an error, what it may have left given back."""
    runs.free()
    return Row(text, problem=cause(error) or type(error).__name__)


def require_attachable(
    model: "ModelPatcher", entry: Entry, predictor: "Learned | None", sigmas: Sequence[float]
) -> None:
    """ValueError unless the method is one for the MODEL and for a run at these times."""
    if (method := attached(model, entry, predictor).get_attachment(KEY).method) is not None:
        method.when.plan(sigmas)


def attached(model: "ModelPatcher", entry: Entry, predictor: "Learned | None") -> "ModelPatcher":
    """The MODEL with the entry's method."""
    if entry.name == PLAIN:
        return plain(model)
    if entry.name in NEED_A_FILE:
        return attach_predictor(model, predictor, entry.anchors)
    return attach(model, entry.method())


def row_of(text: str, result: RunResult, reference: Reference, theory: float) -> Row:
    """The row of a run; ValueError if the network was never asked."""
    report = result.report
    if not report.seconds:
        raise ValueError(f"No call of the run was answered by the network. {cause('; '.join(report.alarms))}")
    return Row(
        text,
        full_calls=report.full + report.fallbacks.total(),
        cached_calls=report.predicted,
        seconds=report.seconds,
        measured=reference.seconds / report.seconds,
        theory=theory,
        bytes_held=report.bytes_held,
        error=square(result.model_latent - reference.latent) / square(reference.latent),
        notes=_notes(report),
    )


def _notes(report: Report) -> tuple[str, ...]:
    reasons = (f"{count:d} in full: {reason}" for reason, count in report.fallbacks.most_common())
    return (*report.alarms, *report.warnings, *reasons)


def expected_steps(entries: Sequence[Entry], steps: int) -> int:
    """Of all runs, the first with every step in full and the one step that warms up among them."""
    return 1 + steps + sum(entry.steps or steps for entry in entries)


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other is both faster than and as near as, or nearer and as fast; the fastest first."""
    exact = next((row for row in rows if row.came and not row.error), None)  # others like it gain nothing
    best: list[Row] = []
    some = [row for row in rows if row.came and (row.error or row is exact)]
    for row in sorted(some, key=lambda row: (-row.measured, row.error)):
        if not best or row.error < best[-1].error:
            best.append(row)
    return best
