"""How rows that go one way pass a network's blocks: in full, seen by the method, or with its answers in their place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ...methods.seam.method import OUTPUT, SITES, Way, What
from ...methods.seam.when import FEATURES, MIDDLE
from ...models.block_kind import BlockKey
from ...models.blocks import Args, Out, Place
from ...models.standins import answering, recording
from .signals import Signals

if TYPE_CHECKING:
    from .call import Row
    from .run import Run

Block = Callable[[Args], Out]


class Passage:
    """Rows of one call that go one way; `numbers` are their places in the batch."""

    answered = False  # whether the method answered for something

    def __init__(self, run: "Run", step: int, rows: Sequence["Row"], numbers: Sequence[int], signals: Signals):
        self.run, self.step, self.rows, self.numbers, self.signals = run, step, rows, numbers, signals
        self.ages = run.ages(rows, step)  # of the full steps before this one, for each row
        self.ran: set[BlockKey] = set()  # blocks that ran otherwise than by `block`

    def go(self, place: Place, args: Args, block: Block) -> Out:
        """What comes out of a block."""
        raise NotImplementedError

    def output(self, x: Tensor, out: Tensor) -> Tensor:
        """What comes out of the network, of what went in."""
        return out

    def _run(self, place: Place, args: Args, block: Block) -> Out:
        done = self.signals.after_first if place.first else None
        if done is None:
            return block(args)
        whole = len(self.numbers) == len(next(iter(done.values())))
        return done if whole else {name: tokens[self.numbers] for name, tokens in done.items()}


class FullPassage(Passage):
    """Every block runs; what the method wants is kept, and what its rule sees is shown."""

    def __init__(self, run: "Run", step: int, rows, numbers, signals: Signals, kept: bool):
        super().__init__(run, step, rows, numbers, signals)
        self.kept = kept
        self._method = run.method if kept else None
        self._sees = run.method.when.sees if kept else ()
        self._given: dict[int, list[Tensor]] = {}  # what went into the stretch of a way

    def go(self, place: Place, args: Args, block: Block) -> Out:
        if self._method is None:
            return block(args)
        for number, way in enumerate(self._method.ways):
            if way.where in place.starts and way.what.reads_given:
                self._given[number] = place.copied(args)
        seen = place.middle and MIDDLE in self._sees
        before = place.image(args, self.signals.image_tokens).clone() if seen else None
        out = self._recorded(place, args, block)
        if seen:
            after = place.image(out, self.signals.image_tokens)
            self.signals.put(MIDDLE, self.numbers, after - before)
        if place.ends:
            self._ends(place, out)
        return out

    def output(self, x: Tensor, out: Tensor) -> Tensor:
        for number, way in enumerate(self._method.ways if self._method else ()):
            if way.where == OUTPUT:
                self.run.store.keep(self.rows, number, way.what, [x], [out], self.ages)
        return out

    def _recorded(self, place: Place, args: Args, block: Block) -> Out:
        sites = {site: number for number, way in _with_sites(self._method.ways) for site in way.sites}
        wanted = [site for site in place.kind.sites if site in sites]
        if not wanted:
            return self._run(place, args, block)

        def saw(site: str, given: Tensor | None, made: Tensor) -> None:
            number = sites[site]
            what = self._method.ways[number].at(site)
            went_in = [] if given is None else [given]
            self.run.store.keep(self.rows, (number, place.key, site), what, went_in, [made], self.ages)

        given = any(self._method.ways[sites[site]].at(site).reads_given for site in wanted)
        self.ran.add(place.key)
        return place.kind.run(recording(self.run.module(place), place.kind, wanted, saw, given), args)

    def _ends(self, place: Place, out: Out) -> None:
        made = [out[name] for name in place.kind.streams]
        for number, way in enumerate(self._method.ways):
            if way.where in place.inside:
                self.run.store.keep(self.rows, number, way.what, self._given.pop(number, made), made, self.ages)
        if FEATURES in self._sees:
            self.signals.put(FEATURES, self.numbers, place.image(out, self.signals.image_tokens))
        self.run.complete(self.rows, self.step)
        for tensor in made:
            self.run.finite.look(self.step, "the features", tensor)


class CachedPassage(Passage):
    """Blocks outside the way's stretch run, the method answers, all others pass on what comes in."""

    def __init__(self, run: "Run", step: int, rows, numbers, signals: Signals, way: int, checked: bool):
        super().__init__(run, step, rows, numbers, signals)
        self._checked = checked  # whether answers are compared with the last block
        self._number, self._way = way, run.method.ways[way]
        self._context = {"step": step, "sigmas": run.sigmas, "t": run.sigmas[step]}
        self.rejected: list[Row] = []  # whose answers were checked, and not good enough

    def go(self, place: Place, args: Args, block: Block) -> Out:
        way = self._way
        if way.where == SITES:
            return self._at_sites(place, args)
        tokens = place.kind.tokens(args)
        if way.where in place.answers:
            context = {**self._context, "arguments": place.context(args)}
            tokens = self._answer(self._number, way.what, tokens, self.run.compute, context)
        elif way.where != OUTPUT and way.where not in place.inside:
            return self._run(place, args, block)
        return place.kind.answer(tokens)

    def output(self, x: Tensor, out: Tensor) -> Tensor:
        if self._way.where != OUTPUT:
            return out
        return self._answer(self._number, self._way.what, [x], self.run.compute, self._context)[0]

    def _answer(self, key, what: What, given: Sequence[Tensor], compute, context: Mapping) -> Sequence[Tensor]:
        self.answered = True
        kept = self.run.store.take(self.rows, key, given[0].device)
        made = what.answer(given, kept, self.ages[0], compute, context)  # one for all: rows of other steps go apart
        if what.renews:
            self.run.store.put(self.rows, key, what.renewed(made, kept))
        return made

    def _at_sites(self, place: Place, args: Args) -> Out:
        checked = place.ends and self._checked
        before = place.copied(args) if checked else ()
        answers = {site: SiteAnswer(self, place, site) for site in place.kind.sites if site in self._way.sites}
        stand_in = answering(self.run.module(place), place.kind, answers)
        self.ran.add(place.key)
        out = place.kind.run(stand_in, args)
        if checked:
            self._check(place, {**args, **place.kind.answer(before)}, out)
        return out

    def _check(self, place: Place, args: Args, drafted: Out) -> None:
        exact = place.kind.run(self.run.module(place), args)
        images = [place.image(out, self.signals.image_tokens) for out in (drafted, exact)]
        for number, row, draft, true in zip(self.numbers, self.rows, *images, strict=True):
            if not self.run.checked(row, self.run.now(row, self.step, number, self.signals), draft, true):
                self.rejected.append(row)


class SiteAnswer:
    """What stands in for one module of a block."""

    def __init__(self, passage: CachedPassage, place: Place, site: str):
        self._passage, self._key = passage, (passage._number, place.key, site)
        self._what = passage._way.at(site)
        self._context = {**passage._context, "block": place.number, "blocks": place.count, "site": site}

    @property
    def reads(self) -> bool:
        """Whether it looks at what goes in."""
        return self._what.answers_from_given

    def picks(self, tokens: int) -> Tensor | None:
        """The tokens that the module runs for; None: for none of them."""
        return self._what.picks(tokens, self._context)

    def __call__(self, given: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """What the module would have made; `compute` says what it makes of some tokens, by their indices."""
        return self._passage._answer(self._key, self._what, [given], compute, self._context)[0]


def _with_sites(ways: Sequence[Way]) -> Iterator[tuple[int, Way]]:
    return ((number, way) for number, way in enumerate(ways) if way.where == SITES)
