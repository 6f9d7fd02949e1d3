"""MeanFlow Sigmas, MeanFlow Sampler, Sample."""

from comfy_api.v0_0_2 import io

from ..disca.host import compat
from ..disca.host.compat import room
from ..disca.meanflow import require_denoise, shifted_sigmas
from .inputs.run import UNCONNECTED, cfg_input, require_guidance, shift_input
from .inputs.types import CATEGORY

SAMPLE_ALIASES = [
    "sampler", "ksampler", "hunyuan", "hunyuanvideo", "few steps", "turbo", "distilled", "meanflow",
]  # fmt: skip


class DiscaMeanFlowSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaMeanFlowSigmas",
            display_name="DisCa MeanFlow Sigmas",
            category=CATEGORY,
            description="The times of a MeanFlow run: evenly spaced, then shifted towards noise, as the authors do.",
            search_aliases=["scheduler", "flow shift", "few steps"],
            inputs=_sigma_inputs(),
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def validate_inputs(cls, denoise: float | None) -> bool:
        return _require_denoise(denoise)

    @classmethod
    def execute(cls, steps: int, shift: float, denoise: float) -> io.NodeOutput:
        return io.NodeOutput(shifted_sigmas(steps, shift, denoise))


class DiscaMeanFlowSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaMeanFlowSampler",
            display_name="DisCa MeanFlow Sampler",
            category=CATEGORY,
            description="Takes MeanFlow steps x_r = x_t - (t - r)·u, the network told where each step ends.",
            search_aliases=["meanflow", "euler", "few steps"],
            inputs=[],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(room("sampling").sampler())


class DiscaSample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaSample",
            display_name="DisCa Sample",
            category=CATEGORY,
            description="Samples a MeanFlow model, with a Predictor, a cache or neither, and reports what steps cost.",
            search_aliases=SAMPLE_ALIASES,
            inputs=[
                io.Model.Input(
                    "model", tooltip="A HunyuanVideo MeanFlow model, usually from DisCa Apply Predictor or Apply Cache."
                ),
                io.Conditioning.Input("positive", tooltip="What the video should show."),
                io.Latent.Input("latent_image", tooltip="An empty latent video, or one to start from."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The seed of the starting noise.",
                ),
                *_sigma_inputs(),
                *_guidance_inputs(),
            ],
            outputs=[
                io.Latent.Output(),
                io.String.Output(
                    display_name="report",
                    tooltip="Full, predicted or cached, and fallback calls, their time, and the speed-up.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, denoise: float | None, cfg: float | None = 1.0, negative: object = UNCONNECTED) -> bool:
        require_guidance(negative, cfg)
        return _require_denoise(denoise)

    @classmethod
    def execute(
        cls, model, positive, latent_image, seed, steps, shift, denoise, negative=None, cfg=1.0
    ) -> io.NodeOutput:
        sigmas = shifted_sigmas(steps, shift, denoise)
        latent, report = room("sampling").sample(model, positive, negative, cfg, latent_image, seed, sigmas)
        if report:
            from ..disca.evaluation.costs.theory import speed_up_of_run  # would not load without what `attach` needs

            report.theory = speed_up_of_run(model, positive, latent["samples"], sigmas.tolist(), report)
        return io.NodeOutput(latent, str(report or compat.lack("attach") or "DisCa: nothing to denoise"))


def _require_denoise(denoise: float | None) -> bool:
    if denoise is not None:  # None: comes by a link
        require_denoise(denoise)
    return True


def _sigma_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "steps",
            default=20,
            min=1,
            max=1000,
            tooltip="Steps in all, full ones and others. HunyuanVideo 1.0: 20. HunyuanVideo 1.5: 8.",
        ),
        shift_input("Higher spends more steps on noise. HunyuanVideo 1.0: 5. HunyuanVideo 1.5: 7."),
        io.Float.Input(
            "denoise",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="1 starts from noise. Below 1 starts from the latent, at the last steps of a longer run.",
        ),
    ]


def _guidance_inputs() -> list[io.Input]:
    return [
        io.Conditioning.Input(
            "negative",
            optional=True,
            tooltip="Only needed with cfg above 1, which distilled models do not want.",
        ),
        cfg_input("Classifier-free guidance. 1 is off and right for distilled models; more doubles the time."),
    ]
