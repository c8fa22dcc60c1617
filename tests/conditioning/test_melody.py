"""Melody: chroma, stems and prefix equal audiocraft's, and so do the codes."""

import random
import sys
from fractions import Fraction

import pytest
import torch
from comfyui_musicgen.musicgen import loading, separation
from comfyui_musicgen.musicgen.audio import Audio, convert
from comfyui_musicgen.musicgen.conditioning import stems
from comfyui_musicgen.musicgen.conditioning.chroma import _filterbank, chroma, tiled
from comfyui_musicgen.musicgen.config import GenerationParams, MelodyConfig
from comfyui_musicgen.musicgen.errors import CheckpointError, DependencyError, InputError

TEXT = "a haegeum over soft drums"
CONFIG = MelodyConfig()


def tune(seconds=4.0, rate_hz=32000, channels=1, seed=0):
    """A walk over the notes of a scale, with overtones and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    n_notes = max(1, int(seconds * 3))
    notes = torch.randint(0, 24, (n_notes,), generator=generator).repeat_interleave(
        int(seconds * rate_hz / n_notes) + 1
    )
    frequency = 130.8 * 2 ** (notes[: int(seconds * rate_hz)] / 12)
    phase = 2 * torch.pi * (frequency / rate_hz).cumsum(0)
    wave = sum((phase * (k + 1)).sin() / (k + 1) for k in range(4))
    noise = torch.randn(channels, len(wave), generator=generator)
    return Audio((0.2 * wave + 0.01 * noise)[None], rate_hz)


def theirs_chroma(samples, rate_hz=32000):
    from audiocraft.modules.chroma import ChromaExtractor

    return ChromaExtractor(rate_hz, n_chroma=12, radix2_exp=14, argmax=True)(samples[None])[0]


@pytest.mark.parametrize("rate_hz", [16000, 32000, 48000])
def test_filterbank_equals_librosas(rate_hz):
    librosa = pytest.importorskip("librosa")
    theirs = torch.from_numpy(librosa.filters.chroma(sr=rate_hz, n_fft=16384, tuning=0, n_chroma=12))
    torch.testing.assert_close(_filterbank(rate_hz, 16384, 12), theirs, atol=1e-7, rtol=0)


@pytest.mark.parametrize("n_samples", [1, 1000, 16383, 16384, 20001, 320000])
def test_chroma_equals_audiocrafts(audiocraft, n_samples):
    samples = tune(10).samples[0, 0, :n_samples]
    torch.testing.assert_close(chroma(samples, 32000, CONFIG), theirs_chroma(samples), atol=1e-5, rtol=0)


def test_silence_falls_on_the_first_bin(audiocraft):
    silence = torch.zeros(40000)
    assert torch.equal(chroma(silence, 32000, CONFIG), theirs_chroma(silence))
    assert chroma(silence, 32000, CONFIG).argmax(-1).eq(0).all()


def test_stopping_early_changes_no_frame():
    samples = tune(20).samples[0, 0]
    frames = chroma(samples, 32000, CONFIG)
    for n_frames in (1, 5, 40, len(frames), 10**6):
        assert torch.equal(chroma(samples, 32000, CONFIG, n_frames), frames[:n_frames])


def test_a_scale_is_heard_as_its_pitch_classes():
    t = torch.arange(32000) / 32000
    for semitone in range(12):
        wave = torch.sin(2 * torch.pi * 261.63 * 2 ** (semitone / 12) * t)
        assert chroma(wave, 32000, CONFIG)[2:-2].argmax(-1).eq(semitone).all()


def test_tiling_repeats_from_the_start():
    assert tiled(torch.arange(3), 8).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert tiled(torch.arange(9), 4).tolist() == [0, 1, 2, 3]


# Codes


@pytest.fixture(scope="module")
def engines(audiocraft, toys):
    """Factory: our melody toy, and audiocraft's MusicGen with the same weights and no stem separation."""
    from comfyui_musicgen.reference import audiocraft as reference

    loaded = {}

    def load(stereo):
        if stereo not in loaded:
            folder = toys(melody=True, stereo=stereo)
            theirs = reference.load(folder)
            loaded[stereo] = loading.load(folder, "float32"), theirs
        return loaded[stereo]

    return load


