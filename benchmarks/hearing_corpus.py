"""Bach's chorales out of music21's corpus as pieces of known truth, played by tests/songs. Not a benchmark by itself.

Needs the Python package music21 (20 MB, BSD; the chorales are in the public domain). Tempo is drawn, meter is the score's. The key is
the one of the two of the key signature whose tonic chord ends the piece; pieces with another end are left out. The chord of
a quarter is what sounds on it, if it is a major or minor triad or a seventh chord over one; other quarters do not count.
"""

import numpy as np


def chorales(n_pieces, first=0):
    """(score, samples) of chorales in 3/4 or 4/4 whose key is sure, from number `first` on, each as it is played."""
    from music21 import corpus
    from pack.tests.songs import play

    number = 0
    for path in sorted(corpus.getComposer("bach")):
        score = as_score(corpus.parse(path), seed=number) if number < first + n_pieces else None
        if score is not None:
            if number >= first:
                yield score, play(score, number)
            number += 1


def as_score(work, seed):
    """A work for four voices as a Score; None if it is none, or its key or meter is not sure."""
    from pack.tests.songs.music import Chord, Note, Score

    parts = list(work.parts)
    times = {time.ratioString for time in parts[0].flatten().getElementsByClass("TimeSignature")} if parts else set()
    signatures = {key.sharps for key in parts[0].flatten().getElementsByClass("KeySignature")} if parts else set()
    if len(parts) != 4 or len(signatures) != 1 or len(times) != 1 or not times <= {"3/4", "4/4"}:
        return None
    meter, sharps = int(times.pop()[0]), signatures.pop()
    bpm = float(np.random.default_rng([seed, 27]).uniform(66, 120))
    beat_s, start_s = 60 / bpm, 0.3
    measures = list(parts[0].getElementsByClass("Measure"))
    downbeats = [float(measure.offset) for measure in measures if measure.duration.quarterLength == meter]
    sounding = work.chordify().flatten()
    labels = quarters(sounding)
    end = float(work.highestTime)
    tonic, mode = {True: (sharps * 7 % 12, "major"), False: ((sharps * 7 + 9) % 12, "minor")}[
        last_root(sounding) == sharps * 7 % 12
    ]
    if last_root(sounding) != tonic:
        return None
    beats_s = start_s + beat_s * np.arange(int(end))
    score = Score(
        bpm, meter, tonic, mode, "none", beats_s, start_s + beat_s * np.array(downbeats), start_s + beat_s * end
    )
    score.chords = [Chord(start_s + beat_s * at, start_s + beat_s * (at + 1), *label) for at, label in labels]
    for part, notes in zip(parts, (score.melody, score.comping, score.comping, score.bass)):
        for note in part.flatten().notes:
            at_s = start_s + beat_s * float(note.offset)
            notes.append(Note(at_s, at_s + 0.97 * beat_s * float(note.quarterLength), note.pitches[-1].midi))
    return score


def quarters(sounding):
    """[(quarter, (root, quality))] of those that begin with a triad."""
    found = {}
    for chord in sounding.getElementsByClass("Chord"):
        first = int(np.ceil(float(chord.offset)))
        if first < float(chord.offset) + float(chord.quarterLength):
            third = chord.semitonesFromChordStep(3)
            if chord.semitonesFromChordStep(5) == 7 and third in (3, 4):
                for quarter in range(first, int(np.ceil(float(chord.offset) + float(chord.quarterLength)))):
                    found[quarter] = (chord.root().pitchClass, "maj" if third == 4 else "min")
    return sorted(found.items())


def last_root(sounding):
    return sounding.getElementsByClass("Chord").last().root().pitchClass
