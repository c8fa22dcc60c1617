"""What users do with checkpoint files: convert and inspect them."""
