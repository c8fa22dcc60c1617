"""The store of models: where they are, what they are called, and downloads."""
