"""The statistics of a long signal, for a U-Net that sees one window of it at a time.

Its norms take mean and variance over all time, and each over what the norms before it have made: none of them could
be known before a whole signal has gone through all layers before it. They are estimated from excerpts, spread evenly
over the signal, which go through the U-Net side by side as one signal. All windows are then given the same numbers:
where two windows overlap, they agree, and no join between them can be heard.
"""

from collections.abc import Callable

from torch import Tensor

from .unet import Moments, Watch

N_EXCERPTS = 10
EXCERPT_S = 2.0


class Excerpts:
    """Where the statistics of a signal are taken from, in frames of the U-Net's deepest level."""

    def __init__(self, n_frames: int, length: int, margin: int):
        """length: of an excerpt; margin: frames at its ends that are not counted, for what lies beyond is missing."""
        length = min(length, n_frames)
        n_excerpts = min(N_EXCERPTS, n_frames // length)
        # Each in the middle of its share of the signal.
        starts = [round((i + 0.5) * n_frames / n_excerpts - length / 2) for i in range(n_excerpts)]
        self.spans = [(start, start + length) for start in starts]
        self.margin = margin / length

    def measure(self, run: Callable[[Watch], object], tick: Callable[[], None]) -> list[Moments]:
        """What each norm sees in them, taken together. run(watch) puts them through the U-Net, one a row."""
        seen: list[Moments] = []

        def pool(mean: Tensor, variance: Tensor) -> Moments:
            pooled = mean.mean(0, keepdim=True)
            seen.append((pooled, (variance + mean.square()).mean(0, keepdim=True) - pooled.square()))
            return seen[-1]

        run(Watch(tick, pool, self.margin))
        return seen


def replay(seen: list[Moments], tick: Callable[[], None]) -> Watch:
    """A watch that gives each norm in turn what `seen` holds for it."""
    given = iter(seen)
    return Watch(tick, lambda mean, variance: next(given))
