"""MusicGen Takes and Seamless Loop without ComfyUI: files, what the page is told, what goes on, what is refused."""

import sys
from types import SimpleNamespace

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.audio import read
from comfyui_musicgen.musicgen.codes import Codes, Origin
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.nodes import host, takes

RATE = 16000


@pytest.fixture
def temp(monkeypatch, tmp_path):
    """ComfyUI's temp folder."""
    module = SimpleNamespace(get_temp_directory=lambda: str(tmp_path / "temp"))
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    return tmp_path / "temp" / "musicgen_takes"


def audio(n_takes=3, seconds=1.0, silent=(), seed=0):
    waveform = 0.2 * torch.randn(n_takes, 1, int(seconds * RATE), generator=torch.Generator().manual_seed(seed))
    waveform[list(silent)] = 0
    return {"waveform": waveform.clamp(-1, 1), "sample_rate": RATE}


def codes(n_takes=3, n_frames=50):
    origins = tuple(Origin(2**60 + row, f"text {row}, 90 bpm") for row in range(n_takes))
    return Codes(torch.randint(0, 1000, (n_takes, 4, n_frames)), 50.0, "fake", origins)


def show(sounds, choose="best", node=None, unique_id="7", **inputs):
    node = node or NODES["MusicGenTakes"]()
    wired = {name: value if isinstance(value, list) else [value] for name, value in inputs.items()}
    sounds = sounds if isinstance(sounds, list) else [sounds]
    reply = node.show(audio=sounds, choose=[choose], unique_id=[unique_id], **wired)
    return reply["ui"]["takes"], *reply["result"]


def test_each_take_has_a_file_and_its_measures(temp):
    sounds = audio(silent=[0])
    shown, _, _ = show(sounds, codes=codes())
    assert [take["number"] for take in shown] == [1, 2, 3] and sorted(take["rank"] for take in shown) == [1, 2, 3]
    assert shown[0]["silent"] and shown[0]["rank"] == 3, "a silent take is last"
    assert shown[1]["seed"] == str(2**60 + 1), "JavaScript's numbers would round it"
    assert shown[1]["text"] == "text 1, 90 bpm" and shown[1]["asked_bpm"] == 90
    for row, take in enumerate(shown):
        assert (take["subfolder"], take["type"]) == ("musicgen_takes", "temp") and len(take["peaks"]) == 200
        saved = read(temp / take["filename"]).samples
        torch.testing.assert_close(saved[0], sounds["waveform"][row], atol=1e-4, rtol=0)


def test_temp_holds_what_is_shown_and_no_more(temp):
    node = NODES["MusicGenTakes"]()
    show(audio(4), node=node)
    show(audio(2, seed=1), unique_id="71")
    first = {path.name for path in temp.iterdir()}
    shown, _, _ = show(audio(2, seed=2), node=node)
    names = {path.name for path in temp.iterdir()}
    assert len(first) == 6 and len(names) == 4 and {take["filename"] for take in shown} < names
    assert {name for name in first if name.startswith("71_")} < names, "those of another node stay"


@pytest.mark.parametrize(("choose", "rows"), [("all", [0, 1, 2]), ("2", [1]), ("3,1", [2, 0]), ("best 3", None)])
def test_what_is_chosen_goes_on_with_its_codes(temp, choose, rows):
    sounds, written = audio(), codes()
    shown, out, chosen = show(sounds, choose, codes=written)
    rows = rows or [take["number"] - 1 for take in sorted(shown, key=lambda take: take["rank"])]
    assert torch.equal(out[0]["waveform"], sounds["waveform"][rows]) and len(out) == len(chosen) == 1
    assert torch.equal(chosen[0].codes, written.codes[rows])
    assert chosen[0].origins == tuple(written.origins[row] for row in rows)


