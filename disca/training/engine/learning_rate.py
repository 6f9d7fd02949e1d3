"""The learning rate over a run: a warm-up, and how it goes on."""

import math

from ..contract.settings import OptimiserSettings
from ..contract.torch_names import OWN_SCHEDULES, make_schedule, next_rate, require_whole


class LearningRate:
    """What the settings say of it, by the number of updates before: nothing of it need be saved."""

    def __init__(self, settings: OptimiserSettings, iterations: int):
        self._settings, self._iterations = settings, iterations
        self._schedule, self._stepped = None, 0
        require_whole(settings.decay_options, iterations)

    def of(self, updates: int) -> float:
        """The rate of the update after so many: it rises evenly during the warm-up, and goes as the schedule says."""
        warmup = self._settings.warmup
        return self._scheduled(updates) * (min(1.0, (updates + 1) / warmup) if warmup else 1.0)

    def _scheduled(self, updates: int) -> float:
        settings = self._settings
        if settings.decay not in OWN_SCHEDULES:
            return self._by_torch(updates)
        fall = 0.5 + 0.5 * math.cos(math.pi * updates / self._iterations) if settings.decay == "cosine" else 1.0
        return settings.lr * fall

    def _by_torch(self, updates: int) -> float:
        """PyTorch's schedules know the next rate from the last: those before are gone through again after a resume."""
        settings = self._settings
        if self._schedule is None or updates < self._stepped:
            self._schedule = make_schedule(settings.decay, settings.decay_options, settings.lr, self._iterations)
            self._stepped = 0
        while self._stepped < updates:
            next_rate(self._schedule)
            self._stepped += 1
        return float(self._schedule.get_last_lr()[0])
