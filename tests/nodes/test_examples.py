"""The clips that come with the pack, and the length of pictures and sound."""

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen.audio import read
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.nodes import examples
from comfyui_musicgen.training.data.examples import EXAMPLES, MAX_BYTES, PIECES, render, render_piece
from comfyui_musicgen.training.data.render import SOUNDFONT, Synthesizer

CLIPS = sorted({*EXAMPLES, *PIECES})


def test_every_clip_of_the_recipe_is_listed_and_no_other():
    assert examples.example_names() == CLIPS
    assert all((examples.FOLDER / f"{name}.flac").stat().st_size < MAX_BYTES for name in CLIPS)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_clip_is_what_the_recipe_plays(name):
    stored, played = read(examples.FOLDER / f"{name}.flac"), render(EXAMPLES[name])
    assert stored.rate_hz == played.rate_hz and stored.samples.shape == played.samples.shape
    assert (stored.samples - played.samples).abs().max() < 2**-10  # 16 bits, and another processor's rounding


@pytest.mark.parametrize("name", sorted(PIECES))
def test_a_clip_of_general_music_is_what_the_recipe_plays(name):
    if not SOUNDFONT.exists():
        pytest.skip("the soundfont of the recipe is not installed (musescore-general-soundfont-small)")
    try:
        synthesizer = Synthesizer(SOUNDFONT, 32_000)
    except OSError as error:
        pytest.skip(f"FluidSynth is not installed ({error})")
    stored, played = read(examples.FOLDER / f"{name}.flac"), render_piece(PIECES[name], synthesizer)
    assert stored.rate_hz == played.rate_hz and stored.samples.shape == played.samples.shape
    error = (stored.samples - played.samples).pow(2).mean() / played.samples.pow(2).mean()
    assert error < 1e-3  # another FluidSynth rounds, and its reverb may differ


@pytest.mark.parametrize("name", CLIPS)
def test_the_node_gives_the_clip_and_its_name(name):
    audio, given = NODES["MusicGenExample"]().load(clip=name)
    assert given == name
    assert 5 < audio["waveform"].shape[-1] / audio["sample_rate"] <= 8
    assert 0.1 < audio["waveform"].abs().max() <= 1


def test_a_clip_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"'clip' must be one of buk drum, .*got 'banjo'"):
        NODES["MusicGenExample"]().load(clip="banjo")


def sound(seconds):
    return {"waveform": torch.zeros(1, 1, round(1000 * seconds)), "sample_rate": 1000}


@pytest.mark.parametrize(
    ("inputs", "seconds"),
    [
        ({"images": torch.zeros(150, 4, 4, 3)}, 6.0),
        ({"images": torch.zeros(150, 4, 4, 3), "fps": 30.0}, 5.0),
        ({"audio": sound(2.5)}, 2.5),
        ({"images": torch.zeros(25, 4, 4, 3), "audio": sound(2.5)}, 2.5),
        ({"images": torch.zeros(150, 4, 4, 3), "extra_s": -1.5}, 4.5),
    ],
)
def test_length_is_that_of_the_longer_of_pictures_and_sound(inputs, seconds):
    length, *tempo = NODES["MusicGenLength"]().measure(**{"fps": 25.0, "extra_s": 0.0, **inputs})
    assert length == pytest.approx(seconds) and tempo == [0.0, ""]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"length": "8 bars @ 120 in 3/4"}, (12.0, 120.0, "3/4")),
        ({"length": "1:30"}, (90.0, 0.0, "")),
        ({"length": "4 bars @ 120", "audio": sound(9.0)}, (9.0, 120.0, "4/4")),
        ({"length": "4 bars @ 120", "extra_s": 1.0}, (9.0, 120.0, "4/4")),
    ],
)
def test_a_length_in_bars_gives_seconds_tempo_and_meter(inputs, expected):
    assert NODES["MusicGenLength"]().measure(**{"fps": 25.0, "extra_s": 0.0, **inputs}) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"length": "8 bars"}, "names no tempo"),
        ({}, "Neither 'images' nor 'audio' is connected"),
        (
            {"images": torch.zeros(4, 4, 3)},
            r"'images' must be a batch of pictures .* got a tensor of shape \(4, 4, 3\)",
        ),
        ({"images": "video.mp4"}, "'images' must be a batch of pictures .* got str"),
        ({"audio": sound(2), "extra_s": -3.0}, r"The length is -1.000 s \(2.000 s and -3 s of 'extra_s'\)"),
        ({"images": torch.zeros(40, 1, 1, 3), "fps": 0.01}, "The length is 4000.000 s .* 0.1 to 3600 s"),
    ],
)
def test_what_has_no_length_is_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        NODES["MusicGenLength"]().measure(**{"fps": 25.0, "extra_s": 0.0, **inputs})
