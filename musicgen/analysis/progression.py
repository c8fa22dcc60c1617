"""The chords of a recording as a progression that a model can follow."""

import logging

from ..audio import Audio
from ..conditioning.chord_times import TimedChords
from ..conditioning.chords import Chord
from .choices import VOCABULARIES
from .hearing import NONE, hear
from .hearing.listen import OnStep

logger = logging.getLogger(__name__)


def hear_progression(audio: Audio, vocabulary: str = VOCABULARIES[0], on_step: OnStep | None = None) -> TimedChords:
    """Chords of one clip [1, C, L], begun anew where it ends, by `hearing`: templates and a Viterbi path, a beat at a time.

    The models' authors hear with BTC (Park et al., ISMIR 2019), a network of 170 labels, in the mix without drums; nothing
    of it is used here. What is heard a beat at a time has no chords of a few rows, and is not smoothed as theirs is.
    The first chord begins with the clip and the last one ends with it. Without a pulse chords are looked for each half
    second; the log says so, and where no chord is heard. Raises as `hear` does: InputError for silence, for less than 2 s.
    """
    heard = hear(audio, vocabulary=vocabulary, on_step=on_step)
    spans = [Chord(span.start_s, span.end_s, span.label) for span in heard.chords]
    starts = [0.0, *(span.start_s for span in spans[1:])]
    ends = [*starts[1:], heard.duration_s]
    spans = tuple(Chord(start, end, span.label) for start, end, span in zip(starts, ends, spans, strict=True))
    if all(span.label == NONE for span in spans):
        logger.warning("no chord is heard in the recording: the model is told that there is none")
    return TimedChords(spans, heard.duration_s)
