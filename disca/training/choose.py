"""From settings to the training that they ask for."""

import torch

from ..models.family import family_of
from ..toy.dataset import TOY, ToyDataset
from .algorithms.cfg_distillation import CfgDistillation
from .algorithms.flow_matching import FlowMatching
from .algorithms.lesa_training import LesaTraining
from .algorithms.meanflow_distillation import MeanFlowDistillation
from .algorithms.predictor_training import PredictorTraining
from .contract.protocol import Samples, Training
from .contract.settings import DataSettings, Settings
from .data.dataset import Dataset, open_dataset, require_fits
from .engine.distributed import Processes
from .network.sample_prompts import prepare_previews

TRAININGS: dict[str, type[Training]] = {  # by the names in contract/costs.py
    "flow": FlowMatching,
    "cfg": CfgDistillation,
    "meanflow": MeanFlowDistillation,
    "predictor": PredictorTraining,
    "lesa": LesaTraining,
}


def chosen(settings: Settings, processes: Processes) -> tuple[Training, Samples]:
    """The training that the settings ask for, and its samples; what previews need is made before networks are here."""
    dataset = open_samples(settings.data)
    processes.main_first(lambda: prepare_previews(settings, dataset))
    return make_training(settings, dataset, processes.device), dataset


def make_training(settings: Settings, dataset: Samples, device: torch.device) -> Training:
    """The training, its networks loaded; ValueError if the samples are of another model."""
    training = TRAININGS[settings.algorithm](settings, dataset, device)
    if isinstance(dataset, Dataset):
        network = training.network.module
        require_fits(dataset, family_of(network).name, network.out_channels, network.params.context_in_dim)
    return training


def open_samples(data: DataSettings) -> Samples:
    """The dataset of the run."""
    return ToyDataset() if data.path == TOY else open_dataset(data.path, data.cache)
