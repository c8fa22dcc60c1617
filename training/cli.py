"""`python -m training`: the steps of the recipe, in their order."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..musicgen.errors import MusicGenError
from .data.render import SOUNDFONT
from .days import cli as days
from .evaluate.general import cli as general
from .runs import keep_memory

_RUNS = Path(__file__).resolve().parent / "runs"
_CLIPS = _RUNS.parent.parent / "clips"
_CODEC, _CODEC_HELP = _RUNS / "codec", "folder of the codec's run, or a .safetensors that ships"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    codec = steps.add_parser("codec", help="train the codec")
    codec.add_argument("--minutes", type=float, default=90.0, help="when to stop (default: %(default)s)")
    codec.add_argument("--audio-hours", type=float, default=5.5, help="audio over which the learning rate falls")
    codec.add_argument("--batch-size", type=int, default=4)
    codec.add_argument("--learning-rate", type=float, default=9e-4)
    codec.add_argument("--decoder-only", action="store_true", help="from now on, leave the encoder and the codebooks")
    codec.add_argument("--workers", type=int, default=0, help="processes that synthesize (default: none but this one)")
    _common(codec, "codec")
    codec.set_defaults(run=_codec)
    codes = steps.add_parser("codes", help="synthesize clips and code them with the trained codec")
    codes.add_argument("--minutes", type=float, default=90.0, help="when to stop (default: %(default)s)")
    codes.add_argument("--codec", type=Path, default=_CODEC, help=_CODEC_HELP)
    codes.add_argument("--clips", type=int, default=4_000, help="of 10 s, for training (default: %(default)s)")
    codes.add_argument("--held-out", type=int, default=128, help="for measuring (default: %(default)s)")
    codes.add_argument(
        "--part", type=_part, default=(1, 1), metavar="I/N", help="only every N-th shard, for N processes side by side"
    )
    _common(codes, "codes", resume=False)
    codes.set_defaults(run=_codes)
    lm = steps.add_parser("lm", help="train the language model and the text encoder on the codes")
    lm.add_argument("--minutes", type=float, default=90.0, help="when to stop (default: %(default)s)")
    lm.add_argument("--codes", type=Path, default=_RUNS / "codes", help="folder of the codes")
    lm.add_argument("--dim", type=int, default=192)
    lm.add_argument("--heads", type=int, default=4)
    lm.add_argument("--layers", type=int, default=6)
    lm.add_argument("--audio-hours", type=float, default=44.0, help="audio over which the learning rate falls")
    lm.add_argument("--batch-size", type=int, default=4)
    lm.add_argument("--learning-rate", type=float, default=1.2e-3)
    _common(lm, "lm")
    lm.set_defaults(run=_lm)
    keep = steps.add_parser("keep", help="teach the language model to keep the key that it began in")
    keep.add_argument("begin_with", type=Path, help="what to go on from: a run's lm.pt, or a .safetensors that ships")
    keep.add_argument("--minutes", type=float, default=45.0, help="when to stop (default: %(default)s)")
    keep.add_argument("--codes", type=Path, default=_RUNS / "codes", help="folder of the codes")
    keep.add_argument("--batch-size", type=int, default=4)
    keep.add_argument("--learning-rate", type=float, default=6e-4)
    _common(keep, "lm", resume=False)
    keep.set_defaults(run=_keep)
    onegpu = steps.add_parser("onegpu", help="all of it on one GPU, each stage in a time box")
    onegpu.add_argument("--stage", choices=("codec", "lm", "all"), default="all")
    onegpu.add_argument("--minutes", type=float, default=9.5, help="of each stage (default: %(default)s)")
    onegpu.add_argument(
        "--assets", type=Path, default=_RUNS.parent.parent / ".gpu", help="soundfont, renderer, tokenizer"
    )
    onegpu.add_argument("--work", type=Path, default=_RUNS / "onegpu", help="what a stage leaves to the next")
    onegpu.add_argument("--out", type=Path, default=_RUNS / "onegpu" / "out", help="the results")
    onegpu.add_argument(
        "--chords", action="store_true", help="a model that follows chords, and no melodies: chord-mini"
    )
    onegpu.add_argument("--resume", action="store_true", help="go on from the language model's checkpoint in --work")
    onegpu.add_argument("--rehearse", action="store_true", help="the same with tiny sizes, for a CPU")
    onegpu.add_argument(
        "--trial", action="store_true", help="the same with few clips, to see that all runs and how fast"
    )
    onegpu.set_defaults(run=_onegpu, threads=min(8, max(1, (os.cpu_count() or 1) // 2)))
    days.add(steps.add_parser("days", help="all of it on two cores, in as many sittings as one likes"), _RUNS / "days")
    export = steps.add_parser("export", help="put everything into one safetensors file")
    export.add_argument("target", type=Path)
    export.add_argument("--codec", type=Path, default=_CODEC, help=_CODEC_HELP)
    export.add_argument("--lm", type=Path, default=_RUNS / "lm", help="folder of the language model's run")
    export.set_defaults(run=_export, threads=1)
    examples = steps.add_parser("examples", help="write the clips of the node Example Clip")
    examples.add_argument("--out", type=Path, default=_CLIPS, help="folder to write to (default: %(default)s)")
    examples.add_argument("--soundfont", type=Path, default=SOUNDFONT, help="General MIDI (default: %(default)s)")
    examples.set_defaults(run=_examples, threads=1)
    evaluate = steps.add_parser("evaluate", help="measure a model on held-out prompts, and draw pictures")
    evaluate.add_argument("model", type=Path, help="checkpoint of any format: a file or a folder")
    evaluate.add_argument("--out", type=Path, default=Path("evaluation"), help="folder for report and pictures")
    evaluate.add_argument("--prompts", type=int, default=64, help="of each kind (default: %(default)s)")
    evaluate.add_argument("--seeds", type=int, default=200, help="for collapse (default: %(default)s)")
    evaluate.add_argument("--cfg", type=float, default=3.0, help="guidance (default: %(default)s)")
    evaluate.add_argument("--pictures", type=int, default=4, help="of each kind (default: %(default)s)")
    evaluate.add_argument(
        "--long", action="store_true", help="measure instead how far long pieces drift from their beginning"
    )
    evaluate.add_argument("--pieces", type=int, default=4, help="long ones (default: %(default)s)")
    evaluate.add_argument("--minutes", type=int, default=5, help="of each long piece (default: %(default)s)")
    evaluate.add_argument("--anchor", type=float, help="seconds for the second run (default: a fifth of the window)")
    evaluate.add_argument("--text-encoders", type=Path, action="append", default=[], help="folders of text encoders")
    evaluate.add_argument("--threads", type=int, default=2, help="of torch, on a CPU (default: %(default)s)")
    evaluate.set_defaults(run=_evaluate)
    general.add(evaluate)
    card = steps.add_parser("card", help="write the card of a model, NAME.card.json beside its file")
    card.add_argument("model", type=Path, help="a .safetensors that ships: pansori-mini or general-mini")
    card.add_argument("--general", action="store_true", help=general.GENERAL_HELP)
    card.add_argument(
        "--evaluation", type=Path, help="evaluation.json of `evaluate`, whose figures the card of a general model takes"
    )
    card.set_defaults(run=_card, threads=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_memory()
    try:
        return options.run(options)
    except (MusicGenError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _part(text: str) -> tuple[int, int]:
    index, n = map(int, text.split("/"))
    if not 1 <= index <= n:
        raise argparse.ArgumentTypeError(f"{text} is no part: give 1/{n} to {n}/{n}")
    return index, n


def _common(parser: argparse.ArgumentParser, name: str, resume: bool = True) -> None:
    parser.add_argument("--out", type=Path, default=_RUNS / name, help="folder to write to (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch, on a CPU (default: %(default)s)")
    if resume:
        parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")


def _codec(options: argparse.Namespace) -> int:
    from .codec.train import CodecTraining, train

    plan = CodecTraining(
        options.audio_hours, options.batch_size, learning_rate=options.learning_rate, decoder_only=options.decoder_only
    )
    train(options.out, options.minutes, plan, options.resume, options.workers)
    return 0


def _codes(options: argparse.Namespace) -> int:
    from .lm.codes import write_shards
    from .shipped import codec_of

    codec = codec_of(options.codec)
    write_shards(options.out, codec, "held-out", options.held_out, options.minutes, options.part)
    write_shards(options.out, codec, "train", options.clips, options.minutes, options.part)
    return 0


def _examples(options: argparse.Namespace) -> int:
    from .data.examples import write_all
    from .days.place import synthesizer
    from .recipe import CODEC

    for path in write_all(options.out, synthesizer(options.soundfont, CODEC)):
        print(path, path.stat().st_size)
    return 0


def _lm(options: argparse.Namespace) -> int:
    from .lm.train import LMTraining, train

    plan = LMTraining(
        options.dim, options.heads, options.layers, options.audio_hours, options.batch_size, options.learning_rate
    )
    train(options.out, options.codes, options.minutes, plan, options.resume)
    return 0


def _keep(options: argparse.Namespace) -> int:
    from .lm.keeping import train
    from .lm.train import LMTraining

    plan = LMTraining(batch_size=options.batch_size, learning_rate=options.learning_rate, average=0.99)
    train(options.out, options.begin_with, options.codes, options.minutes, plan)
    return 0


def _onegpu(options: argparse.Namespace) -> int:
    from .onegpu import run
    from .onegpu.recipe import FULL, REHEARSAL, TRIAL
    from .runs import pick_device

    recipe = replace(REHEARSAL if options.rehearse else TRIAL if options.trial else FULL, chords=options.chords)
    place = run.Place(options.assets, options.work, options.out)
    if options.stage in ("codec", "all"):
        run.codec_stage(recipe, place, options.minutes, run.n_processes(), pick_device())
    if options.stage in ("lm", "all"):
        run.lm_stage(recipe, place, options.minutes, run.n_processes(), pick_device(), options.resume)
    return 0


def _export(options: argparse.Namespace) -> int:
    from .export import export
    from .lm import train as lm
    from .shipped import codec_of

    path = export(codec_of(options.codec), options.lm / lm.CHECKPOINT, options.target)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _card(options: argparse.Namespace) -> int:
    from .card import write

    print(write(options.model, general.is_general(options.model, options.general), options.evaluation))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    if not options.long and general.is_general(options.model, options.general):
        return general.run(options)
    from .evaluate.report import report, report_drift

    if options.long:
        report_drift(
            options.model,
            options.out,
            options.pieces,
            options.minutes,
            options.cfg,
            options.anchor,
            options.text_encoders,
        )
        return 0
    findings = report(
        options.model, options.out, options.prompts, options.seeds, options.cfg, options.pictures, options.text_encoders
    )
    return 0 if all(finding.good is not False for finding in findings) else 1
