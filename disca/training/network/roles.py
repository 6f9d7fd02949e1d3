"""The networks of a training: the one that learns, the one it learns from, the Predictor, and how they begin."""

import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import comfy.ops
import torch
from comfy.ldm.flux.layers import MLPEmbedder
from torch import Tensor, nn

from ...messages import quoted
from ...models.family import family_of
from ...models.lesa_file import LesaSpec
from ...models.loading import build_predictor, load_network
from ...toy.network import new_network
from ...weights.files import open_weights
from ...weights.predictor_file import read_predictor, read_predictor_spec
from ...weights.predictor_spec import PredictorSpec
from ..contract.method_settings import PredictorSettings
from ..contract.settings import Settings
from ..contract.torch_names import uses_torchao
from .blocks import make_out_of_place
from .fp8 import store_fp8
from .lora import Lora, adapters_off, add_lora
from .lora_start import start_from
from .offload import swap_blocks
from .velocity import Condition, Network

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
EMBEDDERS = {
    "time_r_in": "meanflow",
    "guidance_in": "guidance_embed",
}  # name -> ComfyUI's parameter that says it is there
IDENTITY_SLOPE = 0.1  # SiLU(e·x)·2/e is x + e·x²/2: nearly x for small e


@dataclass
class Distillation:
    """A student and the teacher that it learns from: with LoRA the same network, its adapters off."""

    student: Network
    product: nn.Module  # what is trained
    teaching: Network
    lora: Lora | None = None
    extended: str = ""  # the embedder that the student has and its file lacks

    def shards(self) -> list[nn.Module]:
        """The parts of both whose weights processes share, inner ones first."""
        own = self.student.shards()
        return own if self.teaching is self.student else own + self.teaching.shards()

    def teacher(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The velocity that the teacher gives at r = t, at guidance 1 where it is told another nowhere; no gradient."""
        if "guidance" not in condition and self._has("guidance_in"):
            condition = {**condition, "guidance": torch.ones_like(t)}
        off = adapters_off(self.student.module, self.lora) if self.lora else nullcontext()
        with off, torch.no_grad():
            return self.teaching.velocity(x_t, t, t if self.teacher_takes_r else None, condition)

    @property
    def teacher_takes_r(self) -> bool:
        """Whether the teacher is a MeanFlow model itself."""
        return self._has("time_r_in")

    def _has(self, embedder: str) -> bool:
        """Whether the teacher has it: with LoRA it is the student's network, where one may be added."""
        added = self.teaching is self.student and self.extended == embedder
        return getattr(self.teaching.module.params, EMBEDDERS[embedder]) and not added


def distillation(settings: Settings, device: torch.device, added: str) -> Distillation:
    """The networks of a run whose student gets the embedder `added` if its file has none."""
    student = _load(settings, settings.model.path, device, trained=not settings.lora.rank)
    extended = added if add_embedder(student.module, added) else ""
    if settings.lora.rank:
        chosen = settings.lora
        lora = add_lora(student.module, chosen.rank, chosen.alpha, settings.seed, targets=chosen.targets)
        if chosen.path:
            start_from(student.module, lora, chosen.path)
        return Distillation(student, lora, student, lora, extended)
    student.module.requires_grad_(True)
    return Distillation(student, student.module, _load(settings, settings.model.teacher or settings.model.path, device))


def frozen_network(settings: Settings, device: torch.device) -> Network:
    """The run's network, for a training that leaves it as it is."""
    if not settings.model.path:
        raise ValueError("model.path is empty, but this training looks at a MeanFlow model. Set it to that one's file.")
    return _load(settings, settings.model.path, device)


def base_network(settings: Settings, device: torch.device) -> Network:
    """The run's network to train from a file, or a new toy network."""
    if settings.model.path:
        network = _load(settings, settings.model.path, device, trained=True)
    else:
        module = new_network(settings.model.toy, settings.seed).to(device)
        dtype, compiled = DTYPES[settings.model.dtype], settings.model.compile_blocks
        network = Network(module, settings.memory.recompute_blocks, dtype=dtype, compiled=compiled)
    network.module.requires_grad_(True)
    return network


def add_embedder(network: nn.Module, name: str) -> bool:
    """Gives the network a `time_r_in` or `guidance_in` that changes nothing yet; False if it has one, which stays.

    HunyuanVideo 1.0 averages the embeddings of t and r, so r starts as a copy of t: where r = t nothing changes.
    1.5 sums them, and guidance is added: these start at zero.
    """
    if getattr(network.params, EMBEDDERS[name]):
        return False
    like = network.time_in
    weight = like.in_layer.weight
    embedder = MLPEmbedder(
        like.in_layer.in_features,
        network.hidden_size,
        dtype=weight.dtype,
        device=weight.device,
        operations=comfy.ops.manual_cast,
    )
    with torch.no_grad():
        for target, source in zip(embedder.parameters(), like.parameters(), strict=True):
            target.copy_(source)
        if name == "guidance_in" or network.params.meanflow_sum:
            embedder.out_layer.weight.zero_()
            embedder.out_layer.bias.zero_()
    setattr(network, name, embedder)
    setattr(network.params, EMBEDDERS[name], True)
    return True


def predictor_spec(network: nn.Module, settings: Settings) -> PredictorSpec:
    """What a new Predictor for this network is, and how it is trained."""
    family, predictor = family_of(network), settings.predictor
    width, heads = family.widths(network)
    residual = predictor.form != "authors"
    if predictor.path and predictor.form == "two":  # which goes on from either form
        residual = read_predictor_spec(open_weights(predictor.path)).residual
    return PredictorSpec(
        family=family.name,
        width=width,
        depth=predictor.depth,
        heads=heads,
        mlp_ratio=network.params.mlp_ratio,
        residual=residual,
        features=predictor.features,
        base_model=os.path.basename(settings.model.path),
        training=asdict(predictor)
        | {"shift": [*predictor.shift], "seed": settings.seed, "path": os.path.basename(predictor.path)},
    )


def lesa_spec(settings: Settings, anchors: tuple[int, ...]) -> LesaSpec:
    """What the experts of this run are, and how they are trained."""
    lesa = settings.lesa
    training = {**asdict(lesa), "seed": settings.seed}
    return LesaSpec(lesa.steps, lesa.hidden, lesa.shift, anchors, os.path.basename(settings.model.path), training)


def new_predictor(spec: PredictorSpec, settings: PredictorSettings, seed: int, device: torch.device) -> nn.Module:
    """A Predictor to train, fp32: from the file to go on from, or new; "identity" starts as a copy of the cache."""
    predictor = build_predictor(spec, dtype=torch.float32, device=device, operations=comfy.ops.manual_cast)
    _initialise(predictor, spec, seed, settings.start)
    features = 1
    if path := settings.path:
        found, state = read_predictor(open_weights(path))
        _require_same(path, found, spec)
        predictor.load_state_dict({key: tensor.float() for key, tensor in state.items()}, strict=False)
        features = found.features
    if spec.features > features:
        _without_second(predictor)
    make_out_of_place(predictor.blocks)
    return predictor.requires_grad_(True)


def _load(settings: Settings, path: str, device: torch.device, trained: bool = False) -> Network:
    """A network whose frozen weights are kept as the settings ask; trained ones in fp32, or bf16 with 8-bit AdamW."""
    model, memory = settings.model, settings.memory
    compute = DTYPES[model.dtype]
    if trained:
        kept = compute if uses_torchao(settings.optimizer.name) else torch.float32
    else:
        kept = torch.bfloat16 if model.weight_dtype != "default" else compute
    module = load_network(path, kept)
    if model.weight_dtype == "fp8_e4m3fn" and not trained:
        store_fp8(module)
    if memory.swap_blocks and not trained:
        swap_blocks(module, memory.swap_blocks, device)
    else:
        module.to(device)
    return Network(module, memory.recompute_blocks, memory.offload_activations, compute, model.compile_blocks)


@torch.no_grad()
def _initialise(predictor: nn.Module, spec: PredictorSpec, seed: int, start: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, weight in predictor.named_parameters():
        if weight.ndim > 1:
            bound = (3.0 / weight.shape[1]) ** 0.5
            drawn = torch.empty(weight.shape).uniform_(-bound, bound, generator=generator)
            weight.copy_(0.5 * drawn)
        else:
            weight.fill_(1.0 if "norm" in name else 0.0)
    if start == "random":
        return
    for name, module in predictor.named_modules():
        if name.endswith(".lin"):  # rows of shift, scale and gate
            module.weight.unflatten(0, (-1, 3, spec.width))[:, 2].zero_()
        if name.startswith("fusion_mlp") and name.count(".") == 0:
            _copy_cache(module, spec)


@torch.no_grad()
def _without_second(predictor: nn.Module) -> None:
    """Lets a Predictor of two features begin as one that sees the last ones and is not told how old they are."""
    for name, module in predictor.named_modules():
        if name.endswith(".change"):
            module.weight.zero_()
    for mlp in (predictor.ages.vec, *predictor.ages.damping):
        mlp[-1].weight.zero_()
        mlp[-1].bias.zero_()


def _copy_cache(fusion: nn.Module, spec: PredictorSpec) -> None:
    if spec.residual:
        fusion.out.weight.zero_()  # nothing is added to the cached features
        return
    eye = torch.eye(spec.width, device=fusion.out.weight.device)
    fusion.now.weight.mul_(1e-3)
    fusion.cached.weight.copy_(IDENTITY_SLOPE * eye)
    fusion.out.weight.copy_(2.0 / IDENTITY_SLOPE * eye)


def _require_same(path: str, found: PredictorSpec, needed: PredictorSpec) -> None:
    if found.features > needed.features:
        raise ValueError(
            f"{quoted(path)} is a Predictor of two features, but predictor.form asks for one. Set it to 'two'."
        )
    for name in ("family", "width", "depth", "heads", "residual"):
        if getattr(found, name) != getattr(needed, name):
            raise ValueError(
                f"{quoted(path)} is {found.described}; its {name} is {quoted(getattr(found, name))}, but the network "
                f"and settings of this run need {quoted(getattr(needed, name))}. Choose a Predictor of this model, or "
                f"change predictor.{name}."
            )
