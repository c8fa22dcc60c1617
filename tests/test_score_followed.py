"""pansori-mini follows the melody of a score, as it follows the recording of one."""

import pytest
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.analysis.asked import following
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.conditioning.tune import encode_score
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.store.published import SHIPPED
from comfyui_musicgen.tests.songs.lines import RATE_HZ, played, walk


@pytest.mark.slow
def test_music_follows_the_score_as_it_follows_its_recording():
    loaded = loading.load(SHIPPED["pansori-mini"], "float32", name="pansori-mini")
    text, params = loaded.conditioner.encode_text(["gayageum zither alone"]), GenerationParams(duration_s=5.0, seed=0)
    score = walk(0, steps=(0, 2, 4, 7, 9))
    clip = Audio(played(score)[None, None, : 5 * RATE_HZ], RATE_HZ)
    ways = {
        "score": encode_score(loaded.conditioner, text, score),
        "clip": loaded.conditioner.encode_melody(text, clip, "off"),
    }
    found = {
        name: following(loaded.codec.decode(loaded.model.generate(way, params)), score) for name, way in ways.items()
    }
    assert found["score"].share > found["score"].chance + 0.25, found
    assert found["score"].share > found["clip"].share - 0.15, found
