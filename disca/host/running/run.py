"""One sampling run: its steps, what each row keeps and decides, and what is counted.

Made when sampling starts and dropped when it ends, also by an error (see `outer`): no state outlives it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ...methods.seam.method import Method, Span
from ...methods.seam.when import FULL, Decider, Now
from ...models.blocks import Args, Place
from ...models.family import Family
from ...report import CACHED, PREDICTED, Report
from ...schedule import first_steps
from .call import Call, ConditionKey, Evaluation, Row
from .features import FeatureStore, Signature
from .observation.finite import Finite
from .observation.observed import Observed
from .observation.reach import Reach
from .observation.stopwatch import stopwatch
from .signals import Signals, modulated

KEY = "disca"  # of our attachment, wrappers, additional model, and of the Run in transformer_options
ON_REPORT = "disca_on_report"  # callback type: called with the Report when a run has ended

UNKNOWN_SIGMA = "at a time that is not one of the run's steps"
SECOND_EVALUATION = "second evaluation in one step"
OTHER_MODEL = "another model in the same run"


class Run:
    """The method, features and counters of one sampling run."""

    def __init__(
        self,
        sigmas: Sequence[float],
        family: Family,
        network: nn.Module,
        method: Method | None,
        compute: nn.Module | None,
        store: FeatureStore,
        observed: Observed,
    ):
        """`compute` is the method's own network, if it has one."""
        self.sigmas, self.network, self.method, self.compute = sigmas, network, method, compute
        self.store, self.observed = store, observed
        self.reach = Reach(sigmas)
        self.finite = Finite()
        self.report = Report(steps=self.reach.steps, word=CACHED if method and not method.computes else PREDICTED)
        self._family = family
        self._step_of = first_steps(sigmas)
        self._plan = method.when.plan(sigmas) if method else None
        self._history = max((what.tensors for way in method.ways for what in way.whats), default=1) if method else 1
        self._deciders: dict[Row, Decider] = {}
        self._decided_for: dict[Row, Signature] = {}
        self._served: dict[ConditionKey, int] = {}
        self._full: dict[Row, tuple[int, ...]] = {}  # the full steps of which something is kept, latest first
        self._begun: dict[Row, tuple[int, ...]] = {}  # the same of rows whose features are being kept
        self._called: set[ConditionKey] = set()  # in this evaluation
        self._pieces: set[ConditionKey] = set()  # whose calls each see a part: features of one are no other's
        self._pending: list[tuple[list[float], Callable[[], float]]] = []

    def evaluate(
        self, sigma: float, strengths: dict[ConditionKey, tuple[float, ...]], blocked: str | None
    ) -> Evaluation:
        """An evaluation at this time of the conditions active then; `blocked` says why the method may not answer."""
        step, self._called = self._step_of.get(sigma), set()
        reason = UNKNOWN_SIGMA if step is None else None
        if step is not None and any(self._served.get(condition) == step for condition in strengths):
            reason = SECOND_EVALUATION
        if blocked == OTHER_MODEL or reason is not None:
            return Evaluation(self, sigma, step, strengths, reason or blocked, keep=False)
        self._served.update(dict.fromkeys(strengths, step))
        return Evaluation(self, sigma, step, strengths, blocked, stores=blocked is None)

    @property
    def is_planned(self) -> bool:
        """Whether it is known before the run which steps are to run in full."""
        return self.method is None or self._plan is not None

    def may_answer(self, step: int) -> bool:
        """Whether the method plans to answer in this step, or may decide so."""
        return self.method is not None and (self._plan is None or self._plan[step] != FULL)

    def now(self, row: Row, step: int, number: int, signals: Signals) -> Now:
        """What the row, which has this number in the batch, may be decided by."""
        return Now(step, next(iter(self.full_steps(row)), None), partial(signals.look, number))

    def decide(self, row: Row, now: Now, signature: Signature) -> int:
        """What the method wants for a row: FULL, or the number of a way; asked once a step.

        A row whose inputs are others than before (another size, other weights) is decided for anew.
        """
        if self.method is None:
            return FULL
        if self._decided_for.setdefault(row, signature) != signature:
            self._decided_for[row] = signature
            self._deciders.pop(row, None)
        return self._decider(row).decide(now)

    def saw(self, row: Row, now: Now) -> None:
        """The row has run in full."""
        self._decider(row).saw(now)

    def checked(self, row: Row, now: Now, drafted: Tensor, exact: Tensor) -> bool:
        """Whether the row's draft is good enough."""
        return self._decider(row).checked(now, drafted, exact)

    def is_stale(self, row: Row, step: int) -> bool:
        """Whether the row's features are not from its last planned full step on: too old, or of a later step."""
        return not self._decider(row).due(step) <= self._full[row][0] < step

    def full_steps(self, row: Row) -> tuple[int, ...]:
        """The full steps of which something is kept for the row, latest first."""
        return self._full.get(row, ())

    def ages(self, rows: Sequence[Row], step: int) -> list[list[Span]]:
        """How far back the full steps of each row are."""
        steps = (self._begun.get(row, self._full.get(row, ())) for row in rows)
        return [[Span(step - full, self.sigmas[full] - self.sigmas[step]) for full in earlier] for earlier in steps]

    def begin(self, rows: Sequence[Row], step: int, signature: Signature) -> None:
        """From now on the features of this full step are kept for these rows, beside those of inputs like these."""
        for row in rows:
            earlier = self._full.pop(row, ())
            if (earlier and earlier[0] >= step) or not self.store.fits(row, signature) or not earlier:
                self.store.drop([row])  # nothing to go on from
                earlier = ()
            self.store.open(row, signature)
            self._begun[row] = earlier

    def complete(self, rows: Sequence[Row], step: int) -> None:
        """All that is wanted of this full step is kept."""
        for row in rows:
            self._full[row] = (step, *self._begun.pop(row))[: self._history]

    def module(self, place: Place) -> nn.Module:
        """The block that stands there."""
        return self._family.module(self.network, place.key)

    def modulated(self, place: Place, args: Args) -> Tensor:
        """What the attention of the block reads of the image tokens."""
        return modulated(self.module(place), place.kind, args)

    @contextmanager
    def counted(self, call: Call, device: torch.device) -> Iterator[None]:
        """Counts and times one network call by what it turned out to be."""
        elapsed = stopwatch(device)
        yield
        stop, report = elapsed(), self.report
        call.end()
        self.reach.call(call.sigma, (condition.anywhere for condition in call.conditions), call.answered)
        report.partial += call.partial
        if not call.answered:
            report.skipped += 1
        elif call.rejected:
            report.rejected += 1
            self._pending.append((report.seconds_rejected, stop))
        elif call.predicted and not call.full:
            report.predicted += 1
            self._pending.append((report.seconds_predicted, stop))
        else:
            if call.reason is None:
                report.full += 1
            else:
                report.fallbacks[call.reason] += 1
            self._pending.append((report.seconds_full, stop))
        for row, full in call.row_kinds:
            counts = report.rows_rejected if call.rejected else report.rows[row.condition.index, row.video]
            counts[full] += 1
            report.rows_unchecked += call.is_again and not full
        looked_at = sum(tensor.nbytes for decider in self._deciders.values() for tensor in decider.held())
        report.bytes_held = max(report.bytes_held, self.store.nbytes + looked_at)

    def is_whole(self, conditions: Sequence[ConditionKey]) -> bool:
        """Whether these are evaluated for the first time in this evaluation; called once for each call."""
        again = self._called.intersection(conditions)
        self._called.update(conditions)
        self.split(again)
        return not again

    def split(self, conditions: Iterable[ConditionKey]) -> None:
        """From now on the method answers nothing for them: calls of one evaluation each see a part."""
        self._pieces.update(conditions)
        self.store.drop(row for row in [*self._full] if row.condition in self._pieces)

    def is_split(self, condition: ConditionKey) -> bool:
        """Whether calls of one evaluation each see a part of the condition."""
        return condition in self._pieces

    def alarm(self, text: str | None) -> None:
        """What has to be known before the counts, once."""
        if text and text not in self.report.alarms:
            self.report.alarms.append(text)

    def finish(self) -> Report:
        """The report, with the times of all calls read."""
        for seconds, read in self._pending:
            seconds.append(read())
        self._pending.clear()
        return self.report

    def _decider(self, row: Row) -> Decider:
        if row not in self._deciders:
            self._deciders[row] = self.method.when.fresh(self.sigmas)
        return self._deciders[row]
