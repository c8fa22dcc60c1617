"""The recipe of pansori-mini: a synthesizer of pansori-like music, and the training of a small MusicGen on it."""
