"""The contract of musicgen-remixer: fields, a list of files; the original's faults mended. The pipeline itself: tests/test_remix.py."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.clients.graphs import output_of
from comfyui_musicgen.clients.predict import graph
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen import remix as engine
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.errors import CheckpointError, DependencyError, InputError
from comfyui_musicgen.musicgen.replicate.contracts import CONTRACTS, RemixRequest
from comfyui_musicgen.musicgen.replicate.predict import predict
from comfyui_musicgen.musicgen.separation import WEIGHTS
from comfyui_musicgen.musicgen.store.published import DIFFUSION_MODEL
from comfyui_musicgen.tests.songs.voiced import voiced_song
from comfyui_musicgen.tests.toy.diffusion import TOY_UNET, write_toy_diffusion
from comfyui_musicgen.tests.toy.separator import small_demucs, write_separator

# Section 1.2 of the study of cog-musicgen-remixer, copied by hand: name -> (JSON type, default).
CONTRACT = {
    "model_version": ("string", "stereo-chord"),
    "prompt": ("string", None),
    "music_input": ("string", None),
    "multi_band_diffusion": ("boolean", False),
    "normalization_strategy": ("string", "loudness"),
    "beat_sync_threshold": ("number", None),
    "large_chord_voca": ("boolean", True),
    "chroma_coefficient": ("number", 1.0),
    "top_k": ("integer", 250),
    "top_p": ("number", 0.0),
    "temperature": ("number", 1.0),
    "classifier_free_guidance": ("integer", 3),
    "output_format": ("string", "wav"),
    "seed": ("integer", None),
    "return_instrumental": ("boolean", False),
}
VALUES = {
    "prompt": "other words", "multi_band_diffusion": True, "normalization_strategy": "rms", "beat_sync_threshold": 0.5,
    "large_chord_voca": False, "chroma_coefficient": 2.0, "top_k": 9, "top_p": 0.4, "temperature": 0.6,
    "classifier_free_guidance": 2, "output_format": "mp3", "seed": 77, "return_instrumental": True,
}  # fmt: skip
SECONDS = 6.0


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A models folder with a small Demucs and a small MultiBand Diffusion."""
    folder = tmp_path_factory.mktemp("models")
    write_separator(small_demucs(), folder / "demucs" / WEIGHTS)
    unet = replace(TOY_UNET, hidden=4, codec_dim=16)
    write_toy_diffusion(folder / "musicgen" / DIFFUSION_MODEL, unet, n_bands=2)
    return folder


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    song = voiced_song(1, SECONDS).song
    return str(audio.write(song, tmp_path_factory.mktemp("songs") / "song.wav"))


@pytest.fixture
def make(chord_toy, models, music, tmp_path):
    def call(**values):
        out = tmp_path / f"made-{len(list(tmp_path.iterdir()))}.{values.get('output_format', 'wav')}"
        common = {"version": "remixer", "model": chord_toy, "models_dir": models, "device": "cpu", "out": out}
        return predict(**{**common, "prompt": "pop", "seed": 5, "music_input": music, **values})

    return call


@pytest.fixture
def calls(monkeypatch):
    """What requests give the pipeline, which still runs."""
    seen, remix = [], engine.remix

    def spy(song, prompt, loaded, **options):
        seen.append({"prompt": prompt, **options})
        return remix(song, prompt, loaded, **options)

    monkeypatch.setattr(engine, "remix", spy)
    return seen


def test_names_types_defaults_and_order_are_the_original_s():
    fields = RemixRequest.fields()
    assert [(name, (field.type, field.default)) for name, field in fields.items()] == list(CONTRACT.items())
    assert set(fields["model_version"].choices) == {"stereo-chord", "stereo-chord-large", "chord", "chord-large"}
    assert (fields["chroma_coefficient"].minimum, fields["chroma_coefficient"].maximum) == (0.5, 2.0)
    assert RemixRequest(prompt="", music_input="x").model == "sakemin/musicgen-stereo-chord"


