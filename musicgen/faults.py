"""What is wrong with music that was just written, and its second draw. For models whose card says what to look for."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .codes import Codes
from .seeds import row_seed, seed_alone

logger = logging.getLogger(__name__)

Draw = Callable[[int, int, Codes | None], Tensor]  # row, seed, what is kept of it -> codes [1, K, T]


def next_seed(seed: int) -> int:
    """Another seed for music that is drawn again: that of a row which no batch has. A user who counts seeds up does not meet it."""
    return seed_alone(seed, 2**32)


class Fault(NamedTuple):
    """What is wrong with a clip. at: frame from which it is to be drawn again."""

    at: int
    is_so: str
    was_so: str
    advice: str
    whole: bool = False  # anything else is better


@dataclass(frozen=True)
class Asked:
    """What the text of a clip asks for, as far as its codes can tell. Times are seconds of the piece."""

    ends: bool = False
    tempos: tuple[tuple[float, float, float], ...] = ()  # from, to, beats a minute
    n_given: int = 0  # frames of a clip that it continues, which stay


class Check(Protocol):
    """One kind of fault."""

    @property
    def tries(self) -> int:
        """Seeds after the first for one fault, at most."""
        ...

    def fault(self, codes: Tensor, rate_hz: float, asked: Asked) -> Fault | None:
        """What is wrong with codes [1, K, T], if anything."""
        ...


@dataclass(frozen=True)
class Faults:
    """The checks of a model, the gravest first: none is mended at the price of one before it."""

    checks: tuple[Check, ...]

    def redrawn(
        self,
        codes: Codes,
        seed: int,
        draw_row: Draw,
        model: str,
        on_redraw: Callable[[str], None] | None = None,
        asked: Sequence[Asked] = (),
    ) -> tuple[Tensor, dict[int, int]]:
        """(codes, row -> seed of what was drawn again whole): rows with a fault are replaced by what draw_row gives.

        The seed is the first of the row's further seeds (`next_seed`) without the fault, as if the row had been drawn alone; the
        other rows keep their codes, and so does a row that no seed mends. What was done is logged, and told to `on_redraw`.
        asked: of each row; () = nothing.
        """
        result, seeds = codes.codes, {}
        messages: list[str] = []
        for row in range(len(result)):
            said: list[str] = []
            alone = replace(codes, codes=result[row : row + 1], origins=None)
            wanted = asked[row] if asked else Asked()
            own, again = self._mended(alone, row_seed(seed, row), partial(draw_row, row), wanted, said.append)
            if not said:
                continue
            result = torch.cat([result[:row], own, result[row + 1 :]])
            if again is not None:
                seeds[row] = again
            said = [f"{model}: clip {row + 1} {message}" for message in said]
            for message in said:
                logger.warning(message)
            messages += said
            if on_redraw is not None:
                on_redraw("\n".join(messages))
        return result, seeds

    def _mended(
        self,
        clip: Codes,
        seed: int,
        draw: Callable[[int, Codes | None], Tensor],
        asked: Asked,
        say: Callable[[str], None],
    ) -> tuple[Tensor, int | None]:
        """(codes [1, K, T], seed of what was drawn again whole) of one row, after all that was tried.

        Each check draws `tries` times the length of the piece at most: a long one has many places that may be at fault.
        """
        own, whole, rate_hz = clip.codes, None, clip.frame_rate_hz
        for index, check in enumerate(self.checks):
            fault, left, n_drawn = check.fault(own, rate_hz, asked), check.tries, 0
            while fault and left and n_drawn < check.tries * clip.n_frames:
                seed = next_seed(seed)
                n_drawn += clip.n_frames - fault.at
                kept = replace(clip, codes=own[..., : fault.at]) if fault.at else None
                drawn = draw(seed, kept)
                graver = any(each.fault(drawn, rate_hz, asked) for each in self.checks[:index])
                after = check.fault(drawn, rate_hz, asked)
                sounds_at_last = fault.whole and after is not None and not after.whole
                if graver or (after is not None and after.at <= fault.at and not sounds_at_last):
                    left -= 1
                    continue
                where = f" from {fault.at / rate_hz:.1f} s on" if kept else ""
                say(f"{fault.was_so} and was drawn again{where}, with seed {seed}.")
                whole = whole if kept else seed
                own, fault, left = drawn, after, check.tries
            if fault:
                say(f"{fault.is_so} with {_seeds(check.tries)} too. {fault.advice}")
                break
        return own, whole


def _seeds(tries: int) -> str:
    return f"{tries} other seeds" if tries > 1 else "another seed"
