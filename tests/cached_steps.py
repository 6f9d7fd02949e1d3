"""Settings of every feature cache for tests of 8 steps: under which all run in full, and under which some do not."""

from disca.methods import METHODS

TRAINED = {"LESA"}  # answers with a network of its own
NAMES = [name for name in METHODS if name not in TRAINED]
NEUTRAL = {  # settings under which every step runs in full
    "TeaCache": {"threshold": 0.0},
    "MagCache": {"threshold": 0.0},
    "AdaCache": {"rate": 0.0},
    "EasyCache": {"threshold": 0.0},
    "First-Block-Cache": {"threshold": 0.0},
    "SpeCa": {"most": 0},
    "Spectrum": {"interval": 1.0, "growth": 0.0},
}
ACTIVE = {  # settings under which some of 8 steps are cached
    "TeaCache": {"threshold": 0.6, "calibration": "none"},
    "MagCache": {"threshold": 2.0, "most": 2, "retention": 0.2},
    "AdaCache": {"codebook": "fast", "rate": 3.0, "final": 1},
    "EasyCache": {"threshold": 2.0, "warmup": 2},
    "First-Block-Cache": {"threshold": 100.0, "most": 2},
    "SpeCa": {"threshold": 100.0, "floor": 100.0, "fewest": 0, "most": 2, "runs": "this step"},
    "Spectrum": {"warmup": 2},
    "PAB": {"interval": 3},
}
KINDS = (  # one method for each way of keeping and answering
    *("TaylorSeer-Lite", "TeaCache", "First-Block-Cache", "Delta-DiT", "EasyCache"),
    *("TaylorSeer", "PAB", "ToCa", "SpeCa"),
)


def active(name: str) -> dict:
    """Settings under which some of 8 steps are cached."""
    return ACTIVE.get(name, {"interval": 3, "warmup": 2})