def both(engines, stereo, melody, params, prompt=None):
    loaded, theirs = engines(stereo)
    positive = loaded.conditioner.encode_text([TEXT])
    positive = loaded.conditioner.encode_melody(positive, melody, "off")
    codes = None if prompt is None else loaded.codec.encode(prompt)
    ours = loaded.model.generate(positive, params, codes)

    theirs = theirs.model._musicgen
    wide = convert(melody, 32000, 2 if stereo else 1)
    theirs.set_generation_params(
        duration=params.duration_s, top_k=params.top_k, cfg_coef=params.cfg, extend_stride=params.extend_stride_s
    )
    attributes, _ = theirs._prepare_tokens_and_attributes([TEXT], None, [wide.samples[0]])
    torch.manual_seed(params.seed)
    expected = theirs._generate_tokens(attributes, None if codes is None else codes.codes)
    return ours.codes, expected


@pytest.mark.parametrize("stereo", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "melody",
    [tune(4), tune(2.5, 44100, 2), tune(0.3, 16000), tune(33, 48000, 2)],
    ids=["4 s", "44.1 kHz stereo", "short, 16 kHz", "longer than the window, 48 kHz stereo"],
)
def test_codes_with_a_melody_are_equal(engines, stereo, melody):
    ours, expected = both(engines, stereo, melody, GenerationParams(duration_s=3, seed=21))
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("stereo", [False, True])
def test_codes_with_melody_and_continuation_are_equal(engines, stereo):
    params = GenerationParams(duration_s=4, seed=2)
    ours, expected = both(engines, stereo, tune(5), params, tune(2, 44100, 2, seed=8))
    assert torch.equal(ours, expected)


@pytest.mark.slow
def test_codes_of_a_long_piece_with_melody_are_equal(engines):
    params = GenerationParams(duration_s=45, seed=4, extend_stride_s=18)
    ours, expected = both(engines, False, tune(7), params)
    assert ours.shape[-1] == 2250 and torch.equal(ours, expected)


def test_the_melody_is_followed_around(toys):
    loaded = loading.load(toys(melody=True))
    positive = loaded.conditioner.encode_melody(loaded.conditioner.encode_text([""]), tune(7), "off")
    windows = [positive.melody.chroma(start) for start in (0.0, 7.0, 18.0)]
    assert torch.equal(windows[0], windows[1])
    assert not torch.equal(windows[0], windows[2])


def test_another_melody_makes_other_music_and_none_is_the_null(toys):
    loaded = loading.load(toys(melody=True))
    text = loaded.conditioner.encode_text([TEXT])
    params = GenerationParams(duration_s=1, seed=1)
    results = [
        loaded.model.generate(loaded.conditioner.encode_melody(text, tune(3, seed=seed), "off"), params).codes
        for seed in (0, 1)
    ]
    plain = loaded.model.generate(text, params).codes
    assert not torch.equal(results[0], results[1]) and not torch.equal(results[0], plain)
    silent = loaded.conditioner.encode_melody(text, Audio(torch.zeros(1, 1, 32000), 32000), "off")
    assert torch.equal(loaded.model.generate(silent, params).codes, plain)


def test_a_model_without_melody_says_so(toys):
    loaded = loading.load(toys())
    with pytest.raises(InputError, match="no melody conditioning.*melody checkpoint"):
        loaded.conditioner.encode_melody(loaded.conditioner.encode_text([TEXT]), tune(1), "off")


def test_a_batch_is_no_melody(toys):
    loaded = loading.load(toys(melody=True))
    with pytest.raises(InputError, match="2 clips"):
        loaded.conditioner.encode_melody(loaded.conditioner.encode_text([TEXT]), Audio(torch.zeros(2, 1, 99), 32000))


def test_the_audiocraft_engine_takes_melodies_too(engines):
    params = GenerationParams(duration_s=2, seed=6, batch_size=2)
    codes = []
    for engine in engines(True):
        positive = engine.conditioner.encode_melody(engine.conditioner.encode_text([TEXT]), tune(3, 44100, 2), "off")
        codes.append(engine.model.generate(positive, params).codes)
    assert torch.equal(*codes)


# Stems


@pytest.fixture(scope="module")
def demucs():
    pytest.importorskip("demucs.htdemucs", reason="demucs is not installed")
    from demucs.htdemucs import HTDemucs

    torch.manual_seed(0)
    return HTDemucs(
        sources=["drums", "bass", "other", "vocals"],
        channels=8,
        depth=4,
        bottom_channels=32,
        t_layers=1,
        segment=Fraction(39, 5),
    ).eval()


