"""One network call: the rows in it, what each of them decides, and what becomes of the blocks."""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..methods.method import FULL
from ..models.blocks import Args, Out, Place
from . import rows

if TYPE_CHECKING:
    from .run import Run

NO_FEATURES = "no features of this condition yet"
OLD_FEATURES = "features from before the last anchor, which another node answered"
CHANGED = "inputs of another shape or type, or other weights, than the features were made with"
NO_OPTIONS = "another node calls the blocks without transformer_options"
PIECES = "another node evaluates a condition in several pieces"
OWN_WAY = "another node calls the blocks in its own way"


class ConditionKey(NamedTuple):
    """A condition in one context window, on one device."""

    index: int  # in the guider's list: ComfyUI's copies in another list keep the id
    uuid: Hashable
    window: Hashable
    device: torch.device

    @property
    def anywhere(self) -> tuple:
        """The condition, whichever device works on it."""
        return self.index, self.uuid, self.window


class Row(NamedTuple):
    """What decides, and what features belong to: one video of one condition."""

    condition: ConditionKey
    video: int  # in the batch


class Evaluation(NamedTuple):
    """One evaluation of all conditions at one time, the same however ComfyUI batches them."""

    run: "Run"
    sigma: float
    step: int | None  # None: no step of the run's
    strengths: dict[ConditionKey, tuple[float, ...]]  # active conditions, with the strengths of their LoRA hooks now
    reason: str | None = None  # why nothing is predicted in it
    keep: bool = True  # whether it is a step's own: only then full calls refresh the features
    stores: bool = True  # whether features are of use in it at all


class Group(NamedTuple):
    """Rows of a call that go one way, from features of the same steps."""

    rows: list[int]  # their places in the batch
    way: int  # or FULL
    steps: tuple[int, ...] = ()  # of the last full step, and of the one before


class Call:
    """One network call: the rows of one or more conditions, and what becomes of them."""

    def __init__(
        self,
        evaluation: Evaluation,
        conditions: Sequence[ConditionKey],
        batch: int,
        blocked: str | None,
        blocks: int | None = None,
    ):
        self.run, self.sigma, self.conditions = evaluation.run, evaluation.sigma, conditions
        self.predicted = False  # whether a method answered for a row
        self.reason: str | None = evaluation.reason if not evaluation.keep else None
        self.blocks_run = 0
        self._evaluation = evaluation
        self._batch = batch  # rows that go into the network
        self._blocks = blocks  # how many there are to run; None: nobody watches them
        self._blocked = blocked or evaluation.reason
        self._decides = evaluation.keep
        self._keeps = evaluation.keep and evaluation.stores and evaluation.run.method is not None
        self._rows: list[Row] = []  # until the first block has shown its inputs
        self._groups: list[Group] = []
        self._signature: tuple = ()
        if not self.run.is_whole(conditions):
            self.run_natively(PIECES)

    @property
    def answered(self) -> bool:
        """Whether blocks or a method ran, not something in their place."""
        return self.predicted or self._blocks is None or self.blocks_run > 0

    @property
    def full(self) -> bool:
        """Whether a row ran in full."""
        return not self._groups or any(group.way == FULL for group in self._groups)

    @property
    def partial(self) -> bool:
        """Whether some of the blocks were left out in a step's own evaluation, by another node."""
        return self._evaluation.keep and self._blocks is not None and 0 < self.blocks_run < self._blocks

    def through(self, place: Place, args: Args, block: Callable[[Args], Out]) -> Out:
        """What comes out of the block: its output, the method's answer, or its input where the answer came before."""
        if place.first:
            self._begin(place.kind.tokens(args))
        if len(self._groups) < 2:
            return self._go(self._groups[0] if self._groups else Group([], FULL), place, args, block)
        parts = [(group, rows.narrowed(args, group.rows, len(self._rows))) for group in self._groups]
        return rows.in_batch_order([(group.rows, self._go(group, place, part, block)) for group, part in parts])

    def run_natively(self, reason: str) -> None:
        """Nothing is predicted or kept in this call."""
        if self._decides and self._planned():
            self.reason = self._blocked or reason
        self._decides = self._keeps = False

    def look(self, place: str, tensor: Tensor) -> None:
        """Notes whether what stands there in this step is finite."""
        self.run.finite.look(self._evaluation.step, place, tensor)

    def end(self) -> None:
        """What was planned as a prediction and never came to the method has a reason."""
        planned = not self.full if self._rows else self._decides and self._planned()
        if planned and not self.predicted:
            self.reason = self._blocked or OWN_WAY

    def _begin(self, tokens: Sequence[Tensor]) -> None:
        """Sees the inputs of the first block: only from features of inputs and weights like these is predicted."""
        if self._rows or len(tokens[0]) != self._batch:  # the network runs again in this call, or on a part of it
            self.run.split(self.conditions)
            self.run_natively(PIECES)
            self._groups = []
            return
        videos = self._batch // len(self.conditions)
        self._rows = [Row(condition, video) for condition in self.conditions for video in range(videos)]
        # ComfyUI batches no conditions of other hooks
        strengths = self._evaluation.strengths.get(self.conditions[0], ())
        shapes = tuple(tuple(tensor.shape[1:]) for tensor in tokens)
        self._signature = (*shapes, tokens[0].dtype, tokens[0].device, strengths)
        if self._decides:
            self._groups = self._grouped()

    def _grouped(self) -> list[Group]:
        groups: dict[tuple, list[int]] = {}
        for number, row in enumerate(self._rows):
            way, reason = self._decision(row)
            if reason is not None and self.reason is None:
                self.reason = reason
            steps = () if way == FULL else self.run.full_steps(row)
            groups.setdefault((way, steps), []).append(number)
        return [Group(members, *key) for key, members in groups.items()]

    def _decision(self, row: Row) -> tuple[int, str | None]:
        """FULL or a way, and why it is FULL where the method wanted a way."""
        step = self._evaluation.step
        way = self.run.decide(row, step)
        if way == FULL:
            return FULL, None
        reason = self._blocked or (PIECES if self.run.is_split(row.condition) else None)
        if reason is None and row not in self.run.store:
            reason = NO_FEATURES
        if reason is None and self.run.is_stale(row, step):
            reason = OLD_FEATURES
        if reason is None and not self.run.store.fits(row, self._signature):
            reason = CHANGED
        return (way, None) if reason is None else (FULL, reason)

    def _planned(self) -> bool:
        """Whether the method would answer for one of the conditions."""
        step = self._evaluation.step
        return any(self.run.decide(Row(condition, 0), step) != FULL for condition in self.conditions)

    def _go(self, group: Group, place: Place, args: Args, block: Callable[[Args], Out]) -> Out:
        if group.way != FULL:
            return self._answer(group, place, args)
        out = block(args)
        if place.ends and self._keeps and self._rows:
            made = [out[name] for name in place.kind.streams]
            self.run.keep([self._rows[i] for i in group.rows], self._evaluation.step, self._signature, made)
            for tensor in made:
                self.look("the features", tensor)
        return out

    def _answer(self, group: Group, place: Place, args: Args) -> Out:
        tokens = place.kind.tokens(args)
        if place.begins:
            self.predicted = True
            asked = [self._rows[i] for i in group.rows]
            tokens = self.run.answer(asked, group, self._evaluation.step, tokens, place.context(args))
        return place.kind.answer(tokens)
