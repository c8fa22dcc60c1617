"""Music by the fine-tune while it is trained, and by its base: written by the fast engine, from weights merged for the purpose."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..checkpoints import Checkpoint, Weight
from ..checkpoints.weights.lazy import Computed
from ..codec import Codec
from ..codes import Codes
from ..conditioning import Conditioner
from ..config import GenerationParams
from ..loading import build
from ..pipeline import LanguageModel
from ..seeds import row_seed
from .encoding import Encoded, told
from .low_rank import LowRank
from .model import Trainable

OnStep = Callable[[int, int], None]
ROWS = 8  # of a batch of samples


@dataclass(frozen=True)
class Base:
    """What a training starts from: the objects that a checkpoint was loaded as. None of them is altered."""

    model: LanguageModel
    conditioner: Conditioner
    codec: Codec

    @property
    def source(self) -> Checkpoint:
        return self.model.source


def merged(source: Checkpoint, model: Trainable, strength: float = 1.0) -> Checkpoint:
    """The base with what was trained, as a checkpoint whose weights are computed when they are read."""
    lm, conditioner = dict(source.lm), dict(source.conditioner)
    for name, adapter in model.adapters.items():
        part, _, inner = name.partition(".")
        table = {"lm": lm, "conditioner": conditioner}[part]
        table[inner] = _with_delta(table[inner], adapter, strength)
    if not model.adapters:
        for name, parameter in model.lm.named_parameters():
            lm[name] = _between(lm[name], parameter.detach(), strength)
    return replace(source, lm=lm, conditioner=conditioner)


def _with_delta(weight: Weight, adapter: LowRank, strength: float) -> Weight:
    def add(base: Tensor) -> Tensor:
        return base.add_(adapter.delta().cpu(), alpha=strength)

    return Computed(weight.shape, weight.names, (weight,), add)


def _between(weight: Weight, tuned: Tensor, strength: float) -> Weight:
    def blend(base: Tensor) -> Tensor:
        return base.lerp(tuned.cpu().float(), strength)

    return Computed(weight.shape, weight.names, (weight,), blend)


class Writer:
    """Writes clips with one set of weights. Give it up to free them."""

    def __init__(self, base: Base, source: Checkpoint | None, device: torch.device, check: Callable[[], None]) -> None:
        """source: merged weights; None = the base itself."""
        self._check = check
        model, conditioner = base.model, base.conditioner
        if source is not None:
            encoder = base.conditioner.text_encoder
            model, conditioner = build(source, model.precision, model.loaded_for, encoder, None, check=check)
            model.faults = base.model.faults
            conditioner.text_projection.to(conditioner.text_encoder.device)
        self._model, self._conditioner = model.to(device), copy.copy(conditioner)
        # Words that the model was not taught are what it is taught now: no warning of them.
        self._conditioner.vocabulary = None
        self._told = partial(told, conditioner=base.conditioner)

    def write(self, texts: Sequence[str], duration_s: float, seed: int, on_step: OnStep | None = None) -> Codes:
        """One clip a text, [n, K, T], each from a seed of its own that follows from `seed` and its number."""
        made: list[Codes] = []
        for first in range(0, len(texts), ROWS):
            some = list(texts[first : first + ROWS])
            params = GenerationParams(duration_s=duration_s, seed=row_seed(seed, first))

            def report(done: int, total: int, first: int = first, n: int = len(some)) -> None:
                self._check()
                if on_step is not None:
                    on_step(int(1000 * (first + n * done / max(1, total))), 1000 * len(texts))

            made.append(
                self._model.generate(
                    self._conditioner.encode_text([self._told(text) for text in some]), params, on_step=report
                )
            )
        return replace(made[0], codes=torch.cat([one.codes for one in made]), origins=None)


def as_tracks(codes: Codes, texts: Sequence[str], states: dict[str, Tensor], name: str) -> list[Encoded]:
    """Written clips as music to learn or to measure."""
    return [
        Encoded(f"{name} {row + 1}", clip.short().clone(), states[text], text)
        for row, (clip, text) in enumerate(zip(codes.codes, texts, strict=True))
    ]


def other_texts(conditioner: Conditioner, n: int) -> list[str]:
    """Texts of music that has nothing to do with what is trained: of a model's own words, where it has a card of them."""
    vocabulary = conditioner.vocabulary
    if vocabulary is None:
        return [_OTHER[i % len(_OTHER)] for i in range(n)]
    kinds = sorted(set(vocabulary.near.values())) or [vocabulary.default_text]
    manners = sorted({words for words in vocabulary.synonyms.values() if words not in kinds})
    texts = [vocabulary.default_text]
    for i in range(n - 1):
        texts.append(
            ", ".join(
                [kinds[i % len(kinds)], *manners[(7 * i) % len(manners) :][:1]] if manners else [kinds[i % len(kinds)]]
            )
        )
    return texts[:n]


_OTHER = (
    "slow jazz piano trio with brushes", "fast heavy metal with distorted guitars", "a string quartet, sad and slow",
    "bright synth pop, 120 bpm", "acoustic folk guitar, fingerpicked", "reggae with organ and bass", "orchestral film music, epic",
    "lo-fi hip hop with a mellow electric piano", "house with a four on the floor beat", "solo cello", "salsa with brass and congas",
    "ambient pad, no drums", "blues with harmonica", "marching band", "bossa nova with nylon guitar", "choir in a cathedral",
)  # fmt: skip
