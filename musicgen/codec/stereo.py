"""Stereo codes: one mono codec for both channels, codebooks interleaved.

Source: audiocraft `InterleaveStereoCompressionModel` with per_timestep=False:

    codebook of the pair   0   1   2   3   4   5   6   7
    codebook, channel      0L  0R  1L  1R  2L  2R  3L  3R
"""

from torch import Tensor


def interleave(codes: Tensor, channels: int) -> Tensor:
    """Interleave codes of one row a channel to one row a clip: [B * C, k, T] -> [B, k * C, T]."""
    rows, n_codebooks, n_frames = codes.shape
    paired = codes.reshape(rows // channels, channels, n_codebooks, n_frames).transpose(1, 2)
    return paired.reshape(rows // channels, n_codebooks * channels, n_frames)


def separate(codes: Tensor, channels: int) -> Tensor:
    """Separate codes of one row a clip to one row a channel: [B, k * C, T] -> [B * C, k, T], the inverse of `interleave`."""
    batch, n_codebooks, n_frames = codes.shape
    paired = codes.reshape(batch, n_codebooks // channels, channels, n_frames).transpose(1, 2)
    return paired.reshape(batch * channels, n_codebooks // channels, n_frames)
