"""ComfyUI's samplers on a MeanFlow model: which take the step that the network answers for.

The network is told r, the time where the step ends, as the entry after the current sigma in the run's sigmas. A
sampler that evaluates elsewhere gets no r or a wrong one, and one that adds noise ends its step elsewhere than at r.
`tests/comfy/test_samplers.py` measures each row of this table. Samplers of other packs are judged by what they do
(`observed.py`).
"""

import comfy.samplers

from ...messages import quoted

EXACT = {"meanflow", "euler"}

EXTRAPOLATES = {
    "euler_cfg_pp",
    "lms",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "ipndm",
    "ipndm_v",
    "deis",
    "res_multistep",
    "res_multistep_cfg_pp",
    "gradient_estimation",
    "gradient_estimation_cfg_pp",
    "unipc",
    "unipc_bh2",
}

BETWEEN = "it evaluates between two steps, where the network gets no r"
AT_THE_END = "it evaluates at the end of a step too, where the network gets the next step's r"
FIRST_SIGMA = "it changes the first sigma, whose r is lost"
NOISE = "it adds noise, so that a step does not end at its r"

REFUSED = {
    **dict.fromkeys(("dpm_2", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu"), BETWEEN),
    **dict.fromkeys(("seeds_2", "seeds_3", "exp_heun_2_x0", "exp_heun_2_x0_sde", "sa_solver_pece"), BETWEEN),
    **dict.fromkeys(("heun", "heunpp2", "dpm_2_ancestral", "dpmpp_2s_ancestral_cfg_pp"), AT_THE_END),
    **dict.fromkeys(("dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu"), FIRST_SIGMA),
    **dict.fromkeys(("dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "er_sde", "sa_solver"), FIRST_SIGMA),
    **dict.fromkeys(("euler_ancestral", "euler_ancestral_cfg_pp", "ddpm", "lcm"), NOISE),
    **dict.fromkeys(("res_multistep_ancestral", "res_multistep_ancestral_cfg_pp"), NOISE),
}


def name_of(sampler: comfy.samplers.Sampler) -> str:
    """The sampler's name as ComfyUI lists it, where it can be told."""
    function = getattr(sampler, "sampler_function", None)
    if function is None:
        return type(sampler).__name__
    name = getattr(function, "__name__", type(function).__name__)
    return name.removeprefix("sample_").removesuffix("_function")


def extrapolates(sampler: comfy.samplers.Sampler) -> bool:
    """Whether the table says already that its steps end elsewhere than where the mean velocity leads."""
    return name_of(sampler) in EXTRAPOLATES


def require_keeps_r(sampler: comfy.samplers.Sampler) -> str | None:
    """ValueError for a sampler that evaluates at other times, where r would be wrong; a warning for an unknown one."""
    name, options = name_of(sampler), getattr(sampler, "extra_options", {})
    reason = REFUSED.get(name)
    if name == "euler" and options.get("s_churn", 0.0) > 0.0:
        reason = NOISE
    if name == "euler_ancestral" and options.get("eta") == 0.0:
        reason = None
    if reason is not None:
        raise ValueError(
            f"The sampler {quoted(name)} cannot run a MeanFlow model: {reason}. Use DisCa MeanFlow Sampler or euler."
        )
    if name in EXTRAPOLATES:
        return (
            f"the sampler {quoted(name)} extrapolates over steps, which mean velocities are not made for; "
            "euler is exact"
        )
    return None
