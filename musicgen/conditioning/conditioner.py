"""Conditioner: text and melody encoders with their projections to the language model's width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..audio import Audio
from ..config import PARAMETERS, ModelConfig
from ..errors import InputError
from .chords import Chords
from .chroma import NO_ANCHOR, Anchor
from .key import rows_of
from .melody import Melody, check_chroma
from .mixture import Mixture, Single
from .stems import melodic_part
from .text import TextEncoder, filled_up
from .vocabulary import Vocabulary


@dataclass(frozen=True)
class Conditioning(Single):
    """Conditioning of B rows, in the width D of `model`. On the CPU; shared, never altered in place.

    Its null rows for classifier-free guidance have zeros for the text and `null_melody` for the melody.
    """

    text: tuple[Tensor, ...]  # a row each, [n, D] float32; the empty text is one zero vector
    melody: Melody | Chords | None  # the same for every row
    null_melody: Tensor | None  # [F, D], stands for no melody; None for models without melody conditioning
    model: str  # name of the checkpoint, for messages
    default: Tensor | None = None  # row [n, D] of the model's own text, in place of an empty one
    words: tuple[str, ...] | None = None  # each row's text as it was written; None = not known
    goes_on: tuple[Tensor | None, ...] = ()  # rows without what asks for an end; None: nothing does. () = in no row
    keys: tuple[Tensor, ...] = ()  # of each row [F, D], in place of no melody, where a text names a key (`key`)

    @property
    def n_rows(self) -> int:
        return len(self.text)

    @property
    def dim(self) -> int:
        return self.text[0].shape[-1]

    def null(self) -> "Conditioning":
        """The reference's null rows: texts of zeros, as long as the ones they stand for; no melody."""
        return replace(self.without_text(), melody=None)

    def with_default(self) -> "Conditioning":
        """The model's own text, if it has one, in every row of an empty one, unless a melody says what to play."""
        if self.default is None or self.melody is not None:
            return self
        return replace(self, text=tuple(row if row.any() else self.default for row in self.text))

    def without_text(self) -> "Conditioning":
        """The same with texts of zeros, as long as the ones they stand for."""
        return replace(self, text=tuple(torch.zeros_like(row) for row in self.text), goes_on=(), keys=())

    def with_rows(self, pick: Callable[[tuple], tuple]) -> "Conditioning":
        """The same of other rows: `pick` of all that each row has."""
        names = ("text", "words", "goes_on", "keys")
        return replace(self, **{name: rows and pick(rows) for name in names for rows in [getattr(self, name)]})

    def going_on(self) -> "Conditioning":
        """What music follows before the piece's last window: the same, and no text asks for an end."""
        rows = zip(self.text, self.goes_on or (None,) * self.n_rows, strict=True)
        return replace(self, text=tuple(text if other is None else other for text, other in rows), goes_on=())

    def prefix(self, row: int, start_s: float | None = None, anchor: Anchor = NO_ANCHOR) -> Tensor:
        """[melody | text] of one row, [F + n, D]: what a prefix model has in front of its codes.

        start_s: where the window starts in a piece of several; None if there is but one. anchor: as in `Melody.chroma`.
        """
        if self.null_melody is None:
            return self.text[row]
        null = self.keys[row] if self.keys else self.null_melody
        return torch.cat([null if self.melody is None else self.melody.embed(start_s, anchor), self.text[row]])


