"""Clips as the model learns them: codes, pitch classes, hidden states of their texts; computed once and kept in a folder."""

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio import Audio, convert
from ..codec import Codec
from ..conditioning import Conditioner
from ..conditioning.chroma import chroma
from ..config import MelodyConfig
from ..outputs import atomic_file
from .dataset import Clip, Dataset

logger = logging.getLogger(__name__)

OnStep = Callable[[int, int], None]
Separate = Callable[[Audio], Audio]  # a song -> its voices
_CHROMA_PIECE_S = 60
_ENOUGH_S, _MOST_VARIANTS = 600.0, 8
_GAINS_DB = (-3.0, 2.0, -2.0, 3.0, -1.0, 1.0, -4.0)


@dataclass(frozen=True)
class Encoded:
    """One piece of music for training. On the CPU."""

    name: str
    codes: Tensor  # [K, T] int16
    states: Tensor  # hidden states [n, t] of its text; [0, t] without one
    text: str
    chroma: Tensor | None = None  # strongest pitch class [F] uint8; of models that follow melodies
    frames_a_class: float = 1.0  # frames of codes in one of them
    variant: int = 0  # of the clip of this name; 0 = as it is


class Cache:
    """Arrays by key in a folder; None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a key, made if it is not there or damaged."""
        path = None if self.folder is None else self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.npy"
        if path is not None and path.is_file():
            try:
                return np.load(path, allow_pickle=False)
            except (ValueError, OSError, EOFError) as error:
                logger.warning("%s is damaged and made anew (%s)", path, error)
        array = make()
        if path is not None:
            with atomic_file(path) as file:
                np.save(file, array, allow_pickle=False)
        return array


def encode_codes(
    dataset: Dataset, codec: Codec, melody: MelodyConfig | None, cache: Cache,
    separate: Separate | None = None, on_step: OnStep | None = None, variants: int = 1,
) -> list[tuple[Clip, int, Tensor, Tensor | None]]:  # fmt: skip
    """(clip, number of the variant, codes [K, T] int16, pitch classes [F] uint8 or None) of each variant of each clip.

    variants: 1 = the clips as they are; more of them are louder or softer, and begin elsewhere within a frame. Their codes differ
    nearly everywhere, so that few clips are learned instead of memorised; their tempo and key are still those of their texts.

    separate: takes the voices out of a song, for a data set whose vocals are dropped. Kept by the file's content, the
    codec's identity, and whether vocals were dropped. on_step(done, total) is called often; what it raises ends the work.
    """
    results, done, total = [], 0.0, dataset.duration_s
    for clip in dataset.clips:
        sounds: list[Audio] = []

        def heard(clip: Clip = clip, sounds: list[Audio] = sounds) -> Audio:
            if not sounds:
                sounds.append(_music(dataset.read(clip), codec, separate if dataset.drop_vocals else None))
            return sounds[0]

        def report(part: int, parts: int, done: float = done, clip: Clip = clip) -> None:
            if on_step is not None:
                on_step(int(done + clip.duration_s * part / max(parts, 1)), max(1, int(total)))

        for variant in range(variants):
            report(variant, variants)
            key = f"{clip.digest} {dataset.drop_vocals} {codec.config.identity} {variant}"

            def varied(variant: int = variant, heard: Callable[[], Audio] = heard) -> Audio:
                return _varied(heard(), variant, codec.config.hop)

            def encode(varied: Callable[[], Audio] = varied, variant: int = variant) -> np.ndarray:
                on_part = lambda part, parts: report(variant * parts + part, variants * parts)  # noqa: E731
                return codec.encode(varied(), on_part).codes[0].short().numpy()

            codes = cache.get(f"codes {key}", encode)
            classes = None
            if melody is not None and not melody.chords:
                of = f"chroma {key} {melody.radix2_exp} {melody.n_chroma}"
                classes = torch.from_numpy(cache.get(of, lambda varied=varied: _classes(varied(), codec, melody)))
            results.append((clip, variant, torch.from_numpy(codes), classes))
        done += clip.duration_s
    return results


def variants_for(duration_s: float) -> int:
    """How many variants make ten minutes of this much music, 1 to 8."""
    return max(1, min(_MOST_VARIANTS, round(_ENOUGH_S / max(duration_s, 1.0))))


def _varied(sound: Audio, variant: int, hop: int) -> Audio:
    """A copy of the sound: another level and first sample; variant 0 is the sound itself."""
    if variant == 0:
        return sound
    gain_db = _GAINS_DB[(variant - 1) % len(_GAINS_DB)]
    samples = sound.samples[..., variant * hop // (_MOST_VARIANTS + 1) :]
    gain = min(10 ** (gain_db / 20), 1 / float(samples.abs().max().clamp(min=1e-3)))
    return Audio(samples * gain, sound.rate_hz)


def _music(sound: Audio, codec: Codec, separate: Separate | None) -> Audio:
    """The clip at the codec's rate and channels, without its voices where they are separated."""
    if separate is not None:
        sound = convert(sound, sound.rate_hz, min(2, sound.n_channels))
        sound = Audio(sound.samples - separate(sound).samples, sound.rate_hz)
    return convert(sound, codec.config.sample_rate_hz, codec.config.channels)


def _classes(sound: Audio, codec: Codec, melody: MelodyConfig) -> np.ndarray:
    """The strongest pitch class of each frame of a melody model's own chroma, a minute at a time."""
    mono = sound.samples[0].mean(dim=0)
    hop = 2**melody.radix2_exp // 4
    piece = _CHROMA_PIECE_S * codec.config.sample_rate_hz // hop * hop
    parts = [
        chroma(part, codec.config.sample_rate_hz, melody).argmax(dim=-1)[: max(1, len(part) // hop)]
        for part in mono.split(piece)
    ]
    return torch.cat(parts).to(torch.uint8).numpy()


def encode_texts(texts: Iterable[str], conditioner: Conditioner, cache: Cache) -> dict[str, Tensor]:
    """Hidden states [n, t] float32 of each text, [0, t] of the empty one; before the projection, which may be trained.

    Kept by the text encoder's fingerprint and the text, as the model is told it at inference.
    """
    encoder = conditioner.text_encoder
    fingerprint = ""
    states: dict[str, Tensor] = {}
    for text in dict.fromkeys(texts):
        words = told(text, conditioner)
        if not words:
            states[text] = torch.zeros(0, encoder.dim)
            continue
        fingerprint = fingerprint or _fingerprint(encoder)
        made = cache.get(f"text {fingerprint} {words}", lambda words=words: encoder(words).cpu().numpy().copy())
        states[text] = torch.from_numpy(made)
    return states


def told(text: str, conditioner: Conditioner) -> str:
    """A text in the model's own words, as it is told it at inference."""
    return conditioner.vocabulary.translate(text) if text and conditioner.vocabulary else text


def _fingerprint(encoder: torch.nn.Module) -> str:
    """Digest of parts of every weight of a text encoder."""
    digest = hashlib.sha256()
    for name, parameter in encoder.named_parameters():
        sample = parameter.detach().flatten()[:64].float().cpu().numpy().tobytes()
        digest.update(name.encode() + str(tuple(parameter.shape)).encode() + sample)
    return digest.hexdigest()
