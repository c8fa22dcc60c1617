"""What else a model in training must know: the beat, the strokes, the key, the tone and the player of each frame, and what
the text asks for.

From codes alone a small model is slow to find the beat: a stroke is a few codes among the hundreds of every second. The
synthesizer knows it, so a layer inside the language model is asked for it, and the text encoder for the jangdan and the
tempo (deep supervision: C.-Y. Lee et al., "Deeply-supervised nets", arXiv:1409.5185). The heads that are asked are no
part of the model that is shipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.jangdan import JANGDAN, STROKES, Jangdan
from ..data.modes import MODES, OCTAVE, SCALES
from ..data.pieces import PLAYERS, Label

NOTHING = -100  # where there is nothing to know
_RHYTHMS, _SCALES = list(JANGDAN), [*MODES, *SCALES]
_FIRST_PULSES = dict(
    zip(_RHYTHMS, accumulate((jangdan.n_pulses for jangdan in JANGDAN.values()), initial=0), strict=False)
)
_N_PULSES = sum(jangdan.n_pulses for jangdan in JANGDAN.values())
_N_UNTIL = 36  # frames until the next pulse: the slowest pulse is 33 frames long
_TEMPO_STEP, _SLOWEST_BPM, _N_TEMPOS = 0.03, 28.0, 72
FRAME_TARGETS = {  # name: (how many classes, weight)
    "pulse": (_N_PULSES, 0.6),
    "until": (_N_UNTIL, 0.3),
    "key": (OCTAVE * len(_SCALES), 0.15),
    "stroke": (1 + len(STROKES), 0.5),  # 0: the buk is not struck
    "tone": (OCTAVE, 0.25),  # of the melody, as its chroma has it
    "player": (len(PLAYERS), 0.2),
}
_PULSE, _UNTIL, _KEY, _STROKE, _TONE, _PLAYER = range(len(FRAME_TARGETS))
_STRUCK_FRAMES = 2  # that a stroke counts for: the one in which it begins and the next
_NEAR_PULSES, _NEAR_STROKES = 4, 6  # weight of codes there: a tenth of all, but what makes the rhythm
TEXT_TARGETS = {"jangdan": (len(_RHYTHMS), 0.1), "tempo": (_N_TEMPOS, 0.1)}


@dataclass(frozen=True)
class Known:
    """Classes of B clips, NOTHING where there is none."""

    frames: Tensor  # [B, len(FRAME_TARGETS), T]
    texts: Tensor  # [B, len(TEXT_TARGETS)]


def frame_targets(
    label: Label, first_pulse: float, n_frames: int, frame_hz: float, tones: np.ndarray | None = None
) -> np.ndarray:
    """[len(FRAME_TARGETS), T]: the pulse of its jangdan that sounds in each frame, the frames until the next, the key,
    the stroke that the jangdan has there, the tone, the player.

    tones [F]: pitch classes of the melody over the same time, if it is known.
    """
    result = np.full((len(FRAME_TARGETS), n_frames), NOTHING)
    result[_STROKE] = 0
    result[_PLAYER] = PLAYERS.index(label.instrument)
    if label.jangdan:
        jangdan = JANGDAN[label.jangdan]
        frames_per_pulse = jangdan.pulse_s(label.bpm) * frame_hz
        pulse = first_pulse + (np.arange(n_frames) + 0.5) / frames_per_pulse
        result[_PULSE] = _FIRST_PULSES[label.jangdan] + pulse.astype(int) % jangdan.n_pulses
        result[_UNTIL] = (1 - pulse % 1) * frames_per_pulse
        if label.buk:
            begins = pulse % 1 * frames_per_pulse < _STRUCK_FRAMES
            result[_STROKE] = begins * _strokes(jangdan)[pulse.astype(int) % jangdan.n_pulses]
    if label.mode and label.tonic is not None:
        result[_KEY] = _SCALES.index(label.mode) * OCTAVE + label.tonic
        if tones is not None:
            result[_TONE] = tones[((np.arange(n_frames) + 0.5) * (len(tones) - 1) / n_frames).round().astype(int)]
    return result


def _strokes(jangdan: Jangdan) -> np.ndarray:
    """[pulses of the cycle]: 0 or 1 + the stroke's place in STROKES."""
    result = np.zeros(jangdan.n_pulses, int)
    for stroke in jangdan.strokes:
        result[stroke.pulse] = 1 + STROKES.index(stroke.name)
    return result


