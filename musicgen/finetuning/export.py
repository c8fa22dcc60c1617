"""Files of a fine-tune: PEFT's folder, one safetensors file with the same in it, or a whole model in the pack's own format."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints import Checkpoint
from ..checkpoints.formats.bare import PUBLISHED
from ..checkpoints.tools.convert import convert
from ..config import ModelConfig
from ..dependencies import require
from ..outputs import atomic_file
from ..store.published import SHIPPED
from .dataset import Dataset
from .low_rank import PREFIX
from .model import Trainable
from .proof import Proof
from .samples import merged
from .settings import TrainSettings
from .trainer import History

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "adapter_config.json", "adapter_model.safetensors", "README.md"
CONFIG_KEY = "adapter_config"  # of a file's metadata: what stands in adapter_config.json
_META, _MIT = "cc-by-nc-4.0", "mit"
_COMMON_WORDS = 20


def fingerprint_of(source: Checkpoint) -> str:
    """Digest of the first row of every weight of a language model: names the base that a fine-tune was trained from."""
    digest = hashlib.sha256()
    for name, weight in sorted(source.lm.items()):
        digest.update(name.encode())
        digest.update(weight.rows(0, 1).read().numpy().tobytes())
    return digest.hexdigest()[:32]


def license_of(config: ModelConfig) -> tuple[str, str]:
    """(identifier, sentence) of the licence that a fine-tune of this base has: that of the base's weights."""
    lm = config.lm
    shape = (lm.dim, lm.n_layers, lm.n_codebooks, lm.cross_attention, config.text.dim)
    if (name := config.name.rpartition("/")[2].removesuffix(".safetensors")) in SHIPPED:
        return _MIT, f"{name} is under the MIT licence, and so is this fine-tune of it."
    if shape in PUBLISHED.values():
        return (
            _META,
            "Meta's MusicGen weights are under CC-BY-NC 4.0, and so is this fine-tune of them: not for commercial use.",
        )
    return (
        "other",
        f"The licence of {config.name}'s weights holds for this fine-tune too. Meta's are CC-BY-NC 4.0: not for commercial use.",
    )


def card(
    source: Checkpoint, dataset: Dataset, settings: TrainSettings, history: History, proof: Proof | None
) -> dict[str, str]:
    """What the file says of itself, for its metadata: texts, those of tables as JSON."""
    words = Counter(word.strip(".,:;") for clip in dataset.clips for word in clip.text.lower().split())
    license, sentence = license_of(source.config)
    data = {
        "clips": len(dataset.clips), "seconds": round(dataset.duration_s, 1), "not used": len(dataset.problems),
        "vocals dropped": dataset.drop_vocals, "common words": [word for word, _ in words.most_common(_COMMON_WORDS) if word],
        "identity": dataset.identity,
    }  # fmt: skip
    measured = [[one.step, round(one.held_out, 4), round(one.foreign, 4)] for one in history.measured]
    training = {
        "updates": len(history.losses), "weights of update": history.best_step, "ended": history.stopped or "at the last update",
        "seconds": round(history.took_s), "update, held-out loss, loss on other music": measured,
    }  # fmt: skip
    table: dict[str, Any] = {
        "base": source.config.name, "base_fingerprint": fingerprint_of(source), "license": license,
        "license_note": sentence + " The rights in the music that was learned stay with their owners.",
        "change": "The weights were changed by training on the data described here.",
        "data": data, "settings": settings.as_dict(), "seed": str(settings.seed), "training": training,
    }  # fmt: skip
    if proof is not None:
        table |= {"verdict": proof.verdict, "proof": proof.as_dict()}
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in table.items()
    }


def adapter_config(model: Trainable, settings: TrainSettings) -> dict[str, Any]:
    """PEFT's settings of the adapters."""
    names = [name.removeprefix(PREFIX) for adapter in model.adapters.values() for name in adapter.names]
    kind = (
        "MusicgenForConditionalGeneration"
        if model.config.lm.cross_attention
        else "MusicgenMelodyForConditionalGeneration"
    )
    return {
        "peft_type": "LORA", "task_type": None, "r": settings.rank, "lora_alpha": settings.scale * settings.rank,
        "lora_dropout": settings.dropout, "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True,
        "use_rslora": False, "use_dora": False, "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {},
        "target_modules": sorted(names), "inference_mode": True, "base_model_name_or_path": model.config.name,
        "auto_mapping": {"base_model_class": kind, "parent_library": "transformers.models"},
    }  # fmt: skip


def save_adapter(model: Trainable, settings: TrainSettings, target: Path, notes: Mapping[str, str]) -> Path:
    """One safetensors file with PEFT's names; its metadata hold PEFT's settings and the card. It appears whole or not at all."""
    metadata = {"format": "pt", CONFIG_KEY: json.dumps(adapter_config(model, settings)), **notes}
    _write(dict(_tensors(model)), target, metadata)
    return target


def save_folder(model: Trainable, settings: TrainSettings, folder: Path, notes: Mapping[str, str]) -> Path:
    """PEFT's folder: settings, weights, model card."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(dict(_tensors(model)), folder / WEIGHTS_FILE, {"format": "pt", **notes})
    texts = {CONFIG_FILE: json.dumps(adapter_config(model, settings), indent=2), CARD_FILE: _readme(notes)}
    for name, text in texts.items():
        with atomic_file(folder / name) as file:
            file.write((text + "\n").encode())
    return folder


def save_whole(source: Checkpoint, model: Trainable, target: Path, notes: Mapping[str, str]) -> Path:
    """The whole fine-tuned model as one file, as `convert` writes it."""
    encoder = source.text_encoder if source.text_encoder.weights else None
    draft = target.with_name(f".{target.stem}.new.safetensors")
    draft.unlink(missing_ok=True)
    convert(merged(source, model), draft, text_encoder=encoder, notes=notes)
    draft.replace(target)
    return target


def _tensors(model: Trainable) -> Any:
    for adapter in model.adapters.values():
        yield from adapter.tensors()


def _write(tensors: dict[str, Tensor], target: Path, metadata: Mapping[str, str]) -> None:
    library = require("safetensors.torch", "Writing a fine-tune", "safetensors")
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as file:
        file.write(library.save(tensors, dict(metadata)))


def _readme(notes: Mapping[str, str]) -> str:
    """The model card, in the form of the Hugging Face hub."""
    rows = "\n".join(f"| {key} | {value.replace('|', '/')} |" for key, value in notes.items() if key != "proof")
    return (
        f"---\nbase_model: {notes['base']}\nlibrary_name: peft\nlicense: {notes['license']}\ntags:\n- musicgen\n- lora\n---\n\n"
        f"# A LoRA for {notes['base']}\n\n{notes.get('verdict', '')}\n\n{notes['license_note']}\n\n| | |\n|---|---|\n{rows}\n"
    )
