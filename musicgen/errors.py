"""The errors that a user is meant to read. Each says what was given, what is allowed and what to do."""


class MusicGenError(Exception):
    """Base of every error raised on purpose by this package."""


class InputError(MusicGenError, ValueError):
    """A value given by the user cannot be used: text, audio, a number, a file name."""


class CheckpointError(MusicGenError):
    """A file of weights is missing, damaged, unsafe, or of another architecture."""


class DependencyError(MusicGenError, ImportError):
    """An optional library is needed for what was asked, and cannot be imported."""
