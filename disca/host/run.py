"""One sampling run: decides for each evaluation whether the transformer or the Predictor answers, and counts.

Made when sampling starts and dropped when it ends, also by an error (see `attach`): no state outlives it.
"""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..report import Report
from .features import FeatureStore, Signature

KEY = "disca"  # of our attachment, wrappers, additional model, and of the Run in transformer_options
ON_REPORT = "disca_on_report"  # callback type: called with the Report when a run has ended

UNKNOWN_SIGMA = "at a time that is not one of the run's steps, where the network gets no r"
SECOND_EVALUATION = "second evaluation in one step"
NO_FEATURES = "no features of this condition yet"
CHANGED = "inputs of another shape or type, or other weights, than the features were made with"
CONTROLNET = "ControlNet residuals"
FOREIGN_BLOCKS = "another node replaces blocks"
FOREIGN_ATTENTION = "another node patches attention"
MULTI_GPU = "multi-GPU split"
OTHER_MODEL = "another model in the same run"


class Condition(NamedTuple):
    """What features belong to: a condition in one context window, on one device."""

    index: int  # in the guider's list: ComfyUI's copies in another list keep the id
    uuid: Hashable
    window: Hashable
    device: torch.device


class Evaluation(NamedTuple):
    """The decision for one evaluation of all conditions at one time, the same however ComfyUI batches them."""

    run: "Run"
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
    ):
        self.network = network
        self.predictor = predictor
        self.store = store
        self.report = Report()
        self._anchors = anchors
        self._step_of = {sigma: step for step, sigma in reversed(list(enumerate(sigmas[:-1])))}
        self._served: dict[Condition, int] = {}
        self._pending: list[tuple[list[float], Callable[[], float]]] = []

    def evaluate(self, sigma: float, strengths: dict[Condition, tuple[float, ...]], blocked: str | None) -> Evaluation:
        """The decision at this time for the conditions active then; `blocked` says why nothing may be predicted."""
        step = self._step_of.get(sigma)
        reason = UNKNOWN_SIGMA if step is None else None
        if any(self._served.get(condition) == step for condition in strengths):
            reason = SECOND_EVALUATION
        if blocked == OTHER_MODEL or reason is not None:
            return Evaluation(self, strengths, False, reason or blocked, keep=False)
        self._served.update(dict.fromkeys(strengths, step))
        if step in self._anchors:
            return Evaluation(self, strengths, False)
        if blocked is None and not all(condition in self.store for condition in strengths):
            blocked = NO_FEATURES
        return Evaluation(self, strengths, blocked is None, blocked)

    @contextmanager
    def counted(self, call: "Call", device: torch.device) -> Iterator[None]:
        """Counts and times one network call by what it turned out to be."""
        elapsed = _stopwatch(device)
        yield
        stop = elapsed()
        if call.predict:
            self.report.predicted += 1
            self._pending.append((self.report.seconds_predicted, stop))
        else:
            if call.reason is None:
                self.report.full += 1
            else:
                self.report.fallbacks[call.reason] += 1
            self._pending.append((self.report.seconds_full, stop))
        self.report.bytes_held = max(self.report.bytes_held, self.store.nbytes)

    def finish(self) -> Report:
        """The report, with the times of all calls read."""
        for seconds, read in self._pending:
            seconds.append(read())
        self._pending.clear()
        return self.report


class Call:
    """One network call: the rows of one or more conditions, and what becomes of them."""

    def __init__(self, evaluation: Evaluation, conditions: Sequence[Condition], blocked: str | None):
        self.run = evaluation.run
        self.conditions = conditions
        self.predict = evaluation.predict and blocked is None
        self.reason = blocked if evaluation.predict and blocked else evaluation.reason
        self._keep = evaluation.keep and evaluation.run.predictor is not None
        self._strengths = evaluation.strengths.get(conditions[0], ())  # ComfyUI batches no conditions of other hooks
        self._signature: Signature = ()

    @property
    def predictor(self) -> nn.Module | None:
        """The run's Predictor."""
        return self.run.predictor

    def begin(self, img: Tensor, txt: Tensor) -> None:
        """Sees the inputs of the first block; predicts only from features of inputs and weights like these."""
        rows = len(self.conditions)
        shapes = tuple((tensor.shape[0] // rows, *tensor.shape[1:]) for tensor in (img, txt))
        self._signature = (*shapes, img.dtype, img.device, self._strengths)
        if self.predict and not self.run.store.fits(self.conditions, self._signature):
            self.predict, self.reason = False, CHANGED

    def features(self, device: torch.device) -> list[Tensor]:
        """The kept features of this call's rows."""
        return self.run.store.take(self.conditions, device)

    def keep_features(self, tensors: Sequence[Tensor]) -> None:
        """Hands the features of a full call to the store."""
        if self._keep:
            self.run.store.keep(self.conditions, self._signature, tensors)


def _stopwatch(device: torch.device) -> Callable[[], Callable[[], float]]:
    """Started now; calling it stops it and gives a function that reads the seconds. Only reading waits for the GPU."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()

        def stop() -> Callable[[], float]:
            end.record()
            return lambda: end.synchronize() or begin.elapsed_time(end) / 1000.0

        return stop
    started = time.perf_counter()

    def stop_clock() -> Callable[[], float]:
        seconds = time.perf_counter() - started
        return lambda: seconds

    return stop_clock
