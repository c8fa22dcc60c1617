"""The language model over clips that have a score: rows of melody or chords in front, and what the score knows asked inside."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...musicgen.conditioning.text import filled_up
from ...musicgen.config import ModelConfig
from ...musicgen.lm.delay import delay
from .model import MusicGen

UNKNOWN = 255  # class of what the score does not say
FRAME_TARGETS = {  # name: (how many classes, weight)
    "phase": (16, 0.4),  # where in a beat the frame lies
    "beat": (12, 0.3),  # which beat of the bar
    "tone": (13, 0.15),  # pitch class of the melody; 12: it rests
    "chord": (25, 0.15),  # root, minor after major; 24: none
    "drum": (6, 0.3),  # what is struck in the frame: nothing, kick, snare, hat, cymbal, other
    "over": (2, 0.1),  # whether the piece has ended; unknown: the codes of the frame are seen, but not to be written
}
_OVER, _TONE = (list(FRAME_TARGETS).index(name) for name in ("over", "tone"))
REST = FRAME_TARGETS["tone"][0] - 1
OVER_AFTER_S = 0.5  # after the last bar line
UNTAUGHT_FRAMES = 50  # of `later`
# What a text says, and what every frame is asked of it: who plays is worth some nats in a piece's first frames, and nothing once
# it is heard. Asked of frames that have seen no code, it has to come by way of the text.
TEXT_TARGETS = {
    "tempo": (200, 0.1),
    "genre": (64, 0.1),
    "lead": (64, 0.1),
    "arrangement": (5, 0.1),  # of `songs.ARRANGEMENTS`: whether there are drums, and who else plays
    "ends": (2, 0.1),  # whether the piece ends within the clip
}
# The loss of the first frames weighs more, by a factor that falls within these; so does that of the last chord.
_FIRST_WEIGHT, _FIRST_FRAMES = 3.0, 6.0
# So does that around a tone of the melody that begins, a little before it too: else a model would learn to write tones early.
# Between onsets nearly every code follows from the one before.
_ONSET_WEIGHT, _BEFORE_ONSET, _AFTER_ONSET = 1.0, 4, 5


@dataclass(frozen=True)
class ScoredBatch:
    """B clips whose texts have n tokens each, all on the model's device."""

    codes: Tensor  # [B, K, T] long
    rows: Tensor  # [B, F, 12] float: one-hot of a melody, multi-hot of chords; of neither bin 0, and nothing in a chord model
    ids: Tensor  # [B, n] long
    with_text: Tensor  # [B] float: 0 = zeros in place of the text
    frames: Tensor  # [B, len(FRAME_TARGETS), T] long, UNKNOWN where nothing is known
    texts: Tensor  # [B, len(TEXT_TARGETS)] long
    hidden: Tensor | None = None  # [B, T] bool: frames whose codes are not shown
    with_rows: Tensor | None = None  # [B] float, of a chord model: 0 = zeros in place of the rows, projected or not
    shown: Tensor | None = None  # [B, T] long: the frame whose codes are shown in the place of each; None: its own


def later(batch: ScoredBatch, n_frames: int, n_rows: int) -> ScoredBatch:
    """The clips from frame `n_frames` and row `n_rows` on, as a window of a longer piece has them.

    Texts do not say where in a bar it begins: its first codes are seen and not to be written.
    """
    frames = batch.frames[..., n_frames:].clone()
    frames[:, _OVER, :UNTAUGHT_FRAMES] = UNKNOWN
    rows = F.pad(batch.rows[:, n_rows:], (0, 0, 0, n_rows))
    if batch.with_rows is None:
        rows[:, -n_rows:, 0] = 1
    hidden = None if batch.hidden is None else batch.hidden[:, n_frames:]
    shown = None if batch.shown is None else (batch.shown[:, n_frames:] - n_frames).clamp(min=0)
    return replace(batch, codes=batch.codes[..., n_frames:], frames=frames, rows=rows, hidden=hidden, shown=shown)


