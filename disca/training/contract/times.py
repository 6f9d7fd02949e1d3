"""Times and noise for training: everything random of a sample comes from the run's seed and the sample's place."""

import torch
from torch import Tensor


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """values [B] with the trailing dimensions of `like` [B, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))


def at_least_fp32(x: Tensor) -> Tensor:
    """x in fp32, or in its own type if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def lengths(x: Tensor) -> Tensor:
    """|x| of each sample, [B], in fp32 or wider."""
    return at_least_fp32(x).flatten(1).norm(dim=1)


def at_time(x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t)·x_0 + t·noise."""
    t = per_sample(t, x_0)
    return (1.0 - t) * x_0 + t * noise


GOLDEN = 0x9E3779B1  # of 32 bits, which is what PyTorch's generator heeds: its multiples lie farthest apart


class Draws:
    """Random numbers of a batch, each sample's from its own generator: the same at any batch and world size."""

    def __init__(self, seed: int, indices: Tensor, device: torch.device):
        self.device = device
        self._generators = [torch.Generator().manual_seed(_mixed(seed, int(i))) for i in indices]

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """One number a sample, [B]."""
        drawn = torch.cat([torch.rand(1, generator=g) for g in self._generators])
        return low + (high - low) * drawn.to(self.device)

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal noise shaped as `like` [B, ...]."""
        drawn = [torch.randn(like.shape[1:], generator=g) for g in self._generators]
        return torch.stack(drawn).to(like)

    def restricted_times(self, R: float, share_r_equals_t: float = 0.0) -> tuple[Tensor, Tensor]:
        """(t, r) with t ~ U(0, 1), t - r ~ U(0, R), r >= 0; a share of the samples has r = t.

        DisCa, Algorithm 2, lines 2 to 3; those with r = t are ours (they hold u(x, t, t) = v).
        """
        t = self.uniform()
        r = (t - self.uniform(0.0, R)).clamp(min=0.0)
        return t, torch.where(self.uniform() < share_r_equals_t, t, r)


def _mixed(seed: int, place: int) -> int:
    """Seeds that are k apart, up to a thousand, share no number in the first 1.9 billion / k places."""
    return (seed * GOLDEN + place) % 2**32
