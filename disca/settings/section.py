"""A section of the settings: data that is checked whoever makes it."""

from functools import wraps
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from ..messages import cause
from .mistakes import first_mistake

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def section(kind: type[T]) -> type[T]:
    """A frozen dataclass of pydantic's; made in code of values that no run could have, ValueError in a sentence.

    Made by pydantic of a YAML file, its own error says where in the file the mistake is.
    """
    made = dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))(kind)
    checked = made.__init__

    @wraps(checked)
    def init(self, *values: Any, **named: Any) -> None:
        try:
            checked(self, *values, **named)
        except ValidationError as error:
            raise ValueError(cause(first_mistake(error, made).sentence)) from None

    made.__init__ = init
    return made