def test_takes_of_several_lengths_go_on_one_by_one(temp):
    sounds, written = [audio(2), audio(1, 0.5)], [codes(2), codes(1, 25)]
    _, out, chosen = show(sounds, "all", codes=written)
    assert [one["waveform"].shape[-1] for one in out] == [RATE, RATE, RATE // 2]
    assert [one.n_frames for one in chosen] == [50, 50, 25]
    _, out, chosen = show(sounds, "1,2", codes=written)
    assert [len(one["waveform"]) for one in out] == [len(one.codes) for one in chosen] == [2]


def test_another_choice_measures_nothing_anew(temp, monkeypatch):
    node, sounds = NODES["MusicGenTakes"](), audio()
    show(sounds, node=node)
    monkeypatch.setattr(takes, "measure", None)
    _, out, _ = show(sounds, "3", node=node)
    assert torch.equal(out[0]["waveform"], sounds["waveform"][2:])
    with pytest.raises(TypeError):  # measured
        show(audio(seed=5), node=node)


def test_codes_tell_their_likelihood(temp, toys):
    loaded = loading.load(toys())
    conditioning = loaded.conditioner.encode_text(["calm flute"])
    written = loaded.model.generate(conditioning, GenerationParams(duration_s=0.3, batch_size=2))
    sounds = loaded.codec.decode(written)
    audio = {"waveform": sounds.samples, "sample_rate": sounds.rate_hz}
    model = host.Managed(loaded.model, "model")
    shown, _, _ = show(audio, codes=written, model=model, positive=conditioning)
    assert all(take["likelihood"] < 0 and take["text_gain"] is not None for take in shown)
    with pytest.raises(InputError, match=r"needs 'codes', 'model' and 'positive', but codes and positive are not"):
        show(audio, model=model)
    with pytest.raises(InputError, match="positive is not connected"):
        show(audio, codes=written, model=model)


def test_without_codes_nothing_is_handed_on_in_their_place(temp):
    _, out, chosen = show(audio())
    assert len(out) == 1 and chosen is None


def test_wrong_inputs_are_told_by_name(temp):
    with pytest.raises(InputError, match="'codes' holds 2 takes and 'audio' 3"):
        show(audio(), codes=codes(2))
    with pytest.raises(InputError, match="'choose' names take 9, but there are takes 1 to 3"):
        show(audio(), "9")
    with pytest.raises(InputError, match="at most 256"):
        show(audio(257, 0.01))
    with pytest.raises(InputError, match="'codes' must be MUSICGEN_CODES, got int"):
        show(audio(), codes=3)
    assert "'choose' cannot be read" in NODES["MusicGenTakes"].VALIDATE_INPUTS(choose="loudest")
    validate = NODES["MusicGenTakes"].VALIDATE_INPUTS
    assert validate(choose="best 2") is True
    # So ComfyUI calls it for a node with INPUT_IS_LIST.
    assert validate(choose=["best 2"], input_types=[{"audio": "AUDIO"}]) is True
    assert "'choose' cannot be read" in validate(choose=["loudest"])
    assert "'audio' takes AUDIO" in validate(choose=[None], input_types=[{"audio": "IMAGE"}])


def beats(bpm, seconds):
    time = torch.arange(int(seconds * RATE)) / RATE
    phase = time % (60 / bpm)
    return {"waveform": (0.4 * torch.sin(2000 * phase) * torch.exp(-20 * phase))[None, None], "sample_rate": RATE}


def test_loop_says_whether_the_tempo_is_kept():
    node = NODES["MusicGenLoop"]()
    loop, bpm, report = node.cut(beats(100, 8), 2, 100.5, 4)
    assert bpm == pytest.approx(100, rel=0.002) and "does not keep" not in report
    assert loop["waveform"].shape[-1] == round(8 * 60 / bpm * RATE)
    _, bpm, report = node.cut(beats(100, 8), 2, 92.0, 4)
    assert bpm == pytest.approx(100, rel=0.002)
    assert "does not keep the tempo asked for: 92 bpm was asked, 100" in report and "+8." in report
