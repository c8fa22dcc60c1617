"""Score in, score out: notes of a file, typed or hummed -> melody, chords, tempo; and MIDI of what was asked and heard."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..musicgen.errors import InputError
from ..musicgen.outputs import atomic_file
from ..musicgen.score.choices import CHORDS, EXAMPLE_NOTES, MAX_TRANSPOSE, MAX_TUNE, MELODY, SUFFIXES
from ..musicgen.units import FASTEST_BPM, check_bpm
from . import host, reports
from .examples import FOLDER
from .host import Managed
from .inputs import Node, checked
from .sockets import AUDIO, CATEGORY, CONDITIONER, CONDITIONING, SCORE, audio_in
from .widgets import choice, number, socket, text, whole

if TYPE_CHECKING:
    from ..musicgen.score import Score

NONE = "none"
_EXAMPLES = "example/"  # in front of the names of scores that come with the pack


def score_files() -> dict[str, Path]:
    """Name in the list -> file: the scores that come with the pack, then those in ComfyUI's input folder."""
    examples = {_EXAMPLES + path.name: path for path in sorted(FOLDER.iterdir()) if path.suffix in SUFFIXES}
    for folder in host.input_dirs():
        if folder.is_dir():
            found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
            examples.update((path.name, path) for path in found)
    return examples