def code_weights(known: Known, of_strokes: Tensor | None = None) -> Tensor:
    """[B, T] of the codes of frames: more around the beginning of a pulse, where strokes and tones begin or do not.

    of_strokes [B]: rows in which nothing counts but frames around strokes.
    """
    pulses = known.frames[:, _PULSE]
    begins = F.pad(pulses[:, 1:] != pulses[:, :-1], (1, 0), value=True) & (pulses != NOTHING)
    struck = begins & (known.frames[:, _STROKE] > 0)
    near, near_strokes = (F.max_pool1d(where[:, None].float(), 3, 1, 1)[:, 0] > 0 for where in (begins, struck))
    weights = 1.0 + (_NEAR_PULSES - 1) * near + (_NEAR_STROKES - _NEAR_PULSES) * near_strokes
    return weights if of_strokes is None else weights * (near_strokes | ~of_strokes[:, None])


def text_targets(label: Label, text: str) -> tuple[int, int]:
    """The jangdan, and the tempo in steps of 3 % if the text names it."""
    jangdan = _RHYTHMS.index(label.jangdan) if label.jangdan else NOTHING
    tempo = round(float(np.log(label.bpm / _SLOWEST_BPM)) / _TEMPO_STEP) if "bpm" in text else NOTHING
    return jangdan, tempo


class Auxiliary(nn.Module):
    """The heads: hidden states of frames and of texts -> scores of the classes of FRAME_TARGETS and TEXT_TARGETS."""

    def __init__(self, dim: int, text_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.frames = nn.Linear(dim, sum(n for n, _ in FRAME_TARGETS.values()))
        self.last = nn.Linear(dim, self.frames.out_features)
        self.texts = nn.Linear(text_dim, sum(n for n, _ in TEXT_TARGETS.values()))

    def forward(
        self, hidden: Tensor, last: Tensor | None, texts: Tensor, known: Known | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted sum of the cross-entropies; the share of frames whose pulse is found; of texts, whose jangdan is.

        hidden [B, S, D] of the columns of the codes inside the model, of which S - T come after the last frame; last: the
        same as the codes' own heads see it; texts [B, n, t].
        """
        if known is None:
            loss, pulses, jangdan = hidden.new_zeros(3)
            return loss, pulses, jangdan
        frames = known.frames.to(hidden.device).transpose(1, 2)
        of_frames, pulses = _losses(self.frames(self.norm(hidden[:, : frames.shape[1]])), frames, FRAME_TARGETS)
        of_texts, jangdan = _losses(self.texts(texts.mean(dim=1)), known.texts.to(texts.device), TEXT_TARGETS)
        if last is not None:  # what is known there at once is easily used for the codes
            of_frames = of_frames + 0.5 * _losses(self.last(last[:, : frames.shape[1]]), frames, FRAME_TARGETS)[0]
        return of_frames + of_texts, pulses, jangdan


def _losses(scores: Tensor, known: Tensor, targets: dict[str, tuple[int, float]]) -> tuple[Tensor, Tensor]:
    """scores [..., classes of all targets], known [..., targets] -> loss, and how often the first target is right."""
    total, right = scores.new_zeros(()), scores.new_zeros(())
    parts = scores.split([n for n, _ in targets.values()], dim=-1)
    for i, (part, (_, weight)) in enumerate(zip(parts, targets.values(), strict=True)):
        is_known = known[..., i] != NOTHING
        if is_known.any():
            wanted = known[..., i][is_known]
            total = total + weight * F.cross_entropy(part[is_known].float(), wanted)
            if i == 0:
                right = (part[is_known].argmax(dim=-1) == wanted).float().mean()
    return total, right


def stacked(rows: Sequence) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(row) for row in rows]).astype(np.int64))
