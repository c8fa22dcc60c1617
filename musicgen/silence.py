"""Music that is practically silent, falls silent, or sounds on where it was asked to end: known by its codes, and drawn again.

For models whose card says how.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .codes import Codes
from .seeds import row_seed

logger = logging.getLogger(__name__)

SILENT_SHARE = 0.98  # of the frames: a stroke of the drum takes more than the rest
_LAST_S = 0.1  # that must be silent for a piece to have ended
_ENDED_S = 8.0  # of silence, at most, after an end that was asked for: it comes within the last window
_BEFORE_S = 4.0  # before a gap, and what leads to it is drawn again too
_LAST_WINDOW_S = 6.0  # that is drawn again of a long piece without its end
_SEEDS = 2**64
Draw = Callable[[int, int, Codes | None], Tensor]  # row, seed, what is kept of it -> codes [1, K, T]


class Fault(NamedTuple):
    """What is wrong with a clip. at: frame from which it is to be drawn again."""

    at: int
    is_so: str
    was_so: str
    advice: str


_SILENT = Fault(0, "is practically silent", "was practically silent", "Take another text or seed.")
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

    def fault(self, codes: Tensor, rate_hz: float, ends: bool = False, n_given: int = 0) -> Fault | None:
        """What is wrong with codes [1, K, T], if anything. ends: it was asked to end. n_given: frames of a clip that it continues."""
        if self.silent_rows(codes):
            return _SILENT
        silent, total = torch.isin(codes[0, 0], torch.tensor(sorted(self.codes))).tolist(), codes.shape[-1]
        start = None
        for frame in range(n_given, total + 1):
            if frame < total and silent[frame]:
                start = frame if start is None else start
            elif start is not None:
                length_s = (frame - start) / rate_hz
                allowed_s = _ENDED_S if ends and frame == total else self.gap_s or float("inf")
                if length_s > allowed_s:
                    return _GAP._replace(at=max(n_given, start - round(_BEFORE_S * rate_hz)))
                start = None
        if ends and not all(silent[-max(1, round(_LAST_S * rate_hz)) :]):
            last = total - round(_LAST_WINDOW_S * rate_hz)
            return _ENDLESS._replace(at=last if last >= max(n_given, total // 2) else 0)
        return None

    def redrawn(
        self,
        codes: Codes,
        seed: int,
        draw_row: Draw,
        model: str,
        on_redraw: Callable[[str], None] | None = None,
        ends: Sequence[bool] = (),
        n_given: int = 0,
    ) -> tuple[Tensor, dict[int, int]]:
        """(codes, row -> seed of what was drawn again whole): rows with a fault are replaced by what draw_row gives.

        The seed is the next one without the fault. A row's next seed is its own plus 1, as if it had been drawn alone; the
        other rows keep their codes, and so does a row that no seed mends. What was done is logged, and told to `on_redraw`.
        ends: for each row, whether it was asked to end; () = none. n_given: as in `fault`.
        """
        result, seeds = codes.codes, {}
        messages: list[str] = []
        for row in range(len(result)):
            asked, rate_hz = bool(ends) and ends[row], codes.frame_rate_hz
            own, again, left = result[row : row + 1], row_seed(seed, row), self.tries
            fault = self.fault(own, rate_hz, asked, n_given)
            if fault is None:
                continue
            n_said = len(messages)
            while fault and left:
                again = (again + 1) % _SEEDS
                kept = replace(codes, codes=own[..., : fault.at], origins=None) if fault.at else None
                drawn = draw_row(row, again, kept)
                after = self.fault(drawn, rate_hz, asked, n_given)
                sounds_at_last = fault is _SILENT and after is not _SILENT
                if after is not None and after.at <= fault.at and not sounds_at_last:
                    left -= 1
                    continue
                where = f" from {fault.at / rate_hz:.1f} s on" if kept else ""
                messages.append(
                    f"{model}: clip {row + 1} {fault.was_so} and was drawn again{where}, with seed {again}."
                )
                if kept is None:
                    seeds[row] = again
                own, fault, left = drawn, after, self.tries
            if fault:
                messages.append(
                    f"{model}: clip {row + 1} {fault.is_so} with {_seeds(again, self.tries)} too. {fault.advice}"
                )
            result = torch.cat([result[:row], own, result[row + 1 :]])
            for message in messages[n_said:]:
                logger.warning(message)
            if on_redraw is not None:
                on_redraw("\n".join(messages))
        return result, seeds


def _seeds(last: int, tries: int) -> str:
    """The seeds up to `last`, in words."""
    return f"the next {tries} seeds" if tries > 1 else f"the next seed, {last}"
