"""Checkpoint name -> model, conditioner, codec; and a fine-tune applied to the first two."""

import re
from pathlib import Path
from typing import Any

from ..musicgen.checkpoints.weights.blend import MAX_STRENGTH
from ..musicgen.config import PRECISIONS
from ..musicgen.errors import InputError, MusicGenError
from ..musicgen.store import ModelStore, is_url
from ..musicgen.store.model_store import ADAPTERS, Kind
from ..musicgen.store.published import ADDRESSES, DEFAULT, DIFFUSION_MODEL, KNOWN, SHIPPED
from . import host
from .inputs import Node, checked, checked_text, wiring_fault
from .sockets import CATEGORY, CODEC, CONDITIONER, DIFFUSION, MODEL
from .widgets import choice, number, socket, text

ENGINES = ("native", "audiocraft")
MAX_NAME, MAX_URL = 1000, 8000  # characters
MAX_PART_BYTES = 255  # of a file's name, on the file systems in use


def _store() -> ModelStore:
    return ModelStore(host.model_dirs())


def _fingerprint(folder: Path) -> str:
    """Changes when a file of the checkpoint is replaced: names, sizes and times, not contents."""
    entries = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        stat = path.stat()
        entries.append(f"{path}|{stat.st_size}|{stat.st_mtime_ns}")
    return "\n".join(entries)


def _checked_name(kind: str, value: Any) -> str:
    """The name of a model, diffusion or weights; InputError, naming the widget, where no file can have such a name."""
    name = checked_text(kind, value)
    if kind == "weights":
        name = name.strip()
    if kind != "diffusion" and is_url(name):
        return checked_text(kind, name, MAX_URL)
    checked_text(kind, name, MAX_NAME)
    longest = max(re.split(r"[/\\]", name), key=len)
    if "\0" in name or len(longest.encode()) > MAX_PART_BYTES:
        raise InputError(
            f"'{kind}' must be the name of a file or folder in models/musicgen, each part of at most {MAX_PART_BYTES} "
            f"bytes and without NUL characters, got {name[:80]!a}."
        )
    return name


def _name_fault(kind: Kind, value: Any) -> str | None:
    """What is wrong with a name, before anything runs. A wired one, None, is checked when its node runs."""
    if value is None:
        return None
    try:
        name = _checked_name(kind, value)
        if name or kind != "weights":
            _store().check(name, kind)
    except MusicGenError as error:
        return str(error)
    return None


def _state(kind: Kind, value: Any) -> str | float:
    """What IS_CHANGED says of a name: the state of its files. A wired one, None, has no say: its node's inputs have."""
    if value is None:
        return ""
    try:
        name = _checked_name(kind, value)
        if kind == "weights" and (not name or is_url(name)):
            return ""  # what an address stands for is downloaded once, and then stays
        return _fingerprint(_store().find(name, kind))
    except (MusicGenError, OSError):
        return float("nan")  # run it, so that it can say what is wrong


