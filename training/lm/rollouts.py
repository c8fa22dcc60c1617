"""The model's own music, shown to it in place of a clip of the same kind.

In training a model sees the codes of clips, whose strokes are all on the beat. Its own are not: it took the beat from them,
wherever they were, and lost the tempo of the text within a few strokes (0.96 of pulses known in clips, 0.5 in its own
music). Where it sees what it wrote, and is to predict the clip, it learns to keep to the clock of the text. Sources: S. Ross
et al., "A reduction of imitation learning and structured prediction to no-regret online learning", arXiv:1011.0686;
S. Bengio et al., "Scheduled sampling", arXiv:1506.03099.
"""

from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np

from ..data.pieces import Label

_KEPT = 6  # of each kind, the last ones


class Rollouts:
    """Pieces that the model wrote, by what they were to be."""

    def __init__(self) -> None:
        self._pieces: dict[tuple, deque[np.ndarray]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def __len__(self) -> int:
        return sum(map(len, self._pieces.values()))

    def add(self, labels: Sequence[Label], codes: np.ndarray) -> None:
        """codes [B, K, T] of B pieces that begin with a cycle."""
        for label, piece in zip(labels, codes, strict=True):
            self._pieces[_kind(label)].append(piece)

    def like(self, label: Label, rng: np.random.Generator) -> np.ndarray | None:
        """Codes [K, T] of a piece of the same jangdan, tempo and players, or None."""
        pieces = self._pieces.get(_kind(label))
        return pieces[rng.integers(len(pieces))] if pieces else None


def _kind(label: Label) -> tuple:
    return label.jangdan, label.bpm, label.instrument, label.buk
