"""The Replicate contract: 15 fields, by Python, by the command line, and as a graph; the original's defects mended."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.clients.predict import graph
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.errors import CheckpointError, InputError
from comfyui_musicgen.musicgen.replicate.contracts import CONTRACTS, DEFAULT_MODEL, PansoriRequest
from comfyui_musicgen.musicgen.replicate.predict import predict
from comfyui_musicgen.musicgen.store.published import DIFFUSION_MODEL
from comfyui_musicgen.tests.toy.diffusion import TOY_UNET, write_toy_diffusion

# The table of nodes.md, copied by hand: name -> (JSON type, default).
CONTRACT = {
    "prompt": ("string", None),
    "input_audio": ("string", None),
    "duration": ("integer", 8),
    "continuation": ("boolean", False),
    "continuation_start": ("integer", 0),
    "continuation_end": ("integer", None),
    "multi_band_diffusion": ("boolean", False),
    "normalization_strategy": ("string", "loudness"),
    "top_k": ("integer", 250),
    "top_p": ("number", 0),
    "temperature": ("number", 1),
    "classifier_free_guidance": ("integer", 3),
    "output_format": ("string", "wav"),
    "seed": ("integer", None),
    "replicate_weights": ("string", None),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three seconds of a rising tone, stereo, 44.1 kHz."""
    t = torch.arange(3 * 44100) / 44100
    wave = 0.3 * torch.sin(2 * torch.pi * (220 + 60 * t) * t)
    return audio.write(audio.Audio(wave.expand(1, 2, -1).clone(), 44100), tmp_path_factory.mktemp("clips") / "clip.wav")


@pytest.fixture
def make(toys, tmp_path):
    """predict() with the stereo melody toy, one second long unless said otherwise."""

    def call(**values):
        out = tmp_path / f"made-{len(list(tmp_path.iterdir()))}.{values.get('output_format', 'wav')}"
        values = {"prompt": "drums", "duration": 1, "seed": 5, **values}
        model = values.pop("model", None) or toys(stereo=True, melody=True)
        made = predict(model=model, models_dir=tmp_path / "models", out=out, device="cpu", **values)
        return audio.read(made.file), made

    return call


def test_names_types_defaults_and_order_are_replicates():
    fields = PansoriRequest.fields()
    assert [(name, (fields[name].type, fields[name].default)) for name in fields] == list(CONTRACT.items())
    assert DEFAULT_MODEL == "facebook/musicgen-stereo-melody"


def test_the_schema_is_valid_and_takes_what_the_request_takes(capsys):
    assert main(["predict", "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(CONTRACTS["pansori"].schema()))
    inputs = printed["properties"]["input"]["properties"]
    assert list(inputs) == list(CONTRACT) and printed["properties"]["output"]["type"] == "string"
    for name, (kind, default) in CONTRACT.items():
        assert kind in inputs[name]["type"] and inputs[name]["default"] == default
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(printed)
    check = jsonschema.Draft202012Validator(printed["properties"]["input"])
    assert check.is_valid({"prompt": "x", "seed": None, "top_p": 0.5})
    for bad in ({"duration": 0}, {"top_p": 2}, {"output_format": "ogg"}, {"nonsense": 1}, {"continuation": "yes"}):
        assert not check.is_valid(bad)


def test_defaults_make_music(make):
    sound, made = make()
    assert sound.rate_hz == 32000 and sound.n_channels == 2 and sound.n_samples == 32000
    assert made.seed == 5 and made.file.suffix == ".wav"
    assert sound.samples.abs().max() > 0.05


@pytest.mark.slow  # each field is changed on the command line as well
@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "other words"}, {"duration": 2}, {"top_k": 5}, {"top_p": 0.5}, {"temperature": 0.5},
        {"classifier_free_guidance": 1}, {"seed": 6}, {"normalization_strategy": "peak"}, {"normalization_strategy": "rms"},
        {"normalization_strategy": "clip"},
    ],
    ids=str,
)  # fmt: skip
def test_each_setting_changes_the_result(make, plain_file, values):
    _, changed = make(**values)
    assert changed.file.read_bytes() != plain_file


def test_input_audio_is_followed_as_a_melody_unless_continued(make, clip):
    plain, _ = make()
    melody, _ = make(input_audio=str(clip))
    later, _ = make(input_audio=str(clip), continuation_start=2)
    assert not torch.equal(plain.samples, melody.samples)
    assert not torch.equal(later.samples, melody.samples)
    silent_words, _ = make(prompt=None, input_audio=str(clip))
    assert silent_words.n_samples == 32000


