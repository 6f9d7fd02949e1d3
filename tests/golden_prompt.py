"""The shipped HunyuanVideo 1.0 workflow with the inputs of a golden run in place of encoders, noise and decoder."""

import shutil
from pathlib import Path

import recipes
from safetensors.torch import save_file

CASE = "hv10_t2v"
WORKFLOW = Path(__file__).with_name("workflows") / "DisCa 2 HunyuanVideo 1.0 text to video.json"
GOLDEN = str(recipes.GOLDEN / f"{CASE}.safetensors")


def put_files(base: Path, prompt: dict) -> None:
    """Writes the weights where a user would put them, under the names in the prompt, and the golden nodes."""
    run = recipes.golden(CASE)
    model, predictor = (base / "models" / folder for folder in ("diffusion_models", "disca"))
    save_file(recipes.tensor_parallel(run.model), model / only(prompt, "DiscaLoadModel")["model_name"])
    save_file(run.predictor, predictor / only(prompt, "DiscaLoadPredictor")["predictor_name"])
    for name in ("golden_nodes.py", "golden_double.py"):
        shutil.copy(Path(__file__).with_name(name), base / "custom_nodes")


def golden_prompt(prompt: dict, run: recipes.Golden) -> dict:
    """The shipped prompt at the golden run's size and steps, its encoders, noise and decoder replaced."""
    _, _, frames, height, width = run.tensors["latent"].shape
    anchors = " ".join(map(str, run.meta["step_list"]))
    sampled = [id_of(prompt, "SamplerCustomAdvanced"), 0]
    guider = only(prompt, "BasicGuider")
    only(prompt, "EmptyHunyuanLatentVideo").update(width=8 * width, height=8 * height, length=4 * frames - 3)
    only(prompt, "DiscaMeanFlowSigmas").update(steps=run.meta["steps"], shift=run.meta["shift"])
    prompt[id_of(prompt, "DiscaCacheSchedule")]["inputs"] = {"plan": "anchors", "plan.anchors": anchors}
    only(prompt, "SamplerCustomAdvanced")["noise"] = ["golden", 1]
    guider["conditioning"] = ["golden", 0]
    prompt |= {
        "golden": _node("GoldenInputs", file=GOLDEN, guidance=run.meta["guidance"]),
        "compare": _node("GoldenCompare", latent=sampled, model=guider["model"], file=GOLDEN),
        "save": _node("SaveLatent", samples=sampled, filename_prefix="disca"),
    }
    return _needed(prompt, ["compare", "save"])


def _node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": class_type}}


def id_of(prompt: dict, class_type: str) -> str:
    """The id of the only node of that type."""
    (found,) = (key for key, node in prompt.items() if node["class_type"] == class_type)
    return found


def only(prompt: dict, class_type: str) -> dict:
    """The inputs of the only node of that type."""
    return prompt[id_of(prompt, class_type)]["inputs"]


def _needed(prompt: dict, outputs: list[str]) -> dict:
    needed, waiting = {}, list(outputs)
    while waiting:
        key = waiting.pop()
        if key not in needed:
            needed[key] = prompt[key]
            waiting += [value[0] for value in prompt[key]["inputs"].values() if isinstance(value, list)]
    return needed
