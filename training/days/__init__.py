"""The recipe for two cores and several days: codec, codes, language model, export, each in as many sittings as one likes."""
