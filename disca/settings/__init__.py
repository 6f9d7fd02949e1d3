"""How settings are written down once: their types, limits and defaults, and what is wrong with them."""
