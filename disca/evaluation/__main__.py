"""python -m disca.evaluation cost: what a full and a cached step of every method take, computed from shapes.

python -m disca.evaluation cost                     both families, at the sizes they are published for
python -m disca.evaluation cost --count             the same, held to operations counted on the real networks
python -m disca.evaluation cost --family 1.5 --size 1280x720x121 --text 1000
"""

import argparse
import re
import sys
from collections.abc import Sequence

from ..messages import quoted
from ..training.network.comfy import prepare_comfy


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m disca.evaluation")
    cost = parser.add_subparsers(dest="command", required=True).add_parser(
        "cost", help="operations and bytes of a step"
    )
    cost.add_argument("--family", nargs="+", choices=["1.0", "1.5"], default=["1.0", "1.5"])
    cost.add_argument("--size", type=_size, help="WIDTHxHEIGHTxFRAMES, in pixels; by default each family's own")
    cost.add_argument("--text", type=int, help="tokens of text; by default 256 for 1.0, 1000 for 1.5")
    cost.add_argument("--count", action="store_true", help="count too, on the real networks: some minutes")
    options = parser.parse_args(arguments)
    prepare_comfy("cpu", training=False)
    from . import cost_table

    try:
        shapes = [cost_table.shape_of(family, options.size, options.text) for family in options.family]
    except ValueError as error:
        parser.error(str(error))
    for shape in shapes:
        for line in cost_table.lines(shape, options.count):
            _say(line)
    if "1.0" in options.family and options.size is None:
        for line in cost_table.paper():
            _say(line)
    return 0


def _size(text: str) -> tuple[int, int, int]:
    if not (found := re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)) or 0 in (size := tuple(map(int, found.groups()))):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not WIDTHxHEIGHTxFRAMES, such as 848x480x121")
    return size


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
