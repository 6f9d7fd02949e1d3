"""What a user chooses from. Saved workflows hold these words: add at the end, never rename."""

WEIGHT_DTYPES = ("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")  # as in core's Load Diffusion Model
CACHE_DEVICES = ("auto", "gpu", "cpu")
ATTENTION = ("comfy", "auto", "cudnn")  # comfy: left as it is
