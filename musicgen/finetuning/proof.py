"""The proof that a fine-tune changes what is heard: likelihoods, sounds, and what was forgotten. A sentence of verdict.

Losses are of the same windows under both models, without dropout. Sounds are compared with clips of the data after an encode
and decode, so that the codec's colour cancels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..audio import Audio
from ..codec import Codec
from ..codes import Codes
from .batches import Window, windows_of
from .encoding import Encoded
from .model import AtStrength, Trainable
from .sound import distances, features, told_apart
from .trainer import clip_losses

STRENGTHS = (0.0, 0.5, 1.0)
_HEARD, _FAINT = 0.9, 0.7  # shares of clips told apart by their sound
_MEMORISED_GAP = (
    0.5  # nats that learned music fell further than held-out music, if that is also more than held-out music fell
)
_COPIED = 0.2  # share of seconds that are nearly the data's, more than the data's clips share among themselves
_LITTLE = 0.02  # nats of held-out loss that are hardly heard
_FORGOTTEN = 0.1  # rise of the loss on other music
_SAME_CODES = 0.8  # of a second, in the first codebook, that make it a copy
_RESAMPLES = 1000

Clips = dict[float, Codes]  # by strength


@dataclass(frozen=True)
class Losses:
    """Of one kind of music in nats a code, under the base and under the fine-tune."""

    base: float
    tuned: float
    low: float  # 95 % of the bootstrap of tuned - base over windows
    high: float
    by_codebook: tuple[tuple[float, float], ...]  # (base, tuned)

    @property
    def change(self) -> float:
        """Share of the base's loss: negative = fell."""
        return self.tuned / self.base - 1


