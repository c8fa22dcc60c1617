"""The recipes of pansori-mini and general-mini: music that is made by rules, and the training of small MusicGens on it."""
