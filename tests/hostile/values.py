"""Values that no setting should have."""

import random


def junk(rng: random.Random) -> object:
    """A value of a wrong type, sign or size."""
    return rng.choice(
        (None, True, -1, 0, 10**9, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 3000, "os.system", "${a}", [],
         [[]] * 50, [1e308], {}, {"type": "Evil"}, {"a": {"a": {}}}, "\ud800", 0.5, 24, [10**20], "9" * 5000)
    )  # fmt: skip


def with_junk(rng: random.Random, table: object) -> object:
    """`table` with one to three values replaced, removed or added, at any depth."""
    for _ in range(rng.choice((1, 1, 3))):
        node = table
        while isinstance(node, (dict, list)) and node:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if not isinstance(node[key], (dict, list)) or not node[key] or rng.random() < 0.25:
                if isinstance(node, dict) and rng.random() < 0.2:
                    del node[key]
                else:
                    node[key] = junk(rng)
                break
            node = node[key]
    return table
