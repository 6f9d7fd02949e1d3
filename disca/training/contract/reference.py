"""Every setting of a run with its default and what it is, as a YAML file to start from."""

from dataclasses import is_dataclass
from textwrap import wrap
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from ...settings.fields import fields_of
from .settings import DataSettings, Settings

WIDTH = 118
EXAMPLE = Settings("predictor", "runs/my_run", DataSettings("data/my_dataset"))  # what has no default, and the rest
HEAD = (
    "Every setting of a training, with its default; only algorithm, out and data.path have none. Leave out what you do "
    "not change: a preset sets what is left out."
)


def reference() -> str:
    """The file, which reads back as a run with the defaults."""
    return "\n".join([*_commented(HEAD, ""), "", *_lines(EXAMPLE, "")]) + "\n"


def _lines(section: Any, indent: str) -> list[str]:
    """Single settings first, then groups of them."""
    fields = fields_of(type(section))
    single = {name: field for name, field in fields.items() if not is_dataclass(field.annotation)}
    lines = []
    for name, field in single.items():
        value = TypeAdapter(field.annotation).dump_python(getattr(section, name), mode="json")
        written = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
        lines += [*_commented(_told(field), indent), indent + name + ": " + written]
    for name in [name for name in fields if name not in single]:
        group = getattr(section, name)
        about = type(group).__doc__.splitlines()[0]
        lines += ["", indent + name + ":  # " + about, *_lines(group, indent + "  ")]
    return lines


def _commented(text: str, indent: str) -> list[str]:
    return [indent + "# " + line for line in wrap(text, WIDTH - len(indent))]


def _told(field: FieldInfo) -> str:
    """What the setting is; of a list of sections, their keys too, and of a choice what there is to choose."""
    among = get_args(field.annotation)
    if get_origin(field.annotation) is Literal:
        return field.description + " One of " + ", ".join(map(str, among)) + "."
    inner = (*among, None)[0]
    keys = " Keys: " + ", ".join(fields_of(inner)) + "." if is_dataclass(inner) else ""
    return field.description + keys
