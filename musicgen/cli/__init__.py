"""The command line: python -m musicgen. Imports nothing, so that `doctor` starts where a library is broken."""
