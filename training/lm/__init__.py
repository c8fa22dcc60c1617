"""Training of the language model."""
