"""One sampling run: decides for each evaluation whether the transformer or the Predictor answers, and counts.

Made when sampling starts and dropped when it ends, also by an error (see `attach`): no state outlives it.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..report import Report
from .features import FeatureStore, Signature
from .observation.finite import Finite
from .observation.observed import Observed
from .observation.reach import Reach
from .observation.stopwatch import stopwatch

KEY = "disca"  # of our attachment, wrappers, additional model, and of the Run in transformer_options
ON_REPORT = "disca_on_report"  # callback type: called with the Report when a run has ended

UNKNOWN_SIGMA = "at a time that is not one of the run's steps"
SECOND_EVALUATION = "second evaluation in one step"
NO_FEATURES = "no features of this condition yet"
OLD_FEATURES = "features from before the last anchor, which another node answered"
CONSEQUENCES = (NO_FEATURES, OLD_FEATURES)  # of what kept an anchor's features away: that is the reason, if known
CHANGED = "inputs of another shape or type, or other weights, than the features were made with"
CONTROLNET = "ControlNet residuals"
FOREIGN_BLOCKS = "another node replaces blocks"
FOREIGN_ATTENTION = "another node patches attention"
MULTI_GPU = "multi-GPU split"
OTHER_MODEL = "another model in the same run"
NO_OPTIONS = "another node calls the blocks without transformer_options"
PIECES = "another node evaluates a condition in several pieces"
OWN_WAY = "another node calls the blocks in its own way"


class Condition(NamedTuple):
    """What features belong to: a condition in one context window, on one device."""

    index: int  # in the guider's list: ComfyUI's copies in another list keep the id
    uuid: Hashable
    window: Hashable
    device: torch.device

    @property
    def anywhere(self) -> tuple:
        """The condition, whichever device works on it."""
        return self.index, self.uuid, self.window


class Evaluation(NamedTuple):
    """The decision for one evaluation of all conditions at one time, the same however ComfyUI batches them."""

    run: "Run"
    sigma: float
    step: int | None  # None: no step of the run's
    strengths: dict[Condition, tuple[float, ...]]  # active conditions, with the strengths of their LoRA hooks now
    predict: bool
    reason: str | None = None  # why a planned prediction runs in full
    keep: bool = True  # whether full calls refresh the features


class Run:
    """The anchors, features and counters of one sampling run."""

    def __init__(
        self,
        sigmas: Sequence[float],
        anchors: frozenset[int],
        network: nn.Module,
        predictor: nn.Module | None,
        store: FeatureStore,
        observed: Observed,
    ):
        self.network = network
        self.predictor = predictor
        self.store = store
        self.observed = observed
        self.reach = Reach(sigmas)
        self.finite = Finite()
        self.report = Report(steps=self.reach.steps)
        self._step_of = {sigma: step for step, sigma in reversed(list(enumerate(sigmas[:-1])))}
        # A repeated time is its first step, and so is an anchor at any of its steps.
        self._anchors = frozenset(self._step_of[sigma] for step, sigma in enumerate(sigmas[:-1]) if step in anchors)
        self._served: dict[Condition, int] = {}
        self._made: dict[Condition, int] = {}  # the step that a condition's features are from
        self._called: set[Condition] = set()  # in this evaluation
        self._pieces: set[Condition] = set()  # whose calls each see a part: features of one are no other's
        self._pending: list[tuple[list[float], Callable[[], float]]] = []

    def evaluate(self, sigma: float, strengths: dict[Condition, tuple[float, ...]], blocked: str | None) -> Evaluation:
        """The decision at this time for the conditions active then; `blocked` says why nothing may be predicted."""
        step, self._called = self._step_of.get(sigma), set()
        reason = UNKNOWN_SIGMA if step is None else None
        if step is not None and any(self._served.get(condition) == step for condition in strengths):
            reason = SECOND_EVALUATION
        if blocked == OTHER_MODEL or reason is not None:
            return Evaluation(self, sigma, step, strengths, False, reason or blocked, keep=False)
        self._served.update(dict.fromkeys(strengths, step))
        if step in self._anchors:
            return Evaluation(self, sigma, step, strengths, False)
        if blocked is None and not self._pieces.isdisjoint(strengths):
            blocked = PIECES
        if blocked is None and not all(condition in self.store for condition in strengths):
            blocked = NO_FEATURES
        last = max((anchor for anchor in self._anchors if anchor < step), default=0)
        if blocked is None and any(self._made[condition] < last for condition in strengths):
            blocked = OLD_FEATURES
        return Evaluation(self, sigma, step, strengths, blocked is None, blocked)

    @contextmanager
    def counted(self, call: "Call", device: torch.device) -> Iterator[None]:
        """Counts and times one network call by what it turned out to be."""
        elapsed = stopwatch(device)
        yield
        stop, report = elapsed(), self.report
        call.end()
        self.reach.call(call.sigma, (condition.anywhere for condition in call.conditions), call.answered)
        report.partial += call.partial
        if not call.answered:
            report.skipped += 1
        elif call.predicted:
            report.predicted += 1
            self._pending.append((report.seconds_predicted, stop))
        else:
            if call.reason is None:
                report.full += 1
            else:
                report.fallbacks[call.reason] += 1
            self._pending.append((report.seconds_full, stop))
        report.bytes_held = max(report.bytes_held, self.store.nbytes)

    def is_whole(self, conditions: Sequence[Condition]) -> bool:
        """Whether these are evaluated for the first time in this evaluation; called once for each call."""
        again = self._called.intersection(conditions)
        self._called.update(conditions)
        self.split(again)
        return not again

    def split(self, conditions: Iterable[Condition]) -> None:
        """From now on nothing is predicted for them: calls of one evaluation each see a part."""
        self._pieces.update(conditions)
        self.store.drop(conditions)

    def keep(self, conditions: Sequence[Condition], step: int, signature: Signature, tensors: Sequence[Tensor]) -> None:
        """Keeps the features of a step that ran in full."""
        self.store.keep(conditions, signature, tensors)
        self._made.update(dict.fromkeys(conditions, step))

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


class Call:
    """One network call: the rows of one or more conditions, and what becomes of them."""

    def __init__(
        self, evaluation: Evaluation, conditions: Sequence[Condition], blocked: str | None, blocks: int | None = None
    ):
        self.run = evaluation.run
        self.sigma = evaluation.sigma
        self.conditions = conditions
        self.predict = False  # until the first block has shown its inputs
        self.predicted = False
        planned = evaluation.predict or evaluation.reason in CONSEQUENCES
        self.reason = blocked if planned and blocked else evaluation.reason
        self.blocks_run = 0
        self._blocks = blocks  # how many there are to run; None: nobody watches them
        self._step = evaluation.step
        self._planned = evaluation.predict and blocked is None
        self._is_steps_own = evaluation.keep  # not a second evaluation in it, or another model's
        self._keep = evaluation.keep and evaluation.run.predictor is not None
        self._strengths = evaluation.strengths.get(conditions[0], ())  # ComfyUI batches no conditions of other hooks
        self._signature: Signature = ()
        if not self.run.is_whole(conditions):
            self.run_natively(PIECES)

    @property
    def predictor(self) -> nn.Module | None:
        """The run's Predictor."""
        return self.run.predictor

    @property
    def answered(self) -> bool:
        """Whether blocks or Predictor ran, not something in their place."""
        return self.predicted or self._blocks is None or self.blocks_run > 0

    @property
    def partial(self) -> bool:
        """Whether some of the blocks were left out in a step's own evaluation, by another node."""
        return self._is_steps_own and self._blocks is not None and 0 < self.blocks_run < self._blocks

    def begin(self, img: Tensor, txt: Tensor) -> None:
        """Sees the inputs of the first block; predicts only from features of inputs and weights like these."""
        if self._signature:  # the network runs again in this call
            self.run.split(self.conditions)
            self.run_natively(PIECES)
            self.predict = False
            return
        rows = len(self.conditions)
        shapes = tuple((tensor.shape[0] // rows, *tensor.shape[1:]) for tensor in (img, txt))
        self._signature = (*shapes, img.dtype, img.device, self._strengths)
        if self._planned:
            self.predict = self.run.store.fits(self.conditions, self._signature)
            self.reason = None if self.predict else CHANGED

    def run_natively(self, reason: str) -> None:
        """Nothing is predicted or kept in this call."""
        if self._planned or self.reason in CONSEQUENCES:
            self.reason = reason
        self._planned = self._keep = False

    def features(self, device: torch.device) -> list[Tensor]:
        """The kept features of this call's rows."""
        self.predicted = True
        return self.run.store.take(self.conditions, device)

    def keep_features(self, tensors: Sequence[Tensor]) -> None:
        """Hands the features of a full call to the store."""
        if self._keep and self._signature:
            self.run.keep(self.conditions, self._step, self._signature, tensors)
            for tensor in tensors:
                self.look("the features", tensor)

    def look(self, place: str, tensor: Tensor) -> None:
        """Notes whether what stands there in this step is finite."""
        self.run.finite.look(self._step, place, tensor)

    def end(self) -> None:
        """What was planned as a prediction and never came to the Predictor has a reason."""
        if self._planned and not self.predicted and self.reason is None:
            self.reason = OWN_WAY
