"""Weights on their way from a file into a module: lazy, accounted for, filled in, blended."""
