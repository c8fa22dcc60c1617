"""A Demucs of the real class with few random weights."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch


def small_demucs(sources=("drums", "bass", "other", "vocals"), segment=Fraction(1)):
    library = pytest.importorskip("demucs.htdemucs", reason="demucs is not installed")
    torch.manual_seed(0)
    return library.HTDemucs(
        sources=list(sources), channels=8, depth=4, bottom_channels=32, t_layers=1, segment=segment
    ).eval()


def write_separator(separator, file: Path) -> None:
    """A file of weights as Demucs publishes them."""
    args, kwargs = separator._init_args_kwargs
    file.parent.mkdir(parents=True, exist_ok=True)
    package = {"klass": type(separator), "args": args, "kwargs": kwargs, "state": separator.state_dict()}
    torch.save(package, file)
