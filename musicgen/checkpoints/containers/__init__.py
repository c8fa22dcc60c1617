"""The containers that tensors come in: torch's zip of pickles, and safetensors."""
