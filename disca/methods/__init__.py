"""Feature caches, a file each, as three answers: when a step runs in full, where something stands in, and what it is.

Pure torch: sampling in ComfyUI, previews, benchmarks and trainings all run these.
"""

from .cache import Cache
from .extrapolation import Extrapolation
from .reuse import PlainReuse
from .taylorseer import TaylorSeer, TaylorSeerLite

METHODS: dict[str, type[Cache]] = {  # in the order in which they are offered
    cache.name: cache for cache in (PlainReuse, Extrapolation, TaylorSeerLite, TaylorSeer)
}
