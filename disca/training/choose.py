"""From settings to the training that they ask for."""

import torch

from ..messages import quoted
from ..models.family import family_of
from ..toy.dataset import TOY, ToyDataset
from .algorithms.cfg_distillation import CfgDistillation
from .algorithms.flow_matching import FlowMatching
from .algorithms.lesa_training import LesaTraining
from .algorithms.meanflow_distillation import MeanFlowDistillation
from .algorithms.predictor_training import PredictorTraining
from .contract.costs import COSTS
from .contract.protocol import Made, Samples, Training
from .contract.settings import DataSettings, Settings
from .data.dataset import Dataset, open_dataset, require_fits
from .data.mixture import Mixture, Source, mixed
from .engine.distributed import Processes
from .network.sample_prompts import prepare_previews

TRAININGS: dict[str, type[Training]] = {  # by the names in contract/costs.py
    "flow": FlowMatching,
    "cfg": CfgDistillation,
    "meanflow": MeanFlowDistillation,
    "predictor": PredictorTraining,
    "lesa": LesaTraining,
}


def chosen(settings: Settings, processes: Processes) -> Made:
    """The training that the settings ask for, its samples, and those held out; previews are prepared before that."""
    dataset, held_out = open_samples(settings)
    elsewhere = RuntimeError("The main process could not begin, and says why.")
    processes.main_first(lambda: prepare_previews(settings, dataset), elsewhere)
    return Made(make_training(settings, dataset, processes.device), dataset, held_out)


def make_training(settings: Settings, dataset: Samples, device: torch.device) -> Training:
    """The training, its networks loaded; ValueError if the samples are of another model."""
    training = TRAININGS[settings.algorithm](settings, dataset, device)
    for one in dataset.datasets if isinstance(dataset, Mixture) else [dataset]:
        if isinstance(one, Dataset):
            network = training.network.module
            require_fits(one, family_of(network).name, network.out_channels, network.params.context_in_dim)
    return training


def open_samples(settings: Settings) -> tuple[Samples, Samples | None]:
    """The samples to train on, and those held out for validation if there are any."""
    if settings.validation.samples and COSTS[settings.algorithm].outputs:
        raise ValueError(
            f"validation.samples is {settings.validation.samples:d}, but {quoted(settings.algorithm)} learns from runs "
            "that it makes, and can hold none out. Set it to 0."
        )
    return mixed(open_sources(settings.data), settings.validation.samples, settings.seed)


def open_sources(data: DataSettings) -> list[Source]:
    """The datasets of the run."""
    return [
        Source(ToyDataset() if source.path == TOY else open_dataset(source.path, data.cache), source.repeats)
        for source in data.sources
    ]
