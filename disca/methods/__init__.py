"""Feature caches, a file each, as three answers: when a step runs in full, where something stands in, and what it is.

Pure torch: sampling in ComfyUI, previews, benchmarks and trainings all run these.
"""

from .adacache import AdaCache
from .cache import Cache
from .delta_dit import DeltaDit
from .duca import DuCa
from .easycache import EasyCache
from .extrapolation import Extrapolation
from .first_block import FirstBlockCache
from .fora import Fora
from .lesa import LesaCache
from .magcache import MagCache
from .pab import Pab
from .reuse import PlainReuse
from .rfc import Rfc, RfcLite
from .speca import SpeCa
from .spectrum import Spectrum
from .taylorseer import TaylorSeer, TaylorSeerLite
from .teacache import TeaCache
from .toca import ToCa

METHODS: dict[str, type[Cache]] = {  # in the order in which they are offered
    cache.name: cache
    for cache in (
        *(PlainReuse, Extrapolation, TaylorSeerLite, RfcLite, Spectrum),
        *(TeaCache, MagCache, AdaCache, EasyCache, FirstBlockCache),
        *(TaylorSeer, Rfc, Fora, ToCa, DuCa, Pab, DeltaDit, SpeCa),
        LesaCache,
    )
}
