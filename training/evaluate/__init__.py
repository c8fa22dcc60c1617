"""Measures of any model."""
