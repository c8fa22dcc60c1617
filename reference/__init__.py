"""Other implementations of MusicGen, behind this project's facade. Imported only when chosen."""
