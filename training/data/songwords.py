"""Descriptions of pieces, by a grammar, in English and Korean. Some wordings are kept for held-out prompts."""

from collections.abc import Sequence

import numpy as np

from .harmony import KEY_NAMES, SCALES
from .instruments import DRUM_WORDS, INSTRUMENTS
from .songs import Facts

GENRE_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # the last wording of three or more is held out
    "rock": (("rock", "rock music", "rock song"), ("록", "록 음악")),
    "pop": (("pop", "pop song", "pop music"), ("팝", "팝송")),
    "ballad": (("ballad", "slow ballad", "love song"), ("발라드",)),
    "jazz": (("jazz", "swing", "jazz tune", "swing jazz"), ("재즈", "스윙")),
    "blues": (("blues", "blues song", "twelve bar blues"), ("블루스",)),
    "bossa nova": (("bossa nova", "bossa", "brazilian bossa nova"), ("보사노바",)),
    "samba": (("samba", "brazilian samba"), ("삼바",)),
    "funk": (("funk", "funky groove", "funk music"), ("펑크", "펑키")),
    "disco": (("disco", "disco dance music", "seventies disco"), ("디스코",)),
    "house": (("house", "house music", "electronic dance music", "edm", "techno"), ("하우스", "전자 댄스 음악")),
    "hip hop": (("hip hop", "hip hop beat", "boom bap", "rap beat"), ("힙합", "힙합 비트")),
    "lo-fi": (("lo-fi", "lofi beat", "chill lo-fi"), ("로파이", "로파이 비트")),
    "reggae": (("reggae", "reggae music", "jamaican reggae"), ("레게",)),
    "country": (("country", "country music", "country song"), ("컨트리",)),
    "folk": (("folk", "folk song", "folk music"), ("포크", "민요풍")),
    "waltz": (("waltz", "a waltz", "viennese waltz"), ("왈츠",)),
    "march": (("march", "marching band", "military march"), ("행진곡",)),
    "salsa": (("salsa", "latin", "latin dance", "salsa music"), ("살사", "라틴")),
    "metal": (("metal", "heavy metal", "metal song"), ("메탈", "헤비메탈")),
    "ambient": (("ambient", "ambient soundscape", "ambient music"), ("앰비언트",)),
    "synthwave": (("synthwave", "retro synthwave", "eighties synth pop"), ("신스웨이브",)),
    "irish jig": (("irish jig", "jig", "celtic", "irish folk dance"), ("아일랜드 지그", "켈틱")),
    "gospel": (("gospel", "gospel song", "soul gospel"), ("가스펠",)),
    "tango": (("tango", "argentine tango", "tango dance"), ("탱고",)),
    "polka": (("polka", "polka dance"), ("폴카",)),
    "classical": (("classical", "classical music", "baroque", "chamber music"), ("클래식", "고전 음악")),
    "choral": (("hymn", "choral music", "church music"), ("찬송가", "합창곡")),
    "world": (("indian raga", "raga", "world music"), ("인도 음악", "월드뮤직")),
    "calypso": (("calypso", "caribbean", "tropical"), ("칼립소", "카리브 음악")),
    "cinematic": (("cinematic", "film score", "epic trailer music", "soundtrack"), ("영화 음악", "웅장한 영화 음악")),
}
_MOODS = {  # by (minor, tempo: slow, medium, fast)
    (False, 0): (("peaceful", "calm", "gentle", "tender", "relaxing"), ("평화로운", "잔잔한", "편안한")),
    (False, 1): (("bright", "warm", "happy", "hopeful", "pleasant"), ("밝은", "따뜻한", "행복한")),
    (False, 2): (("cheerful", "joyful", "energetic", "lively", "exciting"), ("신나는", "경쾌한", "즐거운")),
    (True, 0): (("sad", "melancholic", "mournful", "lonely", "sorrowful"), ("슬픈", "우울한", "쓸쓸한")),
    (True, 1): (("dark", "moody", "serious", "mysterious", "nostalgic"), ("어두운", "신비로운", "애잔한")),
    (True, 2): (("tense", "intense", "driving", "urgent", "dramatic"), ("긴장감 있는", "격렬한", "극적인")),
}
PACES = (
    ("slow", "slow tempo", "very slow"),
    ("medium tempo", "moderate tempo", "mid-tempo"),
    ("fast", "fast tempo", "up-tempo"),
)
KOREAN_PACES = ("느린", "보통 빠르기의", "빠른")
_ALONE = ("solo {}", "{} solo", "{} alone", "only {}", "unaccompanied {}", "just {}")
_KOREAN_ALONE = ("{} 솔로", "{} 독주", "{}만")
_DRUMS_ALONE = ("drums alone", "drum solo", "only drums", "drum beat", "drum loop", "just drums")
_KOREAN_DRUMS_ALONE = ("드럼 솔로", "드럼만", "드럼 비트")
_NO_DRUMS = ("no drums", "without drums", "drumless", "no percussion")
_WITH_DRUMS = ("with drums", "with a drum kit", "with a beat", "full band", "and drums")
_UNNAMED = 0.3  # chance that a band is described by its genre, and no player named
_REGISTER = {"low": ("low", "deep", "low register"), "high": ("high", "high register", "bright high")}
_DENSITY = {"sparse": ("sparse", "simple", "few notes"), "busy": ("busy", "many notes", "virtuosic")}
_DYNAMICS = {"soft": ("soft", "quiet", "delicate"), "loud": ("loud", "powerful", "strong")}
_KOREAN_DYNAMICS = {"soft": "조용한", "loud": "강한"}
_METRES = {"3/4": ("3/4", "in three", "triple metre", "3/4 time"), "4/4": ("4/4", "4/4 time"), "2/4": ("2/4", "2/4 time"),
           "6/8": ("6/8", "6/8 time"), "12/8": ("12/8", "12/8 time")}  # fmt: skip
