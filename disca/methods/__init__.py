"""Feature caches, a file each, as three answers: when a step runs in full, where something stands in, and what it is.

Pure torch: sampling in ComfyUI, previews, benchmarks and trainings all run these.
"""

from .adaptive.adacache import AdaCache
from .adaptive.easycache import EasyCache
from .adaptive.first_block import FirstBlockCache
from .adaptive.magcache import MagCache
from .adaptive.speca import SpeCa
from .adaptive.teacache import TeaCache
from .scheduled.delta_dit import DeltaDit
from .scheduled.duca import DuCa
from .scheduled.extrapolation import Extrapolation
from .scheduled.fora import Fora
from .scheduled.lesa import LesaCache
from .scheduled.pab import Pab
from .scheduled.reuse import PlainReuse
from .scheduled.rfc import Rfc, RfcLite
from .scheduled.spectrum import Spectrum
from .scheduled.taylorseer import TaylorSeer, TaylorSeerLite
from .scheduled.toca import ToCa
from .seam.cache import Cache

METHODS: dict[str, type[Cache]] = {  # in the order in which they are offered
    cache.name: cache
    for cache in (
        *(PlainReuse, Extrapolation, TaylorSeerLite, RfcLite, Spectrum),
        *(TeaCache, MagCache, AdaCache, EasyCache, FirstBlockCache),
        *(TaylorSeer, Rfc, Fora, ToCa, DuCa, Pab, DeltaDit, SpeCa),
        LesaCache,
    )
}
