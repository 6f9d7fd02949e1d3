"""What a user sees: a schema and one call into `disca` each."""

from .caching import DiscaApplyPredictor, DiscaCacheSchedule
from .loaders import DiscaLoadModel, DiscaLoadPredictor
from .sampling import DiscaMeanFlowSampler, DiscaMeanFlowSigmas, DiscaSample
from .speed import DiscaAttention

NODES = [
    DiscaLoadModel,
    DiscaLoadPredictor,
    DiscaCacheSchedule,
    DiscaApplyPredictor,
    DiscaMeanFlowSigmas,
    DiscaMeanFlowSampler,
    DiscaSample,
    DiscaAttention,
]
