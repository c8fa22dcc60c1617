"""Takes of a piece: each with its player and its measures, ranked; the chosen ones go on."""

import hashlib
import itertools
import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..musicgen import audio as engine
from ..musicgen.analysis import (
    Measures,
    asked_bpm,
    check_choice,
    chosen,
    faults,
    measure,
    rank,
)
from ..musicgen.audio import Audio
from ..musicgen.codes import Codes, Origin
from ..musicgen.conditioning import Conditioning, Mixture
from ..musicgen.errors import InputError
from . import host
from .inputs import Node, checked, wiring_fault
from .sockets import AUDIO, CATEGORY, CODES, CONDITIONING, MODEL, audio_in, audio_out
from .widgets import socket, text

_FOLDER = "musicgen_takes"  # in ComfyUI's temp folder
_N_PEAKS = 200  # of a waveform on the page
_MAX_TAKES = 256  # what a page can show


@dataclass(frozen=True)
class _Take:
    sound: Audio  # one clip
    codes: Codes | None  # one row
    measures: Measures

    @property
    def origin(self) -> Origin | None:
        return self.codes.origins[0] if self.codes is not None and self.codes.origins else None


class MusicGenTakes(Node):
    DESCRIPTION = (
        "Plays every take of a batch or list, each with its waveform, seed and measures, and ranks them. The chosen "
        "takes go on, with their codes, so that one can be continued without encoding it."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("takes", "preview audio batch", "compare", "rank", "pick the best", "choose take", "play all")
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (True, True)
    FUNCTION = "show"
    RETURN_TYPES = (AUDIO, CODES)
    RETURN_NAMES = ("audio", "codes")
    OUTPUT_TOOLTIPS = (
        "The chosen takes: one batch if they are equally long, else a list.",
        "Their codes with seeds and texts, for the prompt of MusicGen Sampler. Nothing unless codes are connected.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "audio": socket(AUDIO, "The takes: a batch, or a list of sounds of any lengths."),
                "choose": text(
                    "best",
                    "Which takes go on: best, best 3, all, or numbers such as 2 or 1,3 or 2-4. The buttons of the takes "
                    "write their numbers here.",
                ),
            },
            "optional": {
                "codes": socket(CODES, "What the takes were decoded from: they bring seeds and texts, and go on too."),
                "model": socket(
                    MODEL,
                    "The language model that wrote the takes: tells how likely each is. Needs codes and positive.",
                ),
                "positive": socket(
                    CONDITIONING, "The text of the takes: tells how much of it is heard. Needs codes and model."
                ),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, choose: Any = None, input_types: Any = None) -> bool | str:
        # ComfyUI hands lists over here as well, as INPUT_IS_LIST asks for.
        choose, input_types = (
            value[0] if isinstance(value, (list, tuple)) else value for value in (choose, input_types)
        )
        try:
            if choose is not None:
                check_choice(choose)
        except InputError as error:
            return str(error)
        return wiring_fault(cls, input_types or {}) or True

    def __init__(self) -> None:
        self._seen: list[weakref.ref] = []
        self._takes: list[_Take] = []

    @checked(of_lists=True)
    def show(
        self,
        audio: list[dict],
        choose: list[str],
        codes: list[Codes] | None = None,
        model: list[host.Managed] | None = None,
        positive: list[Any] | None = None,
        unique_id: list[str] | None = None,
    ) -> dict:
        takes = self._measured(audio, codes, model[0] if model else None, positive)
        order = rank([take.measures for take in takes])
        files = _files(takes, (unique_id or ["0"])[0])
        picked = chosen(choose[0], order)
        shown = [
            {**files[index], "number": index + 1, "rank": order.index(index) + 1, **_shown(take)}
            for index, take in enumerate(takes)
        ]
        return {"ui": {"takes": shown}, "result": _handed_on([takes[index] for index in picked])}

    def _measured(
        self, audio: list[dict], codes: list[Codes] | None, model: host.Managed | None, positive: list[Any] | None
    ) -> list[_Take]:
        """The takes, measured anew only if something else has come in than last time: a choice costs nothing."""
        sounds = [audio_in(one) for one in audio]
        came_in = [*(one["waveform"] for one in audio), *(codes or []), *filter(None, [model]), *(positive or [])]
        if self._seen and _same(self._seen, came_in):
            return self._takes
        _check(sounds, codes, model, positive)
        self._takes = _take_apart(sounds, codes, model, positive)
        self._seen = [weakref.ref(one) for one in came_in]
        return self._takes


def _same(seen: Sequence[weakref.ref], came_in: Sequence[Any]) -> bool:
    return len(seen) == len(came_in) and all(ref() is one for ref, one in zip(seen, came_in, strict=True))


def _check(
    sounds: list[Audio], codes: list[Codes] | None, model: host.Managed | None, positive: list[Any] | None
) -> None:
    n_takes = sum(len(sound.samples) for sound in sounds)
    if n_takes > _MAX_TAKES:
        raise InputError(f"'audio' holds {n_takes} takes, at most {_MAX_TAKES} can be shown. Give fewer at a time.")
    if codes is not None and [len(one.codes) for one in codes] != [len(sound.samples) for sound in sounds]:
        n_codes = sum(len(one.codes) for one in codes)
        raise InputError(
            f"'codes' holds {n_codes} takes and 'audio' {n_takes}, or in other batches. Connect the codes that 'audio' was "
            "decoded from."
        )
    given = {"codes": codes, "model": model, "positive": positive}
    missing = [name for name, value in given.items() if value is None]
    if missing and missing != ["model", "positive"] and len(missing) < 3:
        raise InputError(
            f"The likelihood of a take needs 'codes', 'model' and 'positive', but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not connected. Connect all three, or leave 'model' and 'positive' out."
        )
    if any(isinstance(each, Mixture) for each in positive or ()):
        raise InputError(
            "'positive' is a mixture of texts (Prompt Timeline, Blend Prompts), under which takes have no likelihood. Connect "
            "one MusicGen Text, or leave 'model' and 'positive' out."
        )
    if model is not None and not _is_native(model):
        raise InputError("'model' is of the engine audiocraft, which tells no likelihood. Load it with engine native.")
    if positive is not None and len(positive) not in (1, len(sounds)):
        raise InputError(
            f"'positive' is a list of {len(positive)}, but 'audio' one of {len(sounds)}. Give one text, or as many."
        )


def _take_apart(
    sounds: list[Audio], codes: list[Codes] | None, model: host.Managed | None, positive: list[Any] | None
) -> list[_Take]:
    takes = []
    for index, sound in enumerate(sounds):
        group = None if codes is None else codes[index]
        conditioning = None if positive is None else positive[min(index, len(positive) - 1)]
        n_rows = len(sound.samples)
        likelihoods: list[tuple[float | None, float | None]] = [(None, None)] * n_rows
        if model is not None and group is not None and conditioning is not None:
            likelihoods = _likelihoods(model, group, conditioning)
        for row, (likelihood, gain) in enumerate(likelihoods):
            host.check_interrupted()
            clip = Audio(sound.samples[row : row + 1], sound.rate_hz)
            one = None if group is None else group.rows([row])
            words = _words(one, conditioning, row)
            figures = measure(clip, None if one is None else one.codes[0], asked_bpm(words), likelihood, gain)
            takes.append(_Take(clip, one, figures))
    return takes


def _is_native(model: host.Managed) -> bool:
    from ..musicgen.pipeline import LanguageModel

    return isinstance(model.module, LanguageModel)


def _likelihoods(
    model: host.Managed, codes: Codes, conditioning: Conditioning
) -> list[tuple[float | None, float | None]]:
    """(likelihood, what the text adds to it) of each row; the latter None without a text."""

    from ..musicgen.analysis.likelihood import likelihood_bytes, log_likelihood

    def both(module: Any) -> tuple[torch.Tensor, torch.Tensor]:
        kinds = (conditioning.with_default(), conditioning.null())
        scores = [log_likelihood(module, codes, kind, host.progress()).mean(dim=1) for kind in kinds]
        return scores[0], scores[0] - scores[1]

    likelihood, gain = model.run(both, memory_bytes=likelihood_bytes(model.module))
    return [(float(one), float(more) or None) for one, more in zip(likelihood, gain, strict=True)]


def _words(codes: Codes | None, conditioning: Any, row: int) -> str | None:
    if codes is not None and codes.origins and codes.origins[0].text:
        return codes.origins[0].text
    words = getattr(conditioning, "words", None)
    return words[min(row, len(words) - 1)] if words else None


def _files(takes: list[_Take], node: str) -> list[dict[str, str]]:
    """The takes in the temp folder, as the page asks for them. What this node showed before is removed.

    A name has the sound's digest, so that a page that keeps a sound by its address does not play another.
    """
    folder, prefix = host.temp_folder(_FOLDER), re.sub(r"[^0-9A-Za-z]", "-", str(node))
    names = []
    for number, take in enumerate(takes, start=1):
        digest = hashlib.blake2b(take.sound.samples.contiguous().numpy().tobytes(), digest_size=8).hexdigest()
        names.append(f"{prefix}_{number}_{digest}.flac")
        if not (folder / names[-1]).exists():
            engine.write(take.sound, folder / names[-1], "flac", check=host.check_interrupted)
    for path in folder.glob(f"{prefix}_*"):
        if path.name not in names:
            path.unlink(missing_ok=True)
    return [{"filename": name, "subfolder": _FOLDER, "type": "temp"} for name in names]


def _shown(take: _Take) -> dict[str, Any]:
    """What the page draws of one take. A seed is a text: JavaScript's numbers end at 53 bits."""
    measures, origin = take.measures, take.origin
    return {
        "seconds": round(take.sound.duration_s, 2),
        "seed": None if origin is None else str(origin.seed),
        "text": None if origin is None else origin.text,
        "peaks": _peaks(take.sound),
        "faults": faults(measures),
        "silent": measures.silent,
        "level_db": round(measures.level_db, 1),
        "bpm": measures.bpm and round(measures.bpm, 1),
        "asked_bpm": measures.asked_bpm,
        "repetition": round(measures.repetition, 2),
        "commonest_share": measures.commonest_share and round(measures.commonest_share, 2),
        "likelihood": measures.likelihood and round(measures.likelihood, 3),
        "text_gain": measures.text_gain and round(measures.text_gain, 3),
    }


def _peaks(sound: Audio) -> list[int]:
    """Peak level of each of _N_PEAKS parts, in percent of full scale."""
    loudest = sound.samples[0].abs().amax(dim=0)
    bounds = torch.linspace(0, len(loudest), min(_N_PEAKS, len(loudest)) + 1).long().tolist()
    return [round(100 * min(1.0, float(loudest[a:b].max()))) for a, b in itertools.pairwise(bounds)]


def _handed_on(takes: list[_Take]) -> tuple[Any, Any]:
    """(sounds, codes) as lists: one batch where all are of one shape, else one entry a take."""
    shapes = {(take.sound.samples.shape, take.sound.rate_hz) for take in takes}
    groups = [takes] if len(shapes) == 1 else [[take] for take in takes]
    sounds = [
        audio_out(Audio(torch.cat([take.sound.samples for take in group]), group[0].sound.rate_hz)) for group in groups
    ]
    if takes[0].codes is None:
        return sounds, host.nothing("MusicGen Takes has no codes to hand on: connect its 'codes'.")
    return sounds, [_joined([take.codes for take in group if take.codes is not None]) for group in groups]


def _joined(codes: list[Codes]) -> Codes:
    known = [one.origins for one in codes if one.origins is not None]
    origins = tuple(origin for one in known for origin in one) if len(known) == len(codes) else None
    first = codes[0]
    return Codes(torch.cat([one.codes for one in codes]), first.frame_rate_hz, first.codec, origins)
