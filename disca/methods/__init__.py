"""Feature caches, a file each, as three answers: when a step runs in full, where something stands in, and what it is.

Pure torch: sampling in ComfyUI, previews, benchmarks and trainings all run these.
"""

from .disca import disca
from .extrapolation import extrapolation
from .reuse import reuse
from .taylor import taylor

METHODS = {"DisCa": disca, "reuse": reuse, "extrapolation": extrapolation, "Taylor": taylor}  # name -> its maker
