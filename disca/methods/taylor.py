"""Extrapolation in steps: TaylorSeer's series of order 1 over the features of the last stream."""

from dataclasses import dataclass

from .extrapolation import Line
from .method import Method, Rule, Span, Way


@dataclass(frozen=True)
class Series(Line):
    """C + age · ΔC / gap, age and gap counted in steps."""

    def share(self, age: Span, gap: Span) -> float:
        return self.damping * (age.steps / gap.steps)


def taylor(when: Rule) -> Method:
    """Order 1 on the steps that the rule leaves out."""
    return Method("Taylor", when, (Way(Series()),))
