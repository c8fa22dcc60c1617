"""The card of a model, `NAME.card.json` beside its file: its words, and how practically silent clips are known."""

from pathlib import Path

from .checkpoints.settings import Settings
from .conditioning.vocabulary import Vocabulary
from .config import LMConfig
from .silence import Silence

_MAX_TRIES = 10  # of a clip that is practically silent


def read_card(checkpoint: Path) -> Settings | None:
    """The card of a model that has one: `NAME.card.json` beside its file. CheckpointError for a damaged one."""
    name = checkpoint.name if checkpoint.is_dir() else checkpoint.stem  # a folder has no suffix
    path = checkpoint.with_name(f"{name}.card.json")
    return Settings.from_json(path) if path.is_file() else None


def vocabulary(card: Settings | None) -> Vocabulary | None:
    """The words of a card."""
    if card is None:
        return None
    synonyms, near = (
        {phrase.strip(): words.strip() for phrase, _, words in (pair.partition("=") for pair in card.names(key))}
        for key in ("synonyms", "near")
    )
    return Vocabulary(frozenset(card.names("words")), synonyms, near, card.text("default_text"), card.text("plays"))


def silence(card: Settings | None, lm: LMConfig) -> Silence | None:
    """What a card says of practically silent clips, if it asks to draw them again."""
    if card is None or card.get("silence", None) is None:
        return None
    entry = card.section("silence")
    codes = entry.integers("codes", most=lm.cardinality - 1)
    return Silence(frozenset(codes), entry.integer("tries", most=_MAX_TRIES))
