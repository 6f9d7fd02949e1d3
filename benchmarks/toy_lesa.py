"""What LESA's experts are worth on the toy world: videos of 20 steps with 8 in full, against all 20 in full.

    COMFYUI_PATH=... python benchmarks/toy_lesa.py                        the experts that ship
    COMFYUI_PATH=... python -m disca.training training/toy/lesa.yaml      trains others, for --file

Held-out prompts; a seed is other noise. Squared errors relative to the squared video, mean and deviation of the seeds.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
import toy_world  # prepares ComfyUI

from disca.methods.scheduled.disca import disca
from disca.methods.scheduled.extrapolation import Extrapolation
from disca.methods.scheduled.lesa import LesaCache
from disca.methods.scheduled.reuse import PlainReuse
from disca.methods.scheduled.taylorseer import TaylorSeerLite
from disca.methods.seam.anchors import AtAnchors
from disca.models.loading import load_lesa
from disca.schedule import parse_anchors
from disca.training.algorithms.previews import distance
from disca.training.algorithms.sampling import CachedVelocity, mean_velocity, sample

LISTS = {"found": "0-3 5 8 13 18", "published": "0-2 5 9 13 17 19"}
OWN, PREDICTOR = "experts", "predictor"
METHODS = {  # and the network that answers
    "reuse of features": (PlainReuse().method, None),
    "reuse of the output": (LesaCache().method, None),
    "extrapolation": (Extrapolation(along="sigma").method, None),
    "Taylor-Lite, order 1": (TaylorSeerLite(order=1).method, None),
    "DisCa": (disca, PREDICTOR),
    "LESA": (LesaCache().method, OWN),
}


@torch.no_grad()
def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, default=toy_world.WEIGHTS / "lesa.safetensors", help="the experts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--methods", nargs="+", choices=[*METHODS], default=[*METHODS])
    options = parser.parse_args()
    experts = load_lesa(str(options.file))
    toy = toy_world.Toy(toy_world.result_of(0, "meanflow"), toy_world.result_of(0, "predictor"), experts.spec.shift)
    condition = {name: value[: options.samples] for name, value in toy.condition.items()}
    networks = {None: None, OWN: experts.patcher.model, PREDICTOR: toy.predictor}
    sigmas = toy.sigmas(experts.spec.steps)
    shape, found = (options.samples, *toy.noise.shape[1:]), defaultdict(list)
    for seed in options.seeds:
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(toy.first + seed))
        full = sample(mean_velocity(toy.student, condition), noise, sigmas)
        for listed, anchors in LISTS.items():
            for name in options.methods:
                make, own = METHODS[name]
                method = make(AtAnchors(parse_anchors(anchors)))
                u = CachedVelocity(toy.student, condition, method, sigmas.tolist(), networks[own])
                found[listed, name].append(distance(sample(u, noise, sigmas), full))
                sys.stderr.write(f"seed {seed:d}, {listed}, {name}: {found[listed, name][-1]:.5f}\n")
    for (listed, name), errors in found.items():
        sys.stdout.write(f"{listed:10s} {name:22s} {toy_world.mean_and_deviation(errors)}\n")


if __name__ == "__main__":
    main()