_ENDS = ("with an ending", "that ends", "short piece with an ending", "ending", "outro", "final chord")
_KOREAN_END = "끝맺음"
ENDS = (*_ENDS, _KOREAN_END)  # phrases that ask for an end
_BEGINS = ("intro", "opening", "beginning")
_FILLERS = ("music", "a song", "a piece", "instrumental", "melody", "high quality", "a recording of", "background music",
            "beautiful", "please", "a track with", "nice", "make me", "play", "i want", "some", "studio recording")  # fmt: skip
_KOREAN_KEYS = {"major": "장조", "minor": "단조"}
_KOREAN_TONES = ("다", "올림 다", "라", "내림 마", "마", "바", "올림 바", "사", "내림 가", "가", "내림 나", "나")


def describe(facts: Facts, rng: np.random.Generator, held_out: bool = False, tempo: bool | None = None) -> str:
    """One of the many descriptions. tempo: whether it names the tempo; None: drawn."""
    if rng.random() < 0.22:
        return _korean(facts, rng, tempo)
    bpm = rng.random() < 0.55 if tempo is None else tempo
    short = rng.random()
    if short < 0.16:  # one thing alone, as people type
        end = f", {_pick(_ENDS, rng)}" if facts.ends else ""
        return _cased(_short(facts, rng, held_out) + end, rng)
    parts = []
    genre = _pick(GENRE_WORDS[facts.genre][0], rng, held_out)
    mood = _mood(facts, 0, rng) if rng.random() < 0.35 else ""
    named = rng.random() < 0.72
    if named:
        parts.append(f"{mood} {genre}".strip())
    elif mood:
        parts.append(mood)
    if named and facts.arrangement in ("ensemble", "no drums") and rng.random() < _UNNAMED:
        parts += [] if facts.drums and rng.random() < 0.5 else [_pick(_WITH_DRUMS if facts.drums else _NO_DRUMS, rng)]
    else:
        parts.append(_players(facts, rng, held_out))
    if bpm:
        parts.append(_pick((f"{facts.bpm:.0f} bpm", f"at {facts.bpm:.0f} bpm", f"tempo {facts.bpm:.0f}"), rng))
    elif rng.random() < 0.3:
        parts.append(_pick(PACES[_pace(facts)], rng))
    if facts.key and rng.random() < 0.28:
        parts.append(_pick((f"in {facts.key}", facts.key, f"key of {facts.key}"), rng))
    if rng.random() < (0.4 if facts.metre != "4/4" else 0.08):
        parts.append(_pick(_METRES[facts.metre], rng))
    for chance, words in ((0.3, _DENSITY.get(facts.density)), (0.3, _DYNAMICS.get(facts.dynamics))):
        if words and rng.random() < chance:
            parts.append(_pick(words, rng))
    if facts.ends:  # always said: what is not asked to end goes on
        parts.append(_pick(_ENDS, rng))
    elif facts.begins and not facts.ends and rng.random() < 0.06:
        parts.append(_pick(_BEGINS, rng))
    if rng.random() < 0.15:
        parts.insert(int(rng.integers(len(parts) + 1)), _pick(_FILLERS, rng))
    if rng.random() < 0.5:
        parts = [parts[i] for i in rng.permutation(len(parts))]
    return _cased(_pick((", ", ", ", " "), rng).join(parts), rng)


