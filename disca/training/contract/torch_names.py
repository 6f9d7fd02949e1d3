"""Optimisers and learning-rate schedules of PyTorch and torchao, by the names that one imports them with."""

from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, signature
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ...messages import cause, listing, quoted
from ...settings.fields import MOST_LISTED

OPTIMISERS, TORCHAO, SCHEDULES = "torch.optim", "torchao.optim", "torch.optim.lr_scheduler"
SHORT = {"adamw": f"{OPTIMISERS}.AdamW", "adamw_8bit": f"{TORCHAO}.AdamW8bit"}
OWN_SCHEDULES = ("none", "cosine")
KINDS = {OPTIMISERS: Optimizer, TORCHAO: Optimizer, SCHEDULES: LRScheduler}
UNFIT = {  # they want losses at trial steps, sparse gradients or functions, or their state cannot be saved to the bit
    "LBFGS", "SparseAdam", "CPUOffloadOptimizer", "Adam4bit", "AdamW4bit", "ReduceLROnPlateau", "LambdaLR",
    "MultiplicativeLR", "SequentialLR", "ChainedScheduler",
}  # fmt: skip
SET_HERE = {  # parameters that other settings stand for, or that a training needs to be as they are
    "params", "optimizer", "lr", "betas", "weight_decay", "last_epoch", "cycle_momentum", "bf16_stochastic_round",
    "maximize", "differentiable", "capturable",
}  # fmt: skip
WHOLE_RUN = ("T_max", "total_steps", "total_iters")  # of a schedule: the run's iterations where they are not given


class _OptionError(ValueError):
    """An option that is none, or lacks: said in our own words."""


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        entries = value if isinstance(value, list) else [value]
        if len(entries) > MOST_LISTED or not all(isinstance(entry, str | bool | int | float) for entry in entries):
            raise ValueError(f"{quoted(name)} is {quoted(value)}. Give a number, a text, true or false, or a list.")
    return options


Options = Annotated[dict[str, Any], Field(max_length=MOST_LISTED), AfterValidator(_plain)]


def optimisers() -> list[str]:
    """The names that an optimiser can have, beside torchao's own."""
    return [*SHORT, *_names(OPTIMISERS)]


def schedules() -> list[str]:
    """The names that a schedule can have."""
    return [*OWN_SCHEDULES, *_names(SCHEDULES)]


def uses_torchao(name: str) -> bool:
    """Whether an optimiser keeps its moments in a byte or less, and rounds bf16 weights at random."""
    return _split(name)[0] == TORCHAO


def require_optimiser(name: str, options: dict[str, Any]) -> None:
    """ValueError in a sentence unless it is one that takes these options; torchao's are looked up when made."""
    if uses_torchao(name) or (name in SHORT and not options):  # nothing is tried for what every run has by default
        return
    if name not in optimisers():
        raise ValueError(f"'name' is {quoted(name)}, but must be one of {listing(optimisers(), MOST_LISTED)}.")
    weight = torch.zeros(2, 2, requires_grad=True)
    weight.grad = torch.zeros(2, 2)
    _try(name, lambda: _made(name, options, [weight]).step())


def require_schedule(name: str, options: dict[str, Any]) -> None:
    """ValueError in a sentence unless it is one that takes these options."""
    if name not in schedules():
        raise ValueError(f"'decay' is {quoted(name)}, but must be one of {listing(schedules(), MOST_LISTED)}.")
    if name not in OWN_SCHEDULES:
        _try(name, lambda: next_rate(make_schedule(name, options, 1.0, 100)))
    elif options:
        raise ValueError(f"'decay_options' are given, but {quoted(name)} takes none. Leave them out.")


def require_whole(options: dict[str, Any], iterations: int) -> None:
    """ValueError if a schedule would end before the run does."""
    steps = options.get("total_steps", iterations)
    if steps < iterations:
        raise ValueError(
            f"optimizer.decay_options has 'total_steps' {steps:d}, but the run {iterations:d} iterations: "
            "the schedule ends with an error before. Leave it out: it is then as long as the run."
        )


def make_schedule(name: str, options: dict[str, Any], lr: float, iterations: int) -> LRScheduler:
    """The schedule over an optimiser of its own, whose learning rate is the one to take."""
    known = signature(find_class(name)).parameters
    whole = {parameter: iterations for parameter in WHOLE_RUN} | {"max_lr": lr, "cycle_momentum": False}
    filled = {parameter: value for parameter, value in whole.items() if parameter in known}
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    return _made(name, options, optimiser, **filled)


def next_rate(schedule: LRScheduler) -> None:
    """Moves the schedule on by one update."""
    schedule.optimizer.step()  # moves nothing; without it there is a warning
    schedule.step()


def find_class(name: str) -> type:
    """The class of that name; RuntimeError if its package cannot be imported, ValueError if it has none such."""
    place, own = _split(name)
    try:
        known = _names(place)
    except ImportError as error:
        raise RuntimeError(
            f"optimizer.name is {quoted(name)}, but torchao cannot be imported. Install it into the Python that trains "
            "(pip install torchao), or set optimizer.name to adamw."
        ) from error
    if f"{place}.{own}" not in known:
        raise ValueError(f"optimizer.name is {quoted(name)}, but must be one of {listing(known, MOST_LISTED)}.")
    return getattr(import_module(place), own)


def options_of(found: type) -> list[str]:
    """The options that a run may give the class."""
    return [name for name in signature(found).parameters if name not in SET_HERE]


def _made(name: str, options: dict[str, Any], first: Any, **filled: Any) -> Any:
    found = find_class(name)
    known = signature(found).parameters
    if unknown := sorted(options.keys() - options_of(found)):
        takes = listing(options_of(found), MOST_LISTED)
        raise _OptionError(f"{quoted(unknown[0])} is no option of {quoted(name)}. It takes {takes}.")
    needed = [key for key in options_of(found) if known[key].default is Parameter.empty]
    if lacking := sorted(set(needed) - options.keys() - filled.keys()):
        raise _OptionError(f"{quoted(name)} needs the option {quoted(lacking[0])}.")
    return found(first, **filled | options)


def _try(name: str, act: Callable[[], object]) -> None:
    try:
        act()
    except _OptionError:
        raise
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"{quoted(name)} cannot work with these options ({cause(error)}). Correct them.") from None


def _split(name: str) -> tuple[str, str]:
    place, _, own = SHORT.get(name, name).rpartition(".")
    return place, own


def _names(place: str) -> list[str]:
    kind, module = KINDS[place], import_module(place)
    return sorted(
        f"{place}.{own}"
        for own, found in vars(module).items()
        if isinstance(found, type) and issubclass(found, kind) and found is not kind
        if own not in UNFIT and not own.startswith("_")
    )
