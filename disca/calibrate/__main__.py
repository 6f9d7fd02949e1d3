"""python -m disca.calibrate: measures a model for TeaCache or MagCache, and saves what they go by.

    python -m disca.calibrate --model hunyuanvideo.safetensors --data dataset --method MagCache --out my_model.json
    python -m disca.calibrate --model disca/toy/weights/meanflow.safetensors --data toy://shapes --method TeaCache \\
        --shift 1 --guidance 3 --out toy.json

The dataset is one that python -m disca.training.build made, of the size that will be sampled: its captions are the
prompts. Put the file into output/disca/calibrations of ComfyUI, and DisCa Apply Cache offers it. Run it in the pack's
folder, with ComfyUI's Python. ComfyUI is at COMFYUI_PATH, or where the pack lies in its custom_nodes.
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..curve import curve
from ..limits import require_number
from ..messages import quoted
from ..methods.adaptive.calibration import write
from ..methods.adaptive.findings import drawn, told
from ..methods.adaptive.measuring import MEASURED
from ..toy.dataset import TOY, ToyDataset
from ..training.console import speak
from ..training.data.dataset import Dataset, open_dataset, require_fits
from ..training.data.sample import Sample
from ..training.network.comfy import choose_device, prepare_comfy

if TYPE_CHECKING:
    from ..host.calibrating import Measurement

LIMITS = {"prompts": (1, 1000), "steps": (2, 1000), "shift": (0.01, 100.0), "seed": (0, 2**64 - 1), "cfg": (0.0, 100.0)}

log = logging.getLogger("disca.calibrate")


def main(arguments: list[str]) -> int:
    """The command; 0 if all went well, 2 if something was wrong with what was given, 130 if it was interrupted."""
    options = _parser().parse_args(arguments)
    speak()
    try:
        for name, (least, most) in LIMITS.items():
            require_number(name, getattr(options, name), isinstance(least, int), least, most)
        prepare_comfy(choose_device("cpu" if options.cpu else "auto").type, training=False)
        measured = _measured(options)
        write(options.out, measured.calibration)
        if options.picture:
            curve(*drawn(*measured)).save(options.picture, "PNG")
    except (ValueError, RuntimeError, OSError) as error:
        log.error("%s", error, exc_info=log.isEnabledFor(logging.DEBUG))
        return 2
    except KeyboardInterrupt:
        log.info("Interrupted. Nothing was written.")
        return 130
    for line in [*told(*measured), f"saved as {quoted(options.out)}"]:
        log.info("%s", line)
    return 0


def _measured(options: argparse.Namespace) -> "Measurement":
    from ..host.calibrating import calibrate
    from ..models.checks import family_of_model
    from ..models.loading import load_either
    from ..training.network.prompts import conditioning

    dataset = ToyDataset() if options.data == TOY else open_dataset(options.data)
    model = load_either(options.model)
    network = model.model.diffusion_model
    if isinstance(dataset, Dataset):
        require_fits(dataset, family_of_model(model).name, network.out_channels, network.params.context_in_dim)
    samples = list(_alike(dataset, options.prompts))
    out = model.model.process_latent_out
    positives = [conditioning(sample, out, options.guidance) for sample in samples]
    negative = None if options.cfg == 1.0 else conditioning(samples[0] | dataset.null, out, options.guidance)
    latent = {"samples": torch.zeros(1, *samples[0]["latent"].shape)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    run = options.seed, options.steps, options.shift
    with torch.inference_mode():
        return calibrate(model, options.method, positives, negative, options.cfg, latent, *run)


def _alike(dataset: Dataset | ToyDataset, count: int) -> Iterator[Sample]:
    """The first samples, so many at most, that are of one size: that of the very first."""
    shape, found = None, 0
    for i in range(len(dataset)):
        if found == count:
            return
        sample = dataset[i]
        shape = shape or sample["latent"].shape
        if sample["latent"].shape == shape:
            found += 1
            yield sample


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m disca.calibrate",
        description=__doc__.split("calibrate: ", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="the HunyuanVideo to measure, a .safetensors file")
    parser.add_argument("--data", required=True, help=f"folder of a dataset, or {TOY} for the toy world")
    parser.add_argument("--method", required=True, choices=list(MEASURED))
    parser.add_argument("--out", required=True, type=Path, help="the .json file to write; one of that name is replaced")
    parser.add_argument("--picture", type=Path, help="a .png file for the curve")
    parser.add_argument("--prompts", type=int, default=4, help="samples of the dataset (default %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="as will be sampled with (default %(default)s)")
    parser.add_argument("--shift", type=float, default=5.0, help="as will be sampled with (default %(default)s)")
    parser.add_argument(
        "--guidance", type=float, help="the scale that a distilled model is told (default ComfyUI's, 6)"
    )
    parser.add_argument("--cfg", type=float, default=1.0, help="1 is off; else the empty caption is the negative")
    parser.add_argument("--seed", type=int, default=0, help="of the noise, the same for each prompt")
    parser.add_argument("--cpu", action="store_true", help="measure on the CPU")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
