"""T5 through transformers: a text to the last hidden states of its tokens."""

import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from ..config import TextConfig
from ..dependencies import require
from ..errors import CheckpointError, InputError

logger = logging.getLogger(__name__)

MAX_TOKENS = 2048  # far beyond any description; protects memory from a pasted book


class TextEncoder(nn.Module):
    """A T5 encoder with its tokenizer: str -> [n, t], t its width; `</s>` is the last token.

    Source: audiocraft `T5Conditioner` (no truncation, no text normalization).
    """

    def __init__(self, encoder: nn.Module, tokenizer: object):
        super().__init__()
        self.encoder = encoder.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @property
    def dim(self) -> int:
        return self.encoder.config.d_model

    @property
    def device(self) -> torch.device:
        return self.encoder.shared.weight.device

    @torch.inference_mode()
    def forward(self, text: str) -> Tensor:
        """Hidden states of one text, [n, t] float32. InputError for a text of more than 2048 tokens."""
        tokens = self.tokenizer([text], return_tensors="pt")
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        if ids.shape[1] > MAX_TOKENS:
            raise InputError(
                f"'text' is {ids.shape[1]} tokens long; at most {MAX_TOKENS} are allowed. Shorten the description."
            )
        states = self.encoder(input_ids=ids.to(self.device), attention_mask=mask.to(self.device))
        return states.last_hidden_state[0].float()


def empty_encoder(config: dict, tokenizer: Path) -> TextEncoder:
    """An encoder whose weights are allocated but not filled, for weights that lie inside a checkpoint."""
    library = _t5()
    with torch.device("meta"):
        encoder = library.T5EncoderModel(library.T5Config(**config))
    encoder = encoder.to_empty(device="cpu")
    encoder.encoder.embed_tokens = encoder.shared  # to_empty unties them
    return TextEncoder(encoder, _tokenizer(tokenizer))


def find_encoder(config: TextConfig, folder: Path | None, search: Sequence[Path]) -> TextEncoder:
    """The encoder from `folder` (a checkpoint's own), else by name from `search`, the hub cache, or the hub.

    CheckpointError names the folders looked in and what to put there.
    """
    if folder is not None:
        return _checked(_from_pretrained(folder, local_only=True), config, folder)
    for parent in search:
        for candidate in (Path(parent) / config.name, Path(parent) / config.name.rpartition("/")[2]):
            if (candidate / "config.json").is_file():
                return _checked(_from_pretrained(candidate, local_only=True), config, candidate)
    _t5()  # so that a missing library is not mistaken for a missing file
    failures = []
    for local_only in (True, False):
        try:
            if not local_only:
                logger.info("downloading the text encoder %s from the Hugging Face hub", config.name)
            return _checked(_from_pretrained(config.name, local_only), config, config.name)
        except CheckpointError as error:
            failures.append(str(error))
    looked = ", ".join(str(Path(parent) / config.name) for parent in search) or "no models folder"
    raise CheckpointError(
        f"The text encoder '{config.name}' was found neither in {looked} nor in the Hugging Face cache, and it "
        f"could not be downloaded from https://huggingface.co/{config.name} ({failures[-1]}). Download config.json, "
        f"model.safetensors, tokenizer.json and tokenizer_config.json (or spiece.model) from that address into "
        f"{Path(search[0]) / config.name if search else 'models/text_encoders/' + config.name}."
    )


def _from_pretrained(name: str | Path, local_only: bool) -> TextEncoder:
    library = _t5()
    try:
        encoder = library.T5EncoderModel.from_pretrained(str(name), local_files_only=local_only)
        return TextEncoder(encoder, _tokenizer(name, local_only))
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"text encoder {name} cannot be loaded: {type(error).__name__}: {reason}") from error


def _tokenizer(name: str | Path, local_only: bool = True) -> object:
    library = require("transformers.models.auto.tokenization_auto", "The text encoder", "transformers")
    try:
        return library.AutoTokenizer.from_pretrained(str(name), local_files_only=local_only)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"the tokenizer in {name} cannot be loaded: {type(error).__name__}: {reason}") from error


def _t5() -> ModuleType:
    return require("transformers.models.t5.modeling_t5", "The text encoder", "transformers")


def _checked(encoder: TextEncoder, config: TextConfig, source: str | Path) -> TextEncoder:
    if encoder.dim != config.dim:
        raise CheckpointError(
            f"the text encoder {source} is {encoder.dim} wide, but the checkpoint was trained with "
            f"{config.name}, {config.dim} wide"
        )
    return encoder
