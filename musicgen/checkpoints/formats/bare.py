"""Weights of a language model without settings: a state dict by itself, named as in audiocraft or in transformers.

Shapes do not tell the number of heads, the codec or the text encoder. Such a file is read as a fine-tune of a base that
has settings. Sources of the names: audiocraft `LMModel`; transformers `MusicgenForConditionalGeneration` and
`MusicgenForCausalLM`, which has no projection of the text.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ..checkpoint import Checkpoint, TextEncoderSource
from ..weights.inventory import Inventory
from ..weights.lazy import Stored
from . import huggingface
from .audiocraft_names import LM_NAMES, plain_name, split_cross_attention, take_conditioner

logger = logging.getLogger(__name__)

# The ends of the names of two tensors, in audiocraft and in transformers.
MARKS = (("emb.0.weight", "linears.0.weight"), ("embed_tokens.0.weight", "lm_heads.0.weight"))
_FIRST = re.compile(
    r"(?P<prefix>(?:.*?\.)??)(?:(?P<audiocraft>emb)|(?P<whole>decoder\.)?model\.decoder\.embed_tokens)\.0\.weight"
)
_PROJECTIONS = re.compile(r"(condition_provider\..*output_proj|(audio_)?enc_to_dec_proj)\.(weight|bias)")
_OTHER_PARTS = r"(text_encoder|audio_encoder)\..*|decoder\.model\.decoder\.embed_positions\.weights?"

# Published model -> width, layers, codebooks, whether it has cross-attention, width of its text encoder.
PUBLISHED = {
    "facebook/musicgen-small": (1024, 24, 4, True, 768),
    "facebook/musicgen-medium": (1536, 48, 4, True, 768),
    "facebook/musicgen-large": (2048, 48, 4, True, 768),
    "facebook/musicgen-melody": (1536, 48, 4, False, 768),
    "facebook/musicgen-melody-large": (2048, 48, 4, False, 768),
    "facebook/musicgen-stereo-small": (1024, 24, 8, True, 768),
    "facebook/musicgen-stereo-medium": (1536, 48, 8, True, 768),
    "facebook/musicgen-stereo-large": (2048, 48, 8, True, 768),
    "facebook/musicgen-stereo-melody": (1536, 48, 8, False, 768),
    "facebook/musicgen-stereo-melody-large": (2048, 48, 8, False, 768),
    "facebook/audiogen-medium": (1536, 48, 4, True, 1024),
}


@dataclass(frozen=True)
class BareWeights:
    """The tensors of a language model under the names of `format`, what is in front of them cut off."""

    path: Path
    format: str  # "audiocraft" or "huggingface"
    tensors: Mapping[str, Stored]

    def shapes(self) -> tuple[int, int, int, bool, int | None]:
        """As in PUBLISHED; None for the text encoder where no projection is in the file."""
        embeddings = [t.shape for name, t in self.tensors.items() if re.search(r"emb(ed_tokens)?\.\d+\.weight$", name)]
        layers = {found[1] for name in self.tensors if (found := re.search(r"\blayers\.(\d+)\.", name))}
        cross = any(re.search(r"cross_attention|encoder_attn", name) for name in self.tensors)
        texts = [
            tensor.shape[-1]
            for name, tensor in self.tensors.items()
            if re.search(r"(description\.output_proj|^enc_to_dec_proj)\.weight$", name) and tensor.shape
        ]
        width = embeddings[0][-1] if embeddings and embeddings[0] else 0
        return width, len(layers), len(embeddings), cross, texts[0] if texts else None

    def described(self) -> str:
        """Their shapes in words, and the published models that have these."""
        shapes = self.shapes()
        width, n_layers, n_codebooks, cross, _ = shapes
        kind = "cross-attention to the text" if cross else "the text in front of the codes, as melody models have it"
        text = f"width {width}, {n_layers} layers, {n_codebooks} codebooks, {kind}"
        names = [
            name
            for name, known in PUBLISHED.items()
            if known[:4] == shapes[:4] and shapes[4] in (None, known[4])
        ]  # fmt: skip
        models = f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'}" if names else "no published model has"
        return f"{text}: {models} such shapes"


class NoSettingsError(CheckpointError):
    """A file of weights without settings was given where a whole model is needed."""

    def __init__(self, weights: BareWeights):
        super().__init__(
            f"{weights.path} holds the weights of a language model without settings ({weights.described()}). Use them as a "
            "fine-tune of a base with these shapes: load the base, and give this file to Apply MusicGen Fine-Tune or "
            "--replicate-weights."
        )
        self.weights = weights


def find_bare(tensors: Mapping[str, Stored], path: Path) -> BareWeights | None:
    """The language model among the tensors of a file, whatever wrapper's prefix they have; None if there is none."""
    first = next((found for name in tensors if (found := _FIRST.fullmatch(name))), None)
    if first is None:
        return None
    added = "" if first["audiocraft"] or first["whole"] else "decoder."
    table = {}
    for name, tensor in tensors.items():
        inner = name.removeprefix(first["prefix"])
        inside = added and inner.startswith(("model.decoder.", "lm_heads."))
        table[added + inner if inside else inner] = tensor
    if len(table) != len(tensors):
        raise CheckpointError(f"{path} holds some of its tensors twice, with and without '{first['prefix']}' in front")
    return BareWeights(path, "audiocraft" if first["audiocraft"] else "huggingface", table)


def mentions_bare(contents: bytes) -> bool:
    """Whether a header or a pickle seems to name the tensors of a language model."""
    return any(all(mark.encode() in contents for mark in pair) for pair in MARKS)


def find_table(contents: object) -> dict[str, Any] | None:
    """The state dict of a language model in an unpickled object, itself or a level or two deeper."""
    for _ in range(3):
        if not isinstance(contents, dict):
            return None
        if any(isinstance(name, str) and name.endswith(tuple(pair[0] for pair in MARKS)) for name in contents):
            return contents
        keys = ("fsdp_best_state", "best_state", "state_dict", "model", "module")
        contents = next((contents[key] for key in keys if contents.get(key)), None)
    return None


def as_fine_tune(weights: BareWeights, base: Checkpoint) -> Checkpoint:
    """`base` with the language model and, if they are there, the projections of `weights`.

    CheckpointError, naming the first tensors, unless every one has its place in the base.
    """
    inventory = Inventory(weights.tensors, str(weights.path))
    if weights.format == "audiocraft":
        inventory = Inventory.renamed(split_cross_attention(weights.tensors), plain_name, str(weights.path))
    inventory.drop(_OTHER_PARTS)
    names = LM_NAMES if weights.format == "audiocraft" else huggingface.LM_NAMES
    lm, conditioner = inventory.take_lm(base.config.lm, names), base.conditioner
    if any(_PROJECTIONS.fullmatch(name) for name in weights.tensors):
        take = take_conditioner if weights.format == "audiocraft" else huggingface.take_conditioner
        conditioner = take(inventory, base.config)
    else:
        logger.info("%s: no projection of the text is in it, that of %s is used", weights.path, base.config.name)
    problems = inventory.problems()
    if problems:
        raise CheckpointError(
            f"The weights in {weights.path}, which have no settings, do not fit the model {base.config.name} "
            f"({base.path}): {'; '.join(problems)}. They are of {weights.described()}. Load a base with these shapes."
        )
    config = replace(base.config, name=weights.path.stem)
    return replace(
        base, path=weights.path, format=weights.format, config=config, lm=lm, conditioner=conditioner, codec={},
        text_encoder=TextEncoderSource(), codec_origin="",
    )  # fmt: skip
