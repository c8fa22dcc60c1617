"""Where a run of several days keeps its files, and what all its steps begin with."""

import os
from dataclasses import dataclass
from pathlib import Path

from ...musicgen.config import CodecConfig
from ...musicgen.errors import InputError
from ..data.instruments import presets
from ..data.render import Synthesizer
from ..lm.text import train_tokenizer
from ..onegpu.recipe import VOCABULARY
from ..onegpu.run import descriptions
from . import handed_on

_TOKENIZER_TEXTS = 3000


@dataclass(frozen=True)
class Place:
    """A folder that outlives any checkout; every file in it appears whole."""

    out: Path

    @property
    def codec(self) -> Path:
        """Checkpoint of the codec's training."""
        return self.out / "codec.pt"

    @property
    def frozen(self) -> Path:
        """The codec that made the codes. It stays as it is, or they are worth nothing."""
        return self.out / "codec-frozen.pt"

    @property
    def decoder(self) -> Path:
        """Checkpoint of the frozen codec's decoder, which may go on."""
        return self.out / "decoder.pt"

    @property
    def codes(self) -> Path:
        return self.out / "codes"

    @property
    def lm(self) -> Path:
        """Checkpoint of the language model's training."""
        return self.out / "lm.pt"

    def shard(self, split: str, number: int) -> Path:
        return self.codes / f"{split}-{number:05d}.npz"

    def tokenizer(self) -> str:
        """The text of tokenizer.json: that of the checkout's language model, or learnt once."""
        path = self.out / "tokenizer.json"
        if not path.exists():
            self.out.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            learnt = handed_on.tokenizer_of()
            if learnt is None:
                learnt = train_tokenizer(texts=descriptions(_TOKENIZER_TEXTS), vocabulary=VOCABULARY)
            draft.write_text(learnt, "utf-8")
            os.replace(draft, path)
        return path.read_text(encoding="utf-8")


def synthesizer(
    soundfont: Path, codec: CodecConfig, package: str = "musescore-general-soundfont-small", option: str = "--soundfont"
) -> Synthesizer:
    """A synthesizer with all presets read. InputError if FluidSynth or the soundfont is missing.

    package, option: what to install or to give instead, for messages.
    """
    if not soundfont.exists():
        raise InputError(f"there is no soundfont {soundfont}. Install {package}, or give {option} FILE.")
    try:
        result = Synthesizer(soundfont, codec.sample_rate_hz)
        result.load(presets())
    except OSError as error:
        raise InputError(f"FluidSynth does not load ({error}). Install libfluidsynth3.") from None
    except (ValueError, KeyError) as error:
        raise InputError(f"{soundfont}: {error.args[0]}. Give {option} a General MIDI soundfont.") from None
    return result
