"""What hearing and fitting can be asked for: names and bounds without their code, for nodes that are listed at start."""

MAX_METER = 12  # beats in a bar
VOCABULARIES = ("triads", "sevenths")  # of chords
WAYS = ("measure", "stretch", "stretch and align")  # of fitting a tempo
THRESHOLD_BEATS, MAX_STRETCH = 0.5, 1.25  # of an alignment