def test_the_schema_gives_a_list_of_files(capsys):
    assert main(["predict", "--version", "remixer", "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(CONTRACTS["remixer"].schema()))
    assert list(printed["properties"]["input"]["properties"]) == list(CONTRACT)
    output = printed["properties"]["output"]
    assert output["type"] == "array" and output["items"]["format"] == "uri"


@pytest.mark.parametrize(
    "name", [name if name in ("prompt", "return_instrumental", "output_format") else pytest.param(name, marks=pytest.mark.slow) for name in VALUES]
)  # fmt: skip
def test_every_field_means_the_same_on_the_command_line_and_arrives(
    make, calls, chord_toy, models, music, tmp_path, capsys, name
):
    values = {"prompt": "pop", "seed": 5, "music_input": music, name: VALUES[name]}
    words = [
        word
        for key, value in values.items()
        for word in (f"--{key.replace('_', '-')}", str(value).lower() if isinstance(value, bool) else str(value))
    ]
    typed = tmp_path / f"typed.{values.get('output_format', 'wav')}"
    options = ["--version", "remixer", "--model", str(chord_toy), "--models", str(models), "--device", "cpu"]
    assert main(["predict", *options, *words, "--out", str(typed)]) == 0
    printed = capsys.readouterr().out.split()
    called = make(**{name: VALUES[name]})
    assert [Path(file).read_bytes() for file in printed] == [file.read_bytes() for file in called.files]
    one, other = calls
    arrived = {
        "prompt": one["prompt"], "beat_sync_threshold": one["beat_sync_threshold"], "large_chord_voca": one["large_chord_voca"],
        "chroma_coefficient": one["chroma_coefficient"], "top_k": one["params"].top_k, "top_p": one["params"].top_p,
        "temperature": one["params"].temperature, "classifier_free_guidance": one["params"].cfg, "seed": one["params"].seed,
        "multi_band_diffusion": one["diffusion"] is not None,
    }  # fmt: skip
    assert one["params"] == other["params"] and arrived.get(name, VALUES[name]) == VALUES[name]


def test_the_remix_is_as_long_as_the_song_and_the_instrumental_stands_beside_it(make):
    """With mp3 the finished remix was deleted, and its path given back."""
    for suffix in ("wav", "mp3"):
        made = make(return_instrumental=True, output_format=suffix)
        remix, instrumental = made.files
        assert instrumental.name == f"{remix.stem}-background_synced.{suffix}" and made.file == remix
        for file in made.files:
            sound = audio.read(file)
            assert abs(sound.duration_s - SECONDS) < 0.1 and sound.samples.abs().max() > 0.05
        # A separator of random weights gives a voice that is faint, on some processors too faint for MP3.
        assert suffix == "mp3" or remix.read_bytes() != instrumental.read_bytes()
    assert len(make().files) == 1


def test_the_seed_decides_and_the_coefficient_counts(make):
    """The coefficient was without effect."""
    first, again, other, strong = make(), make(), make(seed=0), make(chroma_coefficient=2.0)
    contents = [each.file.read_bytes() for each in (first, again, other, strong)]
    assert contents[0] == contents[1] and len(set(contents)) == 3 and other.seed == 0


def test_the_tempo_is_told_behind_the_prompt(monkeypatch, make):
    """As a whole number, without a meter: unlike musicgen-chord."""
    told, render = [], engine.render

    def spy(loaded, request, *rest, **options):
        told.append(request.text)
        return render(loaded, request, *rest, **options)

    monkeypatch.setattr(engine, "render", spy)
    make(prompt="pop")
    assert told and told[0].startswith("pop, bpm : ") and told[0].removeprefix("pop, bpm : ").isdigit()


def test_the_graph_of_a_request():
    nodes = graph(
        RemixRequest(prompt="pop", music_input="a.wav", seed=9, beat_sync_threshold=0.4, large_chord_voca=False)
    )
    assert nodes["align"]["inputs"]["threshold_s"] == 0.4 and nodes["song heard"]["inputs"]["vocabulary"] == "triads"
    assert nodes["loader"]["inputs"]["model"] == "sakemin/musicgen-stereo-chord"
    assert [name for name in nodes if nodes[name]["class_type"] == "MusicGenSaveAudio"] == ["save"]
    both = graph(RemixRequest(prompt="pop", music_input="a.wav", return_instrumental=True, beat_sync_threshold=-1))
    assert both["align"]["inputs"]["threshold_s"] == 0
    saves = [node["inputs"]["filename_prefix"] for node in both.values() if node["class_type"] == "MusicGenSaveAudio"]
    assert sorted(output_of(Path(prefix)) for prefix in saves) == ["background_synced", "out"]


# Bad input


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": None}, ["prompt", "may be blank"]),
        ({"music_input": None}, ["music_input", "missing"]),
        ({"music_input": "no-such.wav"}, ["no-such.wav"]),
        ({"music_input": "https://x/a.wav"}, ["music_input", "file:///"]),
        ({"chroma_coefficient": 2.5}, ["chroma_coefficient", "0.5 to 2"]),
        ({"beat_sync_threshold": -0.5}, ["beat_sync_threshold", "-0.5"]),
        ({"beat_sync_threshold": 60}, ["beat_sync_threshold", "from -1 to 10"]),
        ({"model_version": "fine-tuned"}, ["model_version", "fine-tuned"]),
        ({"large_chord_voca": "yes"}, ["large_chord_voca", "true or false"]),
    ],
    ids=str,
)
def test_bad_values_are_named(make, tmp_path, values, words):
    with pytest.raises(InputError) as error:
        make(**values)
    for word in words:
        assert word in str(error.value)
    assert not list(tmp_path.glob("made-*"))


def test_silence_is_refused_before_a_model_is_loaded(tmp_path):
    """Silent vocals made the whole output silent; a silent song is no song."""
    silent = audio.write(audio.Audio(torch.zeros(1, 1, 4 * 32000), 32000), tmp_path / "silent.wav")
    with pytest.raises(InputError, match="'music_input' cannot be heard: .*silent"):
        predict(version="remixer", prompt="x", music_input=str(silent), model="no/such", out=tmp_path / "a.wav")


def test_a_song_without_a_pulse_is_made_and_the_log_says_that_it_is_not_aligned(make, tmp_path, caplog):
    t = torch.arange(4 * 32000) / 32000
    organ = sum(torch.sin(2 * torch.pi * 261.63 * 2 ** (k / 12) * t) for k in (0, 4, 7)) / 6 * (t / 2).clamp(max=1)
    clip = audio.write(audio.Audio(organ[None, None], 32000), tmp_path / "organ.wav")
    made = make(music_input=str(clip), return_instrumental=True)
    assert "not aligned" in caplog.text and all(abs(audio.read(file).duration_s - 4) < 0.1 for file in made.files)


def test_without_weights_of_demucs_they_are_named_and_no_file_is_left(chord_toy, music, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    out = tmp_path / "a.wav"
    with pytest.raises((CheckpointError, DependencyError), match="demucs"):
        predict(
            version="remixer",
            prompt="x",
            music_input=music,
            model=chord_toy,
            models_dir=tmp_path,
            out=out,
            device="cpu",
        )
    assert not out.exists()
