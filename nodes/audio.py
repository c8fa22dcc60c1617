"""Trim sound and codes, encode sound (for continuation)."""

import logging
import math

from ..musicgen import audio as engine
from ..musicgen.audio.waveform import check_span
from ..musicgen.codes import Codes
from ..musicgen.errors import InputError
from . import host
from .inputs import Node, checked, wiring_fault
from .sockets import AUDIO, CATEGORY, CODEC, CODES, audio_in, audio_out, cut_short_of
from .widgets import Widget, number, socket

MAX_TIME_S = 86400.0
log = logging.getLogger(__name__)


class _Trim(Node):
    CATEGORY = CATEGORY
    FUNCTION = "trim"

    @classmethod
    def VALIDATE_INPUTS(
        cls, start_s: float | None = None, end_s: float | None = None, input_types: dict | None = None
    ) -> bool | str:
        return wiring_fault(cls, input_types or {}) or _span_fault(start_s, end_s) or True


class MusicGenTrimAudio(_Trim):
    DESCRIPTION = "Cuts a clip out of a longer sound, by start and end time. Sample rate and channels stay as they are."
    SEARCH_ALIASES = ("trim audio", "cut", "crop", "clip", "slice audio", "audio segment")
    RETURN_TYPES = (AUDIO,)
    RETURN_NAMES = ("audio",)
    OUTPUT_TOOLTIPS = ("The part from start_s to end_s (seconds).",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "audio": socket(AUDIO, "The sound to cut: any sample rate, 1 to 8 channels."),
                **_span_widgets("sound"),
            },
        }

    @checked()
    def trim(self, audio: dict, start_s: float, end_s: float) -> tuple[dict]:
        sound = audio_in(audio)
        part = engine.trim(sound, start_s, _within(start_s, end_s, sound.duration_s))
        return (audio_out(part, cut_short_of(audio)),)


class MusicGenTrimCodes(_Trim):
    DESCRIPTION = (
        "Cuts a part out of codes, by start and end time, without decoding: to continue the music from an earlier moment, "
        "or to decode only a part."
    )
    SEARCH_ALIASES = ("trim codes", "cut codes", "crop codes", "shorten", "musicgen trim", "continue from here")
    RETURN_TYPES = (CODES,)
    RETURN_NAMES = ("codes",)
    OUTPUT_TOOLTIPS = ("The part from start_s to end_s (seconds), to the nearest frame.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "codes": socket(CODES, "The codes to cut, from MusicGen Sampler or MusicGen Encode Audio."),
                **_span_widgets("music"),
            },
        }

    @checked()
    def trim(self, codes: Codes, start_s: float, end_s: float) -> tuple[Codes]:
        return (codes.trim(start_s, _within(start_s, end_s, codes.duration_s)),)


def _span_widgets(what: str) -> dict[str, Widget]:
    return {
        "start_s": number(0.0, 0.0, MAX_TIME_S, 0.1, "Where the part begins, in seconds.", round=0.001),
        "end_s": number(
            -1.0, -1.0, MAX_TIME_S, 0.1,
            f"Where the part ends, in seconds. -1, or later than its end = at the end of the {what}.", round=0.001,
        ),
    }  # fmt: skip


def _span_fault(start_s: float | None, end_s: float | None) -> str | None:
    """What is wrong with two times, before anything runs. A wired one, None, can be any."""
    try:
        if start_s is not None:
            check_span(start_s, end_s)
        elif end_s is not None and math.isnan(end_s):
            check_span(0.0, end_s)
    except InputError as error:
        return str(error)
    return None


def _within(start_s: float, end_s: float, length_s: float) -> float:
    """`end_s`, or -1, which is the end, for a time past it. One past an end before `start_s` stays, for its error."""
    if end_s <= length_s or start_s >= length_s:
        return end_s
    log.info("'end_s' of %.3f s is past the end: the part ends there, at %.3f s.", end_s, length_s)
    return -1.0


class MusicGenEncode(Node):
    DESCRIPTION = (
        "Turns sound into codes that MusicGen Sampler can continue. The sound is converted to the codec's sample rate "
        "and channels by itself."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "musicgen encode",
        "audio to codes",
        "continue music",
        "continuation",
        "encodec",
        "vae encode audio",
    )
    FUNCTION = "encode"
    RETURN_TYPES = (CODES,)
    RETURN_NAMES = ("codes",)
    OUTPUT_TOOLTIPS = ("The sound as codes, for the prompt of MusicGen Sampler, or for MusicGen Decode.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "codec": socket(CODEC, "The codec of the checkpoint that will continue the sound, from Load MusicGen."),
                "audio": socket(AUDIO, "The sound to encode: any sample rate, 1 to 8 channels."),
            },
        }

    @checked()
    def encode(self, codec: host.Managed, audio: dict) -> tuple[Codes]:
        sound = audio_in(audio)
        return (codec.run(lambda module: module.encode(sound, on_step=host.progress())),)