def prompt(
    instrument: str | None = None,
    genre: str | None = None,
    rng: np.random.Generator | None = None,
    held_out: bool = True,
) -> str:
    """A word for an instrument or a genre, as a held-out prompt names it."""
    rng = rng or np.random.default_rng(0)
    if instrument:
        return _pick(INSTRUMENTS[instrument].english, rng, held_out)
    assert genre is not None
    return _pick(GENRE_WORDS[genre][0], rng, held_out)


def alone() -> list[str]:
    """Words that say that one plays alone, in both languages."""
    words = [form.format("").strip() for form in (*_ALONE, *_KOREAN_ALONE)]
    return sorted({word for word in words if len(word) > 1})  # hangul's particle of one syllable is part of its word


def held_out() -> dict[str, str]:
    """Wordings that no description of training has -> the first of what they stand for."""
    groups = [english for english, _ in GENRE_WORDS.values()] + [one.english for one in INSTRUMENTS.values()]
    return {group[-1]: group[0] for group in groups if len(group) > 2}


def phrases() -> list[str]:
    """All wordings of descriptions, in English and Korean, with what stands around them; those of `held_out` are none."""
    groups = [*GENRE_WORDS.values(), *_MOODS.values(), DRUM_WORDS]
    groups += [(one.english, one.korean) for one in INSTRUMENTS.values()]
    korean = [word for one in INSTRUMENTS.values() for word in one.korean]
    found = [phrase for group in groups for language in group for phrase in language if phrase not in held_out()]
    found += [form.format(word) for form in _KOREAN_ALONE for word in korean]
    found += [word for pace in PACES for word in pace]
    for table in (_REGISTER, _DENSITY, _DYNAMICS, _METRES):
        found += [phrase for choices in table.values() for phrase in choices]
    found += [*KOREAN_PACES, *_DRUMS_ALONE, *_KOREAN_DRUMS_ALONE, *_NO_DRUMS, *_WITH_DRUMS, *_KOREAN_DYNAMICS.values()]
    found += [*ENDS, *_BEGINS, *_FILLERS, *KEY_NAMES, *SCALES, *(form.format("") for form in _ALONE)]
    found += [f"{tone}{mode}" for tone in _KOREAN_TONES for mode in _KOREAN_KEYS.values()]
    return [
        *found,
        "duo",
        "melody",
        "lead",
        "with",
        "and",
        "at",
        "bpm",
        "tempo",
        "in",
        "key of",
        "드럼 없이",
        "템포",
    ]


