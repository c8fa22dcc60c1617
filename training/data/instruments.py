"""The instruments: their words in English and Korean, their sounds in General MIDI, and what they can play."""

from dataclasses import dataclass

from .score import DRUM_BANK


@dataclass(frozen=True)
class Instrument:
    """One instrument, as users call it."""

    programs: tuple[int, ...]  # General MIDI, from 0
    english: tuple[str, ...]
    korean: tuple[str, ...]
    family: str  # keys, plucked, bowed, blown, mallet, synth, voice, bass
    low: int  # MIDI range that sounds like itself
    high: int
    chords: bool = False  # can accompany
    melody: bool = True
    level: int = 100  # MIDI volume at which it is about as loud as the others
    legato: float = 0.95  # share of a note's length that it is held


def _(programs, english, korean, family, low, high, **more) -> Instrument:
    return Instrument(programs, english, korean, family, low, high, **more)


INSTRUMENTS: dict[str, Instrument] = {
    "piano": _((0,), ("piano", "grand piano", "acoustic piano"), ("피아노", "그랜드 피아노"), "keys", 36, 96, chords=True, level=112),
    "electric piano": _((4,), ("electric piano", "rhodes", "e-piano"), ("일렉트릭 피아노", "전자 피아노"), "keys", 40, 88, chords=True, level=86),
    "harpsichord": _((6,), ("harpsichord", "cembalo"), ("하프시코드", "쳄발로"), "keys", 41, 86, chords=True, level=127),
    "organ": _((16,), ("organ", "hammond organ", "rock organ"), ("오르간", "해먼드 오르간"), "keys", 40, 88, chords=True, level=88),
    "church organ": _((19,), ("church organ", "pipe organ"), ("교회 오르간", "파이프 오르간"), "keys", 40, 86, chords=True, level=108),
    "accordion": _((21,), ("accordion",), ("아코디언",), "keys", 53, 88, chords=True, level=120),
    "harmonica": _((22,), ("harmonica", "mouth harp"), ("하모니카",), "blown", 60, 89, level=110),
    "acoustic guitar": _((24, 25), ("acoustic guitar", "guitar", "nylon guitar", "steel string guitar"), ("통기타", "어쿠스틱 기타", "기타"), "plucked", 40, 81, chords=True, level=118),
    "electric guitar": _((27,), ("electric guitar", "clean guitar", "jazz guitar"), ("일렉트릭 기타", "전기 기타", "일렉 기타"), "plucked", 40, 84, chords=True, level=105),
    "distorted guitar": _((30,), ("distorted guitar", "overdriven guitar", "heavy guitar"), ("디스토션 기타", "헤비 기타"), "plucked", 40, 84, chords=True, level=108),
    "banjo": _((105,), ("banjo",), ("밴조",), "plucked", 48, 81, chords=True, level=95),
    "sitar": _((104,), ("sitar",), ("시타르",), "plucked", 48, 79, level=120),
    "koto": _((107,), ("koto",), ("고토",), "plucked", 50, 84, level=105),
    "harp": _((46,), ("harp", "concert harp"), ("하프",), "plucked", 36, 94, chords=True, level=106),
    "bass": _((32, 33), ("bass", "bass guitar", "double bass", "contrabass"), ("베이스", "베이스 기타"), "bass", 28, 55, level=80),
    "synth bass": _((38,), ("synth bass",), ("신스 베이스",), "bass", 28, 55, level=82),
    "violin": _((40,), ("violin", "fiddle"), ("바이올린",), "bowed", 55, 96, level=98),
    "cello": _((42,), ("cello", "violoncello"), ("첼로",), "bowed", 36, 72, level=94),
    "strings": _((48,), ("strings", "string section", "string orchestra"), ("스트링", "현악", "현악 합주"), "bowed", 40, 91, chords=True, level=112),
    "pizzicato": _((45,), ("pizzicato strings", "pizzicato"), ("피치카토",), "plucked", 43, 84, level=127),
    "choir": _((52,), ("choir", "voices", "choral voices"), ("합창", "합창단"), "voice", 43, 81, chords=True, level=96),
    "trumpet": _((56,), ("trumpet",), ("트럼펫",), "blown", 54, 84, level=86),
    "trombone": _((57,), ("trombone",), ("트롬본",), "blown", 40, 70, level=66),
    "french horn": _((60,), ("french horn", "horn"), ("호른",), "blown", 41, 74, level=75),
    "brass": _((61,), ("brass", "brass section", "horns"), ("브라스", "금관"), "blown", 43, 80, chords=True, level=97),
    "saxophone": _((65, 66), ("saxophone", "sax", "alto sax", "tenor sax"), ("색소폰",), "blown", 46, 80, level=92),
    "oboe": _((68,), ("oboe",), ("오보에",), "blown", 58, 88, level=86),
    "clarinet": _((71,), ("clarinet",), ("클라리넷",), "blown", 50, 88, level=88),
    "flute": _((73,), ("flute", "concert flute"), ("플루트",), "blown", 60, 93, level=82),
    "recorder": _((74,), ("recorder",), ("리코더",), "blown", 65, 93, level=72),
    "pan flute": _((75,), ("pan flute", "pan pipes"), ("팬플루트",), "blown", 60, 88, level=90),
    "vibraphone": _((11,), ("vibraphone", "vibes"), ("비브라폰",), "mallet", 53, 89, chords=True, level=104),
    "marimba": _((12,), ("marimba",), ("마림바",), "mallet", 45, 90, chords=True, level=102),
    "xylophone": _((13,), ("xylophone",), ("실로폰",), "mallet", 65, 100, level=127),
    "music box": _((10,), ("music box",), ("오르골", "뮤직박스"), "mallet", 60, 96, chords=True, level=127),
    "steel drums": _((114,), ("steel drums", "steel pan"), ("스틸 드럼",), "mallet", 52, 84, level=120),
    "synth lead": _((81,), ("synth lead", "synthesizer", "lead synth"), ("신스 리드", "신디사이저"), "synth", 48, 91, level=84),
    "synth pad": _((88,), ("synth pad", "pad", "warm pad"), ("신스 패드", "패드"), "synth", 43, 84, chords=True, level=90),
}  # fmt: skip

KITS: dict[str, int] = {"standard": 0, "room": 8, "power": 16, "electronic": 24, "808": 25, "jazz": 32, "brush": 40}
DRUM_WORDS = ("drums", "drum kit", "drum set"), ("드럼", "드럼 세트")


def presets() -> list[tuple[int, int]]:
    """(bank, program) of everything that is played."""
    melodic = {(0, program) for instrument in INSTRUMENTS.values() for program in instrument.programs}
    return sorted(melodic | {(DRUM_BANK, program) for program in KITS.values()})
