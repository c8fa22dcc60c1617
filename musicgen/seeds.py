"""Seeds of the rows of a batch."""

_MASK64 = 2**64 - 1


def row_seed(seed: int, row: int) -> int:
    """Seed of one row of a batch: `seed` itself for row 0, else splitmix64(seed + row * golden ratio).

    Row 0 thus draws what audiocraft draws after `torch.manual_seed(seed)`. (torch's CPU generator reads the
    lower 32 bits of a seed only, so seeds that differ above them sound alike.)
    """
    if row == 0:
        return seed
    z = (seed + row * 0x9E3779B97F4A7C15) & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return z ^ (z >> 31)


def seed_alone(seed: int, row: int) -> int:
    """The seed that writes one row of a batch of `seed` again as row 0: the part of `row_seed` that generators read."""
    return seed if row == 0 else row_seed(seed, row) & 0xFFFFFFFF
