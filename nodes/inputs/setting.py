"""Inputs that are made from the settings that they are for."""

from typing import Any, Literal, get_args, get_origin

from comfy_api.v0_0_2 import io

from ...disca.settings.fields import fields_of, limits_of

ENDS = "Its lower end.", "Its upper end."
ROUNDED = 0.01  # steps that are smaller only say how fast a number moves


def setting_input(section: type, name: str, id: str = "", **changed: Any) -> io.Input:
    """The input for a setting, with its limits, default and description but for what is changed of them."""
    field = fields_of(section)[name]
    options = {"default": field.default, "tooltip": field.description} | changed
    if field.annotation is bool:
        return io.Boolean.Input(id or name, **options)
    if get_origin(field.annotation) is Literal:
        options = {"options": list(get_args(field.annotation))} | options
    if "options" in options:
        return io.Combo.Input(id or name, **options)
    if field.annotation is str or isinstance(options["default"], str):
        return io.String.Input(id or name, **options)
    least, most = limits_of(field)
    if field.annotation is int:
        return io.Int.Input(id or name, **{"min": least, "max": most} | options)
    step = field.json_schema_extra["step"]
    rounding = {"round": False} if step < ROUNDED else {}
    return io.Float.Input(id or name, **{"min": float(least), "max": float(most), "step": step} | rounding | options)


def range_inputs(section: type, name: str, about: str = "", **changed: Any) -> list[io.Input]:
    """The inputs for both ends of a range."""
    field = fields_of(section)[name]
    told = [about, field.description] if about else [field.description]
    return [
        setting_input(section, name, f"{name}_{end}", default=value, tooltip=" ".join([*told, which]), **changed)
        for end, value, which in zip(("low", "high"), field.default, ENDS, strict=True)
    ]


def method_input(section: type, custom: list[io.Input]) -> io.Input:
    """A choice among the presets of a section and its settings one by one."""
    preset = fields_of(section)["preset"]
    options = [io.DynamicCombo.Option(name, []) for name in get_args(preset.annotation)]
    custom_option = io.DynamicCombo.Option("custom", custom)
    return io.DynamicCombo.Input("method", options=[*options, custom_option], tooltip=preset.description)
