"""A training's YAML file, and options in one line."""

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from ...files import replacing
from ...messages import quoted
from ...settings.yaml_file import Loader, read_section
from .settings import Settings

RUN = TypeAdapter(Settings)
MOST_OPTION_LETTERS = 1000


def read_settings(file: str | os.PathLike) -> Settings:
    """The run that a YAML file describes; ValueError names file and line of what is wrong in it."""
    return read_section(file, Settings)


def write_settings(settings: Settings, file: str | os.PathLike) -> None:
    """Writes a YAML file that reads back as the same settings; it appears whole or not at all."""
    with replacing(Path(file)) as aside, open(aside, "w", encoding="utf-8") as out:
        yaml.safe_dump(RUN.dump_python(settings, mode="json"), out, sort_keys=False, allow_unicode=True)


def read_options(name: str, text: str) -> dict[str, Any]:
    """What a line such as 'momentum: 0.9, nesterov: true' says; ValueError in a sentence if it is none."""
    try:
        options = yaml.load("{" + text[:MOST_OPTION_LETTERS] + "}", Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        options = None
    if not isinstance(options, dict) or None in options.values():
        raise ValueError(f"{quoted(name)} is {quoted(text)}. Write it as 'momentum: 0.9, nesterov: true'.")
    return options
