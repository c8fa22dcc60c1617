"""Grooves of our own: what drums, bass and chords play in a bar, for many genres and metres.

A bar is a string of steps: four to a beat in simple metres, three in compound ones (6/8, 12/8). Drums: x strikes, X accents,
o is soft. Bass: R root, 5 fifth, 8 octave, 3 third, W a walking tone, - holds, . rests. Chords: C is held, c is short, a the
next tone of an arpeggio, B the chord's root an octave below, - holds, . rests.
"""

from dataclasses import dataclass

DRUMS = {
    "k": 36,
    "s": 38,
    "r": 37,
    "h": 42,
    "o": 46,
    "p": 44,
    "d": 51,
    "c": 49,
    "t": 45,
    "f": 41,
    "g": 39,
    "b": 54,
    "w": 76,
    "y": 63,
    "u": 62,
}
# kick, snare, rim, closed hat, open hat, pedal hat, ride, crash, mid tom, floor tom, clap, tambourine, woodblock, conga, mute conga


@dataclass(frozen=True)
class Groove:
    """One way to accompany, with what usually plays it."""

    genre: str
    beats: int  # of a bar
    steps: int  # of a beat: 4, in compound metres 3
    bpm: tuple[float, float]
    drums: dict[str, str]  # of DRUMS: a pattern
    bass: tuple[str, ...]
    chords: tuple[str, ...]
    progressions: tuple[str, ...]
    modes: tuple[str, ...]
    leads: tuple[str, ...]
    comping: tuple[str, ...]
    basses: tuple[str, ...] = ("bass",)
    pads: tuple[str, ...] = ()
    kits: tuple[str, ...] = ("standard", "room")
    swing: float = 0.0  # how much later the second eighth of a beat is, in beats
    motion: float = 0.5  # 0..1, how many notes a melody has

    @property
    def metre(self) -> str:
        return f"{self.beats * 3}/8" if self.steps == 3 else f"{self.beats}/4"


_POP = ("I V vi IV", "vi IV I V", "I vi IV V", "I IV vi V", "I iii IV V")
_POP_MINOR = ("i bVI bIII bVII", "i iv bVII bIII", "i bVII bVI bVII", "i iv v i")
_JAZZ = ("ii7 V7 Imaj7 vi7", "Imaj7 vi7 ii7 V7", "iii7 vi7 ii7 V7", "Imaj7 I7 IVmaj7 ii7")
_BLUES = ("I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7",)
_ROCK = ("I bVII IV I", "I IV V IV", "I V IV IV", "i bVII bVI bVII")
_FOLK = ("I IV I V", "I I IV V", "I V I V", "I vi IV V")
_TANGO = ("i iv V7 i", "i V7 V7 i", "i i iv V7")

