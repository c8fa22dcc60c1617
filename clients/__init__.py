"""Programs that talk to a running ComfyUI."""
