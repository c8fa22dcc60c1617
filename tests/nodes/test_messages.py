"""What nodes say of values that only a link or a program can give them."""

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.loading import load


def test_an_engine_of_another_name_is_not_taken_for_native():
    with pytest.raises(InputError, match="'engine' must be one of native, audiocraft, got 'nativ'"):
        NODES["MusicGenLoader"]().load("pansori-mini", "auto", "nativ")


@pytest.mark.parametrize(("duration_s", "advised"), [(0, False), (-1, False), (float("nan"), False), (4000, True)])
def test_several_runs_are_advised_for_long_music_only(duration_s, advised):
    message = NODES["MusicGenSampler"].VALIDATE_INPUTS(duration_s=duration_s)
    assert "from 0.1 to 3600 seconds" in message and ("several runs" in message) is advised


def test_several_clips_for_one_take_ask_for_one(toys):
    loaded = load(toys(), "float32")
    clips = Codes(torch.zeros(3, 4, 10, dtype=torch.long), 50.0, loaded.config.codec.identity)
    for n_rows, words in (
        (1, r"Give one clip, or set 'batch_size' to 3\.$"),
        (2, r"Give one clip, or 2, or set 'batch_size' to 3\.$"),
    ):
        params = GenerationParams(duration_s=1, batch_size=n_rows)
        with pytest.raises(InputError, match=words):
            loaded.model.generate(loaded.conditioner.encode_text(["x"]), params, clips)
