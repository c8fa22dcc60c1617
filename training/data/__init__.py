"""The training music: rhythms, scales, melodies, voices, clips and their descriptions."""
