"""Group-norm statistics of a long signal, for a U-Net that sees one window of it at a time.

A norm takes its mean and variance over the full time axis, after all earlier layers: exact values need the full
signal in memory. They are estimated from excerpts, spread evenly over the signal and run through the U-Net as one
batch. All windows use the same statistics, so overlapping windows agree and their joins cannot be heard.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from .unet import Moments, RunHooks

N_EXCERPTS = 10
EXCERPT_S = 2.0


class Excerpts:
    """Excerpts that the statistics of a signal are estimated from, in frames of the U-Net's deepest level."""

    def __init__(self, n_frames: int, length: int, margin: int):
        """length: frames of an excerpt. margin: frames at its ends left out of the statistics, as their context is missing."""
        length = min(length, n_frames)
        n_excerpts = min(N_EXCERPTS, n_frames // length)
        # Excerpts are centred in equal shares of the signal.
        starts = [round((i + 0.5) * n_frames / n_excerpts - length / 2) for i in range(n_excerpts)]
        self.spans = [(start, start + length) for start in starts]
        self.margin = margin / length

    def measure(self, run: Callable[[RunHooks], object], tick: Callable[[], None]) -> list[Moments]:
        """Mean and variance of each norm's input, pooled over the excerpts. run(hooks) runs the U-Net, one excerpt a row."""
        statistics: list[Moments] = []

        def pool(mean: Tensor, variance: Tensor) -> Moments:
            pooled = mean.mean(0, keepdim=True)
            statistics.append((pooled, (variance + mean.square()).mean(0, keepdim=True) - pooled.square()))
            return statistics[-1]

        run(RunHooks(tick, pool, self.margin))
        return statistics


def replay(statistics: Sequence[Moments], tick: Callable[[], None]) -> RunHooks:
    """Hooks that give the norms their entries of `statistics`, in the order in which the norms run."""
    following = iter(statistics)
    return RunHooks(tick, lambda mean, variance: next(following))
