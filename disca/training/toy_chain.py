"""python -m disca.training.toy_chain: trains the whole chain of the toy world by training/toy/*.yaml.

An interrupted chain goes on where it was. Single stages start from the weights that ship:
python -m disca.training.toy_chain --seed 1 --out runs/toy/seed-1 --stages meanflow predictor
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from .console import speak
from .contract.settings import Settings
from .contract.yaml_settings import read_settings
from .network.comfy import prepare_comfy
from .toy_weights import ship

PACK = Path(__file__).resolve().parents[2]
STAGES = ("base", "cfg", "meanflow", "predictor")


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m disca.training.toy_chain", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=PACK / "runs" / "toy")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--ship", action="store_true", help="put the result into disca/toy/weights")
    options = parser.parse_args(arguments)
    speak()
    prepare_comfy("cpu")
    results = train_chain(options.seed, options.out, options.stages)
    if options.ship:
        ship(results)
    return 0


def train_chain(
    seed: int, out: Path, stages: tuple[str, ...] = STAGES, results: dict[str, Path] | None = None
) -> dict[str, Path]:
    """Trains the stages one after another, on the `results` of earlier ones; gives each stage's file."""
    from .choose import chosen
    from .engine.loop import train

    results = dict(results or {})
    for stage in stages:
        settings = stage_settings(stage, seed, out, results)
        results[stage] = next(train(settings, chosen).glob("*.safetensors"))
    return results


def stage_settings(stage: str, seed: int, out: Path, results: dict[str, Path]) -> Settings:
    """The stage's YAML, with this seed and folder, on the results of the stages before it."""
    settings = read_settings(PACK / "training" / "toy" / f"{stage}.yaml")
    before = STAGES[STAGES.index(stage) - 1]
    model = replace(settings.model, path=str(results[before])) if before in results else settings.model
    return replace(settings, seed=seed, out=str(out / stage), model=model)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
