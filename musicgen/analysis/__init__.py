"""What can be measured of music that was made: how likely, how faulty, how fast, how well it joins."""

from .likelihood import log_likelihood
from .loop import CROSSFADE_MS, FOLLOWED, MAX_CROSSFADE_MS, Loop, make_loop
from .takes import Measures, faults, measure, rank, severities
from .tempo import asked_bpm, measure_bpm

__all__ = [
    "CROSSFADE_MS",
    "FOLLOWED",
    "MAX_CROSSFADE_MS",
    "Loop",
    "Measures",
    "asked_bpm",
    "faults",
    "log_likelihood",
    "make_loop",
    "measure",
    "measure_bpm",
    "rank",
    "severities",
]