class MusicGenScore(Node):
    DESCRIPTION = (
        "Reads a score: a MIDI, MusicXML or ABC file, typed notes, or the tune of a hummed clip. Gives its melody for Follow a "
        "Score, its chords, tempo and meter for MusicGen Chords, and its length for MusicGen Sampler."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "midi", "musicxml", "abc notation", "sheet music", "score", "notes", "load midi", "hum", "humming", "melody from notes",
        "lead sheet",
    )  # fmt: skip
    FUNCTION = "read"
    RETURN_TYPES = (SCORE, "STRING", "FLOAT", "STRING", "FLOAT", "STRING", "IMAGE")
    RETURN_NAMES = ("score", "chords", "bpm", "meter", "seconds", "notes", "picture")
    OUTPUT_TOOLTIPS = (
        "The score with its melody, for Follow a Score and Save Score.",
        "The chords as a text for MusicGen Chords. Empty = the score has none.",
        "Tempo in beats a minute, a beat being the lower number of the meter. Of several tempos their mean.",
        "The meter that the score begins in, as 4/4.",
        "Length of the score in seconds, for duration_s of MusicGen Sampler.",
        "The melody as it can be typed into 'notes', a line a bar.",
        "A piano roll of the score: the melody bright, other parts behind it, bar lines, chords.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        names = list(score_files())
        return {
            "required": {
                "file": choice(
                    [NONE, *names],
                    "A score in ComfyUI's input folder, or one that comes with the pack: MIDI (.mid), MusicXML (.musicxml, .xml, "
                    ".mxl) or ABC (.abc). Notes or a hummed clip take its place.",
                    default=names[0] if names else NONE,
                ),
                "notes": text(
                    "",
                    "Typed notes in place of a file: C4 D4 E4:2 r G3:0.5. The number behind the colon is the length in quarter "
                    'notes, r a rest, "Am7" a chord, 3/4 a meter, @92 a tempo. Or a tune in ABC notation. Empty = the file.',
                    multiline=True,
                    placeholder=EXAMPLE_NOTES,
                ),
                "part": text(
                    MELODY,
                    "Which part has the melody. melody: the part that is named so, else the highest of those that sound long. all: "
                    "the highest notes of all parts. Or a part's number or name.",
                ),
                "tune": whole(
                    0, 0, MAX_TUNE, "Which piece of a file of several: its X: number in ABC, its track in MIDI format 2. 0 = the first."
                ),
                "transpose": whole(
                    0, -MAX_TRANSPOSE, MAX_TRANSPOSE, "Semitones by which notes and chords are moved. 12 = an octave up."
                ),
                "bpm": number(
                    0.0, 0.0, FASTEST_BPM, 0.1,
                    "Tempo in beats a minute, a beat being the lower number of the meter, in place of the score's own. 0 = its own.",
                    round=0.001,
                ),
                "chords": choice(
                    CHORDS,
                    "written: the chord symbols of the score. of the notes: the chords that its notes make, by bars and half bars.",
                ),
            },
            "optional": {
                "audio": socket(
                    AUDIO,
                    "A hummed or sung melody, one voice alone, in place of a file: its notes are read, up to 5 minutes. Its tempo "
                    "is 'bpm', else 120.",
                ),
            },
        }  # fmt: skip

    @classmethod
    def IS_CHANGED(cls, file: Any = None, **_: Any) -> Any:
        path = score_files().get(file) if isinstance(file, str) else None
        try:
            status = path.stat() if path else None
        except OSError:
            return float("nan")
        return (status.st_mtime_ns, status.st_size) if status else ""

    @checked()
    def read(
        self,
        file: str,
        notes: str,
        part: str,
        tune: int,
        transpose: int,
        bpm: float,
        chords: str,
        audio: dict | None = None,
    ) -> tuple:
        from ..musicgen import score as engine
        from ..musicgen.conditioning.lead_sheet import chord_text

        tempo = check_bpm(bpm) if bpm else 0.0
        found = _source(file, notes, tune, tempo, audio)
        found = engine.prepared(found, part, transpose, tempo, chords)
        melody = engine.melody_of(found)
        words, notices = chord_text(found)
        reports.show("\n".join((engine.described(found), *found.notices, *notices)))
        picture = engine.score_picture(found, melody)
        return found, words, found.bpm, str(found.meter), found.duration_s, engine.written(melody, found), picture


def _source(file: str, notes: str, tune: int, bpm: float, audio: dict | None) -> "Score":
    """The score as it was given: hummed, typed or as a file. InputError for none, and for two at once."""
    from ..musicgen import score as engine

    if audio is not None and notes.strip():
        raise InputError("'audio' and 'notes' are both given. Unplug the one, or empty the other.")
    if audio is not None:
        from ..musicgen.analysis.hearing import hear_voice

        return hear_voice(audio_in(audio), bpm, host.progress())
    if notes.strip():
        return engine.read_notes(notes)
    if file == NONE:
        raise InputError("No score is given: choose a 'file', write 'notes', or connect a hummed clip to 'audio'.")
    return engine.read_score(score_files()[file], tune)


class MusicGenScoreMelody(Node):
    DESCRIPTION = (
        "Adds the melody of a score to a description: the music follows its notes, in the sound that the text asks for. For the "
        "melody models only. In pieces longer than the score it begins anew."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("follow a score", "midi melody", "melody from midi", "score conditioning", "tune", "follow notes")
    FUNCTION = "encode"
    RETURN_TYPES = (CONDITIONING, "IMAGE")
    RETURN_NAMES = ("conditioning", "chroma")
    OUTPUT_TOOLTIPS = (
        "The description with the melody, for MusicGen Sampler's positive.",
        "What the model is told: one of the 12 notes (C at the bottom) over one window, in seconds.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "conditioner": socket(CONDITIONER, "From Load MusicGen, of a melody model."),
                "conditioning": socket(CONDITIONING, "The description that the melody joins, from MusicGen Text."),
                "score": socket(SCORE, "The score whose melody is followed, from Read Score."),
            },
        }

    @checked()
    def encode(self, conditioner: Managed, conditioning: Any, score: "Score") -> tuple:
        from ..musicgen.conditioning.picture import chroma_picture
        from ..musicgen.conditioning.tune import encode_score

        _check_score(score)
        result = conditioner.run(lambda module: encode_score(module, conditioning, score))
        return result, chroma_picture(result.leaves()[0].melody)


class MusicGenSaveScore(Node):
    DESCRIPTION = (
        "Saves a score as a MIDI file. With the music that was made of it, the file has what was asked for and what is heard side "
        "by side, and the report says how much of the melody is followed."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("save midi", "export midi", "audio to midi", "transcribe", "compare with score", "score out")
    OUTPUT_NODE = True
    FUNCTION = "save"
    RETURN_TYPES = ("STRING", "STRING", "FLOAT")
    RETURN_NAMES = ("midi_file", "report", "followed")
    OUTPUT_TOOLTIPS = (
        "Path of the MIDI file.",
        "What was saved, and how much of the melody is heard in the music.",
        "Share of the music whose strongest note is the score's, 0 to 1. 0 without music.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "score": socket(SCORE, "The score that was asked for, from Read Score."),
                "filename_prefix": text(
                    "midi/score",
                    "Where to save below the output folder, and how the file's name begins; a number is added. Can hold %date:yyyy-MM-dd%, "
                    "%year%, %month%, %day%.",
                ),
            },
            "optional": {
                "audio": socket(
                    AUDIO,
                    "The music that was made of the score, one clip of 2 seconds to 20 minutes: its melody, chords and drums are heard, "
                    "and saved beside the score's.",
                ),
            },
        }  # fmt: skip

    @checked()
    def save(self, score: "Score", filename_prefix: str, audio: dict | None = None) -> dict:
        from ..musicgen.conditioning.chord_labels import notes_of
        from ..musicgen.score import described, midi_bytes

        _check_score(score)
        report, share = described(score), 0.0
        if audio is not None:
            from ..musicgen.analysis.asked import beside, following

            sound = audio_in(audio)
            followed = following(sound, score)
            score, _ = beside(score, sound, host.progress())
            report, share = f"{report}\n{followed.report}", followed.share
        path, subfolder = save_numbered(midi_bytes(score, notes_of), filename_prefix, "mid")
        host.show_text(report)
        saved = {"filename": path.name, "subfolder": subfolder, "type": "output"}
        return {"ui": {"midi": [saved], "text": [report]}, "result": (str(path), report, share)}


def save_numbered(content: bytes, prefix: str, suffix: str) -> tuple[Path, str]:
    """Write a file under the next free name of a prefix: its path, and its folder below the output folder."""
    location = host.save_location(prefix)
    for path in location.files(suffix, location.counter):
        if path.exists():
            continue
        try:
            with atomic_file(path, replace=False) as file:
                file.write(content)
        except FileExistsError:  # written by another process meanwhile
            continue
        return path, location.subfolder
    raise AssertionError("numbers do not end")


def _check_score(score: Any) -> None:
    from ..musicgen.score import Score

    if not isinstance(score, Score):
        raise InputError(f"'score' must be {SCORE}, got {type(score).__name__}. Connect a Read Score node.")
