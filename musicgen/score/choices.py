"""Names that scores can be asked for, without the code that reads them: for nodes that are listed at start."""

SUFFIXES = (".mid", ".midi", ".musicxml", ".mxl", ".xml", ".abc")
MELODY = "melody"  # the part that has the melody, by its rule
CHORDS = ("written", "of the notes")  # where the chords come from
MAX_TRANSPOSE = 48  # semitones
MAX_TUNE = 99_999
EXAMPLE_NOTES = "C4 D4 E4:2 r G3:0.5"
