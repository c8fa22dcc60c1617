"""The words that a model was taught, for models whose card lists them."""

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..tempo import NAMED
from .key import Key, named, respelled

_WORD = re.compile(r"[^\W\d_]+")
_HANGUL = re.compile(r"[가-힣]+")
_PARTICLES = re.compile(r"(?<!\S)(은|는|이|가|을|를|의|에|로|으로|과|와|하고)(?!\S)")  # left over from a replaced word
_TEMPO = re.compile(rf"(?:\bat\s+)?(?:{NAMED})", re.IGNORECASE)
_TYPO = 0.8  # likeness of two spellings, of 1

logger = logging.getLogger(__name__)


def words_of(text: str) -> list[str]:
    """Words of a text in small letters, each once, in their order; numbers and signs are none."""
    return list(dict.fromkeys(_WORD.findall(text.lower())))


@dataclass(frozen=True)
class Vocabulary:
    """Words of a model and how to say others in them.

    synonyms: phrase -> words of the model. Hangul is replaced inside of words too, for particles follow it.
    near: word that the model was not taught -> what it plays that comes nearest, for messages.
    default_text: stands for an empty text, where no melody and no clip says what to play.
    endings: phrases that ask for an end, the commonest first; none for models that were not taught to end.
    paces: phrases that say how fast without a number.
    key_s: how long at a time a key that a text names is told as tones (`key`), in seconds; 0: the model is told words alone.
    alone: words that say that one plays alone.
    begins_anew: whether a text that changes within a piece hears next to nothing of the music before it (`change_s` of the card).
    """

    words: frozenset[str]
    synonyms: Mapping[str, str]
    near: Mapping[str, str]
    default_text: str
    summary: str  # what the model plays, for messages
    chords: bool = False  # whether a melody model was taught chords as well
    endings: tuple[str, ...] = ()
    paces: tuple[str, ...] = ()
    begins_anew: bool = False
    key_s: float = 0.0
    alone: tuple[str, ...] = ()

    def translate(self, text: str) -> str:
        """`text` with the model's words for their synonyms; where several begin, the longest. What was put in stays."""
        text = respelled(text) if self.key_s else text
        longest_first = sorted(self.synonyms, key=len, reverse=True)
        if longest_first:
            words = {phrase.lower(): f" {self.synonyms[phrase]} " for phrase in longest_first}
            pattern = "|".join(re.escape(p) if _HANGUL.search(p) else rf"\b{re.escape(p)}\b" for p in longest_first)
            text = re.sub(pattern, lambda found: words[found[0].lower()], text, flags=re.IGNORECASE)
        text = re.sub(r"\s+", " ", _PARTICLES.sub("", text)).replace(" ,", ",").strip()
        return re.sub(r"\b(\w+)( \1\b)+", r"\1", text)  # "진양조 jinyangjo" says it once

    def key(self, text: str) -> Key | None:
        """The key that the model is told for a text."""
        return named(text) if self.key_s else None

    def is_alone(self, text: str) -> bool:
        """Whether a text asks for one player alone."""
        return bool(self.alone and _any_of(self.alone).search(self.translate(text)))

    def before_end(self, text: str) -> str:
        """A translated text without the phrases that ask for an end: what music that goes on follows. `text` if it has none."""
        if not self.endings:
            return text
        left, n_found = _any_of(self.endings).subn(" ", text)
        if not n_found:
            return text
        parts = (" ".join(part.split()) for part in left.split(","))
        return ", ".join(part for part in parts if part) or self.default_text

    def tempo(self, text: str) -> str | None:
        """The number of beats a minute that a text names, in its words; "" for a pace without a number, None for neither."""
        if found := _TEMPO.search(text):
            return found[0]
        return "" if self.paces and _any_of(self.paces).search(self.translate(text)) else None

    def read(self, text: str, model: str) -> str:
        """`text` in the model's words; the log names those that `model` was not taught."""
        text = self.translate(text)
        if warning := self.warning(text, model):
            logger.warning(warning)
        return text

    def unknown(self, text: str) -> list[str]:
        """Words of a translated text that the model was not taught, each once, in their order."""
        return [word for word in words_of(text) if word not in self.words]

    def warning(self, text: str, model: str) -> str | None:
        """A sentence on the words of a translated text that `model` was not taught; None if it knows them all."""
        unknown = self.unknown(text)
        if not unknown:
            return None
        named = ", ".join(f"'{word}'" for word in unknown)
        near = {word: self.near.get(word) or self._respelled(word) for word in unknown}
        pairs = ", ".join(f"'{nearest}' for '{word}'" for word, nearest in near.items() if nearest)
        hint = f" Nearest: {pairs}." if pairs else ""
        return f"{model} was not taught {named}: expect something else.{hint} It plays {self.summary}."

    def _respelled(self, word: str) -> str | None:
        return next(iter(difflib.get_close_matches(word, self.words, 1, _TYPO)), None) if len(word) > 3 else None


def _any_of(phrases: Sequence[str]) -> re.Pattern[str]:
    """Any of the phrases as words of their own, the longest first."""
    longest_first = "|".join(map(re.escape, sorted(phrases, key=len, reverse=True)))
    return re.compile(rf"(?<![\w-])(?:{longest_first})(?![\w-])", re.IGNORECASE)
