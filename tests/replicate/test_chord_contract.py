"""The contract of musicgen-chord and musicgen-stereo-chord: fields, by Python and the command line; the original's faults mended."""

import json
import logging

import pytest
import torch
from comfyui_musicgen.clients.predict import graph
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.conditioning.chord_times import TimedChords
from comfyui_musicgen.musicgen.conditioning.chords import Progression, row_of
from comfyui_musicgen.musicgen.errors import CheckpointError, InputError
from comfyui_musicgen.musicgen.replicate import predict as predicting
from comfyui_musicgen.musicgen.replicate.contracts import CONTRACTS, ChordRequest
from comfyui_musicgen.musicgen.replicate.predict import Predictor, predict
from comfyui_musicgen.tests.toy.diffusion import TOY_UNET, write_toy_diffusion

# Section 1.1 of the study of cog-musicgen-chord, copied by hand: name -> (JSON type, default).
CONTRACT = {
    "model_version": ("string", "stereo-chord-large"),
    "prompt": ("string", None),
    "text_chords": ("string", None),
    "bpm": ("number", None),
    "time_sig": ("string", "4/4"),
    "audio_chords": ("string", None),
    "audio_start": ("integer", 0),
    "audio_end": ("integer", None),
    "duration": ("integer", 8),
    "continuation": ("boolean", False),
    "multi_band_diffusion": ("boolean", False),
    "normalization_strategy": ("string", "loudness"),
    "chroma_coefficient": ("number", 1.0),
    "top_k": ("integer", 250),
    "top_p": ("number", 0.0),
    "temperature": ("number", 1.0),
    "classifier_free_guidance": ("integer", 3),
    "output_format": ("string", "wav"),
    "seed": ("integer", None),
}
VERSIONS = ("chord", "stereo-chord")  # one predictor serves both
CHORDS = {"text_chords": "C G A:min F", "bpm": 120.0}


