"""How far a tone is the same codes wherever it comes, with notes on the codec's frames and elsewhere.

    python benchmarks/tones.py [--codec FILE] [--soundfont FILE]

Each instrument plays five pitches in a random row of 24, four times. Two occurrences of a pitch are compared, frame by frame from their
onsets on. free: onsets within 10 ms, velocities within some 5, gains within 1.5 dB, as pieces had until 0.17. on frames: as `training/data` writes them.
Chance: occurrences of two different pitches. Ceiling: 1. Prints a table, asserts nothing.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import load_pack

load_pack()  # what follows imports it
# ruff: noqa: E402
import numpy as np
import torch
from pack.musicgen.audio import Audio
from pack.training.data.instruments import INSTRUMENTS
from pack.training.data.render import SOUNDFONT, Synthesizer
from pack.training.data.score import FRAME_S, Note, Part
from pack.training.days.codec import SHIPPED, opened

NAMES = ("piano", "flute", "violin", "acoustic guitar", "trumpet", "organ", "marimba", "choir")
RATE_HZ, CLIP_S, TONES, STEP_S, HELD_S, COMPARED = 32_000, 10.0, 24, 0.4, 0.36, 20


def row(name, free, rng):
    """The part, (frame, pitch) of each tone, and a gain."""
    instrument = INSTRUMENTS[name]
    part = Part(name, "melody", instrument.programs[0], level=instrument.level)
    tones = []
    for i in range(TONES):
        pitch, start_s = instrument.low + 12 + int(rng.choice([0, 2, 4, 5, 7])), 0.2 + STEP_S * i
        tones.append((round(start_s / FRAME_S), pitch))
        velocity = 92
        if free:
            start_s, velocity = start_s + rng.uniform(-0.01, 0.01), round(velocity + rng.normal(0, 5))
            part.notes.append(Note(start_s, HELD_S, pitch, velocity))
        else:
            part.add(start_s, HELD_S, pitch, velocity)
    return part, tones, 10 ** (rng.uniform(-1.5, 1.5) / 20) if free else 1.0


def equal(codec, synthesizer, name, free):
    """Shares of equal codes [K] of two tones of one pitch, and of two pitches."""
    rng, found = np.random.default_rng(0), []
    for _ in range(4):
        part, tones, gain = row(name, free, rng)
        samples = synthesizer.play([part], 0.0, CLIP_S)
        wave = torch.from_numpy(0.5 * gain * samples / np.abs(samples).max()).float()[None, None]
        codes = codec.encode(Audio(wave, RATE_HZ)).codes[0].numpy()
        found += [(pitch, codes[:, frame : frame + COMPARED]) for frame, pitch in tones]
    pairs = [(a[0] == b[0], a[1] == b[1]) for i, a in enumerate(found) for b in found[:i]]
    return [np.mean([same for alike, same in pairs if alike == wanted], axis=(0, 2)) for wanted in (True, False)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", type=Path, default=SHIPPED)
    parser.add_argument("--soundfont", type=Path, default=SOUNDFONT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    codec, synthesizer = opened(options.codec).eval(), Synthesizer(options.soundfont, RATE_HZ)
    print("| instrument | on frames, by codebook | free | chance |\n|---|---|---|---|")
    for name in NAMES:
        (framed, chance), (free, _) = (equal(codec, synthesizer, name, way) for way in (False, True))
        print(f"| {name} | " + " | ".join(" ".join(f"{x:.2f}" for x in each) for each in (framed, free, chance)) + " |")


if __name__ == "__main__":
    main()
