"""What can be measured of music that was made: how likely, how faulty, how fast, how well it joins.

`likelihood` needs the whole engine, and is imported where it is used. `hearing` listens to any piece: tempo, bars, key, chords.
"""

from ..tempo import FASTEST_BPM, asked_bpm
from .loop import CROSSFADE_MS, FOLLOWED, MAX_CROSSFADE_MS, Loop, make_loop
from .takes import Measures, check_choice, chosen, faults, measure, rank, severities
from .tempo import measure_bpm

__all__ = [
    "CROSSFADE_MS",
    "FASTEST_BPM",
    "FOLLOWED",
    "MAX_CROSSFADE_MS",
    "Loop",
    "Measures",
    "asked_bpm",
    "check_choice",
    "chosen",
    "faults",
    "make_loop",
    "measure",
    "measure_bpm",
    "rank",
    "severities",
]
