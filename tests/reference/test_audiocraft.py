"""The numbers are audiocraft's: the same codes from the same seed, through both engines, from one checkpoint."""

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import CheckpointError, DependencyError, InputError
from comfyui_musicgen.tests.toy import SOUND

TEXT = "slow pansori with a rough voice and buk drum"
CASES = {
    "top-k 250": {},
    "top-k 50, temperature 0.8": {"top_k": 50, "temperature": 0.8},
    "top-p 0.9": {"top_p": 0.9},
    "greedy": {"temperature": 0.0},
    "guidance 1": {"cfg": 1.0},
    "guidance 5": {"cfg": 5.0},
    "no text": {"text": ""},
    "continuation": {"continued": True},
}


@pytest.fixture(scope="session")
def engines(audiocraft, toys):
    """Factory: a toy loaded by this engine and by audiocraft."""
    from comfyui_musicgen.reference import audiocraft as reference

    engines = {}

    def load(**options):
        key = tuple(sorted(options.items()))
        if key not in engines:
            folder = toys(**options)
            engines[key] = loading.load(folder, "float32"), reference.load(folder)
        return engines[key]

    return load


def clip(seconds=2.0, rate_hz=44100, channels=2):
    generator = torch.Generator().manual_seed(3)
    t = torch.arange(int(seconds * rate_hz)) / rate_hz
    tone = torch.stack([torch.sin(2 * torch.pi * f * t) for f in (220.0, 331.0)[:channels]])
    return Audio((0.3 * tone + 0.02 * torch.randn(tone.shape, generator=generator))[None], rate_hz)


def layouts_and_cases():
    """Each case in mono; in stereo, whose codebooks alone differ, the others than these two are slow tests."""
    for case in CASES:
        yield "mono", case
        yield pytest.param("stereo", case, marks=() if case in ("top-k 250", "continuation") else pytest.mark.slow)


@pytest.mark.parametrize(("layout", "case"), list(layouts_and_cases()))
def test_codes_are_equal(request, engines, layout, case):
    """500 frames of the plain case, 150 of the others, or 500 of all with --slow."""
    plain = (layout, case) == ("mono", "top-k 250")
    n_frames = 500 if plain or request.config.getoption("--slow") else 150
    options = dict(CASES[case])
    text, continued = options.pop("text", TEXT), options.pop("continued", False)
    params = GenerationParams(duration_s=n_frames / 50, seed=1234, **options)
    generated = []
    for loaded in engines(stereo=layout == "stereo"):
        prompt = loaded.codec.encode(clip()) if continued else None
        generated.append(loaded.model.generate(loaded.conditioner.encode_text([text]), params, prompt))
    ours, theirs = generated
    assert ours.codes.shape == (1, 8 if layout == "stereo" else 4, n_frames)
    assert torch.equal(ours.codes, theirs.codes)
    assert ours.codec == theirs.codec
    assert len(ours.codes.unique()) > 100  # nothing degenerate is being compared


@pytest.mark.parametrize("stereo", [False, True])
def test_a_melody_models_codes_without_melody_are_equal(engines, stereo):
    params = GenerationParams(duration_s=3, seed=7)
    ours, theirs = (
        x.model.generate(x.conditioner.encode_text([TEXT]), params) for x in engines(stereo=stereo, melody=True)
    )
    assert torch.equal(ours.codes, theirs.codes)


@pytest.mark.slow
def test_windows_of_a_long_piece_are_equal(engines):
    params = GenerationParams(duration_s=33, seed=5, extend_stride_s=29)
    ours, theirs = (x.model.generate(x.conditioner.encode_text([TEXT]), params) for x in engines())
    assert ours.n_frames == 1650 and torch.equal(ours.codes, theirs.codes)


@pytest.mark.parametrize(
    ("duration_s", "stride_s"),
    [pytest.param(4, 2, id="one window"), pytest.param(12, 5, id="three windows", marks=pytest.mark.slow)],
)
def test_audiogens_codes_and_sound_are_equal(engines, duration_s, stride_s):
    ours, theirs = engines(text="t5-large", codec=SOUND, segment_s=10.0)
    params = GenerationParams(duration_s=duration_s, seed=31, extend_stride_s=stride_s)
    codes, expected = (x.model.generate(x.conditioner.encode_text(["a dog barks"]), params) for x in (ours, theirs))
    assert ours.config.codec.sample_rate_hz == 16000 and codes.n_frames == 50 * duration_s
    assert torch.equal(codes.codes, expected.codes)
    torch.testing.assert_close(ours.codec.decode(codes).samples, theirs.codec.decode(codes).samples, atol=1e-5, rtol=0)


