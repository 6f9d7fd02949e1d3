"""The figures of a run as others show them: TensorBoard, Weights & Biases."""

from typing import Any


def scalars_of(line: dict[str, Any]) -> dict[str, float]:
    """The figures of an iteration's line of the log, by names that group them."""
    bands = {
        "loss by t/" + name + f" {place / len(values):.2f}-{(place + 1) / len(values):.2f}": value
        for name, values in line["bands"].items()
        for place, value in enumerate(values)
    }
    groups = {"loss": line["loss"], "extra": line["extra"], "lr": line["lr"], "gradient norm": line["gradient_norm"]}
    named = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
    return {tag: value for tag, value in (named | bands | {"seconds": line["seconds"]}).items() if value is not None}
