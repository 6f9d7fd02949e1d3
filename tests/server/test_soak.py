"""Many random prompts on a real server: memory stays flat, nothing stays alive, results are those of fresh runs.

A short form by default; `--full` runs 200 prompts and prints the figures of benchmarks/RESULTS.md.
"""

import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median

import pytest

PACK = Path(__file__).resolve().parents[2]
sys.path.append(str(PACK / "scripts"))
import recipes  # noqa: E402
from comfy_server import PATIENCE, Server, install, serve  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

FORMS = {  # distinct prompts, prompts in a row, bound of the slope in bytes per prompt
    "short": (6, 15, 2_000_000),
    "full": (30, 200, 50_000),
}

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc"),
]


@dataclass(frozen=True)
class Job:
    """What is to be sampled."""

    case: str
    frames: int
    height: int
    width: int
    batch: int
    steps: int
    plan: str
    cfg: float
    shift: float
    denoise: float
    seed: int
    cache_device: str
    core: bool  # sampled by core's nodes


@dataclass
class Soak:
    """What was seen."""

    census: list[dict] = field(default_factory=list)  # after each prompt
    outcomes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def random_job(chance: random.Random, case: str) -> Job:
    steps = chance.randint(1, 10)
    listed = " ".join(map(str, [0, *sorted(chance.sample(range(1, steps), chance.randint(0, steps - 1)))]))
    interval = {"plan.interval": chance.randint(1, 4), "plan.warmup": chance.randint(1, 3), "plan.last_step": True}
    plan = chance.choice([{"plan": "anchors", "plan.anchors": listed}, {"plan": "interval", **interval}])
    return Job(
        case=case,
        frames=chance.choice([1, 3, 5]),
        height=chance.choice([4, 8, 12]),
        width=chance.choice([6, 12, 16]),
        batch=chance.choice([1, 1, 2]),
        steps=steps,
        plan=json.dumps(plan),
        cfg=chance.choice([1.0, 3.0]),
        shift=chance.choice([1.0, 5.0, 7.0]),
        denoise=chance.choice([1.0, 1.0, 0.7]),
        seed=chance.randrange(2**32),
        cache_device=chance.choice(["auto", "gpu", "cpu"]),
        core=chance.random() < 0.4,
    )


