"""The options of `python -m training evaluate` for models of general music, and which models are such."""

import argparse
import json
from pathlib import Path

from ....musicgen.errors import InputError
from ...data.render import SOUNDFONT

KIND = "general"  # of a card, and what the names of such models begin with
GENERAL_HELP = (
    "it is a model of general music; known without this where its name begins with 'general', or its card says so"
)
PARTS = (
    "speed", "codec", "genres", "instruments", "tempo", "drums", "melody", "chords", "keys", "endings", "silence", "long",
    "sections", "pansori",
)  # fmt: skip
N = 4  # clips of each instrument and genre
# Of Debian's fluid-soundfont-gm, timgm6mb-soundfont and csound-soundfont. The first plays what melodies are taken from.
HELD_OUT_SOUNDFONTS = tuple(
    Path("/usr/share/sounds/sf2") / name for name in ("FluidR3_GM.sf2", "TimGM6mb.sf2", "sf_GMbank.sf2")
)


def add(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "models of general music", "Measured otherwise; --prompts and --seeds are not used."
    )
    group.add_argument("--general", action="store_true", help=GENERAL_HELP)
    group.add_argument(
        "--n",
        type=int,
        default=N,
        help="clips of each instrument and genre; other counts follow (default: %(default)s)",
    )
    group.add_argument("--parts", default=",".join(PARTS), help="what to measure, by commas (default: %(default)s)")
    group.add_argument(
        "--soundfont",
        type=Path,
        default=SOUNDFONT,
        help="that it was trained with, for ceilings (default: %(default)s)",
    )
    group.add_argument(
        "--held-out-soundfont", type=Path, action="append", metavar="FILE",
        help="another one, that teaches the judge; may be given several times (default: "
        f"{', '.join(map(str, HELD_OUT_SOUNDFONTS))})",
    )  # fmt: skip


def is_general(model: Path, asked: bool) -> bool:
    """Whether a model is one of general music: it is said to be, or its name or card says so."""
    if asked or model.name.startswith(KIND):
        return True
    card = model.with_name(f"{model.name if model.is_dir() else model.stem}.card.json")
    if not card.is_file():
        return False
    try:
        return json.loads(card.read_text("utf-8")).get("kind") == KIND
    except (ValueError, AttributeError) as error:
        raise InputError(f"{card} is no card ({error}). Write it anew: python -m training card {model}") from None


def run(options: argparse.Namespace) -> int:
    from .report import Request, report

    parts = tuple(part.strip() for part in options.parts.split(",") if part.strip())
    request = Request(
        options.model, options.out, options.n, options.cfg, parts, options.soundfont,
        options.held_out_soundfont or HELD_OUT_SOUNDFONTS, options.threads, text_encoder_dirs=options.text_encoders,
    )  # fmt: skip
    return 0 if all(finding.good is not False for finding in report(request)) else 1
