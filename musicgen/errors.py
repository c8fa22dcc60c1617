"""Errors for the user. Each names the value, the allowed range and the remedy."""


class MusicGenError(Exception):
    """Base of every error raised on purpose by this package."""


class InputError(MusicGenError, ValueError):
    """An input of the user is invalid: text, audio, a number, a file name."""


class CheckpointError(MusicGenError):
    """A file of weights is missing, damaged, unsafe, or of another architecture."""


class DependencyError(MusicGenError, ImportError):
    """An optional library is needed for what was asked, and cannot be imported."""
