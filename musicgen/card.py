"""The card of a model: the words that it was taught, what is drawn again, and what keeps a long piece together."""

import json
from dataclasses import replace
from pathlib import Path

from .beats import BeatTracker, Tempo
from .checkpoints import Checkpoint, fill
from .checkpoints.adapter import Adapter
from .checkpoints.settings import Settings
from .checkpoints.weights.lazy import Check as Cancel
from .conditioning.vocabulary import Vocabulary, words_of
from .config import LMConfig, ModelConfig
from .faults import Check, Faults
from .silence import Silence

_MAX_TRIES = 10  # of a clip with a fault


def read_card(checkpoint: Path) -> Settings | None:
    """The card of a model that has one: `NAME.card.json` beside its file. CheckpointError for a damaged one."""
    name = checkpoint.name if checkpoint.is_dir() else checkpoint.stem  # a folder has no suffix
    path = checkpoint.with_name(f"{name}.card.json")
    return Settings.from_json(path) if path.is_file() else None


def vocabulary_of(card: Settings | None) -> Vocabulary | None:
    """The words of a card."""
    if card is None:
        return None
    synonyms, near = (
        {phrase.strip(): words.strip() for phrase, _, words in (pair.partition("=") for pair in card.names(key))}
        for key in ("synonyms", "near")
    )
    return Vocabulary(
        frozenset(card.names("words")),
        synonyms,
        near,
        card.text("default_text"),
        card.text("plays"),
        chords=card.expect("chords", True, False, default=False),
        endings=card.names("endings", default=[]),
        paces=card.names("paces", default=[]),
        begins_anew=card.get("change_s", None) is not None,
        key_s=card.number("key_s", default=0.0),
        alone=card.names("alone", default=[]),
    )


def with_learned_words(vocabulary: Vocabulary | None, tuned: Adapter | Checkpoint) -> Vocabulary | None:
    """The words of a base, and those that a fine-tune says of the texts it learned (`data` of finetuning/export.py)."""
    if vocabulary is None:
        return None
    try:
        data = json.loads(tuned.metadata.get("data", "null"))
    except (ValueError, RecursionError):  # of another trainer, which may mean anything by the name
        return vocabulary
    words = data.get("common words") if isinstance(data, dict) else None
    texts = [word for word in words if isinstance(word, str)] if isinstance(words, list) else []
    return replace(vocabulary, words=vocabulary.words.union(*(words_of(text) for text in texts)))


def beat_tracker_of(checkpoint: Checkpoint, check: Cancel) -> BeatTracker | None:
    """In float32 on the CPU, wherever the model runs: it reads a clip of codes, once."""
    if not checkpoint.beat_tracker:
        return None
    tracker = BeatTracker(checkpoint.config.codec)
    fill(tracker, checkpoint.beat_tracker, f"{checkpoint.path} (beat tracker)", check)
    return tracker.eval().requires_grad_(False)


def faults_of(card: Settings | None, lm: LMConfig, tracker: BeatTracker | None) -> Faults | None:
    """What a card asks to draw again: practically silent clips, and those of another tempo, where the model brings a beat tracker."""
    checks: list[Check] = []
    if card is not None and card.get("silence", None) is not None:
        silence = card.section("silence")
        codes = silence.integers("codes", most=lm.cardinality - 1)
        checks.append(
            Silence(frozenset(codes), silence.integer("tries", most=_MAX_TRIES), silence.number("gap_s", default=0.0))
        )
    if card is not None and tracker is not None and card.get("tempo", None) is not None:
        tempo = card.section("tempo")
        checks.append(Tempo(tracker, tempo.number("off"), tempo.integer("tries", most=_MAX_TRIES)))
    return Faults(tuple(checks)) if checks else None


def with_windows(config: ModelConfig, card: Settings | None) -> ModelConfig:
    """`config` with what a card says that the windows of a long piece see: of its beginning, and of what was before a change of text."""
    if card is None:
        return config
    change_s = None if card.get("change_s", None) is None else card.number("change_s")
    return replace(config, anchor_s=card.number("anchor_s", default=0.0), change_s=change_s)
