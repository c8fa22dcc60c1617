"""Tools for checkpoint files: convert and inspect."""