def moods() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Of slow, medium and fast pieces in major and minor: English, Korean."""
    return list(_MOODS.values())


def _short(facts: Facts, rng: np.random.Generator, held_out: bool) -> str:
    if facts.arrangement == "drums alone":
        return _pick(_DRUMS_ALONE, rng)
    assert facts.lead is not None
    if facts.arrangement == "solo":
        word = _word(facts.lead, rng, held_out)
        return word if rng.random() < 0.5 else _pick(_ALONE, rng).format(word)
    genre = _pick(GENRE_WORDS[facts.genre][0], rng, held_out)
    text = genre if rng.random() < 0.5 else f"{genre} {_word(facts.lead, rng, held_out)}"
    return text if facts.drums else f"{text}, {_pick(_NO_DRUMS, rng)}"


def _players(facts: Facts, rng: np.random.Generator, held_out: bool) -> str:
    if facts.arrangement == "drums alone":
        return _pick(_DRUMS_ALONE, rng)
    assert facts.lead is not None
    lead = _word(facts.lead, rng, held_out)
    if facts.register in _REGISTER and rng.random() < 0.2:
        lead = f"{_pick(_REGISTER[facts.register], rng)} {lead}"
    if facts.arrangement == "solo":
        text = _pick(_ALONE, rng).format(lead) if rng.random() < 0.85 else lead
        return f"{text}, {_pick(_NO_DRUMS, rng)}" if rng.random() < 0.12 else text
    others = [name for name in facts.players if name != facts.lead]
    if facts.arrangement == "duo" and others:
        return _pick(("{} and {} duo", "{} with {}", "{} and {}"), rng).format(lead, _word(others[0], rng, held_out))
    text = lead if rng.random() < 0.6 else _pick(("{} melody", "{} lead", "with {}"), rng).format(lead)
    if others and rng.random() < 0.5:
        text += _pick((", ", " and ", " with "), rng) + _word(str(rng.choice(others)), rng, held_out)
    if facts.drums and rng.random() < 0.6:
        text += " " + _pick((*_WITH_DRUMS, f"and {DRUM_WORDS[0][0]}"), rng)
    if not facts.drums:
        text += ", " + _pick(_NO_DRUMS, rng)
    return text


def _korean(facts: Facts, rng: np.random.Generator, tempo: bool | None) -> str:
    parts = []
    if rng.random() < 0.35:
        parts.append(_mood(facts, 1, rng))
    if rng.random() < 0.2:
        parts.append(KOREAN_PACES[_pace(facts)])
    if facts.dynamics in _KOREAN_DYNAMICS and rng.random() < 0.2:
        parts.append(_KOREAN_DYNAMICS[facts.dynamics])
    if rng.random() < 0.6:
        parts.append(_pick(GENRE_WORDS[facts.genre][1], rng))
    if facts.arrangement == "drums alone":
        parts.append(_pick(_KOREAN_DRUMS_ALONE, rng))
    else:
        assert facts.lead is not None
        word = _pick(INSTRUMENTS[facts.lead].korean, rng)
        if facts.arrangement == "solo":
            parts.append(_pick(_KOREAN_ALONE, rng).format(word) if rng.random() < 0.8 else word)
        elif not facts.drums:
            parts.append(f"{word}, 드럼 없이")
        else:
            parts.append(word + (" 드럼" if facts.drums and rng.random() < 0.25 else ""))
    text = " ".join(parts)
    if facts.tonic is not None and facts.mode in _KOREAN_KEYS and rng.random() < 0.2:
        text += f", {_KOREAN_TONES[facts.tonic]}{_KOREAN_KEYS[facts.mode]}"
    if rng.random() < 0.5 if tempo is None else tempo:
        text += _pick((f", {facts.bpm:.0f} bpm", f", 템포 {facts.bpm:.0f}"), rng)
    if facts.ends:
        text += f", {_KOREAN_END}"
    return text


def _word(name: str, rng: np.random.Generator, held_out: bool) -> str:
    return _pick(INSTRUMENTS[name].english, rng, held_out)


def _pace(facts: Facts) -> int:
    return 0 if facts.bpm < 84 else 1 if facts.bpm < 124 else 2


def _mood(facts: Facts, language: int, rng: np.random.Generator) -> str:
    minor = facts.mode in ("minor", "dorian")
    return _pick(_MOODS[minor, _pace(facts)][language], rng)


def _pick(choices: Sequence[str], rng: np.random.Generator, held_out: bool | None = None) -> str:
    """held_out: only the last of three or more; False: any but that one; None: any."""
    if held_out is not None and len(choices) > 2:
        choices = choices[-1:] if held_out else choices[:-1]
    return choices[int(rng.integers(len(choices)))]


def _cased(text: str, rng: np.random.Generator) -> str:
    return text[:1].upper() + text[1:] if rng.random() < 0.25 else text
