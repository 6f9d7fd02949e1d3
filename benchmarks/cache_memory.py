"""What each feature cache holds in a run of the published networks, for one video and one condition, computed.

python benchmarks/cache_memory.py
"""

import sys

import torch
from networks import FULL_SIZE, Size

from disca.host.running.memory import bytes_held  # isort: skip
from disca.methods import METHODS, Cache  # isort: skip

BYTES = 2  # of a number in 16 bits


def held(cache: Cache, size: Size) -> float:
    """In GB."""
    row = size.row
    with torch.device("meta"):
        network = row.network()
    latent = torch.Size((1, row.latent_format().latent_channels, *size.latent))
    return bytes_held(cache.method(), row, network, latent, size.text_tokens, BYTES) / 1e9


def main() -> None:
    """A line for each method at its defaults."""
    for name, cache in METHODS.items():
        figures = ", ".join(f"{family}: {held(cache(), size):.2f} GB" for family, size in FULL_SIZE.items())
        sys.stdout.write(f"{name:18s} {figures}\n")


if __name__ == "__main__":
    main()
