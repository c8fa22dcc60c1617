"""Music to train on: the clips of a folder or an archive with their texts, and what of it cannot be used."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .. import audio as audio_files
from ..audio import Audio
from ..config import check_text
from ..errors import InputError, MusicGenError
from .archive import SUFFIXES as ARCHIVES
from .archive import digest_of, unpack
from .texts import heard_label, read_tables, text_beside

AUDIO_SUFFIXES = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma", ".mp4", ".webm")
TEXT_SUFFIXES = (".txt", ".json", ".csv", ".jsonl")
SHORTEST_S, LONGEST_S = 2.0, 1200.0
SILENT_DB = -60.0
LOW_RATE_HZ = 16_000
MAX_CLIPS = 10_000
LITTLE_S = 300.0  # of music, below which it is memorised quickly
_SKIPPED = ("__MACOSX", ".DS_Store")

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Clip:
    """One piece of music with its text. Times in seconds."""

    path: Path
    name: str  # below the folder
    text: str
    text_source: str  # in words: where the text is from
    duration_s: float  # that is used
    rate_hz: int
    n_channels: int
    digest: str  # SHA-256 of the file
    notice: str = ""  # what of it is used, or how it is limited


@dataclass(frozen=True)
class Problem:
    """A file that is not trained on."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """What a training learns."""

    folder: Path
    clips: tuple[Clip, ...]
    problems: tuple[Problem, ...]
    drop_vocals: bool = False

    @property
    def duration_s(self) -> float:
        return sum(clip.duration_s for clip in self.clips)

    @property
    def identity(self) -> str:
        """Digest of all that is learned: files and texts."""
        parts = [f"{clip.digest} {clip.text}" for clip in self.clips] + [str(self.drop_vocals)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def read(self, clip: Clip) -> Audio:
        """The part of a clip that is used."""
        return audio_files.read(clip.path, 0.0, LONGEST_S, end_may_exceed=True)

    @property
    def report(self) -> str:
        """Clips, lengths, texts and problems, a line each."""
        lines = [
            f"{len(self.clips)} clip{'' if len(self.clips) == 1 else 's'}, {_clock(self.duration_s)} of music"
            + (", vocals dropped" if self.drop_vocals else "")
        ]
        if self.duration_s < LITTLE_S:
            lines.append(f"Less than {LITTLE_S / 60:g} minutes: few updates are enough, and more will be memorised.")
        lines += [
            f"  {clip.name}: {_clock(clip.duration_s)}, {clip.rate_hz / 1000:g} kHz, "
            f"{clip.n_channels} channel{'' if clip.n_channels == 1 else 's'}; {clip.text_source}: {clip.text[:120]!r}"
            + (f"; {clip.notice}" if clip.notice else "")
            for clip in self.clips
        ]
        if self.problems:
            lines.append(f"Not used, {len(self.problems)}:")
            lines += [f"  {problem.name}: {problem.reason}" for problem in self.problems]
        return "\n".join(lines)


def read_dataset(
    path: Path,
    caption: str = "",
    one_same_description: str = "",
    auto_labeling: bool = True,
    drop_vocals: bool = False,
    unpack_below: Path | None = None,
    on_step: OnStep | None = None,
) -> Dataset:
    """Every clip of a folder, of an archive (zip, tar, tar.gz) or of one sound file, each decoded once.

    A clip's text: `one_same_description`, else metadata.csv or .jsonl, else the .json or .txt of its name, else `caption`, else
    with `auto_labeling` its tempo and key where they are heard surely, else none. What cannot be used is listed with its reason.
    unpack_below: where archives are unpacked. on_step(done, total) is called for each file; what it raises ends the work.
    InputError where nothing can be used.
    """
    for name, text in (("caption", caption), ("one_same_description", one_same_description)):
        check_text(name, text)
    path, problems = Path(path), []
    if path.is_file() and path.suffix.lower() in ARCHIVES:
        below = unpack_below or path.with_name(f"{path.name}.unpacked")
        path, refused = unpack(path, below, AUDIO_SUFFIXES + TEXT_SUFFIXES)
        problems = [Problem(name, reason) for name, reason in refused]
    if not path.exists():
        raise InputError(f"{path} does not exist. Give a folder of music, or a zip of it.")
    files = [path] if path.is_file() else sorted(_files(path))
    folder = path.parent if path.is_file() else path
    if len(files) > MAX_CLIPS:
        raise InputError(f"{folder} holds {len(files)} sound files; at most {MAX_CLIPS} are trained on. Split it.")
    tables: dict[Path, dict[str, str]] = {}
    clips: list[Clip] = []
    for number, file in enumerate(files):
        if on_step is not None:
            on_step(number, len(files))
        name = file.relative_to(folder).as_posix()
        try:
            clip, sound = _inspected(file, name)
            if file.parent not in tables:
                tables[file.parent] = read_tables(file.parent)
            if file.parent != folder and folder not in tables:
                tables[folder] = read_tables(folder)
            listed = tables[file.parent].get(file.name) or tables.get(folder, {}).get(name)
            clips.append(_described(clip, sound, listed, caption, one_same_description, auto_labeling))
        except MusicGenError as error:
            problems.append(Problem(name, str(error).replace(f"{file}: ", "").replace(str(file), "it")))
    if on_step is not None:
        on_step(len(files), len(files))
    dataset = Dataset(folder, tuple(clips), tuple(problems), drop_vocals)
    if not clips:
        listed = "\n".join(f"  {problem.name}: {problem.reason}" for problem in problems[:20])
        raise InputError(
            f"{folder} holds no music to train on, of {', '.join(AUDIO_SUFFIXES)}."
            + (f" Not usable:\n{listed}" if listed else "")
        )
    return dataset


def _files(folder: Path) -> Iterator[Path]:
    """Sound files below a folder; links to folders are not followed."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in AUDIO_SUFFIXES and not name.startswith("."):
                yield Path(root) / name


