"""Plain reuse: the features of the last full step, as they are."""

from .method import Method, Rule, Tokens, Way, What


class Reuse(What):
    """Keeps the last features, and answers with them."""

    def answer(self, tokens: Tokens, kept: Tokens, age, gap, compute, context) -> Tokens:
        return kept


def reuse(when: Rule) -> Method:
    """Reuse on the steps that the rule leaves out."""
    return Method("reuse", when, (Way(Reuse()),))
