"""The command line: python -m musicgen."""

from .main import main

__all__ = ["main"]
