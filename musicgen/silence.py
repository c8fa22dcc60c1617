"""Music that is practically silent, or sounds on where it was asked to end: known by its codes, and drawn again, where a card says how."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .seeds import row_seed

logger = logging.getLogger(__name__)

SILENT_SHARE = 0.98  # of the frames: a stroke of the drum takes more than the rest
_LAST_FRAMES = 5  # that must be silent for a piece to have ended: 0.1 s
_SEEDS = 2**64
# What a clip is, what it was, and what to do.
_SILENT = ("is practically silent", "was practically silent", "Take another text or seed.")
_ENDLESS = (
    "does not come to its end",
    "did not come to its end",
    "Take a longer duration or another seed, or fade it out.",
)


@dataclass(frozen=True)
class Silence:
    """What a card says of silence. codes: those of the first codebook that the codec decodes to silence."""

    codes: frozenset[int]
    tries: int  # seeds after the first, at most

    def silent_rows(self, codes: Tensor) -> list[int]:
        """The rows of codes [B, K, T] whose frames have silent codes, all but a few."""
        shares = torch.isin(codes[:, 0], torch.tensor(sorted(self.codes))).float().mean(dim=-1)
        return (shares >= SILENT_SHARE).nonzero().flatten().tolist()

    def sounding_rows(self, codes: Tensor) -> list[int]:
        """The rows of codes [B, K, T] that sound to the last."""
        last = torch.isin(codes[:, 0, -_LAST_FRAMES:], torch.tensor(sorted(self.codes)))
        return (~last.all(dim=-1)).nonzero().flatten().tolist()

    def faults(self, codes: Tensor, ends: Sequence[bool]) -> dict[int, tuple[str, str, str]]:
        """{row: words} of codes [B, K, T]. ends: for each row, whether it was asked to end."""
        found = {row: _ENDLESS for row in self.sounding_rows(codes) if ends[row]}
        return dict(sorted((found | dict.fromkeys(self.silent_rows(codes), _SILENT)).items()))

    def redrawn(
        self,
        codes: Tensor,
        seed: int,
        draw_row: Callable[[int, int], Tensor],
        model: str,
        on_redraw: Callable[[str], None] | None = None,
        ends: Sequence[bool] = (),
    ) -> tuple[Tensor, dict[int, int]]:
        """(codes, row -> seed of what was drawn again): each row with a fault is replaced by draw_row(row, seed) [1, K, T].

        Its seed is the next one without. A row's next seed is its own plus 1, as if it had been drawn alone; the other
        rows keep their codes, and so does a row that no seed mends. What was done is logged, and told to `on_redraw`.
        ends: for each row, whether it was asked to end; () = none.
        """
        ends = ends or [False] * len(codes)
        messages: list[str] = []
        seeds: dict[int, int] = {}
        for row, (is_so, was_so, advice) in self.faults(codes, ends).items():
            first = row_seed(seed, row)
            message = f"{model}: clip {row + 1} {is_so} with {_seeds(first, self.tries)} too. {advice}"
            for step in range(1, self.tries + 1):
                again = (first + step) % _SEEDS
                drawn = draw_row(row, again)
                if not self.faults(drawn, [ends[row]]):
                    codes, seeds[row] = torch.cat([codes[:row], drawn, codes[row + 1 :]]), again
                    message = f"{model}: clip {row + 1} {was_so} and was drawn again, with seed {again}."
                    break
            logger.warning(message)
            messages.append(message)
            if on_redraw is not None:
                on_redraw("\n".join(messages))
        return codes, seeds


def _seeds(first: int, tries: int) -> str:
    """The seeds after `first`, in words."""
    return f"the next {tries} seeds" if tries > 1 else f"the next seed, {(first + 1) % _SEEDS}"
