"""What a sampling run did: network calls counted by kind, their time, and the features it held."""

from collections import Counter
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Report:
    """Counts of network calls, not of steps: a step may take several calls, and a call may serve several conditions."""

    full: int = 0
    predicted: int = 0
    fallbacks: Counter[str] = field(default_factory=Counter)  # calls run in full although planned otherwise, by reason
    seconds_full: list[float] = field(default_factory=list)  # fallbacks are full calls too
    seconds_predicted: list[float] = field(default_factory=list)
    bytes_held: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def calls(self) -> int:
        """All network calls."""
        return self.full + self.predicted + self.fallbacks.total()

    @property
    def speedup(self) -> float | None:
        """Time of all calls had each been full (at the median full call), over their measured time."""
        spent = sum(self.seconds_full) + sum(self.seconds_predicted)
        if not self.seconds_full or spent <= 0.0:
            return None
        others = median(self.seconds_full) * len(self.seconds_predicted)
        return (sum(self.seconds_full) + others) / spent

    def __str__(self) -> str:
        parts = [f"{self.calls:d} calls: {self.full:d} full", f"{self.predicted:d} predicted"]
        parts.append(f"{self.fallbacks.total()} fallback{_reasons(self.fallbacks)}")
        lines = ["DisCa: " + ", ".join(parts)]
        if self.seconds_full:
            lines.append(f"full {_timing(self.seconds_full)}")
        if self.seconds_predicted:
            lines.append(f"predicted {_timing(self.seconds_predicted)}")
        lines.append(f"{self.bytes_held / 1e6:.1f} MB of features held")
        if self.speedup is not None:
            lines.append(f"{self.speedup:.2f} times as fast as all full")
        return "; ".join(lines + [f"warning: {warning}" for warning in self.warnings])


def _reasons(fallbacks: Counter[str]) -> str:
    told = ", ".join(f"{count:d} {reason}" for reason, count in fallbacks.most_common())
    return f" ({told})" if told else ""


def _timing(seconds: list[float]) -> str:
    return f"{sum(seconds):.3g} s, {median(seconds):.3g} s each"
