"""How far a measurement is, on the node that is running."""

import comfy.utils
from comfy import model_management

from ...rehearsal import Calls


class CallBar:
    """A bar for calls of a network; told of each, it ends what makes them when the user interrupts."""

    FULL = 20  # answered calls that take about as long as one in full

    def __init__(self, expected: Calls):
        self._expected, self._done = self._length(expected), 0
        self._bar = comfy.utils.ProgressBar(self._expected)

    def __call__(self, calls: Calls) -> None:
        """All that were made so far."""
        model_management.throw_exception_if_processing_interrupted()
        self._done = self._length(calls)
        self._expected = max(self._expected, self._done)
        self._bar.update_absolute(self._done, self._expected)

    def _length(self, calls: Calls) -> int:
        return self.FULL * calls.full + calls.answered
