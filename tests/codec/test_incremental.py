"""Codes decoded while they are written: the samples of one decode of the whole, in any portions, with bounded memory."""

import pytest
import torch
from comfyui_musicgen.musicgen.codec import IncrementalDecoder
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.tests.codec.test_codec import HOP, toy_codec, toy_codes

BOUND = 2e-6  # of samples: rounding alone


def portions(codes, size):
    return codes.codes[:1].split(size, dim=-1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_the_portions_are_the_whole_decode(channels, pad_mode, size):
    codec = toy_codec(channels=channels, n_codebooks=4 * channels, pad_mode=pad_mode)
    codes = toy_codes(codec, 150, batch=2)
    decoder = IncrementalDecoder(codec)
    pieces = [decoder.feed(portion) for portion in portions(codes, size)]
    heard = torch.cat([*pieces, decoder.finish()], dim=-1)
    whole = codec.decode(Codes(codes.codes[:1], codes.frame_rate_hz, codes.codec)).samples[0]
    assert heard.shape == whole.shape and whole.abs().max() > 0.1
    torch.testing.assert_close(heard, whole, atol=BOUND, rtol=0)
    if size < 1000:
        assert sum(map(len, [piece[0] for piece in pieces])) >= (150 - decoder.ahead) * HOP, "a frame waited too long"


@pytest.mark.parametrize("n_frames", [1, 2, 3, 5])
def test_a_piece_shorter_than_the_receptive_field_waits_for_its_end(n_frames):
    codec = toy_codec()
    codes = toy_codes(codec, n_frames)
    decoder = IncrementalDecoder(codec)
    heard = torch.cat([decoder.feed(codes.codes), decoder.finish()], dim=-1)
    torch.testing.assert_close(heard, codec.decode(codes).samples[0], atol=BOUND, rtol=0)


def test_what_is_kept_does_not_grow_with_the_piece():
    codec = toy_codec()
    decoder, kept = IncrementalDecoder(codec), []
    for portion in portions(toy_codes(codec, 600), 20):
        decoder.feed(portion)
        hidden = decoder._streamer._hidden
        kept.append(decoder._codes.untyped_storage().nbytes() + (0 if hidden is None else hidden.numel()))
    assert max(kept[5:]) <= max(kept[:5]), "memory grows"
