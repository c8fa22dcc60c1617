"""Is what is heard right? Synthesized pieces of known tempo, meter, key and chords, and what the analysis says of them.

    python benchmarks/hearing.py [--pieces 100] [--first 0] [--librosa] [--list]
    python benchmarks/hearing.py --corpus --pieces 20
    python benchmarks/hearing.py --compound --pieces 30

Pieces are tests/songs, by seed. Chance: what was heard of the next piece, or the piece's own labels in another order.
Ceiling: what the truth would get through the same bottleneck (chords on the beats that were found, the key of the true
chords). --librosa adds tempo and beats by librosa's `beat_track`. The engine was tuned (hearing_fit.py) on seeds 1000 and up and on
chorales 20 and up, never on those below. --corpus: chorales by Bach in place of synthesized pieces (hearing_corpus.py). --compound:
synthesized pieces in 6/8. Prints a table, asserts nothing.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import load_pack, machine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--librosa", action="store_true")
    parser.add_argument("--corpus", action="store_true", help="Bach's chorales; needs music21")
    parser.add_argument("--compound", action="store_true", help="pieces in 6/8")
    parser.add_argument("--list", action="store_true", help="a line for each piece")
    arguments = parser.parse_args()
    import numpy as np
    import torch
    from hearing_corpus import chorales
    from pack.musicgen.analysis.hearing import hear
    from pack.musicgen.audio import Audio
    from pack.tests.songs import RATE_HZ, song

    torch.set_num_threads(1)
    pieces, seconds, heard_s = [], 0.0, 0.0
    seeds = range(arguments.first, arguments.first + arguments.pieces)
    songs = (
        chorales(arguments.pieces, arguments.first)
        if arguments.corpus
        else (song(seed, arguments.compound) for seed in seeds)
    )
    for seed, (score, samples) in zip(seeds, songs):
        started = time.process_time()
        heard = hear(Audio(torch.from_numpy(samples)[None, None], RATE_HZ))
        heard_s += time.process_time() - started
        seconds += heard.duration_s
        pieces.append((score, heard, by_librosa(samples, RATE_HZ) if arguments.librosa else None))
        if arguments.list:
            print(line(seed, score, heard), flush=True)
    print(f"{len(pieces)} {'chorales' if arguments.corpus else 'pieces in 6/8' if arguments.compound else 'pieces'}, seeds from {arguments.first}, {seconds / 60:.0f} minutes of music, heard in "
          f"{heard_s / seconds:.3f} s of processor time a second; {machine('cpu')}\n")  # fmt: skip
    print("| what | right | chance | ceiling |\n|---|---|---|---|")
    for name, found, chance, ceiling in rows(pieces):
        if arguments.corpus and name.startswith(("sections", "kick", "snare", "hihat")):  # there is no truth of them
            continue
        print(f"| {name} | {np.mean(found):.3f} | {np.mean(chance):.3f} | {np.mean(ceiling):.3f} |")
    if arguments.librosa:
        print_librosa(pieces)


def line(seed, score, heard):
    from pack.tests.songs.marks import BEAT_S, f_measure, overlap, tempo_ratio

    chords = overlap(spans(heard.chords), spans(score.chords))
    downbeats = f_measure(heard.downbeats_s, score.downbeats_s, BEAT_S)
    return (f"{seed}: {score.bpm:.1f} bpm {score.meter}/{8 if score.meter == 6 else 4} {score.groove}, {score.key}: {heard.bpm:.1f} ("
            f"{tempo_ratio(heard.bpm, score.bpm)}) {heard.meter_text}, {heard.key}; downbeats {downbeats:.2f}, "
            f"chords {chords:.2f}")  # fmt: skip


def spans(chords):
    return [(chord.start_s, chord.end_s, chord.label) for chord in chords]


def rows(pieces):
    """(what, marks, marks of chance, marks of the ceiling) of each row of the table."""
    import numpy as np
    from pack.tests.songs.marks import BEAT_S, DRUM_S, f_measure, overlap, shuffled, tempo_ratio

    pairs = [(score, heard, pieces[(i + 1) % len(pieces)][1]) for i, (score, heard, _) in enumerate(pieces)]
    ones = [1.0]
    ratios = [(tempo_ratio(heard.bpm, score.bpm), tempo_ratio(other.bpm, score.bpm)) for score, heard, other in pairs]
    yield "tempo within 4 %", [r == "right" for r, _ in ratios], [c == "right" for _, c in ratios], ones
    yield (
        "tempo at half or double (errors)",
        [r == "octave" for r, _ in ratios],
        [c == "octave" for _, c in ratios],
        [0.0],
    )
    for name, field in (("beats, F1 at 70 ms", "beats_s"), ("downbeats, F1 at 70 ms", "downbeats_s")):
        yield (
            name,
            [f_measure(getattr(heard, field), getattr(score, field), BEAT_S) for score, heard, _ in pairs],
            [f_measure(getattr(other, field), getattr(score, field), BEAT_S) for score, _, other in pairs],
            [f_measure(nearest(heard.beats_s, getattr(score, field)), getattr(score, field), BEAT_S) for score, heard, _ in pairs],
        )  # fmt: skip
    yield "meter", [h.meter == s.meter for s, h, _ in pairs], [o.meter == s.meter for s, _, o in pairs], ones
    yield (
        "key",
        [h.key == s.key for s, h, _ in pairs],
        [o.key == s.key for s, _, o in pairs],
        [key_of_truth(s) for s, _, _ in pairs],
    )
    yield (
        "chords, share of time",
        [overlap(spans(heard.chords), spans(score.chords)) for score, heard, _ in pairs],
        [np.mean([overlap(shuffled(spans(heard.chords), n), spans(score.chords)) for n in range(5)]) for score, heard, _ in pairs],
        [overlap(on_beats(score, heard), spans(score.chords)) for score, heard, _ in pairs],
    )  # fmt: skip
    bars_s = [60 / score.bpm * score.meter for score, _, _ in pairs]
    yield (
        "sections, F1 of boundaries within a bar",
        [f_measure(boundaries(h.sections), [b for b, _, _ in s.sections[1:]], bar) for (s, h, _), bar in zip(pairs, bars_s)],
        [f_measure(random_bars(s, len(h.sections) - 1), [b for b, _, _ in s.sections[1:]], bar) for (s, h, _), bar in zip(pairs, bars_s)],
        ones,
    )  # fmt: skip
    melodies = [([(n.start_s, n.end_s, n.pitch) for n in h.melody], [(n.start_s, n.end_s, n.pitch) for n in s.melody]) for s, h, _ in pairs]  # fmt: skip
    yield (
        "melody, share of its time",
        [overlap(f, t) for f, t in melodies],
        [overlap(shuffled(f, 0), t) for f, t in melodies if f],
        ones,
    )
    drums = {"kick": "k", "snare": "s", "hihat": "hr"}
    for drum, letters in drums.items():
        played = [
            (s, h, o, [hit.time_s for hit in s.hits if hit.drum in letters]) for s, h, o in pairs if s.groove != "none"
        ]
        yield (
            f"{drum} onsets, F1 at 50 ms",
            [f_measure([hit.time_s for hit in h.drums if hit.drum == drum], true, DRUM_S) for _, h, _, true in played],
            [f_measure([hit.time_s for hit in o.drums if hit.drum == drum], true, DRUM_S) for _, _, o, true in played],
            ones,
        )


def nearest(beats_s, times_s):
    """The beat nearest to each time, each once."""
    import numpy as np

    beats_s = np.asarray(beats_s)
    return sorted({float(beats_s[np.abs(beats_s - time).argmin()]) for time in times_s}) if len(beats_s) else []


def on_beats(score, heard):
    """The true chord at the middle of each beat that was found."""
    import numpy as np
    from pack.tests.songs.marks import at

    edges_s = np.append(heard.beats_s, heard.duration_s)
    labels = at(spans(score.chords), (edges_s[1:] + edges_s[:-1]) / 2)
    return list(zip(edges_s[:-1], edges_s[1:], labels))


def boundaries(sections):
    return [section.start_s for section in sections[1:]]


def random_bars(score, n):
    import numpy as np

    chosen = np.random.default_rng(n).choice(
        score.downbeats_s[1:], size=min(n, len(score.downbeats_s) - 1), replace=False
    )
    return sorted(map(float, chosen))


def key_of_truth(score):
    """Whether the key is found from the notes of the true chords."""
    import numpy as np
    from pack.musicgen.analysis.hearing.key import hear_key
    from pack.tests.songs.music import SHAPES

    chroma = np.zeros(12)
    for chord in score.chords:
        for step in SHAPES[chord.quality]:
            chroma[(chord.root + step) % 12] += chord.end_s - chord.start_s
    return hear_key(chroma, [chord.label for chord in score.chords])[0] == score.key


def by_librosa(samples, rate_hz):
    """(bpm, beats in seconds) by librosa's defaults."""
    import librosa
    import numpy as np

    tempo, beats = librosa.beat.beat_track(y=samples, sr=rate_hz, units="time")
    return float(np.atleast_1d(tempo)[0]), beats


def print_librosa(pieces):
    import numpy as np
    from pack.tests.songs.marks import BEAT_S, f_measure, tempo_ratio

    pairs = [(score, theirs, pieces[(i + 1) % len(pieces)][2]) for i, (score, _, theirs) in enumerate(pieces)]
    ratios = [(tempo_ratio(theirs[0], score.bpm), tempo_ratio(other[0], score.bpm)) for score, theirs, other in pairs]
    beats = [
        (f_measure(theirs[1], score.beats_s, BEAT_S), f_measure(other[1], score.beats_s, BEAT_S))
        for score, theirs, other in pairs
    ]
    print("\n| librosa's beat_track | right | chance | ceiling |\n|---|---|---|---|")
    for name, kind, ceiling in (("tempo within 4 %", "right", 1), ("tempo at half or double (errors)", "octave", 0)):
        found, chance = (np.mean([ratio[k] == kind for ratio in ratios]) for k in (0, 1))
        print(f"| {name} | {found:.3f} | {chance:.3f} | {ceiling:.3f} |")
    found, chance = np.mean(beats, axis=0)
    print(f"| beats, F1 at 70 ms | {found:.3f} | {chance:.3f} | 1.000 |")


if __name__ == "__main__":
    load_pack()
    main()
