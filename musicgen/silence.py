"""Music that is practically silent, falls silent, or sounds on where it was asked to end: known by its codes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .faults import Asked, Fault

SILENT_SHARE = 0.98  # of the frames: a stroke of the drum takes more than the rest
_LAST_S = 0.1  # that must be silent for a piece to have ended
_ENDED_S = 8.0  # of silence, at most, after an end that was asked for: it comes within the last window
_BEFORE_S = 4.0  # before a gap, and what leads to it is drawn again too
_LAST_WINDOW_S = 6.0  # that is drawn again of a long piece without its end

_SILENT = Fault(0, "is practically silent", "was practically silent", "Take another text or seed.", whole=True)
_GAP = Fault(0, "falls silent", "fell silent", "Take another text or seed.")
_ENDLESS = Fault(
    0, "does not come to its end", "did not come to its end", "Take a longer duration or another seed, or fade it out."
)


@dataclass(frozen=True)
class Silence:
    """What a card says of silence. codes: those of the first codebook that the codec decodes to silence."""

    codes: frozenset[int]
    tries: int  # seeds after the first, at most
    gap_s: float = 0.0  # so long a silence is none that music has; 0 = any may be

    def silent_rows(self, codes: Tensor) -> list[int]:
        """The rows of codes [B, K, T] whose frames have silent codes, all but a few."""
        shares = torch.isin(codes[:, 0], torch.tensor(sorted(self.codes))).float().mean(dim=-1)
        return (shares >= SILENT_SHARE).nonzero().flatten().tolist()

    def fault(self, codes: Tensor, rate_hz: float, asked: Asked) -> Fault | None:
        """What is wrong with codes [1, K, T], if anything."""
        if self.silent_rows(codes):
            return _SILENT
        silent, total = torch.isin(codes[0, 0], torch.tensor(sorted(self.codes))).tolist(), codes.shape[-1]
        start = None
        for frame in range(asked.n_given, total + 1):
            if frame < total and silent[frame]:
                start = frame if start is None else start
            elif start is not None:
                length_s = (frame - start) / rate_hz
                allowed_s = _ENDED_S if asked.ends and frame == total else self.gap_s or float("inf")
                if length_s > allowed_s:
                    return _GAP._replace(at=max(asked.n_given, start - round(_BEFORE_S * rate_hz)))
                start = None
        if asked.ends and not all(silent[-max(1, round(_LAST_S * rate_hz)) :]):
            last = total - round(_LAST_WINDOW_S * rate_hz)
            return _ENDLESS._replace(at=last if last >= max(asked.n_given, total // 2) else 0)
        return None
