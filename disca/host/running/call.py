"""One network call: the rows in it, what each of them decides, and what becomes of the blocks."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...methods.seam.when import FULL, OUTPUT
from ...models.blocks import Args, Out, Place
from . import rows
from .passage import CachedPassage, FullPassage, Passage
from .signals import Signals

if TYPE_CHECKING:
    from .run import Run

NO_FEATURES = "no features of this condition yet"
OLD_FEATURES = "features from before the last full step, which another node answered"
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
    reason: str | None = None  # why the method does not answer in it
    keep: bool = True  # whether it is a step's own: only then full calls refresh the features
    stores: bool = True  # whether features are of use in it at all


class Call:
    """One network call: the rows of one or more conditions, and what becomes of them."""

    def __init__(
        self,
        evaluation: Evaluation,
        conditions: Sequence[ConditionKey],
        latent: Tensor,
        blocked: str | None,
        blocks: int | None = None,
        decided: Mapping[Row, int] | None = None,
        kept: Collection[Row] = (),
    ):
        """`latent` is what goes into the network; `decided` is given where the call is made again.

        Of rows that are `kept` everything is there already: they ran in full before.
        """
        self.run, self.sigma, self.conditions = evaluation.run, evaluation.sigma, conditions
        self.reason: str | None = evaluation.reason if not evaluation.keep else None
        self.ran: set[Hashable] = set()  # keys of blocks
        self._evaluation, self._latent, self._decided, self._kept = evaluation, latent, decided, kept
        self.is_again = decided is not None  # it makes up for answers that were rejected
        self._blocks = blocks  # how many there are to run; None: nobody watches them
        self._call_blocked, self._blocked = blocked, blocked or evaluation.reason
        self._decides = evaluation.keep
        method = evaluation.run.method
        self._keeps = evaluation.keep and evaluation.stores and method is not None
        self._blind: str | None = None  # why the method sees nothing of this call, though it is the step's own
        if self._blocked and self._keeps and method.looks_inside:
            self._keeps = False  # others have a hand in the blocks, whose insides cannot be seen then
            self._blind = self._blocked
        self._signals: Signals | None = None
        self._rows: list[Row] = []  # until the first block has shown its inputs
        self._ways: list[int] = []  # of each row
        self._passages: list[Passage] = []
        self._narrowed: list[rows.Narrowed] = []
        self._signature: tuple = ()
        if decided is None and not self.run.is_whole(conditions):
            self.run_natively(PIECES)

    @property
    def predicted(self) -> bool:
        """Whether the method answered for a row."""
        return any(passage.answered for passage in self._passages)

    @property
    def answered(self) -> bool:
        """Whether blocks or a method ran, not something in their place."""
        return self.predicted or self._blocks is None or bool(self.ran)

    @property
    def full(self) -> bool:
        """Whether a row ran in full."""
        return not self._ways or FULL in self._ways

    @property
    def partial(self) -> bool:
        """Whether some of the blocks were left out in a step's own evaluation, by another node."""
        meant = self._evaluation.keep and self.full and self._blocks is not None
        return meant and 0 < len(self.ran) < self._blocks

    @property
    def row_kinds(self) -> Sequence[tuple[Row, bool]]:
        """Each row, and whether it ran in full."""
        return [(row, way == FULL) for row, way in zip(self._rows, self._ways, strict=False)]

    def through(self, place: Place, args: Args, block: Callable[[Args], Out]) -> Out:
        """What comes out of the block: its output, the method's answer, or its input where the answer came before."""
        if place.first:
            self._begin(place, args, block)
        if not self._passages:
            return block(args)
        if len(self._passages) == 1:
            out = self._passages[0].go(place, args, block)
        else:
            parts = [
                (passage.numbers, passage.go(place, part.args(args, place.kind.streams), block))
                for passage, part in zip(self._passages, self._narrowed, strict=True)
            ]
            out = rows.in_batch_order(parts)
        self.ran.update(*(passage.ran for passage in self._passages))
        return out

    def output(self, out: Tensor) -> Tensor:
        """What comes out of the network: its output, or the method's answer; rules see it."""
        for passage in self._passages:
            numbers = passage.numbers
            if len(self._passages) == 1:
                out = passage.output(self._latent, out)
            else:
                answered = passage.output(self._latent[numbers], out[numbers])
                out = out.index_copy(0, torch.tensor(numbers, device=out.device), answered)
            if isinstance(passage, FullPassage) and passage.kept:
                self._show(passage, out)
        return out

    @property
    def rejected(self) -> list[Row]:
        """Rows whose answers were checked and are not good enough."""
        return [row for one in self._passages if isinstance(one, CachedPassage) for row in one.rejected]

    def again(self) -> "Call":
        """The call that makes up for them: they run in full, the others as before."""
        decided = dict(zip(self._rows, self._ways, strict=True))
        kept = [row for row, way in decided.items() if way == FULL]
        decided |= dict.fromkeys(self.rejected, FULL)
        return Call(self._evaluation, self.conditions, self._latent, self._call_blocked, self._blocks, decided, kept)

    def run_natively(self, reason: str) -> None:
        """The method answers and keeps nothing in this call."""
        if self._decides and self._planned():
            self.reason = self._blocked or reason
        self._decides = self._keeps = False

    def look(self, place: str, tensor: Tensor) -> None:
        """Notes whether what stands there in this step is finite."""
        self.run.finite.look(self._evaluation.step, place, tensor)

    def end(self) -> None:
        """What was planned for the method and never came to it has a reason."""
        planned = not self.full if self._rows else self._decides and self._planned()
        if planned and not self.predicted:
            self.reason = self._blocked or OWN_WAY

    def _begin(self, place: Place, args: Args, block: Callable[[Args], Out]) -> None:
        """Sees the inputs of the first block: the method answers from features of such inputs and weights only."""
        tokens = place.kind.tokens(args)
        if self._rows or len(tokens[0]) != len(self._latent):  # the network runs again in this call, or on a part of it
            self.run.split(self.conditions)
            self.run_natively(PIECES)
            self._passages, self._ways = [], []
            return
        videos = len(self._latent) // len(self.conditions)
        self._rows = [Row(condition, video) for condition in self.conditions for video in range(videos)]
        # ComfyUI batches no conditions of other hooks
        strengths = self._evaluation.strengths.get(self.conditions[0], ())
        shapes = tuple(tuple(tensor.shape[1:]) for tensor in tokens)
        self._signature = (*shapes, tokens[0].dtype, tokens[0].device, strengths)
        self._signals = Signals(place, args, block, self._latent, self.run.modulated)
        if self._decides:
            self._decide()

    def _decide(self) -> None:
        for name in self.run.method.when.sees if self._keeps else ():
            self._signals.prepare(name)
        groups: dict[tuple, list[int]] = {}
        for number, row in enumerate(self._rows):
            way, reason = self._decision(row, number)
            self._ways.append(way)
            if reason is not None and self.reason is None:
                self.reason = reason
            keeps = self._keeps and row not in self._kept
            groups.setdefault((way, () if way == FULL else self.run.full_steps(row), keeps), []).append(number)
        step = self._evaluation.step
        for (way, _, keeps), numbers in groups.items():
            members = [self._rows[number] for number in numbers]
            if way == FULL:
                if keeps:
                    self.run.begin(members, step, self._signature)
                passage = FullPassage(self.run, step, members, numbers, self._signals, keeps)
            else:
                checked = self.run.method.when.checks and not self.is_again
                passage = CachedPassage(self.run, step, members, numbers, self._signals, way, checked)
            self._passages.append(passage)
            self._narrowed.append(rows.Narrowed(numbers, len(self._rows)))

    def _decision(self, row: Row, number: int) -> tuple[int, str | None]:
        """FULL or a way, and why it is FULL where the method wanted a way."""
        step = self._evaluation.step
        if self._decided is not None:
            return self._decided[row], None
        way = self.run.decide(row, self.run.now(row, step, number, self._signals), self._signature)
        if way == FULL:
            return FULL, None if self.run.is_planned else self._blind
        reason = self._blocked or (PIECES if self.run.is_split(row.condition) else None)
        if reason is None and not self.run.full_steps(row):
            reason = NO_FEATURES
        if reason is None and self.run.is_stale(row, step):
            reason = OLD_FEATURES
        if reason is None and not self.run.store.fits(row, self._signature):
            reason = CHANGED
        return (FULL, reason) if reason else (way, None)

    def _show(self, passage: FullPassage, out: Tensor) -> None:
        if OUTPUT in self.run.method.when.sees:
            self._signals.put(OUTPUT, passage.numbers, out[passage.numbers])
        for number, row in zip(passage.numbers, passage.rows, strict=True):
            self.run.saw(row, self.run.now(row, self._evaluation.step, number, self._signals))

    def _planned(self) -> bool:
        """Whether the method plans to answer in this step, or may."""
        return self.run.may_answer(self._evaluation.step)