def test_rows_of_a_batch_are_equal(engines):
    params = GenerationParams(duration_s=2, seed=5, batch_size=3)
    ours, theirs = (x.model.generate(x.conditioner.encode_text([TEXT]), params) for x in engines())
    assert torch.equal(ours.codes, theirs.codes)
    assert not torch.equal(ours.codes[0], ours.codes[1])


@pytest.mark.parametrize("stereo", [False, True])
def test_codec_is_equal(engines, stereo):
    ours, theirs = engines(stereo=stereo)
    codes = ours.codec.encode(clip(3.3))
    assert torch.equal(codes.codes, theirs.codec.encode(clip(3.3)).codes)
    torch.testing.assert_close(ours.codec.decode(codes).samples, theirs.codec.decode(codes).samples, atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("stereo", [False, True])
def test_logits_are_equal(engines, stereo):
    from audiocraft.modules.conditioners import ConditioningAttributes

    ours, theirs = engines(stereo=stereo)
    lm = theirs.model.lm
    codes = torch.randint(0, 2049, (1, lm.num_codebooks, 60), generator=torch.Generator().manual_seed(0))
    provider = lm.condition_provider
    tensors = provider(provider.tokenize([ConditioningAttributes(text={"description": TEXT})]))
    expected = lm(codes, [], tensors)
    streams = ours.model._streams(ours.conditioner.encode_text([TEXT]), None)
    torch.testing.assert_close(ours.model.lm(codes, streams), expected, atol=2e-5, rtol=0)


def test_a_stopped_run_leaves_no_cache_behind(engines):
    _, theirs = engines()

    class Stop(Exception):
        pass

    def stop(done, total):
        raise Stop

    conditioning = theirs.conditioner.encode_text([TEXT])
    with pytest.raises(Stop):
        theirs.model.generate(conditioning, GenerationParams(duration_s=2), on_step=stop)
    assert not theirs.model.lm.get_streaming_state()
    assert theirs.model.generate(conditioning, GenerationParams(duration_s=0.2)).n_frames == 10


def test_the_global_random_state_is_left_alone(engines):
    for loaded in engines():
        before = torch.get_rng_state()
        loaded.model.generate(loaded.conditioner.encode_text([TEXT]), GenerationParams(duration_s=0.2, seed=3))
        assert torch.equal(before, torch.get_rng_state())


def test_what_audiocraft_cannot_do_is_refused(engines, toys):
    ours, theirs = engines()
    conditioning = theirs.conditioner.encode_text([TEXT])
    with pytest.raises(InputError, match="negative.*native"):
        theirs.model.generate(conditioning, GenerationParams(duration_s=1), negative=conditioning)
    with pytest.raises(InputError, match="native engine"):
        theirs.model.generate(ours.conditioner.encode_text([TEXT]), GenerationParams(duration_s=1))
    with pytest.raises(InputError, match="another engine"):
        ours.model.generate(conditioning, GenerationParams(duration_s=1))
    with pytest.raises(InputError, match="another engine"):
        ours.model.memory_bytes(GenerationParams(duration_s=1), conditioning)
    from comfyui_musicgen.reference import audiocraft as reference

    with pytest.raises(CheckpointError, match="engine"):
        reference.load(toys(format="huggingface"))


def test_without_audiocraft_the_error_says_how_to_install_it(monkeypatch):
    import importlib
    import sys

    from comfyui_musicgen.reference import audiocraft as reference

    for name in [n for n in sys.modules if n.partition(".")[0] == "audiocraft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "audiocraft", None)
    importlib.invalidate_caches()
    with pytest.raises(DependencyError, match="--no-deps audiocraft==1.3.0"):
        reference.import_audiocraft()


@pytest.mark.parametrize("before", ["imported", "blocked", "absent"])
def test_what_is_imported_while_a_model_loads_stays_imported(audiocraft, toys, monkeypatch, before):
    """A library that is thrown out, as Numba was with librosa, fails when it is imported again."""
    import sys
    import types

    from comfyui_musicgen.reference import audiocraft as reference

    stem_separation, folder, seen = types.ModuleType("demucs"), toys(), []
    if before == "absent":
        monkeypatch.delitem(sys.modules, "demucs", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "demucs", stem_separation if before == "imported" else None)
    expected = sys.modules.get("demucs", "absent")

    def get_pretrained(path, device):
        seen.append(sys.modules["demucs"])
        monkeypatch.setitem(sys.modules, "imported_meanwhile", types.ModuleType("imported_meanwhile"))
        return loads(path, device=device)

    loads = audiocraft.models.MusicGen.get_pretrained
    monkeypatch.setattr(audiocraft.models.MusicGen, "get_pretrained", get_pretrained)
    reference.load(folder)
    assert "imported_meanwhile" in sys.modules and seen[0] is not stem_separation
    assert sys.modules.get("demucs", "absent") is expected
