"""A cache as a user chooses it: settings with limits and presets, from which a `Method` is made."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from .method import Method, Way
from .when import Rule


class Cache(ABC):
    """The settings of one method. A subclass is a `section`, and a line in `METHODS`."""

    name: ClassVar[str]  # in saved workflows
    title: ClassVar[str]
    source: ClassVar[str]  # where it is published
    presets: ClassVar[dict[str, dict[str, Any]]] = {}  # name -> the settings that it sets
    scheduled: ClassVar[bool] = False  # whether its steps are a list, so that another list can take their place
    calibrated: ClassVar[str] = ""  # the setting that takes the values of a calibration, if there is one

    @abstractmethod
    def rule(self) -> Rule:
        """When it runs in full."""

    @abstractmethod
    def ways(self) -> tuple[Way, ...]:
        """Where it stands in, with what."""

    def notice(self, sigmas: Sequence[float], family: str) -> str | None:
        """What a user should know before a run by its own rule, at these times, of a model of that family."""
        return None

    def method(self, rule: Rule | None = None) -> Method:
        """The method; full where another rule is, if one is given."""
        own = Method(self.name, self.rule(), self.ways(), self._warning)
        return own if rule is None else own.at(rule)

    def _warning(self, when: Rule, sigmas: Sequence[float], family: str) -> str | None:
        return self.notice(sigmas, family) if when == self.rule() else None
