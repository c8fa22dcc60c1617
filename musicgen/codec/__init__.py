"""The codec: waveforms to codes and back."""

from .encodec import Codec, fingerprint, fingerprint_of
from .incremental import IncrementalDecoder

__all__ = ["Codec", "IncrementalDecoder", "fingerprint", "fingerprint_of"]
