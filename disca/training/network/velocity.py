"""The network as training sees it: u(x_t, t, r) of ComfyUI's HunyuanVideo, with times of each sample's own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import comfy.model_management
import torch
from comfy.ldm.flux.layers import timestep_embedding
from torch import Tensor, nn

from ...models.blocks import CALL
from ...models.family import BlockKey, family_of
from .blocks import Answer, Pass, TrainingCall, make_out_of_place, training_handlers
from .compiled import compile_blocks

Condition = Mapping[str, Tensor]  # context [B, L, D] and, as the model needs, y, txt_byt5, clip_fea, concat, guidance
INPUTS = ("context", "y", "txt_byt5", "clip_fea", "attention_mask", "guidance")


class Network:
    """A HunyuanVideo that gradients may pass; the module itself stays ComfyUI's."""

    def __init__(
        self,
        module: nn.Module,
        recomputed: bool = True,
        offloaded: bool = False,
        dtype: torch.dtype | None = None,
        compiled: bool = False,
    ):
        """Blocks are recomputed in backward with `recomputed`, from inputs on the host if `offloaded`.

        `dtype` is what is computed in, whatever the weights are kept as; None for the type of the inputs.
        """
        _require_training()
        self.module = module
        self.recomputed, self.offloaded, self.dtype = recomputed, offloaded, dtype
        self.family = family_of(module)
        self.blocks = self.family.blocks(module)
        self.handlers = training_handlers(module)
        (compile_blocks if compiled else make_out_of_place)(self.block_modules())

    def block_modules(self) -> list[nn.Module]:
        """The blocks themselves, in the order they run."""
        return [self.family.module(self.module, block) for block in self.blocks]

    def shards(self) -> list[nn.Module]:
        """The parts whose weights processes share: the blocks, each of the modules around them, then all together.

        Each by itself, because a gradient may end at a block or begin at one, without the network's output.
        """
        blocks = self.block_modules()
        within = {id(part) for block in blocks for part in block.modules()}
        around = [
            child
            for child in self.module.children()
            if any(True for _ in child.parameters()) and not any(id(part) in within for part in child.modules())
        ]
        return [*blocks, *around, self.module]

    def spread_blocks(self, count: int) -> list[BlockKey]:
        """So many blocks, or all if there are fewer, spread over the first two thirds of the network."""
        reach = max(1, 2 * len(self.blocks) // 3)
        places = {max(0, round((i + 1) * reach / count) - 1) for i in range(count)}
        return [self.blocks[place] for place in sorted(places)]

    def velocity(self, x_t: Tensor, t: Tensor, r: Tensor | None, condition: Condition, **options) -> Tensor:
        """u(x_t, t, r) [B, C, T, H, W] at the times t, r [B]; without r, what the network answers when told only t."""
        return self._run(self._call(), x_t, t, r, condition, **options)[0]

    def velocity_and_features(self, x_t: Tensor, t: Tensor, r: Tensor | None, condition: Condition):
        """u and C, the last hidden features: [image and text] tokens in one tensor (1.0) or two (1.5)."""
        u, kept = self._run(self._call(), x_t, t, r, condition)
        return u, kept.features

    def answered_velocity(
        self, answer: Answer, x_t: Tensor, t: Tensor, r: Tensor | None, condition: Condition
    ) -> Tensor:
        """u with an answer in place of the blocks, through the network's own final layer."""
        return self._run(self._call(answer=answer), x_t, t, r, condition)[0]

    def taps(
        self, x_t: Tensor, t: Tensor, r: Tensor | None, condition: Condition, blocks: Sequence[BlockKey]
    ) -> list[Tensor]:
        """The image tokens [B, L, h] after each of the `blocks`."""
        return self._run(self._call(tapped=frozenset(blocks)), x_t, t, r, condition)[1].taps

    def _call(self, **kind) -> TrainingCall:
        return TrainingCall(**kind, recomputed=self.recomputed, offloaded=self.offloaded)

    def _run(
        self,
        call: TrainingCall,
        x_t: Tensor,
        t: Tensor,
        r: Tensor | None,
        condition: Condition,
        transformer_options: Mapping = {},
    ) -> tuple[Tensor, Pass]:
        given = {name: self._cast(value) for name, value in condition.items() if value is not None}
        inputs = {name: given[name] for name in INPUTS if name in given}
        x = self._cast(x_t)
        if "concat" in given:
            x = torch.cat([x, given["concat"]], dim=1)
        options = {
            CALL: call,
            "patches_replace": {"dit": self.handlers},
            # ComfyUI looks the r of a time up among the run's times: one pair that always fits, its r replaced below
            "sigmas": torch.ones(1, device=x.device),
            "sample_sigmas": torch.tensor([1.0, 0.0], device=x.device),
            **transformer_options,
        }
        with _times_r(self.module, r):
            u = self.module(x, t * 1000.0, disable_time_r=r is None, transformer_options=options, **inputs)
        # the graph holds the call for recomputation: holding what the graph made, it would keep both alive
        return u[:, : x_t.shape[1]], call.handed_over()

    def _cast(self, x: Tensor) -> Tensor:
        return x if self.dtype is None or not x.is_floating_point() else x.to(self.dtype)


@contextmanager
def _times_r(module: nn.Module, r: Tensor | None) -> Iterator[None]:
    """Hands `time_r_in` the embedding of every sample's r, in place of ComfyUI's one for the whole batch."""
    if r is None:
        yield
        return
    if module.time_r_in is None:
        raise ValueError(
            "The network has no time_r_in, so it cannot be told r. Start from a MeanFlow model, or train one "
            "with algorithm: meanflow, which adds it."
        )

    def embed(_: nn.Module, args: tuple) -> Tensor:
        return timestep_embedding(r, args[0].shape[-1], time_factor=1000.0).to(args[0])

    hook = module.time_r_in.register_forward_pre_hook(embed)
    try:
        yield
    finally:
        hook.remove()


def _require_training() -> None:
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "Training was started in torch's inference mode, where gradients do not exist and derivatives are zero. "
            "Start it in a process of its own: python -m disca.training run.yaml."
        )
    if not comfy.model_management.in_training:
        raise RuntimeError(
            "ComfyUI is not in training mode, so its rotary embedding has no gradient. Set "
            "comfy.model_management.in_training = True before the network is made; python -m disca.training does."
        )
