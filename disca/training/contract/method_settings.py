"""What belongs to one algorithm of the paper, and the presets of its settings."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...settings.fields import MANY, Text, limits, location, number, with_preset
from ...settings.section import section

MOST_STEPS = 3  # from an anchor to the later state of a pair: N = 4 predicts three steps
ADAPTIVE = "Weights each sample's loss by 1 / (error + c)^p, as MeanFlow does. 0: no weighting."

Scale = Annotated[float, limits(0, 100)]


@section
class CfgSettings:
    """Algorithm 1: the range that guidance scales are drawn from."""

    guidance: tuple[Scale, Scale] = Field(
        (1.0, 8.0), description="Range that guidance scales are drawn from.", json_schema_extra={"step": 0.1}
    )

    @model_validator(mode="after")
    def _rises(self):
        low, high = self.guidance
        if low > high:
            raise ValueError(f"'guidance' goes from {low:g} down to {high:g}. Write the smaller number first.")
        return self


MEANFLOW_PRESETS: dict[str, dict[str, Any]] = {"paper": {"share_r_equals_t": 0.0, "adaptive": 0.0}}


@section
class MeanFlowSettings:
    """Algorithm 2, Restricted MeanFlow."""

    preset: Literal["default", "paper"] = Field(
        "default",
        description="default: half of the samples have r = t, and hard ones weigh less, which keeps the model near its "
        "teacher. paper: none have, and all weigh alike.",
    )
    R: float = number(0.2, 0, 1, "The longest step that is trained, in sigma.", 0.01)
    share_r_equals_t: float = number(0.5, 0, 1, "Share of samples with r = t.", 0.01)
    derivative: Literal["difference", "dual"] = Field(
        "difference", description="difference: two more calls of the network. dual: exact, and slower."
    )
    h: float = number(0.01, 1e-4, 0.5, "difference: distance of its two calls, in sigma.", 1e-4)
    cap: float = number(
        1.0, 0, 100, "Limit on the norm of (t - r)·du/dt, relative to the velocity's. 0: no limit.", 0.1
    )
    adaptive: float = number(1.0, 0, 1, ADAPTIVE, 0.01)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        return with_preset(given, MEANFLOW_PRESETS)


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
    def passes(self) -> tuple[float, float]:
        """Forward passes of the network, and of the Predictor, that drawing a pair takes on average."""
        between = (MOST_STEPS - 1) / 2  # steps from the anchor to the later state but for the first
        return 2.0 + self.trajectory / self.total * between, self.cached / self.total * between


PREDICTOR_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "form": "authors",
        "start": "random",
        "adaptive": 0.0,
        "lr_discriminator": 1e-2,
        "pairs": PairSettings(line=1.0),
    }
}


@section
class PredictorSettings:
    """Algorithm 3, the Predictor."""

    preset: Literal["default", "paper"] = Field(
        "default",
        description="default: a Predictor that adds to the cached features, starting from reuse, on states that the "
        "cached sampler visits. paper: as the authors describe it.",
    )
    delta_max: float = number(0.2, 0, 1, "Largest age of the cached features, in sigma.", 0.01)
    depth: int = number(2, 1, 64, "Blocks of the Predictor.")
    form: Literal["residual", "authors"] = Field(
        "residual",
        description="residual: predicts a change to the cached features. authors: predicts the features themselves.",
    )
    start: Literal["identity", "random"] = Field(
        "identity", description="identity: starts by giving back the cached features. random: starts at random."
    )
    path: Annotated[Text, location()] = Field("", description="A Predictor to go on from. Empty: a new one.")
    mse_iterations: int = number(500, 0, MANY, "First iterations, with the squared error alone.")
    gan_iterations: int = number(1000, 0, MANY, "Iterations after those, with a discriminator as well.")
    gan_weight: float = number(1.0, 0, 100, "Weight of the discriminator's loss beside the squared error.", 0.01)
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
