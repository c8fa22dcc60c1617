"""The store of models: where they are, what they are called, and downloads."""

from .model_store import ModelStore, OnStep
from .urls import is_url

__all__ = ["ModelStore", "OnStep", "is_url"]
