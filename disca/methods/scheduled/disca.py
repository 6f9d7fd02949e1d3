"""DisCa: a small network, the Predictor, brings the features of the last full step up to date (section 3.3)."""

from torch import Tensor

from ..seam.method import Compute, Context, Method, Tokens, Way, What
from ..seam.when import Rule


class Learned(What):
    """Keeps the last features C, and answers with P(C, x_t, t, r)."""

    computes = True

    def answer(self, given: Tokens, kept: Tokens, ages, compute: Compute, context: Context) -> Tokens:
        predicted = compute(*given, *kept, **context["arguments"])
        return (predicted,) if isinstance(predicted, Tensor) else predicted


def disca(when: Rule) -> Method:
    """The Predictor on the steps that the rule leaves out."""
    return Method("DisCa", when, (Way(Learned()),))