def _inspected(file: Path, name: str) -> tuple[Clip, Audio]:
    """A clip without its text. InputError says why it cannot be used."""
    try:
        sound = audio_files.read(file, 0.0, LONGEST_S, end_may_exceed=True)
        digest = digest_of(file)
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror or error}") from error
    if sound.duration_s < SHORTEST_S:
        raise InputError(f"it is {sound.duration_s:.2f} s long, and {SHORTEST_S:g} s are the least")
    peak_db = 20 * float(torch.log10(sound.samples.abs().max().clamp(min=1e-9)))
    if peak_db < SILENT_DB:
        raise InputError(f"it is silent (highest peak {peak_db:.0f} dB)")
    notices = []
    if sound.duration_s >= LONGEST_S - 0.01:
        notices.append(f"its first {LONGEST_S / 60:g} minutes are used")
    if sound.rate_hz < LOW_RATE_HZ:
        notices.append(f"dull: nothing above {sound.rate_hz / 2000:g} kHz is in it")
    if sound.n_channels > 2:
        notices.append("mixed down")
    clip = Clip(file, name, "", "", sound.duration_s, sound.rate_hz, sound.n_channels, digest, ", ".join(notices))
    return clip, sound


def _described(clip: Clip, sound: Audio, listed: str | None, caption: str, same: str, auto_labeling: bool) -> Clip:
    if same.strip():
        return replace(clip, text=same.strip(), text_source="one_same_description")
    if listed:
        return replace(clip, text=listed, text_source="metadata")
    if text := text_beside(clip.path):
        return replace(clip, text=text, text_source="its text")
    if caption.strip():
        return replace(clip, text=caption.strip(), text_source="caption")
    if auto_labeling and (label := heard_label(sound)):
        return replace(clip, text=label, text_source="heard")
    return replace(clip, text_source="no text")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{seconds % 60:04.1f}"
