"""What a sampling run did: network calls counted by kind, their time, and the features it held."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import median

PREDICTED, CACHED = "predicted", "cached"  # what calls without all blocks are: by a network of its own, or without


@dataclass
class Report:
    """Counts of network calls, not of steps: a step may take several calls, and a call may serve several conditions."""

    full: int = 0
    predicted: int = 0  # or cached
    fallbacks: Counter[str] = field(default_factory=Counter)  # calls run in full although planned otherwise, by reason
    seconds_full: list[float] = field(default_factory=list)  # fallbacks are full calls too
    seconds_predicted: list[float] = field(default_factory=list)
    bytes_held: int = 0
    warnings: list[str] = field(default_factory=list)
    alarms: list[str] = field(
        default_factory=list
    )  # why the run is not what it looks like: the first lines of the report
    word: str = PREDICTED  # for calls that the method answered
    steps: int = 0
    skipped: int = 0  # calls that something else answered in place of the network's blocks
    only_full: str = ""  # why no call was to be answered by a method
    partial: int = 0  # counted calls in which other nodes left blocks out
    rejected: int = 0  # calls that were made again, their answers not good enough
    seconds_rejected: list[float] = field(default_factory=list)
    rows_rejected: list[int] = field(default_factory=lambda: [0, 0])  # of those calls: rows cached, rows in full
    rows_unchecked: int = 0  # of calls made again: rows cached, whose drafts were good enough before
    rows: dict[tuple[int, int], list[int]] = field(
        default_factory=lambda: defaultdict(lambda: [0, 0])
    )  # condition, video -> steps cached, steps in full

    theory: float | None = None  # the speed-up that the run's operations speak for, if somebody has reckoned it

    @property
    def calls(self) -> int:
        """All calls that the network or the method answered."""
        return self.full + self.predicted + self.fallbacks.total()

    @property
    def speedup(self) -> float | None:
        """Time of all calls had each been full (at the median full call), over their measured time."""
        spent = self.seconds
        if not self.seconds_full or spent <= 0.0:
            return None
        others = median(self.seconds_full) * len(self.seconds_predicted)
        return (sum(self.seconds_full) + others) / spent

    @property
    def seconds(self) -> float:
        """In the network, in all calls."""
        return sum(self.seconds_full) + sum(self.seconds_predicted) + sum(self.seconds_rejected)

    @property
    def counts(self) -> str:
        """The calls by kind, such as '8 full + 12 predicted' or '8 full + 12 cached'."""
        kinds = {"full": self.full, self.word: self.predicted, "fallback": self.fallbacks.total()}
        return " + ".join(f"{count:d} {kind}" for kind, count in kinds.items() if count) or "0 calls"

    @property
    def headline(self) -> str:
        """The result in a few words: a speed-up only where the method answered and nothing spoils the figure."""
        if not self.predicted:
            return f"Nothing {self.word}: {self.counts}"
        return f"{self.speedup:.1f}x: {self.counts}" if self._compares() else self.counts

    @property
    def lines(self) -> list[str]:
        """What must be known first, the headline, warnings, then one fact a line."""
        warnings = [f"Warning: {warning}" for warning in self.warnings]
        return [*self.alarms, self.headline, *warnings, *self._reasons(), *self._measures()]

    @property
    def short(self) -> list[str]:
        """What fits on a node of its default size, where two lines of 40 letters are seen without scrolling."""
        seconds = [f"{median(self.seconds_full):.3g} s full"] if self.seconds_full else []
        seconds += [f"{median(self.seconds_predicted):.3g} s {self.word}"] if self.seconds_predicted else []
        warned = [f"warnings, see the report: {len(self.warnings):d}"] if self.warnings else []
        return [*self.alarms, self.headline, *([", ".join(seconds)] if seconds else []), *warned, *self._reasons()]

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _compares(self) -> bool:
        """Whether the speed-up means what it says."""
        return bool(self.predicted and self.speedup and not self.alarms and not self.partial)

    def _reasons(self) -> list[str]:
        facts = [self.only_full] if self.only_full else []
        facts += [f"{count:d} in full: {reason}" for reason, count in self.fallbacks.most_common()]
        if self.partial:
            facts.append(f"{self.partial:d} calls without all blocks: another node left some out")
        if self.rejected:
            facts.append(f"{self.rejected:d} rejected and made again in full")
        if len({tuple(counts) for counts in self.rows.values()}) > 1:
            facts.append(self._row_counts())
        if self.skipped and not self.alarms:
            facts.append(f"{self.skipped:d} calls not answered by the network")
        if self.calls != self.steps and self.steps and not self.alarms:
            facts.append(f"{self.calls:d} calls in {self.steps:d} steps")
        return facts

    def _row_counts(self) -> str:
        """Where rows went apart, how many steps ran in full for each."""
        full = [full for _, (_, full) in sorted(self.rows.items())]
        each = ", ".join(f"{count:d}" for count in full)
        return f"{sum(full) / len(full):.1f} steps in full a video and condition ({each})"

    def _measures(self) -> list[str]:
        facts = []
        if self.seconds_full:
            facts.append(f"full: {median(self.seconds_full):.3g} s each")
        if self.seconds_predicted:
            facts.append(f"{self.word}: {median(self.seconds_predicted):.3g} s each")
        if self.seconds:
            facts.append(f"total: {self.seconds:.3g} s in the network")
        if self._compares():
            calls = f"all {self.calls:d} calls in full, each as long as this run's full ones (estimated)"
            facts.append(f"compared with: {calls}")
            facts += [f"by its operations: {self.theory:.1f}x"] if self.theory else []
        return [*facts, f"features held: {self.bytes_held / 1e6:.1f} MB"] if self.bytes_held else facts