@dataclass(frozen=True)
class Proof:
    """What was measured. Distances are standard deviations between means; see `sound.distances`."""

    held_out: Losses
    held_out_without_text: Losses
    foreign: Losses | None
    learned: Losses
    sampled: int  # clips by each; 0 = none were written, and what follows is empty
    ratio_of_base_clips: float  # base's loss minus fine-tune's on the base's clips, nats a code
    ratio_of_tuned_clips: float
    told_by_likelihood: float  # share of clips whose sign of that says who wrote them
    told_by_sound: float
    distances: dict[str, dict[str, float]]  # strength -> kind of feature -> distance to the data
    losses_by_strength: dict[str, float]  # held-out loss
    ratios_by_strength: dict[str, float]
    copied: float  # share of seconds of the fine-tune's clips that are nearly one of the data's
    copied_among_data: float
    verdict: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON; numbers to four digits after the point."""
        return _rounded(asdict(self))


def prove(
    model: Trainable, held_out: Sequence[Window], foreign: Sequence[Window], learned: Sequence[Encoded], clips: Clips,
    texts: Sequence[str], states: dict[str, Tensor], codec: Codec, n_frames: int, n_chroma: int, check: Callable[[], None],
) -> Proof:  # fmt: skip
    """Measure a trained model. clips: written with `texts` at each of STRENGTHS; none = likelihoods alone."""
    plain = [replace(window, drop_text=True) for window in held_out]
    seen = windows_of(learned, n_frames, n_chroma, len(held_out))
    measured = {
        "held_out": _losses(model, held_out, check),
        "held_out_without_text": _losses(model, plain, check),
        "foreign": _losses(model, foreign, check) if foreign else None,
        "learned": _losses(model, seen, check),
    }
    by_strength = {"0": measured["held_out"].base, "1": measured["held_out"].tuned}
    with AtStrength(model, 0.5):
        by_strength["0.5"] = float(clip_losses(model, held_out, check).mean())
    sounds: dict[str, Any] = {
        "sampled": 0, "ratio_of_base_clips": 0.0, "ratio_of_tuned_clips": 0.0, "told_by_likelihood": 0.0, "told_by_sound": 0.0,
        "distances": {}, "ratios_by_strength": {}, "copied": 0.0, "copied_among_data": 0.0,
    }  # fmt: skip
    if clips:
        sounds = _of_clips(model, learned, clips, texts, states, codec, check)
    proof = Proof(**measured, losses_by_strength=dict(sorted(by_strength.items())), **sounds)
    return replace(proof, verdict=verdict(proof))


def verdict(proof: Proof) -> str:
    """A sentence for who trained it: is it heard, was it memorised, what to do."""
    fall = -proof.held_out.change
    learned_alone = (proof.held_out.tuned - proof.learned.tuned) - (proof.held_out.base - proof.learned.base)
    is_memorised = learned_alone > max(_MEMORISED_GAP, proof.held_out.base - proof.held_out.tuned)
    if is_memorised or proof.copied > proof.copied_among_data + _COPIED:
        said = "Memorised: take fewer updates, or more music."
    elif proof.held_out.base - proof.held_out.tuned < _LITTLE:
        said = "Hardly heard: train longer, or with a higher learning rate or rank."
    elif not proof.sampled:
        said = f"The loss on music that was not learned fell by {100 * fall:.0f} %; no clips were written to compare."
    elif proof.told_by_sound >= _HEARD:
        said = "Clearly heard."
    elif proof.told_by_sound >= _FAINT:
        said = "Heard, but not in every clip: train longer for more."
    else:
        said = "Hardly heard in the sound, though the loss fell: train longer, or with a higher learning rate or rank."
    if proof.foreign is not None and proof.foreign.change > _FORGOTTEN:
        said += f" Other music was forgotten by {100 * proof.foreign.change:.0f} %: use it at a lower strength."
    return said


def _losses(model: Trainable, windows: Sequence[Window], check: Callable[[], None]) -> Losses:
    with AtStrength(model, 0.0):
        base = clip_losses(model, windows, check)
    tuned = clip_losses(model, windows, check)
    change = (tuned - base).mean(dim=1)
    generator = torch.Generator().manual_seed(0)
    drawn = change[torch.randint(len(change), (_RESAMPLES, len(change)), generator=generator)].mean(dim=1)
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975])).tolist()
    pairs = tuple(zip(base.mean(dim=0).tolist(), tuned.mean(dim=0).tolist(), strict=True))
    return Losses(float(base.mean()), float(tuned.mean()), low, high, pairs)


def _of_clips(
    model: Trainable, learned: Sequence[Encoded], clips: Clips, texts: Sequence[str], states: dict[str, Tensor],
    codec: Codec, check: Callable[[], None],
) -> dict[str, Any]:  # fmt: skip
    n, n_frames = len(texts), clips[1.0].n_frames
    ratios: dict[float, Tensor] = {}
    heard: dict[str, list[dict[str, Tensor]]] = {}
    for strength, codes in clips.items():
        windows = [Window(clip.short(), states[text], None) for clip, text in zip(codes.codes, texts, strict=True)]
        with AtStrength(model, 0.0):
            under_base = clip_losses(model, windows, check)
        ratios[strength] = (under_base - clip_losses(model, windows, check)).mean(dim=1)
        heard[f"{strength:g}"] = _features(codes.codes, codec, check)
    data = windows_of(learned, n_frames, 0, max(n, 16))
    whole = [window.codes.long() for window in data if window.codes.shape[-1] == n_frames]
    whole = whole or [window.codes.long() for window in data]
    of_data = [features for codes in whole for features in _features(codes[None], codec, check)]
    first, last = ratios[0.0], ratios[1.0]
    return {
        "sampled": n,
        "ratio_of_base_clips": float(first.mean()),
        "ratio_of_tuned_clips": float(last.mean()),
        "told_by_likelihood": float(((first < 0).sum() + (last > 0).sum()) / (2 * n)),
        "told_by_sound": told_apart(heard["0"], heard["1"]),
        "distances": distances(heard, of_data),
        "ratios_by_strength": {f"{strength:g}": float(ratio.mean()) for strength, ratio in sorted(ratios.items())},
        "copied": _copied([clip[0] for clip in clips[1.0].codes], [codes[0] for codes in whole], codec, False),
        "copied_among_data": _copied([codes[0] for codes in whole], [codes[0] for codes in whole], codec, True),
    }


def _features(codes: Tensor, codec: Codec, check: Callable[[], None]) -> list[dict[str, Tensor]]:
    """Of clips [n, K, T], decoded one by one."""
    found = []
    for clip in codes:
        check()
        sound = codec.decode(Codes(clip[None].long(), codec.config.frame_rate_hz, codec.config.identity))
        found.append(features(Audio(sound.samples.clone(), sound.rate_hz)))
    return found


def _copied(clips: Sequence[Tensor], data: Sequence[Tensor], codec: Codec, same: bool) -> float:
    """Share of seconds of clips [T] with 80 % of the codes of some second of the data [T], the first codebook's.

    same: the clips are the data, and each is compared with the others.
    """
    size = max(1, round(codec.config.frame_rate_hz))
    copies = total = 0
    for number, clip in enumerate(clips):
        others = [piece for i, piece in enumerate(data) if len(piece) >= size and not (same and i == number)]
        seconds = [clip[start : start + size] for start in range(0, len(clip) - size + 1, size)]
        for second in seconds:
            total += 1
            nearest = max(
                (float((piece.unfold(0, size, 1) == second).float().mean(dim=1).max()) for piece in others), default=0.0
            )
            copies += nearest >= _SAME_CODES
    return copies / max(1, total)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value