def prompt_of(job: Job, nonce: int, fault: str = "none", call: int = 0) -> dict:
    """The job's graph, by DiscaSample or by core's sampling nodes."""
    name = f"{job.case}.safetensors"
    size = {key: value for key, value in asdict(job).items() if key in ("frames", "height", "width", "batch")}
    sigmas = {"steps": job.steps, "shift": job.shift, "denoise": job.denoise}
    nodes = {
        "model": ("DiscaLoadModel", {"model_name": name, "weight_dtype": "default"}),
        "predictor": ("DiscaLoadPredictor", {"predictor_name": name, "weight_dtype": "default"}),
        "schedule": ("DiscaCacheSchedule", json.loads(job.plan)),
        "apply": (
            "DiscaApplyPredictor",
            {"model": ["model", 0], "predictor": ["predictor", 0], "schedule": ["schedule", 0]}
            | {"cache_device": job.cache_device},
        ),
        "fault": ("SoakFault", {"model": ["apply", 0], "kind": fault, "call": call}),
        "inputs": ("SoakInputs", {"model": ["model", 0], "case": job.case, "nonce": nonce, **size}),
        "result": ("SoakResult", {"latent": ["sample", 0]}),
    }
    conditions = {"positive": ["inputs", 0], "negative": ["inputs", 1], "cfg": job.cfg}
    if job.core:
        nodes |= {
            "sigmas": ("DiscaMeanFlowSigmas", sigmas),
            "sampler": ("DiscaMeanFlowSampler", {}),
            "noise": ("RandomNoise", {"noise_seed": job.seed}),
            "guider": ("CFGGuider", {"model": ["fault", 0], **conditions}),
            "sample": (
                "SamplerCustomAdvanced",
                {"noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["sampler", 0], "sigmas": ["sigmas", 0]}
                | {"latent_image": ["inputs", 2]},
            ),
        }
    else:
        inputs = {"model": ["fault", 0], "latent_image": ["inputs", 2], "seed": job.seed, **conditions, **sigmas}
        nodes["sample"] = ("DiscaSample", inputs)
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def outcome_of(history: dict) -> str:
    """The result's digest, or how the prompt ended at the sampling node."""
    for kind, told in history["status"]["messages"]:
        if kind in ("execution_error", "execution_interrupted"):
            assert told["node_id"] == "sample", told
            return told.get("exception_message", "interrupted").strip().split("\n")[0]
    return history["outputs"]["result"]["text"][0]


def free(server: Server) -> None:
    """Empties the executor's cache and unloads the models, as the interface's button does; they must go."""
    deadline = time.monotonic() + PATIENCE
    while True:
        server.post("/free", {"unload_models": True, "free_memory": True})  # missed during a garbage collection
        if not server.get("/soak/census")["networks"]:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("networks are alive long after /free")
        time.sleep(0.5)


def fresh_results(server: Server, jobs: list[Job]) -> dict[Job, str]:
    """The digest of each job, sampled with newly loaded models."""
    results = {}
    for job in jobs:
        free(server)
        results[job] = outcome_of(server.run(prompt_of(job, nonce=-1)))
        assert len(results[job]) == 64, results[job]
    return results


def soak(server: Server, jobs: list[Job], fresh: dict[Job, str], prompts: int, chance: random.Random) -> Soak:
    """Random jobs in a row, one in three ended by an interrupt, an error or no memory."""
    seen, started = Soak(), time.monotonic()
    for nonce in range(prompts):
        job = chance.choice(jobs)
        fault = chance.choice(["none"] * 8 + ["memory", "error", "interrupt", "button"])
        if chance.random() < 0.04:
            free(server)
        kind = "none" if fault == "button" else fault
        prompt_id = server.post("/prompt", {"prompt": prompt_of(job, nonce, kind, chance.randrange(job.steps))})
        if fault == "button":
            time.sleep(chance.random() * 0.6)
            server.post("/interrupt", {})
        outcome = outcome_of(server.wait(prompt_id["prompt_id"]))
        server.post("/history", {"clear": True})
        expected = {"memory": "soak: CUDA out of memory", "error": "soak: error", "interrupt": "interrupted"}
        right = {expected.get(fault, fresh[job])} | ({"interrupted"} if fault == "button" else set())
        if outcome not in right:
            seen.wrong.append(f"prompt {nonce}, {fault}: {outcome} instead of {right}, {job}")
        seen.outcomes.append("result" if outcome == fresh[job] else outcome)
        seen.census.append(server.get("/soak/census") | {"rss": _memory(server.process.pid)})
    seen.seconds = time.monotonic() - started
    return seen


def slope(values: list[float]) -> float:
    """Theil-Sen: the median of the slopes between all pairs of values, which outliers do not move."""
    return median((b - a) / (j - i) for (i, a), (j, b) in combinations(enumerate(values), 2))


def _memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.fixture(scope="module")
def new_server(tmp_path_factory):
    """A server with tiny models of both families and the soak nodes."""

    def start(name: str):
        base = tmp_path_factory.mktemp(name)
        install(base)
        for case in recipes.CASES:
            run = recipes.golden(case)
            save_file(run.model, base / "models" / "diffusion_models" / f"{case}.safetensors")
            save_file(run.predictor, base / "models" / "disca" / f"{case}.safetensors")
        (base / "custom_nodes" / "soak_nodes.py").symlink_to(PACK / "tests" / "server" / "soak_nodes.py")
        return serve(base)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # networks of this size are slower on more
        yield start


@pytest.fixture(scope="module")
def form(pytestconfig) -> str:
    return "full" if pytestconfig.getoption("--full") else "short"


@pytest.fixture(scope="module")
def seen(new_server, form) -> Soak:
    """The soak, once."""
    distinct, prompts, _ = FORMS[form]
    chance = random.Random(f"soak {form}")
    jobs = [random_job(chance, recipes.CASES[i % 2]) for i in range(distinct)]
    fresh = {}
    if form == "full":
        with new_server("fresh") as server:
            fresh = fresh_results(server, jobs)
    with new_server("soak") as server:
        return soak(server, jobs, fresh or fresh_results(server, jobs), prompts, chance)


def test_every_result_is_that_of_a_fresh_run(seen):
    assert seen.wrong == []
    assert seen.outcomes.count("result") > len(seen.outcomes) / 2
    assert len(set(seen.outcomes)) > 2


def test_nothing_of_a_run_stays_alive(seen):
    assert [(n, told["state"], told["features"]) for n, told in enumerate(seen.census) if told["state"]] == []
    assert {told["features"] for told in seen.census} == {0}
    assert seen.census[-1]["allocated"] > len(seen.census)


def test_no_model_stays_beside_the_one_in_use(seen):
    assert all(len(told["networks"]) <= 2 for told in seen.census)


def test_memory_is_flat(seen, form, capsys):
    beside = [told["rss"] - told["weights"] for told in seen.census]  # the model in use is in memory, and changes
    half = beside[len(beside) // 2 :]
    found, bound = slope(half), FORMS[form][2]
    with capsys.disabled():
        ends = {kind: seen.outcomes.count(kind) for kind in sorted(set(seen.outcomes))}
        print(
            f"\nsoak: {len(beside)} prompts in {seen.seconds:.0f} s, {ends}; "
            f"{seen.census[-1]['allocated']} feature tensors allocated, 0 alive; "
            f"memory beside the weights {half[0] / 1e6:.1f} MB at half, {half[-1] / 1e6:.1f} MB at the end "
            f"({min(half) / 1e6:.1f} to {max(half) / 1e6:.1f}), "
            f"slope of the second half {found / 1e3:.1f} kB per prompt (bound {bound / 1e3:.0f})"
        )
    assert found < bound
