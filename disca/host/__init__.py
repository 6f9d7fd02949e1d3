"""All that knows ComfyUI's sampling: one run, handlers on blocks, methods on a MODEL, samplers, attention."""