@pytest.mark.parametrize("version", VERSIONS)
def test_names_types_defaults_and_order_are_the_original_s(version):
    fields = CONTRACTS[version].request.fields()
    assert [(name, (field.type, field.default)) for name, field in fields.items()] == list(CONTRACT.items())
    assert fields["model_version"].choices == (
        "chord",
        "chord-large",
        "stereo-chord",
        "stereo-chord-large",
        "fine-tuned",
    )
    assert fields["normalization_strategy"].choices == ("loudness", "clip", "peak", "rms")
    assert fields["output_format"].choices == ("wav", "mp3")
    assert (fields["chroma_coefficient"].minimum, fields["chroma_coefficient"].maximum) == (0.5, 2.5)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schema_takes_what_the_request_takes(version, capsys):
    assert main(["predict", "--version", version, "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    inputs = printed["properties"]["input"]["properties"]
    assert list(inputs) == list(CONTRACT) and printed["properties"]["output"]["type"] == "string"
    for name, (kind, default) in CONTRACT.items():
        assert kind in inputs[name]["type"] and inputs[name]["default"] == default
    assert inputs["audio_chords"]["format"] == "uri"
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(printed["properties"]["input"])
    assert check.is_valid({"prompt": "x", "text_chords": "C", "bpm": 92.5, "audio_end": -1})
    for bad in (
        {"chroma_coefficient": 0.4},
        {"bpm": 0},
        {"audio_start": -1},
        {"input_audio": "x"},
        {"model_version": "melody"},
    ):
        assert not check.is_valid(bad)


@pytest.mark.parametrize("model_version", ["chord", "chord-large", "stereo-chord", "stereo-chord-large"])
def test_a_model_version_is_the_published_weights_of_its_name(model_version, monkeypatch, tmp_path):
    from comfyui_musicgen.musicgen.store import ModelStore
    from comfyui_musicgen.musicgen.store.published import ADDRESSES

    def ensure(self, name, *_):
        raise CheckpointError(f"asked for {name}")

    monkeypatch.setattr(ModelStore, "ensure", ensure)
    with pytest.raises(CheckpointError, match=f"asked for sakemin/musicgen-{model_version}$"):
        predict(version="chord", model_version=model_version, prompt="x", models_dir=tmp_path, out=tmp_path / "a.wav")
    assert f"sakemin/musicgen-{model_version}" in ADDRESSES


@pytest.mark.parametrize(
    ("prompt", "time_sig", "bpm", "text"),
    [
        ("pop", "4/4", None, "pop, 4/4"), ("pop", "3/4", 92.5, "pop, 3/4, bpm : 92.5"), ("", "4/4", 120, "4/4, bpm : 120.0"),
        ("", "", 120, "120.0"), ("pop", "", 120, "pop, bpm : 120.0"), (None, "4/4", None, "4/4"), (None, "", None, ""),
    ],
)  # fmt: skip
def test_tempo_and_meter_are_told_behind_the_prompt(told, prompt, time_sig, bpm, text):
    request = ChordRequest(prompt=prompt, time_sig=time_sig, bpm=bpm)
    assert request.text == text
    assert graph(request)["text"]["inputs"]["text"] == text
    assert told(prompt=prompt, time_sig=time_sig, bpm=bpm)[0].text == text


def test_routes_of_text_and_audio(told, recording):
    """Row by row of the table: what is continued, and whose chords are followed."""
    clip, heard = {"audio_chords": str(recording), "duration": 9}, TimedChords
    for values, has_prompt, chords in (
        ({}, False, type(None)), (CHORDS, False, Progression), (clip, False, heard),
        ({**clip, "continuation": True}, True, type(None)), ({**clip, **CHORDS, "continuation": True}, True, Progression),
    ):  # fmt: skip
        sources, params = told(prompt="pop", **{"duration": 9, **values})
        assert (sources.prompt is not None, type(sources.chords)) == (has_prompt, chords), values
        assert sources.melody is None and params.duration_s == 9
        nodes = [node["class_type"] for node in graph(ChordRequest.of({"prompt": "pop", **values})).values()]
        assert ("MusicGenEncode" in nodes, "MusicGenChords" in nodes) == (has_prompt, chords is not type(None))
    with pytest.raises(InputError, match="'text_chords' and 'audio_chords' both"):
        ChordRequest.of({**clip, **CHORDS})


FIELD_VALUES = {
    "prompt": "other words", "text_chords": "F# Bb:min7 | E", "bpm": 200.0, "time_sig": "2/4", "audio_chords": "CLIP", "audio_start": 3,
    "audio_end": 5, "duration": 2, "continuation": True, "multi_band_diffusion": True, "normalization_strategy": "rms",
    "chroma_coefficient": 2.5, "top_k": 9, "top_p": 0.4, "temperature": 0.6, "classifier_free_guidance": 2, "output_format": "mp3",
    "seed": 77, "model_version": "fine-tuned",
}  # fmt: skip


def values_of(name, recording):
    """Fields with `name` changed, and those that it needs; the same without it."""
    values = {"prompt": "pop", "duration": 1, "seed": 5, **CHORDS, "chroma_coefficient": 1.0}
    if name.startswith("audio") or name == "continuation":
        values = {"prompt": "pop", "duration": 1, "seed": 5, "chroma_coefficient": 1.0}
        values |= {"audio_chords": str(recording)} if name in ("audio_start", "audio_end") else {}
    if name == "continuation":
        values |= {"audio_chords": str(recording), "audio_end": 2, "duration": 3}
    value = str(recording) if FIELD_VALUES[name] == "CLIP" else FIELD_VALUES[name]
    return {**values, name: value}, values


# Fields of pansori too, which its own tests vary.
SHARED = {
    "prompt", "duration", "normalization_strategy", "top_k", "top_p", "temperature", "classifier_free_guidance",
    "output_format", "seed", "multi_band_diffusion",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SHARED else name for name in FIELD_VALUES]
)
def test_every_field_means_the_same_on_the_command_line_and_changes_the_music(
    chord_toy, recording, tmp_path, capsys, name
):
    models = tmp_path / "models"
    if name == "multi_band_diffusion":
        from dataclasses import replace

        from comfyui_musicgen.musicgen.store.published import DIFFUSION_MODEL

        write_toy_diffusion(models / "musicgen" / DIFFUSION_MODEL, replace(TOY_UNET, hidden=4, codec_dim=16), n_bands=2)
    values, before = values_of(name, recording)
    words = [
        word
        for key, value in values.items()
        for word in (f"--{key.replace('_', '-')}", str(value).lower() if value is True else str(value))
    ]
    suffix = values.get("output_format", "wav")
    typed = tmp_path / f"typed.{suffix}"
    options = ["--version", "chord", "--model", str(chord_toy), "--models", str(models), "--device", "cpu"]
    assert main(["predict", *options, *words, "--out", str(typed)]) == 0
    assert capsys.readouterr().out.strip() == str(typed)
    common = {"version": "stereo-chord", "model": chord_toy, "models_dir": models, "device": "cpu"}
    called = predict(out=tmp_path / f"called.{suffix}", **common, **values)
    assert typed.read_bytes() == called.file.read_bytes()
    if name != "model_version":  # the same file stands for all of them
        other = predict(out=tmp_path / "other.wav", **common, **before)
        assert typed.read_bytes() != other.file.read_bytes()


def test_fields_of_another_version_are_refused(capsys):
    assert main(["predict", "--prompt", "x", "--text-chords", "C"]) == 1
    assert "'--version pansori' has no field 'text_chords'" in capsys.readouterr().err
    assert main(["predict", "--version", "chord", "--prompt", "x", "--input-audio", "a.wav"]) == 1
    assert (
        "'--version chord' has no field 'input_audio'. Its fields are model_version, prompt" in capsys.readouterr().err
    )
    with pytest.raises(
        InputError, match="'version' must be one of pansori, chord, stereo-chord, remixer, got 'chords'"
    ):
        predict(version="chords", prompt="x")


# Faults of the original


def test_seed_0_is_a_seed(make_chords):
    first, made = make_chords(seed=0)
    again, _ = make_chords(seed=0)
    assert made.seed == 0 and torch.equal(first.samples, again.samples)


def test_no_seed_is_random_and_reported(make_chords):
    first, made = make_chords(seed=-1)
    other, another = make_chords(seed=None)
    assert made.seed != another.seed
    again, _ = make_chords(seed=made.seed)
    assert torch.equal(first.samples, again.samples) and not torch.equal(first.samples, other.samples)


def test_audio_end_takes_minus_one(told, recording):
    """The schema refused it."""
    ends = [told(audio_chords=str(recording), audio_end=end)[0].chords for end in (-1, None, 8)]
    assert ends[0] == ends[1] == ends[2]


def test_an_empty_part_is_explained():
    """An equal start and end crashed."""
    for end in (3, 2):
        with pytest.raises(InputError, match=f"'audio_end' of {end} s must be later than 'audio_start' of 3 s"):
            ChordRequest(audio_chords="x", audio_start=3, audio_end=end)


def test_multi_band_diffusion_works_on_a_fresh_process_in_stereo(make_chords, tmp_path):
    """It was tested on the model of the call before: the first call crashed, and stereo was refused."""
    from dataclasses import replace

    from comfyui_musicgen.musicgen.store.published import DIFFUSION_MODEL

    write_toy_diffusion(
        tmp_path / "models" / "musicgen" / DIFFUSION_MODEL, replace(TOY_UNET, hidden=4, codec_dim=16), n_bands=2
    )
    made, _ = make_chords(multi_band_diffusion=True)
    plain, _ = make_chords()
    assert made.n_channels == 2 and not torch.equal(made.samples, plain.samples)


def test_a_model_stays_loaded(chord_toy, monkeypatch):
    """It was read from disk on every call."""
    loads, load = [], predicting.load
    monkeypatch.setattr(predicting, "load", lambda *args, **options: loads.append(args) or load(*args, **options))
    predictor = Predictor(device="cpu")
    for _ in range(2):
        predictor.audio(ChordRequest(prompt="x", duration=1, seed=1, **CHORDS), chord_toy)
    assert len(loads) == 1


def test_the_example_of_the_field_s_description_is_read():
    """Blanks around a comma made the call fail, in the very example that the field printed."""
    bars = ChordRequest(text_chords="C,C:7 G, E:min A:min", bpm=120).progression.bars
    assert bars == (("C", "C:7"), ("G", "E:min"), ("A:min",))


def test_a_bass_that_is_a_note_is_that_note():
    """It set all twelve notes."""
    progression = ChordRequest(text_chords="C/G F/C", bpm=120).progression
    assert torch.equal(progression.rows(0.0, 1, 7.8125)[0], row_of("C"))
    assert torch.equal(row_of("F/C"), row_of("F"))


def test_a_continuation_has_the_progression_from_the_clip_s_beginning(told, recording):
    sources, _ = told(audio_chords=str(recording), audio_end=2, continuation=True, duration=4, **CHORDS)
    assert sources.prompt.duration_s == 2 and sources.chords.chords()[0].start_s == 0


def test_a_clip_that_fills_the_duration_is_found_before_a_model_is_loaded(recording, tmp_path):
    with pytest.raises(InputError, match="'audio_chords' is 8 s long.*'duration'.*'audio_start' and 'audio_end'"):
        predict(
            version="chord",
            audio_chords=str(recording),
            continuation=True,
            duration=8,
            model="no/such",
            out=tmp_path / "a.wav",
        )


def test_fine_tuned_without_weights_is_explained(tmp_path):
    with pytest.raises(InputError, match="'model_version' is fine-tuned.*--model"):
        predict(version="chord", model_version="fine-tuned", prompt="x", models_dir=tmp_path)
    with pytest.raises(InputError, match="'model_version' is fine-tuned"):
        graph(ChordRequest(model_version="fine-tuned", prompt="x"))


def test_chords_that_the_music_does_not_reach_are_told_in_the_log(make_chords, caplog):
    with caplog.at_level(logging.WARNING):
        make_chords(**CHORDS)
    assert "the chords last 8 s, the music 1 s" in caplog.text


# Bad input


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"text_chords": "C"}, ["text_chords", "bpm", "missing"]),
        ({"text_chords": "C", "bpm": 0}, ["bpm", "from 20 to 400", "got 0"]),
        ({"text_chords": "C", "bpm": -120}, ["bpm", "-120"]),  # it hung
        ({"text_chords": "C", "bpm": float("nan")}, ["bpm"]),
        ({**CHORDS, "time_sig": ""}, ["text_chords", "time_sig", "missing"]),
        ({"time_sig": "7/0"}, ["time_sig", "7/0"]),
        ({"time_sig": "0/4"}, ["time_sig", "0/4"]),  # ZeroDivisionError
        ({"time_sig": "waltz"}, ["time_sig", "waltz", "3/4"]),  # ValueError, after the model was loaded
        ({"bpm": 120, "text_chords": "C Gfoo F"}, ["text_chords", "bar 2", "Gfoo", "foo"]),  # UnboundLocalError
        ({"bpm": 120, "text_chords": "C am F"}, ["text_chords", "bar 2", "'Am'"]),  # was E
        ({"bpm": 120, "text_chords": "H"}, ["text_chords", "bar 1", "'B'"]),  # was A
        ({"bpm": 120, "text_chords": "C/H"}, ["text_chords", "'H'"]),  # all twelve notes
        ({"bpm": 120, "text_chords": "N:maj"}, ["text_chords", "'N'"]),  # was G major
        ({"bpm": 120, "text_chords": "C | | G"}, ["text_chords", "bar", "empty"]),
        ({"bpm": 120, "text_chords": "C,, G"}, ["text_chords", "comma"]),
        ({"bpm": 120, "text_chords": "   "}, ["text_chords", "empty"]),
        ({"bpm": 120, "text_chords": ",".join(["C"] * 17)}, ["17 chords", "at most 15"]),  # an endless loop
        ({"continuation": True}, ["continuation", "audio_chords"]),
        ({"audio_chords": "no-such.wav"}, ["no-such.wav"]),
        ({"audio_chords": "https://x/a.wav"}, ["audio_chords", "file:///"]),
        ({"audio_start": -1, "audio_chords": "x"}, ["audio_start", "-1"]),
        ({"chroma_coefficient": 3.0}, ["chroma_coefficient", "0.5 to 2.5"]),
        ({"model_version": "melody"}, ["model_version", "stereo-chord-large", "melody"]),
        ({"duration": 0}, ["duration", "from 1 to 3600"]),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bad_values_are_named(make_chords, tmp_path, values, words):
    with pytest.raises(InputError) as error:
        make_chords(**values)
    for word in words:
        assert word in str(error.value)
    assert not list(tmp_path.glob("made-*"))


def test_a_model_without_chords_is_explained(make_chords, toys):
    with pytest.raises(InputError, match="no chord or melody conditioning"):
        make_chords(model=toys(), **CHORDS)
