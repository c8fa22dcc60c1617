"""Does ranking do something? Takes of pansori-mini, ranked by their measures, and faults counted that did not rank them.

    python benchmarks/takes.py [--takes 200] [--seconds 5] [--batch 20] [--codes FILE]

Ten texts, as many takes each; each text's takes are ranked among themselves, and the first third of them is held against
the last. Two counts: each fault in turn, ranked by all measures but its own; and what a critic hears, a classifier of
another kind that ranks nothing: the rhythm, the players or the drum that the text asks for missing. Chance: the same
counts in shuffled orders. --codes keeps the codes, or takes them from there: writing them is the longest part. Prints a
table, asserts nothing.
"""

import argparse
import functools
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import ROOT, load_pack, machine

N_SHUFFLES = 1000
# Text; rhythm, player and drum that it asks for (None: it does not say, or the model was not taught it).
TEXTS = (
    ("Slow jungmori, a deep rough voice over the buk drum, 92 bpm", ("jungmori", "voice", True)),
    ("Lively and fast jajinmori, gayageum and the buk drum, at 110 bpm", ("jajinmori", "gayageum", True)),
    ("buk drum solo, very fast, whirling duple rhythm, 210 bpm", ("hwimori", "none", True)),
    ("daegeum flute alone, very slow, sorrowful, 38 bpm", ("jinyangjo", "daegeum", False)),
    ("swaying triple rhythm, pansori singing with a barrel drum, 84 bpm", ("jungjungmori", "voice", True)),
    ("gayageum zither alone, slow twelve beat rhythm, calm, 88 bpm", ("jungmori", "gayageum", False)),
    ("jazz piano trio in a smoky bar, 120 bpm", None),
    ("", None),
    ("high daegeum over the buk, jajinmori, majestic, 120 bpm", ("jajinmori", "daegeum", True)),
    ("only the buk drum, jinyangjo, solemn and very slow, 34 bpm", ("jinyangjo", "none", True)),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--takes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--codes", type=Path, metavar="FILE.pt")
    arguments = parser.parse_args()
    started = time.monotonic()
    groups = [takes_of(index, *text, arguments) for index, text in enumerate(TEXTS)]
    report(groups, arguments, time.monotonic() - started)


def takes_of(index, text, asked, arguments):
    """[(Measures, what the critic misses, or None)] of one text."""
    import torch
    from pack.musicgen.analysis import asked_bpm, measure
    from pack.musicgen.analysis.likelihood import log_likelihood
    from pack.musicgen.audio import Audio
    from pack.musicgen.config import GenerationParams

    loaded, critic = models()
    takes, n_takes = [], arguments.takes // len(TEXTS)
    with torch.inference_mode():
        conditioning = loaded.conditioner.encode_text([text])
        for first in range(0, n_takes, arguments.batch):
            n_rows = min(arguments.batch, n_takes - first)
            params = GenerationParams(duration_s=arguments.seconds, seed=1000 * index + first, batch_size=n_rows)
            codes = written(loaded.model, conditioning, params, arguments.codes)
            audio = loaded.codec.decode(codes)
            with_text = log_likelihood(loaded.model, codes, conditioning).mean(dim=1)
            without = log_likelihood(loaded.model, codes, conditioning.null()).mean(dim=1)
            for row in range(n_rows):
                sound = Audio(audio.samples[row : row + 1], audio.rate_hz)
                likelihood, gain = float(with_text[row]), float(with_text[row] - without[row])
                measures = measure(sound, codes.codes[row], asked_bpm(text), likelihood, gain if text else None)
                takes.append((measures, missed(critic, sound, asked)))
    print(f"{index + 1} of {len(TEXTS)}: {text!r}", file=sys.stderr, flush=True)
    return takes


def written(model, conditioning, params, file):
    """Codes of `params`, from `file` if they are kept there."""
    import torch
    from pack.musicgen.codes import Codes

    kept = torch.load(file, weights_only=True) if file and file.exists() else {}
    key = f"{conditioning.words} {params.seed} {params.duration_s:g}"
    if key not in kept or len(kept[key]) < params.batch_size:
        kept[key] = model.generate(conditioning, params).codes
        if file:
            torch.save(kept, file)
    codec = model.config.codec
    return Codes(kept[key][: params.batch_size], codec.frame_rate_hz, codec.identity)


@functools.cache
def models():
    """pansori-mini and the critic of the tests."""
    from pack.musicgen.loading import load
    from pack.training.evaluate.listening import Critic
    from safetensors.torch import load_file

    state = load_file(ROOT / "tests" / "data" / "critic.safetensors")
    critic = Critic(len(state["mean"]))
    critic.load_state_dict(state)
    return load(ROOT / "pretrained" / "pansori-mini.safetensors"), critic.eval()


def missed(critic, sound, asked):
    """How many of rhythm, player and drum the critic does not hear as they were asked for; None if nothing was."""
    from pack.musicgen.audio import convert
    from pack.training.evaluate.measure import HEARING_HZ

    if asked is None:
        return None
    heard = critic.hear(convert(sound, HEARING_HZ, 1).samples[0, 0], HEARING_HZ)
    return sum(is_heard != was_asked for is_heard, was_asked in zip((heard.rhythm, heard.player, heard.buk), asked))


def report(groups, arguments, seconds):
    from pack.musicgen.analysis import faults, rank

    n_takes = sum(map(len, groups))
    print(f"{n_takes} takes of {arguments.seconds:g} s, {len(groups)} texts; {machine('cpu')}; {seconds:.0f} s\n")
    print("| counted | ranked by | first third | last third | chance |\n|---|---|---|---|---|")
    everything = [rank([measures for measures, _ in takes]) for takes in groups]
    row("all faults", "all measures", groups, everything, lambda take: len(faults(take[0])))
    for name in ("silence", "clipping", "collapse", "repetition", "tempo"):
        orders = [rank([measures for measures, _ in takes], leave_out={name}) for takes in groups]
        row(name, f"all but {name}", groups, orders, lambda take, name=name: name in faults(take[0]))
    asked = [index for index, (_, wanted) in enumerate(TEXTS) if wanted]
    row(
        "rhythm, player, drum not heard by the critic", "all measures",
        [groups[i] for i in asked], [everything[i] for i in asked], lambda take: take[1],
    )  # fmt: skip
    for without in ("likelihood", "text"):
        orders = [rank([measures for measures, _ in groups[i]], leave_out={without}) for i in asked]
        row("the same", f"all but {without}", [groups[i] for i in asked], orders, lambda take: take[1])
    silent = [sum(take.silent for take, _ in takes) for takes in groups]
    first = [takes[order[0]][0].silent for takes, order in zip(groups, everything)]
    print(f"\nSilent takes: {sum(silent)}; ranked first although others sound: {sum(first)}.")


def row(counted, ranked_by, groups, orders, count):
    """A line of the table: mean counts a take of the first and of the last third of each group."""
    first, last = thirds(groups, orders, count)
    rng = random.Random(0)
    shuffled = [
        thirds(groups, [rng.sample(order, len(order)) for order in orders], count)[0] for _ in range(N_SHUFFLES)
    ]
    chance = f"{statistics.mean(shuffled):.3f} +- {statistics.pstdev(shuffled):.3f}"
    print(f"| {counted} | {ranked_by} | {first:.3f} | {last:.3f} | {chance} |")


def thirds(groups, orders, count):
    first, last = [], []
    for takes, order in zip(groups, orders):
        third = max(1, len(order) // 3)
        first += [count(takes[i]) for i in order[:third]]
        last += [count(takes[i]) for i in order[-third:]]
    return statistics.mean(first), statistics.mean(last)


if __name__ == "__main__":
    load_pack()
    main()
