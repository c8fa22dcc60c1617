"""Mixtures of texts: two blended, or several at their times. A mixture stands wherever a single `Conditioning` does.

The language model is asked about each text apart, in a row of its own, and the answers (logits) are averaged: `lm/mixing.py`.
The embeddings themselves are never averaged, for tokens of two texts do not correspond.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from typing import Protocol as _Mixin  # whose methods may say what their `self` is

    from ..config import ModelConfig
    from .conditioner import Conditioning
else:
    _Mixin = object


@dataclass(frozen=True)
class Share:
    """A part of what conditions one moment. The shares of a moment sum to 1.

    strength: how much of the text is followed. What is missing to 1 falls on the same conditioning without text; above 1
    the text is followed away from that.
    """

    conditioning: "Conditioning"
    share: float = 1.0
    strength: float = 1.0

    def weights(self) -> list[tuple[float, "Conditioning"]]:
        """Weights of this conditioning, with its text and without."""
        if self.strength == 1:
            return [(self.share, self.conditioning)]
        return [
            (self.share * self.strength, self.conditioning),
            (self.share * (1 - self.strength), self.conditioning.without_text()),
        ]


class Single(_Mixin):
    """A conditioning that is not made of others, in the manner of a `Mixture`."""

    def leaves(self: "Conditioning") -> "tuple[Conditioning, ...]":
        return (self,)

    def mapped(self: "Conditioning", change: "Callable[[Conditioning], Conditioning]") -> "Conditioning":
        return change(self)

    def at(self: "Conditioning", time_s: float, duration_s: float) -> tuple[Share, ...]:
        return (Share(self),)

    def changes(self, duration_s: float) -> tuple[float, ...]:
        return ()


class Mixture:
    """Base of conditionings that are made of others."""

    def leaves(self) -> "tuple[Conditioning, ...]":
        """The single conditionings, in their order."""
        raise NotImplementedError

    def mapped(self, change: "Callable[[Conditioning], Conditioning]") -> "Mixture":
        """The same mixture of changed leaves."""
        raise NotImplementedError

    def at(self, time_s: float, duration_s: float) -> tuple[Share, ...]:
        """What conditions the moment `time_s` of a piece of `duration_s`."""
        raise NotImplementedError

    def changes(self, duration_s: float) -> tuple[float, ...]:
        """Moments, in seconds, from which another conditioning is followed than before."""
        raise NotImplementedError

    @property
    def n_rows(self) -> int:
        return max(leaf.n_rows for leaf in self.leaves())

    def with_default(self) -> "Mixture":
        """As `Conditioning.with_default`, in every leaf."""
        return self.mapped(lambda leaf: leaf.with_default())


@dataclass(frozen=True)
class Blend(Mixture):
    """Two conditionings at once: `ratio` of the second, the rest of the first."""

    first: "Conditioning | Mixture"
    second: "Conditioning | Mixture"
    ratio: float

    def leaves(self) -> "tuple[Conditioning, ...]":
        return (*self.first.leaves(), *self.second.leaves())

    def mapped(self, change: "Callable[[Conditioning], Conditioning]") -> "Blend":
        return Blend(self.first.mapped(change), self.second.mapped(change), self.ratio)

    def at(self, time_s: float, duration_s: float) -> tuple[Share, ...]:
        sides = ((self.first, 1 - self.ratio), (self.second, self.ratio))
        return tuple(
            Share(each.conditioning, side_share * each.share, each.strength)
            for side, side_share in sides
            for each in side.at(time_s, duration_s)
        )

    def changes(self, duration_s: float) -> tuple[float, ...]:
        return tuple(sorted({*self.first.changes(duration_s), *self.second.changes(duration_s)}))


def blend(first: "Conditioning | Mixture", second: "Conditioning | Mixture", ratio: float) -> "Conditioning | Mixture":
    """`ratio` of the second conditioning and the rest of the first. 0 and 1 give back the one that is left, itself.

    InputError: a ratio out of 0 to 1, conditionings of two models, or batches of different sizes.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio <= 1:
        raise InputError(f"'ratio' must be a number from 0 (the first alone) to 1 (the second alone), got {ratio!r}")
    check_together([*leaves_of(first, "first"), *leaves_of(second, "second")])
    if ratio in (0, 1):
        return second if ratio else first
    return Blend(first, second, float(ratio))


def check_together(leaves: "Sequence[Conditioning]") -> None:
    """InputError, naming both sides, unless the conditionings are of one model and of one number of rows (or 1)."""
    sizes = {leaf.n_rows for leaf in leaves} - {1}
    if len(sizes) > 1:
        few, many = sorted(sizes)[:2]
        raise InputError(
            f"Conditionings of {few} and of {many} rows cannot be mixed. Give as many texts on each side, or one."
        )
    head = leaves[0]
    for leaf in leaves:
        if leaf.dim != head.dim or (leaf.null_melody is None) != (head.null_melody is None):
            raise InputError(
                f"A conditioning of {head.model} (width {head.dim}) and one of {leaf.model} (width {leaf.dim}) cannot be "
                "mixed. Connect the conditioner of one Load MusicGen node to both."
            )


def check_model(leaf: "Conditioning", config: "ModelConfig", name: str) -> None:
    """InputError, naming both models, unless the conditioning is of one of this width and kind. name: of the input."""
    if leaf.dim != config.lm.dim:
        raise InputError(
            f"'{name}' was made by the conditioner of {leaf.model} (width {leaf.dim}), but the model "
            f"is {config.name} (width {config.lm.dim}). Connect the conditioner of the same Load MusicGen node."
        )
    if (leaf.null_melody is None) != (config.melody is None):
        kind = {True: "without", False: "with"}
        raise InputError(
            f"'{name}' was made by {leaf.model}, {kind[leaf.null_melody is None]} melody conditioning, "
            f"but the model {config.name} is {kind[config.melody is None]}. "
            "Connect the conditioner of the same Load MusicGen node."
        )


def leaves_of(conditioning: "Conditioning | Mixture", name: str) -> "tuple[Conditioning, ...]":
    """InputError for what is no conditioning of this engine."""
    leaves = getattr(conditioning, "leaves", None)
    if leaves is None:
        raise InputError(
            f"'{name}' comes from another engine. Blends, timelines and chords are of the native engine: set 'engine' to native in "
            "Load MusicGen."
        )
    return leaves()
