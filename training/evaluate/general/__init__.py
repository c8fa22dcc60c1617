"""Measures of a model of general music."""