class Conditioner(nn.Module):
    """Texts -> Conditioning. Source: audiocraft `ConditioningProvider` with its `output_proj` layers."""

    def __init__(self, config: ModelConfig, text_encoder: TextEncoder, vocabulary: Vocabulary | None = None):
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.text_encoder = text_encoder
        self.source: Any = None  # the Checkpoint of the projections, which a fine-tune is blended into
        dim = config.lm.dim
        self.text_projection = nn.Linear(config.text.dim, dim)
        if config.melody:
            self.melody_projection = nn.Linear(config.melody.n_chroma, dim)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str | None]) -> Conditioning:
        """One row a text. None and "" are the same: no text (a space is a text, as in the reference)."""
        if not texts:
            raise InputError("no text was given; give one text (it may be empty) for each clip")
        for text in texts:
            if text is not None and not isinstance(text, str):
                raise InputError(f"'text' must be a string, got {type(text).__name__}")
        default = None if self.vocabulary is None or all(texts) else self._row(self.vocabulary.default_text)
        words, known = tuple(text or "" for text in texts), self.vocabulary
        told = [known.read(text, self.config.name) if known and text else text for text in words]
        before = [known.before_end(text) if known else text for text in told]
        pairs = zip(before, told, strict=True) if before != told else ()
        goes_on = tuple(None if own == text else self._row(own) for own, text in pairs)
        rows = tuple(map(self._row, told))
        null = self._null_melody()
        keys = rows_of(self, words, null)
        return Conditioning(rows, None, null, self.config.name, default, words, goes_on, keys)

    def warning(self, text: str) -> str | None:
        """A sentence on words that the model was not taught; None if there are none, or its words are not known."""
        return self.vocabulary and self.vocabulary.warning(self.vocabulary.translate(text), self.config.name)

    def encode_melody(
        self,
        conditioning: Conditioning | Mixture,
        audio: Audio,
        stems: str = "auto",
        stem_dirs: Sequence[Path] = (),
        on_step: Callable[[], None] | None = None,
    ) -> Conditioning | Mixture:
        """`conditioning`, of a mixture all, with the melody of one clip, of any rate, length and number of channels.

        stems: auto, demucs or off, see `stems.melodic_part`; its weights are looked for in `stem_dirs`.
        InputError: a model without melody conditioning, or a batch of several clips.
        """
        config = self.config
        chroma = check_chroma(config, conditioning.leaves(), "'audio' was given as a melody", "melody")
        if chroma.chords:
            raise InputError(f"{config.name} follows chords, not melodies. Use MusicGen Chords or load a melody model.")
        if len(audio.samples) != 1:
            raise InputError(f"'audio' holds {len(audio.samples)} clips; a melody is one clip. Give one of them.")
        rate_hz, device = config.codec.sample_rate_hz, self.melody_projection.weight.device
        longest = int((PARAMETERS["duration_s"].high + config.segment_s) * audio.rate_hz)
        audio = Audio(audio.samples[..., :longest], audio.rate_hz)  # no piece follows it further
        samples = melodic_part(audio, stems, rate_hz, stem_dirs, device, on_step)
        weight, bias = (p.detach().cpu() for p in (self.melody_projection.weight, self.melody_projection.bias))
        melody = Melody(samples.cpu(), rate_hz, config.segment_s, chroma, weight, bias)
        return conditioning.mapped(lambda leaf: replace(leaf, melody=melody))

    def _row(self, text: str | None) -> Tensor:
        # audiocraft encodes "" as one token, then multiplies the projection, bias and all, by zero.
        rows = torch.zeros(1, self.config.lm.dim)
        if text:
            # The encoder may be elsewhere: it is shared with the conditioners of fine-tunes, which are moved one by one.
            rows = self.text_projection(self.text_encoder(text).to(self.text_projection.weight.device)).cpu()
        return filled_up(rows, self.config.text)

    def _null_melody(self) -> Tensor | None:
        """Zeros for a chord model. Else the chroma of silence, projected: its one-hot argmax falls on the first bin in every frame."""
        melody = self.config.melody
        if melody is None or melody.chords:
            return None if melody is None else torch.zeros(melody.n_frames, self.config.lm.dim)
        silence = F.one_hot(torch.zeros(1, dtype=torch.long), melody.n_chroma).float()
        row = self.melody_projection(silence.to(self.melody_projection.weight.device)).cpu()
        return row.expand(melody.n_frames, -1)
