"""The remixer's stages in a real ComfyUI: cached one by one, cancelled, separated by Demucs where it is installed."""

import json
import shutil

import pytest
import torch
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.musicgen import separation
from comfyui_musicgen.musicgen.audio import Audio, read, write
from comfyui_musicgen.tests.songs.voiced import voiced_song
from comfyui_musicgen.tests.toy.separator import small_demucs, write_separator

MODEL = "toy-remix"


@pytest.fixture(scope="module")
def remix_comfy(comfy, toys):
    """The server that all share, with a chord model and a song with its voice for the time of these tests."""
    folder = comfy.base / "models" / "musicgen" / MODEL
    shutil.copytree(toys(chords=True, n_filters=2, latent_dim=16), folder)
    voiced = voiced_song(1, 6.0)
    for name in ("song", "voice"):
        write(getattr(voiced, name), comfy.base / "input" / f"remix-{name}.flac")
    yield comfy
    shutil.rmtree(folder)


def graph(seed=1, voice_db=-2.0, threshold=0.5):
    node = lambda id, **inputs: {"class_type": id, "inputs": inputs}  # noqa: E731
    return {
        "song": node("LoadAudio", audio="remix-song.flac"),
        "voice": node("LoadAudio", audio="remix-voice.flac"),
        "load": node("MusicGenLoader", model=MODEL, precision="float32"),
        "heard": node(
            "MusicGenAnalyze", audio=["song", 0], bpm=0.0, meter=0, vocabulary="sevenths", midi_prefix="", beat_model=""
        ),
        "length": node("MusicGenLength", fps=25.0, extra_s=0.2, audio=["song", 0]),
        "text": node("MusicGenText", conditioner=["load", 1], text="calm flute", bpm=["heard", 0]),
        "chords": node(
            "MusicGenChords", conditioner=["load", 1], conditioning=["text", 0], chords="", bpm=120.0, meter="4/4", strength=1.0,
            chord_list=["heard", 5],
        ),
        "sample": node(
            "MusicGenSampler", model=["load", 0], positive=["chords", 0], duration_s=["length", 0], seed=seed, top_k=250, top_p=0.0,
            temperature=1.0, cfg=3.0, batch_size=1,
        ),
        "decode": node("MusicGenDecode", codec=["load", 2], codes=["sample", 0]),
        "again": node(
            "MusicGenAnalyze", audio=["decode", 0], bpm=["heard", 0], meter=0, vocabulary="triads", midi_prefix="", beat_model=""
        ),
        "align": node(
            "MusicGenAlign", audio=["decode", 0], beats=["again", 5], target_beats=["heard", 5], threshold_beats=threshold,
            max_stretch=1.25, like=["song", 0],
        ),
        "mix": node(
            "MusicGenMix", audio_1=["align", 0], gain_1_db=0.0, matched=True, peak_headroom_db=1.0, audio_2=["voice", 0],
            gain_2_db=voice_db,
        ),
        "save": node("MusicGenSaveAudio", audio=["mix", 0], filename_prefix="remix/x", format="wav"),
    }  # fmt: skip


def test_stages_run_again_only_behind_what_changes(remix_comfy):
    first = remix_comfy.run(graph())
    assert set(first.executed) == set(graph())
    (file,) = first.saved
    made = read(remix_comfy.path_of(file))
    assert made.n_channels == 2 and made.duration_s == pytest.approx(6.0, abs=0.01)
    louder = remix_comfy.run(graph(voice_db=0.0))
    assert set(louder.executed) == {"mix", "save"}, "no stage runs again when only the mix changes"
    assert not torch.equal(read(remix_comfy.path_of(louder.saved[0])).samples, made.samples)
    assert set(remix_comfy.run(graph(threshold=0.25)).executed) == {"align", "mix", "save"}
    other = remix_comfy.run(graph(seed=2))
    assert set(other.executed) == {"sample", "decode", "again", "align", "mix", "save"}, "the song is not heard again"


