"""A beat tracker taught by the shards, and put into a model that ships."""

from pathlib import Path

import torch

from ...musicgen.beats import BeatTracker
from ..export import with_beat_tracker
from ..lm import beat_tracker
from ..lm.scored import TEXT_TARGETS, UNKNOWN
from ..onegpu.clips import bpm_of
from ..onegpu.run import load_codec
from .codes import read
from .place import Place
from .recipe import Days

_TEMPO = list(TEXT_TARGETS).index("tempo")


def teach(place: Place, days: Days) -> tuple[BeatTracker, float, int]:
    """The tracker; of how many held-out clips it hears the tempo, and of how many it was asked: those whose text names one."""
    train, held_out = (read(place, split, torch.device("cpu")) for split in ("train", "held-out"))
    codebooks = torch.stack([layer.codebook.embed for layer in load_codec(place.frozen).quantizer.layers])
    tracker = beat_tracker.teach(days.recipe.codec, codebooks, train.codes, train.frames)
    tempos = held_out.texts[..., _TEMPO].amin(dim=1)
    named = tempos < UNKNOWN
    share = beat_tracker.kept(tracker, held_out.codes[named], bpm_of(tempos[named]), days.recipe.codec.frame_rate_hz)
    return tracker, share, int(named.sum())


def ship(place: Place, days: Days, model: Path, target: Path) -> str:
    """Write `model` with the tracker as `target`; what was measured."""
    tracker, share, n = teach(place, days)
    with_beat_tracker(model, tracker, target)
    return f"tempo heard within 2 % in {share:.2f} of {n} held-out clips"
