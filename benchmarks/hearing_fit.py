"""Fits the weights of hearing (musicgen/analysis/hearing/weights.py) and prints them, with what they reach on pieces left out.

    python benchmarks/hearing_fit.py [--songs 240] [--chorales 110] [--compound 70] [--drums 120]

Songs of tests/songs from seed 1000 on, the same in 6/8, their drums or a metronome alone, chorales from number 20 on (needs music21): none of
the pieces that benchmarks/hearing.py reports. Each piece is heard in all readings; right are those whose tempo is within 4 %, whose
meter is the piece's and whose beats and downbeats have an F1 of 0.8 and 0.75. The loss is -log of their probability, songs counting
twice, plus a squared penalty on the weights of features of spread 1.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import load_pack

PENALTY, FOLDS = 0.01, 4
COUNTS = {"songs": 2.0, "chorales": 1.0, "compound": 1.0, "drums": 1.0}
FIRST_SEED, FIRST_CHORALE = 1000, 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, default=240)
    parser.add_argument("--chorales", type=int, default=110)
    parser.add_argument("--compound", type=int, default=70)
    parser.add_argument("--drums", type=int, default=120)
    arguments = parser.parse_args()
    from hearing_corpus import chorales
    from pack.tests.songs import drums, song

    pieces = {
        "songs": map(song, range(FIRST_SEED, FIRST_SEED + arguments.songs)),
        "chorales": chorales(arguments.chorales, FIRST_CHORALE) if arguments.chorales else (),
        "compound": (song(seed, True) for seed in range(FIRST_SEED, FIRST_SEED + arguments.compound)),
        "drums": (drums(seed, 10.0 if seed % 2 else None) for seed in range(FIRST_SEED, FIRST_SEED + arguments.drums)),
    }
    report({kind: [example(*piece) for piece in found] for kind, found in pieces.items()})


def report(examples):
    """Marks by cross-validation, then the weights of all pieces. examples: kind -> [(features, marks)]."""
    import numpy as np

    marks = {kind: [] for kind in examples}
    for fold in range(FOLDS):
        learned = {kind: [e for i, e in enumerate(found) if i % FOLDS != fold] for kind, found in examples.items()}
        weights = fit(learned)
        for kind, found in examples.items():
            marks[kind] += [e[1][(e[0] @ weights).argmax()] for i, e in enumerate(found) if i % FOLDS == fold]
    print("| left out | pieces | tempo | half or double | beats | downbeats | meter |\n|---|---|---|---|---|---|---|")
    for kind, rows in marks.items():
        if rows:
            print(f"| {kind} | {len(rows)} | " + " | ".join(f"{mark:.3f}" for mark in np.mean(rows, axis=0)) + " |")
    from pack.musicgen.analysis.hearing.evidence import names

    print("\nWEIGHTS: dict[str, float] = {")
    for name, weight in zip(names(), fit(examples)):
        print(f'    "{name}": {weight:.3f},')
    print("}")


def example(score, samples):
    """(features [hypotheses, F], marks [hypotheses, 5]) of a piece: tempo, half or double, beats, downbeats, meter."""
    import torch
    from pack.musicgen.analysis.hearing.beats import hear_onsets
    from pack.musicgen.analysis.hearing.listen import _mono
    from pack.musicgen.analysis.hearing.spectrum import RATE_HZ, hear_pitches
    from pack.musicgen.audio import Audio
    from pack.tests.songs import RATE_HZ as SONG_HZ

    def check(share):
        return None

    with torch.inference_mode():
        mono = _mono(Audio(torch.from_numpy(samples)[None, None], SONG_HZ), check)
        return of_sound(score, hear_onsets(mono, RATE_HZ, check), hear_pitches(mono, check))


def of_sound(score, onsets, pitches):
    """`example` of what was heard of a piece."""
    import numpy as np
    import torch
    from pack.musicgen.analysis.hearing.rhythm import read_all
    from pack.musicgen.analysis.tempo import pulse_of, smoothed
    from pack.tests.songs.marks import BEAT_S, f_measure, tempo_ratio

    pulse = pulse_of(smoothed(torch.from_numpy(onsets.all).float()), onsets.frame_s)
    features, marks = [], []
    for reading in read_all(onsets, pitches, pulse[0], 0, "triads", True, lambda share: None):
        features.append(reading.evidence.features)
        ratio, beats = tempo_ratio(reading.bpm, score.bpm), f_measure(reading.beats_s, score.beats_s, BEAT_S)
        for meter, phase in reading.evidence.groups:
            downbeats = f_measure(reading.beats_s[phase::meter], score.downbeats_s, BEAT_S)
            marks.append((ratio == "right", ratio == "octave", beats, downbeats, meter == score.meter))
    return np.concatenate(features), np.array(marks, dtype=float)


def right(marks):
    """Which hypotheses are right [hypotheses]; without any those of the right tempo and meter, else of the right tempo."""
    tempo, _, beats, downbeats, meter = marks.T
    for chosen in (tempo * meter * (beats > 0.8) * (downbeats > 0.75), tempo * meter, tempo):
        if chosen.any():
            return chosen
    return chosen


def fit(examples):
    """Weights [F] of {kind: [(features, marks)]}."""
    import numpy as np
    import torch

    pieces = [
        (*example, COUNTS[kind]) for kind, found in examples.items() for example in found if right(example[1]).any()
    ]
    spread = np.concatenate([features for features, _, _ in pieces]).std(axis=0) + 1e-6
    data = [(torch.from_numpy(f / spread), torch.from_numpy(right(m)), count) for f, m, count in pieces]
    total = sum(count for _, _, count in data)
    weights = torch.zeros(len(spread), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=150, history_size=20, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = PENALTY * (weights**2).sum()
        for features, chosen, count in data:
            scores = features @ weights
            gain = torch.logsumexp(scores[chosen > 0], 0) - torch.logsumexp(scores, 0)
            loss = loss - count / total * gain
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach().numpy() / spread


if __name__ == "__main__":
    load_pack()
    main()