GROOVES: dict[str, Groove] = {
    "straight rock": Groove("rock", 4, 4, (100, 160), {"k": "X.......x.x.....", "s": "....X.......X...", "h": "x.x.x.x.x.x.x.x."}, ("R.R.R.R.R.R.R.R.", "R---R.R.R---R.5."), ("C---------C-----", "c.c.c.c.c.c.c.c."), _ROCK, ("major", "minor", "mixolydian"), ("distorted guitar", "electric guitar", "organ", "saxophone"), ("electric guitar", "distorted guitar", "organ", "piano"), kits=("standard", "room", "power"), motion=0.5),
    "half time rock": Groove("rock", 4, 4, (70, 110), {"k": "X..x......x.....", "s": "........X.......", "c": "x...............", "d": "x...x...x...x..."}, ("R-----R-R-----5-",), ("C---------------", "C-----C---C-----"), _ROCK, ("minor", "major"), ("electric guitar", "distorted guitar"), ("distorted guitar", "electric guitar"), kits=("power", "room"), motion=0.4),
    "bright pop": Groove("pop", 4, 4, (90, 132), {"k": "X.....x.x.......", "s": "....X.......X..o", "h": "x.o.x.o.x.o.x.o."}, ("R--.R.R.R--.R.5.", "R.......R.....R."), ("C---C---C---C---", "aaaaaaaaaaaaaaaa", "C-----C---C-----"), _POP, ("major",), ("piano", "electric guitar", "synth lead", "flute", "violin", "saxophone"), ("piano", "acoustic guitar", "electric piano"), pads=("strings", "synth pad"), motion=0.5),
    "sad pop": Groove("pop", 4, 4, (70, 110), {"k": "X.......x.......", "s": "....x.......x...", "h": "x.x.x.x.x.x.x.x."}, ("R-------R-------",), ("a.a.a.a.a.a.a.a.", "C-------C-------"), _POP_MINOR, ("minor",), ("piano", "violin", "flute", "electric guitar", "clarinet"), ("piano", "acoustic guitar", "electric piano"), pads=("strings", "choir", "synth pad"), motion=0.4),
    "slow ballad": Groove("ballad", 4, 4, (50, 80), {"k": "X.........x.....", "r": "....x.......x...", "h": "x.x.x.x.x.x.x.x."}, ("R-------5---R---", "R---------------"), ("a.a.a.a.a.a.a.a.", "aaaaaaaaaaaaaaaa", "C-------C-------"), ("I vi IV V", "I iii IV V", "vi IV I V", "Imaj7 vi7 ii7 V7"), ("major", "minor"), ("piano", "violin", "saxophone", "cello", "flute", "acoustic guitar", "oboe"), ("piano", "electric piano", "acoustic guitar", "harp"), pads=("strings", "choir"), kits=("brush", "standard"), motion=0.3),
    "medium swing": Groove("jazz", 4, 4, (110, 190), {"d": "x...x.x.x...x.x.", "p": "....x.......x...", "k": "o...........o...", "s": "..........o....."}, ("W---W---W---W---",), ("......c.........", "..c...........c.", "....c.....c....."), _JAZZ, ("major", "dorian"), ("saxophone", "trumpet", "piano", "vibraphone", "electric guitar", "clarinet", "trombone", "flute"), ("piano", "electric guitar", "vibraphone"), kits=("jazz", "brush"), swing=0.16, motion=0.6),
    "slow swing": Groove("jazz", 4, 4, (60, 105), {"d": "x...x.x.x...x.x.", "p": "....x.......x...", "s": "o...o...o...o..."}, ("W---W---W---W---", "R-------5-------"), ("C-------......c.", "......C---------"), _JAZZ, ("major", "dorian"), ("saxophone", "trumpet", "piano", "vibraphone", "clarinet"), ("piano", "electric guitar"), kits=("brush", "jazz"), swing=0.16, motion=0.4),
    "jazz waltz": Groove("jazz", 3, 4, (100, 180), {"d": "x...x.x.x...", "p": "....x.......", "k": "o..........."}, ("R-------5---", "W---W---W---"), ("....c.......", "......c.c..."), _JAZZ, ("major", "dorian"), ("saxophone", "flute", "piano", "vibraphone", "electric guitar"), ("piano", "electric guitar"), kits=("jazz", "brush"), swing=0.14, motion=0.5),
    "shuffle": Groove("blues", 4, 4, (90, 150), {"k": "x.......x.......", "s": "....X.......X...", "d": "x.x.x.x.x.x.x.x."}, ("R.R.3.3.5.5.3.3.", "R---R.R.5---R.R."), ("c...c.c.c...c.c.", "..c...c...c...c."), _BLUES, ("mixolydian",), ("electric guitar", "harmonica", "saxophone", "piano", "organ"), ("piano", "electric guitar", "organ"), swing=0.16, motion=0.5),
    "slow blues": Groove("blues", 4, 3, (50, 75), {"k": "X.....x.....", "s": "...X.....X..", "h": "xxxxxxxxxxxx"}, ("R-.R.5R-.3.5", "R--R--5--R--"), ("..c..c..c..c", "C-----C-----"), _BLUES, ("mixolydian",), ("electric guitar", "harmonica", "saxophone", "organ", "piano"), ("piano", "organ", "electric guitar"), motion=0.5),
    "bossa": Groove("bossa nova", 4, 4, (100, 150), {"k": "x..xx..xx..xx..x", "r": "x..x..x...x..x..", "h": "x.x.x.x.x.x.x.x."}, ("R-----5-5-----R-", "R--.--R-5--.--5-"), ("c..c..c...c..c..", "C--C--C---C--C--"), _JAZZ, ("major", "dorian"), ("flute", "acoustic guitar", "saxophone", "piano", "clarinet", "vibraphone"), ("acoustic guitar", "piano", "electric piano"), kits=("brush", "jazz", "standard"), motion=0.4),
    "samba": Groove("samba", 2, 4, (90, 130), {"k": "x..xX..x", "b": "xoxxoxxo", "s": "o.x..x.x", "y": "..x...xx"}, ("R--.5--R", "R--RR--5"), ("c.c..c.c", ".c.c.cc."), ("I vi7 ii7 V7", "ii7 V7 Imaj7 Imaj7", "I I7 IV V7"), ("major",), ("flute", "trombone", "acoustic guitar", "trumpet", "steel drums"), ("acoustic guitar", "piano"), motion=0.6),
    "funk": Groove("funk", 4, 4, (90, 120), {"k": "X..x..x...x..x..", "s": "....X..o.o..X..o", "h": "xxxxxxxxxxxxxxxx"}, ("R..R..8...5.8.R.", "R.R...8..R..5.8."), ("..c..c....c..c..", "c..c....c.c....."), ("i7 i7 IV7 i7", "i7 IV7 i7 IV7", "I7 I7 I7 IV7"), ("dorian", "mixolydian"), ("saxophone", "trumpet", "electric guitar", "organ", "brass"), ("electric guitar", "electric piano", "organ"), basses=("bass", "synth bass"), motion=0.6),
    "disco": Groove("disco", 4, 4, (108, 130), {"k": "X...X...X...X...", "s": "....x.......x...", "g": "....x.......x...", "o": "..x...x...x...x.", "h": "x.x.x.x.x.x.x.x."}, ("R.8.R.8.R.8.R.8.",), ("..c...c...c...c.", "c..c..c.c..c..c."), _POP_MINOR + _POP[:2], ("minor", "major"), ("strings", "brass", "synth lead", "saxophone", "electric guitar"), ("electric guitar", "electric piano", "piano"), pads=("strings",), kits=("standard", "electronic"), motion=0.5),
    "house": Groove("house", 4, 4, (116, 132), {"k": "X...X...X...X...", "g": "....x.......x...", "o": "..x...x...x...x.", "h": "xxxxxxxxxxxxxxxx"}, ("..R...R...R...R.", "R..R..R...R..R.."), ("c..c..c...c..c..", "C-----C---C-----"), _POP_MINOR, ("minor", "dorian"), ("synth lead", "piano", "organ"), ("piano", "synth pad", "electric piano"), basses=("synth bass",), pads=("synth pad",), kits=("electronic", "808"), motion=0.4),
    "boom bap": Groove("hip hop", 4, 4, (80, 104), {"k": "X..x....x.x.....", "s": "....X.......X...", "h": "x.x.x.x.x.x.xxx."}, ("R--.....R.R..5..", "R-----..R---...."), ("C-------........", "c.......c..c...."), ("i7 iv7", "i bVI", "i7 bVII7 bVI7 v7"), ("minor", "dorian"), ("piano", "electric piano", "flute", "trumpet", "strings", "music box"), ("electric piano", "piano"), basses=("bass", "synth bass"), kits=("808", "electronic", "room"), motion=0.35),
    "lo-fi": Groove("lo-fi", 4, 4, (65, 90), {"k": "x.....x...x.....", "r": "....x.......x...", "h": "x.x.x.xxx.x.x.x."}, ("R-----5-R-------", "R---------------"), ("C---------------", "C-------C-------"), _JAZZ, ("major", "dorian"), ("electric piano", "piano", "vibraphone", "acoustic guitar", "saxophone"), ("electric piano", "piano"), pads=("synth pad",), kits=("808", "brush", "room"), swing=0.06, motion=0.3),
    "one drop": Groove("reggae", 4, 4, (65, 90), {"k": "........X.......", "r": "........X.......", "h": "x.x.x.x.x.x.x.x."}, ("R---..R.5---....", "....R.R.5.3.R..."), ("....c.......c...", "..c...c...c...c."), ("I IV I V", "I V vi IV", "i bVII i bVII"), ("major", "minor"), ("organ", "trombone", "harmonica", "electric guitar", "saxophone"), ("electric guitar", "organ", "piano"), motion=0.4),
    "train beat": Groove("country", 4, 4, (90, 140), {"k": "x.......x.......", "s": "ooXoooXoooXoooXo"}, ("R-------5-------", "R---....5---...."), ("....c.......c...", "B...c...B...c..."), _FOLK, ("major",), ("violin", "banjo", "harmonica", "acoustic guitar", "electric guitar"), ("acoustic guitar", "banjo", "piano"), kits=("brush", "standard"), motion=0.6),
    "fingerpicked folk": Groove("folk", 4, 4, (80, 125), {"b": "....x.......x...", "k": "x.......x......."}, ("R-------5-------",), ("B.a.a.a.B.a.a.a.", "aaaaaaaaaaaaaaaa"), _FOLK, ("major", "dorian", "minor"), ("acoustic guitar", "flute", "violin", "harmonica", "recorder", "accordion"), ("acoustic guitar", "banjo", "harp"), kits=("brush",), motion=0.5),
    "waltz": Groove("waltz", 3, 4, (80, 180), {"k": "x...........", "r": "....x...x...", "p": "....o...o..."}, ("R-----------", "R---........"), ("....c...c...", "B...c...c..."), ("I V7 V7 I", "I IV V7 I", "I vi ii V7", "i iv V7 i"), ("major", "minor"), ("violin", "accordion", "piano", "clarinet", "flute", "strings", "music box"), ("piano", "accordion", "strings", "harp"), kits=("brush",), motion=0.4),
    "march": Groove("march", 2, 4, (90, 130), {"k": "X...x...", "s": "..x.xxx.", "c": "x......."}, ("R...5...",), ("..c...c.",), ("I I V7 I", "I IV V7 I", "I V7 V7 I"), ("major", "minor"), ("trumpet", "brass", "flute", "clarinet", "recorder", "trombone", "french horn"), ("brass", "piano", "strings"), motion=0.5),
    "salsa": Groove("salsa", 4, 4, (85, 115), {"y": "..x...xx..x...xx", "w": "x..x..x...x.x...", "u": "x..x..x.x..x..x.", "k": "......x.......x."}, ("......R.....5---", "R-----5.....8---"), ("c.cc.cc.cc.cc.c.", "a.aa.aa.aa.aa.a."), ("i iv V7 i", "I IV V7 IV", "ii7 V7 I I", "i bVII bVI V7"), ("minor", "major"), ("trumpet", "piano", "trombone", "brass", "flute"), ("piano",), motion=0.6),
    "metal gallop": Groove("metal", 4, 4, (120, 180), {"k": "x.xxx.xxx.xxx.xx", "s": "....X.......X...", "c": "x...............", "h": "x...x...x...x..."}, ("R.RRR.RRR.RRR.RR", "R.R.R.R.R.R.R.R."), ("c.ccc.ccc.ccc.cc", "C-------c.c.c.c."), ("i5 bVI5 bVII5 i5", "i5 i5 bVI5 bVII5", "i5 bIII5 bVII5 iv5"), ("minor",), ("distorted guitar", "synth lead"), ("distorted guitar",), kits=("power",), motion=0.6),
    "ambient": Groove("ambient", 4, 4, (50, 75), {}, ("R---------------",), ("C---------------",), ("Imaj7 IVmaj7", "i bVI", "Isus I IV I", "vi IV I iii"), ("major", "minor"), ("synth pad", "choir", "flute", "piano", "vibraphone", "harp", "pan flute"), ("synth pad", "choir", "strings"), pads=("synth pad", "choir"), motion=0.15),
    "synthwave": Groove("synthwave", 4, 4, (84, 118), {"k": "X.......X.......", "s": "....X.......X...", "h": "x.x.x.x.x.x.x.x."}, ("R.R.R.R.R.R.R.R.", "RRRRRRRRRRRRRRRR"), ("aaaaaaaaaaaaaaaa", "C---------------"), _POP_MINOR, ("minor",), ("synth lead",), ("synth pad", "synth lead"), basses=("synth bass",), pads=("synth pad",), kits=("electronic", "808"), motion=0.4),
    "jig": Groove("irish jig", 2, 3, (100, 132), {"b": "x.ox.o", "k": "x..x.."}, ("R--5--", "R-----"), ("c.cc.c", "C--C--"), ("I I IV V", "I V IV V", "i bVII i bVII"), ("major", "dorian", "mixolydian"), ("violin", "flute", "recorder", "accordion", "banjo", "harp"), ("acoustic guitar", "accordion", "harp"), kits=("brush",), motion=1.0),
    "slow six": Groove("gospel", 2, 3, (50, 72), {"k": "x.....", "s": "...x..", "h": "xxxxxx"}, ("R--5--", "R----5"), ("aaaaaa", "C--C--"), ("I IV I V", "I vi IV V", "I iii IV V7"), ("major",), ("piano", "organ", "choir", "electric guitar", "saxophone"), ("piano", "organ"), pads=("choir", "organ"), motion=0.4),
    "tango": Groove("tango", 4, 4, (100, 132), {"s": "x...x...x...x.x."}, ("R---R---R---R-5-", "R-----5-R---5---"), ("c...c...c...c.c.", "C-----C-c...c..."), _TANGO, ("minor",), ("accordion", "violin", "piano", "clarinet"), ("accordion", "piano", "strings"), kits=("brush",), motion=0.5),
    "polka": Groove("polka", 2, 4, (100, 130), {"k": "x...x...", "s": "..x...x."}, ("R...5...",), ("..c...c.",), ("I I V7 I", "I V7 V7 I", "I IV V7 I"), ("major",), ("accordion", "clarinet", "trumpet", "violin"), ("accordion", "piano", "banjo"), motion=0.7),
    "classical": Groove("classical", 4, 4, (60, 140), {}, ("R-------R-------", "R---R---R---R---"), ("aaaaaaaaaaaaaaaa", "a.a.a.a.a.a.a.a.", "C---C---C---C---"), ("I IV V7 I", "I vi ii V7", "i iv V7 i", "I V7 vi IV"), ("major", "minor"), ("piano", "violin", "cello", "flute", "oboe", "clarinet", "strings", "harpsichord", "french horn", "harp"), ("piano", "strings", "harpsichord", "harp"), basses=("cello",), pads=("strings",), motion=0.6),
    "minuet": Groove("classical", 3, 4, (90, 140), {}, ("R---5---5---", "R-----------"), ("C---C---C---", "a.a.a.a.a.a."), ("I V7 I V7", "I IV V7 I", "i iv V7 i"), ("major", "minor"), ("harpsichord", "piano", "violin", "flute", "recorder", "oboe", "strings"), ("harpsichord", "strings", "piano"), basses=("cello",), motion=0.5),
    "hymn": Groove("choral", 4, 4, (60, 96), {}, ("R---R---R---R---",), ("C---C---C---C---", "C-------C-------"), ("I IV V I", "I vi IV V", "I V vi IV"), ("major", "minor"), ("choir", "church organ", "trumpet"), ("choir", "church organ", "strings"), basses=("cello",), motion=0.25),
    "raga": Groove("world", 4, 4, (60, 120), {"u": "x..o.o..x..o.o..", "f": "x.......x......."}, ("R---------------",), ("C---------------",), ("I5 I5", "i5 i5", "I5 bVII5"), ("mixolydian", "dorian"), ("sitar", "flute", "koto", "violin"), ("synth pad", "strings", "harp"), motion=0.7),
    "tropical": Groove("calypso", 4, 4, (96, 125), {"k": "X..x..x.X..x..x.", "r": "...x..x....x..x.", "b": "x.xxx.xxx.xxx.xx"}, ("R..5..8.R..5..8.",), ("..c...c...c...c.", "c..c..c.c..c..c."), ("I IV V I", "I V IV V", "I vi ii V"), ("major",), ("steel drums", "marimba", "pan flute", "trumpet", "xylophone"), ("acoustic guitar", "marimba", "steel drums"), motion=0.6),
    "cinematic": Groove("cinematic", 4, 4, (70, 120), {"f": "X..x..x.X..x..x.", "c": "x...............", "t": "............x.xx"}, ("R---R---R---R---", "R-R-R-R-R-R-R-R-"), ("c.c.c.c.c.c.c.c.", "C---------------"), ("i bVI bIII bVII", "i bVII bVI bVII", "i iv bVI V"), ("minor",), ("strings", "french horn", "brass", "choir", "trumpet"), ("strings", "pizzicato", "choir"), basses=("cello",), pads=("choir", "strings"), kits=("power",), motion=0.3),
}  # fmt: skip
GENRES = tuple(dict.fromkeys(groove.genre for groove in GROOVES.values()))
