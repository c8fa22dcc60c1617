"""Texts of clips, from where trainers and data sets put them: a file of the same name, a table, or what is heard."""

import csv
import json
from pathlib import Path
from typing import Any

from ..analysis.hearing import hear
from ..audio import Audio
from ..config import check_text
from ..errors import InputError

MAX_TEXT_BYTES = 64 * 1024  # of a text or a JSON beside a clip
MAX_TABLE_BYTES = 64 * 2**20
_CHUNK_MARK = "_chunk"  # of the published trainer's cuts: song_chunk30.wav has song.txt
_LIST_FIELDS = ("genre", "moods", "instrument")
_SURE_BPM, _SURE_KEY = 0.5, 0.6  # confidences of `hear` from which a label is written
_LABELLED_S = 60.0  # of a clip is listened to


def read_tables(folder: Path) -> dict[str, str]:
    """File name -> text, of metadata.csv (columns file_name and text) and metadata.jsonl. InputError for a damaged one."""
    texts: dict[str, str] = {}
    for name, read in (("metadata.csv", _csv_rows), ("metadata.jsonl", _jsonl_rows)):
        path = folder / name
        if not path.is_file():
            continue
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise InputError(f"{path} is larger than {MAX_TABLE_BYTES // 2**20} MB. Split the data set.")
        try:
            for row in read(path.read_text(encoding="utf-8-sig")):
                file, text = row.get("file_name"), row.get("text") or row.get("caption") or row.get("description")
                if isinstance(file, str) and isinstance(text, str):
                    texts[file.replace("\\", "/")] = text.strip()
        except (ValueError, csv.Error) as error:
            raise InputError(f"{path} is damaged ({error}). It needs the columns file_name and text.") from error
    return texts


def _csv_rows(text: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(text.splitlines()))


def _jsonl_rows(text: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no object")
    return rows


def text_beside(path: Path) -> str | None:
    """The text of `song.txt` or `song.json` beside `song.wav`, also of the song that a chunk is of; None without one.

    InputError, naming the file, for one that cannot be read.
    """
    stems = [path.stem]
    if _CHUNK_MARK in path.stem:
        stems.append(path.stem.rpartition(_CHUNK_MARK)[0])
    for stem in stems:
        for suffix, read in ((".json", _from_json), (".txt", _from_txt)):
            file = path.with_name(f"{stem}{suffix}")
            if not file.is_file():
                continue
            try:
                if file.stat().st_size > MAX_TEXT_BYTES:
                    raise ValueError(f"it is larger than {MAX_TEXT_BYTES // 1024} kB")
                text = read(file.read_text(encoding="utf-8-sig"))
                check_text("text", text)
            except (OSError, ValueError, RecursionError) as error:
                raise InputError(f"{file.name} cannot be read as a text: {error}") from error
            if text:
                return text
    return None


def _from_txt(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _from_json(text: str) -> str:
    """audiocraft's fields of a song: its description, else its other fields in words."""
    table = json.loads(text)
    if not isinstance(table, dict):
        raise ValueError("it is no JSON object")
    described = table.get("description") or table.get("text") or table.get("caption")
    if isinstance(described, str) and described.strip():
        return described.strip()
    words: list[str] = []
    for field in _LIST_FIELDS:
        value = table.get(field)
        words += [str(one) for one in value] if isinstance(value, list) else [value] if isinstance(value, str) else []
    words += [str(table["key"])] if table.get("key") else []
    words += [f"{float(table['bpm']):.0f} bpm"] if isinstance(table.get("bpm"), (int, float)) else []
    return ", ".join(word.strip() for word in words if word.strip())


def heard_label(audio: Audio) -> str:
    """Tempo and key of a clip in words, as `92 bpm, A minor`, each only where it is heard surely."""
    start = Audio(audio.samples[..., : int(_LABELLED_S * audio.rate_hz)], audio.rate_hz)
    try:
        heard = hear(start)
    except InputError:  # silent or shorter than can be heard
        return ""
    words = [f"{heard.bpm:.0f} bpm"] if heard.bpm and heard.bpm_confidence >= _SURE_BPM else []
    words += [heard.key] if heard.key and heard.key_confidence >= _SURE_KEY else []
    return ", ".join(words)
