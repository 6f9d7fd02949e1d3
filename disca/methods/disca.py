"""DisCa: a small network, the Predictor, brings the features of the last full step up to date (section 3.3)."""

from collections.abc import Callable

from torch import Tensor

from .method import Method, Rule, Tokens, Way, What


class Learned(What):
    """Keeps the last features C, and answers with P(C, x_t, t, r)."""

    computes = True

    def answer(self, tokens: Tokens, kept: Tokens, age, gap, compute: Callable, context: dict) -> Tokens:
        predicted = compute(*tokens, *kept, **context)
        return (predicted,) if isinstance(predicted, Tensor) else predicted


def disca(when: Rule) -> Method:
    """The Predictor on the steps that the rule leaves out."""
    return Method("DisCa", when, (Way(Learned()),))
