"""All that knows ComfyUI's inside: loading, one sampling run, handlers on blocks, attaching to a MODEL."""