def test_continuation_begins_with_the_part_of_the_clip(make, clip):
    made, _ = make(input_audio=str(clip), continuation=True, continuation_start=1, continuation_end=2, duration=3)
    assert made.duration_s == 3
    whole, _ = make(input_audio=str(clip), continuation=True, duration=4)
    assert whole.duration_s == 4  # none: to the end of the clip


def test_mp3_is_mp3(make):
    sound, made = make(output_format="mp3")
    assert made.file.suffix == ".mp3" and made.file.read_bytes()[:3] in (b"ID3", b"\xff\xfb\x90")
    assert abs(sound.duration_s - 1) < 0.1


# Defects of the original


def test_seed_0_is_a_seed(make):
    first, made = make(seed=0)
    again, _ = make(seed=0)
    assert made.seed == 0 and torch.equal(first.samples, again.samples)


@pytest.mark.parametrize("seed", [None, pytest.param(-1, marks=pytest.mark.slow)])
def test_no_seed_is_random_and_reported(make, seed):
    first, made = make(seed=seed)
    _, other = make(seed=seed)
    assert 0 <= made.seed < 2**32 and made.seed != other.seed
    again, _ = make(seed=made.seed)
    assert torch.equal(first.samples, again.samples)


@pytest.mark.parametrize("end", [-1, None])
def test_continuation_end_takes_minus_one(make, clip, end):
    made, _ = make(input_audio=str(clip), continuation=True, continuation_start=2, continuation_end=end, duration=2)
    assert made.duration_s == 2


def test_continuation_end_past_the_end_is_the_end(make, clip):
    values = {"input_audio": str(clip), "continuation": True, "continuation_start": 1, "duration": 3}
    to_the_end, _ = make(**values)
    past_it, _ = make(**values, continuation_end=50)
    assert torch.equal(past_it.samples, to_the_end.samples)


def test_a_long_melody_is_read_no_further_than_the_music_can_follow_it(make, tmp_path):
    """Half an hour of melody for two seconds of music took 2.95 GB. Here what lies further cannot be read at all."""
    rate_hz = 8000
    t = torch.arange(90 * rate_hz) / rate_hz
    melody = (0.3 * torch.sin(2 * torch.pi * (220 + 2 * t) * t))[None, None]
    whole = audio.write(audio.Audio(melody, rate_hz), tmp_path / "whole.wav", sample_format="f32")
    data = bytearray(whole.read_bytes())
    data[-4 * 20 * rate_hz :] = b"\xff" * (4 * 20 * rate_hz)  # NaN
    broken = tmp_path / "broken.wav"
    broken.write_bytes(data)
    first, _ = make(input_audio=str(whole))
    second, _ = make(input_audio=str(broken))
    assert torch.equal(first.samples, second.samples)
    with pytest.raises(InputError, match="NaN"):
        make(input_audio=str(broken), continuation_start=30)


def test_the_music_fades_at_both_ends_unless_asked_not_to(make):
    faded, _ = make()
    plain, _ = make(fade_ms=0.0)
    assert faded.samples[..., 0].abs().max() < 1e-3 and faded.samples[..., -1].abs().max() < 1e-3
    inner = slice(200, -200)
    ratio = (faded.samples[..., inner] * plain.samples[..., inner]).sum() / plain.samples[..., inner].square().sum()
    torch.testing.assert_close(faded.samples[..., inner], plain.samples[..., inner] * ratio, atol=1e-4, rtol=0)


def test_a_prompt_longer_than_the_duration_is_explained(make, clip, tmp_path):
    with pytest.raises(InputError, match=r"3 s long.*2 s.*trim"):
        make(input_audio=str(clip), continuation=True, duration=2)
    assert not list(tmp_path.glob("made-*"))