class Heads(nn.Module):
    """Hidden states of frames and texts -> cross-entropies of FRAME_TARGETS and TEXT_TARGETS. Not shipped."""

    def __init__(self, dim: int, text_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.frames = nn.Linear(dim, sum(n for n, _ in FRAME_TARGETS.values()))
        self.texts = nn.Linear(text_dim, sum(n for n, _ in TEXT_TARGETS.values()))
        self.told = nn.Linear(dim, sum(n for n, _ in TEXT_TARGETS.values()))

    def forward(self, hidden: Tensor, texts: Tensor, batch: ScoredBatch) -> tuple[Tensor, Tensor, Tensor]:
        """hidden [B, T, D], texts [B, n, t] -> weighted loss; shares of the frames whose phase and beat are found."""
        hidden = self.norm(hidden)
        of_frames = self.frames(hidden)
        loss, right = _losses(of_frames, batch.frames.transpose(1, 2), FRAME_TARGETS)
        heard = batch.with_text[:, None] > 0
        known = torch.where(heard, batch.texts, torch.full_like(batch.texts, UNKNOWN))
        of_texts, _ = _losses(self.texts(texts.mean(dim=1)), known, TEXT_TARGETS)
        told, _ = _losses(self.told(hidden), known[:, None].expand(-1, hidden.shape[1], -1), TEXT_TARGETS)
        return loss + of_texts + told, right[0], right[1]


class ScoredMusicGen(MusicGen):
    """MusicGen that is trained on ScoredBatches."""

    def __init__(self, config: ModelConfig, text_table: dict) -> None:
        super().__init__(config, text_table)
        self.auxiliary = Heads(config.lm.dim, config.text.dim)

    def forward(
        self, batch: ScoredBatch, guessed_rows: int = 0, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Losses; the codes that the first `guessed_rows` rows see are in part what the model would have written.

        generator: of the guesses.
        """
        config = self.config.lm
        texts = self.text.t5(input_ids=batch.ids).last_hidden_state
        prefix = self.rows_prefix(batch, texts)
        shown = batch.codes
        if batch.shown is not None:
            shown = shown.gather(2, batch.shown[:, None].expand_as(shown))
        if batch.hidden is not None:
            shown = shown.masked_fill(batch.hidden[:, None], config.cardinality)
        inputs = delay(shown, config.delays, config.cardinality)[..., :-1]
        if guessed_rows:
            share = torch.zeros(len(inputs), device=inputs.device)
            share[:guessed_rows] = torch.rand(guessed_rows, device=inputs.device, generator=generator)
            inputs = self.with_guesses(prefix.detach(), inputs, share, generator)
        logits, hidden, _ = self._run(prefix, inputs)
        targets = delay(batch.codes, config.delays, config.cardinality)[..., 1:]
        losses = F.cross_entropy(
            logits.flatten(0, 2).float(), targets.flatten(), ignore_index=config.cardinality, reduction="none"
        ).view_as(targets)
        taught = (batch.frames[:, _OVER] != UNKNOWN).long()[:, None].expand_as(batch.codes)
        known = (targets != config.cardinality) & (delay(taught, config.delays, 0)[..., 1:] > 0)
        decisive = _FIRST_WEIGHT * self._decisive(batch, targets.shape[2])
        decisive = decisive + _ONSET_WEIGHT * _near_onsets(batch.frames[:, _TONE], targets.shape[2])
        weights = known * (1 + decisive[:, None])
        by_codebook = (losses * weights).sum(dim=(0, 2)) / weights.sum(dim=(0, 2)).clamp(min=1e-6)
        auxiliary, phase, beat = self.auxiliary(hidden[:, : batch.codes.shape[2]], texts, batch)
        return {"codebooks": by_codebook, "auxiliary": auxiliary, "phase": phase, "beat": beat}

    def _decisive(self, batch: ScoredBatch, n_columns: int) -> Tensor:
        """[B, S] how near a column is after the first frame or, of a piece that ends in the clip, after its last bar line: 1 to 0."""
        at = torch.arange(n_columns, device=batch.codes.device)[None]
        over = batch.frames[:, _OVER] == 1
        last = over.int().argmax(dim=1) - round(OVER_AFTER_S * self.config.codec.frame_rate_hz)
        ended = over.any(dim=1) & (last > 0)
        since = torch.where(ended[:, None] & (at >= last[:, None]), at - last[:, None], at)
        return torch.exp(-since / _FIRST_FRAMES)

    def lesson(self, batch: ScoredBatch, columns: Tensor) -> dict[str, Tensor]:
        """The auxiliary loss of the frames `columns` [n], in rising order, of clips whose codes are all hidden.

        Frames that see no codes need no others before them, so only the layers and frames that are asked are run.
        """
        config = self.config.lm
        texts = self.text.t5(input_ids=batch.ids).last_hidden_state
        hidden = torch.full_like(batch.codes[..., : len(columns)], config.cardinality)
        _, asked = self._through_layers(self.rows_prefix(batch, texts), hidden, self._asked_layer, columns)
        loss, phase, beat = self.auxiliary(asked, texts, replace(batch, frames=batch.frames[..., columns]))
        return {"auxiliary": loss, "phase": phase, "beat": beat}

    def rows_prefix(self, batch: ScoredBatch, texts: Tensor) -> Tensor:
        """[rows | text], [B, F + n, D]. Source: the engine's `Conditioning.prefix`."""
        projected = filled_up(self.text_projection(texts) * batch.with_text[:, None, None], self.config.text)
        rows = self.melody_projection(batch.rows)
        if batch.with_rows is not None:
            rows = rows * batch.with_rows[:, None, None]
        return torch.cat([rows, projected], dim=1)


def _near_onsets(tones: Tensor, n_columns: int) -> Tensor:
    """[B, T] pitch classes of the melody -> [B, n_columns] float: 1 around those frames where a tone begins, else 0."""
    begins = nn.functional.pad((tones[:, 1:] != tones[:, :-1]) & (tones[:, 1:] < REST), (1, 0))
    padded = nn.functional.pad(begins.float(), (_AFTER_ONSET, n_columns - tones.shape[1] + _BEFORE_ONSET))
    return nn.functional.max_pool1d(padded[:, None], _BEFORE_ONSET + _AFTER_ONSET + 1, stride=1)[:, 0]


def _losses(scores: Tensor, known: Tensor, targets: dict[str, tuple[int, float]]) -> tuple[Tensor, list[Tensor]]:
    """scores [..., classes of all targets], known [..., targets] -> loss, and how often each is right."""
    total, right = scores.new_zeros((), dtype=torch.float32), []
    parts = scores.float().split([n for n, _ in targets.values()], dim=-1)
    for i, (part, (_, weight)) in enumerate(zip(parts, targets.values(), strict=True)):
        wanted = known[..., i]
        is_known = wanted != UNKNOWN
        count = is_known.sum().clamp(min=1)
        losses = F.cross_entropy(part.flatten(0, -2), wanted.flatten(), ignore_index=UNKNOWN, reduction="sum")
        total = total + weight * losses / count
        right.append(((part.argmax(dim=-1) == wanted) & is_known).sum() / count)
    return total, right
