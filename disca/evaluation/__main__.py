"""python -m disca.evaluation: methods on prompts and seeds; what steps cost; videos for VBench, and its scores.

python -m disca.evaluation run.yaml                 methods on many prompts and seeds, with a page; the same goes on
python -m disca.evaluation cost                     both families, at the sizes they are published for
python -m disca.evaluation cost --count             the same, held to operations counted on the real networks
python -m disca.evaluation cost --family 1.5 --size 1280x720x121 --text 1000
python -m disca.evaluation vbench-names videos prompts.txt out    the videos, five of each prompt, as VBench names them
python -m disca.evaluation vbench-score evaluation_results        Semantic, Quality and Total of VBench's result files
"""

import argparse
import logging
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ..messages import cause, quoted
from ..settings.yaml_file import read_section
from ..training.console import speak
from ..training.network.comfy import choose_device, prepare_comfy
from .vbench.names import SAMPLES, named, notes, rows_of, write
from .vbench.scores import read_scores

RUN = "run"

log = logging.getLogger("disca.evaluation")


def main(arguments: Sequence[str]) -> int:
    """The command; 0 if all went well, 1 without a Total of VBench's, 2 for a mistake, 130 if it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m disca.evaluation")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands)
    _add_cost(commands)
    _add_vbench(commands)
    short = arguments and Path(arguments[0]).suffix.lower() in (".yaml", ".yml")
    options = parser.parse_args([RUN, *arguments] if short else arguments)
    speak()
    try:
        return options.run(options)
    except (ValueError, RuntimeError, OSError) as error:
        log.error("%s", error, exc_info=log.isEnabledFor(logging.DEBUG))
        return 2
    except KeyboardInterrupt:
        log.info("Interrupted. What is done is kept: the same command goes on.")
        return 130


def _add_run(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser(RUN, help="methods on many prompts and seeds")
    run.add_argument("settings", type=Path, help="a YAML file, such as evaluation/toy.yaml")
    run.set_defaults(run=_run)


def _add_cost(commands: argparse._SubParsersAction) -> None:
    cost = commands.add_parser("cost", help="operations and bytes of a step")
    cost.add_argument("--family", nargs="+", choices=["1.0", "1.5"], default=["1.0", "1.5"])
    cost.add_argument("--size", type=_size, help="WIDTHxHEIGHTxFRAMES, in pixels; by default each family's own")
    cost.add_argument("--text", type=_count, help="tokens of text; by default 256 for 1.0, 1000 for 1.5")
    cost.add_argument("--count", action="store_true", help="count too, on the real networks: some minutes")
    cost.set_defaults(run=_cost)


def _add_vbench(commands: argparse._SubParsersAction) -> None:
    names = commands.add_parser("vbench-names", help="videos under the names by which VBench finds them")
    names.add_argument("videos", type=Path, help="the folder with the videos")
    form = 'a prompt a line, in the order of the videos\' names; or a .json of {"video": "prompt"}'
    names.add_argument("prompts", type=Path, help=form)
    names.add_argument("out", type=Path, help="a new folder")
    names.add_argument("--samples", type=_count, default=SAMPLES, help=f"videos of each prompt; {SAMPLES:d} by default")
    names.set_defaults(run=_vbench_names)
    score = commands.add_parser("vbench-score", help="Semantic, Quality and Total of VBench's result files")
    score.add_argument("results", type=Path, help="VBench's --output_path, or a file *_eval_results.json")
    score.set_defaults(run=_vbench_score)


def _run(options: argparse.Namespace) -> int:
    from .study.settings import StudySettings

    settings = read_section(options.settings, StudySettings, "study")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # so that what is done has its page
    prepare_comfy(choose_device(settings.device).type, training=False)
    from .study.carry_out import carry_out

    _say(f"the page: {quoted(carry_out(settings))}")
    return 0


def _cost(options: argparse.Namespace) -> int:
    prepare_comfy("cpu", training=False)
    from .costs import cost_table

    for shape in [cost_table.shape_of(family, options.size, options.text) for family in options.family]:
        for line in cost_table.lines(shape, options.count):
            _say(line)
    if "1.0" in options.family and options.size is None:
        for line in cost_table.paper():
            _say(line)
    return 0


def _vbench_names(options: argparse.Namespace) -> int:
    videos = named(rows_of(options.videos, options.prompts, options.samples))
    write(videos, options.out)
    _say(f"videos: {len(videos):d}, prompts: {len({one.prompt for one in videos}):d}, in {quoted(options.out)}")
    for line in notes(videos):
        _say(line)
    return 0


def _vbench_score(options: argparse.Namespace) -> int:
    """1 where there is no Total."""
    scores = read_scores(options.results)
    for line in scores.lines():
        _say(line)
    return 0 if scores.total is not None else 1


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a number of 1 or more, such as {SAMPLES:d}")
    return int(text)


def _size(text: str) -> tuple[int, int, int]:
    if not (found := re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)) or 0 in (size := tuple(map(int, found.groups()))):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not WIDTHxHEIGHTxFRAMES, such as 848x480x121")
    return size


def _say(line: str) -> None:
    sys.stdout.write(cause(line, sys.stdout.encoding or "utf-8") + "\n")  # a prompt may have what a console has not
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