@pytest.fixture(scope="module")
def demucs_file(demucs, tmp_path_factory):
    from demucs.htdemucs import HTDemucs

    args, kwargs = demucs._init_args_kwargs
    package = {"klass": HTDemucs, "args": args, "kwargs": kwargs, "state": demucs.state_dict(), "training_args": {}}
    folder = tmp_path_factory.mktemp("demucs")
    torch.save(package, folder / separation.WEIGHTS)
    return folder


def test_stems_and_their_chroma_equal_audiocrafts(audiocraft, demucs, monkeypatch):
    from audiocraft.modules.conditioners import ChromaStemConditioner
    from demucs import pretrained
    from demucs.apply import BagOfModels

    monkeypatch.setattr(pretrained, "get_model", lambda name: BagOfModels([demucs]))
    theirs = ChromaStemConditioner(
        output_dim=32, sample_rate=32000, n_chroma=12, radix2_exp=14, duration=30, match_len_on_eval=True, argmax=True
    )
    theirs.eval()
    mix = tune(9, 32000)
    random.seed(0)
    expected = theirs._get_stemmed_wav(mix.samples, 32000)
    ours = stems.separate(mix, demucs)
    torch.testing.assert_close(ours, expected[0, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(chroma(ours, 32000, CONFIG), theirs._extract_chroma(expected)[0], atol=1e-5, rtol=0)


def test_separation_leaves_pythons_random_state_alone(demucs):
    state = random.getstate()
    stems.separate(tune(1), demucs)
    assert random.getstate() == state


def test_separation_can_be_stopped(demucs):
    calls = []

    class Stop(Exception):
        pass

    def on_step():
        calls.append(1)
        if len(calls) == 5:
            raise Stop

    with pytest.raises(Stop):
        stems.separate(tune(1), demucs, on_step)
    assert not any(module._forward_pre_hooks for module in demucs.modules())


def test_auto_uses_demucs_where_it_is(demucs, demucs_file, caplog):
    caplog.set_level("INFO")
    cpu, mix = torch.device("cpu"), tune(1)
    separated = stems.melodic_part(mix, "auto", 32000, [demucs_file], cpu)
    assert "separated by demucs" in caplog.text
    assert torch.equal(separated, stems.melodic_part(mix, "demucs", 32000, [demucs_file], cpu))
    assert torch.equal(stems.melodic_part(mix, "off", 32000, [demucs_file], cpu), mix.samples[0, 0])


def test_without_weights_auto_takes_the_mix_and_demucs_refuses(tmp_path, caplog, monkeypatch):
    pytest.importorskip("demucs.htdemucs", reason="demucs is not installed")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    caplog.set_level("INFO")
    mix = tune(1)
    assert torch.equal(stems.melodic_part(mix, "auto", 32000, [tmp_path], torch.device("cpu")), mix.samples[0, 0])
    assert "whole mix" in caplog.text
    with pytest.raises(CheckpointError, match=f"{separation.WEIGHTS}.*https://.*off"):
        stems.melodic_part(mix, "demucs", 32000, [tmp_path], torch.device("cpu"))


def test_without_demucs_auto_takes_the_mix_and_demucs_refuses(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "demucs", None)
    monkeypatch.setitem(sys.modules, "demucs.htdemucs", None)
    mix = tune(1)
    assert torch.equal(stems.melodic_part(mix, "auto", 32000, [tmp_path], torch.device("cpu")), mix.samples[0, 0])
    with pytest.raises(DependencyError, match="pip install demucs"):
        stems.melodic_part(mix, "demucs", 32000, [tmp_path], torch.device("cpu"))


def test_damaged_and_hostile_weights_are_refused(demucs_file, tmp_path):
    pytest.importorskip("demucs.htdemucs", reason="demucs is not installed")
    good = (demucs_file / separation.WEIGHTS).read_bytes()
    for content in (
        b"",
        b"hello",
        good[: len(good) // 2],
        b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR.",
    ):
        (tmp_path / separation.WEIGHTS).write_bytes(content)
        with pytest.raises(CheckpointError, match="not a usable file"):
            separation.load_separator([tmp_path])
    assert not (tmp_path / "owned").exists()
