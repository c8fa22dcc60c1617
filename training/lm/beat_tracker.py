"""Teaches a beat tracker to read codes (`musicgen/beats.py`): of each frame, in which part of a beat the score has it.

Trained on codes of clips some of which are replaced by chance, for a language model's codes are not a codec's.
"""

import logging

import torch
from torch import Tensor
from torch.nn import functional as F

from ...musicgen.beats import N_PHASES, BeatTracker
from ...musicgen.config import CodecConfig
from ...musicgen.tempo import pulse_of
from .scored import FRAME_TARGETS, UNKNOWN

logger = logging.getLogger(__name__)
MAX_CLIPS = 8192
_PHASE = list(FRAME_TARGETS).index("phase")
_CROP, _BATCH, _RATE, _DECAY, _REPLACED = 300, 32, 3e-3, 0.02, 0.1
_WITHIN = 0.02  # of the tempo that is played


def teach(codec: CodecConfig, codebooks: Tensor, codes: Tensor, frames: Tensor, epochs: int = 6, seed: int = 0) -> BeatTracker:  # fmt: skip
    """A tracker of the codes of one codec, on the CPU; taught on the device of `codes`, by the first MAX_CLIPS of them.

    codebooks [K, V, D]: from which it begins. codes [N, K, T] of any integer type; frames [N, targets, T]: of `FRAME_TARGETS`.
    """
    torch.manual_seed(seed)
    tracker = BeatTracker(codec)
    _begin(tracker, codebooks.float().cpu())
    tracker.to(codes.device)
    codes, phases = codes[:MAX_CLIPS], frames[:MAX_CLIPS, _PHASE]
    n_batches = max(1, len(codes) // _BATCH)
    optimizer = torch.optim.AdamW(tracker.parameters(), _RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=epochs * n_batches)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(codes), device=codes.device).chunk(n_batches):
            first = int(torch.randint(max(1, codes.shape[-1] - _CROP), ()))
            crop = slice(first, first + _CROP)
            shown, wanted = codes[rows, :, crop].long(), phases[rows, crop].long()
            chance = torch.randint(codec.codebook_size, shown.shape, device=shown.device)
            replaced = torch.rand(shown.shape, device=shown.device) < _REPLACED
            scores = tracker(torch.where(replaced, chance, shown))
            known = wanted < UNKNOWN
            loss = F.cross_entropy(scores.transpose(1, 2)[known], wanted[known])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        logger.info("epoch %d of %d: %.3f nats a frame", epoch + 1, epochs, total / n_batches)
    return tracker.cpu().eval().requires_grad_(False)


def kept(tracker: BeatTracker, codes: Tensor, bpm: Tensor, rate_hz: float) -> float:
    """Share of clips [N, K, T] whose tempo [N] it hears within 2 %, where it is looked for within 30 %."""
    heard = [
        pulse_of(tracker.activation(clip), 1 / rate_hz, float(true))
        for clip, true in zip(codes.cpu(), bpm, strict=True)
    ]
    right = [pulse is not None and abs(pulse[0] / float(true) - 1) < _WITHIN for pulse, true in zip(heard, bpm)]
    return sum(right) / max(1, len(right))


def _begin(tracker: BeatTracker, codebooks: Tensor) -> None:
    """The embeddings from the directions in which the codebooks' vectors differ most; the rest by chance."""
    embeddings = tracker.embeddings
    flat = codebooks.flatten(0, 1)
    directions = torch.pca_lowrank(flat, min(embeddings.shape[-1], *flat.shape), center=False)[2]
    with torch.no_grad():
        embeddings.zero_()
        embeddings[..., : directions.shape[1]] = codebooks @ directions / codebooks[0].std()
    for layer in (tracker.onsets, tracker.beats, tracker.phases):
        layer.reset_parameters()


assert FRAME_TARGETS["phase"][0] == N_PHASES
