"""Is a score followed? Music of a melody model that was told the same melody as notes, as a recording, or not at all.

    python benchmarks/score.py [--seeds 8] [--seconds 10] [--model pansori-mini] [--voices 40]

A melody a seed, which walks through the pentatonic scale of a key. Measured in the model's own rows (0.128 s): the share whose strongest
pitch class is the melody's. Chance: the same notes in another order. Ceiling: the recording itself. Besides: how often rows of notes
are those of their recording, and the notes of synthesized hummed lines. Prints a table, asserts nothing.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import load_pack, machine

PENTATONIC = (0, 2, 4, 7, 9)
TEXT = "gayageum zither alone, medium jungmori"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--model", default="pansori-mini")
    parser.add_argument("--voices", type=int, default=40)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    print(f"{options.model}, {options.seeds} melodies of {options.seconds:g} s, {TEXT!r}; {machine('cpu')}\n")
    print("| what | right | chance |\n|---|---|---|")
    for name, values in (*followed(options), *rows(options), *voices(options)):
        right, chance = (sum(column) / len(column) for column in zip(*values))
        print(f"| {name} | {right:.3f} | {chance:.3f} |", flush=True)


def followed(options):
    from pack.musicgen import loading
    from pack.musicgen.analysis.asked import following
    from pack.musicgen.audio import Audio
    from pack.musicgen.conditioning.tune import encode_score
    from pack.musicgen.config import GenerationParams
    from pack.musicgen.store import ModelStore
    from pack.tests.songs.lines import RATE_HZ, played, walk

    loaded = loading.load(ModelStore([], allow_paths=True).find(options.model), "float32")
    found = {"told as notes": [], "told as a recording": [], "not told": [], "the recording itself": []}
    started = time.process_time()
    for seed in range(options.seeds):
        score = walk(seed, key=seed % 12, steps=PENTATONIC)
        clip = Audio(played(score)[None, None, : int(options.seconds * RATE_HZ)], RATE_HZ)
        text = loaded.conditioner.encode_text([TEXT])
        ways = {
            "told as notes": encode_score(loaded.conditioner, text, score),
            "told as a recording": loaded.conditioner.encode_melody(text, clip, "off"),
            "not told": text,
        }
        params = GenerationParams(duration_s=options.seconds, seed=seed)
        for name, conditioning in ways.items():
            music = loaded.codec.decode(loaded.model.generate(conditioning, params))
            result = following(music, score)
            found[name].append((result.share, result.chance))
        result = following(clip, score)
        found["the recording itself"].append((result.share, result.chance))
    print(f"<!-- {time.process_time() - started:.0f} s of processor time -->", file=sys.stderr)
    return found.items()


def rows(options):
    from pack.musicgen.analysis.asked import following
    from pack.musicgen.audio import Audio
    from pack.tests.songs.lines import RATE_HZ, played, walk

    results = [following(Audio(played(score)[None, None], RATE_HZ), score) for score in map(walk, range(100, 120))]
    return [("rows of notes that are those of their recording", [(each.share, each.chance) for each in results])]


def voices(options):
    from pack.musicgen.analysis.hearing import hear_voice
    from pack.musicgen.score import melody_of, written
    from pack.tests.songs.lines import found_share, hummed, walk

    found, chance = [], []
    heard = []
    for seed in range(200, 200 + options.voices):
        line = walk(seed, n_notes=16, key=-5)
        score, clip = hummed(written(melody_of(line), line), seed)
        heard.append((score, hear_voice(clip)))
    for number, (score, voice) in enumerate(heard):
        found.append(found_share(score, voice)[0])
        chance.append(found_share(score, heard[number - 1][1])[0])
    return [("notes of hummed lines, at their pitch within 0.15 s", list(zip(found, chance)))]


if __name__ == "__main__":
    load_pack()
    main()
