"""The delay pattern equals the tables in the reference, and audiocraft's own provider."""

import pytest
import torch
from comfyui_musicgen.musicgen.lm.delay import delay, first_column, n_columns, undelay

MONO, STEREO, ODD = (0, 1, 2, 3), (0, 0, 1, 1, 2, 2, 3, 3), (0, 2, 5)


def test_mono_pattern_as_drawn():
    codes = torch.arange(16).view(1, 4, 4)
    x = 99
    expected = torch.tensor(
        [[x, 0, 1, 2, 3, x, x, x], [x, x, 4, 5, 6, 7, x, x], [x, x, x, 8, 9, 10, 11, x], [x, x, x, x, 12, 13, 14, 15]]
    )
    assert torch.equal(delay(codes, MONO, x)[0], expected)


@pytest.mark.parametrize("delays", [MONO, STEREO, ODD])
@pytest.mark.parametrize("n_frames", [1, 2, 7, 50])
def test_undelay_inverts_delay(delays, n_frames):
    codes = torch.randint(0, 64, (2, len(delays), n_frames))
    assert torch.equal(undelay(delay(codes, delays, 64), delays), codes)


@pytest.mark.parametrize("delays", [MONO, STEREO, ODD])
@pytest.mark.parametrize("n_frames", [1, 3, 20])
def test_equals_audiocraft(audiocraft, delays, n_frames):
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider

    pattern = DelayedPatternProvider(len(delays), list(delays)).get_pattern(n_frames)
    codes = torch.randint(0, 64, (1, len(delays), n_frames))
    theirs, _, _ = pattern.build_pattern_sequence(codes, 64)
    assert torch.equal(delay(codes, delays, 64), theirs)
    assert n_columns(n_frames, delays) == theirs.shape[-1]
    for n_prompt in range(n_frames):
        assert first_column(n_prompt, delays) == pattern.get_first_step_with_timesteps(n_prompt)
