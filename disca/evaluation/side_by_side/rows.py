"""A row of a comparison: a method's run beside the one with every step in full, from the same noise."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ...host.attach import attach, attach_predictor, plain
from ...host.comparing import Interrupted, Ran, Runs
from ...meanflow import shifted_sigmas
from ...messages import cause
from ...rehearsal import square
from ...report import Report
from ..costs.theory import speed_up_of_run
from .entries import LEARNED, PLAIN, Entry

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from .entries import Learned

ALL_IN_FULL = "every step in full"


@dataclass(frozen=True)
class Row:
    """What came of a method; what the first row has is what others are compared with."""

    text: str
    full: int = 0  # network calls
    answered: int = 0  # calls that were predicted or cached
    seconds: float = 0.0  # in the network
    measured: float = 1.0  # speed-up over the first row, by seconds
    theory: float = 1.0  # the same by operations
    held: int = 0  # bytes of features
    error: float = 0.0  # squared distance of the latent to the first row's, relative to that
    notes: tuple[str, ...] = ()  # what to know of the run
    problem: str = ""  # why there is none

    @property
    def came(self) -> bool:
        """Whether there was a run."""
        return not self.problem


class Reference(NamedTuple):
    """The run with every step in full, as far as others are compared with it."""

    inside: Tensor  # its samples in the network's latent space
    seconds: float  # in the network


@dataclass
class Comparison:
    """The rows so far, and the latents of those that came, in the same order."""

    rows: list[Row] = field(default_factory=list)
    latents: list[dict] = field(default_factory=list)
    interrupted: bool = False


def compare(
    runs: Runs, entries: Sequence[Entry], predictor: "Learned | None", told: Callable[[Comparison], None]
) -> Comparison:
    """All rows, `told` after each; an interrupt once the first is there ends it, and loses none that are done."""
    found = Comparison()
    try:
        for row, ran in rows_of(runs, entries, predictor):
            found.rows.append(row)
            if ran is not None:
                found.latents.append(ran.latent)
            told(found)
    except Interrupted:
        if not found.rows:
            raise
        found.interrupted = True
    return found


def rows_of(runs: Runs, entries: Sequence[Entry], predictor: "Learned | None") -> Iterator[tuple[Row, Ran | None]]:
    """The run with every step in full, then each method's; one that fails is a row that says why."""
    runs.warm_up()
    steps = runs.asked.steps
    first = runs.run(plain(runs.model), steps)
    reference = Reference(first.inside, first.report.seconds)
    yield row_of(ALL_IN_FULL, first, reference, 1.0), first
    done = 1 + steps
    for entry in entries:
        try:
            ran, theory = run_entry(runs, entry, predictor)
        except Interrupted:
            raise
        except Exception as error:  # whatever it is: the other rows are worth having
            runs.free()
            yield Row(entry.text, problem=cause(error) or type(error).__name__), None
        else:
            yield row_of(entry.text, ran, reference, theory), ran
        done += entry.steps or steps
        runs.skip_to(done)


def run_entry(runs: Runs, entry: Entry, predictor: "Learned | None") -> tuple[Ran, float]:
    """A method's run, and the speed-up that its operations speak for."""
    model, steps = attached(runs.model, entry, predictor), entry.steps or runs.asked.steps
    ran = runs.run(model, steps)
    sigmas = shifted_sigmas(steps, runs.asked.shift).tolist()
    theory = speed_up_of_run(model, runs.asked.positive, ran.inside, sigmas, ran.report)
    return ran, runs.asked.steps / steps if theory is None else theory


def attached(model: "ModelPatcher", entry: Entry, predictor: "Learned | None") -> "ModelPatcher":
    """The MODEL with the entry's method."""
    if entry.name == PLAIN:
        return plain(model)
    if entry.name in LEARNED:
        return attach_predictor(model, predictor, entry.full)
    return attach(model, entry.method())


def row_of(text: str, ran: Ran, reference: Reference, theory: float) -> Row:
    """The row of a run."""
    report = ran.report
    return Row(
        text,
        full=report.full + report.fallbacks.total(),
        answered=report.predicted,
        seconds=report.seconds,
        measured=reference.seconds / report.seconds,
        theory=theory,
        held=report.bytes_held,
        error=square(ran.inside - reference.inside) / square(reference.inside),
        notes=_notes(report),
    )


def _notes(report: Report) -> tuple[str, ...]:
    reasons = (f"{count:d} in full: {reason}" for reason, count in report.fallbacks.most_common())
    return (*report.alarms, *report.warnings, *reasons)


def on_the_line(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other is both faster than and as near as, or nearer and as fast; the fastest first."""
    best: list[Row] = []
    for row in sorted((row for row in rows if row.came), key=lambda row: (-row.measured, row.error)):
        if not best or row.error < best[-1].error:
            best.append(row)
    return best
