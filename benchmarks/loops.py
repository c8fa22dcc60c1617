"""Is the seam of a loop heard? Pieces of pansori-mini, each cut to a loop; the join against ordinary places.

    python benchmarks/loops.py [--seeds 20] [--seconds 8] [--bars 3] [--bpm 121]

A percentile is the share of ordinary places of the loop that jump less, in level or in spectrum, within 20 ms. Chance: a cut
of the same length at random, without a search, with the same crossfade and without one. Ceiling: a place inside of the
piece. Prints a table, asserts nothing.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import ROOT, load_pack, machine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--bars", type=int, default=3)
    parser.add_argument("--bpm", type=float, default=121.0)
    arguments = parser.parse_args()
    started = time.monotonic()
    codes, audio = written(arguments)
    kinds = {"searched": [], "searched, with codes": [], "random": [], "random, no crossfade": [], "inside": []}
    lines = [joins(row, codes, audio, arguments, kinds) for row in range(arguments.seeds)]
    print(f"{arguments.seeds} pieces of {arguments.seconds:g} s, jajinmori at {arguments.bpm:g} bpm, {arguments.bars} bars; "
          f"{machine('cpu')}; {time.monotonic() - started:.0f} s\n")  # fmt: skip
    print("| join | level, median (worst) percentile | spectrum, median (worst) | both below 50 |\n|---|---|---|---|")
    for kind, found in kinds.items():
        levels, spectra = [join.level_percentile for join in found], [join.spectrum_percentile for join in found]
        below = sum(max(pair) < 50 for pair in zip(levels, spectra))
        print(f"| {kind} | {statistics.median(levels):.0f} ({max(levels):.0f}) | {statistics.median(spectra):.0f} "
              f"({max(spectra):.0f}) | {below} of {len(found)} |")  # fmt: skip
    print("\n" + "\n".join(lines))


def written(arguments):
    import torch
    from pack.musicgen.config import GenerationParams
    from pack.musicgen.loading import load

    loaded = load(ROOT / "pretrained" / "pansori-mini.safetensors")
    text = f"jajinmori, gayageum and the buk drum, {arguments.bpm:g} bpm"
    with torch.inference_mode():
        params = GenerationParams(duration_s=arguments.seconds, batch_size=arguments.seeds)
        codes = loaded.model.generate(loaded.conditioner.encode_text([text]), params)
        return codes, loaded.codec.decode(codes)


def joins(row, codes, audio, arguments, kinds):
    """Measure one piece, into `kinds`; a line on its tempo."""
    import torch
    from pack.musicgen.analysis import CROSSFADE_MS, make_loop
    from pack.musicgen.analysis.seam import crossfaded, jump_at
    from pack.musicgen.audio import Audio

    rate_hz = audio.rate_hz
    sound = Audio(audio.samples[row : row + 1], rate_hz)
    loop = make_loop(sound, arguments.bars, 4, arguments.bpm)
    kinds["searched"].append(loop.join)
    with_codes = make_loop(sound, arguments.bars, 4, arguments.bpm, codes=codes.rows([row]))
    kinds["searched, with codes"].append(with_codes.join)
    n_fade = round(CROSSFADE_MS / 1000 * rate_hz)
    length = round(60 * arguments.bars * 4 / arguments.bpm * rate_hz)
    generator = torch.Generator().manual_seed(row)
    start = int(torch.randint(0, sound.n_samples - length - n_fade, (1,), generator=generator))
    for kind, n in (("random", n_fade), ("random, no crossfade", 0)):
        cut = crossfaded(sound.samples[0], start, length, n)[0]
        kinds[kind].append(jump_at(cut, rate_hz, 0, n))
    place = int(torch.randint(rate_hz, length - rate_hz, (1,), generator=generator))
    kinds["inside"].append(jump_at(loop.audio.samples[0, 0], rate_hz, place, n_fade))
    off = 100 * (loop.heard_bpm / arguments.bpm - 1) if loop.heard_bpm else float("nan")
    return f"row {row}: heard {loop.heard_bpm or 0:.1f} bpm ({off:+.1f} %), loop {loop.bpm:.2f} bpm"


if __name__ == "__main__":
    load_pack()
    main()
