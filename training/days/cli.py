"""`python -m training days STEP`: the steps of a run of several days. Each goes on where it was, and may be ended at any time."""

import argparse
from dataclasses import replace
from pathlib import Path

from ...musicgen.errors import InputError
from ..data.render import SOUNDFONT
from .crops import Play
from .recipe import DAYS, Days

STEPS = ("codec", "decoder", "ship-codec", "codes", "lm", "ship-lm", "export", "beats", "figures")
_RATES = {"codec": "codec_rate", "decoder": "decoder_rate", "lm": "lm_rate"}
_HOURS = {
    "codec": "codec_hours",
    "decoder": "decoder_hours",
    "ship-codec": "codec_hours",
    "codes": "codec_hours",
    "lm": "lm_hours",
}  # what --audio-hours changes


def add(parser: argparse.ArgumentParser, out: Path) -> None:
    """The options of `days`. out: the default folder."""
    parser.add_argument("what", choices=STEPS, metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--out", type=Path, default=out, help="folder that lasts (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=600.0, help="when to stop (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--soundfont", type=Path, default=SOUNDFONT, help="General MIDI (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=2, help="that code clips, or train the language model (default: %(default)s)"
    )
    parser.add_argument(
        "--audio-hours",
        type=float,
        help="over which the learning rate falls, of `codec` (and then `codes`), `decoder` or `lm`; the same at each sitting",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        help=f"highest one of `codec` (default: {DAYS.codec_rate:g}), `decoder` ({DAYS.decoder_rate:g}) or `lm` ({DAYS.lm_rate:g}); lower for a codec that is begun with",
    )
    parser.add_argument(
        "--begin-with",
        type=Path,
        help="`codec`: what a new run begins with: a codec.pt of `onegpu` or `days`, or a model that ships (.safetensors); it may be narrower. "
        "`export`: a model that ships, which gets the new decoder and keeps all else; `beats`: one that gets a beat tracker",
    )
    parser.add_argument("--clips", type=int, help=f"to code, for training (default: {DAYS.recipe.n_clips})")
    parser.add_argument("--early", action="store_true", help="code with the codec as it is, before it is done")
    parser.add_argument(
        "--target",
        type=Path,
        help="file of `export` or `beats` (default: general-mini.safetensors in --out) or of `ship-codec` and `ship-lm` (the checkout's)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from .place import Place

    place, days = Place(options.out), recipe_of(options)
    return {
        "codec": _codec,
        "decoder": _decoder,
        "ship-codec": _ship_codec,
        "codes": _codes,
        "lm": _lm,
        "ship-lm": _ship_lm,
        "export": _export,
        "beats": _beats,
        "figures": _figures,
    }[options.what](options, place, days)


def recipe_of(options: argparse.Namespace) -> Days:
    """The sizes, with what the user wants otherwise."""
    days = DAYS
    if options.audio_hours is not None:
        if options.audio_hours <= 0:
            raise InputError(f"--audio-hours must be above 0, got {options.audio_hours:g}")
        if options.what not in _HOURS:
            raise InputError(f"--audio-hours is for {', '.join(_HOURS)}, not for {options.what}. Leave it out.")
        days = replace(days, **{_HOURS[options.what]: options.audio_hours})
    if options.learning_rate is not None:
        if not 0 < options.learning_rate <= 0.01:
            raise InputError(f"--learning-rate must be above 0, at most 0.01, got {options.learning_rate:g}")
        if options.what not in _RATES:
            raise InputError(f"--learning-rate is for {', '.join(_RATES)}, not for {options.what}. Leave it out.")
        days = replace(days, **{_RATES[options.what]: options.learning_rate})
    if options.clips is not None:
        if options.clips < days.shard_clips:
            raise InputError(f"--clips must be at least a shard of {days.shard_clips}, got {options.clips}")
        days = replace(days, recipe=replace(days.recipe, n_clips=options.clips))
    return days


def _codec(options: argparse.Namespace, place, days: Days) -> int:
    from .codec import opened, train

    begin_with = opened(options.begin_with) if options.begin_with else None
    trainer = train(place, days, options.minutes, *_players(options, days), begin_with)
    print(f"codec: {trainer.step} of {days.codec_steps} steps")
    return 0


def _decoder(options: argparse.Namespace, place, days: Days) -> int:
    from .codec import train_decoder

    trainer = train_decoder(place, days, options.minutes, *_players(options, days))
    print(f"decoder: {trainer.step} of {days.decoder_steps} steps")
    return 0


def _players(options: argparse.Namespace, days: Days) -> tuple[Play, Play]:
    """What plays the clips of the training split, and of the held-out one."""
    from ..onegpu.clips import made
    from .place import synthesizer

    synth = synthesizer(options.soundfont, days.recipe.codec)
    train, held_out = (
        lambda n, split=split: made(days.recipe, split, n, synth).samples for split in ("train", "held-out")
    )
    return train, held_out


def _ship_codec(options: argparse.Namespace, place, days: Days) -> int:
    from .codec import SHIPPED, latest, ship

    target = options.target or SHIPPED
    ship(latest(place, days, options.early), target)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


def _codes(options: argparse.Namespace, place, days: Days) -> int:
    from .codec import frozen
    from .codes import write
    from .place import synthesizer

    frozen(place, days, options.early)
    n = write(
        place, days, options.minutes, lambda: synthesizer(options.soundfont, days.recipe.codec), options.processes
    )
    print(f"codes: {n} shards")
    return 0


def _lm(options: argparse.Namespace, place, days: Days) -> int:
    from .lm import train

    trainer = train(place, days, options.minutes, options.processes)
    print(f"lm: {trainer.step} of {days.lm_steps} steps")
    return 0


def _ship_lm(options: argparse.Namespace, place, days: Days) -> int:
    from .handed_on import FILE
    from .lm import hand_on

    target = options.target or FILE
    hand_on(place, days, target)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


def _export(options: argparse.Namespace, place, days: Days) -> int:
    from ..export import with_decoder
    from ..onegpu.recipe import NAME
    from .codec import latest
    from .lm import export

    target = options.target or place.out / f"{NAME}.safetensors"
    if options.begin_with:
        path = with_decoder(options.begin_with, latest(place, days), target)
    else:
        path = export(place, days, target)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _beats(options: argparse.Namespace, place, days: Days) -> int:
    from ..onegpu.recipe import NAME
    from .beats import ship

    if options.begin_with is None:
        raise InputError("`beats` puts a beat tracker into a model. Give it: --begin-with MODEL.safetensors.")
    target = options.target or place.out / f"{NAME}.safetensors"
    print(ship(place, days, options.begin_with, target))
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


def _figures(options: argparse.Namespace, place, days: Days) -> int:
    from .figures import report
    from .place import synthesizer

    print(report(place, synthesizer(options.soundfont, days.recipe.codec)))
    return 0
