"""The codec: waveforms to codes and back."""

from .encodec import Codec, fingerprint, fingerprint_of

__all__ = ["Codec", "fingerprint", "fingerprint_of"]