# Bad input


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": None}, ["prompt", "input_audio"]),
        ({"continuation": True}, ["continuation", "input_audio"]),
        ({"duration": 0}, ["duration", "from 1 to 3600"]),
        ({"duration": 2.5}, ["duration", "2.5"]),
        ({"duration": True}, ["duration"]),
        ({"top_k": 2049}, ["top_k", "2048"]),
        ({"top_k": -1}, ["top_k", "-1"]),
        ({"top_p": 1.5}, ["top_p", "1.5"]),
        ({"temperature": -1}, ["temperature"]),
        ({"temperature": float("nan")}, ["temperature"]),
        ({"classifier_free_guidance": 21}, ["classifier_free_guidance", "20"]),
        ({"seed": 2**64}, ["seed"]),
        ({"seed": -2}, ["seed"]),
        ({"output_format": "ogg"}, ["output_format", "wav, mp3"]),
        ({"normalization_strategy": "loud"}, ["normalization_strategy", "loudness"]),
        ({"input_audio": "no-such.wav"}, ["no-such.wav"]),
        ({"input_audio": "x", "continuation_start": 3, "continuation_end": 2}, ["continuation_end", "2", "3"]),
        ({"prompt": 7}, ["prompt", "7"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_values_are_named(make, tmp_path, values, words):
    with pytest.raises(InputError) as error:
        make(**values)
    for word in words:
        assert word in str(error.value)
    assert not list(tmp_path.glob("made-*"))


def test_unknown_fields_are_named():
    with pytest.raises(InputError, match="'promt'.*prompt, input_audio"):
        PansoriRequest.of({"promt": "x"})


def test_melody_with_a_model_that_has_none_is_explained(make, clip, toys):
    with pytest.raises(InputError, match="no melody conditioning"):
        make(model=toys(), input_audio=str(clip))


def test_an_absent_model_is_explained(tmp_path):
    with pytest.raises((CheckpointError, InputError), match="no/such"):
        predict(prompt="x", model="no/such", models_dir=tmp_path)


# The command line, and the graph


def test_the_command_line_takes_both_spellings(toys, clip, tmp_path, capsys):
    files = []
    for dash in "-_":
        out = tmp_path / f"cli{dash}.wav"
        options = {
            "input-audio": clip,
            "continuation-start": 1,
            "continuation-end": 2,
            "top-k": 50,
            "duration": 2,
            "seed": 3,
        }
        words = [word for name, value in options.items() for word in (f"--{name.replace('-', dash)}", str(value))]
        model = ["--model", str(toys(stereo=True)), "--device", "cpu", "--out", str(out)]
        assert main(["predict", "--prompt", "x", "--continuation", *words, *model]) == 0
        files.append(out.read_bytes())
        captured = capsys.readouterr()
        assert captured.out.strip() == str(out) and "seed: 3" in captured.err
    assert files[0] == files[1]


FIELD_VALUES = {
    "prompt": "other words",
    "input_audio": "CLIP",
    "duration": 2,
    "continuation": True,
    "continuation_start": 1,
    "continuation_end": 2,
    "normalization_strategy": "rms",
    "top_k": 9,
    "top_p": 0.4,
    "temperature": 0.6,
    "classifier_free_guidance": 2,
    "output_format": "mp3",
    "seed": 77,
    "replicate_weights": "TUNED",
}


@pytest.fixture(scope="module")
def plain_file(toys, tmp_path_factory):
    """What the prompt, a second and a seed alone make."""
    out, model = tmp_path_factory.mktemp("plain") / "plain.wav", toys(stereo=True, melody=True)
    return predict(model=model, out=out, device="cpu", prompt="drums", duration=1, seed=5).file.read_bytes()


@pytest.mark.parametrize("name", FIELD_VALUES)
def test_every_field_means_the_same_on_the_command_line(toys, clip, plain_file, tmp_path, capsys, name):
    tuned = str(toys(stereo=True, melody=True, seed=9))
    values = {"prompt": "drums", "duration": 1, "seed": 5, name: FIELD_VALUES[name]}
    if name.startswith("continuation"):
        values |= {"input_audio": "CLIP", "continuation": True, "duration": 4}
    values = {key: {"CLIP": str(clip), "TUNED": tuned}.get(value, value) for key, value in values.items()}
    words = [
        word
        for key, value in values.items()
        for word in (f"--{key}", str(value).lower() if value is True else str(value))
    ]
    suffix = values.get("output_format", "wav")
    model = toys(stereo=True, melody=True)
    typed = tmp_path / f"typed.{suffix}"
    assert main(["predict", *words, "--model", str(model), "--device", "cpu", "--out", str(typed)]) == 0
    called = predict(model=model, out=tmp_path / f"called.{suffix}", device="cpu", **values)
    assert typed.read_bytes() == called.file.read_bytes() != plain_file


def test_multi_band_diffusion_is_another_decoder(make, tmp_path):
    file = write_toy_diffusion(
        tmp_path / "models" / "musicgen" / DIFFUSION_MODEL, replace(TOY_UNET, hidden=4), n_bands=2
    )
    plain, _ = make()
    other, _ = make(multi_band_diffusion=True)
    again, _ = make(multi_band_diffusion=True, diffusion=file)
    assert plain.samples.shape == other.samples.shape and not torch.equal(plain.samples, other.samples)
    assert torch.equal(other.samples, again.samples)


def test_multi_band_diffusion_that_is_not_there_is_explained(toys, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models = ["--model", str(toys()), "--models", str(tmp_path), "--device", "cpu"]
    assert main(["predict", "--prompt", "x", "--multi_band_diffusion", *models]) == 1
    error = capsys.readouterr().err
    assert "https://huggingface.co/facebook/multiband-diffusion" in error and "mbd_musicgen_32khz.th" in error
    assert str(tmp_path / "musicgen") in error


def test_a_file_name_is_found_where_none_is_given(toys, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "musicgen-1.wav").write_bytes(b"taken")
    assert main(["predict", "--prompt", "x", "--duration", "1", "--model", str(toys()), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.strip() == "musicgen-2.wav"
    assert (tmp_path / "musicgen-1.wav").read_bytes() == b"taken"


def test_bad_numbers_on_the_command_line_are_explained(capsys):
    assert main(["predict", "--prompt", "x", "--duration", "eight"]) == 1
    assert "'duration' must be a whole number from 1 to 3600, got 'eight'" in capsys.readouterr().err


def test_the_graph_of_a_request():
    nodes = graph(PansoriRequest(prompt="x", seed=9), "toy")
    assert [node["class_type"] for node in nodes.values()] == [
        "MusicGenLoader", "MusicGenText", "MusicGenSampler", "MusicGenDecode", "MusicGenNormalize", "MusicGenSaveAudio",
    ]  # fmt: skip
    assert nodes["sampler"]["inputs"]["seed"] == 9 and nodes["sampler"]["inputs"]["duration_s"] == 8.0

    melody = graph(PansoriRequest(input_audio="a.wav", continuation_start=1))
    assert melody["sampler"]["inputs"]["positive"] == ["melody", 0] and "prompt" not in melody["sampler"]["inputs"]
    assert melody["part"]["inputs"]["start_s"] == 1.0 and melody["part"]["inputs"]["end_s"] == -1.0

    tuned = graph(
        PansoriRequest(input_audio="a.wav", continuation=True, replicate_weights="https://x/y.tar", output_format="mp3")
    )
    assert tuned["sampler"]["inputs"]["model"] == ["fine-tune", 0]
    assert tuned["text"]["inputs"]["conditioner"] == ["fine-tune", 1]
    assert tuned["sampler"]["inputs"]["prompt"] == ["codes", 0] and tuned["save"]["inputs"]["format"] == "mp3"


def test_fine_tuned_weights_are_used_and_left_behind(make, toys):
    plain, _ = make()
    tuned, _ = make(replicate_weights=str(toys(stereo=True, melody=True, seed=9)))
    again, _ = make(replicate_weights="")
    assert torch.equal(plain.samples, again.samples) and not torch.equal(plain.samples, tuned.samples)
    other, _ = make(model=toys(stereo=True, melody=True, seed=9), seed=5)
    assert tuned.samples.shape == other.samples.shape
    with pytest.raises(CheckpointError, match="stereo"):
        make(replicate_weights=str(toys()))
    with pytest.raises((CheckpointError, InputError), match="https"):
        make(replicate_weights="http://example.com/x.tar")


def test_the_schema_s_uri_is_taken(make, clip, tmp_path):
    """The schema says uri, and file:// was not found."""
    path, _ = make(input_audio=str(clip))
    uri, _ = make(input_audio=clip.as_uri())
    assert torch.equal(path.samples, uri.samples)
    named = tmp_path / "my clip 50%.wav"
    named.write_bytes(clip.read_bytes())
    assert PansoriRequest(input_audio=named.as_uri()).input_audio == str(named)
    for uri in ("https://example.com/a.wav", "file://elsewhere/a.wav", "s3://a/b", "file://[::1", "ftp://a"):
        with pytest.raises(InputError, match="'input_audio' must be a file on this machine"):
            PansoriRequest(input_audio=uri)


def test_a_clip_that_fills_the_duration_is_found_before_a_model_is_loaded(clip, tmp_path):
    """It was called 'prompt', which is the description here."""
    with pytest.raises(InputError, match="'input_audio' is 3 s long.*'duration'.*2 s.*trim the clip") as error:
        predict(input_audio=str(clip), continuation=True, duration=2, model="no/such", out=tmp_path / "a.wav")
    assert "'prompt'" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_found_before_a_model_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    with pytest.raises(InputError, match="cannot be written"):
        predict(prompt="x", model="no/such", models_dir=tmp_path)
