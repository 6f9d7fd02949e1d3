"""What a user sees: a schema and one call into `disca` each."""

from .apply_cache import DiscaApplyCache
from .caching import DiscaApplyPredictor, DiscaCacheSchedule
from .calibrate import DiscaCalibrate
from .compare import DiscaCompareMethods, DiscaCompareVideos, DiscaTileVideos
from .dataset import DiscaBuildDataset
from .find_schedule import DiscaFindSchedule
from .inputs.checks import check
from .loaders import DiscaLoadDCM, DiscaLoadLora, DiscaLoadModel, DiscaLoadPredictor
from .sampling import DiscaMeanFlowSampler, DiscaMeanFlowSigmas, DiscaSample
from .speed import DiscaAttention
from .toy import DiscaToyDecode, DiscaToyModels, DiscaToyPrompt
from .training import DiscaTrainCFG, DiscaTrainMeanFlow, DiscaTrainPredictor

NODES = [
    DiscaLoadModel,
    DiscaLoadPredictor,
    DiscaCacheSchedule,
    DiscaApplyPredictor,
    DiscaMeanFlowSigmas,
    DiscaMeanFlowSampler,
    DiscaSample,
    DiscaAttention,
    DiscaBuildDataset,
    DiscaTrainPredictor,
    DiscaTrainMeanFlow,
    DiscaTrainCFG,
    DiscaToyModels,
    DiscaToyPrompt,
    DiscaToyDecode,
    DiscaLoadLora,
    DiscaApplyCache,
    DiscaLoadDCM,
    DiscaCalibrate,
    DiscaFindSchedule,
    DiscaCompareMethods,
    DiscaCompareVideos,
    DiscaTileVideos,
]

for node in NODES:
    check(node)
