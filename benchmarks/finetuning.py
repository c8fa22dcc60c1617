"""Fine-tuning: its memory at the published sizes, and what it achieves on pansori-mini.

    python benchmarks/finetuning.py memory [--sizes small medium] [--seconds 30] [--precision auto] [--folder DIR]
    python benchmarks/finetuning.py effect [--seed N]

memory: random weights of the named size. One process loads the base as `python -m musicgen train` does (language model, text encoder,
codec), builds the training copy, and makes one update of one clip of 30 seconds with its measurements; its peak memory counts.
effect: the ten clips of house music of `clips/`, rank 16, on pansori-mini; the proof, and seconds of processor and clock.
Prints tables, asserts nothing.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import ROOT, Failed, load_pack, machine, measured, peak_bytes

SIZES = {"tiny": (128, 4, 4), "small": (1024, 16, 24), "medium": (1536, 24, 48)}  # width, heads, layers
LIMITS_GIB = {"small": 4, "medium": 12}


def write(size, folder):
    """A checkpoint with a codec and a text encoder of the published sizes' order."""
    load_pack()
    from pack.tests.toy import write_toy

    dim, heads, layers = SIZES[size]
    write_toy(Path(folder), dim=dim, n_heads=heads, n_layers=layers, n_filters=64, text="t5-base", text_layers=12)
    print("{}")


def worker(path, seconds, precision):
    """One update; its peak memory, seconds, and losses."""
    load_pack()
    import torch
    from pack.musicgen.finetuning.batches import Window
    from pack.musicgen.finetuning.encoding import Encoded
    from pack.musicgen.finetuning.model import build
    from pack.musicgen.finetuning.settings import TrainSettings
    from pack.musicgen.finetuning.trainer import Music, Trainer
    from pack.musicgen.loading import load

    loaded = load(Path(path), "float16")
    config, before = loaded.model.config, peak_bytes()
    settings = TrainSettings(epochs=1, updates_per_epoch=1, batch_size=1, keep_base=0.0, warmup=0, precision=precision)
    model = build(loaded.model.source, settings, torch.device("cpu"))
    built = peak_bytes()
    n_frames = int(seconds * config.codec.frame_rate_hz)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(config.lm.cardinality, (config.lm.n_codebooks, n_frames), generator=generator).short()
    states = torch.randn(20, config.text.dim, generator=generator)
    held_out = [Window(codes[:, : n_frames // 10], states, None)]
    music = Music([Encoded("noise", codes, states, "")], [], held_out, held_out, n_frames, 0)
    start = time.perf_counter()
    history = Trainer(model, music, settings, None, "").run(Silent())
    seconds = time.perf_counter() - start
    moved = sum(float(adapter.b.abs().sum()) for adapter in model.adapters.values())
    report = {"loaded": before, "built": built, "peak": peak_bytes(), "seconds": seconds, "precision": model.precision}
    print(json.dumps({**report, "loss": history.losses[0], "moved": moved}))


class Silent:
    """Follows a training without a word."""

    def check(self):
        pass

    def updated(self, step, total, left_s, history):
        pass

    def sample_due(self, step, model):
        pass


def memory(arguments):
    print(f"{machine('cpu')}; one clip of {arguments.seconds:g} s, rank 16, all targets\n")
    print("| size | frozen weights | base loaded | peak | limit | one update |\n|---|---|---|---|---|---|")
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            checkpoint = Path(folder) / "toy"
            try:
                measured(__file__, "--write", size, checkpoint)
                got = measured(__file__, "--worker", checkpoint, arguments.seconds, arguments.precision)
            except Failed as error:
                print(f"| {size} | {error} |")
                continue
        gib = {name: got[name] / 2**30 for name in ("loaded", "peak")}
        limit = f"{LIMITS_GIB[size]} GiB" if size in LIMITS_GIB else "-"
        print(
            f"| {size} | {got['precision']} | {gib['loaded']:.2f} GiB | {gib['peak']:.2f} GiB | {limit} | {got['seconds']:.0f} s, "
            f"loss {got['loss']:.2f} |",
            flush=True,
        )


def effect(arguments):
    load_pack()
    from pack.musicgen.finetuning.dataset import read_dataset
    from pack.musicgen.finetuning.report import summary
    from pack.musicgen.finetuning.run import fine_tune
    from pack.musicgen.finetuning.samples import Base
    from pack.musicgen.finetuning.settings import TrainSettings
    from pack.musicgen.loading import load

    clock, processor = time.perf_counter(), time.process_time()
    loaded = load(ROOT / "pretrained" / "pansori-mini.safetensors")
    settings = TrainSettings(**EFFECT, seed=arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "waltz.safetensors"
        base = Base(loaded.model, loaded.conditioner, loaded.codec)
        result = fine_tune(base, read_dataset(ROOT / "clips" / "house music"), settings, target)
        size = target.stat().st_size
    took = f"{time.perf_counter() - clock:.0f} s, of processor {time.process_time() - processor:.0f} s"
    print(f"{machine('cpu')}; {settings}\n\n{summary(result.history, settings, result.proof)}")
    print(f"\nEverything, encoding to proof: {took}. File: {size / 1e6:.1f} MB.")
    for one in result.history.measured:
        print(f"| {one.step} | {one.held_out:.4f} | {one.foreign:.4f} |")


EFFECT = {"epochs": 1, "updates_per_epoch": 90, "lr": 2e-3, "keep_base": 0.35, "proof_clips": 16}


def main():
    if sys.argv[1:2] == ["--write"]:
        return write(sys.argv[2], sys.argv[3])
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2], float(sys.argv[3]), sys.argv[4])
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    sizes = commands.add_parser("memory")
    sizes.add_argument("--sizes", nargs="+", default=["small", "medium"], choices=SIZES)
    sizes.add_argument("--seconds", type=float, default=30.0)
    sizes.add_argument("--precision", default="auto")
    sizes.add_argument("--folder")
    sizes.set_defaults(run=memory)
    proof = commands.add_parser("effect")
    proof.add_argument("--seed", type=int, default=0)
    proof.set_defaults(run=effect)
    arguments = parser.parse_args()
    return arguments.run(arguments)


if __name__ == "__main__":
    main()