def test_chords_of_the_song_are_followed(remix_comfy):
    """Codes with and without the heard chords differ: the wire reaches the model."""
    with_chords = read(remix_comfy.path_of(remix_comfy.run(graph()).saved[0])).samples
    plain = graph()
    plain["sample"]["inputs"]["positive"] = ["text", 0]
    del plain["chords"]
    assert not torch.equal(with_chords, read(remix_comfy.path_of(remix_comfy.run(plain).saved[0])).samples)


@pytest.mark.parametrize(
    ("node", "changed", "words"),
    [
        ("chords", {"chord_list": "0 1 C\n1 2 H"}, "chord 2, 'H'"), ("align", {"beats": "1, two"}, "'beats'.*'two'"),
        ("mix", {"audio_2": ["load", 0]}, "'audio_2'.*AUDIO"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_on_its_node(remix_comfy, node, changed, words):
    prompt = graph()
    prompt[node]["inputs"].update(changed)
    with pytest.raises((client.NodeError, client.RejectedError), match=words):
        remix_comfy.run(prompt)


@pytest.fixture
def stems_comfy(remix_comfy):
    """With random weights of the real class, of a size that takes a second or two."""
    if not remix_comfy.has_module("demucs"):
        pytest.skip("demucs is not installed in ComfyUI's environment")
    folder = remix_comfy.base / "models" / "demucs"
    write_separator(small_demucs(), folder / separation.WEIGHTS)
    yield remix_comfy
    shutil.rmtree(folder)


def stems_graph(name="remix-song.flac", names=separation.NAMES):
    node = lambda id, **inputs: {"class_type": id, "inputs": inputs}  # noqa: E731
    stems = [*names, "rest"]
    return {
        "song": node("LoadAudio", audio=name),
        "stems": node("MusicGenStems", audio=["song", 0], weights=""),
        **{
            stem: node("MusicGenSaveAudio", audio=["stems", slot], filename_prefix=f"stems/{stem}", format="flac")
            for slot, stem in enumerate(stems)
        },
    }


def test_a_song_is_separated_by_demucs(stems_comfy):
    result = stems_comfy.run(stems_graph())
    files = {file["filename"].partition("_")[0]: stems_comfy.path_of(file) for file in result.saved}
    total = sum(read(file).samples for file in files.values())
    song = read(stems_comfy.base / "input" / "remix-song.flac").samples
    assert len(files) == 5 and total.shape == song.shape and (total - song).abs().max() < 1e-3


def test_weights_are_named_by_a_wire(stems_comfy):
    prompt = stems_graph()
    prompt["name"] = {"class_type": "ProbeValue", "inputs": {"kind": "json", "text": json.dumps(separation.WEIGHTS)}}
    prompt["stems"]["inputs"]["weights"] = ["name", 0]
    assert len(stems_comfy.run(prompt).saved) == 5
    prompt["name"]["inputs"]["text"] = '"../../secret"'
    with pytest.raises(client.NodeError, match="'weights' must name a file"):
        stems_comfy.run(prompt)


def test_separating_is_cancelled(stems_comfy):
    long = Audio(torch.randn(1, 2, 90 * 44100, generator=torch.Generator().manual_seed(0)) * 0.1, 44100)
    write(long, stems_comfy.base / "input" / "remix-long.flac")
    at = []

    def on_event(kind, data):
        if kind == "progress" and data.get("node") == "stems" and 0 < data["value"] < data["max"] and not at:
            at.append(data["value"])
            stems_comfy.post("/interrupt")

    with pytest.raises(client.InterruptedRunError):
        stems_comfy.run(stems_graph("remix-long.flac"), on_event=on_event)
    assert at, "the bar moved before the end"
    assert set(stems_comfy.run(stems_graph()).outputs) == {*separation.NAMES, "rest"}, "it works afterwards"
