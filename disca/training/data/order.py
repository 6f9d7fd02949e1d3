"""Which sample comes when: the same at any number of processes, and after any resume."""

from hashlib import blake2b

ROUNDS = 6


def order(length: int, seed: int, position: int) -> int:
    """The index of the position-th sample ever drawn from `length`: each epoch is a permutation of its own.

    Nothing is stored: a keyed permutation of the next power of four is walked until it lands inside the epoch.
    """
    if length < 1 or position < 0:
        raise ValueError(f"No sample at position {position:d} of a dataset of {length}: give at least one, from 0 on.")
    epoch, index = divmod(position, length)
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    key = blake2b(f"{seed}/{epoch}".encode(), digest_size=16).digest()
    index = _permuted(index, half, key)
    while index >= length:
        index = _permuted(index, half, key)
    return index


def _permuted(index: int, half: int, key: bytes) -> int:
    """A Feistel network on 2 * half bits: one-to-one whatever the round function gives."""
    mask = (1 << half) - 1
    left, right = index >> half, index & mask
    for number in range(ROUNDS):
        mixed = blake2b(b"%d/%d" % (number, right), digest_size=8, key=key).digest()
        left, right = right, left ^ (int.from_bytes(mixed, "little") & mask)
    return left << half | right
