"""Feature caches, a file each, as three answers: when a step runs in full, where something stands in, and what it is.

Pure torch: sampling in ComfyUI, previews, benchmarks and trainings all run these.
"""

from .adacache import AdaCache
from .cache import Cache
from .easycache import EasyCache
from .extrapolation import Extrapolation
from .first_block import FirstBlockCache
from .magcache import MagCache
from .reuse import PlainReuse
from .speca import SpeCa
from .taylorseer import TaylorSeer, TaylorSeerLite
from .teacache import TeaCache

METHODS: dict[str, type[Cache]] = {  # in the order in which they are offered
    cache.name: cache
    for cache in (
        PlainReuse,
        Extrapolation,
        TaylorSeerLite,
        TaylorSeer,
        TeaCache,
        MagCache,
        AdaCache,
        EasyCache,
        FirstBlockCache,
        SpeCa,
    )
}
