"""What reaches a node is what its schema asks for, wherever it comes from: the interface, a link or the API.

ComfyUI lets NaN through, plain values where a link belongs, and anything at a link of any type. `check` makes
a node look at all of its inputs: when it is queued, as far as they are known then, and again before it runs.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from comfy_api.v0_0_2 import io
from torch import Tensor

from ...disca.host import compat
from ...disca.limits import require_choice, require_flag, require_number, require_text
from ...disca.messages import cause, listing, quoted

LINKED: dict[str, tuple[Callable[[Any], bool], str]] = {  # socket type -> whether it is one, what it is
    "MODEL": (
        lambda value: _has_any(value, "model_options", "clone", "load_device"),
        "a MODEL, from a node that loads one",
    ),
    "VAE": (lambda value: hasattr(value, "encode"), "a VAE, from a node that loads one"),
    "CLIP": (lambda value: hasattr(value, "tokenize"), "text encoders, from a node that loads them"),
    "CLIP_VISION": (lambda value: hasattr(value, "encode_image"), "a CLIP_VISION, from a node that loads one"),
    "CONDITIONING": (lambda value: _is_conditioning(value), "conditioning, from a node that encodes a prompt"),
    "LATENT": (lambda value: _is_latent(value), "a latent, from a node that makes or encodes one"),
    "DISCA_PREDICTOR": (lambda value: hasattr(value, "spec"), "a Predictor, from DisCa Load Predictor"),
    "DISCA_SCHEDULE": (lambda value: hasattr(value, "of"), "a schedule, from DisCa Cache Schedule"),
}


def check(node: type[io.ComfyNode]) -> None:
    """Lets the node refuse in a sentence what its schema does not ask for, and say no error that a log cannot hold."""
    run = node.execute.__func__
    own = vars(node)["validate_inputs"].__func__ if "validate_inputs" in vars(node) else None
    asked = dict(list(inspect.signature(own).parameters.items())[1:]) if own else {}
    unset = {name: None if one.default is one.empty else one.default for name, one in asked.items()}

    def inputs(cls: type[io.ComfyNode]) -> list[io.Input]:
        wanted = cls.define_schema().inputs
        return [one for one in wanted if not (isinstance(one, io.Combo.Input) and one.id in unset)]

    def execute(cls: type[io.ComfyNode], *values: Any, **given: Any) -> io.NodeOutput:
        given |= dict(zip(list(inspect.signature(run).parameters)[1:], values, strict=False))
        try:
            for each in one_by_one(cls, given):
                require_inputs(inputs(cls), each)
            return run(cls, **given)
        except Exception as error:
            if _is_sayable(error):
                raise
            raise RuntimeError(f"{type(error).__name__}: {cause(error, _encoding())}") from None

    def validate_inputs(cls: type[io.ComfyNode], **given: Any) -> bool:
        for each in one_by_one(cls, given):
            require_inputs(inputs(cls), each, queued=True)
        answer = own(cls, **{name: given.get(name, value) for name, value in unset.items()}) if own else True
        if answer is not True:
            raise ValueError(cause(answer))  # returned, ComfyUI would say it once for each input
        return True

    node.execute = classmethod(execute)
    node.validate_inputs = classmethod(validate_inputs)


def one_by_one(node: type[io.ComfyNode], given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What came in; of a node that takes lists each of it, the last of a list that is shorter again."""
    if not node.define_schema().is_input_list:
        yield given
        return
    lists = {name: value if isinstance(value, list | tuple) else [value] for name, value in given.items()}
    for number in range(max(map(len, lists.values()), default=1)):
        yield {name: value[min(number, len(value) - 1)] if value else None for name, value in lists.items()}


def require_inputs(wanted: list[io.Input], given: Mapping[str, Any], queued: bool = False) -> None:
    """ValueError in a sentence for the first input that is not right; when queued, links are not known yet: None."""
    for one in wanted:
        value = given.get(one.id)
        if isinstance(one, io.DynamicCombo.Input):
            _require_option(one, value, queued)
        elif value is not None:
            _require_value(one, value)
        elif not (queued or one.optional or _may_be_nothing(one)):
            raise ValueError(f"{quoted(one.id)} is missing. {_needed(one)}")


def _require_option(one: io.DynamicCombo.Input, value: Any, queued: bool) -> None:
    """Of a choice that it does not know, a nested object or none, ComfyUI leaves nothing."""
    option = next((o for o in one.options if isinstance(value, dict) and value.get(one.id) == o.key), None)
    if option is None:
        raise ValueError(
            f"{quoted(one.id)} is missing, or is none that this version of DisCa knows. "
            f"It is one of {listing([o.key for o in one.options], 20)}. Choose one of them."
        )
    require_inputs(option.inputs, value, queued)


def _require_value(one: io.Input, value: Any) -> None:
    if one.io_type in LINKED:
        if not LINKED[one.io_type][0](value):
            raise ValueError(f"{quoted(one.id)} is {quoted(value)}. {_needed(one)}")
    elif isinstance(one, io.Int.Input | io.Float.Input):
        require_number(one.id, value, isinstance(one, io.Int.Input), one.min, one.max)
    elif isinstance(one, io.String.Input):
        require_text(one.id, value)
    elif isinstance(one, io.Boolean.Input):
        require_flag(one.id, value)
    elif isinstance(one, io.Autogrow.Input):
        _require_each(one, value)
    elif isinstance(one, io.Combo.Input):
        require_choice(one.id, _slashed(value), list(map(_slashed, one.options)))


def _require_each(one: io.Autogrow.Input, value: Any) -> None:
    """What has grown: names of the template, each with what it asks for, or None for a link."""
    if not isinstance(value, dict):
        raise ValueError(f"{quoted(one.id)} is {quoted(value)}. Connect its inputs, not itself.")
    known = {template.id: template for template in one.template.get_all()}
    for name, given in value.items():
        require_choice(one.id, name, list(known))
        if given is not None:
            _require_value(known[name], given)


def _may_be_nothing(one: io.Input) -> bool:
    """Whether its node gives None where ComfyUI has changed too much, so that the MODEL stays native."""
    return one.io_type == "DISCA_PREDICTOR" and bool(compat.missing("attach", "loading"))


def _needed(one: io.Input) -> str:
    if one.io_type not in LINKED:
        return "Set it."
    return f"Connect {LINKED[one.io_type][1]}."


def _slashed(value: Any) -> Any:
    return value.replace("\\", "/") if isinstance(value, str) else value


def _has_any(value: Any, *names: str) -> bool:
    """Whether it has one of them at least: a ComfyUI that has renamed one is no mistake of the user's."""
    return any(hasattr(value, name) for name in names)


def _is_conditioning(value: Any) -> bool:
    pairs = value if isinstance(value, list | tuple) and value else [None]
    return all(isinstance(pair, list | tuple) and len(pair) > 1 and isinstance(pair[1], dict) for pair in pairs)


def _is_latent(value: Any) -> bool:
    samples = value.get("samples") if isinstance(value, dict) else None
    return isinstance(samples, Tensor) or getattr(samples, "is_nested", False)


def _encoding() -> str:
    """That of ComfyUI's log: UTF-8, but for a Windows whose output goes into a file."""
    return getattr(sys.stderr, "encoding", None) or "utf-8"


def _is_sayable(error: BaseException | None) -> bool:
    """Whether ComfyUI's log can hold what the error and its causes say: its prompt thread ends else."""
    if error is None:
        return True
    try:
        str(error).encode(_encoding())
    except UnicodeEncodeError:
        return False
    return _is_sayable(error.__cause__) and _is_sayable(error.__context__)
