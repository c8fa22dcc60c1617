"""`python -m training`: the steps of the recipe, in their order."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

_RUNS = Path(__file__).resolve().parent / "runs"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    codec = steps.add_parser("codec", help="train the codec")
    codec.add_argument("--minutes", type=float, default=90.0, help="when to stop (default: %(default)s)")
    codec.add_argument("--audio-hours", type=float, default=8.0, help="audio over which the learning rate falls")
    codec.add_argument("--batch-size", type=int, default=4)
    codec.add_argument("--learning-rate", type=float, default=6e-4)
    _common(codec)
    codec.set_defaults(run=_codec)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return options.run(options)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=_RUNS, help="folder of checkpoints and logs (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--workers", type=int, default=0, help="processes that synthesize (default: none but this one)")
    parser.add_argument("--threads", type=int, default=2, help="of torch, on a CPU (default: %(default)s)")


def _codec(options: argparse.Namespace) -> int:
    from .codec import CodecTraining, train

    plan = CodecTraining(options.audio_hours, options.batch_size, learning_rate=options.learning_rate)
    train(options.out, options.minutes, plan, options.resume, options.workers)
    return 0
