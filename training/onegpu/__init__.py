"""The recipe for one GPU: clips rendered by all cores, codec, codes, language model, export, each in its time box."""
