"""A training run as data. `yaml_settings` reads and writes the one YAML file that describes the run."""

from dataclasses import dataclass, field
from typing import Any, Literal

from .fields import MANY, MOST_SEED, Checked, location, number

Algorithm = Literal["flow", "cfg", "meanflow", "predictor"]

MOST_STEPS = 3  # from an anchor to the later state of a pair: N = 4 predicts three steps


@dataclass(frozen=True)
class ModelSettings(Checked):
    """The network to train and the one it learns from."""

    path: str = location("")  # a safetensors file; empty: a new toy network
    toy: str = ""  # the shape of the new toy network
    weight_dtype: Literal["default", "bf16", "fp8_e4m3fn"] = "default"  # how frozen weights are kept
    dtype: Literal["bf16", "fp32"] = "bf16"  # what is computed in
    teacher: str = location("")  # empty: the same file


@dataclass(frozen=True)
class DataSettings(Checked):
    """Where the samples are; an iteration takes batch x accumulate of them on each process."""

    path: str = location(remote=True)
    cache: str = location("", exists=False)
    batch: int = number(1, least=1, most=1024)
    accumulate: int = number(1, least=1, most=1024)


@dataclass(frozen=True)
class OptimiserSettings(Checked):
    """How a part's weights move."""

    name: Literal["adamw", "adamw8bit"] = "adamw"
    lr: float = number(0.0, least=0, most=1)  # 0: the training's own
    betas: tuple[float, float] = number((0.9, 0.999), least=0, most=1, below=True)
    weight_decay: float = number(0.0, least=0, most=1)
    warmup: int = number(0, least=0, most=MANY)  # iterations
    decay: Literal["none", "cosine"] = "none"  # of the learning rate, to zero at the end of the run
    clip: float = number(1.0, least=0, most=1000)  # greatest norm of a part's gradient; 0: not clipped
    ema: float = number(0.999, least=0, most=1, below=True)  # 0: no average


@dataclass(frozen=True)
class LoraSettings(Checked):
    """Low-rank adapters instead of all weights."""

    rank: int = number(0, least=0, most=1024)  # 0: all weights are trained
    alpha: float = number(0.0, least=0, most=1024)  # 0: the rank


@dataclass(frozen=True)
class CfgSettings(Checked):
    """Algorithm 1: the range that guidance scales are drawn from."""

    guidance: tuple[float, float] = number((1.0, 8.0), least=0, most=100)

    def __post_init__(self):
        super().__post_init__()
        low, high = self.guidance
        if low > high:
            raise ValueError(f"'guidance' goes from {low:g} down to {high:g}. Write the smaller number first.")


@dataclass(frozen=True)
class MeanFlowSettings(Checked):
    """Algorithm 2, Restricted MeanFlow."""

    preset: Literal["anchored", "paper"] = "anchored"
    R: float = number(0.2, least=0, most=1)
    anchor: float = number(0.5, least=0, most=1)  # share of samples with r = t
    derivative: Literal["difference", "dual"] = "difference"
    h: float = number(0.01, least=1e-6, most=0.5)
    cap: float = number(1.0, least=0, most=100)  # |(t - r) du/dt| is at most cap |v|
    adaptive: float = number(1.0, least=0, most=1)  # p of the samples' weights 1 / (error + c)^p; 0: all weigh alike


@dataclass(frozen=True)
class PairSettings(Checked):
    """Shares of training pairs by where their later state comes from; what is not named has none."""

    line: float = number(0.0, least=0, most=1)  # straight lines from data to noise, as in the paper
    trajectory: float = number(0.0, least=0, most=1)  # the student's own trajectories
    cached: float = number(0.0, least=0, most=1)  # states that the cached sampler visits

    def __post_init__(self):
        super().__post_init__()
        if not self.total:
            raise ValueError("the shares of line, trajectory and cached pairs are all 0. Give one of them a share.")

    @property
    def total(self) -> float:
        """What the shares are parts of."""
        return self.line + self.trajectory + self.cached

    @property
    def passes(self) -> tuple[float, float]:
        """Forward passes of the network, and of the Predictor, that drawing a pair takes on average."""
        between = (MOST_STEPS - 1) / 2  # steps from the anchor to the later state but for the first
        return 2.0 + self.trajectory / self.total * between, self.cached / self.total * between


@dataclass(frozen=True)
class PredictorSettings(Checked):
    """Algorithm 3, the Predictor."""

    preset: Literal["default", "paper"] = "default"
    delta_max: float = number(0.2, least=0, most=1)
    depth: int = number(2, least=1, most=64)
    form: Literal["residual", "authors"] = "residual"
    start: Literal["identity", "random"] = "identity"
    path: str = location("")  # a Predictor to go on from; empty: a new one
    mse_iterations: int = number(500, least=0, most=MANY)
    gan_iterations: int = number(1000, least=0, most=MANY)
    gan_weight: float = number(1.0, least=0, most=100)
    adaptive: float = number(1.0, least=0, most=1)  # p of the samples' weights 1 / (error + c)^p; 0: all weigh alike
    lr_discriminator: float = number(1e-4, least=0, most=1)
    taps: int = number(4, least=1, most=60)  # blocks whose features the discriminator sees
    pairs: PairSettings = PairSettings(cached=1.0)

    def __post_init__(self):
        super().__post_init__()
        if not self.mse_iterations + self.gan_iterations:
            raise ValueError("mse_iterations and gan_iterations are both 0. Give one of them a number.")


@dataclass(frozen=True)
class MemorySettings(Checked):
    """What is traded for memory."""

    checkpoint: bool = True
    offload_activations: bool = False
    swap_blocks: int = number(0, least=0, most=100)


@dataclass(frozen=True)
class SaveSettings(Checked):
    """When a checkpoint is written, and how many stay."""

    every: int = number(500, least=1, most=MANY)
    keep: int = number(2, least=1, most=100)


@dataclass(frozen=True)
class PreviewSettings(Checked):
    """When and how previews are sampled; every = 0: never."""

    every: int = number(0, least=0, most=MANY)
    seeds: tuple[int, ...] = number((0, 1), least=0, most=MOST_SEED)
    steps: int = number(8, least=1, most=1000)
    shift: float = number(5.0, least=0.01, most=100)
    guidance: float = number(1.0, least=0, most=100)


@dataclass(frozen=True)
class Settings(Checked):
    """A whole training run."""

    algorithm: Algorithm
    out: str = location(exists=False)
    data: DataSettings
    model: ModelSettings = field(default_factory=ModelSettings)
    seed: int = number(0, least=0, most=MOST_SEED)
    iterations: int = number(1000, least=1, most=MANY)  # but for a Predictor, which counts its own
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    cfg: CfgSettings = field(default_factory=CfgSettings)
    meanflow: MeanFlowSettings = field(default_factory=MeanFlowSettings)
    predictor: PredictorSettings = field(default_factory=PredictorSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    save: SaveSettings = field(default_factory=SaveSettings)
    preview: PreviewSettings = field(default_factory=PreviewSettings)
    device: Literal["auto", "cpu", "cuda"] = "auto"


MEANFLOW_PRESETS: dict[str, dict[str, Any]] = {"anchored": {}, "paper": {"anchor": 0.0, "adaptive": 0.0}}
PREDICTOR_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "form": "authors",
        "start": "random",
        "adaptive": 0.0,
        "lr_discriminator": 1e-2,
        "pairs": PairSettings(line=1.0),
    },
}
SECTION_PRESETS = {MeanFlowSettings: MEANFLOW_PRESETS, PredictorSettings: PREDICTOR_PRESETS}
