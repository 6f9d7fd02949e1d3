"""What a training hands to the inference nodes: a network, a LoRA, a Predictor, LESA's experts, and how it loads."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from comfy.model_patcher import ModelPatcher
from safetensors.torch import save_file
from torch import Tensor, nn

from ...models.checks import LoadedLesa, LoadedPredictor
from ...models.lesa_file import LesaSpec, write_lesa
from ...models.loading import load_lesa, load_meanflow_model, load_model, load_predictor
from ...models.lora import load_lora
from ...weights.predictor_file import write_predictor
from ...weights.predictor_spec import PredictorSpec
from ..contract.settings import ModelSettings, Settings
from .lora import base_state, lora_state, whole_state
from .roles import Distillation

NETWORK, LORA, PREDICTOR = "model.safetensors", "lora.safetensors", "predictor.safetensors"
LESA = "lesa.safetensors"


def export_network(folder: Path, network: nn.Module, weights: dict[str, Tensor] | None, settings: Settings) -> None:
    """The network's whole state, with these trained weights in place of its own; None: not this process's to write."""
    if weights is None:
        return
    save_file(_with_trained(network, weights), folder / NETWORK, metadata(settings))


def export_distilled(
    folder: Path, networks: Distillation, weights: dict[str, Tensor] | None, settings: Settings
) -> None:
    """The student: whole, or as a LoRA on its base, and then whole too if the base lacks an embedder.

    ComfyUI leaves out a LoRA's weights for an embedder that the loaded model does not have.
    """
    if networks.lora is None:
        export_network(folder, networks.student.module, weights, settings)
        return
    base = base_state(networks.student.module, weights is not None) if networks.extended else {}
    if weights is not None:
        save_file(lora_state(networks.lora, weights), folder / LORA, metadata(settings))
        if networks.extended:
            whole = whole_state(networks.student.module, networks.lora, base, weights)
            save_file(whole, folder / NETWORK, metadata(settings))


def export_predictor(
    folder: Path, spec: PredictorSpec, predictor: nn.Module, weights: dict[str, Tensor] | None
) -> None:
    """The Predictor in the form that Load Predictor reads."""
    if weights is None:
        return
    write_predictor(str(folder / PREDICTOR), spec, _with_trained(predictor, weights))


def export_lesa(folder: Path, spec: LesaSpec, experts: nn.Module, weights: dict[str, Tensor] | None) -> None:
    """LESA's experts in the published layout."""
    if weights is not None:
        write_lesa(str(folder / LESA), spec, _with_trained(experts, weights))


def exported_model(model: ModelSettings, export: Path) -> ModelPatcher:
    """The MODEL that a run gave; one that is whole is taken before a LoRA on its base."""
    return _exported(model, export, load_model)


def exported_meanflow_model(model: ModelSettings, export: Path) -> ModelPatcher:
    """The same with its input for r."""
    return _exported(model, export, load_meanflow_model)


def exported_predictor(model: ModelSettings, export: Path) -> LoadedPredictor:
    """The Predictor that a run gave."""
    return load_predictor(str(export / PREDICTOR))


def exported_lesa(model: ModelSettings, export: Path) -> LoadedLesa:
    """LESA's experts that a run gave."""
    return load_lesa(str(export / LESA))


def metadata(settings: Settings) -> dict[str, str]:
    """Where the weights come from."""
    section = getattr(settings, settings.algorithm, None)
    recorded = {} if section is None else {f"disca.{key}": str(value) for key, value in asdict(section).items()}
    return {"disca.algorithm": settings.algorithm, "disca.seed": str(settings.seed), **recorded}


def _exported(model: ModelSettings, export: Path, load: Callable[[str], ModelPatcher]) -> ModelPatcher:
    if (export / NETWORK).exists():
        return load(str(export / NETWORK))
    return load_lora(load(model.path), str(export / LORA), 1.0)[0]


def _with_trained(module: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    state = module.state_dict() | weights
    return {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
