"""Blends the weights of a fine-tune into those of its base, read from both files when they are needed."""

# W = F + sum of s D: F is the base moved towards whole fine-tunes, one after the other; D are the changes of adapters, each
# against the F that it was put on. A whole fine-tune that follows an adapter moves F alone, so that the adapter stays.

from dataclasses import replace

from torch import Tensor

from ...config import ModelConfig
from ...errors import CheckpointError, InputError
from ..adapter import Adapter
from ..checkpoint import Checkpoint, TextEncoderSource
from ..formats.audiocraft_settings import TEXT_DIMS
from .adapt import adapt, alters_text_encoder, changes_of
from .adapted import whole_of, with_changes, with_whole
from .lazy import Computed, Weight

MAX_STRENGTH = 2.0


def blend(base: Checkpoint, tuned: Checkpoint | Adapter, strength: float) -> Checkpoint:
    """`base` with its language model and projections moved towards `tuned`; codec and text encoder are the base's.

    strength 0 is the base itself, 1 the weights of `tuned` to the last bit; above 1 goes beyond. An adapter may go the other
    way too, down to -2: its change is subtracted. Adapters that were put on `base` before stay. Nothing is read yet.
    CheckpointError, naming both, if they are not of one architecture.
    """
    check_strength(tuned, strength)
    if isinstance(tuned, Adapter):
        adapted = adapt(base, tuned, strength)
        return base if strength == 0 else adapted
    check_architecture(base, tuned)
    if strength == 0:
        return base
    return replace(
        base,
        config=replace(base.config, name=_name(base.config, tuned.config, strength)),
        lm=_blend(base.lm, tuned.lm, strength),
        conditioner=_blend(base.conditioner, tuned.conditioner, strength),
    )


def merge(
    base: Checkpoint, text_encoder: TextEncoderSource | None, tuned: Checkpoint | Adapter, strength: float
) -> tuple[Checkpoint, TextEncoderSource | None]:
    """As `blend`, with the text encoder that is to be written beside `base`.

    InputError for an adapter that changes the text encoder, where none is to be written.
    """
    blended = blend(base, tuned, strength)
    if not isinstance(tuned, Adapter) or not alters_text_encoder(tuned) or strength == 0:
        return blended, text_encoder
    if text_encoder is None:
        raise InputError(
            f"{tuned.path} changes the text encoder too, which is left out of this file. It must be on this machine, and "
            "'--no-text-encoder' away."
        )
    changes = changes_of(base, tuned, strength, text_encoder.weights).text_encoder
    return blended, replace(text_encoder, weights=with_changes(text_encoder.weights, changes))


def check_strength(tuned: Checkpoint | Adapter, strength: float) -> None:
    """InputError for a strength that `tuned` cannot have."""
    lowest = -MAX_STRENGTH if isinstance(tuned, Adapter) else 0.0
    number = isinstance(strength, (int, float)) and not isinstance(strength, bool)
    if number and lowest <= strength <= MAX_STRENGTH:
        return
    if number and -MAX_STRENGTH <= strength < 0:
        raise InputError(
            f"'strength' {strength:g} is below 0, which only adapters (LoRA) take: {tuned.path} is a whole fine-tune, whose "
            "opposite is noise. Make an adapter of it by 'python -m musicgen convert --base', or choose 0 to 2."
        )
    raise InputError(
        f"'strength' must be a number from {lowest:g} to {MAX_STRENGTH:g} (0 = the base), got {strength!r}"
    )


def _blend(base: dict[str, Weight], tuned: dict[str, Weight], strength: float) -> dict[str, Weight]:
    def mix(old: Tensor, new: Tensor) -> Tensor:
        return new.sub_(old).mul_(strength).add_(old)

    table = {}
    for name, weight in base.items():
        old, new = whole_of(weight), whole_of(tuned[name])  # what a file does not have is the base's own weight
        whole = new if strength == 1 else Computed(old.shape, new.names, (old, new), mix, by_rows=True)
        table[name] = with_whole(weight, whole)
    return table


def _name(base: ModelConfig, tuned: ModelConfig, strength: float) -> str:
    return f"{base.name} + {tuned.name}" + ("" if strength == 1 else f" x {strength:g}")


def check_architecture(base: Checkpoint, tuned: Checkpoint) -> None:
    """CheckpointError, naming both, unless the two are of one architecture."""
    differences = [
        f"{what} {theirs}, not {ours}" for what, theirs, ours in _compared(tuned.config, base.config) if theirs != ours
    ]
    if differences:
        raise CheckpointError(
            f"The fine-tune {tuned.path} does not fit the model {base.config.name} ({base.path}): it has "
            f"{'; '.join(differences)}. A fine-tune fits only the model that it was trained from: load that one."
        )


def _compared(tuned: ModelConfig, base: ModelConfig) -> list[tuple[str, object, object]]:
    """(what, the fine-tune's, the base's) of everything that gives weights their shape or meaning."""
    rows: list[tuple[str, object, object]] = [
        (label, getattr(tuned.lm, name), getattr(base.lm, name))
        for label, name in (
            ("width", "dim"),
            ("layers", "n_layers"),
            ("heads", "n_heads"),
            ("feed-forward width", "ffn_dim"),
            ("codebooks", "n_codebooks"),
            ("codes a codebook", "cardinality"),
            ("delays", "delays"),
        )
    ]
    kinds = {True: "cross-attention to the text", False: "the text in front of the codes"}
    rows.append(("conditioning by", kinds[tuned.lm.cross_attention], kinds[base.lm.cross_attention]))
    rows.append(("melody conditioning", _melody(tuned), _melody(base)))
    rows.append(("a text encoder of width", tuned.text.dim, base.text.dim))
    names = tuned.text.name.rpartition("/")[2], base.text.name.rpartition("/")[2]
    if all(name in _TEXT_NAMES for name in names):  # others are names of folders, which say nothing
        rows.append(("the text encoder", *names))
    rows.append(("a sample rate of", tuned.codec.sample_rate_hz, base.codec.sample_rate_hz))
    return rows


_TEXT_NAMES = {name.rpartition("/")[2] for name in TEXT_DIMS}


def _melody(config: ModelConfig) -> str:
    if config.melody is None:
        return "none"
    kind = "of chords, " if config.melody.chords else "of "
    return f"{kind}{config.melody.n_chroma} chroma bins over 2^{config.melody.radix2_exp} samples"
