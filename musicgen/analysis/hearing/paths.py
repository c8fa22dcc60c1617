"""The likeliest path through states, by dynamic programming."""

from collections.abc import Callable

import numpy as np

_ROWS_A_CHECK = 500


def likeliest_path(
    gain: np.ndarray, transition: np.ndarray, check: Callable[[float], None] = lambda share: None
) -> list[int]:
    """States [n] of the largest sum of gain [n, states] and transition [from, to]. check(share done): each 500 rows.

    Source: Viterbi 1967.
    """
    score, back = gain[0], []
    for number, row in enumerate(gain[1:]):
        if number % _ROWS_A_CHECK == 0:
            check(number / len(gain))
        ways = score[:, None] + transition
        back.append(ways.argmax(axis=0))
        score = ways.max(axis=0) + row
    path = [int(score.argmax())]
    for choice in reversed(back):
        path.append(int(choice[path[-1]]))
    return path[::-1]
