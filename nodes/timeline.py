"""Texts at their times, and blends -> conditioning."""

from typing import Any

from ..musicgen.conditioning import ENDINGS, blend, encode_timeline, tempo_remarks, told_lines
from . import reports
from .host import Managed
from .inputs import Node, checked
from .sockets import CATEGORY, CONDITIONER, CONDITIONING
from .widgets import choice, number, socket, text


class MusicGenTimeline(Node):
    DESCRIPTION = (
        "Describes a piece that changes: texts at their times, such as '0: calm flute | 0:20: drums enter | -8: slow ending'. "
        "What is written from a time on follows its text."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("prompt timeline", "prompt schedule", "prompt travel", "song structure", "sections", "long piece")
    FUNCTION = "encode"
    RETURN_TYPES = (CONDITIONING,)
    RETURN_NAMES = ("conditioning",)
    OUTPUT_TOOLTIPS = (
        "The texts with their times, for MusicGen Sampler's positive, MusicGen Melody or Blend Prompts.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "conditioner": socket(CONDITIONER, "The text encoder, from Load MusicGen."),
                "lines": text(
                    "",
                    "One entry a line, or divided by |. Each: time, colon, text, and if wanted @ with a weight: "
                    "'1:05: drums enter @ 0.7'. Times are seconds or minutes:seconds of the whole piece; -8 is 8 seconds before "
                    "its end. Weights go from 0 (not followed) over 1 (as usual) to 2.",
                    multiline=True,
                    dynamicPrompts=True,
                    placeholder="0: calm bamboo flute, slow\n0:20: flute and drums, medium\n-8: flute alone, very slow",
                ),
            },
            "optional": {
                "ending": choice(
                    ENDINGS,
                    "cadence: the last 8 seconds follow the last text with words that ask for an ending. How well depends on "
                    "the model, and the music stops at its length in any case. none: only what is written. A fade is Decode's "
                    "fade_out_s.",
                ),
            },
        }

    @checked()
    def encode(self, conditioner: Managed, lines: str, ending: str = ENDINGS[0]) -> tuple:
        module = conditioner.module
        written = told_lines(module, lines, ending)
        remarks = [module.warning(line.text) for line in written] + tempo_remarks(module, written)
        remarks = list(dict.fromkeys(remark for remark in remarks if remark))
        if remarks:
            reports.show("\n".join(remarks))
        return (conditioner.run(lambda module: encode_timeline(module, lines, ending)),)


class MusicGenBlend(Node):
    DESCRIPTION = (
        "Blends two descriptions: music that both allow, more like the one or the other by the ratio. The model is asked about "
        "each and the answers are averaged, which takes about half again as long as one description."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "blend prompts",
        "mix prompts",
        "conditioning average",
        "conditioning combine",
        "morph",
        "crossfade",
    )
    FUNCTION = "blend"
    RETURN_TYPES = (CONDITIONING,)
    RETURN_NAMES = ("conditioning",)
    OUTPUT_TOOLTIPS = ("The blend, for MusicGen Sampler's positive or negative, MusicGen Melody or another blend.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "first": socket(CONDITIONING, "A description, from MusicGen Text, Prompt Timeline or MusicGen Melody."),
                "second": socket(CONDITIONING, "Another one, of the same model."),
                "ratio": number(
                    0.5, 0.0, 1.0, 0.01,
                    "How much of the second (0 to 1, no unit). 0 is the first alone, 1 the second alone, exactly.",
                ),
            },
        }  # fmt: skip

    @checked()
    def blend(self, first: Any, second: Any, ratio: float) -> tuple:
        return (blend(first, second, ratio),)
