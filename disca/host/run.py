"""One sampling run: its steps, what each row keeps and decides, and what is counted.

Made when sampling starts and dropped when it ends, also by an error (see `outer`): no state outlives it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..methods.method import FULL, Decider, Method, Now, Span
from ..report import Report
from ..schedule import first_steps
from .call import Call, ConditionKey, Evaluation, Group, Row
from .features import FeatureStore, Signature
from .observation.finite import Finite
from .observation.observed import Observed
from .observation.reach import Reach
from .observation.stopwatch import stopwatch

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
        network: nn.Module,
        method: Method | None,
        compute: nn.Module | None,
        store: FeatureStore,
        observed: Observed,
    ):
        self.network, self.method, self.store, self.observed = network, method, store, observed
        self.reach = Reach(sigmas)
        self.finite = Finite()
        self.report = Report(steps=self.reach.steps)
        self._compute = compute  # the method's own network
        self._sigmas = sigmas
        self._step_of = first_steps(sigmas)
        self._deciders: dict[Row, Decider] = {}
        self._served: dict[ConditionKey, int] = {}
        self._full: dict[Row, tuple[int, ...]] = {}  # the last full step whose features are kept, and the one before
        self._called: set[ConditionKey] = set()  # in this evaluation
        self._pieces: set[ConditionKey] = set()  # whose calls each see a part: features of one are no other's
        self._pending: list[tuple[list[float], Callable[[], float]]] = []

    def evaluate(
        self, sigma: float, strengths: dict[ConditionKey, tuple[float, ...]], blocked: str | None
    ) -> Evaluation:
        """An evaluation at this time of the conditions active then; `blocked` says why nothing may be predicted."""
        step, self._called = self._step_of.get(sigma), set()
        reason = UNKNOWN_SIGMA if step is None else None
        if step is not None and any(self._served.get(condition) == step for condition in strengths):
            reason = SECOND_EVALUATION
        if blocked == OTHER_MODEL or reason is not None:
            return Evaluation(self, sigma, step, strengths, reason or blocked, keep=False)
        self._served.update(dict.fromkeys(strengths, step))
        return Evaluation(self, sigma, step, strengths, blocked, stores=blocked is None)

    def decide(self, row: Row, step: int) -> int:
        """What the method wants for a row: FULL, or the number of a way."""
        return FULL if self.method is None else self._decider(row).decide(Now(step))

    def is_stale(self, row: Row, step: int) -> bool:
        """Whether the row's features are not from its last planned full step on: too old, or of a later step."""
        return not self._decider(row).due(step) <= self._full[row][0] < step

    def full_steps(self, row: Row) -> tuple[int, ...]:
        """The steps that the row's features are from, latest first."""
        return self._full[row]

    def keep(self, rows: Sequence[Row], step: int, signature: Signature, made: Sequence[Tensor]) -> None:
        """Keeps what the method wants of a step that ran in full."""
        what = self.method.ways[0].what
        for row in rows:
            earlier = self._full.get(row, (step,))
            if earlier[0] >= step or not self.store.fits(row, signature):  # nothing to go on from
                self.store.drop([row])
                earlier = ()
            self._full[row] = (step, *earlier[:1])
        self.store.keep(rows, signature, made, what.keep)

    def answer(
        self, rows: Sequence[Row], group: Group, step: int, tokens: Sequence[Tensor], context: dict
    ) -> Sequence[Tensor]:
        """What the method makes of what these rows keep."""
        what, (last, *before) = self.method.ways[group.way].what, group.steps
        gap = self._span(before[0], last) if before else None
        kept = self.store.take(rows, tokens[0].device)
        return what.answer(tokens, kept, self._span(last, step), gap, self._compute, context)

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
        elif call.predicted and not call.full:
            report.predicted += 1
            self._pending.append((report.seconds_predicted, stop))
        else:
            if call.reason is None:
                report.full += 1
            else:
                report.fallbacks[call.reason] += 1
            self._pending.append((report.seconds_full, stop))
        report.bytes_held = max(report.bytes_held, self.store.nbytes)

    def is_whole(self, conditions: Sequence[ConditionKey]) -> bool:
        """Whether these are evaluated for the first time in this evaluation; called once for each call."""
        again = self._called.intersection(conditions)
        self._called.update(conditions)
        self.split(again)
        return not again

    def split(self, conditions: Iterable[ConditionKey]) -> None:
        """From now on nothing is predicted for them: calls of one evaluation each see a part."""
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
            self._deciders[row] = self.method.when.fresh(self._sigmas)
        return self._deciders[row]

    def _span(self, first: int, last: int) -> Span:
        return Span(last - first, self._sigmas[first] - self._sigmas[last])
