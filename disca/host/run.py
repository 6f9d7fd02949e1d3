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

Condition = tuple[int, Hashable]  # (index in the guider's list, ComfyUI's id): copies in another list keep the id

UNKNOWN_SIGMA = "at a time that is not one of the run's steps, where the network gets no r"
SECOND_EVALUATION = "second evaluation in one step"
NO_FEATURES = "no features of this condition yet"
CHANGED_INPUTS = "inputs of another shape or type"
CONTROLNET = "ControlNet residuals"
FOREIGN_BLOCKS = "another node replaces blocks"
MULTI_GPU = "multi-GPU split"
OTHER_MODEL = "another model in the same run"


class Evaluation(NamedTuple):
    """The decision for one evaluation of all conditions at one time, the same however ComfyUI batches them."""

    run: "Run"
    keys: dict[Condition, Hashable]
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
        self._served: dict[Hashable, int] = {}
        self._pending: list[tuple[list[float], Callable[[], float]]] = []

    def evaluate(
        self, sigma: float, keys: dict[Condition, Hashable], active: Sequence[Hashable], blocked: str | None
    ) -> Evaluation:
        """The decision at this time for the conditions active then; `blocked` says why nothing may be predicted."""
        if blocked == OTHER_MODEL:
            return Evaluation(self, keys, False, OTHER_MODEL, keep=False)
        step = self._step_of.get(sigma)
        if step is None:
            return Evaluation(self, keys, False, UNKNOWN_SIGMA, keep=False)
        if any(self._served.get(key) == step for key in active):
            return Evaluation(self, keys, False, SECOND_EVALUATION, keep=False)
        self._served.update(dict.fromkeys(active, step))
        if step in self._anchors:
            return Evaluation(self, keys, False)
        if blocked is None and not all(key in self.store for key in active):
            blocked = NO_FEATURES
        return Evaluation(self, keys, blocked is None, blocked)

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
        self.keys = [evaluation.keys[condition] for condition in conditions]
        self.predict = evaluation.predict and blocked is None
        self.reason = blocked if evaluation.predict and blocked else evaluation.reason
        self.keep = evaluation.keep
        self._signature: Signature = ()

    def begin(self, img: Tensor, txt: Tensor) -> None:
        """Sees the inputs of the first block; predicts only from features of inputs like these."""
        rows = len(self.keys)
        shapes = tuple((tensor.shape[0] // rows, *tensor.shape[1:]) for tensor in (img, txt))
        self._signature = (*shapes, img.dtype, img.device)
        if self.predict and not self.run.store.fits(self.keys, self._signature):
            self.predict, self.reason = False, CHANGED_INPUTS

    def features(self, device: torch.device) -> list[Tensor]:
        """The kept features of this call's rows."""
        return self.run.store.take(self.keys, device)

    def keep_features(self, tensors: Sequence[Tensor]) -> None:
        """Hands the features of a full call to the store."""
        if self.keep and self.run.predictor is not None:
            self.run.store.keep(self.keys, self._signature, tensors)


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
