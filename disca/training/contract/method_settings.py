"""What belongs to one algorithm of the paper, and the presets of its settings."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...schedule import parse_anchors
from ...settings.fields import MANY, Text, limits, location, number, require_rising, with_preset
from ...settings.section import section

MOST_STEPS = 4  # from a full step of a run to the next one
ADAPTIVE = "Weights each sample's loss by 1 / (error + c)^p, as MeanFlow does. 0: no weighting."

Scale = Annotated[float, limits(0, 100)]
Shift = Annotated[float, limits(0.01, 100)]


@section
class CfgSettings:
    """Algorithm 1: the range that guidance scales are drawn from."""

    guidance: tuple[Scale, Scale] = Field(
        (1.0, 8.0), description="Range that guidance scales are drawn from.", json_schema_extra={"step": 0.1}
    )

    @model_validator(mode="after")
    def _rises(self):
        require_rising("guidance", self.guidance)
        return self


MEANFLOW_PRESETS: dict[str, dict[str, Any]] = {"paper": {"share_r_equals_t": 0.0, "adaptive": 0.0, "cap": 0.0}}
DISTANCES = {"fp32": 0.01, "bf16": 0.05}  # h: bf16 rounds away what two nearer calls differ by


@section
class MeanFlowSettings:
    """Algorithm 2, Restricted MeanFlow."""

    preset: Literal["default", "paper"] = Field(
        "default",
        description="default: half of the samples have r = t, and hard ones weigh less, which keeps the model near its "
        "teacher. paper: none have, all weigh alike, and nothing is limited.",
    )
    R: float = number(0.2, 0, 1, "The longest step that is trained, in sigma.", 0.01)
    share_r_equals_t: float = number(0.5, 0, 1, "Share of samples with r = t.", 0.01)
    derivative: Literal["difference", "dual"] = Field(
        "difference", description="difference: two more calls of the network. dual: exact, and slower."
    )
    h: float = number(
        0.0, 0, 0.5, "difference: distance of its two calls, in sigma. 0: 0.05 in bf16, 0.01 in fp32.", 1e-4
    )
    cap: float = number(
        1.0, 0, 100, "Limit on the norm of (t - r)·du/dt, relative to the velocity's. 0: no limit.", 0.1
    )
    adaptive: float = number(1.0, 0, 1, ADAPTIVE, 0.01)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        return with_preset(given, MEANFLOW_PRESETS)

    @model_validator(mode="after")
    def _is_apart(self):
        if 0.0 < self.h < 1e-4:
            raise ValueError("h is below 1e-4, where the two calls differ by rounding only. Give 1e-4 or more, or 0.")
        return self

    def distance(self, dtype: str) -> float:
        """h, or the one for a network that computes in this type."""
        return self.h or DISTANCES[dtype]


@section
class PairSettings:
    """Shares of training pairs by where their later state comes from; what is not named has none."""

    line: float = number(0.0, 0, 1, "Share of states on straight lines from data to noise, as in the paper.", 0.01)
    trajectory: float = number(0.0, 0, 1, "Share of states on the model's own trajectories.", 0.01)
    cached: float = number(0.0, 0, 1, "Share of states that the cached sampler visits.", 0.01)

    @model_validator(mode="after")
    def _has_any(self):
        if not self.total:
            raise ValueError("the shares of line, trajectory and cached pairs are all 0. Give one of them a share.")
        return self

    @property
    def total(self) -> float:
        """What the shares are parts of."""
        return self.line + self.trajectory + self.cached

    @property
    def has_runs(self) -> bool:
        """Whether some states lie on the way of a run."""
        return self.trajectory + self.cached > 0

    def passes(self, full_steps: int, features: int) -> tuple[int, int]:
        """Forward passes of the network, and of the Predictor, that drawing so many pairs for each sample takes.

        The Predictor sees the features of so many full steps.
        """
        between = full_steps * (MOST_STEPS - 1)  # made for all samples of a batch, whichever of them go so far
        full = self.has_runs + full_steps * (1 + features * (self.line > 0))
        return full + between * (self.trajectory > 0), between * (self.cached > 0)


PREDICTOR_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "form": "authors",
        "start": "random",
        "adaptive": 0.0,
        "lr_discriminator": 1e-2,
        "mse_iterations": 500,
        "gan_iterations": 1000,
        "full_steps": 1,
        "gan_ramp": 0,
        "gan_cap": 0.0,
        "pairs": PairSettings(line=1.0),
    }
}


@section
class PredictorSettings:
    """Algorithm 3, the Predictor."""

    preset: Literal["default", "paper"] = Field(
        "default",
        description="default: a Predictor of two features, starting from reuse, on states that the cached sampler "
        "visits. paper: as the authors describe it.",
    )
    delta_max: float = number(0.2, 0, 1, "Largest age of the cached features in line pairs, in sigma.", 0.01)
    full_steps: int = number(8, 1, 100, "Pairs of a sample: the full steps of a run behind the first.")
    shift: tuple[Shift, Shift] = Field(
        (1.0, 7.0), description="Range that the runs' shift is drawn from.", json_schema_extra={"step": 0.1}
    )
    depth: int = number(2, 1, 64, "Blocks of the Predictor.")
    form: Literal["two", "residual", "authors"] = Field(
        "two",
        description="two: predicts a change to the cached features, from those of the last two full steps. "
        "residual: from those of the last one. authors: predicts the features themselves.",
    )
    start: Literal["identity", "random"] = Field(
        "identity", description="identity: starts by giving back the cached features. random: starts at random."
    )
    path: Annotated[Text, location()] = Field("", description="A Predictor to go on from. Empty: a new one.")
    mse_iterations: int = number(200, 0, MANY, "First iterations, with the squared error alone.")
    gan_iterations: int = number(100, 0, MANY, "Iterations after those, with a discriminator as well.")
    gan_weight: float = number(1.0, 0, 100, "Weight of the discriminator's loss beside the squared error.", 0.01)
    gan_ramp: int = number(100, 0, MANY, "Iterations over which that weight rises from 0.")
    gan_cap: float = number(
        1.0, 0, 100, "Limit on the gradient of the discriminator's loss, relative to the squared error's. 0: none.", 0.1
    )
    adaptive: float = number(1.0, 0, 1, ADAPTIVE, 0.01)
    lr_discriminator: float = number(1e-4, 0, 1, "Learning rate of the discriminator.", 1e-6)
    discriminator_blocks: int = number(4, 1, 60, "How many blocks' features the discriminator sees.")
    pairs: PairSettings = PairSettings(cached=1.0)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        return with_preset(given, PREDICTOR_PRESETS)

    @model_validator(mode="after")
    def _has_any(self):
        if not self.mse_iterations + self.gan_iterations:
            raise ValueError("mse_iterations and gan_iterations are both 0. Give one of them a number.")
        return self

    @model_validator(mode="after")
    def _rises(self):
        require_rising("shift", self.shift)
        return self

    @property
    def features(self) -> int:
        """Of how many full steps a new Predictor sees the features."""
        return 2 if self.form == "two" else 1


LESA_PRESETS: dict[str, dict[str, Any]] = {"paper": {"steps": 50, "shift": 7.0, "hidden": 256}}


@section
class LesaSettings:
    """LESA's experts, for runs of one number of steps and one shift."""

    preset: Literal["default", "paper"] = Field(
        "default", description="default: narrow experts, for 20 steps. paper: as wide as published, for 50 steps."
    )
    steps: int = number(20, 2, 1000, "Steps of the runs that it is for; no others can use it.")
    shift: float = number(5.0, 0.01, 100, "Shift of their sigmas.", 0.01)
    anchors: Text = Field("", description="The steps that run in full, such as '0-3 5 8 13 18'. Empty: LESA's own.")
    interval: int = number(7, 1, 100, "LESA's own steps: after the warm-up, every n-th runs in full.")
    warmup: int = number(3, 1, 100, "LESA's own steps: how many at the start run in full, and one more.")
    hidden: int = number(32, 1, 4096, "Width of the networks that read the time.")
    runs: int = number(100, 1, 100_000, "Runs in full that it learns from, each of a sample of its own.")
    guided_iterations: int = number(200, 0, MANY, "First iterations, on the outputs of full runs.")
    closed_iterations: int = number(200, 0, MANY, "Iterations after those, on runs with its own answers.")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        return with_preset(given, LESA_PRESETS)

    @model_validator(mode="after")
    def _makes_sense(self):
        if not self.guided_iterations + self.closed_iterations:
            raise ValueError("guided_iterations and closed_iterations are both 0. Give one of them a number.")
        if self.anchors:
            parse_anchors(self.anchors).of(self.steps)
        return self

    @property
    def iterations(self) -> int:
        """Of both stages."""
        return self.guided_iterations + self.closed_iterations

    @property
    def passes(self) -> float:
        """Forward passes of the network that a sample of an iteration takes on average, at most."""
        made, closed = min(1.0, self.runs / self.iterations), self.closed_iterations / self.iterations
        return self.steps * (made + closed)

    @property
    def weights(self) -> int:
        """How many the experts have, but for a few."""
        return 30 * self.hidden * (self.steps + 1 + self.hidden + 1)
