"""From settings to the training that they ask for."""

import torch

from ..toy.dataset import ToyDataset
from .cfg_distillation import CfgDistillation
from .data import open_dataset
from .flow_matching import FlowMatching
from .meanflow_distillation import MeanFlowDistillation
from .predictor_training import PredictorTraining
from .protocol import Samples, Training
from .settings import Settings

TOY = "toy://shapes"  # data.path of the toy world
TRAININGS = {
    "flow": FlowMatching,
    "cfg": CfgDistillation,
    "meanflow": MeanFlowDistillation,
    "predictor": PredictorTraining,
}


def make_training(settings: Settings, dataset: Samples, device: torch.device) -> Training:
    """The training, its networks loaded."""
    return TRAININGS[settings.algorithm](settings, dataset, device)


def open_samples(settings: Settings) -> Samples:
    """The dataset of the run."""
    return ToyDataset() if settings.data.path == TOY else open_dataset(settings.data.path, settings.data.cache)
