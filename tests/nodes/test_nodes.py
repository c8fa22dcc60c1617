"""The nodes without ComfyUI: what each hands to the engine, what it gives back, what it refuses."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen.audio import Audio, read
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import CheckpointError, InputError
from comfyui_musicgen.musicgen.pipeline import LanguageModel
from comfyui_musicgen.nodes import host, sockets
from torch import nn


def defaults(node_id):
    """Widget name -> its default."""
    types = NODES[node_id].INPUT_TYPES()
    inputs = {**types["required"], **types.get("optional", {})}
    return {name: options["default"] for name, (_, options) in inputs.items() if "default" in options}


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """A fake folder_paths over a temporary folder."""

    def save_path(prefix, output_dir):
        sub, name = prefix.rpartition("/")[::2]
        folder = Path(output_dir) / sub
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder), name, 1 + len(list(folder.glob(f"{name}_*_.*"))), sub, prefix

    module = SimpleNamespace(
        models_dir=str(tmp_path / "models"),
        folder_names_and_paths={"text_encoders": ([str(tmp_path / "models/text_encoders")], {".safetensors"})},
        get_output_directory=lambda: str(tmp_path / "output"),
        get_save_image_path=save_path,
    )

    def add(name, path):
        module.folder_names_and_paths.setdefault(name, ([], set()))[0].append(path)

    module.add_model_folder_path = add
    module.get_folder_paths = lambda name: list(module.folder_names_and_paths[name][0])
    (tmp_path / "output").mkdir()
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    host.register_model_folder()
    return module


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_audio_of_any_kind_is_taken_at_its_own_rate(dtype, channels):
    waveform = torch.rand(3, channels, 100).to(dtype)
    audio = sockets.audio_in({"waveform": waveform, "sample_rate": 44100, "more": 1})
    assert audio.samples.dtype == torch.float32
    assert (audio.samples.shape, audio.rate_hz) == ((3, channels, 100), 44100)
    torch.testing.assert_close(audio.samples, waveform.float())


def test_audio_goes_out_whole_and_contiguous():
    out = sockets.audio_out(Audio(torch.rand(2, 4, 50)[:, ::2], 32000))
    assert out["waveform"].is_contiguous() and out["waveform"].dtype == torch.float32
    assert out["waveform"].shape == (2, 2, 50) and out["sample_rate"] == 32000


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "carries no sound"),
        ({"waveform": torch.zeros(1, 1, 8)}, "sample_rate"),
        ("a.wav", "must be AUDIO"),
        ({"waveform": [[0.0]], "sample_rate": 8000}, "must be a tensor"),
        ({"waveform": torch.zeros(1, 2, 0), "sample_rate": 8000}, "empty"),
        ({"waveform": torch.full((1, 1, 4), float("nan")), "sample_rate": 8000}, "NaN"),
        ({"waveform": torch.zeros(1, 9, 4), "sample_rate": 8000}, "channels"),
        ({"waveform": torch.zeros(4), "sample_rate": 8000}, "shape"),
    ],
)
def test_unusable_audio_is_refused_by_the_input_s_name(value, said):
    with pytest.raises(InputError, match="'audio'") as caught:
        sockets.audio_in(value)
    assert said in str(caught.value)


# The nodes at work, with an engine that notes what it is asked


class Engine(nn.Module):
    """Stands in for all three models; remembers calls."""

    config = SimpleNamespace(name="fake")

    def __init__(self):
        super().__init__()
        self.calls = []

    def encode_text(self, texts):
        self.calls.append(("encode_text", texts))
        return "conditioning of " + texts[0]

    def warning(self, text):
        return None

    def memory_bytes(self, params, conditioning):
        return 0

    def generate(self, conditioning, params, prompt=None, negative=None, on_step=None, on_redraw=None, on_frames=None):
        self.calls.append(("generate", conditioning, params, prompt, negative))
        on_step(1, 1)
        return Codes(torch.zeros(1, 4, 5, dtype=torch.long), 50.0, "fake")

    def encode(self, audio, on_step=None):
        self.calls.append(("encode", audio))
        return Codes(torch.zeros(len(audio.samples), 4, 5, dtype=torch.long), 50.0, "fake")

    def decode(self, codes, on_step=None):
        return Audio(torch.zeros(len(codes.codes), 2, 640 * codes.n_frames), 32000)


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def managed(engine):
    return host.Managed(engine, "model")


def call(node_id, **inputs):
    node = NODES[node_id]()
    return getattr(node, node.FUNCTION)(**inputs)


def test_text_becomes_one_row(engine, managed):
    assert call("MusicGenText", conditioner=managed, text="calm piano") == ("conditioning of calm piano",)
    assert engine.calls == [("encode_text", ["calm piano"])]


def test_tempo_and_meter_are_told_behind_the_text(engine, managed):
    call("MusicGenText", conditioner=managed, text="calm piano", bpm=92.5, meter="3/4")
    call("MusicGenText", conditioner=managed, text="", bpm=120, meter="")
    assert engine.calls == [("encode_text", ["calm piano, 3/4, bpm : 92.5"]), ("encode_text", ["120.0"])]
    for wrong in ({"bpm": 5.0}, {"bpm": 92.0, "meter": "7/0"}):
        with pytest.raises(InputError, match="'bpm'|'meter'"):
            call("MusicGenText", conditioner=managed, text="x", **wrong)


def test_sampler_takes_a_length_in_bars_in_place_of_seconds(engine, managed):
    call(
        "MusicGenSampler",
        model=managed,
        positive="p",
        **defaults("MusicGenSampler") | {"length": "2 bars @ 120 in 3/4"},
    )
    assert engine.calls == [("generate", "p", GenerationParams(duration_s=3.0), None, None)]
    validate = NODES["MusicGenSampler"].VALIDATE_INPUTS
    assert validate(duration_s=8.0, length="8 bars @ 92") is True and validate(duration_s=8.0, length="") is True
    assert "names no tempo" in validate(duration_s=8.0, length="8 bars")
    with pytest.raises(InputError, match="names no tempo"):  # a wire's, which is not validated
        call("MusicGenSampler", model=managed, positive="p", **defaults("MusicGenSampler") | {"length": "8 bars"})


def test_sampler_hands_every_widget_over(engine, managed):
    widgets = {
        "duration_s": 2.5, "seed": 2**64 - 1, "top_k": 3, "top_p": 0.5, "temperature": 0.25, "cfg": 4.0,
        "batch_size": 6, "extend_stride_s": 7.0,
    }  # fmt: skip
    prompt = Codes(torch.zeros(1, 4, 5, dtype=torch.long), 50.0, "fake")
    (codes,) = call("MusicGenSampler", model=managed, positive="p", prompt=prompt, negative="n", **widgets)
    assert codes.codes.shape == (1, 4, 5)
    assert engine.calls == [("generate", "p", GenerationParams(**widgets), prompt, "n")]


def test_sampler_s_defaults_are_the_engine_s(engine, managed):
    widgets = defaults("MusicGenSampler")
    call("MusicGenSampler", model=managed, positive="p", **widgets)
    assert engine.calls == [("generate", "p", GenerationParams(), None, None)]


@pytest.mark.parametrize("duration_s", [0.0, -1.0, 3601.0, float("nan"), float("inf")])
def test_absurd_durations_are_refused_before_anything_runs(duration_s):
    message = NODES["MusicGenSampler"].VALIDATE_INPUTS(duration_s=duration_s)
    assert "0.1 to 3600 seconds" in message


def test_encode_and_decode(engine, managed):
    audio = {"waveform": torch.rand(2, 2, 500), "sample_rate": 44100}
    (codes,) = call("MusicGenEncode", codec=managed, audio=audio)
    assert engine.calls[0][1].rate_hz == 44100, "converting is the codec's business"
    sound, _ = call("MusicGenDecode", codec=managed, codes=codes)
    assert sound["waveform"].shape == (2, 2, 3200) and sound["sample_rate"] == 32000


def test_trim_keeps_rate_and_channels_and_leaves_its_input_alone():
    waveform = torch.rand(2, 3, 10000)
    before = waveform.clone()
    (cut,) = call("MusicGenTrimAudio", audio={"waveform": waveform, "sample_rate": 1000}, start_s=2.0, end_s=-1.0)
    torch.testing.assert_close(cut["waveform"], before[..., 2000:])
    assert cut["sample_rate"] == 1000
    cut["waveform"].zero_()
    torch.testing.assert_close(waveform, before)


@pytest.mark.parametrize(("start_s", "end_s"), [(5.0, 4.0), (1.0, 1.0), (float("nan"), -1.0), (0.0, float("nan"))])
def test_trim_refuses_an_empty_stretch_before_anything_runs(start_s, end_s):
    message = NODES["MusicGenTrimAudio"].VALIDATE_INPUTS(start_s=start_s, end_s=end_s)
    assert isinstance(message, str) and "start_s" in message


@pytest.mark.parametrize("strategy", ["loudness", "clip", "peak", "rms"])
def test_normalize_leaves_its_input_alone(strategy):
    waveform = 0.1 * torch.rand(2, 2, 16000)
    before = waveform.clone()
    (out,) = call("MusicGenNormalize", audio={"waveform": waveform, "sample_rate": 16000}, strategy=strategy)
    assert out["waveform"].shape == waveform.shape and out["sample_rate"] == 16000
    torch.testing.assert_close(waveform, before)


def test_peak_headroom_is_in_decibels():
    audio = {"waveform": 0.1 * torch.rand(1, 1, 1000), "sample_rate": 16000}
    (out,) = call("MusicGenNormalize", audio=audio, strategy="peak", peak_headroom_db=6.0)
    assert out["waveform"].abs().max().item() == pytest.approx(10 ** (-6 / 20), rel=1e-3)


# Saving


def test_each_item_of_a_batch_gets_a_file(folders, tmp_path):
    audio = {"waveform": 0.5 * torch.rand(2, 2, 3200) - 0.25, "sample_rate": 32000}
    reply = call("MusicGenSaveAudio", audio=audio, filename_prefix="audio/take", format="wav", prompt={"1": {}})
    assert [item["filename"] for item in reply["ui"]["audio"]] == ["take_00001_.wav", "take_00002_.wav"]
    assert all(item["subfolder"] == "audio" and item["type"] == "output" for item in reply["ui"]["audio"])
    assert reply["result"][0] is audio
    for i in range(2):
        saved = read(tmp_path / "output" / "audio" / f"take_0000{i + 1}_.wav")
        torch.testing.assert_close(saved.samples[0], audio["waveform"][i], atol=2e-4, rtol=0)
    sidecar = json.loads((tmp_path / "output" / "audio" / "take_00001_.wav.json").read_text())
    assert sidecar == {"prompt": {"1": {}}}


@pytest.mark.parametrize(
    "prefix", ["../../x", "", "  ", ".", "audio/../..", "/etc/x" if sys.platform != "win32" else "C:/x"]
)
def test_nothing_is_saved_outside_the_output_folder(folders, tmp_path, prefix):
    audio = {"waveform": torch.zeros(1, 1, 100), "sample_rate": 8000}
    with pytest.raises(InputError, match="filename_prefix"):
        call("MusicGenSaveAudio", audio=audio, filename_prefix=prefix, format="wav")
    assert not list(tmp_path.rglob("*.wav"))


def test_unusable_audio_leaves_no_file(folders, tmp_path):
    audio = {"waveform": torch.zeros(1, 3, 100), "sample_rate": 8000}
    with pytest.raises(InputError, match="channels"):
        call("MusicGenSaveAudio", audio=audio, filename_prefix="x", format="mp3")
    assert not [path for path in (tmp_path / "output").rglob("*") if path.is_file()]


# Models and folders


def test_model_folder_is_added_beside_the_user_s_own(folders):
    folders.folder_names_and_paths["musicgen"] = (["/elsewhere"], {".ckpt"})
    host.register_model_folder()
    paths, suffixes = folders.folder_names_and_paths["musicgen"]
    assert paths == ["/elsewhere", str(Path(folders.models_dir) / "musicgen")]
    assert {".ckpt", ".safetensors", ".bin"} <= suffixes


class Views(dict):
    """As folder_names_and_paths of hiddenswitch/ComfyUI: what is read are views, and setting a name ends them first."""

    def _view(self, name, at):
        yield from dict.get(self, name, ((), ()))[at]

    def __getitem__(self, name):
        return self._view(name, 0), self._view(name, 1)

    def get(self, name):
        return None if name not in self else (self._view(name, 0), self._view(name, 1))

    def __setitem__(self, name, value):
        self.pop(name, None)
        super().__setitem__(name, tuple(map(list, value)))


@pytest.mark.parametrize("own", [[], ["/elsewhere"]])
def test_model_folder_is_added_where_its_names_are_views(folders, own):
    """It was lost in hiddenswitch/ComfyUI: no model was found there."""
    folders.folder_names_and_paths = Views({"musicgen": (own, [".ckpt"])} if own else {})
    host.register_model_folder()
    paths, suffixes = dict.get(folders.folder_names_and_paths, "musicgen")
    assert paths == [*own, str(Path(folders.models_dir) / "musicgen")]
    assert {*([".ckpt"] if own else []), ".safetensors", ".bin"} <= set(suffixes)


def test_loader_lists_what_is_there_first_then_the_published_names(folders, toys, tmp_path):
    link = Path(folders.models_dir) / "musicgen" / "zz-mine"
    link.parent.mkdir(parents=True)
    link.symlink_to(toys(), target_is_directory=True)
    names, options = NODES["MusicGenLoader"].INPUT_TYPES()["required"]["model"]
    assert names[:3] == ["general-mini", "pansori-mini", "zz-mine"] and options["default"] == "zz-mine"
    assert "facebook/musicgen-small" in names
    link.unlink()
    assert NODES["MusicGenLoader"].INPUT_TYPES()["required"]["model"][1]["default"] == "general-mini"


def test_vanished_model_is_reported_before_anything_runs(folders, monkeypatch):
    loader = NODES["MusicGenLoader"]
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert loader.VALIDATE_INPUTS(model="facebook/musicgen-small") is True, "it will be downloaded"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = loader.VALIDATE_INPUTS(model="facebook/musicgen-small")
    assert "https://huggingface.co/facebook/musicgen-small" in message and "models/musicgen" in message
    assert "no model 'gone'" in loader.VALIDATE_INPUTS(model="gone")
    assert loader.IS_CHANGED(model="gone") != loader.IS_CHANGED(model="gone"), "never taken from the cache"
    with pytest.raises(CheckpointError, match="gone"):
        call("MusicGenLoader", model="gone", precision="auto")


def test_replaced_checkpoint_is_loaded_again(folders, toys):
    folder = Path(folders.models_dir) / "musicgen" / "mine"
    folder.mkdir(parents=True)
    for path in toys().iterdir():
        (folder / path.name).symlink_to(path) if path.is_dir() else (folder / path.name).write_bytes(path.read_bytes())
    is_changed = NODES["MusicGenLoader"].IS_CHANGED
    first = is_changed(model="mine", precision="auto", engine="native")
    assert first == is_changed(model="mine", precision="int8", engine="native")
    file = next(path for path in folder.iterdir() if path.is_file())
    file.write_bytes(file.read_bytes() + b" ")
    assert is_changed(model="mine") != first


def test_loader_gives_three_models_that_work_on_the_cpu(folders, toys):
    link = Path(folders.models_dir) / "musicgen" / "mine"
    link.parent.mkdir(parents=True)
    link.symlink_to(toys(), target_is_directory=True)
    model, conditioner, codec = call("MusicGenLoader", model="mine", precision="auto")
    assert isinstance(model.module, LanguageModel)
    (conditioning,) = call("MusicGenText", conditioner=conditioner, text="calm piano")
    widgets = defaults("MusicGenSampler")
    (codes,) = call("MusicGenSampler", model=model, positive=conditioning, **{**widgets, "duration_s": 0.5})
    audio, _ = call("MusicGenDecode", codec=codec, codes=codes)
    assert audio["waveform"].shape == (1, 1, 16000)


def test_audiocraft_engine_refuses_a_precision(folders, toys):
    link = Path(folders.models_dir) / "musicgen" / "mine"
    link.parent.mkdir(parents=True)
    link.symlink_to(toys(), target_is_directory=True)
    with pytest.raises(InputError, match="'precision'"):
        call("MusicGenLoader", model="mine", precision="int8", engine="audiocraft")


@pytest.mark.parametrize(("bit_depth", "bits"), [("16", 16), ("24", 24), ("32 float", 32)])
def test_wav_is_saved_as_deep_as_asked(folders, bit_depth, bits):
    sound = {"waveform": torch.tensor([[[0.1, -0.2, 0.300001] * 100]]), "sample_rate": 32000}
    shown = NODES["MusicGenSaveAudio"]().save(sound, "deep", "wav", bit_depth)
    (item,) = shown["ui"]["audio"]
    file = Path(folders.get_output_directory()) / item["subfolder"] / item["filename"]
    assert int.from_bytes(file.read_bytes()[34:36], "little") == bits
    torch.testing.assert_close(
        read(file).samples, sound["waveform"], atol=2.0 ** -(bits - 2) if bits < 32 else 0, rtol=0
    )


def test_flac_has_no_float(folders):
    sound = {"waveform": torch.full((1, 1, 300), 0.1), "sample_rate": 32000}
    with pytest.raises(InputError, match=r"flac.*s16|flac.*16"):
        NODES["MusicGenSaveAudio"]().save(sound, "deep", "flac", "32 float")
