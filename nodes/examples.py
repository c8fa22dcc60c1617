"""Clips that come with the pack, and the length of pictures or sound: what a first graph begins with."""

from pathlib import Path
from typing import Any

import torch

from ..musicgen import audio as engine
from ..musicgen.config import PARAMETERS
from ..musicgen.errors import InputError
from ..musicgen.units import Length
from . import reports
from .inputs import Node, checked
from .sockets import AUDIO, CATEGORY, audio_in, audio_out
from .widgets import choice, number, socket, text

FOLDER = Path(__file__).resolve().parent.parent / "clips"
SUFFIX = ".flac"
_DURATION = PARAMETERS["duration_s"]


def example_names() -> list[str]:
    """Names of the clips, sorted."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


class MusicGenExample(Node):
    DESCRIPTION = (
        "A short clip that comes with this pack, to try continuing a clip or following a melody without a file of your "
        "own. Replace it by Load Audio once you have one."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("example clip", "sample clip", "demo audio", "test audio", "load example", "musicgen example")
    FUNCTION = "load"
    RETURN_TYPES = (AUDIO, "STRING")
    RETURN_NAMES = ("audio", "name")
    OUTPUT_TOOLTIPS = ("The clip: mono, 6 to 8 seconds.", "The name of the clip.")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "clip": choice(
                    example_names(),
                    "Which clip. Each was played by this project's synthesizers and may be used for anything (MIT).",
                    default="gayageum melody",
                ),
            },
        }

    @checked()
    def load(self, clip: str) -> tuple[dict, str]:
        return audio_out(engine.read(FOLDER / f"{clip}{SUFFIX}")), clip


class MusicGenLength(Node):
    DESCRIPTION = (
        "How long a video, a batch of pictures, a sound or a number of bars is, in seconds: wired to the duration of MusicGen "
        "Sampler, the music becomes exactly as long."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "video length",
        "duration of video",
        "frames to seconds",
        "music for video",
        "audio length",
        "bars",
        "beats",
    )
    FUNCTION = "measure"
    RETURN_TYPES = ("FLOAT", "FLOAT", "STRING")
    RETURN_NAMES = ("seconds", "bpm", "meter")
    OUTPUT_TOOLTIPS = (
        "The length in seconds, for duration_s of MusicGen Sampler or any other input in seconds.",
        "The tempo that 'length' names, in beats a minute, for MusicGen Text and MusicGen Chords. 0 = it names none.",
        "The meter that 'length' names, 4/4 where it names a tempo alone. Empty = no tempo.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "fps": number(
                    25.0, 0.01, 1000.0, 1.0,
                    "Pictures shown each second. Of a video: wire the fps of Get Video Components. A sound needs none.",
                    round=0.001,
                ),
                "extra_s": number(
                    0.0, -60.0, 60.0, 0.1,
                    "How many seconds to add, such as for an ending that rings on; negative: to leave out.", round=0.001,
                ),
            },
            "optional": {
                "images": socket("IMAGE", "The pictures, such as those of Get Video Components."),
                "audio": socket(AUDIO, "A sound. With pictures too, the longer of the two counts."),
                "length": text(
                    "",
                    "A length in a musician's words: 8 bars @ 92 in 4/4, 32 beats @ 120, 1:30. With pictures or a sound too, "
                    "the longest counts. Empty = none.",
                    placeholder="8 bars @ 92 in 4/4",
                ),
            },
        }  # fmt: skip

    @checked()
    def measure(
        self,
        fps: float,
        extra_s: float,
        images: torch.Tensor | None = None,
        audio: dict | None = None,
        length: str = "",
    ) -> tuple[float, float, str]:
        written = Length.parse(length) if length.strip() else None
        lengths_s = [written.duration_s] if written else []
        if images is not None:
            lengths_s.append(_n_images(images) / fps)
        if audio is not None:
            lengths_s.append(audio_in(audio).duration_s)
        if not lengths_s:
            raise InputError("Neither 'images' nor 'audio' is connected and 'length' is empty. Connect or write one.")
        length_s = max(lengths_s) + extra_s
        if not _DURATION.low <= length_s <= _DURATION.high:
            raise InputError(
                f"The length is {length_s:.3f} s ({max(lengths_s):.3f} s and {extra_s:g} s of 'extra_s'), but music can be "
                f"{_DURATION.low:g} to {_DURATION.high:g} s long. Change 'extra_s' or what is connected."
            )
        reports.show(f"{length_s:.2f} s")
        bpm, meter = (written.bpm, written.meter) if written else (None, None)
        return length_s, bpm or 0.0, str(meter or "")


def _n_images(images: Any) -> int:
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or not len(images):
        kind = f"a tensor of shape {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
        raise InputError(f"'images' must be a batch of pictures [B, H, W, C], got {kind}. Connect an IMAGE output.")
    return len(images)
