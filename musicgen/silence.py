"""Practically silent music, known by its codes, and drawn again: for models whose card says how."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .seeds import row_seed

logger = logging.getLogger(__name__)

SILENT_SHARE = 0.98  # of the frames: a stroke of the drum takes more than the rest
_SEEDS = 2**64


@dataclass(frozen=True)
class Silence:
    """What a card says of silence. codes: those of the first codebook that the codec decodes to silence."""

    codes: frozenset[int]
    tries: int  # seeds after the first, at most

    def silent_rows(self, codes: Tensor) -> list[int]:
        """The rows of codes [B, K, T] whose frames have silent codes, all but a few."""
        shares = torch.isin(codes[:, 0], torch.tensor(sorted(self.codes))).float().mean(dim=-1)
        return (shares >= SILENT_SHARE).nonzero().flatten().tolist()

    def redrawn(
        self,
        codes: Tensor,
        seed: int,
        draw_row: Callable[[int, int], Tensor],
        model: str,
        on_redraw: Callable[[str], None] | None = None,
    ) -> tuple[Tensor, dict[int, int]]:
        """(codes, row -> seed of what was drawn again): each silent row is replaced by draw_row(row, seed) [1, K, T].

        Its seed is the next one that sounds. A row's next seed is its own plus 1, as if it had been drawn alone; the other
        rows keep their codes, and so does a row that no seed brings to sound. What was done is logged, and told to
        `on_redraw`.
        """
        messages: list[str] = []
        seeds: dict[int, int] = {}
        for row in self.silent_rows(codes):
            first = row_seed(seed, row)
            message = (
                f"{model}: clip {row + 1} is practically silent with {_seeds(first, self.tries)} too. Take another text or "
                "seed."
            )
            for step in range(1, self.tries + 1):
                again = (first + step) % _SEEDS
                drawn = draw_row(row, again)
                if not self.silent_rows(drawn):
                    codes, seeds[row] = torch.cat([codes[:row], drawn, codes[row + 1 :]]), again
                    message = f"{model}: clip {row + 1} was practically silent and was drawn again, with seed {again}."
                    break
            logger.warning(message)
            messages.append(message)
            if on_redraw is not None:
                on_redraw("\n".join(messages))
        return codes, seeds


def _seeds(first: int, tries: int) -> str:
    """The seeds after `first`, in words."""
    return f"the next {tries} seeds" if tries > 1 else f"the next seed, {(first + 1) % _SEEDS}"
