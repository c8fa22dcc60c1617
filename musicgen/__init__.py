"""MusicGen in plain PyTorch: text and melody to codes, codes to audio. Knows nothing of ComfyUI."""