class MusicGenLoader(Node):
    DESCRIPTION = (
        "Loads a MusicGen checkpoint, one that comes with this pack or one from models/musicgen: the language model "
        "that writes the music, the text encoder that reads your description, and the codec that turns codes into sound."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("musicgen", "load musicgen", "music model", "text to music", "audiocraft", "checkpoint")
    FUNCTION = "load"
    RETURN_TYPES = (MODEL, CONDITIONER, CODEC)
    RETURN_NAMES = ("model", "conditioner", "codec")
    OUTPUT_TOOLTIPS = (
        "The language model, for MusicGen Sampler.",
        "The text encoder, for MusicGen Text.",
        "The EnCodec audio codec, for MusicGen Decode and MusicGen Encode Audio.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        installed = _store().list()
        names = list(dict.fromkeys([*SHIPPED, *installed, *KNOWN, *ADDRESSES]))
        return {
            "required": {
                "model": choice(
                    names,
                    "general-mini plays many instruments and genres, pansori-mini pansori; both are small and in this pack (MIT "
                    "licence). Then what is in models/musicgen, and the published names; one that is not there yet is downloaded when it is first used. Meta's: small about "
                    "1 GB, medium 4 GB, large 7 GB, not for commercial use (CC-BY-NC 4.0).",
                    default=installed[0] if installed else DEFAULT,
                ),
                "precision": choice(
                    PRECISIONS,
                    "Number format of the language model's weights. auto: half precision on a GPU and on a PC's "
                    "processor, else float32. float32 gives audiocraft's very codes. int8 is the fastest on a processor "
                    "and needs the least memory.",
                ),
            },
            "optional": {
                "engine": choice(
                    ENGINES,
                    "native: this pack's own engine. audiocraft: Meta's library, if you have installed it, for comparison.",
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, model: Any = None, input_types: dict | None = None) -> bool | str:
        # Naming `model` switches off ComfyUI's list check, whose message does not say what to do.
        return wiring_fault(cls, input_types or {}) or _name_fault("model", model) or True

    @classmethod
    def IS_CHANGED(cls, model: str | None, **_) -> str | float:
        return _state("model", model)

    @checked("model")
    def load(self, model: str, precision: str, engine: str = "native") -> tuple:
        model = _checked_name("model", model)
        store, on_download = _store(), host.progress()
        path = store.ensure(model, on_download)
        device, text_encoder_dirs = host.model_device(), host.text_encoder_dirs()
        if engine == "audiocraft":
            if precision != "auto":
                raise InputError(
                    f"'precision' {precision} cannot be chosen with the audiocraft engine, which picks its own. "
                    "Set 'precision' to auto, or 'engine' to native."
                )
            from ..reference import audiocraft

            loaded = audiocraft.load(path, device, text_encoder_dirs, name=model)
        else:
            from ..musicgen import loading

            check = host.check_interrupted
            loaded = loading.load(path, precision, device, text_encoder_dirs, model, store, on_download, check)
        return (
            host.Managed(loaded.model, "model"),
            host.Managed(loaded.conditioner, "text_encoder"),
            host.Managed(loaded.codec, "codec"),
        )


class MusicGenDiffusionLoader(Node):
    DESCRIPTION = (
        "Loads a MultiBand Diffusion model from models/musicgen: another way to turn codes into sound, clearer than the "
        "codec's own and far slower. One model serves all checkpoints that share the codec."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("multiband diffusion", "multi band diffusion", "mbd", "diffusion decoder", "load diffusion")
    FUNCTION = "load"
    RETURN_TYPES = (DIFFUSION,)
    RETURN_NAMES = ("diffusion",)
    OUTPUT_TOOLTIPS = ("For MusicGen Decode, MultiBand Diffusion.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        installed = _store().list("diffusion")
        return {
            "required": {
                "diffusion": choice(
                    list(dict.fromkeys([*installed, DIFFUSION_MODEL])),
                    "File in models/musicgen, installed ones first. The published one is always listed; if it is not "
                    "there yet, it is downloaded when it is first used.",
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, diffusion: Any = None, input_types: dict | None = None) -> bool | str:
        return wiring_fault(cls, input_types or {}) or _name_fault("diffusion", diffusion) or True

    @classmethod
    def IS_CHANGED(cls, diffusion: str | None) -> str | float:
        return _state("diffusion", diffusion)

    @checked("diffusion")
    def load(self, diffusion: str) -> tuple:
        from ..musicgen import multiband

        diffusion = _checked_name("diffusion", diffusion)
        path = _store().ensure(diffusion, host.progress(), "diffusion")
        loaded = multiband.load_diffusion(path, host.model_device(), diffusion, host.check_interrupted)
        return (host.Managed(loaded, "model"),)


class MusicGenFineTune(Node):
    DESCRIPTION = (
        "Applies a fine-tune to a model of the same architecture: a LoRA, or whole weights such as those trained on Replicate. "
        "The model that comes in stays as it is; several fine-tunes can follow one another."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "musicgen lora",
        "fine-tuned weights",
        "replicate weights",
        "trained model",
        "blend models",
        "style",
    )
    FUNCTION = "apply"
    RETURN_TYPES = (MODEL, CONDITIONER)
    RETURN_NAMES = ("model", "conditioner")
    OUTPUT_TOOLTIPS = (
        "The fine-tuned language model, for MusicGen Sampler.",
        "The conditioner that belongs to it, for MusicGen Text and MusicGen Melody.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "model": socket(MODEL, "The model that the fine-tune was trained from, from Load MusicGen."),
                "conditioner": socket(CONDITIONER, "The conditioner of the same Load MusicGen node."),
                "weights": text(
                    "",
                    "File or folder in models/musicgen or its folder loras: a LoRA (PEFT's folder, or a file), or whole weights "
                    "such as trained_model.tar. Or an https address that is downloaded there once. Empty = no fine-tune: the "
                    "model as it came in.",
                    placeholder="trained_model.tar, or https://...",
                    found=sorted(_store().list("weights"), key=lambda name: not name.startswith(f"{ADAPTERS}/")),
                ),
                "strength": number(
                    1.0, -MAX_STRENGTH, MAX_STRENGTH, 0.05,
                    "How far to go from the model towards the fine-tune (a factor). 0 = the model as it came in, 1 = the "
                    "fine-tune, between = a blend, above 1 = exaggerated. Below 0, away from its style: LoRA alone.",
                ),
            },
        }  # fmt: skip

    @classmethod
    def VALIDATE_INPUTS(cls, weights: Any = None, input_types: dict | None = None) -> bool | str:
        return wiring_fault(cls, input_types or {}) or _name_fault("weights", weights) or True

    @classmethod
    def IS_CHANGED(cls, weights: str | None = None, **_) -> str | float:
        return _state("weights", weights)

    @checked()
    def apply(self, model: host.Managed, conditioner: host.Managed, weights: str, strength: float) -> tuple:
        from ..musicgen import loading

        weights = _checked_name("weights", weights)
        if not weights:
            return model, conditioner
        path = _store().ensure(weights, host.progress(), "weights")
        blended = loading.apply_fine_tune(model.module, conditioner.module, path, strength, host.check_interrupted)
        if blended[0] is model.module:
            return model, conditioner
        return host.Managed(blended[0], "model"), host.Managed(blended[1], "text_encoder")
