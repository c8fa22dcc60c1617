"""Files to scores, by what they are."""

from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from .abc import read_abc
from .choices import SUFFIXES
from .midi import read_midi
from .musicxml import read_musicxml
from .score import Score

MAX_BYTES = 32 * 2**20
_ZIP_BYTES = 8 * 2**20  # of a zipped score


def read_score(path: str | Path, tune: int = 0) -> Score:
    """The score of a file: MIDI (.mid, .midi), MusicXML (.musicxml, .xml, .mxl) or ABC (.abc).

    tune: which piece of a file of several, an ABC file's X: number or a track of MIDI format 2; 0 = the first.
    InputError, naming the file, for one of another kind, that cannot be read, is damaged, or is larger than is read.
    """
    file = Path(path)
    shown = str(file)[-200:]
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"'{shown}' is no score: its name must end in {', '.join(SUFFIXES)}.")
    try:
        if not file.is_file():
            raise InputError(f"'{shown}' is not there, or is no file.")
        size, most = file.stat().st_size, _ZIP_BYTES if suffix == ".mxl" else MAX_BYTES
        if size > most:
            raise InputError(
                f"'{shown}' has {size / 2**20:.0f} MiB, and at most {most // 2**20} are read. Give a part of the score."
            )
        with open(file, "rb") as stream:
            data = stream.read(most)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{shown}' cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    try:
        return _reader(suffix)(data, tune)
    except InputError as error:
        raise InputError(f"'{shown}' is not read: {error}") from error


def _reader(suffix: str) -> Callable[[bytes, int], Score]:
    if suffix in (".mid", ".midi"):
        return lambda data, tune: read_midi(data, max(tune, 1))
    if suffix == ".abc":
        return lambda data, tune: read_abc(_decoded(data), tune)
    return lambda data, _: read_musicxml(data)


def _decoded(data: bytes) -> str:
    """Text in UTF-8, or in Latin-1, as older ABC files are."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
