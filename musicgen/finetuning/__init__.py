"""Fine-tunes made here: a folder of music -> a LoRA or whole weights, with the proof that they change what is heard."""
