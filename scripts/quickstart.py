"""The shipped HunyuanVideo 1.0 workflow on a real server, with tiny weights, compared with a run of the authors' code.

The weights are made by a recipe, in the authors' file layouts; the text encoders' output and the noise are the golden
run's. All else is the workflow that ships.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import save_file

PACK = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PACK / "tests"), str(PACK / "scripts")]
import recipes  # noqa: E402
from comfy_server import install, serve  # noqa: E402

CASE = "hv10_t2v"
WORKFLOW = PACK / "tests" / "workflows" / "hunyuanvideo10_t2v_disca.json"
GOLDEN = str(recipes.GOLDEN / f"{CASE}.safetensors")


def main(base: Path) -> int:
    """Runs the workflow in the folder `base` and prints the report; 0 if it is the authors' result."""
    run = recipes.golden(CASE)
    shutil.rmtree(base, ignore_errors=True)
    install(base)
    prompt = golden_prompt(json.loads(WORKFLOW.read_text()), run)
    put_files(base, prompt)
    (base / "workflow.json").write_text(json.dumps(prompt, indent=2))

    with serve(base) as server:
        _comfy(base, "tracking", "disable")
        _comfy(base, "run", "--workflow", base / "workflow.json", "--host=127.0.0.1", f"--port={server.port}", "--wait")
        (history,) = server.get("/history").values()
        report = re.search(r"DisCa: \d+ calls.*", server.log())
    error = float(history["outputs"]["compare"]["text"][0])
    (latent,) = (base / "output").rglob("*.latent")
    print(report[0] if report else "no report in the log")
    print(f"relative error to the authors' run: {error:.1e} (1e-5 is needed)")
    print(f"result: {latent}\nworkflow: {base / 'workflow.json'}\nserver log: {base / 'server.log'}")
    return 0 if report and error < 1e-5 else 1


def put_files(base: Path, prompt: dict) -> None:
    """Writes the weights where a user would put them, under the names in the prompt, and the golden nodes."""
    run = recipes.golden(CASE)
    model, predictor = (base / "models" / folder for folder in ("diffusion_models", "disca"))
    save_file(recipes.tensor_parallel(run.model), model / only(prompt, "DiscaLoadModel")["model_name"])
    save_file(run.predictor, predictor / only(prompt, "DiscaLoadPredictor")["predictor_name"])
    shutil.copy(PACK / "scripts" / "golden_nodes.py", base / "custom_nodes")


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


def _comfy(home: Path, *arguments) -> None:
    command = [f"{os.environ['TOOLS']}/comfy", "--no-json", "--skip-prompt", *map(str, arguments)]
    subprocess.run(command, check=True, env={**os.environ, "HOME": str(home), "DO_NOT_TRACK": "1"})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
